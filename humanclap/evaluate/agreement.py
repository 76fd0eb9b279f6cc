"""How far listeners agree: reliability of their mean ratings, and how one half of them predicts the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

from humanclap.checks import whole_number

from .bootstrap import ResamplePlan, bootstrap_samples, percentile_interval
from .cells import ALL, Cell, known_systems, system_cells
from .inputs import PAIR, as_ratings
from .weighted import WeightedCorrelations

SPLITS_FOR_INTERVAL = 10  # splits that each resample averages; more would hardly narrow the interval
SINGLE, EQUAL = "no pair with 2 ratings", "all ratings are equal"


@dataclass(frozen=True)
class HumanCeiling:
    """What `human_ceiling` finds. Variances are in squared rating units (0 to 10).

    share_single: share of pairs with one rating. variance_clipped: the pairs' variance came out below zero and was set
    to 0. reliability: share of the mean ratings' variance that is the pairs' own; lcc_ceiling: its square root.
    split_half_sd: SD over the splits. n_split_half_pairs: pairs with at least two ratings. low and high are NaN where
    n_resamples is 0.
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

    def as_dict(self) -> dict:
        """Every value by name."""
        return asdict(self)


@dataclass(frozen=True)
class Rated:
    """Ratings `values` [N] of the pairs `pair` [N], sorted by pair and value, and the pairs, one row each.

    pairs: audio, text, n_ratings, mean_rating (0-10) and, where it is known, system.
    """

    values: np.ndarray
    pair: np.ndarray
    pairs: pd.DataFrame

    @classmethod
    def of(cls, ratings: pd.DataFrame) -> Rated:
        """From one row per rating: audio, text, rating, without anchors. ValueError as `as_ratings` raises it."""
        values = as_ratings(ratings)
        grouped = ratings.groupby(PAIR, observed=True)
        pair = grouped.ngroup().to_numpy()
        order = np.lexsort((values, pair))  # equal ratings of a pair may change places: nothing here can tell
        values, pair = values[order], pair[order]
        n_ratings = np.bincount(pair)
        known = [*PAIR, "system"] if "system" in ratings and ratings["system"].notna().any() else PAIR
        pairs = ratings[known].iloc[order[np.cumsum(n_ratings) - n_ratings]].reset_index(drop=True)
        if "system" in pairs and (grouped["system"].nunique(dropna=False) > 1).any():
            raise ValueError("one pair is of two systems: the ratings of a pair need one system")
        return cls(values, pair, pairs.assign(n_ratings=n_ratings, mean_rating=np.bincount(pair, values) / n_ratings))

    @property
    def raters(self) -> np.ndarray:
        return self.pairs["n_ratings"].to_numpy()

    def only(self, rows: np.ndarray) -> Rated:
        """The ratings of some pairs, a mask [n]."""
        chosen = rows[self.pair]
        place = np.cumsum(rows) - 1
        return Rated(self.values[chosen], place[self.pair[chosen]], self.pairs[rows].reset_index(drop=True))

    def unknown(self) -> str:
        """Why agreement can't be known, or ""."""
        if self.raters.max(initial=0) < 2:
            return SINGLE
        return EQUAL if np.ptp(self.values) == 0 else ""


class Components:
    """One-way variance components for pair weights [n, B]: see `human_ceiling`."""

    def __init__(self, rated: Rated):
        n, ratings = rated.raters.astype(float), rated.values - rated.values.mean()
        mean = np.bincount(rated.pair, ratings) / n
        inside = np.bincount(rated.pair, (ratings - mean[rated.pair]) ** 2)
        self.terms = np.stack([np.ones_like(n), n, n**2, 1 / n, n * mean, n * mean**2, inside])

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """pair (unclipped) and residual variance, reliability, noise σ²_e · mean(1 / n_i), each [B]; NaN: undefined."""
        pairs, ratings, squares, inverse, total, between, inside = self.terms @ weights.astype(np.float64)
        # no pair with two ratings drawn, or all ratings equal: 0 / 0 is NaN
        with np.errstate(divide="ignore", invalid="ignore"):
            residual = inside / (ratings - pairs)
            mean_square = (between - total**2 / ratings) / (pairs - 1)
            n0 = (ratings - squares / ratings) / (pairs - 1)
            of_pairs = (mean_square - residual) / n0
            clipped, noise = np.maximum(of_pairs, 0), residual * inverse / pairs
            return {"pair": of_pairs, "residual": residual, "reliability": clipped / (clipped + noise), "noise": noise}


