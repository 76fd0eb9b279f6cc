"""Figures of fine-tuning: learning curves over seeds, and the ablation of the losses."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .parts import legend_below, line_handle, need_rows
from .style import DOUBLE, Look, house_style, model_looks, new_figure

HISTORY = ("model", "epoch", "train_loss", "validation_loss", "validation_srcc")


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
