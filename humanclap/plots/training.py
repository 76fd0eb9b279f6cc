"""Figures of fine-tuning: how it works, learning curves over seeds, and the ablation of the losses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from . import style
from .style import COLOURS, DOUBLE, SMALL, house_style, need_rows, number, points, with_interval

_SEEDS = ("n_seeds", "seed_sd", "seed_min", "seed_max", "seed_t_low", "seed_t_high")
# Of the drawing: x, y, width, height, text, colour; then start and end of each arrow, and its colour.
_BOXES = (
    (0.2, 5.0, 2.4, 1.4, "caption\n“a dog barks\nthen a bell rings”", "blue"),
    (0.2, 2.7, 2.4, 1.2, "clip\n(natural or generated)", "orange"),
    (0.2, 0.4, 2.4, 1.2, "mean human rating\n0–10, a = rating / 10", "green"),
    (3.7, 5.1, 2.2, 1.2, "text encoder\n+ projection", "blue"),
    (3.7, 2.7, 2.2, 1.2, "audio encoder\n+ projection", "orange"),
    (7.0, 3.7, 2.4, 1.5, "cosine of every\ntext with every clip\nin the batch", "grey"),
    (10.45, 5.0, 3.0, 1.5, "wSCE (eq. 5)\nall cosines, pair i\nweighted by its $a_i$", "purple"),
    (10.45, 2.0, 3.0, 1.5, "MSE or MAE (eq. 2–4)\nReLU of the pair's cosine\nagainst $a_i$", "vermilion"),
    (14.2, 3.5, 2.0, 1.5, "$L$ = 0.1 $L_{wSCE}$\n+ 1 $L_{reg}$\n(eq. 6)", "grey"),
)
_ARROWS = (
    ((2.75, 5.7), (3.55, 5.7), "0.35"),
    ((2.75, 3.3), (3.55, 3.3), "0.35"),
    ((6.05, 5.6), (6.95, 4.9), "0.35"),
    ((6.05, 3.4), (6.95, 4.0), "0.35"),
    ((9.55, 4.8), (10.35, 5.6), "0.35"),
    ((9.55, 4.1), (10.35, 3.0), "0.35"),
    ((13.6, 5.5), (14.15, 4.75), "0.35"),
    ((13.6, 2.9), (14.15, 3.75), "0.35"),
    ((11.9, 1.0), (11.9, 1.85), COLOURS["green"]),
    ((11.9, 4.4), (11.9, 4.9), COLOURS["green"]),
)
_RATING_LINE = ((2.75, 13.85, 13.85, 11.9), (1.0, 1.0, 4.4, 4.4))


@house_style
def overview() -> Figure:
    """How ratings train a CLAP, as the paper's Fig. 2: pairs, two encoders, cosines, two losses weighted by ratings."""
    figure, axis = plt.subplots(figsize=(DOUBLE, 3.1))
    axis.set(xlim=(0, 16.4), ylim=(0, 7.2), title="Human-CLAP: fine-tuning a CLAP on human ratings")
    axis.axis("off")
    for x, y, width, height, text, colour in _BOXES:
        for look in ({"fill": True, "alpha": 0.16, "linewidth": 0}, {"fill": False, "linewidth": 1.2}):
            shape = {"boxstyle": "round,pad=0.08", "color": COLOURS[colour], **look}
            axis.add_patch(FancyBboxPatch((x, y), width, height, **shape))
        axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=SMALL)
    axis.plot(*_RATING_LINE, color=COLOURS["green"], linewidth=1)
    for start, end, colour in _ARROWS:
        shape = {"arrowstyle": "-|>", "mutation_scale": 9, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", end, start, arrowprops={**shape, "color": colour})
    return figure


@house_style
def learning_curves(histories: pd.DataFrame) -> Figure:
    """Training and validation loss of each variant (divided by the first validation loss) and validation SRCC.

    With several training seeds the strong line is their mean, over the epochs that all of them have, and each seed is a
    thin line. The mark is the epoch with the lowest validation loss after the first update, the one that is kept.

    Args:
        histories: history.csv of each variant below each other: `model`, `epoch`, `train_loss`, `validation_loss`,
            `validation_srcc`; `training_seed` optional.

    Raises:
        ValueError: a missing column, no rows, an epoch twice.
    """
    name, key = "the histories", ["model", "training_seed", "epoch"]
    histories = need_rows(histories, name, ("model", "epoch", "train_loss", "validation_loss", "validation_srcc"))
    looks = style.model_looks(histories["model"])
    seeds = histories.get("training_seed", pd.Series(0, index=histories.index)).fillna(0)
    histories = need_rows(histories.assign(training_seed=seeds), name, (), key).sort_values(key)
    runs = histories.groupby(["model", "training_seed"], sort=False)
    first = runs["validation_loss"].transform("first")  # the first that is known
    scale = first.where(first > 0)
    histories = histories.assign(**{loss: histories[loss] / scale for loss in ("train_loss", "validation_loss")})
    several = histories.groupby("model")["training_seed"].nunique().max() > 1
    figure, (loss, srcc) = plt.subplots(1, 2, figsize=(DOUBLE, 2.75))
    curves = ((loss, "train_loss", ":"), (loss, "validation_loss", "-"), (srcc, "validation_srcc", "-"))
    for axis, name, dashes in curves:
        data = {"x": "epoch", "y": name, "hue": "model", "ax": axis, "linestyle": dashes, "legend": False}
        data["palette"] = {model: look.colour for model, look in looks.items()}
        if several:
            thin = {"linewidth": 0.6, "alpha": 0.5, "gid": "seed"}
            sns.lineplot(histories, **data, units="training_seed", estimator=None, **thin)
        if len(known := _of_all_seeds(histories, name)):
            sns.lineplot(known, **data, errorbar=None, gid="mean", zorder=3)
        if name != "train_loss":
            _mark_kept(axis, histories, name, looks, size=3.5 if several else 5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.set(title="Loss (first validation = 1)", ylabel="loss, scaled")
    srcc.set(title="SRCC on the validation pairs", ylabel="SRCC")
    shown = [
        *map(style.look_handle, looks.values()),
        style.line_handle("0.4", "training", linestyle=":", linewidth=1.0),
    ]
    style.legend_below(
        figure, shown + ([style.line_handle("0.4", "one seed", linewidth=0.6, alpha=0.6)] if several else [])
    )
    return figure


def _of_all_seeds(histories: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of the epochs for which every seed of the model has a value."""
    known = histories.dropna(subset=[name])
    n_known = known.groupby(["model", "epoch"])["training_seed"].transform("nunique")
    n_seeds = known["model"].map(histories.groupby("model")["training_seed"].nunique())
    return known[n_known == n_seeds]


def _mark_kept(axis, histories: pd.DataFrame, name: str, looks: dict, size: float) -> None:
    """One mark per run (gid "kept") at its epoch with the lowest validation loss after the first update."""
    tried = histories[histories["epoch"] > 0].dropna(subset=["validation_loss"])
    best = tried.groupby(["model", "training_seed"], sort=False)["validation_loss"].idxmin()
    for row in histories.loc[best].itertuples():
        look = looks[row.model]
        shape = {"color": look.colour, "markersize": size, "markeredgewidth": 0, "zorder": 4, "gid": "kept"}
        axis.plot(row.epoch, getattr(row, name), look.marker, **shape)


@house_style
def ablation(table: pd.DataFrame, metric: str = "srcc") -> Figure:
    """What one loss adds to another, with the two uncertainties apart: of the test captions, and of the training seeds.

    Above, the difference with the interval over test captions, trainings fixed; below it the range of the differences
    of single seeds (pale, ± SD dark) and Student's interval of their mean (thin), test pairs fixed.

    Args:
        table: of `evaluate.ablation`: `model`, `reference`, `cell`, `metric`, `difference`, `low`, `high`, `n_seeds`,
            `seed_sd`, `seed_min`, `seed_max`, `seed_t_low`, `seed_t_high`.

    Raises:
        ValueError: a missing column, no row of the metric, a comparison twice.
    """
    name, key = "the ablation table", ["model", "reference", "cell"]
    rows = need_rows(table, name, (*key, "metric", "difference", "low", "high", *_SEEDS))
    rows = need_rows(style.need_value(rows, "metric", metric), name, (), key).rename(columns={"value": "score"})
    rows = rows.assign(value=rows["difference"], row=[str(place) for place in range(len(rows))])
    looks = style.model_looks([*rows["model"], *rows["reference"]])
    figure, axis = style.rows_figure(len(rows), each=0.42)
    axis.axvline(0, color="0.4", linestyle="--", linewidth=0.9, zorder=1)
    points(axis, rows, "row", list(rows["row"]), "model", {model: looks[model] for model in rows["model"].unique()})
    places, colours = np.arange(len(rows)) + 0.34, [looks[model].colour for model in rows["model"]]
    sd = (rows["difference"] - rows["seed_sd"], rows["difference"] + rows["seed_sd"])
    for (low, high), width, alpha, gid in (
        ((rows["seed_min"], rows["seed_max"]), 6, 0.3, "seed range"),
        (sd, 3, 0.6, "seed sd"),
        ((rows["seed_t_low"], rows["seed_t_high"]), 0.9, 1, "seed interval"),
    ):
        axis.hlines(places, low, high, colours, linewidth=width, alpha=alpha, zorder=3, gid=gid)
    texts = [with_interval(*row) for row in rows[["difference", "low", "high"]].to_numpy(float)]
    style.side_texts(axis, texts, "difference [95 %, captions]")
    seeds = [f"{n} seeds, SD {number(sd)}" for n, sd in zip(rows["n_seeds"], rows["seed_sd"])]
    style.side_texts(axis, seeds, lift=-0.34)
    labels = [f"{looks[row.model].name} against {looks[row.reference].name}" for row in rows.itertuples()]
    if rows["cell"].nunique() > 1:
        labels = [f"{label}\n{style.cell_name(cell)}" for label, cell in zip(labels, rows["cell"])]
    style.row_axis(axis, labels, width=34)
    axis.set(title=f"What the contrastive loss adds: {metric.upper()}", xlabel=f"difference of {metric.upper()}")
    style.legend_below(
        figure,
        [
            style.line_handle("0.3", "95 %, test captions", marker="o", markersize=4.5, linewidth=1.6),
            style.line_handle("0.3", "single seeds, lowest to highest", linewidth=6, alpha=0.3, solid_capstyle="butt"),
            style.line_handle("0.3", "± SD over seeds", linewidth=3, alpha=0.6, solid_capstyle="butt"),
            style.line_handle("0.3", "95 %, training seeds", linewidth=0.9),
        ],
    )
    return figure
