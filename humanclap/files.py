"""Files and folders that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flush(path: str | os.PathLike) -> None:
    """Have the system put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside `path` and rename: a reader finds the old file or the new one, never half of it."""
    fresh = path.with_name(f".{path.name}-new")
    try:
        fresh.write_bytes(content)
        flush(fresh)
        os.replace(fresh, path)
        flush(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """`flush` every file in `folder`, and the folder."""
    for file in sorted(folder.rglob("*")):
        flush(file)
    flush(folder)


def place_folder(fresh: Path, target: Path) -> None:
    """Put the folder `fresh`, on the disk already, in the place of `target`, which may be a folder.

    On Linux the two change places in one step, so a reader finds the old folder or the new one, whole, at every
    moment. Where the system has no such step, `target` is away for an instant, under a name with a dot.
    """
    if not target.exists():
        os.rename(fresh, target)
    elif _exchange(fresh, target):
        remove_folder(fresh)
    else:
        retired = target.with_name(f".{target.name}-old")
        shutil.rmtree(retired, ignore_errors=True)
        os.rename(target, retired)
        os.rename(fresh, target)
        remove_folder(retired)
    flush(target.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder that must not be taken for a whole one halfway: it first gets a name with a dot."""
    if not folder.exists():
        return
    if not folder.name.startswith("."):
        hidden = folder.with_name(f".{folder.name}-removed")
        shutil.rmtree(hidden, ignore_errors=True)
        os.rename(folder, hidden)
        folder = hidden
    shutil.rmtree(folder)


@contextmanager
def locked(folder: Path) -> Iterator[bool | None]:
    """Keep a folder for this process, without waiting: True, or False where another process has it.

    None where there are no such locks (Windows, some file systems). The system lets go of the lock when the process
    ends, however it ends; a new name for the folder changes nothing.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        except BlockingIOError:
            mine = False
        except OSError:  # a file system without locks
            mine = None
        yield mine
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step (Linux's renameat2); False where that can't be had."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
