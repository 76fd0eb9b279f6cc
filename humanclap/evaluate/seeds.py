"""Models trained more than once: their seeds are resampled together and averaged, and their spread is told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .bootstrap import percentile_interval
from .checks import listed, need_columns
from .wide import SEED, Wide, widen


@dataclass(frozen=True)
class Runs:
    """The scores of every trained run, one row a pair: `wide` [R, n], `models`, and the rows of each model."""

    wide: Wide
    models: list
    rows: dict


@dataclass(frozen=True)
class Averaged:
    """A metric of one model, the mean over its seeds; `seed_sd` is their SD (NaN for one), `samples` [B]."""

    value: float
    low: float
    high: float
    n_undefined: int
    n_seeds: int
    seed_sd: float
    samples: np.ndarray

    def as_dict(self) -> dict:
        """value, low, high, n_undefined, n_seeds, seed_sd: the columns that tables share."""
        return {name: getattr(self, name) for name in ("value", "low", "high", "n_undefined", "n_seeds", "seed_sd")}


def widen_runs(table: pd.DataFrame, score: str, model: str, also: list[str] | None = None) -> Runs:
    """`widen` for a table in which a model may have several values of `training_seed` (NaN: it has none).

    A run is a model and a seed; each run must cover the same pairs. ValueError as `widen`, and for a model that
    has rows with a seed and rows without.
    """
    need_columns(table, "the score table", [model])
    if SEED not in table or table[SEED].isna().all():
        wide = widen(table, score, model, also or [])
        return Runs(wide, wide.models, {name: [i] for i, name in enumerate(wide.models)})
    seeded = table[SEED].notna().groupby(table[model]).agg(["all", "any"])
    mixed = seeded.index[seeded["any"] & ~seeded["all"]]
    if len(mixed):
        raise ValueError(f"model {mixed[0]!r} has rows with a {SEED} and rows without: give it to all or to none")
    runs = table[[model, SEED]].drop_duplicates()
    names = {
        (name, seed): name if pd.isna(seed) else f"{name}, seed {seed:g}"
        for name, seed in runs.itertuples(index=False)
    }
    run = [name if pd.isna(seed) else names[name, seed] for name, seed in zip(table[model], table[SEED])]
    wide = widen(table.assign(**{model: run}), score, model, also or [])
    rows = {}
    for (name, _), run_name in names.items():
        rows.setdefault(name, []).append(wide.models.index(run_name))
    return Runs(wide, list(rows), rows)


def partners(other: Runs, runs: Runs, name: str) -> np.ndarray:
    """For each run of `other` (called `name`), the place of the same run in `runs`.

    ValueError where `other` has a model that `runs` lacks, or one of its models lacks a seed or has one more.
    """
    unknown = [model for model in other.models if model not in runs.models]
    if unknown:
        raise ValueError(f"{name} has models that scores lacks: {listed(unknown)}. Scores has {listed(runs.models)}")
    wanted = {runs.wide.models[place] for model in other.models for place in runs.rows[model]}
    odd = sorted(map(str, wanted.symmetric_difference(other.wide.models)))
    if odd:
        raise ValueError(f"a model's seeds must all stand in scores and in {name}; in one of them only: {listed(odd)}")
    return np.array([runs.wide.models.index(run) for run in other.wide.models])


def averaged(values: np.ndarray, samples: np.ndarray, level: float = 0.95) -> Averaged:
    """The mean over a model's runs of values [S] and samples [S, B]: in each resample, the same captions for all.

    A resample in which one of the runs is undefined is counted and left out; no interval without a value.
    """
    value = float(np.mean(values))
    together = samples.mean(axis=0)
    low, high = percentile_interval(together, level) if np.isfinite(value) else (np.nan, np.nan)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    return Averaged(value, low, high, int(np.isnan(together).sum()), len(values), sd, together)
