"""BCa intervals against scipy's on the same resamples, Holm against statsmodels, and what can't be computed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats._resampling import BootstrapResult
from statsmodels.stats.multitest import multipletests

from humanclap.evaluate import (
    METRICS,
    ResamplePlan,
    bca_interval,
    bootstrap_correlations,
    bootstrap_statistic,
    breakdown,
    compare,
    compare_models,
    correlations,
    holm,
    percentile_interval,
)


@pytest.fixture(scope="module")
def rated():
    """Synthetic pairs: 40 captions of one to four clips, tied targets, a skewed score clipped at 0."""
    rng = np.random.default_rng(3)
    caption = np.repeat(np.arange(40), rng.integers(1, 5, size=40))
    truth = rng.normal(size=40)[caption] + rng.normal(size=len(caption))
    return pd.DataFrame({
        "caption": [f"caption {c:02d}" for c in caption],
        "target": np.clip(np.round(0.5 + truth / 5, 1), 0, 1),
        "good": np.maximum(np.exp(truth + 0.5 * rng.normal(size=len(caption))) - 0.4, 0),
        "poor": np.round(truth + 3 * rng.normal(size=len(caption)), 1),
    })


def by_scipy(statistic, n_items: int, samples: np.ndarray) -> tuple[float, float]:
    """scipy's BCa of a statistic of drawn items (pairs, or captions), with the resamples given."""
    given = BootstrapResult(None, samples, None)
    found = stats.bootstrap(
        (np.arange(n_items),), statistic, n_resamples=0, bootstrap_result=given, method="BCa", vectorized=False
    )
    return found.confidence_interval.low, found.confidence_interval.high


@pytest.mark.parametrize("metric", METRICS)
def test_bca_of_pairs_equals_scipy_on_the_same_resamples(rated, metric):
    rated = rated.sort_values(["target", "good"], kind="stable")  # so are pairs drawn without captions
    score, target = rated["good"].to_numpy(), rated["target"].to_numpy()

    def statistic(rows):
        return getattr(correlations(score[rows], target[rows]), metric)

    plan = ResamplePlan.draw(n=len(rated), n_resamples=400, seed=2)
    samples = np.array([statistic(plan.indices(resample)) for resample in range(400)])
    found = bootstrap_correlations(score, target, n_resamples=400, seed=2, interval="bca")
    low, high = by_scipy(statistic, len(rated), samples)
    assert (getattr(found.low, metric), getattr(found.high, metric)) == pytest.approx((low, high), abs=1e-9)
    assert (low, high) != pytest.approx(percentile_interval(samples), abs=1e-4)  # else this proves nothing
    assert (found.interval, found.note) == ("bca", "")


@pytest.mark.parametrize("metric", METRICS)
def test_bca_of_a_difference_resampled_by_caption_equals_scipy_over_captions(rated, metric):
    names = sorted(set(rated["caption"]))
    rows_of = [np.flatnonzero(rated["caption"] == name) for name in names]
    columns = rated[["good", "poor", "target"]].to_numpy()

    def statistic(captions):
        good, poor, target = columns[np.concatenate([rows_of[c] for c in captions])].T
        return getattr(correlations(good, target), metric) - getattr(correlations(poor, target), metric)

    plan = ResamplePlan.draw(rated["caption"], n_resamples=300, seed=4)
    drawn = [np.repeat(np.arange(40), plan.counts[:, resample]) for resample in range(300)]
    samples = np.array([statistic(captions) for captions in drawn])
    found = compare(
        rated["good"], rated["poor"], rated["target"], rated["caption"], metric, 300, seed=4, interval="bca"
    )
    assert (found.low, found.high) == pytest.approx(by_scipy(statistic, 40, samples), abs=1e-9)
    percentile = compare(rated["good"], rated["poor"], rated["target"], rated["caption"], metric, 300, seed=4)
    assert (found.p, found.difference) == (percentile.p, percentile.difference)


def test_bca_by_hand():
    # 10 samples, 7 below the value: z0 = Φ⁻¹(0.7); jackknife 0, 0, 3 has u = 1, 1, -2: a = -6 / (6 · 6^1.5)
    samples, jackknife = np.arange(10.0), np.array([0.0, 0, 3])
    z0, a = stats.norm.ppf(0.7), -1 / 6**1.5
    z = z0 + stats.norm.ppf([0.1, 0.9])
    expected = np.quantile(samples, stats.norm.cdf(z0 + z / (1 - a * z)))
    found = bca_interval(6.5, samples, jackknife, level=0.8)
    assert (found.low, found.high, found.note) == (pytest.approx(expected[0]), pytest.approx(expected[1]), "")


def test_bca_of_a_symmetric_statistic_is_the_percentile_interval():
    samples = np.arange(-50.0, 51)
    found = bca_interval(0.0, samples, np.array([-1.0, 0, 1]))
    assert (found.low, found.high) == pytest.approx(percentile_interval(samples))


