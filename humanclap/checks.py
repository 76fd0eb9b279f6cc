"""What every function asks of its arguments, in one style of message: the name, what it must be, what it is."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Collection, Iterable, Sized
from numbers import Integral, Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


class ExtraMissing(ImportError, ValueError):
    """A package of one of the extras is not installed; the message says how to install it."""


def need_extra(package: str, extra: str, what: str) -> None:
    """Raise ExtraMissing unless `package`, which belongs to `extra` and which `what` needs, is installed.

    The package itself is not imported. humanclap is on no package index, so the message installs from the checkout.
    """
    if importlib.util.find_spec(package) is not None:
        return
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    only = f", with Python 3.11 or 3.12 (this is {here})" if extra in ("laion", "msclap") else ""
    raise ExtraMissing(
        f"{what} needs {package.replace('_', '-')} of humanclap[{extra}]: in the checkout, pip install '.[{extra}]'{only}"
    )


def listed(items: Iterable) -> str:
    """Names for a message: a, b, c."""
    return ", ".join(map(str, items))


def shown(value: object) -> str:
    """`repr` of a value, without numpy's wrapping: nan, not np.float64(nan)."""
    return repr(value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value)


def whole_number(value: object, name: str, least: int = 0) -> int:
    """`value` as an int; ValueError unless it is a whole number of at least `least` (True and 1.0 are none)."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {shown(value)}")
    return int(value)


def number(value: object, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    """`value` as a float; ValueError unless it is a finite number from `least` to `most` (True is none)."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or not least <= value <= most:
        low, high = math.isfinite(least), math.isfinite(most)
        limits = f" from {least:g} to {most:g}" if low and high else f" of at least {least:g}" if low else ""
        raise ValueError(f"{name} must be a number{limits or f' of at most {most:g}' * high}, not {shown(value)}")
    return float(value)


def choice(value: object, name: str, allowed: Collection) -> object:
    """`value`; ValueError unless it is one of `allowed`, which the message lists."""
    if value not in tuple(allowed):
        raise ValueError(f"{name} must be one of {listed(allowed)}, not {shown(value)}")
    return value


def need_columns(frame: pd.DataFrame, name: str, columns: Iterable[str], filled: bool = False) -> None:
    """TypeError where `frame` (called `name`) is no DataFrame, ValueError where it lacks one of the columns.

    filled: an empty cell (None, NaN) in one of them is a ValueError as well; the message counts them.
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        hint = ": pass its .ratings" if hasattr(frame, "ratings") else ""
        raise TypeError(f"{name} must be a DataFrame, not {type(frame).__name__}{hint}")
    columns = list(dict.fromkeys(columns))
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"{name} has no column {listed(missing)}; it has: {listed(frame.columns)}")
    for column in columns if filled else ():
        empty = int(frame[column].isna().sum())
        if empty:
            raise ValueError(
                f"{name}: {empty} of {len(frame)} rows have no {column}; fill them in, or drop and count them"
            )


def need_same_length(**values: Sized) -> None:
    """ValueError unless all have one length; the names are those of the arguments."""
    lengths = {name: len(value) for name, value in values.items()}
    if len(set(lengths.values())) > 1:
        sizes = " and ".join(f"{n} {name}" for name, n in lengths.items())
        raise ValueError(
            f"{sizes} were given; there must be as many of each, row i of one going with row i of the other"
        )


def anchor_mask(ratings: pd.DataFrame):
    """`is_anchor` as a boolean array [N]; ValueError where it holds anything but True and False.

    A column that went through `concat` can be of objects, and `~` of a Python bool is a number that is always true.
    """
    import numpy as np

    for value in ratings["is_anchor"] if ratings["is_anchor"].dtype != bool else ():
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"is_anchor holds {shown(value)}; allowed: True and False (no text, no numbers)")
    return ratings["is_anchor"].to_numpy(dtype=bool)


def need_ratings(ratings: pd.DataFrame) -> None:
    """ValueError where `rating` is not a number from 0 to 10, or one listener rates a pair twice."""
    import pandas as pd

    rating = ratings["rating"]
    numbers = pd.api.types.is_numeric_dtype(rating)
    bad = ~rating.between(0, 10).to_numpy() if numbers else pd.Series(True, ratings.index).to_numpy()
    if bad.any():
        first = shown(rating[bad].iloc[0])
        raise ValueError(f"{int(bad.sum())} of {len(ratings)} ratings are not 0 to 10, first: {first}")
    twice = ratings.duplicated(["audio", "text", "listener"])
    if twice.any():
        audio, text, listener = ratings.loc[twice, ["audio", "text", "listener"]].iloc[0]
        raise ValueError(
            f"{int(twice.sum())} ratings are there twice, first: listener {listener}, {audio}, {text!r}; "
            "one rating per listener and pair is allowed"
        )
