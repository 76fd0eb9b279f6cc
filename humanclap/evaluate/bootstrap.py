"""Bootstrap intervals and paired comparisons, resampled by caption.

One caption is rated with several clips by the same listeners, so pairs of one caption are not independent:
a resample draws captions with replacement and takes each with all its pairs. It is kept as counts, never
written out. A `ResamplePlan` holds the draws alone, so that every score, metric and cell is computed on the
same resamples and differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from humanclap.relate.checks import need_seed

from .checks import as_pair, check_level, listed, whole_number
from .correlation import METRICS, Correlations, correlations
from .groups import group_codes, own_groups
from .weighted import WeightedCorrelations

CHUNK = 250  # resamples done together: large enough for numpy, small enough for the cache


@dataclass(frozen=True)
class ResamplePlan:
    """Which groups stand in which resample: `codes` [n] (group of a pair), `counts` [n_groups, n_resamples].

    The draws depend on the groups, the seed and nothing else: groups are numbered by their labels, so the
    order of the rows says nothing. A longer plan begins with the shorter one's.
    """

    codes: np.ndarray
    counts: np.ndarray

    @classmethod
    def draw(cls, groups=None, n: int | None = None, n_resamples: int = 2000, seed: int = 0) -> ResamplePlan:
        """A plan for pairs with the labels `groups` [n] (a caption each), or for `n` pairs by their places.

        Each resample draws as many groups as there are, with replacement. ValueError on a missing label,
        labels that are not one for each of the `n` pairs, fewer than 2 groups, fewer than 1 resample, a seed
        that is no whole number of at least 0.
        """
        n_resamples, seed = whole_number(n_resamples, "n_resamples", 1), need_seed(seed)
        if groups is None:
            if n is None:
                raise ValueError("ResamplePlan.draw needs groups, a label for each pair, or n, their number")
            codes = np.arange(n)
        else:
            codes = group_codes(groups, n)
        n_groups = int(codes.max(initial=-1)) + 1
        if n_groups < 2:
            raise ValueError(
                f"a bootstrap needs at least 2 groups to draw from; {len(codes)} pairs have {n_groups}"
            )
        rng = np.random.default_rng(seed)
        counts = np.empty((n_groups, n_resamples), dtype=np.int32)
        for resample in range(n_resamples):
            counts[:, resample] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
        return cls(codes, counts)

    @property
    def n_groups(self) -> int:
        return self.counts.shape[0]

    @property
    def n_resamples(self) -> int:
        return self.counts.shape[1]

    def weights(self, start: int = 0, stop: int | None = None, rows=slice(None)) -> np.ndarray:
        """How often each pair (of `rows`) stands in resamples start … stop - 1: float32 [n, B]."""
        return self.counts[:, start:stop].astype(np.float32).take(self.codes[rows], axis=0)

    def indices(self, resample: int) -> np.ndarray:
        """Positions of the pairs of one resample, written out: for a plain loop over resamples."""
        return np.repeat(np.arange(len(self.codes)), self.counts[self.codes, resample])

    def chunks(self, rows=slice(None)):
        """Yield (slice of resamples, weights [n, B] of the pairs `rows`) over the whole plan."""
        for start in range(0, self.n_resamples, CHUNK):
            stop = min(start + CHUNK, self.n_resamples)
            yield slice(start, stop), self.weights(start, stop, rows)


@dataclass(frozen=True)
class Interval:
    """A statistic with its percentile interval, without the `n_undefined` resamples in which it is NaN."""

    value: float
    low: float
    high: float
    n_resamples: int
    n_undefined: int


@dataclass(frozen=True)
class BootstrapCorrelations:
    """Correlations with percentile intervals at `level`.

    n_constant: resamples in which score or target is constant, so that a correlation is undefined; they are
    left out of the intervals of the correlations. n_groups: captions (or pairs) drawn from.
    """

    estimate: Correlations
    low: Correlations
    high: Correlations
    n_resamples: int
    n_constant: int
    n_groups: int
    level: float

    def to_frame(self) -> pd.DataFrame:
        """One row a metric: metric, value, low, high, n."""
        rows = [(m, getattr(self.estimate, m), getattr(self.low, m), getattr(self.high, m), self.estimate.n)
                for m in METRICS]
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "n"])


@dataclass(frozen=True)
class Comparison:
    """A paired difference, `difference` = a - b, with percentile interval and two-sided bootstrap p-value.

    n: pairs; n_constant: resamples in which the metric is undefined for one of the two, left out of both.
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    n: int
    n_resamples: int
    n_constant: int