@pytest.mark.parametrize(
    ("value", "samples", "jackknife", "note"),
    [
        (9.0, np.arange(5.0), np.arange(3.0), "all resamples lie on one side"),
        (-9.0, np.arange(5.0), np.arange(3.0), "all resamples lie on one side"),
        (2.0, np.arange(5.0), np.array([1.0, np.nan, np.nan]), "undefined without each of 2 groups"),
        (np.nan, np.arange(5.0), np.arange(3.0), ""),
        (1.0, np.full(5, np.nan), np.arange(3.0), ""),
    ],
)
def test_a_bca_that_cannot_be_computed_says_why(value, samples, jackknife, note):
    found = bca_interval(value, samples, jackknife)
    assert np.isnan([found.low, found.high]).all()
    assert note in found.note and bool(note) == bool(found.note)


def test_undefined_samples_are_left_out_of_bca():
    rng = np.random.default_rng(0)
    samples, jackknife = rng.normal(size=200), rng.normal(size=30)
    holes = np.insert(samples, [3, 50, 199], np.nan)
    assert bca_interval(0.2, holes, jackknife) == bca_interval(0.2, samples, jackknife)


def test_a_constant_jackknife_is_marked(rated):
    same = compare(rated["good"], rated["good"], rated["target"], rated["caption"], n_resamples=50, interval="bca")
    assert (same.low, same.high, same.p) == (0, 0, 1)
    assert same.note == "constant jackknife: BCa without acceleration"


def test_a_score_that_one_caption_keeps_from_being_constant_has_no_bca():
    score, target = np.array([0.0, 0, 0, 0, 1]), np.array([0.1, 0.4, 0.3, 0.2, 0.9])
    found = bootstrap_correlations(score, target, n_resamples=300, interval="bca")
    assert np.isnan([found.low.srcc, found.high.srcc]).all()
    assert np.isfinite([found.low.mse, found.high.mse]).all()
    assert "srcc: no BCa interval: undefined without each of 1 groups" in found.note and "mse" not in found.note
    table = pd.DataFrame({
        "model": "m", "audio": list("abcde"), "text": list("abcde"), "target": target, "clap_score": score
    })
    found = breakdown(table, n_resamples=300, interval="bca").set_index("metric")
    assert np.isnan(found.loc["srcc", ["low", "high"]].astype(float)).all()
    assert found.loc["srcc", "note"] == "no BCa interval: undefined without each of 1 groups"
    assert found.loc["srcc", "n_constant"] > 0 and found.loc["mse", "note"] == ""


def test_bca_of_any_statistic(rated):
    values = rated["target"].to_numpy()
    plan = ResamplePlan.draw(rated["caption"], n_resamples=300, seed=2)
    found = bootstrap_statistic(lambda weights: values @ weights / weights.sum(axis=0), plan, interval="bca")
    rows_of = [np.flatnonzero(plan.codes == code) for code in range(40)]

    def statistic(captions):
        return values[np.concatenate([rows_of[c] for c in captions])].mean()

    samples = np.array([values[plan.indices(resample)].mean() for resample in range(300)])
    assert (found.low, found.high) == pytest.approx(by_scipy(statistic, 40, samples), abs=1e-6)  # float32 weights


def test_leave_one_out_leaves_out_one_caption_at_a_time(rated):
    plan = ResamplePlan.draw(rated["caption"], n_resamples=1).leave_one_out()
    columns = np.hstack([weights for _, weights in plan.chunks()])
    assert columns.shape == (len(rated), 40)
    for code, name in enumerate(sorted(set(rated["caption"]))):
        np.testing.assert_array_equal(columns[:, code], (rated["caption"] != name).astype(float))


@pytest.mark.parametrize("function", [bootstrap_correlations, breakdown, compare, compare_models, bootstrap_statistic])
def test_an_unknown_interval_is_named(function):
    arguments = {
        bootstrap_correlations: ([1, 2, 3], [1, 3, 2]), compare: ([1, 2, 3], [1, 3, 2], [1, 2, 3]),
        breakdown: (pd.DataFrame(),), compare_models: (pd.DataFrame(), "laion"), bootstrap_statistic: (None, None),
    }[function]
    with pytest.raises(ValueError, match="unknown interval: 'basic'. Available: percentile, bca"):
        function(*arguments, interval="basic")


def test_holm_equals_statsmodels():
    rng = np.random.default_rng(1)
    for m in (1, 2, 7, 48):
        p = np.round(rng.uniform(size=m) ** 3, 2)  # with ties
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=0, atol=1e-15)


def test_holm_by_hand_with_a_comparison_that_could_not_be_made():
    # three are counted: 3 · 0.01, then 2 · 0.02, then 1 · 0.03, which must not fall below the one before
    np.testing.assert_allclose(holm([0.03, np.nan, 0.01, 0.02]), [0.04, np.nan, 0.03, 0.04])
    np.testing.assert_allclose(holm(pd.Series([0.9, 0.6], index=[7, 3])), [1, 1])
    assert np.isnan(holm([np.nan])).all() and len(holm([])) == 0


@pytest.mark.parametrize("p", [[1.2], [-0.1, 0.5], [[0.1, 0.2]], 0.3])
def test_holm_takes_p_values(p):
    with pytest.raises(ValueError, match="holm takes p-values from 0 to 1"):
        holm(p)
