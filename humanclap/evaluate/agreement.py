"""Ceilings: how far listeners agree, and so how well any score could do against the mean of their ratings."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from humanclap.relate.checks import need_seed

from .bootstrap import bootstrap_samples
from .cells import system_cells
from .checks import PAIR, as_ratings, check_level, whole_number
from .intervals import percentile_interval
from .resamples import ResamplePlan
from .split_half import MeanSrcc, random_halves, srcc_of_halves

SPLITS_FOR_INTERVAL = 10  # splits that each resample averages; more would hardly narrow the interval


@dataclass(frozen=True)
class HumanCeiling:
    """What `human_ceiling` finds. Variances are in squared rating units (0 to 10).

    share_single: share of pairs with one rating. variance_clipped: the pairs' variance came out below zero
    and was set to 0. reliability: share of the mean ratings' variance that is the pairs' own; lcc_ceiling:
    its square root. split_half_sd: SD over the splits. n_split_half_pairs: pairs with at least two ratings.
    n_undefined: resamples left out of an interval. low and high are NaN where n_resamples is 0.
    """

    n_pairs: int
    n_ratings: int
    n_captions: int
    mean_raters: float
    share_single: float
    variance_pair: float
    variance_residual: float
    variance_clipped: bool
    reliability: float
    reliability_low: float
    reliability_high: float
    lcc_ceiling: float
    lcc_ceiling_low: float
    lcc_ceiling_high: float
    split_half_srcc: float
    split_half_sd: float
    split_half_low: float
    split_half_high: float
    n_split_half_pairs: int
    n_splits: int
    n_resamples: int
    n_undefined: int

    def as_dict(self) -> dict:
        """Every value by name."""
        return asdict(self)

    def to_frame(self) -> pd.DataFrame:
        """One row a quantity: quantity, value, low, high, n (pairs it rests on)."""
        rows = [
            ("reliability", self.reliability, self.reliability_low, self.reliability_high, self.n_pairs),
            ("lcc_ceiling", self.lcc_ceiling, self.lcc_ceiling_low, self.lcc_ceiling_high, self.n_pairs),
            ("split_half_srcc", self.split_half_srcc, self.split_half_low, self.split_half_high,
             self.n_split_half_pairs),
        ]
        return pd.DataFrame(rows, columns=["quantity", "value", "low", "high", "n"])


class Components:
    """One-way variance components and reliability for pair weights [n, B]."""

    def __init__(self, ratings: np.ndarray, pair: np.ndarray):
        ratings = ratings - ratings.mean()
        self.raters = np.bincount(pair).astype(float)
        mean = np.bincount(pair, ratings) / self.raters
        inside = np.bincount(pair, (ratings - mean[pair]) ** 2)
        n = self.raters
        self.terms = np.stack([np.ones_like(n), n, n**2, 1 / n, n * mean, n * mean**2, inside])

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(unclipped variance of pairs, residual variance, reliability), each [B]; NaN where not defined."""
        return self.all(weights)[:3]

    def all(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Those three and the noise of a mean rating, σ²_e · mean(1 / n_i), each [B]."""
        pairs, ratings, squares, inverse, total, between, inside = self.terms @ weights.astype(np.float64)
        # no pair with two ratings drawn, or all ratings equal: 0 / 0 is NaN
        with np.errstate(divide="ignore", invalid="ignore"):
            residual = inside / (ratings - pairs)
            mean_square = (between - total**2 / ratings) / (pairs - 1)
            n0 = (ratings - squares / ratings) / (pairs - 1)
            of_pairs = (mean_square - residual) / n0
            clipped = np.maximum(of_pairs, 0)
            noise = residual * inverse / pairs
            reliability = clipped / (clipped + noise)
        return of_pairs, residual, reliability, noise


def human_ceiling(
    ratings: pd.DataFrame, n_splits: int = 100, n_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> HumanCeiling:
    """How well any score could agree with the mean ratings, from how well listeners agree with each other.

    ratings: one row a rating: audio, text, rating (0 to 10), without anchors. The model is one-way, r_ij =
    μ + p_i + e_ij for listener j of pair i, pair i having n_i ratings (k pairs, N ratings). ANOVA
    estimators:

        σ²_e = Σ (r_ij - r̄_i)² / (N - k)
        σ²_p = (MS_between - σ²_e) / n0,  n0 = (N - Σ n_i² / N) / (k - 1)

    A score that knows p_i exactly has Cov(p, r̄) = σ²_p with the mean ratings, whose variance over the
    pairs is σ²_p + σ²_e · mean(1 / n_i), as each pair counts once in a correlation, however many rated it.
    So

        reliability = σ²_p / (σ²_p + σ²_e · mean(1 / n_i)),        LCC ceiling = √reliability,

    with the harmonic mean of the n_i in the place of the usual n; at equal n it is ICC(1, n). A negative
    σ²_p is set to 0 (`variance_clipped`). Split-half: the ratings of each pair with at least two are dealt
    at random into two halves (of an odd number either half gets one more) and the SRCC of the halves' means
    is averaged over `n_splits`.

    Intervals: percentile bootstrap over captions with all their pairs and ratings, never over listeners.
    For the split-half, each resample averages the first 10 splits, and the interval is moved to centre on
    all of them. n_resamples 0, or a single caption, leaves the intervals out (NaN). The order of the rows
    says nothing. ValueError for a missing column, a rating that is no number, anchors (is_anchor true), an
    is_anchor that is neither True nor False, one listener twice on a pair, fewer than 2 pairs, no pair with 2
    ratings, n_splits below 1, n_resamples or seed below 0 (or no whole numbers), a level not between 0 and 1.
    """
    n_splits = whole_number(n_splits, "n_splits", 1)
    n_resamples = whole_number(n_resamples, "n_resamples", 0)
    seed = need_seed(seed)
    check_level(level)
    values = as_ratings(ratings)
    pair = _pairs_of(ratings)
    order = np.lexsort((values, pair))  # equal ratings of a pair may change places: nothing here can tell
    values, pair, captions = values[order], pair[order], ratings["text"].to_numpy(object)[order]
    raters = np.bincount(pair)
    n_pairs = len(raters)
    if n_pairs < 2:
        raise ValueError(f"{n_pairs} pairs are too few: agreement needs at least 2")
    if raters.max() < 2:
        raise ValueError(f"none of the {n_pairs} pairs has 2 ratings: single ratings can't agree or differ")

    components = Components(values, pair)
    variance_pair, variance_residual, reliability = (v[0] for v in components(np.ones((n_pairs, 1))))
    captions = captions[np.cumsum(raters) - raters]  # one a pair
    halves, several = random_halves(values, pair, raters, n_splits, seed)
    srcc = srcc_of_halves(halves)
    halves = [split for split, value in zip(halves, srcc, strict=True) if not np.isnan(value)]
    srcc = srcc[~np.isnan(srcc)]
    split_half = float(srcc.mean()) if len(srcc) else np.nan

    ends = half_ends = (np.nan, np.nan)
    n_undefined = 0
    if n_resamples and len(set(captions)) > 1:
        plan = ResamplePlan.draw(captions, n_pairs, n_resamples, seed)
        samples = bootstrap_samples(lambda weights: components(weights)[2], plan)
        ends = percentile_interval(samples, level)
        undefined = np.isnan(samples)
        if halves:
            few = halves[:SPLITS_FOR_INTERVAL]
            half_samples = bootstrap_samples(MeanSrcc(few, several), plan)
            half_samples += split_half - srcc[: len(few)].mean()
            half_ends = percentile_interval(half_samples, level)
            undefined |= np.isnan(half_samples)
        n_undefined = int(undefined.sum())
    return HumanCeiling(
        n_pairs=n_pairs,
        n_ratings=len(values),
        n_captions=len(set(captions)),
        mean_raters=float(raters.mean()),
        share_single=float((raters == 1).mean()),
        variance_pair=float(max(variance_pair, 0.0)),
        variance_residual=float(variance_residual),
        variance_clipped=bool(variance_pair < 0),
        reliability=float(reliability),
        reliability_low=ends[0],
        reliability_high=ends[1],
        lcc_ceiling=float(np.sqrt(reliability)),
        lcc_ceiling_low=float(np.sqrt(ends[0])),
        lcc_ceiling_high=float(np.sqrt(ends[1])),
        split_half_srcc=split_half,
        split_half_sd=float(srcc.std(ddof=1)) if len(srcc) > 1 else np.nan,
        split_half_low=half_ends[0],
        split_half_high=half_ends[1],
        n_split_half_pairs=int((raters >= 2).sum()),
        n_splits=len(srcc),
        n_resamples=n_resamples,
        n_undefined=n_undefined,
    )


def ceiling_table(
    ratings: pd.DataFrame, n_splits: int = 100, n_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """`human_ceiling` of all ratings and of each system: column subset, then HumanCeiling's fields, note.

    Subsets: all; where `system` is known also each system and synthesized. A subset whose ceiling can't be
    known (fewer than 2 pairs, no pair with 2 ratings) keeps its row with NaN and a `note`.
    Arguments and errors: as `human_ceiling`.
    """
    as_ratings(ratings)
    subsets = {"all": np.ones(len(ratings), dtype=bool)}
    if "system" in ratings and not ratings["system"].isna().any():
        cells = system_cells(ratings["system"].to_numpy(object))
        subsets |= {cell.name: cell.rows for cell in cells if cell.rows.any()}
    rows = []
    for subset, chosen in subsets.items():
        part = ratings[chosen]
        raters = np.bincount(_pairs_of(part))
        if subset != "all" and (len(raters) < 2 or raters.max() < 2):
            note = "fewer than 2 pairs, or none with 2 ratings"
            rows.append({"subset": subset, "n_pairs": len(raters), "n_ratings": len(part), "note": note})
            continue
        found = human_ceiling(part, n_splits, n_resamples, seed, level)
        rows.append({"subset": subset, **found.as_dict(), "note": ""})
    return pd.DataFrame(rows)


def _pairs_of(ratings: pd.DataFrame) -> np.ndarray:
    """Number of the pair of each rating [N], by audio and text: not by where it stands."""
    return ratings.groupby(PAIR, observed=True).ngroup().to_numpy()
