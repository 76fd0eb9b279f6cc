"""Ceilings of every cell: exact sums against sampling and scipy, known truth in made-up worlds, the real ratings."""

from __future__ import annotations

import itertools
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from humanclap import relate
from humanclap.evaluate import ResamplePlan, cell_ceilings, human_ceiling, screened_ceilings
from humanclap.evaluate.cell_ceilings import TABLES
from humanclap.evaluate.cells import make_cells
from humanclap.evaluate.joint_table import JointTable, MeanRatings
from humanclap.evaluate.rated_pairs import ExpectedCells, RatedPairs
from humanclap.evaluate.rating_likelihood import RatingLikelihood
from humanclap.evaluate.rating_model import fit_rating_model

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
ceiling_worlds = SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "ceiling_worlds.py")))

SYSTEMS = ("natural", "audioldm", "audioldm2", "tango", "tango2")


def made(n_pairs=600, seed=0, world=ceiling_worlds.normal_with_heaps, systems=True) -> pd.DataFrame:
    """Ratings of a made-up world; systems as in RELATE: natural and two others for each caption."""
    ratings, _ = ceiling_worlds.draw_pairs(world, n_pairs, np.random.default_rng(seed))
    if not systems:
        return ratings
    number = ratings["audio"].str[:7].astype(int)
    first_half = number // 3 % 2 == 0
    of_place = np.where(first_half, number % 3, np.where(number % 3 == 0, 0, number % 3 + 2))
    return ratings.assign(system=np.array(SYSTEMS, dtype=object)[of_place])


def test_table_equals_scipy_where_every_pair_is_a_bin_of_its_own():
    rng = np.random.default_rng(0)
    n = 300
    true = np.sort(rng.normal(size=n))
    mean = np.round(true + rng.normal(size=n)) / 2
    kinds, column = np.unique(mean, return_inverse=True)
    probability = np.zeros((n, len(kinds)))
    probability[np.arange(n), column] = 1.0
    found = JointTable(probability, true, kinds).metrics()
    # in endless pairs the ranks have variance 1/12, in n of them (1 - 1/n²) / 12; so with the number of pairs of pairs
    assert found["srcc"] == pytest.approx(stats.spearmanr(true, mean).statistic * math.sqrt(1 - 1 / n**2), abs=1e-12)
    assert found["ktau"] == pytest.approx(stats.kendalltau(true, mean).statistic * math.sqrt(1 - 1 / n), abs=1e-12)
    assert found["lcc"] == pytest.approx(stats.pearsonr(true, mean).statistic, abs=1e-12)
    assert found["mse"] == pytest.approx(np.mean((true - mean) ** 2) / 100, abs=1e-12)


def test_table_without_pairs_or_with_one_mean_rating_has_no_correlation():
    for probability in (np.zeros((3, 2)), np.array([[1.0, 0], [2, 0], [1, 0]])):
        found = JointTable(probability, np.arange(3.0), np.array([1.0, 2])).metrics()
        assert all(math.isnan(value) for value in found.values())


def test_means_of_n_ratings_by_enumeration():
    values, probability = np.array([0, 2, 5, 10]), np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    means = MeanRatings(values, np.array([3, 1, 3]))
    assert list(means.numbers) == [1, 3]
    for n, (where, found) in zip((1, 3), means.of_number(probability), strict=True):
        expected = np.zeros((2, len(means.mean)))
        for combination in itertools.product(range(4), repeat=n):
            place = np.flatnonzero(np.isclose(means.mean, values[list(combination)].mean()))
            assert len(place) == 1
            expected[:, place[0]] += probability[:, list(combination)].prod(axis=1)
        got = np.zeros_like(expected)
        got[:, where] = found
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_likelihood_and_its_gradients_by_hand():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 3, size=(25, 5)) + np.eye(5, dtype=int)[rng.integers(5, size=25)]
    likelihood = RatingLikelihood(counts, rng.integers(2, size=25), 2)
    at = likelihood.start() + 0.1 * rng.normal(size=len(likelihood.start()))
    assert optimize.check_grad(lambda x: likelihood(x)[1], lambda x: likelihood(x)[2], at) < 1e-3
    penalty = likelihood._penalty(at)[1]
    np.testing.assert_allclose(likelihood.pulls(at).sum(axis=0) - penalty, likelihood(at)[2], atol=1e-9)
    step = 1e-5 * np.eye(len(at))[0]
    one = RatingLikelihood(counts[:1], likelihood.stratum[:1], 2)
    by_hand = (one(at + step)[0] - one(at - step)[0]) / 2e-5
    assert likelihood.pulls(at)[0, 0] == pytest.approx(by_hand, abs=1e-6)


