"""What a score is worth: correlations, intervals, the paper's tables, ceilings, floors and controls."""

from .ablation import ablation
from .agreement import HumanCeiling, ceiling_table, human_ceiling
from .bootstrap import (
    BootstrapCorrelations,
    Comparison,
    Interval,
    bootstrap_correlations,
    bootstrap_samples,
    bootstrap_statistic,
    compare,
)
from .calibration import MAPS, calibrate, calibrated_scores, fit_map, reliability_curve
from .cell_ceilings import cell_ceilings, screened_ceilings
from .controls import AnchorAuc, WeightedAuc, anchor_auc, swap_captions
from .correlation import METRICS, Correlations, correlations
from .floors import blind_baselines, blind_predictions
from .halves import halves_by_raters
from .homogeneous import homogeneous_score
from .intervals import INTERVALS, bca_interval, percentile_interval
from .listeners import listener_habits
from .listening import CONTROLS, listening_table
from .paper_tables import paper_table
from .partial import partial_srcc
from .render import render_table, write_table
from .resamples import ResamplePlan
from .rules import (
    Rule,
    agreement_screening,
    agreement_weights,
    anchor_rule,
    default_rules,
    no_screening,
    relate_rule,
    straight_lining,
    z_scores,
)
from .screening import screening_agreement, screening_effect, screening_rules
from .significance import holm, two_sided_p
from .systems import SYSTEMS_NOTE, preferences, system_means
from .tables import breakdown, compare_models
from .weighted import WeightedCorrelations

__all__ = [
    "CONTROLS",
    "INTERVALS",
    "MAPS",
    "METRICS",
    "SYSTEMS_NOTE",
    "AnchorAuc",
    "BootstrapCorrelations",
    "Comparison",
    "Correlations",
    "HumanCeiling",
    "Interval",
    "ResamplePlan",
    "Rule",
    "WeightedAuc",
    "WeightedCorrelations",
    "ablation",
    "agreement_screening",
    "agreement_weights",
    "anchor_auc",
    "anchor_rule",
    "bca_interval",
    "blind_baselines",
    "blind_predictions",
    "bootstrap_correlations",
    "bootstrap_samples",
    "bootstrap_statistic",
    "breakdown",
    "calibrate",
    "calibrated_scores",
    "ceiling_table",
    "cell_ceilings",
    "compare",
    "compare_models",
    "correlations",
    "default_rules",
    "fit_map",
    "halves_by_raters",
    "holm",
    "homogeneous_score",
    "human_ceiling",
    "listener_habits",
    "listening_table",
    "no_screening",
    "paper_table",
    "partial_srcc",
    "percentile_interval",
    "preferences",
    "relate_rule",
    "reliability_curve",
    "render_table",
    "screened_ceilings",
    "screening_agreement",
    "screening_effect",
    "screening_rules",
    "straight_lining",
    "swap_captions",
    "system_means",
    "two_sided_p",
    "write_table",
    "z_scores",
]
