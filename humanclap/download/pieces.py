"""`fetch` brings what a name stands for, `status` says what is here; neither reads what it brings."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import hub, web
from .disk import human_size
from .errors import DownloadError, GivenUpError
from .places import relate_folder
from .sources import ALL, SOURCES, HubFiles, Piece, Source, WebArchive
from .transfer import Patience

if TYPE_CHECKING:
    import pandas as pd

HERE, MISSING, INCOMPLETE, OTHER = "here", "missing", "incomplete", "other"
COLUMNS = ["source", "piece", "state", "n_bytes", "about_bytes", "path", "note", "command"]


@dataclass(frozen=True)
class _State:
    state: str
    path: Path | None
    n_bytes: int = 0
    note: str = ""


def fetch(
    name: str,
    folder: str | os.PathLike | None = None,
    *,
    patience: Patience = Patience(),
    progress: bool = True,
    keep_archive: bool = False,
) -> pd.DataFrame:
    """Bring what `name` stands for: a name in SOURCES, or "all". What is here already is checked, not fetched again.

    RELATE goes to `relate_folder()`, weights and tokenizers to the hub's cache; with `folder`, or $HUMANCLAP_DATA, to
    `<folder>/relate` and `<folder>/weights`. A piece that fails does not keep the others from coming.

    Args:
        patience: attempts and time limits.
        progress: bars, on stderr.
        keep_archive: keep RELATE_wave.zip once it is unpacked.

    Returns:
        What `status` returns, for the pieces of `name`.

    Raises:
        ValueError: an unknown name; lists the known ones.
        DownloadError: what could not be brought, piece by piece, and why; says how to go on.
    """
    wanted = _sources(name)
    failures = {}
    for piece in dict.fromkeys(piece for source in wanted for piece in source.pieces):
        try:
            if isinstance(piece, HubFiles):
                hub.fetch_piece(piece, folder, patience, progress)
            else:
                web.fetch_web(piece, folder, patience, progress, keep_archive)
        except OSError as error:
            failures[piece.place] = str(error)
            if isinstance(error, GivenUpError):  # no long waits, piece after piece, for a network that is not there
                patience = replace(patience, attempts=1)
    if failures:
        lines = [f"{place}: {why}" for place, why in failures.items()]
        raise DownloadError("\n".join(lines))
    return status(name, folder)


def status(name: str = ALL, folder: str | os.PathLike | None = None, check: bool = False) -> pd.DataFrame:
    """What is here of `name`, and which command brings what is not. Nothing is fetched or written.

    Args:
        name: a name in SOURCES, or "all".
        folder: as in `fetch`.
        check: compute the checksums of large files, too (seconds for a gigabyte); small ones always are.

    Returns:
        DataFrame, a row a piece: `source`, `piece`, `state` ("here", "missing", "incomplete", or "other": there, but
        not the published file), `n_bytes` on this disk, `about_bytes` to fetch (NaN where it is not known), `path` (of
        what is here, else where it would go; "" for the hub's cache), `note`, `command` ("" for what is here).
    """
    import pandas as pd

    rows = []
    for source in _sources(name):
        command = f"humanclap fetch {source.name}" + (f" --to {folder}" if folder is not None else "")
        for piece in source.pieces:
            found = _look(piece, folder, check)
            path = "" if found.path is None else str(found.path)
            needed = "" if found.state == HERE else command
            about = float("nan") if piece.about_bytes is None else piece.about_bytes
            rows.append([source.name, piece.place, found.state, found.n_bytes, about, path, found.note, needed])
    return pd.DataFrame(rows, columns=COLUMNS)


def listing(folder: str | os.PathLike | None = None) -> pd.DataFrame:
    """What there is to fetch, as text: source, piece, size, origin, revision, sha256, licence and state."""
    import pandas as pd

    states = status(ALL, folder)["state"].tolist()
    pieces = [(source, piece) for source in SOURCES.values() for piece in source.pieces]
    rows = [
        {
            "source": source.name,
            "piece": piece.place,
            "size": _size_said(piece),
            "origin": piece.address,
            "revision": piece.revision or ("recorded on first use" if isinstance(piece, HubFiles) else "none"),
            "sha256": piece.sha256 or "recorded on first use",
            "licence": source.licence(piece),
            "state": state,
        }
        for (source, piece), state in zip(pieces, states, strict=True)
    ]
    return pd.DataFrame(rows)


def _sources(name: str) -> list[Source]:
    if name == ALL:
        return list(SOURCES.values())
    if name not in SOURCES:
        raise ValueError(f"there is no {name!r} to fetch. Available: {', '.join(SOURCES)}, {ALL}")
    return [SOURCES[name]]


def _size_said(piece: Piece) -> str:
    if isinstance(piece, WebArchive):
        return f"zip {human_size(piece.about_bytes)}, about {human_size(piece.about_unpacked_bytes)} unpacked"
    if isinstance(piece, HubFiles) and piece.n_bytes is not None:
        return human_size(piece.n_bytes)
    return "not written down" if piece.about_bytes is None else f"about {human_size(piece.about_bytes)}"


def _look(piece: Piece, folder: str | os.PathLike | None, check: bool) -> _State:
    if isinstance(piece, HubFiles):
        return _look_hub(piece, folder, check)
    if isinstance(piece, WebArchive):
        return _look_audio(piece, folder)
    path = web.place_of(piece, folder)
    part = path.with_name(f"{path.name}.part")
    if not path.is_file():
        return _State(INCOMPLETE, path, part.stat().st_size, "begun") if part.is_file() else _State(MISSING, path)
    try:
        web.check_web(piece, path, folder, write=False)
    except DownloadError as error:
        return _State(OTHER, path, path.stat().st_size, str(error))
    return _State(HERE, path, path.stat().st_size)


def _look_audio(piece: WebArchive, folder: str | os.PathLike | None) -> _State:
    path, archive = web.place_of(piece, folder), relate_folder(folder) / piece.place
    if path.is_dir():
        n_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        lacking, named = web.missing_clips(folder)
        if lacking:
            return _State(INCOMPLETE, path, n_bytes, f"{lacking:,} of {named:,} clips that REL.csv names are not there")
        if not named:
            return _State(HERE, path, n_bytes, "its clips could not be counted: scores/REL.csv is not here")
        return _State(HERE, path, n_bytes, f"all {named:,} clips that REL.csv names")
    for left, note in ((archive, "to be unpacked"), (archive.with_name(f"{archive.name}.part"), "begun")):
        if left.is_file():
            return _State(INCOMPLETE, left, left.stat().st_size, note)
    return _State(MISSING, path)


def _look_hub(piece: HubFiles, folder: str | os.PathLike | None, check: bool) -> _State:
    found = hub.find_piece(piece, folder)
    n_bytes = sum(one.path.stat().st_size for one in found if one)
    main = found[0].path if found[0] else None
    lacking = [" or ".join(group) for group, one in zip(piece.needed, found, strict=True) if one is None]
    if len(lacking) == len(found):
        return _State(MISSING, None)
    if lacking:
        return _State(INCOMPLETE, main, n_bytes, f"without {', '.join(lacking)}")
    if piece.n_bytes not in (None, main.stat().st_size):
        return _State(OTHER, main, n_bytes, f"{main.stat().st_size:,} bytes, published are {piece.n_bytes:,}")
    if check:
        try:
            hub.check_piece(piece, found[0], write=False)
        except DownloadError as error:
            return _State(OTHER, main, n_bytes, str(error))
    return _State(HERE, main, n_bytes)

