"""Public files at pinned revisions: what there is, where it lies, and how it is fetched and checked."""

from __future__ import annotations

import csv
import errno
import logging
import os
import shutil
import stat
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from .files import expanded, lock, sha256_of, writing
from .models import MODELS, HubFiles

if TYPE_CHECKING:
    import pandas as pd

HERE, MISSING, INCOMPLETE, OTHER = "here", "missing", "incomplete", "other"
TIMEOUT = 20  # seconds without an answer; for all of REL.csv in the demo
_SPARE = 50 * 10**6  # a disk filled to the last byte breaks other things
_SOURCE = Path(__file__).resolve().parents[1]
PROJECT = _SOURCE if (_SOURCE / "notebooks").is_dir() else Path.cwd()  # the latter where the package is installed
_log = logging.getLogger(__name__)


class DownloadError(FileNotFoundError):
    """A file is not here and could not be fetched, or it is not the published one; the message says what to do."""


# --- what there is, and where it lies -------------------------------------------------------------------


@dataclass(frozen=True)
class WebFile:
    """A file at a fixed address, kept at `name` below the folder of its data set; `folder`: a zip, unpacked to that folder,
    whose folders `top` become those of `folder`."""

    url: str
    name: str
    sha256: str | None = None
    revision: str | None = None
    about_bytes: int | None = None
    folder: str = ""
    unpacked_bytes: int = 0
    licence: str = "none stated"
    data_set: str = "relate"
    top: tuple[str, ...] = ("audiocaps", "audioldm", "audioldm2", "tango", "tango2")  # of RELATE_wave


RELATE_REVISION = "05935d968f7c4029b8a235b82425c4d2919faf69"


RELATE_SHA256 = "cea68d02735ac13a5cc3a05fafb4bc07a0342815c6a75fbf64284e39271c5dcd"
_FILES = tuple(
    WebFile(
        f"https://raw.githubusercontent.com/sarulab-speech/RELATE/{RELATE_REVISION}/{name}",
        name, sha256, RELATE_REVISION, about_bytes,
    )
    for name, sha256, about_bytes in (
        ("scores/REL.csv", RELATE_SHA256, 3_400_000),
        ("scores/IS.csv", "ef1e724be33ead60e54c797f9c52805eac7f7870a46760c855634d3a19597be4", 3_200_000),
        ("scores/OS.csv", "fce6baeb0a52a44e956d07a05114a5ff24d1bc95b6fadb334b639777ca565197", 3_200_000),
        ("listener_attributes/REL.csv", "6b707d29244ae7ec872dc0e61328719d64bda96b0744043b0089b371619d6f12", 90_000),
        ("listener_attributes/IS_and_OS.csv", "7e0c73614b02c197627c8980b26056e437116e37881b7ca6cc49f8271ea507a0", 90_000),
    )
)  # fmt: skip
REL = _FILES[0]
_WAVE = WebFile(
    "https://sarulab.sakura.ne.jp/kanamori/RELATE_open_dataset/RELATE_wave.zip",
    "RELATE_wave.zip",
    folder="RELATE_wave",
    unpacked_bytes=1_900_000_000,
)
_XACLE = WebFile(
    "https://y-okamoto.sakura.ne.jp/XACLE_Challenge/2027/dataset/XACLE_Challenge_2027_development_dataset.zip",
    "XACLE_Challenge_2027_development_dataset.zip",
    folder="XACLE_dataset",
    unpacked_bytes=4_400_000_000,  # an estimate: 13,500 clips of some 10 s, 16 kHz, 16 bit
    data_set="xacle",
    top=("meta_data", "wav"),
)

SOURCES: dict[str, tuple[WebFile | HubFiles, ...]] = {
    "relate": _FILES,
    "relate-audio": (REL, _WAVE),
    "xacle": (_XACLE,),
}
"""What `humanclap fetch NAME` fetches: rated sets, and by group the files of models.MODELS."""
for _model in MODELS.values():
    SOURCES[_model.group] = tuple(dict.fromkeys((*SOURCES.get(_model.group, ()), *_model.needs)))


