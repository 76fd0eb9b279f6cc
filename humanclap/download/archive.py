"""A zip to a folder: nothing outside of it, nothing but files, nothing without bounds, and whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .disk import FULL, require_room
from .errors import ArchiveError, DownloadError

_BLOCK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to; more is refused before a byte is written."""

    n_files: int = 100_000
    n_bytes: int = 8 * 10**9
    ratio: float = 20
    """Unpacked to packed, of all files together and of each larger than `small_bytes`: recordings shrink by two."""
    small_bytes: int = 16 * 2**20
    """A silent clip shrinks a thousandfold, and is no danger."""


def unpack(
    archive: Path, target: Path, top: tuple[str, ...], limits: Limits = Limits(), progress: bool = True
) -> Path:
    """Unpack the zip `archive` to the folder `target`, which must not be there yet.

    The folders named in `top` become those of `target`; in the archive they stand at its top, or below one folder.
    All is unpacked beside `target` and then renamed, so that a tree which is there is whole. Permissions, owners and
    times in the archive are not used.

    Raises:
        ArchiveError: damaged; or a name that leaves the folder, a link, a device, an encrypted or a repeated file, too
            many files, too large, packed too tightly; none of `top` in it. Nothing is left behind.
        DownloadError: too little room, or the disk is full. Nothing is left behind.
    """
    if target.exists():
        raise DownloadError(f"{target} is there already; move it away to unpack {archive.name} anew")
    staging = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        with zipfile.ZipFile(archive) as file:
            entries = _checked(file, archive, limits)
            require_room(target.parent, sum(entry.file_size for entry in entries), f"unpacking {archive.name}")
            _write(file, entries, staging, progress)
        os.replace(_root(staging, top, archive), target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ArchiveError(
            f"{archive} is damaged, or no zip at all ({error}): remove it and fetch it again"
        ) from error
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        why = "the disk is full" if error.errno in FULL else str(error)
        raise DownloadError(f"{archive.name} could not be unpacked to {target}: {why}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _checked(file: zipfile.ZipFile, archive: Path, limits: Limits) -> list[zipfile.ZipInfo]:
    """The files among the entries, all of them harmless; raises ArchiveError for the first that is not."""
    infos = file.infolist()
    if len(infos) > limits.n_files:
        raise ArchiveError(f"{archive} has {len(infos):,} entries; at most {limits.n_files:,} were expected")
    seen: set[str] = set()
    files, folders = [], set()
    for info in infos:
        why = _harm(info, limits)
        path = PurePosixPath(info.filename)
        name = str(path).casefold()  # one file to some file systems
        if why is None and not info.is_dir():
            why = "is there twice" if name in seen else None
            seen.add(name)
            folders.update(str(parent).casefold() for parent in path.parents)
            files.append(info)
        if why is not None:
            raise ArchiveError(f"{archive}: {info.filename!r} {why}; nothing was unpacked")
    if both := sorted(seen & folders):
        raise ArchiveError(f"{archive}: {both[0]!r} is a file and a folder; nothing was unpacked")
    total, packed = sum(info.file_size for info in files), archive.stat().st_size
    if total > limits.n_bytes:
        raise ArchiveError(f"{archive} would unpack to {total:,} bytes; at most {limits.n_bytes:,} were expected")
    if total > limits.small_bytes and total > limits.ratio * packed:
        raise ArchiveError(f"{archive} would unpack to {total / packed:,.0f} times its size: it is no archive of clips")
    return files


def _harm(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    """What is wrong with an entry, or None."""
    name, kind = info.filename, stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is a device or another special file"
    parts = name.removesuffix("/").split("/")
    if "\\" in name or ":" in name or any(ord(character) < 32 for character in name):
        return "has a name that is not allowed"
    if name.startswith("/") or ".." in parts:
        return "would be written outside of the folder"
    if "" in parts or "." in parts or len(name.encode()) > 1000:
        return "has a name that is not allowed"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in _METHODS:
        return f"is packed by a method that is not allowed ({info.compress_type})"
    if info.file_size > limits.small_bytes and info.file_size > limits.ratio * max(1, info.compress_size):
        return f"is packed {info.file_size / max(1, info.compress_size):,.0f}-fold: it is no clip"
    return None


def _write(file: zipfile.ZipFile, entries: list[zipfile.ZipInfo], staging: Path, progress: bool) -> None:
    """Every file below `staging`, new, no larger than announced, its CRC checked."""
    from tqdm.auto import tqdm

    staging.mkdir(parents=True)
    for entry in tqdm(entries, desc=f"unpacking {Path(file.filename or '').name}", unit="file", disable=not progress):
        place = staging / entry.filename
        place.parent.mkdir(parents=True, exist_ok=True)
        with file.open(entry) as source, place.open("xb") as target:
            shutil.copyfileobj(source, target, _BLOCK)


def _root(staging: Path, top: tuple[str, ...], archive: Path) -> Path:
    """The folder that holds those of `top`: the archive's own, or the one that all lies in."""
    inner = [path for path in staging.iterdir() if path.is_dir() and path.name != "__MACOSX"]
    for folder in (staging, *inner):
        if any((folder / name).is_dir() for name in top):
            return folder
    raise ArchiveError(f"{archive} holds none of the folders {', '.join(top)}: it is another archive")
