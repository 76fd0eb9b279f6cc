"""`transformers.ClapModel` as a Clap: the authors' released models, converted ones, the demo's, your own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..download import sha256_of
from . import hub
from .base import choose_device, require_precision
from .front_end import FrontEnd

BATCH_SIZE = 32
"""Clips or captions that `embed_audio` and `embed_text` send through the model together."""


class HuggingFaceClap:
    """A `transformers.ClapModel` with its feature extractor and tokenizer, in eval mode.

    A score depends neither on its batch nor on the run. `model` is the ClapModel; `feature_extractor`,
    `tokenizer` and `sample_rate` belong to its front end; the rest is as in the Clap protocol.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        device: str = "auto",
        window: str | None = None,
        precision: str = "fp32",
        name: str | None = None,
        front_end: str | None = None,
    ):
        """Open `source`, a folder or hub id; `front_end`, another one, serves where `source` has none.

        `device`, `window` and `precision` are as in `load_clap`, and so are the errors.
        """
        require_precision(precision)
        self.device = choose_device(device)
        self.precision = precision
        folder = hub.find_folder(os.fspath(source), front_end=front_end is None)
        self.name = name or (Path(source).resolve().name if Path(source).is_dir() else os.fspath(source))
        self.model = hub.read_model(folder).to(self.device)
        self.checkpoint_sha256 = sha256_of(hub.weights_file(folder))
        if front_end is not None and not (folder / hub.FRONT_END_FILE).is_file():
            folder = hub.find_folder(front_end, weights=False)
        self.feature_extractor, self.tokenizer = hub.read_front_end(folder)
        parts = (self.feature_extractor, self.tokenizer, self.model.config)
        self._front_end = FrontEnd(self.name, *parts, window)
        self.window = self._front_end.window
        self.sample_rate = self._front_end.sample_rate

    # --- files and captions to unit vectors -------------------------------------------------------------

    def embed_audio(self, paths: Sequence[str | os.PathLike]) -> np.ndarray:
        """N files -> float32 `[N, D]`, L2-normalised, without a graph; puts the model in eval mode.

        Raises AudioError, with the path, for a file that can't be read.
        """
        _require_several(paths, "paths")
        return self._embed(paths, lambda batch: self.encode_audio(self.audio_features(batch)))

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """N captions -> float32 `[N, D]`, L2-normalised, without a graph; puts the model in eval mode.

        Raises ValueError for an empty caption.
        """
        _require_several(texts, "texts")
        return self._embed(texts, lambda batch: self.encode_text(self.text_tokens(batch)))

    # --- the two halves, for training -------------------------------------------------------------------

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """N files -> `input_features` float32 `[N, C, T, M]`, log-mels in dB, and `is_longer` bool `[N, 1]`.

        On the CPU. C is 4 for a model with feature fusion (the whole clip shrunk to T frames, then three
        chunks of it), else 1. Raises AudioError, with the path, for a file that can't be read.
        """
        _require_several(paths, "paths")
        return self._front_end.audio_features(paths)

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """N captions -> `input_ids` and `attention_mask`, int64 `[N, L]`, padded on the right to the longest.

        On the CPU. A caption of more than `max_tokens` tokens is cut there, and a warning is logged. Raises
        ValueError for a caption that is empty or no text.
        """
        _require_several(texts, "texts")
        return self._front_end.text_tokens(texts)

    def encode_audio(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """`audio_features` -> projections `[N, D]`, not normalised, differentiable, where the model is."""
        pooled = self.model.audio_model(
            input_features=features["input_features"].to(self.device),
            is_longer=features["is_longer"].to(self.device),
            return_dict=True,
        ).pooler_output
        return self.model.audio_projection(pooled)

    def encode_text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """`text_tokens` -> text projections `[N, D]`, not normalised, differentiable, where the model is."""
        pooled = self.model.text_model(
            input_ids=tokens["input_ids"].to(self.device),
            attention_mask=tokens["attention_mask"].to(self.device),
            return_dict=True,
        ).pooler_output
        return self.model.text_projection(pooled)

    @property
    def max_tokens(self) -> int:
        """The longest caption that is read whole, in tokens, with the begin and end tokens."""
        return self._front_end.max_tokens

    @property
    def front_end(self) -> str:
        """All that decides features and tokens, in one line of JSON: the same text, the same features."""
        return self._front_end.describe()

    def save_front_end(self, folder: str | os.PathLike) -> None:
        """Write the feature extractor and the tokenizer into `folder`, beside a model saved there."""
        self._front_end.save(folder)

    # --- inside -----------------------------------------------------------------------------------------

    def _embed(self, items: Sequence, encode: Callable[[Sequence], torch.Tensor]) -> np.ndarray:
        items = list(items)
        rows = [np.empty((0, self.model.config.projection_dim), dtype=np.float32)]
        for start in range(0, len(items), BATCH_SIZE):
            with self._inference():
                embedding = encode(items[start : start + BATCH_SIZE])
                rows.append(F.normalize(embedding.float(), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        self.model.eval()
        device_type = torch.device(self.device).type
        autocast = torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        # cuDNN would round fp32 convolutions to TF32, 10 bits of mantissa; the flag is put back afterwards.
        full_fp32 = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        with torch.inference_mode(), autocast, full_fp32:
            yield


def _require_several(values: Sequence, name: str) -> None:
    if isinstance(values, (str, bytes, os.PathLike)):
        raise TypeError(f"{name} is one {type(values).__name__}, {values!r}; give a list of them")
