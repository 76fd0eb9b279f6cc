"""p-values of bootstrap differences, and Holm's correction for a table of them."""

from __future__ import annotations

import numpy as np

CORRECTION_RESAMPLES = 10_000  # fewer, and the smallest p, 2 / (B + 1), times a table's comparisons says nothing


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


def holm(p) -> np.ndarray:
    """Holm's (1979) step-down adjustment of the p-values `p` [m] of one family, by position.

    The k-th smallest of the m becomes max over j <= k of min(1, (m - j + 1) p_(j)): rejecting where it is at
    most α keeps the chance of any false rejection at α, whatever the dependence. NaN (a comparison that could
    not be made) stays NaN and is not counted in m. ValueError outside 0 to 1 or not one-dimensional.
    """
    p = np.asarray(p, dtype=float)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise ValueError(f"holm takes p-values from 0 to 1 in one dimension; it got {p.tolist()}")
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    steps = np.maximum.accumulate(np.arange(len(order), 0, -1) * p[order])
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def check_correction(n_resamples: int) -> None:
    """ValueError where a correction for many comparisons is asked for with too few resamples."""
    if n_resamples < CORRECTION_RESAMPLES:
        raise ValueError(
            f"n_resamples={n_resamples} is too few for Holm's correction: p can't fall below 2 / (B + 1), so take "
            f"at least {CORRECTION_RESAMPLES:,}, or ask for no correction"
        )
