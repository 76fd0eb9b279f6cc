"""What every function here asks of its input: vectors, ratings, and long score tables with one row per pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from humanclap.checks import anchor_mask, listed, need_columns, shown

PAIR = ["audio", "text"]
SEED = "training_seed"  # optional column: which trained copy of a fine-tuned model; NaN where there are no copies
MIN_PAIRS = 4  # below it a correlation says nothing: it is left empty and marked
FEW = f"fewer than {MIN_PAIRS} pairs"


def as_vector(values, name: str) -> np.ndarray:
    """`values` as a finite float64 vector [N], by position (a pandas index is not looked at).

    A torch tensor is detached: no gradient flows through a statistic. Raises ValueError, naming `name`, where it is not
    one-dimensional, not real numbers, or holds NaN or infinity.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    if isinstance(values, np.ma.MaskedArray):
        values = values.astype(float).filled(np.nan)  # np.asarray would unmask them without a word
    try:
        to_numpy = getattr(values, "to_numpy", None)  # pandas: its NA becomes NaN, and is refused below
        vector = to_numpy(dtype=float, na_value=np.nan) if to_numpy else np.asarray(values, dtype=float)
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
    if labels.ndim != 1:
        raise ValueError(f"groups must have one dimension, one label (a caption) per pair; it has shape {labels.shape}")
    if n is not None and len(labels) != n:
        raise ValueError(f"groups has {len(labels)} labels for {n} pairs: it takes one per pair")
    missing = pd.isna(labels)
    if missing.any():
        raise ValueError(f"groups holds {missing.sum()} missing labels, the first at {missing.argmax()}")
    try:
        return pd.factorize(labels, sort=True)[0].astype(np.intp)
    except TypeError as error:  # a list as a label, say
        raise ValueError(f"groups holds labels that can't be told apart ({error}): use strings") from error


def own_groups(*columns: np.ndarray) -> np.ndarray:
    """A group for each pair: its place [n] when pairs are sorted by these columns [n], the first one first.

    Pairs that are equal in every column may change places: no statistic of those columns can tell.
    """
    places = np.empty(len(columns[0]), dtype=np.intp)
    places[np.lexsort(columns[::-1])] = np.arange(len(places))
    return places


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
    unnamed = {c: int(table[c].isna().sum()) for c in ("model", *PAIR) if table[c].isna().any()}
    if unnamed:
        raise ValueError(f"missing values in {unnamed}: every row of a score table needs its model and pair")
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
    for run, rows in by_run.items():
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
        if not (seeds % 1 == 0).all():
            odd = rows.loc[~(seeds % 1 == 0), SEED]
            raise ValueError(
                f"{len(odd)} rows of model {name!r} have a {SEED} that is no whole number, for instance "
                f"{shown(odd.iloc[0])}: each row of a model needs its seed, or none (NaN in all) where there are no seeds"
            )
        for seed, part in rows.groupby(seeds.astype(int)):
            by_run[name, int(seed)] = part.set_index(PAIR)
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
