"""Listeners: how far they agree (reliability, split halves), how they use the scale, and rules on whom to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from humanclap import relate
from humanclap.checks import anchor_mask, need_columns, whole_number

from .bootstrap import Estimate, ResamplePlan, bootstrap_samples, percentile_interval
from .inputs import ALL, FEW, MIN_PAIRS, PAIR, as_ratings, as_vector, known_systems, pair_index, system_cells
from .weighted import WeightedCorrelations

SPLITS_FOR_INTERVAL = 10  # splits that each resample averages; more would hardly narrow the interval
SINGLE, EQUAL = "no pair with 2 ratings", "all ratings are equal"
ALL_LEFT, COMMON = "all pairs left", "common pairs, equal raters"
N_RATERS, DRAWS_FOR_INTERVAL = 2, 5  # raters drawn of a pair, and draws that each resample averages
LABELLED = (0, 2, 5, 8, 10)  # the ratings that RELATE's instruction puts words to


@dataclass(frozen=True)
class HumanCeiling:
    """What `human_ceiling` finds. Variances are in squared rating units (0 to 10).

    share_single: share of pairs with one rating. reliability: share of the mean ratings' variance that is the pairs'
    own; lcc_ceiling: its square root. n_split_half_pairs: pairs with at least two ratings. low and high are NaN where
    n_resamples is 0.
    """

    n_pairs: int
    n_ratings: int
    mean_raters: float
    share_single: float
    variance_pair: float
    variance_residual: float
    reliability: float
    reliability_low: float
    reliability_high: float
    lcc_ceiling: float
    lcc_ceiling_low: float
    lcc_ceiling_high: float
    split_half_srcc: float
    split_half_low: float
    split_half_high: float
    n_split_half_pairs: int


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

    def plan(self, n_resamples: int, seed: int) -> ResamplePlan | None:
        """Resamples of the pairs' captions; None where none are wanted, or there is one caption only."""
        captions = self.pairs["text"].to_numpy(object)
        return ResamplePlan.draw(captions, n_resamples, seed) if n_resamples and len(set(captions)) > 1 else None

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
    0. Split-half: the ratings of each pair with at least two are dealt at random into two halves (of an odd number
    either half gets one more) and the SRCC of the halves' means is averaged over `n_splits`.

    Intervals (95 %): percentile bootstrap over captions with all their pairs and ratings, never over listeners. For the
    split-half, each resample averages the first 10 splits, and the interval is moved to centre on all of them.
    n_resamples 0, or a single caption, leaves the intervals out (NaN). The order of the rows does not matter.
    ValueError: as `as_ratings`, fewer than 2 pairs, no pair with 2 ratings, n_splits below 1, n_resamples or seed
    below 0.
    """
    n_splits, seed = whole_number(n_splits, "n_splits", 1), whole_number(seed, "seed")
    n_resamples = whole_number(n_resamples, "n_resamples")
    rated = Rated.of(ratings)
    raters = rated.raters
    if len(raters) < 2:
        raise ValueError(f"{len(raters)} pairs are too few: agreement needs at least 2")
    if raters.max() < 2:
        raise ValueError(f"none of the {len(raters)} pairs has 2 ratings: single ratings can't agree or differ")
    components, several = Components(rated), raters >= 2
    found = {name: float(value[0]) for name, value in components(np.ones((len(raters), 1))).items()}
    halves = [(a, b) for a, b in _random_halves(rated.only(several), n_splits, seed) if np.ptp(a) > 0 and np.ptp(b) > 0]
    srcc = np.array([stats.spearmanr(a, b).statistic for a, b in halves])
    split_half = float(srcc.mean()) if halves else np.nan
    ends = half_ends = (np.nan, np.nan)
    if plan := rated.plan(n_resamples, seed):
        ends = percentile_interval(bootstrap_samples(lambda weights: components(weights)["reliability"], plan))
        few = [WeightedCorrelations(a, b, ("srcc",)) for a, b in halves[:SPLITS_FOR_INTERVAL]]
        if few:
            means = bootstrap_samples(lambda w: np.mean([one(w)["srcc"][0] for one in few], axis=0), plan, several)
            half_ends = percentile_interval(means + split_half - srcc[: len(few)].mean())
    sizes = len(raters), len(rated.values), float(raters.mean()), float((raters == 1).mean())
    variances = max(found["pair"], 0.0), found["residual"]
    own, root = (found["reliability"], *ends), np.sqrt([found["reliability"], *ends]).tolist()
    return HumanCeiling(*sizes, *variances, *own, *root, split_half, *half_ends, int(several.sum()))


def _random_halves(rated: Rated, n_splits: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Means of two random halves of the ratings of each pair, all with at least two: n_splits x (a [m], b [m])."""
    pair, size = rated.pair, rated.raters
    place = np.arange(len(pair)) - np.repeat(np.cumsum(size) - size, size)  # of a rating within its pair
    rng = np.random.default_rng([seed, 1])
    halves = []
    for _ in range(n_splits):
        # pairs are whole numbers, so they stay together and only their ratings change places
        shuffled = rated.values[np.argsort(pair + rng.random(len(pair)))]
        in_first = size // 2 + (size % 2) * rng.integers(2, size=len(size))
        first = place < in_first[pair]
        sums = np.bincount(pair, shuffled * first), np.bincount(pair, shuffled * ~first)
        halves.append((sums[0] / in_first, sums[1] / (size - in_first)))
    return halves


