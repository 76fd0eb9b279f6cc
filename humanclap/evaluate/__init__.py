"""What a score is worth: correlations, intervals, the paper's tables, ceilings, floors and controls."""

from .agreement import HumanCeiling, ceiling_table, human_ceiling
from .bootstrap import (
    BootstrapCorrelations,
    Comparison,
    Interval,
    ResamplePlan,
    bootstrap_correlations,
    bootstrap_samples,
    bootstrap_statistic,
    compare,
    percentile_interval,
    two_sided_p,
)
from .controls import AnchorAuc, WeightedAuc, anchor_auc, swap_captions
from .correlation import METRICS, Correlations, correlations
from .floors import blind_baselines, blind_predictions
from .listeners import listener_habits
from .screening import screening_effect
from .tables import breakdown, compare_models
from .weighted import WeightedCorrelations

__all__ = [
    "METRICS",
    "AnchorAuc",
    "BootstrapCorrelations",
    "Comparison",
    "Correlations",
    "HumanCeiling",
    "Interval",
    "ResamplePlan",
    "WeightedAuc",
    "WeightedCorrelations",
    "anchor_auc",
    "blind_baselines",
    "blind_predictions",
    "bootstrap_correlations",
    "bootstrap_samples",
    "bootstrap_statistic",
    "breakdown",
    "ceiling_table",
    "compare",
    "compare_models",
    "correlations",
    "human_ceiling",
    "listener_habits",
    "percentile_interval",
    "screening_effect",
    "swap_captions",
    "two_sided_p",
]
