"""Partial SRCC: what a score still knows once the system and the length of the caption are taken out."""

from __future__ import annotations

import numpy as np

from .bootstrap import Interval, bootstrap_samples
from .cells import MIN_PAIRS
from .checks import as_pair, as_vector
from .groups import as_labels, group_codes, own_groups
from .intervals import percentile_interval
from .resamples import ResamplePlan
from .weighted import EXACT_IN_FLOAT32, Ranked

NOTHING_LEFT = 1e-9  # share of a rank's variance below which what the covariates leave is rounding


class WeightedPartialSrcc:
    """Partial SRCC of M scores [M, n] with one target [n], for weights [n, B] -> float64 [M, B].

    Score, target and each of the covariates [k, n] become mid-ranks (of the resample, ties as if it were
    written out); these are residualised by least squares on a dummy for each category (`categories`, labels
    [n], or None) and on the covariates' ranks; the value is Pearson's correlation of the two residuals. As the
    ranks of a 0/1 dummy are a linear map of it, this is Spearman's partial correlation with the dummies and
    covariates given. NaN where nothing is left of score or target.
    """

    def __init__(self, scores, target, covariates=(), categories=None):
        scores = np.atleast_2d(np.asarray(scores, dtype=float))
        n = scores.shape[1]
        codes = np.zeros(n, dtype=np.intp) if categories is None else group_codes(categories, n)
        # by category, so that the sums of each are sums of neighbours
        self.order = np.argsort(codes, kind="stable")
        self.starts = np.concatenate([[0], np.flatnonzero(np.diff(codes[self.order])) + 1])
        fixed = [np.asarray(target, dtype=float), *(np.asarray(c, dtype=float) for c in covariates)]
        self.fixed = [Ranked(values[self.order]) for values in fixed]
        self.scores = [Ranked(score[self.order]) for score in scores]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        weights = weights[self.order]
        biggest = float(weights.max(initial=0)) * float(weights.sum(axis=0).max(initial=0))
        weights = weights.astype(np.float32 if biggest < EXACT_IN_FLOAT32 else np.float64, copy=False)
        in_category = self._by_category(weights)
        known = [self._centred(ranked, weights) for ranked in self.fixed]
        known = [(ranks, ranks * weights, self._by_category(ranks * weights)) for ranks in known]
        values = np.full((len(self.scores), weights.shape[1]), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):  # empty categories and constants: 0 / 0
            shares = np.nan_to_num(1 / in_category, posinf=0.0)
            for model, ranked in enumerate(self.scores):
                ranks = self._centred(ranked, weights)
                columns = [(ranks, ranks * weights, self._by_category(ranks * weights)), *known]
                values[model] = _partial(*_products(columns, shares))
        return values

    def _centred(self, ranked: Ranked, weights: np.ndarray) -> np.ndarray:
        return ranked.centred(ranked.running(weights))

    def _by_category(self, rows: np.ndarray) -> np.ndarray:
        """Sums over each category, [n, B] -> float64 [S, B]."""
        return np.add.reduceat(rows, self.starts, axis=0, dtype=np.float64)


def _products(columns: list, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Products of all columns within categories [B, m, m], and their variances before [B, m]."""
    size = len(columns)
    within = np.empty((shares.shape[1], size, size))
    total = np.empty((shares.shape[1], size))
    for i, (ranks, _, sums) in enumerate(columns):
        for j, (_, weighted, other_sums) in enumerate(columns[: i + 1]):
            product = np.einsum("ib,ib->b", ranks, weighted, dtype=np.float64)
            within[:, i, j] = within[:, j, i] = product - (sums * other_sums * shares).sum(axis=0)
            if i == j:
                total[:, i] = product
    return within, total


def _partial(within: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Correlation of columns 0 and 1 with columns 2, 3, … regressed out -> [B]; NaN where nothing is left."""
    # on a scale of 1, so that one tolerance serves all; an empty or constant column is 0 throughout
    scale = np.sqrt(np.where(total > 0, total, np.inf))
    products = within / scale[:, :, None] / scale[:, None, :]
    left = products[:, :2, :2]
    if products.shape[1] > 2:
        across = products[:, :2, 2:]
        inverse = np.linalg.pinv(products[:, 2:, 2:], rcond=NOTHING_LEFT, hermitian=True)
        left = left - across @ inverse @ across.transpose(0, 2, 1)
    score, target = left[:, 0, 0], left[:, 1, 1]
    defined = (score > NOTHING_LEFT) & (target > NOTHING_LEFT)
    return np.where(defined, np.clip(left[:, 0, 1] / np.sqrt(score * target), -1, 1), np.nan)


def partial_srcc(
    score, target, covariates=(), categories=None, groups=None, n_resamples: int = 2000, seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Spearman's correlation of `score` [N] and `target` [N] given covariates and categories, with its interval.

    covariates: a list of vectors [N] (the number of words of the caption, say), taken by rank; categories: a
    label for each pair (its system) or None; the definition is `WeightedPartialSrcc`'s. groups: the captions,
    resampled with all their pairs; None: pairs are. The value is NaN where score or target is a function of
    what is given (or constant), or for fewer than 4 pairs. ValueError for NaN, unequal lengths, missing labels.
    """
    score, target = as_pair(score, target)
    covariates = [as_vector(values, f"covariate {i}") for i, values in enumerate(covariates)]
    for i, values in enumerate(covariates):
        if len(values) != len(score):
            raise ValueError(f"covariate {i} has {len(values)} values for {len(score)} pairs")
    if categories is not None:
        categories = as_labels(categories, len(score), "categories")
    groups = own_groups(target, score) if groups is None else groups
    plan = ResamplePlan.draw(groups, len(score), n_resamples, seed)
    statistic = WeightedPartialSrcc(score, target, covariates, categories)
    value = float(statistic(np.ones((len(score), 1), np.float32))[0, 0]) if len(score) >= MIN_PAIRS else np.nan
    samples = bootstrap_samples(lambda weights: statistic(weights)[0], plan)
    ends = percentile_interval(samples, level) if np.isfinite(value) else (np.nan, np.nan)
    return Interval(value, *ends, plan.n_resamples, int(np.isnan(samples).sum()))
