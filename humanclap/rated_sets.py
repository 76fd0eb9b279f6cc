"""Other rated sets than RELATE, with the columns that everything here works on: XACLE, or a plain CSV."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd

from .rated_files import SPELLINGS, UNNAMED, RatedFile, RatedSetError, kind_of, read_rated_file
from .relate import split_train_validation

__all__ = ["KINDS", "XACLE_REQUEST", "RatedSet", "RatedSetError", "load_rated_set"]

KINDS = ("auto", *SPELLINGS)

XACLE_REQUEST = """\
XACLE (text-audio pairs that people rated from 0 to 10) is given out by e-mail: ask dataset@xacle.org for the data.
Unpack what you get into one folder, so that it holds
    meta_data/train.csv, meta_data/validation.csv (single ratings) or meta_data/*_average.csv (means)
    wav/train/, wav/validation/ (16 kHz mono clips)
and give that folder to humanclap.rated_sets.load_rated_set, or as rated_set to notebooks 01 and 04."""
"""How to come by XACLE's data; nothing of it can be fetched."""

# XACLE rates train and validation; what is evaluated on is called test here.
_XACLE_SPLITS = {"train": "train", "validation": "test"}


@dataclass(frozen=True)
class RatedSet:
    """Rated pairs that are not RELATE's, in its columns.

    Attributes:
        ratings: one row a rating, columns of `relate.load_ratings` (`is_anchor` False, `relate_split` empty); `system`
            is None where no system is known. None as a whole where the set holds nothing but means.
        pairs: one row a pair, columns of `relate.aggregate_pairs`; `n_ratings` and `rating_std` NaN for means.
        label: the data's name, which every figure and table of them carries.
        audio_root: the folder that `audio` is relative to.
        what_cannot_be_broken_down: plain sentences, one for each analysis that these data cannot carry.
        notes: what the reader should know of how they were read.
    """

    ratings: pd.DataFrame | None = field(repr=False)
    pairs: pd.DataFrame = field(repr=False)
    label: str
    audio_root: Path
    what_cannot_be_broken_down: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def counts(self) -> pd.DataFrame:
        """Ratings, pairs, captions, clips and listeners of each split and of all; <NA> for what is not known."""
        rows = {}
        for split in ("train", "test", "all"):
            pairs = self.pairs if split == "all" else self.pairs[self.pairs["split"] == split]
            row = {"ratings": pd.NA, "pairs": len(pairs), "captions": pairs["text"].nunique()}
            row |= {"clips": pairs["audio"].nunique(), "listeners": pd.NA}
            if self.ratings is not None:
                ratings = self.ratings if split == "all" else self.ratings[self.ratings["split"] == split]
                row["ratings"] = len(ratings)
                row["listeners"] = pd.NA if _unnamed(self.ratings) else ratings["listener"].nunique()
            rows[split] = row
        return pd.DataFrame(rows, dtype="Int64").T.rename_axis("split")

    def with_drawn_split(self, train_share: float = 0.5, seed: int = 0) -> RatedSet:
        """The same set with whole captions drawn into train (about `train_share` of the pairs), the others into test.

        For a set without a split of its own, so that a floor can be fitted on other captions than it is tested on.
        ValueError for a set that has train and test already, and as `relate.split_train_validation`.
        """
        if self.pairs["split"].nunique() > 1:
            raise ValueError(f"{self.label} come with a split of their own, train and test: use that")
        train, _ = split_train_validation(self.pairs.assign(split="train"), train_share, by="caption", seed=seed)
        captions = set(train["text"])

        def split(table: pd.DataFrame) -> pd.DataFrame:
            return table.assign(split=np.where(table["text"].isin(captions), "train", "test"))

        ratings = None if self.ratings is None else split(self.ratings)
        pairs = split(self.pairs)
        drawn = f"the split was drawn here: {len(train)} of {len(pairs)} pairs train, by caption (seed {seed})"
        return replace(
            self, ratings=ratings, pairs=pairs, notes=(*self.notes, drawn),
            what_cannot_be_broken_down=tuple(_limits(ratings, pairs)),
        )  # fmt: skip

    def __str__(self) -> str:
        total = self.counts().loc["all"]
        ratings = "means only" if self.ratings is None else f"{total['ratings']:,} ratings"
        lines = [f"{self.label}: {total['pairs']:,} pairs, {ratings}"]
        lines += [f"- {sentence}" for sentence in (*self.notes, *self.what_cannot_be_broken_down)]
        return "\n".join(lines)


def load_rated_set(
    path: str | os.PathLike,
    kind: str = "auto",
    scale: tuple[float, float] = (0, 10),
    audio_root: str | os.PathLike | None = None,
    label: str | None = None,
    need_audio: bool = True,
) -> RatedSet:
    """Load a rated set: XACLE's folder or one of its files, or a plain CSV.

    Args:
        path: the folder with XACLE's meta_data/ and wav/ (single ratings are taken where they are there, else the
            `*_average.csv`), one CSV of its meta_data/, or a CSV with the columns audio, text, rating and, as far as
            they are known, listener, system (recordings are called "natural") and split (train or test; without it
            all is test).
        kind: "plain", "xacle", or "auto": by the names of the columns.
        scale: lowest and highest rating in the file; anything but 0-10 is mapped onto it linearly.
        audio_root: what the clips are relative to. None: XACLE's wav/, or the folder of the CSV.
        label: the data's name; None: "XACLE ratings", or the file's name.
        need_audio: whether a clip that is not there is an error; else such clips are counted in `notes`.

    Without a column listener, several lines of a pair are single ratings by people unknown, and one line a pair is a
    mean. XACLE's validation set becomes the split "test".

    Raises:
        FileNotFoundError: no such file or folder.
        RatedSetError: what cannot be used as it is, by file, line and column; clips that are not there, counted.
        ValueError: a kind or a scale that is not allowed.
    """
    path = Path(path)
    low_high = _checked_scale(scale)
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not known. Available: {', '.join(KINDS)}")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: give a CSV of ratings, or XACLE's folder (with meta_data/)")
    if path.is_dir():
        if kind == "plain":
            raise RatedSetError(f"{path} is a folder; a plain set is one CSV file")
        files, root, name = _xacle_folder(path, low_high), path / "wav", "XACLE ratings"
    elif (kind_of(path) if kind == "auto" else kind) == "xacle":
        files, root, name = [_xacle_file(path, low_high)], path.parent.parent / "wav", "XACLE ratings"
    else:
        files, root, name = [read_rated_file(path, "plain", low_high)], path.parent, f"ratings of {path.stem}"
    root = root if audio_root is None else Path(audio_root)

    single = [ratings for file in files if (ratings := file.ratings()) is not None]
    ratings = pd.concat(single, ignore_index=True) if single else None
    pairs = [file.pairs() for file in files]
    if len(single) < len(files):
        pairs = [part.astype({"n_ratings": float}) for part in pairs]
    pairs = pd.concat(pairs, ignore_index=True).sort_values(["audio", "text"], ignore_index=True)
    notes = [*_notes(files, low_high), *_missing_clips(pairs, root, need_audio)]
    return RatedSet(ratings, pairs, label or name, root, tuple(_limits(ratings, pairs)), tuple(notes))


# --- files -> columns -----------------------------------------------------------------------------------


def _checked_scale(scale) -> tuple[float, float]:
    numbers = isinstance(scale, (tuple, list)) and len(scale) == 2
    numbers = numbers and all(isinstance(end, Real) and not isinstance(end, bool) for end in scale)
    if not numbers or not (math.isfinite(scale[0]) and math.isfinite(scale[1]) and scale[0] < scale[1]):
        raise ValueError(f"scale={scale!r}: allowed are two numbers, lowest and highest rating, for instance (1, 5)")
    return float(scale[0]), float(scale[1])


def _xacle_folder(folder: Path, scale: tuple[float, float]) -> list[RatedFile]:
    meta_data = folder / "meta_data"
    files = []
    for split in _XACLE_SPLITS:
        there = [path for path in (meta_data / f"{split}.csv", meta_data / f"{split}_average.csv") if path.is_file()]
        files += [_xacle_file(path, scale) for path in there[:1]]
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no rated set: expected meta_data/train.csv or meta_data/validation.csv, or their "
            "_average.csv (XACLE's); or give the path of a CSV"
        )
    return files


def _xacle_file(path: Path, scale: tuple[float, float]) -> RatedFile:
    """A file of XACLE's, its split by its name and its clips below wav/<split>/."""
    file = read_rated_file(path, "xacle", scale)
    split = path.stem.removesuffix("_average")
    if split not in _XACLE_SPLITS:
        raise RatedSetError(
            f"{path}: XACLE's files are called {', '.join(_XACLE_SPLITS)} or the same with _average, which says where "
            "the clips lie; rename it, or give a plain CSV with the columns audio, text, rating"
        )
    audio = [name if name.startswith(f"{split}/") else f"{split}/{name}" for name in file.table["audio"]]
    return replace(file, table=file.table.assign(audio=audio, split=_XACLE_SPLITS[split]))


# --- what to know of them -------------------------------------------------------------------------------


def _unnamed(ratings: pd.DataFrame) -> bool:
    return bool(ratings["listener"].str.startswith(UNNAMED).all())


def _notes(files: list[RatedFile], scale: tuple[float, float]) -> list[str]:
    notes = []
    if ignored := sorted({name for file in files for name in file.ignored}):
        notes.append(f"columns not read: {', '.join(ignored)}")
    if scale != (0, 10):
        notes.append(f"ratings from {scale[0]:g} to {scale[1]:g} were mapped onto 0 to 10")
    low, high = (pick(pick(file.table["rating"]) for file in files) for pick in (min, max))
    if scale == (0, 10) and high <= 5:
        notes.append(
            f"no rating is above {high:g} (the lowest is {low:g}): if the scale ends there, name it with "
            "scale=(lowest, highest), or every target is too low"
        )
    return notes


def _missing_clips(pairs: pd.DataFrame, root: Path, need_audio: bool) -> list[str]:
    clips = pairs["audio"].unique()
    absent = [audio for audio in clips if not (root / audio).is_file()]
    if not absent:
        return []
    said = f"{len(absent)} of {len(clips)} clips are not in {root}, the first is {absent[0]}"
    if need_audio:
        raise RatedSetError(f"{said}. Give the folder that they are relative to as audio_root, or take their lines out")
    return [f"{said}: their pairs cannot be scored"]


def _limits(ratings: pd.DataFrame | None, pairs: pd.DataFrame) -> list[str]:
    """What these data cannot be broken down by, and why."""
    limits = []
    systems = set(pairs["system"].dropna())
    if not systems:
        limits.append("no system known: no Table II, nothing within systems, and a floor that knows only the caption")
    elif "natural" not in systems:
        limits.append("no system is called natural: Tables II and III do not tell natural from synthesized audio")
    limits.append("no anchors: listeners cannot be screened by them, and there is no anchor control")
    if ratings is None:
        limits.append("means without their listeners: no reliability, no ceiling, no numbers of ratings")
    else:
        if _unnamed(ratings):
            limits.append("no listeners named: nobody can be judged, and a line that stands there twice counts twice")
        if pairs["n_ratings"].isna().any():
            part = " and ".join(sorted(set(pairs.loc[pairs["n_ratings"].isna(), "split"])))
            limits.append(f"the {part} pairs are means without their listeners: no reliability and no ceiling for them")
        if ratings.groupby(["audio", "text"]).size().max() < 2:
            limits.append("every pair has a single rating: no reliability and no ceiling")
    splits = set(pairs["split"])
    if "train" not in splits:
        limits.append("no training pairs: nothing to fit a floor or a fine-tuning on (with_drawn_split makes some)")
    if "test" not in splits:
        limits.append("no test pairs: nothing that the training has not seen (with_drawn_split makes some)")
    return limits
