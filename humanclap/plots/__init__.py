"""Figures: each function takes a table and returns a matplotlib Figure in one house style (colour-blind safe)."""

from .breakdowns import controls, dumbbells
from .overview import overview
from .ratings import (
    LABELLED,
    agreement_by_system,
    anchor_means,
    floor_and_ceiling,
    scale_use,
    screening_curve,
    screening_effect,
)
from .scores import learning_curves, overall_forest, score_scatter, spectrograms
from .style import COLOURS, MODEL_NAMES, SYSTEM_NAMES

__all__ = [
    "COLOURS",
    "LABELLED",
    "MODEL_NAMES",
    "SYSTEM_NAMES",
    "agreement_by_system",
    "anchor_means",
    "controls",
    "dumbbells",
    "floor_and_ceiling",
    "learning_curves",
    "overall_forest",
    "overview",
    "scale_use",
    "score_scatter",
    "screening_curve",
    "screening_effect",
    "spectrograms",
]
