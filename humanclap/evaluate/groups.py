"""What a bootstrap draws: groups of pairs, numbered by their labels, so that row order says nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd


def as_labels(groups, n: int | None, name: str = "groups") -> np.ndarray:
    """`groups` as a vector of objects, one label for each of `n` pairs; ValueError where it is not one."""
    labels = np.asarray(groups, dtype=object)
    if labels.ndim != 1:
        raise ValueError(
            f"{name} must have one dimension, one label (a caption) a pair; it has shape {labels.shape}"
        )
    if n is not None and len(labels) != n:
        raise ValueError(f"{name} has {len(labels)} labels for {n} pairs: it takes one a pair")
    return labels


def group_codes(groups, n: int | None = None) -> np.ndarray:
    """Labels as whole numbers 0, 1, … in the order of their values, whatever the order of the rows."""
    labels = as_labels(groups, n)
    missing = pd.isna(labels)
    if missing.any():
        raise ValueError(f"groups holds {missing.sum()} missing labels, the first at {missing.argmax()}")
    try:
        codes, names = pd.factorize(labels)
    except TypeError as error:  # a list as a label, say
        raise ValueError(f"groups holds labels that can't be told apart ({error}): use strings") from error
    try:
        in_order = sorted(range(len(names)), key=names.__getitem__)
    except TypeError:  # labels of several types, which have no order among them
        in_order = sorted(range(len(names)), key=lambda code: (type(names[code]).__name__, str(names[code])))
    place = np.empty(len(names), dtype=np.intp)
    place[in_order] = np.arange(len(names))
    return place[codes]


def own_groups(*columns: np.ndarray) -> np.ndarray:
    """A group for each pair: its place [n] when pairs are sorted by these columns [n], the first one first.

    Pairs that are equal in every column may change places: no statistic of those columns can tell.
    """
    places = np.empty(len(columns[0]), dtype=np.intp)
    places[np.lexsort(columns[::-1])] = np.arange(len(places))
    return places
