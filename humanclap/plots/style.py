"""What all figures share: sizes, colours and names, panels, points with intervals, labels that fit, and writing."""

from __future__ import annotations

import functools
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from humanclap.checks import listed, need_columns
from humanclap.models import ROWS

SINGLE, DOUBLE = 3.3, 6.9  # width of one and of two columns of a page, in inches
SMALL = 6.5  # the smallest letters of any figure, in points at print size
PNG_DPI = 200
LABEL_STRIP = 0.14  # inches above the figure for the line that names the data
LEGEND_LINE = 0.145  # inches
FLOOR_NAME, CEILING_NAME = "floor (never hears the audio)", "ceiling"
EMPTY = "no value"
VALUE = ("value", "low", "high")

# Okabe and Ito's palette, distinguishable with every common kind of colour blindness, and two dark colours.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "grey": "#606060",
    "black": "#1A1A1A",
    "indigo": "#332288",
}
SYSTEM_NAMES = {
    "natural": "Natural",
    "audioldm": "AudioLDM",
    "audioldm2": "AudioLDM 2",
    "tango": "Tango",
    "tango2": "Tango 2",
    "synthesized": "Synthesized",
    "all": "All",
    "within systems": "Within systems",
}
MODEL_NAMES = {name: row.label for name, row in ROWS.items()}


@dataclass(frozen=True)
class Look:
    """The name, colour and marker of one model, system or kind of mark."""

    name: str
    colour: str
    marker: str


_MODEL_LOOKS = {name: (row.colour, row.marker) for name, row in ROWS.items()}
_SYSTEM_LOOKS = {
    "natural": ("green", "o"),
    "audioldm": ("orange", "^"),
    "audioldm2": ("vermilion", "v"),
    "tango": ("sky", "s"),
    "tango2": ("blue", "D"),
    "synthesized": ("purple", "P"),
    "all": ("black", "X"),
}
_UNKNOWN_COLOURS = ("blue", "vermilion", "green", "purple", "indigo", "orange", "sky", "black", "grey")
_UNKNOWN_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_SETTINGS = {
    **sns.axes_style("whitegrid"),
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": "0.6",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.92",
    "grid.linewidth": 0.8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.4,
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
}


# --- how models and systems look -------------------------------------------------------------------------


def model_looks(models: Iterable[str]) -> dict[str, Look]:
    """Name, colour and marker of each model of a figure; models that are not listed here take unused looks in turn."""
    return _looks(models, _MODEL_LOOKS, MODEL_NAMES)


def system_looks(systems: Iterable[str]) -> dict[str, Look]:
    """Name, colour and marker of each system, as `model_looks` for models."""
    return _looks(systems, _SYSTEM_LOOKS, SYSTEM_NAMES)


def _looks(names: Iterable[str], known: dict[str, tuple[str, str]], labels: dict[str, str]) -> dict[str, Look]:
    names = list(dict.fromkeys(names))
    taken = {known[name] for name in names if name in known}
    # 9 and 11 have no common factor: colour and marker both change at each step, and 99 pairs differ.
    cycle = zip(itertools.cycle(_UNKNOWN_COLOURS), itertools.cycle(_UNKNOWN_MARKERS))
    free = (look for look in cycle if look not in taken)
    chosen = {name: known[name] if name in known else next(free) for name in names}
    return {name: Look(labels.get(name, str(name)), COLOURS[c], marker) for name, (c, marker) in chosen.items()}


# --- what a table must hold ------------------------------------------------------------------------------


def need_rows(table: pd.DataFrame, name: str, columns: Iterable[str], key: Sequence[str] = ()) -> pd.DataFrame:
    """The table with a fresh index; ValueError for a missing column, no rows, or several rows with one `key`."""
    need_columns(table, name, columns)
    if not len(table):
        raise ValueError(f"{name} has no rows: there is nothing to draw")
    twice = table.duplicated(list(key)) if key else pd.Series(False, index=table.index)
    if twice.any():
        example = tuple(table.loc[twice, list(key)].iloc[0])
        raise ValueError(
            f"{name} has {int(twice.sum())} rows too many, for instance of {example}: one per {listed(key)}"
        )
    return table.reset_index(drop=True)


