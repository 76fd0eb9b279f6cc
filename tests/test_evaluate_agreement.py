"""Agreement of listeners: known reliability in simulation, an independent ICC, the published ratings."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from humanclap import relate
from humanclap.evaluate import ceiling_table, human_ceiling, listener_habits


def simulate(raters, sd_pair, sd_rating, seed=0, per_caption=3) -> tuple[pd.DataFrame, np.ndarray]:
    """Synthetic ratings (not rounded) of pairs with `raters` ratings each, and the pairs' true values."""
    rng = np.random.default_rng(seed)
    pair = np.repeat(np.arange(len(raters)), raters)
    truth = sd_pair * rng.normal(size=len(raters))
    rating = 5 + truth[pair] + sd_rating * rng.normal(size=len(pair))
    ratings = pd.DataFrame(
        {"audio": [f"{p}.wav" for p in pair], "text": [f"caption {p // per_caption}" for p in pair], "rating": rating}
    )
    return ratings.sample(frac=1, random_state=seed), truth


def test_equal_raters_give_icc_1k_by_hand():
    table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7.0]])
    ratings = pd.DataFrame(
        [(f"{i}.wav", f"text {i}", value) for i, row in enumerate(table) for value in row],
        columns=["audio", "text", "rating"],
    )
    between = 4 * table.mean(axis=1).var(ddof=1)
    within = table.var(axis=1, ddof=1).mean()
    found = human_ceiling(ratings, n_resamples=50)
    assert found.reliability == pytest.approx((between - within) / between)  # Shrout and Fleiss: ICC(1, 4) = 0.44
    assert found.reliability == pytest.approx(0.44, abs=0.005)
    assert found.variance_residual == pytest.approx(within)
    assert found.variance_pair == pytest.approx((between - within) / 4)
    assert found.lcc_ceiling == pytest.approx(math.sqrt(found.reliability))
    assert (found.n_pairs, found.n_ratings, found.mean_raters, found.share_single) == (6, 24, 4, 0)


def test_unequal_numbers_by_the_textbook():
    groups = [[3], [7, 9], [0, 1, 4, 2, 2], [5, 8, 9]]
    rows = [(f"{i}.wav", f"text {i}", value) for i, group in enumerate(groups) for value in group]
    found = human_ceiling(pd.DataFrame(rows, columns=["audio", "text", "rating"]), n_resamples=0)
    noise = sum(((np.array(group) - np.mean(group)) ** 2).sum() for group in groups) / (11 - 4)
    n0 = (11 - (1 + 4 + 25 + 9) / 11) / 3
    assert found.variance_residual == pytest.approx(noise)
    assert found.variance_pair == pytest.approx((stats.f_oneway(*groups).statistic - 1) * noise / n0)


def test_ceiling_is_what_a_perfect_predictor_reaches():
    raters = np.random.default_rng(1).integers(1, 9, size=60_000)
    ratings, truth = simulate(raters, sd_pair=2, sd_rating=2.5)
    found = human_ceiling(ratings, n_splits=2, n_resamples=0)
    assert found.variance_pair == pytest.approx(4, rel=0.03)
    assert found.variance_residual == pytest.approx(6.25, rel=0.03)
    assert found.reliability == pytest.approx(4 / (4 + 6.25 * np.mean(1 / raters)), abs=0.005)
    means = ratings.groupby("audio")["rating"].mean().loc[[f"{p}.wav" for p in range(len(raters))]]
    assert found.lcc_ceiling == pytest.approx(stats.pearsonr(truth, means).statistic, abs=0.005)
    assert math.isnan(found.reliability_low)


def test_split_half_uses_pairs_with_two_ratings_only():
    raters = np.array([1, 1, 2, 3, 4, 5, 1, 2, 2, 7])
    ratings, _ = simulate(raters, 1, 0.0)  # no noise: halves agree exactly, however they are dealt
    found = human_ceiling(ratings, n_splits=20, n_resamples=30)
    assert found.split_half_srcc == pytest.approx(1)
    assert found.n_split_half_pairs == 7
    assert found.share_single == pytest.approx(0.3)
    assert found.reliability == pytest.approx(1)


def test_bootstrap_equals_a_loop_over_ratings_written_out():
    raters = np.random.default_rng(3).integers(1, 5, size=30)
    ratings, _ = simulate(raters, 2, 2)
    found = human_ceiling(ratings, n_splits=3, n_resamples=40, seed=6)
    from humanclap.evaluate import ResamplePlan

    pairs = ratings.drop_duplicates(["audio", "text"])[["audio", "text"]].reset_index(drop=True)
    plan = ResamplePlan.draw(pairs["text"], n_resamples=40, seed=6)
    by_pair = {pair: rows for pair, rows in ratings.groupby(["audio", "text"])}
    samples = []
    for resample in range(40):
        copies = [
            by_pair[tuple(pairs.loc[row])].assign(audio=f"copy {copy}")
            for copy, row in enumerate(plan.indices(resample))
        ]
        samples.append(human_ceiling(pd.concat(copies), n_splits=1, n_resamples=0).reliability)
    assert (found.reliability_low, found.reliability_high) == pytest.approx(np.percentile(samples, [2.5, 97.5]))


