"""Tables I to III as figures: forest plot and dumbbells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .parts import (
    CEILING_NAME,
    EMPTY,
    FLOOR_NAME,
    cell_name,
    column,
    floor_and_ceiling_marks,
    intervals,
    legend_below,
    line_handle,
    mark_handle,
    need_model,
    need_rows,
    number,
    one_each,
    row_axis,
    rows_figure,
    side_texts,
    sized,
    with_interval,
)
from .style import COLOURS, house_style, model_looks

MARKS = {  # of `evaluate.paper_table`
    "*": "* better than the baseline",
    "‡": "‡ worse than the baseline",
    "†": "† above the floor",
}
TIDY = ("model", "cell", "metric", "value", "low", "high")


@house_style
def overall_forest(
    table: pd.DataFrame,
    floor: float | None = None,
    ceiling: float | None = None,
    metric: str = "srcc",
    ceiling_name: str = CEILING_NAME,
    cell: str = "all",
) -> Figure:
    """One metric of each model with its 95 % interval, between floor and ceiling (Table I as a figure).

    The bar below a model's interval is its spread (± SD) over training seeds, where it has several; hollow diamonds are
    the paper's values. A model without a value keeps its row, marked.

    Args:
        table: `model`, `metric`, `value`, `low`, `high`; where they are there also `cell` (the rows of `cell` are
            drawn), `n`, `floor`, `ceiling`, `seed_sd`, `mark` (written behind the numbers), `note`, `paper`.
        floor: what a score reaches that never listens; None takes the column `floor`.
        ceiling: what people allow; None takes the column `ceiling`, NaN draws none.

    Raises:
        ValueError: a missing column, no row of the metric, a model twice.
    """
    rows = need_rows(table, "the table", ("model", "metric", "value", "low", "high"))
    rows = need_model(rows, metric, "metric")
    if "cell" in rows and rows["cell"].nunique() > 1:
        rows = need_model(rows, cell, "cell")
    rows = one_each(rows.reset_index(drop=True), ["model"], "the table")
    looks = model_looks(rows["model"])
    looks = [looks[model] for model in rows["model"]]
    figure, axis, places = rows_figure(len(rows), each=0.28)
    floors = column(rows, "floor") if floor is None else np.full(len(rows), float(floor))
    ceilings = column(rows, "ceiling") if ceiling is None else np.full(len(rows), float(ceiling))
    floor_and_ceiling_marks(axis, places, floors, ceilings)
    intervals(axis, rows, places, looks)
    seeds = _seed_spread(axis, rows, places, looks)
    paper = column(rows, "paper")
    axis.scatter(
        paper, places, marker="D", s=20, facecolor="white", edgecolor="0.25", linewidth=0.8, zorder=3, gid="paper"
    )
    side_texts(axis, places, _numbers(rows), f"{metric.upper()} [95 %]")
    row_axis(axis, places, [look.name for look in looks])
    sizes = set(column(rows, "n")[np.isfinite(column(rows, "n"))])
    n = f", n = {min(sizes):,.0f}" + (f" to {max(sizes):,.0f}" if len(sizes) > 1 else "") if sizes else ""
    axis.set(title=f"{metric.upper()} with the mean rating{n}", xlabel=metric.upper())
    marks = [Line2D([], [], linestyle="", label=MARKS[mark]) for mark in MARKS if mark in "".join(_marks(rows))]
    legend_below(figure, [*_handles(floors, FLOOR_NAME, ceilings, ceiling_name, paper, seeds), *marks])
    return figure


def _seed_spread(axis: Axes, rows: pd.DataFrame, places: np.ndarray, looks: Sequence) -> bool:
    """A pale bar of value ± SD over training seeds below each interval; True where any was drawn."""
    spread, value = column(rows, "seed_sd"), column(rows, "value")
    drawn = False
    for place, look, sd, middle in zip(places, looks, spread, value):
        if np.isfinite([sd, middle]).all():
            axis.hlines(
                place - 0.27,
                middle - sd,
                middle + sd,
                color=look.colour,
                alpha=0.45,
                linewidth=4,
                zorder=3,
                gid="seeds",
            )
            drawn = True
    return drawn


def _numbers(rows: pd.DataFrame) -> list[str]:
    texts = []
    for _, row in rows.iterrows():
        text = with_interval(row["value"], row["low"], row["high"])
        note = row.get("note")
        if text == EMPTY and isinstance(note, str) and note:
            text = f"{EMPTY}: {note}"
        texts.append(text)
    return [f"{text} {mark}".rstrip() for text, mark in zip(texts, _marks(rows))]


def _marks(rows: pd.DataFrame) -> list[str]:
    return [mark if isinstance(mark, str) else "" for mark in rows.get("mark", [""] * len(rows))]


def _line(colour: str, label: str, **look) -> Line2D:
    return Line2D([], [], color=colour, label=label, **look)


def _handles(floors, floor_name, ceilings, ceiling_name, paper=(), seeds=False) -> list[Line2D]:
    """Legend of what stands in a forest plot, with the number where it is the same in all rows."""
    handles = []
    for ends, name, colour in ((floors, floor_name, "orange"), (ceilings, ceiling_name, "green")):
        known = np.unique(ends[np.isfinite(ends)])
        if len(known):
            handles.append(mark_handle(COLOURS[colour], f"{name}: {number(known[0])}" if len(known) == 1 else name))
    if seeds:
        handles.append(_line("0.6", "± SD over training seeds", linewidth=4, solid_capstyle="butt"))
    if np.isfinite(np.asarray(paper, float)).any():
        look = {"marker": "D", "linestyle": "", "markersize": 4.5, "markerfacecolor": "white"}
        handles.append(_line("0.25", "paper (real data)", **look))
    return handles


@house_style
def dumbbells(
    cells: pd.DataFrame, baseline: str, model: str, metric: str = "srcc", title: str = "before and after fine-tuning"
) -> Figure:
    """One metric of two models in each cell, joined by a line, with 95 % intervals, between its floor and ceiling.

    Args:
        cells: tidy table of `evaluate.breakdown`: `model`, `cell`, `metric`, `value`, `low`, `high`, and where they are
            there `n`, `floor`, `ceiling` (NaN where there is none).
        baseline, model: the models before and after, as the column `model` calls them.
        title: what is compared, behind the name of the metric.

    Raises:
        ValueError: a missing column, no row of the metric or of a model, a cell twice.
    """
    rows = need_model(need_rows(cells, "the table of cells", TIDY), metric, "metric")
    names = list(dict.fromkeys(rows["cell"]))
    before, after = (
        one_each(need_model(rows, which), ["cell"], f"the table of {which}").set_index("cell").reindex(names)
        for which in (baseline, model)
    )
    figure, axis, places = rows_figure(len(names), each=0.34)
    both = pd.concat([before, after])
    floors, ceilings, n = (
        both[name].groupby(level=0).first().reindex(names).to_numpy(float)
        if name in both
        else np.full(len(names), np.nan)
        for name in ("floor", "ceiling", "n")
    )
    floor_and_ceiling_marks(axis, places, floors, ceilings)
    looks = model_looks([baseline, model])
    axis.hlines(places, before["value"], after["value"], color="0.7", linewidth=2.4, zorder=1, gid="change")
    for part, which, lift in ((before, baseline, 0.14), (after, model, -0.14)):
        intervals(axis, part, places, [looks[which]] * len(names), lift=lift)
    changes = [f"{number(a, 2)} → {number(b, 2)}" for a, b in zip(before["value"], after["value"])]
    side_texts(axis, places, changes, "from → to")
    row_axis(axis, places, [sized(cell_name(name), size) for name, size in zip(names, n)])
    axis.axvline(0, color="0.5", linewidth=0.8, zorder=1)
    label = metric.upper()
    axis.set(title=f"{label} {title}", xlabel=f"{label} (95 % intervals)")
    shown = [line_handle(look) for look in looks.values()]
    legend_below(figure, [*shown, *_handles(floors, FLOOR_NAME, ceilings, CEILING_NAME)])
    return figure
