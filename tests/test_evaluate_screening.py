"""SRCC against the screening threshold: all pairs left, and common pairs with equal raters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from humanclap import relate
from humanclap.evaluate.screening import ALL_LEFT, COMMON, screening_effect


@pytest.fixture(scope="module")
def study():
    """40 captions × 3 clips, 8 raters a pair; half of the listeners rate at random and fail their anchors."""
    rng = np.random.default_rng(3)
    truth = {
        (f"{folder}/test/{i}.wav", f"caption {i}"): rng.uniform(0, 10)
        for i in range(40)
        for folder in ("audiocaps", "tango", "tango2")
    }
    rows = []
    for number in range(8):
        careless = number >= 4
        for (audio, text), value in truth.items():
            rating = rng.integers(0, 11) if careless else np.clip(round(value + rng.normal(0, 1)), 0, 10)
            rows.append((audio, text, int(rating), f"l{number}", False))
        rows += [
            (f"tango/train/{k}.wav", "wrong", 6 if careless else 0, f"l{number}", True) for k in range(3)
        ]
    ratings = pd.DataFrame(rows, columns=["audio", "text", "rating", "listener", "is_anchor"])
    ratings["system"] = ratings["audio"].str.split("/").str[0].replace("audiocaps", "natural")
    ratings["split"] = ratings["audio"].str.split("/").str[1]
    scores = pd.DataFrame(
        [(*pair, value + rng.normal(0, 1)) for pair, value in truth.items()],
        columns=["audio", "text", "clap_score"],
    )
    return ratings, scores


def test_all_pairs_left_is_scipy_on_the_means_that_the_screening_leaves(study):
    ratings, scores = study
    table = screening_effect(ratings, scores, (2, 10), n_draws=10, n_resamples=100)
    for threshold in (2, 10):
        means = relate.aggregate_pairs(relate.screen_listeners(ratings, threshold).ratings).merge(scores)
        row = table[(table["max_anchor_mean"] == threshold) & (table["pairs"] == ALL_LEFT)].iloc[0]
        assert row["value"] == pytest.approx(spearmanr(means["clap_score"], means["mean_rating"]).statistic)
        assert row["low"] < row["value"] < row["high"] and row["n"] == 120


def test_with_equal_raters_removing_careless_people_helps_by_itself(study):
    ratings, scores = study
    table = screening_effect(ratings, scores, (2, 10), n_raters=2, n_draws=50, n_resamples=100)
    common = table[table["pairs"] == COMMON].set_index("max_anchor_mean")
    assert common.loc[2, "low"] > common.loc[10, "high"]
    assert (common["n"] == 120).all()


def test_taking_every_rater_leaves_nothing_to_draw(study):
    ratings, scores = study
    table = screening_effect(ratings, scores, (10,), n_raters=8, n_draws=5, n_resamples=100)
    values = table.set_index("pairs")["value"]
    assert values[COMMON] == pytest.approx(values[ALL_LEFT])


def test_a_threshold_that_nothing_passes_is_told_apart_from_a_wrong_call(study):
    ratings, scores = study
    with pytest.raises(ValueError, match="0 pairs have 5 ratings at every threshold"):
        screening_effect(ratings, scores, (2, 10), n_raters=5)
    with pytest.raises(ValueError, match="scored twice"):
        screening_effect(ratings, pd.concat([scores, scores]), (2,))
    with pytest.raises(ValueError, match="no thresholds"):
        screening_effect(ratings, scores, ())
    with pytest.raises(ValueError, match="n_raters must be a whole number of at least 1, not 0"):
        screening_effect(ratings, scores, (2,), n_raters=0)
    with pytest.raises(ValueError, match="n_draws must be a whole number"):
        screening_effect(ratings, scores, (2,), n_draws=2.5)
    with pytest.raises(ValueError, match="seed='a'"):
        screening_effect(ratings, scores, (2,), seed="a")
    with pytest.raises(ValueError, match="scores has no column clap_score"):
        screening_effect(ratings, scores.drop(columns="clap_score"), (2,))


def test_the_order_of_the_rows_changes_nothing(study):
    ratings, scores = study
    first = screening_effect(ratings, scores, (2, 10), n_draws=10, n_resamples=40)
    second = screening_effect(
        ratings.sample(frac=1, random_state=0), scores.sample(frac=1, random_state=1), (2, 10), n_draws=10,
        n_resamples=40,
    )
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-12)
