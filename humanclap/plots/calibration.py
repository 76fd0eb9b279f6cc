"""Figures of calibration: what a score means on the scale of ratings, before and after it is mapped there."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .parts import legend_below, letters, line_handle, need_rows, one_each, outer_labels, panels, shortened
from .style import COLOURS, Look, house_style, model_looks

_MAPS = (("grey", "o"), ("blue", "s"), ("vermilion", "^"), ("green", "D"), ("purple", "v"))


@house_style
def calibration(table: pd.DataFrame) -> Figure:
    """Reliability diagram: mean target of the pairs in each bin of a score, before and after its maps; a panel a model.

    A calibrated score lies on the dashed diagonal. Larger marks stand for more pairs.

    Args:
        table: of `evaluate.reliability_curve`: `model`, `map`, `bin`, `mean_score`, `mean_target` (both 0-1), `low`,
            `high` (of the mean target), `n`. Bins without pairs (NaN) are left out.

    Raises:
        ValueError: a missing column, no rows, a bin twice.
    """
    name = "the reliability curve"
    table = need_rows(table, name, ("model", "map", "bin", "mean_score", "mean_target", "low", "high", "n"))
    table = one_each(table, ["model", "map", "bin"], name)
    models, looks = model_looks(table["model"]), map_looks(table["map"])
    figure, axes, across = panels(len(models), 2.0, most=3, extra=0.5, sharex=True, sharey=True)
    most = table["n"].max()
    for axis, (model, rows) in zip(axes, table.groupby("model", sort=False)):
        axis.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=0.9, zorder=1, gid="diagonal")
        for kind, part in rows.groupby("map", sort=False):
            look, part = looks[kind], part.dropna(subset=["mean_score", "mean_target"]).sort_values("mean_score")
            axis.plot(part["mean_score"], part["mean_target"], color=look.colour, linewidth=1, zorder=3, gid="curve")
            axis.vlines(
                part["mean_score"], part["low"], part["high"], color=look.colour, linewidth=1, zorder=2, gid="interval"
            )
            axis.scatter(
                part["mean_score"], part["mean_target"], color=look.colour, marker=look.marker, linewidth=0, zorder=4,
                s=6 + 24 * part["n"] / most, gid="value",
            )  # fmt: skip
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axis.set_title(shortened(models[model].name, letters(5.4 / across, 9)))
    outer_labels(axes, across, "mean score", "mean target (rating / 10)")
    diagonal = Line2D([], [], color="0.4", linestyle="--", linewidth=0.9, label="calibrated")
    legend_below(figure, [*(line_handle(look) for look in looks.values()), diagonal])
    return figure


def map_looks(maps) -> dict[str, Look]:
    """Name, colour and marker of each map, in the order of the table."""
    maps = list(dict.fromkeys(maps))
    return {kind: Look(str(kind), COLOURS[c], m) for kind, (c, m) in zip(maps, _MAPS * (1 + len(maps) // len(_MAPS)))}
