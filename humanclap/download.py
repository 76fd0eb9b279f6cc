"""Public files at pinned revisions: what there is, where it lies, and how it is fetched and checked."""

from __future__ import annotations

import csv
import os
import stat
import time
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from .files import expanded, lock, sha256_of, writing
from .hub import (
    PROJECT,
    TIMEOUT,
    DownloadError,
    data_folder,
    find_hub_files,
    hub_files,
    human_size,
    reason_of,
    require_room,
    weights_folder,
)
from .models import MODELS, HubFiles

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PROJECT",
    "SOURCES",
    "DownloadError",
    "data_folder",
    "fetch",
    "fetch_ratings",
    "hub_files",
    "listing",
    "relate_folder",
    "status",
    "weights_folder",
]
HERE, MISSING, INCOMPLETE, OTHER = "here", "missing", "incomplete", "other"
SYSTEM_FOLDERS = ("audiocaps", "audioldm", "audioldm2", "tango", "tango2")
"""The folders of RELATE_wave, one per system; each has train and test."""


# --- what there is, and where it lies -------------------------------------------------------------------


@dataclass(frozen=True)
class WebFile:
    """A file at a fixed address, kept at `name` below RELATE's folder; `folder`: a zip, unpacked to that folder.

    begins: how the content begins; a login page in its place does not. limit_bytes: more is not what was asked for.
    """

    url: str
    name: str
    sha256: str | None = None
    begins: bytes = b""
    revision: str | None = None
    about_bytes: int | None = None
    limit_bytes: int = 100 * 10**6
    folder: str = ""
    unpacked_bytes: int = 0
    licence: str = "none stated"


RELATE_REVISION = "05935d968f7c4029b8a235b82425c4d2919faf69"
RELATE_SHA256 = "cea68d02735ac13a5cc3a05fafb4bc07a0342815c6a75fbf64284e39271c5dcd"


def _relate(name: str, sha256: str | None, about_bytes: int, begins: bytes) -> WebFile:
    url = f"https://raw.githubusercontent.com/sarulab-speech/RELATE/{RELATE_REVISION}/{name}"
    return WebFile(url, name, sha256, begins, RELATE_REVISION, about_bytes)


REL = _relate("scores/REL.csv", RELATE_SHA256, 3_400_000, b"wavname,")
_IS_SHA256 = "ef1e724be33ead60e54c797f9c52805eac7f7870a46760c855634d3a19597be4"
_OS_SHA256 = "fce6baeb0a52a44e956d07a05114a5ff24d1bc95b6fadb334b639777ca565197"
SOURCES: dict[str, tuple[WebFile | HubFiles, ...]] = {
    "relate": (
        REL,
        _relate("scores/IS.csv", _IS_SHA256, 3_200_000, b"wavname,"),
        _relate("scores/OS.csv", _OS_SHA256, 3_200_000, b"wavname,"),
        _relate("listener_attributes/REL.csv", None, 90_000, b"listener_id,"),
        _relate("listener_attributes/IS_and_OS.csv", None, 90_000, b"listener_id,"),
    ),
    "relate-audio": (
        REL,
        WebFile(
            "https://sarulab.sakura.ne.jp/kanamori/RELATE_open_dataset/RELATE_wave.zip",
            "RELATE_wave.zip",
            begins=b"PK",
            limit_bytes=4 * 10**9,
            folder="RELATE_wave",
            unpacked_bytes=1_900_000_000,
        ),
    ),
}
"""What `humanclap fetch NAME` fetches: RELATE's files, and by group those of models.MODELS."""
for _model in MODELS.values():
    SOURCES[_model.group] = tuple(dict.fromkeys((*SOURCES.get(_model.group, ()), *_model.needs)))


def relate_folder(data: str | os.PathLike | None = None) -> Path:
    """RELATE's folder, which holds scores/REL.csv and RELATE_wave/, whether it exists or not.

    `$HUMANCLAP_RELATE`, or relate/ below `data_folder()`; `data`, where given, takes precedence over both.
    """
    named = os.environ.get("HUMANCLAP_RELATE")
    if data is None and named:
        return expanded(named).resolve()
    return (data_folder() if data is None else expanded(data)) / "relate"


# --- plain files ----------------------------------------------------------------------------------------


def web_file(spec: WebFile, path: Path, seconds: float = float("inf"), progress: bool = True) -> Path:
    """Fetch `spec` to `path`, unless another process has done so meanwhile: one attempt, the whole file or none of it.

    Raises DownloadError where there is no answer, no such file or too little room, where it is cut short or takes longer
    than `seconds`, and for another content; nothing is left behind.
    """
    import pooch

    headers = {"User-Agent": "humanclap", "Accept-Encoding": "identity"}
    chunk = 2**16 if seconds == float("inf") else 2**10  # a slow server must not outlast the time limit
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.with_name(f".{path.name}.lock")):
            if path.is_file():
                return path
            with writing(path) as part, _Watch(part, path, spec, seconds, progress) as watch:
                get = pooch.HTTPDownloader(watch, chunk, timeout=min(TIMEOUT, seconds), headers=headers)
                get(spec.url, part, None)
                if part.stat().st_size < watch.total:
                    raise DownloadError(f"the connection was cut at {part.stat().st_size:,} of {watch.total:,} bytes")
                _require_content(part, spec)
    except (OSError, ValueError) as error:
        by_hand = f"Run the same command again, or fetch it by hand: wget -c {spec.url} -O {path}"
        raise DownloadError(f"{spec.url} could not be fetched: {reason_of(error)}. {by_hand}") from error
    return path


