"""Figures with a panel a control and a row a model: does it listen, and does it prefer what people prefer?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .parts import (
    EMPTY,
    FLOOR_NAME,
    VALUE,
    column,
    floor_and_ceiling_marks,
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
    shortened,
)
from .style import COLOURS, SMALL, SYSTEM_NAMES, Look, house_style, model_looks

CONTROL = ("model", "control", *VALUE)
_PAIRS = (Look("true captions", COLOURS["blue"], "o"), Look("swapped captions", COLOURS["vermilion"], "s"))
_MATCHED = Look("matched against mismatched", COLOURS["green"], "D")


@house_style
def controls(table: pd.DataFrame) -> Figure:
    """What each model keeps when it should lose everything: SRCC with true and swapped captions, AUC of anchors.

    Args:
        table: `model`, `control` ("true captions", "swapped captions", "matched against mismatched"),
            `value`, `low`, `high`.

    Raises:
        ValueError: a missing column, no rows, a model and control twice.
    """
    table = one_each(need_rows(table, "the table of controls", CONTROL), ["model", "control"], "the table of controls")
    models = list(dict.fromkeys(table["model"]))
    places = _places(models)
    figure, (left, right), _ = panels(2, 0.24 * len(models), extra=0.95, sharey=True)
    for axis, marks, chance in ((left, _PAIRS, 0.0), (right, (_MATCHED,), 0.5)):
        for look, lift in zip(marks, (0.14, -0.14) if len(marks) > 1 else (0.0,)):
            rows = table[table["control"] == look.name].set_index("model").reindex(models)
            intervals(axis, rows, places, [look] * len(models), lift=lift, size=20)
        _chance(axis, chance)
        _model_rows(axis, places, models, named=axis is left)
    left.set(title="Does it need the caption?", xlabel="SRCC with the mean rating")
    right.set(title="Does it tell pairs apart?", xlabel="AUC, matched against mismatched")
    legend_below(figure, [line_handle(look) for look in (*_PAIRS, _MATCHED)] + [_chance_handle()])
    return figure


@house_style
def listening(table: pd.DataFrame) -> Figure:
    """Every control of every model, one panel a control, with 95 % intervals; a dashed line where chance lies.

    Chance is 0 for correlations and their differences, and 0.5 for AUCs and for comparisons within a clip.

    Args:
        table: of `evaluate.listening_table`: `model`, `control`, `value`, `low`, `high`. A value that is NaN, or a
            control that a model lacks, is marked in its row.

    Raises:
        ValueError: a missing column, no rows, a model and control twice.
    """
    table = one_each(need_rows(table, "the listening table", CONTROL), ["model", "control"], "the listening table")
    half = {kind: 0.5 if str(kind).startswith(("AUC", "same clip")) else 0.0 for kind in table["control"]}
    figure, _ = _panel_rows(table, "control", half)
    legend_below(figure, [_chance_handle()])
    return figure


@house_style
def preferences(table: pd.DataFrame) -> Figure:
    """How often score and people prefer the same of two systems' clips of one caption, a panel a pair of systems.

    Between always preferring the system with the better mean (the floor) and what one half of the listeners agrees with
    the other half, where the table has them; chance, 0.5, is dashed.

    Args:
        table: of `evaluate.preferences`: `model`, `systems`, `value`, `low`, `high`, and where they are there `n`,
            `floor`, `half_agreement`.

    Raises:
        ValueError: a missing column, no rows, a model and pair of systems twice.
    """
    name = "the table of preferences"
    table = one_each(need_rows(table, name, ("model", "systems", *VALUE)), ["model", "systems"], name)
    shown = {kind: _system_pair(kind) for kind in dict.fromkeys(table["systems"])}
    figure, axes = _panel_rows(table, "systems", dict.fromkeys(shown, 0.5), shown, sharex=True)
    ends = {}
    for axis, (_, rows) in zip(axes, table.groupby("systems", sort=False)):
        places = _places(rows)
        for end in ("floor", "half_agreement"):
            ends[end] = np.concatenate([ends.get(end, []), column(rows, end)])
        floor_and_ceiling_marks(axis, places, column(rows, "floor"), column(rows, "half_agreement"))
    handles = [_chance_handle()]
    for end, label, colour in (
        ("floor", f"{FLOOR_NAME} (better mean wins)", "orange"),
        ("half_agreement", "listeners: half with half", "green"),
    ):
        if np.isfinite(ends[end]).any():
            handles.append(mark_handle(COLOURS[colour], label))
    legend_below(figure, handles)
    outer_labels(axes, _across(len(axes)), "share of comparisons", "")
    return figure


def _panel_rows(
    table: pd.DataFrame, by: str, chance: dict, shown: dict | None = None, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """One panel a value of `by` (titled by `shown`), one row a model in its look, a line at the panel's chance."""
    kinds, models = (list(dict.fromkeys(table[name])) for name in (by, "model"))
    looks, places = model_looks(models), _places(models)
    figure, axes, across = panels(len(kinds), 0.5 + 0.17 * len(models), most=3, extra=0.4, sharex=sharex, sharey=True)
    for place, (axis, kind) in enumerate(zip(axes, kinds)):
        rows = table[table[by] == kind].set_index("model").reindex(models)
        intervals(axis, rows, places, list(looks.values()), size=18)
        _chance(axis, chance[kind])
        for empty in places[~np.isfinite(rows["value"].to_numpy(float))]:
            axis.annotate(
                EMPTY, (0.03, empty), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL, color="0.5"
            )
        title, sizes = (shown or {}).get(kind, kind), column(rows, "n")
        counted = shown and np.isfinite(sizes).any()
        title = shortened(title, letters(5.2 / across, 7.5), lines=1 if counted else 2)
        axis.set_title(f"{title}\nn = {np.nanmax(sizes):,.0f}" if counted else title, fontsize=7)
        _model_rows(axis, places, models, named=place % across == 0)
    return figure, axes


def _across(n: int, most: int = 3) -> int:
    return -(-n // -(-n // most))


def _places(rows: Sequence) -> np.ndarray:
    return np.arange(len(rows))[::-1].astype(float)


def _model_rows(axis: Axes, places: np.ndarray, models: Sequence, named: bool) -> None:
    """Rows of models, with their names in the first panel of a line only."""
    if named:
        row_axis(axis, places, [look.name for look in model_looks(models).values()], width=24, lines=1)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.12)


def _system_pair(pair: str) -> str:
    """ "audioldm – tango2" with the systems' names."""
    return " – ".join(SYSTEM_NAMES.get(part, part) for part in str(pair).split(" – "))


def _chance(axis: Axes, where: float) -> None:
    axis.axvline(where, color="0.4", linestyle="--", linewidth=0.9, zorder=1, gid="chance")


def _chance_handle() -> Line2D:
    return Line2D([], [], color="0.4", linestyle="--", linewidth=0.9, label="chance")
