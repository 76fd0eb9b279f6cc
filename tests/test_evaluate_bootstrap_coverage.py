"""The simulations behind benchmarks/interval_coverage.md: their parts, and a small version of them (slow)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def load(name: str):
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def simulation():
    return load("interval_coverage")


def test_a_study_has_caption_effects_ties_and_two_equally_good_scores(simulation):
    drawn = simulation.study(np.random.default_rng(0), 20_000)
    by_caption = drawn.rating.reshape(-1, 3)
    within, between = by_caption.var(axis=1, ddof=1).mean(), by_caption.mean(axis=1).var(ddof=1)
    share = (between - within / 3) / (between + within * 2 / 3)
    assert share == pytest.approx(simulation.CAPTION_SHARE, abs=0.02)
    assert (np.bincount(drawn.caption) == 3).all()
    assert len(np.unique(drawn.rating)) <= 101 and (drawn.scores == 0).sum() > 1000
    found = [stats.spearmanr(score, drawn.rating).statistic for score in drawn.scores]
    assert found[0] == pytest.approx(found[1], abs=0.02)
    assert simulation.truth(20_000)["srcc"] == pytest.approx(found[0], abs=0.02)


@pytest.mark.slow
def test_intervals_cover_and_the_test_errs_as_often_as_it_says(simulation):
    """200 studies of 160 captions: bounds are the nominal rate ± 3 binomial standard errors of 200 studies."""
    found = simulation.simulate(160, 200, 500, simulation.truth(500_000), seed=2).set_index("unit")
    slack = 3 * np.sqrt(0.95 * 0.05 / 200)
    assert found.loc["captions", "covered"].between(0.95 - slack, 0.95 + slack).all()
    assert (found.loc["pairs", "covered"] < 0.95 - slack).all()  # too narrow: the clips of a caption are alike
    assert found.loc["captions", "wrong"].between(0.05 - slack, 0.05 + slack).all()


def test_the_plain_loop_of_the_speed_benchmark_agrees_with_breakdown(monkeypatch):
    from humanclap.evaluate import breakdown

    monkeypatch.delenv("HUMANCLAP_RELATE", raising=False)
    speed = load("statistics_speed")
    pairs, source = speed.rated_pairs()
    assert len(pairs) == 2892 and source.startswith("simulated")
    table = speed.scored(pairs)
    table = table[table["model"].isin(["laion", "mae"])]
    keys = ["model", "cell", "metric"]
    for by, metrics in speed.TABLES.items():
        found = breakdown(table, by=by, metrics=metrics, n_resamples=8).set_index(keys)[["value", "low", "high"]]
        loop = speed.scipy_loop(table, pairs, by, 8).set_index(keys)
        assert set(found.index) == set(loop.index)
        assert (found.loc[loop.index] - loop).abs().max(axis=None) < speed.TOLERANCE
