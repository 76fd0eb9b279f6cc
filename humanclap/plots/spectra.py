"""Spectrograms of clips."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from .parts import letters, outer_labels, panels, shortened
from .style import house_style


@house_style
def spectrograms(clips: dict[str, np.ndarray], sample_rate: int, columns: int = 4) -> Figure:
    """Magnitude spectrograms (dB below the loudest) of short clips, one panel each.

    Args:
        clips: name -> waveform [T] in -1..1.
        sample_rate: in Hz.
        columns: most panels side by side.

    Raises:
        ValueError: no clips.
    """
    if not clips:
        raise ValueError("no clips given: there is nothing to draw")
    figure, axes, across = panels(len(clips), 1.3, most=columns, extra=0.3, sharex=True, sharey=True)
    for axis, (name, clip) in zip(axes, clips.items()):
        axis.specgram(clip + 1e-6, NFFT=512, noverlap=256, Fs=sample_rate, cmap="magma", vmin=-140, vmax=-40)
        axis.grid(visible=False)
        axis.set_title(shortened(name, letters(6.2 / across, 8), lines=2), fontsize=7, fontweight="normal")
    outer_labels(axes, across, "seconds", "Hz")
    return figure
