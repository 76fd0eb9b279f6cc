"""Correlations, their intervals and paired differences: captions are resampled with all their pairs.

One caption is rated with several clips by the same listeners, so pairs of one caption are not independent. A resample
draws captions with replacement and takes each with all its pairs; it is kept as counts, never written out. One plan of
draws serves every score, metric and cell, so differences are paired.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

from humanclap.checks import choice, whole_number

from .inputs import as_pair, as_vector, group_codes, own_groups
from .weighted import METRICS, WeightedCorrelations

CHUNK = 250  # resamples done together: large enough for numpy, small enough for the cache
MOST_THREADS = 8  # each holds a chunk of resamples: some 30 MB at RELATE's size
TAIL = (0.025, 0.975)  # every interval here is the central 95 %
ALPHA = 0.05
CORRECTION_RESAMPLES = 10_000  # fewer, and the smallest p, 2 / (B + 1), times a table's comparisons says nothing
MIN_CAPTIONS = 4  # fewer, and an interval says nothing: it is left empty and marked
MIN_CAPTIONS_P = 20  # fewer, and the tails of a bootstrap p are false (benchmarks/small_samples.py): it is left empty
MOST_FLIPPED = 16  # differences up to which all 2^n sign patterns are tried


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

    Lists, arrays and Series are taken by position. MSE is in squared units of the target, so it means something only
    where the score is on the target's scale (0 to 1). Where score or target is constant no correlation is defined: the
    three are NaN, and the MSE is still given. ValueError on unequal lengths, NaN or infinity (how many, and where the
    first is), more than one dimension, fewer than 2 pairs.
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


@dataclass(frozen=True)
class ResamplePlan:
    """Which groups are in which resample: `codes` [n] (group of a pair), `counts` [n_groups, n_resamples].

    The draws depend on the groups, the seed and nothing else: groups are numbered by their labels, so the order of the
    rows does not matter. A longer plan begins with the shorter one's.
    """

    codes: np.ndarray
    counts: np.ndarray

    @classmethod
    def draw(cls, groups, n_resamples: int = 2000, seed: int = 0) -> ResamplePlan:
        """A plan for pairs with the labels `groups` [n], a caption each.

        Each resample draws as many groups as there are, with replacement. ValueError on a missing label, fewer than 2
        groups, fewer than 1 resample, a seed that is no whole number of at least 0.
        """
        n_resamples, seed = whole_number(n_resamples, "n_resamples", 1), whole_number(seed, "seed")
        codes = group_codes(groups)
        n_groups = int(codes.max(initial=-1)) + 1
        if n_groups < 2:
            raise ValueError(f"a bootstrap needs at least 2 groups to draw from; {len(codes)} pairs have {n_groups}")
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

    def weights(self, span: slice, rows=slice(None)) -> np.ndarray:
        """How often each pair (of `rows`) is in the resamples `span`: float32 [n, B]."""
        return self.counts[:, span].astype(np.float32).take(self.codes[rows], axis=0)

    def spans(self) -> list[slice]:
        """The resamples in chunks that are done together."""
        ends = [*range(0, self.n_resamples, CHUNK), self.n_resamples]
        return [slice(*span) for span in itertools.pairwise(ends)]

    def indices(self, resample: int) -> np.ndarray:
        """Positions of the pairs of one resample, written out: for a plain loop over resamples."""
        return np.repeat(np.arange(len(self.codes)), self.counts[self.codes, resample])


def percentile_interval(samples: np.ndarray) -> tuple[float, float]:
    """Low and high end of the central 95 % of `samples` [B]; NaN are left out, (NaN, NaN) if all are."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, TAIL)
    return float(low), float(high)


