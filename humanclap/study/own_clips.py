"""Clips of one's own: which files belong to which prompts and systems, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from humanclap.files import expanded
from humanclap.score import COLUMNS, score_pairs
from humanclap.tables import Table, clip_name, read_scores, read_table, stays_below

from .data import not_red
from .run import Study, StudyError, cache_folder, runs_folder

if TYPE_CHECKING:
    from humanclap.clap import Clap

AUDIO_SUFFIXES = tuple(
    f".{name}"
    for name in "wav wave flac ogg oga opus mp3 aif aiff aifc au snd caf w64 rf64 m4a mp4 aac wma webm".split()
)
"""Files that count as clips. One that cannot be decoded keeps its row, with the reason."""
CLIP_COLUMNS, PROMPT_COLUMNS = ("audio", "id", "file", "file_name"), ("text", "prompt", "caption")
ONE_SYSTEM = "all clips"
_SHOWN = 3


class OwnClipsError(StudyError, ValueError):
    """A folder of clips or a table of prompts that cannot be used as it is."""


@dataclass(frozen=True)
class OwnClips:
    """Clips with their prompts: `pairs` (audio below `root`, text, system), the data's `label`, and `notes`."""

    pairs: pd.DataFrame = field(repr=False)
    root: Path
    label: str
    notes: tuple[str, ...] = ()

    def score(self, clap: Clap, pairs: pd.DataFrame | None = None) -> pd.DataFrame:
        """Score `pairs` (None: all of them): their columns, and those of `score_pairs`. Every row stays.

        A clip without a score has the reason in `status`. Audio stays relative to `root`.
        """
        pairs = self.pairs if pairs is None else pairs
        if not len(pairs):
            return pairs.assign(**{name: pd.Series(dtype=object) for name in COLUMNS[2:]})
        paths, texts = [self.root / audio for audio in pairs["audio"]], pairs["text"].tolist()
        with not_red():
            scores = score_pairs(clap, paths, texts, cache_dir=cache_folder(), progress=False)
        kept = pairs.reset_index(drop=True)
        return kept.assign(**{name: scores[name] for name in COLUMNS[2:]})

    def __str__(self) -> str:
        prompts, systems = self.pairs["text"].nunique(), self.pairs["system"].nunique()
        counts = f"{len(self.pairs)} pairs of a clip and a prompt ({prompts} prompts, {systems} systems)"
        return "\n- ".join([counts, *self.notes])


def own_clips(run: Study, audio_folder: str = "", prompts: str = "", seed: int = 0) -> OwnClips:
    """Pair the clips of a folder with their prompts.

    Three layouts: a table with one row per clip (`audio` below the folder, `text`, and `system` if there are several);
    a table with one row per prompt (`id` or file name, `text`) and one subfolder per system, which holds <id>.wav or
    another format; no table, and a .txt of the same name beside each clip. Where no folder is named, the demo makes
    synthetic clips, and the paper profile takes RELATE's test clips.

    Args:
        audio_folder: the clips, in any format that can be decoded. Hidden files and a Mac's ._ files are left out.
        prompts: a table (CSV, TSV, JSON lines); "" for .txt files. Without a column system, clips that are all in
            subfolders belong to the system that the first of these names.

    Returns:
        Every prompt of a table keeps its row, also where its clip is missing: a generator that failed is counted.
        Clips without a prompt, and .txt files without a clip, are in `notes`.

    Raises:
        OwnClipsError: no folder, no clips, no prompts, or something wrong in the table; says what and where.
    """
    if not audio_folder:
        return _showcase(run, prompts, seed)
    root = expanded(audio_folder)
    if not root.is_dir():
        kind = "a file" if root.exists() else "not there"
        raise OwnClipsError(f"audio_folder={audio_folder!r} is {kind}; give the folder that holds your clips")
    files = _visible(root, AUDIO_SUFFIXES)
    if not files and not prompts:
        raise OwnClipsError(f"audio_folder={audio_folder!r} holds no audio ({', '.join(AUDIO_SUFFIXES)})")
    pairs, notes = _from_table(expanded(prompts), root, files) if prompts else _from_text_files(root, files)
    unasked = sorted(set(files) - set(pairs["audio"]))
    absent = [name for name in pairs["audio"].drop_duplicates() if not (root / name).is_file()]
    notes += [f"{len(unasked)} clips have no prompt and are not scored: {_some(unasked)}"] * bool(unasked)
    notes += [f"{len(absent)} prompts have no clip and count as failures: {_some(absent)}"] * bool(absent)
    return OwnClips(_with_system(pairs), root, f"clips of {root.resolve().name}", tuple(notes))


