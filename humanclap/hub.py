"""Files of the Hugging Face hub: found where they are, or fetched at a pinned revision and checked."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path

from .files import expanded, sha256_of
from .models import HubFiles

_SOURCE = Path(__file__).resolve().parents[1]
PROJECT = _SOURCE if (_SOURCE / "notebooks").is_dir() else Path.cwd()  # the latter where the package is installed
TIMEOUT = 20  # seconds without an answer
_SPARE = 50 * 10**6  # a disk filled to the last byte breaks other things
_log = logging.getLogger(__name__)


class DownloadError(FileNotFoundError):
    """A file is not here and could not be fetched, or it is not the published one; the message says what to do."""


def data_folder() -> Path:
    """Where fetched files are kept: `$HUMANCLAP_DATA`, or data/ beside the notebooks."""
    named = os.environ.get("HUMANCLAP_DATA")
    return expanded(named) if named else PROJECT / "data"


def weights_folder(repository: str, data: str | os.PathLike | None = None) -> Path:
    """Where a hub repository's files are looked for before the hub's cache: `<data>/weights/<owner>/<name>`."""
    return (data_folder() if data is None else expanded(data)) / "weights" / repository


def human_size(n_bytes: float | None) -> str:
    """A size for people: "3.4 MB"; "unknown" for None."""
    if n_bytes is None:
        return "unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{n_bytes:.0f} B"


def require_room(folder: Path, n_bytes: int, what: str) -> None:
    """Raise DownloadError unless `n_bytes`, and 50 MB more, are free where `folder` is or will be."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if n_bytes + _SPARE > free:
        raise DownloadError(
            f"{what} needs {human_size(n_bytes)} (and {human_size(_SPARE)} to spare), and {folder} has "
            f"{human_size(free)} free. Make room, or choose another place with --to DIR or HUMANCLAP_DATA"
        )


def reason_of(error: Exception) -> str:
    """One line of an exception."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room first"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 400 else f"{type(error).__name__}: {text[:400]}..."


def find_hub_files(spec: HubFiles, data: str | os.PathLike | None = None) -> Path | None:
    """The first file of `spec`, with all the others that it needs beside it, if they are on this machine; else None.

    In `weights_folder(spec.repository)`, or else in the hub's cache (not where `data` is given). No network is used.
    """
    found = _complete(spec, weights_folder(spec.repository, data))
    if found is None and data is None:
        found = _complete(spec, _snapshot(spec.repository, spec.revision))
    return found


def hub_files(spec: HubFiles, data: str | os.PathLike | None = None, progress: bool = True) -> Path:
    """Find the files of `spec` on this machine, or fetch them; the path of the first, with the others beside it.

    They go to `data`/weights/<owner>/<name>, or (None) to the same below $HUMANCLAP_DATA where that is set, else to the
    hub's cache. What is fetched is compared with the checksums that the hub states; the content of what is here
    already is not looked at.

    Raises:
        DownloadError: offline (HF_HUB_OFFLINE), no answer, no such file, too little room, another content.
    """
    found = find_hub_files(spec, data)
    if found is not None:
        return found
    try:
        return _fetch(spec, data, progress)
    except DownloadError as error:
        other = _complete(spec, _snapshot(spec.repository, None)) if spec.any_revision else None
        if other is None:
            raise
        _log.warning("%s is used instead of revision %s: %s", other.parent, spec.revision, error)
        return other


def _complete(spec: HubFiles, folder: Path | None) -> Path | None:
    """The first file of `spec` in a folder that has one of each group; else None."""
    if folder is None:
        return None
    found = [next((folder / name for name in group if (folder / name).is_file()), None) for group in spec.files]
    return None if None in found else found[0]


def _snapshot(repository: str, revision: str | None) -> Path | None:
    """The folder of a revision in the hub's cache, with some or all of its files; None where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[], local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _fetch(spec: HubFiles, data: str | os.PathLike | None, progress: bool) -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    folder: Path | None = weights_folder(spec.repository, data)
    if data is None and not os.environ.get("HUMANCLAP_DATA") and not folder.is_dir():
        folder = None  # the hub's cache
    if constants.HF_HUB_OFFLINE:
        raise DownloadError(f"{spec.name} is not here, and HF_HUB_OFFLINE is set: unset it. {_by_hand(spec)}")
    if not progress:
        disable_progress_bars()
    try:
        info = HfApi().model_info(spec.repository, revision=spec.revision, files_metadata=True, timeout=TIMEOUT)
        offered = {file.rfilename: file for file in info.siblings or ()}
        needed = [next((name for name in group if name in offered), None) for group in spec.files]
        if None in needed:
            lacking = " or ".join(spec.files[needed.index(None)])
            raise DownloadError(f"{spec.repository} has no {lacking} at {spec.revision or 'main'}")
        here = folder or _snapshot(spec.repository, spec.revision)
        wanted = dict.fromkeys([*needed, *(name for name in spec.optional if name in offered)])
        wanted = [name for name in wanted if here is None or not (here / name).is_file()]
        room = sum(offered[name].size or 0 for name in wanted)
        require_room(folder or Path(constants.HF_HUB_CACHE), room, spec.name)
        for name in reversed(wanted):  # the first one last: where it is, all is
            path = Path(hf_hub_download(spec.repository, name, revision=spec.revision, local_dir=folder))
            stated = offered[name].lfs.sha256 if offered[name].lfs else None
            expected = spec.sha256 if name == needed[0] and spec.sha256 else stated
            if expected not in (None, found := sha256_of(path)):
                path.resolve().unlink()  # in the cache a blob, which would be taken for the right one
                path.unlink(missing_ok=True)
                raise DownloadError(f"{name} has sha256 {found}, expected {expected}; it was removed")
        found = _complete(spec, folder or _snapshot(spec.repository, spec.revision))
        if found is None:
            raise DownloadError(f"{spec.repository} changed while it was fetched; run the same command again")
        return found
    except Exception as error:  # huggingface_hub's own, and those of the HTTP library below it, which varies
        raise DownloadError(f"{spec.name} could not be fetched: {reason_of(error)}. {_by_hand(spec)}") from error


def _by_hand(spec: HubFiles) -> str:
    files = " ".join(group[0] for group in spec.files)
    pinned = f" --revision {spec.revision}" if spec.revision else ""
    return (
        f"By hand, on a machine with a network: hf download {spec.repository} {files}{pinned} --local-dir DIR; then copy "
        f"DIR to {weights_folder(spec.repository)}"
    )
