"""Figures of people's ratings: the scale, the anchors, agreement, floor and ceiling."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .parts import (
    cell_name,
    column,
    intervals,
    legend_below,
    line_handle,
    need_model,
    need_rows,
    one_each,
    outer_labels,
    panels,
    row_axis,
    rows_figure,
    side_texts,
    sized,
    with_interval,
)
from .style import COLOURS, DOUBLE, SINGLE, Look, house_style, new_figure

LABELLED = (0, 2, 5, 8, 10)  # the points of the scale that carry words (paper, section II-B)


@house_style
def scale_use(ratings: pd.DataFrame) -> Figure:
    """Share of each rating 0-10, for matched pairs and for anchors; the points that carry words in full colour.

    Args:
        ratings: DataFrame of `load_ratings`.
    """
    ratings = need_rows(ratings, "the ratings", ("rating", "is_anchor"))
    figure, axes = new_figure(DOUBLE, 2.3, columns=2, sharex=True, sharey=True)
    parts = (
        ("Matched pairs", ~ratings["is_anchor"].astype(bool), "blue"),
        ("Anchors (wrong on purpose)", ratings["is_anchor"].astype(bool), "vermilion"),
    )
    for axis, (title, rows, colour) in zip(axes, parts):
        share = ratings.loc[rows, "rating"].value_counts(normalize=True).reindex(range(11), fill_value=0)
        bars = axis.bar(share.index, share, width=0.8, color=COLOURS[colour])
        for rating, bar in zip(share.index, bars):
            bar.set_alpha(1.0 if rating in LABELLED else 0.4)
        axis.set(title=f"{title}, n = {int(rows.sum()):,}", xticks=range(11))
        axis.grid(axis="x", visible=False)
    outer_labels(axes, 2, "rating", "share of ratings")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    return figure


@house_style
def anchor_means(means: pd.Series, max_anchor_mean: float) -> Figure:
    """Listeners by their mean anchor rating, those above the threshold in another colour.

    Args:
        means: one mean (0-10) a listener.
        max_anchor_mean: the threshold.
    """
    means = means.dropna()
    if not len(means):
        raise ValueError("no listener has a mean anchor rating: there is nothing to draw")
    figure, axis = new_figure(SINGLE, 2.4)
    edges = np.arange(-1 / 6, 10.4, 1 / 3)  # means of three ratings, each in the middle of its bin
    removed = means > max_anchor_mean
    axis.hist(
        [means[~removed], means[removed]],
        bins=edges,
        stacked=True,
        color=[COLOURS["blue"], COLOURS["vermilion"]],
        label=[f"kept: {(~removed).sum():,}", f"removed: {removed.sum():,}"],
        edgecolor="white",
        linewidth=0.4,
    )
    axis.axvline(max_anchor_mean, color="0.2", linestyle="--", linewidth=1, label=f"threshold {max_anchor_mean:g}")
    axis.set(
        title="What the anchors catch",
        xlabel="listener's mean anchor rating",
        ylabel="listeners",
        xlim=(-0.3, 10.3),
    )
    axis.grid(axis="x", visible=False)
    legend_below(figure, *axis.get_legend_handles_labels())
    return figure


@house_style
def agreement_by_system(ceilings: pd.DataFrame) -> Figure:
    """How well people agree in each part of the test pairs: the best LCC that any score could reach, with its interval.

    Args:
        ceilings: table of `evaluate.ceiling_table`: `subset`, `n_pairs`, `lcc_ceiling`, `lcc_ceiling_low`,
            `lcc_ceiling_high`.

    Raises:
        ValueError: a missing column, no rows.
    """
    names = {"lcc_ceiling": "value", "lcc_ceiling_low": "low", "lcc_ceiling_high": "high"}
    rows = need_rows(ceilings, "the table of ceilings", ("subset", "n_pairs", *names)).rename(columns=names)
    figure, axis, places = rows_figure(len(rows), each=0.24)
    together, one = Look("several systems", COLOURS["grey"], "s"), Look("one system", COLOURS["blue"], "o")
    looks = [together if part in ("all", "synthesized") else one for part in rows["subset"]]
    intervals(axis, rows, places, looks)
    side_texts(
        axis, places, [with_interval(*row) for row in rows[["value", "low", "high"]].to_numpy(float)], "LCC [95 %]"
    )
    row_axis(axis, places, [sized(cell_name(part), n) for part, n in zip(rows["subset"], column(rows, "n_pairs"))])
    axis.set(
        title="The best correlation that any score could reach",
        xlabel="LCC of a perfect predictor with the mean rating",
    )
    return figure


@house_style
def cell_ceilings(table: pd.DataFrame, metric: str = "srcc") -> Figure:
    """The best value of one metric that any score could reach in each cell, a panel a file of ratings.

    Args:
        table: of `evaluate.cell_ceilings` or `evaluate.screened_ceilings`: `cell`, `metric`, `ceiling`, `low`, `high`,
            `n`, and where they are there `file` (REL, IS, OS) and `screening` (before, after).

    Raises:
        ValueError: a missing column, no row of the metric, a cell twice.
    """
    name = "the table of ceilings"
    rows = need_rows(table, name, ("cell", "metric", "ceiling", "low", "high", "n"))
    rows = need_model(rows, metric, "metric").rename(columns={"ceiling": "value"})
    rows = rows.assign(file=rows.get("file", ""), screening=rows.get("screening", ""))
    rows = one_each(rows, ["file", "screening", "cell"], name)
    cells, files, states = (list(dict.fromkeys(rows[key])) for key in ("cell", "file", "screening"))
    places = np.arange(len(cells))[::-1].astype(float)
    looks = [
        Look(f"{state} screening", COLOURS[colour], marker)
        for state, (colour, marker) in zip(states, (("blue", "o"), ("vermilion", "s")))
    ]
    lifts = (0.15, -0.15) if len(states) > 1 else (0.0,)
    figure, axes, across = panels(len(files), 0.5 + 0.26 * len(cells), most=3, extra=0.5, sharex=True, sharey=True)
    for place, (axis, file) in enumerate(zip(axes, files)):
        texts = np.full(len(cells), "", dtype=object)
        for look, lift, state in zip(looks, lifts, states):
            part = rows[(rows["file"] == file) & (rows["screening"] == state)].set_index("cell").reindex(cells)
            intervals(axis, part, places, [look] * len(cells), lift=lift, size=20)
            sizes = ["–" if np.isnan(n) else f"{n:,.0f}" for n in column(part, "n")]
            texts = [f"{text} / {size}" if text and text != size else size for text, size in zip(texts, sizes)]
        side_texts(axis, places, texts, "n")
        axis.set_title(file or f"{metric.upper()} ceiling")
        row_axis(axis, places, [cell_name(cell) for cell in cells])
        axis.tick_params(axis="y", labelleft=place % across == 0)
    outer_labels(axes, across, f"{metric.upper()} of a perfect score", "")
    legend_below(figure, [line_handle(look) for look in looks] if len(states) > 1 else [])
    return figure


@house_style
def floor_and_ceiling(marks: pd.DataFrame) -> Figure:
    """SRCC on one axis: what needs no listening, what the paper reports, how far two halves of the listeners agree.

    Args:
        marks: one row a mark, drawn from top to bottom: `name`, `kind` ("floor", "paper" or "people"), `value`, and
            `low`, `high` (NaN where there is no interval).

    Raises:
        ValueError: a missing column, no rows, an unknown kind.
    """
    marks = need_rows(marks, "the table of marks", ("name", "kind", "value", "low", "high"))
    kinds = {
        "floor": Look("never listens", COLOURS["orange"], "^"),
        "paper": Look("CLAPScore, as the paper reports it (its own pairs)", COLOURS["blue"], "D"),
        "people": Look("people", COLOURS["green"], "o"),
    }
    unknown = set(marks["kind"]) - set(kinds)
    if unknown:
        raise ValueError(f"unknown kind of mark: {', '.join(map(str, unknown))}. Available: {', '.join(kinds)}")
    figure, axis, places = rows_figure(len(marks), each=0.24)
    intervals(axis, marks, places, [kinds[kind] for kind in marks["kind"]])
    texts = [with_interval(*row) for row in marks[["value", "low", "high"]].to_numpy(float)]
    side_texts(axis, places, texts, "SRCC [95 %]")
    row_axis(axis, places, marks["name"], width=40)
    ends = marks[["value", "low", "high"]].to_numpy(float)
    lowest, highest = np.nanmin(ends), np.nanmax(ends)
    axis.set(
        title="Between the floor and the people",
        xlabel="SRCC with the mean rating\n(people: of one half's mean with the other half's)",
        xlim=(min(0.0, lowest - 0.05), max(0.7, highest + 0.05)),
    )
    shown = [axis.scatter([], [], color=look.colour, marker=look.marker, s=26) for look in kinds.values()]
    legend_below(figure, shown, [look.name for look in kinds.values()])
    return figure
