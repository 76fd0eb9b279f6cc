"""SHA-256 of files."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hex; computed once a process while its path, size and time of change stay."""
    status = os.stat(path)
    return _sha256(os.path.realpath(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    return sha256_of(path)
