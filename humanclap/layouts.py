"""From what people have to pairs of clip and caption: tables, lists, Kaldi files and folders in their usual layouts.

A guess is never silent: `Layout.notes` says how the input was read and shows one pair.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from .files import expanded, require_regular
from .tables import Table, TableError, clip_name, read_table

AUDIO_SUFFIXES = tuple(
    f".{ending}"
    for ending in "wav wave flac ogg oga opus mp3 aif aiff aifc au snd caf w64 rf64 m4a mp4 aac wma webm".split()
)
"""Files that count as clips. One that can't be decoded keeps its row, with the reason."""
CLIP = ("audio", "file", "file_name", "filename", "path", "wav", "audio_path", "location", "name", "id")
CLIP_TEMPLATES = ("{audiocap_id}", "{youtube_id}_{start_time}", "{ytid}", "{youtube_id}", "{Model}/{File Name}")
TEXT = ("text", "caption", "prompt", "captions", "description")
_NUMBERED = re.compile(r"(caption|text)_(\d+)")
_LISTS = (".lst", ".txt", ".scp")
_SHOWN = 3


@dataclass(frozen=True)
class Layout:
    """Pairs as they were read: `pairs` has the columns of the input, letter for letter, with audio (relative to `root`),
    text and, where there are several, system; `lines` is where each row comes from; `notes` says how, in sentences."""

    pairs: pd.DataFrame = field(repr=False)
    root: Path
    notes: list[str]
    lines: list[int] = field(repr=False)


def read_layout(
    source: str | os.PathLike,
    root: str | os.PathLike | None = None,
    captions: str | os.PathLike | None = None,
    audio: str | None = None,
    text: str | None = None,
    systems: Mapping[str, str | os.PathLike] | None = None,
) -> Layout:
    """Read pairs of clip and caption.

    source: a table (CSV, TSV, JSON lines, JSON; also .gz), a list of lines `clip|caption` or of captions (.lst, .txt),
        Kaldi's wav.scp (with `captions`, its text file), or a folder with a .txt beside each clip.
    root: the folder of the clips; None: the working directory, or the folder that is the source.
    audio: the column of the clips, or a template over the columns, such as "{audiocap_id}.wav"; {row} counts from 0 and
        {line} from 1. None: of the columns of CLIP and the templates of CLIP_TEMPLATES that the table has, the first that
        names a file, else the first.
    text: the column of the captions; None: the first of TEXT, or caption_1, caption_2, ..., which make a row each.
    systems: folder of each system by name; every system has a clip for every row, below its folder.

    A clip without its ending is found where exactly one file fits; with a column system, in the system's folder, too.
    Raises TableError for a table that can't be read so, with the line and what to do; FileNotFoundError.
    """
    place = expanded(source)
    if place.is_dir() and (root or audio or text or systems):
        raise TableError(f"{source} is a folder: its clips lie in it, with their captions in .txt files")
    table, root = _opened(place, captions), place if place.is_dir() else expanded(root or ".")
    table.need((), row="pair")
    texts, said = _captions(table, text)
    template, names = _named(table, audio, [root / expanded(folder) for folder in (systems or {"": "."}).values()])
    made = {"audio": template, "text": texts[0], **({"system": ""} if systems else {})}
    made |= {"caption_number": ""} if len(texts) > 1 else {}
    if replaced := [name for name, column in made.items() if name in table.header and name != column]:
        raise TableError(f"{table.path}, line 1: column {replaced[0]!r} would be replaced; rename it or leave it out")
    rows = [table.frame().assign(audio=names, text=table.stripped(column)) for column in texts]
    if len(texts) > 1:
        rows = [part.assign(caption_number=str(number)) for number, part in enumerate(rows, start=1)]
    pairs, lines = pd.concat(rows, ignore_index=True), table.lines * len(texts)
    for column, what in (("audio", "a path must not be empty"), ("text", "a caption must not be empty")):
        if (empty := pairs[column].str.strip() == "").any():
            line = lines[int(empty.to_numpy().argmax())]
            raise TableError(f"{table.path}, line {line}, column {column!r}: '' is not allowed; {what}")
    asked = pairs["audio"]
    if systems:
        parts = []
        for name, folder in systems.items():
            finder = _Finder(root / expanded(folder), table)
            found = [os.path.join(folder, finder.find(clip, line)) for clip, line in zip(asked, lines)]
            parts.append(pairs.assign(audio=found, system=name))
        pairs, lines = pd.concat(parts, ignore_index=True), lines * len(parts)
    else:
        finder, of_system = _Finder(root, table), pairs.get("system", pd.Series("", index=pairs.index)).str.strip()
        pairs["audio"] = [finder.find(*row) for row in zip(asked, lines, of_system)]
    notes, changed = list(table.notes), 0 if systems else int((pairs["audio"] != asked).sum())
    is_plain = template == "audio" and texts == ["text"] and not (systems or captions or place.is_dir() or changed)
    if not is_plain or place.suffix.lower() in _LISTS:
        how = f"{table.path.name}: clips from {template!r}, captions from {said}"
        how += f", {changed:,} clips found by their names without the ending or in the system's folder" * bool(changed)
        notes.append(f"{how}; the first pair is {pairs['audio'][0]} | {pairs['text'][0]}")
    ahead = [name for name in ("system", "audio", "text") if name in pairs and name not in table.header]
    return Layout(pairs[[*ahead, *(name for name in pairs if name not in ahead)]], root, notes, lines)


