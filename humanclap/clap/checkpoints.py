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

from ..files import read_hashed, read_unchanged, require_regular


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors by name in a file (.safetensors, .pt, .pth, .bin), and its SHA-256.

    The bytes that are hashed are the bytes that the tensors hold: both come from one open file that did not change
    meanwhile. `module.` prefixes and a wrapping "state_dict" or "model" are taken off. Of a pickle only tensors, numpy
    scalars and plain containers are read (`weights_only=True`). Raises FileNotFoundError; ValueError for a file that is
    empty, cut short, damaged, of another kind, or would run code; OSError for one that keeps changing while it is read.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        _beginning(path)
        file = read_hashed(path)
        try:
            content = load(file.content)
        except Exception as error:  # SafetensorError is an Exception and nothing more
            raise _bad_safetensors(path, error) from error
        return _state_in(content, path), file.sha256
    _require_torch_file(path)

    def read(file: BinaryIO) -> tuple[dict[str, torch.Tensor], str]:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        return _state_in(_load(file, path), path), sha256

    return read_unchanged(path, read)


def read_shapes(path: Path) -> dict[str, torch.Tensor]:
    """The names and shapes of the weights in a file, as tensors without content; raises as `read_weights`.

    Cheap: a safetensors file says them in its header, and of a torch file (since 1.6) tensors are mapped and not read.
    """
    if path.suffix != ".safetensors":
        content = _load(path, path, mmap=_require_torch_file(path))
        return {key: value.to("meta") for key, value in _state_in(content, path).items()}
    from safetensors import safe_open

    _beginning(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in file.keys()}  # noqa: SIM118
    except Exception as error:
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
    """The first eight of many names, for a message."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


# --- inside ---------------------------------------------------------------------------------------------


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
        raise ValueError(
            f"{path} could not be loaded: it is damaged or cut short; fetch it again ({_reason(error)})"
        ) from error


def _allowed() -> list:
    """What LAION's published files hold beside tensors, under numpy's old and new module names."""
    import _codecs

    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")}
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    # torch asks for the classes of numpy.dtype's results when it sets a dtype's byte order.
    return [*((scalar, name) for name in names), np.dtype, _codecs.encode, *dtypes]


def _reason(error: Exception) -> str:
    """The line of torch's message that says what is wrong, without its advice to load the file unsafely."""
    text = str(error)
    named = re.search(r"GLOBAL (\S+)|(Can only build [^\n]*)|(Unsupported operand \d+)", text)
    if named:
        return f"It asks for {named[1]}" if named[1] else named[0]
    return f"{type(error).__name__}: {text.strip().partition(chr(10))[0][:200]}".rstrip(": .")


def _state_in(content: object, path: Path) -> dict[str, torch.Tensor]:
    """The weights in what a file holds, out of their wrapper, by the model's own names."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a dict of weights")  # noqa: TRY004
    state = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    others = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if others or not state:
        raise ValueError(f"{path} holds no set of weights: {first_of(others) or 'it is empty'}")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _beginning(path: Path) -> bytes:
    """The first four bytes of a file. Raises for what is none, and for an empty one."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; give the path of a checkpoint (.pt, .pth)")
    require_regular(path, FileNotFoundError if path.is_dir() else ValueError)
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise ValueError(f"{path} could not be loaded: it is empty (0 bytes); fetch it again")
    return start


def _require_torch_file(path: Path) -> bool:
    """Whether `path` is a zip, as torch has saved since 1.6. Raises for what is no whole torch file."""
    start = _beginning(path)
    if start[:1] == b"\x80":  # of every pickle since protocol 2
        return False
    if start != b"PK\x03\x04":
        raise ValueError(
            f"{path} could not be loaded: it is no PyTorch checkpoint; it begins with {start!r}; fetch it again"
        )
    if not zipfile.is_zipfile(path):  # its table of contents is at its end
        size = path.stat().st_size
        raise ValueError(f"{path} could not be loaded: it is cut short at {size:,} bytes; fetch it again")
    return True


def _bad_safetensors(path: Path, error: Exception) -> ValueError:
    what = "cut short" if "ncomplete" in str(error) else "no safetensors file, or damaged"
    return ValueError(f"{path} could not be loaded: it is {what}; fetch it again")
