"""LAION's own checkpoints (.pt) and `transformers.ClapModel` folders, one into the other, no weight lost."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..files import expanded, writing
from ..hub import hub_files
from ..models import ROBERTA
from .checkpoints import first_of, read_weights
from .huggingface import CONSTANTS, FrontEnd, clapmodel, find_folder, find_weights, laion_settings, save_clapmodel

if TYPE_CHECKING:
    from transformers import ClapConfig

MAX_TOKENS = 77
"""Where laion_clap cuts a caption, in tokens."""

_AUDIO, _HF_AUDIO = "audio_branch", "audio_model.audio_encoder"
_BLOCK, _HF_BLOCK = f"{_AUDIO}.layers.{{i}}.blocks.{{j}}", f"{_HF_AUDIO}.layers.{{i}}.blocks.{{j}}"
# LAION key <-> ClapModel key. {i}, {j}: a number; {p}: weight or bias; {rest}: whatever follows. Every key of a checkpoint
# matches exactly one line, from its first letter to its last, or the conversion raises.
_TABLE = (
    ("logit_scale_a", "logit_scale_a"),
    ("logit_scale_t", "logit_scale_t"),
    ("text_branch.{rest}", "text_model.{rest}"),
    ("text_projection.0.{p}", "text_projection.linear1.{p}"),
    ("text_projection.2.{p}", "text_projection.linear2.{p}"),
    ("audio_projection.0.{p}", "audio_projection.linear1.{p}"),
    ("audio_projection.2.{p}", "audio_projection.linear2.{p}"),
    (f"{_AUDIO}.bn0.{{rest}}", f"{_HF_AUDIO}.batch_norm.{{rest}}"),
    (f"{_AUDIO}.patch_embed.{{rest}}", f"{_HF_AUDIO}.patch_embed.{{rest}}"),
    (f"{_AUDIO}.norm.{{p}}", f"{_HF_AUDIO}.norm.{{p}}"),
    (f"{_AUDIO}.layers.{{i}}.downsample.{{rest}}", f"{_HF_AUDIO}.layers.{{i}}.downsample.{{rest}}"),
    (f"{_BLOCK}.norm1.{{p}}", f"{_HF_BLOCK}.layernorm_before.{{p}}"),
    (f"{_BLOCK}.norm2.{{p}}", f"{_HF_BLOCK}.layernorm_after.{{p}}"),
    (f"{_BLOCK}.attn.proj.{{p}}", f"{_HF_BLOCK}.attention.output.dense.{{p}}"),
    (f"{_BLOCK}.attn.relative_position_{{rest}}", f"{_HF_BLOCK}.attention.self.relative_position_{{rest}}"),
    (f"{_BLOCK}.mlp.fc1.{{p}}", f"{_HF_BLOCK}.intermediate.dense.{{p}}"),
    (f"{_BLOCK}.mlp.fc2.{{p}}", f"{_HF_BLOCK}.output.dense.{{p}}"),
)
# One LAION tensor of 3C rows, three ClapModel tensors of C rows each.
_QKV = f"{_BLOCK}.attn.qkv.{{p}}"
_QUERY_KEY_VALUE = tuple(f"{_HF_BLOCK}.attention.self.{name}.{{p}}" for name in ("query", "key", "value"))
# Heads that no embedding passes through, fixed filters, and masks that follow from the architecture.
_LAION_ONLY = (
    "text_transform.{rest}",
    "audio_transform.{rest}",
    f"{_AUDIO}.spectrogram_extractor.{{rest}}",
    f"{_AUDIO}.logmel_extractor.{{rest}}",
    f"{_AUDIO}.tscam_conv.{{p}}",
    f"{_AUDIO}.head.{{p}}",
    f"{_BLOCK}.attn_mask",
)
_FIELDS = {"i": r"(?P<i>\d+)", "j": r"(?P<j>\d+)", "p": r"(?P<p>weight|bias)", "rest": r"(?P<rest>.+)"}
# What weights without audio_branch. are, by the beginning of a name.
_OTHERS = {
    "audio_model.": "these are a transformers.ClapModel's: give its folder",
    "audio_encoder.": "these are MS CLAP's: load_clap('msclap-2022' or 'msclap-2023', checkpoint=...)",
}


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
    laion, _ = read_weights([source])
    config = clapmodel_config(laion, source)
    model = clapmodel(config, clapmodel_state(laion), source)
    return save_clapmodel(target, model, laion_front_end(config.audio_config.enable_fusion, tokenizer))


def to_laion(source: str | os.PathLike, target: str | os.PathLike, base: str | os.PathLike) -> Path:
    """The folder of a ClapModel -> a .pt file that `laion_clap.CLAP_Module.load_ckpt` reads; returns it.

    `base` is the LAION .pt of the same architecture; the heads that a ClapModel does not have come from it. Raises
    FileExistsError for a target that exists, FileNotFoundError for a missing source or base, ValueError where the two do
    not fit.
    """
    target, base, folder = _new(target), expanded(base), find_folder(source)
    if folder is None:
        raise FileNotFoundError(f"there is no folder {os.fspath(source)!r}, and it is no hub id (owner/name) either")
    model, _ = read_weights(find_weights(folder))
    base_state, _ = read_weights([base])
    _require_laion(base_state, base)
    state = laion_state(model, base_state)
    with writing(target) as fresh:
        torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, fresh)
    return target


def laion_front_end(fused: bool, tokenizer: str | os.PathLike | None = None) -> FrontEnd:
    """What goes with LAION's models: the settings of `laion/clap-htsat-fused` or -unfused, and RoBERTa's tokenizer.

    `tokenizer` is as in `to_clapmodel`. Raises FileNotFoundError for one that is missing or can't be fetched.
    """
    from transformers import RobertaTokenizerFast

    folder = hub_files(ROBERTA).parent if tokenizer is None else expanded(tokenizer)
    if not folder.is_dir():
        raise FileNotFoundError(f"no tokenizer folder {folder}; leave it out for roberta-base's")
    roberta = RobertaTokenizerFast.from_pretrained(folder, local_files_only=True)
    roberta.model_max_length = MAX_TOKENS
    return FrontEnd(laion_settings(fused), roberta)


def clapmodel_state(laion: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A LAION state (without "module.") as the state of a ClapModel, its constant buffers left out.

    Query, key and value are the thirds of LAION's qkv. Raises ValueError with the names of keys that are in no table.
    """
    state, unknown = {}, []
    for key, tensor in laion.items():
        names = _clapmodel_names(key)
        if names is None:
            unknown.append(key)
        elif names:
            parts = tensor.chunk(3) if len(names) == 3 else (tensor,)
            state |= {name: part.contiguous() for name, part in zip(names, parts, strict=True)}
    _refuse(unknown, "the LAION checkpoint has {n} key(s) that are in no table")
    return state


