"""Tables I to III and the further breakdowns as figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import style
from .style import (
    CEILING_NAME,
    COLOURS,
    EMPTY,
    FLOOR_NAME,
    SMALL,
    VALUE,
    house_style,
    letters,
    need_rows,
    number,
    points,
    shortened,
    with_interval,
)

MARKS = {  # of `evaluate.paper_table`
    "*": "* better than the baseline",
    "‡": "‡ worse than the baseline",
    "†": "† above the floor",
}
BREAKDOWN_NAMES = {
    "caption_length": "Length of the caption",
    "temporal": "Temporal words in the caption",
    "n_ratings": "Ratings of the pair",
    "rating_std": "SD of the pair's ratings",
    "system": "System",
    "score_range": "Range of the mean rating",
}
_VERDICTS = {"less than expected": " less", "more than expected": " more"}


@house_style
def overall_forest(
    table: pd.DataFrame,
    floor: float | None = None,
    ceiling: float | None = None,
    metric: str = "srcc",
    cell: str = "all",
) -> Figure:
    """One metric of each model with its 95 % interval, between floor and ceiling (Table I as a figure).

    The bar below a model's interval is its spread (± SD) over training seeds, where it has several; hollow diamonds are
    the paper's values. A model without a value keeps its row, with the reason.

    Args:
        table: `model`, `metric`, `value`, `low`, `high`; where they are there also `cell` (the rows of `cell` are
            drawn), `n`, `floor`, `ceiling`, `seed_sd`, `mark` (written behind the numbers), `note`, `paper`.
        floor: what a score reaches that never hears the audio; None takes the column `floor`.
        ceiling: what the disagreement of raters allows; None takes the column `ceiling`, NaN draws none.

    Raises:
        ValueError: a missing column, no row of the metric, a model twice.
    """
    rows = style.need_value(need_rows(table, "the table", ("model", "metric", *VALUE)), "metric", metric)
    if "cell" in rows and rows["cell"].nunique() > 1:
        rows = style.need_value(rows, "cell", cell)
    rows = need_rows(rows, "the table", (), key=["model"])
    looks = style.model_looks(rows["model"])
    figure, axis = style.rows_figure(len(rows), each=0.28)
    floors = style.column(rows, "floor") if floor is None else np.full(len(rows), float(floor))
    ceilings = style.column(rows, "ceiling") if ceiling is None else np.full(len(rows), float(ceiling))
    style.row_marks(axis, floors, ceilings)
    points(axis, rows, "model", list(looks), "model", looks)
    handles = [*style.mark_handle(floors, FLOOR_NAME, "orange"), *style.mark_handle(ceilings, CEILING_NAME, "green")]
    places, value, seed_sd, paper = (
        np.arange(len(rows)), style.column(rows, "value"), style.column(rows, "seed_sd"), style.column(rows, "paper")
    )  # fmt: skip
    if np.isfinite(value + seed_sd).any():
        colours = [look.colour for look in looks.values()]
        axis.hlines(
            places + 0.27, value - seed_sd, value + seed_sd, colours, linewidth=4, alpha=0.45, zorder=3, gid="seeds"
        )
        handles.append(style.line_handle("0.6", "± SD over training seeds", linewidth=4, solid_capstyle="butt"))
    if np.isfinite(paper).any():
        look = {"linestyle": "", "marker": "D", "markersize": 4.5, "markerfacecolor": "white", "color": "0.25"}
        axis.plot(paper, places, zorder=4, gid="paper", **look)
        handles.append(Line2D([], [], label="paper (real data)", **look))
    marks = [mark if isinstance(mark, str) else "" for mark in rows.get("mark", [""] * len(rows))]
    style.side_texts(
        axis, [f"{text} {mark}".rstrip() for text, mark in zip(_numbers(rows), marks)], f"{metric.upper()} [95 %]"
    )
    style.row_axis(axis, [look.name for look in looks.values()])
    sizes = style.column(rows, "n")[np.isfinite(style.column(rows, "n"))]
    n = f", n = {sizes.min():,.0f}" if len(sizes) else ""
    n += f" to {sizes.max():,.0f}" if len(set(sizes)) > 1 else ""
    axis.set(title=f"{metric.upper()} with the mean rating{n}", xlabel=metric.upper())
    shown = [Line2D([], [], linestyle="", label=text) for mark, text in MARKS.items() if mark in "".join(marks)]
    style.legend_below(figure, [*handles, *shown])
    return figure


def _numbers(rows: pd.DataFrame) -> list[str]:
    """Value and interval of each row, or why it has none."""
    texts = [with_interval(*row) for row in rows[list(VALUE)].to_numpy(float)]
    notes = rows.get("note", pd.Series("", index=rows.index))
    return [f"{text}: {note}" if text == EMPTY and isinstance(note, str) and note else text
            for text, note in zip(texts, notes)]  # fmt: skip


@house_style
def dumbbells(
    cells: pd.DataFrame, baseline: str, model: str, metric: str = "srcc", title: str = "before and after fine-tuning"
) -> Figure:
    """One metric of two models in each cell, joined by a line, with 95 % intervals, between its floor and ceiling.

    Args:
        cells: tidy table of `evaluate.breakdown`: `model`, `cell`, `metric`, `value`, `low`, `high`, and where they are
            there `n`, `floor`, `ceiling` (NaN where there is none).
        baseline, model: the models before and after, as the column `model` names them.
        title: what is compared, written behind the name of the metric.

    Raises:
        ValueError: a missing column, no row of the metric or of a model, a cell twice.
    """
    name = "the table of cells"
    rows = style.need_value(need_rows(cells, name, ("model", "cell", "metric", *VALUE)), "metric", metric)
    two = pd.concat([style.need_value(rows, "model", which) for which in (baseline, model)])
    two = need_rows(two, name, (), key=["model", "cell"])
    names, looks = list(dict.fromkeys(rows["cell"])), style.model_looks([baseline, model])
    figure, axis = style.rows_figure(len(names), each=0.34)
    floors, ceilings, sizes = (_first(two, end, names) for end in ("floor", "ceiling", "n"))
    style.row_marks(axis, floors, ceilings)
    before, after = (_first(two[two["model"] == which], "value", names) for which in (baseline, model))
    axis.hlines(range(len(names)), before, after, color="0.7", linewidth=2.4, zorder=1, gid="change")
    points(axis, two, "cell", names, "model", looks, dodge=0.28)
    style.side_texts(axis, [f"{number(a, 2)} → {number(b, 2)}" for a, b in zip(before, after)], "from → to")
    labels = [
        f"{style.cell_name(cell)} (n = {n:,.0f})" if np.isfinite(n) else style.cell_name(cell)
        for cell, n in zip(names, sizes)
    ]
    style.row_axis(axis, labels)
    axis.axvline(0, color="0.5", linewidth=0.8, zorder=1)
    axis.set(title=f"{metric.upper()} {title}", xlabel=f"{metric.upper()} (95 % intervals)")
    handles = [*style.mark_handle(floors, FLOOR_NAME, "orange"), *style.mark_handle(ceilings, CEILING_NAME, "green")]
    style.legend_below(figure, [*map(style.look_handle, looks.values()), *handles])
    return figure


def _first(rows: pd.DataFrame, name: str, cells: Sequence[str]) -> np.ndarray:
    """A column by cell: the first number that the cell's rows have, NaN where there is none."""
    return pd.Series(style.column(rows, name)).groupby(rows["cell"].to_numpy()).first().reindex(cells).to_numpy()


