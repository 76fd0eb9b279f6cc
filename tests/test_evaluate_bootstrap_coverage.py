"""The simulations behind benchmarks/interval_coverage.md: their parts, and a small version of them (slow)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
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


def test_williams_by_hand(simulation):
    # n = 103: |R| = 1 - .25 - .09 - .16 + 2 · .5 · .3 · .4 = .62; r̄ = .4
    # t = .2 √(102 · 1.4 / (2 · .62 · 102 / 100 + .16 · .6³)) with 100 degrees of freedom
    t = 0.2 * np.sqrt(142.8 / (1.2648 + 0.03456))
    assert simulation.williams(0.5, 0.3, 0.4, 103) == pytest.approx(2 * stats.t.sf(t, 100), rel=1e-12)
    assert simulation.williams(0.3, 0.5, 0.4, 103) == pytest.approx(simulation.williams(0.5, 0.3, 0.4, 103))
    assert simulation.williams(0.4, 0.4, 0.1, 50) == 1


def test_williams_is_uniform_where_two_correlations_are_equal(simulation):
    rng = np.random.default_rng(5)
    chol = np.linalg.cholesky([[1, 0.5, 0.5], [0.5, 1, 0.6], [0.5, 0.6, 1]])
    p = []
    for _ in range(2000):
        r = np.corrcoef(chol @ rng.normal(size=(3, 80)))
        p.append(simulation.williams(r[0, 1], r[0, 2], r[1, 2], 80))
    assert stats.kstest(p, "uniform").pvalue > 0.001


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


def test_the_numbers_do_not_depend_on_the_number_of_workers(simulation):
    true = {"srcc": 0.48, "lcc": 0.49}
    one, two = (simulation.simulate(20, 3, 50, true, workers=workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert set(one["unit"]) == {"caption", "pair", "one clip"} and one["study"].nunique() == 3


@pytest.mark.slow
def test_intervals_cover_and_the_test_errs_as_often_as_it_says(simulation):
    """300 studies of 160 captions: bounds are the nominal rate ± 3 binomial standard errors of 300 studies."""
    studies = 300
    found = simulation.simulate(160, studies, 500, simulation.truth(500_000), seed=2)
    slack = 3 * np.sqrt(0.95 * 0.05 / studies)
    covered = simulation.coverage_table(found).set_index(["unit", "method", "metric"])["coverage"].sort_index()
    for method in ("percentile", "bca"):
        assert (covered["caption", method] >= 0.95 - slack).all() and (covered["caption", method] <= 0.95 + slack).all()
    assert (covered["pair", "percentile"] < 0.95 - slack).all()  # too narrow: the clips of a caption are alike
    wrong = simulation.error_table(found).set_index(["unit", "method", "metric"])["wrong"].sort_index()
    for unit, method in (("caption", "difference"), ("one clip", "williams"), ("one clip", "difference")):
        assert (wrong[unit, method] >= 0.05 - slack).all() and (wrong[unit, method] <= 0.05 + slack).all()
    # Williams' p and the bootstrap's, on the same clips: as near as a p of 500 resamples is known, ± 3 of its errors
    p = found[found["unit"] == "one clip"].pivot(index="study", columns="method", values="p")
    near = simulation.nearness(found)
    assert near["correlation"] > 0.97 and near["same"] >= 0.95
    assert p["williams"].sub(p["difference"]).abs().mean() == near["mean"] < 3 * np.sqrt(0.25 / 500)


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


def test_scripts_beside_the_benchmark_called_statistics_still_find_python_s_own():
    code = "import statistics; print(statistics.mean([1, 3]))"
    found = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "2"