def human_ceiling(ratings: pd.DataFrame, n_splits: int = 100, n_resamples: int = 2000, seed: int = 0) -> HumanCeiling:
    """How well any score could agree with the mean ratings, from how well listeners agree with each other.

    ratings: one row per rating: audio, text, rating (0 to 10), without anchors. The model is one-way, r_ij = μ + p_i +
    e_ij for listener j of pair i, pair i having n_i ratings (k pairs, N ratings). ANOVA estimators:

        σ²_e = Σ (r_ij - r̄_i)² / (N - k)
        σ²_p = (MS_between - σ²_e) / n0,  n0 = (N - Σ n_i² / N) / (k - 1)

    A score that knows p_i exactly has Cov(p, r̄) = σ²_p with the mean ratings, whose variance over the pairs is σ²_p +
    σ²_e · mean(1 / n_i), as each pair counts once in a correlation, however many rated it. So

        reliability = σ²_p / (σ²_p + σ²_e · mean(1 / n_i)),        LCC ceiling = √reliability,

    with the harmonic mean of the n_i in the place of the usual n; at equal n it is ICC(1, n). A negative σ²_p is set to
    0 (`variance_clipped`). Split-half: the ratings of each pair with at least two are dealt at random into two halves
    (of an odd number either half gets one more) and the SRCC of the halves' means is averaged over `n_splits`.

    Intervals (95 %): percentile bootstrap over captions with all their pairs and ratings, never over listeners. For the
    split-half, each resample averages the first 10 splits, and the interval is moved to centre on all of them.
    n_resamples 0, or a single caption, leaves the intervals out (NaN). The order of the rows does not matter.
    ValueError: as `as_ratings`, fewer than 2 pairs, no pair with 2 ratings, n_splits below 1, n_resamples or seed
    below 0.
    """
    n_splits, seed = whole_number(n_splits, "n_splits", 1), whole_number(seed, "seed")
    n_resamples = whole_number(n_resamples, "n_resamples")
    rated = Rated.of(ratings)
    raters, captions = rated.raters, rated.pairs["text"].to_numpy(object)
    if len(raters) < 2:
        raise ValueError(f"{len(raters)} pairs are too few: agreement needs at least 2")
    if raters.max() < 2:
        raise ValueError(f"none of the {len(raters)} pairs has 2 ratings: single ratings can't agree or differ")
    components = Components(rated)
    found = {name: value[0] for name, value in components(np.ones((len(raters), 1))).items()}
    halves, several = random_halves(rated.values, rated.pair, raters, n_splits, seed)
    halves = [(a, b) for a, b in halves if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0]
    srcc = np.array([stats.spearmanr(a, b).statistic for a, b in halves])
    split_half = float(srcc.mean()) if len(srcc) else np.nan

    ends = half_ends = (np.nan, np.nan)
    if n_resamples and len(set(captions)) > 1:
        plan = ResamplePlan.draw(captions, n_resamples, seed)
        ends = percentile_interval(bootstrap_samples(lambda weights: components(weights)["reliability"], plan))
        few = [WeightedCorrelations(a, b, ("srcc",)) for a, b in halves[:SPLITS_FOR_INTERVAL]]
        if few:
            means = bootstrap_samples(lambda w: np.mean([one(w)["srcc"][0] for one in few], axis=0), plan, several)
            half_ends = percentile_interval(means + split_half - srcc[: len(few)].mean())
    return HumanCeiling(
        n_pairs=len(raters),
        n_ratings=len(rated.values),
        n_captions=len(set(captions)),
        mean_raters=float(raters.mean()),
        share_single=float((raters == 1).mean()),
        variance_pair=float(max(found["pair"], 0.0)),
        variance_residual=float(found["residual"]),
        variance_clipped=bool(found["pair"] < 0),
        reliability=float(found["reliability"]),
        reliability_low=ends[0],
        reliability_high=ends[1],
        lcc_ceiling=float(np.sqrt(found["reliability"])),
        lcc_ceiling_low=float(np.sqrt(ends[0])),
        lcc_ceiling_high=float(np.sqrt(ends[1])),
        split_half_srcc=split_half,
        split_half_sd=float(srcc.std(ddof=1)) if len(srcc) > 1 else np.nan,
        split_half_low=half_ends[0],
        split_half_high=half_ends[1],
        n_split_half_pairs=int(several.sum()),
        n_splits=len(srcc),
        n_resamples=n_resamples,
    )


def random_halves(values, pair, raters, n_splits: int, seed: int) -> tuple[list, np.ndarray]:
    """Means of two random halves of the ratings of each pair with at least two, n_splits times.

    values, pair: rating and number of the pair, [N], sorted by both, so that the deal does not depend on the order in
    which ratings came; raters: ratings of each pair [n]. Returns n_splits x (a [m], b [m]), and which m of the n pairs
    they are, a mask [n].
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


def ceiling_table(ratings: pd.DataFrame, n_splits: int = 100, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """`human_ceiling` of all ratings and of each system: column subset, then HumanCeiling's fields, note.

    Subsets: all; where `system` is known also each system and synthesized. A subset whose ceiling can't be known (fewer
    than 2 pairs, no pair with 2 ratings) keeps its row with NaN and a `note`. Arguments and errors: as `human_ceiling`.
    """
    as_ratings(ratings)
    systems = known_systems(ratings)
    cells = [] if systems is None else [cell for cell in system_cells(systems) if cell.rows.any()]
    rows = []
    for cell in [Cell(ALL, np.ones(len(ratings), dtype=bool)), *cells]:
        part = ratings[cell.rows]
        raters = part.groupby(PAIR, observed=True).size()
        if cell.name != ALL and (len(raters) < 2 or raters.max() < 2):
            note = "fewer than 2 pairs, or none with 2 ratings"
            rows.append({"subset": cell.name, "n_pairs": len(raters), "n_ratings": len(part), "note": note})
            continue
        found = human_ceiling(part, n_splits, n_resamples, seed)
        rows.append({"subset": cell.name, **found.as_dict(), "note": ""})
    return pd.DataFrame(rows)
