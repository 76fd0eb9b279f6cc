"""Rules on listeners: whom they leave, and what that does to a score's SRCC and to agreement."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import spearmanr

from humanclap import relate
from humanclap.evaluate import (
    ResamplePlan,
    anchor_rule,
    near_another,
    no_screening,
    relate_rule,
    screening_agreement,
    screening_rules,
    z_scores,
)
from humanclap.evaluate.screening import ALL_LEFT, COMMON

KEY = ["audio", "text", "listener"]


@pytest.fixture(scope="module")
def study():
    """40 captions × 3 clips, 8 raters per pair; half of the listeners rate at random and fail their anchors."""
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
        rows += [(f"tango/train/{k}.wav", "wrong", 6 if careless else 0, f"l{number}", True) for k in range(3)]
    ratings = pd.DataFrame(rows, columns=["audio", "text", "rating", "listener", "is_anchor"])
    ratings["system"] = ratings["audio"].str.split("/").str[0].replace("audiocaps", "natural")
    ratings["split"] = ratings["audio"].str.split("/").str[1]
    scores = [(*pair, value + rng.normal(0, 1)) for pair, value in truth.items()]
    return ratings, pd.DataFrame(scores, columns=["audio", "text", "clap_score"])


def left(rule, ratings) -> pd.DataFrame:
    """The ratings that a rule leaves, anchors apart."""
    pair = ratings.groupby(["audio", "text"]).ngroup().to_numpy()
    judged = np.where(ratings["is_anchor"], np.nan, rule.judge(ratings))
    return ratings.assign(rating=rule.within_pair(pair, judged)).dropna(subset="rating")


# --- whom each rule leaves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0, 2, 10])
def test_anchor_rule_is_screen_listeners(study, threshold):
    found = left(anchor_rule(threshold), study[0])
    pd.testing.assert_frame_equal(
        found[KEY].reset_index(drop=True),
        relate.screen_listeners(study[0], threshold).ratings[KEY].reset_index(drop=True),
    )
    assert len(left(no_screening(), study[0])) == 8 * 120


def test_relates_own_rule_on_real_ratings_is_a_threshold_on_the_anchors(real_ratings):
    found = left(relate_rule(), real_ratings)
    means = relate.anchor_means(real_ratings)
    matched = real_ratings[~real_ratings["is_anchor"]]
    expected = matched[matched["listener"].map(means) < matched["split"].map({"train": 2, "test": 1})]
    assert set(map(tuple, found[KEY].to_numpy())) == set(map(tuple, expected[KEY].to_numpy()))
    assert len(found) == 9963 + 7797
    with pytest.raises(ValueError, match='no "in RELATE dataset"'):
        relate_rule().judge(real_ratings.assign(relate_split=""))


def test_z_scores_are_scipys_and_leave_the_anchors_out(study):
    ratings = study[0].assign(rating=study[0]["rating"].where(study[0]["listener"] != "l0", 5))
    for listener, rows in left(z_scores(), ratings).groupby("listener"):
        raw = ratings.loc[rows.index, "rating"]
        expected = np.zeros(len(rows)) if listener == "l0" else stats.zscore(raw, ddof=1)
        np.testing.assert_allclose(rows["rating"], expected, atol=1e-12)


def test_near_another_is_a_loop_over_the_ratings_of_each_pair(study):
    ratings = study[0].sample(500, random_state=1)
    ratings = pd.concat([ratings, study[0][study[0]["is_anchor"]]]).drop_duplicates(KEY)
    kept = left(anchor_rule(10), ratings)
    expected = []
    for _, rows in kept.groupby(["audio", "text"]):
        for i, value in rows["rating"].items():
            if (abs(rows["rating"].drop(i) - value) <= 3).any():
                expected.append(i)
    assert sorted(left(near_another(3, max_anchor_mean=10), ratings).index) == sorted(expected)


def test_near_another_leaves_2389_and_2343_real_pairs(real_ratings):
    found = left(near_another(), real_ratings).drop_duplicates(["audio", "text"])["split"].value_counts()
    assert (found["train"], found["test"]) == (2389, 2343)


# --- a score under each rule ----------------------------------------------------------------------------------


def test_rules_are_scipy_on_the_means_and_differences_are_from_the_first(study):
    ratings, scores = study
    rules = [no_screening(), anchor_rule(2), z_scores(), near_another()]
    table = screening_rules(ratings, scores, rules, n_raters=4, n_draws=5, n_resamples=60)
    assert " ".join(table.columns) == (
        "rule max_anchor_mean pairs value low high n mean_raters difference difference_low difference_high note"
    )
    found = table[table["pairs"] == ALL_LEFT].set_index("rule")
    for rule in rules:
        means = left(rule, ratings).groupby(["audio", "text"])["rating"].mean().reset_index().merge(scores)
        expected = spearmanr(means["clap_score"], means["rating"]).statistic
        assert found.loc[rule.name, "value"] == pytest.approx(expected) and found.loc[rule.name, "n"] == len(means)
    np.testing.assert_allclose(found["difference"].iloc[1:], (found["value"] - found["value"].iloc[0]).iloc[1:])
    assert np.isnan(found["difference"].iloc[0])
    assert found["mean_raters"].iloc[:3].tolist() == [8, 4, 8]


def test_with_equal_raters_removing_careless_people_helps_by_itself(study):
    table = screening_rules(*study, [anchor_rule(2), anchor_rule(10)], n_raters=2, n_draws=50, n_resamples=100)
    common = table[table["pairs"] == COMMON].reset_index(drop=True)
    assert common.loc[0, "low"] > common.loc[1, "high"] and (common["n"] == 120).all()


def test_intervals_of_all_pairs_left_are_a_loop_over_resamples(study):
    ratings, scores = study
    rules = [no_screening(), anchor_rule(2)]
    table = screening_rules(ratings, scores, rules, n_draws=1, n_resamples=40, seed=9).set_index(["rule", "pairs"])
    means = [left(rule, ratings).groupby(["audio", "text"])["rating"].mean().reset_index() for rule in rules]
    pairs = means[0].merge(means[1], on=["audio", "text"]).merge(scores)
    plan = ResamplePlan.draw(pairs["text"], 40, seed=9)
    samples = []
    for resample in range(40):
        rows = pairs.iloc[plan.indices(resample)]
        both = [spearmanr(rows["clap_score"], rows[f"rating_{side}"]).statistic for side in "xy"]
        samples.append((both[1], both[1] - both[0]))
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    row = table.loc[("anchor mean <= 2", ALL_LEFT)]
    assert (row["low"], row["high"]) == pytest.approx((low[0], high[0]))
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((low[1], high[1]))


@pytest.mark.parametrize("agreement", [False, True])
def test_the_order_of_the_rows_changes_nothing(study, agreement):
    ratings, scores = study
    shuffled = ratings.sample(frac=1, random_state=0), scores.sample(frac=1, random_state=1)
    rules = [no_screening(), anchor_rule(2), near_another()]
    if agreement:
        first, second = (screening_agreement(t, rules, n_splits=3, n_resamples=20) for t in (ratings, shuffled[0]))
    else:
        first, second = (screening_rules(*t, rules, n_draws=5, n_resamples=20) for t in (study, shuffled))
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-12)


# --- agreement under each rule --------------------------------------------------------------------------------


def test_two_raters_per_pair_are_one_against_the_other(study):
    two = study[0][study[0]["listener"].isin(["l0", "l1"])]
    found = screening_agreement(two, [no_screening()], n_raters=1, n_splits=3, n_resamples=30)
    single = two[~two["is_anchor"]].pivot(index=["audio", "text"], columns="listener", values="rating")
    # which of the two is set aside is drawn pair by pair, and the SRCC of the two hardly moves with it
    expected = spearmanr(single["l0"], single["l1"]).statistic
    assert found["value"].to_numpy() == pytest.approx([expected] * 2, abs=0.03)
    assert (found["low"] < found["value"]).all() and (found["value"] < found["high"]).all()
    assert (found["mean_raters"] == 1).all()


def test_a_rule_within_pairs_does_not_see_the_raters_that_are_set_aside():
    """Noise alone: ratings chosen for being near the yardstick would agree with it, and these do not."""
    rng = np.random.default_rng(0)
    rows = [
        (f"{i}.wav", f"caption {i}", int(rng.integers(0, 11)), f"l{j}", False) for i in range(2000) for j in range(4)
    ]
    rows += [("a.wav", "wrong", 0, f"l{j}", True) for j in range(4)]
    ratings = pd.DataFrame(rows, columns=["audio", "text", "rating", "listener", "is_anchor"]).assign(split="test")
    found = screening_agreement(ratings, [no_screening(), near_another(2)], n_raters=1, n_splits=10, n_resamples=10)
    assert found["value"].max() < 0.05


def test_agreement_on_chosen_pairs_and_where_too_few_are_left(study):
    ratings, _ = study
    wanted = ratings[~ratings["is_anchor"]].drop_duplicates(["audio", "text"]).iloc[:30]
    found = screening_agreement(ratings, [no_screening()], wanted, n_splits=2, n_resamples=10)
    assert (found["n"] == 30).all()
    few = screening_agreement(ratings, [no_screening()], wanted, n_raters=5, n_splits=2, n_resamples=10)
    row = few.set_index("pairs").loc[COMMON]
    assert row["n"] == 0 and row[["value", "low", "high"]].isna().all() and row["note"] == "fewer than 4 pairs"
    failed = ratings.assign(rating=ratings["rating"].where(~ratings["is_anchor"], 9))
    rows = screening_agreement(failed, [no_screening(), anchor_rule(2)], n_splits=2, n_resamples=10).iloc[2:]
    assert rows["value"].isna().all() and (rows["note"] == "the paper's rule; fewer than 4 pairs").all()


def test_bad_input_to_the_rules_is_named(study):
    ratings, scores = study
    with pytest.raises(ValueError, match="rules must be at least one"):
        screening_agreement(ratings, [])
    with pytest.raises(ValueError, match="each with a name of its own"):
        screening_rules(ratings, scores, [anchor_rule(2), anchor_rule(2.0)])
    with pytest.raises(ValueError, match="no ratings of these pairs"):
        screening_agreement(ratings, [no_screening()], pd.DataFrame({"audio": ["x"], "text": ["y"]}))
    with pytest.raises(ValueError, match="clap_score holds 120 NaN"):
        screening_rules(ratings, scores.assign(clap_score=np.nan))
    with pytest.raises(ValueError, match="120 pairs are scored twice"):
        screening_rules(ratings, pd.concat([scores, scores]))
    with pytest.raises(ValueError, match="n_splits must be a whole number"):
        screening_agreement(ratings, n_splits=0)


def test_on_real_ratings_the_papers_rule_helps_only_rater_for_rater(real_ratings):
    pairs = real_ratings[real_ratings["split"] == "test"][["audio", "text"]].drop_duplicates()
    table = screening_agreement(real_ratings, pairs=pairs, n_splits=20, n_resamples=200)
    assert list(dict.fromkeys(table["rule"])) == [
        "no screening", "anchor mean <= 2", "RELATE's own", "z-scored", "another within 5"
    ]  # fmt: skip
    found = table.set_index(["rule", "pairs"])
    paper = found.loc["anchor mean <= 2"]
    assert paper.loc[COMMON, "difference_low"] > 0  # rater for rater, those who stay know more
    assert abs(paper.loc[ALL_LEFT, "difference"]) < 0.02  # and there are fewer of them
