"""Files: hashed as they are read, written whole or not at all, locked, and arrays kept by content."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

_CACHE_FORMAT = 1  # raise it when what is stored under a key changes its meaning
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
_hashes: dict[str, tuple[tuple[int, ...], str]] = {}  # by path: what identifies the content, and its SHA-256
_STREAMS = ("/dev/fd/", "/dev/std", "/proc/")
_log = logging.getLogger(__name__)
T = TypeVar("T")


def expanded(path: str | os.PathLike) -> Path:
    """A path that a user gave, with a leading "~/" replaced by the home folder. OSError where there is no home."""
    path = Path(path)
    try:
        return path.expanduser() if path.parts[:1] == ("~",) else path
    except RuntimeError as error:
        raise OSError(f"{path}: there is no home folder here (HOME is not set); write the path out") from error


def kind_of(mode: int) -> str | None:
    """What a `st_mode` stands for ("a folder", "a named pipe", "a device"); None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "a device")


def require_regular(path: str | os.PathLike, error: type[Exception] = OSError) -> None:
    """Raise `error` for a folder, named pipe, socket or device; FileNotFoundError where there is nothing.

    Nothing is opened: opening a named pipe would wait for ever.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {path}")
    if kind := kind_of(os.stat(path).st_mode):
        raise error(f"{path} is {kind}; it must be a file")


class HashedFile(NamedTuple):
    """A file's bytes and their SHA-256, in hex."""

    content: bytes
    sha256: str


def read_hashed(path: str | os.PathLike) -> HashedFile:
    """Read a file once; the hash is that of the bytes returned. OSError where it keeps changing while it is read."""
    content = read_unchanged(path, lambda file: file.read())
    return HashedFile(content, hashlib.sha256(content).hexdigest())


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hex; remembered in this process while path, size, mtime, ctime and inode are the same."""
    require_regular(path)
    real = os.path.realpath(path)

    def known_or_new(file: BinaryIO) -> tuple[tuple[int, ...], str]:
        identity, known = _identity(file), _hashes.get(real)
        return known if known and known[0] == identity else (identity, hashlib.file_digest(file, "sha256").hexdigest())

    _hashes[real] = read_unchanged(path, known_or_new)
    return _hashes[real][1]


def read_unchanged(path: str | os.PathLike, read: Callable[[BinaryIO], T]) -> T:
    """`read(file)` of one open file; again, up to five times, where the file has changed meanwhile, then OSError."""
    for _ in range(5):
        with open(path, "rb") as file:
            before = _identity(file)
            result = read(file)
            if _identity(file) == before:
                return result
    raise OSError(f"{path} changes while it is read; wait until it is written, then start again")


def _identity(file: BinaryIO) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


@contextmanager
def writing(path: str | os.PathLike, folder: bool = False) -> Iterator[Path]:
    """Give a new file (or `folder`) beside `path` to write to; on success it takes the place of `path`.

    A reader finds the old file or the new, never half of it (a folder that is replaced is away for an instant), and after
    a failure the old is there. What is written is on the disk before the change of names. A link's target is written, not
    the link. Modes follow the umask, whatever the library that wrote the file gave it. The new name ends as `path` does,
    because libraries go by the ending.
    """
    target = Path(os.path.realpath(path))
    fresh = target.with_name(f".{uuid.uuid4().hex[:12]}-{target.name[-48:]}")
    fresh.mkdir() if folder else fresh.open("xb").close()
    mode = stat.S_IMODE(fresh.stat().st_mode) & 0o666  # as the umask has it, which nothing can read but by a change
    try:
        yield fresh
        for file in sorted(fresh.rglob("*")) if folder else [fresh]:
            if file.is_file():
                file.chmod(mode)
            _flush(file)
        if folder:
            _flush(fresh)
            retired = _set_aside(target)
            os.rename(fresh, target)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            os.replace(fresh, target)
        _flush(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True) if folder else fresh.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text in UTF-8 whole or not at all (see `writing`), line ends as they are."""
    with writing(path) as fresh:
        fresh.write_bytes(text.encode())


