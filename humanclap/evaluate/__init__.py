"""What a score is worth: correlations, intervals, the paper's tables, ceilings, floors and controls."""

# ruff: noqa: F401

from .agreement import ceiling_table, human_ceiling, listener_habits, screening_agreement, screening_rules
from .bootstrap import (
    Comparison,
    Correlations,
    ResamplePlan,
    bootstrap_correlations,
    bootstrap_samples,
    compare,
    correlations,
    holm,
    mean_interval,
    paired_p,
    two_sided_p,
)
from .calibration import calibrate, calibrated_scores, fit_map, reliability_curve
from .ceilings import cell_ceilings, homogeneous_score, screened_ceilings
from .floors import blind_baselines, blind_predictions, cross_fitted_blind, strongest_blind
from .listening import AnchorAuc, anchor_auc, listening_table, swap_captions
from .systems import SYSTEMS_NOTE, preferences, system_means
from .tables import ablation, breakdown, paper_table, render_table, write_table
from .weighted import METRICS, WeightedCorrelations
