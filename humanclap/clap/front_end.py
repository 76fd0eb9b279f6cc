"""The front end of a `transformers.ClapModel`: files to log-mels and captions to tokens, each by itself."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from .. import audio

if TYPE_CHECKING:
    from transformers import ClapConfig, ClapFeatureExtractor, PreTrainedTokenizerBase

_FUSION = "fusion"
_FORMAT = 1  # raise it when the same settings would give other features
_log = logging.getLogger(__name__)


class FrontEnd:
    """A feature extractor and a tokenizer as one model needs them, with a fixed window.

    transformers cuts a long clip at a random place and, with feature fusion, marks one short clip of a batch
    as longer by chance. Here a clip's features are decided by that clip alone and drawn from no generator.
    """

    def __init__(
        self,
        name: str,
        extractor: ClapFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        config: ClapConfig,
        window: str | None = None,
    ):
        """`name` is for messages. Raises ValueError for an unknown window or parts that fit no such model."""
        self.name = name
        self.extractor = extractor
        self.tokenizer = tokenizer
        self.sample_rate = int(extractor.sampling_rate)
        self._fused = bool(config.audio_config.enable_fusion)
        self._check_extractor()
        self._check_tokenizer(config.text_config)
        # RoBERTa numbers positions from pad_token_id + 1 on.
        n_positions = config.text_config.max_position_embeddings - config.text_config.pad_token_id - 1
        self.max_tokens = min(tokenizer.model_max_length, n_positions)
        allowed = (_FUSION, *audio.WINDOWS) if self._fused else audio.WINDOWS
        if window is not None and window not in allowed:
            raise ValueError(f"unknown window {window!r}; known for {name}: {', '.join(allowed)}")
        self.window = window or allowed[0]

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """N files -> `input_features` float32 `[N, C, T, M]` in dB, and `is_longer` bool `[N, 1]`."""
        features = [self.features(audio.load_audio(path, self.sample_rate)) for path in paths]
        if not features:
            raise ValueError("no files were given; audio_features needs at least one")
        return {
            "input_features": torch.from_numpy(np.stack([mels for mels, _ in features])),
            "is_longer": torch.tensor([[longer] for _, longer in features]),
        }

    def features(self, waveform: np.ndarray) -> tuple[np.ndarray, bool]:
        """A clip `[samples]` at `sample_rate` -> log-mels `[C, T, M]`, and whether its chunks are fused."""
        n_samples = int(self.extractor.nb_max_samples)
        if not self._fused:
            return self._log_mel(audio.window(waveform, n_samples, self.window))[None], False
        if self.window != _FUSION or len(waveform) <= n_samples:
            policy = "first" if self.window == _FUSION else self.window
            return np.stack([self._log_mel(audio.window(waveform, n_samples, policy))] * 4), False
        mel = self._log_mel(waveform)
        n_frames = n_samples // self.extractor.hop_length + 1
        if len(mel) == n_frames:  # longer by less than one hop: as many frames as a clip that fits
            return np.stack([mel] * 4), False
        return _fusion(mel, n_frames), True

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """N captions -> `input_ids` and `attention_mask`, int64 `[N, L]`, padded right to the longest."""
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"caption {row} is {text!r}; it must be a text that is not empty")
        ids = [self._token_ids(text) for text in texts]
        if not ids:
            raise ValueError("no captions were given; text_tokens needs at least one")
        width = max(map(len, ids))
        pad = self.tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
        }

    def describe(self) -> str:
        """All that decides features and tokens, in one line of JSON: the same text, the same features."""
        names = ("feature_size", "sampling_rate", "hop_length", "fft_window_size", "nb_max_samples")
        names += ("frequency_min", "frequency_max", "truncation", "padding")
        settings = {name: getattr(self.extractor, name) for name in names}
        settings |= {"format": _FORMAT, "window": self.window, "fused": self._fused}
        settings |= {"max_tokens": self.max_tokens, "tokenizer_sha256": self._tokenizer_sha256()}
        return json.dumps(settings, sort_keys=True)

    def save(self, folder: str | os.PathLike) -> None:
        """Write feature extractor and tokenizer into `folder`."""
        self.extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _log_mel(self, waveform: np.ndarray) -> np.ndarray:
        """The extractor's own log-mel `[T, M]` in dB; models with fusion were trained on its htk filters."""
        filters = self.extractor.mel_filters if self._fused else self.extractor.mel_filters_slaney
        # Not through its __call__, which draws from numpy's global generator.
        return self.extractor._np_extract_fbank_features(waveform, filters).astype(np.float32)

    def _token_ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        # verbose: transformers' own warning would speak of indexing errors, which the cut rules out.
        if len(ids) == self.max_tokens < len(self.tokenizer(text, verbose=False)["input_ids"]):
            _log.warning("%s reads only %d tokens of the caption %.60r", self.name, self.max_tokens, text)
        return ids

    def _tokenizer_sha256(self) -> str:
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        tokenizer |= {"padding": None, "truncation": None}  # of the last call; each call sets its own
        return hashlib.sha256(json.dumps(tokenizer, sort_keys=True).encode()).hexdigest()

    def _check_extractor(self) -> None:
        truncation, needed = self.extractor.truncation, _FUSION if self._fused else "rand_trunc"
        if truncation != needed:
            raise ValueError(
                f"{self.name}: preprocessor_config.json has truncation {truncation!r}, and the model "
                f"(enable_fusion={self._fused}) needs {needed!r}"
            )
        if self.extractor.padding != "repeatpad":
            raise ValueError(
                f"{self.name}: preprocessor_config.json has padding {self.extractor.padding!r}; allowed: "
                "'repeatpad'"
            )

    def _check_tokenizer(self, text_config) -> None:
        if not self.tokenizer.is_fast:
            raise ValueError(f"{self.name}: the tokenizer is a slow one; save it as a RobertaTokenizerFast")
        if self.tokenizer.pad_token_id != text_config.pad_token_id:
            raise ValueError(
                f"{self.name}: the tokenizer pads with id {self.tokenizer.pad_token_id} and the model with "
                f"{text_config.pad_token_id}; RoBERTa counts positions by it"
            )
        n_tokens, vocabulary = len(self.tokenizer), text_config.vocab_size
        if n_tokens > vocabulary:
            raise ValueError(f"{self.name}: the tokenizer has {n_tokens} tokens, the model only {vocabulary}")


def _fusion(mel: np.ndarray, n_frames: int) -> np.ndarray:
    """A long clip's mel `[T_long, M]` -> `[4, n_frames, M]`: all of it, shrunk, and three chunks of it.

    transformers draws each chunk's place from one third of the possible ones; here it is the middle of that
    third, so that a clip has one score.
    """
    whole = torch.from_numpy(mel)[None, None]
    size = (n_frames, mel.shape[1])
    shrunk = F.interpolate(whole, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
    thirds = np.array_split(np.arange(len(mel) - n_frames + 1), 3)
    starts = [third[len(third) // 2] if len(third) else 0 for third in thirds]
    return np.stack([shrunk, *(mel[start : start + n_frames] for start in starts)])
