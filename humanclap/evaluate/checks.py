"""What every function here asks of its input, said once."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

import numpy as np
import pandas as pd

from humanclap.relate.checks import anchor_mask

PAIR = ["audio", "text"]


def listed(items: Iterable) -> str:
    """Names for an error message: a, b, c."""
    return ", ".join(map(str, items))


def need_columns(frame: pd.DataFrame, name: str, columns: Iterable[str]) -> None:
    """ValueError where `frame` (called `name`) lacks one of the columns, TypeError where it is no DataFrame."""
    if not isinstance(frame, pd.DataFrame):
        means = ". A set that holds only means has none, so no reliability and no ceiling" if frame is None else ""
        raise TypeError(f"{name} must be a DataFrame, not {type(frame).__name__}{means}")
    missing = [column for column in dict.fromkeys(columns) if column not in frame]
    if missing:
        raise ValueError(f"{name} has no column {listed(missing)}; it has: {listed(frame.columns)}")


def whole_number(value, name: str, least: int) -> int:
    """`value` as an int; ValueError, naming it, unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def check_level(level) -> None:
    """ValueError unless `level` is a number between 0 and 1."""
    try:
        inside = bool(0 < level < 1)
    except (TypeError, ValueError):
        inside = False
    if not inside:
        raise ValueError(f"level must lie between 0 and 1, for instance 0.95; it is {level!r}")


def as_ratings(ratings: pd.DataFrame, *also: str) -> np.ndarray:
    """The column rating [N] of a table with a row a rating: audio, text, rating and the columns `also`.

    ValueError for a missing column or cell, a rating that is no number, anchors (is_anchor true), an
    is_anchor that is neither True nor False, one listener twice on a pair.
    """
    need_columns(ratings, "ratings", (*PAIR, "rating", *also))
    for columns in (PAIR, *([column] for column in also)):
        missing = int(ratings[columns].isna().any(axis=1).sum())
        if missing:
            names = " or ".join(columns)
            raise ValueError(f"ratings has {missing} rows without {names}: every rating needs them")
    n_anchors = int(anchor_mask(ratings).sum()) if "is_anchor" in ratings else 0
    if n_anchors:
        raise ValueError(
            f"{n_anchors} ratings are of anchors, mismatched on purpose: use those of "
            "screen_listeners, or drop the rows where is_anchor is true"
        )
    if "listener" in ratings and ratings.duplicated([*PAIR, "listener"]).any():
        row = ratings[ratings.duplicated([*PAIR, "listener"])].iloc[0]
        raise ValueError(f"listener {row['listener']!r} rated {row['audio']} with {row['text']!r} twice")
    return as_vector(ratings["rating"], "rating")


def as_vector(values, name: str) -> np.ndarray:
    """`values` as a finite float64 vector [N], by position (a pandas index is not looked at).

    A torch tensor is detached: no gradient flows through a statistic. Raises ValueError, naming `name`, where
    it is not one-dimensional, not real numbers, or holds NaN or infinity.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    if isinstance(values, np.ma.MaskedArray):
        values = values.astype(float).filled(np.nan)  # np.asarray would bring masked values back in silence
    try:
        if np.iscomplexobj(values):  # numpy would drop the imaginary part with no more than a warning
            raise TypeError("they are complex")
        to_numpy = getattr(values, "to_numpy", None)  # pandas: its NA becomes NaN, and is refused below
        vector = to_numpy(dtype=float, na_value=np.nan) if to_numpy else np.asarray(values, dtype=float)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be numbers in one dimension: {error}") from error
    if vector.ndim != 1:
        raise ValueError(f"{name} must have one dimension, one value a pair; it has shape {vector.shape}")
    bad = np.flatnonzero(~np.isfinite(vector))
    if len(bad):
        raise ValueError(
            f"{name} holds {len(bad)} NaN or infinite values among {len(vector)}, the first at position "
            f"{bad[0]}: drop those pairs from every input and say how many"
        )
    return vector


def as_pair(score, target, name: str = "score") -> tuple[np.ndarray, np.ndarray]:
    """Score and target as vectors [N] of one length, N >= 2; else ValueError, with `name` for the score."""
    score, target = as_vector(score, name), as_vector(target, "target")
    if len(score) != len(target):
        raise ValueError(
            f"{name} has {len(score)} values and target {len(target)}: they must be of the same pairs"
        )
    if len(score) < 2:
        raise ValueError(f"{len(score)} pairs are too few: a correlation needs at least 2")
    return score, target