def rated_scores(run: Study, scores: pd.DataFrame) -> pd.DataFrame | None:
    """The rated test pairs that notebooks 01 and 03 scored with the same CLAP and window as `scores`; None: no such.

    They tell what a score of this CLAP is worth where people rated the pairs; `data` names those data.
    """
    same = ["checkpoint_sha256", "window", "precision"]
    for notebook in ("03", "01"):
        path = run.find(f"tables/{notebook}_scores.csv")
        if path.is_file():
            table = read_scores(path)
            if set(same) <= set(table):
                rows = table[(table[same].astype(str) == scores[same].astype(str).iloc[0]).all(axis=1)]
                if len(rows):
                    return rows.reset_index(drop=True)
    return None


# --- which clip has which prompt ------------------------------------------------------------------------


def _showcase(run: Study, prompts: str, seed: int) -> OwnClips:
    if prompts:
        raise OwnClipsError(f"prompts={prompts!r} without audio_folder: name the folder of these clips, too")
    if run.profile != "demo":
        from .data import prepare

        corpus = prepare(run.profile, seed)
        pairs = corpus.rated(10).test[["audio", "text", "system"]]
        note = "no audio_folder is named: RELATE's test clips are scored as if they were yours"
        return OwnClips(_with_system(pairs), corpus.audio_root, corpus.label, (note,))
    from humanclap.demo import showcase_clips

    path = showcase_clips(runs_folder() / run.profile / f"own-clips-seed{seed}", seed)
    pairs, _ = _from_table(path, path.parent, _visible(path.parent, AUDIO_SUFFIXES))
    note = "synthetic, made here: one faithful and three imperfect generators, the same prompts for each"
    return OwnClips(pairs, path.parent, "synthetic", (note,))


