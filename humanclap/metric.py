"""`HumanCLAPScore`: the mean CLAPScore of what a training loop makes, in the manner of torchmetrics."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .checks import need_same_length
from .losses import clap_score


class HumanCLAPScore:
    """Mean CLAPScore, max(cosine, 0) (equation 1), over everything that `update` was given since `reset`.

    clap: what `load_clap` returns, or a name, hub id or path that it takes. sample_rate: of waveforms, in Hz; not needed
    for paths. Each clip is heard as `score_pairs` hears the file of it.
    """

    def __init__(self, clap="human-clap", sample_rate: int | None = None, device: str = "auto") -> None:
        if isinstance(clap, (str, os.PathLike)):
            from .clap import load_clap

            clap = load_clap(clap, device=device)
        self.clap, self.sample_rate = clap, sample_rate
        self._scores: list[np.ndarray] = []

    def update(self, audio, text: str | Sequence[str]) -> None:
        """Add clips with their captions.

        audio: paths, or waveforms in -1 to 1: one `[T]` or several `[N, T]`, tensor or array, or a list of `[T]`. text: as
        many captions. Raises AudioError for a clip that can't be used, ValueError for unequal numbers or no sample rate.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if isinstance(audio, (str, os.PathLike)) or getattr(audio, "ndim", 2) == 1:
            audio = [audio]
        need_same_length(audio=audio, text=texts)
        with tempfile.TemporaryDirectory() as folder:
            paths = [self._path(clip, Path(folder) / f"{i}.wav") for i, clip in enumerate(audio)]
            self._scores.append(clap_score(self.clap.embed_audio(paths), self.clap.embed_text(texts)))

    def compute(self) -> float:
        """The mean over all clips. Raises ValueError before the first `update`."""
        if not self._scores:
            raise ValueError("no clips yet: call update(audio, text) first")
        return float(np.concatenate(self._scores).mean())

    def reset(self) -> None:
        """Forget all clips."""
        self._scores.clear()

    def _path(self, clip, place: Path) -> str:
        """The path of a clip; a waveform is written to `place` as 32-bit float."""
        if isinstance(clip, (str, os.PathLike)):
            return os.fspath(clip)
        if self.sample_rate is None:
            raise ValueError("waveforms need a sample rate: HumanCLAPScore(clap, sample_rate=16000)")
        import soundfile

        wave = clip.detach().cpu().float().numpy() if hasattr(clip, "detach") else np.asarray(clip, dtype=np.float32)
        soundfile.write(place, wave, self.sample_rate, subtype="FLOAT")
        return os.fspath(place)
