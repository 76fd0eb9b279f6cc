"""Cells beyond the paper's tables: by what a caption tells of, and by how many people rated and how they differed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .captions import is_temporal, n_events, n_words

MOST_EVENTS = 4  # this many and more are one cell
MOST_RATINGS = 5
WORD_EDGES = (7, 10, 14)  # quartiles of RELATE's test captions, kept fixed so that data sets compare
SPREAD_EDGES = (1.0, 2.0, 3.0)  # in rating units, 0 to 10
FURTHER = ("n_events", "caption_length", "temporal", "n_ratings", "rating_std")
NOT_KNOWN = "number of ratings not known"


def further_masks(pairs: pd.DataFrame, by: str) -> list[tuple[str, np.ndarray, str]]:
    """(name, mask [n], note) of each cell of `by` for one row a pair; every pair stands in just one cell.

    - "n_events": captions of 1, 2, 3, and 4 or more sound events by their wording (`captions.n_events`, an estimate);
    - "caption_length": 1-6, 7-9, 10-13, and 14 or more words;
    - "temporal": captions with "followed by" or "then", and without;
    - "n_ratings": pairs with 1, 2, 3, 4, and 5 or more ratings;
    - "rating_std": SD of a pair's ratings below 1, from 1 to below 2, 2 to below 3, and 3 or more, in rating units;
      pairs with one rating, which have none, apart.
    Where no pair has n_ratings (a data set of means) the last two are empty and say so. ValueError where a column is
    missing, where only some pairs have n_ratings, or where one with several ratings has no rating_std.
    """
    if by == "temporal":
        temporal = is_temporal(pairs["text"])
        return [("temporal words", temporal, ""), ("no temporal words", ~temporal, "")]
    if by == "n_events":
        names = [f"{k} event{'s' if k > 1 else ''}" for k in range(1, MOST_EVENTS)] + [f"{MOST_EVENTS}+ events"]
        return _cut(n_events(pairs["text"]), range(2, MOST_EVENTS + 1), names)
    if by == "caption_length":
        starts = (1, *WORD_EDGES)
        names = [f"{low}-{high - 1} words" for low, high in zip(starts, WORD_EDGES)] + [f"{WORD_EDGES[-1]}+ words"]
        return _cut(n_words(pairs["text"]), WORD_EDGES, names)
    counts = _column(pairs, "n_ratings")
    if by == "n_ratings":
        names = [f"{k} rating{'s' if k > 1 else ''}" for k in range(1, MOST_RATINGS)] + [f"{MOST_RATINGS}+ ratings"]
        return _cut(counts, range(2, MOST_RATINGS + 1), names)
    return _by_spread(counts, pairs)


def _by_spread(counts: np.ndarray, pairs: pd.DataFrame) -> list[tuple[str, np.ndarray, str]]:
    inner = [f"SD {low:g}-{high:g}" for low, high in zip(SPREAD_EDGES, SPREAD_EDGES[1:])]
    names = [f"SD <{SPREAD_EDGES[0]:g}", *inner, f"SD >={SPREAD_EDGES[-1]:g}"]
    spread = _column(pairs, "rating_std", all_or_none=False)
    lacking = (counts > 1) & np.isnan(spread)
    if lacking.any():
        raise ValueError(f"{lacking.sum()} pairs with several ratings have no rating_std: aggregate_pairs makes it")
    note = NOT_KNOWN if len(counts) and np.isnan(counts).all() else ""
    several = [(name, mask & (counts > 1), note) for name, mask, _ in _cut(spread, SPREAD_EDGES, names)]
    return [("one rating", counts == 1, note), *several]


def _cut(values: np.ndarray, edges, names: list[str]) -> list[tuple[str, np.ndarray, str]]:
    """Cells of values below the first edge, from it to below the next, …; all empty where all values are NaN."""
    place = np.digitize(np.nan_to_num(values, nan=0), list(edges))
    known = ~np.isnan(values)
    note = "" if known.any() or not len(values) else NOT_KNOWN
    return [(name, (place == which) & known, note) for which, name in enumerate(names)]


def _column(pairs: pd.DataFrame, name: str, all_or_none: bool = True) -> np.ndarray:
    if name not in pairs:
        raise ValueError(f"this breakdown needs the column {name}: aggregate_pairs makes it")
    values = pd.to_numeric(pairs[name], errors="coerce").to_numpy(float, na_value=np.nan)
    missing = int(np.isnan(values).sum())
    if all_or_none and 0 < missing < len(values):
        raise ValueError(f"{missing} of {len(values)} pairs have no {name}: it must be known for all or for none")
    return values
