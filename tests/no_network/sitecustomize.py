"""Refuse every connection that leaves this machine.

Python imports this by itself at start-up when the folder is on PYTHONPATH, so the guard also holds in what the tests
start: notebook kernels, command lines, worker processes. Nothing here runs outside the tests.
"""

from __future__ import annotations

import ipaddress
import os
import socket


class NetworkRefused(OSError):
    """A test, or something that it started, tried to reach another machine."""


def _is_here(host) -> bool:
    """Whether a host name or address is this machine's loopback (None and "" mean any of its own addresses)."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _check(sock: socket.socket, address) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
        raise NetworkRefused(f"tests do not use the network: connection to {address!r} refused")


def refuse() -> None:
    """Make connections, datagrams and name look-ups beyond the loopback raise NetworkRefused."""
    if getattr(socket, "_humanclap_guard", False):
        return
    socket._humanclap_guard = True
    for variable in ("http_proxy", "https_proxy", "all_proxy"):  # a proxy on this machine would let everything out
        os.environ.pop(variable, None)
        os.environ.pop(variable.upper(), None)

    def guard_method(name: str, place: int) -> None:
        original = getattr(socket.socket, name)

        def guarded(self, *args):
            _check(self, args[place])
            return original(self, *args)

        setattr(socket.socket, name, guarded)

    def guard_lookup(name: str) -> None:
        original = getattr(socket, name)

        def guarded(host, *args, **kwargs):
            if not _is_here(host):
                raise NetworkRefused(f"tests do not use the network: look-up of {host!r} refused")
            return original(host, *args, **kwargs)

        setattr(socket, name, guarded)

    for name, place in (("connect", 0), ("connect_ex", 0), ("sendto", -1)):
        guard_method(name, place)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        guard_lookup(name)


if os.environ.get("HUMANCLAP_NO_NETWORK") == "1":
    refuse()