def data_folder(data: str | os.PathLike | None = None) -> Path:
    """Where fetched files are kept: `data` if given, else `$HUMANCLAP_DATA`, else data/ beside the notebooks."""
    named = data if data is not None else os.environ.get("HUMANCLAP_DATA")
    return expanded(named) if named else PROJECT / "data"


def relate_folder(data: str | os.PathLike | None = None) -> Path:
    """RELATE's folder, which holds scores/REL.csv and RELATE_wave/, whether it exists or not.

    `$HUMANCLAP_RELATE`, or relate/ below `data_folder()`; `data`, where given, takes precedence over both.
    """
    named = os.environ.get("HUMANCLAP_RELATE")
    return expanded(named).resolve() if named and data is None else data_folder(data) / "relate"


def _home(spec: WebFile, data: str | os.PathLike | None) -> Path:
    return relate_folder(data) if spec.data_set == "relate" else data_folder(data) / spec.data_set


def weights_folder(repository: str, data: str | os.PathLike | None = None) -> Path:
    """Where a hub repository's files are looked for before the hub's cache: `<data>/weights/<owner>/<name>`."""
    return data_folder(data) / "weights" / repository


def _size(n_bytes: float) -> str:
    return f"{tqdm.format_sizeof(n_bytes)}B"


def _require_room(folder: Path, n_bytes: int, what: str) -> None:
    """Raise DownloadError unless `n_bytes`, and 50 MB more, are free where `folder` is or will be."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if n_bytes + _SPARE > free:
        raise DownloadError(
            f"{what} needs {_size(n_bytes)} (and {_size(_SPARE)} to spare), and {folder} has "
            f"{_size(free)} free. Make room, or choose another place with --to DIR or HUMANCLAP_DATA"
        )


def _reason(error: Exception) -> str:
    """One line of an exception."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room first"
    return " ".join(str(error).split())[:400] or type(error).__name__


# --- plain files ----------------------------------------------------------------------------------------


def web_file(spec: WebFile, path: Path, seconds: float | None = None, progress: bool = True) -> Path:
    """Fetch `spec` to `path`, unless another process has done so meanwhile: one attempt, the whole file or none of it.

    Raises DownloadError where there is no answer, no such file or too little room, where it takes longer than `seconds`,
    and for another content; nothing is left behind.
    """
    import pooch

    get = pooch.HTTPDownloader(
        progressbar=_Deadline(seconds) if seconds else progress,
        chunk_size=2**10 if seconds else 2**16,  # a slow server must not outlast the deadline
        timeout=min(TIMEOUT, seconds or TIMEOUT),
        headers={"User-Agent": "humanclap", "Accept-Encoding": "identity"},
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.with_name(f".{path.name}.lock")):
            if not path.is_file():
                room = (spec.about_bytes or spec.unpacked_bytes) + spec.unpacked_bytes
                _require_room(path.parent, room, path.name)
                with writing(path) as part:
                    get(spec.url, part, None)
                    _require_content(part, spec)
    except (OSError, ValueError) as error:
        by_hand = f"Run the same command again, or fetch it by hand: wget -c {spec.url} -O {path}"
        raise DownloadError(f"{spec.url} could not be fetched: {_reason(error)}. {by_hand}") from error
    return path


class _Deadline:
    """In the place of pooch's bar: ends a download that is not done after so many seconds."""

    def __init__(self, seconds: float):
        self._until, self.total = time.monotonic() + seconds, 0

    def update(self, n: float) -> None:
        if time.monotonic() > self._until:
            raise DownloadError("it took too long")

    def reset(self) -> None:
        pass

    close = reset


def _require_content(path: Path, spec: WebFile | HubFiles, remedy: str = "") -> None:
    if spec.sha256 not in (None, found := sha256_of(path)):
        raise DownloadError(f"{path} is not the published file: its sha256 is {found}, expected {spec.sha256}{remedy}")


