"""MS CLAP 2022 and 2023 from their own `.pth` files: all of msclap but its reading of files."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
import torch

from ..files import sha256_of
from .. import audio
from .embedder import Embedder, choose_window, padded, require_captions, require_several
from .front_end import tokenizer_sha256
from .packages import msclap_models, surroundings_kept, untrained
from .published import fetch_tokenizer
from .weights import load_whole, named_tensors, read_checkpoint

VERSIONS = ("2022", "2023")
_FORMAT = 1  # raise it when the same settings would give other features
_LARGEST_KERNEL = 50_000_000  # values of a resampling filter, 200 MB
# Buffers that BERT and GPT-2 have kept in their files in some versions of transformers and not in others;
# no training changes them.
_MAY_DIFFER = ("position_ids", ".attn.bias", ".attn.masked_bias")
# Which audio encoder is which version's, by the beginning of its weights' names.
_MARKS = {"2022": "audio_encoder.base.conv_block1.", "2023": "audio_encoder.base.htsat."}
_log = logging.getLogger(__name__)


class MicrosoftClap(Embedder):
    """MS CLAP 2022 (Cnn14, BERT, 5 s) or 2023 (HTSAT, GPT-2, 7 s), in eval mode.

    The numbers are msclap's; it crops every longer clip at random, which the windows here do not. The
    attributes are those of the Clap protocol.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        name: str | None = None,
        device: str = "auto",
        window: str | None = None,
        precision: str = "fp32",
        seed: int = 0,
        version: str | None = None,
    ):
        """Open a `.pth` file; `version`, where given, is what it must be. The rest is as in `load_clap`."""
        super().__init__(device, precision)
        self.name = name or Path(checkpoint).name
        state = read_msclap_state(checkpoint)
        found = msclap_version(state, checkpoint)
        if version not in (None, found):
            raise ValueError(
                f"{self.name} is MS CLAP {version}, and {checkpoint} is {found}: use "
                f"load_clap('msclap-{found}', checkpoint=...)"
            )
        self.version = found
        self.window, self.seed = choose_window(window, audio.POLICIES, self.name), seed
        settings = _settings(found)
        self.sample_rate = int(settings["sampling_rate"])
        self._n_samples = int(settings["duration"]) * self.sample_rate
        self.max_tokens = int(settings["text_len"])
        self._tokenizer = _read_tokenizer(settings["text_model"])
        self._module = _build(settings, state, checkpoint).to(self.device)
        self._dimension = int(settings["d_proj"])
        self.checkpoint_sha256 = sha256_of(checkpoint)

    @property
    def front_end(self) -> str:
        """All that decides features and tokens, in one line of JSON: the same text, the same features."""
        settings = {"package": f"msclap {version_of('msclap')}", "format": _FORMAT, "version": self.version}
        settings |= {"window": self.window, "tokenizer_sha256": tokenizer_sha256(self._tokenizer)}
        if self.window == "upstream":
            settings["seed"] = self.seed
        return json.dumps(settings, sort_keys=True)

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """N files -> `waveforms` float32 `[N, T]` at 44.1 kHz, T 5 s or 7 s; under "mean" a row a window.

        Raises AudioError, with the path, for a file that can't be read.
        """
        require_several(paths, "paths")
        generator = random.Random(self.seed)
        draw = generator.randrange
        clips = [
            audio.windows(self._read(path), self._n_samples, self.window, draw, fill="repeat")
            for path in paths
        ]
        if not clips:
            raise ValueError("no files were given; audio_features needs at least one")
        rows = {"waveforms": torch.from_numpy(np.concatenate(clips))}
        return (
            rows | {"windows": torch.tensor([len(cuts) for cuts in clips])} if self.window == "mean" else rows
        )

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """N captions -> token ids, int64 `[N, L]`, L at most 77 (2023) or 100 (2022): msclap's limit.

        A longer caption is cut there, before its end token, and a warning is logged.
        """
        require_several(texts, "texts")
        require_captions(texts)
        tokens = padded([self._token_ids(text) for text in texts], self._tokenizer.pad_token_id)
        if self.version == "2022":
            tokens["token_type_ids"] = torch.zeros_like(tokens["input_ids"])
        return tokens

    def encode_audio(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """`audio_features` -> projections `[N, 1024]`, not normalised, differentiable, where the model is."""
        return self._module.audio_encoder(features["waveforms"].to(self.device))[0]

    def encode_text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """`text_tokens` -> projections `[N, 1024]`, not normalised, differentiable, where the model is."""
        return self._module.caption_encoder({key: value.to(self.device) for key, value in tokens.items()})

    def _read(self, path: str | os.PathLike) -> np.ndarray:
        """A file at 44.1 kHz, resampled as msclap does it, by torchaudio's windowed sinc."""
        mono, rate = audio.decode_mono(path, seconds=60 if self.window == "first" else None)  # it hears 7 s at most
        if rate == self.sample_rate:
            return mono
        divisor = np.gcd(rate, self.sample_rate)
        if (rate // divisor) * (self.sample_rate // divisor) > _LARGEST_KERNEL:
            raise audio.AudioError(
                path, f"its {rate} Hz can't be resampled to {self.sample_rate} Hz as msclap does it"
            )
        return _resampler(rate, self.sample_rate)(torch.from_numpy(mono)).numpy()

    def _token_ids(self, text: str) -> list[int]:
        """As msclap's preprocess_text, up to the padding; one that is too long keeps its end token."""
        spoken = text + " <|endoftext|>" if self.version == "2023" else text
        ids = self._tokenizer(spoken, add_special_tokens=True, verbose=False)["input_ids"]
        if len(ids) <= self.max_tokens:
            return ids
        _log.warning("%s reads only %d tokens of the caption %.60r", self.name, self.max_tokens, text)
        return [*ids[: self.max_tokens - 1], ids[-1]]


def read_msclap_state(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The weights of an MS CLAP `.pth`, by msclap's own names; read and refused as by `read_laion_state`."""
    content = read_checkpoint(path)
    state = content.get("model", content.get("state_dict", content))
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{path}: the weights in it are a {type(state).__name__}; expected names and tensors"
        )
    return named_tensors(path, state)


def msclap_version(state: Mapping[str, torch.Tensor], path: str | os.PathLike = "the checkpoint") -> str:
    """ "2022" or "2023", by the audio encoder. Raises ValueError for weights of neither."""
    for version, mark in _MARKS.items():
        if any(key.startswith(mark) for key in state):
            return version
    shown = ", ".join(sorted(state)[:4])
    raise ValueError(
        f"{path} holds no MS CLAP 2022 or 2023: no weight begins with {list(_MARKS.values())}; {shown}, ..."
    )


def _settings(version: str) -> dict:
    """msclap's own settings of a version, from the file in the package."""
    import yaml

    package = Path(msclap_models().__file__).parent.parent
    return yaml.safe_load((package / "configs" / f"config_{version}.yml").read_text(encoding="utf-8"))


def _build(settings: Mapping, state: Mapping[str, torch.Tensor], path) -> torch.nn.Module:
    """msclap's own model with the checkpoint's weights, in eval mode."""
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

    models = msclap_models()
    names = ("audioenc_name", "window_size", "hop_size", "mel_bins", "fmin", "fmax", "out_emb")
    names += ("text_model", "transformer_embed_dim", "d_proj")
    with surroundings_kept():
        text_model = GPT2Model(GPT2Config()) if settings["text_model"] == "gpt2" else BertModel(BertConfig())
        with untrained(models, "AutoModel", text_model):
            model = models.CLAP(
                **{name: settings[name] for name in names},
                sample_rate=settings["sampling_rate"],
                classes_num=settings["num_classes"],
            )
        load_whole(model, state, path, _MAY_DIFFER)
    base = model.audio_encoder.base
    for part in (
        getattr(base, "htsat", base).spectrogram_extractor,
        getattr(base, "htsat", base).logmel_extractor,
    ):
        _keep_in_float32(part)
    return model.eval()


def _keep_in_float32(module: torch.nn.Module) -> None:
    """Let autocast leave a front end alone: a power spectrum does not fit into 16 bits."""
    forward = module.forward

    def in_float32(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    module.forward = in_float32


def _read_tokenizer(text_model: str):
    from transformers import BertTokenizerFast, GPT2TokenizerFast

    kind = GPT2TokenizerFast if text_model == "gpt2" else BertTokenizerFast
    tokenizer = kind.from_pretrained(fetch_tokenizer(text_model), local_files_only=True)
    if text_model == "gpt2":
        tokenizer.add_special_tokens({"pad_token": "!"})  # msclap counts a caption's tokens by its id, 0
    return tokenizer


@lru_cache(maxsize=8)
def _resampler(rate: int, sample_rate: int) -> torch.nn.Module:
    from torchaudio.transforms import Resample

    return Resample(rate, sample_rate)
