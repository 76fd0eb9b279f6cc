"""Rules on listeners: who is left and how much each weighs, against loops, scipy and the published ratings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from humanclap import relate
from humanclap.evaluate import rules


@pytest.fixture(scope="module")
def ratings():
    """12 listeners, 6 of 18 captions each, 2 clips; l0 gives 5s only, l1 fails the anchors, l2 is alone once."""
    rng = np.random.default_rng(7)
    rows = []
    for number in range(12):
        for caption in rng.choice(18, size=6, replace=False):
            for folder in ("audiocaps", "tango"):
                rating = 5 if number == 0 else int(rng.integers(0, 11))
                rows.append((f"{folder}/test/{caption}.wav", f"caption {caption}", rating, f"l{number}", False))
        rows.append(("audiocaps/train/9.wav", "wrong", 5 if number == 0 else 8 * (number == 1), f"l{number}", True))
    rows.append(("audiocaps/test/99.wav", "caption 99", 4, "l2", False))
    table = pd.DataFrame(rows, columns=["audio", "text", "rating", "listener", "is_anchor"])
    return table.assign(system="natural", split="test", relate_split="test")


def test_no_rule_takes_every_rating_but_the_anchors(ratings):
    left = rules.no_screening().judge(ratings)
    assert len(left) == 12 * 12 + 1 and (left["weight"] == 1).all()
    assert list(left.columns) == ["audio", "text", "listener", "rating", "weight"]


@pytest.mark.parametrize("threshold", [0, 2, 10])
def test_anchor_rule_is_screen_listeners(ratings, threshold):
    left = rules.anchor_rule(threshold).judge(ratings)
    expected = relate.screen_listeners(ratings, threshold).ratings
    assert set(left["listener"]) == set(expected["listener"]) and len(left) == len(expected)


def test_relates_own_rule_on_real_ratings_is_a_threshold_on_the_anchors(real_ratings):
    left = rules.relate_rule().judge(real_ratings)
    means = relate.anchor_means(real_ratings)
    matched = real_ratings[~real_ratings["is_anchor"]]
    limit = matched["split"].map({"train": 2, "test": 1})
    expected = matched[matched["listener"].map(means) < limit]
    key = ["audio", "text", "listener"]
    assert set(map(tuple, left[key].to_numpy())) == set(map(tuple, expected[key].to_numpy()))
    assert len(left) == 9963 + 7797


def test_relates_own_rule_needs_relates_column(ratings):
    with pytest.raises(ValueError, match="no \"in RELATE dataset\""):
        rules.relate_rule().judge(ratings.assign(relate_split=""))


def test_straight_lining_counts_the_anchors_too(ratings):
    left = rules.straight_lining(0.5).judge(ratings)
    assert set(ratings["listener"]) - set(left["listener"]) == {"l0"}
    careful = ratings.assign(rating=ratings["rating"].where(~ratings["is_anchor"] | (ratings["listener"] != "l0"), 0))
    assert "l0" in set(rules.straight_lining(0.5).judge(careful)["listener"])  # 5s, and 0 for what does not match


def test_z_scores_are_scipys(ratings):
    left = rules.z_scores(rules.anchor_rule(6)).judge(ratings)
    raw = rules.anchor_rule(6).judge(ratings)
    for listener, rows in raw.groupby("listener"):
        found = left.loc[rows.index, "rating"]
        expected = np.zeros(len(rows)) if listener == "l0" else stats.zscore(rows["rating"], ddof=1)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert "l1" not in set(left["listener"])


@pytest.mark.parametrize("cross_fit", [True, False])
def test_error_variances_are_a_loop_over_listeners_and_captions(ratings, cross_fit):
    left = rules.no_screening().judge(ratings)
    found = rules.error_variances(left, prior=4, cross_fit=cross_fit)
    errors = []
    for (audio, text), rows in left.groupby(["audio", "text"]):
        if len(rows) > 1:
            unbiased = (rows["rating"] - rows["rating"].mean()) ** 2 * len(rows) / (len(rows) - 1)
            errors += [(text, listener, q) for listener, q in zip(rows["listener"], unbiased, strict=True)]
    errors = pd.DataFrame(errors, columns=["text", "listener", "q"])
    for row in left.assign(found=found).itertuples():
        used = errors[errors["text"] != row.text] if cross_fit else errors
        own = used.loc[used["listener"] == row.listener, "q"]
        assert row.found == pytest.approx((4 * used["q"].mean() + own.sum()) / (4 + len(own)))


def test_a_cross_fitted_weight_does_not_see_its_own_caption(ratings):
    """Whatever anybody says about a caption, the weights there stay; the circular ones move."""
    matched = ~ratings["is_anchor"]
    there = matched & (ratings["text"] == ratings.loc[matched, "text"].value_counts().index[0])
    other = np.random.default_rng(0).integers(0, 11, size=len(ratings))
    changed = ratings.assign(rating=ratings["rating"].where(~there, other))
    for rule, same in ((rules.agreement_weights(), True), (rules.agreement_weights(cross_fit=False), False)):
        before, after = (rule.judge(table).loc[there[there].index, "weight"] for table in (ratings, changed))
        assert np.allclose(before, after) == same


def test_weights_find_the_careless(ratings):
    rng = np.random.default_rng(1)
    truth = {text: rng.uniform(0, 10) for text in ratings["text"].unique()}
    noise = ratings["listener"].map(lambda name: 4 if name in ("l5", "l6") else 0.5) * rng.normal(size=len(ratings))
    table = ratings.assign(rating=np.clip(ratings["text"].map(truth) + noise, 0, 10))
    weight = rules.agreement_weights().judge(table).groupby("listener")["weight"].mean()
    assert weight[["l5", "l6"]].max() < weight.drop(["l5", "l6"]).min()
    # where each caption has its own raters and its own verdict on them, nearly all of them go
    left = rules.agreement_screening(0.15).judge(table)["listener"].value_counts()
    everybody = rules.no_screening().judge(table)["listener"].value_counts()
    share = left.reindex(everybody.index).fillna(0) / everybody
    assert share[["l5", "l6"]].max() < 0.5 < share.drop(["l5", "l6"]).min()


def test_names_and_notes_say_what_was_done():
    names = [rule.name for rule in rules.default_rules()]
    assert names[0] == rules.NONE and len(set(names)) == len(names)
    assert "RELATE's own" in names and "RELATE's own" not in [rule.name for rule in rules.default_rules(False)]
    paper = rules.anchor_rule(2)
    assert rules.z_scores(paper).name == "anchor mean <= 2, z-scored"
    assert rules.z_scores(paper).max_anchor_mean == 2 and np.isnan(rules.z_scores().max_anchor_mean)
    assert rules.agreement_weights(cross_fit=False).name.endswith("(circular)")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rules.straight_lining(0), "min_sd must be a number above 0, not 0"),
        (lambda: rules.agreement_weights(prior=-1), "prior must be a number above 0"),
        (lambda: rules.agreement_screening(1), "share must lie between 0 and 1"),
    ],
)
def test_impossible_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_cannot_be_judged_is_named(ratings):
    with pytest.raises(ValueError, match="have no anchor ratings"):
        rules.anchor_rule(2).judge(ratings[~ratings["is_anchor"]])
    with pytest.raises(ValueError, match="ratings has no column is_anchor"):
        rules.no_screening().judge(ratings.drop(columns="is_anchor"))
    alone = ratings.drop_duplicates(["audio", "text"])
    with pytest.raises(ValueError, match="no error variance can be told"):
        rules.agreement_weights().judge(alone)
    with pytest.raises(ValueError, match="no error variance can be told"):
        rules.agreement_weights().judge(ratings.assign(rating=5))
