"""Clips of one's own: which files belong to which prompts and systems, and which CLAP scores them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from humanclap.csv_text import read_text_table, stays_below
from humanclap.score import COLUMNS, score_pairs

from .lineup import ModelSource, lineup
from .run import Study, StudyError, cache_folder

if TYPE_CHECKING:
    from humanclap.clap import Clap

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
ONE_SYSTEM = "all clips"
_SHOWN = 3


class OwnClipsError(StudyError, ValueError):
    """A folder of clips or a list of prompts that cannot be used as it is."""


@dataclass(frozen=True)
class OwnClips:
    """Clips with their prompts: `pairs` (audio below `root`, text, system), the data's `label`, what was noticed."""

    pairs: pd.DataFrame = field(repr=False)
    root: Path
    label: str
    notes: tuple[str, ...] = ()

    def score(self, clap: Clap, pairs: pd.DataFrame | None = None, progress: bool = True) -> pd.DataFrame:
        """Score `pairs` (None: all of them): their columns, and those of `score_pairs`. Every row stays.

        A clip without a score says why in `status`. Audio stays relative to `root`.
        """
        pairs = self.pairs if pairs is None else pairs
        if not len(pairs):
            return pairs.assign(**{name: pd.Series(dtype=object) for name in COLUMNS[2:]})
        paths, texts = [self.root / audio for audio in pairs["audio"]], pairs["text"].tolist()
        scores = score_pairs(clap, paths, texts, cache_dir=cache_folder(), progress=progress)
        kept = pairs.reset_index(drop=True)
        return kept.assign(**{name: scores[name] for name in COLUMNS[2:]})

    def __str__(self) -> str:
        counts = [f"{self.pairs[column].nunique()} {column}s" for column in ("text", "system")]
        lines = [f"{len(self.pairs)} pairs of a clip and a prompt ({', '.join(counts)})", *self.notes]
        return "\n- ".join(lines).replace("texts", "prompts")


@dataclass(frozen=True)
class ChosenClap:
    """The CLAP that scores: its `source`, the `name` it goes by, and why it was taken."""

    source: ModelSource
    why: str

    @property
    def name(self) -> str:
        return self.source.name


