"""What every backend shares: weights read on use, batches, precision, several windows to one vector, unit length."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from .. import audio, checks
from ..files import sha256_of
from . import health
from .checkpoints import read_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_SIZE = 32
"""Clips or captions that are prepared together; on a GPU, also windows that go through the model together."""
FUSION, UPSTREAM = "fusion", "upstream"

_CPU_WINDOWS = 4  # measured: with 16, intermediate results leave the caches, and a clip takes a quarter longer
_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_log = logging.getLogger(__name__)


class Embedder:
    """Files and captions to unit vectors, in two halves: features on the CPU, then the model.

    Everything but `model` is known without reading the weights. The same file gives the same vector in any batch, order
    or process, except under the window "upstream", which draws. A backend sets and defines what has no value here.
    """

    sample_rate: int
    n_samples: int  # length of a window
    max_tokens: int  # the longest caption that is read whole, with the begin and end tokens
    dimension: int
    tokenizer: PreTrainedTokenizerBase
    fused = False  # whether the model has feature fusion, and so the window "fusion"

    def __init__(
        self, name: str, weights: Path, device: str, window: str | None, precision: str, seed: int, published: str = ""
    ):
        """`weights` is the file with them, and `published` its SHA-256 where it must be that; the rest as in `load_clap`."""
        allowed = (FUSION, *audio.POLICIES) if self.fused else audio.POLICIES
        self.name, self.device, self.seed = name, device, seed
        self.precision = checks.choice(precision, "precision", tuple(_AUTOCAST))
        if window is not None and window not in allowed:
            raise ValueError(f"unknown window {window!r}; known for {name}: {', '.join(allowed)}")
        self.window = window or allowed[0]
        self.weights, self.published = weights, published
        self._sha256: str | None = None
        self._checked: set[str] = set()
        self._lock = threading.RLock()

    def read(self, path: str | os.PathLike) -> np.ndarray:
        """A file as one channel `[T]` at `sample_rate`; raises AudioError, with the path."""

    def features(self, waveforms: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
        """At least one clip, each `[T]` at `sample_rate` -> what `audio_features` returns of them."""

    def front_end_settings(self) -> dict:
        """What decides features, beside window and seed."""

    def build(self, state: dict[str, torch.Tensor]) -> torch.nn.Module:
        """The model with these weights, on the CPU. Raises ValueError for weights that do not fit."""

    def encode_audio(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """`audio_features` -> projections `[W, D]`, a row for each window, not normalised, differentiable, on `device`."""

    def encode_text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """`text_tokens` -> projections `[N, D]`, not normalised, differentiable, on `device`."""

    # --- the weights ------------------------------------------------------------------------------------

    @property
    def checkpoint_sha256(self) -> str:
        """SHA-256 of the file with the weights, which are not loaded for it.

        Raises ValueError for weights that are not the published ones of a model with a published checksum.
        """
        with self._lock:
            if self._sha256 is None:
                self._sha256 = self._as_published(sha256_of(self.weights))
            return self._sha256

    @cached_property
    def model(self) -> torch.nn.Module:
        """The model in eval mode, its weights read at the first use, from the bytes that are hashed.

        Raises ValueError for weights that do not fit, and for those that have changed since `checkpoint_sha256` was asked
        for: a number never carries the checksum of other weights.
        """
        # Embedding threads ask together, perhaps in inference mode, in which no weight could be trained later.
        with self._lock, torch.inference_mode(False):
            if "model" not in self.__dict__:
                state, sha256 = read_weights(self.weights)
                if self._sha256 not in (None, sha256):
                    raise ValueError(
                        f"{self.weights} has changed since {self.name} was opened: its sha256 was {self._sha256} and "
                        f"is {sha256}. Start again (load_clap) for the new weights, or restore the file"
                    )
                self._as_published(sha256)
                model = self.build(state).to(self.device).eval()
                self._sha256, self.__dict__["model"] = sha256, model
            return self.__dict__["model"]

    def _as_published(self, sha256: str) -> str:
        if self.published not in ("", sha256):
            raise ValueError(
                f"{self.weights} is not the published {self.weights.name}: its sha256 is {sha256}, expected "
                f"{self.published}. Remove it and fetch it again, or give it as checkpoint= if you mean to use it"
            )
        return sha256

    # --- features and tokens ----------------------------------------------------------------------------

    @cached_property
    def front_end(self) -> str:
        """All that decides features and tokens, in one line of JSON: the same text, the same features."""
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        tokenizer |= {"padding": None, "truncation": None}  # of the last call; each call sets its own
        sha256 = hashlib.sha256(json.dumps(tokenizer, sort_keys=True).encode()).hexdigest()
        # format: to be raised when the same settings would give other features.
        settings = {"format": 1, "window": self.window, "max_tokens": self.max_tokens}
        settings |= {"tokenizer_sha256": sha256} | self.front_end_settings()
        return json.dumps(settings | ({"seed": self.seed} if self.window == UPSTREAM else {}), sort_keys=True)

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """N >= 1 files -> tensors with a row for each window, on the CPU; safe to call from several threads.

        Under "mean" a clip may have several windows, and `windows`, int64 `[N]`, says how many. Under "upstream" it is
        what the package underneath draws for this list, in its order. Raises AudioError, with the path.
        """
        return self.features(self.read(path) for path in _several(paths, "paths"))

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """N >= 1 captions -> `input_ids` and `attention_mask`, int64 `[N, L]`, padded on the right, on the CPU.

        A caption of more than `max_tokens` tokens is cut there, and a warning is logged. Raises ValueError for one that
        is empty or no text (it names the row).
        """
        texts = _several(texts, "texts")
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"caption {row} is {text!r}; it must be a text that is not empty")
        rows, pad = [self.token_ids(text) for text in texts], self.tokenizer.pad_token_id
        width = max(map(len, rows))
        return {
            "input_ids": torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        }

    def token_ids(self, text: str) -> list[int]:
        """A caption's tokens, with those of begin and end, cut at `max_tokens`."""
        # verbose: transformers' own warning would speak of indexing errors, which the cut rules out.
        ids = self.tokenizer(text, verbose=False)["input_ids"]
        if len(ids) <= self.max_tokens:
            return ids
        _log.warning(
            "%s reads only the first %d tokens of the caption %.60r; shorten it", self.name, self.max_tokens, text
        )
        return [*ids[: self.max_tokens - 1], ids[-1]]  # which is the end token

    # --- vectors ----------------------------------------------------------------------------------------

    def embed_audio(self, paths: Sequence[str | os.PathLike]) -> np.ndarray:
        """N files -> float32 `[N, D]`, L2-normalised, without a graph; puts the model in eval mode.

        Under the window "upstream" this is one upstream call on the list, and draws in its order. Raises AudioError,
        with the path, for a file that can't be read.
        """
        paths = _several(paths, "paths")
        size = max(1, len(paths)) if self.window == UPSTREAM else BATCH_SIZE
        return self._in_batches(paths, lambda batch: self.embed_features(self.audio_features(batch)), size)

    def embed_features(self, features: dict[str, torch.Tensor]) -> np.ndarray:
        """`audio_features` of N files -> float32 `[N, D]`, L2-normalised: of several windows, their mean.

        The windows' vectors are normalised before they are averaged, and the mean once more.
        """
        self._check_health("audio")
        counts = features.get("windows")
        rows = {key: value for key, value in features.items() if key != "windows"}
        n_rows = len(next(iter(rows.values())))
        vectors = self._in_batches(
            range(n_rows),
            lambda batch: self._unit(self.encode_audio, {k: v[batch.start : batch.stop] for k, v in rows.items()}),
            _CPU_WINDOWS if self.device == "cpu" else BATCH_SIZE,
        )
        if counts is None or len(counts) == n_rows:
            return vectors
        ends = np.cumsum(counts.numpy())
        means = np.stack([vectors[end - n : end].mean(axis=0) for end, n in zip(ends, counts.tolist(), strict=True)])
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        # Windows that cancel each other leave no direction; 0 says so, and the scorer reports it.
        return (means / np.where(lengths > 0, lengths, 1)).astype(np.float32)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """N captions -> float32 `[N, D]`, L2-normalised, without a graph; puts the model in eval mode.

        Raises ValueError for an empty caption.
        """
        texts = _several(texts, "texts")
        return self._in_batches(texts, lambda batch: self.embed_tokens(self.text_tokens(batch)), BATCH_SIZE)

    def embed_tokens(self, tokens: dict[str, torch.Tensor]) -> np.ndarray:
        """`text_tokens` of N captions -> float32 `[N, D]`, L2-normalised."""
        self._check_health("text")
        return self._unit(self.encode_text, tokens)

    def _in_batches(self, items: Sequence, embed: Callable[[Sequence], np.ndarray], size: int) -> np.ndarray:
        rows = [np.empty((0, self.dimension), dtype=np.float32)]
        rows += [embed(items[start : start + size]) for start in range(0, len(items), size)]
        return np.concatenate(rows)

    def _unit(self, encode: Callable[[dict], torch.Tensor], inputs: dict[str, torch.Tensor]) -> np.ndarray:
        """What a tower gives, as float32 unit vectors `[N, D]`, in eval mode and without a graph."""
        self.model.eval()
        reduced = {"dtype": _AUTOCAST[self.precision]} if self.precision != "fp32" else {"enabled": False}
        autocast = torch.autocast(torch.device(self.device).type, **reduced)
        # cuDNN would round fp32 convolutions to TF32, 10 bits of mantissa; the flag is restored afterwards.
        full_fp32 = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        with torch.inference_mode(), autocast, full_fp32:
            return F.normalize(encode(inputs).float(), dim=-1).cpu().numpy()

    def _check_health(self, tower: str) -> None:
        """Warn, once, if the tower "audio" or "text" gives nearly one vector for everything."""
        with self._lock:  # the first thread checks; the others go on without waiting
            if tower in self._checked:
                return
            self._checked.add(tower)

        def embed() -> np.ndarray:
            if tower == "text":
                encode, inputs = self.encode_text, [self.text_tokens([text]) for text in health.CAPTIONS]
            else:
                encode, inputs = self.encode_audio, [self.features([wave]) for wave in health.sounds(self.sample_rate)]
            first = [{key: value[:1] for key, value in one.items() if key != "windows"} for one in inputs]
            return np.concatenate([self._unit(encode, one) for one in first])

        _ = self.model  # so that the checksum is that of what is checked
        health.check(self.name, self.checkpoint_sha256, tower, embed)


def choose_device(device: str) -> str:
    """The device for "auto", "cpu", "cuda", "cuda:N" or "mps". Raises ValueError for one that is absent."""
    n_gpus, has_mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if n_gpus else "mps" if has_mps else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", str(device)):
        raise ValueError(f"unknown device {device!r}; allowed: auto, cpu, cuda, cuda:N, mps")
    kind, _, number = device.partition(":")
    if (kind == "cuda" and int(number or 0) >= n_gpus) or (kind == "mps" and not has_mps):
        raise ValueError(f"device {device!r} is not there: torch sees {n_gpus} GPU(s); use 'cpu' or 'auto'")
    return device


def _several(values: Iterable, name: str) -> list:
    if isinstance(values, (str, bytes, os.PathLike)):
        raise TypeError(f"{name} is one {type(values).__name__}, {values!r}; give a list of them")
    return list(values)
