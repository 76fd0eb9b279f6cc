"""What is drawn is what the table says, read back from the artists, and clear errors for what can't be drawn."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import plot_tables as tables
import pytest
from statsmodels.nonparametric.smoothers_lowess import lowess

from humanclap import evaluate, plots
from humanclap.plots.parts import cell_name, number, shortened
from humanclap.plots.scatter import lowess_curve
from humanclap.plots.systems import spread


def points(axis, gid):
    """Positions of all marks with that gid, in the order of drawing: [n, 2]."""
    found = [np.asarray(c.get_offsets()) for c in axis.collections if c.get_gid() == gid]
    return np.concatenate(found) if found else np.empty((0, 2))


def lines(axis, gid):
    """Ends of all straight lines with that gid: [n, 2, 2]."""
    return np.array(
        [segment for c in axis.collections if c.get_gid() == gid for segment in c.get_segments() if len(segment)]
    )


def curves(axis, gid):
    return [np.array(line.get_xydata(), float) for line in axis.lines if line.get_gid() == gid]


def words(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


def shown(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def ends_of(rows, *names):
    return rows[list(names)].to_numpy(float)


# --- scatter ---


def test_scatter_counts_every_pair_once_and_writes_the_mean_of_the_low_rated():
    scores = tables.score_table(n=300)
    figure = plots.score_scatter(scores, ["wsce+mae", "laion-clap"], low_rating=3)
    for axis, model in zip(figure.axes, ("wsce+mae", "laion-clap")):
        rows = scores[scores["model"] == model]
        (hexagons,) = [c for c in axis.collections if c.get_gid() == "pairs"]
        assert hexagons.get_array().sum() == len(rows) == 300
        low = rows.loc[rows["mean_rating"] <= 3, "clap_score"]
        assert f"rated ≤ 3: mean score {low.mean():.2f}\n{len(low)} of 300 pairs" in words(figure)
    assert len({(c.norm.vmin, c.norm.vmax) for a in figure.axes for c in a.collections if c.get_gid() == "pairs"}) == 1
    assert [a.get_gid() for a in figure.axes[0].lines if a.get_gid()] == ["lowess"]


def test_scatter_of_few_pairs_shows_each_of_them():
    scores = tables.score_table(("mae",), n=50)
    axis = plots.score_scatter(scores, ["mae"]).axes[0]
    np.testing.assert_array_equal(points(axis, "pairs"), scores[["mean_rating", "clap_score"]])


def test_scatter_marginals_are_the_two_distributions():
    scores = tables.score_table(("mae",), n=300)
    axis = plots.score_scatter(scores, ["mae"]).axes[0]
    top, side = axis.child_axes
    across = [bar.get_height() for bar in top.patches if bar.get_gid() == "ratings"]
    upward = [bar.get_width() for bar in side.patches if bar.get_gid() == "scores"]
    np.testing.assert_array_equal(across, np.histogram(scores["mean_rating"], np.linspace(0, 10, 21))[0])
    np.testing.assert_array_equal(upward, np.histogram(scores["clap_score"], np.linspace(0, 1, 21))[0])


def test_the_curve_is_lowess_of_score_on_rating():
    scores = tables.score_table(("mae",), n=200)
    x, y = scores["mean_rating"].to_numpy(), scores["clap_score"].to_numpy()
    curve = lowess_curve(x, y)
    expected = lowess(y, x, frac=0.5, it=0, return_sorted=False)
    np.testing.assert_allclose(np.interp(x, curve["mean_rating"], curve["clap_score"]), expected, atol=1e-12)
    (drawn,) = curves(plots.score_scatter(scores, ["mae"]).axes[0], "lowess")
    np.testing.assert_array_equal(drawn, curve)


def test_lowess_follows_a_straight_line_and_the_mean_of_a_clipped_score():
    x = np.linspace(0, 10, 60)
    curve = lowess_curve(x, 0.1 + 0.05 * x)
    np.testing.assert_allclose(curve["clap_score"], 0.1 + 0.05 * curve["mean_rating"], atol=1e-9)
    x = np.repeat(np.arange(11.0), 20)
    mostly_zero = np.tile(np.repeat([0.0, 0.5], [15, 5]), 11)  # a quarter is 0.5 everywhere
    np.testing.assert_allclose(lowess_curve(x, mostly_zero)["clap_score"], 0.125, atol=1e-9)


@pytest.mark.parametrize("rating", [np.arange(9.0), np.repeat([1.0, 2, 3], 20)])
def test_no_curve_through_too_few_pairs_or_ratings(rating):
    assert len(lowess_curve(rating, np.ones(len(rating)))) == 0


def test_scatter_counts_what_it_leaves_out_and_pools_seeds():
    scores = tables.score_table(("wsce+mae",), n=240, seeds=3)
    text = next(word for word in words(plots.score_scatter(scores, ["wsce+mae"])) if "rated" in word)
    assert text.endswith("of 240 pairs × 3 seeds")
    scores = tables.score_table(("mae",), n=240)
    scores.loc[:4, "clap_score"] = np.nan
    text = next(word for word in words(plots.score_scatter(scores, ["mae"])) if "rated" in word)
    assert text.endswith("of 235 pairs\n5 without a value")


# --- Tables I to III ---


def test_forest_draws_values_intervals_floor_ceiling_seeds_and_paper():
    table = tables.cell_table(tables.SEVEN, ("all",)).assign(paper=np.linspace(0.2, 0.5, 7), mark="*†")
    figure = plots.overall_forest(table)
    axis = figure.axes[0]
    places = np.arange(7)[::-1]
    np.testing.assert_allclose(points(axis, "value"), np.stack([table["value"], places], axis=1))
    np.testing.assert_allclose(lines(axis, "interval")[:, :, 0], ends_of(table, "low", "high"))
    np.testing.assert_allclose(lines(axis, "floor")[:, 0, 0], table["floor"])
    np.testing.assert_allclose(lines(axis, "ceiling")[:, 0, 0], table["ceiling"])
    np.testing.assert_allclose(points(axis, "paper")[:, 0], table["paper"])
    seeds = table[table["seed_sd"].notna()]
    spread_ = lines(axis, "seeds")[:, :, 0]
    np.testing.assert_allclose(spread_, np.stack([seeds["value"] - 0.02, seeds["value"] + 0.02], axis=1))
    assert [label.get_text() for label in axis.get_yticklabels()][0] == "LAION CLAP"
    first = table.iloc[0]
    assert f"{first['value']:.3f} [{first['low']:.3f}, {first['high']:.3f}] *†" in words(figure)
    assert f"never listens: {table['floor'][0]:.3f}" in legend(figure)
    assert f"SRCC with the mean rating, n = {table['n'][0]:,}" in words(figure)
    assert [line for line in legend(figure) if line.startswith(("*", "†"))]


def test_forest_takes_floor_and_ceiling_as_numbers_and_the_cell_that_is_asked_for():
    table = tables.cell_table(("mae", "mse"))
    figure = plots.overall_forest(table, 0.11, np.nan, ceiling_name="people", cell="tango")
    axis = figure.axes[0]
    np.testing.assert_allclose(points(axis, "value")[:, 0], table.loc[table["cell"] == "tango", "value"])
    assert lines(axis, "floor")[:, 0, 0].tolist() == [0.11, 0.11] and len(lines(axis, "ceiling")) == 0
    assert legend(figure) == ["never listens: 0.110"]
    figure = plots.overall_forest(table, 0.11, 0.8, ceiling_name="people")
    assert legend(figure) == ["never listens: 0.110", "people: 0.800"]


def test_a_model_without_a_value_keeps_its_row_and_says_why():
    table = tables.cell_table(tables.SEVEN[:3], ("all",))
    table.loc[1, ["value", "low", "high"]] = np.nan
    table.loc[1, "note"] = "fewer than 4 pairs"
    figure = plots.overall_forest(table)
    assert points(figure.axes[0], "value")[:, 1].tolist() == [2, 0]
    assert "no value: fewer than 4 pairs" in words(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "LAION CLAP",
        "MS CLAP 2023",
        "wSCE + MSE",
    ]


def test_dumbbells_join_two_models_between_floor_and_ceiling():
    table = tables.cell_table(("mae", "laion-clap", "wsce"))
    figure = plots.dumbbells(table, "laion-clap", "mae")
    axis = figure.axes[0]
    before, after = (table[table["model"] == model] for model in ("laion-clap", "mae"))
    places = np.arange(len(before))[::-1]
    values = points(axis, "value")
    np.testing.assert_allclose(values[:, 0], np.concatenate([before["value"], after["value"]]))
    np.testing.assert_allclose(np.round(values[:, 1]), np.concatenate([places, places]))
    np.testing.assert_allclose(lines(axis, "change")[:, :, 0], np.stack([before["value"], after["value"]], axis=1))
    np.testing.assert_allclose(
        lines(axis, "interval")[:, :, 0],
        np.concatenate([ends_of(before, "low", "high"), ends_of(after, "low", "high")]),
    )
    np.testing.assert_allclose(lines(axis, "floor")[:, 0, 0], before["floor"])
    np.testing.assert_allclose(lines(axis, "ceiling")[:, 0, 0], before["ceiling"])
    sizes = dict(zip(before["cell"], before["n"]))
    assert [t.get_text().replace("\n", " ") for t in axis.get_yticklabels()][
        1
    ] == f"AudioLDM (n = {sizes['audioldm']:,})"
    assert legend(figure) == ["LAION CLAP", "MAE", "never listens", "ceiling"]


def test_dumbbells_of_one_sided_cells_mark_what_is_missing():
    table = tables.cell_table(("laion-clap", "mae"), ("natural", "tango"))
    table.loc[0, ["value", "low", "high"]] = np.nan
    table = table[~((table["model"] == "mae") & (table["cell"] == "tango"))]
    figure = plots.dumbbells(table, "laion-clap", "mae")
    assert len(points(figure.axes[0], "value")) == 2
    assert {f"no value → {table.iloc[2]['value']:.2f}", f"{table.iloc[1]['value']:.2f} → no value"} <= set(
        words(figure)
    )


def test_figures_draw_the_tables_of_evaluate():
    scores = tables.score_table(("laion-clap", "wsce+mae"), n=240).drop(columns="training_seed")
    one = evaluate.breakdown(scores, n_resamples=50)
    drawn = points(plots.overall_forest(one, 0.1, 0.9, metric="lcc").axes[0], "value")[:, 0]
    np.testing.assert_allclose(drawn, one.loc[one["metric"] == "lcc", "value"])
    for by in ("system", "score_range"):
        table = evaluate.breakdown(scores, by, n_resamples=50)
        drawn = points(plots.dumbbells(table, "laion-clap", "wsce+mae").axes[0], "value")[:, 0]
        np.testing.assert_allclose(drawn, table["value"])


def test_figures_draw_the_statistics_of_evaluate():
    scores = seeded_scores()
    models = list(dict.fromkeys(scores["model"]))
    table = evaluate.paper_table(scores, floor="blind", n_resamples=50, correct=False, baseline="laion-clap")
    figure = plots.overall_forest(table)
    rows = table[table["metric"] == "srcc"]
    np.testing.assert_allclose(points(figure.axes[0], "value")[:, 0], rows["value"])
    assert len(lines(figure.axes[0], "seeds")) == 2 and f"never listens: {rows['floor'].iloc[0]:.3f}" in legend(figure)
    found = evaluate.ablation(scores, [("wsce+mae", "wsce+mse")], n_resamples=50, correct=False)
    np.testing.assert_allclose(
        points(plots.ablation(found).axes[0], "value")[:, 0], found.query("metric == 'srcc'")["difference"]
    )
    swapped = evaluate.swap_captions(scores.query("model == 'laion-clap'"))
    swapped = scores.merge(swapped[["audio", "text", "original_text"]].rename(columns={"text": "other"}), on="audio")
    swapped = swapped.assign(text=swapped["other"]).drop(columns="other")
    table = evaluate.listening_table(scores, swapped, n_resamples=50)
    figure = plots.listening(table)
    assert len(shown(figure)) == table["control"].nunique()
    np.testing.assert_allclose(
        points(figure.axes[1], "value")[:, 0], table[table["control"] == "partial SRCC"]["value"]
    )
    table = evaluate.system_means(scores, n_resamples=50)
    np.testing.assert_allclose(points(plots.system_means(table).axes[0], "value"), table.head(5)[["rating", "score"]])
    table = evaluate.preferences(scores, min_captions=3, n_resamples=50)
    assert len(shown(plots.preferences(table))) == table["systems"].nunique()
    kinds = ("n_events", "caption_length", "temporal")
    table = pd.concat([evaluate.breakdown(scores, by, n_resamples=50).assign(breakdown=by) for by in kinds])
    figure = plots.further_breakdowns(table)
    rows = table[table["breakdown"] == "temporal"]  # no caption has any: that cell is empty, and marked
    np.testing.assert_allclose(points(figure.axes[2], "value")[:, 1], rows["value"])
    assert [text.get_text() for text in figure.axes[2].texts] == ["no value"]
    halves = scores["text"].str.removeprefix("t").astype(int) % 2 == 0
    table = evaluate.calibrate(scores[halves], scores[~halves], n_resamples=50)
    drawn = points(plots.calibration_mse(table).axes[0], "value")
    by_map = table.set_index(["map", "model"])["mse"].loc[
        [(kind, m) for kind in ("none", "linear", "isotonic") for m in models]
    ]
    np.testing.assert_allclose(drawn[:, 0], by_map)
    one = scores[scores["model"] == "laion-clap"]
    curve = evaluate.reliability_curve(one["clap_score"], one["target"], groups=one["text"], n_resamples=50)
    np.testing.assert_allclose(points(plots.calibration(curve).axes[0], "value"), curve[["score", "target"]])


def seeded_scores():
    """A baseline without seeds and two variants with two each, on the same pairs; a blind guess for each pair."""
    scores = tables.score_table(("laion-clap", "wsce+mse", "wsce+mae"), n=240, seeds=2)
    return scores.assign(blind=np.tile(np.random.default_rng(0).random(240), 5), n_ratings=4, rating_std=1.0)


def test_figures_draw_what_evaluate_says_of_real_ratings(real_ratings):
    test = real_ratings[(real_ratings["split"] == "test") & ~real_ratings["is_anchor"]]
    table = evaluate.cell_ceilings(test, "system", metrics=("srcc",), n_resamples=0)
    np.testing.assert_allclose(points(plots.cell_ceilings(table).axes[0], "value")[:, 0], table["ceiling"])
    pairs = test.drop_duplicates(["audio", "text"])[["audio", "text"]].head(300)
    scores = pairs.assign(clap_score=np.random.default_rng(0).random(len(pairs)))
    table = evaluate.screening_rules(real_ratings, scores, n_raters=1, n_draws=5, n_resamples=20)
    figure = plots.screening_rules(table)
    for axis, (_, rows) in zip(figure.axes, table.groupby("pairs", sort=False)):
        np.testing.assert_allclose(points(axis, "value")[:, 0], rows["value"])


def test_a_homogeneous_scores_range_stands_behind_each_models_cells():
    table = tables.homogeneous_table()
    table.loc[1, ["value", "expected", "low", "high"]] = np.nan
    table.loc[1, "verdict"] = ""
    figure = plots.homogeneous(table)
    for axis, (_, rows) in zip(figure.axes, table.groupby("model", sort=False)):
        known = rows.dropna()
        np.testing.assert_allclose(points(axis, "value")[:, 0], known["value"])
        bars = lines(axis, "range")[:, :, 0]
        np.testing.assert_allclose(bars[np.isfinite(bars).all(axis=1)], ends_of(known, "low", "high"))
        expected = lines(axis, "expected")[:, 0, 0]
        np.testing.assert_allclose(expected[np.isfinite(expected)], known["expected"])
        sides = [text.get_text() for text in axis.texts]
        for side, row in zip(sides, rows.itertuples()):
            outside = row.value < row.low or row.value > row.high
            assert side.endswith(("less", "more")) == outside and side.startswith(number(row.value, 2))


# --- training ---


def test_learning_curves_show_each_seed_and_their_mean():
    table = tables.history_table(("mse", "wsce+mae"), seeds=3)
    loss, srcc = plots.learning_curves(table).axes
    for model, mean in zip(("mse", "wsce+mae"), curves(srcc, "mean")):
        seeds = table[table["model"] == model].pivot(index="epoch", columns="training_seed", values="validation_srcc")
        np.testing.assert_allclose(mean, np.stack([seeds.index, seeds.mean(axis=1)], axis=1))
    assert len(curves(srcc, "seed")) == 6 and len(curves(loss, "seed")) == 12
    first = table[(table["model"] == "mse") & (table["training_seed"] == 0)]
    scaled = first["validation_loss"] / first["validation_loss"].iloc[0]
    assert any(np.allclose(curve[:, 1], scaled) for curve in curves(loss, "seed"))
    kept = first.loc[first[first["epoch"] > 0]["validation_loss"].idxmin()]
    np.testing.assert_allclose(points(srcc, "kept")[0], [kept["epoch"], kept["validation_srcc"]])


def test_learning_curves_of_one_run_have_no_thin_lines_and_a_mean_ends_with_the_shortest_run():
    table = tables.history_table(("mse",), seeds=1).drop(columns="training_seed")
    figure = plots.learning_curves(table)
    assert not curves(figure.axes[1], "seed") and "one seed" not in legend(figure)
    table = tables.history_table(("mse",), seeds=2)
    table = table[~((table["training_seed"] == 1) & (table["epoch"] > 3))]
    (mean,) = curves(plots.learning_curves(table).axes[1], "mean")
    assert mean[-1, 0] == 3


def test_learning_curves_survive_a_run_without_validation():
    table = tables.history_table(("mse",), seeds=1).assign(validation_loss=np.nan, validation_srcc=np.nan)
    assert len(points(plots.learning_curves(table).axes[0], "kept")) == 0


def test_ablation_shows_captions_and_seeds_apart():
    table = tables.ablation_table(("all", "natural"))
    table.loc[3, ["seed_t_low", "seed_t_high", "seed_sd"]] = np.nan
    figure = plots.ablation(table)
    axis = figure.axes[0]
    np.testing.assert_allclose(points(axis, "value")[:, 0], table["difference"])
    np.testing.assert_allclose(lines(axis, "interval")[:, :, 0], ends_of(table, "low", "high"))
    np.testing.assert_allclose(lines(axis, "seed range")[:, :, 0], ends_of(table, "seed_min", "seed_max"))
    np.testing.assert_allclose(lines(axis, "seed interval")[:, :, 0], ends_of(table[:3], "seed_t_low", "seed_t_high"))
    sd = np.stack([table["difference"] - 0.02, table["difference"] + 0.02], axis=1)[:3]
    np.testing.assert_allclose(lines(axis, "seed sd")[:, :, 0], sd)
    assert (lines(axis, "interval")[:, 0, 1] > lines(axis, "seed range")[:, 0, 1]).all()  # not on each other
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[0] == "wSCE + MAE against MAE\nAll"
    assert {"3 seeds, SD 0.020", "3 seeds, SD no value"} <= set(words(figure))


# --- controls, systems, calibration, breakdowns ---


def test_each_control_has_its_panel_and_its_chance():
    table = tables.control_table()
    table.loc[0, ["value", "low", "high"]] = np.nan
    figure = plots.listening(table)
    kinds = list(dict.fromkeys(table["control"]))
    for axis, kind, chance in zip(figure.axes, kinds, (0, 0, 0.5)):
        rows = table[(table["control"] == kind) & table["value"].notna()]
        np.testing.assert_allclose(points(axis, "value")[:, 0], rows["value"])
        np.testing.assert_allclose(lines(axis, "interval")[:, :, 0], ends_of(rows, "low", "high"))
        (line,) = curves(axis, "chance")
        assert set(line[:, 0]) == {chance}
    assert words(figure).count("no value") == 1


def test_old_controls_keep_their_two_panels():
    kinds = ("true captions", "swapped captions", "matched against mismatched")
    table = tables.control_table(("mae", "mse"), kinds)
    left, right = plots.controls(table).axes
    per = {kind: table.loc[table["control"] == kind, "value"] for kind in kinds}
    np.testing.assert_allclose(points(left, "value")[:, 0], [*per[kinds[0]], *per[kinds[1]]])
    np.testing.assert_allclose(points(right, "value")[:, 0], per[kinds[2]])


def test_preferences_stand_between_floor_and_listeners():
    table = tables.preference_table(("mae", "mse"))
    figure = plots.preferences(table)
    for axis, (_, rows) in zip(figure.axes, table.groupby("systems", sort=False)):
        np.testing.assert_allclose(points(axis, "value")[:, 0], rows["value"])
        assert set(lines(axis, "floor")[:, 0, 0]) == {0.55} and set(lines(axis, "ceiling")[:, 0, 0]) == {0.8}
    assert "AudioLDM 2 – Tango\nn = 480" in words(figure)
    figure = plots.preferences(table.drop(columns=["floor", "half_agreement", "n"]))
    assert len(lines(figure.axes[0], "floor")) == 0 and legend(figure) == ["chance"]


def test_system_means_have_both_intervals_and_their_names():
    table = tables.system_table(("mae", "laion-clap"))
    table.loc[2, ["score", "score_low", "score_high"]] = np.nan
    figure = plots.system_means(table)
    for axis, (_, rows) in zip(figure.axes, table.groupby("model", sort=False)):
        known = rows.dropna()
        np.testing.assert_allclose(points(axis, "value"), ends_of(known, "rating", "score"))
        np.testing.assert_allclose(lines(axis, "rating")[:, :, 0], ends_of(known, "rating_low", "rating_high"))
        np.testing.assert_allclose(lines(axis, "score")[:, :, 1], ends_of(known, "score_low", "score_high"))
        named = {note.get_text(): note.xy for note in axis.texts}
        for row in known.itertuples():
            assert named[plots.SYSTEM_NAMES[row.system]] == (row.rating, row.score)
    assert "no value: AudioLDM 2" in words(figure)


def test_calibration_draws_every_bin_of_every_map():
    table = tables.reliability_table(("mae", "mse"))
    table.loc[3, ["score", "target", "low", "high"]] = np.nan
    figure = plots.calibration(table)
    for axis, (_, rows) in zip(figure.axes, table.groupby("model", sort=False)):
        known = rows.dropna()
        np.testing.assert_allclose(points(axis, "value"), ends_of(known, "score", "target"))
        np.testing.assert_allclose(lines(axis, "interval")[:, :, 1], ends_of(known, "low", "high"))
        assert curves(axis, "diagonal")[0].tolist() == [[0, 0], [1, 1]]
    assert legend(figure)[-1] == "calibrated"


def test_calibration_mse_draws_each_map_beside_the_constant():
    table = tables.mse_table(("mae", "mse"))
    axis = plots.calibration_mse(table).axes[0]
    order = table.sort_values("map", key=lambda m: m.map({"none": 0, "linear": 1, "isotonic": 2}), kind="stable")
    np.testing.assert_allclose(points(axis, "value")[:, 0], order["mse"])
    np.testing.assert_allclose(lines(axis, "interval")[:, :, 0], ends_of(order, "low", "high"))
    assert lines(axis, "constant")[:, 0, 0].tolist() == [0.07, 0.07]


def test_further_breakdowns_put_every_model_in_every_cell():
    table = tables.further_table(("mae", "mse"))
    figure = plots.further_breakdowns(table)
    for axis, (_, rows) in zip(figure.axes, table.groupby("breakdown", sort=False)):
        np.testing.assert_allclose(points(axis, "value")[:, 1], rows["value"])
        np.testing.assert_allclose(lines(axis, "interval")[:, :, 1], ends_of(rows, "low", "high"))
        cells = rows.drop_duplicates("cell")
        np.testing.assert_allclose(lines(axis, "floor")[:, 0, 1], cells["floor"])
        assert [t.get_text() for t in axis.get_xticklabels()] == [f"{c.cell}\n{c.n:,}" for c in cells.itertuples()]


# --- ratings and screening ---


def test_screening_curves_and_effect_draw_the_table():
    table = tables.screening_table()
    left, right = plots.screening_curve(table, 2.0).axes
    for axis, place, name in ((left, 0, "pairs"), (left, 1, "ratings"), (right, 0, "reliability")):
        np.testing.assert_allclose(axis.lines[place].get_xydata(), table[["max_anchor_mean", name]])
    assert set(curves(left, "in use")[0][:, 0]) == {2.0}
    effect = tables.rule_table().dropna()
    figure = plots.screening_effect(effect, 2.0)
    for line, (way, rows) in zip(figure.axes[0].lines, effect.groupby("pairs", sort=False)):
        np.testing.assert_allclose(line.get_xydata(), rows[["max_anchor_mean", "value"]])
    assert legend(figure) == ["all pairs left (n = 901 to 902)", "common pairs, equal raters (n = 905 to 906)"]


def test_every_screening_rule_has_a_row_in_each_panel():
    table = tables.rule_table().drop(index=4)
    figure = plots.screening_rules(table)
    for axis, (_, rows) in zip(figure.axes, table.groupby("pairs", sort=False)):
        np.testing.assert_allclose(points(axis, "value")[:, 0], rows["value"])
        assert [text.get_text() for text in axis.texts if text.get_text() not in ("", "n")] == list(map(str, rows["n"]))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["none", "anchors ≤ 1", "anchors ≤ 2", "RELATE's own"]
    assert points(figure.axes[1], "value")[:, 1].tolist() == [2, 1, 0]


def test_agreement_and_marks_draw_their_rows():
    table = tables.ceiling_table()
    axis = plots.agreement_by_system(table).axes[0]
    np.testing.assert_allclose(points(axis, "value")[:, 0], table["lcc_ceiling"])
    np.testing.assert_allclose(lines(axis, "interval")[:, :, 0], ends_of(table, "lcc_ceiling_low", "lcc_ceiling_high"))
    marks = tables.mark_table()
    axis = plots.floor_and_ceiling(marks).axes[0]
    np.testing.assert_allclose(points(axis, "value")[:, 0], marks["value"])
    assert len(lines(axis, "interval")) == 3


def test_ceilings_before_and_after_screening_stand_together():
    table = tables.file_ceilings(("REL", "OS"), ("natural", "all"))
    figure = plots.cell_ceilings(table)
    for axis, (file, rows) in zip(figure.axes, table.groupby("file", sort=False)):
        np.testing.assert_allclose(points(axis, "value")[:, 0], rows["ceiling"])
        before, after = rows["n"].iloc[0], rows["n"].iloc[2]
        assert (
            f"{before:,} / {after:,}" in [text.get_text() for text in axis.texts] and axis.get_title(loc="left") == file
        )
    assert legend(figure) == ["before screening", "after screening"]


def test_scale_and_anchors_count_ratings_and_listeners():
    ratings = tables.rating_table()
    matched, anchors = plots.scale_use(ratings).axes
    for axis, rows in ((matched, ratings[~ratings["is_anchor"]]), (anchors, ratings[ratings["is_anchor"]])):
        shares = [(rows["rating"] == rating).mean() for rating in range(11)]
        np.testing.assert_allclose([bar.get_height() for bar in axis.patches], shares)
    figure = plots.anchor_means(pd.Series([0, 0.5, 2, 3, 9, np.nan]), 2.0)
    assert legend(figure) == ["kept: 3", "removed: 2", "threshold 2"]


def test_spectrograms_have_a_panel_a_clip():
    clips = {f"clip {i}": np.random.default_rng(i).normal(0, 0.1, 4000) for i in range(5)}
    figure = plots.spectrograms(clips, 8000)
    assert [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()] == list(clips)


def test_overview_carries_the_weights_of_the_losses():
    assert any("0.25" in word and "3" in word for word in words(plots.overview(0.25, 3)))


# --- what can't be drawn ---

DRAWN = {
    "score_scatter": (lambda t: plots.score_scatter(t, ["mae"]), tables.score_table(("mae",)), "clap_score"),
    "overall_forest": (plots.overall_forest, tables.cell_table(("mae",), ("all",)), "high"),
    "dumbbells": (lambda t: plots.dumbbells(t, "mae", "mse"), tables.cell_table(("mae", "mse")), "cell"),
    "learning_curves": (plots.learning_curves, tables.history_table(), "validation_srcc"),
    "ablation": (plots.ablation, tables.ablation_table(), "seed_min"),
    "homogeneous": (plots.homogeneous, tables.homogeneous_table(), "expected"),
    "calibration_mse": (plots.calibration_mse, tables.mse_table(), "constant_mse"),
    "cell_ceilings": (plots.cell_ceilings, tables.file_ceilings(), "ceiling"),
    "controls": (plots.controls, tables.control_table(), "control"),
    "listening": (plots.listening, tables.control_table(), "low"),
    "preferences": (plots.preferences, tables.preference_table(), "systems"),
    "system_means": (plots.system_means, tables.system_table(), "rating_low"),
    "calibration": (plots.calibration, tables.reliability_table(), "bin"),
    "further_breakdowns": (plots.further_breakdowns, tables.further_table(), "n"),
    "screening_curve": (lambda t: plots.screening_curve(t, 2), tables.screening_table(), "single_rating"),
    "screening_effect": (lambda t: plots.screening_effect(t, 2), tables.rule_table(), "pairs"),
    "screening_rules": (plots.screening_rules, tables.rule_table(), "rule"),
    "agreement_by_system": (plots.agreement_by_system, tables.ceiling_table(), "lcc_ceiling"),
    "floor_and_ceiling": (plots.floor_and_ceiling, tables.mark_table(), "kind"),
    "scale_use": (plots.scale_use, tables.rating_table(), "is_anchor"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_missing_column_and_an_empty_table_are_named(name):
    draw, table, column = DRAWN[name]
    with pytest.raises(ValueError, match=f"has no column {column}; it has: "):
        draw(table.drop(columns=column))
    with pytest.raises(ValueError, match="has no rows: there is nothing to draw"):
        draw(table.iloc[:0])


@pytest.mark.parametrize(
    "name", ["overall_forest", "dumbbells", "controls", "listening", "preferences", "system_means"]
)
def test_rows_that_would_lie_on_each_other_are_refused(name):
    draw, table, _ = DRAWN[name]
    with pytest.raises(ValueError, match="rows too many, for instance of"):
        draw(pd.concat([table, table.head(2)]))


def test_an_unknown_model_metric_or_kind_names_what_there_is():
    table = tables.cell_table(("mae", "mse"))
    with pytest.raises(ValueError, match="no rows of model 'laion-clap'. Available: mae, mse"):
        plots.dumbbells(table, "laion-clap", "mae")
    with pytest.raises(ValueError, match="no rows of metric 'lcc'. Available: srcc"):
        plots.overall_forest(table, metric="lcc")
    with pytest.raises(ValueError, match="no rows of model 'x'. Available: laion-clap, wsce"):
        plots.score_scatter(tables.score_table(), ["x"])
    with pytest.raises(ValueError, match="unknown kind of mark: dogs. Available: floor, paper, people"):
        plots.floor_and_ceiling(tables.mark_table().assign(kind="dogs"))
    with pytest.raises(ValueError, match="has 2 models: draw one at a time"):
        plots.screening_rules(tables.rule_table().assign(model=["a", "b"] * 4))


# --- text and places ---


def test_texts_are_shortened_in_the_middle_and_numbers_have_a_real_minus():
    assert shortened("abcdefghij", 10) == "abcdefghij" and shortened("abcdefghijk", 6) == "abc…jk"
    assert shortened("one two three", 8, lines=2) == "one two\nthree"
    assert max(map(len, shortened(tables.LONG, 20, lines=2).split("\n"))) <= 20
    assert shortened("from $5 to $6", 30) == shortened(r"from \$5 to \$6", 30) == r"from \$5 to \$6"
    assert number(-0.1234) == "−0.123" and number(np.nan) == "no value"
    assert cell_name("<=5 natural") == "≤ 5, natural" and cell_name(">5") == "> 5" and cell_name("tango2") == "Tango 2"


def test_names_of_systems_keep_their_order_and_distance():
    wanted = np.array([0.1, 0.11, 0.12, 0.5, 0.9])
    places = spread(wanted, 0.1)
    assert (np.diff(places) >= 0.1 - 1e-12).all()
    np.testing.assert_allclose(places[:3].mean(), wanted[:3].mean())
    np.testing.assert_array_equal(places[3:], wanted[3:])
