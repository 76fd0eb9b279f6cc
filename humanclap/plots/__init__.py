"""Figures: each function takes a table and returns a matplotlib Figure in one house style (colour-blind safe)."""

from .breakdowns import further_breakdowns
from .calibration import calibration, calibration_mse
from .controls import controls, listening, preferences
from .homogeneous import homogeneous
from .overview import overview
from .own_audio import own_systems
from .ratings import LABELLED, agreement_by_system, anchor_means, cell_ceilings, floor_and_ceiling, scale_use
from .scatter import score_scatter
from .screening import screening_curve, screening_effect, screening_rules
from .spectra import spectrograms
from .style import COLOURS, DOUBLE, MODEL_NAMES, SINGLE, SYSTEM_NAMES, write_figure
from .systems import system_means
from .tables import dumbbells, overall_forest
from .training import ablation, learning_curves

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
    "cell_ceilings",
    "controls",
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
    "screening_effect",
    "screening_rules",
    "spectrograms",
    "system_means",
    "write_figure",
]
