"""Further breakdowns: one metric along the values of something that the pairs differ in."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .parts import (
    EMPTY,
    FLOOR_NAME,
    cell_name,
    column,
    legend_below,
    letters,
    line_handle,
    need_model,
    need_rows,
    one_each,
    outer_labels,
    panels,
    shortened,
)
from .style import COLOURS, SMALL, house_style, model_looks

BREAKDOWN_NAMES = {
    "n_events": "Sound events in the caption",
    "caption_length": "Length of the caption",
    "temporal": "Temporal words in the caption",
    "n_ratings": "Ratings of the pair",
    "rating_std": "SD of the pair's ratings",
    "system": "System",
    "score_range": "Range of the mean rating",
}
_WIDTH = 0.7  # of the distance of two cells, in which the models stand side by side


@house_style
def further_breakdowns(table: pd.DataFrame, metric: str = "srcc") -> Figure:
    """One metric of each model in the cells of further breakdowns, with 95 % intervals and n; a panel each.

    A cell in which no model has a value is marked.

    Args:
        table: `breakdown` (the `by` of `evaluate.breakdown`; a panel each; may be missing where there is one), `model`,
            `cell`, `metric`, `value`, `low`, `high`, `n`, and where it is there `floor`.

    Raises:
        ValueError: a missing column, no row of the metric, a model and cell twice.
    """
    rows = need_rows(table, "the table of breakdowns", ("model", "cell", "metric", "value", "low", "high", "n"))
    rows = need_model(rows, metric, "metric")
    if "breakdown" not in rows:
        rows = rows.assign(breakdown="")
    rows = one_each(rows, ["breakdown", "model", "cell"], "the table of breakdowns")
    kinds, looks = list(dict.fromkeys(rows["breakdown"])), model_looks(rows["model"])
    figure, axes, across = panels(len(kinds), 2.1, most=2, extra=0.3, sharey=True)
    offsets = dict(zip(looks, (np.arange(len(looks)) - (len(looks) - 1) / 2) * _WIDTH / max(len(looks), 3)))
    for axis, kind in zip(axes, kinds):
        part = rows[rows["breakdown"] == kind]
        cells = list(dict.fromkeys(part["cell"]))
        spots = np.arange(len(cells), dtype=float)
        for model, look in looks.items():
            mine = part[part["model"] == model].set_index("cell").reindex(cells)
            x = spots + offsets[model]
            axis.plot(x, mine["value"], color=look.colour, linewidth=0.7, alpha=0.6, zorder=2, gid="line")
            axis.vlines(x, mine["low"], mine["high"], color=look.colour, linewidth=1.2, zorder=3, gid="interval")
            axis.scatter(
                x, mine["value"], color=look.colour, marker=look.marker, s=16, linewidth=0, zorder=4, gid="value"
            )
        first = part.drop_duplicates("cell").set_index("cell").reindex(cells)
        floor = column(first, "floor")
        axis.hlines(floor, spots - 0.42, spots + 0.42, color=COLOURS["orange"], linewidth=1.6, zorder=1, gid="floor")
        for spot in spots[part.groupby("cell", sort=False)["value"].count().reindex(cells) == 0]:
            axis.annotate(
                EMPTY, (spot, 0.06), xycoords=("data", "axes fraction"), ha="center", fontsize=SMALL, color="0.5"
            )
        width = letters(2.9 / len(cells), 7)
        labels = [f"{shortened(cell_name(cell), width, lines=3)}\n{n:,.0f}" for cell, n in zip(cells, first["n"])]
        axis.set_xticks(spots, labels)
        axis.set_xlim(-0.6, len(cells) - 0.4)
        axis.axhline(0, color="0.5", linewidth=0.8, zorder=1)
        axis.set_title(shortened(BREAKDOWN_NAMES.get(kind, kind), 46))
        axis.grid(axis="x", visible=False)
        axis.tick_params(labelbottom=True)
    outer_labels(axes, across, "cell, and n below it", f"{metric.upper()} (95 %)")
    handles = [line_handle(look) for look in looks.values()]
    if np.isfinite(column(rows, "floor")).any():
        handles.append(Line2D([], [], color=COLOURS["orange"], linewidth=1.6, label=FLOOR_NAME))
    legend_below(figure, handles)
    return figure
