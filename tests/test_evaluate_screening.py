"""Rules on listeners: what they do to a score's SRCC and to agreement, with all that is left and rater for rater."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from humanclap import relate
from humanclap.evaluate import ResamplePlan, human_ceiling, rules
from humanclap.evaluate.screening import (
    ALL_LEFT,
    COMMON,
    HALVES,
    OTHERS,
    screening_agreement,
    screening_effect,
    screening_rules,
)


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
    with pytest.raises(ValueError, match="0 pairs have 5 ratings under every rule"):
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


def by_scipy(scores, left) -> float:
    """SRCC of a score with weighted means, pair by pair."""
    means = [
        (*pair, np.average(rows["rating"], weights=rows["weight"])) for pair, rows in left.groupby(["audio", "text"])
    ]
    means = pd.DataFrame(means, columns=["audio", "text", "mean"]).merge(scores, on=["audio", "text"])
    return spearmanr(means["clap_score"], means["mean"]).statistic


def test_rules_are_scipy_on_weighted_means_and_differences_are_from_the_first(study):
    ratings, scores = study
    listed = [rules.no_screening(), rules.anchor_rule(2), rules.z_scores(), rules.agreement_weights()]
    table = screening_rules(ratings, scores, listed, n_raters=8 // 2, n_draws=5, n_resamples=60)
    assert list(table.columns) == [
        "rule", "max_anchor_mean", "pairs", "value", "low", "high", "n", "mean_raters", "difference", "difference_low",
        "difference_high", "note",
    ]
    left = table[table["pairs"] == ALL_LEFT].set_index("rule")
    for rule in listed:
        assert left.loc[rule.name, "value"] == pytest.approx(by_scipy(scores, rule.judge(ratings)))
    gains = left["value"] - left["value"].iloc[0]
    np.testing.assert_allclose(left["difference"].iloc[1:], gains.iloc[1:])
    assert np.isnan(left["difference"].iloc[0])
    assert (left["difference_low"].iloc[1:] > 0).all()  # half of the listeners are careless: every rule helps
    assert left["mean_raters"].tolist() == [8, 4, 8, 8]
    common = table[table["pairs"] == COMMON].set_index("rule")
    assert (common["mean_raters"] == 4).all()
    assert common.loc["anchor mean <= 2", "value"] == pytest.approx(left.loc["anchor mean <= 2", "value"])


def test_intervals_of_all_pairs_left_are_a_loop_over_resamples(study):
    ratings, scores = study
    listed = [rules.no_screening(), rules.anchor_rule(2)]
    table = screening_rules(ratings, scores, listed, n_draws=1, n_resamples=40, seed=9).set_index(["rule", "pairs"])
    means = [rule.judge(ratings).groupby(["audio", "text"])["rating"].mean().reset_index() for rule in listed]
    pairs = means[0].merge(means[1], on=["audio", "text"]).merge(scores)
    plan = ResamplePlan.draw(pairs["text"], len(pairs), 40, seed=9)
    samples = []
    for resample in range(40):
        rows = pairs.iloc[plan.indices(resample)]
        both = [spearmanr(rows["clap_score"], rows[f"rating_{side}"]).statistic for side in "xy"]
        samples.append((both[1], both[1] - both[0]))
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    row = table.loc[("anchor mean <= 2", ALL_LEFT)]
    assert (row["low"], row["high"]) == pytest.approx((low[0], high[0]))
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((low[1], high[1]))


def panel_study(seed, spread, n_captions=240, per=4) -> pd.DataFrame:
    """Captions × 3 clips, `per` of many listeners each, 6 captions a listener; error SD 2 · exp(spread · z)."""
    rng = np.random.default_rng(seed)
    n_listeners = n_captions * per // 6
    error = 2.0 * np.exp(spread * rng.normal(size=n_listeners))
    who = np.concatenate([rng.permutation(n_listeners) for _ in range(6)]).reshape(n_captions, per)
    rows = [
        (f"{folder}/test/{caption}.wav", f"caption {caption}", value + error[listener] * rng.normal(), f"l{listener}")
        for caption in range(n_captions)
        for folder, value in zip(("audiocaps", "tango", "tango2"), rng.normal(5, 1.5, size=3), strict=True)
        for listener in np.unique(who[caption])
    ]
    table = pd.DataFrame(rows, columns=["audio", "text", "rating", "listener"])
    return table.assign(rating=table["rating"].clip(0, 10).round(), is_anchor=False)


RATING = ["audio", "text", "listener"]
WEIGHED = "weighted by agreement"
CIRCULAR = "weighted by agreement (circular)"


@pytest.fixture(scope="module")
def gains():
    """Mean gain over no screening in 4 simulated studies, where listeners are all alike and where they differ."""
    listed = [rules.no_screening(), rules.agreement_weights(), rules.agreement_weights(cross_fit=False)]
    found = {}
    for spread in (0.0, 0.6):
        tables = [
            screening_agreement(panel_study(seed, spread), listed, n_splits=5, n_resamples=2) for seed in range(4)
        ]
        key = ["rule", "measure", "pairs"]
        found[spread] = pd.concat([table.set_index(key)["difference"] for table in tables], axis=1).mean(axis=1)
    return found


@pytest.mark.parametrize("measure", [HALVES, OTHERS])
def test_judging_agreement_by_what_it_used_is_optimistic_and_cross_fitting_is_not(gains, measure):
    """Listeners who are all alike can't be told apart: a gain from weighing them is made up."""
    alike, different = gains[0.0], gains[0.6]
    assert alike[CIRCULAR, measure, ALL_LEFT] > 0.01
    assert alike[WEIGHED, measure, ALL_LEFT] < 0.003
    assert different[WEIGHED, measure, ALL_LEFT] > 0.01  # where they do differ, weighing them helps
    assert different[CIRCULAR, measure, ALL_LEFT] > different[WEIGHED, measure, ALL_LEFT]


