"""Weights from files: read without running code, hashed as they are read, and put into a model whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ..files import read_hashed, read_unchanged, require_regular, sha256_of

_SHOWN = 8  # keys in a message
_PREFIX = "module."  # of a model that was saved inside DistributedDataParallel
_DEPTHS = {"HTSAT-tiny": (96, (2, 2, 6, 2)), "HTSAT-base": (128, (2, 2, 12, 2))}
_AUDIO, _TEXT = "audio_branch.", "text_branch."
_KINDS = {
    "audio_model.": "these are a transformers.ClapModel's: give its folder",
    "audio_encoder.": "these are MS CLAP's: load_clap('msclap-2022' or 'msclap-2023', checkpoint=...)",
    _AUDIO: "its audio or text encoder is another one",
}


# --- files to tensors -----------------------------------------------------------------------------------


def read_weights(paths: Sequence[Path]) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors by name in one file or several shards (.safetensors, .pt, .pth, .bin), and their SHA-256.

    The bytes that are hashed are the bytes that the tensors hold: both come from one open file that did not change
    meanwhile. `module.` prefixes and a wrapping "state_dict" or "model" are taken off. Of a pickle only tensors, numpy
    scalars and plain containers are read (`weights_only=True`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is empty, cut short, damaged, of another kind, or would run code.
        OSError: it keeps changing while it is read.
    """
    state: dict[str, torch.Tensor] = {}
    hashes = []
    for path in paths:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            read_shapes(path)  # says better than the library what is wrong
            file = read_hashed(path)
            try:
                content, sha256 = load(file.content), file.sha256
            except Exception as error:  # SafetensorError is an Exception and nothing more
                raise _damaged(path, error) from error
        else:
            content, sha256 = _load_hashed(path)
        state |= _state_in(content, path)
        hashes.append(sha256)
    return state, _joint_sha256(paths, hashes)


def weights_sha256(paths: Sequence[Path]) -> str:
    """What `read_weights` would say: a file's SHA-256; of several shards that of the lines "<sha256>  <name>"."""
    return _joint_sha256(paths, [sha256_of(path) for path in paths])


def read_shapes(path: Path) -> dict[str, torch.Tensor]:
    """The names and shapes of the weights in a file, as tensors without content; raises as `read_weights`.

    Cheap: a safetensors file says them in its header, and of a torch file (since 1.6) tensors are mapped and not read.
    """
    if path.suffix != ".safetensors":
        content = _load(path, path, mmap=_require_torch_file(path))
        return {key: value.to("meta") for key, value in _state_in(content, path).items()}
    require_regular(path, ValueError)
    size = os.path.getsize(path)
    if size == 0:
        raise ValueError(f"{path} could not be loaded: it is empty (0 bytes); fetch it again")
    with open(path, "rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        start = file.read(1)
        if start != b"{":
            raise ValueError(f"{path} could not be loaded: it is no safetensors file; fetch it again")
        try:
            header = json.loads(start + file.read(n_header - 1)) if 8 + n_header <= size else {}
            entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            shapes = {key: torch.empty(entry["shape"], device="meta") for key, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path} could not be loaded: its header is damaged; fetch it again") from error
    if 8 + n_header + end > size:
        raise ValueError(f"{path} could not be loaded: it is cut short at {size:,} bytes; fetch it again")
    return shapes


def require_fit(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: str | os.PathLike, may_differ: Iterable[str] = ()
) -> None:
    """Raise ValueError for weights that are missing, unexpected or of another shape, with their names.

    Only keys that end in one of `may_differ` may be missing or left over.
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
                f"{path} does not fit the model: {len(wrong)} {kind} weight(s): {listed(wrong)}. Save model and "
                "configuration together (save_pretrained), or fetch both again"
            )


def load_whole(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: str | os.PathLike, may_differ: Iterable[str] = ()
) -> None:
    """Make the tensors of `state` the weights of `model`, without a copy where the dtype is equal; raises as `require_fit`."""
    require_fit(model, state, path, may_differ)
    own = model.state_dict()
    fitting = {key: value.to(own[key].dtype) for key, value in state.items() if key in own}
    model.load_state_dict(fitting, strict=False, assign=True)


def listed(names: Sequence[str]) -> str:
    """The first names of many, for a message."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


# --- what weights are -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LaionArchitecture:
    """What LAION's weights belong to, read off their names and shapes."""

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


def laion_architecture(state: Mapping[str, torch.Tensor], path: str | os.PathLike) -> LaionArchitecture:
    """Fused or not, tiny or base, from names and shapes. Raises ValueError for any other architecture."""
    require_laion(state, path)
    width = _shape(state, f"{_AUDIO}patch_embed.proj.weight", path)[0]
    depths = tuple(_count(state, f"{_AUDIO}layers.{i}.blocks.") for i in range(4))
    named = [name for name, parts in _DEPTHS.items() if parts == (width, depths)]
    if not named:
        known = "; ".join(f"{name}: {width} wide, depths {d}" for name, (width, d) in _DEPTHS.items())
        raise ValueError(f"{path}: an audio encoder {width} wide with depths {depths}; known: {known}")
    words = _shape(state, f"{_TEXT}embeddings.word_embeddings.weight", path)[0]
    positions = _shape(state, f"{_TEXT}embeddings.position_embeddings.weight", path)[0]
    fusion = f"{_AUDIO}patch_embed.fusion_model."
    fused = any(key.startswith(fusion) for key in state)
    if f"{_AUDIO}mel_conv1d.0.weight" in state or any(key.startswith(f"{fusion}local_att2") for key in state):
        raise ValueError(f"{path} has a kind of feature fusion that no published model has; allowed: aff_2d")
    return LaionArchitecture(fused, named[0], words, positions, _count(state, f"{_TEXT}encoder.layer."))


def require_laion(state: Mapping[str, torch.Tensor], path: str | os.PathLike) -> None:
    """Raise ValueError, with what they seem to be, for weights that are not LAION's."""
    if not any(key.startswith(_AUDIO) for key in state):
        raise ValueError(f"{path} holds no LAION CLAP: no weight begins with {_AUDIO}; {_looks_like(state)}")


def _shape(state: Mapping[str, torch.Tensor], key: str, path: str | os.PathLike) -> tuple[int, ...]:
    if key not in state:
        raise ValueError(f"{path} is no LAION CLAP of HTSAT and RoBERTa: {key} is missing; {_looks_like(state)}")
    return tuple(state[key].shape)


def _count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _looks_like(state: Mapping) -> str:
    found = [text for prefix, text in _KINDS.items() if any(str(key).startswith(prefix) for key in state)]
    return found[0] if found else f"its names are {listed(sorted(map(str, state)))}"


# --- inside ---------------------------------------------------------------------------------------------


def _joint_sha256(paths: Sequence[Path], hashes: Sequence[str]) -> str:
    if len(paths) == 1:
        return hashes[0]
    lines = [f"{sha256}  {path.name}\n" for path, sha256 in zip(paths, hashes, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _load_hashed(path: Path) -> tuple[object, str]:
    _require_torch_file(path)

    def read(file: BinaryIO) -> tuple[object, str]:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        try:
            return _load(file, path), sha256
        except ValueError as error:  # raised only if the file did not change meanwhile
            return error, sha256

    content, sha256 = read_unchanged(path, read)
    if isinstance(content, ValueError):
        raise content
    return content, sha256


def _load(source: Path | BinaryIO, path: Path, mmap: bool = False) -> object:
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # an error says what is wrong
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} could not be loaded: it holds more than weights, and nothing in it has run. "
            f"{_reason(error)}. Allowed: tensors, numpy scalars and plain containers"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from error


def _state_in(content: object, path: Path) -> dict[str, torch.Tensor]:
    """The weights in what a file holds, out of their wrapper, by the model's own names."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a dict of weights")
    state = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    others = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if others or not state:
        raise ValueError(f"{path} holds no set of weights: {listed(others) or 'it is empty'}")
    return {str(key).removeprefix(_PREFIX): value for key, value in state.items()}


def _require_torch_file(path: Path) -> bool:
    """Whether `path` is a zip, as torch has saved since 1.6. Raises for what is no whole torch file."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; give the path of a checkpoint (.pt, .pth)")
    require_regular(path, FileNotFoundError if path.is_dir() else ValueError)
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} could not be loaded: it is empty (0 bytes); fetch it again")
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        if not zipfile.is_zipfile(path):  # its table of contents is at its end
            raise ValueError(f"{path} could not be loaded: it is cut short at {size:,} bytes; fetch it again")
        return True
    if start[:1] != b"\x80":  # of every pickle since protocol 2
        raise ValueError(
            f"{path} could not be loaded: it is no PyTorch checkpoint; it begins with {start!r}; fetch it again"
        )
    return False


def _allowed() -> list:
    """What LAION's published files hold beside tensors, under numpy's old and new module names."""
    import _codecs

    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")}
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    # The classes of numpy.dtype's own results: torch asks for them when it sets a dtype's byte order.
    return [*((scalar, name) for name in names), np.dtype, _codecs.encode, *dtypes]


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} could not be loaded: it is damaged or cut short; fetch it again ({_reason(error)})")


def _reason(error: Exception) -> str:
    """The line of torch's message that says what is wrong, without its advice to load the file unsafely."""
    text = str(error)
    named = re.search(r"GLOBAL (\S+)|(Can only build [^\n]*)|(Unsupported operand \d+)", text)
    if named:
        return f"It asks for {named[1]}" if named[1] else named[0]
    return f"{type(error).__name__}: {text.strip().partition(chr(10))[0][:200]}".rstrip(": .")
