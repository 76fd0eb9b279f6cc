"""CLAPScore against the mean rating, pair by pair: the paper's Figs 1, 3a and 3b."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from .parts import legend_below, letters, need_model, need_rows, number, outer_labels, panels, shortened
from .style import COLOURS, DENSITY, SMALL, house_style, model_looks

MIN_DENSITY = 200  # pairs; fewer are drawn as dots
MIN_SMOOTH = 10  # pairs; a curve through fewer says nothing
MIN_RATINGS = 4  # different ratings that a curve needs
SMOOTH_SHARE = 0.5  # of the pairs that each point of the curve sees
BINS = 20
_RATINGS, _SCORES = (-0.3, 10.3), (-0.02, 1.02)


@house_style
def score_scatter(scores: pd.DataFrame, models: list[str], low_rating: float = 2.0) -> Figure:
    """CLAPScore against the mean rating, one panel a model (the paper's Figs 1, 3a and 3b).

    Hexagons show how many pairs lie where (one colour scale for all panels; dots below 200 pairs), the line is a LOWESS
    curve of the score (each point from half of the pairs), the histograms at the edges are the two distributions. The
    mean score of the pairs rated at most `low_rating`, the grey band, is written above, because that is what the
    paper reads off these figures. Pairs without a score or rating are left out and counted there. A model with several
    `training_seed`s is shown with the pairs of all of them.

    Args:
        scores: long table with `model`, `mean_rating` (0-10) and `clap_score` (0-1); `training_seed` optional.
        models: the panels, in reading order.

    Raises:
        ValueError: a missing column, no model, or one without rows.
    """
    scores = need_rows(scores, "the score table", ("model", "mean_rating", "clap_score"))
    if not len(models):
        raise ValueError("no models given: name at least one of the column model")
    parts = [need_model(scores, model) for model in models]
    figure, axes, columns = panels(len(models), 2.3, sharex=True, sharey=True)
    looks = model_looks(models)
    width = letters(5.6 / columns if columns > 1 else 2.4, 9)  # letters in bold are wider than their size
    crowds = []
    for axis, model, rows in zip(axes, models, parts):
        known = rows[np.isfinite(rows["mean_rating"]) & np.isfinite(rows["clap_score"])]
        axis.axvspan(_RATINGS[0], low_rating, color="0.93", linewidth=0, zorder=0)
        crowds += _draw_pairs(axis, known)
        curve = lowess_curve(known["mean_rating"].to_numpy(float), known["clap_score"].to_numpy(float))
        line = axis.plot(curve["mean_rating"], curve["clap_score"], color=COLOURS["vermilion"], zorder=5, gid="lowess")
        line[0].set_path_effects([withStroke(linewidth=3, foreground="white")])
        axis.set(xlim=_RATINGS, ylim=_SCORES, xticks=range(0, 11, 2), yticks=np.linspace(0, 1, 5))
        top = _marginals(axis, known, low_rating)
        note = _low_rated(known, low_rating) + _left_out(rows, known)
        top.set_title(note, fontsize=SMALL, fontweight="normal", color="0.25", loc="left", pad=2)
        top.annotate(
            shortened(looks[model].name, width), (0, 1), (0, 4 + (note.count("\n") + 1) * 1.25 * SMALL),
            xycoords="axes fraction", textcoords="offset points", fontsize=8, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    outer_labels(axes, columns, "mean human rating", "CLAPScore")
    handles = [
        Line2D([], [], color=COLOURS["vermilion"], label="LOWESS"),
        Patch(color="0.93", label=f"rated ≤ {low_rating:g}"),
    ]
    if crowds:
        shared = PowerNorm(0.5, vmin=0, vmax=max(crowd.get_array().max() for crowd in crowds))
        for crowd in crowds:
            crowd.set_norm(shared)
        bar = figure.colorbar(crowds[0], ax=axes, aspect=35, pad=0.015, fraction=0.04)
        bar.set_label("pairs a hexagon", fontsize=7)
        bar.outline.set_visible(False)
    legend_below(figure, handles)
    return figure


def lowess_curve(rating: np.ndarray, score: np.ndarray, share: float = SMOOTH_SHARE) -> pd.DataFrame:
    """Locally weighted straight lines (Cleveland's LOWESS): mean_rating, clap_score, one row a rating, sorted.

    Without its robust rounds, which would take the few scores above zero of a clipped model for outliers. No rows where
    fewer than 10 pairs or 4 different ratings make a curve meaningless.
    """
    from statsmodels.nonparametric.smoothers_lowess import lowess

    if len(rating) < MIN_SMOOTH or len(np.unique(rating)) < MIN_RATINGS:
        return pd.DataFrame({"mean_rating": [], "clap_score": []}, dtype=float)
    x, y = lowess(score, rating, frac=share, it=0).T
    return pd.DataFrame({"mean_rating": x, "clap_score": y}).drop_duplicates("mean_rating").dropna()


def _draw_pairs(axis: Axes, known: pd.DataFrame) -> list:
    """The pairs as hexagons, which are returned for the shared colour scale, or as dots where there are few."""
    if len(known) < MIN_DENSITY:
        axis.scatter(
            known["mean_rating"],
            known["clap_score"],
            s=7,
            alpha=0.5,
            color=DENSITY[1],
            linewidth=0,
            zorder=2,
            gid="pairs",
        )
        return []
    crowd = axis.hexbin(
        known["mean_rating"], known["clap_score"], gridsize=(22, 16), extent=(*_RATINGS, *_SCORES), mincnt=1,
        cmap=LinearSegmentedColormap.from_list("density", DENSITY), linewidth=0.1, zorder=2, gid="pairs",
    )  # fmt: skip
    return [crowd]


def _marginals(axis: Axes, known: pd.DataFrame, low_rating: float) -> Axes:
    """Histograms of the ratings above the panel and of the scores at its right; the one above is returned."""
    top = axis.inset_axes((0, 1.02, 1, 0.16), sharex=axis)
    side = axis.inset_axes((1.02, 0, 0.14, 1), sharey=axis)
    top.axvspan(_RATINGS[0], low_rating, color="0.93", linewidth=0, zorder=0)
    top.hist(known["mean_rating"], bins=np.linspace(0, 10, BINS + 1), color=DENSITY[1], gid="ratings")
    side.hist(
        known["clap_score"], bins=np.linspace(0, 1, BINS + 1), orientation="horizontal", color=DENSITY[1], gid="scores"
    )
    for edge in (top, side):
        edge.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
        edge.grid(visible=False)
        for spine in edge.spines.values():
            spine.set_visible(False)
        edge.patch.set_visible(False)
    top.set_yticks([])
    side.set_xticks([])
    return top


def _low_rated(known: pd.DataFrame, low_rating: float) -> str:
    badly = known.loc[known["mean_rating"] <= low_rating, "clap_score"]
    seeds = known["training_seed"].nunique() if "training_seed" in known else 0
    times = f" × {seeds} seeds" if seeds > 1 else ""
    n_bad, n = (f"{len(part) // max(seeds, 1):,}" for part in (badly, known))
    mean = number(badly.mean(), 2) if len(badly) else "none"
    return f"rated ≤ {low_rating:g}: mean score {mean}\n{n_bad} of {n} pairs{times}"


def _left_out(rows: pd.DataFrame, known: pd.DataFrame) -> str:
    missing = len(rows) - len(known)
    return f"\n{missing:,} without a value" if missing else ""
