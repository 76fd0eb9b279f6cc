"""One look for every figure: print sizes, fonts, colours and markers, names, and how a figure is written."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ..models import ROWS

SINGLE, DOUBLE = 3.3, 6.9  # width of one and of two columns of a page, in inches
SMALL = 6.5  # the smallest letters of any figure, in points at print size
PNG_DPI = 200
LABEL_STRIP = 0.14  # inches above the figure for the line that names the data

# Okabe and Ito's palette, told apart with every common kind of colour blindness, and two dark ones besides.
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
DENSITY = ("#DCE8F2", "#0072B2", "#00243A")  # few, more, most
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
    """How one model or system is drawn and called."""

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
_CYCLE_COLOURS = ("blue", "vermilion", "green", "purple", "indigo", "orange", "sky", "black", "grey")
_CYCLE_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
_SETTINGS = {
    **sns.axes_style("whitegrid"),
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 8,
    "figure.titlesize": 9,
    "figure.titleweight": "bold",
    "figure.labelsize": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": "0.6",
    "axes.linewidth": 0.8,
    "grid.color": "0.92",
    "grid.linewidth": 0.8,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
    "figure.dpi": 110,
    "svg.hashsalt": "humanclap",
}


def model_looks(models: Iterable[str]) -> dict[str, Look]:
    """Name, colour and marker of each model of a figure; models this package does not know take unused ones in turn."""
    return _looks(models, _MODEL_LOOKS, MODEL_NAMES)


def system_looks(systems: Iterable[str]) -> dict[str, Look]:
    """Name, colour and marker of each system, as `model_looks` does for models."""
    return _looks(systems, _SYSTEM_LOOKS, SYSTEM_NAMES)


def model_colour(model: str) -> str:
    """The colour of a model, the same in every figure that it stands in alone or among known ones."""
    return model_looks([model])[model].colour


def _looks(names: Iterable[str], known: dict[str, tuple[str, str]], spelt: dict[str, str]) -> dict[str, Look]:
    names = list(dict.fromkeys(names))
    taken = {known[name] for name in names if name in known}
    free = (look for look in _cycle() if look not in taken)
    chosen = {name: known[name] if name in known else next(free) for name in names}
    return {name: Look(spelt.get(name, str(name)), COLOURS[c], marker) for name, (c, marker) in chosen.items()}


def _cycle():
    """Colour and marker without end: both change at each step, and no two of the first 54 are the same."""
    colours, markers = len(_CYCLE_COLOURS), len(_CYCLE_MARKERS)
    step = 0
    while True:
        turn = step // colours
        yield _CYCLE_COLOURS[step % colours], _CYCLE_MARKERS[(step + turn) % markers]
        step += 1


def house_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under the house style, without touching the caller's matplotlib settings."""

    @functools.wraps(draw)
    def styled(*args, **kwargs) -> Figure:
        with mpl.rc_context(_SETTINGS):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks depend on the room and the room on ticks: a second layout fits
            return figure

    return styled


class NotebookFigure(Figure):
    """A Figure that a notebook shows by itself: made outside pyplot, it would otherwise be a line of text."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=130, bbox_inches="tight")
        return picture.getvalue()


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1, **subplots):
    """A Figure with its axes, outside pyplot: nothing is left open, nothing is shown twice in a notebook."""
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **subplots)


def write_figure(figure: Figure, path: Path | str, label: str = "") -> tuple[Path, Path]:
    """Write a figure as PNG and as PDF, at its print size; the same figure twice gives the same bytes.

    The PDF has no creation date and embeds its letters as TrueType (fonttype 42), which journals ask for.

    Args:
        path: of the PNG; the PDF lies beside it, with the ending .pdf.
        label: the data behind the figure, written in a line above it; "" for none.

    Returns:
        Paths of the PNG and of the PDF.
    """
    png = Path(path).with_suffix(".png")
    pdf = png.with_suffix(".pdf")
    png.parent.mkdir(parents=True, exist_ok=True)
    width, height = figure.get_size_inches()
    strip = LABEL_STRIP if label else 0
    if label:
        above = figure.text(0.995, 1 + 0.03 / height, f"data: {label}", ha="right", va="bottom")
        above.set(fontsize=SMALL, color="0.4")
    whole = Bbox.from_bounds(0, 0, width, height + strip)
    with mpl.rc_context({"pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "humanclap"}):
        figure.savefig(png, dpi=PNG_DPI, bbox_inches=whole, metadata={"Software": None})
        figure.savefig(pdf, bbox_inches=whole, metadata={"CreationDate": None})
    return png, pdf
