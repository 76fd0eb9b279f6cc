"""What every function here asks of its input (vectors, ratings, long score tables), and the cells of the tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from humanclap.checks import anchor_mask, choice, listed, need_columns, shown
from humanclap.relate import SYSTEMS

PAIR = ["audio", "text"]
SEED = "training_seed"  # optional column: which trained copy of a fine-tuned model; NaN where there are no copies
MIN_PAIRS = 4  # below it a correlation says nothing: it is left empty and marked
FEW = f"fewer than {MIN_PAIRS} pairs"
CUT = 5.0  # the paper's, of Table III: mean rating at most, and above
FURTHER = ("caption_length", "temporal", "n_ratings", "rating_std")
BREAKDOWNS = ("overall", "system", "score_range", *FURTHER)
SYNTHESIZED, ALL, WITHIN = "synthesized", "all", "within systems"
NO_SYSTEM, NO_NUMBER = "no system known", "number of ratings not known"
TEMPORAL = re.compile(r"\b(?:followed by|then)\b", re.IGNORECASE)


def as_vector(values, name: str) -> np.ndarray:
    """`values` as a finite float64 vector [N], by position (a pandas index is not looked at); a tensor is detached.

    ValueError, naming `name`, where it is not one-dimensional, not real numbers, or holds NaN or infinity.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    if isinstance(values, np.ma.MaskedArray):
        values = values.astype(float).filled(np.nan)  # np.asarray would unmask them without a word
    try:  # pandas' NA becomes NaN, and is refused below
        take = getattr(values, "to_numpy", None)
        vector = take(float, na_value=np.nan) if take else np.asarray(values, float)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be numbers in one dimension: {error}") from error
    if vector.ndim != 1:
        raise ValueError(f"{name} must have one dimension, one value per pair; it has shape {vector.shape}")
    bad = np.flatnonzero(~np.isfinite(vector))
    if len(bad):
        raise ValueError(
            f"{name} holds {len(bad)} NaN or infinite values among {len(vector)}, the first at position {bad[0]}: drop "
            "those pairs from every input and say how many"
        )
    return vector


def as_pair(score, target, name: str = "score") -> tuple[np.ndarray, np.ndarray]:
    """Score and target as vectors [N] of one length, N >= 2; else ValueError, with `name` for the score."""
    score, target = as_vector(score, name), as_vector(target, "target")
    if len(score) != len(target):
        raise ValueError(f"{name} has {len(score)} values and target {len(target)}: they must be of the same pairs")
    if len(score) < 2:
        raise ValueError(f"{len(score)} pairs are too few: a correlation needs at least 2")
    return score, target


def as_ratings(ratings: pd.DataFrame, *also: str) -> np.ndarray:
    """The column rating [N] of a table with one row per rating: audio, text, rating and the columns `also`.

    ValueError for a missing column or cell, a rating that is no number, anchors (is_anchor true), an is_anchor that is
    neither True nor False, one listener twice on a pair. TypeError where there are no ratings at all.
    """
    if ratings is None:
        raise TypeError("these are no ratings: a set that holds only means has no reliability and no ceiling")
    need_columns(ratings, "ratings", (*PAIR, "rating", *also))
    need_columns(ratings, "ratings", (*PAIR, *also), filled=True)
    n_anchors = int(anchor_mask(ratings).sum()) if "is_anchor" in ratings else 0
    if n_anchors:
        raise ValueError(
            f"{n_anchors} ratings are of anchors, mismatched on purpose: use those of screen_listeners, or drop the rows "
            "where is_anchor is true"
        )
    if "listener" in ratings and ratings.duplicated([*PAIR, "listener"]).any():
        row = ratings[ratings.duplicated([*PAIR, "listener"])].iloc[0]
        raise ValueError(f"listener {row['listener']!r} rated {row['audio']} with {row['text']!r} twice")
    return as_vector(ratings["rating"], "rating")


def pair_index(frame: pd.DataFrame) -> pd.MultiIndex:
    """The pairs (audio, text) of a table as an index."""
    return pd.MultiIndex.from_frame(frame[PAIR])


