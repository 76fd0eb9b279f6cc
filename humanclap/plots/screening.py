"""Figures of the screening: what it leaves, how well the rest agree, and what it does to the SRCC of a score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .parts import (
    VALUE,
    intervals,
    legend_below,
    letters,
    need_rows,
    one_each,
    outer_labels,
    panels,
    row_axis,
    shortened,
    side_texts,
    with_signs,
)
from .style import COLOURS, DOUBLE, Look, house_style, new_figure

_X = "threshold on the mean anchor rating"
_WAYS = (("blue", "o"), ("vermilion", "s"), ("green", "^"), ("purple", "D"))


@house_style
def screening_curve(curve: pd.DataFrame, max_anchor_mean: float) -> Figure:
    """What is left, and how well the rest agree, as the threshold moves.

    Args:
        curve: one row a threshold: `max_anchor_mean`, `ratings`, `pairs` (shares of all, 0-1), `single_rating`
            (reliability of one rating) and `reliability` (of the mean) with `reliability_low`, `reliability_high`.
        max_anchor_mean: the threshold in use, marked.
    """
    agreement = ("single_rating", "reliability", "reliability_low", "reliability_high")
    curve = need_rows(curve, "the screening curve", ("max_anchor_mean", "ratings", "pairs", *agreement))
    x = curve["max_anchor_mean"]
    figure, (left, right) = new_figure(DOUBLE, 2.6, columns=2, sharex=True)
    for name, colour, marker in (("pairs", "green", "o"), ("ratings", "orange", "s")):
        left.plot(x, curve[name], marker=marker, markersize=3.5, color=COLOURS[colour], label=f"{name} left")
    left.set(title="What is left", ylabel="share of the file", xlabel=_X, ylim=(0, 1.03))
    left.yaxis.set_major_formatter(PercentFormatter(1))
    for name, label, colour, marker in (
        ("reliability", "reliability of the mean rating", "purple", "D"),
        ("single_rating", "of a single rating", "blue", "^"),
    ):
        right.plot(x, curve[name], marker=marker, markersize=3.5, color=COLOURS[colour], label=label)
    _band(right, x, curve["reliability_low"], curve["reliability_high"], COLOURS["purple"])
    right.set(title="How well the rest agree", xlabel=_X, ylabel="reliability", ylim=(0, 1))
    for axis in (left, right):
        _in_use(axis, max_anchor_mean)
    handles = [axis.get_legend_handles_labels() for axis in (left, right)]
    legend_below(figure, handles[0][0] + handles[1][0], handles[0][1] + handles[1][1])
    return figure


@house_style
def screening_effect(effect: pd.DataFrame, max_anchor_mean: float) -> Figure:
    """SRCC of a score against the screening threshold, on all pairs left and on common pairs with equal raters.

    Args:
        effect: table of `evaluate.screening_effect`: `max_anchor_mean`, `pairs` (the way), `value`, `low`, `high`, `n`.
        max_anchor_mean: the threshold in use, marked.
    """
    effect = need_rows(effect, "the screening table", ("max_anchor_mean", "pairs", *VALUE, "n"))
    figure, axis = new_figure(DOUBLE * 0.75, 2.7)
    for (way, rows), (colour, marker) in zip(effect.groupby("pairs", sort=False), _WAYS):
        x = rows["max_anchor_mean"]
        axis.plot(x, rows["value"], marker=marker, markersize=3.5, color=COLOURS[colour], label=_sized(way, rows["n"]))
        _band(axis, x, rows["low"], rows["high"], COLOURS[colour])
    _in_use(axis, max_anchor_mean)
    axis.set(title="SRCC of the score as the threshold moves", xlabel=_X, ylabel="SRCC (95 %)")
    legend_below(figure, *axis.get_legend_handles_labels())
    return figure


@house_style
def screening_rules(table: pd.DataFrame) -> Figure:
    """SRCC under each rule on listeners, with 95 % intervals and n, a panel a way of choosing the pairs (and measure).

    Args:
        table: of `evaluate.screening_rules` or `evaluate.screening_agreement`, one row a rule and way: `rule`,
            `max_anchor_mean` (NaN for rules without a threshold), `pairs` (the way), `value`, `low`, `high`, `n`;
            `measure` and `model` (only one) may be there.

    Raises:
        ValueError: a missing column, no rows, several models, a rule twice in a panel.
    """
    name = "the table of rules"
    table = need_rows(table, name, ("rule", "max_anchor_mean", "pairs", *VALUE, "n"))
    if "model" in table and table["model"].nunique() > 1:
        raise ValueError(f"{name} has {table['model'].nunique()} models: draw one at a time")
    labels = [_with_threshold(*row) for row in zip(table["rule"], table["max_anchor_mean"])]
    titles = table["pairs"] if "measure" not in table else table["measure"] + "\n" + table["pairs"]
    table = one_each(table.assign(label=labels, title=titles), ["title", "label"], name)
    rules, ways = list(dict.fromkeys(table["label"])), list(dict.fromkeys(table["title"]))
    places = np.arange(len(rules))[::-1].astype(float)
    figure, axes, across = panels(len(ways), 0.55 + 0.23 * len(rules), most=2, extra=0.3, sharey=True)
    for place, (axis, way) in enumerate(zip(axes, ways)):
        rows = table[table["title"] == way].set_index("label").reindex(rules)
        colour, marker = _WAYS[place % len(_WAYS)]
        intervals(axis, rows, places, [Look(way, COLOURS[colour], marker)] * len(rules), size=20)
        side_texts(axis, places, ["" if np.isnan(n) else f"{n:,.0f}" for n in rows["n"].to_numpy(float)], "n")
        axis.set_title("\n".join(shortened(part, letters(4.6 / across, 8.5)) for part in way.split("\n")))
        row_axis(axis, places, rules, width=34, lines=1)
    outer_labels(axes, across, "SRCC (95 %)", "")
    return figure


def _with_threshold(rule: str, threshold: float) -> str:
    named = np.isnan(threshold) or f"{threshold:g}" in str(rule)
    return with_signs(rule if named else f"{rule} <= {threshold:g}")


def _sized(way: str, n: pd.Series) -> str:
    return f"{way} (n = {n.min():,}{'' if n.nunique() == 1 else f' to {n.max():,}'})"


def _band(axis: Axes, x: Sequence, low: Sequence, high: Sequence, colour: str) -> None:
    axis.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, gid="interval")


def _in_use(axis: Axes, threshold: float) -> None:
    axis.axvline(threshold, color="0.2", linestyle="--", linewidth=0.9, zorder=1, gid="in use")
