"""Means of systems and preferences on shared captions: hand-made cases, loops, the published ratings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from humanclap.evaluate import ResamplePlan, preferences, system_means
from humanclap.evaluate.systems import ALL_SHARED

RELATE_PAIRS = [
    "natural – audioldm",
    "natural – audioldm2",
    "natural – tango",
    "natural – tango2",
    "audioldm – tango2",
    "audioldm2 – tango",
]


def table_of(clips, **columns) -> pd.DataFrame:
    """clips: (caption, system, target, score) each."""
    table = pd.DataFrame(clips, columns=["text", "system", "target", "clap_score"])
    table["audio"] = [f"{system}/test/{text}-{i}.wav" for i, (text, system) in enumerate(zip(table.text, table.system))]
    return table.assign(model="m", **columns)


@pytest.fixture(scope="module")
def by_hand():
    """natural against tango: agree, disagree, tie of people, tie of the score, agree."""
    clips = []
    cases = [(0.9, 0.5, 3, 2), (0.9, 0.5, 2, 3), (0.7, 0.7, 3, 2), (0.9, 0.5, 2, 2), (0.2, 0.5, 1, 2)]
    for caption, (natural, tango, score_natural, score_tango) in enumerate(cases):
        clips.append((f"c{caption}", "natural", natural, score_natural))
        clips.append((f"c{caption}", "tango", tango, score_tango))
    return table_of(clips)


@pytest.fixture(scope="module")
def study():
    """RELATE's shape: 60 captions with natural and two of four systems; two models, one of them with two seeds."""
    rng = np.random.default_rng(5)
    better = {"natural": 0.3, "audioldm": 0.0, "tango2": 0.3, "audioldm2": 0.05, "tango": 0.1}
    clips = []
    for caption in range(60):
        for system in ("natural", *(("audioldm", "tango2") if caption % 2 else ("audioldm2", "tango"))):
            clips.append((f"c{caption}", system, np.round(rng.uniform(0, 0.7) + better[system], 1), 0.0))
    pairs = table_of(clips).drop(columns=["model", "clap_score"])
    tables = []
    for model, seed in (("a", 0), ("a", 1), ("b", np.nan)):
        noisy = np.round(pairs["target"] + 0.4 * rng.normal(size=len(pairs)), 1)
        tables.append(pairs.assign(model=model, training_seed=seed, clap_score=noisy))
    return pd.concat(tables, ignore_index=True)


def test_ties_count_half(by_hand):
    found = preferences(by_hand, min_captions=2, n_resamples=20)
    row = found.iloc[0]
    assert row["systems"] == "natural – tango"
    assert row["value"] == pytest.approx((1 + 0 + 0.5 + 0.5 + 1) / 5)
    assert (row["n"], row["n_captions"], row["n_ties_score"], row["n_ties_people"]) == (5, 5, 1, 1)
    assert found["systems"].tolist() == ["natural – tango", ALL_SHARED]
    assert found["floor"].isna().all()


def test_floor_always_prefers_the_better_system_of_train(by_hand):
    train = pd.DataFrame({"system": ["natural", "tango"], "target": [0.8, 0.3]})
    row = preferences(by_hand, train_pairs=train, min_captions=2, n_resamples=20).iloc[0]
    assert row["floor"] == pytest.approx((1 + 1 + 0.5 + 1 + 0) / 5)
    with pytest.raises(ValueError, match="no target of tango"):
        preferences(by_hand, train_pairs=train[:1], min_captions=2)


def test_systems_that_share_captions_come_from_the_data(study):
    found = preferences(study, n_resamples=50)
    for _, rows in found.groupby("model"):
        assert rows["systems"].tolist() == [*RELATE_PAIRS, ALL_SHARED]
        assert rows["n"].tolist() == [30] * 6 + [180]


