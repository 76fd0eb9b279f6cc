"""The one file that the demo may fetch: RELATE's REL.csv."""

from __future__ import annotations

import os
from pathlib import Path

from .checksums import sha256_of
from .errors import DownloadError
from .sources import REL, RELATE_REVISION, RELATE_SHA256
from .transfer import Patience, transfer


def fetch_ratings(
    folder: str | os.PathLike, url: str = REL.url, sha256: str = RELATE_SHA256, timeout_seconds: float = 20
) -> Path:
    """Bring RELATE's scores/REL.csv (3.4 MB) below `folder`, unless the very file is there already.

    One attempt, and `timeout_seconds` for all of it: the demo does not wait for a network (`fetch("relate")` does).

    Returns:
        The path of the file; its content has the expected checksum.

    Raises:
        DownloadError: no network, a broken download, or another content than expected. Nothing is left behind.
    """
    target = Path(folder) / REL.place
    by_hand = (
        f"Copy RELATE's scores/REL.csv (github.com/sarulab-speech/RELATE, commit {RELATE_REVISION[:12]}) into a folder "
        "and set HUMANCLAP_RELATE to the folder above scores/"
    )
    if target.is_file():
        if sha256_of(target) == sha256:
            return target
        raise DownloadError(f"{target} is not the file that was published (sha256 differs). Remove it. {by_hand}")
    patience = Patience(attempts=1, timeout_seconds=timeout_seconds, deadline_seconds=timeout_seconds)
    try:
        return transfer(url, target, sha256, patience, REL.limit_bytes, progress=False)
    except OSError as error:
        for left in (f"{target}.part", f"{target}.part.json"):
            Path(left).unlink(missing_ok=True) if target.parent.is_dir() else None
        raise DownloadError(f"{url} could not be fetched into {folder}: {error}. {by_hand}") from error