def group_codes(groups, n: int | None = None) -> np.ndarray:
    """Labels (captions) as whole numbers 0, 1, … in the order of their values, whatever the order of the rows.

    ValueError where they are not one label for each of the `n` pairs, or one is missing.
    """
    labels = np.asarray(groups, dtype=object)
    if labels.ndim != 1 or len(labels) != (len(labels) if n is None else n):
        raise ValueError(f"groups has labels of shape {labels.shape} for {n} pairs: it takes one (a caption) per pair")
    missing = pd.isna(labels)
    if missing.any():
        raise ValueError(f"groups holds {missing.sum()} missing labels, the first at {missing.argmax()}")
    return pd.factorize(labels, sort=True)[0].astype(np.intp)


def own_groups(*columns: np.ndarray) -> np.ndarray:
    """A group for each pair: its place [n] when pairs are sorted by these columns [n], the first one first.

    Pairs that are equal in every column may change places: no statistic of those columns can tell.
    """
    return np.argsort(np.lexsort(columns[::-1]))


@dataclass(frozen=True)
class Wide:
    """A long score table with one row per pair: scores [R, n], target [n], and `pairs`, the first run's other columns.

    A run is one trained copy of a model: `runs` names them as (model, training seed), None for a model that has no
    seeds and so one run. `models` are in the table's order, a model's runs by rising seed.
    """

    models: list
    runs: list[tuple]
    scores: np.ndarray
    target: np.ndarray
    pairs: pd.DataFrame

    def rows(self, model) -> np.ndarray:
        """Which rows of `scores` are runs of `model`."""
        return np.flatnonzero([name == model for name, _ in self.runs])

    def seeds(self, model) -> list[int | None]:
        """The training seeds of `model`, in the order of `rows`."""
        return [seed for name, seed in self.runs if name == model]


def widen(table: pd.DataFrame, also: tuple[str, ...] = ()) -> Wide:
    """From a long score table (one row per model, training seed and pair) to one row per pair, every check on the way.

    Needs model, audio, text, target, clap_score and the columns `also`. ValueError for a missing column, no rows, NaN
    scores (how many, for each model), a training seed that is no whole number or is missing in a part of a model's
    rows, a pair that one run has twice, runs that do not cover the same pairs (names what is missing), a target,
    rating, number of ratings or system that differs between runs for one pair.
    """
    need_columns(table, "the score table", ["model", *PAIR, "target", "clap_score", *also])
    if not len(table):
        raise ValueError("the score table has no rows")
    need_columns(table, "the score table", ["model", *PAIR], filled=True)
    values = pd.to_numeric(table["clap_score"], errors="coerce").to_numpy(float, na_value=np.nan)
    unscored = ~np.isfinite(values)
    if unscored.any():
        counts = table.loc[unscored, "model"].value_counts().to_dict()
        raise ValueError(
            f"{unscored.sum()} of {len(table)} values of clap_score are not finite ({counts}): drop these pairs from "
            "every model, and say how many; the column status of score_pairs names the reason"
        )
    by_run = _by_run(table.assign(clap_score=values))
    first_run, first = next(iter(by_run.items()))
    for run, rows in by_run.items():
        if rows.index.has_duplicates:
            twice = rows.index[rows.index.duplicated()]
            hint = "" if SEED in table else f" (several training runs of one model need the column {SEED})"
            raise ValueError(f"model {_named(run)} has {len(twice)} pairs twice, for instance {tuple(twice[0])}{hint}")
        lacks, has_more = first.index.difference(rows.index), rows.index.difference(first.index)
        if len(lacks) or len(has_more):
            example = tuple((lacks if len(lacks) else has_more)[0])
            raise ValueError(
                f"models must cover the same pairs: {_named(run)} lacks {len(lacks)} pairs of {_named(first_run)} and "
                f"has {len(has_more)} that it lacks, for instance {example}"
            )
    aligned = {run: rows.loc[first.index] for run, rows in by_run.items()}
    for column in [c for c in ("target", "mean_rating", "system", "n_ratings") if c in table]:
        for run, rows in aligned.items():
            differs = ~((rows[column] == first[column]) | (rows[column].isna() & first[column].isna()))
            if differs.any():
                raise ValueError(
                    f"{column} differs between {_named(first_run)} and {_named(run)} for {differs.sum()} pairs, for "
                    f"instance {tuple(differs.index[differs.argmax()])}: give all models the same pairs"
                )
    pairs = first.reset_index()
    scores = np.stack([rows["clap_score"].to_numpy(float) for rows in aligned.values()])
    models = list(dict.fromkeys(name for name, _ in by_run))
    return Wide(models, list(by_run), scores, as_vector(pairs["target"], "target"), pairs)


