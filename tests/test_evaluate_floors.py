"""Predictors that never listen: hand-made sets, broken input, the published ratings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from humanclap import relate
from humanclap.evaluate import blind_baselines, blind_predictions, cross_fitted_blind, strongest_blind
from humanclap.evaluate.floors import PENALTIES, RIDGE


def make_pairs(n, seed, systems=("natural", "tango")) -> pd.DataFrame:
    """Synthetic pairs whose target is system, caption length and order words, without noise."""
    rng = np.random.default_rng(seed)
    system = rng.choice(systems, size=n)
    words = rng.integers(2, 9, size=n)
    then = rng.random(n) < 0.4
    text = [" ".join(["word"] * (k - 1)) + (" Then" if t else " athens") for k, t in zip(words, then)]
    target = 0.8 - 0.3 * (system == "tango") - 0.02 * words - 0.1 * then
    return pd.DataFrame(
        {"audio": [f"{i}.wav" for i in range(n)], "text": text, "system": system, "target": target},
        index=np.arange(n) * 7 + 3,
    )


def test_least_squares_finds_an_exact_rule():
    train, test = make_pairs(80, 0), make_pairs(50, 1)
    found = blind_predictions(train, test)
    assert list(found.columns) == ["constant", "system", "words", "system+words+temporal", RIDGE]
    pd.testing.assert_index_equal(found.index, test.index)
    np.testing.assert_allclose(found["system+words+temporal"], test["target"], atol=1e-9)
    np.testing.assert_allclose(found["constant"], train["target"].mean())
    np.testing.assert_array_equal(found["words"], test["text"].str.split().str.len())
    expected = test["system"].map(train.groupby("system")["target"].mean())
    np.testing.assert_allclose(found["system"], expected)


def worded(n, seed, weight=0.05) -> pd.DataFrame:
    """Pairs whose target depends on which words the caption has: three clips per caption, 40 words."""
    rng = np.random.default_rng(seed)
    effect = np.random.default_rng(7).normal(0, weight, 40)
    has = np.repeat(rng.random((n // 3, 40)) < 0.2, 3, axis=0)
    text = [" ".join(["sound", *(f"word{k}" for k in np.flatnonzero(row))]) for row in has]
    target = np.clip(0.5 + has @ effect + rng.normal(0, 0.1, n), 0, 1)
    return pd.DataFrame({"audio": [f"{i}.wav" for i in range(n)], "text": text, "target": target})


def test_the_ridge_reads_words_and_is_then_the_strongest_by_cross_validation():
    train, test = worded(300, 0), worded(150, 1)
    floor = strongest_blind(train, test)
    assert floor.name == "ridge on caption" == floor.predictions.name
    srcc = {
        name: stats.spearmanr(p, test["target"]).statistic
        for name, p in blind_predictions(train, test).items()
        if name != "constant"
    }
    assert srcc["ridge on caption"] > max(0.6, srcc["words+temporal"] + 0.3)
    assert floor.cross_validated["ridge on caption"] == pytest.approx(srcc["ridge on caption"], abs=0.15)
    shuffled = train.sample(frac=1, random_state=3)
    again = strongest_blind(shuffled, test.drop(columns="target"))
    np.testing.assert_allclose(again.predictions, floor.predictions, atol=1e-6)


def test_the_ridge_is_sklearns_normal_equation_at_its_penalty():
    train, test = worded(90, 0).assign(n_ratings=np.arange(90) % 4 + 1), worded(30, 1)
    words = sorted({w for t in train["text"] for w in t.split()})
    counts = [sum(w in t.split() for t in set(train["text"])) for w in words]
    words = [w for w, n in zip(words, counts) if n >= 2]

    def design(pairs):
        bag = [[w in t.split() for w in words] for t in pairs["text"]]
        length = [[len(t.split()) / 4, 0] for t in pairs["text"]]
        return np.hstack([np.full((len(pairs), 1), 3.0), np.array(bag, float), np.array(length)])

    w, x, y = train["n_ratings"].to_numpy(float), design(train), train["target"].to_numpy()
    mean, middle = np.average(x, axis=0, weights=w), np.average(y, weights=w)
    found = blind_predictions(train, test)["ridge on caption"]
    gaps = []
    for penalty in PENALTIES:
        gram = (x - mean).T @ ((x - mean) * w[:, None]) + penalty * np.eye(x.shape[1])
        beta = np.linalg.solve(gram, (x - mean).T @ (w * (y - middle)))
        gaps.append(np.abs(middle + (design(test) - mean) @ beta - found).max())
    assert min(gaps) < 1e-6


def test_few_captions_have_no_ridge_to_choose_and_the_explained_floor_stays():
    train, test = worded(21, 0), worded(9, 1)
    floor = strongest_blind(train, test)
    assert floor.name == "words+temporal" and floor.cross_validated == {}


def test_test_targets_are_not_read():
    train, test = make_pairs(80, 0), make_pairs(50, 1)
    blind = test.drop(columns="target")
    pd.testing.assert_frame_equal(blind_predictions(train, test), blind_predictions(train, blind))
    seen, unseen = strongest_blind(train, test), strongest_blind(train, blind)
    assert seen.name == unseen.name and seen.predictions.equals(unseen.predictions)


def test_cross_fitting_never_predicts_a_pair_from_its_own_caption():
    pairs = make_pairs(120, 0)
    own = (pairs["text"] == pairs["text"].iloc[0]).to_numpy()
    changed = pairs.assign(target=pairs["target"].mask(own, pairs["target"] + 0.01))
    before, after = (cross_fitted_blind(some) for some in (pairs, changed))
    assert before.name == after.name == "system+words+temporal"  # the rule behind the targets
    moved = (before.predictions != after.predictions).to_numpy()
    assert not moved[own].any() and moved[~own].any()


def test_baselines_are_correlations_in_each_subset():
    train, test = make_pairs(80, 0), make_pairs(50, 1)
    test["target"] += 0.1 * np.random.default_rng(2).normal(size=50)
    found = blind_baselines(train, test)
    assert list(found.columns) == ["predictor", "subset", "n", "srcc", "lcc", "ktau", "mse"]
    found = found.set_index(["predictor", "subset"])
    natural = (test["system"] == "natural").to_numpy()
    prediction = blind_predictions(train, test)["system+words+temporal"]
    row = found.loc[("system+words+temporal", "natural")]
    assert row["srcc"] == pytest.approx(stats.spearmanr(prediction[natural], test["target"][natural]).statistic)
    assert row["mse"] == pytest.approx(np.mean((prediction[natural] - test["target"][natural]) ** 2))
    assert row["n"] == natural.sum()
    assert found.loc["constant"][["srcc", "lcc", "ktau"]].isna().all(axis=None)
    assert found.loc["constant"]["mse"].notna().all()
    assert found.loc["words"]["mse"].isna().all()
    assert np.isnan(found.loc[("system", "natural"), "srcc"])


@pytest.mark.parametrize("empty", ["no column", "NaN"])
def test_without_systems(empty):
    train, test = (
        p.drop(columns="system") if empty == "no column" else p.assign(system=np.nan)
        for p in (make_pairs(80, 0), make_pairs(50, 1))
    )
    found = blind_baselines(train, test)
    assert set(found["predictor"]) == {"constant", "words", "words+temporal", "ridge on caption"}
    assert set(found["subset"]) == {"all"}


def test_captions_all_alike_predict_a_constant():
    """No information beyond the system: predictions must tie exactly, not differ by rounding."""
    train, test = (p.assign(text="a dog barks") for p in (make_pairs(80, 0), make_pairs(50, 1)))
    found = blind_baselines(train, test).set_index(["predictor", "subset"])
    assert np.isnan(found.loc[("system+words+temporal", "natural"), "srcc"])
    assert found.loc[("system+words+temporal", "all"), "srcc"] == pytest.approx(found.loc[("system", "all"), "srcc"])


@pytest.mark.parametrize(
    ("change_train", "change_test", "message"),
    [
        (
            lambda p: p,
            lambda p: p.assign(system="audiogen"),
            "systems that train_pairs lacks: audiogen. Train has natural, tango",
        ),
        (lambda p: p.drop(columns="system"), lambda p: p, "train_pairs names no system and the other set does"),
        (lambda p: p, lambda p: p.assign(system=p["system"].where(p.index > 3)), "1 of 50 pairs have no system"),
        (lambda p: p, lambda p: p.assign(target=np.nan), "target of test_pairs holds 50 NaN"),
        (lambda p: p.assign(text=None), lambda p: p, "train_pairs: 80 of 80 rows have no text"),
        (lambda p: p, lambda p: p.iloc[:0], "test_pairs has no rows"),
    ],
)
def test_bad_pairs_are_named(change_train, change_test, message):
    with pytest.raises(ValueError, match=message):
        blind_baselines(change_train(make_pairs(80, 0)), change_test(make_pairs(50, 1)))


def test_real_floors(real_ratings):
    kept = relate.screen_listeners(real_ratings, max_anchor_mean=2.0).ratings
    pairs = relate.aggregate_pairs(kept)
    found = blind_baselines(pairs[pairs["split"] == "train"], pairs[pairs["split"] == "test"])
    found = found.set_index(["predictor", "subset"])
    expected = {
        ("system", "all"): 0.383,
        ("words", "all"): -0.206,
        ("system+words+temporal", "all"): 0.463,
        ("system+words+temporal", "synthesized"): 0.462,
        ("system+words+temporal", "natural"): 0.181,
        ("system+words+temporal", "audioldm"): 0.305,
        ("system+words+temporal", "audioldm2"): 0.394,
        ("system+words+temporal", "tango"): 0.215,
        ("system+words+temporal", "tango2"): 0.225,
    }
    for row, srcc in expected.items():
        assert found.loc[row, "srcc"] == pytest.approx(srcc, abs=0.0006), row
    assert found.loc[("system+words+temporal", "all"), "mse"] == pytest.approx(0.055, abs=0.0006)
    assert found.loc[("constant", "all"), "mse"] == pytest.approx(0.070, abs=0.0006)
    ridge = {"all": 0.476, "synthesized": 0.462, "natural": 0.246}  # another bag of words, tuned elsewhere
    for subset, srcc in ridge.items():
        assert found.loc[(RIDGE, subset), "srcc"] == pytest.approx(srcc, abs=0.015), subset
    assert found.loc[(RIDGE, "all"), "mse"] == pytest.approx(0.0547, abs=0.0003)
    assert found.loc[("system", "all"), "n"] == 2892
