"""The cells of Tables I to III and of the further breakdowns: which pairs are in each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from humanclap.checks import choice
from humanclap.relate import SYSTEMS

from .inputs import FEW, MIN_PAIRS

CUT = 5.0  # the paper's, of Table III: mean rating at most, and above
FURTHER = ("n_events", "caption_length", "temporal", "n_ratings", "rating_std")
BREAKDOWNS = ("overall", "system", "score_range", *FURTHER)
SYNTHESIZED, ALL, WITHIN = "synthesized", "all", "within systems"
NO_PAIRS, NO_SYSTEM, NO_NUMBER = "no such pairs", "no system known", "number of ratings not known"

TEMPORAL = re.compile(r"\b(?:followed by|then)\b", re.IGNORECASE)
# What separates two events: a punctuation mark, or a word that says what comes when or goes together with what.
_BREAK = re.compile(
    r"[,;.:]|\b(?:(?:is |are |that is |which is )?(?:followed|proceeded|preceded|accompanied|succeeded) by|"
    r"and then|then|while|whilst|as well as|along with|alongside|as|when|before|after|during|until|with)\b",
    re.IGNORECASE,
)
_AND = re.compile(r"\band\b", re.IGNORECASE)
# Words that make no event by themselves: articles, numbers, places and degrees. A clause of these alone is no event.
_EMPTY = """
    a an the this that these those some several many multiple few one two three four another other same more
    in on at of to from into by near nearby over under through distance background foreground distant far away close
    loud loudly quiet quietly soft softly light lightly very it its is are it's again also repeatedly continuously
    eventually finally briefly once twice times time someone's
""".split()  # noqa: SIM905


def n_words(texts: Iterable[str]) -> np.ndarray:
    """Number of words of each caption, separated by white space: whole numbers [N]."""
    return np.array([len(str(text).split()) for text in texts], dtype=int)


def is_temporal(texts: Iterable[str]) -> np.ndarray:
    """Whether each caption says what follows what ("followed by" or "then"): bool [N]."""
    return np.array([TEMPORAL.search(str(text)) is not None for text in texts], dtype=bool)


def n_events(texts: Iterable[str]) -> np.ndarray:
    """Number of sound events in each caption by its wording: whole numbers of at least 1, [N].

    An estimate by rule, no parser: the caption is cut at punctuation and at words that join events ("followed by",
    "then", "as", "while", "before", "after", "with", …), and pieces without a word of their own ("in the background")
    are dropped. An "and" is a cut too, unless there is only a bare noun before it in its piece: "a man and a woman
    speak" is one event, "a man speaks and laughs" are two, and so are "rustling and chirping birds", since a word in
    -ing is no bare noun. It counts sirens and dogs in "sirens and dogs howling" as one. Of sixty of RELATE's captions
    it agrees with a count by hand on 56, and is off by one on three (one reader, not blind to it).
    """
    return np.array([max(1, sum(map(_events_of_piece, _BREAK.split(str(text))))) for text in texts], dtype=int)


def _events_of_piece(piece: str) -> int:
    """Events of a piece without joining words other than "and"."""
    events, before = 0, []
    for part in _AND.split(piece):
        before += [word for word in re.findall(r"[a-z'-]+", part.lower()) if word not in _EMPTY]
        bare_noun = len(before) == 1 and not before[0].endswith("ing")
        if before and not bare_noun:
            events, before = events + 1, []
    return events + bool(before)


@dataclass(frozen=True)
class Cell:
    """A named set of pairs: `rows` is a mask [n]; `note` says why the cell must stay empty, or is ""."""

    name: str
    rows: np.ndarray
    note: str = ""

    @classmethod
    def of(cls, name: str, rows: np.ndarray, note: str = "") -> Cell:
        """A cell that notes that it has no pairs, or too few for any correlation."""
        n = int(np.sum(rows))
        return cls(name, rows, note or (NO_PAIRS if n == 0 else FEW if n < MIN_PAIRS else ""))


def known_systems(pairs: pd.DataFrame) -> np.ndarray | None:
    """The system of each pair, or None where none is named; ValueError where some are and some are not."""
    missing = int(pairs["system"].isna().sum()) if "system" in pairs else len(pairs)
    if 0 < missing < len(pairs):
        raise ValueError(f"{missing} of {len(pairs)} pairs have no system: name it for all or for none")
    return None if missing else pairs["system"].to_numpy(object)


def system_order(systems: Iterable) -> list:
    """RELATE's systems in the paper's order where all are RELATE's, else natural first, the others sorted."""
    present = set(systems)
    return list(SYSTEMS) if present <= set(SYSTEMS) else sorted(present, key=lambda s: (s != "natural", str(s)))


def system_names(pairs: pd.DataFrame) -> list[str]:
    """The names of the single systems' cells; none where no system is known."""
    systems = known_systems(pairs)
    return [] if systems is None else [str(system) for system in system_order(systems)]