def _by_run(table: pd.DataFrame) -> dict[tuple, pd.DataFrame]:
    """The rows of each (model, training seed or None), indexed by their pair."""
    by_run = {}
    for name, rows in table.groupby("model", sort=False):
        if SEED not in rows or rows[SEED].isna().all():
            by_run[name, None] = rows.set_index(PAIR)
            continue
        seeds = pd.to_numeric(rows[SEED], errors="coerce")
        odd = rows.loc[~(seeds % 1 == 0), SEED]
        if len(odd):
            raise ValueError(
                f"{len(odd)} rows of model {name!r} have a {SEED} that is no whole number, for instance "
                f"{shown(odd.iloc[0])}: each row of a model needs its seed, or none (NaN in all) where there are no seeds"
            )
        by_run |= {(name, int(seed)): part.set_index(PAIR) for seed, part in rows.groupby(seeds)}
    return by_run


def _named(run: tuple) -> str:
    model, seed = run
    return repr(model) if seed is None else f"{model!r} (training seed {seed})"


def partners(other: Wide, wide: Wide, name: str, beside: str = "scores") -> np.ndarray:
    """For each run of `other` (called `name`), the place of the same model and training seed in `wide` (`beside`).

    ValueError where `other` has a model that `wide` lacks, or one of its models lacks a seed or has one more.
    """
    unknown = [model for model in other.models if model not in wide.models]
    if unknown:
        raise ValueError(f"{name} has models that {beside} lacks: {listed(unknown)}. There: {listed(wide.models)}")
    wanted = {run for run in wide.runs if run[0] in other.models}
    odd = sorted(f"{model}, seed {seed}" for model, seed in wanted.symmetric_difference(other.runs))
    if odd:
        raise ValueError(f"a model's seeds must all be in {beside} and in {name}; in one of them only: {listed(odd)}")
    return np.array([wide.runs.index(run) for run in other.runs])


def n_words(texts: Iterable[str]) -> np.ndarray:
    """Number of words of each caption, separated by white space: whole numbers [N]."""
    return np.array([len(str(text).split()) for text in texts], dtype=int)


def is_temporal(texts: Iterable[str]) -> np.ndarray:
    """Whether each caption says what follows what ("followed by" or "then"): bool [N]."""
    return np.array([TEMPORAL.search(str(text)) is not None for text in texts], dtype=bool)


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
        return cls(name, rows, note or ("no such pairs" if n == 0 else FEW if n < MIN_PAIRS else ""))


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


def system_cells(systems: np.ndarray) -> list[Cell]:
    """One cell per system and, where natural is among them, "synthesized": all pairs of the others."""
    order = system_order(systems)
    cells = [Cell.of(str(system), systems == system) for system in order]
    return [*cells, Cell.of(SYNTHESIZED, systems != "natural")] if "natural" in order else cells


def within_systems(cells: list[Cell], pairs: pd.DataFrame) -> tuple[Cell, list[Cell]]:
    """The cell "within systems", and the single systems' cells in it: those without a note. Its own names the others."""
    systems = known_systems(pairs)
    names = [] if systems is None else [str(system) for system in set(systems)]
    single = [cell for cell in cells if cell.name in names and cell.rows.any()]
    used, few = [cell for cell in single if not cell.note], [cell for cell in single if cell.note]
    if not used:
        why = few[0].note if few else NO_SYSTEM
        return Cell(WITHIN, np.zeros(len(pairs), dtype=bool), why), []
    note = f"without {listed(cell.name for cell in few)} ({few[0].note})" if few else ""
    return Cell(WITHIN, np.any([cell.rows for cell in used], axis=0), note), used


