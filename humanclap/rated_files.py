"""One file of ratings that are not RELATE's: XACLE's, or a plain CSV, checked value by value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .csv_text import TextTable, read_text_table, stays_below
from .relate import aggregate_pairs

PLAIN = {
    "audio": ("audio",),
    "text": ("text",),
    "rating": ("rating",),
    "listener": ("listener",),
    "system": ("system",),
    "split": ("split",),
}
"""Columns of a plain CSV; the first three are needed."""

XACLE = {
    "audio": ("wave_file_name", "wav_file_name"),
    "text": ("text",),
    "rating": ("11_point_semantic_alignment_score", "semantic_alignment_score", "score"),
    "average": ("average_semantic_alignment_score", "average_score"),
    "listener": ("listener_id", "listener"),
}
"""Columns of XACLE's files: as its description spells them, and as its baseline code reads them."""

SPELLINGS = {"plain": PLAIN, "xacle": XACLE}
SPLITS = ("train", "test")
UNNAMED = "unnamed "
"""How a listener's id begins where the file names none; their number within the pair follows."""

_RATING_COLUMNS = ["audio", "text", "rating", "listener", "system", "split", "relate_split", "is_anchor"]
_PAIR_COLUMNS = ["audio", "text", "system", "split", "n_ratings", "mean_rating", "rating_std", "target"]
_NO_MEAN = {"system": None, "split": "test", "n_ratings": np.nan, "rating_std": np.nan}

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class RatedSetError(ValueError):
    """A rated set that cannot be used as it is; the message names the file, the place, and what mends it."""


@dataclass(frozen=True)
class RatedFile:
    """One file's rows: `table` with audio, text, rating (0-10) and, where the file has them, listener, system, split.

    is_average: the ratings are means. ignored: columns that nothing here reads.
    """

    table: pd.DataFrame
    is_average: bool
    ignored: tuple[str, ...]

    def ratings(self) -> pd.DataFrame | None:
        """One row a rating, columns of `relate.load_ratings`; None where the file holds means.

        Without a column listener, several rows of a pair are by people unknown, and one row a pair is a mean. A set
        without systems has None there, one without splits is all test.
        """
        place = self.table.groupby(["audio", "text"]).cumcount()
        if self.is_average or ("listener" not in self.table and not place.any()):
            return None
        known = {"listener": UNNAMED + (place + 1).astype(str), "system": None, "split": "test"}
        known |= {"relate_split": "", "is_anchor": False}
        return self.table.assign(**{c: v for c, v in known.items() if c not in self.table})[_RATING_COLUMNS]

    def pairs(self) -> pd.DataFrame:
        """One row a pair, columns of `relate.aggregate_pairs`; n_ratings and rating_std are NaN for means."""
        ratings = self.ratings()
        if ratings is None:
            means = self.table.assign(**{c: v for c, v in _NO_MEAN.items() if c not in self.table})
            means["mean_rating"] = means["rating"].astype(float)
            return means.assign(target=means["mean_rating"] / 10)[_PAIR_COLUMNS]
        if ratings["system"].isna().all():  # aggregate_pairs wants one
            return aggregate_pairs(ratings.assign(system="unknown")).assign(system=None)
        return aggregate_pairs(ratings)


def kind_of(path: Path) -> str:
    """ "plain" or "xacle", by the names of the columns; RatedSetError where they are of neither."""
    header = read_text_table(path, RatedSetError, ",;\t").header
    names = {_normal(name) for name in header}
    if "wavname" in names:
        raise RatedSetError(f"{path} is in RELATE's own format: read it with relate.load_ratings")
    for kind, spellings in SPELLINGS.items():
        if names & set(spellings["audio"]):
            return kind
    raise RatedSetError(
        f"{path}, line 1: no column for the clips. It has {_named(header)}; needed are {_needed(PLAIN)} (a plain CSV), "
        f"or {_needed(XACLE)} (XACLE's)"
    )


