"""Table III without its artefact: each model's cells beside what a homogeneous score would show there."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .parts import (
    cell_name,
    intervals,
    legend_below,
    letters,
    need_rows,
    number,
    one_each,
    outer_labels,
    panels,
    row_axis,
    shortened,
    side_texts,
)
from .style import house_style, model_looks

_VERDICTS = {"less than expected": "less", "more than expected": "more"}


@house_style
def homogeneous(table: pd.DataFrame) -> Figure:
    """SRCC of each model in each cell (mark) and the range of a score that is equally good everywhere.

    A panel a model. The bar is the range, its middle line the mean of the simulations. A mark left of its bar is worse
    there than the model's overall SRCC and the cut explain: the row then says "less".

    Args:
        table: of `evaluate.homogeneous_score`: `model`, `cell`, `value`, `expected`, `low`, `high`, and where it is
            there `verdict`.

    Raises:
        ValueError: a missing column, no rows, a model and cell twice.
    """
    name = "the table of the homogeneous score"
    table = need_rows(table, name, ("model", "cell", "value", "expected", "low", "high"))
    table = one_each(table, ["model", "cell"], name)
    looks, cells = model_looks(table["model"]), list(dict.fromkeys(table["cell"]))
    places = np.arange(len(cells))[::-1].astype(float)
    figure, axes, across = panels(len(looks), 0.5 + 0.2 * len(cells), most=3, extra=0.4, sharex=True, sharey=True)
    for place, (axis, (model, look)) in enumerate(zip(axes, looks.items())):
        rows = table[table["model"] == model].set_index("cell").reindex(cells)
        axis.hlines(places, rows["low"], rows["high"], color="0.8", linewidth=6, zorder=1, gid="range")
        middle = rows["expected"]
        axis.vlines(middle, places - 0.28, places + 0.28, color="0.45", linewidth=1, zorder=2, gid="expected")
        intervals(axis, rows[["value"]], places, [look] * len(cells), size=22)
        found = rows["verdict"] if "verdict" in rows else pd.Series("", index=rows.index)
        texts = [
            f"{number(value, 2)} {_VERDICTS.get(verdict, '')}".rstrip() for value, verdict in zip(rows["value"], found)
        ]
        side_texts(axis, places, texts)
        axis.set_title(shortened(look.name, letters(5.2 / across, 9)))
        row_axis(axis, places, [cell_name(cell) for cell in cells], width=24, lines=1)
        axis.tick_params(axis="y", labelleft=place % across == 0)
    outer_labels(axes, across, "SRCC", "")
    handles = [
        Line2D([], [], color="0.8", linewidth=6, solid_capstyle="butt", label="homogeneous score, 95 % of simulations"),
        Line2D([], [], color="0.45", linestyle="", marker="|", markersize=8, label="their mean"),
        Line2D([], [], color="0.3", linestyle="", marker="o", markersize=4.5, label="the model"),
    ]
    legend_below(figure, handles)
    return figure
