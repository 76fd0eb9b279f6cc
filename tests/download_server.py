"""Servers on this machine for the tests of downloads: pages that misbehave on request, and a stand-in for the hub."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Page:
    """What a path answers. `script` holds one entry for each coming request, then all is well:

    a number: cut the connection after so many bytes of the body; ("status", code, headers): no file; a float: wait so
    many seconds before the body; None: all is well.
    """

    content: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = None
    knows_ranges: bool = True
    heeds_if_range: bool = True
    says_length: bool = True
    pause: float = 0
    """Seconds between blocks of 1,000 bytes."""
    script: list = field(default_factory=list)
    headers: dict = field(default_factory=dict)
    refuses: tuple | None = None
    """An entry as in `script`, for every request, of any method."""


@dataclass
class Served:
    """A running server: its address, its pages by path, and the requests so far as (method, path, headers)."""

    url: str
    pages: dict[str, Page]
    requests: list

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of every GET of a path, in order."""
        return [headers.get("Range") for method, asked, headers in self.requests if (method, asked) == ("GET", path)]


@contextlib.contextmanager
def serving(**pages: Page) -> Iterator[Served]:
    """Serve pages below http://127.0.0.1:<port>/ until the end of the block; more may be added at any time."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._answer(with_body=False)

        def do_GET(self):
            self._answer(with_body=True)

        def log_message(self, *_):
            pass

        def _answer(self, with_body):
            path = re.sub(r"^http://[^/]+", "", self.path)  # a proxy is asked with the whole address
            served.requests.append((self.command, self.path if path != self.path else path, dict(self.headers)))
            page = served.pages.get(path)
            if page is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")  # the hub's way; others do not read it
                self.end_headers()
                return None
            order = page.refuses or (page.script.pop(0) if page.script and with_body else None)
            if isinstance(order, tuple):
                self.send_response(order[1])
                for name, value in order[2].items():
                    self.send_header(name, value)
                self.end_headers()
                return None
            return self._send(page, order, with_body)

        def _send(self, page, order, with_body):
            body, asked = page.content, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            version = page.etag or page.last_modified
            same = not page.heeds_if_range or self.headers.get("If-Range") in (None, version)
            start = int(asked[1]) if asked and page.knows_ranges and same else 0
            if start and start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if page.says_length:
                self.send_header("Content-Length", str(len(body) - start))
            for name, value in {"ETag": page.etag, "Last-Modified": page.last_modified, **page.headers}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            if not with_body:
                return
            body = body[start:]
            if isinstance(order, float):
                time.sleep(order)
            elif isinstance(order, int):
                body = body[:order]
            with contextlib.suppress(OSError):  # the other side has had enough
                for begin in range(0, len(body), 1000 if page.pause else len(body) or 1):
                    self.wfile.write(body[begin : begin + 1000] if page.pause else body)
                    time.sleep(page.pause)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Served(f"http://127.0.0.1:{server.server_port}", {f"/{name}": page for name, page in pages.items()}, [])
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


def hub_page(content: bytes, commit: str, large: bool = False, **settings) -> Page:
    """A file as the hub answers for it: with its commit, and for a large one its sha256 as ETag."""
    digest = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(content).hexdigest()
    headers = {"X-Repo-Commit": commit} | ({"X-Linked-Etag": f'"{digest}"'} if large else {})
    return Page(content, etag=f'"{digest}"', headers=headers | settings.pop("headers", {}), **settings)
