"""Reliability against two packages that know nothing of ours: pingouin's ICC and statsmodels' mixed model."""

from __future__ import annotations

import pytest

from humanclap import relate
from humanclap.evaluate import human_ceiling


@pytest.fixture(scope="module")
def ratings(real_ratings):
    """The paper's rule on the test split of REL, with a label for each pair."""
    kept = relate.screen_listeners(real_ratings, max_anchor_mean=2.0).ratings
    kept = kept[kept["split"] == "test"]
    return kept.assign(pair=kept["audio"] + "|" + kept["text"])


@pytest.mark.extra("dev")
def test_icc_of_pingouin_on_pairs_with_four_raters(ratings):
    """ICC(1, 1) and ICC(1, k): every pair has its own listeners, so who is called first, second … must not matter."""
    import pingouin

    four = ratings[ratings.groupby("pair")["rating"].transform("size") == 4]
    four = four.assign(place=four.groupby("pair").cumcount())
    table = pingouin.intraclass_corr(four, targets="pair", raters="place", ratings="rating")
    icc = table.set_index(table["Type"].str.replace(r"[(,)]", "", regex=True))["ICC"]
    found = human_ceiling(four, n_splits=1, n_resamples=0)
    assert found.n_pairs == four["pair"].nunique() > 400
    single = found.variance_pair / (found.variance_pair + found.variance_residual)
    # newer pingouins name them ICC(1,1) and ICC(1,k), older ones ICC1 and ICC1k
    assert single == pytest.approx(icc[icc.index.isin(("ICC11", "ICC1"))].iloc[0], abs=1e-9)
    assert found.reliability == pytest.approx(icc["ICC1k"], abs=1e-9)


@pytest.mark.parametrize("system", ["natural", "tango2"])
def test_mixed_model_of_statsmodels_for_unequal_numbers(ratings, system):
    agrees_with_the_mixed_model(ratings[ratings["system"] == system])


@pytest.mark.slow
def test_mixed_model_of_statsmodels_on_all_pairs(ratings):
    agrees_with_the_mixed_model(ratings)


def agrees_with_the_mixed_model(ratings):
    """REML weighs pairs by how many rated them, ANOVA all alike: two consistent estimates of the same two variances.

    At equal numbers they are one (that is the ICC above); at unequal ones they differ by far less than either moves
    from sample to sample: a quarter of the bootstrap's standard error is allowed.
    """
    from statsmodels.formula.api import mixedlm

    fit = mixedlm("rating ~ 1", ratings, groups=ratings["pair"]).fit(reml=True)
    pairs, noise = float(fit.cov_re.iloc[0, 0]), float(fit.scale)
    inverse = (1 / ratings.groupby("pair").size()).mean()
    found = human_ceiling(ratings, n_splits=1, n_resamples=500)
    error = (found.reliability_high - found.reliability_low) / (2 * 1.96)
    assert found.reliability == pytest.approx(pairs / (pairs + noise * inverse), abs=error / 4)
    assert found.variance_residual == pytest.approx(noise, rel=0.02)
