"""CLAP models behind one interface: `load_clap` opens one, `Clap` says what each can do."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from .. import checks
from ..files import expanded
from ..models import MODELS, Model

if TYPE_CHECKING:
    import torch

    from .embedder import Embedder

__all__ = ["MODELS", "Clap", "load_clap"]

_WITH_FILES = [name for name in MODELS if "/" not in name]  # the others are ids on the hub


@runtime_checkable
class Clap(Protocol):
    """A CLAP that embeds files and captions: all that `score_pairs` uses of one. Features and tokens are on the CPU."""

    name: str  # what `load_clap` was given, or the folder's own name
    checkpoint_sha256: str  # of the file with the weights
    window: str  # how a clip longer than the model's input is cropped
    precision: str  # "fp32", "bf16" or "fp16"
    device: str  # "cpu", "cuda", "cuda:N" or "mps"
    sample_rate: int  # what the model hears, in Hz
    front_end: str  # all that decides features and tokens: the same text, the same features

    def embed_audio(self, paths: Sequence[str | os.PathLike]) -> np.ndarray:
        """N files -> float32 `[N, D]`, L2-normalised. Raises AudioError, with the path, for a bad file."""

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """N captions -> float32 `[N, D]`, L2-normalised. Raises ValueError for an empty caption."""

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """The first half of `embed_audio`, safe to call from several threads."""

    def embed_features(self, features: dict[str, torch.Tensor]) -> np.ndarray:
        """The second half of `embed_audio`."""

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """The first half of `embed_text`: `input_ids` int64 `[N, L]` and what goes with them."""

    def embed_tokens(self, tokens: dict[str, torch.Tensor]) -> np.ndarray:
        """The second half of `embed_text`."""


def load_clap(
    name: str | os.PathLike,
    checkpoint: str | os.PathLike | None = None,
    device: str = "auto",
    window: str | None = None,
    precision: str = "fp32",
    seed: int = 0,
) -> Embedder:
    """Open a CLAP by name. Its weights are read at the first embedding; files, settings and checksum are known before.

    Args:
        name: "laion", "laion-fusion" (laion-clap's 630k-audioset-best and its fusion model), "msclap-2022",
            "msclap-2023" (Microsoft's), "human-clap" (the authors' released wSCE+MAE model); a local `.pt` or `.pth` file
            of LAION's or Microsoft's, tiny or base, fused or not, which its weights tell; a local folder with a
            `transformers.ClapModel` as `save_pretrained` writes it, or the hub id of one ("owner/name", or
            "owner/name@revision").
        checkpoint: a local copy of a named model (a file; for "human-clap" a folder) instead of a download.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:N" or "mps".
        window: what is heard of a clip longer than the model's input. "first", "center"; "mean": all windows side by
            side, the last flush with the end, their normalised embeddings averaged; "fusion", for a model with feature
            fusion: the whole clip, shrunk, and three chunks at fixed places; "upstream": what the model's own package
            does, which is random. None is the model's default: "fusion" where it has it, else "first".
        precision: "fp32", or "bf16" or "fp16" for autocast, faster and off in the third decimal.
        seed: for "upstream", which draws anew from it at each call of `embed_audio`; others draw nothing.

    What is not on this machine is fetched at its first use, at a pinned revision where one is known; what is cached needs
    no network. No file is trusted to run code.

    Raises:
        ValueError: an unknown name, device, window or precision; a file that is damaged or holds another model. At the
            first embedding also: weights that do not fit, are not the published ones, or were replaced since.
        FileNotFoundError: a file that is missing or can't be fetched (it says what to fetch and where to put it).
        ImportError: MS CLAP needs an extra (it says which, and for which Pythons).
    """
    settings = {"window": window, "precision": precision, "seed": checks.whole_number(seed, "seed")}
    with warnings.catch_warnings():  # transformers and what it imports leave filters of their own behind
        from .embedder import choose_device

        return _open(os.fspath(name), checkpoint, settings | {"device": choose_device(device)})


def _open(name: str, checkpoint: str | os.PathLike | None, settings: dict) -> Embedder:
    from ..download import DownloadError, hub_files
    from .huggingface import HuggingFaceClap, find_folder, front_end_file

    path = expanded(name if checkpoint is None else checkpoint)
    if name not in _WITH_FILES:
        if checkpoint is not None:
            raise ValueError(
                f"checkpoint goes with a named model ({', '.join(_WITH_FILES)}), and {name!r} is none: give the file or "
                "folder as name instead"
            )
        if name.endswith((".pt", ".pth")) or path.is_file():
            return _open_file(path, path.name, settings)
        folder = find_folder(name)
        if folder is None:
            raise ValueError(
                f"unknown CLAP {name!r}. Known: {', '.join(_WITH_FILES)}; a .pt or .pth file; the folder of a saved "
                "transformers.ClapModel, which must exist; or a hub id, owner/name"
            )
        return HuggingFaceClap(folder, path.resolve().name if path.is_dir() else name, **settings)

    model = MODELS[name]
    if checkpoint is None:
        try:
            path = hub_files(model.weights)
        except DownloadError as error:
            where = f"; or put it anywhere, and call load_clap({name!r}, checkpoint=its path)"
            raise DownloadError(f"{error}{where}") from error
        settings |= {"published": model.weights.sha256 or ""}
    if model.backend != "huggingface":
        return _open_file(path, name, settings, model)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path} is not there; give the folder of a saved ClapModel")
    folder = path if path.is_dir() else path.parent
    own = checkpoint is not None or front_end_file(folder) is not None
    return HuggingFaceClap(folder, name, None if own else hub_files(model.tokenizer).parent, **settings)


def _open_file(path: Path, name: str, settings: dict, model: Model | None = None) -> Embedder:
    """LAION's or Microsoft's file: what `model` says, or else its weights."""
    from .checkpoints import read_shapes
    from .laion import LaionClap
    from .microsoft import MicrosoftClap

    if model is None:
        is_microsoft = any(key.startswith("audio_encoder.") for key in read_shapes(path))
        return (MicrosoftClap if is_microsoft else LaionClap)(path, name, None, **settings)
    if model.backend == "microsoft":
        return MicrosoftClap(path, name, name.removeprefix("msclap-"), **settings)
    return LaionClap(path, name, model.window == "fusion", **settings)
