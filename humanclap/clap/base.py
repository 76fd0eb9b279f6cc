"""What a CLAP is to the rest of the package, and how a name becomes one."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ..models import MODELS

NAMES = tuple(name for name in MODELS if "/" not in name)
PRECISIONS = ("fp32", "bf16", "fp16")

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
    """Where the model is: "cpu", "cuda", "cuda:N" or "mps"."""
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
        name: "laion", "laion-fusion" (laion-clap's 630k-audioset-best and its fusion model), "msclap-2022",
            "msclap-2023" (Microsoft's), "human-clap" (the authors' released wSCE+MAE model); a local `.pt` or
            `.pth` file of LAION's or Microsoft's, tiny or base, fused or not, which its weights tell; a local
            folder with a `transformers.ClapModel` as `save_pretrained` writes it, or the hub id of one
            ("owner/name", or "owner/name@revision").
        checkpoint: a local copy of a named model (a file; "human-clap": a folder) instead of a download.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:N" or "mps".
        window: what is heard of a clip longer than the model's input. "first", "center"; "mean": all windows
            side by side, the last flush with the end, their normalised embeddings averaged; "fusion", for a
            model with feature fusion: the whole clip, shrunk, and three chunks at fixed places; "upstream":
            what the model's own package does, which is random. None is the model's default: "fusion" where it
            has it, else "first".
        precision: "fp32", or "bf16" or "fp16" for autocast, faster and off in the third decimal.
        seed: for "upstream", which draws anew from it at each call of `embed_audio`; others draw nothing.

    What is not here is fetched at its first use, at a pinned revision or at one that a manifest in the hub
    cache holds to from then on; what is cached needs no network. No file is trusted to run code. Raises
    ValueError for an unknown name, device, window or precision, and for weights that do not fit (it names
    them) or are not the published ones; FileNotFoundError for a file that is not there or can't be fetched
    (it says what to fetch and where to put it).
    """
    name = os.fspath(name)
    require_precision(precision)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be a whole number >= 0")
    settings = {"device": device, "window": window, "precision": precision, "seed": int(seed)}
    with warnings.catch_warnings():  # transformers and what it imports leave filters of their own behind
        return _load(name, checkpoint, settings)


def _load(name: str, checkpoint: str | os.PathLike | None, settings: dict) -> Clap:
    if name in NAMES:
        return _load_named(name, checkpoint, settings)
    if checkpoint is not None:
        raise ValueError(
            f"checkpoint goes with a named model ({', '.join(NAMES)}), and {name!r} is none: give the "
            "file or folder as name instead"
        )
    if name.endswith((".pt", ".pth")) or (name and Path(name).is_file()):
        return _load_file(name, settings)
    if name and (Path(name).is_dir() or split_hub_id(name)):
        from .huggingface import HuggingFaceClap  # torch and transformers load here, not with the package

        return HuggingFaceClap(name, **settings)
    raise ValueError(
        f"unknown CLAP {name!r}. Known: {', '.join(NAMES)}; a .pt or .pth file; the folder of a saved "
        "transformers.ClapModel, which must exist; or a hub id, owner/name"
    )


def _load_named(name: str, checkpoint: str | os.PathLike | None, settings: dict) -> Clap:
    if name == "human-clap":
        from .huggingface import HuggingFaceClap

        if checkpoint is not None:
            return HuggingFaceClap(_existing_folder(checkpoint), name=name, **settings)
        weights, front_end = MODELS[name].needs
        source, other = (f"{spec.repository}@{spec.revision}" for spec in (weights, front_end))
        return HuggingFaceClap(source, name=name, front_end=other, sha256=weights.sha256, **settings)
    from .published import fetch_checkpoint

    choose_device(settings["device"])  # before a download
    path = fetch_checkpoint(name) if checkpoint is None else checkpoint
    if name.startswith("laion"):
        from .laion import LaionClap

        return LaionClap(path, name=name, fused=name == "laion-fusion", **settings)
    from .microsoft import MicrosoftClap

    return MicrosoftClap(path, name=name, version=name.removeprefix("msclap-"), **settings)


def _load_file(path: str, settings: dict) -> Clap:
    """LAION's or Microsoft's file, whichever its weights say."""
    from .weights import holds_msclap

    if holds_msclap(path):
        from .microsoft import MicrosoftClap

        return MicrosoftClap(path, **settings)
    from .laion import LaionClap

    return LaionClap(path, **settings)


def split_hub_id(name: str) -> tuple[str, str | None] | None:
    """Id and revision, or None, of "owner/name" or "owner/name@revision"; None for all else."""
    match = _HUB_ID.fullmatch(name)
    # "./model" and "../model" look like ids, and are folders that do not exist.
    return None if match is None or name.startswith(".") else (match["id"], match["revision"])


def choose_device(device: str) -> str:
    """The device for "auto", "cpu", "cuda", "cuda:N" or "mps". Raises ValueError for one that is absent."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device not in ("cpu", "mps") and not re.fullmatch(r"cuda(:\d+)?", str(device)):
        raise ValueError(f"unknown device {device!r}; allowed: auto, cpu, cuda, cuda:N, mps")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not there: this torch sees no Apple GPU; use 'cpu' or 'auto'")
    n_gpus = torch.cuda.device_count()
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= n_gpus:
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
