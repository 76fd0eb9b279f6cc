"""The figure of one's own systems: mean scores with intervals, beside what no match and a good match earn."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .parts import intervals, legend_below, need_rows, number, row_axis, rows_figure, side_texts, with_interval
from .style import COLOURS, Look, house_style

_LOOK = Look("", COLOURS["blue"], "o")
_REFERENCE_COLOURS = ("orange", "vermilion", "green")


@house_style
def own_systems(means: pd.DataFrame, references: pd.DataFrame) -> Figure:
    """Mean CLAPScore of each system with its interval, the references as lines behind them.

    Args:
        means: `report.system_means`: system, clips, failed, mean, low, high. A system without a score keeps its row.
        references: `report.references`: reference, mean, clips; one without a mean is left out.

    Raises:
        ValueError: a missing column, no systems.
    """
    rows = need_rows(means, "the means", ("system", "clips", "failed", "mean", "low", "high"))
    figure, axis, places = rows_figure(len(rows), each=0.3)
    lines = []
    for (_, row), colour in zip(references.dropna(subset=["mean"]).iterrows(), _REFERENCE_COLOURS):
        axis.axvline(row["mean"], color=COLOURS[colour], linestyle="--", linewidth=1.2, zorder=1, gid="reference")
        label = f"{row['reference']}: {number(row['mean'])}"
        lines.append(Line2D([], [], color=COLOURS[colour], linestyle="--", linewidth=1.2, label=label))
    intervals(axis, rows.rename(columns={"mean": "value"}), places, [_LOOK] * len(rows))
    side_texts(axis, places, list(map(with_interval, rows["mean"], rows["low"], rows["high"])), "mean [95 %]")
    failed = [f", {n} failed" if n else "" for n in rows["failed"]]
    names = [f"{name} (n = {n}{more})" for name, n, more in zip(rows["system"], rows["clips"], failed)]
    row_axis(axis, places, [name.replace("$", r"\$") for name in names])
    axis.set(title="Mean CLAPScore of each system, intervals over prompts", xlabel="CLAPScore")
    legend_below(figure, lines)
    return figure