def test_ceilings_are_what_simulated_studies_show():
    """The exact sum against ratings drawn from the same fitted model and correlated by scipy, cut and uncut."""
    rated = RatedPairs.of(made(900))
    model = rated.fit()
    expected = ExpectedCells(rated, model, "score_range", 5.0)
    rng = np.random.default_rng(2)
    true, mean, cells = [], [], []
    for _ in range(60):
        drawn = model.simulate(rated.n_ratings, rng)
        true.append(drawn[0])
        mean.append(drawn[1])
        cells.append(make_cells(rated.pairs.assign(mean_rating=drawn[1]), "score_range"))
    true, mean = np.concatenate(true), np.concatenate(mean)
    for number, cell in enumerate(cells[0]):
        rows = np.concatenate([study[number].rows for study in cells])
        by_scipy = [
            stats.spearmanr(true[rows], mean[rows]).statistic,
            stats.kendalltau(true[rows], mean[rows]).statistic,
            stats.pearsonr(true[rows], mean[rows]).statistic,
        ]
        found = expected.values([cell.name], ("srcc", "ktau", "lcc"))[0]
        np.testing.assert_allclose(found, by_scipy, atol=4 / math.sqrt(rows.sum()))


@pytest.mark.parametrize("name", ["skewed", "bimodal", "listeners' habits"])
def test_ceilings_lie_within_002_of_the_truth(name):
    """Worlds that the fitted model does not contain; mean of 4 studies of 2,892 pairs."""
    within_002(name, n_studies=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ceiling_worlds.WORLDS))
def test_ceilings_lie_within_002_of_the_truth_in_every_world(name):
    within_002(name, n_studies=15, n_truth=300_000)


def within_002(name, n_studies, n_truth=60_000):
    world = ceiling_worlds.WORLDS[name]
    truth = ceiling_worlds.truth(world, n_truth, seed=1)
    studies = [
        cell_ceilings(made(2892, [seed, 4], world, systems=False), n_resamples=0).set_index("metric")["ceiling"]
        for seed in range(n_studies)
    ]
    for metric in ("srcc", "lcc", "ktau"):
        assert np.mean([study[metric] for study in studies]) == pytest.approx(truth["all", metric], abs=0.02), metric


def test_cells_and_columns():
    ratings = made()
    for by in TABLES:
        table = cell_ceilings(ratings, by, metrics=("srcc", "mse"), n_resamples=40)
        assert list(table.columns) == [
            "cell", "metric", "ceiling", "low", "high", "n", "n_ratings", "mean_raters", "note"
        ]  # fmt: skip
        pairs = RatedPairs.of(ratings).pairs
        names = [cell.name for cell in make_cells(pairs, by)] + (["within systems"] if by == "system" else [])
        assert list(table["cell"]) == [name for name in names for _ in range(2)]
        for cell in make_cells(pairs, by):
            row = table[table["cell"] == cell.name].iloc[0]
            assert row["n"] == cell.rows.sum()
            assert row["n_ratings"] == pairs["n_ratings"][cell.rows].sum()
        defined = table[table["ceiling"].notna()]
        assert ((defined["low"] < defined["ceiling"]) & (defined["ceiling"] < defined["high"])).all()


