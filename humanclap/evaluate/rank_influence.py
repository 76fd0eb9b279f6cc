"""What each pair does to Spearman's correlation, to first order in its weight."""

from __future__ import annotations

import numpy as np


def srcc_influence(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """SRCC of x [n] and y [n], ties by mid-ranks, and its derivative by the weight of each pair [n].

    With pair k standing in the data w_k times and sign ranks a_i = Σ_j w_j sgn(x_i - x_j), b_i likewise of y,

        ρ = S_ab / √(S_aa S_bb),    S_ab = Σ w_i a_i b_i,
        ∂S_ab/∂w_k = a_k b_k + Σ_i w_i (sgn(x_i - x_k) b_i + sgn(y_i - y_k) a_i),

    taken at weights of one. So a bootstrap resample with weights w moves ρ by Σ (w_k - 1) ∂ρ/∂w_k, to first order. The
    derivatives sum to 0. (NaN, NaNs) where x or y is constant or empty.
    """
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.full(len(x), np.nan)
    x_side, y_side = _Sides(x), _Sides(y)
    a, b = x_side.rank, y_side.rank
    ab, aa, bb = a @ b, a @ a, b @ b
    srcc = ab / np.sqrt(aa * bb)
    of_ab = a * b + x_side.above_less_below(b) + y_side.above_less_below(a)
    of_aa = a * a + 2 * x_side.above_less_below(a)
    of_bb = b * b + 2 * y_side.above_less_below(b)
    return float(srcc), of_ab / np.sqrt(aa * bb) - srcc / 2 * (of_aa / aa + of_bb / bb)


class _Sides:
    """Which values lie below and above each of `values` [n]."""

    def __init__(self, values: np.ndarray):
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        self.below, self.upto = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
        self.rank = (self.below + self.upto - len(values)).astype(float)  # twice the centred mid-rank

    def above_less_below(self, other: np.ndarray) -> np.ndarray:
        """Σ of `other` over the larger values less that over the smaller ones, for each value [n]."""
        running = np.concatenate([[0.0], np.cumsum(other[self.order])])
        return running[-1] - running[self.upto] - running[self.below]
