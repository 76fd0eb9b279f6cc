"""Bootstrap intervals and paired comparisons of single scores, resampled by caption (`ResamplePlan`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .checks import as_pair, listed
from .correlation import METRICS, Correlations, correlations
from .groups import own_groups
from .intervals import Estimate, check_interval, percentile_interval
from .resamples import ResamplePlan
from .significance import two_sided_p
from .weighted import WeightedCorrelations

__all__ = [
    "BootstrapCorrelations",
    "Comparison",
    "Interval",
    "ResamplePlan",
    "bootstrap_correlations",
    "bootstrap_samples",
    "bootstrap_statistic",
    "compare",
    "percentile_interval",
    "two_sided_p",
]


@dataclass(frozen=True)
class Interval:
    """A statistic with its interval, without the `n_undefined` resamples in which it is NaN.

    note: why the ends are NaN though the value is not, or what they lack; else "".
    """

    value: float
    low: float
    high: float
    n_resamples: int
    n_undefined: int
    note: str = ""


@dataclass(frozen=True)
class BootstrapCorrelations:
    """Correlations with intervals at `level`.

    n_constant: resamples in which score or target is constant, so that a correlation is undefined; they are
    left out of the intervals of the correlations. n_groups: captions (or pairs) drawn from. interval:
    "percentile" or "bca"; note: what could not be computed, for which metric.
    """

    estimate: Correlations
    low: Correlations
    high: Correlations
    n_resamples: int
    n_constant: int
    n_groups: int
    level: float
    interval: str = "percentile"
    note: str = ""

    def to_frame(self) -> pd.DataFrame:
        """One row a metric: metric, value, low, high, n."""
        rows = [(m, getattr(self.estimate, m), getattr(self.low, m), getattr(self.high, m), self.estimate.n)
                for m in METRICS]
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "n"])


@dataclass(frozen=True)
class Comparison:
    """A paired difference, `difference` = a - b, with its interval and two-sided bootstrap p-value.

    n: pairs; n_constant: resamples in which the metric is undefined for one of the two, left out of both
    interval and p. interval and note as in `BootstrapCorrelations`.
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
    interval: str = "percentile"
    note: str = ""


def bootstrap_samples(statistic: Callable[[np.ndarray], np.ndarray], plan: ResamplePlan) -> np.ndarray:
    """`statistic` of every resample: it maps weights [n, B] to [..., B]; the result has B = n_resamples."""
    return np.concatenate([statistic(weights) for _, weights in plan.chunks()], axis=-1)


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], np.ndarray], plan: ResamplePlan, level: float = 0.95,
    interval: str = "percentile",
) -> Interval:
    """Value and interval of any statistic that is written as a function of weights, [n, B] -> [B].

    The value is the statistic at weights of one; interval: "percentile" or "bca". Statistics on one plan are
    paired: the interval of a difference is that of `lambda w: first(w) - second(w)`.
    """
    accelerated = check_interval(interval)
    value = float(statistic(np.ones((len(plan.codes), 1), dtype=np.float32))[0])
    jackknife = bootstrap_samples(statistic, plan.leave_one_out()) if accelerated else None
    estimate = Estimate(value, bootstrap_samples(statistic, plan), jackknife)
    ends = estimate.ends(level)
    return Interval(value, ends.low, ends.high, plan.n_resamples, estimate.n_undefined, ends.note)


def bootstrap_correlations(
    score, target, groups=None, n_resamples: int = 2000, seed: int = 0, level: float = 0.95,
    interval: str = "percentile",
) -> BootstrapCorrelations:
    """SRCC, LCC, KTAU and MSE of `score` [N] against `target` [N] with bootstrap intervals.

    groups: the caption of each pair, [N]; a resample draws captions with all their pairs. None: pairs are
    drawn. Each resample's correlations equal scipy's on the pairs written out, ties included. The same seed
    gives the same resamples, whatever the order of the pairs. interval: "percentile", or "bca" with a
    jackknife over the groups. A torch tensor is detached. Raises as `correlations` and `ResamplePlan.draw` do.
    """
    accelerated = check_interval(interval)
    score, target = as_pair(score, target)
    groups = own_groups(target, score) if groups is None else groups
    plan = ResamplePlan.draw(groups, len(score), n_resamples, seed)
    weighted = WeightedCorrelations(score, target)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.stack(list(weighted(weights).values()))[:, 0]

    estimate = correlations(score, target)
    samples = bootstrap_samples(statistic, plan)
    jackknife = bootstrap_samples(statistic, plan.leave_one_out()) if accelerated else [None] * len(METRICS)
    ends = {m: Estimate(getattr(estimate, m), samples[i], jackknife[i]).ends(level) for i, m in enumerate(METRICS)}
    low, high = (
        Correlations(**{m: getattr(ends[m], side) for m in METRICS}, n=len(score)) for side in ("low", "high")
    )
    n_constant = int(np.isnan(samples).any(axis=0).sum())
    note = "; ".join(f"{metric}: {end.note}" for metric, end in ends.items() if end.note)
    return BootstrapCorrelations(
        estimate, low, high, plan.n_resamples, n_constant, plan.n_groups, level, interval, note
    )


def compare(
    score_a, score_b, target, groups=None, metric: str = "srcc", n_resamples: int = 2000, seed: int = 0,
    level: float = 0.95, interval: str = "percentile",
) -> Comparison:
    """Paired bootstrap of metric(score_a) - metric(score_b) on the same pairs [N] and resamples.

    metric: srcc, lcc, ktau or mse (for mse a negative difference means that a is better). p is two-sided,
    min(1, 2 · min((b + 1) / (B + 1))), so it needs n_resamples >= 10,000 where a correction for many
    comparisons (`holm`) follows. interval: "percentile" or "bca"; p is the same with both. Raises as
    `bootstrap_correlations` does, and ValueError for an unknown metric.
    """
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(f"unknown metric: {metric}. compare takes one of {listed(METRICS)}")
    accelerated = check_interval(interval)
    score_a, target = as_pair(score_a, target, "score_a")
    score_b, _ = as_pair(score_b, target, "score_b")
    groups = own_groups(target, score_a, score_b) if groups is None else groups
    plan = ResamplePlan.draw(groups, len(target), n_resamples, seed)
    weighted = WeightedCorrelations(np.stack([score_a, score_b]), target, (metric,))

    def difference(weights: np.ndarray) -> np.ndarray:
        a, b = weighted(weights)[metric]
        return a - b

    a, b = (getattr(correlations(score, target), metric) for score in (score_a, score_b))
    jackknife = bootstrap_samples(difference, plan.leave_one_out()) if accelerated else None
    estimate = Estimate(a - b, bootstrap_samples(difference, plan), jackknife)
    ends = estimate.ends(level)
    return Comparison(
        metric, a, b, a - b, ends.low, ends.high, estimate.p(), len(target), plan.n_resamples,
        estimate.n_undefined, interval, ends.note,
    )