def test_lcc_is_that_of_human_ceiling_and_mse_its_noise():
    ratings = made()
    table = cell_ceilings(ratings, "system", metrics=("lcc", "mse"), n_resamples=60, seed=3)
    table = table.set_index(["cell", "metric"])
    for cell, part in (("all", ratings), ("tango", ratings[ratings["system"] == "tango"])):
        found = human_ceiling(part, n_splits=1, n_resamples=60, seed=3)
        assert table.loc[(cell, "lcc"), "ceiling"] == pytest.approx(found.lcc_ceiling)
        raters = part.groupby("audio").size()
        assert table.loc[(cell, "mse"), "ceiling"] == pytest.approx(
            found.variance_residual * (1 / raters).mean() / 100
        )
    all_row, found = table.loc[("all", "lcc")], human_ceiling(ratings, n_splits=1, n_resamples=60, seed=3)
    assert (all_row["low"], all_row["high"]) == pytest.approx((found.lcc_ceiling_low, found.lcc_ceiling_high))


def test_within_systems_is_the_weighted_mean():
    table = cell_ceilings(made(), "system", n_resamples=0).set_index(["metric", "cell"])
    single = table.loc["srcc"].loc[list(SYSTEMS)]
    assert table.loc[("srcc", "within systems"), "ceiling"] == pytest.approx(
        np.average(single["ceiling"], weights=single["n"])
    )
    assert table["low"].isna().all()


def test_order_of_rows_and_global_state_change_nothing():
    ratings = made()
    first = cell_ceilings(ratings, "score_range", n_resamples=40)
    np.random.seed(1)
    again = cell_ceilings(ratings.sample(frac=1, random_state=0), "score_range", n_resamples=40)
    pd.testing.assert_frame_equal(first, again, rtol=1e-9)


def test_without_systems():
    ratings = made(systems=False)
    table = cell_ceilings(ratings, "system", metrics=("srcc",), n_resamples=0).set_index("cell")
    assert table.loc["all", "ceiling"] > 0.5
    assert table.loc["tango", "note"] == "no system known"
    assert math.isnan(table.loc["within systems", "ceiling"])
    ranges = cell_ceilings(ratings, "score_range", metrics=("srcc",), n_resamples=0).set_index("cell")
    assert ranges["ceiling"].notna().sum() == 2
    assert ranges.loc["<=5 natural", "note"] == "no system known"


def test_cells_too_small_and_systems_modelled_together():
    ratings = made(120)
    few = [ratings[ratings["system"] == system].groupby("audio").ngroup() < n for system, n in
           (("tango", 3), ("tango2", 10))]  # fmt: skip
    kept = ratings[~ratings["system"].isin(("tango", "tango2"))]
    kept = pd.concat([kept, *(ratings.loc[part.index[part]] for part in few)])
    table = cell_ceilings(kept, "system", metrics=("srcc",), n_resamples=30).set_index("cell")
    assert table.loc["tango", "note"] == "fewer than 4 pairs"
    assert math.isnan(table.loc["tango", "ceiling"])
    assert table.loc["tango2", "note"].startswith("few pairs: true values of ")
    assert 0 < table.loc["tango2", "ceiling"] < 1
    assert "without tango" in table.loc["within systems", "note"]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda r: r.drop_duplicates("audio"), "no pair with 2 ratings"),
        (lambda r: r.assign(rating=5), "all ratings are equal"),
    ],
)
def test_what_cannot_be_known_is_marked(change, note):
    for by in TABLES:
        table = cell_ceilings(change(made(90)), by, n_resamples=20)
        assert table["ceiling"].isna().all()
        assert set(table["note"]) <= {note, "no such pairs", "no system with enough pairs"}


