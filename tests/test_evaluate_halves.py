"""Table III cut by raters who do not take part, and what a homogeneous score would show there."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from humanclap import relate
from humanclap.evaluate import breakdown, halves_by_raters, homogeneous_score
from humanclap.evaluate.halves import half_tables
from humanclap.evaluate.rank_influence import srcc_influence
from humanclap.evaluate.rated_pairs import ExpectedCells, RatedPairs
from humanclap.evaluate.split_half import random_halves

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
ceiling_worlds = SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "ceiling_worlds.py")))
CELLS = ["<=5 all", "<=5 natural", "<=5 synthesized", ">5 all", ">5 natural", ">5 synthesized"]
SYSTEMS = np.array(["natural", "audioldm", "tango2"], dtype=object)


def study(n_pairs=600, seed=0, world=ceiling_worlds.normal_with_heaps) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Ratings, their pairs (aggregated), and each pair's true value."""
    ratings, true = ceiling_worlds.draw_pairs(world, n_pairs, np.random.default_rng([seed, 5]))
    ratings["system"] = SYSTEMS[ratings["audio"].str[:7].astype(int) % 3]
    pairs = ratings.groupby(["audio", "text", "system"], as_index=False)["rating"].mean()
    pairs = pairs.rename(columns={"rating": "mean_rating"}).assign(target=pairs["rating"] / 10)
    return ratings, pairs, true


def scored(pairs, true, share=0.5, models=("a", "b"), seed=0) -> pd.DataFrame:
    """A long score table of homogeneous scores: share of the true value, the rest noise."""
    rng = np.random.default_rng([seed, 6])
    standard = (true - true.mean()) / true.std()
    return pd.concat(
        [pairs.assign(model=m, clap_score=share * standard + math.sqrt(1 - share**2) * rng.normal(size=len(true)))
         for m in models],
        ignore_index=True,
    )  # fmt: skip


def test_influence_is_the_derivative_of_scipys_correlation_of_weighted_pairs():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 12, size=40) / 3
    y = np.round(x + rng.normal(size=40))
    srcc, influence = srcc_influence(x, y)
    assert srcc == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert influence.sum() == pytest.approx(0, abs=1e-9)
    # a pair that stands there once more in 2,000 copies of everything weighs 1 + 1/2000
    copies = 2000
    for pair in (0, 7, 23):
        again = [np.append(np.repeat(v, copies), v[pair]) for v in (x, y)]
        moved = (stats.spearmanr(*again).statistic - srcc) * copies
        assert moved == pytest.approx(influence[pair], rel=0.01, abs=1e-4)


def test_influence_of_a_constant_is_undefined():
    srcc, influence = srcc_influence(np.ones(5), np.arange(5.0))
    assert math.isnan(srcc) and np.isnan(influence).all()


def test_halves_equal_a_loop_written_out():
    ratings, pairs, true = study(120)
    table = scored(pairs, true, models=("a",))
    found = halves_by_raters(table, ratings, n_splits=3, n_resamples=0, seed=2).set_index("cell")
    rated = RatedPairs.of(ratings)
    halves, several = random_halves(rated.values, rated.pair, rated.n_ratings, 3, 2)
    score = table.set_index("audio")["clap_score"]
    expected = {cell: [] for cell in CELLS}
    kept = rated.pairs[several]
    for first, second in halves:
        for cell in CELLS:
            side, group = cell.split(" ")
            rows = (first <= 5) if side == "<=5" else (first > 5)
            if group != "all":
                rows = rows & ((kept["system"] == "natural") == (group == "natural")).to_numpy()
            expected[cell].append(stats.spearmanr(score[kept["audio"][rows]], second[rows]).statistic)
    for cell in CELLS:
        assert found.loc[cell, "value"] == pytest.approx(np.mean(expected[cell]), abs=1e-12)
        assert found.loc[cell, "split_sd"] == pytest.approx(np.std(expected[cell], ddof=1), abs=1e-12)
    raters = ratings.groupby(["audio", "system"]).size().reset_index(name="n")
    assert found.loc["<=5 all", "n_single"] == (raters["n"] == 1).sum() > 0
    assert found.loc[">5 natural", "n_single"] == (raters["n"][raters["system"] == "natural"] == 1).sum()
    assert found.loc["<=5 all", "n"] + found.loc[">5 all", "n"] == pytest.approx((raters["n"] > 1).sum())


