"""A server on this machine for the tests of downloads: pages that misbehave on request, and a stand-in for the hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Page:
    """What a path answers: `content` under `status` and `headers`, or less of it, or slowly."""

    content: bytes = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    cut_at: int | None = None
    """Close the connection after so many bytes."""
    says_length: bool = True
    pause: float = 0
    """Seconds before each block of 1,000 bytes."""


@dataclass
class Served:
    """A running server: its address, its pages by path, and the requests so far as (method, path)."""

    url: str
    pages: dict[str, Page]
    requests: list

    def add_repository(
        self, repository: str, commit: str, files: Mapping[str, bytes], branch: str | None = None, damaged: str = ""
    ) -> None:
        """Serve a repository as the hub does, under its commit and a branch; large files (not .json) with sha256.

        damaged: the name of a file that arrives with another content than is stated.
        """
        siblings = []
        for name, content in files.items():
            lfs = (
                None
                if name.endswith(".json")
                else {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            )
            siblings.append({"rfilename": name, "size": len(content), "lfs": lfs and {**lfs, "pointerSize": 1}})
            headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            if lfs:
                headers["X-Linked-Etag"] = f'"{lfs["sha256"]}"'
            content = content[::-1] if name == damaged else content
            for revision in filter(None, (commit, branch)):
                self.pages[f"/{repository}/resolve/{revision}/{name}"] = Page(content, headers=headers)
        info = Page(json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode())
        self.pages[f"/api/models/{repository}/revision/{commit}"] = info
        if branch == "main":
            self.pages[f"/api/models/{repository}"] = self.pages[f"/api/models/{repository}/revision/main"] = info


@contextlib.contextmanager
def serving(**pages: Page) -> Iterator[Served]:
    """Serve pages below http://127.0.0.1:<port>/ until the end of the block; more may be added at any time."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            self.answer(with_body=True)

        def log_message(self, *_):
            pass

        def answer(self, with_body):
            path = re.sub(r"^http://[^/]+", "", self.path).partition("?")[0]  # a proxy is asked with the whole address
            served.requests.append((self.command, path))
            page = served.pages.get(path, Page(status=404, headers={"X-Error-Code": "EntryNotFound"}))
            self.send_response(page.status)
            if page.says_length:
                self.send_header("Content-Length", str(len(page.content)))
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                content = page.content[: page.cut_at]
                with contextlib.suppress(OSError):  # the other side has had enough
                    for begin in range(0, len(content), 1000 if page.pause else len(content) or 1):
                        time.sleep(page.pause)
                        self.wfile.write(content[begin : begin + 1000] if page.pause else content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Served(f"http://127.0.0.1:{server.server_port}", {f"/{name}": page for name, page in pages.items()}, [])
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
