"""A `transformers.ClapModel` and its front end, from a folder or the hub; weights that don't fit raise."""

from __future__ import annotations

import json
import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..hub import hub_files
from ..models import FRONT_END_FILE, WEIGHT_FILES, hub_model
from .base import split_hub_id
from .weights import read_checkpoint, require_safetensors

if TYPE_CHECKING:
    from transformers import ClapFeatureExtractor, ClapModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))

# Constants that some versions of transformers save with the weights and others make anew. They hold
# 0, 1, 2, ... and 0, 0, 0, ...; no training changes them.
_CONSTANT_BUFFERS = ("text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids")


def find_folder(source: str, weights: bool = True, front_end: bool = True) -> Path:
    """The folder of `source`, a folder or a hub id (owner/name, owner/name@revision), fetched if it must be.

    A bare id means the revision written down for it. Of a repository, what is wanted is found or fetched: the `weights`
    with their configuration, the `front_end`. Raises FileNotFoundError for what is neither there nor reachable, and says
    what to fetch.
    """
    if Path(source).is_dir():
        return Path(source)
    hub_id = split_hub_id(source)
    if hub_id is None:
        raise FileNotFoundError(f"there is no folder {source!r}, and it is no hub id (owner/name) either")
    spec = hub_model(*hub_id)
    if not front_end:
        spec = replace(spec, files=spec.files[:2])
    if not weights:
        spec = replace(spec, files=spec.files[2:], sha256=None)
    return hub_files(spec).parent


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


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHT_FILES)


def _has_tokenizer(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES)


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
