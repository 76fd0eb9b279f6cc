"""The ablation against a plain loop over paired seeds and captions, and on trainings whose effect is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from differences import differences as differences_from
from scipy import stats
from test_evaluate_tables import make_pairs

from humanclap.evaluate import ResamplePlan, ablation, correlations, holm

B = 80


def trained(pairs, seeds, gain=0.15, seed_noise=0.0) -> pd.DataFrame:
    """Four variants with a row a seed: those with wSCE have `gain` less noise, and seeds differ by `seed_noise`."""
    tables = []
    noises = {"wsce+mae": 0.4 - gain, "mae": 0.4, "wsce+mse": 0.5 - gain, "mse": 0.5}
    for place, (model, noise) in enumerate(noises.items()):
        for seed in seeds:
            rng = np.random.default_rng([seed, 3])  # one draw for all models of a seed, as in training
            scale = noise + seed_noise * np.random.default_rng([seed, place]).normal()
            score = pairs["target"] + scale * rng.normal(size=len(pairs))
            tables.append(pairs.assign(model=model, training_seed=seed, clap_score=score))
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def table(pairs):
    return trained(pairs, (0, 1, 2, 3), seed_noise=0.05)


def differences(table, pairs, rows, seeds, model="wsce+mae", reference="mae") -> np.ndarray:
    target = pairs["target"].to_numpy()[rows]
    of = table.groupby(["model", "training_seed"])["clap_score"]
    values = {
        m: [correlations(of.get_group((m, s)).to_numpy()[rows], target).srcc for s in seeds] for m in (model, reference)
    }
    return np.subtract(values[model], values[reference])


@pytest.mark.parametrize(("model", "reference"), [("wsce+mae", "mae"), ("wsce+mse", "mse")])
def test_both_uncertainties_equal_a_plain_loop(table, pairs, model, reference):
    found = ablation(table, by="system", n_resamples=B, seed=6, correct=False)
    row = found.set_index(["model", "cell"]).loc[(model, "all")]
    assert row["reference"] == reference
    each = differences(table, pairs, np.arange(len(pairs)), (0, 1, 2, 3), model, reference)
    assert row["difference"] == pytest.approx(each.mean())
    assert (row["n_seeds"], row["seed_sd"], row["seed_min"], row["seed_max"]) == pytest.approx(
        (4, each.std(ddof=1), each.min(), each.max())
    )
    over_seeds = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    assert (row["seed_t_low"], row["seed_t_high"]) == pytest.approx(tuple(over_seeds))
    plan = ResamplePlan.draw(pairs["text"], n_resamples=B, seed=6)
    samples = [differences(table, pairs, plan.indices(b), (0, 1, 2, 3), model, reference).mean() for b in range(B)]
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])), abs=1e-12)
    assert row["note"] == "" and row["n"] == len(pairs)


def test_it_is_the_paired_difference_of_differences(table):
    two = table[table["model"].isin(["mae", "wsce+mae"])]
    one = differences_from(two, "mae", "score_range", n_resamples=10_000).set_index("cell")
    found = ablation(two, pairs=[("wsce+mae", "mae")], by="score_range", n_resamples=10_000).set_index("cell")
    columns = ["difference", "low", "high", "p", "n", "n_constant"]
    pd.testing.assert_frame_equal(found[columns], one[columns])
    np.testing.assert_array_equal(found["p_holm"], holm(found["p"]))
    assert (found["family"] == "ablation").all()


@pytest.mark.parametrize(
    ("seeds", "note"),
    [
        ((7,), "1 paired training seed, fewer than 3"),
        ((0, 7), "2 paired training seeds, fewer than 3"),
        ((0, 1, 2), ""),
    ],
)
def test_few_seeds_are_marked(pairs, seeds, note):
    found = ablation(trained(pairs, seeds), n_resamples=B, metrics="srcc", correct=False).iloc[0]
    assert found["note"] == note and found["n_seeds"] == len(seeds)
    assert np.isnan(found["seed_sd"]) == np.isnan(found["seed_t_low"]) == (len(seeds) == 1)
    assert found["seed_min"] <= found["difference"] <= found["seed_max"]
    if len(seeds) == 1:
        plain = trained(pairs, seeds).drop(columns="training_seed")
        again = ablation(plain, n_resamples=B, metrics="srcc", correct=False).iloc[0]
        pd.testing.assert_series_equal(again, found)


def test_seeds_that_only_one_model_has_are_left_out_by_name(table, pairs):
    uneven = table[~((table["model"] == "mae") & (table["training_seed"] == 0))]
    found = ablation(uneven, n_resamples=B, metrics="srcc", correct=False).set_index("model")
    each = differences(table, pairs, np.arange(len(pairs)), (1, 2, 3))
    assert found.loc["wsce+mae", "difference"] == pytest.approx(each.mean()) and found.loc["wsce+mae", "n_seeds"] == 3
    assert found.loc["wsce+mae", "note"] == "without training seeds that only one has: 0 of wsce+mae"
    assert found.loc["wsce+mse", "n_seeds"] == 4 and found.loc["wsce+mse", "note"] == ""


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda t: t[t["model"] != "mse"], {}, r"two models, not wsce\+mse, mse. Available: wsce\+mae, mae, wsce\+mse"),
        (lambda t: t, {"pairs": [("mae", "mae")]}, "ablation needs two models, not mae, mae"),
        (
            lambda t: t.assign(training_seed=t["training_seed"] + 10 * (t["model"] == "mae")),
            {},
            r"'wsce\+mae' and 'mae' share no training_seed: 0, 1, 2, 3 against 10, 11, 12, 13. Train both",
        ),
        (lambda t: t, {"correct": True}, "n_resamples=80 is too few for Holm's correction"),
    ],
)
def test_bad_input_is_named(table, spoil, arguments, message):
    with pytest.raises(ValueError, match=message):
        ablation(spoil(table), **({"n_resamples": B, "correct": False} | arguments))
