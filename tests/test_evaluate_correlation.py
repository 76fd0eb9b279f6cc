"""Correlations of one set of pairs, and the weighted engine, against scipy."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from humanclap.evaluate import METRICS, WeightedCorrelations, correlations
from humanclap.evaluate.weighted import Inversions


def by_scipy(score, target) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant input: scipy warns and says NaN, which is what is compared
        found = [f(score, target).statistic for f in (stats.spearmanr, stats.pearsonr, stats.kendalltau)]
    return [*found, np.mean((score - target) ** 2)]


def test_three_pairs_by_hand():
    found = correlations([1, 2, 3], [1, 3, 2])
    assert found.srcc == pytest.approx(0.5)  # 1 - 6·(0 + 1 + 1) / (3·8)
    assert found.lcc == pytest.approx(0.5)
    assert found.ktau == pytest.approx(1 / 3)  # two concordant pairs, one discordant
    assert found.mse == pytest.approx(2 / 3)
    assert found.n == 3


def test_constant_score_has_mse_but_no_correlation():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = correlations([0.5] * 4, [0, 0.5, 1, 1])
    assert all(math.isnan(v) for v in (found.srcc, found.lcc, found.ktau))
    assert found.mse == pytest.approx((0.25 + 0 + 0.25 + 0.25) / 4)
    assert math.isnan(correlations([1, 2, 3], [0.1] * 3).srcc)


@pytest.mark.parametrize(
    ("score", "target", "message"),
    [
        ([1, np.nan, np.inf], [1, 2, 3], "score holds 2 NaN or infinite values among 3, the first at position 1"),
        ([1, 2, 3], pd.Series([1, None, 3], dtype="Float64"), "target holds 1 NaN"),
        (np.ma.masked_array([1.0, 2.0], mask=[0, 1]), [1, 2], "score holds 1 NaN"),
        ([[1, 2]], [1, 2], r"score must have one dimension.*\(1, 2\)"),
        (["a", "b"], [1, 2], "score must be numbers"),
        ([], [], "0 pairs are too few"),
    ],
)
def test_bad_input_is_named(score, target, message):
    with pytest.raises(ValueError, match=message):
        correlations(score, target)


@pytest.mark.parametrize(
    ("n", "decimals", "offset"), [(2, 1, 0), (3, 0, 0), (7, 0, 0), (40, 1, 1e6), (129, 8, 0), (300, 0, 0), (700, 2, 0)]
)
def test_weighted_correlations_equal_scipy_on_the_pairs_written_out(n, decimals, offset):
    rng = np.random.default_rng(n)
    target = np.round(rng.normal(size=n), decimals)
    scores = np.stack(
        [np.round(0.5 * target + rng.normal(size=n), decimals) + offset, np.maximum(rng.normal(size=n), 0)]
    )  # clipped at 0, as CLAPScore: one large tie
    weights = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(30)], axis=1)
    found = WeightedCorrelations(scores, target)(weights)
    for column in range(weights.shape[1]):
        rows = np.repeat(np.arange(n), weights[:, column])
        for model, score in enumerate(scores):
            expected = by_scipy(score[rows], target[rows])
            np.testing.assert_allclose([found[m][model, column] for m in METRICS], expected, rtol=1e-9, atol=1e-9)


def test_weighted_correlations_of_heavy_weights_and_empty_columns():
    score, target = np.array([0.3, 0.1, 0.2, 0.2]), np.array([0.5, 0.0, 0.5, 1.0])
    weights = np.array([[4001, 0, 2, 0], [9007, 0, 0, 0], [703, 0, 0, 5], [3011, 0, 0, 5]])
    found = WeightedCorrelations(score, target)(weights)
    rows = np.repeat(np.arange(4), weights[:, 0])  # too large for float32
    np.testing.assert_allclose([found[m][0, 0] for m in METRICS], by_scipy(score[rows], target[rows]), rtol=1e-11)
    for metric in METRICS:  # nothing drawn: no value at all
        assert np.isnan(found[metric][0, 1])
    for column in (2, 3):  # one pair twice; a constant score
        assert all(np.isnan(found[m][0, column]) for m in METRICS[:3])
    assert found["mse"][0, 2] == pytest.approx(0.04)


def test_lcc_of_a_nearly_constant_resample_is_not_rounding():
    """All values drawn lie far from the mean: a variance in one pass is lost, the value must not be."""
    score = np.array([1.0, 1.0, 1.0, 1.0 + 1e-7, -1e3])
    target = np.array([0.0, 0.2, 0.1, 0.9, 0.3])
    weights = np.array([[1, 2], [1, 1], [1, 0], [1, 0], [0, 0]])
    found = WeightedCorrelations(score, target, ("lcc",))(weights)["lcc"][0]
    assert found[0] == pytest.approx(stats.pearsonr(score[:4], target[:4]).statistic, rel=1e-6)
    assert np.isnan(found[1])


@pytest.mark.parametrize("n", [1, 2, 255, 257, 600, 1030])
def test_inversions_against_a_double_loop(n):
    rng = np.random.default_rng(n)
    values = rng.integers(max(2, n // 3), size=n)
    weights = rng.integers(4, size=(n, 3)).astype(float)
    larger_before = np.triu(values[:, None] > values[None, :], k=1)
    expected = np.einsum("ib,ij,jb->b", weights, larger_before.astype(float), weights)
    np.testing.assert_array_equal(Inversions(values)(weights), expected)


def test_a_tensor_with_a_gradient_is_detached():
    torch = pytest.importorskip("torch")
    score = torch.tensor([0.1, 0.5, 0.2, 0.9], requires_grad=True)
    target = [0.0, 0.4, 0.3, 1.0]
    assert correlations(score, target) == correlations(score.detach().numpy(), target)
    assert score.requires_grad and score.grad is None