def _require_content(path: Path, spec: WebFile) -> None:
    if spec.sha256 not in (None, found := sha256_of(path)):
        raise DownloadError(f"{path} is not the published file: its sha256 is {found}, expected {spec.sha256}")
    with path.open("rb") as file:
        begins = file.read(len(spec.begins))
    if begins != spec.begins:
        page = "another file, or a login page that a network or proxy sent"
        raise DownloadError(f"{path} begins with {begins!r}, expected {spec.begins!r}: {page}")


class _Watch(tqdm):
    """The bar that pooch reports a download to; ends what is too large, takes too long, or has too little room."""

    def __init__(self, part: Path, path: Path, spec: WebFile, seconds: float, progress: bool):
        super().__init__(desc=path.name, unit="B", unit_scale=True, disable=not progress)
        self._part, self._path, self._spec = part, path, spec
        self._until, self._is_first = time.monotonic() + seconds, True

    def __bool__(self) -> bool:
        return True  # pooch asks for it before the size is known

    def update(self, n: float = 1) -> bool | None:
        """Called for each block that has been written, with `self.total` as the server states it (0: it does not)."""
        if max(self.total, self._part.stat().st_size) > self._spec.limit_bytes:
            raise DownloadError(f"it is larger than {human_size(self._spec.limit_bytes)}: not the file that was meant")
        if time.monotonic() > self._until:
            raise DownloadError("it took too long")
        if self._is_first:
            room = self.total + (max(self._spec.unpacked_bytes, self.total) if self._spec.folder else 0)
            require_room(self._path.parent, room, self._path.name)
            self._is_first = False
        return super().update(n)


def fetch_ratings(
    folder: str | os.PathLike, url: str = REL.url, sha256: str = RELATE_SHA256, timeout_seconds: float = 20
) -> Path:
    """Fetch RELATE's scores/REL.csv (3.4 MB) below `folder`, unless it is there: the one file that the demo may fetch.

    One attempt, and `timeout_seconds` for all of it: the demo does not wait for a network (`fetch("relate")` does).

    Returns:
        The path of the file; its content has the expected checksum.

    Raises:
        DownloadError: no network, a broken download, or another content than expected. Nothing is left behind.
    """
    target = Path(folder) / REL.name
    by_hand = (
        f"Copy RELATE's scores/REL.csv (github.com/sarulab-speech/RELATE, commit {RELATE_REVISION[:12]}) into a folder "
        "and set HUMANCLAP_RELATE to the folder above scores/"
    )
    spec = replace(REL, url=url, sha256=sha256, begins=b"")
    try:
        if not target.is_file():
            web_file(spec, target, timeout_seconds, progress=False)
        _require_content(target, spec)
    except OSError as error:
        raise DownloadError(f"{error}. {by_hand}") from error
    return target


# --- archives -------------------------------------------------------------------------------------------


def unpack(archive: Path, target: Path, top: tuple[str, ...]) -> Path:
    """Unpack a zip of recordings to the folder `target`, which must not exist yet; whole, or not at all.

    The folders named in `top` become those of `target`; in the archive they are at its top, or below one folder.

    Raises:
        DownloadError: damaged; a name that leaves the folder, a link or device, encrypted; it would unpack to far more
            than recordings do; none of `top` in it; too little room. Nothing is left behind.
    """
    again = f"Remove {archive} and fetch it again"
    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
            for entry in entries:
                if fault := _fault(entry):
                    raise DownloadError(f"{archive}: {entry.filename!r} {fault}; nothing was unpacked. {again}")
            total, packed = sum(entry.file_size for entry in entries), archive.stat().st_size
            if len(entries) > 100_000 or total > 8 * 10**9 or total > max(20 * packed, 16 * 2**20):
                raise DownloadError(
                    f"{archive} would unpack to {len(entries):,} files of {human_size(total)} from {human_size(packed)}: "
                    f"it is no archive of recordings; nothing was unpacked. {again}"
                )
            require_room(target.parent, total, f"unpacking {archive.name}")
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
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DownloadError(f"{archive} is damaged, cut short, or no zip ({error}). {again}") from error
    except OSError as error:
        raise error if isinstance(error, DownloadError) else DownloadError(f"{archive}: {reason_of(error)}") from error
    return target


def _fault(entry: zipfile.ZipInfo) -> str | None:
    """What is wrong with an entry of a zip, or None."""
    name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link, device or another special file"
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name:
        return "would be written outside of the folder"
    return "is encrypted" if entry.flag_bits & 0x1 else None