def read_rated_file(path: Path, kind: str, scale: tuple[float, float] = (0, 10)) -> RatedFile:
    """Read one file of the kind "plain" or "xacle"; ratings on `scale` become 0-10.

    Commas, semicolons or tabs part the columns; the case of column names and what joins their words do not matter.
    RatedSetError, with file, line and column: a column is missing or stands there in two spellings; a rating that is no
    number or lies outside the scale; an empty caption; a path that is absolute or leaves the root; a split other than
    train and test; a listener, or without listeners a mean, twice on one pair; a clip with two systems or splits.
    """
    text = read_text_table(path, RatedSetError, ",;\t")
    columns = _columns(text, kind)
    if not text.lines:
        raise RatedSetError(f"{path} has a header and no ratings; one line a rating is needed below it")
    is_average = "rating" not in columns
    score = columns["average" if is_average else "rating"]
    text.require(columns["audio"], lambda name: bool(name.strip()), "a file name must not be empty")
    text.require(columns["audio"], stays_below, "it must be relative to the audio's root and stay below it")
    text.require(columns["text"], lambda caption: bool(caption.strip()), "a caption must not be empty")
    text.require(score, _is_number, "a rating is a number, decimals with a point")
    low, high = scale
    text.require(
        score,
        lambda value: low <= float(value) <= high,
        f"ratings run from {low:g} to {high:g} here; another scale is named as scale=(lowest, highest), e.g. (1, 5)",
    )
    for role in ("listener", "system"):
        if role in columns:
            text.require(columns[role], lambda name: bool(name.strip()), f"name the {role} in every line, or in none")
    if "split" in columns:
        allowed = f"it is {' or '.join(SPLITS)} (what is evaluated on is called test)"
        text.require(columns["split"], lambda split: split.strip() in SPLITS, allowed)

    roles = [role for role in ("audio", "text", "listener", "system", "split") if role in columns]
    table = pd.DataFrame({role: [value.strip() for value in text.columns[columns[role]]] for role in roles})
    rating = (pd.Series([float(value) for value in text.columns[score]]) - low) * (10 / (high - low))
    whole = not is_average and (rating == rating.round()).all()
    table.insert(2, "rating", rating.astype(int) if whole else rating)
    _refuse_twice(table, text, is_average)
    _refuse_two_homes(table, text)
    return RatedFile(table, is_average, tuple(name for name in text.header if name not in columns.values()))


def _columns(text: TextTable, kind: str) -> dict[str, str]:
    """Role -> the name that the column has in this file."""
    spellings, found = SPELLINGS[kind], {}
    if not text.header:
        raise RatedSetError(f"{text.path} is empty; needed is a header with {_needed(spellings)} and one line a rating")
    for role, names in spellings.items():
        same = [name for name in text.header if _normal(name) in names]
        if len(same) > 1:
            raise RatedSetError(f"{text.path}, line 1: {_named(same)} are spellings of one column; keep one of them")
        found |= {role: name for name in same}
    if "rating" in found and "average" in found:
        raise RatedSetError(
            f"{text.path}, line 1: {found['rating']!r} and {found['average']!r} both hold ratings; keep the single "
            "ratings, or the averages in a file of their own"
        )
    missing = [role for role in ("audio", "text") if role not in found]
    missing += ["rating"] * ("rating" not in found and "average" not in found)
    missing += ["listener"] * (kind == "xacle" and "rating" in found and "listener" not in found)
    if missing:
        wanted = "; ".join(f"{role}: {' or '.join(spellings[role])}" for role in missing)
        raise RatedSetError(f"{text.path}, line 1: no column for {wanted}. It has {_named(text.header)}")
    return found


def _refuse_twice(table: pd.DataFrame, text: TextTable, is_average: bool) -> None:
    key = ["audio", "text", *(["listener"] if "listener" in table else [])]
    if "listener" not in table and not is_average:
        return  # ratings of people without a name: nobody can tell a copy from another's rating
    twice = table.duplicated(key)
    if twice.any():
        row = int(twice.to_numpy().argmax())
        first = int((table[key] == table.loc[row, key]).all(axis=1).to_numpy().argmax())
        who = f"listener {table['listener'][row]} has rated" if "listener" in table else "there is a mean for"
        raise RatedSetError(
            f"{text.path}, line {text.lines[row]}: {who} {table['audio'][row]} with {table['text'][row]!r} already on "
            f"line {text.lines[first]}; remove one of the lines ({int(twice.sum())} duplicated in all)"
        )


def _refuse_two_homes(table: pd.DataFrame, text: TextTable) -> None:
    for column in ("system", "split"):
        if column in table:
            first = table.groupby("audio")[column].transform("first")
            if (table[column] != first).any():
                row = int((table[column] != first).to_numpy().argmax())
                raise RatedSetError(
                    f"{text.path}, line {text.lines[row]}, column {column!r}: {table['audio'][row]} is of "
                    f"{table[column][row]!r} here and of {first[row]!r} before; a clip has one {column}"
                )


def _normal(name: str) -> str:
    """A column's name without case and punctuation, and with XACLE's "alignement" spelt as its others."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").replace("alignement", "alignment")


def _named(names) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _needed(spellings: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(spellings[role][0] for role in ("audio", "text", "rating"))


def _is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value.strip()) is not None and math.isfinite(float(value))
