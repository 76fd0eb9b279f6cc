"""Which weight of LAION's CLAP is which weight of a `transformers.ClapModel`: one table, read both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_AUDIO, _HF_AUDIO = "audio_branch", "audio_model.audio_encoder"
_BLOCK, _HF_BLOCK = f"{_AUDIO}.layers.{{i}}.blocks.{{j}}", f"{_HF_AUDIO}.layers.{{i}}.blocks.{{j}}"

# LAION key <-> ClapModel key. {i}, {j}: a number; {p}: weight or bias; {rest}: whatever follows. Every key of
# a checkpoint matches exactly one line, from its first letter to its last, or the conversion raises.
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
    (
        f"{_BLOCK}.attn.relative_position_{{rest}}",
        f"{_HF_BLOCK}.attention.self.relative_position_{{rest}}",
    ),
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
# 0, 1, 2, ... and 0, 0, 0, ...: made anew on both sides, whatever a file holds.
CONSTANTS = ("embeddings.position_ids", "embeddings.token_type_ids")


def clapmodel_state(laion: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A LAION state (without "module.") as the state of a ClapModel, its constant buffers left out.

    Query, key and value are the thirds of LAION's qkv. Raises ValueError with the names of keys that the
    table does not know.
    """
    state, unknown = {}, []
    for key, tensor in laion.items():
        if key.endswith(CONSTANTS) or any(_match(pattern, key) for pattern in _LAION_ONLY):
            continue
        if (parts := _match(_QKV, key)) is not None:
            for pattern, third in zip(_QUERY_KEY_VALUE, tensor.chunk(3), strict=True):
                state[pattern.format(**parts)] = third.contiguous()
        elif (name := _renamed(key, 0)) is not None:
            state[name] = tensor
        else:
            unknown.append(key)
    refuse(unknown, "the LAION checkpoint has {n} key(s) that are in no table")
    return state


def laion_state(clapmodel: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a ClapModel as a LAION state; what a ClapModel does not have comes from `base`.

    `base` is the LAION state of the same architecture, such as the checkpoint that the model was converted
    from. The result has text_branch.embeddings.position_ids, which laion_clap insists on. Raises ValueError
    with the names of keys that are in no table, that `base` does not have or has in another shape, and of
    those that `base` has and the result has not.
    """
    import torch

    state, unknown = {}, []
    thirds: dict[str, dict[int, Tensor]] = {}
    for key, tensor in clapmodel.items():
        if key.endswith(CONSTANTS):
            continue
        found = [(at, parts) for at, one in enumerate(_QUERY_KEY_VALUE) if (parts := _match(one, key))]
        if found:
            thirds.setdefault(_QKV.format(**found[0][1]), {})[found[0][0]] = tensor
        elif (name := _renamed(key, 1)) is not None:
            state[name] = tensor
        else:
            unknown.append(key)
    refuse(unknown, "the ClapModel has {n} key(s) that are in no table")
    for name, parts in thirds.items():
        missing = [f"{name} (third {at + 1})" for at in range(3) if at not in parts]
        refuse(missing, "the ClapModel lacks {n} of the tensors that make up LAION's qkv")
        state[name] = torch.cat([parts[at] for at in range(3)])
    for key, tensor in base.items():
        if any(_match(pattern, key) for pattern in _LAION_ONLY):
            state[key] = tensor
    wanted = {key for key in base if not key.endswith(CONSTANTS)}
    refuse(sorted(set(state) - wanted), "{n} tensor(s) have no place in the base checkpoint")
    refuse(sorted(wanted - set(state)), "the base checkpoint has {n} tensor(s) that the ClapModel lacks")
    shapes = [f"{key} {list(state[key].shape)}, base {list(base[key].shape)}" for key in state
              if state[key].shape != base[key].shape]  # fmt: skip
    refuse(shapes, "{n} tensor(s) have another shape in the base checkpoint")
    n_positions = state["text_branch.embeddings.position_embeddings.weight"].shape[0]
    state["text_branch.embeddings.position_ids"] = torch.arange(n_positions)[None]
    return state


# --- inside -----------------------------------------------------------------------------------------------

_FIELDS = {"i": r"(?P<i>\d+)", "j": r"(?P<j>\d+)", "p": r"(?P<p>weight|bias)", "rest": r"(?P<rest>.+)"}


def _match(pattern: str, key: str) -> dict[str, str] | None:
    """What the fields of a pattern stand for in `key`, or None where it does not match from end to end."""
    regex = re.sub(r"\\\{(\w+)\\\}", lambda field: _FIELDS[field[1]], re.escape(pattern))
    found = re.fullmatch(regex, key)
    return None if found is None else found.groupdict()


def _renamed(key: str, side: int) -> str | None:
    """The other name of a key of LAION (side 0) or ClapModel (side 1); None for one in no line."""
    for line in _TABLE:
        if (parts := _match(line[side], key)) is not None:
            return line[1 - side].format(**parts)
    return None


def refuse(keys: Iterable[str], problem: str) -> None:
    """Raise ValueError with the names, if there are any; `problem` has {n} for their number."""
    keys = list(keys)
    if keys:
        shown = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
        raise ValueError(f"{problem.format(n=len(keys))}: {shown}")