def fetch_ratings(folder: str | os.PathLike) -> Path:
    """Fetch RELATE's scores/REL.csv (3.4 MB) below `folder`, unless it is there: the one file that the demo may fetch.

    One attempt, and TIMEOUT for all of it: the demo does not wait for a network (`fetch("relate")` does). Returns the path
    of the file, whose content has the expected checksum; DownloadError where that can't be had.
    """
    target = Path(folder) / REL.name
    try:
        if not target.is_file():
            web_file(REL, target, TIMEOUT, progress=False)
        _require_content(target, REL)
    except OSError as error:
        raise DownloadError(
            f"{error}. Copy RELATE's {REL.name} (github.com/sarulab-speech/RELATE, commit {RELATE_REVISION[:12]}) into a "
            "folder and set HUMANCLAP_RELATE to the folder above scores/"
        ) from error
    return target


# --- the hub --------------------------------------------------------------------------------------------


def find_hub_files(spec: HubFiles, data: str | os.PathLike | None = None) -> Path | None:
    """The first file of `spec`, with all the others that it needs beside it, if they are on this machine; else None.

    In `weights_folder(spec.repository)`, or else in the hub's cache (not where `data` is given). No network is used.
    """
    found = _complete(spec, weights_folder(spec.repository, data))
    return _complete(spec, _snapshot(spec.repository, spec.revision)) if found is None and data is None else found


def hub_files(spec: HubFiles, data: str | os.PathLike | None = None, progress: bool = True) -> Path:
    """Find the files of `spec` on this machine, or fetch them; the path of the first, with the others beside it.

    They go to `data`/weights/<owner>/<name>, or (None) to the same below $HUMANCLAP_DATA where that is set, else to the
    hub's cache. What is fetched is compared with the checksums that the hub states; the content of what is here
    already is not looked at.

    Raises:
        DownloadError: offline (HF_HUB_OFFLINE), no answer, no such file, too little room, another content.
    """
    try:
        return find_hub_files(spec, data) or _fetch(spec, data, progress)
    except Exception as error:  # huggingface_hub's own, and those of the HTTP library below it, which varies
        other = _complete(spec, _snapshot(spec.repository, None)) if spec.any_revision else None
        if other is not None:
            _log.warning("%s is used instead of revision %s: %s", other.parent, spec.revision, _reason(error))
            return other
        files = " ".join(group[0] for group in spec.files) + (f" --revision {spec.revision}" if spec.revision else "")
        raise DownloadError(
            f"{spec.name} could not be fetched: {_reason(error)}. By hand, on a machine with a network: hf download "
            f"{spec.repository} {files} --local-dir DIR; then copy DIR to {weights_folder(spec.repository)}"
        ) from error


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
    if not progress:
        disable_progress_bars()
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
    _require_room(folder or Path(constants.HF_HUB_CACHE), room, spec.name)
    for name in reversed(wanted):  # the first one last: where it is, all is
        path = Path(hf_hub_download(spec.repository, name, revision=spec.revision, local_dir=folder))
        stated = offered[name].lfs.sha256 if offered[name].lfs else None
        expected = spec.sha256 if name == needed[0] and spec.sha256 else stated
        if expected not in (None, found := sha256_of(path)):
            path.resolve().unlink()  # in the cache a blob, which would be taken for the right one
            path.unlink(missing_ok=True)
            raise DownloadError(f"{name} has sha256 {found}, expected {expected}; it was removed")
    return (folder or _snapshot(spec.repository, spec.revision)) / needed[0]


# --- archives -------------------------------------------------------------------------------------------