def test_listeners_who_agree_or_know_nothing():
    ratings = made(300, systems=False)
    same = ratings.assign(rating=ratings["audio"].str[:7].astype(int) % 11)
    table = cell_ceilings(same, metrics=("srcc", "lcc", "mse"), n_resamples=0).set_index("metric")["ceiling"]
    assert table["lcc"] == pytest.approx(1)
    assert table["srcc"] > 0.95
    assert table["mse"] == pytest.approx(0, abs=1e-12)
    guessed = ratings.assign(rating=np.random.default_rng(0).integers(11, size=len(ratings)))
    table = cell_ceilings(guessed, metrics=("srcc", "lcc"), n_resamples=0).set_index("metric")["ceiling"]
    assert table["srcc"] < 0.4


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda r: r.assign(rating=r["rating"] + 0.5), {}, "needs single ratings, whole numbers.*[.]5 is among them"),
        (lambda r: r.drop(columns="text"), {}, "ratings has no column text"),
        (lambda r: r.assign(is_anchor=True), {}, "are of anchors"),
        (lambda r: r, {"by": "listener"}, "no ceilings by 'listener'. Available: overall, system, score_range"),
        (lambda r: r, {"metrics": ("rho",)}, "unknown metric: rho"),
        (lambda r: r, {"n_resamples": -1}, "n_resamples must be a whole number of at least 0"),
        (lambda r: r, {"seed": 1.5}, "seed=1.5"),
        (lambda r: r, {"level": 95}, "level must lie between 0 and 1"),
        (lambda r: r.assign(system=[None, *r["system"][1:]]), {}, "one pair stands under two systems"),
    ],
)
def test_bad_input_is_named(change, arguments, message):
    with pytest.raises(ValueError, match=message):
        cell_ceilings(change(made(30)), **arguments)


def test_intervals_without_a_new_fit_agree_with_new_fits():
    """First-order effects against 12 fits to the resampled captions written out."""
    rated = RatedPairs.of(made(900, systems=False))
    expected = ExpectedCells(rated, rated.fit(), "score_range", 5.0)
    names = ["<=5 all", ">5 all"]
    plan = ResamplePlan.draw(rated.pairs["text"], n_resamples=12, seed=0)
    effect = expected.influence(names, ("srcc",))[:, :, 0]
    first = np.cumsum(rated.n_ratings) - rated.n_ratings
    quick, fitted = [], []
    for resample in range(plan.n_resamples):
        rows = plan.indices(resample)
        size = rated.n_ratings[rows]
        values = np.concatenate([rated.values[first[row] : first[row] + rated.n_ratings[row]] for row in rows])
        again = RatedPairs(values, np.repeat(np.arange(len(rows)), size), rated.pairs.iloc[rows].reset_index(drop=True))
        fitted.append(ExpectedCells(again, again.fit(), "score_range", 5.0).values(names, ("srcc",))[:, 0])
        weights = plan.weights(resample, resample + 1)[:, 0] - 1
        quick.append(expected.values(names, ("srcc",))[:, 0] + weights @ effect)
    for cell in range(2):
        assert np.corrcoef(np.array(quick)[:, cell], np.array(fitted)[:, cell])[0, 1] > 0.85
        assert np.std(np.array(quick)[:, cell]) == pytest.approx(np.std(np.array(fitted)[:, cell]), rel=0.4)


def test_model_needs_what_it_says():
    with pytest.raises(ValueError, match="no pair has 2 ratings"):
        fit_rating_model(np.array([1.0, 2]), np.array([0, 1]), np.array(["", ""], dtype=object))
    with pytest.raises(ValueError, match="all ratings are 3"):
        fit_rating_model(np.array([3.0, 3, 3]), np.array([0, 0, 1]), np.array(["", ""], dtype=object))


@pytest.fixture(scope="module")
def real_test_ratings(real_ratings):
    kept = relate.screen_listeners(real_ratings, max_anchor_mean=2.0).ratings
    return kept[kept["split"] == "test"]


def test_real_ceilings(real_test_ratings):
    table = cell_ceilings(real_test_ratings, "system", n_resamples=200).set_index(["cell", "metric"])
    assert table.loc[("all", "srcc"), "ceiling"] == pytest.approx(0.79, abs=0.01)
    # the rating model's own variance components are those of the ratings, cell by cell
    rated = RatedPairs.of(real_test_ratings)
    expected = ExpectedCells(rated, rated.fit(), "system", 5.0)
    for cell in ("all", "synthesized", *SYSTEMS):
        low, high = table.loc[(cell, "lcc"), ["low", "high"]]
        assert low < expected.values([cell], ("lcc",))[0, 0] < high
    ranges = cell_ceilings(real_test_ratings, "score_range", metrics=("srcc",), n_resamples=200).set_index("cell")
    assert (ranges["ceiling"] < table.loc[("all", "srcc"), "low"]).all()  # the cut lowers the ceiling
    assert ranges.loc["<=5 all", "ceiling"] == pytest.approx(0.49, abs=0.02)


