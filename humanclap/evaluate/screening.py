"""Rules on listeners: whom each leaves, how well those agree, and what that does to the SRCC of a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from humanclap import relate
from humanclap.checks import anchor_mask, need_columns, whole_number

from .bootstrap import Estimate, ResamplePlan, bootstrap_samples
from .inputs import FEW, MIN_PAIRS, PAIR, as_ratings, as_vector, pair_index
from .weighted import WeightedCorrelations

ALL_LEFT, COMMON = "all pairs left", "common pairs, equal raters"
DRAWS_FOR_INTERVAL = 5  # draws that each resample averages; more would hardly narrow the interval
LABELLED = (0, 2, 5, 8, 10)  # the ratings that RELATE's instruction puts words to


@dataclass(frozen=True)
class Rule:
    """A rule with a name: which ratings it leaves, and on what scale.

    judge: maps all ratings (anchors among them) to the ratings that it leaves, a vector [N]; NaN: removed. Anchors'
    entries are not looked at. within_pair: a second step that compares the ratings of a pair with each other, from
    (pair [N], ratings left [N]) to the ratings left; where half of the raters are set aside, it sees only the others.
    note: what to know when reading the rule's row. max_anchor_mean: the threshold of a rule that has one.
    """

    name: str
    judge: Callable[[pd.DataFrame], np.ndarray] = field(repr=False)
    note: str = ""
    max_anchor_mean: float = np.nan
    within_pair: Callable[[np.ndarray, np.ndarray], np.ndarray] = field(default=lambda pair, left: left, repr=False)


def no_screening() -> Rule:
    """Every rating that is not of an anchor."""
    return Rule("no screening", lambda ratings: ratings["rating"].to_numpy(float))


def anchor_rule(max_anchor_mean: float = 2.0) -> Rule:
    """Listeners whose mean anchor rating is at most this (0 to 10; the paper's rule: 2), see `screen_listeners`."""

    def judge(ratings):
        kept = relate.screen_listeners(ratings, max_anchor_mean).kept
        return ratings["rating"].astype(float).where(ratings["listener"].astype(str).isin(kept)).to_numpy()

    note = "the paper's rule" if max_anchor_mean == 2 else ""
    return Rule(f"anchor mean <= {max_anchor_mean:g}", judge, note, max_anchor_mean)


def relate_rule() -> Rule:
    """The ratings that RELATE itself keeps (its column "in RELATE dataset"); ValueError where there is none.

    On the published file that is a mean anchor rating below 2 for clips of the train folders, below 1 for test's.
    """

    def judge(ratings):
        key = [*PAIR, "listener"]
        kept = pd.MultiIndex.from_frame(relate.published_ratings(ratings)[key])
        inside = pd.MultiIndex.from_frame(ratings[key]).isin(kept)
        return ratings["rating"].astype(float).where(inside).to_numpy()

    return Rule("RELATE's own", judge, "anchor mean < 2 in train, < 1 in test")


def z_scores() -> Rule:
    """Ratings centred and scaled within each listener: (rating - mean) / SD over the listener's own, anchors left out.

    A listener without spread says nothing about differences: such ratings become 0, the listener's mean.
    """

    def judge(ratings):
        rating = ratings["rating"].astype(float).where(~anchor_mask(ratings))
        of_listener = rating.groupby(ratings["listener"])
        spread = of_listener.transform("std")
        scaled = (rating - of_listener.transform("mean")) / spread
        return scaled.where(spread > 0, 0.0).to_numpy()

    return Rule("z-scored", judge)


def near_another(within: float = 5.0, max_anchor_mean: float = 2.0) -> Rule:
    """After the paper's rule, a rating stays only if another listener of its pair gave one within 5 of it.

    The rule of the authors' next paper, in the words of that paper. On RELATE it leaves 2,389 train and 2,343 test
    pairs, so it does not explain the 2,383 and 2,405 of this one either. Pairs with a single rating go.
    """

    def near(pair: np.ndarray, left: np.ndarray) -> np.ndarray:
        order = np.lexsort((left, pair))  # NaN come last in their pair, and are never near
        close = (np.diff(left[order]) <= within) & (np.diff(pair[order]) == 0)
        stays = np.empty(len(left), dtype=bool)
        stays[order] = np.concatenate([close, [False]]) | np.concatenate([[False], close])
        return np.where(stays, left, np.nan)

    note = "after the paper's rule; pairs with one rating are lost"
    return Rule(f"another within {within:g}", anchor_rule(max_anchor_mean).judge, note, within_pair=near)


@dataclass(frozen=True)
class _Panels:
    """Ratings of the wanted pairs, sorted: pair [N] (0 … P - 1), everybody's ratings [N] and what each rule leaves [N].

    pairs: audio, text, one row each. judged: what each rule leaves before its second step, `within_pair`.
    """

    pairs: pd.DataFrame
    pair: np.ndarray
    everybody: np.ndarray
    rules: list[Rule]
    judged: list[np.ndarray]

    @classmethod
    def of(cls, ratings: pd.DataFrame, rules: Sequence[Rule] | None, wanted: pd.DataFrame | None) -> _Panels:
        """Apply each rule to all `ratings` (anchors among them), then keep the pairs that are `wanted` (None: all)."""
        need_columns(ratings, "ratings", (*PAIR, "listener", "rating", "is_anchor"))
        if rules is None:
            own = "relate_split" in ratings and not (ratings["relate_split"] == "").any()
            rules = [no_screening(), anchor_rule(), *([relate_rule()] if own else []), z_scores(), near_another()]
        names = [rule.name for rule in rules]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"rules must be at least one, each with a name of its own, not {names}")
        ratings = ratings.sort_values([*PAIR, "listener"], ignore_index=True)  # the order of the rows does not matter
        matched = ~anchor_mask(ratings)
        as_ratings(ratings[matched], "listener")
        if wanted is not None:
            matched &= pair_index(ratings).isin(pair_index(wanted))
        if not matched.any():
            raise ValueError("there are no ratings of these pairs")
        single = ratings.loc[matched, PAIR]
        pairs = single.drop_duplicates(ignore_index=True)
        judged = [np.asarray(rule.judge(ratings), dtype=float)[matched] for rule in rules]
        everybody = ratings.loc[matched, "rating"].to_numpy(float)
        return cls(pairs, pair_index(pairs).get_indexer(pair_index(single)), everybody, list(rules), judged)

    def left(self, but: np.ndarray | None = None) -> list[np.ndarray]:
        """What each rule leaves of the ratings, those of the mask `but` [N] set aside: [N] each."""
        judged = [left if but is None else np.where(but, np.nan, left) for left in self.judged]
        return [rule.within_pair(self.pair, left) for rule, left in zip(self.rules, judged, strict=True)]

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

    def drawn(self, left: np.ndarray, keys: np.ndarray, n: int) -> np.ndarray:
        """The ratings left of n raters of each pair [N], NaN elsewhere; the same raters for all rules, if possible."""
        return np.where(self.places(left, keys) < n, left, np.nan)