def is_stream(path: str | os.PathLike) -> bool:
    """Whether `path` is a pipe or a device (also as /dev/stdout): something to write into, that has no replacement."""
    if not os.path.exists(path):
        return False
    return kind_of(os.stat(path).st_mode) not in (None, "a folder") or os.path.abspath(path).startswith(_STREAMS)


def require_writable(path: str | os.PathLike, name: str = "") -> None:
    """Try, before the work, whether a file can be written at `path`; OSError says why not, with `name` (an option)."""
    label = f"{name} {path}".strip()
    if os.path.isdir(path):
        raise IsADirectoryError(f"{label} is a folder; give the name of a file")
    if is_stream(path):
        if os.access(path, os.W_OK):
            return
        raise PermissionError(f"{label} can't be written: permission denied")
    parent = Path(os.path.realpath(path)).parent
    if not parent.is_dir():
        raise FileNotFoundError(f"{label}: there is no folder {parent if os.path.islink(path) else Path(path).parent}")
    try:
        trial = parent / f".{uuid.uuid4().hex}"
        trial.write_bytes(b"\0")
        trial.unlink()
    except OSError as error:
        raise type(error)(f"{label} can't be written: {error.strerror}; give a place where you may write") from error


def _flush(path: str | os.PathLike) -> None:
    """Have the system put a file, or the names in a folder, on the disk (where the file system can)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def lock(path: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path` against other processes; BlockingIOError where it is taken and `wait` is False.

    The system lets go of it when the process ends, however it ends.
    """
    import filelock

    try:
        held = filelock.FileLock(path).acquire(timeout=-1 if wait else 0)
    except filelock.Timeout as error:
        raise BlockingIOError(f"{path} is locked by another process") from error
    with held:
        yield


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there: first its name, so that half of it is never taken for the whole."""
    shutil.rmtree(_set_aside(folder), ignore_errors=True)


def _set_aside(folder: Path) -> Path:
    retired = folder.with_name(f".{folder.name}-old")
    shutil.rmtree(retired, ignore_errors=True)
    if folder.exists():
        os.rename(folder, retired)
    return retired


class ArrayCache:
    """A folder of arrays by key, `root/<first two digits>/<key>.npy`, which several processes may read and write at once.

    An array is there whole or not at all. Two processes with one key write the same array; the later one wins.
    """

    def __init__(self, root: str | os.PathLike):
        """Keep arrays below `root`, which is made here. Raises ValueError where it is a file or can't be written."""
        self.root = expanded(root)
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"the cache folder {self.root} is a file; give a folder")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            require_writable(self.root / "trial")
        except OSError as error:
            raise ValueError(
                f"the cache folder {self.root} can't be written ({error.strerror or error}): name another one "
                "(--cache DIR, cache_dir=) or keep nothing (--no-cache, cache_dir=None)"
            ) from error

    def get(self, key: str) -> np.ndarray | None:
        """The array of `key`, or None where there is none; one that can't be read counts as none (logged)."""
        path = self._path(key)
        try:
            return np.load(path, allow_pickle=False)
        except FileNotFoundError:
            pass
        except (ValueError, EOFError, OSError) as error:
            _log.warning("%s can't be read (%s); it is made again", path, error)
        return None

    def put(self, key: str, array: np.ndarray) -> None:
        """Store `array` under `key`. Raises ValueError for an array of Python objects."""
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f".{key}.{uuid.uuid4().hex}.part")  # not fsynced: what a crash spoils is made again
        try:
            with part.open("xb") as file:
                np.save(file, np.asarray(array), allow_pickle=False)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.npy"


def cache_key(**parts: str | int | float | bool | None | Mapping) -> str:
    """One SHA-256, in hex, of all that an array depends on, given by name; the order does not matter."""
    text = json.dumps({"format": _CACHE_FORMAT, **parts}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
