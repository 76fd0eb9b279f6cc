"""Controls: does a score fall where the caption does not belong to the clip?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from humanclap.relate.checks import need_seed

from .bootstrap import ResamplePlan, bootstrap_statistic
from .checks import PAIR, as_vector, need_columns
from .groups import as_labels, own_groups
from .kendall import running_sum

MAX_ROUNDS = 200


@dataclass(frozen=True)
class AnchorAuc:
    """AUC of matched against mismatched pairs: `auc` in [0, 1], 0.5 is chance, with its interval.

    n_undefined: resamples without a matched or without a mismatched pair, left out of the interval.
    """

    auc: float
    low: float
    high: float
    n_matched: int
    n_mismatched: int
    n_resamples: int
    n_undefined: int


class WeightedAuc:
    """AUC of `scores` [n] where `is_matched` [n] against where not, for weights [n, B] -> [B]."""

    def __init__(self, scores: np.ndarray, is_matched: np.ndarray):
        self.matched = np.asarray(is_matched, dtype=bool)
        other = scores[~self.matched]
        self.order = np.argsort(other, kind="stable")
        self.below = np.searchsorted(other[self.order], scores[self.matched], side="left")
        self.not_above = np.searchsorted(other[self.order], scores[self.matched], side="right")

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        weights = weights.astype(np.float64, copy=False)
        matched = weights[self.matched]
        others = running_sum(weights[~self.matched], self.order)
        wins = np.einsum("ib,ib->b", matched, others[self.below] + others[self.not_above]) / 2
        with np.errstate(invalid="ignore"):  # no such pair in the resample: 0 / 0 is NaN
            return wins / (matched.sum(axis=0) * others[-1])


def anchor_auc(
    matched, mismatched, matched_groups=None, mismatched_groups=None, n_resamples: int = 2000, seed: int = 0,
    level: float = 0.95,
) -> AnchorAuc:
    """Probability that a matched pair scores above a mismatched one, a tie counting half, with its interval.

    AUC = (#{matched > mismatched} + #{equal} / 2) / (n_matched · n_mismatched), from the scores of matched
    [N] and mismatched [K] pairs (RELATE's anchors, or swapped captions). The groups are their captions:
    both given, captions are resampled with all their pairs on both sides; neither, pairs are. ValueError
    for NaN or infinite scores, an empty side, only one of the groups, groups that are not one a pair.
    """
    matched, mismatched = as_vector(matched, "matched"), as_vector(mismatched, "mismatched")
    if not len(matched) or not len(mismatched):
        raise ValueError(f"an AUC needs both sides, not {len(matched)} matched, {len(mismatched)} mismatched")
    if (matched_groups is None) != (mismatched_groups is None):
        raise ValueError("give the groups (captions) of both sides, or of neither")
    scores = np.concatenate([matched, mismatched])
    is_matched = np.arange(len(scores)) < len(matched)
    if matched_groups is None:
        groups = own_groups(~is_matched, scores)
    else:
        groups = np.concatenate([
            as_labels(matched_groups, len(matched), "matched_groups"),
            as_labels(mismatched_groups, len(mismatched), "mismatched_groups"),
        ])
    plan = ResamplePlan.draw(groups, len(scores), n_resamples, seed)
    found = bootstrap_statistic(WeightedAuc(scores, is_matched), plan, level)
    return AnchorAuc(
        found.value, found.low, found.high, len(matched), len(mismatched), found.n_resamples,
        found.n_undefined,
    )


def swap_captions(pairs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The same pairs with their captions dealt out anew, so that no clip has a caption that is its own.

    A permutation of `text` among the rows: each caption is used as often as before, and no row gets a text
    that stands with its `audio` anywhere in `pairs`. The text it had is kept as `original_text`; ratings
    and targets stay with the clip, so a score that listens to the pair must fall against them. Rows, index
    and order are kept, and a pair gets the same caption whatever the order. ValueError for missing columns or
    captions, a seed that is no whole number of at least 0, or where no such dealing was found (one caption
    for over half the rows).
    """
    seed = need_seed(seed)
    need_columns(pairs, "pairs", PAIR)
    if pairs[PAIR].isna().any(axis=None):
        raise ValueError("pairs has rows without audio or text: drop them first")
    codes = np.stack([pd.factorize(pairs[column], sort=True)[0].astype(np.int64) for column in PAIR])
    order = np.lexsort(codes[::-1])  # dealt in the order of audio and text: the rows' own says nothing
    audio, text = codes[:, order]
    n_texts = int(text.max(initial=0)) + 1
    own = np.unique(audio * n_texts + text)

    def is_own(rows: np.ndarray, source: np.ndarray) -> np.ndarray:
        return np.isin(audio[rows] * n_texts + text[source], own)

    rng = np.random.default_rng(seed)
    everyone = np.arange(len(pairs))
    source = rng.permutation(len(pairs))
    for _ in range(MAX_ROUNDS):
        wrong = rng.permutation(everyone[is_own(everyone, source)])
        if not len(wrong):
            break
        for row in wrong:  # trade with a random row such that both end up with a caption that is not theirs
            here, there = source[row], source[everyone]
            fits = ~is_own(np.full(len(pairs), row), there) & ~is_own(everyone, np.full(len(pairs), here))
            if fits.any():
                other = rng.choice(everyone[fits])
                source[row], source[other] = source[other], source[row]
    if is_own(everyone, source).any():
        most = pairs["text"].value_counts()
        raise ValueError(
            f"found no way to deal {len(pairs)} captions so that no clip keeps its own: {most.iloc[0]} rows "
            f"have {most.index[0]!r}; no caption may stand in more than half of the rows"
        )
    original = pairs["text"].to_numpy()
    swapped = original.copy()
    swapped[order] = original[order[source]]
    return pairs.assign(original_text=original, text=swapped)