def need_value(table: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """The rows with `value` in `column`, with a fresh index; ValueError, with the values there are, if none has it."""
    rows = table[table[column] == value]
    if not len(rows):
        raise ValueError(f"no rows of {column} {value!r}. Available: {listed(dict.fromkeys(table[column]))}")
    return rows.reset_index(drop=True)


def column(rows: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats, NaN where the table does not have it."""
    return rows[name].to_numpy(float) if name in rows else np.full(len(rows), np.nan)


# --- text ------------------------------------------------------------------------------------------------


def number(value: float, digits: int = 3) -> str:
    """A number as it is printed, with a real minus; "no value" for NaN."""
    return f"{value:.{digits}f}".replace("-", "−") if np.isfinite(value) else EMPTY


def with_interval(value: float, low: float, high: float) -> str:
    """ "0.457 [0.418, 0.495]", without brackets where there is no interval."""
    if not np.isfinite([value, low, high]).all():
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def shortened(text: str, characters: int, lines: int = 1) -> str:
    """Text in at most `lines` lines of `characters`; if it is longer, its middle is cut: names differ at the ends.

    Dollar signs are escaped: matplotlib would read the text between two of them as mathematics.
    """
    text = str(text).replace(r"\$", "$")
    parts = textwrap.wrap(text, characters, break_long_words=False, break_on_hyphens=False) or [""]
    if len(parts) > lines or max(map(len, parts)) > characters:
        room = characters * lines
        tail = (room - 1) // 2
        text = text if len(text) <= room else f"{text[: room - 1 - tail]}…{text[len(text) - tail :]}"
        parts = [text[start : start + characters] for start in range(0, len(text), characters)]
    return "\n".join(part.strip() for part in parts).replace("$", r"\$")


def letters(inches: float, size: float) -> int:
    """How many letters of `size` points fit into a width (a letter is about 0.6 of its size wide)."""
    return max(4, int(inches * 72 / (size * 0.6)))


def cell_name(cell: str) -> str:
    """A cell of a table as a label: "<=5 natural" -> "≤ 5, natural"; "2-3" -> "2–3"."""
    cell = str(cell)
    if limited := re.fullmatch(r"(<=|>)\s*([\d.]+)(?:\s+(.*))?", cell):
        sign, limit, part = limited.groups()
        shown = f"{'≤' if sign == '<=' else '>'} {limit}"
        return f"{shown}, {SYSTEM_NAMES.get(part, part).lower()}" if part else shown
    shown = cell.replace("<=", "≤").replace(">=", "≥")
    return SYSTEM_NAMES.get(cell, re.sub(r"(?<=\d)-(?=\d)", "–", shown))


# --- figures and panels ----------------------------------------------------------------------------------


def house_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function with the project's settings; the caller's settings and open figures stay as they are."""

    @functools.wraps(draw)
    def styled(*args, **kwargs) -> Figure:
        opened = set(plt.get_fignums())
        with mpl.rc_context(_SETTINGS):
            try:
                figure = draw(*args, **kwargs)
            finally:  # a figure that pyplot still manages would be shown twice in a notebook
                for new in set(plt.get_fignums()) - opened:
                    plt.close(new)
            figure.draw_without_rendering()  # ticks depend on the layout and the layout on ticks: two passes
        return figure

    return styled


def rows_figure(n: int, each: float, extra: float = 0.95) -> tuple[Figure, Axes]:
    """A figure as wide as a page with n rows of `each` inches."""
    return plt.subplots(figsize=(DOUBLE, extra + each * n))


class _Grid(sns.FacetGrid):
    """A FacetGrid whose figure keeps the constrained layout, and whose panels get their titles from the caller."""

    def tight_layout(self, *args, **kwargs):
        return self

    def set_titles(self, *args, **kwargs):
        return self


def facets(
    rows: pd.DataFrame, by: str, height: float, most: int = 3, extra: float = 0.4, **sharing
) -> tuple[Figure, dict[str, Axes], int]:
    """Seaborn's FacetGrid at print size: the figure, the axes by value of `by`, and how many are side by side.

    Args:
        height: of one panel, in inches; `extra` is added for the labels below all of them.
        most: panels side by side.
        **sharing: `sharex`, `sharey` of `seaborn.FacetGrid`.
    """
    n = rows[by].nunique()
    lines = -(-n // most)
    across = -(-n // lines)
    names = list(dict.fromkeys(rows[by]))
    grid = _Grid(rows, col=by, col_order=names, col_wrap=across, despine=False, **sharing)
    grid.figure.set_size_inches(SINGLE if across == 1 else DOUBLE, height * lines + extra)
    return grid.figure, dict(grid.axes_dict), across


def outer_labels(axes: Iterable[Axes], across: int, x: str, y: str) -> None:
    """Labels of the axes of `facets`, once per column and once per line of panels."""
    axes = list(axes)
    for place, axis in enumerate(axes):
        axis.set(xlabel=x if place + across >= len(axes) else "", ylabel="" if place % across else y)


def points(
    axis: Axes,
    rows: pd.DataFrame,
    category: str,
    order: Sequence[str],
    hue: str,
    looks: Mapping[str, Look],
    dodge: float = 0.0,
    size: float = 5,
    upright: bool = False,
    join: bool = False,
) -> None:
    """Each row's value (gid "value") with its 95 % interval (gid "interval"), by seaborn's pointplot.

    Args:
        rows: `category`, `hue`, `value`, and where they are there `low` and `high`; one row per category and hue.
        order: categories, the first at the top (or, `upright`, at the left).
        looks: of each value of `hue`, in the order of the legend.
        dodge: total width over which the hues of one category are spread, in units of the rows' distance.
        join: whether the values of one hue are joined by a line.
    """
    ends = pd.DataFrame({name: column(rows, name) for name in VALUE})
    ends.loc[ends.isna().any(axis=1), ["low", "high"]] = np.nan
    if ends["value"].notna().any():
        keys = {"category": rows[category].to_numpy(), "hue": rows[hue].to_numpy()}
        long = pd.concat([pd.DataFrame({**keys, "number": ends[name]}) for name in VALUE], ignore_index=True)
        drawn = len(axis.lines)
        sns.pointplot(
            long, ax=axis, hue="hue", hue_order=list(looks), order=list(order), dodge=dodge,
            **({"x": "category", "y": "number"} if upright else {"y": "category", "x": "number", "orient": "y"}),
            estimator=lambda numbers: numbers.iloc[0],
            errorbar=lambda numbers: numbers.iloc[1:] if len(numbers) == len(VALUE) else (np.nan, np.nan),
            palette={name: look.colour for name, look in looks.items()},
            markers=[look.marker for look in looks.values()], markersize=size, markeredgewidth=0,
            linestyle="-" if join else "none", linewidth=0.7, err_kws={"linewidth": 1.6}, legend=False,
        )  # fmt: skip
        for line in list(axis.lines[drawn:]):
            line.set_gid("interval" if line.get_marker() in ("", "None") else "value")
            if np.isnan(np.asarray(line.get_xydata(), float)).any(axis=1).all():
                line.remove()  # of a category that the hue does not have
    axis.set(xlabel="", ylabel="")


def row_axis(axis: Axes, labels: Sequence[str], width: int = 30, lines: int = 2) -> None:
    """Rows from top to bottom with their labels at the left, without grid lines through them."""
    fitted = [
        "\n".join(shortened(part, width, lines if "\n" not in label else 1) for part in label.split("\n"))
        for label in map(str, labels)
    ]
    axis.set_yticks(range(len(fitted)), fitted)
    axis.set_ylim(len(fitted) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", visible=True)
    axis.tick_params(axis="y", length=0)


def row_marks(axis: Axes, floor: np.ndarray, ceiling: np.ndarray) -> None:
    """In each row the floor (gid "floor") and the ceiling (gid "ceiling") as upright lines, shaded between."""
    places = np.arange(len(floor))
    both = np.isfinite(floor) & np.isfinite(ceiling)
    axis.barh(places[both], (ceiling - floor)[both], 1, floor[both], color="0.955", linewidth=0, zorder=0)
    for ends, colour, gid in ((floor, "orange", "floor"), (ceiling, "green", "ceiling")):
        known = np.isfinite(ends)
        axis.vlines(
            ends[known], places[known] - 0.42, places[known] + 0.42, COLOURS[colour], linewidth=1.8, zorder=2, gid=gid
        )


def side_texts(axis: Axes, texts: Sequence[str], heading: str = "", lift: float = 0.0) -> None:
    """A column of text to the right of the axes, one line per row, `lift` of a row above it."""
    for place, text in enumerate(texts):
        colour = "0.5" if text.startswith(EMPTY) else "0.15"
        axis.annotate(
            text, (1.02, place - lift), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL, color=colour,
            annotation_clip=False,
        )  # fmt: skip
    if heading:
        axis.annotate(
            heading, (1.02, 1.0), (0, 3), xycoords="axes fraction", textcoords="offset points", va="bottom",
            fontsize=SMALL, color="0.4", annotation_clip=False,
        )  # fmt: skip


def look_handle(look: Look) -> Line2D:
    """A model, system or kind of mark in a legend."""
    return Line2D([], [], color=look.colour, marker=look.marker, markersize=4.5, linewidth=1.6, label=look.name)


def line_handle(colour: str, label: str, **look) -> Line2D:
    """A line in a legend; `look` as `matplotlib.lines.Line2D` takes it."""
    return Line2D([], [], color=colour, label=label, **look)


def mark_handle(values: np.ndarray, name: str, colour: str) -> list[Line2D]:
    """A floor or ceiling in a legend, with its number where all rows have the same one; no handle without a number."""
    known = np.unique(values[np.isfinite(values)])
    label = f"{name}: {number(known[0])}" if len(known) == 1 else name
    look = {"linestyle": "", "marker": "|", "markersize": 9, "markeredgewidth": 1.8}
    return [line_handle(COLOURS[colour], label, **look)] if len(known) else []


def legend_below(figure: Figure, handles: Sequence) -> None:
    """A legend below the figure, in as many columns as its width allows; the figure grows by the further lines."""
    handles = list(handles)
    labels = [shortened(handle.get_label(), 52) for handle in handles]
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.5
        )
        if columns == 1 or legend.get_window_extent().width < 0.98 * figure.bbox.width:
            figure.set_figheight(figure.get_figheight() + LEGEND_LINE * (-(-len(handles) // columns) - 1))
            return
        legend.remove()


def write_figure(figure: Figure, path: Path | str, label: str = "") -> tuple[Path, Path]:
    """Write a figure as PNG and as PDF, at its print size; the same figure twice gives the same bytes.

    The PDF has no creation date and embeds its letters as TrueType (fonttype 42), which journals ask for.

    Args:
        path: of the PNG; the PDF is written beside it, with the ending .pdf.
        label: the data behind the figure, written in a line above it; "" for none.

    Returns:
        Paths of the PNG and of the PDF.
    """
    png = Path(path).with_suffix(".png")
    pdf = png.with_suffix(".pdf")
    png.parent.mkdir(parents=True, exist_ok=True)
    width, height = figure.get_size_inches()
    if label:
        figure.text(0.995, 1 + 0.03 / height, f"data: {label}", ha="right", va="bottom", fontsize=SMALL, color="0.4")
    whole = Bbox.from_bounds(0, 0, width, height + (LABEL_STRIP if label else 0))
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure.savefig(png, dpi=PNG_DPI, bbox_inches=whole, metadata={"Software": None})
        figure.savefig(pdf, bbox_inches=whole, metadata={"CreationDate": None})
    return png, pdf