def laion_state(model: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a ClapModel as a LAION state; what a ClapModel does not have comes from `base`, a LAION state.

    The result has text_branch.embeddings.position_ids, which laion_clap insists on. Raises ValueError with the names (a
    ClapModel's) of tensors that only one of the two has, or that differ in shape, and with keys of `base` in no table.
    """
    own = {key: tensor for key, tensor in model.items() if not key.endswith(CONSTANTS)}
    wanted = clapmodel_state(base)
    _refuse(sorted(own.keys() - wanted.keys()), "{n} tensor(s) have no place in the base checkpoint")
    _refuse(sorted(wanted.keys() - own.keys()), "the base checkpoint has {n} tensor(s) that the ClapModel lacks")
    wrong = [key for key in own if own[key].shape != wanted[key].shape]
    shapes = [f"{key} {list(own[key].shape)}, base {list(wanted[key].shape)}" for key in wrong]
    _refuse(shapes, "{n} tensor(s) have another shape in the base checkpoint")
    state = {}
    for key, tensor in base.items():
        if not key.endswith(CONSTANTS):
            parts = [own[name] for name in _clapmodel_names(key)]
            state[key] = torch.cat(parts) if len(parts) == 3 else parts[0] if parts else tensor
    state = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    n_positions = state["text_branch.embeddings.position_embeddings.weight"].shape[0]
    return state | {"text_branch.embeddings.position_ids": torch.arange(n_positions)[None]}


def clapmodel_config(laion: Mapping[str, Tensor], path: str | os.PathLike) -> ClapConfig:
    """The ClapConfig of a LAION state, read off its names and shapes: HTSAT-tiny, -base or another size, fused or not.

    layer_norm_eps is RoBERTa's 1e-5 and not ClapTextConfig's 1e-12. A RoBERTa head is 64 wide, which no tensor says.
    Raises ValueError for a state that is no HTSAT with RoBERTa; `path` is for messages.
    """
    from transformers import ClapConfig

    _require_laion(laion, path)
    fusion = f"{_AUDIO}.patch_embed.fusion_model."
    if f"{_AUDIO}.mel_conv1d.0.weight" in laion or any(key.startswith(f"{fusion}local_att2") for key in laion):
        raise ValueError(f"{path} has a kind of feature fusion that no published model has; allowed: aff_2d")
    try:
        width, _, patch, _ = laion[f"{_AUDIO}.patch_embed.proj.weight"].shape  # [C, 1, patch, patch]
        vocabulary, text_width = laion["text_branch.embeddings.word_embeddings.weight"].shape
        tables = _by_stage(laion, "attn.relative_position_bias_table")  # [(2 window - 1)², heads]
        hidden = laion[f"{_AUDIO}.layers.0.blocks.0.mlp.fc1.weight"].shape[0]
        joint = laion["text_projection.0.weight"].shape[0]
        fused = f"{_AUDIO}.patch_embed.mel_conv2d.weight" in laion
        text = {
            "vocab_size": vocabulary,
            "hidden_size": text_width,
            "num_attention_heads": max(1, text_width // 64),
            "num_hidden_layers": _count(laion, "text_branch.encoder.layer."),
            "intermediate_size": laion["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": laion["text_branch.embeddings.position_embeddings.weight"].shape[0],
            "type_vocab_size": laion["text_branch.embeddings.token_type_embeddings.weight"].shape[0],
            "layer_norm_eps": 1e-5,
            "projection_dim": joint,
        }
        audio = {
            "num_mel_bins": laion[f"{_AUDIO}.bn0.weight"].shape[0],
            "patch_size": patch,
            "patch_stride": [patch] * 2,
            "patch_embeds_hidden_size": width,
            "window_size": (math.isqrt(tables[0][0].shape[0]) + 1) // 2,
            "depths": [len(stage) for stage in tables],
            "num_attention_heads": [stage[0].shape[1] for stage in tables],
            "hidden_size": width * 2 ** (len(tables) - 1),
            "mlp_ratio": hidden / width,
            "enable_fusion": fused,
            "fusion_type": "aff_2d" if fused else None,
            "projection_dim": joint,
        }
        if fused:
            audio["aff_block_r"] = width // laion[f"{fusion}local_att.0.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{path} is no LAION checkpoint with HTSAT and RoBERTa: {error} is missing. Allowed: HTSAT-tiny and "
            "HTSAT-base, with and without fusion"
        ) from error
    return ClapConfig(text_config=text, audio_config=audio, projection_dim=joint)


# --- inside ---------------------------------------------------------------------------------------------


def _require_laion(state: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """Raise ValueError, with what they seem to be, for weights that are not LAION's."""
    if not any(key.startswith(f"{_AUDIO}.") for key in state):
        found = [text for prefix, text in _OTHERS.items() if any(key.startswith(prefix) for key in state)]
        seems = found[0] if found else f"its names are {first_of(sorted(state))}"
        raise ValueError(f"{path} holds no LAION CLAP: no weight begins with {_AUDIO}.; {seems}")


def _match(pattern: str, key: str) -> dict[str, str] | None:
    """What the fields of a pattern are in `key`, or None where it does not match from end to end."""
    found = _regex(pattern).fullmatch(key)
    return None if found is None else found.groupdict()


@cache
def _regex(pattern: str) -> re.Pattern:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", lambda field: _FIELDS[field[1]], re.escape(pattern)))


def _clapmodel_names(key: str) -> tuple[str, ...] | None:
    """What a LAION key is called in a ClapModel: three names for a qkv, none for what it does not have; None: unknown."""
    if key.endswith(CONSTANTS) or any(_match(pattern, key) is not None for pattern in _LAION_ONLY):
        return ()
    for pattern, *names in (*_TABLE, (_QKV, *_QUERY_KEY_VALUE)):
        if (parts := _match(pattern, key)) is not None:
            return tuple(name.format(**parts) for name in names)
    return None


def _refuse(keys: list[str], problem: str) -> None:
    """Raise ValueError with the names, if there are any; `problem` has {n} for their number."""
    if keys:
        raise ValueError(f"{problem.format(n=len(keys))}: {first_of(keys)}")


def _count(state: Iterable[str], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _by_stage(laion: Mapping[str, Tensor], name: str) -> list[list[Tensor]]:
    """The tensors `name` of all HTSAT blocks, by stage."""
    layers = f"{_AUDIO}.layers."
    return [
        [laion[f"{layers}{i}.blocks.{j}.{name}"] for j in range(_count(laion, f"{layers}{i}.blocks."))]
        for i in range(_count(laion, layers))
    ]


def _new(target: str | os.PathLike) -> Path:
    target = expanded(target)
    if target.exists():
        raise FileExistsError(f"{target} is there already; remove it or give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
