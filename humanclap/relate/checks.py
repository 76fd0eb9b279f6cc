"""What every function of this package asks of a table of ratings or pairs that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype


def need_table(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Raise TypeError for anything but a DataFrame, ValueError for a missing column or an empty cell in one."""
    if not isinstance(table, pd.DataFrame):
        hint = ": pass its .ratings" if hasattr(table, "ratings") else ""
        raise TypeError(f"{name} is a {type(table).__name__}, it must be a DataFrame{hint}")
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{name} has no column {', '.join(missing)}; it has: {', '.join(map(str, table.columns))}")
    for column in columns:
        empty = int(table[column].isna().sum())
        if empty:
            raise ValueError(
                f"{name}: {empty} of {len(table)} rows have no {column}; fill them in, or drop and count them"
            )


def anchor_mask(ratings: pd.DataFrame) -> np.ndarray:
    """`is_anchor` as a boolean array [N]; ValueError where it holds anything but True and False.

    A column that went through `concat` can be of objects, and `~` of a Python bool is a number that is always true.
    """
    column = ratings["is_anchor"]
    if not is_bool_dtype(column) and not column.map(lambda value: isinstance(value, (bool, np.bool_))).all():
        strange = next(value for value in column if not isinstance(value, (bool, np.bool_)))
        raise ValueError(f"is_anchor holds {strange!r}; allowed: True and False (no text, no numbers)")
    return column.to_numpy(dtype=bool)


def need_ratings(ratings: pd.DataFrame) -> None:
    """Raise ValueError where `rating` is not a number from 0 to 10, or one listener rates a pair twice."""
    rating = ratings["rating"]
    bad = ~rating.between(0, 10) if is_numeric_dtype(rating) else pd.Series(True, ratings.index)
    if bad.any():
        raise ValueError(f"{int(bad.sum())} of {len(ratings)} ratings are not 0 to 10, first: {rating[bad].iloc[0]!r}")
    twice = ratings.duplicated(["audio", "text", "listener"])
    if twice.any():
        audio, text, listener = ratings.loc[twice, ["audio", "text", "listener"]].iloc[0]
        raise ValueError(
            f"{int(twice.sum())} ratings stand there twice, first: listener {listener}, {audio}, {text!r}; "
            "one rating a listener and pair is allowed"
        )


def need_seed(seed) -> int:
    """The seed as an int; ValueError unless it is a whole number of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed={seed!r}: allowed is a whole number of at least 0")
    return int(seed)
