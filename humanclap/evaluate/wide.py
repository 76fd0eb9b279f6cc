"""From a long score table (a row a model, training seed and pair) to one row a pair, with every check on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .checks import PAIR, as_vector, need_columns

SEED = "training_seed"  # optional column: which trained copy of a fine-tuned model; NaN where there are no copies


@dataclass(frozen=True)
class Wide:
    """One row a pair: scores [R, n], target [n], and `pairs`, the first run's other columns.

    A run is one trained copy of a model: `runs` names them as (model, training seed), None for a model that
    has no seeds and so one run. `models` are in the table's order, a model's runs by rising seed.
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


def widen(table: pd.DataFrame, score: str, model: str, also: list[str]) -> Wide:
    """One row a pair, in the order of the first run; `also`: further columns that must be there.

    ValueError for a missing column, no rows, NaN scores (how many, for each model), a training seed that is
    no whole number or is missing in a part of a model's rows, a pair that one run has twice, runs that do not
    cover the same pairs (names what is missing), a target, rating, number of ratings or system that differs between
    runs for one pair.
    """
    need_columns(table, "the score table", [model, *PAIR, "target", score, *also])
    if not len(table):
        raise ValueError("the score table has no rows")
    unnamed = {c: int(table[c].isna().sum()) for c in (model, *PAIR) if table[c].isna().any()}
    if unnamed:
        raise ValueError(f"missing values in {unnamed}: every row of a score table needs its model and pair")
    values = pd.to_numeric(table[score], errors="coerce").to_numpy(float, na_value=np.nan)
    unscored = ~np.isfinite(values)
    if unscored.any():
        counts = table.loc[unscored, model].value_counts().to_dict()
        raise ValueError(
            f"{unscored.sum()} of {len(table)} values of {score} are not finite ({counts}): drop these pairs "
            "from every model, and say how many; the column status of score_pairs names the reason"
        )
    by_run = _by_run(table, model)
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
    return Wide(
        models=list(dict.fromkeys(name for name, _ in by_run)),
        runs=list(by_run),
        scores=np.stack([rows[score].to_numpy(float) for rows in aligned.values()]),
        target=as_vector(pairs["target"], "target"),
        pairs=pairs,
    )


def _by_run(table: pd.DataFrame, model: str) -> dict[tuple, pd.DataFrame]:
    """The rows of each (model, training seed or None), indexed by their pair."""
    by_run = {}
    for name, rows in table.groupby(model, sort=False):
        if SEED not in rows or rows[SEED].isna().all():
            by_run[name, None] = rows.set_index(PAIR)
            continue
        seeds = pd.to_numeric(rows[SEED], errors="coerce")
        if not (seeds % 1 == 0).all():
            odd = rows.loc[~(seeds % 1 == 0), SEED]
            raise ValueError(
                f"{len(odd)} rows of model {name!r} have a {SEED} that is no whole number, for instance "
                f"{odd.iloc[0]!r}: each row of a model needs its seed, or none (NaN in all) where there are no seeds"
            )
        for seed, part in rows.groupby(seeds.astype(int)):
            by_run[name, int(seed)] = part.set_index(PAIR)
    return by_run


def _named(run: tuple) -> str:
    model, seed = run
    return repr(model) if seed is None else f"{model!r} (training seed {seed})"
