"""Other rated sets than RELATE, with the columns that everything here works on: XACLE, or a plain CSV."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from .checks import listed, number
from .files import expanded
from .relate import aggregate_pairs
from .relate.ratings import SPLITS, refuse_duplicates
from .tables import Table, clip_name, read_table, stays_below

__all__ = ["RatedSet", "RatedSetError", "load_rated_set"]

SPELLINGS = {
    "plain": {role: (role,) for role in ("audio", "text", "rating", "listener", "system", "split")},
    "xacle": {
        "audio": ("wave_file_name", "wav_file_name"),
        "text": ("text",),
        "rating": ("11_point_semantic_alignment_score", "semantic_alignment_score", "score"),
        "average": ("average_semantic_alignment_score", "average_score"),
        "listener": ("listener_id", "listener"),
        "system": ("model_id", "system"),
    },
}
"""Kind of file -> role -> names of its column; XACLE's as its description spells them, and as its baseline code does."""

_XACLE_SPLITS = ("train", "validation", "test")
_UNKNOWN = {"system": None, "split": "test"}
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


def load_rated_set(
    path: str | os.PathLike,
    scale: tuple[float, float] = (0, 10),
    audio_root: str | os.PathLike | None = None,
    need_audio: bool = True,
) -> RatedSet:
    """Load a rated set: XACLE's folder or one of its files, or a plain CSV; the names of the columns say which.

    Args:
        path: the folder with XACLE's meta_data/ and wav/ (single ratings are taken where they are there, else the
            `*_average.csv`), one CSV of its meta_data/, or a CSV with the columns audio, text, rating and, as far as
            they are known, listener, system (recordings are called "natural") and split (train or test; without it
            all is test).
        scale: lowest and highest rating in the file; anything but 0-10 is mapped onto it linearly.
        audio_root: what the clips are relative to. None: XACLE's wav/, or the folder of the CSV.
        need_audio: whether a clip that is not there is an error; `judge` hears none.

    Without a column listener, several lines of a pair are single ratings by people unknown, and one line per pair is a
    mean. XACLE's three splits are all rated; where its test set is not here, the validation set takes its place.

    Raises:
        FileNotFoundError: no such file or folder.
        RatedSetError: what cannot be used as it is, by file, line and column; clips that are not there, counted.
        ValueError: a scale that is not allowed.
    """
    path, scale = expanded(path), _checked_scale(scale)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: give a CSV of ratings, or XACLE's folder (with meta_data/)")
    tables = [read_table(file, RatedSetError) for file in (_xacle_files(path) if path.is_dir() else [path])]
    kind = "xacle" if path.is_dir() else _kind_of(tables[0])
    columns = [_columns(table, kind) for table in tables]
    rows = [_rows(table, roles, kind, scale) for table, roles in zip(tables, columns)]
    if audio_root is not None:
        root = expanded(audio_root)
    elif kind == "xacle":
        root = (path if path.is_dir() else path.parent.parent) / "wav"
    else:
        root = path.parent

    splits = {split for part in rows for split in part["split"]}
    took_validation = kind == "xacle" and "validation" in splits and "test" not in splits
    if took_validation:
        rows = [part.assign(split=part["split"].replace("validation", "test")) for part in rows]
    single = [part for part in rows if part["listener"].notna().all()]
    pairs = [_means(part) for part in rows if part["listener"].isna().any()]
    ratings = None
    if single:
        ratings = pd.concat(single, ignore_index=True).assign(relate_split="", is_anchor=False)[_RATING_COLUMNS]
        known = ratings["system"].notna().all()  # aggregate_pairs wants one
        averaged = aggregate_pairs(ratings if known else ratings.assign(system="unknown"))
        averaged = averaged if known else averaged.assign(system=None)
        pairs.append(averaged.astype({"n_ratings": float}) if pairs else averaged)
    pairs = pd.concat(pairs, ignore_index=True).sort_values(["audio", "text"], ignore_index=True)
    clips = pairs["audio"].unique()
    if need_audio and (absent := [audio for audio in clips if not (root / audio).is_file()]):
        raise RatedSetError(
            f"{len(absent)} of {len(clips)} clips are not in {root}, the first is {absent[0]}. Give the folder that they "
            "are relative to as audio_root, or take their lines out"
        )
    ignored = sorted(
        {name for table, roles in zip(tables, columns) for name in set(table.header) - set(roles.values())}
    )
    return RatedSet(
        ratings,
        pairs,
        "XACLE ratings" if kind == "xacle" else f"ratings of {path.stem}",
        root,
        tuple(_limits(ratings, pairs)),
        (
            *(("XACLE's test set is not here: its validation set is called test",) if took_validation else ()),
            *_notes(pd.concat([part["rating"] for part in rows]), ignored, scale),
        ),
    )


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that are means, with the columns of `relate.aggregate_pairs`; n_ratings and rating_std are NaN."""
    mean = rows["rating"].astype(float)
    return rows.assign(mean_rating=mean, n_ratings=np.nan, rating_std=np.nan, target=mean / 10)[_PAIR_COLUMNS]


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


def _rows(table: Table, columns: dict[str, str], kind: str, scale: tuple[float, float]) -> pd.DataFrame:
    """Check one file; its rows as audio, text, rating (0-10), listener (None: means), system (None: unknown), split.

    The case of column names and what joins their words do not matter. RatedSetError, with file, line and column: a
    rating that is no number or outside the scale; an empty caption; a path that is absolute or leaves the root; a split
    other than train and test; a listener, or without listeners a mean, twice on one pair; a clip with two systems or
    splits.
    """
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
    place = frame.groupby(["audio", "text"]).cumcount()
    if "listener" not in frame:
        means = is_average or not place.any()
        frame["listener"] = None if means else _UNNAMED + (place + 1).astype(str)
    if kind == "xacle":
        frame = _in_split(frame, table.path)
    return frame.assign(**{role: value for role, value in _UNKNOWN.items() if role not in frame})


def _in_split(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A file of XACLE's, its split by its name and its clips below wav/<split>/."""
    split = path.stem.removesuffix("_average")
    if split not in _XACLE_SPLITS:
        raise RatedSetError(
            f"{path}: XACLE's files are called {', '.join(_XACLE_SPLITS)} or the same with _average, which says where "
            "the clips lie; rename it, or give a plain CSV with the columns audio, text, rating"
        )
    audio = [name if name.startswith(f"{split}/") else f"{split}/{name}" for name in frame["audio"]]
    return frame.assign(audio=audio, split=split)


