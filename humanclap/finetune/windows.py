"""Crops and fusion chunks of long clips, drawn anew for each epoch."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from humanclap.finetune.data import PairData


class DrawnWindows:
    """The features of the clips of `data` that are longer than the window, with other windows in each epoch.

    A clip's window follows from (seed, epoch, its place in `data`) alone. Raises ValueError for pairs of which
    the audio's folder is not known.
    """

    def __init__(self, clap, data: PairData) -> None:
        if data.audio_root is None:
            raise ValueError(
                "windows='drawn' reads the long clips again in each epoch, and these pairs do not say where they "
                "lie: make them with finetune.prepare"
            )
        if not hasattr(clap, "draw_features"):
            raise TypeError(f"windows='drawn' needs a base that draws windows, and a {type(clap).__name__} does not")
        self._clap = clap
        names = data.pairs["audio"].unique()  # in the order of data.clip
        self._paths = [data.audio_root / name for name in names]
        with ThreadPoolExecutor(_workers()) as pool:
            longer = list(pool.map(clap.is_longer, self._paths))
        self.clips = torch.tensor([clip for clip, long in enumerate(longer) if long], dtype=torch.int64)

    def draw(self, seed: int, epoch: int) -> torch.Tensor:
        """`input_features` of the clips `self.clips`, in their order, float32 `[n, C, T, M]`."""
        clips = self.clips.tolist()
        seeds = [np.random.SeedSequence([seed, epoch, clip]).generate_state(1)[0] for clip in clips]
        paths = [self._paths[clip] for clip in clips]
        with ThreadPoolExecutor(_workers()) as pool:
            return torch.from_numpy(np.stack(list(pool.map(self._clap.draw_features, paths, seeds))))


def _workers() -> int:
    return min(8, os.cpu_count() or 1)
