"""How well a score follows a target: SRCC, LCC, KTAU (tau-b) and MSE of one set of pairs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from .checks import as_pair

METRICS = ("srcc", "lcc", "ktau", "mse")


@dataclass(frozen=True)
class Correlations:
    """Agreement of a score with a target over n pairs.

    srcc: Spearman's rank correlation on mid-ranks; lcc: Pearson's linear correlation; ktau: Kendall's tau-b;
    mse: mean of (score - target)²; n: number of pairs. A correlation that is not defined is NaN.
    """

    srcc: float
    lcc: float
    ktau: float
    mse: float
    n: int

    def as_dict(self) -> dict[str, float]:
        """The five values by name."""
        return asdict(self)


def correlations(score, target) -> Correlations:
    """SRCC, LCC, KTAU (tau-b) and MSE of `score` [N] against `target` [N], both finite, N >= 2.

    Lists, arrays and Series are taken by position. MSE is in squared units of the target, so it means
    something only where the score is on the target's scale (0 to 1). Where score or target is constant no
    correlation is defined: the three are NaN, and the MSE is still given. ValueError on unequal lengths,
    NaN or infinity (how many, and where the first is), more than one dimension, fewer than 2 pairs.
    """
    score, target = as_pair(score, target)
    mse = float(np.mean((score - target) ** 2))
    if np.ptp(score) == 0 or np.ptp(target) == 0:
        return Correlations(math.nan, math.nan, math.nan, mse, len(score))
    return Correlations(
        srcc=float(stats.spearmanr(score, target).statistic),
        lcc=float(stats.pearsonr(score, target).statistic),
        ktau=float(stats.kendalltau(score, target, variant="b").statistic),
        mse=mse,
        n=len(score),
    )