@house_style
def further_breakdowns(table: pd.DataFrame, metric: str = "srcc") -> Figure:
    """One metric of each model in the cells of further breakdowns, with 95 % intervals and n; one panel each.

    A cell in which no model has a value is marked.

    Args:
        table: `breakdown` (the `by` of `evaluate.breakdown`; one panel each), `model`, `cell`, `metric`, `value`,
            `low`, `high`, `n`, and where it is there `floor`.

    Raises:
        ValueError: a missing column, no row of the metric, a model and cell twice.
    """
    name = "the table of breakdowns"
    rows = need_rows(table, name, ("breakdown", "model", "cell", "metric", *VALUE, "n"))
    rows = need_rows(style.need_value(rows, "metric", metric), name, (), key=["breakdown", "model", "cell"])
    looks = style.model_looks(rows["model"])
    figure, axes, across = style.facets(rows, "breakdown", 2.1, most=2, extra=0.3, sharex=False, sharey=True)
    for kind, axis in axes.items():
        part = rows[rows["breakdown"] == kind]
        cells = list(dict.fromkeys(part["cell"]))
        places = np.arange(len(cells))
        points(axis, part, "cell", cells, "model", looks, dodge=min(0.7, 0.23 * len(looks)), upright=True, join=True)
        floor = _first(part, "floor", cells)
        axis.hlines(floor, places - 0.42, places + 0.42, COLOURS["orange"], linewidth=1.6, zorder=1, gid="floor")
        for place in places[np.isnan(_first(part, "value", cells))]:
            axis.annotate(
                EMPTY, (place, 0.06), xycoords=("data", "axes fraction"), ha="center", fontsize=SMALL, color="0.5"
            )
        width = letters(2.9 / len(cells), 7)
        labels = [shortened(style.cell_name(cell), width, lines=3) for cell in cells]
        axis.set_xticks(places, [f"{label}\n{n:,.0f}" for label, n in zip(labels, _first(part, "n", cells))])
        axis.set_xlim(-0.6, len(cells) - 0.4)
        axis.axhline(0, color="0.5", linewidth=0.8, zorder=1)
        axis.grid(axis="x", visible=False)
        axis.set_title(shortened(BREAKDOWN_NAMES.get(kind, kind), 46))
    style.outer_labels(axes.values(), across, "cell, and n below it", f"{metric.upper()} (95 %)")
    handles = [style.look_handle(look) for look in looks.values()]
    if np.isfinite(style.column(rows, "floor")).any():
        handles.append(style.line_handle(COLOURS["orange"], FLOOR_NAME, linewidth=1.6))
    style.legend_below(figure, handles)
    return figure