def test_halves_interval_agrees_with_captions_drawn_and_written_out():
    """First-order intervals against a plain bootstrap over captions of the same splits."""
    ratings, pairs, true = study(450)
    table = scored(pairs, true, 0.7, ("a",))
    found = halves_by_raters(table, ratings, n_splits=4, n_resamples=1000).set_index("cell")
    rated = RatedPairs.of(ratings)
    halves, several = random_halves(rated.values, rated.pair, rated.n_ratings, 4, 0)
    kept = rated.pairs[several].reset_index(drop=True)
    score = table.set_index("audio")["clap_score"][kept["audio"]].to_numpy()
    groups = [rows.to_numpy() for rows in kept.groupby("text").groups.values()]
    rng = np.random.default_rng(1)
    samples = []
    for _ in range(300):
        rows = np.concatenate([groups[g] for g in rng.integers(len(groups), size=len(groups))])
        samples.append(np.mean([
            stats.spearmanr(score[rows][first[rows] > 5], second[rows][first[rows] > 5]).statistic
            for first, second in halves
        ]))  # fmt: skip
    assert found.loc[">5 all", "high"] - found.loc[">5 all", "low"] == pytest.approx(
        np.diff(np.quantile(samples, [0.025, 0.975]))[0], rel=0.2
    )
    assert found.loc[">5 all", "low"] == pytest.approx(np.quantile(samples, 0.025), abs=0.03)


def test_ceiling_of_halves_is_what_simulated_halves_show():
    """The exact tables against ratings drawn from the fitted model, halved and correlated one by one."""
    ratings, _, _ = study(600)
    rated = RatedPairs.of(ratings)
    model = rated.fit()
    expected = ExpectedCells(rated, model, "score_range", 5.0)
    low, high, mean = half_tables(expected)
    rng = np.random.default_rng(3)
    several = rated.n_ratings >= 2
    true, first, second = [], [], []
    for _ in range(60):
        sizes = rated.n_ratings // 2 + (rated.n_ratings % 2) * rng.integers(2, size=len(several))
        place = model.draw_places(rng)
        for values, drawn in (
            (true, model.true_value[place] + 1e-9 * rng.random(len(place))),  # places of a bin in random order
            (first, model.draw_means(place, np.where(several, sizes, 1), rng)),
            (second, model.draw_means(place, np.where(several, rated.n_ratings - sizes, 1), rng)),
        ):
            values.append(drawn[several])
    true, first, second = map(np.concatenate, (true, first, second))
    for cell, rows in (("<=5 all", first <= 5), (">5 all", first > 5)):
        found = expected.join(cell, low, high, model.true_value, mean).metrics(("srcc", "ktau"))
        # 600 pairs' own places recur in no study, so the error is that of so many pairs
        assert found["srcc"] == pytest.approx(stats.spearmanr(true[rows], second[rows]).statistic, abs=0.02)
        assert found["ktau"] == pytest.approx(stats.kendalltau(true[rows], second[rows]).statistic, abs=0.02)


def test_the_cut_by_others_takes_the_artefact_away():
    """A perfect score: in the paper's lower half its SRCC falls, in the half that other raters cut it hardly does."""
    ratings, pairs, true = study(2400)
    table = pairs.assign(model="perfect", clap_score=true)
    paper = breakdown(table, "score_range", n_resamples=20).set_index("cell")["value"]
    halves = halves_by_raters(table, ratings, n_splits=10, n_resamples=20).set_index("cell")
    # half of the raters say less than all of them, and still they say more about the lower half
    assert halves.loc["<=5 all", "value"] > paper["<=5 all"] + 0.02
    assert ((halves["value"] - halves["ceiling"]).abs() < 0.06).all()


def test_training_seeds_are_averaged_and_their_spread_shown():
    ratings, pairs, true = study(240)
    several = pd.concat(
        [scored(pairs, true, 0.5, ("tuned",), seed).assign(training_seed=seed) for seed in range(3)]
        + [scored(pairs, true, 0.2, ("base",)).assign(training_seed=np.nan)],
        ignore_index=True,
    )
    for function, arguments in ((halves_by_raters, {"n_splits": 4}), (homogeneous_score, {"n_simulations": 4})):
        together = function(several, ratings, **arguments).set_index(["model", "cell"])
        alone = [
            function(several[several["training_seed"] == seed], ratings, **arguments).set_index("cell")["value"]
            for seed in range(3)
        ]
        assert together.loc[("tuned", ">5 all"), "value"] == pytest.approx(np.mean([one[">5 all"] for one in alone]))
    halves = halves_by_raters(several, ratings, n_splits=4).set_index(["model", "cell"])
    one = [halves_by_raters(several[several["training_seed"] == s], ratings, n_splits=4) for s in range(3)]
    values = [table.set_index("cell").loc["<=5 all", "value"] for table in one]
    assert halves.loc[("tuned", "<=5 all"), "seed_sd"] == pytest.approx(np.std(values, ddof=1))
    assert list(halves["n_seeds"].groupby("model").first()[["base", "tuned"]]) == [1, 3]
    assert math.isnan(halves.loc[("base", "<=5 all"), "seed_sd"])


