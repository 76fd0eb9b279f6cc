"""Features of clips made once for many checkpoints: fine-tuning changes a model and not its front end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from humanclap.clap.lazy import LazyClap

LIMIT_BYTES = 2_000_000_000  # kept in memory; what goes beyond is made anew for each checkpoint


class SharedFeatures:
    """A store of audio features by front end and path, up to `limit_bytes`, for `score_pairs` under several models."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._kept: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
        self._room = limit_bytes

    def through(self, clap: LazyClap) -> SharingClap:
        """`clap`, which looks here before it reads a file. Scores stay what they are."""
        return SharingClap(clap, self)

    def of(self, clap: LazyClap, path: str) -> dict[str, torch.Tensor]:
        """The features of one file as `clap` makes them."""
        key = (clap.front_end, path)
        if key not in self._kept:
            features = clap.audio_features([path])
            size = sum(values.numel() * values.element_size() for values in features.values())
            if size > self._room:
                return features
            self._room -= size
            self._kept[key] = features
        return self._kept[key]


class SharingClap:
    """A clap whose audio features come from a SharedFeatures; everything else is its own."""

    def __init__(self, clap: LazyClap, shared: SharedFeatures) -> None:
        self._clap, self._shared = clap, shared

    def __getattr__(self, name: str):
        return getattr(self._clap, name)

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """As the clap's own."""
        import torch

        each = [self._shared.of(self._clap, os.fspath(path)) for path in paths]
        return each[0] if len(each) == 1 else {name: torch.cat([one[name] for one in each]) for name in each[0]}

    def embed_features(self, features: dict[str, torch.Tensor]):
        """As the clap's own."""
        return self._clap.embed_features(features)
