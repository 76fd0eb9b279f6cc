"""A CLAP that is opened when something must be embedded, and known before that from an earlier run."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cache import cache_key
from ..models import MODELS
from .base import choose_device, load_clap, split_hub_id

if TYPE_CHECKING:
    import torch

    from .embedder import Embedder

_FACTS = ("name", "checkpoint_sha256", "window", "precision", "device", "sample_rate", "front_end")
_PACKAGES = ("humanclap", "torch", "transformers", "laion-clap", "msclap")


class LazyClap:
    """A Clap by the name and settings that `load_clap` takes, whose weights are read at the first embedding.

    What a score row says of its model, checkpoint_sha256 and front end included, is written into `memory`
    when the model has been opened, and read there afterwards as long as its files keep their path, size and
    time of change and the packages their versions. So a run that finds all embeddings in the cache opens
    nothing. Without `memory`, or at the first run, asking for any of these attributes opens the model.
    """

    name: str
    checkpoint_sha256: str
    window: str
    precision: str
    device: str
    sample_rate: int
    front_end: str

    def __init__(
        self,
        name: str | os.PathLike,
        checkpoint: str | os.PathLike | None = None,
        device: str = "auto",
        window: str | None = None,
        precision: str = "fp32",
        seed: int = 0,
        memory: str | os.PathLike | None = None,
    ):
        """Take the arguments of `load_clap`, and a folder to remember in. Raises ValueError for a device."""
        self._settings: dict[str, Any] = {
            "name": os.fspath(name),
            "checkpoint": None if checkpoint is None else os.fspath(checkpoint),
            "device": choose_device(device),
            "window": window,
            "precision": precision,
            "seed": seed,
        }
        self._memory = None if memory is None else Path(memory) / "claps"
        self._opened: Embedder | None = None
        self._opening = threading.RLock()

    @property
    def is_open(self) -> bool:
        """Whether the weights have been read."""
        return self._opened is not None

    def open(self) -> Embedder:
        """The model itself, read at the first call. Raises what `load_clap` raises."""
        with self._opening:
            if self._opened is None:
                opened = load_clap(**self._settings)
                self._remember(opened)
                self._opened = opened
            return self._opened

    def __getattr__(self, name: str) -> Any:
        if name not in _FACTS:
            raise AttributeError(f"a LazyClap has no {name!r}; open() gives the model itself")
        self.__dict__.update(self._recalled() or {fact: getattr(self.open(), fact) for fact in _FACTS})
        return self.__dict__[name]

    # --- what needs the model ---------------------------------------------------------------------------

    def embed_audio(self, paths: Sequence[str | os.PathLike]) -> np.ndarray:
        """As the opened model's."""
        return self.open().embed_audio(paths)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """As the opened model's."""
        return self.open().embed_text(texts)

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """As the opened model's."""
        return self.open().audio_features(paths)

    def embed_features(self, features: dict[str, torch.Tensor]) -> np.ndarray:
        """As the opened model's."""
        return self.open().embed_features(features)

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """As the opened model's."""
        return self.open().text_tokens(texts)

    def embed_tokens(self, tokens: dict[str, torch.Tensor]) -> np.ndarray:
        """As the opened model's."""
        return self.open().embed_tokens(tokens)

    # --- memory -----------------------------------------------------------------------------------------

    def _record(self) -> Path | None:
        """Where the facts of this very model are kept: the name goes by settings, files and versions."""
        files = None if self._memory is None else _files(self._settings["name"], self._settings["checkpoint"])
        if not files:
            return None
        # This package's own code, too: what it makes of a front end may change between two versions.
        files = [*files, *sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parent.parent / "audio.py"]
        stats = [[os.path.realpath(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        key = cache_key(kind="clap", settings=self._settings, files=stats, versions=_versions())
        return self._memory / f"{key}.json"

    def _recalled(self) -> dict[str, Any] | None:
        record = self._record()
        if record is None:
            return None
        try:
            facts = json.loads(record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # not there, or spoilt: the model will say
            return None
        return facts if isinstance(facts, dict) and set(facts) == set(_FACTS) else None

    def _remember(self, opened: Embedder) -> None:
        record = self._record()
        if record is None:
            return
        record.parent.mkdir(parents=True, exist_ok=True)
        part = record.with_name(f".{record.name}.{uuid.uuid4().hex}.part")
        try:
            part.write_text(json.dumps({fact: getattr(opened, fact) for fact in _FACTS}), encoding="utf-8")
            os.replace(part, record)
        finally:
            part.unlink(missing_ok=True)


def _files(name: str, checkpoint: str | None) -> list[Path]:
    """The files that `load_clap` would open, as far as they are on this machine; empty if they are not."""
    path = Path(checkpoint or name)
    if path.is_file():
        # A file in a ClapModel's folder stands for the folder.
        return _inside(path.parent) if (path.parent / "config.json").is_file() else [path]
    if path.is_dir():
        return _inside(path)
    from . import hub, published

    if name != "human-clap" and "/" not in name and name in MODELS:
        found = published.find_checkpoint(name)
        return [found] if found else []
    source = MODELS[name].weights.repository if name == "human-clap" else name
    if split_hub_id(source) is None:
        return []
    return _inside(hub.find_folder(source, front_end=name != "human-clap"))


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