def system_cells(systems: np.ndarray) -> list[Cell]:
    """One cell per system and, where natural is among them, "synthesized": all pairs of the others."""
    order = system_order(systems)
    cells = [Cell.of(str(system), systems == system) for system in order]
    return [*cells, Cell.of(SYNTHESIZED, systems != "natural")] if "natural" in order else cells


def make_cells(pairs: pd.DataFrame, by: str) -> list[Cell]:
    """Cells for one row per pair of `pairs`: by "overall" (Table I), "system" (II), "score_range" (III), or another.

    - "system": each system, "synthesized" (where there is natural audio beside it) and "all";
    - "score_range": mean_rating at most 5 and above, each all, natural, synthesized;
    - "n_events": captions of 1, 2, 3, and 4 or more sound events by their wording (`n_events`, an estimate);
    - "caption_length": 1-6, 7-9, 10-13, and 14 or more words (quartiles of RELATE's test captions);
    - "temporal": captions with "followed by" or "then", and without;
    - "n_ratings": pairs with 1, 2, 3, 4, and 5 or more ratings;
    - "rating_std": SD of a pair's ratings below 1, from 1 to below 2, 2 to below 3, and 3 or more, in rating units; pairs
      with one rating, which have none, apart.

    What cannot be known (no system, means without numbers of ratings) leaves its cells empty, with a note. ValueError
    for another `by`, a column that is missing or known for some pairs only, score ranges without finite mean_rating,
    several ratings without rating_std.
    """
    choice(by, "by", BREAKDOWNS)
    everything = np.ones(len(pairs), dtype=bool)
    if by == "overall":
        return [Cell.of(ALL, everything)]
    if by == "system":
        systems = known_systems(pairs)
        if systems is None:
            cells = [Cell(name, ~everything, NO_SYSTEM) for name in (*SYSTEMS, SYNTHESIZED)]
        else:
            cells = system_cells(systems)
        return [*cells, Cell.of(ALL, everything)]
    if by == "score_range":
        return _score_ranges(pairs, known_systems(pairs))
    if by == "temporal":
        temporal = is_temporal(pairs["text"])
        return [Cell.of("temporal words", temporal), Cell.of("no temporal words", ~temporal)]
    if by == "n_events":
        return _cut(n_events(pairs["text"]), (2, 3, 4), ("1 event", "2 events", "3 events", "4+ events"))
    if by == "caption_length":
        return _cut(n_words(pairs["text"]), (7, 10, 14), ("1-6 words", "7-9 words", "10-13 words", "14+ words"))
    counts = _column(pairs, "n_ratings")
    missing = int(np.isnan(counts).sum())
    if 0 < missing < len(counts):
        raise ValueError(f"{missing} of {len(counts)} pairs have no n_ratings: it must be known for all or for none")
    note = NO_NUMBER if missing else ""
    if by == "n_ratings":
        names = ("1 rating", "2 ratings", "3 ratings", "4 ratings", "5+ ratings")
        return _cut(counts, (2, 3, 4, 5), names, note=note)
    spread = _column(pairs, "rating_std")
    lacking = (counts > 1) & np.isnan(spread)
    if lacking.any():
        raise ValueError(f"{lacking.sum()} pairs with several ratings have no rating_std: aggregate_pairs makes it")
    several = _cut(spread, (1, 2, 3), ("SD <1", "SD 1-2", "SD 2-3", "SD >=3"), counts > 1, note)
    return [Cell.of("one rating", counts == 1, note), *several]


def _score_ranges(pairs: pd.DataFrame, systems: np.ndarray | None) -> list[Cell]:
    if "mean_rating" not in pairs or pairs["mean_rating"].isna().any():
        raise ValueError(
            "score ranges need the column mean_rating (0 to 10) for every pair: aggregate_pairs makes it, or it is 10 × "
            f"target. Columns: {', '.join(map(str, pairs.columns))}"
        )
    rating = pairs["mean_rating"].to_numpy(float)
    natural = np.zeros(len(pairs), dtype=bool) if systems is None else systems == "natural"
    note = NO_SYSTEM if systems is None else ""
    cells = []
    for sign, half in (("<=", rating <= CUT), (">", rating > CUT)):
        label = f"{sign}{CUT:g}"
        cells.append(Cell.of(f"{label} all", half))
        for name, rows in (("natural", natural), (SYNTHESIZED, ~natural)):
            cells.append(Cell.of(f"{label} {name}", half & rows & (systems is not None), note))
    return cells


def _cut(values: np.ndarray, edges, names, among=True, note: str = "") -> list[Cell]:
    """Cells of values below the first edge, from it to below the next, …; pairs without a value are in none."""
    place = np.digitize(np.nan_to_num(values, nan=0), edges)
    known = ~np.isnan(values) & among
    return [Cell.of(name, (place == which) & known, note) for which, name in enumerate(names)]


def _column(pairs: pd.DataFrame, name: str) -> np.ndarray:
    if name not in pairs:
        raise ValueError(f"this breakdown needs the column {name}: aggregate_pairs makes it")
    return pd.to_numeric(pairs[name], errors="coerce").to_numpy(float, na_value=np.nan)
