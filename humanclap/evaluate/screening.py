"""What screening does to the SRCC of a score, and whether that is the screening or the pairs and raters it leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from humanclap.relate.checks import need_seed

from .cells import MIN_PAIRS
from .checks import PAIR, as_vector, check_level, need_columns, whole_number
from .intervals import percentile_interval
from .panels import Drawn, MeanOverDraws, Panel, Panels, make_panels, mean_srcc
from .resamples import ResamplePlan
from .rules import Rule, anchor_rule, default_rules

ALL_LEFT, COMMON = "all pairs left", "common pairs, equal raters"
HALVES, OTHERS = "halves of those left", "against everybody's other half"
DIFFERENCE = ["difference", "difference_low", "difference_high"]


def screening_effect(
    ratings: pd.DataFrame,
    scores: pd.DataFrame,
    thresholds: Sequence[float],
    n_raters: int = 2,
    n_draws: int = 200,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """`screening_rules` for thresholds on the listeners' mean anchor rating (0-10) alone.

    Returns one row a threshold and way: max_anchor_mean, pairs (the way), value, low, high (95 %), n. ValueError:
    no thresholds, and as `screening_rules`.
    """
    if len(thresholds) == 0:
        raise ValueError("no thresholds given: for example (0.5, 1, 2, 10)")
    rules = [anchor_rule(threshold) for threshold in thresholds]
    found = screening_rules(ratings, scores, rules, n_raters, n_draws, n_resamples, seed)
    return found[["max_anchor_mean", "pairs", "value", "low", "high", "n"]]


def screening_rules(
    ratings: pd.DataFrame,
    scores: pd.DataFrame,
    rules: Sequence[Rule] | None = None,
    n_raters: int = 2,
    n_draws: int = 200,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """SRCC of a score against the mean ratings that each rule on listeners leaves, in two ways.

    "all pairs left": the pairs with any rating left, all of their raters (with the rule's weights); rules then differ
    in pairs and in raters a pair, too. "common pairs, equal raters": the pairs that have at least `n_raters` ratings
    under every rule, with `n_raters` of them drawn at random, so that rules differ in who rates and how much each
    weighs, and in nothing else. The draws are coupled: a listener who is left by two rules is drawn in both if at all
    possible, and all rules see the same caption resamples.

    Args:
        ratings: all ratings with their anchors, as `relate.load_ratings` gives them, of both splits: listeners are
            judged by all that they rated. The pairs to look at are those of `scores`.
        scores: one row a pair: audio, text, clap_score.
        rules: of `evaluate.rules`; None: `default_rules`. The first is what the others are compared with.
        n_raters: raters a pair in the second way.
        n_draws: draws of raters; `value` is the mean SRCC over them, each resample averages a few.

    Returns:
        One row a rule and way: rule, max_anchor_mean (NaN for a rule without), pairs (the way), value, low, high, n,
        mean_raters, difference, difference_low, difference_high (from the first rule, paired), note. A rule that
        leaves fewer than 4 pairs has NaN and says so.

    Raises:
        ValueError: no rules, a pair scored twice, NaN scores, fewer than 4 common pairs, a missing column, n_raters,
            n_draws or n_resamples below 1, a seed below 0 (or no whole numbers).
    """
    n_raters, n_draws = whole_number(n_raters, "n_raters", 1), whole_number(n_draws, "n_draws", 1)
    seed = need_seed(seed)
    check_level(level)
    need_columns(scores, "scores", (*PAIR, "clap_score"))
    if scores.duplicated(PAIR).any():
        raise ValueError(
            f"{int(scores.duplicated(PAIR).sum())} pairs are scored twice: pass the scores of one model"
        )
    as_vector(scores["clap_score"], "clap_score")
    panels = make_panels(ratings, _rules(ratings, rules), scores)
    score = scores.set_index(PAIR)["clap_score"].loc[pd.MultiIndex.from_frame(panels.pairs)].to_numpy(float)
    common = _enough(panels.panels, n_raters)
    if common.sum() < MIN_PAIRS:
        raise ValueError(
            f"{common.sum()} pairs have {n_raters} ratings under every rule: leave the strictest out, or ask for fewer "
            "raters"
        )
    plan = ResamplePlan.draw(panels.pairs["text"], len(score), n_resamples, seed)
    keys = [panels.keys(seed, draw)[0] for draw in range(n_draws)]
    found = {ALL_LEFT: [], COMMON: []}
    for panel in panels.panels:
        means = panel.means()
        found[ALL_LEFT].append(mean_srcc([Drawn(means, score, np.isfinite(means))], plan))
        drawn = (panel.only(panel.places(key) < n_raters).means() for key in keys)
        found[COMMON].append(mean_srcc([Drawn(means, score, common) for means in drawn], plan))
    raters = [_mean_raters(panel) for panel in panels.panels]
    return pd.DataFrame([
        row
        for i, panel in enumerate(panels.panels)
        for way, size in ((ALL_LEFT, raters[i]), (COMMON, n_raters))
        for row in [_row(panel, found[way][i], found[way][0], i == 0, size, level, {"pairs": way})]
    ])


def screening_agreement(
    ratings: pd.DataFrame,
    rules: Sequence[Rule] | None = None,
    pairs: pd.DataFrame | None = None,
    n_raters: int = 2,
    n_splits: int = 20,
    n_resamples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """How well listeners agree under each rule on listeners: no score and no audio needed.

    Two measures, each the mean SRCC over `n_splits` random splits of each pair's raters:

    - "halves of those left": the (weighted) means of two halves of those whom the rule leaves. It says how
      consistent the ratings are that one would use, and rises where a rule keeps only people who are alike.
    - "against everybody's other half": half of a pair's raters are set aside before the rule, and their plain mean is
      what the rule's (weighted) mean of the other half is held against. The yardstick is the same for every rule and
      never touched by one, so a gain here is a gain in knowing what people at large would say.

    Both in two ways. "all pairs left": every rater left, pairs with any in both halves. "common pairs, equal raters":
    `n_raters` drawn for each half (the second measure: for the rule's half), in pairs where every rule leaves so many.
    With one rater a half, weights have nothing to weigh.

    Args:
        ratings: all ratings with their anchors, as `relate.load_ratings` gives them, both splits.
        rules: of `evaluate.rules`; None: `default_rules`. The first is what the others are compared with.
        pairs: audio, text of the pairs that agreement is looked at on (the test pairs); None: all.

    Returns:
        One row a rule, measure and way: rule, max_anchor_mean, measure, pairs (the way), value, low, high, n (mean over
        splits), mean_raters (of the means that are compared, on the rule's side), difference, difference_low,
        difference_high (from the first rule, paired), note. Captions are resampled. Fewer than 4 pairs: NaN and a note.

    Raises:
        ValueError: as `screening_rules`, but for the common pairs.
    """
    n_raters, n_splits = whole_number(n_raters, "n_raters", 1), whole_number(n_splits, "n_splits", 1)
    seed = need_seed(seed)
    check_level(level)
    panels = make_panels(ratings, _rules(ratings, rules), pairs)
    plan = ResamplePlan.draw(panels.pairs["text"], len(panels.pairs), n_resamples, seed)
    draws = {(measure, way): [[] for _ in panels.panels] for measure in (HALVES, OTHERS) for way in (ALL_LEFT, COMMON)}
    raters = {key: [[] for _ in panels.panels] for key in draws}
    for split in range(n_splits):
        for key, i, sides, rows in _split(panels, n_raters, seed, split):
            draws[key][i].append(Drawn(sides[0].means(), sides[1].means(), rows))
            raters[key][i].append(sides[0].sizes()[rows].mean() if rows.any() else np.nan)
    found = {key: [mean_srcc(drawn, plan) for drawn in of_rules] for key, of_rules in draws.items()}
    return pd.DataFrame([
        _row(panel, found[key][i], found[key][0], i == 0, float(np.mean(raters[key][i])), level,
             {"measure": key[0], "pairs": key[1]})
        for i, panel in enumerate(panels.panels)
        for key in draws
    ])


def _split(panels: Panels, n_raters: int, seed: int, split: int):
    """Yield ((measure, way), number of the rule, (panel, panel), rows [P]) for one split of each pair's raters."""
    keys, coin = panels.keys(seed, split)

    def half_of(sizes):  # of an odd number, either half has one more
        return sizes // 2 + sizes % 2 * coin

    two = _enough(panels.panels, 2 * n_raters)
    everybody = panels.everybody
    in_reference = everybody.places(keys) < half_of(everybody.sizes())[everybody.pair]
    reference = everybody.only(in_reference)
    rest = [panel.only(~in_reference[panel.rating]) for panel in panels.panels]
    enough = _enough(rest, n_raters) & (reference.sizes() > 0)
    for i, (panel, own) in enumerate(zip(panels.panels, rest, strict=True)):
        places, sizes = panel.places(keys), panel.sizes()
        first = places < half_of(sizes)[panel.pair]
        yield (HALVES, ALL_LEFT), i, (panel.only(first), panel.only(~first)), sizes >= 2
        drawn = panel.only(places < n_raters), panel.only((places >= n_raters) & (places < 2 * n_raters))
        yield (HALVES, COMMON), i, drawn, two
        yield (OTHERS, ALL_LEFT), i, (own, reference), (own.sizes() > 0) & (reference.sizes() > 0)
        yield (OTHERS, COMMON), i, (own.only(own.places(keys) < n_raters), reference), enough


def _rules(ratings: pd.DataFrame, rules: Sequence[Rule] | None) -> Sequence[Rule]:
    if rules is not None:
        return rules
    return default_rules("relate_split" in ratings and not (ratings["relate_split"] == "").any())


def _enough(panels: Sequence[Panel], n_raters: int) -> np.ndarray:
    """The pairs [P] that have this many raters in every panel."""
    return np.min([panel.sizes() for panel in panels], axis=0) >= n_raters


def _mean_raters(panel: Panel) -> float:
    sizes = panel.sizes()
    return float(sizes[sizes > 0].mean()) if sizes.any() else np.nan


def _row(
    panel: Panel, found: MeanOverDraws, first: MeanOverDraws, is_first: bool, raters: float, level: float, way: dict
) -> dict:
    row = {"rule": panel.rule.name, "max_anchor_mean": panel.rule.max_anchor_mean, **way, "value": found.value}
    row["low"], row["high"] = _interval(found.value, found.samples, level)
    row |= {"n": round(found.n), "mean_raters": raters, **dict.fromkeys(DIFFERENCE, np.nan)}
    if not is_first:
        difference = found.value - first.value
        ends = _interval(difference, found.samples - first.samples, level)
        row |= dict(zip(DIFFERENCE, (difference, *ends), strict=True))
    undefined = "" if np.isfinite(found.value) else "fewer than 4 pairs, or all alike"
    return row | {"note": "; ".join(filter(None, (panel.rule.note, undefined)))}


def _interval(value: float, samples: np.ndarray, level: float) -> tuple[float, float]:
    return percentile_interval(samples, level) if np.isfinite(value) else (np.nan, np.nan)