def test_a_homogeneous_score_shows_what_is_expected_of_it():
    """Made-up studies of a score that IS homogeneous: rarely outside its range, and not always on one side of it."""
    verdicts, gaps, spreads = [], [], []
    for seed in range(5):
        ratings, pairs, true = study(600, seed, ceiling_worlds.skewed)
        found = homogeneous_score(scored(pairs, true, 0.45, ("a",), seed), ratings, n_simulations=40, seed=seed)
        cells = found[found["cell"].isin(["<=5 all", ">5 all"])]
        verdicts += list(cells["verdict"] == "as expected")
        gaps.append((cells["value"] - cells["expected"]).to_numpy())
        spreads.append((cells["high"] - cells["low"]).to_numpy() / (2 * 1.96))
    assert np.mean(verdicts) >= 0.7
    standard_error = np.sqrt(np.mean(np.square(spreads), axis=0) / len(gaps))
    assert (np.abs(np.mean(gaps, axis=0)) < 3 * standard_error).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["skewed", "bimodal", "ambiguous pairs", "floor and ceiling"])
def test_homogeneous_score_lies_within_002_of_the_truth(name):
    """What a homogeneous score shows in 150,000 pairs, by scipy, against what is expected from 2,892 pairs' ratings."""
    world, share, rng = ceiling_worlds.WORLDS[name], 0.45, np.random.default_rng(6)

    def mix(true):
        return share * (true - true.mean()) / true.std() + math.sqrt(1 - share**2) * rng.normal(size=len(true))

    ratings, true = ceiling_worlds.draw_pairs(world, 150_000, np.random.default_rng(5))
    mean = ratings.groupby("audio")["rating"].mean().to_numpy()
    overall, low, high = np.mean([
        [stats.spearmanr(score[rows], mean[rows]).statistic for rows in (mean >= 0, mean <= 5, mean > 5)]
        for score in (mix(true) for _ in range(8))
    ], axis=0)  # fmt: skip
    expected = []
    for seed in range(6):
        ratings, pairs, true = study(2892, seed, world)
        found = homogeneous_score(
            pairs.assign(model="a", clap_score=mix(true)), ratings, n_simulations=60, seed=seed
        ).set_index("cell")
        # a study's score has an overall SRCC of its own: brought to that of the many pairs
        expected.append(found.loc[["<=5 all", ">5 all"], "expected"] * overall / found["overall"].iloc[0])
    np.testing.assert_allclose(np.mean(expected, axis=0), [low, high], atol=0.02)


def test_a_score_that_is_deaf_below_the_cut_is_found_out():
    ratings, pairs, true = study(1200)
    table = scored(pairs, true, 0.6, ("a",))
    noise = np.random.default_rng(1).permutation(table["clap_score"].to_numpy())
    table["clap_score"] = np.where(true > 6, table["clap_score"], noise - 2)  # knows they are bad, not how bad
    found = homogeneous_score(table, ratings, n_simulations=60).set_index("cell")
    assert found.loc["<=5 all", "verdict"] == "less than expected"
    assert (found["overall"] > found["value"]).all()


def test_homogeneous_by_system_and_its_columns():
    ratings, pairs, true = study(300)
    table = scored(pairs, true, 0.5)
    found = homogeneous_score(table, ratings, "system", n_simulations=30)
    assert list(found.columns) == [
        "model", "cell", "metric", "value", "expected", "low", "high", "verdict", "overall", "n", "n_simulations",
        "note",
    ]  # fmt: skip
    one = found[found["model"] == "a"].set_index("cell")
    known = breakdown(table, "system", n_resamples=10)
    known = known[(known["model"] == "a") & (known["metric"] == "srcc")].set_index("cell")["value"]
    defined = one[one["value"].notna()]
    np.testing.assert_allclose(defined["value"], known[defined.index], atol=1e-12)
    assert one.loc["all", "note"] == "equal by construction"
    assert one.loc["all", "expected"] == pytest.approx(one.loc["all", "value"], abs=0.01)
    assert one.loc["tango", "note"] == "no such pairs"
    assert one.loc["within systems", "low"] < one.loc["within systems", "expected"] < one.loc["within systems", "high"]


