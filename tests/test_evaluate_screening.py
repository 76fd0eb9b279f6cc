"""Rules on listeners: whom they leave, and what that does to a score's SRCC and to agreement."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import spearmanr

from humanclap import relate
from humanclap.evaluate import ResamplePlan, agreement, screening_agreement, screening_rules
from humanclap.evaluate.agreement import ALL_LEFT, COMMON, EVERYBODY, NEAR, PAPERS, RELATES, SCALED

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


def left(rule: str, ratings: pd.DataFrame) -> pd.DataFrame:
    """The ratings that a rule leaves, anchors apart."""
    ratings = ratings.sort_values(KEY, ignore_index=True)
    panels = agreement._Panels.of(ratings, None)
    return ratings[~ratings["is_anchor"]].assign(rating=panels.left()[rule]).dropna(subset="rating")


# --- whom each rule leaves -----------------------------------------------------------------------------------


def test_the_papers_rule_is_screen_listeners(study):
    expected = relate.screen_listeners(study[0], 2.0).ratings.sort_values(KEY)[KEY].reset_index(drop=True)
    pd.testing.assert_frame_equal(left(PAPERS, study[0])[KEY].reset_index(drop=True), expected)
    assert len(left(EVERYBODY, study[0])) == 8 * 120


def test_relates_own_rule_on_real_ratings_is_a_threshold_on_the_anchors(real_ratings):
    found = left(RELATES, real_ratings)
    means = relate.anchor_means(real_ratings)
    matched = real_ratings[~real_ratings["is_anchor"]]
    expected = matched[matched["listener"].map(means) < matched["split"].map({"train": 2, "test": 1})]
    assert set(map(tuple, found[KEY].to_numpy())) == set(map(tuple, expected[KEY].to_numpy()))
    assert len(found) == 9963 + 7797


def test_z_scores_are_scipys_and_leave_the_anchors_out(study):
    ratings = study[0].assign(rating=study[0]["rating"].where(study[0]["listener"] != "l0", 5))
    raw = ratings[~ratings["is_anchor"]].set_index(KEY)["rating"]
    for listener, rows in left(SCALED, ratings).groupby("listener"):
        own = raw.loc[pd.MultiIndex.from_frame(rows[KEY])]
        expected = np.zeros(len(rows)) if listener == "l0" else stats.zscore(own, ddof=1)
        np.testing.assert_allclose(rows["rating"], expected, atol=1e-12)


def test_near_another_is_a_loop_over_the_ratings_of_each_pair(study):
    ratings = study[0][~study[0]["is_anchor"]].sample(500, random_state=1)
    ratings = pd.concat([ratings, study[0][study[0]["is_anchor"]]])
    expected = set()
    for _, rows in left(PAPERS, ratings).groupby(["audio", "text"]):
        for i, row in rows.iterrows():
            if (abs(rows["rating"].drop(i) - row["rating"]) <= 5).any():
                expected.add(tuple(row[KEY]))
    assert set(map(tuple, left(NEAR, ratings)[KEY].to_numpy())) == expected


def test_near_another_leaves_2389_and_2343_real_pairs(real_ratings):
    found = left(NEAR, real_ratings).drop_duplicates(["audio", "text"])["split"].value_counts()
    assert (found["train"], found["test"]) == (2389, 2343)


# --- a score, and agreement, under each rule ------------------------------------------------------------------


def test_rules_are_scipy_on_the_means_and_differences_are_from_the_first(study):
    ratings, scores = study
    table = screening_rules(ratings, scores, n_draws=5, n_resamples=60)
    found = table[table["pairs"] == ALL_LEFT].set_index("rule")
    assert found.index.tolist() == [EVERYBODY, PAPERS, SCALED, NEAR]  # no column of RELATE's own rule here
    for rule in found.index:
        means = left(rule, ratings).groupby(["audio", "text"])["rating"].mean().reset_index().merge(scores)
        expected = spearmanr(means["clap_score"], means["rating"]).statistic
        assert found.loc[rule, "value"] == pytest.approx(expected) and found.loc[rule, "n"] == len(means)
    np.testing.assert_allclose(found["difference"].iloc[1:], (found["value"] - found["value"].iloc[0]).iloc[1:])
    assert np.isnan(found["difference"].iloc[0])
    assert found["mean_raters"].iloc[:3].tolist() == [8, 4, 8]
    common = table[table["pairs"] == COMMON].set_index("rule")
    assert (common["n"] == 120).all() and (common["mean_raters"] == 2).all()
    assert common.loc[PAPERS, "low"] > common.loc[EVERYBODY, "high"]  # rater for rater, the careful ones know more


def test_intervals_of_all_pairs_left_are_a_loop_over_resamples(study):
    ratings, scores = study
    table = screening_rules(ratings, scores, n_draws=1, n_resamples=40, seed=9).set_index(["rule", "pairs"])
    means = [
        left(rule, ratings).groupby(["audio", "text"])["rating"].mean().reset_index() for rule in (EVERYBODY, PAPERS)
    ]
    pairs = means[0].merge(means[1], on=["audio", "text"]).merge(scores)
    plan = ResamplePlan.draw(pairs["text"], 40, seed=9)
    samples = []
    for resample in range(40):
        rows = pairs.iloc[plan.indices(resample)]
        both = [spearmanr(rows["clap_score"], rows[f"rating_{side}"]).statistic for side in "xy"]
        samples.append((both[1], both[1] - both[0]))
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    row = table.loc[(PAPERS, ALL_LEFT)]
    assert (row["low"], row["high"]) == pytest.approx((low[0], high[0]))
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((low[1], high[1]))


def test_the_order_of_the_rows_changes_nothing(study):
    ratings, scores = study
    shuffled = ratings.sample(frac=1, random_state=0), scores.sample(frac=1, random_state=1)
    first, second = (screening_agreement(t, n_splits=3, n_resamples=20) for t in (ratings, shuffled[0]))
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-12)
    first, second = (screening_rules(*t, n_draws=5, n_resamples=20) for t in (study, shuffled))
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-12)


def test_two_raters_per_pair_are_one_against_the_other(study):
    two = study[0][study[0]["listener"].isin(["l0", "l1"])]
    found = screening_agreement(two, n_splits=3, n_resamples=30).set_index(["rule", "pairs"]).loc[(EVERYBODY, ALL_LEFT)]
    single = two[~two["is_anchor"]].pivot(index=["audio", "text"], columns="listener", values="rating")
    # which of the two is set aside is drawn pair by pair, and the SRCC of the two hardly moves with it
    assert found["value"] == pytest.approx(spearmanr(single["l0"], single["l1"]).statistic, abs=0.03)
    assert found["low"] < found["value"] < found["high"] and found["mean_raters"] == 1


def test_a_rule_within_pairs_does_not_see_the_raters_that_are_set_aside():
    """Noise alone: ratings chosen for being near the yardstick would agree with it, and these do not."""
    rng = np.random.default_rng(0)
    rows = [
        (f"{i}.wav", f"caption {i}", int(rng.integers(0, 11)), f"l{j}", False) for i in range(2000) for j in range(4)
    ]
    rows += [("a.wav", "wrong", 0, f"l{j}", True) for j in range(4)]
    ratings = pd.DataFrame(rows, columns=["audio", "text", "rating", "listener", "is_anchor"]).assign(split="test")
    found = screening_agreement(ratings, n_splits=10, n_resamples=10)
    assert found["value"].max() < 0.05


def test_chosen_pairs_and_where_too_few_are_left(study):
    ratings, scores = study
    wanted = ratings[~ratings["is_anchor"]].drop_duplicates(["audio", "text"]).iloc[:30]
    found = screening_agreement(ratings, wanted, n_splits=2, n_resamples=10).set_index(["rule", "pairs"])
    assert found.loc[(EVERYBODY, ALL_LEFT), "n"] == 30
    failed = ratings.assign(rating=ratings["rating"].where(~ratings["is_anchor"], 9))
    rows = screening_agreement(failed, n_splits=2, n_resamples=10).query("rule == @PAPERS")
    assert rows[["value", "low", "high"]].isna().all(axis=None)
    assert (rows["note"] == "the paper's rule; fewer than 4 pairs").all()
    with pytest.raises(ValueError, match="no ratings of these pairs"):
        screening_agreement(ratings, pd.DataFrame({"audio": ["x"], "text": ["y"]}))
    with pytest.raises(ValueError, match="120 pairs are scored twice"):
        screening_rules(ratings, pd.concat([scores, scores]))


def test_on_real_ratings_the_papers_rule_helps_only_rater_for_rater(real_ratings):
    pairs = real_ratings[real_ratings["split"] == "test"][["audio", "text"]].drop_duplicates()
    table = screening_agreement(real_ratings, pairs=pairs, n_splits=20, n_resamples=200)
    assert list(dict.fromkeys(table["rule"])) == [EVERYBODY, PAPERS, RELATES, SCALED, NEAR]
    paper = table.set_index(["rule", "pairs"]).loc[PAPERS]
    assert paper.loc[COMMON, "difference_low"] > 0  # rater for rater, those who stay know more
    assert abs(paper.loc[ALL_LEFT, "difference"]) < 0.02  # and there are fewer of them
