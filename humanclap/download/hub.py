"""Files of the hub, by huggingface_hub: found where they lie, or fetched with room made sure of and checksums checked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from .checksums import remembered_sha256
from .disk import FULL, require_room
from .errors import DownloadError, GivenUpError
from .manifest import held_in_manifest, hold_to_manifest
from .places import weights_folder
from .sources import HubFiles
from .transfer import Patience

_T = TypeVar("_T")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Found:
    """A file of the hub on this machine; `revision` is None for one that was brought by hand."""

    path: Path
    revision: str | None


@dataclass(frozen=True)
class _Offered:
    """What the hub says of a file: its commit, its size, and its sha256 where the hub keeps one (large files)."""

    commit: str
    n_bytes: int
    sha256: str | None


def pinned_revision(piece: HubFiles) -> str | None:
    """The revision that is meant: the one written down, or that of the first use; None before that."""
    if piece.revision is not None:
        return piece.revision
    held = held_in_manifest(piece.published.repository, piece.published.file)
    return held.revision if held else None


def find_file(repository: str, file: str, revision: str | None, data: str | os.PathLike | None = None) -> Found | None:
    """A file of the hub that is here: below `weights_folder`, or in the hub's cache; None if in neither."""
    by_hand = weights_folder(repository, data) / file
    if by_hand.is_file():
        return Found(by_hand, None)
    if data is not None:  # what is to go elsewhere is not taken from the cache
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file, revision=revision)
    return Found(Path(cached), revision_of(Path(cached))) if isinstance(cached, str) else None


def revision_of(path: Path) -> str | None:
    """The commit of a file in the hub's cache, which stands in its path, .../snapshots/<commit>/<file>; else None."""
    parents = path.parents
    return parents[0].name if len(parents) > 1 and parents[1].name == "snapshots" else None


def find_piece(piece: HubFiles, data: str | os.PathLike | None = None) -> list[Found | None]:
    """For each group of `piece.needed` the file that is here, or None."""
    revision = pinned_revision(piece)
    return [
        next(filter(None, (find_file(piece.repository, name, revision, data) for name in group)), None)
        for group in piece.needed
    ]


def check_piece(piece: HubFiles, found: Found, write: bool = True) -> str:
    """The sha256 of the piece's first file. Raises DownloadError where it is not the published one, or the first.

    The first use of a file without a published checksum or revision is written down, unless `write` is False.
    """
    sha256 = remembered_sha256(found.path)
    if piece.sha256 not in (None, sha256):
        raise DownloadError(
            f"{found.path} is not the published {found.path.name} of {piece.repository}: its sha256 is {sha256}, "
            f"expected {piece.sha256}. Remove it and fetch it again"
        )
    if None in (piece.revision, piece.sha256):
        entry = replace(piece.published, revision=found.revision or piece.revision, sha256=sha256)
        try:
            hold_to_manifest(entry, write=write)
        except ValueError as error:
            raise DownloadError(str(error)) from error
    return sha256


def fetch_piece(
    piece: HubFiles, data: str | os.PathLike | None = None, patience: Patience = Patience(), progress: bool = True  # noqa: B008
) -> Path:
    """Bring what is missing of a piece, and check it: below `data`/weights, or (None) into the hub's cache.

    Returns the path of its first file. Raises DownloadError: not reached, not there, too little room, damaged, not the
    published file or not that of the first use.
    """
    revision, main = pinned_revision(piece), None
    for group, here in zip(piece.needed, find_piece(piece, data), strict=True):
        found = here or _first_of(piece.repository, group, revision, data, patience, progress)
        if main is None:
            main, revision = found, found.revision or revision
    for name in piece.wanted:
        if find_file(piece.repository, name, revision, data) is None:
            _fetch_file(piece.repository, name, revision, data, patience, progress, must_exist=False)
    check_piece(piece, main)
    return main.path


def _first_of(repository, group, revision, data, patience, progress) -> Found:
    """The first file of a group that the hub has."""
    for name in group:
        found = _fetch_file(repository, name, revision, data, patience, progress, must_exist=name == group[-1])
        if found is not None:
            return found
    raise AssertionError("unreachable")


def _fetch_file(repository, name, revision, data, patience, progress, must_exist) -> Found | None:
    """One file of the hub; None where the hub does not have it, unless it `must_exist`."""
    from huggingface_hub import constants, hf_hub_download

    offered = _patiently(lambda: _ask(repository, name, revision), repository, name, revision, patience, must_exist)
    if offered is None:
        return None
    elsewhere = data is not None or os.environ.get("HUMANCLAP_DATA")
    folder = weights_folder(repository, data) if elsewhere else None
    require_room(folder or Path(constants.HF_HUB_CACHE), offered.n_bytes, f"{name} of {repository}")
    where = {} if folder is None else {"local_dir": folder}

    def get() -> str:
        with _bars(progress):
            return hf_hub_download(repository, name, revision=revision or "main", **where)

    path = Path(_patiently(get, repository, name, revision, patience))
    if offered.sha256 not in (None, sha256 := remembered_sha256(path) if offered.sha256 else None):
        path.unlink()
        raise DownloadError(
            f"{name} of {repository} was damaged on its way: its sha256 is {sha256}, the hub's {offered.sha256}; "
            "it was removed. Run the same command again"
        )
    return Found(path, revision_of(path) or offered.commit)


def _ask(repository: str, name: str, revision: str | None) -> _Offered:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    said = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision))
    if said.commit_hash is None or said.size is None:
        raise DownloadError(f"{said.location} does not answer as the hub does; is HF_ENDPOINT or a proxy set wrongly?")
    return _Offered(said.commit_hash, said.size, said.etag if _SHA256.fullmatch(said.etag or "") else None)


def _patiently(
    call: Callable[[], _T], repository: str, name: str, revision: str | None, patience: Patience, must_exist: bool = True
) -> _T | None:
    """Call, and again where the network failed; other failures are told in our words."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    pinned = f" --revision {revision}" if revision else ""
    by_hand = f"Or: hf download {repository} {name}{pinned} --local-dir {weights_folder(repository)}"
    for failures in range(1, patience.attempts + 1):
        try:
            return call()
        except DownloadError:
            raise
        except OfflineModeIsEnabled as error:
            raise DownloadError(f"{repository}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it") from error
        except EntryNotFoundError as error:
            if not must_exist:
                return None
            raise DownloadError(f"{repository} has no {name} at {revision or 'main'}: {_said(error)}") from error
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", 0)
            if status < 500 and status not in (408, 429):
                raise DownloadError(f"{name} of {repository} can't be had: {_said(error)}. {by_hand}") from error
            reason = error
        except OSError as error:
            if error.errno in FULL:
                raise DownloadError(f"{name} of {repository}: the disk is full; make room and run this again") from error
            reason = error
        if failures < patience.attempts:
            patience.wait(failures)
    raise GivenUpError(f"{name} of {repository} was given up after {failures} attempt(s): {_said(reason)}. {by_hand}")


def _said(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _bars(progress: bool):
    """huggingface_hub's own bars, or none."""
    import contextlib

    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    @contextlib.contextmanager
    def quiet():
        was_off = are_progress_bars_disabled()
        disable_progress_bars()
        try:
            yield
        finally:
            if not was_off:
                enable_progress_bars()

    return contextlib.nullcontext() if progress else quiet()

