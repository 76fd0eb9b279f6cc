"""What a CLAP is to the rest of the package, and how a name becomes one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

HUMAN_CLAP_ID = "sarulab-speech/human-clap-wsce-mae"
HUMAN_CLAP_REVISION = "06788887d254df15db5c0ca9d54da39d46188063"
# That repository holds the model alone; it is a fine-tuned LAION CLAP, whose front end it shares.
HUMAN_CLAP_FRONT_END = ("laion/clap-htsat-fused", "365dea6ef167def6676140ed93bbc43f84dabb28")

NAMES = ("laion", "laion-fusion", "msclap-2022", "msclap-2023", "human-clap")
PRECISIONS = ("fp32", "bf16")

_NOT_YET = ("laion", "laion-fusion", "msclap-2022", "msclap-2023")
_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?")


@runtime_checkable
class Clap(Protocol):
    """A CLAP that embeds files and captions; every backend has these, and nothing else is asked of one."""

    name: str
    """What `load_clap` was given, or the folder's own name."""
    checkpoint_sha256: str
    """SHA-256 of the file with the weights."""
    window: str
    """How a clip longer than the model's input is cut."""
    precision: str
    """One of PRECISIONS."""
    device: str
    """Where the model is: "cpu", "cuda" or "cuda:N"."""
    sample_rate: int
    """What the model hears, in Hz."""

    def embed_audio(self, paths: Sequence[str | os.PathLike]) -> np.ndarray:
        """N files -> float32 `[N, D]`, L2-normalised. Raises AudioError, with the path, for a bad file."""

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """N captions -> float32 `[N, D]`, L2-normalised. Raises ValueError for an empty caption."""


def load_clap(
    name: str | os.PathLike,
    checkpoint: str | os.PathLike | None = None,
    device: str = "auto",
    window: str | None = None,
    precision: str = "fp32",
    seed: int = 0,
) -> Clap:
    """Open a CLAP by name, ready to embed, in eval mode.

    Args:
        name: "human-clap" (the authors' released wSCE+MAE model at a pinned revision), a local folder with a
            `transformers.ClapModel` as `save_pretrained` writes it, or the hub id of one ("owner/name", or
            "owner/name@revision"). "laion", "laion-fusion", "msclap-2022" and "msclap-2023" are reserved.
        checkpoint: a local copy of a named model ("human-clap": a folder) instead of a download.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        window: how a clip longer than the model's input is cut: "first" or "center", and "fusion" for a model
            with feature fusion. None is the model's default: "fusion" where it has it, else "first".
        precision: "fp32", or "bf16" for autocast, which is faster and changes scores in the third decimal.
        seed: for windows at random places; none of the present ones is, so it changes nothing yet.

    A hub id is fetched at its first use and found in the local hub cache from then on. Raises ValueError for
    an unknown name, device, window or precision, and for weights that do not fit the model (it names them);
    FileNotFoundError for a file that is not there or can't be fetched (it says what to fetch);
    NotImplementedError for the reserved names and for .pt and .pth files.
    """
    name = os.fspath(name)
    require_precision(precision)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be a whole number >= 0")
    settings = {"device": device, "window": window, "precision": precision}
    if name in _NOT_YET or name.endswith((".pt", ".pth")):
        return _not_yet(name)
    from .huggingface import HuggingFaceClap  # torch and transformers load here, not with the package

    if name == "human-clap":
        if checkpoint is not None:
            return HuggingFaceClap(_existing_folder(checkpoint), name=name, **settings)
        source = f"{HUMAN_CLAP_ID}@{HUMAN_CLAP_REVISION}"
        return HuggingFaceClap(source, name=name, front_end="@".join(HUMAN_CLAP_FRONT_END), **settings)
    if checkpoint is not None:
        raise ValueError(
            f"checkpoint goes with a named model ({', '.join(NAMES)}), and {name!r} is none: give a "
            "folder as name instead"
        )
    if name and (Path(name).is_dir() or split_hub_id(name)):
        return HuggingFaceClap(name, **settings)
    raise ValueError(
        f"unknown CLAP {name!r}. Known: {', '.join(NAMES)}; the folder of a saved transformers.ClapModel, "
        "which must exist; or a hub id, owner/name"
    )


def split_hub_id(name: str) -> tuple[str, str | None] | None:
    """Id and revision, or None, of "owner/name" or "owner/name@revision"; None for all else."""
    match = _HUB_ID.fullmatch(name)
    # "./model" and "../model" look like ids, and are folders that do not exist.
    return None if match is None or name.startswith(".") else (match["id"], match["revision"])


def choose_device(device: str) -> str:
    """The device for "auto", "cpu", "cuda" or "cuda:N". Raises ValueError for one that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", str(device)):
        raise ValueError(f"unknown device {device!r}; allowed: auto, cpu, cuda, cuda:N")
    n_gpus = torch.cuda.device_count()
    if device != "cpu" and int(device.partition(":")[2] or 0) >= n_gpus:
        raise ValueError(f"device {device!r} is not there: torch sees {n_gpus} GPU(s); use 'cpu' or 'auto'")
    return device


def require_precision(precision: str) -> None:
    """Raise ValueError for a precision that is none of PRECISIONS."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; allowed: {', '.join(PRECISIONS)}")


def _existing_folder(checkpoint: str | os.PathLike) -> str:
    """The folder of a ClapModel, given as such or by the weights file in it."""
    path = Path(checkpoint)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path} is not there; give the folder of a saved ClapModel")
    return os.fspath(path if path.is_dir() else path.parent)


def _not_yet(name: str) -> Clap:
    raise NotImplementedError(
        f"{name!r}: the laion_clap and msclap backends, and reading .pt and .pth files, come with a later "
        "release. Here now: human-clap, the folder of a saved transformers.ClapModel, or its hub id, such as "
        "laion/clap-htsat-unfused"
    )
