"""Figures of Tables II and III: where a score got better, and by how much."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MODEL_NAMES, SYSTEM_NAMES, house_style, model_colour, new_figure


@house_style
def dumbbells(cells: pd.DataFrame, baseline: str, model: str) -> Figure:
    """SRCC of two models in each cell, joined by a line, with 95 % intervals; the blind floor of the cell as a tick.

    Args:
        cells: tidy table of `evaluate.breakdown`: `model`, `cell`, `metric`, `value`, `low`, `high`, `n`, and
            `floor` (NaN where there is none).
    """
    rows = cells[cells["metric"] == "srcc"]
    names = list(dict.fromkeys(rows["cell"]))
    places = dict(zip(names, np.arange(len(names))[::-1]))
    figure, axis = new_figure(7, 1.2 + 0.42 * len(names))
    before, after = (rows[rows["model"] == which].set_index("cell").reindex(names) for which in (baseline, model))
    spots = np.array([places[name] for name in names])
    axis.hlines(spots, before["value"], after["value"], color="0.7", linewidth=3, zorder=1)
    for part, which, lift in ((before, baseline, -0.13), (after, model, 0.13)):
        colour = model_colour(which)
        axis.hlines(spots + lift, part["low"], part["high"], color=colour, linewidth=1.2, alpha=0.7)
        axis.scatter(part["value"], spots, color=colour, s=42, zorder=3, label=MODEL_NAMES.get(which, which))
    if "floor" in rows:
        axis.scatter(
            before["floor"],
            spots,
            marker="|",
            s=160,
            color=COLOURS["orange"],
            linewidth=2,
            label="never listens",
            zorder=2,
        )
    labels = [f"{SYSTEM_NAMES.get(name, name)}, n = {n:,.0f}" for name, n in zip(names, before["n"])]
    axis.set_yticks(spots, labels)
    axis.axvline(0, color="0.5", linewidth=0.8)
    axis.set(
        title="SRCC before and after fine-tuning",
        xlabel="SRCC (95 % intervals)",
        ylim=(-0.7, len(names) - 0.3),
    )
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@house_style
def controls(table: pd.DataFrame) -> Figure:
    """What each model keeps when it should lose everything: SRCC with true and swapped captions, AUC of anchors.

    Args:
        table: `model`, `control` ("true captions", "swapped captions", "matched against mismatched"), `value`, `low`, `high`.
    """
    figure, (left, right) = new_figure(7.6, 0.9 + 0.36 * table["model"].nunique(), columns=2, sharey=True)
    models = list(dict.fromkeys(table["model"]))
    spots = np.arange(len(models))[::-1]
    panels = (
        (
            left,
            (("true captions", "blue"), ("swapped captions", "vermilion")),
            "SRCC with the mean rating",
            0.0,
        ),
        (right, (("matched against mismatched", "green"),), "AUC, matched against mismatched captions", 0.5),
    )
    for axis, marks, label, chance in panels:
        for control, colour in marks:
            part = table[table["control"] == control].set_index("model").reindex(models)
            axis.hlines(spots, part["low"], part["high"], color=COLOURS[colour], linewidth=2)
            axis.scatter(part["value"], spots, color=COLOURS[colour], s=34, zorder=3, label=control)
        axis.axvline(chance, color="0.4", linestyle="--", linewidth=1)
        axis.set(xlabel=label, ylim=(-0.6, len(models) - 0.4))
        axis.grid(axis="y", visible=False)
    left.set_yticks(spots, [MODEL_NAMES.get(model, model) for model in models])
    left.set_title("Does it need the caption?")
    right.set_title("Does it tell pairs apart?")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