@house_style
def homogeneous(table: pd.DataFrame) -> Figure:
    """SRCC of each model in each cell (mark) and the range of a score that is equally good everywhere; one panel each.

    The bar is the range, its middle line the mean of the simulations. A mark left of its bar is worse there than the
    model's overall SRCC and the selection of the cell explain: the row then says "less".

    Args:
        table: of `evaluate.homogeneous_score`: `model`, `cell`, `value`, `expected`, `low`, `high`, `verdict`.

    Raises:
        ValueError: a missing column, no rows, a model and cell twice.
    """
    needed = ("model", "cell", "value", "expected", "low", "high", "verdict")
    table = need_rows(table, "the table of the homogeneous score", needed, key=["model", "cell"])
    looks, cells = style.model_looks(table["model"]), list(dict.fromkeys(table["cell"]))
    places = np.arange(len(cells))
    figure, axes, across = style.facets(table, "model", 0.5 + 0.2 * len(cells), sharex=True, sharey=True)
    for model, axis in axes.items():
        rows = table[table["model"] == model].set_index("cell").reindex(cells).reset_index()
        axis.hlines(places, rows["low"], rows["high"], color="0.8", linewidth=6, zorder=1, gid="range")
        middle = rows["expected"]
        axis.vlines(middle, places - 0.28, places + 0.28, color="0.45", linewidth=1, zorder=2, gid="expected")
        points(axis, rows[["cell", "value"]].assign(model=model), "cell", cells, "model", {model: looks[model]})
        verdicts = rows["verdict"].map(_VERDICTS).fillna("")
        style.side_texts(axis, [number(value, 2) + verdict for value, verdict in zip(rows["value"], verdicts)])
        axis.set_title(shortened(looks[model].name, letters(5.2 / across, 9)))
        style.row_axis(axis, list(map(style.cell_name, cells)), width=24, lines=1)
    style.outer_labels(axes.values(), across, "SRCC", "")
    handles = [
        style.line_handle("0.8", "homogeneous score, 95 % of simulations", linewidth=6, solid_capstyle="butt"),
        style.line_handle("0.45", "their mean", linestyle="", marker="|", markersize=8),
        style.line_handle("0.3", "the model", linestyle="", marker="o", markersize=4.5),
    ]
    style.legend_below(figure, handles)
    return figure
