"""Figures of systems: their mean scores against their mean ratings, each with its name."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .parts import EMPTY, letters, need_rows, one_each, outer_labels, panels, shortened
from .style import SMALL, Look, house_style, model_looks, system_looks

ENDS = ("score", "score_low", "score_high", "rating", "rating_low", "rating_high")
_APART = 0.075  # of the panel's height, between two names


@house_style
def system_means(table: pd.DataFrame) -> Figure:
    """Mean CLAPScore of each system against its mean rating, with both 95 % intervals and its name; a panel a model.

    No line is drawn through a handful of points and no coefficient given.

    Args:
        table: of `evaluate.system_means`: `model`, `system`, `score`, `score_low`, `score_high`, `rating`,
            `rating_low`, `rating_high` (0-10). A system without a mean is named below its panel.

    Raises:
        ValueError: a missing column, no rows, a model and system twice.
    """
    table = need_rows(table, "the table of systems", ("model", "system", *ENDS))
    table = one_each(table, ["model", "system"], "the table of systems")
    models, systems = model_looks(table["model"]), system_looks(table["system"])
    figure, axes, across = panels(len(models), 2.2, most=2, extra=0.25, sharex=True)
    for axis, (model, rows) in zip(axes, table.groupby("model", sort=False)):
        for row in rows[np.isfinite(rows["score"]) & np.isfinite(rows["rating"])].itertuples():
            _draw_system(axis, row, systems[row.system])
        axis.margins(0.12)
        axis.set_title(shortened(models[model].name, letters(5.4 / across, 9)))
        missing = [
            systems[name].name for name in rows.loc[~np.isfinite(rows[["score", "rating"]]).all(axis=1), "system"]
        ]
        if missing:
            axis.annotate(
                shortened(f"{EMPTY}: {', '.join(missing)}", letters(5.4 / across, SMALL)), (0.03, 0.03),
                xycoords="axes fraction", fontsize=SMALL, color="0.5",
            )  # fmt: skip
    for axis, (_, rows) in zip(axes, table.groupby("model", sort=False)):  # after all limits are known
        _name_systems(axis, rows.dropna(subset=["score", "rating"]), systems)
    outer_labels(axes, across, "mean human rating", "mean CLAPScore")
    return figure


def _draw_system(axis: Axes, row, look: Look) -> None:
    axis.hlines(row.score, row.rating_low, row.rating_high, color=look.colour, linewidth=1.4, zorder=3, gid="rating")
    axis.vlines(row.rating, row.score_low, row.score_high, color=look.colour, linewidth=1.4, zorder=3, gid="score")
    axis.scatter(
        [row.rating], [row.score], color=look.colour, marker=look.marker, s=26, linewidth=0, zorder=4, gid="value"
    )


def _name_systems(axis: Axes, rows: pd.DataFrame, systems: dict[str, Look]) -> None:
    """Names at the right of the panel, as high as their points where there is room, joined by thin lines."""
    low, high = axis.get_ylim()
    rows = rows.sort_values("score")
    wanted = ((rows["score"] - low) / (high - low)).to_numpy()
    for (_, row), height in zip(rows.iterrows(), spread(wanted, _APART)):
        look = systems[row["system"]]
        axis.annotate(
            shortened(look.name, 16), (row["rating"], row["score"]), (1.04, height), textcoords="axes fraction",
            fontsize=SMALL, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3},
        )  # fmt: skip


def spread(wanted: np.ndarray, apart: float) -> np.ndarray:
    """Rising places at least `apart`, each group that has to give way kept around the mean of what it wanted."""
    groups = []  # (mean of wanted less own offset, how many)
    for place in wanted:
        groups.append((place, 1))
        while len(groups) > 1 and groups[-1][0] < groups[-2][0] + apart * groups[-2][1]:
            (second, m), (first, n) = groups.pop(), groups.pop()
            groups.append(((first * n + (second - apart * n) * m) / (n + m), n + m))
    return np.array([start + apart * step for start, n in groups for step in range(n)])
