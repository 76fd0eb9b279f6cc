"""Maps fitted on validation and reliability diagrams, against scikit-learn, scipy, numpy and loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression

from humanclap.evaluate import ResamplePlan, calibrate, calibrated_scores, fit_map, reliability_curve
from humanclap.evaluate.calibration import MAPS


def pairs_of(n_captions, name, seed) -> pd.DataFrame:
    """Pairs, and a score that orders them well on a scale of its own: 0.7 + 0.3 · target² and noise, with ties."""
    rng = np.random.default_rng(seed)
    rows = [(f"{name}/{c}-{clip}.wav", f"{name} {c}") for c in range(n_captions) for clip in range(3)]
    pairs = pd.DataFrame(rows, columns=["audio", "text"])
    target = np.round(rng.uniform(0, 1, len(pairs)), 2)
    tables = []
    for model, training_seed in (("m", 0), ("m", 1), ("noise", np.nan)):
        heard = 0.7 + 0.3 * target**2 + 0.05 * rng.normal(size=len(pairs))
        score = np.round(rng.random(len(pairs)) if model == "noise" else heard, 2)
        tables.append(pairs.assign(target=target, model=model, training_seed=training_seed, clap_score=score))
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def study():
    return pairs_of(40, "validation", 0), pairs_of(50, "test", 1)


def test_linear_map_is_polyfit_cut_off():
    rng = np.random.default_rng(2)
    score, target = rng.normal(size=50), rng.random(50)
    there = np.linspace(-100, 100, 41)
    expected = np.clip(np.polyval(np.polyfit(score, target, 1), there), 0, 1)
    np.testing.assert_allclose(fit_map(score, target, "linear")(there), expected, atol=1e-10)
    assert {0.0, 1.0} <= set(fit_map(score, target + score, "linear")(there))


def test_isotonic_map_is_scipys_at_the_scores_and_flat_outside():
    rng = np.random.default_rng(3)
    score = np.round(rng.random(80), 1)  # many ties
    target = np.clip(score + 0.3 * rng.normal(size=80), 0, 1)
    means = pd.DataFrame({"score": score, "target": target}).groupby("score")["target"].agg(["mean", "size"])
    expected = isotonic_regression(means["mean"], weights=means["size"].astype(float)).x
    found = fit_map(score, target, "isotonic")
    np.testing.assert_allclose(found(means.index.to_numpy()), expected, atol=1e-12)
    np.testing.assert_allclose(found(np.array([-5.0, 5.0])), expected[[0, -1]])


def test_table_is_fitted_on_validation_and_judged_on_test(study):
    validation, test = study
    found = calibrate(validation, test, n_resamples=50)
    columns = (
        "model map mse low high srcc constant_mse difference difference_low difference_high n n_validation n_seeds"
    )
    assert list(found.columns) == [*columns.split(), "seed_sd", "note"]
    assert found.groupby("model", sort=False)["map"].apply(tuple).to_dict() == {"m": MAPS, "noise": MAPS}
    by = found.set_index(["model", "map"])
    mean = validation.query("model == 'noise'")["target"].mean()
    constant = ((test.query("model == 'noise'")["target"] - mean) ** 2).mean()
    np.testing.assert_allclose(found["constant_mse"], constant)
    values = {kind: [] for kind in MAPS}
    for seed in (0, 1):
        here, there = (table[table["training_seed"] == seed] for table in study)
        line = np.clip(np.polyval(np.polyfit(here["clap_score"], here["target"], 1), there["clap_score"]), 0, 1)
        step = IsotonicRegression(out_of_bounds="clip").fit(here["clap_score"], here["target"])
        predictions = {"none": there["clap_score"], "linear": line, "isotonic": step.predict(there["clap_score"])}
        for kind, prediction in predictions.items():
            error = ((prediction - there["target"]) ** 2).mean()
            values[kind].append((error, spearmanr(prediction, there["target"]).statistic))
    for kind in MAPS:
        mse, srcc = np.mean(values[kind], axis=0)
        row = by.loc[("m", kind)]
        assert (row["mse"], row["srcc"]) == pytest.approx((mse, srcc))
        assert row["difference"] == pytest.approx(mse - constant)
        assert row["seed_sd"] == pytest.approx(np.std([value[0] for value in values[kind]], ddof=1))
        assert (row["n"], row["n_validation"], row["n_seeds"]) == (150, 120, 2)
    # the score orders well and stands on another scale: worse than a constant before, better after
    assert by.loc[("m", "none"), "difference_low"] > 0
    assert by.loc[("m", "linear"), "difference_high"] < 0 and by.loc[("m", "isotonic"), "difference_high"] < 0
    assert by.loc[("noise", "linear"), "difference"] == pytest.approx(0, abs=0.01)


def test_calibrated_scores_keep_the_rows_and_give_the_tables_mse(study):
    validation, test = study
    shuffled = test.sample(frac=1, random_state=0)
    by = calibrate(validation, test, n_resamples=2).set_index(["model", "map"])["mse"]
    for kind in MAPS:
        found = calibrated_scores(validation, shuffled, kind)
        pd.testing.assert_frame_equal(found.drop(columns="clap_score"), shuffled.drop(columns="clap_score"))
        error = ((found["clap_score"] - found["target"]) ** 2).groupby(found["model"]).mean()
        for model in ("m", "noise"):
            assert error[model] == pytest.approx(by[model, kind])


def test_a_score_that_says_nothing_is_marked(study):
    flat = [table.query("model == 'noise'").assign(clap_score=0.5) for table in study]
    found = calibrate(*flat, n_resamples=10)
    assert found["srcc"].isna().all() and found["note"].str.startswith("constant").all()
    np.testing.assert_allclose(found["difference"].iloc[1:], 0, atol=1e-12)
    one = study[1].query("model == 'noise'")
    few = calibrate(study[0].query("model == 'noise'"), one.iloc[1:4], n_resamples=5)
    assert few[["mse", "low", "high", "srcc", "difference"]].isna().all(axis=None)
    assert (few["note"] == "fewer than 4 pairs").all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, t: (t, t), "150 pairs are in validation and in test"),
        (lambda v, t: (v[v["model"] == "m"], t), "test_scores has models that validation_scores lacks: noise"),
        (lambda v, t: (v, t[t["model"] == "m"]), "validation_scores has models that test_scores lacks: noise"),
    ],
)
def test_bad_tables_are_named(study, change, message):
    with pytest.raises(ValueError, match=message):
        calibrate(*change(*study))


def test_bins_are_quantiles_with_means_and_intervals():
    rng = np.random.default_rng(6)
    score = rng.random(300)
    target = np.clip(score + 0.2 * rng.normal(size=300), 0, 1)
    caption = np.repeat(np.arange(100), 3)
    found = reliability_curve(score, target, bins=5, groups=caption, n_resamples=40, seed=7)
    assert list(found.columns) == ["bin", "score_low", "score_high", "score", "target", "low", "high", "n", "note"]
    number = pd.qcut(score, 5, labels=False)
    plan = ResamplePlan.draw(caption, 40, seed=7)
    for place in range(5):
        row, inside = found.iloc[place], number == place
        expected = score[inside].mean(), target[inside].mean(), score[inside].min(), score[inside].max(), inside.sum()
        assert tuple(row[["score", "target", "score_low", "score_high", "n"]]) == pytest.approx(expected)
        means = [target[rows[inside[rows]]].mean() for rows in map(plan.indices, range(40))]
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_ties_stay_in_one_bin():
    score = np.repeat([0.0, 0.5, 1.0], [60, 3, 20])
    target = np.linspace(0, 1, 83)
    found = reliability_curve(score, target, bins=10, n_resamples=20)
    assert found["n"].sum() == 83 and found["bin"].tolist() == list(range(1, len(found) + 1))
    assert (found["score_low"].to_numpy()[1:] > found["score_high"].to_numpy()[:-1]).all()
    constant = reliability_curve(np.zeros(10), np.linspace(0, 1, 10), n_resamples=20)
    assert len(constant) == 1 and constant["target"].iloc[0] == pytest.approx(0.5)
    few = reliability_curve(np.arange(6.0), np.linspace(0, 1, 6), bins=3, n_resamples=20)
    assert few["n"].tolist() == [2, 2, 2] and few["low"].isna().all() and (few["note"] == "fewer than 4 pairs").all()
