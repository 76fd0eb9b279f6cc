"""Figures of scores against ratings: the scatter of the paper's Figs 1 and 3, Table I with intervals, learning curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COLOURS, MODEL_NAMES, house_style, model_colour, new_figure


@house_style
def score_scatter(scores: pd.DataFrame, models: list[str], low_rating: float = 2.0) -> Figure:
    """CLAPScore against the mean rating, one panel a model (the paper's Figs 1, 3a and 3b).

    The line joins mean scores of the pairs in each unit of the rating; the mean score of the pairs rated at most
    `low_rating` is written into the panel, because that is what the paper reads off these figures.

    Args:
        scores: long table with `model`, `mean_rating` (0-10) and `clap_score` (0-1).
        models: the panels, from left to right.
    """
    figure, axes = new_figure(
        3.1 * len(models) + 0.4, 3.2, columns=len(models), sharex=True, sharey=True, squeeze=False
    )
    jitter = np.random.default_rng(0)  # ratings are means of few whole numbers: moved a little, or dots hide each other
    for axis, model in zip(axes[0], models):
        rows = scores[scores["model"] == model]
        shifted = rows["mean_rating"] + jitter.uniform(-0.08, 0.08, len(rows))
        colour = model_colour(model)
        axis.scatter(shifted, rows["clap_score"], s=7, alpha=0.3, color=colour, linewidth=0)
        unit = rows.groupby(rows["mean_rating"].round())["clap_score"].mean()
        axis.plot(
            unit.index,
            unit,
            color="0.15",
            marker="o",
            markersize=3,
            linewidth=1.2,
            label="mean score, by rating",
        )
        badly = rows.loc[rows["mean_rating"] <= low_rating, "clap_score"]
        axis.axvspan(-0.3, low_rating, color="0.93", zorder=0)
        axis.annotate(
            f"rated ≤ {low_rating:g}:\nmean score {badly.mean():.2f} (n = {len(badly)})",
            (0.03, 0.97),
            xycoords="axes fraction",
            va="top",
            fontsize=7.5,
        )
        axis.set(
            title=MODEL_NAMES.get(model, model),
            xlabel="mean human rating",
            xlim=(-0.3, 10.3),
            ylim=(-0.02, 1.02),
        )
    axes[0][0].set_ylabel("CLAPScore")
    axes[0][0].legend(loc="lower right")
    return figure


@house_style
def overall_forest(
    table: pd.DataFrame, floor: float, ceiling: float, metric: str = "srcc", ceiling_name: str = "ceiling"
) -> Figure:
    """One metric of each model with its 95 % interval, between floor and ceiling (Table I as a figure).

    Args:
        table: `model`, `metric`, `value`, `low`, `high`, and `paper` (the paper's value; NaN where there is none).
        floor: what a score reaches that never listens; drawn as a line.
        ceiling: what people allow, or NaN.
    """
    rows = table[table["metric"] == metric].reset_index(drop=True)
    places = np.arange(len(rows))[::-1]
    figure, axis = new_figure(7, 1.1 + 0.36 * len(rows))
    axis.axvline(floor, color=COLOURS["orange"], linestyle="--", linewidth=1.2, label=f"never listens: {floor:.3f}")
    if np.isfinite(ceiling):
        axis.axvline(
            ceiling,
            color=COLOURS["green"],
            linestyle="--",
            linewidth=1.2,
            label=f"{ceiling_name}: {ceiling:.3f}",
        )
    colours = [model_colour(model) for model in rows["model"]]
    axis.hlines(places, rows["low"], rows["high"], color=colours, linewidth=2.2)
    axis.scatter(rows["value"], places, color=colours, s=38, zorder=3)
    for place, value in zip(places, rows["value"]):
        axis.annotate(f"{value:.3f}", (value, place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axis.scatter(
        rows["paper"],
        places,
        marker="D",
        s=22,
        facecolor="none",
        edgecolor="0.35",
        label="paper (real data)",
        zorder=3,
    )
    axis.set_yticks(places, [MODEL_NAMES.get(model, model) for model in rows["model"]])
    axis.set(
        title=f"{metric.upper()} with the mean rating, 95 % intervals",
        xlabel=metric.upper(),
        ylim=(-0.7, len(rows) - 0.3),
    )
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@house_style
def learning_curves(histories: pd.DataFrame) -> Figure:
    """Training and validation loss of each variant (scaled by the first validation loss) and validation SRCC.

    Args:
        histories: history.csv of each variant below each other, with the column `model`.
    """
    figure, (left, right) = new_figure(7.6, 3.2, columns=2)
    for model, history in histories.groupby("model", sort=False):
        colour, name = model_colour(model), MODEL_NAMES.get(model, model)
        scale = history["validation_loss"].iloc[0]
        left.plot(history["epoch"], history["validation_loss"] / scale, color=colour, label=name)
        left.plot(history["epoch"], history["train_loss"] / scale, color=colour, linestyle=":", linewidth=1)
        best = history.loc[history[history["epoch"] > 0]["validation_loss"].idxmin()]
        left.scatter(best["epoch"], best["validation_loss"] / scale, color=colour, s=26, zorder=3)
        right.plot(history["epoch"], history["validation_srcc"], color=colour)
        right.scatter(best["epoch"], best["validation_srcc"], color=colour, s=26, zorder=3)
    left.set(title="Loss, first validation = 1", xlabel="epoch", ylabel="solid: validation, dotted: training")
    right.set(title="SRCC on the validation pairs", xlabel="epoch (dot: lowest validation loss)", ylabel="SRCC")
    figure.legend(loc="outside lower center", ncols=5)
    return figure


@house_style
def spectrograms(clips: dict[str, np.ndarray], sample_rate: int, columns: int = 4) -> Figure:
    """Magnitude spectrograms (dB below the loudest) of short clips, one panel each.

    Args:
        clips: name -> waveform [T] in -1..1.
        sample_rate: in Hz.
    """
    rows = -(-len(clips) // columns)
    figure, axes = new_figure(
        8.4, 1.5 * rows + 0.4, columns=columns, rows=rows, sharex=True, sharey=True, squeeze=False
    )
    for axis in axes.flat[len(clips) :]:
        axis.set_visible(False)
    for axis, (name, clip) in zip(axes.flat, clips.items()):
        axis.specgram(clip + 1e-6, NFFT=512, noverlap=256, Fs=sample_rate, cmap="magma", vmin=-140, vmax=-40)
        axis.grid(visible=False)
        axis.set_title(name, fontsize=8)
    figure.supxlabel("seconds", fontsize=8)
    figure.supylabel("Hz", fontsize=8)
    return figure