def test_real_halves_agree_as_the_model_says(real_test_ratings):
    """SRCC between two random halves of the raters, never fitted: drawn from the model against the ratings."""
    rated = RatedPairs.of(real_test_ratings)
    model, rng = rated.fit(), np.random.default_rng(0)
    several, drawn = rated.n_ratings >= 2, []
    for _ in range(40):
        half = rated.n_ratings // 2 + (rated.n_ratings % 2) * rng.integers(2, size=len(several))
        place = model.draw_places(rng)
        first = model.draw_means(place, np.where(several, half, 1), rng)
        second = model.draw_means(place, np.where(several, rated.n_ratings - half, 1), rng)
        drawn.append([stats.spearmanr(first[rows], second[rows]).statistic for rows in
                      [several, *(several & (rated.systems == system) for system in SYSTEMS)]])  # fmt: skip
    expected, spread = np.mean(drawn, axis=0), np.std(drawn, axis=0)
    for place, system in enumerate([None, *SYSTEMS]):
        part = real_test_ratings if system is None else real_test_ratings[real_test_ratings["system"] == system]
        observed = human_ceiling(part, n_splits=20, n_resamples=0).split_half_srcc
        assert observed == pytest.approx(expected[place], abs=spread[place]), system


def test_a_model_that_does_not_fit_is_marked():
    """Natural pairs alike, listeners of two minds about each of them: noise that the other systems do not have."""
    ratings = made(900)
    natural = ratings["system"] == "natural"
    split = np.random.default_rng(0).random(len(ratings)) < 0.5
    split = np.where(split, 0, 10)
    table = cell_ceilings(ratings.assign(rating=np.where(natural, split, ratings["rating"])), "system", n_resamples=200)
    notes = table.set_index("cell")["note"].groupby("cell").first()
    assert notes["natural"].startswith("rating model off: its lcc is ")
    assert not cell_ceilings(ratings, "system", n_resamples=200)["note"].str.contains("model off").any()


def test_real_cut_leaves_what_the_model_says(real_test_ratings):
    """Shares of pairs below the cut, never fitted: the model against the ratings, for each system."""
    rated = RatedPairs.of(real_test_ratings)
    model = rated.fit()
    expected = ExpectedCells(rated, model, "score_range", 5.0)
    spread = expected.by_system(expected.sizes(), model.probabilities) * model.weights[expected.stratum][:, :, None]
    share = spread[:, :, expected.means.mean <= 5].sum(axis=(1, 2)) / spread.sum(axis=(1, 2))
    for unit, found in zip(expected.units, share, strict=True):
        mean = rated.pairs.loc[rated.systems == unit, "mean_rating"]
        assert found == pytest.approx((mean <= 5).mean(), abs=0.03)


def test_screened_ceilings(real_ratings):
    some = real_ratings[real_ratings["listener"].isin(sorted(real_ratings["listener"].unique())[:150])]
    table = screened_ceilings({"REL": some}, by="overall", metrics=("lcc",), n_resamples=20)
    assert list(table.columns[:4]) == ["file", "screening", "listeners", "cell"]
    before, after = (table[table["screening"] == name].iloc[0] for name in ("before", "after"))
    assert before["listeners"] > after["listeners"]
    assert before["n_ratings"] > after["n_ratings"]
    kept = relate.screen_listeners(some).ratings
    kept = kept[kept["split"] == "test"]
    assert after["ceiling"] == pytest.approx(human_ceiling(kept, n_splits=1, n_resamples=0).lcc_ceiling)
    with pytest.raises(ValueError, match="REL: no ratings of the split 'dev'"):
        screened_ceilings({"REL": some}, split="dev")
    with pytest.raises(ValueError, match="no files given"):
        screened_ceilings({})


@pytest.mark.slow
def test_three_files_before_and_after(whole_relate_root):
    files = {name: relate.load_ratings(whole_relate_root / "scores" / f"{name}.csv") for name in ("REL", "IS", "OS")}
    table = screened_ceilings(files, by="overall", n_resamples=100)
    assert len(table) == 12
    assert table["ceiling"].between(0.5, 0.95).all()
