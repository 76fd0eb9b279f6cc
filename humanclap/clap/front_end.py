"""The front end of a `transformers.ClapModel`: files to log-mels and captions to tokens, each by itself."""

from __future__ import annotations

import copy
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
from .embedder import choose_window, padded, require_captions
from .log_mel import log_mel

if TYPE_CHECKING:
    from transformers import ClapConfig, ClapFeatureExtractor, PreTrainedTokenizerBase

_FUSION = "fusion"
LAION_FUSED = {
    "feature_size": 64, "sampling_rate": 48_000, "hop_length": 480, "fft_window_size": 1024,
    "nb_max_samples": 480_000, "frequency_min": 50, "frequency_max": 14_000,
    "truncation": _FUSION, "padding": "repeatpad",
}  # fmt: skip
"""The front end of `laion/clap-htsat-fused`."""

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
        seed: int = 0,
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
        allowed = (_FUSION, *audio.POLICIES) if self._fused else audio.POLICIES
        self.window = choose_window(window, allowed, name)
        self.seed = seed

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """N files -> `input_features` float32 `[N, C, T, M]` in dB, and `is_longer` bool `[N, 1]`.

        Under "mean" a row for each window, and `windows`, int64 `[N]`. Under "upstream" what transformers
        draws for this list, in its order, from numpy's generator with this seed.
        """
        rng = np.random.RandomState(self.seed) if self.window == "upstream" else None
        # Of a long clip only what is heard is read.
        seconds = int(self.extractor.nb_max_samples) / self.sample_rate if self.window == "first" else None
        features = [self.features(audio.load_audio(path, self.sample_rate, seconds), rng) for path in paths]
        if not features:
            raise ValueError("no files were given; audio_features needs at least one")
        flags = [longer for _, longer in features]
        if rng is not None and self._fused and not any(flags):
            flags[rng.randint(0, len(flags))] = True  # as transformers does, whatever it means
        counts = [len(mels) for mels, _ in features]
        rows = {
            "input_features": torch.from_numpy(np.concatenate([mels for mels, _ in features])),
            "is_longer": torch.tensor(flags).repeat_interleave(torch.tensor(counts))[:, None],
        }
        return rows | {"windows": torch.tensor(counts)} if self.window == "mean" else rows

    def is_longer(self, path: str | os.PathLike) -> bool:
        """Whether a file is longer than the window, so that something of it must be left out or shrunk."""
        return len(audio.load_audio(path, self.sample_rate)) > int(self.extractor.nb_max_samples)

    def draw_features(self, path: str | os.PathLike, seed: int) -> np.ndarray:
        """A file -> log-mels `[C, T, M]` of a crop, or with fusion chunks, drawn from `seed` as upstream draws."""
        drawing = copy.copy(self)
        drawing.window = "upstream"
        waveform = audio.load_audio(path, self.sample_rate)
        return drawing.features(waveform, np.random.RandomState(seed))[0][0]

    def features(
        self, waveform: np.ndarray, rng: np.random.RandomState | None = None
    ) -> tuple[np.ndarray, bool]:
        """A clip `[samples]` -> log-mels `[W, C, T, M]` of its windows, and whether chunks are fused.

        `rng` is where the window "upstream" draws from.
        """
        n_samples = int(self.extractor.nb_max_samples)
        if self._fused and self.window in (_FUSION, "upstream"):
            if len(waveform) > n_samples:
                return self._fused_features(waveform, n_samples, rng)
            cuts = audio.windows(waveform, n_samples, "first")
        else:
            draw = None if rng is None else lambda overflow: rng.randint(0, overflow + 1)
            cuts = audio.windows(waveform, n_samples, self.window, draw)
        mels = np.stack([self._log_mel(cut) for cut in cuts])[:, None]
        return np.repeat(mels, 4, axis=1) if self._fused else mels, False

    def _fused_features(self, waveform, n_samples: int, rng) -> tuple[np.ndarray, bool]:
        mel = self._log_mel(waveform)
        n_frames = n_samples // self.extractor.hop_length + 1
        if len(mel) == n_frames:  # longer by less than one hop: as many frames as a clip that fits
            return np.stack([mel] * 4)[None], False
        whole = torch.from_numpy(mel)[None, None]
        size = (n_frames, mel.shape[1])
        shrunk = F.interpolate(whole, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
        starts = chunk_starts(len(mel) - n_frames + 1, rng)
        return np.stack([shrunk, *(mel[start : start + n_frames] for start in starts)])[None], True

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """N captions -> `input_ids` and `attention_mask`, int64 `[N, L]`, padded right to the longest."""
        require_captions(texts)
        return padded([self._token_ids(text) for text in texts], self.tokenizer.pad_token_id)

    def describe(self) -> str:
        """All that decides features and tokens, in one line of JSON: the same text, the same features."""
        names = ("feature_size", "sampling_rate", "hop_length", "fft_window_size", "nb_max_samples")
        names += ("frequency_min", "frequency_max", "truncation", "padding")
        settings = {name: getattr(self.extractor, name) for name in names}
        settings |= {"format": _FORMAT, "window": self.window, "fused": self._fused}
        settings |= {"max_tokens": self.max_tokens, "tokenizer_sha256": tokenizer_sha256(self.tokenizer)}
        if self.window == "upstream":
            settings["seed"] = self.seed
        return json.dumps(settings, sort_keys=True)

    def save(self, folder: str | os.PathLike) -> None:
        """Write feature extractor and tokenizer into `folder`."""
        self.extractor.save_pretrained(folder)
        # A fast tokenizer keeps the cut and the padding of its last call and would save them as its own.
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.save_pretrained(folder)

    def _log_mel(self, waveform: np.ndarray) -> np.ndarray:
        """The extractor's own log-mel `[T, M]` in dB; models with fusion were trained on its htk filters."""
        filters = self.extractor.mel_filters if self._fused else self.extractor.mel_filters_slaney
        # Not through its __call__, which draws from numpy's global generator.
        return log_mel(self.extractor, waveform, filters)

    def _token_ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        # verbose: transformers' own warning would speak of indexing errors, which the cut rules out.
        if len(ids) == self.max_tokens < len(self.tokenizer(text, verbose=False)["input_ids"]):
            told = "%s reads only %d tokens, not the rest, of the caption %.60r; shorten it"
            _log.warning(told, self.name, self.max_tokens, text)
        return ids

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


def chunk_starts(n_places: int, rng: np.random.RandomState | None = None) -> list[int]:
    """Where the three chunks of a long clip start, of `n_places` frames that they could start at.

    LAION draws one from each third of the places, and `rng` does so too; without it, it is the middle of the
    third, so that a clip has one score.
    """
    thirds = [third if len(third) else [0] for third in np.array_split(np.arange(n_places), 3)]
    return [int(third[len(third) // 2] if rng is None else rng.choice(third)) for third in thirds]


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of all that a fast tokenizer does, whatever files it came from."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content |= {"padding": None, "truncation": None}  # of the last call; each call sets its own
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def note_other_front_end(name: str, extractor: ClapFeatureExtractor) -> None:
    """Log a warning that says in what `extractor` differs from LAION's with fusion, where it does."""
    own = {setting: getattr(extractor, setting) for setting in LAION_FUSED}
    other = {setting: value for setting, value in own.items() if value != LAION_FUSED[setting]}
    if other:
        expected = {setting: LAION_FUSED[setting] for setting in other}
        _log.warning(
            "%s is heard with its own front end, which differs from LAION's: %s, LAION %s",
            name,
            other,
            expected,
        )
