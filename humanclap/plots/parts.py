"""What several figures are made of: rows with a value and its interval, panels, legends that fit, text that fits."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from humanclap.checks import listed, need_columns

from .style import COLOURS, DOUBLE, SINGLE, SMALL, SYSTEM_NAMES, Look, new_figure

FLOOR_NAME, CEILING_NAME = "never listens", "ceiling"
EMPTY = "no value"
LEGEND_LINE = 0.145  # inches
_CHARACTER = 0.6  # mean width of a letter, in units of the font size


def need_rows(table: pd.DataFrame, name: str, columns: Iterable[str]) -> pd.DataFrame:
    """The table with a fresh index; ValueError where a column is missing or there is no row."""
    need_columns(table, name, columns)
    if not len(table):
        raise ValueError(f"{name} has no rows: there is nothing to draw")
    return table.reset_index(drop=True)


def need_model(table: pd.DataFrame, model: str, column: str = "model") -> pd.DataFrame:
    """The rows of one model; ValueError, with the models there are, where it has none."""
    rows = table[table[column] == model]
    if not len(rows):
        raise ValueError(f"no rows of {column} {model!r}. Available: {listed(dict.fromkeys(table[column]))}")
    return rows


def one_each(rows: pd.DataFrame, key: Sequence[str], name: str) -> pd.DataFrame:
    """The rows, one for each value of `key`; ValueError where there are several, to be drawn over each other."""
    twice = rows.duplicated(list(key))
    if twice.any():
        example = tuple(rows.loc[twice, list(key)].iloc[0])
        raise ValueError(f"{name} has {int(twice.sum())} rows too many, for instance of {example}: one a {listed(key)}")
    return rows


def column(rows: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats, NaN where the table does not have it."""
    return rows[name].to_numpy(float) if name in rows else np.full(len(rows), np.nan)


def number(value: float, digits: int = 3) -> str:
    """A number as it is printed, with a real minus; "no value" for NaN."""
    return f"{value:.{digits}f}".replace("-", "−") if np.isfinite(value) else EMPTY


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """ "0.457 [0.418, 0.495]", without brackets where there is no interval."""
    if not np.isfinite([value, low, high]).all():
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def shortened(text: str, characters: int, lines: int = 1) -> str:
    """Text in at most `lines` lines of `characters`; one too long loses its middle: names differ at the ends.

    A dollar sign stays one: matplotlib would take what stands between two for mathematics.
    """
    text = str(text).replace(r"\$", "$")
    if len(text) > characters:
        text = _cut(text, characters) if lines == 1 else _wrapped(text, characters, lines)
    return text.replace("$", r"\$")


def _cut(text: str, characters: int) -> str:
    tail = (characters - 1) // 2
    return text if len(text) <= characters else f"{text[: characters - 1 - tail]}…{text[len(text) - tail :]}"


def _wrapped(text: str, characters: int, lines: int) -> str:
    """Lines broken between words, or anywhere where words are too long."""
    parts = textwrap.wrap(text, characters, break_long_words=False, break_on_hyphens=False)
    if len(parts) > lines or max(map(len, parts)) > characters:
        whole = _cut(text, characters * lines)
        parts = [whole[start : start + characters] for start in range(0, len(whole), characters)]
    return "\n".join(part.strip() for part in parts)


def letters(inches: float, size: float) -> int:
    """How many letters of `size` points fit into a width."""
    return max(4, int(inches * 72 / (size * _CHARACTER)))


def cell_name(cell: str) -> str:
    """A cell of Tables II and III as a reader's label: "<=5 natural" -> "≤ 5, natural"."""
    for sign, shown in (("<=", "≤"), (">", ">")):
        if str(cell).startswith(sign):
            limit, _, part = str(cell)[len(sign) :].partition(" ")
            return f"{shown} {limit}, {SYSTEM_NAMES.get(part, part).lower()}" if part else f"{shown} {limit}"
    return SYSTEM_NAMES.get(cell, with_signs(cell))


def with_signs(text: str) -> str:
    """A label with ≤ and ≥ as one sign each, and ranges with a dash."""
    text = str(text).replace("<=", "≤").replace(">=", "≥")
    return re.sub(r"(?<=\d)-(?=\d)", "–", text)


def sized(name: str, n: float) -> str:
    """A label with its number of pairs, where that is known."""
    return f"{name} (n = {n:,.0f})" if np.isfinite(n) else name


def intervals(
    axis: Axes, rows: pd.DataFrame, places: np.ndarray, looks: Sequence[Look], lift: float = 0.0, size=26
) -> None:
    """One point a row (gid "value") on its 95 % interval (gid "interval"), in the look of the row."""
    for place, look, (value, low, high) in zip(places, looks, np.stack([column(rows, c) for c in VALUE], axis=1)):
        if not np.isfinite(value):
            continue
        if np.isfinite(low) and np.isfinite(high):
            axis.hlines(place + lift, low, high, color=look.colour, linewidth=1.6, zorder=3, gid="interval")
        axis.scatter(
            [value], [place + lift], color=look.colour, marker=look.marker, s=size, linewidth=0, zorder=4, gid="value"
        )


