"""Tables I to III from a long score table, against plain loops, with empty and broken cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from differences import differences
from scipy import stats

from humanclap.evaluate import ResamplePlan, breakdown, compare, correlations
from humanclap.relate import SYSTEMS

B = 60


def make_pairs(seed=0, captions=40) -> pd.DataFrame:
    """Synthetic pairs: each caption with the natural clip and two systems', as in RELATE."""
    rng = np.random.default_rng(seed)
    rows = []
    for caption in range(captions):
        systems = ("natural", "audioldm", "tango2") if caption % 2 else ("natural", "audioldm2", "tango")
        rows += [(f"{system}/test/{caption}.wav", f"caption {caption}", system) for system in systems]
    pairs = pd.DataFrame(rows, columns=["audio", "text", "system"])
    rating = 5 + 2 * rng.normal(size=len(pairs)) + pairs["system"].map(dict(zip(SYSTEMS, (2, -1, -1, 0, 1))))
    pairs["mean_rating"] = np.clip(np.round(rating * 2) / 2, 0, 10)
    pairs["target"] = pairs["mean_rating"] / 10
    return pairs


def make_table(pairs, seed=1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    tables = []
    for model, noise in (("laion", 0.4), ("human-clap", 0.15), ("clipped", 0.6)):
        score = np.maximum(pairs["target"] - 0.3 + noise * rng.normal(size=len(pairs)), 0)
        tables.append(pairs.assign(model=model, clap_score=score))
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def table(pairs):
    return make_table(pairs)


def masks(pairs) -> dict[str, np.ndarray]:
    """The cells of all three tables, written down once more."""
    natural, low = (pairs["system"] == "natural").to_numpy(), (pairs["mean_rating"] <= 5).to_numpy()
    cells = {system: (pairs["system"] == system).to_numpy() for system in SYSTEMS}
    cells |= {"synthesized": ~natural, "all": np.ones(len(pairs), bool)}
    for name, half in (("<=5", low), (">5", ~low)):
        cells |= {f"{name} all": half, f"{name} natural": half & natural, f"{name} synthesized": half & ~natural}
    return cells


@pytest.mark.parametrize(
    ("by", "cells"),
    [
        ("overall", ["all"]),
        ("system", [*SYSTEMS, "synthesized", "all", "within systems"]),
        ("score_range", [f"{half} {kind}" for half in ("<=5", ">5") for kind in ("all", "natural", "synthesized")]),
    ],
)
def test_every_cell_equals_a_plain_loop(table, pairs, by, cells):
    found = breakdown(table, by=by, n_resamples=B, seed=3)
    metrics = ["srcc", "lcc", "ktau", "mse"] if by == "overall" else ["srcc"]
    assert " ".join(found.columns) == "model cell metric value low high n n_constant n_seeds seed_sd note"
    assert list(found["model"].unique()) == ["laion", "human-clap", "clipped"]
    assert list(found["cell"].unique()) == cells
    assert list(found["metric"].unique()) == metrics
    assert len(found) == 3 * len(cells) * len(metrics)
    assert (found["note"] == "").all()
    plan = ResamplePlan.draw(pairs["text"], n_resamples=B, seed=3)
    target = pairs["target"].to_numpy()
    for row in found[found["cell"] != "within systems"].itertuples():
        score = table.loc[table["model"] == row.model, "clap_score"].to_numpy()
        inside = masks(pairs)[row.cell]
        assert row.n == inside.sum()
        assert row.value == pytest.approx(getattr(correlations(score[inside], target[inside]), row.metric))
        samples = []
        for resample in range(B):
            rows = plan.indices(resample)
            rows = rows[inside[rows]]
            samples.append(getattr(correlations(score[rows], target[rows]), row.metric))
        assert row.n_constant == np.isnan(samples).sum()
        assert (row.low, row.high) == pytest.approx(tuple(np.nanpercentile(samples, [2.5, 97.5])), abs=1e-12)


def test_within_systems_is_the_weighted_mean_also_in_each_resample(table, pairs):
    found = breakdown(table, by="system", n_resamples=B, seed=3).set_index(["model", "cell"])
    plan = ResamplePlan.draw(pairs["text"], n_resamples=B, seed=3)
    score = table.loc[table["model"] == "laion", "clap_score"].to_numpy()
    system, target = pairs["system"].to_numpy(), pairs["target"].to_numpy()

    def within(rows):
        parts = [rows[system[rows] == name] for name in SYSTEMS]
        each = [stats.spearmanr(score[part], target[part]).statistic for part in parts]
        return np.average(each, weights=[len(part) for part in parts])

    row = found.loc[("laion", "within systems")]
    assert row["value"] == pytest.approx(within(np.arange(len(pairs))))
    samples = [within(plan.indices(resample)) for resample in range(B)]
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])))
    assert row["n"] == len(pairs)


