"""What every function here asks of its input, said once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd


def listed(items: Iterable) -> str:
    """Names for an error message: a, b, c."""
    return ", ".join(map(str, items))


def need_columns(frame: pd.DataFrame, name: str, columns: Iterable[str]) -> None:
    """ValueError where `frame` (called `name`) lacks one of the columns."""
    missing = [column for column in dict.fromkeys(columns) if column not in frame]
    if missing:
        raise ValueError(f"{name} has no column {listed(missing)}; it has: {listed(frame.columns)}")


def as_vector(values, name: str) -> np.ndarray:
    """`values` as a finite float64 vector [N], by position (a pandas index is not looked at).

    Raises ValueError, naming `name`, where it is not one-dimensional, not numeric, or holds NaN or infinity.
    """
    if isinstance(values, np.ma.MaskedArray):
        values = values.astype(float).filled(np.nan)  # np.asarray would bring masked values back in silence
    try:
        to_numpy = getattr(values, "to_numpy", None)  # pandas: its NA becomes NaN, and is refused below
        vector = to_numpy(dtype=float, na_value=np.nan) if to_numpy else np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
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