VALUE = ("value", "low", "high")


def floor_and_ceiling_marks(axis: Axes, places: np.ndarray, floor: np.ndarray, ceiling: np.ndarray) -> None:
    """In each row the floor (gid "floor") and the ceiling (gid "ceiling") as upright lines, shaded between."""
    for place, low, high in zip(places, floor, ceiling):
        if np.isfinite(low) and np.isfinite(high):
            axis.fill_between(
                [low, high], place - 0.5, place + 0.5, color="0.955", linewidth=0, zorder=0, gid="between"
            )
    for ends, colour, gid in ((floor, "orange", "floor"), (ceiling, "green", "ceiling")):
        known = np.isfinite(ends)
        axis.vlines(
            ends[known],
            places[known] - 0.42,
            places[known] + 0.42,
            color=COLOURS[colour],
            linewidth=1.8,
            zorder=2,
            gid=gid,
        )


def side_texts(axis: Axes, places: np.ndarray, texts: Sequence[str], heading: str = "") -> None:
    """A column of text to the right of the axes, one line a row; never over the data."""
    for place, text in zip(places, texts):
        colour = "0.5" if text.startswith(EMPTY) else "0.15"
        axis.annotate(
            text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL, color=colour,
            annotation_clip=False,
        )  # fmt: skip
    if heading:
        axis.annotate(
            heading, (1.02, 1.0), (0, 3), xycoords="axes fraction", textcoords="offset points", va="bottom",
            fontsize=SMALL, color="0.4", annotation_clip=False,
        )  # fmt: skip


def row_axis(axis: Axes, places: np.ndarray, labels: Sequence[str], width: int = 30, lines: int = 2) -> None:
    """Rows with their labels on the left, without lines of the grid through them."""
    fitted = [
        "\n".join(shortened(part, width, lines if "\n" not in label else 1) for part in label.split("\n"))
        for label in map(str, labels)
    ]
    axis.set_yticks(places, fitted)
    axis.set_ylim(-0.6, len(places) - 0.4)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)


def rows_figure(n: int, width: float = DOUBLE, each: float = 0.26, extra: float = 0.95):
    """A figure of n rows with one axes, and the rows' places from top to bottom."""
    figure, axis = new_figure(width, extra + each * n)
    return figure, axis, np.arange(n)[::-1].astype(float)


def panels(n: int, height: float, most: int = 4, extra: float = 0.6, **subplots) -> tuple[Figure, list[Axes], int]:
    """A figure with n panels of `height` inches, at most `most` side by side, its axes, and how many stand in a row."""
    rows = -(-n // most)
    columns = -(-n // rows)
    figure, axes = new_figure(
        SINGLE if columns == 1 else DOUBLE, height * rows + extra, columns=columns, rows=rows, squeeze=False, **subplots
    )
    for axis in axes.flat[n:]:
        axis.set_visible(False)
    for place in range(n, rows * columns):  # the panel above an empty place has to carry the axis itself
        axes.flat[place - columns].tick_params(labelbottom=True)
    return figure, list(axes.flat[:n]), columns


def outer_labels(axes: Sequence[Axes], columns: int, x: str, y: str) -> None:
    """Labels of the axes of `panels`, once a column and once a row."""
    for place, axis in enumerate(axes):
        if place + columns >= len(axes):
            axis.set_xlabel(x)
        if place % columns == 0:
            axis.set_ylabel(y)


def line_handle(look: Look) -> Line2D:
    """How a model, system or control stands in a legend."""
    return Line2D([], [], color=look.colour, marker=look.marker, markersize=4.5, linewidth=1.6, label=look.name)


def mark_handle(colour: str, label: str) -> Line2D:
    """How a floor or a ceiling stands in a legend."""
    return Line2D([], [], color=colour, label=label, linestyle="", marker="|", markersize=9, markeredgewidth=1.8)


def legend_below(figure: Figure, handles: Sequence, labels: Sequence[str] | None = None) -> None:
    """A legend below the figure, in as many columns as its width allows; the figure grows by its further lines."""
    handles = list(handles)
    labels = [handle.get_label() for handle in handles] if labels is None else list(labels)
    labels = [shortened(label, 52) for label in labels]
    if not handles:
        return
    canvas = FigureCanvasAgg(figure)
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.5
        )
        if columns == 1 or legend.get_window_extent(canvas.get_renderer()).width < 0.98 * figure.bbox.width:
            figure.set_figheight(figure.get_figheight() + LEGEND_LINE * (-(-len(handles) // columns) - 1))
            return
        legend.remove()
