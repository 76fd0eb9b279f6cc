"""Figures of one's own clips: spectrograms, and mean scores per system."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import style
from .style import COLOURS, Look, house_style, letters, need_rows, number, points, shortened, with_interval

_REFERENCE_COLOURS = ("orange", "vermilion", "green", "purple", "grey")


@house_style
def spectrograms(
    clips: dict[str, np.ndarray],
    sample_rate: int,
    columns: int = 4,
    window: str = "",
    window_seconds: float = np.inf,
) -> Figure:
    """Magnitude spectrograms (dB below full scale) of short clips, one panel each.

    Args:
        clips: name -> waveform [T] in -1..1.
        sample_rate: in Hz.
        columns: panels side by side, at most.
        window, window_seconds: how a model crops long clips; what it does not hear under "first" and "center" is pale.

    Raises:
        ValueError: no clips.
    """
    if not clips:
        raise ValueError("no clips given: there is nothing to draw")
    names = pd.DataFrame({"clip": list(clips)})
    figure, axes, across = style.facets(names, "clip", 1.3, most=columns, extra=0.3, sharex=True, sharey=True)
    for name, axis in axes.items():
        clip = np.asarray(clips[name], dtype=float)
        axis.specgram(clip + 1e-6, NFFT=512, noverlap=256, Fs=sample_rate, cmap="magma", vmin=-140, vmax=-40)
        seconds = len(clip) / sample_rate
        start = {"first": 0.0, "center": (seconds - window_seconds) / 2}.get(window)
        if start is not None and seconds > window_seconds:
            for ends in ((0, start), (start + window_seconds, seconds)):
                axis.axvspan(*ends, color="white", alpha=0.65, linewidth=0, gid="not heard")
        axis.grid(visible=False)
        axis.set_title(shortened(name, letters(6.2 / across, 8), lines=2), fontsize=7, fontweight="normal")
    style.outer_labels(axes.values(), across, "seconds", "Hz")
    return figure


@house_style
def own_systems(means: pd.DataFrame, references: pd.DataFrame) -> Figure:
    """Mean CLAPScore of each system with its interval, the references as lines behind them.

    Args:
        means: `report.system_means`: system, clips, failed, mean, low, high. A system without a score keeps its row.
        references: `report.references`: reference, mean, clips; one without a mean is left out.

    Raises:
        ValueError: a missing column, no systems, a system twice.
    """
    needed = ("system", "clips", "failed", "mean", "low", "high")
    rows = need_rows(means, "the means", needed, key=["system"]).rename(columns={"mean": "value"})
    figure, axis = style.rows_figure(len(rows), each=0.3)
    handles = []
    for (_, row), colour in zip(references.dropna(subset=["mean"]).iterrows(), _REFERENCE_COLOURS):
        look = {"linestyle": "--", "linewidth": 1.2}
        axis.axvline(row["mean"], color=COLOURS[colour], zorder=1, gid="reference", **look)
        handles.append(style.line_handle(COLOURS[colour], f"{row['reference']}: {number(row['mean'])}", **look))
    looks = dict.fromkeys(rows["system"], Look("", COLOURS["blue"], "o"))
    points(axis, rows, "system", list(looks), "system", looks)
    style.side_texts(
        axis, [with_interval(*row) for row in rows[["value", "low", "high"]].to_numpy(float)], "mean [95 %]"
    )
    failed = [f", {n} failed" if n else "" for n in rows["failed"]]
    style.row_axis(axis, [f"{name} (n = {n}{more})" for name, n, more in zip(rows["system"], rows["clips"], failed)])
    axis.set(title="Mean CLAPScore per system, 95 % intervals over prompts", xlabel="CLAPScore")
    style.legend_below(figure, handles)
    return figure
