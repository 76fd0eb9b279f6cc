"""`transformers.ClapModel` as a Clap: the authors' released models, converted ones, the demo's, your own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from .. import audio
from ..download import hub_files
from ..files import expanded, write_text, writing
from ..models import FRONT_END_FILE, WEIGHT_FILES, hub_model
from .checkpoints import load_whole, read_shapes, require_fit
from .embedder import FUSION, UPSTREAM, Embedder
from .fast_cpu import log_mel

if TYPE_CHECKING:
    from transformers import ClapConfig, ClapModel, PreTrainedTokenizerBase

_PROCESSOR_FILE = "processor_config.json"  # where transformers 5 puts the settings when a whole ClapProcessor is saved
_HUB_ID = re.compile(r"(?!\.)[\w.-]+/[\w.-]+(@[\w.-]+)?")  # "./model" and "../model" are folders that do not exist
_DECISIVE = (
    "feature_size", "sampling_rate", "hop_length", "fft_window_size", "nb_max_samples", "frequency_min", "frequency_max",
    "truncation", "padding",
)  # fmt: skip
# 0, 1, 2, ... and 0, 0, 0, ...: some versions of transformers save them with the weights and others make them anew.
CONSTANTS = ("embeddings.position_ids", "embeddings.token_type_ids")


# --- the front end --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrontEnd:
    """What a ClapModel needs beside it in its folder: the settings of its ClapFeatureExtractor, and a fast tokenizer."""

    settings: Mapping
    """As in preprocessor_config.json."""
    tokenizer: PreTrainedTokenizerBase

    def save(self, folder: str | os.PathLike) -> None:
        """Write preprocessor_config.json and the tokenizer's files into `folder`."""
        write_text(Path(folder) / FRONT_END_FILE, json.dumps(dict(self.settings), indent=2, sort_keys=True) + "\n")
        # A fast tokenizer keeps the cut and the padding of its last call and would save them as its own.
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.save_pretrained(folder)


def laion_settings(fused: bool) -> dict:
    """preprocessor_config.json of LAION's models: `laion/clap-htsat-fused` if `fused`, else -unfused."""
    return {
        "feature_extractor_type": "ClapFeatureExtractor", "processor_class": "ClapProcessor",
        "feature_size": 64, "sampling_rate": 48_000, "hop_length": 480, "fft_window_size": 1024,
        "max_length_s": 10, "nb_max_samples": 480_000, "frequency_min": 50, "frequency_max": 14_000,
        "truncation": FUSION if fused else "rand_trunc", "padding": "repeatpad", "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": False, "top_db": None,
    }  # fmt: skip


def front_end_file(folder: Path) -> Path | None:
    """Where the settings of a feature extractor are in `folder`, of two places, or None."""
    own, whole = folder / FRONT_END_FILE, folder / _PROCESSOR_FILE
    if own.is_file():
        return own
    return whole if whole.is_file() and "feature_extractor" in _json(whole) else None


