"""RELATE's files: fetched from their addresses, unpacked, checked against what was published or seen first."""

from __future__ import annotations

import csv
import logging
import os
from dataclasses import replace
from pathlib import Path

from .archive import Limits, unpack
from .checksums import remembered_sha256
from .disk import alone_in, human_size
from .errors import DownloadError
from .manifest import held_in_manifest, hold_to_manifest
from .places import relate_folder
from .sources import REL, WebArchive, WebFile
from .transfer import Patience, transfer

SYSTEM_FOLDERS = ("audiocaps", "audioldm", "audioldm2", "tango", "tango2")
"""The folders of RELATE_wave, one a system; each has train and test."""

_log = logging.getLogger(__name__)


def place_of(piece: WebFile, data: str | os.PathLike | None = None) -> Path:
    """Where a piece lies, or would: the file, or for an archive the folder that it becomes."""
    return relate_folder(data) / (piece.folder if isinstance(piece, WebArchive) else piece.place)


def fetch_web(
    piece: WebFile, data: str | os.PathLike | None = None, patience: Patience = Patience(),
    progress: bool = True, keep_archive: bool = False,
) -> Path:  # fmt: skip
    """Bring a piece, unless it is there, check it, and return its place. Raises DownloadError: see `transfer`."""
    if isinstance(piece, WebArchive):
        return _fetch_archive(piece, data, patience, progress, keep_archive)
    path = place_of(piece, data)
    if not path.is_file():
        transfer(piece.url, path, piece.sha256, patience, piece.limit_bytes, progress=progress)
    check_web(piece, path, data)
    return path


def check_web(piece: WebFile, path: Path, data: str | os.PathLike | None = None, write: bool = True) -> str:
    """The sha256 of a file. Raises DownloadError where it is not the published one, or not that of its first use.

    The first use of a file without a published checksum is written down, unless `write` is False.
    """
    sha256 = remembered_sha256(path)
    if piece.sha256 not in (None, sha256):
        raise DownloadError(
            f"{path} is not the file that was published: its sha256 is {sha256}, expected {piece.sha256}. "
            "Remove it (or, where HUMANCLAP_RELATE names a set of your own, unset that) and fetch it again"
        )
    if piece.sha256 is None:
        with path.open("rb") as file:
            begins = file.read(len(piece.begins))
        if begins != piece.begins:
            raise DownloadError(
                f"{path} begins with {begins!r}, expected {piece.begins!r}: it is another file, or a page that a "
                "network or proxy put in its place. Remove it and fetch it again"
            )
        try:
            hold_to_manifest(replace(piece.published, sha256=sha256), relate_folder(data), write)
        except ValueError as error:
            raise DownloadError(str(error)) from error
    return sha256


def clips_named(csv_file: Path) -> set[str]:
    """The clips that a file of ratings names, as paths below RELATE_wave."""
    with csv_file.open(encoding="utf-8", newline="") as file:
        return {row["wavname"].strip().removeprefix("/") for row in csv.DictReader(file)}


def missing_clips(data: str | os.PathLike | None = None) -> tuple[int, int]:
    """How many of the clips that REL.csv names are not there, and how many it names; (0, 0) without a REL.csv."""
    ratings, audio = relate_folder(data) / REL.place, relate_folder(data) / "RELATE_wave"
    if not ratings.is_file():
        return 0, 0
    named = clips_named(ratings)
    there: set[str] = set()
    for folder in {name.rpartition("/")[0] for name in named}:  # one listing a folder, not one look a clip
        if (audio / folder).is_dir():
            there.update(f"{folder}/{entry.name}" for entry in os.scandir(audio / folder) if entry.is_file())
    return len(named - there), len(named)


def _fetch_archive(piece: WebArchive, data, patience, progress, keep_archive) -> Path:
    folder, archive = place_of(piece, data), relate_folder(data) / piece.place
    if folder.is_dir():
        lacking, named = missing_clips(data)
        if lacking:
            raise DownloadError(
                f"{folder} is there, but {lacking:,} of the {named:,} clips that REL.csv names are not. Add them, or "
                f"move the folder away to fetch {piece.place} anew"
            )
        return folder

    def room(packed: int) -> int:
        return packed + max(piece.about_unpacked_bytes, packed)

    if not archive.is_file():
        transfer(piece.url, archive, piece.sha256, patience, piece.limit_bytes, room, progress)
    else:
        _log.info("%s (%s) is there already and is unpacked", archive, human_size(archive.stat().st_size))
    known = held_in_manifest(piece.published.repository, piece.published.file, relate_folder(data))
    if piece.sha256 or known:
        check_web(piece, archive, data)
    with alone_in(folder.parent, sleep=patience.sleep):
        unpack(archive, folder, SYSTEM_FOLDERS, Limits(), progress)
    check_web(piece, archive, data)  # only what could be unpacked is worth being held to
    if not keep_archive:
        archive.unlink()
    lacking, named = missing_clips(data)
    if lacking:
        _log.warning("%s: %s of the %s clips that REL.csv names are not in it", folder, f"{lacking:,}", f"{named:,}")
    return folder
