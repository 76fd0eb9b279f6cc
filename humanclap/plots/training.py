"""Figures of fine-tuning: learning curves over seeds, and the ablation of the losses."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .parts import (
    cell_name,
    intervals,
    legend_below,
    line_handle,
    need_model,
    need_rows,
    number,
    one_each,
    row_axis,
    rows_figure,
    side_texts,
    with_interval,
)
from .style import DOUBLE, Look, house_style, model_looks, new_figure

HISTORY = ("model", "epoch", "train_loss", "validation_loss", "validation_srcc")
ABLATION = ("model", "reference", "cell", "metric", "difference", "low", "high", "n_seeds")
_SEEDS = ("seed_sd", "seed_min", "seed_max", "seed_t_low", "seed_t_high")


@house_style
def learning_curves(histories: pd.DataFrame) -> Figure:
    """Training and validation loss of each variant (scaled by the first validation loss) and validation SRCC.

    With several training seeds the strong line is their mean, over the epochs that all of them have, and each seed is a
    thin line. The mark is the epoch with the lowest validation loss after the first update, the one that is kept.

    Args:
        histories: history.csv of each variant below each other: `model`, `epoch`, `train_loss`, `validation_loss`,
            `validation_srcc`; `training_seed` optional.

    Raises:
        ValueError: a missing column, no rows.
    """
    histories = need_rows(histories, "the histories", HISTORY)
    if "training_seed" not in histories or histories["training_seed"].isna().all():
        histories = histories.assign(training_seed=0)
    looks = model_looks(histories["model"])
    figure, (loss, srcc) = new_figure(DOUBLE, 2.75, columns=2)
    several = False
    for model, history in histories.groupby("model", sort=False):
        runs = [_scaled(run) for _, run in history.groupby("training_seed", dropna=False)]
        several |= len(runs) > 1
        _draw_runs(loss, runs, "train_loss", looks[model], linestyle=":", linewidth=1.0, mark=False)
        _draw_runs(loss, runs, "validation_loss", looks[model])
        _draw_runs(srcc, runs, "validation_srcc", looks[model])
    loss.set(title="Loss (first validation = 1)", xlabel="epoch", ylabel="loss, scaled")
    srcc.set(title="SRCC on the validation pairs", xlabel="epoch", ylabel="SRCC")
    for axis in (loss, srcc):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    shown = [line_handle(look) for look in looks.values()]
    dotted = Line2D([], [], color="0.4", linestyle=":", linewidth=1.0, label="training")
    thin = [Line2D([], [], color="0.4", linewidth=0.6, alpha=0.6, label="one seed")] if several else []
    legend_below(figure, [*shown, dotted, *thin])
    return figure


def _scaled(run: pd.DataFrame) -> pd.DataFrame:
    """One run by epoch, both losses in units of its first validation loss."""
    run = run.sort_values("epoch").set_index("epoch")
    known = run["validation_loss"].dropna()
    scale = known.iloc[0] if len(known) and known.iloc[0] > 0 else np.nan
    return run.assign(train_loss=run["train_loss"] / scale, validation_loss=run["validation_loss"] / scale)


def _draw_runs(
    axis: Axes, runs: list[pd.DataFrame], name: str, look: Look, linestyle="-", linewidth=1.5, mark: bool = True
) -> None:
    """The mean over runs (gid "mean") and, where there are several, each of them (gid "seed"); marks at kept epochs."""
    together = pd.concat([run[name] for run in runs], axis=1)
    mean = together.dropna().mean(axis=1)
    axis.plot(
        mean.index, mean, color=look.colour, linestyle=linestyle, linewidth=linewidth, zorder=3, gid="mean",
        label=f"_{look.name}: {name}",
    )  # fmt: skip
    for run in runs:
        if len(runs) > 1:
            axis.plot(
                run.index,
                run[name],
                color=look.colour,
                linestyle=linestyle,
                linewidth=0.6,
                alpha=0.5,
                zorder=2,
                gid="seed",
            )
        tried = run.loc[run.index > 0, "validation_loss"].dropna()
        if mark and len(tried):
            best = tried.idxmin()
            axis.scatter(
                best, run[name].loc[best], color=look.colour, marker=look.marker, s=22 if len(runs) == 1 else 12,
                linewidth=0, zorder=4, gid="kept",
            )  # fmt: skip


@house_style
def ablation(table: pd.DataFrame, metric: str = "srcc") -> Figure:
    """What one loss adds to another, with the two uncertainties apart: of the test captions, and of the training seeds.

    Above, the difference with the interval over test captions, trainings held fixed; below it the range of the
    differences of single seeds (pale, ± SD dark) and Student's interval of their mean (thin), test pairs held fixed.

    Args:
        table: of `evaluate.ablation`: `model`, `reference`, `cell`, `metric`, `difference`, `low`, `high`, `n_seeds`,
            `seed_sd`, `seed_min`, `seed_max`, `seed_t_low`, `seed_t_high`.

    Raises:
        ValueError: a missing column, no row of the metric, a comparison twice.
    """
    name = "the ablation table"
    rows = need_model(need_rows(table, name, (*ABLATION, *_SEEDS)), metric, "metric")
    rows = one_each(rows.reset_index(drop=True), ["model", "reference", "cell"], name)
    looks = model_looks([*rows["model"], *rows["reference"]])
    of_row = [looks[model] for model in rows["model"]]
    figure, axis, places = rows_figure(len(rows), each=0.42)
    axis.axvline(0, color="0.4", linestyle="--", linewidth=0.9, zorder=1, gid="zero")
    intervals(axis, rows.assign(value=rows["difference"]), places, of_row, lift=0.16)
    for place, look, row in zip(places - 0.2, of_row, rows.itertuples()):
        for ends, width, alpha, gid in (
            ((row.seed_min, row.seed_max), 6, 0.3, "seed range"),
            ((row.difference - row.seed_sd, row.difference + row.seed_sd), 3, 0.6, "seed sd"),
            ((row.seed_t_low, row.seed_t_high), 0.9, 1, "seed interval"),
        ):
            if np.isfinite(ends).all():
                axis.hlines(place, *ends, color=look.colour, linewidth=width, alpha=alpha, zorder=3, gid=gid)
    texts = [with_interval(*row) for row in rows[["difference", "low", "high"]].to_numpy(float)]
    side_texts(axis, places + 0.16, texts, "difference [95 %, captions]")
    side_texts(axis, places - 0.2, [f"{n} seeds, SD {number(sd)}" for n, sd in zip(rows["n_seeds"], rows["seed_sd"])])
    several = rows["cell"].nunique() > 1
    labels = [f"{looks[row.model].name} against {looks[row.reference].name}" for row in rows.itertuples()]
    labels = [f"{label}\n{cell_name(cell)}" if several else label for label, cell in zip(labels, rows["cell"])]
    row_axis(axis, places, labels, width=34)
    axis.set(title=f"What the contrastive loss adds: {metric.upper()}", xlabel=f"difference of {metric.upper()}")
    handles = [
        Line2D([], [], color="0.3", marker="o", markersize=4.5, linewidth=1.6, label="95 %, test captions"),
        Line2D(
            [], [], color="0.3", linewidth=6, alpha=0.3, solid_capstyle="butt", label="single seeds, lowest to highest"
        ),
        Line2D([], [], color="0.3", linewidth=3, alpha=0.6, solid_capstyle="butt", label="± SD over seeds"),
        Line2D([], [], color="0.3", linewidth=0.9, label="95 %, training seeds"),
    ]
    legend_below(figure, handles)
    return figure
