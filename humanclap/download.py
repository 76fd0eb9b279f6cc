"""Public files at pinned revisions, checked before anything reads them."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.request
from pathlib import Path

RELATE_REVISION = "05935d968f7c4029b8a235b82425c4d2919faf69"
RELATE_URL = f"https://raw.githubusercontent.com/sarulab-speech/RELATE/{RELATE_REVISION}/scores/REL.csv"
RELATE_SHA256 = "cea68d02735ac13a5cc3a05fafb4bc07a0342815c6a75fbf64284e39271c5dcd"


class DownloadError(OSError):
    """A file could not be fetched, or is not the file that was asked for; the message says how to bring it by hand."""


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_ratings(
    folder: str | os.PathLike, url: str = RELATE_URL, sha256: str = RELATE_SHA256, timeout_seconds: float = 20
) -> Path:
    """Bring RELATE's scores/REL.csv (3.4 MB) below `folder`, unless the very file is there already.

    Returns:
        The path of the file; its content has the expected checksum.

    Raises:
        DownloadError: no network, a broken download, or another content than expected. Nothing is left behind.
    """
    target = Path(folder) / "scores" / "REL.csv"
    by_hand = (
        f"Copy RELATE's scores/REL.csv (github.com/sarulab-speech/RELATE, commit {RELATE_REVISION[:12]}) into a folder "
        "and set HUMANCLAP_RELATE to the folder above scores/"
    )
    if target.is_file():
        if sha256_of(target) == sha256:
            return target
        raise DownloadError(f"{target} is not the file that was published (sha256 differs). Remove it. {by_hand}")
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    deadline = time.monotonic() + timeout_seconds
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=timeout_seconds) as source, part.open("wb") as file:
            while block := source.read(1 << 16):
                file.write(block)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not there after {timeout_seconds:g} s")
        found = sha256_of(part)
        if found == sha256:
            os.replace(part, target)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{url} could not be fetched into {folder}: {error!r}. {by_hand}") from error
    finally:
        if part.exists():
            part.unlink()
    if found != sha256:
        raise DownloadError(f"{url} has sha256 {found}, expected {sha256}. {by_hand}")
    return target
