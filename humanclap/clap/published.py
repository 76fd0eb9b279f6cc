"""The published models' files: where they come from, and the manifest that keeps them what they were."""

from __future__ import annotations

import json
import logging
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from .weights import remembered_sha256

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A file on the hub; `revision` and `sha256` are None where nobody has written them down yet."""

    repository: str
    file: str
    revision: str | None = None
    sha256: str | None = None


CHECKPOINTS = {
    "laion": Published(
        "lukewys/laion_clap",
        "630k-audioset-best.pt",
        "b3708341862f581175dba5c356a4ebf74a9b6651",
        "8053c9775516af2f4902e1e8281e356cc1bf7a85e8b761908170767b77c3f037",
    ),
    "laion-fusion": Published(
        "lukewys/laion_clap", "630k-audioset-fusion-best.pt", "b3708341862f581175dba5c356a4ebf74a9b6651"
    ),
    "msclap-2022": Published(
        "microsoft/msclap",
        "CLAP_weights_2022.pth",
        sha256="5b917c47fec10547b65cf1d9096e194896fa1c2d6180536c8524289721a4c5b8",
    ),
    "msclap-2023": Published("microsoft/msclap", "CLAP_weights_2023.pth"),
}
"""The checkpoint files of the named models."""

_TOKENIZERS = {
    "roberta-base": "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
    "bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "gpt2": None,
}
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json")
_VOCABULARIES = ("vocab.json", "vocab.txt", "tokenizer.json")


def fetch_checkpoint(name: str) -> Path:
    """The published file of a named model, from the local hub cache or else the hub.

    Raises FileNotFoundError where it can't be fetched (it says what to fetch and where to put it), and
    ValueError for a file that is not the published one, or not the one that the manifest holds to.
    """
    wanted = CHECKPOINTS[name]
    held = held_in_manifest(wanted.repository, wanted.file)
    revision = wanted.revision or (held.revision if held else None)
    path = _hub_file(wanted.repository, wanted.file, revision)
    if path is None:
        pinned = f" --revision {revision}" if revision else ""
        check = f" (sha256 {wanted.sha256})" if wanted.sha256 else ""
        raise FileNotFoundError(
            f"{name}: {wanted.file} of {wanted.repository} is not in the hub cache and could not be fetched. "
            f"With a network: hf download {wanted.repository} {wanted.file}{pinned}. Or bring the file"
            f"{check} from a machine that has one, put it anywhere, and call "
            f"load_clap({name!r}, checkpoint=its path)"
        )
    found = remembered_sha256(path)
    if wanted.sha256 not in (None, found):
        raise ValueError(
            f"{path} is not the published {wanted.file}: its sha256 is {found}, expected {wanted.sha256}. "
            f"Remove it and fetch it again, or give it as checkpoint= if you mean to use it as it is"
        )
    if None in (wanted.revision, wanted.sha256):
        hold_to_manifest(Published(wanted.repository, wanted.file, _revision_of(path), found))
    return path


def fetch_tokenizer(repository: str) -> Path:
    """A folder with the tokenizer of "roberta-base", "bert-base-uncased" or "gpt2", as `fetch_checkpoint`.

    The pinned revision is preferred; without a network, another one in the cache will do, and a warning says
    so (a score's front end names the tokenizer's content, not its revision).
    """
    pinned = _TOKENIZERS[repository]
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
            "(HF_HOME) here"
        )
    if pinned is None:
        vocabulary = next(folder / name for name in _VOCABULARIES if (folder / name).is_file())
        entry = Published(repository, "tokenizer", _revision_of(vocabulary), remembered_sha256(vocabulary))
        hold_to_manifest(entry)
    return folder


# --- the manifest ---------------------------------------------------------------------------------------


def held_in_manifest(repository: str, file: str) -> Published | None:
    """What was found at the first use of an unpinned file, or None before that."""
    path = _manifest_entry(repository, file)
    try:
        return Published(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} can't be read ({error}); remove it to resolve {repository} anew") from error


def hold_to_manifest(found: Published) -> None:
    """Write down the first use of an unpinned file. Raises ValueError where a later use differs from it."""
    path, held = _manifest_entry(found.repository, found.file), held_in_manifest(found.repository, found.file)
    if held is None:
        _write_entry(path, found)
    elif held != found:
        raise ValueError(
            f"{found.repository} {found.file} is not what it was at its first use: that was revision "
            f"{held.revision}, sha256 {held.sha256}; this is {found.revision}, {found.sha256}. To accept "
            f"it, remove {path}"
        )


def _manifest_entry(repository: str, file: str) -> Path:
    from huggingface_hub import constants

    # One small file each, so that two processes never rewrite each other's entries.
    folder = Path(constants.HF_HUB_CACHE) / "humanclap-manifest"
    return folder / f"{repository.replace('/', '--')}--{file}.json"


def _write_entry(path: Path, found: Published) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:  # a cache that others own; what is in it does not change either
        _log.warning("the manifest %s can't be written (%s)", path, error.strerror)
    finally:
        part.unlink(missing_ok=True)


# --- the hub --------------------------------------------------------------------------------------------


def _hub_file(repository: str, file: str, revision: str | None, fetch: bool = True) -> Path | None:
    """A file of the hub, asked for over the network only if the cache lacks it; None if it can't be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, file, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        if not fetch:
            return None
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


def _revision_of(path: Path) -> str:
    """The commit of a file in the hub cache, which stands in its path: .../snapshots/<commit>/<file>."""
    return path.parent.name
