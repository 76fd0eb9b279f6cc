"""`transformers.ClapModel` as a Clap: the authors' released models, converted ones, the demo's, your own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..files import sha256_of
from . import hub
from .embedder import BATCH_SIZE, Embedder, require_several
from .front_end import FrontEnd, note_other_front_end

__all__ = ["BATCH_SIZE", "HuggingFaceClap"]


class HuggingFaceClap(Embedder):
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
        seed: int = 0,
        sha256: str | None = None,
    ):
        """Open `source`, a folder or hub id; `front_end`, another one, serves where `source` has none.

        `device`, `window`, `precision` and `seed` are as in `load_clap`, and so are the errors. Weights that
        differ from `sha256`, where given, are loaded with a warning.
        """
        super().__init__(device, precision)
        folder = hub.find_folder(os.fspath(source), front_end=front_end is None)
        self.name = name or (Path(source).resolve().name if Path(source).is_dir() else os.fspath(source))
        self.model = self._module = hub.read_model(folder).to(self.device)
        self._dimension = int(self.model.config.projection_dim)
        self.checkpoint_sha256 = sha256_of(hub.weights_file(folder))
        if sha256 not in (None, self.checkpoint_sha256):
            hub.warn_of_sha256(self.name, sha256, self.checkpoint_sha256)
        if front_end is not None and not (folder / hub.FRONT_END_FILE).is_file():
            folder = hub.find_folder(front_end, weights=False)
        self.feature_extractor, self.tokenizer = hub.read_front_end(folder)
        if front_end is not None:
            note_other_front_end(self.name, self.feature_extractor)
        parts = (self.feature_extractor, self.tokenizer, self.model.config)
        self._front_end = FrontEnd(self.name, *parts, window, seed)
        self.window, self.seed = self._front_end.window, seed
        self.sample_rate = self._front_end.sample_rate

    # --- the two halves, for training -------------------------------------------------------------------

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """N files -> `input_features` float32 `[N, C, T, M]`, log-mels in dB, and `is_longer` bool `[N, 1]`.

        Under the window "mean" a clip has a row for each of its windows, and `windows`, int64 `[N]`, says how
        many. On the CPU. C is 4 for a model with feature fusion (the whole clip, shrunk to T frames, and
        three chunks of it), else 1. Raises AudioError, with the path, for a file that can't be read.
        """
        require_several(paths, "paths")
        return self._front_end.audio_features(paths)

    def is_longer(self, path: str | os.PathLike) -> bool:
        """Whether a clip is longer than what the model hears at once. Raises AudioError."""
        return self._front_end.is_longer(path)

    def draw_features(self, path: str | os.PathLike, seed: int) -> np.ndarray:
        """One clip -> `input_features` float32 `[C, T, M]`, its crop or its fusion chunks drawn from `seed`.

        For training with other windows in each epoch; the clip's own window policy is left aside. Raises
        AudioError.
        """
        return self._front_end.draw_features(path, seed)

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """N captions -> `input_ids` and `attention_mask`, int64 `[N, L]`, padded on the right to the longest.

        On the CPU. A caption of more than `max_tokens` tokens is cut there, and a warning is logged. Raises
        ValueError for a caption that is empty or no text.
        """
        require_several(texts, "texts")
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
