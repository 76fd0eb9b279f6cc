"""Figures of the controls: does a score listen, and does it prefer what people prefer?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import style
from .style import EMPTY, SMALL, SYSTEM_NAMES, VALUE, house_style, letters, need_rows, points, shortened

_DASHED = {"linestyle": "--", "linewidth": 0.9}
_ENDS = ("score", "score_low", "score_high", "rating", "rating_low", "rating_high")


@house_style
def listening(table: pd.DataFrame) -> Figure:
    """Every control of every model, one panel per control, with 95 % intervals; a dashed line at chance.

    Chance is 0 for correlations and their differences, and 0.5 for AUCs and for comparisons within a clip.

    Args:
        table: of `evaluate.listening_table`: `model`, `control`, `value`, `low`, `high`. A value that is NaN, or a
            control that a model lacks, is marked in its row.

    Raises:
        ValueError: a missing column, no rows, a model and control twice.
    """
    table = need_rows(table, "the listening table", ("model", "control", *VALUE), key=["model", "control"])
    figure, axes, across = _panels(table, "control", sharex=False)
    for kind, axis in axes.items():
        axis.axvline(0.5 if str(kind).startswith(("AUC", "same clip")) else 0.0, color="0.4", gid="chance", **_DASHED)
        axis.set_title(shortened(kind, letters(5.2 / across, 7.5), lines=2), fontsize=7)
    style.legend_below(figure, [style.line_handle("0.4", "chance", **_DASHED)])
    return figure


@house_style
def preferences(table: pd.DataFrame) -> Figure:
    """How often score and people prefer the same of two systems' clips of one caption, one panel per pair of systems.

    Drawn beside always preferring the system with the better mean (the floor), where the table has it; chance, 0.5, is
    dashed.

    Args:
        table: of `evaluate.preferences`: `model`, `systems`, `value`, `low`, `high`, and where they are there `n`,
            `floor`.

    Raises:
        ValueError: a missing column, no rows, a model and pair of systems twice.
    """
    table = need_rows(table, "the table of preferences", ("model", "systems", *VALUE), key=["model", "systems"])
    figure, axes, across = _panels(table, "systems", sharex=True)
    for kind, axis in axes.items():
        rows = table[table["systems"] == kind]
        style.row_marks(axis, style.column(rows, "floor"), np.full(len(rows), np.nan))
        axis.axvline(0.5, color="0.4", zorder=1, gid="chance", **_DASHED)
        title = " – ".join(SYSTEM_NAMES.get(part, part) for part in str(kind).split(" – "))
        sizes = style.column(rows, "n")
        counted = f"\nn = {np.nanmax(sizes):,.0f}" if np.isfinite(sizes).any() else ""
        axis.set_title(shortened(title, letters(5.2 / across, 7.5)) + counted, fontsize=7)
    style.outer_labels(axes.values(), across, "share of comparisons", "")
    floor = style.mark_handle(style.column(table, "floor"), "floor (the better mean always wins)", "orange")
    style.legend_below(figure, [style.line_handle("0.4", "chance", **_DASHED), *floor])
    return figure


def _panels(table: pd.DataFrame, by: str, sharex: bool) -> tuple[Figure, dict[str, Axes], int]:
    """One panel per value of `by` and one row per model, in the model's look; what is missing is marked."""
    looks = style.model_looks(table["model"])
    figure, axes, across = style.facets(table, by, 0.5 + 0.17 * len(looks), sharex=sharex, sharey=True)
    for kind, axis in axes.items():
        rows = table[table[by] == kind].set_index("model").reindex(looks).reset_index()
        points(axis, rows, "model", list(looks), "model", looks, size=4.5)
        for place in np.flatnonzero(rows["value"].isna()):
            where = {"xycoords": ("axes fraction", "data"), "va": "center"}
            axis.annotate(EMPTY, (0.03, place), fontsize=SMALL, color="0.5", **where)
        style.row_axis(axis, [look.name for look in looks.values()], width=24, lines=1)
        axis.margins(x=0.12)
    return figure, axes, across


@house_style
def system_means(table: pd.DataFrame) -> Figure:
    """Mean CLAPScore of each system against its mean rating, with both 95 % intervals; one panel per model.

    No line is drawn through a handful of points and no coefficient is given.

    Args:
        table: of `evaluate.system_means`: `model`, `system`, `score`, `score_low`, `score_high`, `rating`,
            `rating_low`, `rating_high` (0-10). A system without a mean is named in its panel.

    Raises:
        ValueError: a missing column, no rows, a model and system twice.
    """
    table = need_rows(table, "the table of systems", ("model", "system", *_ENDS), key=["model", "system"])
    models, systems = style.model_looks(table["model"]), style.system_looks(table["system"])
    figure, axes, across = style.facets(table, "model", 2.2, most=2, extra=0.25, sharex=True, sharey=False)
    for model, axis in axes.items():
        rows = table[table["model"] == model]
        for row in rows.dropna(subset=["score", "rating"]).itertuples():
            look = systems[row.system]
            axis.hlines(row.score, row.rating_low, row.rating_high, look.colour, zorder=3, gid="rating")
            axis.vlines(row.rating, row.score_low, row.score_high, look.colour, zorder=3, gid="score")
            axis.plot(row.rating, row.score, look.marker, color=look.colour, markersize=6, zorder=4, gid="value")
        missing = [systems[name].name for name in rows.loc[rows[["score", "rating"]].isna().any(axis=1), "system"]]
        if missing:
            text = shortened(f"{EMPTY}: {', '.join(missing)}", letters(5.4 / across, SMALL))
            axis.annotate(text, (0.03, 0.03), xycoords="axes fraction", fontsize=SMALL, color="0.5")
        axis.margins(0.12)
        axis.set_title(shortened(models[model].name, letters(5.4 / across, 9)))
    style.outer_labels(axes.values(), across, "mean human rating", "mean CLAPScore")
    style.legend_below(figure, list(map(style.look_handle, systems.values())))
    return figure