def _columns(table: Table, kind: str) -> dict[str, str]:
    """Role -> the name that the column has in this file."""
    spellings, found = SPELLINGS[kind], {}
    for role, names in spellings.items():
        same = [name for name in table.header if _normal(name) in names]
        if len(same) > 1:
            raise RatedSetError(f"{table.path}, line 1: {_named(same)} are spellings of one column; keep one of them")
        if same:
            found[role] = same[0]
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


def _xacle_files(folder: Path) -> list[Path]:
    candidates = [[folder / "meta_data" / f"{split}{kind}.csv" for kind in ("", "_average")] for split in _XACLE_SPLITS]
    files = [next(path for path in paths if path.is_file()) for paths in candidates if any(map(Path.is_file, paths))]
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no rated set: expected meta_data/train.csv or meta_data/validation.csv, or their "
            "_average.csv (XACLE's); or give the path of a CSV"
        )
    return files


def _notes(ratings: pd.Series, ignored: list[str], scale: tuple[float, float]) -> list[str]:
    notes = [f"columns not read: {', '.join(ignored)}"] if ignored else []
    if scale != (0, 10):
        notes.append(f"ratings from {scale[0]:g} to {scale[1]:g} were mapped onto 0 to 10")
    elif ratings.max() <= 5:
        notes.append(
            f"no rating is above {ratings.max():g} (the lowest is {ratings.min():g}): if the scale ends there, name it "
            "with scale=(lowest, highest), or every target is too low"
        )
    return notes


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
        if ratings["listener"].str.startswith(_UNNAMED).all():
            limits.append("no listeners named: nobody can be judged, and a line that is there twice counts twice")
        if pairs["n_ratings"].isna().any():
            part = " and ".join(sorted(set(pairs.loc[pairs["n_ratings"].isna(), "split"])))
            limits.append(f"the {part} pairs are means without their listeners: no reliability and no ceiling for them")
        if ratings.groupby(["audio", "text"]).size().max() < 2:
            limits.append("every pair has a single rating: no reliability and no ceiling")
    splits = set(pairs["split"])
    if "train" not in splits:
        limits.append("no training pairs: nothing to fit a floor or a fine-tuning on")
    if "test" not in splits:
        limits.append("no test pairs: nothing that the training has not seen")
    return limits
