"""Checkpoint files (.pt, .pth) to tensors, without running a byte of them; what LAION's say of themselves."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

_SHOWN = 8  # keys in a message
_PREFIX = "module."  # of a model that was saved inside DistributedDataParallel
_DEPTHS = {"HTSAT-tiny": (96, (2, 2, 6, 2)), "HTSAT-base": (128, (2, 2, 12, 2))}
_AUDIO, _TEXT = "audio_branch.", "text_branch."


@dataclass(frozen=True)
class LaionArchitecture:
    """What LAION's weights are those of, read off their names and shapes."""

    fused: bool
    """With feature fusion (aff_2d): a clip over 10 s is heard as a whole and in three chunks."""
    audio_model: str
    """"HTSAT-tiny" or "HTSAT-base", as laion_clap calls them."""
    n_tokens: int
    """RoBERTa's vocabulary."""
    n_positions: int
    """Rows of RoBERTa's position table; two more than the tokens that fit."""
    text_layers: int
    """RoBERTa's layers."""


def read_laion_state(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The weights of a LAION `.pt`, by laion_clap's own names: out of their wrapper, without `module.`.

    Read with `weights_only=True`; beyond tensors, only numpy scalars are let through. Raises
    FileNotFoundError, and ValueError for a file that is empty, cut short, of another kind, or would run code.
    """
    content = read_checkpoint(path)
    state = content.get("state_dict", content.get("model", content))
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{path}: the weights in it are a {type(state).__name__}; expected names and tensors"
        )
    state = {key.removeprefix(_PREFIX): value for key, value in named_tensors(path, state).items()}
    if not any(key.startswith(_AUDIO) for key in state):
        raise ValueError(f"{path} holds no LAION CLAP: no weight begins with {_AUDIO}; {_looks_like(state)}")
    return state


def laion_architecture(
    state: Mapping[str, torch.Tensor], path: str | os.PathLike = "the checkpoint"
) -> LaionArchitecture:
    """Fused or not, tiny or base, from the weights. Raises ValueError for any other architecture."""
    widths = _shape(state, f"{_AUDIO}patch_embed.proj.weight", path)
    depths = tuple(_count(state, f"{_AUDIO}layers.{i}.blocks.") for i in range(4))
    named = [name for name, parts in _DEPTHS.items() if parts == (widths[0], depths)]
    if not named:
        known = "; ".join(f"{name}: {width} wide, depths {d}" for name, (width, d) in _DEPTHS.items())
        raise ValueError(f"{path}: an audio encoder {widths[0]} wide with depths {depths}; known: {known}")
    words = _shape(state, f"{_TEXT}embeddings.word_embeddings.weight", path)
    positions = _shape(state, f"{_TEXT}embeddings.position_embeddings.weight", path)
    fusion = f"{_AUDIO}patch_embed.fusion_model."
    fused = any(key.startswith(fusion) for key in state)
    if f"{_AUDIO}mel_conv1d.0.weight" in state or any(key.startswith(f"{fusion}local_att2") for key in state):
        raise ValueError(f"{path} has a kind of feature fusion that no published model has; allowed: aff_2d")
    text_layers = _count(state, f"{_TEXT}encoder.layer.")
    return LaionArchitecture(fused, named[0], words[0], positions[0], text_layers)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """What a checkpoint file holds, tensors mapped from disk; errors as in `read_laion_state`."""
    import torch

    path = Path(path)
    zipped = _require_torch_file(path)
    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} could not be loaded: it holds more than weights, and nothing in it has run. "
            f"{_reason(error)}. Allowed: tensors, numpy scalars and plain containers"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} could not be loaded: it is damaged or cut short; fetch it again ({_reason(error)})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a dict of weights")
    return content


def holds_msclap(path: str | os.PathLike) -> bool:
    """Whether a file is of msclap's kind, by the names of its weights; raises as `read_checkpoint`."""
    content = read_checkpoint(path)
    state = content.get("model", content)
    return isinstance(state, Mapping) and any(str(key).startswith("audio_encoder.") for key in state)


def named_tensors(path: str | os.PathLike, state: Mapping) -> dict[str, torch.Tensor]:
    """`state` as it is, once it is known to hold tensors by name. Raises ValueError for anything else."""
    import torch

    others = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if others or not state:
        raise ValueError(f"{path} holds no set of weights: {_listed(others) or 'it is empty'}")
    return dict(state)


def load_whole(
    model: torch.nn.Module,
    state: Mapping[str, torch.Tensor],
    path: str | os.PathLike,
    may_differ: Iterable[str] = (),
) -> None:
    """Load `state` into `model`; only keys that end in one of `may_differ` may be missing or left over.

    Raises ValueError for weights that are missing, unexpected or of another shape, with their names.
    """
    own, free = model.state_dict(), tuple(may_differ)
    found = {
        "missing": own.keys() - state.keys(),
        "unexpected": state.keys() - own.keys(),
        "mismatched": {key for key in own.keys() & state.keys() if own[key].shape != state[key].shape},
    }
    for kind, keys in found.items():
        wrong = sorted(key for key in keys if kind == "mismatched" or not key.endswith(free or ("\0",)))
        if wrong:
            raise ValueError(
                f"{path} does not fit the model: {len(wrong)} {kind} weight(s): {_listed(wrong)}"
            )
    model.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def require_safetensors(path: str | os.PathLike) -> None:
    """Raise ValueError, with the reason, for a safetensors file that is empty, cut short or no such file."""
    size = os.path.getsize(path)
    if size == 0:
        raise ValueError(f"{path} could not be loaded: it is empty (0 bytes); fetch it again")
    with open(path, "rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        start = file.read(1)
        if start != b"{":
            raise ValueError(f"{path} could not be loaded: it is no safetensors file; fetch it again")
        try:
            header = json.loads(start + file.read(n_header - 1)) if 8 + n_header <= size else None
        except ValueError as error:
            raise ValueError(f"{path} could not be loaded: its header is damaged; fetch it again") from error
    if (
        header is None
        or 8 + n_header + max((e["data_offsets"][1] for e in _entries(header)), default=0) > size
    ):
        raise ValueError(f"{path} could not be loaded: it is cut short at {size:,} bytes; fetch it again")


def _entries(header: Mapping) -> list[Mapping]:
    return [entry for key, entry in header.items() if key != "__metadata__"]


def _allowed() -> list:
    """What LAION's published files hold beside tensors, under numpy's old and new module names."""
    import _codecs

    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")}
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    # The classes of numpy.dtype's own results: torch asks for them when it sets a dtype's byte order.
    return [*((scalar, name) for name in names), np.dtype, _codecs.encode, *dtypes]


def _require_torch_file(path: Path) -> bool:
    """Whether `path` is a zip, as torch has saved since 1.6. Raises for what is no whole torch file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}; give the path of a checkpoint (.pt, .pth)"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path} could not be loaded: it is empty (0 bytes); fetch it again")
    with path.open("rb") as file:
        start = file.read(4)
    if start[:4] == b"PK\x03\x04":
        if not zipfile.is_zipfile(path):  # its table of contents stands at its end
            raise ValueError(
                f"{path} could not be loaded: it is cut short at {path.stat().st_size:,} bytes; fetch it "
                "again"
            )
        return True
    if start[:1] != b"\x80":  # of every pickle since protocol 2
        raise ValueError(
            f"{path} could not be loaded: it is no PyTorch checkpoint; it begins with {start!r}; fetch it again"
        )
    return False


def _shape(state: Mapping[str, torch.Tensor], key: str, path: str | os.PathLike) -> tuple[int, ...]:
    if key not in state:
        raise ValueError(
            f"{path} is no LAION CLAP of HTSAT and RoBERTa: {key} is missing; {_looks_like(state)}"
        )
    return tuple(state[key].shape)


def _count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _looks_like(state: Mapping) -> str:
    kinds = {
        "audio_model.": "these are a transformers.ClapModel's: give its folder",
        "audio_encoder.": "these are MS CLAP's: load_clap('msclap-2022' or 'msclap-2023', checkpoint=...)",
        _AUDIO: "its audio or text encoder is another one",
    }
    found = [text for prefix, text in kinds.items() if any(str(key).startswith(prefix) for key in state)]
    return found[0] if found else f"its names are {_listed(sorted(map(str, state)))}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _reason(error: Exception) -> str:
    """The line of torch's message that says what is wrong, without its advice to load the file unsafely."""
    text = str(error)
    named = re.search(r"GLOBAL (\S+)|(Can only build [^\n]*)|(Unsupported operand \d+)", text)
    if named:
        return f"It asks for {named[1]}" if named[1] else named[0]
    return f"{type(error).__name__}: {text.strip().partition(chr(10))[0][:200]}".rstrip(": .")
