"""Partial SRCC against pingouin and a plain loop over resamples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy.stats import pearsonr, rankdata

from humanclap.evaluate import ResamplePlan
from humanclap.evaluate.weighted import WeightedPartialSrcc


def residual_correlation(score, target, covariates, categories) -> float:
    """The definition, written out: least squares on the ranks, then Pearson."""
    design = [np.equal(categories, name).astype(float) for name in sorted(set(categories))]
    design = np.stack([*design, *(rankdata(values) for values in covariates)], axis=1)
    left = [ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0] for ranks in map(rankdata, (score, target))]
    return pearsonr(*left).statistic


def partial(score, target, covariates, categories=None) -> float:
    """The value on the pairs as they are."""
    return WeightedPartialSrcc(score, target, covariates, categories)(np.ones((len(target), 1)))[0, 0]


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
    score, target, words, system, _caption = study
    table = pd.DataFrame({"score": score, "target": target, "words": words})
    table = table.assign(tango=(system == "tango") * 1.0, tango2=(system == "tango2") * 1.0)
    expected = pingouin.partial_corr(table, "score", "target", ["words", "tango", "tango2"], method="spearman")
    found = partial(score, target, [words], system)
    assert found == pytest.approx(expected["r"].iloc[0], abs=1e-12)
    expected = pingouin.partial_corr(table, "score", "target", "words", method="spearman")
    found = partial(score, target, [words])
    assert found == pytest.approx(expected["r"].iloc[0], abs=1e-12)


def test_every_resample_equals_the_definition_on_the_pairs_written_out(study):
    score, target, words, system, caption = study
    plan = ResamplePlan.draw(caption, 40, seed=3)
    statistic = WeightedPartialSrcc(np.stack([score, -target]), target, [words, words > 6], system)
    found = np.concatenate([statistic(weights) for weights in map(plan.weights, plan.spans())], axis=1)
    for resample in range(40):
        rows = plan.indices(resample)
        covariates = [words[rows], words[rows] > 6]
        expected = residual_correlation(score[rows], target[rows], covariates, system[rows])
        assert found[0, resample] == pytest.approx(expected, abs=1e-10)
    np.testing.assert_allclose(found[1], -1)


def test_what_is_given_leaves_nothing(study):
    _, target, words, system, _ = study
    guesses = {"system": (system == "tango") * 2.0 + (system == "natural"), "length": -3 * words, "constant": words * 0}
    for name, guess in guesses.items():
        assert np.isnan(partial(guess, target, [words], system)), name
    assert np.isfinite(partial(guesses["length"], target, [words * 0], system))
