"""Clips of one's own: which files belong to which prompts and systems, and their scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from humanclap.files import expanded
from humanclap.layouts import CLIP, TEXT, Layout, read_layout, subfolders, visible
from humanclap.score import COLUMNS, score_pairs
from humanclap.tables import TableError, read_scores, stays_below

from .data import not_red
from .run import Study, StudyError, cache_folder, runs_folder

if TYPE_CHECKING:
    from humanclap.clap import Clap

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
    files = [path.relative_to(root).as_posix() for path in visible(root)]
    try:
        found = _with_prompts(root, prompts) if prompts else read_layout(root)
    except (TableError, FileNotFoundError) as error:
        raise OwnClipsError(str(error)) from None
    kept = [name for name in ("audio", "text", "system") if name in found.pairs]
    pairs, unread = found.pairs[kept], [name for name in found.pairs if name not in (*kept, *CLIP, *TEXT)]
    # without a table they are in the notes already
    unasked = sorted(set(files) - set(pairs["audio"])) if prompts else []
    absent = [name for name in pairs["audio"].drop_duplicates() if not (root / name).is_file()]
    notes = found.notes + [f"columns not read: {', '.join(unread)}"] * bool(unread)
    notes += [f"{len(unasked)} clips have no prompt and are not scored: {_some(unasked)}"] * bool(unasked)
    notes += [f"{len(absent)} prompts have no clip and count as failures: {_some(absent)}"] * bool(absent)
    return OwnClips(_with_system(pairs), root, f"clips of {root.resolve().name}", tuple(notes))


def _with_prompts(root: Path, prompts: str | Path) -> Layout:
    """A table's prompts with their clips below `root`; a row for each system where each has a folder of its own."""
    found = read_layout(prompts, root)
    pairs = found.pairs
    whole = [name for name in ("audio", "text", "system") if name in pairs]
    for bad, why in (
        (~pairs["audio"].map(stays_below), "must be relative to audio_folder and stay below it"),
        (pairs.duplicated(whole), "with this prompt is there twice; keep one line"),
        (pairs.get("system", pairs["audio"]).str.strip() == "", "has no system; name one in every line, or in none"),
    ):
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise TableError(f"{prompts}, line {found.lines[row]}: {pairs['audio'][row]} {why}")
    if "system" in pairs:
        return found
    if _any_there(found) or not any(path.is_dir() for path in root.iterdir()):
        return found
    each = {name: read_layout(prompts, root, systems={name: name}) for name in subfolders(root)}
    systems = {name: name for name, clips in each.items() if _any_there(clips)}
    return read_layout(prompts, root, systems=systems) if systems else found


def _any_there(found: Layout) -> bool:
    return any((found.root / name).is_file() for name in found.pairs["audio"])


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
    pairs = _with_prompts(path.parent, path).pairs[["audio", "text", "system"]]
    note = "synthetic, made here: one faithful and three imperfect generators, the same prompts for each"
    return OwnClips(pairs, path.parent, "synthetic", (note,))


def _with_system(pairs: pd.DataFrame) -> pd.DataFrame:
    if "system" in pairs:
        return pairs
    first = pairs["audio"].str.partition("/")
    return pairs.assign(system=first[0] if (first[1] == "/").all() else ONE_SYSTEM)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
