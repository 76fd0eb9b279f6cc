"""Figures of people's ratings: the scale, the anchors, the screening, agreement, floor and ceiling."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .style import COLOURS, SYSTEM_NAMES, house_style, new_figure

LABELLED = (0, 2, 5, 8, 10)  # the points of the scale that carry words (paper, section II-B)


@house_style
def scale_use(ratings: pd.DataFrame) -> Figure:
    """Share of each rating 0-10, for matched pairs and for anchors; the points that carry words in full colour.

    Args:
        ratings: DataFrame of `load_ratings`.
    """
    figure, axes = new_figure(7.2, 2.8, columns=2, sharex=True, sharey=True)
    parts = (
        ("Matched pairs", ~ratings["is_anchor"], "blue"),
        ("Anchors (wrong on purpose)", ratings["is_anchor"], "vermilion"),
    )
    for axis, (title, rows, colour) in zip(axes, parts):
        share = ratings.loc[rows, "rating"].value_counts(normalize=True).reindex(range(11), fill_value=0)
        strength = [1.0 if rating in LABELLED else 0.4 for rating in share.index]
        bars = axis.bar(share.index, share, width=0.8, color=COLOURS[colour])
        for bar, alpha in zip(bars, strength):
            bar.set_alpha(alpha)
        axis.set(title=f"{title}, n = {int(rows.sum()):,}", xlabel="rating", xticks=range(11))
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("share of ratings")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    return figure


@house_style
def anchor_means(means: pd.Series, max_anchor_mean: float) -> Figure:
    """Listeners by their mean anchor rating, those above the threshold in another colour.

    Args:
        means: one mean (0-10) a listener.
        max_anchor_mean: the threshold.
    """
    figure, axis = new_figure(6, 2.8)
    edges = np.arange(-1 / 6, 10.4, 1 / 3)  # means of three ratings, each in the middle of its bin
    removed = means > max_anchor_mean
    axis.hist(
        [means[~removed], means[removed]],
        bins=edges,
        stacked=True,
        color=[COLOURS["blue"], COLOURS["vermilion"]],
        label=[f"kept: {(~removed).sum():,}", f"removed: {removed.sum():,}"],
        edgecolor="white",
        linewidth=0.4,
    )
    axis.axvline(max_anchor_mean, color="0.2", linestyle="--", linewidth=1)
    axis.annotate(
        f"threshold {max_anchor_mean:g}",
        (max_anchor_mean, axis.get_ylim()[1]),
        (4, -8),
        textcoords="offset points",
        fontsize=8,
    )
    axis.set(
        title="What the anchors catch",
        xlabel="listener's mean anchor rating",
        ylabel="listeners",
        xlim=(-0.3, 10.3),
    )
    axis.legend(title="listeners")
    axis.grid(axis="x", visible=False)
    return figure


@house_style
def screening_curve(curve: pd.DataFrame, max_anchor_mean: float) -> Figure:
    """What is left, and how well the rest agree, as the threshold moves.

    Args:
        curve: one row a threshold: `max_anchor_mean`, `ratings`, `pairs` (shares of all, 0-1), `single_rating`
            (reliability of one rating) and `reliability` (of the mean) with `reliability_low`, `reliability_high`.
        max_anchor_mean: the threshold in use, marked.
    """
    figure, (left, right) = new_figure(7.2, 2.9, columns=2, sharex=True)
    for column, colour in (("pairs", "green"), ("ratings", "orange")):
        left.plot(
            curve["max_anchor_mean"],
            curve[column],
            marker="o",
            markersize=3,
            color=COLOURS[colour],
            label=column,
        )
    left.set(
        title="What is left",
        ylabel="share of the file",
        xlabel="threshold on the mean anchor rating",
        ylim=(0, 1.03),
    )
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.legend()
    for column, name, colour in (
        ("reliability", "of the mean rating", "purple"),
        ("single_rating", "of a single rating", "blue"),
    ):
        right.plot(
            curve["max_anchor_mean"],
            curve[column],
            marker="o",
            markersize=3,
            color=COLOURS[colour],
            label=name,
        )
    right.fill_between(
        curve["max_anchor_mean"],
        curve["reliability_low"],
        curve["reliability_high"],
        color=COLOURS["purple"],
        alpha=0.2,
        linewidth=0,
    )
    right.set(
        title="How well the rest agree",
        xlabel="threshold on the mean anchor rating",
        ylabel="reliability",
        ylim=(0, 1),
    )
    right.legend()
    for axis in (left, right):
        axis.axvline(max_anchor_mean, color="0.2", linestyle="--", linewidth=1)
    return figure


@house_style
def screening_effect(effect: pd.DataFrame, max_anchor_mean: float) -> Figure:
    """SRCC of a score against the screening threshold, on all pairs left and on common pairs with equal raters.

    Args:
        effect: table of `evaluate.screening.screening_effect`.
        max_anchor_mean: the threshold in use, marked.
    """
    figure, axis = new_figure(6.4, 3)
    for (way, rows), colour in zip(effect.groupby("pairs", sort=False), ("blue", "vermilion")):
        label = f"{way} (n = {rows['n'].min()}{'' if rows['n'].nunique() == 1 else ' to ' + str(rows['n'].max())})"
        axis.plot(
            rows["max_anchor_mean"],
            rows["value"],
            marker="o",
            markersize=3,
            color=COLOURS[colour],
            label=label,
        )
        axis.fill_between(
            rows["max_anchor_mean"], rows["low"], rows["high"], color=COLOURS[colour], alpha=0.15, linewidth=0
        )
    axis.axvline(max_anchor_mean, color="0.2", linestyle="--", linewidth=1)
    axis.set(
        title="SRCC of the baseline as the threshold moves",
        xlabel="threshold on the mean anchor rating",
        ylabel="SRCC, 95 %",
    )
    axis.legend()
    return figure


@house_style
def agreement_by_system(ceilings: pd.DataFrame) -> Figure:
    """The LCC ceiling of each part of the test pairs, with its 95 % interval and the number of pairs.

    Args:
        ceilings: table of `evaluate.ceiling_table`: `subset`, `n_pairs`, `lcc_ceiling`, `lcc_ceiling_low`, `lcc_ceiling_high`.
    """
    figure, axis = new_figure(6, 0.6 + 0.36 * len(ceilings))
    rows = np.arange(len(ceilings))[::-1]
    colours = [COLOURS["grey"] if part in ("all", "synthesized") else COLOURS["blue"] for part in ceilings["subset"]]
    axis.hlines(rows, ceilings["lcc_ceiling_low"], ceilings["lcc_ceiling_high"], color=colours, linewidth=2)
    axis.scatter(ceilings["lcc_ceiling"], rows, color=colours, s=34, zorder=3)
    for row, value in zip(rows, ceilings["lcc_ceiling"]):
        axis.annotate(f"{value:.2f}", (value, row), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    names = [f"{SYSTEM_NAMES.get(part, part)}, n = {n:,}" for part, n in zip(ceilings["subset"], ceilings["n_pairs"])]
    axis.set(
        title="The best correlation that any score could reach",
        xlabel="LCC of a perfect predictor with the mean rating (95 % interval)",
        ylim=(-0.6, len(ceilings) - 0.4),
    )
    axis.set_yticks(rows, names)
    axis.grid(axis="y", visible=False)
    return figure


@house_style
def floor_and_ceiling(marks: pd.DataFrame) -> Figure:
    """SRCC on one axis: what needs no listening, what the paper reports, how far two halves of the listeners agree.

    Args:
        marks: one row a mark, drawn from top to bottom: `name`, `kind` ("floor", "paper" or "people"), `value`, and
            `low`, `high` (NaN where there is no interval).
    """
    colours = {"floor": COLOURS["orange"], "paper": COLOURS["blue"], "people": COLOURS["green"]}
    names = {
        "floor": "never listens",
        "paper": "CLAPScore, as the paper reports it (its own pairs)",
        "people": "people",
    }
    figure, axis = new_figure(7, 1.2 + 0.36 * len(marks))
    rows = np.arange(len(marks))[::-1]
    for kind, colour in colours.items():
        mine = (marks["kind"] == kind).to_numpy()
        part = marks[mine]
        axis.hlines(rows[mine], part["low"], part["high"], color=colour, linewidth=2)
        axis.scatter(
            part["value"],
            rows[mine],
            color=colour,
            s=36,
            zorder=3,
            label=names[kind],
            marker="D" if kind == "paper" else "o",
        )
    for row, value in zip(rows, marks["value"]):
        axis.annotate(f"{value:.3f}", (value, row), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axis.set_yticks(rows, marks["name"])
    ends = marks[["value", "low", "high"]].to_numpy(float)
    lowest, highest = np.nanmin(ends), np.nanmax(ends)
    axis.set(
        title="Between the floor and the people",
        xlabel="SRCC with the mean rating (people: of one half's mean with the other half's), 95 %",
        xlim=(min(0.0, lowest - 0.05), max(0.7, highest + 0.05)),
        ylim=(-0.7, len(marks) - 0.3),
    )
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure
