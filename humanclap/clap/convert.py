"""LAION's own checkpoints (.pt) and `transformers.ClapModel` folders, one into the other, no weight lost."""

from __future__ import annotations

import math
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .key_table import CONSTANTS, clapmodel_state, laion_state, refuse
from .published import fetch_tokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import ClapConfig, ClapModel, PreTrainedTokenizerBase

MAX_TOKENS = 77
"""Where laion_clap cuts a caption, in tokens; a converted folder's tokenizer says so too."""

_AUDIO = "audio_branch"


def to_clapmodel(
    source: str | os.PathLike, target: str | os.PathLike, tokenizer: str | os.PathLike | None = None
) -> Path:
    """LAION's .pt file -> the folder of a ClapModel, with preprocessor and tokenizer; returns the folder.

    Embeddings of equal features and tokens agree to about 1e-7. `tokenizer` is the folder of a RoBERTa
    tokenizer; None takes roberta-base at the pinned revision, from the hub cache or the hub. The folder
    appears whole or not at all. Raises FileExistsError for a target that is there already, FileNotFoundError
    for a missing source or tokenizer, ValueError for weights that do not fit.
    """
    import torch
    from transformers import ClapFeatureExtractor, ClapModel

    from .weights import read_laion_state

    with _whole(target) as part:
        laion = read_laion_state(source)
        config = clapmodel_config(laion)
        converted = clapmodel_state(laion).items()
        state = {key: value.float() if value.is_floating_point() else value for key, value in converted}
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
            model = ClapModel(config)
        n_positions = config.text_config.max_position_embeddings
        state["text_model.embeddings.position_ids"] = torch.arange(n_positions)[None]
        state["text_model.embeddings.token_type_ids"] = torch.zeros(1, n_positions, dtype=torch.long)
        _fill(model, state, source)
        model.save_pretrained(part)
        truncation = "fusion" if config.audio_config.enable_fusion else "rand_trunc"
        extractor = ClapFeatureExtractor(frequency_min=50, frequency_max=14_000, truncation=truncation)
        extractor.save_pretrained(part)
        _read_tokenizer(tokenizer).save_pretrained(part)
    return Path(target)


def to_laion(source: str | os.PathLike, target: str | os.PathLike, base: str | os.PathLike) -> Path:
    """The folder of a ClapModel -> a .pt file that `laion_clap.CLAP_Module.load_ckpt` reads; returns it.

    `base` is the LAION .pt of the same architecture; the heads that a ClapModel does not have come from it.
    Raises FileExistsError for a target that is there already, FileNotFoundError for a missing source or base,
    ValueError where the two do not fit.
    """
    import torch

    from . import hub
    from .weights import read_laion_state

    with _whole(target) as part:
        model = hub.read_model(hub.find_folder(os.fspath(source), front_end=False))
        state = laion_state(model.state_dict(), read_laion_state(base))
        torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, part)
    return Path(target)


def clapmodel_config(laion: Mapping[str, Tensor]) -> ClapConfig:
    """The ClapConfig of a LAION state, read off its tensors: HTSAT-tiny, -base or another size, fused or not.

    layer_norm_eps is RoBERTa's 1e-5 and not ClapTextConfig's 1e-12. A RoBERTa head is 64 wide, which no
    tensor says. Raises ValueError for a state that is no HTSAT with RoBERTa.
    """
    from transformers import ClapConfig

    try:
        patch = laion[f"{_AUDIO}.patch_embed.proj.weight"]  # [C, 1, patch, patch]
        words = laion["text_branch.embeddings.word_embeddings.weight"]
        tables = _by_stage(laion, "attn.relative_position_bias_table")  # [(2 window - 1)², heads]
        hidden = laion[f"{_AUDIO}.layers.0.blocks.0.mlp.fc1.weight"].shape[0]
        joint = laion["text_projection.0.weight"].shape[0]
        fused = f"{_AUDIO}.patch_embed.mel_conv2d.weight" in laion
        squeezed = laion[f"{_AUDIO}.patch_embed.fusion_model.local_att.0.weight"].shape[0] if fused else None
        text = {
            "vocab_size": words.shape[0],
            "hidden_size": words.shape[1],
            "num_attention_heads": max(1, words.shape[1] // 64),
            "num_hidden_layers": _count(laion, r"text_branch\.encoder\.layer\.(\d+)\..+"),
            "intermediate_size": laion["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": laion["text_branch.embeddings.position_embeddings.weight"].shape[0],
            "type_vocab_size": laion["text_branch.embeddings.token_type_embeddings.weight"].shape[0],
            "layer_norm_eps": 1e-5,
            "projection_dim": joint,
        }
        width = patch.shape[0]
        audio = {
            "num_mel_bins": laion[f"{_AUDIO}.bn0.weight"].shape[0],
            "patch_size": patch.shape[-1],
            "patch_stride": [patch.shape[-1]] * 2,
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
        audio |= {"aff_block_r": width // squeezed} if fused else {}
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"not a LAION checkpoint with HTSAT and RoBERTa: {error} is missing. Allowed: HTSAT-tiny and "
            "HTSAT-base, with and without fusion"
        ) from error
    return ClapConfig(text_config=text, audio_config=audio, projection_dim=joint)


# --- inside -----------------------------------------------------------------------------------------------


def _fill(model: ClapModel, state: dict[str, Tensor], source: str | os.PathLike) -> None:
    """Put `state` in the place of the model's weights. Raises ValueError with the names that do not fit."""
    wanted = model.state_dict()  # without position_ids where this transformers does not save them
    refuse(sorted(wanted.keys() - state.keys()), f"{source}: {{n}} weight(s) are missing")
    extra = sorted(key for key in state.keys() - wanted.keys() if not key.endswith(CONSTANTS))
    refuse(extra, f"{source}: {{n}} weight(s) are left over")
    wrong = [key for key in wanted if wanted[key].shape != state[key].shape]
    refuse(wrong, f"{source}: {{n}} weight(s) have another shape than their neighbours ask for")
    model.load_state_dict({key: state[key] for key in wanted}, assign=True)


def _count(state: Iterable[str], pattern: str) -> int:
    return len({found[1] for key in state if (found := re.fullmatch(pattern, key))})


def _by_stage(laion: Mapping[str, Tensor], name: str) -> list[list[Tensor]]:
    """The tensors `name` of all HTSAT blocks, by stage."""
    stages = []
    for i in range(_count(laion, rf"{_AUDIO}\.layers\.(\d+)\..+")):
        n_blocks = _count(laion, rf"{_AUDIO}\.layers\.{i}\.blocks\.(\d+)\..+")
        stages.append([laion[f"{_AUDIO}.layers.{i}.blocks.{j}.{name}"] for j in range(n_blocks)])
    return stages


def _read_tokenizer(folder: str | os.PathLike | None) -> PreTrainedTokenizerBase:
    from transformers import RobertaTokenizerFast

    folder = fetch_tokenizer("roberta-base") if folder is None else Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no tokenizer folder {folder}; leave it out for roberta-base's")
    tokenizer = RobertaTokenizerFast.from_pretrained(folder, local_files_only=True)
    tokenizer.model_max_length = MAX_TOKENS
    return tokenizer


@contextmanager
def _whole(target: str | os.PathLike) -> Iterator[Path]:
    """A path beside `target` to write to, renamed at the end; removed if something goes wrong."""
    target = Path(target)
    if target.exists():
        raise FileExistsError(f"{target} is there already; remove it or give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
