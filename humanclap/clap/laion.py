"""LAION's own checkpoints (.pt): opened as a Clap, and converted into ClapModel folders and back, no weight lost.

laion_clap itself is not needed; the tests compare every number with it, at full size.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..download import hub_files
from ..files import expanded, writing
from ..models import ROBERTA
from . import huggingface
from .checkpoints import first_of, read_shapes, read_weights
from .fast_cpu import FLOOR

if TYPE_CHECKING:
    from transformers import ClapConfig

MAX_TOKENS = 77
"""Where laion_clap cuts a caption, in tokens."""

_BLOCK_FRAMES = 6_000  # a minute
# LAION's names -> a ClapModel's, one replacement after the other.
_RENAMED = {
    "text_branch.": "text_model.",
    "audio_branch.bn0.": "audio_model.audio_encoder.batch_norm.",
    "audio_branch.": "audio_model.audio_encoder.",
    "projection.0.": "projection.linear1.",
    "projection.2.": "projection.linear2.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.proj.": ".attention.output.dense.",
    ".attn.": ".attention.self.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}
# Heads that no embedding passes through, fixed filters, and masks that follow from the architecture.
_LAION_ONLY = re.compile(
    r"(text|audio)_transform\..*|audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\..*|.*\.attn_mask"
)


class LaionClap(huggingface.ClapModelEmbedder):
    """A LAION CLAP (HTSAT-tiny or -base, with or without feature fusion); the numbers are laion_clap's."""

    as_laion_clap = True

    def __init__(self, checkpoint: Path, name: str, fused: bool | None = None, **settings):
        """Open a `.pt` file; `fused`, where given, is what the file must be.

        `settings` are Embedder's. Raises FileNotFoundError; ValueError for a file that is damaged, would run code, or
        holds another model.
        """
        shapes = read_shapes(checkpoint)
        config = clapmodel_config(shapes, checkpoint)
        found = bool(config.audio_config.enable_fusion)
        if fused not in (None, found):
            kinds = {True: "with feature fusion", False: "without feature fusion"}
            raise ValueError(
                f"{name} is a model {kinds[fused]}, and {checkpoint} is one {kinds[found]}: use "
                f"load_clap({'laion-fusion' if found else 'laion'!r}, checkpoint=...)"
            )
        super().__init__(name, checkpoint, shapes, config, laion_front_end(found), **settings)

    def as_clapmodel(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """LAION's weights under a ClapModel's names. Raises ValueError for one that has none."""
        return clapmodel_state(state)

    def log_mel(self, waveform: np.ndarray) -> Tensor:
        """As laion_clap, by an FFT where the package convolves, through 16 bits as LAION's models were trained."""
        samples = np.clip(waveform, -1, 1)
        samples *= np.float32(32767)
        return torch.cat(list(self._mel_blocks(samples.astype(np.int16) / np.float32(32767))))

    def front_end_settings(self) -> dict:
        """As a ClapModel's, through 16 bits."""
        return super().front_end_settings() | {"log_mel": "laion_clap 1.1.7, int16"}

    def _mel_blocks(self, samples: np.ndarray) -> Iterator[Tensor]:
        """Log-mels, a block of frames at a time: the spectrum of an hour would take gigabytes."""
        fft_size, hop = self.preprocessor["fft_window_size"], self.preprocessor["hop_length"]
        filters, window = torch.from_numpy(self.mel_filters).float(), torch.hann_window(fft_size)
        signal = F.pad(torch.from_numpy(samples)[None], (fft_size // 2, fft_size // 2), mode="reflect")[0]
        n_frames = len(samples) // hop + 1
        for start in range(0, n_frames, _BLOCK_FRAMES):
            end = min(start + _BLOCK_FRAMES, n_frames)
            part = signal[start * hop : (end - 1) * hop + fft_size]
            spectrum = torch.stft(part, fft_size, hop, window=window, center=False, return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(dim=-1)
            yield 10 * (power.T @ filters).clamp_min(FLOOR).log10()


def laion_front_end(fused: bool, tokenizer: str | os.PathLike | None = None) -> huggingface.FrontEnd:
    """What goes with LAION's models: the settings of `laion/clap-htsat-fused` or -unfused, and RoBERTa's tokenizer.

    `tokenizer` is as in `to_clapmodel`. Raises FileNotFoundError for one that is missing or can't be fetched.
    """
    from transformers import RobertaTokenizerFast

    folder = hub_files(ROBERTA).parent if tokenizer is None else expanded(tokenizer)
    if not folder.is_dir():
        raise FileNotFoundError(f"no tokenizer folder {folder}; leave it out for roberta-base's")
    roberta = RobertaTokenizerFast.from_pretrained(folder, local_files_only=True)
    roberta.model_max_length = MAX_TOKENS
    return huggingface.FrontEnd(huggingface.laion_settings(fused), roberta)


# --- conversion -----------------------------------------------------------------------------------------


def to_clapmodel(
    source: str | os.PathLike, target: str | os.PathLike, tokenizer: str | os.PathLike | None = None
) -> Path:
    """LAION's .pt file -> the folder of a ClapModel, with preprocessor and tokenizer; returns the folder.

    Embeddings of equal features and tokens agree to about 1e-7. `tokenizer` is the folder of a RoBERTa tokenizer; None
    takes roberta-base at the pinned revision, from the hub's cache or the hub. The folder appears whole or not at all.
    Raises FileExistsError for a target that exists, FileNotFoundError for a missing source or tokenizer, ValueError for
    weights that do not fit.
    """
    source, target = expanded(source), _new(target)
    laion, _ = read_weights(source)
    config = clapmodel_config(laion, source)
    model = huggingface.clapmodel(config, clapmodel_state(laion), source)
    return huggingface.save_clapmodel(target, model, laion_front_end(config.audio_config.enable_fusion, tokenizer))


def to_laion(source: str | os.PathLike, target: str | os.PathLike, base: str | os.PathLike) -> Path:
    """The folder of a ClapModel -> a .pt file that `laion_clap.CLAP_Module.load_ckpt` reads; returns it.

    `base` is the LAION .pt of the same architecture; the heads that a ClapModel does not have come from it. Raises
    FileExistsError for a target that exists, FileNotFoundError for a missing source or base, ValueError where the two do
    not fit.
    """
    target, base, folder = _new(target), expanded(base), huggingface.find_folder(source)
    if folder is None:
        raise FileNotFoundError(f"there is no folder {os.fspath(source)!r}, and it is no hub id (owner/name) either")
    state = laion_state(read_weights(huggingface.find_weights(folder))[0], read_weights(base)[0])
    with writing(target) as fresh:
        torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, fresh)
    return target


def clapmodel_state(laion: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A LAION state (without "module.") as the state of a ClapModel, its constant buffers left out.

    Query, key and value are the thirds of LAION's qkv. A key that LAION's models do not have keeps a name that no ClapModel
    has, so that it does not fit.
    """
    state = {}
    for key, tensor in laion.items():
        names = _clapmodel_names(key)
        parts = tensor.chunk(3) if len(names) == 3 else [tensor] * len(names)
        state |= {name: part.contiguous() for name, part in zip(names, parts, strict=True)}
    return state


def laion_state(model: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a ClapModel as a LAION state, in float32; what a ClapModel does not have comes from `base`, a LAION state.

    The result has text_branch.embeddings.position_ids, which laion_clap insists on. Raises ValueError with the names (a
    ClapModel's) of tensors that only one of the two has, or that differ in shape.
    """
    own = {key: tensor for key, tensor in model.items() if not key.endswith(huggingface.CONSTANTS)}
    wanted = clapmodel_state(base)
    ours, theirs = ({key: tensor.shape for key, tensor in state.items()} for state in (own, wanted))
    if other := sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)):
        raise ValueError(
            f"the base checkpoint is of another architecture: {len(other)} tensor(s) are in one of the two alone or differ "
            f"in shape: {first_of(other)}"
        )
    state = {}
    for key, tensor in base.items():
        if not key.endswith(huggingface.CONSTANTS):
            parts = [own[name] for name in _clapmodel_names(key)]
            joined = torch.cat(parts) if len(parts) == 3 else parts[0] if parts else tensor
            state[key] = joined.float() if joined.is_floating_point() else joined
    n_positions = state["text_branch.embeddings.position_embeddings.weight"].shape[0]
    return state | {"text_branch.embeddings.position_ids": torch.arange(n_positions)[None]}


def clapmodel_config(laion: Mapping[str, Tensor], path: str | os.PathLike) -> ClapConfig:
    """The ClapConfig of a LAION state, read off its names and shapes: HTSAT-tiny, -base or another size, fused or not.

    layer_norm_eps is RoBERTa's 1e-5 and not ClapTextConfig's 1e-12. A RoBERTa head is 64 wide, which no tensor says.
    Raises ValueError for a state that is no HTSAT with RoBERTa; `path` is for messages.
    """
    from transformers import ClapConfig

    if not any(key.startswith("audio_branch.") for key in laion):
        names = first_of(sorted(laion))
        raise ValueError(f"{path} holds no LAION CLAP: no weight begins with audio_branch.; its names are {names}")
    try:
        width = laion["audio_branch.patch_embed.proj.weight"].shape[0]
        vocabulary, text_width = laion["text_branch.embeddings.word_embeddings.weight"].shape
        stages = "audio_branch.layers."
        depths = [_count(laion, f"{stages}{i}.blocks.") for i in range(_count(laion, stages))]
        # [(2 window - 1)², heads], of each stage's first block
        tables = [laion[f"{stages}{i}.blocks.0.attn.relative_position_bias_table"].shape for i in range(len(depths))]
        hidden = laion[f"{stages}0.blocks.0.mlp.fc1.weight"].shape[0]
        joint = laion["text_projection.0.weight"].shape[0]
        fused = "audio_branch.patch_embed.mel_conv2d.weight" in laion
        text = {
            "vocab_size": vocabulary,
            "hidden_size": text_width,
            "num_attention_heads": max(1, text_width // 64),
            "num_hidden_layers": _count(laion, "text_branch.encoder.layer."),
            "intermediate_size": laion["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": laion["text_branch.embeddings.position_embeddings.weight"].shape[0],
            "layer_norm_eps": 1e-5,
            "projection_dim": joint,
        }
        audio = {
            "patch_embeds_hidden_size": width,
            "window_size": (math.isqrt(tables[0][0]) + 1) // 2,
            "depths": depths,
            "num_attention_heads": [heads for _, heads in tables],
            "hidden_size": width * 2 ** (len(depths) - 1),
            "mlp_ratio": hidden / width,
            "enable_fusion": fused,
            "fusion_type": "aff_2d" if fused else None,
            "projection_dim": joint,
        }
        if fused:
            audio["aff_block_r"] = width // laion["audio_branch.patch_embed.fusion_model.local_att.0.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{path} is no LAION checkpoint with HTSAT and RoBERTa: {error} is missing. Allowed: HTSAT-tiny and "
            "HTSAT-base, with and without fusion"
        ) from error
    return ClapConfig(text_config=text, audio_config=audio, projection_dim=joint)


# --- inside ---------------------------------------------------------------------------------------------


def _clapmodel_names(key: str) -> list[str]:
    """What a LAION key is called in a ClapModel: three names for a qkv, none for what it does not have."""
    if key.endswith(huggingface.CONSTANTS) or _LAION_ONLY.fullmatch(key):
        return []
    for old, new in _RENAMED.items():
        key = key.replace(old, new)
    return [key.replace(".qkv.", f".{part}.") for part in ("query", "key", "value")] if ".qkv." in key else [key]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _new(target: str | os.PathLike) -> Path:
    target = expanded(target)
    if target.exists():
        raise FileExistsError(f"{target} is there already; remove it or give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