def test_cross_fitted_weights_cost_what_weights_that_know_nothing_cost(gains):
    """Among people who are all alike any weights lose a little; those from pure noise lose it without any doubt."""
    key = ["rule", "measure", "pairs"]
    lost = []
    for seed in range(4):
        ratings = panel_study(seed, 0.0)
        noise = ratings.assign(rating=np.random.default_rng(seed + 100).normal(5, 2, size=len(ratings)))
        weight = rules.agreement_weights().judge(noise).set_index(RATING)["weight"]
        blind = rules.Rule("noise", lambda table, weight=weight: _weighed(table, weight))
        found = screening_agreement(ratings, [rules.no_screening(), blind], n_splits=5, n_resamples=2)
        lost.append(found.set_index(key)["difference"])
    lost = pd.concat(lost, axis=1).mean(axis=1)
    for measure in (HALVES, OTHERS):
        cost = lost["noise", measure, ALL_LEFT]
        assert gains[0.0][WEIGHED, measure, ALL_LEFT] == pytest.approx(cost, abs=0.015)
        assert gains[0.0][CIRCULAR, measure, ALL_LEFT] - cost > 0.015


def _weighed(table, weight) -> pd.DataFrame:
    """All ratings, each with the weight that stands under its pair and listener."""
    left = rules.no_screening().judge(table)
    return left.assign(weight=weight.loc[pd.MultiIndex.from_frame(left[RATING])].to_numpy())


def test_halves_without_a_rule_are_human_ceilings_split_half(study):
    ratings, _ = study
    found = screening_agreement(ratings, [rules.no_screening()], n_splits=60, n_resamples=2, n_raters=4)
    row = found.set_index(["measure", "pairs"])
    ceiling = human_ceiling(ratings[~ratings["is_anchor"]], n_splits=60, n_resamples=0)
    error = ceiling.split_half_sd * np.sqrt(2 / 60)
    for way in (ALL_LEFT, COMMON):  # 8 raters: 4 + 4 drawn are all of them
        assert row.loc[(HALVES, way), "value"] == pytest.approx(ceiling.split_half_srcc, abs=4 * error)
        assert row.loc[(HALVES, way), ["n", "mean_raters"]].tolist() == [120, 4]
    assert row.loc[(OTHERS, ALL_LEFT), "value"] == pytest.approx(ceiling.split_half_srcc, abs=4 * error)


def test_two_raters_a_pair_are_one_against_the_other(study):
    ratings, _ = study
    two = ratings[ratings["listener"].isin(["l0", "l1"])]
    found = screening_agreement(two, [rules.no_screening()], n_raters=1, n_splits=3, n_resamples=30)
    single = two[~two["is_anchor"]].pivot(index=["audio", "text"], columns="listener", values="rating")
    # which of the two stands first is drawn pair by pair, and the SRCC of the two hardly moves with it
    expected = spearmanr(single["l0"], single["l1"]).statistic
    assert found["value"].to_numpy() == pytest.approx([expected] * 4, abs=0.03)
    assert (found["low"] < found["value"]).all() and (found["value"] < found["high"]).all()


