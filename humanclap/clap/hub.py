"""A `transformers.ClapModel` and its front end, from a folder or the hub; weights that don't fit raise."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from ..download.hub import revision_of
from ..download.places import weights_folder
from ..download.sources import MODELS, WEIGHT_FILES
from . import published
from .base import split_hub_id
from .weights import read_checkpoint, require_safetensors

if TYPE_CHECKING:
    from transformers import ClapFeatureExtractor, ClapModel, PreTrainedTokenizerBase

_MANIFEST_NAME = "model"
_log = logging.getLogger(__name__)

FRONT_END_FILE = "preprocessor_config.json"
_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))

# Constants that some versions of transformers save with the weights and others make anew. They hold
# 0, 1, 2, ... and 0, 0, 0, ...; no training changes them.
_CONSTANT_BUFFERS = ("text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids")


def find_folder(source: str, weights: bool = True, front_end: bool = True) -> Path:
    """The folder of `source`, a folder or a hub id (owner/name, owner/name@revision), fetched if it must be.

    A bare id means the revision written down for it, or else that of its first use. Files brought by hand to
    `weights_folder(id)` come first. The hub is asked only for what the local cache lacks of what is wanted: the
    `weights` with their configuration, the `front_end`. Raises FileNotFoundError for what is neither there nor
    reachable, and says what to fetch.
    """
    if Path(source).is_dir():
        return Path(source)
    hub_id = split_hub_id(source)
    if hub_id is None:
        raise FileNotFoundError(f"there is no folder {source!r}, and it is no hub id (owner/name) either")
    by_hand = weights_folder(hub_id[0])
    if _is_whole(by_hand, weights, front_end):
        return by_hand
    if hub_id[1] is None:
        held = published.held_in_manifest(hub_id[0], _MANIFEST_NAME)
        hub_id = hub_id[0], MODELS.get(hub_id[0]) or (held.revision if held else None)
    folder = _cached(*hub_id)
    if folder is None or not _is_whole(folder, weights, front_end):
        folder = _fetch(*hub_id, ["*.json", "*.txt", *WEIGHT_FILES[: int(weights)]])
        if weights and not _has_weights(folder):
            folder = _fetch(*hub_id, [WEIGHT_FILES[1]])
    return folder


def hold_to_manifest(source: str, folder: Path, sha256: str) -> None:
    """Keep a hub id without a revision to what it was at its first use; ValueError where it differs."""
    hub_id = None if Path(source).is_dir() else split_hub_id(source)
    if hub_id is not None and hub_id[1] is None:
        entry = published.Published(hub_id[0], _MANIFEST_NAME, revision_of(folder / WEIGHT_FILES[0]), sha256)
        published.hold_to_manifest(entry)


def warn_of_sha256(name: str, expected: str, found: str) -> None:
    """Log that weights are not those with the checksum that was written down for them."""
    _log.warning("%s: the weights have sha256 %s; written down elsewhere was %s", name, found, expected)


def weights_file(folder: Path) -> Path:
    """The file with the model's weights. Raises FileNotFoundError where the folder has none."""
    if _has_weights(folder):
        return next(folder / name for name in WEIGHT_FILES if (folder / name).is_file())
    names = " or ".join(WEIGHT_FILES)
    raise FileNotFoundError(f"{folder} has no weights: expected {names}; save or copy the model there")


def read_model(folder: Path) -> ClapModel:
    """The ClapModel in `folder`, float32, in eval mode.

    Raises FileNotFoundError for a missing file; ValueError for another kind of model, and for weights that
    are missing, left over or of another shape, with their names.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import ClapModel

    _require_clap_config(folder)
    weights = weights_file(folder)
    # Looked at first: transformers' own messages would advise to load a pickle unsafely.
    require_safetensors(weights) if weights.suffix == ".safetensors" else read_checkpoint(weights)
    try:
        model, report = ClapModel.from_pretrained(
            folder,
            use_safetensors=weights.suffix == ".safetensors",
            weights_only=True,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are in the report, with their names
        )
    except (RuntimeError, OSError, SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(f"{weights} could not be loaded into a ClapModel: {error}") from error
    for kind in ("missing", "unexpected", "mismatched"):
        keys = [key if isinstance(key, str) else key[0] for key in report[f"{kind}_keys"]]
        wrong = sorted(key for key in keys if not key.endswith(_CONSTANT_BUFFERS))
        if wrong:
            shown = ", ".join(wrong[:8]) + (", ..." if len(wrong) > 8 else "")
            raise ValueError(
                f"{weights} does not fit config.json: {len(wrong)} {kind} weight(s): {shown}. Save model and "
                "configuration together (save_pretrained), or fetch both again"
            )
    return model.eval()


def read_front_end(folder: Path) -> tuple[ClapFeatureExtractor, PreTrainedTokenizerBase]:
    """The feature extractor and the tokenizer in `folder`. Raises FileNotFoundError where it has none."""
    from transformers import AutoTokenizer, ClapFeatureExtractor

    if not (folder / FRONT_END_FILE).is_file():
        # transformers would go on with its own defaults, which are those of no published LAION model.
        raise FileNotFoundError(
            f"{folder} has no {FRONT_END_FILE}: save the model's ClapFeatureExtractor there (save_pretrained)"
        )
    if not _has_tokenizer(folder):
        names = " or ".join(" and ".join(names) for names in _TOKENIZER_FILES)
        raise FileNotFoundError(f"{folder} has no tokenizer: expected {names}")
    extractor = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return extractor, tokenizer


def _is_whole(folder: Path, weights: bool, front_end: bool) -> bool:
    return (_has_weights(folder) or not weights) and (_has_front_end(folder) or not front_end)


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHT_FILES)


def _has_front_end(folder: Path) -> bool:
    return (folder / FRONT_END_FILE).is_file() and _has_tokenizer(folder)


def _has_tokenizer(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES)


def _cached(repository: str, revision: str | None) -> Path | None:
    """What the local hub cache holds of a repository, whole or not; None if nothing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # No file is asked for, so a snapshot with some files will do: the caller looks for those it needs.
        found = snapshot_download(repository, revision=revision, allow_patterns=[], local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return Path(found)


def _fetch(repository: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, OSError) as error:  # no network, offline mode, no such repository or revision
        pinned = f" --revision {revision}" if revision else ""
        raise FileNotFoundError(
            f"{repository} is not, or not whole, in the hub cache and could not be fetched "
            f"({type(error).__name__}). With a network: hf download {repository}{pinned}. Or bring its "
            f"files ({', '.join(patterns)}) to {weights_folder(repository)}, or into any folder and give that "
            "folder as the name (for human-clap: as the checkpoint)"
        ) from error


def _require_clap_config(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(
            f"{folder} has no config.json: it is not the folder of a saved ClapModel (save_pretrained)"
        )
    try:
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config} is not the configuration of a model: {error!r}; fetch it again") from error
    if kind != "clap":
        raise ValueError(f"{config} says model_type {kind!r}; allowed: 'clap', a transformers.ClapModel")
