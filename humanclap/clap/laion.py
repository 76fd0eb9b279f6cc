"""LAION's CLAP from its own `.pt` files: its weights in a ClapModel, heard through laion_clap's front end.

laion_clap itself is not needed; the tests compare every number with it, at full size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .checkpoints import read_shapes
from .convert import clapmodel_config, clapmodel_state, laion_front_end
from .fast_cpu import FLOOR
from .huggingface import ClapModelEmbedder

_BLOCK_FRAMES = 6_000  # a minute


class LaionClap(ClapModelEmbedder):
    """A LAION CLAP (HTSAT-tiny or -base, with or without feature fusion); the numbers are laion_clap's."""

    antialias = True

    def __init__(self, checkpoint: Path, name: str, fused: bool | None = None, **settings):
        """Open a `.pt` file; `fused`, where given, is what the file must be.

        `settings` are Embedder's. Raises FileNotFoundError; ValueError for a file that is damaged, would run code, or
        holds another model.
        """
        shapes = read_shapes(checkpoint)
        config = clapmodel_config(shapes, checkpoint)
        found = bool(config.audio_config.enable_fusion)
        if fused not in (None, found):
            kinds = {True: "with feature fusion", False: "without feature fusion"}
            raise ValueError(
                f"{name} is a model {kinds[fused]}, and {checkpoint} is one {kinds[found]}: use "
                f"load_clap({'laion-fusion' if found else 'laion'!r}, checkpoint=...)"
            )
        super().__init__(name, [checkpoint], shapes, config, laion_front_end(found), **settings)

    def as_clapmodel(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """LAION's weights under a ClapModel's names. Raises ValueError for one that has none."""
        return clapmodel_state(state)

    def log_mel(self, waveform: np.ndarray) -> torch.Tensor:
        """As laion_clap, by an FFT where the package convolves, through 16 bits as LAION's models were trained."""
        samples = np.clip(waveform, -1, 1)
        samples *= np.float32(32767)
        return torch.cat(list(self._mel_blocks(samples.astype(np.int16) / np.float32(32767))))

    def draw_more(self, rng: np.random.RandomState, overflow: int) -> None:
        """A crop that the package makes and its fused models do not hear."""
        rng.randint(0, overflow + 1)

    def front_end_settings(self) -> dict:
        """As a ClapModel's, through 16 bits."""
        return super().front_end_settings() | {"log_mel": "laion_clap 1.1.7, int16"}

    def _mel_blocks(self, samples: np.ndarray) -> Iterator[torch.Tensor]:
        """Log-mels, a block of frames at a time: the spectrum of an hour would take gigabytes."""
        fft_size, hop = self.preprocessor["fft_window_size"], self.preprocessor["hop_length"]
        filters, window = torch.from_numpy(self.mel_filters).float(), torch.hann_window(fft_size)
        signal = F.pad(torch.from_numpy(samples)[None], (fft_size // 2, fft_size // 2), mode="reflect")[0]
        n_frames = len(samples) // hop + 1
        for start in range(0, n_frames, _BLOCK_FRAMES):
            end = min(start + _BLOCK_FRAMES, n_frames)
            part = signal[start * hop : (end - 1) * hop + fft_size]
            spectrum = torch.stft(part, fft_size, hop, window=window, center=False, return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(dim=-1)
            yield 10 * (power.T @ filters).clamp_min(FLOOR).log10()