def test_a_gain_in_agreement_and_a_gain_for_people_at_large_are_told_apart(study):
    """Careful people agree with each other much better, and with everybody a little better."""
    ratings, _ = study
    found = screening_agreement(ratings, [rules.no_screening(), rules.anchor_rule(2)], n_splits=10, n_resamples=60)
    gain = found[found["rule"] == "anchor mean <= 2"].set_index(["measure", "pairs"])
    assert gain.loc[(HALVES, ALL_LEFT), "difference_low"] > gain.loc[(OTHERS, ALL_LEFT), "difference_high"]
    assert gain.loc[(OTHERS, COMMON), "difference_low"] > 0


def test_agreement_on_chosen_pairs_and_where_too_few_are_left(study):
    ratings, _ = study
    wanted = ratings[~ratings["is_anchor"]].drop_duplicates(["audio", "text"]).iloc[:30]
    found = screening_agreement(ratings, [rules.no_screening()], wanted, n_splits=2, n_resamples=10)
    assert (found["n"] == 30).all()
    few = screening_agreement(ratings, [rules.no_screening()], wanted, n_raters=5, n_splits=2, n_resamples=10)
    row = few.set_index(["measure", "pairs"]).loc[(HALVES, COMMON)]
    assert row["n"] == 0 and row[["value", "low", "high"]].isna().all() and row["note"].startswith("fewer than 4")
    nobody = screening_agreement(
        ratings.assign(rating=ratings["rating"].where(~ratings["is_anchor"], 9)),
        [rules.no_screening(), rules.anchor_rule(2)], n_splits=2, n_resamples=10,
    )
    rows = nobody[nobody["rule"] == "anchor mean <= 2"]
    assert rows["value"].isna().all() and rows["note"].str.contains("the paper's rule; fewer than 4").all()


def test_bad_input_to_the_rules_is_named(study):
    ratings, scores = study
    with pytest.raises(ValueError, match="rules must be some"):
        screening_agreement(ratings, [])
    with pytest.raises(ValueError, match="each of another name"):
        screening_rules(ratings, scores, [rules.anchor_rule(2), rules.anchor_rule(2.0)])
    with pytest.raises(ValueError, match="no ratings of these pairs"):
        screening_agreement(ratings, [rules.no_screening()], pd.DataFrame({"audio": ["x"], "text": ["y"]}))
    with pytest.raises(ValueError, match="clap_score holds 120 NaN"):
        screening_rules(ratings, scores.assign(clap_score=np.nan))
    with pytest.raises(ValueError, match="n_splits must be a whole number"):
        screening_agreement(ratings, n_splits=0)
    with pytest.raises(ValueError, match="level must lie"):
        screening_agreement(ratings, level=2)
    with pytest.raises(ValueError, match="twice"):
        screening_agreement(pd.concat([ratings, ratings]), [rules.no_screening()])


def test_agreement_does_not_depend_on_the_order_of_the_rows(study):
    ratings, _ = study
    listed = rules.default_rules(with_relate=False)
    first, second = (
        screening_agreement(table, listed, n_splits=2, n_resamples=10)
        for table in (ratings, ratings.sample(frac=1, random_state=3))
    )
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-12)


def test_on_real_ratings_the_papers_rule_helps_only_rater_for_rater(real_ratings):
    """Measured on the test pairs: with as many raters, screened people agree better; all in all, nothing is gained."""
    matched = real_ratings[~real_ratings["is_anchor"]]
    test = matched[matched["split"] == "test"].drop_duplicates(["audio", "text"])
    listed = [rules.no_screening(), rules.anchor_rule(2)]
    found = screening_agreement(real_ratings, listed, test, n_splits=10, n_resamples=100)
    gain = found[found["rule"] == "anchor mean <= 2"].set_index(["measure", "pairs"])
    assert gain.loc[(HALVES, COMMON), "difference_low"] > 0
    for measure in (HALVES, OTHERS):
        assert gain.loc[(measure, ALL_LEFT), "difference_low"] < 0 < gain.loc[(measure, ALL_LEFT), "difference_high"]