def own_clips(run: Study, audio_folder: str = "", prompts: str = "", seed: int = 0) -> OwnClips:
    """Pair the clips of a folder with their prompts.

    Where no folder is named, the demo makes synthetic ones, and the paper profile takes RELATE's test clips.

    Args:
        audio_folder: clips of any format that libsndfile reads, in subfolders or not.
        prompts: a CSV with the columns audio (below the folder), text and, if there are several, system; "" for a .txt
            of the same name beside each clip. Without a column system, clips that all lie in subfolders belong to the
            system that the first of these names.

    Returns:
        Every prompt keeps its row, also where its clip is not there: a generator that failed is counted, not left out.
        Clips without a prompt are in `notes`.

    Raises:
        OwnClipsError: no folder, no clips, no prompts, or something wrong in the list of prompts; says what and where.
    """
    if not audio_folder:
        return _showcase(run, prompts, seed)
    root = Path(audio_folder).expanduser()
    if not root.is_dir():
        kind = "a file" if root.exists() else "not there"
        raise OwnClipsError(f"audio_folder={audio_folder!r} is {kind}; give the folder that your clips are in")
    found = (path for path in root.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    files = sorted(path.relative_to(root).as_posix() for path in found)
    if not files and not prompts:
        raise OwnClipsError(f"audio_folder={audio_folder!r} holds no audio ({', '.join(AUDIO_SUFFIXES)})")
    pairs, notes = _from_csv(Path(prompts).expanduser()) if prompts else _from_text_files(root, files)
    unasked = [name for name in files if name not in set(pairs["audio"])]
    absent = [name for name in pairs["audio"].drop_duplicates() if not (root / name).is_file()]
    notes += [f"{len(unasked)} clips have no prompt and are not scored: {_some(unasked)}"] * bool(unasked)
    notes += [f"{len(absent)} prompts have no clip and are counted as failures: {_some(absent)}"] * bool(absent)
    return OwnClips(_with_system(pairs), root, f"clips of {root.resolve().name}", tuple(notes))


def chosen_clap(run: Study, clap: str = "", seed: int = 0) -> ChosenClap:
    """The CLAP that `clap` names (as `load_clap` takes it), else the Human-CLAP that notebook 03 chose by validation.

    Where notebook 03 has left none: in the demo the LAION stand-in (made on the spot if need be), in the paper profile
    the authors' released Human-CLAP; `why` says so.
    """
    if clap:
        place = Path(clap).expanduser()
        named = os.fspath(place) if place.exists() else clap
        return ChosenClap(ModelSource(place.name or clap, named), "named by the parameter clap")
    table = run.path("tables/03_choice.csv")
    if table.is_file():
        choice = pd.read_csv(table)
        best = choice[choice["chosen"].astype(str) == "True"].iloc[0]
        name = f"human-clap/{best['model']}/seed{best['training_seed']}"
        folder = run.path(f"{name}/model")
        if (folder / "config.json").is_file():
            why = "the Human-CLAP that notebook 03 chose on its validation pairs"
            return ChosenClap(ModelSource(name, os.fspath(folder)), why)
    claps = lineup(run.profile, seed)
    if claps.released:
        return ChosenClap(claps[claps.released[0]], "the authors' released Human-CLAP: notebook 03 has left none here")
    return ChosenClap(claps[claps.base], "a stand-in, NOT a Human-CLAP: notebook 03 has left none in this profile")


def rated_scores(run: Study, scores: pd.DataFrame) -> pd.DataFrame | None:
    """The rated test pairs that notebooks 01 and 03 scored with the same CLAP and window as `scores`; None: no such.

    They tell what a score of this CLAP is worth where people have been asked; `data` names the data behind them.
    """
    same = ["checkpoint_sha256", "window", "precision"]
    for notebook in ("03", "01"):
        path = run.path(f"tables/{notebook}_scores.csv")
        if path.is_file():
            table = pd.read_csv(path, float_precision="round_trip")
            if set(same) <= set(table):
                rows = table[(table[same].astype(str) == scores[same].astype(str).iloc[0]).all(axis=1)]
                if len(rows):
                    return rows.reset_index(drop=True)
    return None


def _showcase(run: Study, prompts: str, seed: int) -> OwnClips:
    if prompts:
        raise OwnClipsError(f"prompts={prompts!r} without audio_folder: name the folder that these clips are in, too")
    if run.profile != "demo":
        from .data import prepare

        corpus = prepare(run.profile, seed)
        pairs = corpus.rated(10).test[["audio", "text", "system"]]
        note = "no audio_folder is named: RELATE's test clips are scored as if they were yours"
        return OwnClips(_with_system(pairs), corpus.audio_root, corpus.label, (note,))
    from humanclap.synthetic import showcase_clips

    path = showcase_clips(run.path(f"own-clips-seed{seed}"), seed)
    pairs, _ = _from_csv(path)
    note = "made on the spot: one faithful and three imperfect synthetic generators, the same prompts for each"
    return OwnClips(pairs, path.parent, "synthetic", (note,))


def _from_csv(path: Path) -> tuple[pd.DataFrame, list[str]]:
    if not path.is_file():
        raise OwnClipsError(f"prompts={str(path)!r} is not there; give a CSV with the columns audio, text[, system]")
    table = read_text_table(path, OwnClipsError, ",;\t")
    missing = [column for column in ("audio", "text") if column not in table.header]
    if missing:
        found = ", ".join(table.header) or "nothing"
        raise OwnClipsError(f"{path}, line 1: no column {', '.join(missing)}; it has {found}")
    if not table.lines:
        raise OwnClipsError(f"{path} has a header and no prompts")
    table.require("audio", lambda name: bool(name.strip()), "a file name must not be empty")
    table.require("audio", stays_below, "it must be relative to audio_folder and stay below it")
    table.require("text", lambda text: bool(text.strip()), "a prompt must not be empty")
    if "system" in table.header:
        table.require("system", lambda name: bool(name.strip()), "name the system in every line, or in none")
    columns = [name for name in ("audio", "text", "system") if name in table.header]
    pairs = pd.DataFrame({name: [value.strip() for value in table.columns[name]] for name in columns})
    twice = pairs.duplicated(["audio", "text"])
    if twice.any():
        row = int(twice.to_numpy().argmax())
        raise OwnClipsError(
            f"{path}, line {table.lines[row]}: {pairs['audio'][row]} stands there twice with this prompt; keep one line"
        )
    ignored = [name for name in table.header if name not in columns]
    return pairs, [f"columns not read: {', '.join(ignored)}"] * bool(ignored)


def _from_text_files(root: Path, files: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """One row a .txt; a clip is known by its path without the ending."""
    clip_of: dict[str, str] = {}
    for name in files:
        stem = name.rpartition(".")[0]
        if stem in clip_of:
            raise OwnClipsError(f"{root}: {clip_of[stem]} and {name} would share {stem}.txt; rename one, or give a CSV")
        clip_of[stem] = name
    rows = []
    for path in sorted(root.rglob("*.txt")):
        stem = path.relative_to(root).as_posix().removesuffix(".txt")
        try:
            text = " ".join(path.read_text(encoding="utf-8-sig").split())
        except UnicodeDecodeError as error:
            raise OwnClipsError(f"{path} is not text in UTF-8: {error}; save it again as UTF-8") from error
        if not text:
            raise OwnClipsError(f"{path} is empty; write the clip's prompt into it")
        rows.append({"audio": clip_of.get(stem, stem), "text": text})
    if not rows:
        raise OwnClipsError(
            f"{root} holds {len(files)} clips and no prompts: put a .txt of the same name beside each clip, or name a "
            "CSV (audio, text[, system]) as prompts"
        )
    return pd.DataFrame(rows), []


def _with_system(pairs: pd.DataFrame) -> pd.DataFrame:
    if "system" in pairs:
        return pairs
    first = pairs["audio"].str.partition("/")
    return pairs.assign(system=first[0] if (first[1] == "/").all() else ONE_SYSTEM)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