def ceiling_table(ratings: pd.DataFrame, n_splits: int = 100, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """`human_ceiling` of all ratings and of each system: column subset, then HumanCeiling's fields, note.

    Subsets: all; where `system` is known also each system and synthesized. A subset whose ceiling can't be known (fewer
    than 2 pairs, no pair with 2 ratings) keeps its row with NaN and a `note`. Arguments and errors: as `human_ceiling`.
    """
    as_ratings(ratings)
    systems = known_systems(ratings)
    cells = [] if systems is None else [cell for cell in system_cells(systems) if cell.rows.any()]
    rows = [{"subset": ALL, **vars(human_ceiling(ratings, n_splits, n_resamples, seed)), "note": ""}]
    for cell in cells:
        part = ratings[cell.rows]
        raters = part.groupby(PAIR, observed=True).size()
        row, note = {"n_pairs": len(raters), "n_ratings": len(part)}, "fewer than 2 pairs, or none with 2 ratings"
        if len(raters) > 1 and raters.max() > 1:
            row, note = vars(human_ceiling(part, n_splits, n_resamples, seed)), ""
        rows.append({"subset": cell.name, **row, "note": note})
    return pd.DataFrame(rows)


EVERYBODY, PAPERS, RELATES, SCALED = "no screening", "anchor mean <= 2", "RELATE's own", "z-scored"
NEAR = "another within 5"
_NOTES = {
    PAPERS: "the paper's rule",
    RELATES: "anchor mean < 2 in train, < 1 in test",
    NEAR: "after the paper's rule; pairs with one rating are lost",
}


def _rules_on_listeners(ratings: pd.DataFrame) -> dict[str, np.ndarray]:
    """The ratings that each rule leaves, on its own scale: name -> [N]; NaN: removed. Anchors' entries mean nothing.

    - no screening: every rating;
    - anchor mean <= 2: those of the listeners whom `relate.screen_listeners` keeps, the paper's rule;
    - RELATE's own: those that RELATE itself keeps (its column "in RELATE dataset"; no such rule without it), from a mean
      anchor rating below 2 for clips of the train folders, below 1 for test's;
    - z-scored: (rating - mean) / SD over each listener's own ratings, 0 without spread.
    The fifth, another within 5, compares ratings of a pair: see `_Panels.left`.
    """
    rating, key = ratings["rating"].astype(float), [*PAIR, "listener"]
    kept = ratings["listener"].astype(str).isin(relate.screen_listeners(ratings, 2.0).kept)
    rules = {EVERYBODY: rating, PAPERS: rating.where(kept)}
    if "relate_split" in ratings and not (ratings["relate_split"] == "").any():
        inside = pd.MultiIndex.from_frame(relate.published_ratings(ratings)[key])
        rules[RELATES] = rating.where(pd.MultiIndex.from_frame(ratings[key]).isin(inside))
    matched = rating.where(~anchor_mask(ratings))
    of_listener = matched.groupby(ratings["listener"])
    spread = of_listener.transform("std")
    rules[SCALED] = ((matched - of_listener.transform("mean")) / spread).where(spread > 0, 0.0)
    return {name: left.to_numpy() for name, left in rules.items()}


@dataclass(frozen=True)
class _Panels:
    """Ratings of some pairs (`pairs`: audio, text, [P]): each one's pair [N], and what the rules leave of them, [N]."""

    pairs: pd.DataFrame
    pair: np.ndarray
    judged: dict[str, np.ndarray]

    @classmethod
    def of(cls, ratings: pd.DataFrame, wanted: pd.DataFrame | None) -> _Panels:
        """Apply the rules to all `ratings` (anchors among them), then keep the pairs that are `wanted` (None: all)."""
        need_columns(ratings, "ratings", (*PAIR, "listener", "rating", "is_anchor"))
        ratings = ratings.sort_values([*PAIR, "listener"], ignore_index=True)  # the order of the rows does not matter
        matched = ~anchor_mask(ratings)
        as_ratings(ratings[matched], "listener")
        if wanted is not None:
            matched &= pair_index(ratings).isin(pair_index(wanted))
        if not matched.any():
            raise ValueError("there are no ratings of these pairs")
        single = ratings.loc[matched, PAIR]
        pairs = single.drop_duplicates(ignore_index=True)
        judged = {name: left[matched] for name, left in _rules_on_listeners(ratings).items()}
        return cls(pairs, pair_index(pairs).get_indexer(pair_index(single)), judged)

    def left(self, but: np.ndarray | bool = False) -> dict[str, np.ndarray]:
        """What each rule leaves of the ratings, those of the mask `but` [N] set aside: name -> [N].

        "another within 5" is the rule of the authors' next paper, in the words of that paper: after the paper's rule, a
        rating stays only if another listener of its pair gave one within 5 of it. On RELATE it leaves 2,389 train and
        2,343 test pairs, so it does not explain the 2,383 and 2,405 of this paper either.
        """
        judged = {name: np.where(but, np.nan, left) for name, left in self.judged.items()}
        papers = judged[PAPERS]
        order = np.lexsort((papers, self.pair))  # NaN come last in their pair, and are never near
        close = (np.diff(papers[order]) <= 5) & (np.diff(self.pair[order]) == 0)
        stays = np.empty(len(papers), dtype=bool)
        stays[order] = np.concatenate([close, [False]]) | np.concatenate([[False], close])
        return judged | {NEAR: np.where(stays, papers, np.nan)}

    def sizes(self, left: np.ndarray) -> np.ndarray:
        """Raters of each pair [P]."""
        return np.bincount(self.pair[~np.isnan(left)], minlength=len(self.pairs))

    def means(self, left: np.ndarray) -> np.ndarray:
        """Mean rating of each pair [P]; NaN where nobody is left."""
        total = np.bincount(self.pair, np.nan_to_num(left), len(self.pairs))
        with np.errstate(invalid="ignore"):
            return np.round(total / self.sizes(left), 10)  # ratings that agree tie exactly, whatever their order

    def places(self, left: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Place of each rating [N] among those left of its pair, 0, 1, …, by random `keys` [N]; large for the others."""
        order = np.lexsort((keys, np.isnan(left), self.pair))
        size = np.bincount(self.pair, minlength=len(self.pairs))
        places = np.empty(len(order), dtype=np.intp)
        places[order] = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
        return np.where(np.isnan(left), len(order), places)

    def drawn_means(self, left: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Mean rating of each pair [P] by N_RATERS of its raters, the same for all rules, if possible."""
        return self.means(np.where(self.places(left, keys) < N_RATERS, left, np.nan))

    def enough(self, left: dict[str, np.ndarray]) -> np.ndarray:
        """The pairs [P] that have N_RATERS raters under every rule."""
        return np.min([self.sizes(each) for each in left.values()], axis=0) >= N_RATERS


def screening_rules(
    ratings: pd.DataFrame, scores: pd.DataFrame, n_draws: int = 200, n_resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """SRCC of a score against the mean ratings that each of five rules on listeners leaves, in two ways.

    The rules: no screening, the paper's, RELATE's own (for ratings with its column), z-scores within listeners, and a
    rating near another. "all pairs left": the pairs with any rating left, all of their raters; rules then differ in
    pairs and in raters per pair, too. "common pairs, equal raters": the pairs that have two ratings under every rule,
    with two of them drawn at random, so that rules differ in who rates and on what scale, and in nothing else. The
    draws are coupled: a listener who is left by two rules is drawn in both if at all possible, and all rules see the
    same caption resamples.

    Args:
        ratings: all ratings with their anchors, as `relate.load_ratings` gives them, of both splits: listeners are
            judged by all that they rated. The pairs to look at are those of `scores`.
        scores: one row per pair: audio, text, clap_score.
        n_draws: draws of raters; `value` is the mean SRCC over them, each resample averages a few.

    Returns:
        One row per rule and way: rule, max_anchor_mean (NaN for a rule without), pairs (the way), value, low, high, n,
        mean_raters, difference, difference_low, difference_high (from the first rule, paired), note. A rule that leaves
        fewer than 4 pairs has NaN and says so.

    Raises:
        ValueError: a pair scored twice, NaN scores, a missing column, n_draws below 1.
    """
    n_draws = whole_number(n_draws, "n_draws", 1)
    need_columns(scores, "scores", (*PAIR, "clap_score"))
    if scores.duplicated(PAIR).any():
        raise ValueError(f"{int(scores.duplicated(PAIR).sum())} pairs are scored twice: pass the scores of one model")
    as_vector(scores["clap_score"], "clap_score")
    panels = _Panels.of(ratings, scores)
    score = scores.set_index(PAIR)["clap_score"].loc[pair_index(panels.pairs)].to_numpy(float)
    left = panels.left()
    common = panels.enough(left)
    keys = [np.random.default_rng([seed, draw]).random(len(panels.pair)) for draw in range(n_draws)]
    draws, raters = {}, {}
    for rule, own in left.items():
        means, sizes = panels.means(own), panels.sizes(own)
        raters[rule] = [pd.Series(sizes[sizes > 0]).mean()]
        draws[rule, ALL_LEFT] = [(means, score, np.isfinite(means))]
        draws[rule, COMMON] = [(panels.drawn_means(own, key), score, common) for key in keys]
    return _rule_rows(draws, raters, ResamplePlan.draw(panels.pairs["text"], n_resamples, seed))


def screening_agreement(
    ratings: pd.DataFrame,
    pairs: pd.DataFrame | None = None,
    n_splits: int = 20,
    n_resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """How well the listeners whom each rule leaves know what people at large say: no score and no audio needed.

    Half of a pair's raters, drawn at random, are set aside before the rule, and their plain mean is what the rule's mean
    of the other half is compared with, by SRCC, averaged over `n_splits`. The yardstick is the same for every rule and
    never touched by one. In two ways: "all pairs left" (every rater left of the rule's half) and "common pairs, equal
    raters" (two drawn of them, in pairs where every rule leaves so many).

    Args:
        ratings: all ratings with their anchors, as `relate.load_ratings` gives them, both splits.
        pairs: audio, text of the pairs that agreement is looked at on (the test pairs); None: all.

    Returns:
        As `screening_rules`; n is the mean over splits, mean_raters are those on the rule's side.

    Raises:
        ValueError: a missing column, no ratings of these pairs, n_splits below 1.
    """
    n_splits, panels = whole_number(n_splits, "n_splits", 1), _Panels.of(ratings, pairs)
    everybody = panels.judged[EVERYBODY]
    size, draws, raters = panels.sizes(everybody), {}, {}
    for split in range(n_splits):
        rng = np.random.default_rng([seed, split])
        keys, coin = rng.random(len(panels.pair)), rng.integers(2, size=len(panels.pairs))
        half = size // 2 + size % 2 * coin  # of an odd number, either half has one more
        aside = panels.places(everybody, keys) < half[panels.pair]
        reference = panels.means(np.where(aside, everybody, np.nan))
        known, left = np.isfinite(reference), panels.left(but=aside)
        enough = panels.enough(left) & known
        for rule, own in left.items():
            means, sizes = panels.means(own), panels.sizes(own) * known
            raters.setdefault(rule, []).append(pd.Series(sizes[sizes > 0]).mean())
            draws.setdefault((rule, ALL_LEFT), []).append((means, reference, np.isfinite(means) & known))
            draws.setdefault((rule, COMMON), []).append((panels.drawn_means(own, keys), reference, enough))
    return _rule_rows(draws, raters, ResamplePlan.draw(panels.pairs["text"], n_resamples, seed))


def _rule_rows(draws: dict, raters: dict, plan: ResamplePlan) -> pd.DataFrame:
    """A row per rule and way from its draws: {(rule, way): [(first [P], second [P], rows [P]), …]}."""
    found = {key: _mean_srcc(each, plan) for key, each in draws.items()}
    rows = []
    for (rule, way), (estimate, n) in found.items():
        row = {"rule": rule, "max_anchor_mean": 2.0 if rule == PAPERS else np.nan, "pairs": way}
        row |= {"value": estimate.value, **estimate.row(), "n": round(n)}
        row["mean_raters"] = N_RATERS if way == COMMON else float(np.mean(raters[rule]))
        first = estimate if rule != EVERYBODY else Estimate(np.nan, estimate.samples)
        difference = first - found[EVERYBODY, way][0]
        undefined = "" if np.isfinite(estimate.value) else FEW if n < MIN_PAIRS else "all alike"
        row |= {"difference": difference.value, **difference.row("difference_")}
        rows.append(row | {"note": "; ".join(filter(None, (_NOTES.get(rule), undefined)))})
    return pd.DataFrame(rows)


def _mean_srcc(draws: list[tuple], plan: ResamplePlan) -> tuple[Estimate, float]:
    """SRCC of (first [P], second [P], rows [P]), averaged over the draws, and the mean number of pairs.

    NaN for fewer than 4 pairs or where one is constant. Each resample averages the first few draws, and the samples are
    moved to centre on the mean over all.
    """
    n = [int(rows.sum()) for _, _, rows in draws]
    if min(n) < MIN_PAIRS:
        return Estimate(np.nan, np.full(plan.n_resamples, np.nan)), float(np.mean(n))
    statistics = [WeightedCorrelations(first[rows], second[rows], ("srcc",)) for first, second, rows in draws]
    each = np.array([one(np.ones((size, 1)))["srcc"][0, 0] for one, size in zip(statistics, n, strict=True)])
    few = [(one, rows) for one, (_, _, rows) in zip(statistics, draws, strict=True)][:DRAWS_FOR_INTERVAL]
    samples = bootstrap_samples(lambda w: np.mean([one(w[rows])["srcc"][0] for one, rows in few], axis=0), plan)
    return Estimate(float(each.mean()), samples + each.mean() - each[: len(few)].mean()), float(np.mean(n))


def listener_habits(ratings: pd.DataFrame) -> pd.DataFrame:
    """How single listeners use the scale, one row each: listener, n_ratings, n_shared, offset, spread, share_labelled.

    offset: mean over the pairs with other raters (n_shared) of own rating - mean rating of the others, in rating units,
    NaN without such a pair; it holds the others' habits too, so its SD over listeners overstates theirs. spread: SD of
    the listener's ratings (NaN for one rating). share_labelled: share of ratings on 0, 2, 5, 8, 10. ratings: one row
    per rating with audio, text, rating, listener, without anchors. ValueError as `as_ratings`.
    """
    rating = pd.Series(as_ratings(ratings, "listener"), ratings.index)
    of_pair = rating.groupby([ratings[column] for column in PAIR], observed=True)
    others = of_pair.transform("size") - 1
    difference = rating - (of_pair.transform("sum") - rating) / others.where(others > 0)
    labelled = np.isin(rating, LABELLED).astype(float)
    table = pd.DataFrame({"rating": rating, "difference": difference, "labelled": labelled})
    return table.groupby(ratings["listener"], observed=True).agg(
        n_ratings=("rating", "size"),
        n_shared=("difference", "count"),
        offset=("difference", "mean"),
        spread=("rating", "std"),
        share_labelled=("labelled", "mean"),
    ).reset_index()  # fmt: skip
