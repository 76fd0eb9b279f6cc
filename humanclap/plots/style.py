"""One look for every figure."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with every common kind of colour blindness.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "grey": "#7A7A7A",
}
SYSTEM_NAMES = {
    "natural": "Natural",
    "audioldm": "AudioLDM",
    "audioldm2": "AudioLDM 2",
    "tango": "Tango",
    "tango2": "Tango 2",
    "synthesized": "Synthesized",
    "all": "All",
}
MODEL_NAMES = {
    "laion-standin": "LAION stand-in",
    "msclap-standin": "MS stand-in",
    "wsce+mse": "wSCE + MSE",
    "wsce+mae": "wSCE + MAE",
    "wsce": "wSCE",
    "mse": "MSE",
    "mae": "MAE",
    "sce": "SCE, no ratings",
    "blind": "never listens",
}
_MODEL_COLOURS = {
    "laion-standin": "grey",
    "msclap-standin": "orange",
    "wsce+mse": "sky",
    "wsce+mae": "blue",
    "wsce": "purple",
    "mse": "green",
    "mae": "vermilion",
}
_SETTINGS = {
    **sns.axes_style("whitegrid"),
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": "0.6",
    "grid.color": "0.92",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "svg.hashsalt": "humanclap",
}


def model_colour(model: str) -> str:
    """The colour of a model, the same in every figure; grey for a model that has none."""
    return COLOURS[_MODEL_COLOURS.get(model, "grey")]


def house_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under the house style, without touching the caller's matplotlib settings."""

    @functools.wraps(draw)
    def styled(*args, **kwargs) -> Figure:
        with mpl.rc_context(_SETTINGS):
            return draw(*args, **kwargs)

    return styled


class NotebookFigure(Figure):
    """A Figure that a notebook shows by itself: made outside pyplot, it would otherwise be a line of text."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=110, bbox_inches="tight")
        return picture.getvalue()


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1, **subplots):
    """A Figure with its axes, outside pyplot: nothing is left open, nothing is shown twice in a notebook."""
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **subplots)
