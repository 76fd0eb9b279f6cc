"""Bootstrap intervals and paired comparisons against plain loops over the same resamples."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from humanclap.evaluate import (
    METRICS,
    ResamplePlan,
    bootstrap_correlations,
    compare,
    correlations,
    holm,
    mean_interval,
    paired_p,
    two_sided_p,
)


@pytest.fixture(scope="module")
def rated():
    """Synthetic pairs: 60 captions of one to five clips, tied targets, a score clipped at 0."""
    rng = np.random.default_rng(11)
    caption = np.repeat(np.arange(60), rng.integers(1, 6, size=60))
    rng.shuffle(caption)
    truth = rng.normal(size=60)[caption] + rng.normal(size=len(caption))
    return pd.DataFrame(
        {
            "caption": [f"caption {c}" for c in caption],
            "target": np.clip(np.round(0.5 + truth / 5, 1), 0, 1),
            "good": np.maximum(0.2 + 0.2 * truth + 0.2 * rng.normal(size=len(caption)), 0),
            "poor": np.round(rng.normal(size=len(caption)), 1),
        }
    )


@pytest.mark.parametrize("by_caption", [True, False])
def test_intervals_equal_the_plain_scipy_loop(rated, by_caption):
    if not by_caption:  # pairs are then drawn by their place among the sorted pairs
        rated = rated.sort_values(["target", "good"])
    groups = rated["caption"] if by_caption else None
    found = bootstrap_correlations(rated["good"], rated["target"], groups, n_resamples=300, seed=5)
    plan = ResamplePlan.draw(range(len(rated)) if groups is None else groups, 300, seed=5)
    score, target = rated["good"].to_numpy(), rated["target"].to_numpy()
    loop = {"srcc": stats.spearmanr, "lcc": stats.pearsonr, "ktau": stats.kendalltau}
    for metric in METRICS:
        samples = []
        for resample in range(300):
            rows = plan.indices(resample)
            if metric == "mse":
                samples.append(np.mean((score[rows] - target[rows]) ** 2))
            else:
                samples.append(loop[metric](score[rows], target[rows]).statistic)
        low, high = np.percentile(samples, [2.5, 97.5])
        assert getattr(found.low, metric) == pytest.approx(low, abs=1e-12)
        assert getattr(found.high, metric) == pytest.approx(high, abs=1e-12)
    assert found.estimate == correlations(score, target)
    assert found.n_groups == (60 if by_caption else len(rated))
    assert found.n_constant == 0


def test_a_resample_takes_each_drawn_caption_with_all_its_pairs(rated):
    plan = ResamplePlan.draw(rated["caption"], n_resamples=20, seed=0)
    sizes = rated["caption"].value_counts()
    for resample in range(20):
        counts = rated["caption"].iloc[plan.indices(resample)].value_counts()
        times = counts / sizes[counts.index]
        assert (times == times.round()).all()
        assert times.sum() == plan.n_groups
        np.testing.assert_array_equal(
            plan.weights(slice(resample, resample + 1))[:, 0], np.bincount(plan.indices(resample), minlength=len(rated))
        )


def test_resamples_depend_on_the_seed_alone(rated):
    first = compare(rated["good"], rated["poor"], rated["target"], rated["caption"], n_resamples=200, seed=1)
    assert first == compare(rated["good"], rated["poor"], rated["target"], rated["caption"], n_resamples=200, seed=1)
    assert first != compare(rated["good"], rated["poor"], rated["target"], rated["caption"], n_resamples=200, seed=2)
    short, long = (ResamplePlan.draw(rated["caption"], n_resamples=b, seed=3).counts for b in (7, 300))
    np.testing.assert_array_equal(short, long[:, :7])
    state = np.random.get_state()[1].copy()
    bootstrap_correlations(rated["good"], rated["target"], n_resamples=10)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("metric", METRICS)
def test_compare_equals_a_paired_loop(rated, metric):
    found = compare(rated["good"], rated["poor"], rated["target"], rated["caption"], metric, n_resamples=200, seed=4)
    plan = ResamplePlan.draw(rated["caption"], n_resamples=200, seed=4)
    columns = rated[["good", "poor", "target"]].to_numpy()
    differences = []
    for resample in range(200):
        good, poor, target = columns[plan.indices(resample)].T
        differences.append(getattr(correlations(good, target), metric) - getattr(correlations(poor, target), metric))
    differences = np.array(differences)
    assert (found.low, found.high) == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=1e-12)
    b = min((differences <= 0).sum(), (differences >= 0).sum())
    assert found.p == pytest.approx(min(1, 2 * (b + 1) / 201))
    assert found.difference == found.a - found.b
    assert (found.n, found.n_resamples, found.n_constant, found.metric) == (len(rated), 200, 0, metric)


def test_p_by_hand():
    assert two_sided_p(np.array([1.0, 2.0, 3.0, -1.0])) == pytest.approx(2 * 2 / 5)
    assert two_sided_p(np.array([1.0, 2.0, 3.0, np.nan])) == pytest.approx(2 * 1 / 4)
    assert two_sided_p(-np.arange(1.0, 100)) == pytest.approx(2 / 100)
    assert two_sided_p(np.zeros(9)) == 1
    assert np.isnan(two_sided_p(np.array([np.nan])))


def test_resamples_with_a_constant_score_are_counted_and_left_out():
    score, target = np.array([0.0, 0, 0, 0, 1]), np.array([0.1, 0.4, 0.3, 0.2, 0.9])
    found = bootstrap_correlations(score, target, n_resamples=500)
    plan = ResamplePlan.draw(range(5), n_resamples=500)
    constant = sum(np.ptp(score[plan.indices(b)]) == 0 or np.ptp(target[plan.indices(b)]) == 0 for b in range(500))
    assert found.n_constant == constant > 100
    assert np.isfinite([found.low.srcc, found.high.srcc]).all()
    assert compare(score, target, target, n_resamples=500).n_constant == constant


def test_constant_score_has_an_interval_for_mse_only(rated):
    found = bootstrap_correlations(np.full(len(rated), 0.5), rated["target"], rated["caption"], n_resamples=40)
    assert np.isnan([found.estimate.srcc, found.low.srcc, found.high.lcc, found.low.ktau]).all()
    assert found.low.mse < found.estimate.mse < found.high.mse
    assert found.n_constant == 40
    frame = found.to_frame()
    assert list(frame.columns) == ["metric", "value", "low", "high", "n"]
    assert list(frame["metric"]) == list(METRICS)
    assert (frame["n"] == len(rated)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": ["a", "b"]}, "groups has labels of shape .2,. for 4 pairs"),
        ({"groups": ["a", None, "b", "b"]}, "groups holds 1 missing labels, the first at 1"),
        ({"groups": ["a"] * 4}, "at least 2 groups"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_correlations([1, 2, 3, 4], [1, 3, 2, 4], **arguments)


def numbers_of(found) -> list[float]:
    """Every number of a result, in one list."""
    numbers = []
    for value in vars(found).values():
        if hasattr(value, "as_dict"):
            numbers += value.as_dict().values()
        elif not isinstance(value, str):
            numbers.append(value)
    return numbers


@pytest.mark.parametrize("by_caption", [True, False])
def test_the_order_of_the_pairs_changes_nothing(rated, by_caption):
    found = []
    for rows in (rated, rated.sample(frac=1, random_state=1), rated[::-1]):
        groups = rows["caption"] if by_caption else None
        one = bootstrap_correlations(rows["good"], rows["target"], groups, n_resamples=60)
        two = compare(rows["good"], rows["poor"], rows["target"], groups, "lcc", n_resamples=60)
        found.append(numbers_of(one) + numbers_of(two))
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=0, atol=1e-12)


def test_groups_are_numbered_by_their_labels():
    for labels in (["b", "a", "b", "c"], [10, 9, 10, 11], [("x", 2), ("x", 1), ("x", 2), ("y", 0)]):
        index = pd.Index(labels, tupleize_cols=False)
        np.testing.assert_array_equal(ResamplePlan.draw(index, n_resamples=1).codes, [1, 0, 1, 2])
    mixed = ResamplePlan.draw(["1", 1, "0"], n_resamples=1).codes  # no order between text and number
    np.testing.assert_array_equal(ResamplePlan.draw(["0", "1", 1], n_resamples=1).codes, mixed[[2, 0, 1]])


def test_sign_flips_are_every_pattern_written_out_and_t_above_sixteen():
    rng = np.random.default_rng(3)
    d = np.round(rng.normal(0.4, 1, 7), 1)
    signs = np.array(list(itertools.product([1, -1], repeat=7)))
    assert paired_p(d) == pytest.approx((np.abs(signs @ d) >= abs(d.sum()) - 1e-9).mean())
    assert paired_p(d) == pytest.approx(stats.permutation_test((d,), np.mean, permutation_type="samples").pvalue)
    assert (paired_p([1, 1, 1, 1]), paired_p([0, 0, 0]), paired_p([2.0])) == (2 / 16, 1, 1)
    more = rng.normal(0.3, 1, 25)
    assert paired_p(more) == pytest.approx(stats.ttest_1samp(more, 0).pvalue)
    assert paired_p([0.5] * 20) == 2.0**-19 and np.isnan(paired_p([]))


@pytest.mark.parametrize("n", [5, 10, 20])
def test_small_prompt_tests_keep_their_level_where_the_bootstrap_p_did_not(n):
    p = np.array([paired_p(row) for row in np.random.default_rng(n).normal(size=(2000, n))])
    for level in (0.05, 0.01, 0.001):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level / 2000)


def test_compare_has_no_p_with_few_captions():
    rng = np.random.default_rng(0)
    a, b, target = rng.normal(size=(3, 57))
    found = compare(a, b, target, np.arange(57) // 3, n_resamples=50)
    assert np.isnan(found.p) and found.note == "no p: fewer than 20 captions" and found.low < found.high
    found = compare(a, b, target, np.arange(57) // 2, n_resamples=50)
    assert 0 < found.p <= 1 and found.note == ""


def test_mean_interval_is_the_expanded_percentile_of_a_loop_over_captions():
    rng = np.random.default_rng(4)
    values, captions = rng.uniform(size=30), np.repeat(list("abcdefghij"), 3)
    found = mean_interval(values, captions, n_resamples=400, seed=2)
    plan = ResamplePlan.draw(captions, 400, 2)
    means = np.array([values[plan.indices(b)].mean() for b in range(400)])
    factor = np.sqrt(10 / 9) * stats.t.ppf(0.975, 9) / stats.norm.ppf(0.975)
    expected = values.mean() + factor * (np.quantile(means, [0.025, 0.975]) - values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected)) and found.n_groups == 10
    three = mean_interval(values[:9], captions[:9])
    assert np.isnan([three.low, three.high]).all() and three.mean == pytest.approx(values[:9].mean())
    assert three.note == "3 prompts, an interval needs 4"


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04, 0.03]), [0.03, np.nan, 0.06, 0.06])
    assert np.isnan(holm([np.nan])).all() and len(holm([])) == 0
    with pytest.raises(ValueError, match="p-values from 0 to 1"):
        holm([1.2])


@pytest.mark.slow
def test_intervals_cover_and_the_test_errs_as_often_as_it_says():
    """200 studies of 160 captions: bounds are the nominal rate ± 3 binomial standard errors of 200 studies."""
    script = Path(__file__).resolve().parent.parent / "benchmarks" / "interval_coverage.py"
    simulation = SimpleNamespace(**runpy.run_path(str(script)))
    found = simulation.simulate(160, 200, 500, simulation.truth(500_000), seed=2).set_index("unit")
    slack = 3 * np.sqrt(0.95 * 0.05 / 200)
    assert found.loc["captions", "covered"].between(0.95 - slack, 0.95 + slack).all()
    assert (found.loc["pairs", "covered"] < 0.95 - slack).all()  # too narrow: the clips of a caption are alike
    assert found.loc["captions", "wrong"].between(0.05 - slack, 0.05 + slack).all()
