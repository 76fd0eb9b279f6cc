"""Rules on listeners: who is removed, how ratings are put on one scale, and who weighs how much.

Each rule turns all ratings, anchors among them, into the ratings that it leaves, with a weight each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real

import numpy as np
import pandas as pd

from humanclap import relate
from humanclap.relate.checks import anchor_mask

from .checks import PAIR, need_columns

LEFT = [*PAIR, "listener", "rating", "weight"]


@dataclass(frozen=True)
class Rule:
    """A rule with a name: `judge` maps ratings with anchors to the ratings that it leaves (columns `LEFT`).

    max_anchor_mean: the threshold of a rule that has one, else NaN; note: what to know when reading its row.
    """

    name: str
    judge: Callable[[pd.DataFrame], pd.DataFrame] = field(repr=False)
    max_anchor_mean: float = np.nan
    note: str = ""

    def then(self, name: str, change: Callable[[pd.DataFrame], pd.DataFrame], note: str = "") -> Rule:
        """This rule, and then `change` of the ratings that it leaves."""
        notes = "; ".join(filter(None, (self.note, note)))
        together = name if self.name == NONE else f"{self.name}, {name}"
        return Rule(together, lambda ratings: change(self.judge(ratings)), self.max_anchor_mean, notes)


NONE = "no screening"


def no_screening() -> Rule:
    """Every rating that is not of an anchor, with weight 1."""
    return Rule(NONE, _matched)


def anchor_rule(max_anchor_mean: float = 2.0) -> Rule:
    """Listeners whose mean anchor rating is at most this (0 to 10; the paper's rule: 2), see `screen_listeners`."""

    def judge(ratings):
        kept = relate.screen_listeners(ratings, max_anchor_mean).kept
        return _matched(ratings[ratings["listener"].astype(str).isin(kept)])

    note = "the paper's rule" if max_anchor_mean == 2 else ""
    return Rule(f"anchor mean <= {max_anchor_mean:g}", judge, float(max_anchor_mean), note)


def relate_rule() -> Rule:
    """The ratings that RELATE itself keeps (its column "in RELATE dataset"); ValueError where there is none.

    On the published file that is a mean anchor rating below 2 for clips of the train folders, below 1 for test's.
    """
    return Rule(
        "RELATE's own", lambda ratings: _matched(relate.published_ratings(ratings)),
        note="anchor mean < 2 in train, < 1 in test",
    )


def straight_lining(min_sd: float = 1.5) -> Rule:
    """Without listeners who give nearly the same rating to everything: SD of all theirs, anchors too, below min_sd."""
    _positive(min_sd, "min_sd")

    def judge(ratings):
        need_columns(ratings, "ratings", ("listener", "rating"))
        spread = ratings.groupby("listener")["rating"].std()
        return _matched(ratings[ratings["listener"].map(spread).fillna(0) >= min_sd])

    return Rule(f"without straight-lining (SD < {min_sd:g})", judge)


def z_scores(after: Rule | None = None) -> Rule:
    """Ratings centred and scaled within each listener: (rating - mean) / SD over the ratings that `after` leaves.

    A listener without spread says nothing about differences: such ratings become 0, the listener's mean.
    """

    def change(left):
        of_listener = left.groupby("listener")["rating"]
        spread = of_listener.transform("std")
        centred = left["rating"] - of_listener.transform("mean")
        return left.assign(rating=(centred / spread).where(spread > 0, 0.0))

    return (after or no_screening()).then("z-scored", change)


def agreement_weights(after: Rule | None = None, prior: float = 6, cross_fit: bool = True) -> Rule:
    """Listeners weighted by how closely they follow the others: weight 1 / v, v the listener's error variance.

        v = (prior · s² + Σ q) / (prior + m),    q = (r - r̄)² n / (n - 1) over the listener's m ratings r of pairs
                                                 with n >= 2 ratings and mean r̄; s² the mean of all q.

    q is an unbiased estimate of the error variance where all listeners of a pair are alike, and the shrinkage
    stands for `prior` further ratings with average error (6: two captions of RELATE). cross_fit: the weight of a
    rating uses no rating of its caption, by anybody: v and s² come from the other captions. Without it the
    weights favour whoever happens to agree on the very pairs on which they are then judged: only for showing that.
    """
    _positive(prior, "prior")

    def change(left):
        return left.assign(weight=left["weight"] / error_variances(left, prior, cross_fit))

    return (after or no_screening()).then(_crossed("weighted by agreement", cross_fit), change)


def agreement_screening(
    share: float = 0.1, after: Rule | None = None, prior: float = 6, cross_fit: bool = True
) -> Rule:
    """Without the `share` of ratings whose listeners have the largest error variances v of `agreement_weights`.

    cross_fit: a listener may be out for one caption and not for another, as v comes from the others each time.
    """
    if not isinstance(share, Real) or not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, for instance 0.1; it is {share!r}")
    _positive(prior, "prior")

    def change(left):
        variance = error_variances(left, prior, cross_fit)
        return left[variance <= np.quantile(variance, 1 - share)]

    return (after or no_screening()).then(_crossed(f"without the {share:.0%} who agree least", cross_fit), change)


def default_rules(with_relate: bool = True) -> list[Rule]:
    """What `screening_rules` and `screening_agreement` compare, from none to weights; "none" comes first.

    with_relate: RELATE's own rule as well, for ratings that have its column.
    """
    paper = anchor_rule(2)
    own = [relate_rule()] if with_relate else []
    return [
        no_screening(), *map(anchor_rule, (1, 2, 3)), *own, straight_lining(), z_scores(), z_scores(paper),
        agreement_weights(), agreement_weights(paper), agreement_screening(),
    ]


def error_variances(left: pd.DataFrame, prior: float, cross_fit: bool = True) -> pd.Series:
    """v of `agreement_weights` for each rating in `left`: audio, text, listener, rating."""
    of_pair = left.groupby(PAIR, observed=True)["rating"]
    n = of_pair.transform("size")
    q = ((left["rating"] - of_pair.transform("mean")) ** 2 * n / (n - 1).where(n > 1)).fillna(0.0)
    table = pd.DataFrame({"q": q, "m": (n > 1).astype(float), "text": left["text"], "listener": left["listener"]})

    def sums(*columns):
        return table.groupby(list(columns))[["q", "m"]].transform("sum")

    of_listener, overall = sums("listener"), table[["q", "m"]].sum()
    if cross_fit:
        of_listener = of_listener - sums("listener", "text")
        overall = overall - sums("text")
        average = overall["q"] / overall["m"]
    else:
        average = overall["q"] / overall["m"]
    variance = (prior * average + of_listener["q"]) / (prior + of_listener["m"])
    if not (variance > 0).all():
        raise ValueError(
            "no error variance can be told from these ratings: agreement needs pairs with two ratings or more, that "
            "differ, of two captions at least"
        )
    return variance


def _matched(ratings: pd.DataFrame) -> pd.DataFrame:
    need_columns(ratings, "ratings", (*PAIR, "listener", "rating", "is_anchor"))
    left = ratings.loc[~anchor_mask(ratings), LEFT[:-1]]
    return left.assign(rating=left["rating"].astype(float), weight=1.0)


def _crossed(name: str, cross_fit: bool) -> str:
    return name if cross_fit else f"{name} (circular)"


def _positive(value, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < np.inf:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")