def _opened(place: Path, captions: str | os.PathLike | None) -> Table:
    if place.is_dir():
        return _sidecars(place)
    if captions is not None:
        return _kaldi(place, expanded(captions))
    return _bar_list(place) if place.suffix.lower() in _LISTS else read_table(place)


def visible(root: Path, suffixes: tuple[str, ...] = AUDIO_SUFFIXES) -> list[Path]:
    """The files below `root` with one of the suffixes, sorted; no hidden ones and none in hidden folders."""
    paths = (path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(root).parts))


def subfolders(folder: str | os.PathLike) -> dict[str, str]:
    """Every subfolder of `folder` as a system: name -> path. TableError where there is none."""
    root = expanded(folder)
    if not root.is_dir():
        raise TableError(f"{folder} is no folder; give the folder that has one subfolder for each system")
    found = {
        path.name: os.fspath(path) for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")
    }
    if not found:
        raise TableError(f"{folder} has no subfolders; give the folder that has one subfolder for each system")
    return found


# --- columns --------------------------------------------------------------------------------------------


def _captions(table: Table, text: str | None) -> tuple[list[str], str]:
    """The columns of captions, and what to call them."""
    if text is not None:
        if text not in table.header:
            raise TableError(f"{table.path} has no column {text!r} (--text); it has: {', '.join(table.header)}")
        return [text], repr(text)
    found = next((name for name in TEXT if name in table.header), None)
    if found:
        return [found], repr(found)
    numbered = sorted(
        (name for name in table.header if _NUMBERED.fullmatch(name)), key=lambda n: int(n.rpartition("_")[2])
    )
    if not numbered:
        raise TableError(
            f"{table.path}, line 1: no column of captions ({', '.join(TEXT)}); it has: {', '.join(table.header)}. Name it "
            "with --text COLUMN"
        )
    return numbered, f"{len(numbered)} columns, {numbered[0]!r} to {numbered[-1]!r}, a row each"


def _named(table: Table, audio: str | None, roots: list[Path]) -> tuple[str, list[str]]:
    """The column or template that names the clips, and the names."""
    if audio is not None:
        return audio, _names(table, audio)
    known = [name for name in CLIP if name in table.header]
    known += [template for template in CLIP_TEMPLATES if set(_fields(template)) <= set(table.header)]
    if not known:
        raise TableError(
            f"{table.path}, line 1: no column of clips ({', '.join(CLIP)}); it has: {', '.join(table.header)}. Name the "
            "clips with --audio COLUMN, or with a template such as --audio '{id}.wav' or 'output_{row}.wav'"
        )
    candidates = {template: _names(table, template) for template in known}
    finders = [_Finder(root, table) for root in roots]
    for template, names in candidates.items() if len(known) > 1 and known[0] != "audio" else ():
        if any(finder.has(name) for finder in finders for name in names):
            return template, names
    return known[0], candidates[known[0]]


def _names(table: Table, audio: str) -> list[str]:
    """The name of each row's clip, from a column or a template."""
    if audio in table.header:
        return [clip_name(name) for name in table.columns[audio]]
    if "{" not in audio:
        raise TableError(f"{table.path} has no column {audio!r} (--audio); it has: {', '.join(table.header)}")
    try:
        fields = _fields(audio)
        if unknown := [name for name in fields if name not in (*table.header, "row", "line")]:
            has = ", ".join(table.header)
            raise TableError(
                f"--audio {audio!r} names {', '.join(map(repr, unknown))}; {table.path} has: {has}, and row and line count"
            )
        if not fields:
            raise TableError(f"--audio {audio!r} names no column; write it as '{{id}}.wav'")
        rows = range(len(table.lines))
        values = {"row": rows, "line": [row + 1 for row in rows], **table.columns}
        parts = list(string.Formatter().parse(audio))
        # Put together here: str.format would look into a name such as "File.Name" or "a[0]".
        return [
            clip_name(
                "".join(t + ("" if name is None else format(values[name][row], spec)) for t, name, spec, _ in parts)
            )
            for row in rows
        ]
    except ValueError as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"--audio {audio!r} is no template: {error}; write it as '{{id}}.wav'") from error


