"""Bootstrap intervals of one statistic from its resamples: percentile and BCa."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from .checks import check_level, listed
from .significance import two_sided_p

INTERVALS = ("percentile", "bca")


@dataclass(frozen=True)
class Ends:
    """Low and high end of an interval; `note` says why they are NaN or what they lack, or is ""."""

    low: float
    high: float
    note: str = ""


def check_interval(interval) -> bool:
    """Whether a jackknife is needed: True for "bca", False for "percentile"; ValueError for another."""
    if not isinstance(interval, str) or interval not in INTERVALS:
        raise ValueError(f"unknown interval: {interval!r}. Available: {listed(INTERVALS)}")
    return interval == "bca"


def percentile_interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Low and high end of the central `level` of `samples` [B]; NaN are left out, (NaN, NaN) if all are."""
    check_level(level)
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bca_interval(value: float, samples: np.ndarray, jackknife: np.ndarray, level: float = 0.95) -> Ends:
    """Bias-corrected and accelerated interval (Efron 1987) of a statistic with `value` and `samples` [B].

    The ends are the quantiles Φ(z0 + (z0 + z) / (1 - a (z0 + z))) of the samples, z = Φ⁻¹((1 ± level) / 2).
    Bias z0 = Φ⁻¹((#{sample < value} + #{sample <= value}) / 2B); acceleration a = Σ u³ / (6 (Σ u²)^1.5),
    u = mean(jackknife) - jackknife, `jackknife` [G] being the statistic without each group. NaN samples are
    left out. What can't be computed is NaN and says so in the note: all samples on one side of the value, a
    jackknife that is undefined without some group. A constant jackknife has acceleration 0, noted as well.
    """
    check_level(level)
    defined = samples[~np.isnan(samples)]
    if not np.isfinite(value) or not len(defined):
        return Ends(np.nan, np.nan, "")
    undefined = int(np.isnan(jackknife).sum())
    if undefined:
        return Ends(np.nan, np.nan, f"no BCa interval: undefined without each of {undefined} groups")
    bias = ndtri(((defined < value).mean() + (defined <= value).mean()) / 2)
    if not np.isfinite(bias):
        return Ends(np.nan, np.nan, "no BCa interval: all resamples lie on one side of the value")
    away = jackknife.mean() - jackknife
    # the jackknife of a constant is that constant up to rounding: its cubes would be noise
    constant = np.abs(away).max() <= 1e-12 * max(1.0, abs(value))
    acceleration = 0.0 if constant else (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    shifted = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    if (acceleration * shifted >= 1).any():
        return Ends(np.nan, np.nan, "no BCa interval: acceleration too large")
    low, high = np.quantile(defined, ndtr(bias + shifted / (1 - acceleration * shifted)))
    return Ends(float(low), float(high), "constant jackknife: BCa without acceleration" if constant else "")


@dataclass(frozen=True)
class Estimate:
    """A statistic with what its interval needs: `samples` [B], and for BCa `jackknife` [G], else None.

    Estimates on one plan are paired: `a - b` is the difference, resample by resample.
    """

    value: float
    samples: np.ndarray
    jackknife: np.ndarray | None = None

    def __sub__(self, other: Estimate) -> Estimate:
        both = self.jackknife is not None and other.jackknife is not None
        return Estimate(
            self.value - other.value,
            self.samples - other.samples,
            self.jackknife - other.jackknife if both else None,
        )

    @property
    def n_undefined(self) -> int:
        """Resamples in which the statistic is NaN: left out of interval and p."""
        return int(np.isnan(self.samples).sum())

    def ends(self, level: float = 0.95) -> Ends:
        """The interval: BCa where there is a jackknife, else percentile; none where the value is undefined."""
        check_level(level)
        if not np.isfinite(self.value):
            return Ends(np.nan, np.nan)
        if self.jackknife is None:
            return Ends(*percentile_interval(self.samples, level))
        return bca_interval(self.value, self.samples, self.jackknife, level)

    def p(self) -> float:
        """Two-sided p of the statistic against 0 (`two_sided_p`); NaN where the value is undefined."""
        return two_sided_p(self.samples) if np.isfinite(self.value) else np.nan
