"""The published models' files for `load_clap`: where they lie on this machine, or fetched at their first use."""

from __future__ import annotations

import logging
from pathlib import Path

from ..download.checksums import remembered_sha256
from ..download.hub import find_file, revision_of
from ..download.manifest import Published, held_in_manifest, hold_to_manifest
from ..download.places import weights_folder
from ..download.sources import CHECKPOINTS, MODELS, TOKENIZERS

__all__ = [
    "CHECKPOINTS",
    "MODELS",
    "Published",
    "fetch_checkpoint",
    "fetch_tokenizer",
    "find_checkpoint",
    "held_in_manifest",
    "hold_to_manifest",
]

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json")
_VOCABULARIES = ("vocab.json", "vocab.txt", "tokenizer.json")
_log = logging.getLogger(__name__)


def find_checkpoint(name: str) -> Path | None:
    """The file of a named model that `fetch_checkpoint` would open, where it is on this machine; else None."""
    wanted = CHECKPOINTS[name]
    found = find_file(wanted.repository, wanted.file, _revision(wanted))
    return found.path if found else None


def fetch_checkpoint(name: str) -> Path:
    """The published file of a named model: from `$HUMANCLAP_DATA/weights`, the local hub cache, or else the hub.

    Raises FileNotFoundError where it can't be fetched (it says what to fetch and where to put it), and
    ValueError for a file that is not the published one, or not the one that the manifest holds to.
    """
    wanted = CHECKPOINTS[name]
    revision = _revision(wanted)
    path = _hub_file(wanted.repository, wanted.file, revision)
    if path is None:
        pinned = f" --revision {revision}" if revision else ""
        check = f" (sha256 {wanted.sha256})" if wanted.sha256 else ""
        raise FileNotFoundError(
            f"{name}: {wanted.file} of {wanted.repository} is not in the hub cache and could not be fetched. "
            f"With a network: humanclap fetch {name.split('-')[0]}, or hf download {wanted.repository} {wanted.file}"
            f"{pinned}. Or bring the file{check} from a machine that has one, to "
            f"{weights_folder(wanted.repository)}; or put it anywhere, and call "
            f"load_clap({name!r}, checkpoint=its path)"
        )
    found = remembered_sha256(path)
    if wanted.sha256 not in (None, found):
        raise ValueError(
            f"{path} is not the published {wanted.file}: its sha256 is {found}, expected {wanted.sha256}. "
            f"Remove it and fetch it again, or give it as checkpoint= if you mean to use it as it is"
        )
    if None in (wanted.revision, wanted.sha256):
        hold_to_manifest(Published(wanted.repository, wanted.file, revision_of(path), found))
    return path


def fetch_tokenizer(repository: str) -> Path:
    """A folder with the tokenizer of "roberta-base", "bert-base-uncased" or "gpt2", as `fetch_checkpoint`.

    The pinned revision is preferred; without a network, another one in the cache will do, and a warning says
    so (a score's front end names the tokenizer's content, not its revision).
    """
    pinned = TOKENIZERS[repository]
    held = held_in_manifest(repository, "tokenizer") if pinned is None else None
    revision = pinned or (held.revision if held else None)
    folder = _tokenizer_folder(repository, revision)
    if folder is None and pinned is not None:
        folder = _tokenizer_folder(repository, None, fetch=False)
        if folder is not None:
            _log.warning("%s: revision %s can't be fetched; using %s", repository, pinned, folder)
    if folder is None:
        at = f" --revision {revision}" if revision else ""
        raise FileNotFoundError(
            f"the tokenizer of {repository} is not in the hub cache and could not be fetched. With a "
            f"network: hf download {repository} {' '.join(_TOKENIZER_FILES[1:])}{at}; then copy the cache "
            f"(HF_HOME) here, or its files to {weights_folder(repository)}"
        )
    if pinned is None:
        vocabulary = next(folder / name for name in _VOCABULARIES if (folder / name).is_file())
        entry = Published(repository, "tokenizer", revision_of(vocabulary), remembered_sha256(vocabulary))
        hold_to_manifest(entry)
    return folder


def _revision(wanted: Published) -> str | None:
    held = held_in_manifest(wanted.repository, wanted.file)
    return wanted.revision or (held.revision if held else None)


def _hub_file(repository: str, file: str, revision: str | None, fetch: bool = True) -> Path | None:
    """A file of the hub, asked for over the network only if this machine lacks it; None if it can't be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    here = find_file(repository, file, revision)
    if here is not None or not fetch:
        return here.path if here else None
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except (HfHubHTTPError, OSError):  # no network, offline mode, no such file
        return None


def _tokenizer_folder(repository: str, revision: str | None, fetch: bool = True) -> Path | None:
    """The snapshot with a tokenizer; only a vocabulary, with its merges, is needed, all else is welcome."""
    cached = [_hub_file(repository, name, revision, fetch=False) for name in _TOKENIZER_FILES]
    if fetch and not _is_tokenizer(cached):
        cached = [_hub_file(repository, name, revision) for name in _TOKENIZER_FILES]
    return next(path.parent for path in cached if path) if _is_tokenizer(cached) else None


def _is_tokenizer(files: list[Path | None]) -> bool:
    names = {path.name for path in files if path}
    return "tokenizer.json" in names or "vocab.txt" in names or {"vocab.json", "merges.txt"} <= names
