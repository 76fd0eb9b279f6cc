"""Room on the disk, looked at before it is needed, and one process at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import DownloadError

try:
    import fcntl
except ImportError:  # Windows: no lock, as on a file system without
    fcntl = None  # type: ignore[assignment]

FULL = (errno.ENOSPC, errno.EDQUOT)
_SPARE = 50 * 10**6  # a disk filled to the last byte breaks other things
_WAIT = 0.2


def human_size(n_bytes: int | float | None) -> str:
    """A size for people: "3.4 MB"; "unknown" for None."""
    if n_bytes is None:
        return "unknown"
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.2f} GB"


def require_room(folder: Path, n_bytes: int, what: str) -> None:
    """Raise DownloadError unless `n_bytes`, and a little more, are free where `folder` is or will be."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if n_bytes + _SPARE > free:
        raise DownloadError(
            f"{what} needs {human_size(n_bytes)} (and {human_size(_SPARE)} to spare), and {folder} has "
            f"{human_size(free)} free. Make room, or choose another place with --to DIR or HUMANCLAP_DATA"
        )


@contextlib.contextmanager
def alone_in(
    folder: Path, deadline: float = float("inf"), sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold `folder` for one process: others wait here, until `deadline` (of time.monotonic), then DownloadError.

    The lock is the folder's own, so nothing is left behind, not even by a process that is killed. Where the file
    system knows no such lock, there is none.
    """
    if fcntl is None:
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        while not _locked(held):
            if time.monotonic() > deadline:
                raise DownloadError(f"another process is fetching into {folder}; wait for it, and run this again")
            sleep(_WAIT)
        yield
    finally:
        os.close(held)  # and with it the lock


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks on folders
        return True
    return True