def two_sided_p(differences: np.ndarray) -> float:
    """p = min(1, 2 · min((#{d ≤ 0} + 1) / (B + 1), (#{d ≥ 0} + 1) / (B + 1))) over resampled differences d [B].

    Differences that are NaN are left out. Never below 2 / (B + 1); NaN where no difference is defined. With fewer than
    MIN_CAPTIONS_P captions behind the resamples it is too small too often, so no table here states it then.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return np.nan
    rarer = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(defined) + 1)))


def paired_p(differences) -> float:
    """Two-sided p that the mean of paired differences [n] is 0 (one difference per prompt, prompts independent).

    Up to 16 differences: exact sign-flip test, the share of the 2^n sign patterns whose sum is at least as far from 0
    as the observed one; never below 2^(1 - n). More: Student's t-test, with the same lower bound. NaN for none.
    """
    differences = as_vector(differences, "differences")
    n, total = len(differences), abs(differences.sum())
    if not n:
        return np.nan
    if not differences.any():
        return 1.0
    if n <= MOST_FLIPPED:
        sums = np.zeros(1)
        for difference in differences:
            sums = np.concatenate([sums + difference, sums - difference])
        return float((np.abs(sums) >= total - 1e-9 * np.abs(differences).sum()).mean())
    spread = differences.std(ddof=1)
    p = 2 * stats.t.sf(total / n / (spread / np.sqrt(n)), n - 1) if spread > 0 else 0.0
    return float(max(p, 2.0 ** (1 - n)))


def holm(p) -> np.ndarray:
    """Holm's (1979) step-down adjustment of the p-values `p` [m] of one family, by position (statsmodels).

    Rejecting where it is at most α keeps the chance of any false rejection at α, whatever the dependence. NaN (a
    comparison that could not be made) stays NaN and is not counted in m. ValueError outside 0 to 1.
    """
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=float)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise ValueError(f"holm takes p-values from 0 to 1 in one dimension; it got {p.tolist()}")
    adjusted, known = np.full(len(p), np.nan), ~np.isnan(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted


@dataclass(frozen=True)
class Estimate:
    """A statistic with its value in every resample, `samples` [B]; NaN where it is undefined.

    Estimates on one plan are paired: `a - b` is the difference, resample by resample.
    """

    value: float
    samples: np.ndarray

    @classmethod
    def mean(cls, values: np.ndarray, samples: np.ndarray) -> Estimate:
        """The mean over a model's runs of values [S] and samples [S, B]: in each resample the same captions for all."""
        return cls(float(np.mean(values)), samples.mean(axis=0))

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.samples - other.samples)

    @property
    def n_undefined(self) -> int:
        """Resamples in which the statistic is NaN: left out of interval and p."""
        return int(np.isnan(self.samples).sum())

    def ends(self) -> tuple[float, float]:
        """The percentile interval; none where the value is undefined."""
        return percentile_interval(self.samples) if np.isfinite(self.value) else (np.nan, np.nan)

    def row(self, prefix: str = "") -> dict[str, float]:
        """low and high by name."""
        return dict(zip((f"{prefix}low", f"{prefix}high"), self.ends(), strict=True))

    def p(self, n_groups: int) -> float:
        """Two-sided p of the statistic against 0; NaN where it is undefined, or rests on too few captions."""
        return two_sided_p(self.samples) if np.isfinite(self.value) and n_groups >= MIN_CAPTIONS_P else np.nan


def few_captions(n_groups: int) -> str:
    """Why there is no p for so few captions, or ""."""
    return "" if n_groups >= MIN_CAPTIONS_P else f"no p: fewer than {MIN_CAPTIONS_P} captions"


def seed_sd(values: np.ndarray) -> float:
    """SD (n - 1) over a model's training seeds; NaN for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


def bootstrap_samples(
    statistic: Callable[[np.ndarray], np.ndarray], plan: ResamplePlan, rows=slice(None)
) -> np.ndarray:
    """`statistic` of every resample: it maps weights [n, B] (of the pairs `rows`) to [..., B]; here B = n_resamples."""
    # numpy lets go of the interpreter in its loops
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        return np.concatenate(list(pool.map(lambda span: statistic(plan.weights(span, rows)), plan.spans())), axis=-1)


@dataclass(frozen=True)
class BootstrapCorrelations:
    """Correlations with their 95 % intervals.

    n_constant: resamples in which score or target is constant, so that a correlation is undefined; they are left out of
    the intervals of the correlations. n_groups: captions (or pairs) drawn from.
    """

    estimate: Correlations
    low: Correlations
    high: Correlations
    n_resamples: int
    n_constant: int
    n_groups: int

    def to_frame(self) -> pd.DataFrame:
        """One row per metric: metric, value, low, high, n."""
        parts = {"value": self.estimate, "low": self.low, "high": self.high}
        values = {name: [getattr(part, metric) for metric in METRICS] for name, part in parts.items()}
        return pd.DataFrame({"metric": METRICS, **values, "n": self.estimate.n})


def bootstrap_correlations(score, target, groups=None, n_resamples: int = 2000, seed: int = 0) -> BootstrapCorrelations:
    """SRCC, LCC, KTAU and MSE of `score` [N] against `target` [N] with 95 % percentile bootstrap intervals.

    groups: the caption of each pair, [N]; a resample draws captions with all their pairs. None: pairs are drawn. Each
    resample's correlations equal scipy's on the pairs written out, ties included. The same seed gives the same
    resamples, whatever the order of the pairs. A torch tensor is detached. Raises as `correlations` and
    `ResamplePlan.draw` do.
    """
    score, target = as_pair(score, target)
    plan = plan_for(groups, target, score, n_resamples=n_resamples, seed=seed)
    weighted = WeightedCorrelations(score, target)
    found = correlations(score, target)
    samples = bootstrap_samples(lambda weights: np.stack(list(weighted(weights).values()))[:, 0], plan)
    ends = [Estimate(getattr(found, metric), drawn).ends() for metric, drawn in zip(METRICS, samples, strict=True)]
    low, high = (Correlations(*side, n=len(score)) for side in zip(*ends, strict=True))
    n_constant = int(np.isnan(samples).any(axis=0).sum())
    return BootstrapCorrelations(found, low, high, plan.n_resamples, n_constant, plan.n_groups)


def plan_for(groups, *columns: np.ndarray, n_resamples: int, seed: int) -> ResamplePlan:
    """A plan over captions (`groups` [n]) or, where they are None, over single pairs, in the order of `columns` [n]."""
    codes = own_groups(*columns) if groups is None else group_codes(groups, len(columns[0]))
    return ResamplePlan.draw(codes, n_resamples, seed)


@dataclass(frozen=True)
class Comparison:
    """A paired difference, `difference` = a - b, with its 95 % interval and two-sided bootstrap p-value.

    n: pairs; n_constant: resamples in which the metric is undefined for one of the two, left out of both interval and
    p. note: why there is no p, or "".
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
    note: str = ""