def test_intervals_are_a_loop_over_resamples_with_seeds_averaged(study):
    scores = study
    found = preferences(scores, n_resamples=40, seed=6)
    runs = [scores[scores["training_seed"] == seed] for seed in (0, 1)]
    items = runs[0].merge(runs[0], on="text", suffixes=("_a", "_b"))
    items = items[(items["system_a"] == "natural") & (items["system_b"] != "natural")]  # natural comes first
    rest = runs[0].merge(runs[0], on="text", suffixes=("_a", "_b"))
    wanted = [("audioldm", "tango2"), ("audioldm2", "tango")]
    rest = rest[[pair in wanted for pair in zip(rest["system_a"], rest["system_b"], strict=True)]]
    items = pd.concat([items, rest], ignore_index=True)
    agree = []
    for run in runs:
        score = run.set_index("audio")["clap_score"]
        by_score = items["audio_a"].map(score).to_numpy() - items["audio_b"].map(score).to_numpy()
        product = np.sign(by_score) * np.sign(items["target_a"] - items["target_b"])
        agree.append(product.map({1: 1.0, 0: 0.5, -1: 0.0}).to_numpy())
    plan = ResamplePlan.draw(items["text"], 40, seed=6)
    samples = [np.mean([share[plan.indices(b)].mean() for share in agree]) for b in range(40)]
    row = found[(found["model"] == "a") & (found["systems"] == ALL_SHARED)].iloc[0]
    assert row["value"] == pytest.approx(np.mean(agree))
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(samples, [0.025, 0.975])))
    assert row["seed_sd"] == pytest.approx(np.std([share.mean() for share in agree], ddof=1))
    assert row["n_seeds"] == 2


def test_the_order_of_the_rows_changes_nothing(study):
    tables = study, study.sample(frac=1, random_state=0)
    first, second = (
        preferences(t, n_resamples=30).sort_values(["model", "systems"], ignore_index=True) for t in tables
    )
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-12)


def test_means_of_systems_are_those_of_their_pairs_and_a_missing_one_is_marked(study):
    scores = study
    found = system_means(scores, n_resamples=30, seed=2)
    for row in found.itertuples():
        rows = scores[(scores["model"] == row.model) & (scores["system"] == row.system)]
        assert (row.score, row.rating) == pytest.approx((rows["clap_score"].mean(), 10 * rows["target"].mean()))
        assert row.score_low < row.score < row.score_high and row.n * row.n_seeds == len(rows)
    one = scores[scores["model"] == "b"].reset_index(drop=True)
    resamples = [one.iloc[rows] for rows in map(ResamplePlan.draw(one["text"], 30, seed=2).indices, range(30))]
    means = [drawn.loc[drawn["system"] == "tango", "clap_score"].mean() for drawn in resamples]
    row = found.set_index(["model", "system"]).loc[("b", "tango")]
    assert (row["score_low"], row["score_high"]) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    row = system_means(scores[scores["system"] != "tango"], n_resamples=20).set_index("system").loc["tango"].iloc[0]
    assert row["n"] == 0 and row["note"] == "no such pairs" and np.isnan(row["score"])


def test_few_captions_are_left_out_and_told(study):
    scores = study
    odd = scores[scores["audio"].str.startswith("tango2/")].head(1)
    extra = [  # one caption of tango and audioldm2 also has a clip of tango2
        rows.iloc[[0]].assign(text="c0", audio="tango2/test/extra.wav", system="tango2", target=odd["target"].iloc[0])
        for _, rows in scores.groupby(["model", "training_seed"], dropna=False)
    ]
    found = preferences(pd.concat([scores, *extra]), n_resamples=20)
    row = found.iloc[len(RELATE_PAIRS)]
    assert row["systems"] == ALL_SHARED and row["n"] == 181  # natural – tango2 has one more
    assert row["note"] == "without audioldm2 – tango2: 1, tango – tango2: 1 (fewer than 10 captions)"
    few = scores[scores["text"].isin(["c0", "c2", "c4"])]
    found = preferences(few, min_captions=1, n_resamples=20).set_index(["model", "systems"])
    row = found.loc[("a", "audioldm2 – tango")]
    assert row["n"] == 3 and row["note"] == "fewer than 4 comparisons"
    assert np.isnan(row[["value", "low", "high"]].astype(float)).all()
    with pytest.raises(ValueError, match="share 10 captions; comparisons: natural – audioldm2: 3"):
        preferences(few)


@pytest.mark.parametrize("compare", [system_means, preferences])
def test_no_systems(study, compare):
    scores = study
    with pytest.raises(ValueError, match="no column system"):
        compare(scores.drop(columns="system"))
    with pytest.raises(ValueError, match="names no system"):
        compare(scores.assign(system=np.nan))
