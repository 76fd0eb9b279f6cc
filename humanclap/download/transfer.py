"""A file over HTTP: goes on where it broke off, and is there whole, checked, or not at all."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from .checksums import sha256_of
from .disk import FULL, alone_in, human_size, require_room
from .errors import DownloadError, GivenUpError

_BLOCK = 1 << 18
_LATER = (408, 425, 429)  # and 5xx: the server asks to try again
_LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Patience:
    """How long a transfer is tried before it is given up."""

    attempts: int = 5
    """In a row; one that brings new bytes begins the count again. Twenty times as many in all."""
    timeout_seconds: float = 30
    """Without an answer, or a further byte."""
    deadline_seconds: float | None = None
    """For everything together; None: no limit."""
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int, asked: float | None = None) -> None:
        """Before the next attempt: 1, 2, 4, ... s, or as long as the server asked; 60 s at most."""
        self.sleep(min(_LONGEST_WAIT, 2.0 ** (failures - 1) if asked is None else asked))


@dataclass(frozen=True)
class _Whole:
    """What a part is a part of: the address, what the server calls this version of the file, its length."""

    url: str
    validator: str | None
    total: int | None


class _TryAgain(Exception):
    """It may work the next time; `seconds` is what the server asked for."""

    def __init__(self, why: str, seconds: float | None = None):
        super().__init__(why)
        self.seconds = seconds


def transfer(
    url: str,
    target: Path,
    sha256: str | None = None,
    patience: Patience = Patience(),
    limit_bytes: int | None = None,
    room: Callable[[int], int] = lambda total: total,
    progress: bool = True,
) -> Path:
    """Bring `url` to `target`, by way of `<target>.part`, which a later call goes on with.

    A part is continued only where the server vouches that it is the same file (If-Range with its ETag, or its date of
    change) or `sha256` will tell; else it is begun again. Proxies are those of the environment.

    Args:
        sha256: what the content must be; None: not checked here.
        limit_bytes: a larger file is refused.
        room: bytes needed on the disk for a file of so many bytes, e.g. with what will be unpacked from it.

    Raises:
        DownloadError: what the server said, too little room, a wrong checksum, given up; says what is kept.
    """
    job = _Job(url, target, sha256, patience, limit_bytes, room, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(target.parent, job.deadline, patience.sleep):
        if target.is_file():  # another process was faster
            return target
        was_continued = job.until_whole()
        if sha256 is not None and was_continued and sha256_of(job.part) != sha256:
            job.drop()  # its beginning may be of another file: once more from the start
            job.until_whole()
        found = sha256_of(job.part) if sha256 is not None else None
        if found != sha256:
            job.drop()
            raise DownloadError(f"{url} has sha256 {found}, expected {sha256}: it is not the published file")
        os.replace(job.part, target)
        job.note.unlink(missing_ok=True)
    return target


class _Job:
    """One file on its way: `part` holds what has come, `note` what it is a part of."""

    def __init__(self, url, target, sha256, patience, limit_bytes, room, progress):
        self.url, self.name, self.is_checked, self.patience = url, target.name, sha256 is not None, patience
        self.limit_bytes, self.room, self.progress = limit_bytes, room, progress
        self.part, self.note = (target.with_name(target.name + ending) for ending in (".part", ".part.json"))
        self.deadline = time.monotonic() + (patience.deadline_seconds or float("inf"))

    def until_whole(self) -> bool:
        """Attempt after attempt until `part` is whole; whether bytes of more than one attempt are in it."""
        failures, most = 0, self.size()
        for tries in range(1, 20 * self.patience.attempts + 1):
            try:
                return self.attempt() > 0
            except _TryAgain as error:
                failures = 1 if self.size() > most else failures + 1
                most = max(most, self.size())
                if failures >= self.patience.attempts or tries == 20 * self.patience.attempts:
                    message = f"{self.url} was given up after {tries} attempt(s): {error}{self.kept()}"
                    raise GivenUpError(message) from error
                self.patience.wait(failures, error.seconds)
        raise AssertionError("unreachable")

    def attempt(self) -> int:
        """One request. Returns the offset that it began at; raises _TryAgain where another may help."""
        known = self.read_note()
        offset = self.size() if known and known.url == self.url and (known.validator or self.is_checked) else 0
        request = urllib.request.Request(self.url, headers={"User-Agent": "humanclap"})
        if offset:
            request.add_header("Range", f"bytes={offset}-")
            if known.validator:
                request.add_header("If-Range", known.validator)
        try:
            response = _opener().open(request, timeout=self.patience.timeout_seconds)
        except urllib.error.HTTPError as error:
            with error:
                return self.refused(error, offset)
        except DownloadError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise _unreached(self.url, error) from error
        with response:
            whole, offset = self.answered(response, known, offset)
            self.require_size(whole.total)
            if whole.total is not None:
                require_room(self.part.parent, self.room(whole.total) - offset, self.name)
            try:
                self.note.write_text(json.dumps(asdict(whole)), encoding="utf-8")
            except OSError as error:
                raise self.unwritten(error) from error
            self.receive(response, whole.total, offset)
        return offset

    def answered(self, response, known: _Whole | None, offset: int) -> tuple[_Whole, int]:
        """What the server sends, and from where on. A 206 must fit to what is there, else it is begun again."""
        headers = response.headers
        if response.status != 206:  # 200: it knows no ranges, or the file has changed
            length = headers.get("Content-Length", "")
            return _Whole(self.url, _validator(headers), int(length) if length.isdigit() else None), 0
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", "").strip())
        whole = _Whole(self.url, _validator(headers), int(match[3]) if match else None)
        same = whole.validator == known.validator and known.total in (None, whole.total) if known else False
        if not match or int(match[1]) != offset or not same:
            self.drop()
            raise _TryAgain("the server continues another file than the one that was begun")
        return whole, offset

    def refused(self, error: urllib.error.HTTPError, offset: int) -> int:
        """An answer without a file: nothing was left to send, or try again, or the end."""
        if error.code == 416 and offset:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{offset}":
                return offset
            self.drop()
            raise _TryAgain("the server's file is shorter than the part that is here")
        said = f"the server says {error.code} {error.reason}"
        if error.code in _LATER or error.code >= 500:
            asked = error.headers.get("Retry-After", "")
            raise _TryAgain(said, float(asked) if asked.isdigit() else None)
        raise DownloadError(f"{self.url}: {said}{self.kept()}")

    def receive(self, response, total: int | None, offset: int) -> None:
        """The body, to the end of `part`. What has come stays, whatever ends it, Ctrl-C too."""
        from tqdm.auto import tqdm

        size = offset
        bar = tqdm(desc=self.name, total=total, initial=offset, unit="B", unit_scale=True, disable=not self.progress)
        with bar, self.part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            while total is None or size < total:
                try:
                    block = response.read1(_BLOCK if total is None else min(_BLOCK, total - size))
                except (OSError, http.client.HTTPException) as error:
                    why = f"the connection broke at {size:,} bytes ({error or type(error).__name__})"
                    raise _TryAgain(why) from error
                if not block:
                    break
                try:
                    file.write(block)
                    file.flush()
                except OSError as error:
                    raise self.unwritten(error) from error
                size += len(block)
                bar.update(len(block))
                self.require_size(size)
                if time.monotonic() > self.deadline:
                    raise DownloadError(f"{self.url}: not there after {self.patience.deadline_seconds:g} s")
            os.fsync(file.fileno())
        if total is not None and size < total:
            raise _TryAgain(f"the connection was cut at {size:,} of {total:,} bytes")

    def require_size(self, n_bytes: int | None) -> None:
        if None not in (n_bytes, self.limit_bytes) and n_bytes > self.limit_bytes:
            self.drop()
            limit = human_size(self.limit_bytes)
            raise DownloadError(f"{self.url} is larger than {limit}: it is not the file that was meant")

    def unwritten(self, error: OSError) -> DownloadError:
        why = "the disk is full" if error.errno in FULL else f"can't be written ({error.strerror})"
        return DownloadError(f"{self.url}: {why} at {self.part.parent}{self.kept()}. Make room first")

    def kept(self) -> str:
        size = self.size()
        return f"; {human_size(size)} are kept in {self.part}, the same command goes on from there" if size else ""

    def size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def read_note(self) -> _Whole | None:
        try:
            return _Whole(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # none, or not whole: the part is begun again
            return None

    def drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _unreached(url: str, error: Exception) -> Exception:
    """No answer at all: the error to raise."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(f"{url}: the server's certificate is not trusted ({reason.verify_message})")
    return _TryAgain(" ".join(str(reason).split()) or type(reason).__name__)


class _SameSafety(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never from https to something weaker."""

    def redirect_request(self, request, file, code, message, headers, newurl):
        if request.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DownloadError(f"{request.full_url} redirects to {newurl}, which is not https")
        return super().redirect_request(request, file, code, message, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SameSafety())  # made anew: it reads the proxies of the environment


def _validator(headers) -> str | None:
    """What If-Range takes: a strong ETag, or else the date of change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")
