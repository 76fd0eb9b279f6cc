"""Arrays on disk, kept by the content they come from: embeddings and features are computed once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_FORMAT = 1  # raise it when what is stored under a key changes its meaning
_log = logging.getLogger(__name__)


class ArrayCache:
    """A folder of arrays by key, which several processes may read and write at once.

    An array lies at `root/<first two digits>/<key>.npy` and gets there by a rename, so it is there whole or
    not at all. Two processes with one key write the same array; the later one wins.
    """

    def __init__(self, root: str | os.PathLike):
        """Keep arrays below `root`, which is made at the first `put`. Raises ValueError if it is a file."""
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"the cache folder {self.root} is a file; give a folder")

    def get(self, key: str) -> np.ndarray | None:
        """The array of `key`, or None where there is none; one that can't be read counts as none (logged)."""
        path = self._path(key)
        try:
            return np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, OSError) as error:
            _log.warning("%s can't be read (%s); it is made again", path, error)
            return None

    def put(self, key: str, array: np.ndarray) -> None:
        """Store `array` under `key`. Raises ValueError for an array of Python objects."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{key}.{uuid.uuid4().hex}.part")
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
    text = json.dumps({"format": _FORMAT, **parts}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