def missing_clips(data: str | os.PathLike | None = None) -> tuple[int, int]:
    """How many of the clips that REL.csv names are missing, and how many it names; (0, 0) without a REL.csv."""
    ratings, audio = relate_folder(data) / REL.name, relate_folder(data) / "RELATE_wave"
    if not ratings.is_file():
        return 0, 0
    with ratings.open(encoding="utf-8", newline="") as file:
        named = {row["wavname"].strip().removeprefix("/") for row in csv.DictReader(file)}
    there: set[str] = set()
    for folder in {name.rpartition("/")[0] for name in named}:  # one listing per folder instead of one look per clip
        if (audio / folder).is_dir():
            there.update(f"{folder}/{entry.name}" for entry in os.scandir(audio / folder) if entry.is_file())
    return len(named - there), len(named)


# --- fetch, status, listing -----------------------------------------------------------------------------


def fetch(
    name: str, folder: str | os.PathLike | None = None, progress: bool = True, keep_archive: bool = False
) -> pd.DataFrame:
    """Fetch what `name` stands for: a name in SOURCES, or "all". What is here already is checked, not fetched again.

    RELATE goes to `relate_folder()`, weights and tokenizers to the hub's cache; with `folder`, or $HUMANCLAP_DATA, to
    `<folder>/relate` and `<folder>/weights`. A file that fails does not prevent the others.

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
    for spec in dict.fromkeys(spec for specs in _sources(name).values() for spec in specs):
        try:
            if isinstance(spec, HubFiles):
                path = hub_files(spec, folder, progress)
                if spec.sha256 not in (None, found := sha256_of(path)):
                    problem = f"its sha256 is {found}, expected {spec.sha256}. Remove it and fetch it again"
                    raise DownloadError(f"{path} is not the published {path.name} of {spec.repository}: {problem}")
            elif spec.folder:
                _fetch_archive(spec, folder, progress, keep_archive)
            elif not (path := relate_folder(folder) / spec.name).is_file():
                web_file(spec, path, progress=progress)
            state, path, note = _look(spec, folder)
            if state != HERE:
                raise DownloadError(f"{path}: {note}")
        except OSError as error:
            failures.append(f"{spec.name}: {error}")
    if failures:
        raise DownloadError("\n".join(failures))
    return status(name, folder)


def _fetch_archive(spec: WebFile, data: str | os.PathLike | None, progress: bool, keep_archive: bool) -> None:
    folder, archive = relate_folder(data) / spec.folder, relate_folder(data) / spec.name
    if folder.is_dir():
        return
    if not archive.is_file():
        web_file(spec, archive, progress=progress)
    with lock(archive.with_name(f".{archive.name}.lock")):
        if not folder.is_dir():
            unpack(archive, folder, SYSTEM_FOLDERS)
    if not keep_archive:
        archive.unlink(missing_ok=True)


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
    path = relate_folder(data) / (spec.folder or spec.name)
    if not path.exists():
        archive = relate_folder(data) / spec.name
        return (INCOMPLETE, archive, "to be unpacked") if archive.is_file() else (MISSING, path, "")
    if not spec.folder:
        try:
            _require_content(path, spec)
        except DownloadError as error:
            ours = "or, where HUMANCLAP_RELATE names a set of your own, unset that"
            return OTHER, path, f"{error}. Remove it ({ours}) and fetch it again"
        return HERE, path, ""
    lacking, named = missing_clips(data)
    if lacking:
        missing = f"{lacking:,} of {named:,} clips that REL.csv names are not there"
        return INCOMPLETE, path, f"{missing}. Add them, or move the folder away to fetch {spec.name} anew"
    note = (
        f"all {named:,} clips that REL.csv names" if named else "its clips can't be counted: scores/REL.csv is not here"
    )
    return HERE, path, note


def listing(folder: str | os.PathLike | None = None) -> str:
    """What there is to fetch, for a reader: name, state, size, licence, origin, sha256 and revision of each piece."""
    states = iter(status("all", folder)["state"])
    lines = []
    for source, specs in SOURCES.items():
        lines.append(f"humanclap fetch {source}")
        for spec in specs:
            size = human_size(spec.about_bytes)
            if isinstance(spec, WebFile) and spec.unpacked_bytes:
                size = f"unknown size, about {human_size(spec.unpacked_bytes)} unpacked"
            lines.append(f"  {spec.name} [{next(states)}]: {size}; licence: {spec.licence}")
            lines.append(f"    from {spec.url if isinstance(spec, WebFile) else f'huggingface.co/{spec.repository}'}")
            lines.append(f"    sha256 {spec.sha256 or 'not published'}; revision {spec.revision or 'not published'}")
    return "\n".join(lines)


def _sources(name: str) -> dict[str, tuple[WebFile | HubFiles, ...]]:
    if name != "all" and name not in SOURCES:
        raise ValueError(f"there is no {name!r} to fetch. Available: {', '.join(SOURCES)}, all")
    return SOURCES if name == "all" else {name: SOURCES[name]}
