"""Figures of people's ratings: how they use the scale, screening, agreement, and scores against ratings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from . import style
from .style import (
    COLOURS,
    DOUBLE,
    SINGLE,
    SMALL,
    VALUE,
    Look,
    house_style,
    letters,
    need_rows,
    number,
    points,
    shortened,
    with_interval,
)

LABELLED = (0, 2, 5, 8, 10)  # the points of the scale that carry words (paper, section II-B)
DENSITY = ("#DCE8F2", "#0072B2", "#00243A")  # few, more, most
MIN_DENSITY = 200  # pairs; fewer are drawn as dots
MIN_SMOOTH, MIN_RATINGS = 10, 4  # pairs and different ratings that a LOWESS curve needs
_BINS = 20
_MAPS = (("grey", "o"), ("blue", "s"), ("vermilion", "^"), ("green", "D"))
_WAYS = (("blue", "o"), ("vermilion", "s"), ("green", "^"), ("purple", "D"))
_DASHED = {"linestyle": "--", "linewidth": 0.9, "zorder": 1}


@house_style
def scale_use(ratings: pd.DataFrame) -> Figure:
    """Share of each rating 0-10, for matched pairs and for anchors; the points that carry words in full colour.

    Args:
        ratings: DataFrame of `relate.load_ratings`.
    """
    ratings = need_rows(ratings, "the ratings", ("rating", "is_anchor"))
    figure, axes = plt.subplots(1, 2, figsize=(DOUBLE, 2.3), sharex=True, sharey=True)
    anchor = ratings["is_anchor"].astype(bool)
    parts = (("Matched pairs", ~anchor, "blue"), ("Anchors (mismatched on purpose)", anchor, "vermilion"))
    for axis, (title, rows, colour) in zip(axes, parts):
        look = {"color": COLOURS[colour], "alpha": 1, "linewidth": 0}
        some = ratings.loc[rows, "rating"]
        sns.histplot(some, discrete=True, stat="probability", binrange=(0, 10), shrink=0.8, ax=axis, **look)
        for rating, bar in enumerate(axis.patches):
            bar.set_alpha(1.0 if rating in LABELLED else 0.4)
        axis.set(title=f"{title}, n = {int(rows.sum()):,}", xticks=range(11))
        axis.grid(axis="x", visible=False)
    style.outer_labels(axes, 2, "rating", "share of ratings")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    return figure


@house_style
def anchor_means(means: pd.Series, max_anchor_mean: float) -> Figure:
    """Listeners by their mean anchor rating, those above the threshold in another colour.

    Args:
        means: one mean (0-10) per listener.
        max_anchor_mean: the threshold.
    """
    means = means.dropna()
    if not len(means):
        raise ValueError("no listener has a mean anchor rating: there is nothing to draw")
    figure, axis = plt.subplots(figsize=(SINGLE, 2.4))
    removed = (means > max_anchor_mean).map({False: "kept", True: "removed"})
    colours = {"kept": COLOURS["blue"], "removed": COLOURS["vermilion"]}
    edges = np.arange(-1 / 6, 10.4, 1 / 3)  # means of three ratings, each in the middle of its bin
    sns.histplot(
        x=means.to_numpy(), hue=removed.to_numpy(), hue_order=["removed", "kept"], multiple="stack", bins=edges,
        palette=colours, alpha=1, edgecolor="white", linewidth=0.4, legend=False, ax=axis,
    )  # fmt: skip
    axis.axvline(max_anchor_mean, color="0.2", linestyle="--", linewidth=1)
    axis.set(title="Mean anchor rating of each listener", xlabel="mean anchor rating", ylabel="listeners")
    axis.set_xlim(-0.3, 10.3)
    axis.grid(axis="x", visible=False)
    counts = [Patch(color=colour, label=f"{name}: {(removed == name).sum():,}") for name, colour in colours.items()]
    threshold = style.line_handle("0.2", f"threshold {max_anchor_mean:g}", linestyle="--", linewidth=1)
    style.legend_below(figure, [*counts, threshold])
    return figure


@house_style
def screening_curve(curve: pd.DataFrame, max_anchor_mean: float) -> Figure:
    """How many ratings and pairs remain, and how reliable they are, as the threshold moves.

    Args:
        curve: one row per threshold: `max_anchor_mean`, `ratings`, `pairs` (shares of all, 0-1), `single_rating`
            (reliability of one rating) and `reliability` (of the mean) with `reliability_low`, `reliability_high`.
        max_anchor_mean: the threshold in use, marked.
    """
    labels = {
        "pairs": ("pairs that remain", "green", "o"),
        "ratings": ("ratings that remain", "orange", "s"),
        "reliability": ("reliability of the mean rating", "purple", "D"),
        "single_rating": ("of a single rating", "blue", "^"),
    }
    ends = ("reliability_low", "reliability_high")
    curve = need_rows(curve, "the screening curve", ("max_anchor_mean", *labels, *ends))
    figure, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE, 2.6), sharex=True)
    looks = {name: Look(label, COLOURS[colour], marker) for name, (label, colour, marker) in labels.items()}
    for name, look in looks.items():
        axis = left if name in ("pairs", "ratings") else right
        shape = {"marker": look.marker, "markersize": 4, "color": look.colour, "markeredgewidth": 0}
        sns.lineplot(curve, x="max_anchor_mean", y=name, ax=axis, errorbar=None, **shape)
    band = {"color": COLOURS["purple"], "alpha": 0.16, "linewidth": 0}
    right.fill_between(curve["max_anchor_mean"], *(curve[end] for end in ends), **band)
    for axis in (left, right):
        axis.axvline(max_anchor_mean, color="0.2", gid="in use", **_DASHED)
        axis.set(xlabel="threshold on the mean anchor rating", ylim=(0, 1.03))
    left.set(title="What remains", ylabel="share of the file")
    left.yaxis.set_major_formatter(PercentFormatter(1))
    right.set(title="Reliability of what remains (95 %)", ylabel="reliability")
    in_use = style.line_handle("0.2", "threshold in use", linestyle="--", linewidth=0.9)
    style.legend_below(figure, [*map(style.look_handle, looks.values()), in_use])
    return figure


@house_style
def screening_rules(table: pd.DataFrame) -> Figure:
    """SRCC under each rule on listeners, with 95 % intervals and n, one panel per way of choosing the pairs (and measure).

    Args:
        table: of `evaluate.screening_rules` or `evaluate.screening_agreement`, one row per rule and way: `rule`,
            `max_anchor_mean` (NaN for rules without a threshold), `pairs` (the way), `value`, `low`, `high`, `n`;
            `measure` and `model` (only one) may be there.

    Raises:
        ValueError: a missing column, no rows, several models, a rule twice in a panel.
    """
    name = "the table of rules"
    table = need_rows(table, name, ("rule", "max_anchor_mean", "pairs", *VALUE, "n"))
    if "model" in table and table["model"].nunique() > 1:
        raise ValueError(f"{name} has {table['model'].nunique()} models: draw one at a time")
    labels = [_with_threshold(*row) for row in zip(table["rule"], table["max_anchor_mean"])]
    titles = table["pairs"] if "measure" not in table else table["measure"] + "\n" + table["pairs"]
    table = need_rows(table.assign(label=labels, title=titles), name, (), key=["title", "label"])
    rules = list(dict.fromkeys(table["label"]))
    figure, axes, across = style.facets(table, "title", 0.55 + 0.23 * len(rules), most=2, extra=0.3, sharex=False)
    for (way, axis), (colour, marker) in zip(axes.items(), _WAYS * len(axes)):
        rows = table[table["title"] == way].set_index("label").reindex(rules).reset_index()
        points(axis, rows.assign(title=way), "label", rules, "title", {way: Look(way, COLOURS[colour], marker)})
        style.side_texts(axis, ["" if np.isnan(n) else f"{n:,.0f}" for n in rows["n"].to_numpy(float)], "n")
        axis.set_title("\n".join(shortened(part, letters(4.6 / across, 8.5)) for part in way.split("\n")))
        style.row_axis(axis, rules, width=34, lines=1)
    style.outer_labels(axes.values(), across, "SRCC (95 %)", "")
    return figure


def _with_threshold(rule: str, threshold: float) -> str:
    named = np.isnan(threshold) or f"{threshold:g}" in str(rule)
    return style.cell_name(rule if named else f"{rule} <= {threshold:g}")


@house_style
def agreement_by_system(ceilings: pd.DataFrame) -> Figure:
    """How well people agree in each part of the test pairs: the best LCC that any score could reach, with its interval.

    Args:
        ceilings: table of `evaluate.ceiling_table`: `subset`, `n_pairs`, `lcc_ceiling`, `lcc_ceiling_low`,
            `lcc_ceiling_high`.

    Raises:
        ValueError: a missing column, no rows, a subset twice.
    """
    names = {"lcc_ceiling": "value", "lcc_ceiling_low": "low", "lcc_ceiling_high": "high"}
    rows = need_rows(ceilings, "the table of ceilings", ("subset", "n_pairs", *names), key=["subset"])
    rows = rows.rename(columns=names)
    figure, axis = style.rows_figure(len(rows), each=0.24)
    several, one = Look("several systems", COLOURS["grey"], "s"), Look("one system", COLOURS["blue"], "o")
    looks = {part: several if part in ("all", "synthesized") else one for part in rows["subset"]}
    points(axis, rows, "subset", list(looks), "subset", looks)
    style.side_texts(axis, [with_interval(*row) for row in rows[list(VALUE)].to_numpy(float)], "LCC [95 %]")
    style.row_axis(
        axis, [f"{style.cell_name(part)} (n = {n:,.0f})" for part, n in zip(rows["subset"], rows["n_pairs"])]
    )
    axis.set(title="Ceiling: the best correlation that any score could reach")
    axis.set_xlabel("LCC of a perfect predictor with the mean rating")
    style.legend_below(figure, [style.look_handle(one), style.look_handle(several)])
    return figure


@house_style
def floor_and_ceiling(marks: pd.DataFrame) -> Figure:
    """SRCC on one axis: what needs no listening, what the paper reports, how far two halves of the listeners agree.

    Args:
        marks: one row per mark, drawn from top to bottom: `name`, `kind` ("floor", "paper" or "people"), `value`, and
            `low`, `high` (NaN where there is no interval).

    Raises:
        ValueError: a missing column, no rows, a name twice, an unknown kind.
    """
    marks = need_rows(marks, "the table of marks", ("name", "kind", *VALUE), key=["name"])
    kinds = {
        "floor": Look("never hears the audio", COLOURS["orange"], "^"),
        "paper": Look("CLAPScore in the paper (its own pairs)", COLOURS["blue"], "D"),
        "people": Look("people", COLOURS["green"], "o"),
    }
    unknown = set(marks["kind"]) - set(kinds)
    if unknown:
        raise ValueError(f"unknown kind of mark: {', '.join(map(str, unknown))}. Available: {', '.join(kinds)}")
    figure, axis = style.rows_figure(len(marks), each=0.24)
    points(axis, marks, "name", list(marks["name"]), "kind", kinds)
    ends = marks[list(VALUE)].to_numpy(float)
    style.side_texts(axis, [with_interval(*row) for row in ends], "SRCC [95 %]")
    style.row_axis(axis, marks["name"], width=40)
    axis.set_title("Between floor and ceiling")
    axis.set_xlabel("SRCC with the mean rating\n(people: of one half's mean with the other half's)")
    axis.set_xlim(min(0.0, np.nanmin(ends) - 0.05), max(0.7, np.nanmax(ends) + 0.05))
    style.legend_below(figure, list(map(style.look_handle, kinds.values())))
    return figure


# --- scores against ratings ------------------------------------------------------------------------------


@house_style
def score_scatter(scores: pd.DataFrame, models: list[str], low_rating: float = 2.0) -> Figure:
    """CLAPScore against the mean rating, one panel per model (the paper's Figs 1, 3a and 3b).

    The shading shows how many pairs lie where (one scale for all panels; dots below 200 pairs), the line is a LOWESS
    curve of the score (each point from half of the pairs), the histograms at the edges are the two distributions. The
    mean score of the pairs rated at most `low_rating`, the grey band, is written above, because the paper reads it off
    these figures. Pairs without a score or rating are left out and counted there. A model with several `training_seed`s
    is shown with the pairs of all of them.

    Args:
        scores: long table with `model`, `mean_rating` (0-10) and `clap_score` (0-1); `training_seed` optional.
        models: the panels, in reading order.

    Raises:
        ValueError: a missing column, no model, or one without rows.
    """
    scores = need_rows(scores, "the score table", ("model", "mean_rating", "clap_score"))
    if not len(models):
        raise ValueError("no models given: name at least one of the column model")
    rows = pd.concat([style.need_value(scores, "model", model) for model in models])
    figure, axes, across = style.facets(rows, "model", 2.3, most=4, extra=0.6, sharex=True, sharey=True)
    looks = style.model_looks(models)
    width = letters(5.6 / across if across > 1 else 2.4, 9)  # bold letters are wider than their size
    crowds = []
    for model, axis in axes.items():
        mine = rows[rows["model"] == model]
        known = mine.dropna(subset=["mean_rating", "clap_score"])
        axis.axvspan(-0.3, low_rating, color="0.93", linewidth=0, zorder=0)
        crowds += _draw_pairs(axis, known)
        curve = lowess_curve(known["mean_rating"].to_numpy(float), known["clap_score"].to_numpy(float))
        outline = [withStroke(linewidth=3, foreground="white")]
        axis.plot(*curve.T, color=COLOURS["vermilion"], zorder=5, gid="lowess", path_effects=outline)
        axis.set(xlim=(-0.3, 10.3), ylim=(-0.02, 1.02), xticks=range(0, 11, 2), yticks=np.linspace(0, 1, 5))
        note = _low_rated(known, low_rating, len(mine) - len(known))
        top = _marginals(axis, known, low_rating)
        top.set_title(note, fontsize=SMALL, fontweight="normal", color="0.25", pad=2)
        above = (0, 4 + (note.count("\n") + 1) * 1.25 * SMALL)
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        top.annotate(shortened(looks[model].name, width), (0, 1), above, fontsize=8, fontweight="bold", **place)
    style.outer_labels(axes.values(), across, "mean human rating", "CLAPScore")
    if crowds:
        shared = PowerNorm(0.5, vmin=0, vmax=max(crowd.get_array().max() for crowd in crowds))
        for crowd in crowds:
            crowd.set_norm(shared)
        bar = figure.colorbar(crowds[0], ax=list(axes.values()), aspect=35, pad=0.015, fraction=0.04)
        bar.set_label("pairs per cell", fontsize=7)
        bar.outline.set_visible(False)
    band = Patch(color="0.93", label=f"rated ≤ {low_rating:g}")
    style.legend_below(figure, [style.line_handle(COLOURS["vermilion"], "LOWESS"), band])
    return figure


def lowess_curve(rating: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Locally weighted straight lines (Cleveland's LOWESS) of the score on the rating: [n, 2], sorted, one per rating.

    Each point sees half of the pairs. Without the robust rounds, which would take the few scores above zero of a
    clipped model for outliers. No rows where fewer than 10 pairs or 4 different ratings make a curve meaningless.
    """
    from statsmodels.nonparametric.smoothers_lowess import lowess

    if len(rating) < MIN_SMOOTH or len(np.unique(rating)) < MIN_RATINGS:
        return np.empty((0, 2))
    curve = lowess(score, rating, frac=0.5, it=0)
    first = np.unique(curve[:, 0], return_index=True)[1]
    return curve[first][np.isfinite(curve[first]).all(axis=1)]


def _draw_pairs(axis: Axes, known: pd.DataFrame) -> list:
    """The pairs as a two-dimensional histogram, returned for the shared scale, or as dots where there are few."""
    data = {"data": known, "x": "mean_rating", "y": "clap_score", "ax": axis, "gid": "pairs", "zorder": 2}
    if len(known) < MIN_DENSITY:
        sns.scatterplot(**data, s=7, alpha=0.5, color=DENSITY[1], linewidth=0)
        return []
    shades = LinearSegmentedColormap.from_list("density", DENSITY)
    sns.histplot(**data, bins=(22, 22), binrange=((-0.25, 10.25), (0, 1)), cmap=shades)
    return [axis.collections[-1]]


def _marginals(axis: Axes, known: pd.DataFrame, low_rating: float) -> Axes:
    """Histograms of the ratings above the panel and of the scores at its right; returns the axes above."""
    top = axis.inset_axes((0, 1.02, 1, 0.16), sharex=axis)
    side = axis.inset_axes((1.02, 0, 0.14, 1), sharey=axis)
    top.axvspan(-0.3, low_rating, color="0.93", linewidth=0, zorder=0)
    look = {"bins": _BINS, "color": DENSITY[1], "alpha": 1, "linewidth": 0}
    sns.histplot(known, x="mean_rating", binrange=(0, 10), ax=top, gid="ratings", **look)
    sns.histplot(known, y="clap_score", binrange=(0, 1), ax=side, gid="scores", **look)
    for edge in (top, side):
        edge.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
        edge.grid(visible=False)
        edge.set(xlabel="", ylabel="")
        edge.spines[:].set_visible(False)
        edge.patch.set_visible(False)
    top.set_yticks([])
    side.set_xticks([])
    return top


def _low_rated(known: pd.DataFrame, low_rating: float, n_missing: int) -> str:
    """Mean score of the pairs rated low, how many they are, and how many pairs have no value."""
    low = known.loc[known["mean_rating"] <= low_rating, "clap_score"]
    seeds = max(known["training_seed"].nunique() if "training_seed" in known else 1, 1)
    mean = number(low.mean(), 2) if len(low) else "none"
    text = f"rated ≤ {low_rating:g}: mean score {mean}\n{len(low) // seeds:,} of {len(known) // seeds:,} pairs"
    return text + (f" × {seeds} seeds" if seeds > 1 else "") + (f"\n{n_missing:,} without a value" if n_missing else "")


@house_style
def calibration(table: pd.DataFrame) -> Figure:
    """Reliability diagram: mean target of the pairs in each bin of a score, before and after calibration; one panel per model.

    A calibrated score lies on the dashed diagonal. Larger marks stand for more pairs.

    Args:
        table: `evaluate.reliability_curve` of each model and map below each other: `model`, `map`, `bin`, `score`
            (mean), `target` (mean, both 0-1), `low`, `high` (of the target), `n`. Bins without pairs (NaN) are left out.

    Raises:
        ValueError: a missing column, no rows, a bin twice.
    """
    needed = ("model", "map", "bin", "score", "target", "low", "high", "n")
    table = need_rows(table, "the reliability curve", needed, key=["model", "map", "bin"])
    models, looks = style.model_looks(table["model"]), _map_looks(table["map"])
    figure, axes, across = style.facets(table, "model", 2.0, extra=0.5, sharex=True, sharey=True)
    hues = {"hue": "map", "style": "map", "palette": {kind: look.colour for kind, look in looks.items()}}
    markers = {kind: look.marker for kind, look in looks.items()}
    for model, axis in axes.items():
        rows = table[table["model"] == model].dropna(subset=["score", "target"])
        axis.axline((0, 0), (1, 1), color="0.4", gid="diagonal", **_DASHED)
        data = {"data": rows, "x": "score", "y": "target", "legend": False, "ax": axis}
        sns.lineplot(**data, **hues, dashes=False, linewidth=1, errorbar=None)
        colours = [looks[kind].colour for kind in rows["map"]]
        axis.vlines(rows["score"], rows["low"], rows["high"], colours, linewidth=1, gid="interval")
        shape = {"size": "n", "sizes": (6, 30), "size_norm": (0, table["n"].max()), "linewidth": 0, "zorder": 4}
        sns.scatterplot(**data, **hues, markers=markers, **shape, gid="value")
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axis.set_title(shortened(models[model].name, letters(5.4 / across, 9)))
    style.outer_labels(axes.values(), across, "mean score", "mean target (rating / 10)")
    diagonal = style.line_handle("0.4", "calibrated", linestyle="--", linewidth=0.9)
    style.legend_below(figure, [*map(style.look_handle, looks.values()), diagonal])
    return figure


@house_style
def calibration_mse(table: pd.DataFrame) -> Figure:
    """MSE of each model before and after calibration, with 95 % intervals, beside that of a constant (smaller is better).

    Args:
        table: of `evaluate.calibrate`: `model`, `map`, `mse`, `low`, `high`, `constant_mse`.

    Raises:
        ValueError: a missing column, no rows, a model and map twice.
    """
    needed = ("model", "map", "mse", "low", "high", "constant_mse")
    table = need_rows(table, "the calibration table", needed, key=["model", "map"]).rename(columns={"mse": "value"})
    models, looks = style.model_looks(table["model"]), _map_looks(table["map"])
    figure, axis = style.rows_figure(len(models), each=0.14 * max(len(looks), 2))
    spread = 0.6 if len(looks) > 1 else 0.0
    points(axis, table, "model", list(models), "map", looks, dodge=spread, size=4.5)
    for kind, lift in zip(looks, np.linspace(spread / 2, -spread / 2, len(looks))):
        rows = table[table["map"] == kind].set_index("model").reindex(models)
        style.side_texts(axis, [with_interval(*row) for row in rows[list(VALUE)].to_numpy(float)], lift=lift)
    constant = style.column(table.drop_duplicates("model"), "constant_mse")
    places = np.arange(len(models))
    axis.vlines(constant, places - 0.46, places + 0.46, COLOURS["orange"], linewidth=1.8, gid="constant")
    style.row_axis(axis, [look.name for look in models.values()], width=24)
    axis.set(title="MSE before and after calibration", xlabel="MSE (targets from 0 to 1)")
    mark = {"linestyle": "", "marker": "|", "markersize": 9, "markeredgewidth": 1.8}
    style.legend_below(
        figure, [*map(style.look_handle, looks.values()), style.line_handle(COLOURS["orange"], "a constant", **mark)]
    )
    return figure


def _map_looks(maps: pd.Series) -> dict[str, Look]:
    """Name, colour and marker of each map of scores to ratings, in the order of the table."""
    kinds = list(dict.fromkeys(maps))
    looks = zip(kinds, _MAPS * len(kinds))
    names = {"none": "not calibrated"}
    return {kind: Look(names.get(kind, str(kind)), COLOURS[colour], marker) for kind, (colour, marker) in looks}
