"""What screening does to the SRCC of a score, and whether that is the screening or the pairs and raters it leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from humanclap import relate
from humanclap.relate.checks import need_seed

from .bootstrap import ResamplePlan, bootstrap_correlations, percentile_interval
from .checks import PAIR, need_columns, whole_number

ALL_LEFT, COMMON = "all pairs left", "common pairs, equal raters"


def screening_effect(
    ratings: pd.DataFrame,
    scores: pd.DataFrame,
    thresholds: Sequence[float],
    n_raters: int = 2,
    n_draws: int = 200,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """SRCC of a score against the mean ratings that each screening threshold leaves, in two ways.

    "all pairs left": the pairs with any rating left, all of their raters; thresholds then differ in pairs and in
    raters a pair, too. "common pairs, equal raters": the pairs that have at least `n_raters` ratings at every
    threshold, with `n_raters` of them drawn at random, so that thresholds differ in who rates and in nothing else.

    Args:
        ratings: all ratings with their anchors, as `relate.load_ratings` gives them; the pairs to look at are those of
            `scores`.
        scores: one row a pair: audio, text, clap_score.
        thresholds: on the listeners' mean anchor rating (0-10).
        n_raters: raters a pair in the second way.
        n_draws: draws of raters; `value` is the mean SRCC over them, and each also draws captions for the interval.

    Returns:
        One row a threshold and way: max_anchor_mean, pairs (the way), value, low, high (95 %, captions resampled), n.

    Raises:
        ValueError: no thresholds, a pair scored twice, fewer than 4 common pairs, a missing column, n_raters,
            n_draws or n_resamples below 1, a seed below 0 (or no whole numbers).
    """
    n_raters, n_draws = whole_number(n_raters, "n_raters", 1), whole_number(n_draws, "n_draws", 1)
    seed = need_seed(seed)
    need_columns(scores, "scores", (*PAIR, "clap_score"))
    if len(thresholds) == 0:
        raise ValueError("no thresholds given: for example (0.5, 1, 2, 10)")
    if scores.duplicated(PAIR).any():
        raise ValueError(
            f"{int(scores.duplicated(PAIR).sum())} pairs are scored twice: pass the scores of one model"
        )
    score_of = scores.set_index(PAIR)["clap_score"]
    left = {t: _scored(relate.screen_listeners(ratings, t).ratings, score_of) for t in thresholds}
    enough = [
        set(sizes.index[sizes >= n_raters]) for sizes in (part.groupby(PAIR).size() for part in left.values())
    ]
    common = pd.MultiIndex.from_tuples(sorted(set.intersection(*enough)), names=PAIR)
    if len(common) < 4:
        raise ValueError(
            f"{len(common)} pairs have {n_raters} ratings at every threshold: leave the lowest thresholds out, or ask "
            "for fewer raters"
        )
    plan = ResamplePlan.draw(common.get_level_values("text"), len(common), n_draws, seed)
    fixed = score_of.loc[common].to_numpy()
    rows = []
    for threshold, part in left.items():
        means = part.groupby(PAIR)["rating"].mean()
        found = bootstrap_correlations(
            score_of.loc[means.index], means, means.index.get_level_values("text"), n_resamples, seed
        )
        rows.append((threshold, ALL_LEFT, found.estimate.srcc, found.low.srcc, found.high.srcc, len(means)))
        whole, resampled = _draw_raters(part, common, fixed, n_raters, plan, seed)
        rows.append((threshold, COMMON, whole.mean(), *percentile_interval(resampled), len(common)))
    return pd.DataFrame(rows, columns=["max_anchor_mean", "pairs", "value", "low", "high", "n"])


def _scored(ratings: pd.DataFrame, score_of: pd.Series) -> pd.DataFrame:
    return ratings[pd.MultiIndex.from_frame(ratings[PAIR]).isin(score_of.index)]


def _draw_raters(
    part, common, score, n_raters, plan: ResamplePlan, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """SRCC of each draw of raters, on the common pairs and on one caption resample of them: two arrays [n_draws]."""
    code = common.get_indexer(pd.MultiIndex.from_frame(part[PAIR]))
    rating = part["rating"].to_numpy(float)[code >= 0]
    code = code[code >= 0]
    sorted_rows = np.lexsort((rating, code))  # the draws must not depend on the order in which ratings came
    rating, code = rating[sorted_rows], code[sorted_rows]
    rng = np.random.default_rng(seed)
    whole, resampled = [], []
    first = np.concatenate([[0], np.cumsum(np.bincount(code))[:-1]])
    for draw in range(plan.n_resamples):
        order = np.lexsort((rng.random(len(code)), code))  # by pair, in random order within
        mean = rating[order[first[:, None] + np.arange(n_raters)]].mean(axis=1)
        chosen = plan.indices(draw)
        whole.append(spearmanr(score, mean).statistic)
        resampled.append(spearmanr(score[chosen], mean[chosen]).statistic)
    return np.array(whole), np.array(resampled)