def test_the_order_of_all_rows_changes_no_number(table):
    shuffled = table.sample(frac=1, random_state=2)
    keys = ["model", "cell", "metric"]
    settings = {"by": "system", "metrics": ["srcc", "lcc"], "n_resamples": B}
    for function, more in ((breakdown, {}), (differences, {"baseline": "laion"})):
        first, second = (function(t, **more, **settings).set_index(keys) for t in (table, shuffled))
        pd.testing.assert_frame_equal(second.loc[first.index], first, rtol=0, atol=1e-12)


def test_empty_small_and_constant_cells_stay_and_are_marked(table):
    few = table[
        (table["system"] != "tango")
        & (
            (table["system"] != "tango2")
            | table["audio"].isin(["tango2/test/1.wav", "tango2/test/3.wav", "tango2/test/5.wav"])
        )
    ].copy()
    few.loc[(few["model"] == "clipped") & (few["system"] == "audioldm"), "clap_score"] = 0.0
    found = breakdown(few, by="system", n_resamples=B).set_index(["model", "cell"])
    assert found.loc[("laion", "tango"), "note"] == "no such pairs"
    assert found.loc[("laion", "tango"), "n"] == 0
    assert found.loc[("laion", "tango2"), "note"] == "fewer than 4 pairs"
    assert found.loc[("laion", "tango2"), "n"] == 3
    assert found.loc[("clipped", "audioldm"), "note"] == "constant score or target"
    assert found.loc[("laion", "audioldm"), "note"] == ""
    marked = found[found["note"].isin(["no such pairs", "fewer than 4 pairs", "constant score or target"])]
    assert marked[["value", "low", "high"]].isna().all(axis=None)
    assert found.loc[("laion", "within systems"), "note"] == "without tango2 (fewer than 4 pairs)"
    assert np.isfinite(found.loc[("laion", "within systems"), "value"])
    gains = differences(few, "laion", by="system", n_resamples=B).set_index(["model", "cell"])
    assert gains.loc[("clipped", "audioldm"), "note"] == "constant score or target"
    assert np.isnan(gains.loc[("clipped", "audioldm"), ["difference", "low", "high", "p"]].astype(float)).all()


def test_a_plain_table_without_systems(table):
    plain = table.drop(columns="system")
    found = breakdown(plain, by="system", n_resamples=B).set_index(["model", "cell"])
    assert found.loc[("laion", "natural"), "note"] == "no system known"
    assert np.isfinite(found.loc[("laion", "all"), "value"])
    assert np.isnan(found.loc[("laion", "within systems"), "value"])
    found = breakdown(plain, by="score_range", n_resamples=B).set_index(["model", "cell"])
    assert found.loc[("laion", "<=5 synthesized"), "note"] == "no system known"
    assert np.isfinite(found.loc[("laion", "<=5 all"), "value"])


@pytest.mark.parametrize("metric", ["srcc", "mse"])
def test_differences_equal_compare(table, pairs, metric):
    found = differences(table, "laion", metrics=metric, n_resamples=B, seed=7).set_index("model")
    scores = {name: rows["clap_score"] for name, rows in table.groupby("model")}
    for name, row in found.iterrows():
        one = compare(scores[name], scores["laion"], pairs["target"], pairs["text"], metric, B, seed=7)
        expected = [one.difference, one.low, one.high, one.p, one.a, one.b]
        columns = ["difference", "low", "high", "p", "value", "baseline_value"]
        assert row[columns].tolist() == pytest.approx(expected)


def with_nan(table):
    table.loc[[3, 5], "clap_score"] = np.nan
    table.loc[130, "clap_score"] = np.inf
    return table


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (with_nan, {}, r"3 of 360 values of clap_score are not finite.*'laion': 2.*'human-clap': 1"),
        (lambda t: t.drop(index=0), {}, r"'human-clap' lacks 0 pairs of 'laion' and has 1.*natural/test/0.wav"),
        (lambda t: t.drop(columns="mean_rating"), {"by": "score_range"}, "column mean_rating"),
        (
            lambda t: t.assign(system=t["system"].where(t["audio"] != t["audio"][0])),
            {"by": "system"},
            "1 of 120 pairs have no",
        ),
        (lambda t: t.assign(model=t["model"].where(t.index > 0)), {}, "the score table: 1 of 360 rows have no model"),
        (lambda t: t.iloc[:0], {}, "no rows"),
        (lambda t: t, {"metrics": ["rmse"]}, "metric.* must be one of .*rmse"),
        (lambda t: t.assign(blind=np.nan), {"floor": "blind"}, "floor column blind holds 120 NaN"),
    ],
)
def test_broken_tables_are_named(table, spoil, arguments, message):
    with pytest.raises(ValueError, match=message):
        breakdown(spoil(table.copy()), n_resamples=B, **arguments)
