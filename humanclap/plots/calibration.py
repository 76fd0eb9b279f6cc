"""Figures of calibration: what a score means on the scale of ratings, before and after it is mapped there."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .parts import (
    column,
    intervals,
    legend_below,
    letters,
    line_handle,
    mark_handle,
    need_rows,
    one_each,
    outer_labels,
    panels,
    row_axis,
    rows_figure,
    shortened,
    side_texts,
    with_interval,
)
from .style import COLOURS, Look, house_style, model_looks

MAP_NAMES = {"none": "score as it is"}
_MAPS = (("grey", "o"), ("blue", "s"), ("vermilion", "^"), ("green", "D"), ("purple", "v"))


@house_style
def calibration(table: pd.DataFrame) -> Figure:
    """Reliability diagram: mean target of the pairs in each bin of a score, before and after its maps; a panel a model.

    A calibrated score lies on the dashed diagonal. Larger marks stand for more pairs.

    Args:
        table: `evaluate.reliability_curve` of each model and map below each other: `bin`, `score` (mean),
            `target` (mean, both 0-1), `low`, `high` (of the target), `n`; `model` and `map` where there are several.
            Bins without pairs (NaN) are left out.

    Raises:
        ValueError: a missing column, no rows, a bin twice.
    """
    name = "the reliability curve"
    table = need_rows(table, name, ("bin", "score", "target", "low", "high", "n"))
    table = table.assign(model=table.get("model", ""), map=table.get("map", "none"))
    table = one_each(table, ["model", "map", "bin"], name)
    models, looks = model_looks(table["model"]), map_looks(table["map"])
    figure, axes, across = panels(len(models), 2.0, most=3, extra=0.5, sharex=True, sharey=True)
    most = table["n"].max()
    for axis, (model, rows) in zip(axes, table.groupby("model", sort=False)):
        axis.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=0.9, zorder=1, gid="diagonal")
        for kind, part in rows.groupby("map", sort=False):
            look, part = looks[kind], part.dropna(subset=["score", "target"]).sort_values("score")
            x, colour = part["score"], look.colour
            axis.plot(x, part["target"], color=colour, linewidth=1, zorder=3, gid="curve")
            axis.vlines(x, part["low"], part["high"], color=colour, linewidth=1, zorder=2, gid="interval")
            sizes = 6 + 24 * part["n"] / most
            axis.scatter(
                x, part["target"], color=colour, marker=look.marker, s=sizes, linewidth=0, zorder=4, gid="value"
            )
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axis.set_title(shortened(models[model].name, letters(5.4 / across, 9)))
    outer_labels(axes, across, "mean score", "mean target (rating / 10)")
    diagonal = Line2D([], [], color="0.4", linestyle="--", linewidth=0.9, label="calibrated")
    legend_below(figure, [*(line_handle(look) for look in looks.values()), diagonal])
    return figure


@house_style
def calibration_mse(table: pd.DataFrame) -> Figure:
    """MSE of each model before and after its maps, with 95 % intervals, beside that of a constant (smaller is better).

    Args:
        table: of `evaluate.calibrate`: `model`, `map`, `mse`, `low`, `high`, `constant_mse`.

    Raises:
        ValueError: a missing column, no rows, a model and map twice.
    """
    name = "the calibration table"
    table = need_rows(table, name, ("model", "map", "mse", "low", "high", "constant_mse"))
    table = one_each(table, ["model", "map"], name).rename(columns={"mse": "value"})
    models, looks = model_looks(table["model"]), map_looks(table["map"])
    each = 0.14 * max(len(looks), 2)
    figure, axis, places = rows_figure(len(models), each=each)
    lifts = np.linspace(0.3, -0.3, len(looks)) if len(looks) > 1 else [0.0]
    for (kind, look), lift in zip(looks.items(), lifts):
        rows = table[table["map"] == kind].set_index("model").reindex(models)
        intervals(axis, rows, places, [look] * len(models), lift=lift, size=18)
        texts = [with_interval(*row) for row in rows[["value", "low", "high"]].to_numpy(float)]
        side_texts(axis, places + lift, texts)
    constant = column(table.drop_duplicates("model"), "constant_mse")
    axis.vlines(
        constant, places - 0.46, places + 0.46, color=COLOURS["orange"], linewidth=1.8, zorder=2, gid="constant"
    )
    row_axis(axis, places, [look.name for look in models.values()], width=24)
    axis.set(title="MSE before and after calibration", xlabel="MSE (targets from 0 to 1)")
    legend_below(figure, [*map(line_handle, looks.values()), mark_handle(COLOURS["orange"], "a constant")])
    return figure


def map_looks(maps) -> dict[str, Look]:
    """Name, colour and marker of each map, in the order of the table."""
    maps = list(dict.fromkeys(maps))
    looks = zip(maps, _MAPS * (1 + len(maps) // len(_MAPS)))
    return {kind: Look(MAP_NAMES.get(kind, str(kind)), COLOURS[colour], marker) for kind, (colour, marker) in looks}
