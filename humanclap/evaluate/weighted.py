"""Correlations of fixed scores under many integer weightings of the pairs: the engine of the bootstrap.

A bootstrap resample is a weighting: pair i stands in it w_i times. The order of the pairs never changes, so
it is worked out once, and all resamples are then done together: mid-ranks are running sums of weights, with
ties exactly as if the array had been written out. `weights` are [n, B]: one column a resample, whole
numbers, zero allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .checks import listed
from .correlation import METRICS
from .kendall import Inversions, running_sum

EXACT_IN_FLOAT32 = 2**23


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum of products down each column, [n, B] x [n, B] -> float64 [B]."""
    return np.einsum("ib,ib->b", a, b, dtype=np.float64)


class Ranked:
    """One vector's order, and its mid-ranks and ties under weights; `then` orders the elements of a tie."""

    def __init__(self, values: np.ndarray, then: np.ndarray | None = None):
        self.order = np.argsort(values, kind="stable") if then is None else np.lexsort((then, values))
        ordered = values[self.order]
        self.bounds = self._bounds(ordered[1:] != ordered[:-1])
        group = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        of_item = np.empty(len(values), dtype=np.intp)
        of_item[self.order] = group
        self.low, self.high = self.bounds[of_item], self.bounds[of_item + 1]
        if then is not None:
            second = then[self.order]
            self.joint_bounds = self._bounds((ordered[1:] != ordered[:-1]) | (second[1:] != second[:-1]))

    @staticmethod
    def _bounds(changes: np.ndarray) -> np.ndarray:
        """Where the groups of equal neighbours begin, with n at the end: [G + 1]."""
        return np.concatenate([[0], np.flatnonzero(changes) + 1, [len(changes) + 1]])

    def running(self, weights: np.ndarray) -> np.ndarray:
        return running_sum(weights, self.order)

    def centred(self, running: np.ndarray) -> np.ndarray:
        """Twice (mid-rank - mean rank), whole numbers, [n, B] in the order of the pairs."""
        # mid-rank = (weight below + weight up to and with the tie + 1) / 2; the mean rank is (N + 1) / 2
        ranks = running.take(self.high, axis=0)
        ranks += running.take(self.low, axis=0)
        ranks -= running[-1]
        return ranks

    @staticmethod
    def tied_pairs(running: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Number of pairs inside ties, Σ t (t - 1) / 2, copies of one pair among them -> [B]."""
        size = np.diff(running.take(bounds, axis=0), axis=0)
        return (_dot(size, size) - running[-1]) / 2


class WeightedCorrelations:
    """Metrics of M scores [M, n] against one target [n], for weights [n, B].

    Calling it gives {metric: float64 [M, B]}: what `correlations` would say of each resample written out. A
    correlation is NaN where score or target is constant in the resample, all are NaN where it is empty.
    """

    def __init__(self, scores: np.ndarray, target: np.ndarray, metrics: Sequence[str] = METRICS):
        self.scores = np.atleast_2d(np.asarray(scores, dtype=float))
        self.target = np.asarray(target, dtype=float)
        self.metrics = check_metrics(metrics)
        self._target_ranks = self._ranks = self._discordant = None
        if "srcc" in self.metrics or "ktau" in self.metrics:
            then = self.target if "ktau" in self.metrics else None
            self._target_ranks = Ranked(self.target)
            self._ranks = [Ranked(score, then) for score in self.scores]
        if "ktau" in self.metrics:  # tied scores stand by rising target, so that no tie counts as discordant
            self._discordant = [Inversions(self.target[ranked.order]) for ranked in self._ranks]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=0, dtype=np.float64)
        biggest = float(weights.max(initial=0)) * float(total.max(initial=0))
        # float32 holds every rank and product exactly here, at half the traffic; sums are always float64
        weights = weights.astype(np.float32 if biggest < EXACT_IN_FLOAT32 else np.float64, copy=False)
        values = {metric: np.full((len(self.scores), weights.shape[1]), np.nan) for metric in self.metrics}
        with np.errstate(divide="ignore", invalid="ignore"):  # constant and empty resamples: 0 / 0 is NaN
            if self._ranks is not None:
                self._rank_metrics(weights, total, values)
            if "lcc" in values or "mse" in values:
                self._moment_metrics(weights, total, values)
        return values

    def _rank_metrics(self, weights, total, values) -> None:
        running = self._target_ranks.running(weights)
        target = self._target_ranks.centred(running)
        target_weighted = target * weights
        target_variance = _dot(target, target_weighted)
        all_pairs = total * (total - 1) / 2
        untied_target = all_pairs - Ranked.tied_pairs(running, self._target_ranks.bounds)
        for model, ranked in enumerate(self._ranks):
            running = ranked.running(weights)
            if "srcc" in values:
                score = ranked.centred(running)
                covariance = _dot(score, target_weighted)
                variance = _dot(score, score * weights)
                values["srcc"][model] = np.clip(covariance / np.sqrt(variance * target_variance), -1, 1)
            if "ktau" in values:
                untied_score = all_pairs - ranked.tied_pairs(running, ranked.bounds)
                tied_in_both = ranked.tied_pairs(running, ranked.joint_bounds)
                untied_in_both = untied_score + untied_target - all_pairs + tied_in_both
                discordant = self._discordant[model](weights.take(ranked.order, axis=0))
                tau = (untied_in_both - 2 * discordant) / np.sqrt(untied_score) / np.sqrt(untied_target)
                values["ktau"][model] = np.clip(tau, -1, 1)

    def _moment_metrics(self, weights, total, values) -> None:
        weights = weights.astype(np.float64, copy=False)
        y = self.target - self.target.mean()  # centred: nothing is lost where the values are large
        sum_y, sum_yy = np.stack([y, y * y]) @ weights
        for model, score in enumerate(self.scores):
            if "mse" in values:
                values["mse"][model] = (score - self.target) ** 2 @ weights / total
            if "lcc" not in values:
                continue
            x = score - score.mean()
            sum_x, sum_xx, sum_xy = np.stack([x, x * x, x * y]) @ weights
            variance_x, variance_y = sum_xx - sum_x**2 / total, sum_yy - sum_y**2 / total
            lcc = (sum_xy - sum_x * sum_y / total) / np.sqrt(variance_x * variance_y)
            # what is left of a variance after such a cancellation may be rounding: look at those one by one
            for column in np.flatnonzero((variance_x <= 1e-8 * sum_xx) | (variance_y <= 1e-8 * sum_yy)):
                lcc[column] = _pearson(score, self.target, weights[:, column])
            values["lcc"][model] = np.clip(lcc, -1, 1)


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Pearson's correlation of one resample in two passes; NaN where x or y is constant in it."""
    kept = weights > 0
    x, y, weights = x[kept], y[kept], weights[kept]
    if len(x) == 0 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    return float((weights * x) @ y / np.sqrt((weights * x) @ x) / np.sqrt((weights * y) @ y))


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics as a tuple; ValueError names one that does not exist."""
    metrics = tuple(metrics) if isinstance(metrics, Iterable) and not isinstance(metrics, str) else (metrics,)
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise ValueError(f"unknown metric: {listed(unknown) or 'none given'}. Available: {listed(METRICS)}")
    return metrics