def _enough(sizes: Sequence[np.ndarray], n: int) -> np.ndarray:
    """The pairs [P] that have at least n raters under every rule."""
    return np.min(sizes, axis=0) >= n


def _mean_srcc(draws: Sequence[tuple], plan: ResamplePlan) -> tuple[Estimate, float]:
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


def screening_rules(
    ratings: pd.DataFrame,
    scores: pd.DataFrame,
    rules: Sequence[Rule] | None = None,
    n_raters: int = 2,
    n_draws: int = 200,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """SRCC of a score against the mean ratings that each rule on listeners leaves, in two ways.

    "all pairs left": the pairs with any rating left, all of their raters; rules then differ in pairs and in raters per
    pair, too. "common pairs, equal raters": the pairs that have at least `n_raters` ratings under every rule, with
    `n_raters` of them drawn at random, so that rules differ in who rates and on what scale, and in nothing else. The
    draws are coupled: a listener who is left by two rules is drawn in both if at all possible, and all rules see the
    same caption resamples.

    Args:
        ratings: all ratings with their anchors, as `relate.load_ratings` gives them, of both splits: listeners are
            judged by all that they rated. The pairs to look at are those of `scores`.
        scores: one row per pair: audio, text, clap_score.
        rules: None: no screening, the paper's, RELATE's own (for ratings with its column), z-scores and a rating near
            another. The first is what the others are compared with.
        n_raters: raters per pair in the second way.
        n_draws: draws of raters; `value` is the mean SRCC over them, each resample averages a few.

    Returns:
        One row per rule and way: rule, max_anchor_mean (NaN for a rule without), pairs (the way), value, low, high, n,
        mean_raters, difference, difference_low, difference_high (from the first rule, paired), note. A rule that leaves
        fewer than 4 pairs has NaN and says so.

    Raises:
        ValueError: no rules, a pair scored twice, NaN scores, a missing column, n_raters or n_draws below 1.
    """
    n_raters, n_draws = whole_number(n_raters, "n_raters", 1), whole_number(n_draws, "n_draws", 1)
    need_columns(scores, "scores", (*PAIR, "clap_score"))
    if scores.duplicated(PAIR).any():
        raise ValueError(f"{int(scores.duplicated(PAIR).sum())} pairs are scored twice: pass the scores of one model")
    as_vector(scores["clap_score"], "clap_score")
    panels = _Panels.of(ratings, rules, scores)
    score = scores.set_index(PAIR)["clap_score"].loc[pair_index(panels.pairs)].to_numpy(float)
    plan = ResamplePlan.draw(panels.pairs["text"], n_resamples, seed)
    left_by_rules = panels.left()
    common = _enough([panels.sizes(left) for left in left_by_rules], n_raters)
    keys = [np.random.default_rng([seed, draw]).random(len(panels.pair)) for draw in range(n_draws)]
    draws, raters = {}, [_mean_raters(panels.sizes(left)) for left in left_by_rules]
    for place, left in enumerate(left_by_rules):
        means = panels.means(left)
        draws[ALL_LEFT, place] = [(means, score, np.isfinite(means))]
        draws[COMMON, place] = [(panels.means(panels.drawn(left, key, n_raters)), score, common) for key in keys]
    return _rule_rows(panels, draws, plan, raters, n_raters)


def _mean_raters(sizes: np.ndarray) -> float:
    return float(sizes[sizes > 0].mean()) if sizes.any() else np.nan


def screening_agreement(
    ratings: pd.DataFrame,
    rules: Sequence[Rule] | None = None,
    pairs: pd.DataFrame | None = None,
    n_raters: int = 2,
    n_splits: int = 20,
    n_resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """How well the listeners whom each rule leaves know what people at large say: no score and no audio needed.

    Half of a pair's raters, drawn at random, are set aside before the rule, and their plain mean is what the rule's mean
    of the other half is compared with, by SRCC, averaged over `n_splits`. The yardstick is the same for every rule and
    never touched by one. In two ways: "all pairs left" (every rater left of the rule's half) and "common pairs, equal
    raters" (`n_raters` drawn of them, in pairs where every rule leaves so many).

    Args:
        ratings: all ratings with their anchors, as `relate.load_ratings` gives them, both splits.
        rules: as in `screening_rules`.
        pairs: audio, text of the pairs that agreement is looked at on (the test pairs); None: all.

    Returns:
        As `screening_rules`; n is the mean over splits, mean_raters are those on the rule's side.

    Raises:
        ValueError: as `screening_rules`.
    """
    n_raters, n_splits = whole_number(n_raters, "n_raters", 1), whole_number(n_splits, "n_splits", 1)
    panels = _Panels.of(ratings, rules, pairs)
    plan = ResamplePlan.draw(panels.pairs["text"], n_resamples, seed)
    size = panels.sizes(panels.everybody)
    draws = {(way, place): [] for way in (ALL_LEFT, COMMON) for place in range(len(panels.rules))}
    raters = [[] for _ in panels.rules]
    for split in range(n_splits):
        rng = np.random.default_rng([seed, split])
        keys, coin = rng.random(len(panels.pair)), rng.integers(2, size=len(panels.pairs))
        half = size // 2 + size % 2 * coin  # of an odd number, either half has one more
        aside = panels.places(panels.everybody, keys) < half[panels.pair]
        reference = panels.means(np.where(aside, panels.everybody, np.nan))
        own = panels.left(but=aside)
        enough = _enough([panels.sizes(left) for left in own], n_raters) & np.isfinite(reference)
        for place, left in enumerate(own):
            means = panels.means(left)
            raters[place].append(_mean_raters(panels.sizes(left) * np.isfinite(reference)))
            draws[ALL_LEFT, place].append((means, reference, np.isfinite(means) & np.isfinite(reference)))
            draws[COMMON, place].append((panels.means(panels.drawn(left, keys, n_raters)), reference, enough))
    return _rule_rows(panels, draws, plan, [float(np.mean(each)) for each in raters], n_raters)


def _rule_rows(panels: _Panels, draws: dict, plan: ResamplePlan, raters: list[float], n_raters: int) -> pd.DataFrame:
    """A row per rule and way from its draws: {(way, number of the rule): [(first, second, rows), …]}."""
    found = {key: _mean_srcc(each, plan) for key, each in draws.items()}
    rows = []
    for place, rule in enumerate(panels.rules):
        for way in (ALL_LEFT, COMMON):
            estimate, n = found[way, place]
            row = {"rule": rule.name, "max_anchor_mean": rule.max_anchor_mean, "pairs": way}
            row |= {"value": estimate.value, **estimate.row(), "n": round(n)}
            row["mean_raters"] = n_raters if way == COMMON else raters[place]
            difference = estimate - found[way, 0][0] if place else Estimate(np.nan, estimate.samples)
            row |= {"difference": difference.value, **difference.row("difference_")}
            undefined = "" if np.isfinite(estimate.value) else FEW if n < MIN_PAIRS else "all alike"
            rows.append(row | {"note": "; ".join(filter(None, (rule.note, undefined)))})
    return pd.DataFrame(rows)


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
