"""Partial SRCC against pingouin and a plain loop over resamples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy.stats import pearsonr, rankdata

from humanclap import relate
from humanclap.evaluate import ResamplePlan, blind_predictions, partial_srcc
from humanclap.evaluate.partial import WeightedPartialSrcc


def residual_correlation(score, target, covariates, categories) -> float:
    """The definition, written out: least squares on the ranks, then Pearson."""
    design = [np.equal(categories, name).astype(float) for name in sorted(set(categories))]
    design = np.stack([*design, *(rankdata(values) for values in covariates)], axis=1)
    left = [ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0] for ranks in map(rankdata, (score, target))]
    return pearsonr(*left).statistic


@pytest.fixture(scope="module")
def study():
    """300 pairs of 100 captions, ties in everything; score and target share more than system and length."""
    rng = np.random.default_rng(11)
    caption = np.repeat(np.arange(100), 3)
    system = rng.choice(["natural", "tango", "tango2"], size=300)
    words = rng.integers(3, 12, size=100)[caption].astype(float)
    heard = rng.normal(size=300)
    target = np.round(heard + 0.8 * (system == "tango") - 0.1 * words, 1)
    score = np.round(0.5 * heard + rng.normal(size=300) + (system == "tango"), 1)
    return score, target, words, system, caption


def test_value_is_pingouins(study):
    score, target, words, system, caption = study
    table = pd.DataFrame({"score": score, "target": target, "words": words})
    table = table.assign(tango=(system == "tango") * 1.0, tango2=(system == "tango2") * 1.0)
    expected = pingouin.partial_corr(table, "score", "target", ["words", "tango", "tango2"], method="spearman")
    found = partial_srcc(score, target, [words], system, caption, n_resamples=10)
    assert found.value == pytest.approx(expected["r"].iloc[0], abs=1e-12)
    expected = pingouin.partial_corr(table, "score", "target", "words", method="spearman")
    found = partial_srcc(score, target, [words], groups=caption, n_resamples=10)
    assert found.value == pytest.approx(expected["r"].iloc[0], abs=1e-12)


def test_every_resample_equals_the_definition_on_the_pairs_written_out(study):
    score, target, words, system, caption = study
    plan = ResamplePlan.draw(caption, 300, 40, seed=3)
    statistic = WeightedPartialSrcc(np.stack([score, -target]), target, [words, words > 6], system)
    found = np.concatenate([statistic(weights) for _, weights in plan.chunks()], axis=1)
    for resample in range(40):
        rows = plan.indices(resample)
        covariates = [words[rows], words[rows] > 6]
        expected = residual_correlation(score[rows], target[rows], covariates, system[rows])
        assert found[0, resample] == pytest.approx(expected, abs=1e-10)
    np.testing.assert_allclose(found[1], -1)


def test_interval_is_that_of_the_resamples(study):
    score, target, words, system, caption = study
    found = partial_srcc(score, target, [words], system, caption, n_resamples=80, seed=5, level=0.9)
    plan = ResamplePlan.draw(caption, 300, 80, seed=5)
    samples = []
    for resample in range(80):
        rows = plan.indices(resample)
        samples.append(residual_correlation(score[rows], target[rows], [words[rows]], system[rows]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(samples, [0.05, 0.95])), abs=1e-10)
    assert found.n_undefined == 0


def test_what_is_given_leaves_nothing(study):
    _, target, words, system, caption = study
    guesses = {"system": (system == "tango") * 2.0 + (system == "natural"), "length": -3 * words, "constant": words * 0}
    for name, guess in guesses.items():
        found = partial_srcc(guess, target, [words], system, caption, n_resamples=50)
        assert np.isnan([found.value, found.low, found.high]).all(), name
        assert found.n_undefined == 50, name
    same_length = partial_srcc(guesses["length"], target, [words * 0], system, caption, n_resamples=20)
    assert np.isfinite(same_length.value)


def test_a_blind_predictor_has_nothing_left_where_people_go_by_system_and_length():
    """What is left of it is the curvature of ranks: far below its SRCC, and below what 960 captions can show."""
    rng = np.random.default_rng(0)
    sizes = {"train": 960, "test": 960}
    made = {}
    for split, n in sizes.items():
        words = np.repeat(rng.integers(4, 16, size=n), 3)
        system = np.tile(["natural", "tango", "tango2"], n)
        text = [f"{' '.join(['word'] * (k - 1))} {i}" for i, k in zip(np.repeat(np.arange(n), 3), words)]
        target = 0.7 - 0.2 * (system == "tango") - 0.01 * words + 0.2 * rng.normal(size=3 * n)
        made[split] = pd.DataFrame({"text": text, "system": system, "target": target, "words": words})
    test = made["test"]
    guess = blind_predictions(made["train"], test)["system+words+temporal"]
    found = partial_srcc(guess, test["target"], [test["words"]], test["system"], test["text"], n_resamples=200)
    assert guess.corr(test["target"], method="spearman") > 0.3
    assert found.low < 0 < found.high
    assert abs(found.value) < 0.05


def test_of_the_blind_floor_on_real_ratings_temporal_words_are_left(real_ratings):
    """Measured: SRCC 0.46, 0.12 given system and length, 0.05 given "followed by / then" as well."""
    pairs = relate.aggregate_pairs(relate.screen_listeners(real_ratings, 2.0).ratings)
    train, test = (pairs[pairs["split"] == split].reset_index(drop=True) for split in ("train", "test"))
    predictions = blind_predictions(train, test)
    guess, words = predictions["system+words+temporal"], predictions["words"]
    temporal = test["text"].str.contains(r"\b(?:followed by|then)\b", case=False)
    given = [words], [words, temporal]
    length, also_order = (partial_srcc(guess, test["target"], c, test["system"], test["text"], 100) for c in given)
    assert 0.05 < length.low < length.value < 0.2
    assert abs(also_order.value) < 0.06


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2, 3], [1, 2]), "score has 3 values and target 2"),
        (([1, 2, np.nan], [1, 2, 3]), "score holds 1 NaN"),
        (([1, 2, 3], [1, 2, 3], [[1, 2]]), "covariate 0 has 2 values for 3 pairs"),
        (([1, 2, 3], [1, 2, 3], [[1, np.nan, 2]]), "covariate 0 holds 1 NaN"),
        (([1, 2, 3], [1, 2, 3], [], ["a", "b"]), "categories has 2 labels for 3 pairs"),
        (([1, 2, 3], [1, 2, 3], [], ["a", None, "b"]), "missing labels"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        partial_srcc(*arguments, n_resamples=5)


def test_three_pairs_are_too_few():
    found = partial_srcc([1, 2, 3], [3, 1, 2], n_resamples=5)
    assert np.isnan([found.value, found.low, found.high]).all()