def percentile_interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Low and high end of the central `level` of `samples` [B]; NaN are left out, (NaN, NaN) if all are."""
    check_level(level)
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def two_sided_p(differences: np.ndarray) -> float:
    """p = min(1, 2 · min((#{d ≤ 0} + 1) / (B + 1), (#{d ≥ 0} + 1) / (B + 1))) over differences d [B].

    Differences that are NaN are left out.

    Never below 2 / (B + 1); NaN where no difference is defined.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return np.nan
    rarer = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(defined) + 1)))


def bootstrap_samples(statistic: Callable[[np.ndarray], np.ndarray], plan: ResamplePlan) -> np.ndarray:
    """`statistic` of every resample: it maps weights [n, B] to [..., B]; the result has B = n_resamples."""
    return np.concatenate([statistic(weights) for _, weights in plan.chunks()], axis=-1)


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], np.ndarray], plan: ResamplePlan, level: float = 0.95
) -> Interval:
    """Value and interval of any statistic that is written as a function of weights, [n, B] -> [B].

    The value is the statistic at weights of one. Statistics on one plan are paired: the interval of a
    difference is that of `lambda w: first(w) - second(w)`.
    """
    value = float(statistic(np.ones((len(plan.codes), 1), dtype=np.float32))[0])
    samples = bootstrap_samples(statistic, plan)
    low, high = percentile_interval(samples, level)
    return Interval(value, low, high, plan.n_resamples, int(np.isnan(samples).sum()))


def bootstrap_correlations(
    score, target, groups=None, n_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> BootstrapCorrelations:
    """SRCC, LCC, KTAU and MSE of `score` [N] against `target` [N] with percentile bootstrap intervals.

    groups: the caption of each pair, [N]; a resample draws captions with all their pairs. None: pairs are
    drawn. Each resample's correlations equal scipy's on the pairs written out, ties included. The same seed
    gives the same resamples, whatever the order of the pairs. A torch tensor is detached. Raises
    as `correlations` and `ResamplePlan.draw` do.
    """
    score, target = as_pair(score, target)
    groups = own_groups(target, score) if groups is None else groups
    plan = ResamplePlan.draw(groups, len(score), n_resamples, seed)
    statistic = WeightedCorrelations(score, target)
    samples = bootstrap_samples(lambda weights: np.stack(list(statistic(weights).values()))[:, 0], plan)
    ends = {metric: percentile_interval(samples[i], level) for i, metric in enumerate(METRICS)}
    low, high = (Correlations(**{m: ends[m][side] for m in METRICS}, n=len(score)) for side in (0, 1))
    n_constant = int(np.isnan(samples).any(axis=0).sum())
    return BootstrapCorrelations(
        correlations(score, target), low, high, plan.n_resamples, n_constant, plan.n_groups, level
    )


def compare(
    score_a, score_b, target, groups=None, metric: str = "srcc", n_resamples: int = 2000, seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Paired bootstrap of metric(score_a) - metric(score_b) on the same pairs [N] and resamples.

    metric: srcc, lcc, ktau or mse (for mse a negative difference means that a is better). p is two-sided,
    min(1, 2 · min((b + 1) / (B + 1))), so it needs n_resamples >= 10,000 where a correction for many
    comparisons follows. Raises as `bootstrap_correlations` does, and ValueError for an unknown metric.
    """
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(f"unknown metric: {metric}. compare takes one of {listed(METRICS)}")
    score_a, target = as_pair(score_a, target, "score_a")
    score_b, _ = as_pair(score_b, target, "score_b")
    groups = own_groups(target, score_a, score_b) if groups is None else groups
    plan = ResamplePlan.draw(groups, len(target), n_resamples, seed)
    statistic = WeightedCorrelations(np.stack([score_a, score_b]), target, (metric,))
    samples = bootstrap_samples(lambda weights: statistic(weights)[metric], plan)
    a, b = (getattr(correlations(score, target), metric) for score in (score_a, score_b))
    differences = samples[0] - samples[1]
    low, high = percentile_interval(differences, level)
    return Comparison(
        metric, a, b, a - b, low, high, two_sided_p(differences), len(target), plan.n_resamples,
        int(np.isnan(differences).sum()),
    )