def test_the_order_of_the_rows_changes_nothing():
    raters = np.random.default_rng(4).integers(1, 6, size=60)
    ratings, _ = simulate(raters, 2, 2)
    ratings["rating"] = ratings["rating"].round().clip(0, 10)
    ratings["listener"] = [f"l{row}" for row in range(len(ratings))]
    ratings["system"] = np.where(ratings["audio"].str[0] < "4", "natural", "tango")
    tables = [
        ceiling_table(rows, n_splits=15, n_resamples=40)
        for rows in (ratings, ratings.sample(frac=1, random_state=5), ratings[::-1])
    ]
    assert np.isfinite(tables[0].loc[0, "split_half_low"])
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=0, atol=1e-12)


def test_what_has_no_reliability_or_no_interval():
    ratings = pd.DataFrame({"audio": list("aabbcc"), "text": list("xxyyzz"), "rating": [0, 10, 10, 0, 1, 9.0]})
    found = human_ceiling(ratings, n_resamples=20)  # a negative variance of the pairs is set to 0
    assert (found.variance_pair, found.reliability, found.lcc_ceiling) == (0, 0, 0)
    found = human_ceiling(ratings.assign(rating=5), n_resamples=20)
    assert np.isnan([found.reliability, found.split_half_srcc, found.reliability_low]).all()
    found = human_ceiling(ratings.assign(text="x", rating=[1, 2, 4, 5, 8, 9]))  # one caption
    assert found.reliability > 0.9 and math.isnan(found.reliability_low)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.assign(is_anchor="False"), "is_anchor holds 'False'; allowed: True and False"),
        (lambda r: r.assign(is_anchor=[True] + [False] * 5), "1 ratings are of anchors.*screen_listeners"),
        (lambda r: r.iloc[:2], "1 pairs are too few"),
        (lambda r: r.drop_duplicates("audio"), "none of the 3 pairs has 2 ratings"),
        (lambda r: r.assign(rating=[1, 2, 3, 4, np.nan, 5]), "rating holds 1 NaN"),
        (lambda r: r.assign(listener="7"), "listener '7' rated a.wav with 'x' twice"),
        (lambda r: r.assign(text=[None, *"xyyzz"]), "rows have no text"),
    ],
)
def test_bad_ratings_are_named(change, message):
    ratings = pd.DataFrame(
        {
            "audio": ["a.wav", "a.wav", "b.wav", "b.wav", "c.wav", "c.wav"],
            "text": list("xxyyzz"),
            "rating": [1, 2, 5, 6, 8, 9],
            "is_anchor": False,
        }
    )
    with pytest.raises(ValueError, match=message):
        human_ceiling(change(ratings))


def test_listener_habits_by_hand():
    ratings = pd.DataFrame(
        {
            "audio": ["a", "a", "a", "b", "b", "c"],
            "text": "x",
            "listener": ["1", "2", "3", "1", "2", "3"],
            "rating": [10, 4, 2, 8, 7, 5],
        }
    )
    found = listener_habits(ratings).set_index("listener")
    assert found.loc["1", "offset"] == pytest.approx(((10 - 3) + (8 - 7)) / 2)
    assert found.loc["3", "offset"] == pytest.approx(2 - 7)
    assert found.loc["3", "n_shared"] == 1
    assert found.loc["3", "n_ratings"] == 2
    assert found.loc["1", "share_labelled"] == 1
    assert found.loc["2", "share_labelled"] == 0
    assert found.loc["1", "spread"] == pytest.approx(np.std([10, 8], ddof=1))
    pd.testing.assert_frame_equal(
        listener_habits(ratings.sample(frac=1, random_state=0)), listener_habits(ratings), rtol=0, atol=1e-12
    )


@pytest.fixture(scope="module")
def real_test_ratings(real_ratings):
    kept = relate.screen_listeners(real_ratings, max_anchor_mean=2.0).ratings
    return kept[kept["split"] == "test"]


def test_real_ceilings(real_test_ratings):
    found = ceiling_table(real_test_ratings, n_splits=20, n_resamples=200).set_index("subset")
    assert found.loc["all", "reliability"] == pytest.approx(0.64, abs=0.01)
    ceilings = {"all": 0.80, "natural": 0.73, "audioldm": 0.77, "audioldm2": 0.80, "tango": 0.74, "tango2": 0.65}
    for subset, ceiling in ceilings.items():
        row = found.loc[subset]
        assert row["lcc_ceiling"] == pytest.approx(ceiling, abs=0.005)
        assert row["lcc_ceiling_low"] < row["lcc_ceiling"] < row["lcc_ceiling_high"]
    everything = found.loc["all"]
    assert everything["n_pairs"] == 2892
    assert everything["n_ratings"] == 9903
    assert everything["share_single"] == pytest.approx(0.16, abs=0.005)
    assert everything["split_half_srcc"] == pytest.approx(0.55, abs=0.015)
    assert everything["split_half_low"] < everything["split_half_srcc"] < everything["split_half_high"]


@pytest.mark.extra("dev")
def test_icc_of_pingouin_on_pairs_with_four_raters(real_test_ratings):
    """ICC(1, 1) and ICC(1, k): every pair has its own listeners, so who is called first, second … must not matter."""
    import pingouin

    ratings = real_test_ratings.assign(pair=real_test_ratings["audio"] + "|" + real_test_ratings["text"])
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
