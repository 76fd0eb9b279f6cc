"""Models trained more than once: their seeds are resampled together and averaged, and their spread is told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .checks import listed
from .intervals import percentile_interval
from .wide import Wide


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
        raise ValueError(
            f"a model's seeds must all stand in {beside} and in {name}; in one of them only: {listed(odd)}"
        )
    return np.array([wide.runs.index(run) for run in other.runs])


def averaged(values: np.ndarray, samples: np.ndarray, level: float = 0.95) -> Averaged:
    """The mean over a model's runs of values [S] and samples [S, B]: in each resample, the same captions for all.

    A resample in which one of the runs is undefined is counted and left out; no interval without a value.
    """
    value = float(np.mean(values))
    together = samples.mean(axis=0)
    low, high = percentile_interval(together, level) if np.isfinite(value) else (np.nan, np.nan)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    return Averaged(value, low, high, int(np.isnan(together).sum()), len(values), sd, together)