def _visible(root: Path, suffixes: Sequence[str]) -> list[str]:
    """Regular files below `root` with one of the suffixes, relative; no hidden file, and none in a hidden folder."""
    found = (path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    names = (path.relative_to(root) for path in found)
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def _by_stem(root: Path, files: list[str], said: str) -> dict[str, str]:
    """Clips by their path without the ending."""
    clip_of: dict[str, str] = {}
    for name in files:
        stem = name.rpartition(".")[0]
        if stem in clip_of:
            raise OwnClipsError(f"{root}: {clip_of[stem]} and {name} {said}")
        clip_of[stem] = name
    return clip_of


def _from_table(path: Path, root: Path, files: list[str]) -> tuple[pd.DataFrame, list[str]]:
    if not path.is_file():
        raise OwnClipsError(
            f"prompts={str(path)!r} is not there; give a table with the columns audio (or id), text[, system]"
        )
    table = read_table(path, OwnClipsError)
    clip, prompt = _column(table, path, CLIP_COLUMNS), _column(table, path, PROMPT_COLUMNS)
    if not table.lines:
        raise OwnClipsError(f"{path} has a header and no prompts")
    table.require(clip, lambda name: bool(name.strip()), "a file name must not be empty")
    table.require(clip, stays_below, "it must be relative to audio_folder and stay below it")
    table.require(prompt, lambda text: bool(text.strip()), "a prompt must not be empty")
    names = [clip_name(name) for name in table.columns[clip]]
    pairs = pd.DataFrame({"audio": names, "text": table.stripped(prompt)}, dtype=object)
    if "system" in table.header:
        table.require("system", lambda name: bool(name.strip()), "name the system in every line, or in none")
        pairs["system"] = table.stripped("system")
    if (twice := pairs.duplicated()).any():
        row = int(twice.to_numpy().argmax())
        raise OwnClipsError(
            f"{path}, line {table.lines[row]}: {pairs['audio'][row]} with this prompt is there twice; keep one line"
        )
    ignored = [name for name in table.header if name not in (clip, prompt, "system")]
    notes = table.notes + [f"columns not read: {', '.join(ignored)}"] * bool(ignored)
    return _found(pairs, root, files), notes


def _column(table: Table, path: Path, names: Sequence[str]) -> str:
    found = next((name for name in names if name in table.header), None)
    if found is None:
        has = ", ".join(table.header) or "nothing"
        raise OwnClipsError(f"{path}, line 1: no column {names[0]} (or {', '.join(names[1:])}); it has {has}")
    return found


def _found(pairs: pd.DataFrame, root: Path, files: list[str]) -> pd.DataFrame:
    """Prompts with the file of each; one row per system where each system has a folder and the table names no clip."""
    exact = set(files)
    if all(name in exact or (root / name).is_file() for name in pairs["audio"]):
        return pairs
    stems = _by_stem(root, files, "have one name without the ending; name the file in the table")

    def clip(*names: str) -> str | None:
        return next(
            (name if name in exact else stems.get(name) for name in names if name in exact or name in stems), None
        )

    if "system" in pairs:
        names = [clip(row.audio, f"{row.system}/{row.audio}") or row.audio for row in pairs.itertuples()]
        return pairs.assign(audio=names)
    if any(map(clip, pairs["audio"])):
        return pairs.assign(audio=[clip(name) or name for name in pairs["audio"]])
    systems = sorted({name.partition("/")[0] for name in files if "/" in name})
    systems = [system for system in systems if any(clip(f"{system}/{name}") for name in pairs["audio"])]
    if not systems:
        return pairs
    rows = [
        {"audio": clip(f"{system}/{row.audio}") or f"{system}/{row.audio}", "text": row.text, "system": system}
        for system in systems
        for row in pairs.itertuples()
    ]
    return pd.DataFrame(rows)


def _from_text_files(root: Path, files: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """One row per clip with a .txt of its name."""
    rows, without = [], []
    texts = _visible(root, (".txt",))
    stems = {name.rpartition(".")[0] for name in texts}
    asked = [name for name in files if name.rpartition(".")[0] in stems]
    clip_of = _by_stem(root, asked, "share one .txt; rename one, or give a table of prompts")
    for name in texts:
        if (stem := name.rpartition(".")[0]) not in clip_of:
            without.append(name)
            continue
        try:
            text = " ".join((root / name).read_text(encoding="utf-8-sig").split())
        except UnicodeDecodeError as error:
            raise OwnClipsError(f"{root / name} is not text in UTF-8: {error}; save it again as UTF-8") from error
        if not text:
            raise OwnClipsError(f"{root / name} is empty; write the clip's prompt into it")
        rows.append({"audio": clip_of[stem], "text": text})
    if not rows:
        raise OwnClipsError(
            f"{root} holds {len(files)} clips and no prompts: put a .txt of the same name beside each clip, or name a "
            "table (audio or id, text[, system]) as prompts"
        )
    notes = [f"{len(without)} .txt files have no clip of their name and are not read: {_some(without)}"] * bool(without)
    return pd.DataFrame(rows), notes


def _with_system(pairs: pd.DataFrame) -> pd.DataFrame:
    if "system" in pairs:
        return pairs
    first = pairs["audio"].str.partition("/")
    return pairs.assign(system=first[0] if (first[1] == "/").all() else ONE_SYSTEM)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
