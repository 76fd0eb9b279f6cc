"""A CLAP whose scores one can compute in the head: what the Clap protocol asks for, and no model."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import torch

from humanclap.audio import AudioError


class AngleClap:
    """A clip is a text file with an angle in degrees ("bad" can't be read), and every caption points east.

    `files` and `captions` list what was embedded, `batches` how many clips at a time, `most_alive` how many
    clips' features were there at once.
    """

    name, checkpoint_sha256, sample_rate, front_end = "angles", "0" * 64, 16_000, "{}"
    window, precision, device = "first", "fp32", "cpu"

    def __init__(self, device: str = "cpu", seconds_per_batch: float = 0.0):
        self.device, self._seconds = device, seconds_per_batch
        self.files, self.captions, self.batches, self.most_alive, self._alive = [], [], [], 0, 0
        self._lock = threading.Lock()

    def audio_features(self, paths):
        values = [Path(path).read_text() for path in paths]
        for path, value in zip(paths, values, strict=True):
            if value == "bad":
                raise AudioError(path, "spoilt")
        with self._lock:
            self.files += map(str, paths)
            self._alive += len(paths)
            self.most_alive = max(self.most_alive, self._alive)
        return {"angle": torch.tensor([float(value) for value in values], dtype=torch.float64)}

    def embed_features(self, features):
        time.sleep(self._seconds)
        angles = np.radians(features["angle"].numpy())
        with self._lock:
            self._alive -= len(angles)
            self.batches.append(len(angles))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def text_tokens(self, texts):
        return {"input_ids": torch.tensor([list(map(ord, text)) for text in texts])}

    def embed_tokens(self, tokens):
        with self._lock:
            self.captions += ["".join(map(chr, row)) for row in tokens["input_ids"].tolist()]
        return np.tile(np.float32([1, 0]), (len(tokens["input_ids"]), 1))

    def embed_audio(self, paths):
        return self.embed_features(self.audio_features(paths))

    def embed_text(self, texts):
        return np.concatenate([self.embed_tokens(self.text_tokens([text])) for text in texts])


def angle_files(folder: Path, *angles) -> list[Path]:
    """A clip for each angle, in degrees, or "bad"."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}" for number in range(len(angles))]
    for path, angle in zip(paths, angles, strict=True):
        path.write_text(str(angle))
    return paths
