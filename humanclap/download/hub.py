"""Files of the hub, by huggingface_hub: found where they lie, or fetched, with room and checksums looked at."""

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
    piece: HubFiles, data: str | os.PathLike | None = None, patience: Patience = Patience(), progress: bool = True
) -> Path:
    """Bring what is missing of a piece, and check it: below `data`/weights, or (None) into the hub's cache.

    Returns the path of its first file. Raises DownloadError: not reached, not there, too little room, damaged, not the
    published file or not that of the first use.
    """
    here = find_piece(piece, data)
    if None in here:
        get = _Getting(piece.repository, _revision_to_fetch(piece, here, patience), data, patience, progress)
        for name in piece.wanted:
            if find_file(piece.repository, name, get.revision, data) is None:
                get.first_of((name,), must_exist=False)
        # The first group last: what is complete by it is complete.
        for place in reversed(range(len(here))):
            here[place] = here[place] or get.first_of(piece.needed[place])
    check_piece(piece, here[0])
    return here[0].path


def _revision_to_fetch(piece: HubFiles, here: list[Found | None], patience: Patience) -> str:
    """The commit that all files of a piece are taken from."""
    if revision := pinned_revision(piece) or next((found.revision for found in here if found and found.revision), None):
        return revision
    group = next(group for group, found in zip(piece.needed, here, strict=True) if found is None)
    for name in group:
        if offered := _offer(piece.repository, name, None, patience, must_exist=name == group[-1]):
            return offered.commit
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class _Getting:
    """Files of one repository at one revision on their way to one place."""

    repository: str
    revision: str
    data: str | os.PathLike | None
    patience: Patience
    progress: bool

    def first_of(self, names: tuple[str, ...], must_exist: bool = True) -> Found | None:
        """The first of `names` that the hub has; None where it has none of them, and none `must_exist`."""
        for name in names:
            must = must_exist and name == names[-1]
            if offered := _offer(self.repository, name, self.revision, self.patience, must):
                return self.bring(name, offered)
        return None

    def bring(self, name: str, offered: _Offered) -> Found:
        from huggingface_hub import constants, hf_hub_download

        folder = weights_folder(self.repository, self.data)
        if self.data is None and not os.environ.get("HUMANCLAP_DATA") and not folder.is_dir():
            folder = None
        require_room(folder or Path(constants.HF_HUB_CACHE), offered.n_bytes, f"{name} of {self.repository}")
        where = {} if folder is None else {"local_dir": folder}

        def get() -> str:
            with _bars(self.progress):
                return hf_hub_download(self.repository, name, revision=self.revision, **where)

        path = Path(_in_our_words(get, self.repository, name, self.revision, self.patience))
        sha256 = remembered_sha256(path) if offered.sha256 else None
        if sha256 != offered.sha256:
            path.unlink()
            raise DownloadError(
                f"{name} of {self.repository} was damaged on its way: its sha256 is {sha256}, the hub's "
                f"{offered.sha256}; it was removed. Run the same command again"
            )
        return Found(path, revision_of(path) or offered.commit)


def _offer(repository: str, name: str, revision: str | None, patience: Patience, must_exist: bool) -> _Offered | None:
    """What the hub says of a file; None where it has none, unless it `must_exist`."""
    from huggingface_hub.errors import EntryNotFoundError

    once = replace(patience, attempts=1)  # huggingface_hub asks again by itself
    try:
        return _in_our_words(lambda: _ask(repository, name, revision), repository, name, revision, once)
    except EntryNotFoundError as error:
        if not must_exist:
            return None
        raise DownloadError(f"{repository} has no {name} at {revision or 'main'}: {_said(error)}") from error


def _ask(repository: str, name: str, revision: str | None) -> _Offered:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    said = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision))
    if said.commit_hash is None or said.size is None:
        raise DownloadError(f"{said.location} does not answer as the hub does; is HF_ENDPOINT or a proxy set wrongly?")
    return _Offered(said.commit_hash, said.size, said.etag if _SHA256.fullmatch(said.etag or "") else None)


def _in_our_words(call: Callable[[], _T], repository: str, name: str, revision: str | None, patience: Patience) -> _T:
    """Call, and again where the connection was cut; what huggingface_hub raises is told as a DownloadError.

    It waits for an answer by itself, five times and half a minute in all, and goes on with what has come. Raises
    EntryNotFoundError, too, as it is.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    what, pinned = f"{name} of {repository}", f" --revision {revision}" if revision else ""
    by_hand = f"By hand: hf download {repository} {name}{pinned} --local-dir {weights_folder(repository)}"
    for failures in range(1, patience.attempts + 1):
        try:
            return call()
        except DownloadError:
            raise
        except OfflineModeIsEnabled as error:
            raise DownloadError(f"{what}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it") from error
        except LocalEntryNotFoundError as error:  # a kind of the next, and the hub was not reached at all
            raise GivenUpError(f"{what}: the hub does not answer. {by_hand}") from error
        except EntryNotFoundError:
            raise
        except HfHubHTTPError as error:
            later = error.response is not None and error.response.status_code >= 500
            kind = GivenUpError if later else DownloadError
            raise kind(f"{what} can't be had: {_said(error)}. {by_hand}") from error
        except OSError as error:
            if error.errno in FULL:
                raise DownloadError(f"{what}: the disk is full; make room and run the same command again") from error
            reason = error
        if failures < patience.attempts:
            patience.wait(failures)
    raise GivenUpError(f"{what} was given up: {_said(reason)}. {by_hand}") from reason


def _said(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if 0 < len(said) < 300 else f"{type(error).__name__} {said[:300]}"


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