def _read_front_end(folder: Path) -> FrontEnd:
    """The front end in `folder`. Raises FileNotFoundError where it has none, ValueError for one that is damaged."""
    from transformers import AutoTokenizer

    place = front_end_file(folder)
    if place is None:  # transformers would go on with its own defaults, which are those of no published LAION model
        raise FileNotFoundError(
            f"{folder} has no {FRONT_END_FILE}: save the model's ClapFeatureExtractor there (save_pretrained)"
        )
    if not (folder / "tokenizer.json").is_file() and not all(
        (folder / f).is_file() for f in ("vocab.json", "merges.txt")
    ):
        raise FileNotFoundError(f"{folder} has no tokenizer: expected tokenizer.json or vocab.json and merges.txt")
    settings = _json(place)
    if place.name == _PROCESSOR_FILE:
        settings = settings["feature_extractor"]
    missing = [name for name in _DECISIVE if name not in settings]
    if missing:
        raise ValueError(
            f"{place} lacks {', '.join(missing)}: save the model's ClapFeatureExtractor there (save_pretrained)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers package raises Exception itself for a file that it can't read
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the tokenizer in {folder} could not be loaded ({reason}); save or fetch it again") from error
    return FrontEnd(settings, tokenizer)


# --- the model ------------------------------------------------------------------------------------------


class ClapModelEmbedder(Embedder):
    """A `transformers.ClapModel` of any origin, which hears log-mels `[T, M]` in dB of a fixed length.

    laion_clap and transformers crop a long clip at a random place. Here a clip's features are decided by that clip alone,
    whatever its batch and run; under "upstream" they are drawn as the package draws them, from numpy's old generator with
    this seed.
    """

    as_laion_clap = False  # whether the front end is laion_clap's, where that differs from transformers'

    def __init__(self, name: str, weights: Path, shapes: Mapping, config: ClapConfig, front_end: FrontEnd, **settings):
        """`shapes` are those of the weights, as in their file; `settings` are Embedder's.

        Raises ValueError for weights or a front end that do not fit the model.
        """
        self.config, self.fused = config, bool(config.audio_config.enable_fusion)
        require_fit(empty_clapmodel(config), self.as_clapmodel(shapes), weights, CONSTANTS)
        super().__init__(name, weights, **settings)
        self.preprocessor, self.tokenizer = front_end.settings, front_end.tokenizer
        self.sample_rate = int(self.preprocessor["sampling_rate"])
        self.n_samples = int(self.preprocessor["nb_max_samples"])
        self.dimension = int(config.projection_dim)
        self._require_fitting_front_end()
        # RoBERTa numbers positions from pad_token_id + 1 on.
        text = config.text_config
        self.max_tokens = min(self.tokenizer.model_max_length, text.max_position_embeddings - text.pad_token_id - 1)

    def as_clapmodel(self, state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The weights as they are in their file -> a ClapModel's."""
        return state

    def build(self, state: dict[str, torch.Tensor]) -> ClapModel:
        """The ClapModel of this configuration with these weights, float32."""
        return clapmodel(self.config, self.as_clapmodel(state), self.weights)

    def encode_audio(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        heard = {key: features[key].to(self.device) for key in ("input_features", "is_longer")}
        return self.model.audio_projection(self.model.audio_model(**heard, return_dict=True).pooler_output)

    def encode_text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        tokens = {key: value.to(self.device) for key, value in tokens.items()}
        return self.model.text_projection(self.model.text_model(**tokens, return_dict=True).pooler_output)

    def front_end_settings(self) -> dict:
        """The decisive part of preprocessor_config.json, and whether the model fuses chunks."""
        return {name: self.preprocessor[name] for name in _DECISIVE} | {"fused": self.fused}

    def read(self, path: str | os.PathLike) -> np.ndarray:
        """As Embedder's; of a long clip only what is heard is read where that is its beginning."""
        seconds = self.n_samples / self.sample_rate if self.window == "first" else None
        return audio.load_audio(path, self.sample_rate, seconds)

    def log_mel(self, waveform: np.ndarray) -> torch.Tensor:
        """A waveform `[T]` -> log-mels float32 `[frames, M]` in dB, as `ClapFeatureExtractor` makes them."""
        fft_size, hop = int(self.preprocessor["fft_window_size"]), int(self.preprocessor["hop_length"])
        return torch.from_numpy(log_mel(waveform, self.mel_filters, fft_size, hop))

    def features(self, waveforms: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
        """Clips -> `input_features` float32 `[N, C, T, M]` and `is_longer` bool `[N, 1]`; `windows` under "mean".

        C is 4 for a model with feature fusion (the whole clip, shrunk to T frames, and three chunks of it), else 1.
        """
        rng = np.random.RandomState(self.seed) if self.window == UPSTREAM else None
        clips = [self._clip(waveform, rng) for waveform in waveforms]
        longer = [is_longer for _, is_longer in clips]
        if rng is not None and self.fused and not self.as_laion_clap and not any(longer):
            longer[rng.randint(0, len(longer))] = True  # transformers marks a short clip where no clip is longer
        counts = torch.tensor([len(mels) for mels, _ in clips])
        flags = torch.tensor(longer).repeat_interleave(counts)[:, None]
        rows = {"input_features": torch.cat([mels for mels, _ in clips]), "is_longer": flags}
        return rows | {"windows": counts} if self.window == "mean" else rows

    def _clip(self, waveform: np.ndarray, rng: np.random.RandomState | None) -> tuple[torch.Tensor, bool]:
        """A clip -> log-mels `[W, C, T, M]` of its windows, and whether chunks are fused."""
        if self.fused and self.window in (FUSION, UPSTREAM) and len(waveform) > self.n_samples:
            return self._fused_clip(waveform, rng)
        policy = "first" if self.window == FUSION else self.window
        draw = None if rng is None else lambda overflow: rng.randint(0, overflow + 1)
        cuts = audio.windows(waveform, self.n_samples, policy, draw)
        mels = torch.stack([self.log_mel(cut) for cut in cuts])[:, None]
        return mels.expand(-1, 4 if self.fused else 1, -1, -1), False

    def _fused_clip(self, waveform: np.ndarray, rng: np.random.RandomState | None) -> tuple[torch.Tensor, bool]:
        mel = self.log_mel(waveform)
        n_frames = self.n_samples // self.preprocessor["hop_length"] + 1
        fits = len(mel) == n_frames  # longer by less than one hop: as many frames as a clip that fits
        starts = [] if fits else chunk_starts(len(mel) - n_frames + 1, rng)
        if rng is not None and self.as_laion_clap:  # which draws a crop that its fused models do not hear
            rng.randint(0, len(waveform) - self.n_samples + 1)
        if fits:
            return mel.expand(1, 4, -1, -1), False
        size, antialias = (n_frames, mel.shape[1]), self.as_laion_clap
        shrunk = F.interpolate(mel[None, None], size, mode="bilinear", align_corners=False, antialias=antialias)
        return torch.cat([shrunk[0], *(mel[None, at : at + n_frames] for at in starts)])[None], True

    @cached_property
    def mel_filters(self) -> np.ndarray:
        """`[bins, M]`, float64: models with fusion were trained on filters of htk's kind, others on slaney's."""
        from transformers.audio_utils import mel_filter_bank

        settings, (norm, scale) = self.preprocessor, (None, "htk") if self.fused else ("slaney", "slaney")
        n_bins, n_mels = int(settings["fft_window_size"]) // 2 + 1, int(settings["feature_size"])
        ends = settings["frequency_min"], settings["frequency_max"]
        return mel_filter_bank(n_bins, n_mels, *ends, self.sample_rate, norm=norm, mel_scale=scale)

    def _require_fitting_front_end(self) -> None:
        text, truncation = self.config.text_config, FUSION if self.fused else "rand_trunc"
        for what, found, needed in (
            ("preprocessor_config.json has truncation", self.preprocessor["truncation"], truncation),
            ("preprocessor_config.json has padding", self.preprocessor["padding"], "repeatpad"),
            ("the tokenizer pads with id", self.tokenizer.pad_token_id, text.pad_token_id),
        ):
            if found != needed:
                model = f"the model (enable_fusion={self.fused})"
                raise ValueError(f"{self.name}: {what} {found!r}, and {model} needs {needed!r}")
        if len(self.tokenizer) > text.vocab_size:
            raise ValueError(
                f"{self.name}: the tokenizer has {len(self.tokenizer)} tokens, the model only {text.vocab_size}"
            )


class HuggingFaceClap(ClapModelEmbedder):
    """The folder of a saved `transformers.ClapModel`, with its front end, the FrontEnd `front_end_parts`."""

    def __init__(self, folder: Path, name: str, front_end: Path | None = None, **settings):
        """Open the `folder` of a saved ClapModel; `front_end` is another folder for the front end.

        `settings` are Embedder's. Raises FileNotFoundError for a missing file; ValueError for a damaged one, for another
        kind of model, and for parts that fit no such model.
        """
        config, weights = _read_config(folder), find_weights(folder)
        shapes = read_shapes(weights)
        self.front_end_parts = _read_front_end(folder if front_end is None else front_end)
        super().__init__(name, weights, shapes, config, self.front_end_parts, **settings)


def chunk_starts(n_places: int, rng: np.random.RandomState | None = None) -> list[int]:
    """Where the three chunks of a long clip start, of `n_places` frames that they could start at.

    LAION draws one from each third of the places, and `rng` does so too; without it, it is the middle of the third, so
    that a clip has one score.
    """
    thirds = [third if len(third) else [0] for third in np.array_split(np.arange(n_places), 3)]
    return [int(third[len(third) // 2] if rng is None else rng.choice(third)) for third in thirds]


def clapmodel(config: ClapConfig, state: Mapping[str, torch.Tensor], path: str | os.PathLike) -> ClapModel:
    """A ClapModel in eval mode whose weights are those of `state`, in float32; `path` is for messages.

    Raises ValueError for weights that are missing, left over or of another shape, with their names.
    """
    model = empty_clapmodel(config)
    load_whole(model, state, path, CONSTANTS)
    embeddings, n_positions = model.text_model.embeddings, config.text_config.max_position_embeddings
    embeddings.position_ids = torch.arange(n_positions)[None]
    embeddings.token_type_ids = torch.zeros(1, n_positions, dtype=torch.long)
    return model.eval()


def empty_clapmodel(config: ClapConfig) -> ClapModel:
    """A ClapModel whose weights are there in name and shape only: no memory and no random numbers."""
    from transformers import ClapModel

    with torch.device("meta"):
        return ClapModel(config).to(torch.float32)


# --- folders --------------------------------------------------------------------------------------------


def save_clapmodel(target: str | os.PathLike, model: ClapModel, front_end: FrontEnd) -> Path:
    """Write a model and its front end as the folder `target`, which appears whole or not at all; returns it.

    Modes follow the umask; an existing folder is replaced.
    """
    with writing(target, folder=True) as fresh:
        model.save_pretrained(fresh)
        front_end.save(fresh)
    return Path(target)


def find_folder(source: str | os.PathLike) -> Path | None:
    """The folder of a ClapModel, given as such or by its hub id, owner/name or owner/name@revision, fetched if it must be.

    None for what is neither. Raises DownloadError (a FileNotFoundError) for one that can't be fetched.
    """
    if os.fspath(source) and expanded(source).is_dir():
        return expanded(source)
    if not _HUB_ID.fullmatch(os.fspath(source)):
        return None
    repository, _, revision = os.fspath(source).partition("@")
    return hub_files(hub_model(repository, revision or None)).parent


def find_weights(folder: Path) -> Path:
    """The file with a ClapModel's weights. Raises FileNotFoundError for a missing one."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{folder} has no weights: expected {' or '.join(WEIGHT_FILES)}; save or copy the model there"
    )


def _read_config(folder: Path) -> ClapConfig:
    from transformers import ClapConfig

    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no config.json: it is not the folder of a saved ClapModel (save_pretrained)"
        )
    content = _json(path)
    kind = content.get("model_type")
    if kind != "clap":
        raise ValueError(f"{path} says model_type {kind!r}; allowed: 'clap', a transformers.ClapModel")
    return ClapConfig.from_dict(content)


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); save or fetch it again") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ValueError(f"{path} holds a {kind}, expected settings by name; save or fetch it again")  # noqa: TRY004
    return content
