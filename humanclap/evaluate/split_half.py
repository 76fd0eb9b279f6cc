"""Split-half agreement: the ratings of each pair dealt at random into two halves."""

from __future__ import annotations

import numpy as np
from scipy import stats

from .weighted import WeightedCorrelations


def random_halves(
    values: np.ndarray, pair: np.ndarray, raters: np.ndarray, n_splits: int, seed: int
) -> tuple[list, np.ndarray]:
    """Means of two random halves of the ratings of each pair with at least two, n_splits times.

    values, pair: rating and number of the pair, [N], sorted by both, so that the deal does not depend on the
    order in which ratings came; raters: ratings of each pair [n]. Returns n_splits x
    (a [m], b [m]), and which m of the n pairs they are, a mask [n].
    """
    several = raters >= 2
    kept = several[pair]
    code, values = np.cumsum(several)[pair[kept]] - 1, values[kept]
    size = np.bincount(code)
    place = np.arange(len(code)) - np.repeat(np.cumsum(size) - size, size)  # of a rating within its pair
    rng = np.random.default_rng([seed, 1])
    halves = []
    for _ in range(n_splits):
        # codes are whole numbers, so pairs stay together and only their ratings change places
        shuffled = values[np.argsort(code + rng.random(len(code)))]
        in_first = size // 2 + (size % 2) * rng.integers(2, size=len(size))
        first = place < in_first[code]
        sums = np.bincount(code, shuffled * first), np.bincount(code, shuffled * ~first)
        halves.append((sums[0] / in_first, sums[1] / (size - in_first)))
    return halves, several


def srcc_of_halves(halves: list) -> np.ndarray:
    """SRCC of each split [n_splits]; NaN for fewer than 2 pairs or a constant half."""
    defined = [len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0 for a, b in halves]
    return np.array([stats.spearmanr(*split).statistic if good else np.nan
                     for split, good in zip(halves, defined, strict=True)])


class MeanSrcc:
    """Mean SRCC over some splits, for weights of all pairs [n, B]; `several` marks those that were split."""

    def __init__(self, halves: list, several: np.ndarray):
        self.several = several
        self.statistics = [WeightedCorrelations(a, b, ("srcc",)) for a, b in halves]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        weights = weights[self.several]
        return np.mean([statistic(weights)["srcc"][0] for statistic in self.statistics], axis=0)