def unpack(archive: Path, target: Path, top: tuple[str, ...]) -> Path:
    """Unpack a zip of recordings to the folder `target`, which must not exist yet; whole, or not at all.

    The folders named in `top` become those of `target`; in the archive they are at its top, or below one folder.

    Raises:
        DownloadError: damaged or encrypted; an entry that leaves the folder or is no plain file; none of `top` in it; too
            little room. Nothing is left behind.
    """
    again = f"Remove {archive} and fetch it again"
    try:
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                if _leaves_the_folder(entry):
                    what = "would be written outside of the folder, or is no plain file; nothing was unpacked"
                    raise DownloadError(f"{archive}: {entry.filename!r} {what}. {again}")
            total = sum(entry.file_size for entry in file.infolist())
            _require_room(target.parent, total, f"unpacking {archive.name}")
            with writing(target, folder=True) as fresh:
                file.extractall(fresh)
                inner = [path for path in fresh.iterdir() if path.is_dir()]
                root = next((path for path in (fresh, *inner) if any((path / name).is_dir() for name in top)), None)
                if root is None:
                    raise DownloadError(f"{archive} holds none of the folders {', '.join(top)}. {again}")
                if root != fresh:
                    for path in root.iterdir():
                        path.rename(fresh / path.name)
                    root.rmdir()
    except OSError as error:
        raise error if isinstance(error, DownloadError) else DownloadError(f"{archive}: {_reason(error)}") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,  # encrypted
    ) as error:
        raise DownloadError(f"{archive} is damaged, cut short, or no zip ({error}). {again}") from error
    return target


def _leaves_the_folder(entry: zipfile.ZipInfo) -> bool:
    name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    return not plain or name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name


def _missing_clips(data: str | os.PathLike | None) -> tuple[int, int]:
    """How many of the clips that REL.csv names are missing, and how many it names; (0, 0) without a REL.csv."""
    ratings, audio = relate_folder(data) / REL.name, relate_folder(data) / _WAVE.folder
    if not ratings.is_file():
        return 0, 0
    with ratings.open(encoding="utf-8", newline="") as file:
        named = {row["wavname"].strip().removeprefix("/") for row in csv.DictReader(file)}
    there = {path.relative_to(audio).as_posix() for path in audio.glob("*/*/*")}
    return len(named - there), len(named)


# --- fetch, status, listing -----------------------------------------------------------------------------


def fetch(
    name: str, folder: str | os.PathLike | None = None, progress: bool = True, keep_archive: bool = False
) -> pd.DataFrame:
    """Fetch what `name` stands for: a name in SOURCES, or "all" that the paper needs (not xacle). What is here already is checked, not fetched again.

    RELATE goes to `relate_folder()`, XACLE to xacle/ beside it, weights and tokenizers to the hub's cache; with `folder`, or
    $HUMANCLAP_DATA, to `<folder>/relate`, `<folder>/xacle` and `<folder>/weights`. A file that fails does not prevent the others.

    Args:
        progress: bars, on stderr.
        keep_archive: keep RELATE_wave.zip after it has been unpacked.

    Returns:
        What `status` returns for `name`.

    Raises:
        ValueError: an unknown name; lists the known ones.
        DownloadError: a line for each file that could not be fetched: why, and what to do.
    """
    failures = []
    for spec in dict.fromkeys(sum(_sources(name).values(), ())):
        try:
            if isinstance(spec, HubFiles):
                _require_content(hub_files(spec, folder, progress), spec, ". Remove it and fetch it again")
            else:
                _fetch_from_web(spec, _home(spec, folder), progress, keep_archive)
            state, path, note = _look(spec, folder)
            if state != HERE:
                raise DownloadError(f"{path}: {note}")
        except OSError as error:
            failures.append(f"{spec.name}: {error}")
    if failures:
        raise DownloadError("\n".join(failures))
    return status(name, folder)


def _fetch_from_web(spec: WebFile, home: Path, progress: bool, keep_archive: bool) -> None:
    path, unpacked = home / spec.name, home / spec.folder
    if not path.is_file() and not (spec.folder and unpacked.is_dir()):
        web_file(spec, path, progress=progress)
    if spec.folder and not unpacked.is_dir():
        with lock(path.with_name(f".{path.name}.lock")):
            if not unpacked.is_dir():
                unpack(path, unpacked, spec.top)
        if not keep_archive:
            path.unlink(missing_ok=True)


