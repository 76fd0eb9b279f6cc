"""Other rated sets than RELATE, with the columns that everything here works on: XACLE, or a plain CSV."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from .checks import choice, listed, number
from .files import expanded
from .relate import aggregate_pairs, split_train_validation
from .relate.ratings import SPLITS, refuse_duplicates
from .tables import Table, clip_name, read_table, stays_below

__all__ = ["KINDS", "XACLE_REQUEST", "RatedSet", "RatedSetError", "load_rated_set"]

SPELLINGS = {
    "plain": {role: (role,) for role in ("audio", "text", "rating", "listener", "system", "split")},
    "xacle": {
        "audio": ("wave_file_name", "wav_file_name"),
        "text": ("text",),
        "rating": ("11_point_semantic_alignment_score", "semantic_alignment_score", "score"),
        "average": ("average_semantic_alignment_score", "average_score"),
        "listener": ("listener_id", "listener"),
    },
}
"""Kind of file -> role -> names of its column; XACLE's as its description spells them, and as its baseline code does."""

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
_UNNAMED = "unnamed "  # how a listener's id begins where the file names none; their number within the pair follows
_RATING_COLUMNS = ["audio", "text", "rating", "listener", "system", "split", "relate_split", "is_anchor"]
_PAIR_COLUMNS = ["audio", "text", "system", "split", "n_ratings", "mean_rating", "rating_std", "target"]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class RatedSetError(ValueError):
    """A rated set that cannot be used as it is; the message names the file, the place, and what to do."""


