"""Figures: each function takes a table and returns a matplotlib Figure, in one style that colour-blind readers can read.

Needs matplotlib and seaborn, which belong to the extra `study`.
"""

from __future__ import annotations

from humanclap.checks import need_extra

try:
    import matplotlib  # noqa: F401
    import seaborn  # noqa: F401
except ImportError:
    need_extra("matplotlib", "study", "humanclap.plots")
    need_extra("seaborn", "study", "humanclap.plots")
    raise

from .audio import own_systems, spectrograms
from .listening import listening, preferences, system_means
from .ratings import (
    LABELLED,
    agreement_by_system,
    anchor_means,
    calibration,
    calibration_mse,
    floor_and_ceiling,
    scale_use,
    score_scatter,
    screening_curve,
    screening_rules,
)
from .style import COLOURS, DOUBLE, MODEL_NAMES, SINGLE, SYSTEM_NAMES, write_figure
from .tables import dumbbells, further_breakdowns, homogeneous, overall_forest
from .training import ablation, learning_curves, overview

__all__ = [
    "COLOURS",
    "DOUBLE",
    "LABELLED",
    "MODEL_NAMES",
    "SINGLE",
    "SYSTEM_NAMES",
    "ablation",
    "agreement_by_system",
    "anchor_means",
    "calibration",
    "calibration_mse",
    "dumbbells",
    "floor_and_ceiling",
    "further_breakdowns",
    "homogeneous",
    "learning_curves",
    "listening",
    "overall_forest",
    "overview",
    "own_systems",
    "preferences",
    "scale_use",
    "score_scatter",
    "screening_curve",
    "screening_rules",
    "spectrograms",
    "system_means",
    "write_figure",
]