def status(name: str = "all", folder: str | os.PathLike | None = None) -> pd.DataFrame:
    """What is here of `name`, and which command fetches what is missing. Nothing is fetched or written.

    Returns:
        DataFrame, one row per file or group of files: `source`, `piece`, `state` ("here", "missing", "incomplete", or
        "other": there, but not the published file), `path` (of what is here, else where it would go; "" for the hub's
        cache), `note`, `command` ("" if it is here).
    """
    import pandas as pd

    rows = []
    for source, specs in _sources(name).items():
        command = f"humanclap fetch {source}" + (f" --to {folder}" if folder is not None else "")
        for spec in specs:
            state, path, note = _look(spec, folder)
            rows.append([source, spec.name, state, str(path or ""), note, "" if state == HERE else command])
    return pd.DataFrame(rows, columns=["source", "piece", "state", "path", "note", "command"])


def _look(spec: WebFile | HubFiles, data: str | os.PathLike | None) -> tuple[str, Path | None, str]:
    """State, path and note of one piece."""
    if isinstance(spec, HubFiles):
        path = find_hub_files(spec, data)
        if path is None:
            return MISSING, None, ""
        if spec.n_bytes not in (None, n_bytes := path.stat().st_size):
            return OTHER, path, f"{n_bytes:,} bytes, published are {spec.n_bytes:,}; remove it and fetch it again"
        return HERE, path, ""
    path = _home(spec, data) / (spec.folder or spec.name)
    if not path.exists():
        archive = _home(spec, data) / spec.name
        return (INCOMPLETE, archive, "to be unpacked") if archive.is_file() else (MISSING, path, "")
    if not spec.folder:
        try:
            ours = "or, where HUMANCLAP_RELATE names a set of your own, unset that"
            _require_content(path, spec, f". Remove it ({ours}) and fetch it again")
        except DownloadError as error:
            return OTHER, path, str(error)
        return HERE, path, ""
    if spec.data_set != "relate":
        return HERE, path, "its files are not checked: no checksum is published"
    lacking, named = _missing_clips(data)
    if lacking:
        missing = f"{lacking:,} of {named:,} clips that REL.csv names are not there"
        return INCOMPLETE, path, f"{missing}. Add them, or move the folder away to fetch {spec.name} anew"
    return HERE, path, f"all {named:,} clips that REL.csv names" if named else "scores/REL.csv is not here"


def listing(folder: str | os.PathLike | None = None) -> str:
    """What there is to fetch, for a reader: name, state, size, licence, origin, sha256 and revision of each piece."""
    lines = []
    for source, specs in SOURCES.items():
        states = iter(status(source, folder)["state"])
        lines.append(f"humanclap fetch {source}")
        for spec in specs:
            size = "unknown size" if spec.about_bytes is None else _size(spec.about_bytes)
            if isinstance(spec, WebFile) and spec.unpacked_bytes:
                size = f"{size}, about {_size(spec.unpacked_bytes)} unpacked"
            lines.append(f"  {spec.name} [{next(states)}]: {size}; licence: {spec.licence}")
            lines.append(f"    from {spec.url if isinstance(spec, WebFile) else f'huggingface.co/{spec.repository}'}")
            lines.append(f"    sha256 {spec.sha256 or 'not published'}; revision {spec.revision or 'not published'}")
    return "\n".join(lines)


def _sources(name: str) -> dict[str, tuple[WebFile | HubFiles, ...]]:
    if name != "all" and name not in SOURCES:
        raise ValueError(f"there is no {name!r} to fetch. Available: {', '.join(SOURCES)}, all")
    return {source: SOURCES[source] for source in SOURCES if name == source or (name == "all" and source != "xacle")}