def compare(
    score_a, score_b, target, groups=None, metric: str = "srcc", n_resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Paired bootstrap of metric(score_a) - metric(score_b) on the same pairs [N] and resamples.

    metric: srcc, lcc, ktau or mse (for mse a negative difference means that a is better). p is `two_sided_p`, so it
    needs n_resamples >= 10,000 where a correction for many comparisons (`holm`) follows; NaN below 20 captions (or
    pairs, without groups). Raises as `bootstrap_correlations` does, and ValueError for an unknown metric.
    """
    choice(metric, "metric", METRICS)
    score_a, target = as_pair(score_a, target, "score_a")
    score_b, _ = as_pair(score_b, target, "score_b")
    plan = plan_for(groups, target, score_a, score_b, n_resamples=n_resamples, seed=seed)
    weighted = WeightedCorrelations(np.stack([score_a, score_b]), target, (metric,))
    samples = bootstrap_samples(lambda weights: weighted(weights)[metric], plan)
    a, b = (getattr(correlations(score, target), metric) for score in (score_a, score_b))
    found, n = Estimate(a - b, samples[0] - samples[1]), plan.n_groups
    counted = len(target), plan.n_resamples, found.n_undefined
    return Comparison(metric, a, b, found.value, *found.ends(), found.p(n), *counted, few_captions(n))


@dataclass(frozen=True)
class MeanInterval:
    """A mean with its 95 % interval over n_groups captions; note: why there is no interval, or ""."""

    mean: float
    low: float
    high: float
    n_groups: int
    note: str = ""


def mean_interval(values, groups, n_resamples: int = 2000, seed: int = 0) -> MeanInterval:
    """Mean of `values` [N] with its interval, captions (`groups` [N]) resampled with all their values.

    The expanded percentile interval (Hesterberg 2015): over n captions, resamples are moved away from the mean by
    √(n / (n - 1)) · t / z, the 97.5 % quantiles of Student's t with n - 1 degrees of freedom and of the normal
    distribution. A plain percentile interval over 10 captions is a fifth too narrow; over 500 the factor is 1.003. Fewer
    than 4 captions: no interval, and the note says so. ValueError for NaN, unequal lengths, missing labels.
    """
    values = as_vector(values, "values")
    codes = group_codes(groups, len(values))
    n = int(codes.max(initial=-1)) + 1
    mean = float(values.mean()) if len(values) else np.nan
    if n < MIN_CAPTIONS:
        return MeanInterval(mean, np.nan, np.nan, n, few_prompts(n))
    samples = bootstrap_samples(weighted_mean(values), ResamplePlan.draw(codes, n_resamples, seed))
    factor = np.sqrt(n / (n - 1)) * stats.t.ppf(TAIL[1], n - 1) / stats.norm.ppf(TAIL[1])
    return MeanInterval(mean, *percentile_interval(mean + factor * (samples - mean)), n)


def weighted_mean(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Means of `values` [n] or [R, n] under weights [n, B]: [B] or [R, B]. NaN is left out; NaN where nothing is left."""
    defined = np.isfinite(values)
    filled = np.where(defined, values, 0.0)

    def mean(weights: np.ndarray) -> np.ndarray:
        weights = weights.astype(float)
        with np.errstate(invalid="ignore"):  # no pair at all, or none in the resample: 0 / 0 is NaN
            return filled @ weights / (defined @ weights)

    return mean


def few_prompts(n: int) -> str:
    """Why there is no interval over n captions or prompts, or ""."""
    if n >= MIN_CAPTIONS:
        return ""
    return "no clip with a score" if n == 0 else f"{n} prompt{'s' * (n > 1)}, an interval needs {MIN_CAPTIONS}"