def make_cells(pairs: pd.DataFrame, by: str) -> list[Cell]:
    """Cells for one row per pair of `pairs`: by "overall" (Table I), "system" (II), "score_range" (III), or another.

    - "system": each system, "synthesized" (where there is natural audio beside it) and "all";
    - "score_range": mean_rating at most 5 and above, each all, natural, synthesized;
    - "caption_length": 1-6, 7-9, 10-13, and 14 or more words (quartiles of RELATE's test captions);
    - "temporal": captions with "followed by" or "then", and without;
    - "n_ratings": pairs with 1, 2, 3, 4, and 5 or more ratings;
    - "rating_std": SD of a pair's ratings below 1, from 1 to below 2, 2 to below 3, and 3 or more, in rating units; pairs
      with one rating, which have none, apart.

    What cannot be known (no system, means without numbers of ratings) leaves its cells empty, with a note. ValueError
    for another `by`, a column that is missing or known for some pairs only, score ranges without mean_rating.
    """
    choice(by, "by", BREAKDOWNS)
    everything = np.ones(len(pairs), dtype=bool)
    if by == "overall":
        return [Cell.of(ALL, everything)]
    if by == "system":
        systems = known_systems(pairs)
        nothing = [Cell(name, ~everything, NO_SYSTEM) for name in (*SYSTEMS, SYNTHESIZED)]
        return [*(nothing if systems is None else system_cells(systems)), Cell.of(ALL, everything)]
    if by == "score_range":
        rating, systems = _column(pairs, "mean_rating"), known_systems(pairs)
        note = NO_SYSTEM if systems is None else ""
        natural = np.zeros(len(pairs), dtype=bool) if systems is None else systems == "natural"
        cells = []
        for label, half in ((f"<={CUT:g}", rating <= CUT), (f">{CUT:g}", rating > CUT)):
            cells.append(Cell.of(f"{label} all", half))
            cells.append(Cell.of(f"{label} natural", half & natural, note))
            cells.append(Cell.of(f"{label} {SYNTHESIZED}", half & ~natural & (not note), note))
        return cells
    if by == "temporal":
        temporal = is_temporal(pairs["text"])
        return [Cell.of("temporal words", temporal), Cell.of("no temporal words", ~temporal)]
    if by == "caption_length":
        return _cut(n_words(pairs["text"]), (7, 10, 14), ("1-6 words", "7-9 words", "10-13 words", "14+ words"))
    note = NO_NUMBER if "n_ratings" in pairs and pairs["n_ratings"].isna().all() else ""
    counts = np.zeros(len(pairs)) if note else _column(pairs, "n_ratings")
    if by == "n_ratings":
        return _cut(counts, (2, 3, 4, 5), ("1 rating", "2 ratings", "3 ratings", "4 ratings", "5+ ratings"), note)
    # a single rating has no SD: it is below every edge, and in none of the cut cells
    spread = np.full(len(pairs), -1.0)
    spread[counts > 1] = _column(pairs[counts > 1], "rating_std")
    several = _cut(spread, (0, 1, 2, 3), ("one rating", "SD <1", "SD 1-2", "SD 2-3", "SD >=3"), note)
    return [Cell.of("one rating", counts == 1, note), *several[1:]]


def _cut(values: np.ndarray, edges, names, note: str = "") -> list[Cell]:
    """Cells of values below the first edge, from it to below the next, …; all empty where there is a note."""
    place = np.digitize(values, edges)
    return [Cell.of(name, (place == which) & (not note), note) for which, name in enumerate(names)]


def _column(pairs: pd.DataFrame, name: str) -> np.ndarray:
    """A column of numbers, known for every pair."""
    need_columns(pairs, f"this breakdown (aggregate_pairs makes {name}): the table", [name], filled=True)
    return pairs[name].to_numpy(float)
