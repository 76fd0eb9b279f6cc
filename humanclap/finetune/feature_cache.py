"""Features and tokens of a whole set on disk: computed once, then mapped into memory by every process."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

from humanclap.files import flush

_log = logging.getLogger(__name__)

Allocate = Callable[[str, tuple[int, ...], np.dtype], np.ndarray]
"""Name, shape and type of an array -> the array, empty, to be filled in place."""


class ArraySets:
    """A folder of sets of arrays by key, which several processes may read and write at once.

    A set lies at `root/<first two digits>/<key>/<name>.npy` and gets there by one rename, so it is there whole or
    not at all. Arrays are mapped, not read: pages come when they are used, and processes share them. Two
    processes that make one set at once make the same; the first one's stays.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        """Keep sets below `root`, which is made at the first `make`. Raises ValueError if it is a file."""
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"the cache folder {self.root} is a file; give a folder")

    def get_or_make(
        self, key: str, names: tuple[str, ...], fill: Callable[[Allocate], None]
    ) -> dict[str, np.ndarray]:
        """The arrays `names` of `key`; where there are none, `fill` allocates and fills them, on disk.

        The arrays are copy-on-write: changing one changes no file. A set that can't be read is made again (logged).
        What `fill` raises leaves nothing behind.
        """
        folder = self.root / key[:2] / key
        try:
            return _mapped(folder, names)
        except FileNotFoundError:
            pass
        except (ValueError, EOFError, OSError) as error:
            _log.warning("%s can't be read (%s); it is made again", folder, error)
        part = folder.with_name(f".{key}.{uuid.uuid4().hex}.part")
        part.mkdir(parents=True)
        try:
            fill(lambda name, shape, dtype: _new(part / f"{name}.npy", shape, dtype))
            for file in part.iterdir():
                flush(file)
            self._put(part, folder, names)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return _mapped(folder, names)

    def _put(self, part: Path, folder: Path, names: tuple[str, ...]) -> None:
        try:
            os.rename(part, folder)
        except OSError:
            if not folder.exists():
                raise
            try:
                _mapped(folder, names)  # another process was first
            except (ValueError, EOFError, OSError):
                broken = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.broken")
                os.rename(folder, broken)
                shutil.rmtree(broken, ignore_errors=True)
                os.rename(part, folder)


def _new(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if 0 in shape:  # an empty file can't be mapped
        np.save(path, np.empty(shape, dtype))
        return np.load(path)
    array = np.lib.format.open_memmap(path, mode="w+", shape=shape, dtype=dtype)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            # Mapped pages that find no room on the disk end the process; asked for at once, it is an error.
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return array


def _mapped(folder: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    arrays = {}
    for name in names:
        try:
            arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        except FileNotFoundError as error:
            raise ValueError(f"{error.filename} is missing") from None
    return arrays
