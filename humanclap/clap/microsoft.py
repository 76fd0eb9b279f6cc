"""MS CLAP 2022 and 2023 from their own `.pth` files, through msclap's own model and settings."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
import torch

from .. import audio
from ..checks import need_extra
from ..download import hub_files
from ..models import BERT, GPT2
from .checkpoints import first_of, load_whole, read_shapes
from .embedder import Embedder

_LARGEST_KERNEL = 50_000_000  # values of a resampling filter, 200 MB
# Constant buffers that some versions of transformers save with BERT and GPT-2, and others do not.
_MAY_DIFFER = ("position_ids", ".attn.bias", ".attn.masked_bias")
# Which audio encoder is which version's, by the beginning of its weights' names.
_MARKS = {"2022": "audio_encoder.base.conv_block1.", "2023": "audio_encoder.base.htsat."}


class MicrosoftClap(Embedder):
    """MS CLAP 2022 (Cnn14, BERT, 5 s) or 2023 (HTSAT, GPT-2, 7 s).

    The numbers are msclap's, which crops every longer clip at random; the windows here do not.
    """

    def __init__(self, checkpoint: Path, name: str, version: str | None = None, **settings):
        """Open a `.pth` file; `version`, "2022" or "2023", where given, is what it must be.

        `settings` are Embedder's. Raises ExtraMissing; FileNotFoundError; ValueError for a file that is damaged, would
        run code, or holds another model.
        """
        import yaml

        found = msclap_version(read_shapes(checkpoint), checkpoint)
        need_extra("msclap", "msclap", "MS CLAP")
        if version not in (None, found):
            raise ValueError(
                f"{name} is MS CLAP {version}, and {checkpoint} is {found}: use load_clap('msclap-{found}', checkpoint=...)"
            )
        super().__init__(name, checkpoint, **settings)
        package = Path(next(iter(importlib.util.find_spec("msclap").submodule_search_locations)))
        own = (package / "configs" / f"config_{found}.yml").read_text(encoding="utf-8")
        self.version, self._settings = found, yaml.safe_load(own)
        self.sample_rate, self.max_tokens = int(self._settings["sampling_rate"]), int(self._settings["text_len"])
        self.n_samples = int(self._settings["duration"]) * self.sample_rate
        self.dimension = int(self._settings["d_proj"])
        self.tokenizer = _read_tokenizer(self._settings["text_model"])

    def read(self, path: str | os.PathLike) -> np.ndarray:
        """A file at 44.1 kHz, resampled as msclap does it, by torchaudio's windowed sinc."""
        mono, rate = audio.decode_mono(path, seconds=60 if self.window == "first" else None)  # it hears 7 s at most
        if rate == self.sample_rate:
            return mono
        divisor = np.gcd(rate, self.sample_rate)
        if (rate // divisor) * (self.sample_rate // divisor) > _LARGEST_KERNEL:
            raise audio.AudioError(path, f"its {rate} Hz can't be resampled to {self.sample_rate} Hz as msclap does it")
        return _resampler(rate, self.sample_rate)(torch.from_numpy(mono)).numpy()

    def features(self, waveforms: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
        """Clips -> `waveforms` float32 `[N, T]` at 44.1 kHz, T 5 s or 7 s; under "mean" a row per window."""
        draw = random.Random(self.seed).randrange
        clips = [audio.windows(wave, self.n_samples, self.window, draw, fill="repeat") for wave in waveforms]
        rows = {"waveforms": torch.from_numpy(np.concatenate(clips))}
        return rows | {"windows": torch.tensor([len(cuts) for cuts in clips])} if self.window == "mean" else rows

    def text_tokens(self, texts) -> dict[str, torch.Tensor]:
        """As every Embedder's, at most 77 (2023) or 100 tokens (2022); BERT's with `token_type_ids`."""
        tokens = super().text_tokens(texts)
        return tokens | ({"token_type_ids": torch.zeros_like(tokens["input_ids"])} if self.version == "2022" else {})

    def token_ids(self, text: str) -> list[int]:
        """As every Embedder's; 2023 ends with a token of its own."""
        return super().token_ids(text + " <|endoftext|>" if self.version == "2023" else text)

    def encode_audio(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model.audio_encoder(features["waveforms"].to(self.device))[0]

    def encode_text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model.caption_encoder({key: value.to(self.device) for key, value in tokens.items()})

    def front_end_settings(self) -> dict:
        """The package decides the rest."""
        return {"package": f"msclap {version_of('msclap')}", "version": self.version}

    def build(self, state: dict[str, torch.Tensor]) -> torch.nn.Module:
        """msclap's own model with the checkpoint's weights."""
        model = _empty_model(self._settings)
        load_whole(model, state, self.weights, _MAY_DIFFER)
        encoder = getattr(model.audio_encoder.base, "htsat", model.audio_encoder.base)
        _keep_in_float32(encoder.spectrogram_extractor)
        _keep_in_float32(encoder.logmel_extractor)
        return model


def msclap_version(state: Mapping[str, torch.Tensor], path: str | os.PathLike) -> str:
    """ "2022" or "2023", by the audio encoder. Raises ValueError for weights of neither."""
    for version, mark in _MARKS.items():
        if any(key.startswith(mark) for key in state):
            return version
    raise ValueError(
        f"{path} holds no MS CLAP 2022 or 2023: no weight begins with {' or '.join(_MARKS.values())}; its names are "
        f"{first_of(sorted(state))}"
    )


def _empty_model(settings: Mapping) -> torch.nn.Module:
    """msclap's own model, random.

    The package would fetch half a gigabyte of a published text model and then overwrite all of it: meanwhile its
    `AutoModel.from_pretrained` gives an empty one. Its import silences warnings and transformers' log, and building its
    model draws weights: all of that is undone.
    """
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model
    from transformers.utils import logging

    class Given:
        @staticmethod
        def from_pretrained(*_args) -> torch.nn.Module:
            return GPT2Model(GPT2Config()) if settings["text_model"] == "gpt2" else BertModel(BertConfig())

    names = ("audioenc_name", "window_size", "hop_size", "mel_bins", "fmin", "fmax", "out_emb")
    names += ("text_model", "transformer_embed_dim", "d_proj")
    named = {name: settings[name] for name in names}
    verbosity = logging.get_verbosity()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        models = importlib.import_module("msclap.models.clap")
        logging.set_verbosity(verbosity)
        original, models.AutoModel = models.AutoModel, Given
        try:
            return models.CLAP(**named, sample_rate=settings["sampling_rate"], classes_num=settings["num_classes"])
        finally:
            models.AutoModel = original


def _keep_in_float32(module: torch.nn.Module) -> None:
    """Let autocast leave a front end alone: a power spectrum does not fit into 16 bits."""
    forward = module.forward

    def in_float32(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    module.forward = in_float32


def _read_tokenizer(text_model: str):
    from transformers import BertTokenizerFast, GPT2TokenizerFast

    if text_model != "gpt2":
        return BertTokenizerFast.from_pretrained(hub_files(BERT).parent, local_files_only=True)
    tokenizer = GPT2TokenizerFast.from_pretrained(hub_files(GPT2).parent, local_files_only=True)
    tokenizer.add_special_tokens({"pad_token": "!"})  # msclap counts a caption's tokens by its id, 0
    return tokenizer


@lru_cache(maxsize=8)
def _resampler(rate: int, sample_rate: int) -> torch.nn.Module:
    from torchaudio.transforms import Resample

    return Resample(rate, sample_rate)
