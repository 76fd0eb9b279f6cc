"""Tables over several training seeds of one model, against a plain loop over the same resamples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from differences import differences
from test_evaluate_tables import make_pairs

from humanclap.evaluate import ResamplePlan, breakdown, correlations, holm

B = 60
SEEDS = (0, 1, 5)


def seeded_table(pairs, seeds=SEEDS, noise=0.3) -> pd.DataFrame:
    """The baseline without seeds and a fine-tuned model with a row a seed and pair."""
    rng = np.random.default_rng(8)
    target = pairs["target"].to_numpy()
    tables = [pairs.assign(model="laion", training_seed=np.nan, clap_score=target + 0.5 * rng.normal(size=len(pairs)))]
    for seed in seeds:
        score = np.maximum(target - 0.3 + noise * rng.normal(size=len(pairs)), 0)
        tables.append(pairs.assign(model="wsce+mae", training_seed=float(seed), clap_score=score))
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def table(pairs):
    return seeded_table(pairs)


def of_seeds(table, pairs, rows, metric) -> np.ndarray:
    """The metric of each seed on these rows of the pairs."""
    target = pairs["target"].to_numpy()[rows]
    runs = [table.loc[(table["model"] == "wsce+mae") & (table["training_seed"] == s), "clap_score"] for s in SEEDS]
    return np.array([getattr(correlations(run.to_numpy()[rows], target), metric) for run in runs])


@pytest.mark.parametrize("metric", ["srcc", "mse"])
def test_a_value_is_the_mean_over_seeds_resampled_together(table, pairs, metric):
    found = breakdown(table, metrics=metric, n_resamples=B, seed=3).set_index("model")
    everyone = np.arange(len(pairs))
    each = of_seeds(table, pairs, everyone, metric)
    row = found.loc["wsce+mae"]
    assert (row["value"], row["seed_sd"], row["n_seeds"]) == pytest.approx((each.mean(), each.std(ddof=1), 3))
    plan = ResamplePlan.draw(pairs["text"], n_resamples=B, seed=3)
    samples = np.array([of_seeds(table, pairs, plan.indices(b), metric).mean() for b in range(B)])
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])), abs=1e-12)
    assert found.loc["laion", "n_seeds"] == 1 and np.isnan(found.loc["laion", "seed_sd"])
    assert row["n"] == len(pairs)


def test_a_seed_with_a_constant_score_leaves_the_mean_empty_and_says_so(table):
    broken = table.copy()
    broken.loc[(broken["training_seed"] == 1) & (broken["system"] == "tango"), "clap_score"] = 0.0
    found = breakdown(broken, by="system", n_resamples=B).set_index(["model", "cell"])
    assert np.isnan(found.loc[("wsce+mae", "tango"), ["value", "low", "high", "seed_sd"]].astype(float)).all()
    assert found.loc[("wsce+mae", "tango"), "note"] == "constant score or target in 1 of 3 training seeds"
    assert found.loc[("wsce+mae", "tango"), "n_constant"] == B
    assert found.loc[("laion", "tango"), "note"] == "" and np.isfinite(found.loc[("wsce+mae", "all"), "value"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="training_seed"), r"'wsce\+mae' has 240 pairs twice.*need the column training_seed"),
        (
            lambda t: t.assign(training_seed=t["training_seed"].where(t.index != len(t) - 1)),
            r"1 rows of model 'wsce\+mae' have a training_seed that is no whole number, for instance nan",
        ),
        (lambda t: t.assign(training_seed=t["training_seed"] / 2), "training_seed that is no whole number.*0.5"),
    ],
)
def test_broken_seeds_are_named(table, spoil, message):
    with pytest.raises(ValueError, match=message):
        breakdown(spoil(table), n_resamples=B)


def test_holm_over_the_family_of_a_table(table):
    noisy = table[table["model"] == "laion"].assign(model="noisy")
    noisy["clap_score"] += 0.3 * np.random.default_rng(2).normal(size=len(noisy))
    noisy.loc[noisy["system"] == "tango", "clap_score"] = 0.5  # a comparison that can't be made is not counted
    both = pd.concat([table, noisy])
    plain = differences(both, "laion", by="system", n_resamples=10_000)
    found = differences(both, "laion", by="system", n_resamples=10_000, family="Table II", correct=True)
    np.testing.assert_array_equal(found["p_holm"], holm(plain["p"]))
    assert found["p_holm"].isna().sum() == 2 and (found["family"] == "Table II").all()  # tango, and within systems
    both = ["p_holm", "family", "mark"]
    pd.testing.assert_frame_equal(found.drop(columns=both), plain.drop(columns=both))
