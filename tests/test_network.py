"""The guard itself: nothing in a test, nor in what a test starts, reaches another machine."""

from __future__ import annotations

import socket
import subprocess
import sys

import nbclient
import nbformat
import pytest


def test_a_connection_to_another_machine_is_refused_here():
    with pytest.raises(OSError, match="tests do not use the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="tests do not use the network"):
        socket.getaddrinfo("example.org", 443)


@pytest.mark.parametrize("host", ["192.0.2.1", "127.evil.example", "localhost.evil.example", "::1:2:3", b"example.org"])
def test_what_only_looks_like_this_machine_is_refused(host):
    for look_up in (socket.gethostbyname, lambda name: socket.getaddrinfo(name, 80)):
        with pytest.raises(OSError, match="tests do not use the network"):
            look_up(host)


def test_datagrams_are_refused_too():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(OSError, match="do not use the network"),
    ):
        sock.sendto(b"hello", ("192.0.2.1", 53))


def test_a_notebook_kernel_is_refused(tmp_path):
    code = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="tests do not use the network"):
        nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute(cwd=str(tmp_path))


def test_and_in_every_python_that_a_test_starts():
    code = "import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=1)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode != 0 and "tests do not use the network" in run.stderr


def test_this_machine_may_talk_to_itself():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5) as here, server.accept()[0] as there:
            here.sendall(b"hello")
            assert there.recv(5) == b"hello"