@dataclass(frozen=True)
class RatedSet:
    """Rated pairs that are not RELATE's, in its columns.

    Attributes:
        ratings: one row per rating, columns of `relate.load_ratings` (`is_anchor` False, `relate_split` empty); `system`
            is None where no system is known. None as a whole where the set holds nothing but means.
        pairs: one row per pair, columns of `relate.aggregate_pairs`; `n_ratings` and `rating_std` NaN for means.
        label: the data's name, which every figure and table of them carries.
        audio_root: the folder that `audio` is relative to.
        what_cannot_be_broken_down: sentences, one for each analysis that these data cannot support.
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
    path, scale, kind = expanded(path), _checked_scale(scale), choice(kind, "kind", KINDS)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: give a CSV of ratings, or XACLE's folder (with meta_data/)")
    if path.is_dir():
        if kind == "plain":
            raise RatedSetError(f"{path} is a folder; a plain set is one CSV file")
        files, root, name = _xacle_folder(path, scale), path / "wav", "XACLE ratings"
    else:
        table = read_table(path, RatedSetError)
        if (_kind_of(table) if kind == "auto" else kind) == "xacle":
            files, root, name = [_xacle_file(table, scale)], path.parent.parent / "wav", "XACLE ratings"
        else:
            files, root, name = [_rated_file(table, "plain", scale)], path.parent, f"ratings of {path.stem}"
    root = root if audio_root is None else expanded(audio_root)

    single = [ratings for file in files if (ratings := file.ratings()) is not None]
    ratings = pd.concat(single, ignore_index=True) if single else None
    pairs = [file.pairs() for file in files]
    if len(single) < len(files):
        pairs = [part.astype({"n_ratings": float}) for part in pairs]
    pairs = pd.concat(pairs, ignore_index=True).sort_values(["audio", "text"], ignore_index=True)
    notes = [*_notes(files, scale), *_missing_clips(pairs, root, need_audio)]
    return RatedSet(ratings, pairs, label or name, root, tuple(_limits(ratings, pairs)), tuple(notes))


# --- files -> columns -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _RatedFile:
    """One file's rows: `table` with audio, text, rating (0-10) and, where the file has them, listener, system, split.

    is_average: the ratings are means. ignored: columns that nothing here reads.
    """

    table: pd.DataFrame
    is_average: bool
    ignored: tuple[str, ...]

    def ratings(self) -> pd.DataFrame | None:
        """One row per rating, columns of `relate.load_ratings`; None where the file holds means."""
        place = self.table.groupby(["audio", "text"]).cumcount()
        if self.is_average or ("listener" not in self.table and not place.any()):
            return None
        listener = _UNNAMED + (place + 1).astype(str)
        table = self._with({"listener": listener, "system": None, "split": "test"})
        return table.assign(relate_split="", is_anchor=False)[_RATING_COLUMNS]

    def pairs(self) -> pd.DataFrame:
        """One row per pair, columns of `relate.aggregate_pairs`; n_ratings and rating_std are NaN for means."""
        ratings = self.ratings()
        if ratings is None:
            means = self._with({"system": None, "split": "test"})
            mean = means["rating"].astype(float)
            return means.assign(mean_rating=mean, n_ratings=np.nan, rating_std=np.nan, target=mean / 10)[_PAIR_COLUMNS]
        if ratings["system"].isna().all():  # aggregate_pairs wants one
            return aggregate_pairs(ratings.assign(system="unknown")).assign(system=None)
        return aggregate_pairs(ratings)

    def _with(self, defaults: dict) -> pd.DataFrame:
        """The table, with a column of `defaults` for each that it lacks."""
        return self.table.assign(**{name: value for name, value in defaults.items() if name not in self.table})


def _checked_scale(scale) -> tuple[float, float]:
    try:
        low, high = (number(end, "scale") for end in scale)
        if low < high:
            return low, high
    except (TypeError, ValueError):
        pass  # said below
    raise ValueError(f"scale={scale!r}: allowed are two numbers, lowest and highest rating, for instance (1, 5)")


def _kind_of(table: Table) -> str:
    """ "plain" or "xacle", by the names of the columns; RatedSetError where they are of neither."""
    names = {_normal(name) for name in table.header}
    if "wavname" in names:
        raise RatedSetError(f"{table.path} is in RELATE's own format: read it with relate.load_ratings")
    for kind, spellings in SPELLINGS.items():
        if names & set(spellings["audio"]):
            return kind
    raise RatedSetError(
        f"{table.path}, line 1: no column for the clips. It has {_named(table.header)}; needed are audio, text, rating "
        "(a plain CSV), or wave_file_name, text, 11_point_semantic_alignment_score (XACLE's)"
    )


def _rated_file(table: Table, kind: str, scale: tuple[float, float]) -> _RatedFile:
    """Check one file of the kind "plain" or "xacle"; ratings on `scale` become 0-10.

    The case of column names and what joins their words do not matter. RatedSetError, with file, line and column: a
    column is missing or there in two spellings; a rating that is no number or outside the scale; an empty caption; a
    path that is absolute or leaves the root; a split other than train and test; a listener, or without listeners a mean,
    twice on one pair; a clip with two systems or splits.
    """
    columns = _columns(table, kind)
    is_average = "rating" not in columns
    score = columns["average" if is_average else "rating"]
    low, high = scale
    for column, valid, allowed in (
        (columns["audio"], lambda name: name.strip(), "a file name must not be empty"),
        (columns["audio"], stays_below, "it must be relative to the audio's root and stay below it"),
        (columns["text"], lambda caption: caption.strip(), "a caption must not be empty"),
        (score, _is_number, "a rating is a number, decimals with a point"),
        (
            score,
            lambda value: low <= float(value) <= high,
            f"ratings run from {low:g} to {high:g} here; another scale is named as scale=(lowest, highest), e.g. (1, 5)",
        ),
    ):
        table.require(column, valid, allowed)
    for role in {"listener", "system"} & set(columns):
        table.require(columns[role], lambda name: name.strip(), f"name the {role} in every line, or in none")
    if "split" in columns:
        allowed = f"it is {' or '.join(SPLITS)} (what is evaluated on is called test)"
        table.require(columns["split"], lambda split: split.strip() in SPLITS, allowed)

    roles = [role for role in ("audio", "text", "listener", "system", "split") if role in columns]
    frame = pd.DataFrame({role: table.stripped(columns[role]) for role in roles})
    frame["audio"] = [clip_name(name) for name in frame["audio"]]
    rating = (pd.Series([float(value) for value in table.columns[score]]) - low) * (10 / (high - low))
    whole = not is_average and (rating == rating.round()).all()
    frame.insert(2, "rating", rating.astype(int) if whole else rating)
    if "listener" in frame or is_average:  # of people without a name nobody can tell a copy from another's rating
        refuse_duplicates(frame, table)
    _refuse_two_homes(frame, table)
    return _RatedFile(frame, is_average, tuple(name for name in table.header if name not in columns.values()))


def _columns(table: Table, kind: str) -> dict[str, str]:
    """Role -> the name that the column has in this file."""
    spellings, found = SPELLINGS[kind], {}
    for role, names in spellings.items():
        same = [name for name in table.header if _normal(name) in names]
        if len(same) > 1:
            raise RatedSetError(f"{table.path}, line 1: {_named(same)} are spellings of one column; keep one of them")
        found |= {role: name for name in same}
    if "rating" in found and "average" in found:
        raise RatedSetError(
            f"{table.path}, line 1: {found['rating']!r} and {found['average']!r} both hold ratings; keep the single "
            "ratings, or the averages in a file of their own"
        )
    missing = [role for role in ("audio", "text") if role not in found]
    missing += ["rating"] * ("rating" not in found and "average" not in found)
    missing += ["listener"] * (kind == "xacle" and "rating" in found and "listener" not in found)
    if missing:
        wanted = "; ".join(f"{role}: {' or '.join(spellings[role])}" for role in missing)
        raise RatedSetError(f"{table.path}, line 1: no column for {wanted}. It has {_named(table.header)}")
    table.need((), row="rating")
    return found


def _refuse_two_homes(frame: pd.DataFrame, table: Table) -> None:
    for column in {"system", "split"} & set(frame):
        first = frame.groupby("audio")[column].transform("first")
        if (frame[column] != first).any():
            row = int((frame[column] != first).to_numpy().argmax())
            raise RatedSetError(
                f"{table.path}, line {table.lines[row]}, column {column!r}: {frame['audio'][row]} is of "
                f"{frame[column][row]!r} here and of {first[row]!r} before; a clip has one {column}"
            )


def _normal(name: str) -> str:
    """A column's name without case and punctuation, and with XACLE's "alignement" spelt as its others."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").replace("alignement", "alignment")


def _named(names) -> str:
    return listed(map(repr, names)) or "nothing"


def _is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value.strip()) is not None and math.isfinite(float(value))


def _xacle_folder(folder: Path, scale: tuple[float, float]) -> list[_RatedFile]:
    meta_data = folder / "meta_data"
    files = []
    for split in _XACLE_SPLITS:
        there = [path for path in (meta_data / f"{split}.csv", meta_data / f"{split}_average.csv") if path.is_file()]
        files += [_xacle_file(read_table(path, RatedSetError), scale) for path in there[:1]]
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no rated set: expected meta_data/train.csv or meta_data/validation.csv, or their "
            "_average.csv (XACLE's); or give the path of a CSV"
        )
    return files


def _xacle_file(table: Table, scale: tuple[float, float]) -> _RatedFile:
    """A file of XACLE's, its split by its name and its clips below wav/<split>/."""
    file, path = _rated_file(table, "xacle", scale), table.path
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
    return bool(ratings["listener"].str.startswith(_UNNAMED).all())


def _notes(files: list[_RatedFile], scale: tuple[float, float]) -> list[str]:
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
            limits.append("no listeners named: nobody can be judged, and a line that is there twice counts twice")
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
