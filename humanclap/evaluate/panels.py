"""Who is left to rate each pair under a rule on listeners, and means of raters drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .bootstrap import bootstrap_samples
from .cells import MIN_PAIRS
from .checks import PAIR, as_ratings, need_columns
from .resamples import ResamplePlan
from .rules import Rule, no_screening
from .weighted import WeightedCorrelations

DRAWS_FOR_INTERVAL = 5  # draws that each resample averages; more would hardly narrow the interval


@dataclass(frozen=True)
class Panel:
    """The ratings that a rule leaves for P pairs: number of the rating among all, pair, value, weight, [k] each."""

    rule: Rule
    rating: np.ndarray
    pair: np.ndarray
    value: np.ndarray
    weight: np.ndarray
    n_pairs: int

    def only(self, rows: np.ndarray) -> Panel:
        """The panel with some of its ratings, a mask [k]."""
        parts = (part[rows] for part in (self.rating, self.pair, self.value, self.weight))
        return Panel(self.rule, *parts, self.n_pairs)

    def sizes(self) -> np.ndarray:
        """Raters of each pair [P]."""
        return np.bincount(self.pair, minlength=self.n_pairs)

    def means(self) -> np.ndarray:
        """Weighted mean rating of each pair [P]; NaN where nobody is left."""
        total = np.bincount(self.pair, self.weight, self.n_pairs)
        with np.errstate(invalid="ignore"):
            means = np.bincount(self.pair, self.weight * self.value, self.n_pairs) / total
        return np.round(means, 10)  # ratings that agree tie exactly, whatever their weights

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Place of each rating [k] among those of its pair, 0, 1, …, by `keys`, one a rating of all."""
        order = np.lexsort((keys[self.rating], self.pair))
        size = self.sizes()
        places = np.empty(len(order), dtype=np.intp)
        places[order] = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
        return places


@dataclass(frozen=True)
class Panels:
    """One panel a rule, of the same pairs (`pairs`: audio, text, sorted) and n_ratings ratings; `everybody` first."""

    pairs: pd.DataFrame
    everybody: Panel
    panels: list[Panel]

    def keys(self, seed: int, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """Random keys of all ratings, the same for every rule, and a coin for each pair: draws are paired."""
        rng = np.random.default_rng([seed, draw])
        return rng.random(len(self.everybody.rating)), rng.integers(2, size=len(self.pairs))


def make_panels(ratings: pd.DataFrame, rules: Sequence[Rule], wanted: pd.DataFrame | None = None) -> Panels:
    """Apply each rule to all `ratings` (anchors among them), then keep the pairs that are `wanted` (None: all).

    ValueError: no rules, two of one name, no ratings of the wanted pairs, and what the rules and `as_ratings` say.
    """
    names = [rule.name for rule in rules]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"rules must be some, each of another name, not {names}")
    # in one order for the rules, too: sums of what they weigh by must not depend on how ratings came
    need_columns(ratings, "ratings", (*PAIR, "listener"))
    ratings = ratings.sort_values([*PAIR, "listener"], ignore_index=True)
    single = no_screening().judge(ratings)
    as_ratings(single, "listener")
    if wanted is not None:
        single = single[pd.MultiIndex.from_frame(single[PAIR]).isin(pd.MultiIndex.from_frame(wanted[PAIR]))]
    if not len(single):
        raise ValueError("there are no ratings of these pairs")
    pairs = single[PAIR].drop_duplicates(ignore_index=True)
    of_rating = pd.MultiIndex.from_frame(single[[*PAIR, "listener"]])
    pair = pd.MultiIndex.from_frame(pairs).get_indexer(pd.MultiIndex.from_frame(single[PAIR]))

    def panel(rule: Rule) -> Panel:
        left = rule.judge(ratings)
        number = of_rating.get_indexer(pd.MultiIndex.from_frame(left[[*PAIR, "listener"]]))
        rows = np.flatnonzero(number >= 0)
        rows = rows[np.argsort(number[rows])]
        number, left = number[rows], left.iloc[rows]
        values = (left[column].to_numpy(float) for column in ("rating", "weight"))
        return Panel(rule, number, pair[number], *values, len(pairs))

    return Panels(pairs, panel(no_screening()), [panel(rule) for rule in rules])


@dataclass(frozen=True)
class Drawn:
    """One draw of raters: two values for each of the P pairs, and which `rows` [P] of them count."""

    first: np.ndarray
    second: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class MeanOverDraws:
    """Mean SRCC over draws, its samples [B] over caption resamples, and the mean number of pairs."""

    value: float
    samples: np.ndarray
    n: float


def mean_srcc(draws: Sequence[Drawn], plan: ResamplePlan) -> MeanOverDraws:
    """SRCC of first and second, averaged over the draws; NaN for fewer than 4 pairs or where one is constant.

    Each resample averages the first few draws, and the samples are moved to centre on the mean over all.
    """
    statistics = [WeightedCorrelations(d.first[d.rows], d.second[d.rows], ("srcc",)) for d in draws]
    n = float(np.mean([d.rows.sum() for d in draws]))
    if min(d.rows.sum() for d in draws) < MIN_PAIRS:
        return MeanOverDraws(np.nan, np.full(plan.n_resamples, np.nan), n)
    each = np.array([s(np.ones((d.rows.sum(), 1)))["srcc"][0, 0] for s, d in zip(statistics, draws, strict=True)])
    few = list(zip(statistics, draws, strict=True))[:DRAWS_FOR_INTERVAL]
    samples = bootstrap_samples(
        lambda weights: np.mean([s(weights[d.rows])["srcc"][0] for s, d in few], axis=0), plan
    )
    return MeanOverDraws(float(each.mean()), samples + each.mean() - each[: len(few)].mean(), n)
