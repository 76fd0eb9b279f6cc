"""What a figure shows is what its table says, read back from the drawing; what can't be drawn is refused with a reason."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import plot_tables as tables
import pytest
from statsmodels.nonparametric.smoothers_lowess import lowess

from humanclap import evaluate, plots
from humanclap.plots.ratings import lowess_curve
from humanclap.plots.style import cell_name, number, shortened

ENDS = ["low", "high"]


def points(axis, gid="value", upright=False):
    """The numbers of all marks with that gid, from the first row to the last (and by hue within a row)."""
    lines = [np.asarray(line.get_xydata(), float) for line in axis.lines if line.get_gid() == gid]
    marks = np.concatenate([line[np.isfinite(line).all(axis=1)] for line in lines] or [np.empty((0, 2))])
    marks = marks[np.argsort(marks[:, 0 if upright else 1], kind="stable")]
    return marks[:, 1 if upright else 0]


def spans(axis, gid="interval", upright=False):
    """Both ends of all straight lines with that gid, from the first row to the last: [n, 2]."""
    found = [np.asarray(line.get_xydata(), float) for line in axis.lines if line.get_gid() == gid]
    found += [s for c in axis.collections if c.get_gid() == gid for s in c.get_segments() if len(s)]
    found = sorted(found, key=lambda ends: ends[0, 0 if upright else 1])
    return np.array([ends[:, 1 if upright else 0] for ends in found]).reshape(-1, 2)


def at(axis, gid):
    """Where the upright marks with that gid are, from the first row to the last."""
    segments = [s for c in axis.collections if c.get_gid() == gid for s in c.get_segments() if len(s)]
    return np.array([s[0, 0] for s in sorted(segments, key=lambda s: s[:, 1].mean())])


def rows_of(axis):
    return [label.get_text().replace("\n", " ") for label in axis.get_yticklabels()]


def words(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def panels(figure, table, by):
    """Each panel with its rows of the table."""
    parts = list(table.groupby(by, sort=False))
    assert len(figure.axes) == len(parts)
    return [(axis, rows) for axis, (_, rows) in zip(figure.axes, parts)]


# --- Tables I to III ---


def test_forest_draws_values_intervals_floor_ceiling_seeds_and_paper():
    table = tables.cell_table(tables.SEVEN, ("all",)).assign(paper=np.linspace(0.2, 0.5, 7), mark="*†")
    figure = plots.overall_forest(table)
    axis = figure.axes[0]
    np.testing.assert_allclose(points(axis), table["value"])
    np.testing.assert_allclose(spans(axis), table[ENDS])
    np.testing.assert_allclose(at(axis, "floor"), table["floor"])
    np.testing.assert_allclose(at(axis, "ceiling"), table["ceiling"])
    np.testing.assert_allclose(points(axis, "paper"), table["paper"])
    middle = table.loc[table["seed_sd"].notna(), "value"].to_numpy()
    np.testing.assert_allclose(spans(axis, "seeds"), np.stack([middle - 0.02, middle + 0.02], axis=1))
    assert rows_of(axis)[:2] == ["LAION CLAP", "MS CLAP 2023"]
    first = table.iloc[0]
    assert f"{first['value']:.3f} [{first['low']:.3f}, {first['high']:.3f}] *†" in words(figure)
    assert f"floor (never hears the audio): {first['floor']:.3f}" in legend(figure)
    assert {"± SD over training seeds", "paper (real data)", "† above the floor"} <= set(legend(figure))
    assert f"SRCC with the mean rating, n = {first['n']:,}" in words(figure)


def test_forest_takes_floor_and_ceiling_as_numbers_and_the_cell_that_is_asked_for():
    table = tables.cell_table(("mae", "mse"))
    figure = plots.overall_forest(table, 0.11, np.nan, cell="tango")
    np.testing.assert_allclose(points(figure.axes[0]), table.loc[table["cell"] == "tango", "value"])
    assert at(figure.axes[0], "floor").tolist() == [0.11, 0.11]
    assert legend(figure) == ["floor (never hears the audio): 0.110"]


def test_a_model_without_a_value_keeps_its_row_and_says_why():
    table = tables.cell_table(tables.SEVEN[:3], ("all",))
    table.loc[1, ["value", *ENDS]] = np.nan
    table.loc[1, "note"] = "fewer than 4 pairs"
    figure = plots.overall_forest(table)
    np.testing.assert_allclose(points(figure.axes[0]), table["value"].dropna())
    assert "no value: fewer than 4 pairs" in words(figure) and len(rows_of(figure.axes[0])) == 3


def test_dumbbells_join_two_models_between_floor_and_ceiling():
    table = tables.cell_table(("mae", "laion-clap", "wsce"))
    figure = plots.dumbbells(table, "laion-clap", "mae")
    axis = figure.axes[0]
    before, after = (table[table["model"] == model] for model in ("laion-clap", "mae"))
    both = pd.concat([before.reset_index(), after.reset_index()]).sort_index(kind="stable")  # row by row, before first
    np.testing.assert_allclose(points(axis), both["value"])
    np.testing.assert_allclose(spans(axis), both[ENDS])
    np.testing.assert_allclose(spans(axis, "change"), np.stack([before["value"], after["value"]], axis=1))
    np.testing.assert_allclose(at(axis, "floor"), before["floor"])
    np.testing.assert_allclose(at(axis, "ceiling"), before["ceiling"])
    assert rows_of(axis)[1] == f"AudioLDM (n = {before['n'].iloc[1]:,})"
    assert legend(figure) == ["LAION CLAP", "MAE", "floor (never hears the audio)", "ceiling"]


def test_dumbbells_of_one_sided_cells_mark_what_is_missing():
    table = tables.cell_table(("laion-clap", "mae"), ("natural", "tango"))
    table.loc[0, ["value", *ENDS]] = np.nan
    table = table[~((table["model"] == "mae") & (table["cell"] == "tango"))]
    figure = plots.dumbbells(table, "laion-clap", "mae")
    assert len(points(figure.axes[0])) == 2
    missing = {f"no value → {table.iloc[2]['value']:.2f}", f"{table.iloc[1]['value']:.2f} → no value"}
    assert missing <= set(words(figure))


def test_figures_draw_the_tables_of_evaluate():
    scores = tables.score_table(("laion-clap", "wsce+mae"), n=240, seeds=2)
    scores = scores.assign(n_ratings=4, rating_std=1.0)
    table = evaluate.paper_table(scores, n_resamples=50, correct=False, baseline="laion-clap")
    axis = plots.overall_forest(table, metric="lcc").axes[0]
    np.testing.assert_allclose(points(axis), table.loc[table["metric"] == "lcc", "value"])
    assert len(spans(axis, "seeds")) == 1
    kinds = ("n_ratings", "temporal")
    table = pd.concat([evaluate.breakdown(scores, by, n_resamples=50).assign(breakdown=by) for by in kinds])
    figure = plots.further_breakdowns(table)  # no caption has temporal words: that cell is empty, and marked
    assert len(points(figure.axes[1], upright=True)) == 2
    assert [text.get_text() for text in figure.axes[1].texts] == ["no value"]


def test_further_breakdowns_put_every_model_in_every_cell():
    table = tables.further_table(("mae", "mse"))
    for axis, rows in panels(plots.further_breakdowns(table), table, "breakdown"):
        cells = list(dict.fromkeys(rows["cell"]))
        rows = rows.sort_values("cell", key=lambda cell: cell.map(cells.index), kind="stable")
        np.testing.assert_allclose(points(axis, upright=True), rows["value"])
        np.testing.assert_allclose(spans(axis, upright=True), rows[ENDS])
        first = rows.drop_duplicates("cell")
        levels = [s[0, 1] for c in axis.collections if c.get_gid() == "floor" for s in c.get_segments()]
        np.testing.assert_allclose(levels, first["floor"])
        assert [t.get_text() for t in axis.get_xticklabels()] == [f"{c.cell}\n{c.n:,}" for c in first.itertuples()]


def test_the_range_of_a_homogeneous_score_is_drawn_behind_each_cell():
    table = tables.homogeneous_table()
    table.loc[1, ["value", "expected", *ENDS]] = np.nan
    table.loc[1, "verdict"] = ""
    for axis, rows in panels(plots.homogeneous(table), table, "model"):
        known = rows.dropna()
        np.testing.assert_allclose(points(axis), known["value"])
        np.testing.assert_allclose(spans(axis, "range"), known[ENDS])
        np.testing.assert_allclose(at(axis, "expected"), known["expected"])
        for side, row in zip(axis.texts, rows.itertuples()):
            outside = row.value < row.low or row.value > row.high
            assert side.get_text().endswith(("less", "more")) == outside
            assert side.get_text().startswith(number(row.value, 2))


# --- training ---


def curves(axis, gid):
    return [np.asarray(line.get_xydata(), float) for line in axis.lines if line.get_gid() == gid]


def test_learning_curves_show_each_seed_their_mean_and_the_epoch_that_is_kept():
    table = tables.history_table(("mse", "wsce+mae"), seeds=3)
    table = table[~((table["model"] == "mse") & (table["training_seed"] == 1) & (table["epoch"] > 3))]
    loss, srcc = plots.learning_curves(table).axes
    for model, mean in zip(("mse", "wsce+mae"), curves(srcc, "mean")):
        seeds = table[table["model"] == model].pivot(index="epoch", columns="training_seed", values="validation_srcc")
        seeds = seeds.dropna()  # the mean ends with the shortest run
        np.testing.assert_allclose(mean, np.stack([seeds.index, seeds.mean(axis=1)], axis=1))
    assert len(curves(srcc, "seed")) == 6 and len(curves(loss, "seed")) == 12
    first = table[(table["model"] == "mse") & (table["training_seed"] == 0)]
    scaled = first["validation_loss"] / first["validation_loss"].iloc[0]
    assert any(len(c) == len(scaled) and np.allclose(c[:, 1], scaled) for c in curves(loss, "seed"))
    kept = first.loc[first[first["epoch"] > 0]["validation_loss"].idxmin()]
    assert any(np.allclose(mark[0], [kept["epoch"], kept["validation_srcc"]]) for mark in curves(srcc, "kept"))


def test_learning_curves_of_one_run_need_no_seed_and_no_validation():
    table = tables.history_table(("mse",), seeds=1).drop(columns="training_seed")
    figure = plots.learning_curves(table)
    assert not curves(figure.axes[1], "seed") and "one seed" not in legend(figure)
    table = table.assign(validation_loss=np.nan, validation_srcc=np.nan)
    assert not curves(plots.learning_curves(table).axes[0], "kept")


def test_ablation_shows_captions_and_seeds_apart():
    table = tables.ablation_table(("all", "natural"))
    table.loc[3, ["seed_t_low", "seed_t_high", "seed_sd"]] = np.nan
    figure = plots.ablation(table)
    axis = figure.axes[0]
    np.testing.assert_allclose(points(axis), table["difference"])
    np.testing.assert_allclose(spans(axis), table[ENDS])
    np.testing.assert_allclose(spans(axis, "seed range"), table[["seed_min", "seed_max"]])
    np.testing.assert_allclose(spans(axis, "seed interval"), table[["seed_t_low", "seed_t_high"]][:3])
    sd = np.stack([table["difference"] - 0.02, table["difference"] + 0.02], axis=1)[:3]
    np.testing.assert_allclose(spans(axis, "seed sd"), sd)
    assert rows_of(axis)[0] == "wSCE + MAE against MAE All"
    assert {"3 seeds, SD 0.020", "3 seeds, SD no value"} <= set(words(figure))


# --- controls, systems ---


def test_each_control_has_its_panel_and_its_chance():
    table = tables.control_table()
    table.loc[0, ["value", *ENDS]] = np.nan
    figure = plots.listening(table)
    for (axis, rows), chance in zip(panels(figure, table, "control"), (0, 0, 0.5)):
        np.testing.assert_allclose(points(axis), rows["value"].dropna())
        np.testing.assert_allclose(spans(axis), rows[ENDS].dropna())
        assert set(curves(axis, "chance")[0][:, 0]) == {chance}
    assert words(figure).count("no value") == 1


def test_preferences_are_drawn_beside_the_floor():
    table = tables.preference_table(("mae", "mse"))
    figure = plots.preferences(table)
    for axis, rows in panels(figure, table, "systems"):
        np.testing.assert_allclose(points(axis), rows["value"])
        assert set(at(axis, "floor")) == {0.55}
    assert "AudioLDM 2 – Tango\nn = 480" in words(figure)
    figure = plots.preferences(table.drop(columns=["floor", "n"]))
    assert len(at(figure.axes[0], "floor")) == 0 and legend(figure) == ["chance"]


def test_system_means_have_both_intervals_and_name_what_has_no_mean():
    table = tables.system_table(("mae", "laion-clap"))
    table.loc[2, ["score", "score_low", "score_high"]] = np.nan
    figure = plots.system_means(table)
    for axis, rows in panels(figure, table, "model"):
        known = rows.dropna().sort_values("score")
        np.testing.assert_allclose(points(axis), known["rating"])
        np.testing.assert_allclose(spans(axis, "rating"), known[["rating_low", "rating_high"]])
        by_rating = known.sort_values("rating")
        np.testing.assert_allclose(spans(axis, "score", upright=True), by_rating[["score_low", "score_high"]])
    assert "no value: AudioLDM 2" in words(figure)
    assert legend(figure) == [plots.SYSTEM_NAMES[system] for system in tables.SYSTEMS]


def test_own_systems_keep_failed_clips_in_sight():
    figure = plots.own_systems(tables.own_table(), tables.reference_table())
    axis = figure.axes[0]
    np.testing.assert_allclose(points(axis), [0.3, 0.4])
    assert rows_of(axis)[2] == r"worth \$5 to \$6 (n = 3, 3 failed)"
    assert [line[0, 0] for line in curves(axis, "reference")] == [0.1, 0.5]
    assert legend(figure) == ["other captions: 0.100", "recordings: 0.500"]


# --- ratings, scores against ratings ---


def test_scale_and_anchors_count_ratings_and_listeners():
    ratings = tables.rating_table()
    matched, anchors = plots.scale_use(ratings).axes
    for axis, rows in ((matched, ratings[~ratings["is_anchor"]]), (anchors, ratings[ratings["is_anchor"]])):
        shares = [(rows["rating"] == rating).mean() for rating in range(11)]
        np.testing.assert_allclose([bar.get_height() for bar in axis.patches], shares)
        assert [bar.get_alpha() == 1 for bar in axis.patches] == [rating in plots.LABELLED for rating in range(11)]
    figure = plots.anchor_means(pd.Series([0, 0.5, 2, 3, 9, np.nan]), 2.0)
    assert legend(figure) == ["kept: 3", "removed: 2", "threshold 2"]
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 5


def test_the_screening_curve_draws_the_table():
    table = tables.screening_table()
    left, right = plots.screening_curve(table, 2.0).axes
    for axis, place, name in ((left, 0, "pairs"), (left, 1, "ratings"), (right, 0, "reliability")):
        np.testing.assert_allclose(axis.lines[place].get_xydata(), table[["max_anchor_mean", name]])
    assert set(curves(left, "in use")[0][:, 0]) == {2.0}


def test_every_screening_rule_has_a_row_in_each_panel():
    table = tables.rule_table().drop(index=4)
    figure = plots.screening_rules(table)
    for axis, rows in panels(figure, table, "pairs"):
        np.testing.assert_allclose(points(axis), rows["value"])
        assert [text.get_text() for text in axis.texts if text.get_text() not in ("", "n")] == list(map(str, rows["n"]))
    assert rows_of(figure.axes[0]) == ["none", "anchors ≤ 1", "anchors ≤ 2", "RELATE's own"]


def test_agreement_and_marks_draw_their_rows():
    table = tables.ceiling_table()
    axis = plots.agreement_by_system(table).axes[0]
    np.testing.assert_allclose(points(axis), table["lcc_ceiling"])
    np.testing.assert_allclose(spans(axis), table[["lcc_ceiling_low", "lcc_ceiling_high"]])
    assert rows_of(axis)[0] == "All (n = 400)"
    marks = tables.mark_table()
    axis = plots.floor_and_ceiling(marks).axes[0]
    np.testing.assert_allclose(points(axis), marks["value"])
    np.testing.assert_allclose(spans(axis), marks[ENDS].dropna())


def test_scatter_counts_every_pair_once_and_writes_the_mean_of_the_low_rated():
    scores = tables.score_table(n=300)
    figure = plots.score_scatter(scores, ["wsce+mae", "laion-clap"], low_rating=3)
    shades = []
    for axis, model in zip(figure.axes, ("wsce+mae", "laion-clap")):
        rows = scores[scores["model"] == model]
        (crowd,) = [c for c in axis.collections if c.get_gid() == "pairs"]
        assert crowd.get_array().sum() == len(rows) == 300
        shades.append((crowd.norm.vmin, crowd.norm.vmax))
        low = rows.loc[rows["mean_rating"] <= 3, "clap_score"]
        assert f"rated ≤ 3: mean score {low.mean():.2f}\n{len(low)} of 300 pairs" in words(figure)
        top, side = axis.child_axes
        across = [bar.get_height() for bar in top.patches if bar.get_gid() == "ratings"]
        upward = [bar.get_width() for bar in side.patches if bar.get_gid() == "scores"]
        np.testing.assert_array_equal(across, np.histogram(rows["mean_rating"], np.linspace(0, 10, 21))[0])
        np.testing.assert_array_equal(upward, np.histogram(rows["clap_score"], np.linspace(0, 1, 21))[0])
    assert shades[0] == shades[1]


def test_scatter_of_few_pairs_shows_each_of_them_and_counts_what_it_leaves_out():
    scores = tables.score_table(("mae",), n=50)
    scores.loc[:4, "clap_score"] = np.nan
    figure = plots.score_scatter(scores, ["mae"])
    (dots,) = [c for c in figure.axes[0].collections if c.get_gid() == "pairs"]
    np.testing.assert_array_equal(dots.get_offsets(), scores[["mean_rating", "clap_score"]].dropna())
    assert next(word for word in words(figure) if "rated" in word).endswith("of 45 pairs\n5 without a value")
    scores = tables.score_table(("wsce+mae",), n=240, seeds=3)
    text = next(word for word in words(plots.score_scatter(scores, ["wsce+mae"])) if "rated" in word)
    assert text.endswith("of 240 pairs × 3 seeds")


def test_the_curve_is_lowess_and_follows_the_mean_of_a_clipped_score():
    scores = tables.score_table(("mae",), n=200)
    x, y = scores["mean_rating"].to_numpy(), scores["clap_score"].to_numpy()
    curve = lowess_curve(x, y)
    expected = lowess(y, x, frac=0.5, it=0, return_sorted=False)
    np.testing.assert_allclose(np.interp(x, *curve.T), expected, atol=1e-12)
    (drawn,) = curves(plots.score_scatter(scores, ["mae"]).axes[0], "lowess")
    np.testing.assert_array_equal(drawn, curve)
    x = np.repeat(np.arange(11.0), 20)
    mostly_zero = np.tile(np.repeat([0.0, 0.5], [15, 5]), 11)  # a quarter is 0.5 everywhere
    np.testing.assert_allclose(lowess_curve(x, mostly_zero)[:, 1], 0.125, atol=1e-9)
    for few in (np.arange(9.0), np.repeat([1.0, 2, 3], 20)):
        assert len(lowess_curve(few, np.ones(len(few)))) == 0


def test_calibration_draws_every_bin_of_every_map():
    table = tables.reliability_table(("mae", "mse"))
    table.loc[3, ["score", "target", *ENDS]] = np.nan
    figure = plots.calibration(table)
    for axis, rows in panels(figure, table, "model"):
        known = rows.dropna()
        (marks,) = [c for c in axis.collections if c.get_gid() == "value"]
        np.testing.assert_allclose(marks.get_offsets(), known[["score", "target"]])
        segments = np.array([s for c in axis.collections if c.get_gid() == "interval" for s in c.get_segments()])
        np.testing.assert_allclose(segments[:, :, 1], known[ENDS])
    assert legend(figure) == ["not calibrated", "linear", "isotonic", "calibrated"]


def test_calibration_mse_draws_each_map_beside_the_constant():
    table = tables.mse_table(("mae", "mse"))
    axis = plots.calibration_mse(table).axes[0]
    np.testing.assert_allclose(points(axis), table["mse"])
    np.testing.assert_allclose(spans(axis), table[ENDS])
    assert at(axis, "constant").tolist() == [0.07, 0.07]


def test_spectrograms_have_one_panel_per_clip_and_show_what_is_not_heard():
    clips = {f"clip {i}": np.random.default_rng(i).normal(0, 0.1, 1000 * (1 + i)) for i in range(5)}
    for window, starts in (("first", (0.0, 0.3)), ("center", (0.0, 0.4625)), ("mean", ())):
        figure = plots.spectrograms(clips, 8000, window=window, window_seconds=0.3)
        assert [axis.get_title(loc="left") for axis in figure.axes] == list(clips)
        pale = [[patch.get_x() for patch in axis.patches] for axis in figure.axes]
        assert pale[0] == pale[1] == [] and len(pale[4]) == len(starts)  # 0.125 and 0.25 seconds are shorter
        np.testing.assert_allclose(pale[4], starts)


# --- what can't be drawn ---

DRAWN = {
    "score_scatter": (lambda t: plots.score_scatter(t, ["mae"]), tables.score_table(("mae",)), "clap_score"),
    "overall_forest": (plots.overall_forest, tables.cell_table(("mae",), ("all",)), "high"),
    "dumbbells": (lambda t: plots.dumbbells(t, "mae", "mse"), tables.cell_table(("mae", "mse")), "cell"),
    "learning_curves": (plots.learning_curves, tables.history_table(), "validation_srcc"),
    "ablation": (plots.ablation, tables.ablation_table(), "seed_min"),
    "homogeneous": (plots.homogeneous, tables.homogeneous_table(), "expected"),
    "calibration_mse": (plots.calibration_mse, tables.mse_table(), "constant_mse"),
    "listening": (plots.listening, tables.control_table(), "low"),
    "preferences": (plots.preferences, tables.preference_table(), "systems"),
    "system_means": (plots.system_means, tables.system_table(), "rating_low"),
    "calibration": (plots.calibration, tables.reliability_table(), "bin"),
    "further_breakdowns": (plots.further_breakdowns, tables.further_table(), "n"),
    "screening_curve": (lambda t: plots.screening_curve(t, 2), tables.screening_table(), "single_rating"),
    "screening_rules": (plots.screening_rules, tables.rule_table(), "rule"),
    "agreement_by_system": (plots.agreement_by_system, tables.ceiling_table(), "lcc_ceiling"),
    "floor_and_ceiling": (plots.floor_and_ceiling, tables.mark_table(), "kind"),
    "scale_use": (plots.scale_use, tables.rating_table(), "is_anchor"),
}
ONE_ROW_EACH = set(DRAWN) - {"score_scatter", "screening_curve", "scale_use"}


@pytest.mark.parametrize("name", DRAWN)
def test_a_missing_column_no_rows_and_rows_twice_are_named(name):
    draw, table, column = DRAWN[name]
    with pytest.raises(ValueError, match=f"has no column {column}; it has: "):
        draw(table.drop(columns=column))
    with pytest.raises(ValueError, match="has no rows: there is nothing to draw"):
        draw(table.iloc[:0])
    if name in ONE_ROW_EACH:
        with pytest.raises(ValueError, match="rows too many, for instance of"):
            draw(pd.concat([table, table.head(2)]))


def test_an_unknown_model_metric_or_kind_names_what_there_is():
    table = tables.cell_table(("mae", "mse"))
    with pytest.raises(ValueError, match="no rows of model 'laion-clap'. Available: mae, mse"):
        plots.dumbbells(table, "laion-clap", "mae")
    with pytest.raises(ValueError, match="no rows of metric 'lcc'. Available: srcc"):
        plots.overall_forest(table, metric="lcc")
    with pytest.raises(ValueError, match="unknown kind of mark: dogs. Available: floor, paper, people"):
        plots.floor_and_ceiling(tables.mark_table().assign(kind="dogs"))
    with pytest.raises(ValueError, match="has 2 models: draw one at a time"):
        plots.screening_rules(tables.rule_table().assign(model=["a", "b"] * 4))


def test_texts_are_shortened_in_the_middle_and_numbers_have_a_real_minus():
    assert shortened("abcdefghij", 10) == "abcdefghij" and shortened("abcdefghijk", 6) == "abc…jk"
    assert shortened("one two three", 8, lines=2) == "one two\nthree"
    assert max(map(len, shortened(tables.LONG, 20, lines=2).split("\n"))) <= 20
    assert shortened("from $5 to $6", 30) == shortened(r"from \$5 to \$6", 30) == r"from \$5 to \$6"
    assert number(-0.1234) == "−0.123" and number(np.nan) == "no value"
    assert cell_name("<=5 natural") == "≤ 5, natural" and cell_name(">5") == "> 5" and cell_name("tango2") == "Tango 2"
    assert cell_name("2-3") == "2–3" and cell_name(">=4 words") == "≥4 words"
