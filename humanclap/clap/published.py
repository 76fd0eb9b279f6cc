"""The published models' files for `load_clap`: where they are on this machine, or fetched at their first use."""

from __future__ import annotations

from pathlib import Path

from ..files import sha256_of
from ..hub import DownloadError, find_hub_files, hub_files
from ..models import BERT, GPT2, MODELS, ROBERTA

_TOKENIZERS = {spec.repository: spec for spec in (ROBERTA, BERT, GPT2)}


def find_checkpoint(name: str) -> Path | None:
    """The file of a named model that `fetch_checkpoint` would open, where it is on this machine; else None."""
    return find_hub_files(MODELS[name].weights)


def fetch_checkpoint(name: str) -> Path:
    """The published file of a named model: from `$HUMANCLAP_DATA/weights`, the local hub cache, or else the hub.

    Raises FileNotFoundError where it can't be fetched (it says what to fetch and where to put it), and
    ValueError for a file that is not the published one.
    """
    wanted = MODELS[name].weights
    try:
        path = hub_files(wanted)
    except DownloadError as error:
        raise DownloadError(f"{error}; or put it anywhere, and call load_clap({name!r}, checkpoint=its path)") from error
    if wanted.sha256 not in (None, found := sha256_of(path)):
        raise ValueError(
            f"{path} is not the published {path.name}: its sha256 is {found}, expected {wanted.sha256}. "
            f"Remove it and fetch it again, or give it as checkpoint= if you mean to use it as it is"
        )
    return path


def fetch_tokenizer(repository: str) -> Path:
    """A folder with the tokenizer of "roberta-base", "bert-base-uncased" or "gpt2", as `fetch_checkpoint`."""
    return hub_files(_TOKENIZERS[repository]).parent
