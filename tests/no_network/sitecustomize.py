"""Refuse every connection that leaves this machine.

Python imports this by itself at start-up when the folder is on PYTHONPATH, so the guard also holds in what the tests
start: notebook kernels, command lines, worker processes. Nothing here runs outside the tests.
"""

from __future__ import annotations

import os
import socket

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


class NetworkRefused(OSError):
    """A test, or something that it started, tried to reach another machine."""


def _local(sock: socket.socket, address) -> bool:
    if sock.family == getattr(socket, "AF_UNIX", None):
        return True
    host = address[0] if isinstance(address, tuple) else address
    return str(host).startswith(LOOPBACK)


def refuse() -> None:
    """Make connections and name look-ups beyond the loopback raise NetworkRefused."""
    if getattr(socket, "_humanclap_guard", False):
        return
    socket._humanclap_guard = True
    connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self, address):
        if not _local(self, address):
            raise NetworkRefused(f"tests do not use the network: connection to {address!r} refused")
        return connect(self, address)

    def guarded_connect_ex(self, address):
        if not _local(self, address):
            raise NetworkRefused(f"tests do not use the network: connection to {address!r} refused")
        return connect_ex(self, address)

    def guarded_lookup(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        if name and not str(name).startswith(LOOPBACK) and name != socket.gethostname():
            raise NetworkRefused(f"tests do not use the network: look-up of {name!r} refused")
        return lookup(host, *args, **kwargs)

    socket.socket.connect = guarded_connect
    socket.socket.connect_ex = guarded_connect_ex
    socket.getaddrinfo = guarded_lookup


if os.environ.get("HUMANCLAP_NO_NETWORK") == "1":
    refuse()
