"""The guard itself: nothing in a test, nor in what a test starts, reaches another machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest


def test_a_connection_to_another_machine_is_refused_here():
    with pytest.raises(OSError, match="tests do not use the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="tests do not use the network"):
        socket.getaddrinfo("example.org", 443)


def test_and_in_every_python_that_a_test_starts():
    code = "import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=1)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode != 0 and "tests do not use the network" in run.stderr


def test_this_machine_may_talk_to_itself():
    class Hello(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hello)
    Thread(target=server.handle_request, daemon=True).start()
    assert urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=5).read() == b"hello"
    server.server_close()
