"""Correlations of fixed scores under many integer weightings of the pairs: the engine of the bootstrap.

A bootstrap resample is a weighting: pair i is in it w_i times. The order of the pairs never changes, so it is worked
out once, and all resamples are then done together: mid-ranks are running sums of weights, with ties exactly as if the
array had been written out. `weights` are [n, B]: one column per resample, whole numbers, zero allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = ("srcc", "lcc", "ktau", "mse")
EXACT_IN_FLOAT32 = 2**23
NOTHING_LEFT = 1e-9  # share of a rank's variance below which what the covariates leave is rounding


def running_sum(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, …, n rows of rows[order]: [n, B] -> [n + 1, B].

    np.cumsum along the first axis walks down one column at a time; this adds whole rows, in about √n steps.
    """
    n, columns = len(order), rows.shape[1]
    width = max(2, int(np.sqrt(n)))
    blocks = -(-(n + 1) // width)
    sums = np.zeros((blocks * width, columns), rows.dtype)
    np.take(rows, order, axis=0, out=sums[1 : n + 1], mode="clip")  # "raise" would go through a second buffer
    grid = sums.reshape(blocks, width, columns)
    for step in range(1, width):
        grid[:, step] += grid[:, step - 1]
    for block in range(1, blocks):
        grid[block] += grid[block - 1, -1]
    return sums[: n + 1]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum of products down each column, [n, B] x [n, B] -> float64 [B]."""
    return np.einsum("ib,ib->b", a, b, dtype=np.float64)


def _exact(weights: np.ndarray) -> np.ndarray:
    """Weights as float32 where that holds every rank and product exactly, at half the traffic; else as float64."""
    biggest = float(weights.max(initial=0)) * float(weights.sum(axis=0, dtype=np.float64).max(initial=0))
    return weights.astype(np.float32 if biggest < EXACT_IN_FLOAT32 else np.float64, copy=False)


class Inversions:
    """Weighted number of inversions of a fixed sequence, Q(w) = Σ_{i<j} w_i w_j [value_i > value_j].

    Two different values differ first in one bit of their ranks: the larger has a 1 there, the smaller a 0, and all
    higher bits are the same. So Q is a sum over bits; for each element with a 0, the weight of the elements with a 1
    and the same higher bits that come before it is read off a running sum. Exact for integer weights.
    """

    def __init__(self, values: np.ndarray):
        codes = np.unique(values, return_inverse=True)[1]
        self.bits = []
        for bit in range(int(codes.max(initial=0)).bit_length()):
            order = np.argsort(codes >> (bit + 1), kind="stable")  # by the higher bits, then by place
            higher, is_one = codes[order] >> (bit + 1), (codes[order] >> bit & 1).astype(bool)
            ones_before = np.concatenate([[0], np.cumsum(is_one)])
            first = np.searchsorted(higher, higher, side="left")
            self.bits.append((order[is_one], order[~is_one], ones_before[:-1][~is_one], ones_before[first][~is_one]))

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Q for each column of `weights` [n, B], rows in the order of the sequence -> float64 [B]."""
        count = np.zeros(weights.shape[1])
        for ones, zeros, here, start in self.bits:
            larger = running_sum(weights, ones)
            before = larger.take(here, axis=0)
            before -= larger.take(start, axis=0)
            count += _dot(weights.take(zeros, axis=0), before)
        return count


class Ranked:
    """One vector's order, and its mid-ranks and ties under weights; `then` orders the elements of a tie."""

    def __init__(self, values: np.ndarray, then: np.ndarray | None = None):
        self.order = np.argsort(values, kind="stable") if then is None else np.lexsort((then, values))
        ordered = values[self.order]
        differs = ordered[1:] != ordered[:-1]
        self.bounds = self._bounds(differs)
        of_item = np.empty(len(values), dtype=np.intp)
        of_item[self.order] = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        self.low, self.high = self.bounds[of_item], self.bounds[of_item + 1]
        if then is not None:
            second = then[self.order]
            self.joint_bounds = self._bounds(differs | (second[1:] != second[:-1]))

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
        self.metrics = tuple(metrics)
        if "srcc" in metrics or "ktau" in metrics:
            self._target_ranks = Ranked(self.target)
            self._ranks = [Ranked(score, self.target if "ktau" in metrics else None) for score in self.scores]
        if "ktau" in metrics:  # tied scores are ordered by rising target, so that no tie counts as discordant
            self._discordant = [Inversions(self.target[ranked.order]) for ranked in self._ranks]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        total, weights = weights.sum(axis=0, dtype=np.float64), _exact(weights)
        values = {metric: np.full((len(self.scores), weights.shape[1]), np.nan) for metric in self.metrics}
        with np.errstate(divide="ignore", invalid="ignore"):  # constant and empty resamples: 0 / 0 is NaN
            if "srcc" in values or "ktau" in values:
                self._rank_metrics(weights, total, values)
            if "lcc" in values or "mse" in values:
                self._moment_metrics(weights.astype(np.float64, copy=False), total, values)
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
                variance = _dot(score, score * weights)
                srcc = _dot(score, target_weighted) / np.sqrt(variance * target_variance)
                values["srcc"][model] = np.clip(srcc, -1, 1)
            if "ktau" in values:
                untied_score = all_pairs - ranked.tied_pairs(running, ranked.bounds)
                tied_in_both = ranked.tied_pairs(running, ranked.joint_bounds)
                untied_in_both = untied_score + untied_target - all_pairs + tied_in_both
                discordant = self._discordant[model](weights.take(ranked.order, axis=0))
                tau = (untied_in_both - 2 * discordant) / np.sqrt(untied_score) / np.sqrt(untied_target)
                values["ktau"][model] = np.clip(tau, -1, 1)

    def _moment_metrics(self, weights, total, values) -> None:
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


class WeightedPartialSrcc:
    """Partial SRCC of M scores [M, n] with one target [n], for weights [n, B] -> float64 [M, B].

    Score, target and each of the covariates (vectors [n]) become mid-ranks of the resample, ties as if it were written
    out; these are residualised by least squares on a constant per category (`categories`, labels [n], or None) and on
    the covariates' ranks; the value is Pearson's correlation of the two residuals. As the ranks of a 0/1 dummy are a
    linear map of it, this is Spearman's partial correlation with the dummies and covariates given. NaN where nothing is
    left of score or target.
    """

    def __init__(self, scores, target, covariates=(), categories=None):
        scores = np.atleast_2d(np.asarray(scores, dtype=float))
        self.ranked = [Ranked(np.asarray(values, dtype=float)) for values in (target, *covariates, *scores)]
        self.n_known = 1 + len(covariates)
        labels = np.zeros(len(target)) if categories is None else np.asarray(categories)
        self.dummies = (labels[:, None] == np.unique(labels)).T.astype(float)  # [S, n]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        weights = _exact(weights)
        ranks = [ranked.centred(ranked.running(weights)) for ranked in self.ranked]
        known, scores, size = ranks[: self.n_known], ranks[self.n_known :], len(self.dummies)
        given = [*range(size), *range(size + 1, size + self.n_known)]  # columns: dummies, target, covariates

        def products(of: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
            """Sums of the products of one vector of ranks with the dummies and with `others`: [B, S + len(others)]."""
            weighted = of * weights
            return np.concatenate([self.dummies @ weighted, [_dot(other, weighted) for other in others]]).T

        known_products = np.zeros((weights.shape[1], size + self.n_known, size + self.n_known))
        known_products[:, np.arange(size), np.arange(size)] = (self.dummies @ weights).T
        for place, of in enumerate(known, size):
            known_products[:, place] = known_products[:, :, place] = products(of, known)
        found = [_partial(known_products, products(of, [*known, of]), given, size) for of in scores]
        return np.stack(found)


def _partial(products: np.ndarray, of_score: np.ndarray, given: list[int], target: int) -> np.ndarray:
    """Correlation of score and target, columns `given` regressed out, from sums of products -> [B]; NaN: nothing left.

    products [B, m, m] are of target and columns, of_score [B, m + 1] of the score with each and with itself.
    """
    variances = np.concatenate([np.einsum("bmm->bm", products), of_score[:, -1:]], axis=1)
    scale = np.sqrt(np.where(variances > 0, variances, np.inf))  # an empty or constant column is 0 throughout
    products = products / scale[:, :-1, None] / scale[:, None, :-1]
    of_score = of_score / scale / scale[:, -1:]
    inverse = np.linalg.pinv(products[:, given][:, :, given], rcond=NOTHING_LEFT, hermitian=True)
    sides = np.stack([of_score[:, given], products[:, target, given]], axis=1)  # [B, 2, k]
    taken = sides @ inverse @ sides.transpose(0, 2, 1)
    score, wanted = of_score[:, -1] - taken[:, 0, 0], products[:, target, target] - taken[:, 1, 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.clip((of_score[:, target] - taken[:, 0, 1]) / np.sqrt(score * wanted), -1, 1)
    return np.where((score > NOTHING_LEFT) & (wanted > NOTHING_LEFT), value, np.nan)


class WeightedAuc:
    """AUC of `scores` [n] where `is_matched` [n] against where not, a tie counting half, for weights [n, B] -> [B]."""

    def __init__(self, scores: np.ndarray, is_matched: np.ndarray):
        self.matched = np.asarray(is_matched, dtype=bool)
        other = scores[~self.matched]
        self.order = np.argsort(other, kind="stable")
        self.below = np.searchsorted(other[self.order], scores[self.matched], side="left")
        self.not_above = np.searchsorted(other[self.order], scores[self.matched], side="right")

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        weights = weights.astype(np.float64, copy=False)
        matched = weights[self.matched]
        others = running_sum(weights[~self.matched], self.order)
        wins = _dot(matched, others[self.below] + others[self.not_above]) / 2
        with np.errstate(invalid="ignore"):  # no such pair in the resample: 0 / 0 is NaN
            return wins / (matched.sum(axis=0) * others[-1])