def _fields(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


class _Finder:
    """Finds clips below a folder: by their names, else without the ending, where exactly one file fits."""

    def __init__(self, root: Path, table: Table) -> None:
        self._root, self._table, self._folders = root, table, {}

    def find(self, name: str, line: int, system: str = "") -> str:
        """The clip's name with its ending, also in the folder of its `system`; as it is where no file fits.

        TableError where two do.
        """
        for place in (name, f"{system}/{name}") if system else (name,):
            if (found := self._there(place, line)) is not None:
                return found
        return name

    def has(self, name: str) -> bool:
        """Whether some file may be meant by `name`."""
        folder, _, stem = name.rpartition("/")
        return (self._root / expanded(name)).is_file() or stem in self._stems(folder)

    def _stems(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._folders:
            self._folders[folder] = _by_stem(self._root / expanded(folder or "."))
        return self._folders[folder]

    def _there(self, name: str, line: int) -> str | None:
        if (self._root / expanded(name)).is_file():
            return name
        folder, _, stem = name.rpartition("/")
        fits = self._stems(folder).get(stem, [])
        if len(fits) > 1:
            raise TableError(
                f"{self._table.path}, line {line}: {name} fits {' and '.join(sorted(fits)[:2])} in {self._root / folder}; "
                "name the file with its ending (--audio '{column}.wav')"
            )
        return next((f"{folder}/{name}" if folder else name for name in fits), None)


def _by_stem(folder: Path) -> dict[str, list[str]]:
    """The visible clips of one folder, by their names without the ending."""
    found: dict[str, list[str]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith("."):
            found.setdefault(path.stem, []).append(path.name)
    return found


# --- what is no table -----------------------------------------------------------------------------------


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers."""
    require_regular(path, TableError)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is not text in UTF-8 ({error}); save it again as UTF-8") from error
    lines = enumerate(content.split("\n"), start=1)  # a caption may hold any other break
    return [(number, line.rstrip("\r")) for number, line in lines if line.strip()]


def _bar_list(path: Path) -> Table:
    """`clip|caption` in every line; or a caption in every line, whose clips --audio names by row or line."""
    lines = _lines(path)
    parts = [line.split("|") for _, line in lines]
    if {len(part) for part in parts} == {1}:
        return Table(path, TableError, {"text": [part[0] for part in parts]}, [number for number, _ in lines])
    for (number, line), part in zip(lines, parts):
        if len(part) != 2:
            raise TableError(f"{path}, line {number}: {line!r:.60} has {len(part) - 1} bars; a line is clip|caption")
    return Table(
        path, TableError, {"audio": [p[0] for p in parts], "text": [p[1] for p in parts]}, [n for n, _ in lines]
    )


def _kaldi(scp: Path, captions: Path) -> Table:
    """wav.scp (`id path`) and text (`id caption`), joined by id."""
    parts = {}
    for path in (scp, captions):
        parts[path] = {}
        for number, line in _lines(path):
            name, value = (*line.split(None, 1), "")[:2]
            if not value.strip() or name in parts[path]:
                what = "is there twice" if name in parts[path] else "has nothing behind it"
                raise TableError(
                    f"{path}, line {number}: the id {name!r} {what}; a line is an id, a space and a path or a caption"
                )
            parts[path][name] = (value.strip(), number)
    clips, texts = parts.values()
    if pipes := [name for name, (value, _) in clips.items() if value.endswith("|")]:
        raise TableError(
            f"{scp}, line {clips[pipes[0]][1]}: a command instead of a path; nothing is run: write the clips to files"
        )
    if missing := [name for name in clips if name not in texts]:
        raise TableError(f"{captions} has no caption for {len(missing)} ids of {scp}, the first is {missing[0]!r}")
    columns = {
        "id": list(clips),
        "audio": [value for value, _ in clips.values()],
        "text": [texts[name][0] for name in clips],
    }
    table = Table(scp, TableError, columns, [number for _, number in clips.values()])
    spare = len(set(texts) - set(clips))
    return replace(table, notes=[f"{captions}: {spare} captions are of no clip of {scp}"] if spare else [])


def _sidecars(root: Path) -> Table:
    """One row for each clip that has a .txt of its name; clips and .txt files without the other are counted."""
    texts = {path.with_suffix(""): path for path in visible(root, (".txt",))}
    clips: dict[Path, list[Path]] = {}
    for path in visible(root):
        clips.setdefault(path.with_suffix(""), []).append(path)
    both = [stem for stem in clips if stem in texts]
    if not both:
        raise TableError(
            f"{root} holds {len(clips)} clips and no captions: put a .txt of the same name beside each clip, or give a table"
        )
    columns: dict[str, list[str]] = {"audio": [], "text": []}
    for stem in both:
        if len(clips[stem]) > 1:
            raise TableError(f"{clips[stem][0]} and {clips[stem][1].name} share one .txt; rename one, or give a table")
        content = _lines(texts[stem])
        if not content:
            raise TableError(f"{texts[stem]} is empty; write the clip's caption into it")
        columns["audio"].append(clips[stem][0].relative_to(root).as_posix())
        columns["text"].append(" ".join(" ".join(line for _, line in content).split()))
    notes = []
    for what, alone in (
        ("clips have no .txt and are not scored", set(clips) - set(texts)),
        (".txt files have no clip", set(texts) - set(clips)),
    ):
        if alone:
            names = ", ".join(stem.relative_to(root).as_posix() for stem in sorted(alone)[:_SHOWN])
            notes.append(f"{len(alone)} {what}: {names}{', …' if len(alone) > _SHOWN else ''}")
    return Table(root, TableError, columns, list(range(1, len(both) + 1)), notes)