def test_better_than_perfect_and_worse_than_nothing():
    ratings, pairs, true = study(150)
    table = pd.concat([
        pairs.assign(model="leak", clap_score=pairs["target"]), pairs.assign(model="against", clap_score=-true)
    ])  # fmt: skip
    found = homogeneous_score(table, ratings, n_simulations=20).set_index(["model", "cell"])
    assert found.loc[("leak", ">5 all"), "verdict"] == "more than expected"  # no score can know the listeners' noise
    assert abs(found.loc[("against", ">5 all"), "expected"]) < 0.2  # the nearest: noise


def test_order_of_rows_changes_nothing():
    ratings, pairs, true = study(150)
    table = scored(pairs, true)
    for function, arguments in ((halves_by_raters, {"n_splits": 3}), (homogeneous_score, {"n_simulations": 5})):
        first = function(table, ratings, **arguments)
        again = function(table.sample(frac=1, random_state=1).sort_values("model"), ratings[::-1], **arguments)
        pd.testing.assert_frame_equal(first, again, rtol=1e-9)


def test_what_cannot_be_known_is_marked():
    ratings, pairs, true = study(60)
    single = ratings.drop_duplicates("audio")
    pairs = pairs.assign(target=single.set_index("audio")["rating"][pairs["audio"]].to_numpy() / 10)
    table = scored(pairs.assign(mean_rating=10 * pairs["target"]), true)
    halves = halves_by_raters(table, single, n_splits=2)
    assert halves["value"].isna().all() and (halves["n"] == 0).all()
    assert halves["note"].str.contains("fewer than 4 pairs").all()
    homogeneous = homogeneous_score(table, single, n_simulations=3)
    assert homogeneous["expected"].isna().all()
    assert (homogeneous["note"] == "no pair with 2 ratings").all()


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda s, r: (s, r[r["audio"] != r["audio"].iloc[0]]), {}, "1 of 60 scored pairs have no ratings"),
        (lambda s, r: (s, r.drop_duplicates("audio")), {}, "targets are not a tenth of the pair's mean rating"),
        (lambda s, r: (s.drop(columns="clap_score"), r), {}, "no column clap_score"),
        (lambda s, r: (s, r.assign(is_anchor=True)), {}, "are of anchors"),
        (lambda s, r: (s, r), {"seed": -1}, "seed=-1"),
        (lambda s, r: (s, r), {"level": 2}, "level must lie between 0 and 1"),
    ],
)
def test_bad_input_is_named(change, arguments, message):
    ratings, pairs, true = study(60)
    for function in (halves_by_raters, homogeneous_score):
        with pytest.raises(ValueError, match=message):
            function(*change(scored(pairs, true), ratings), **arguments)


def test_further_bad_arguments_are_named():
    ratings, pairs, true = study(60)
    table = scored(pairs, true)
    with pytest.raises(ValueError, match="n_splits must be a whole number of at least 1"):
        halves_by_raters(table, ratings, n_splits=0)
    with pytest.raises(ValueError, match="n_simulations must be a whole number of at least 1"):
        homogeneous_score(table, ratings, n_simulations=0)
    with pytest.raises(ValueError, match="compared by system, score_range, not by 'overall'"):
        homogeneous_score(table, ratings, "overall")


def test_real_halves_have_a_higher_ceiling_where_it_matters(real_ratings):
    kept = relate.screen_listeners(real_ratings, max_anchor_mean=2.0).ratings
    kept = kept[kept["split"] == "test"]
    pairs = relate.aggregate_pairs(kept)
    score = np.random.default_rng(0).normal(size=len(pairs))
    found = halves_by_raters(pairs.assign(model="noise", clap_score=score), kept, n_splits=5, n_resamples=100)
    found = found.set_index("cell")
    assert found["n_single"]["<=5 all"] == (pairs["n_ratings"] == 1).sum()
    assert (found["low"] < 0.08).all() and (found["high"] > -0.08).all()
    assert found.loc["<=5 all", "ceiling"] > 0.6  # 0.49 under the paper's cut, with all raters
