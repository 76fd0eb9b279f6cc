"""What every backend shares: batches, precision, several windows to one vector, unit length."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .base import choose_device, require_precision

BATCH_SIZE = 32
"""Clips or captions that are prepared together; on a GPU, also windows that go through the model together."""

_CPU_WINDOWS = (
    4  # measured: with 16, intermediate results leave the caches, and a clip takes a quarter longer
)

_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Embedder:
    """Files and captions to unit vectors, in two halves: features on the CPU, then the model.

    A backend gives `_module` (in eval mode), `_dimension`, and the four methods marked below. The same file
    gives the same vector in any batch, order or process, except under the window "upstream", which draws.
    """

    name: str
    checkpoint_sha256: str
    window: str
    sample_rate: int
    seed: int
    _module: torch.nn.Module
    _dimension: int

    def __init__(self, device: str, precision: str):
        """Raises ValueError for an unknown device or precision."""
        require_precision(precision)
        self.device = choose_device(device)
        self.precision = precision

    # --- what a backend gives ---------------------------------------------------------------------------

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """N files -> tensors with a row for each window, on the CPU; safe to call from several threads.

        Where a clip may have several windows, `windows`, int64 `[N]`, says how many. Raises AudioError.
        """
        raise NotImplementedError

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """N captions -> `input_ids` and what goes with them, int64 `[N, L]`, on the CPU; or ValueError."""
        raise NotImplementedError

    def encode_audio(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """`audio_features` -> projections, a row for each window, not normalised, differentiable."""
        raise NotImplementedError

    def encode_text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """`text_tokens` -> projections `[N, D]`, not normalised, differentiable."""
        raise NotImplementedError

    # --- what all have ----------------------------------------------------------------------------------

    def embed_audio(self, paths: Sequence[str | os.PathLike]) -> np.ndarray:
        """N files -> float32 `[N, D]`, L2-normalised, without a graph; puts the model in eval mode.

        Under the window "upstream" this is one upstream call on the list, and draws in its order. Raises
        AudioError, with the path, for a file that can't be read.
        """
        require_several(paths, "paths")
        paths = list(paths)
        if self.window == "upstream" and paths:
            return self.embed_features(self.audio_features(paths))
        return self._in_batches(paths, lambda batch: self.embed_features(self.audio_features(batch)))

    def embed_features(self, features: dict[str, torch.Tensor]) -> np.ndarray:
        """`audio_features` of N files -> float32 `[N, D]`, L2-normalised: of several windows, their mean.

        The windows' vectors are normalised before they are averaged, and the mean once more.
        """
        counts = features.get("windows")
        rows = {key: value for key, value in features.items() if key != "windows"}
        n_rows = len(next(iter(rows.values())))
        vectors = self._in_batches(
            range(n_rows),
            lambda batch: self._unit(
                self.encode_audio, {k: v[batch.start : batch.stop] for k, v in rows.items()}
            ),
            _CPU_WINDOWS if self.device == "cpu" else BATCH_SIZE,
        )
        if counts is None or len(counts) == n_rows:
            return vectors
        ends = np.cumsum(counts.numpy())
        means = np.stack(
            [vectors[end - n : end].mean(axis=0) for end, n in zip(ends, counts.tolist(), strict=True)]
        )
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        # Windows that cancel each other leave no direction; 0 says so, and the scorer reports it.
        return (means / np.where(lengths > 0, lengths, 1)).astype(np.float32)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """N captions -> float32 `[N, D]`, L2-normalised, without a graph; puts the model in eval mode.

        Raises ValueError for an empty caption.
        """
        require_several(texts, "texts")
        return self._in_batches(
            list(texts), lambda batch: self._unit(self.encode_text, self.text_tokens(batch))
        )

    def embed_tokens(self, tokens: dict[str, torch.Tensor]) -> np.ndarray:
        """`text_tokens` of N captions -> float32 `[N, D]`, L2-normalised, without a graph."""
        return self._unit(self.encode_text, tokens)

    def _in_batches(
        self, items: Sequence, embed: Callable[[Sequence], np.ndarray], size: int = BATCH_SIZE
    ) -> np.ndarray:
        rows = [np.empty((0, self._dimension), dtype=np.float32)]
        rows += [embed(items[start : start + size]) for start in range(0, len(items), size)]
        return np.concatenate(rows)

    def _unit(self, encode: Callable[[dict], torch.Tensor], inputs: dict[str, torch.Tensor]) -> np.ndarray:
        with self._inference():
            return F.normalize(encode(inputs).float(), dim=-1).cpu().numpy()

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        self._module.eval()
        dtype = _AUTOCAST[self.precision]
        reduced = {"dtype": dtype} if self.precision != "fp32" else {"enabled": False}
        autocast = torch.autocast(torch.device(self.device).type, **reduced)
        # cuDNN would round fp32 convolutions to TF32, 10 bits of mantissa; the flag is put back afterwards.
        full_fp32 = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        with torch.inference_mode(), autocast, full_fp32:
            yield


def require_several(values: Sequence, name: str) -> None:
    """Raise TypeError for a single path or caption where a list is wanted."""
    if isinstance(values, (str, bytes, os.PathLike)):
        raise TypeError(f"{name} is one {type(values).__name__}, {values!r}; give a list of them")


def require_captions(texts: Sequence[str]) -> None:
    """Raise ValueError for an empty list, and for a caption that is empty or no text (it names the row)."""
    if not len(texts):
        raise ValueError("no captions were given; text_tokens needs at least one")
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"caption {row} is {text!r}; it must be a text that is not empty")


def choose_window(window: str | None, allowed: Sequence[str], name: str) -> str:
    """`window`, or the first of `allowed` for None. Raises ValueError for one that is not allowed."""
    if window is not None and window not in allowed:
        raise ValueError(f"unknown window {window!r}; known for {name}: {', '.join(allowed)}")
    return window or allowed[0]


def padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """Token ids of N captions -> `input_ids` and `attention_mask`, int64 `[N, L]`, padded on the right."""
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }
