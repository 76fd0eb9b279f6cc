"""Weights from files: read without running code, hashed as they are read, and put into a model whole or not at all."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ..files import read_hashed, read_unchanged, require_regular, sha256_of

_SHOWN = 8  # keys in a message
_PREFIX = "module."  # of a model that was saved inside DistributedDataParallel


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
        content, sha256 = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
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
    from safetensors import safe_open

    _require_content(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError is an Exception and nothing more
        raise _bad_safetensors(path, error) from error


def require_fit(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: str | os.PathLike, may_differ: Iterable[str]
) -> None:
    """Raise ValueError for weights that are missing, unexpected or of another shape, with their names.

    Only keys that end in one of `may_differ` may be missing or left over.
    """
    own, free = model.state_dict(), tuple(may_differ)
    found = {
        "missing": {key for key in own.keys() - state.keys() if not key.endswith(free)},
        "unexpected": {key for key in state.keys() - own.keys() if not key.endswith(free)},
        "mismatched": {key for key in own.keys() & state.keys() if own[key].shape != state[key].shape},
    }
    for kind, keys in found.items():
        if keys:
            raise ValueError(
                f"{path} does not fit the model: {len(keys)} {kind} weight(s): {first_of(sorted(keys))}. Save model and "
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


def first_of(names: Sequence[str]) -> str:
    """The first names of many, for a message."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


# --- inside ---------------------------------------------------------------------------------------------


def _joint_sha256(paths: Sequence[Path], hashes: Sequence[str]) -> str:
    if len(paths) == 1:
        return hashes[0]
    lines = [f"{sha256}  {path.name}\n" for path, sha256 in zip(paths, hashes, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    from safetensors.torch import load

    _require_content(path)
    file = read_hashed(path)
    try:
        return load(file.content), file.sha256
    except Exception as error:  # SafetensorError is an Exception and nothing more
        raise _bad_safetensors(path, error) from error


def _read_pickle(path: Path) -> tuple[object, str]:
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
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a dict of weights")  # noqa: TRY004
    state = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    others = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if others or not state:
        raise ValueError(f"{path} holds no set of weights: {first_of(others) or 'it is empty'}")
    return {str(key).removeprefix(_PREFIX): value for key, value in state.items()}


def _require_content(path: Path) -> int:
    """The size of a file that is one and not empty."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; give the path of a checkpoint (.pt, .pth)")
    require_regular(path, FileNotFoundError if path.is_dir() else ValueError)
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} could not be loaded: it is empty (0 bytes); fetch it again")
    return size


def _require_torch_file(path: Path) -> bool:
    """Whether `path` is a zip, as torch has saved since 1.6. Raises for what is no whole torch file."""
    size = _require_content(path)
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


def _bad_safetensors(path: Path, error: Exception) -> ValueError:
    what = "cut short" if "ncomplete" in str(error) else "no safetensors file, or damaged"
    return ValueError(f"{path} could not be loaded: it is {what}; fetch it again")


def _reason(error: Exception) -> str:
    """The line of torch's message that says what is wrong, without its advice to load the file unsafely."""
    text = str(error)
    named = re.search(r"GLOBAL (\S+)|(Can only build [^\n]*)|(Unsupported operand \d+)", text)
    if named:
        return f"It asks for {named[1]}" if named[1] else named[0]
    return f"{type(error).__name__}: {text.strip().partition(chr(10))[0][:200]}".rstrip(": .")
