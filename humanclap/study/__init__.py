"""What the notebooks share: parameters, where things lie, what data stands behind a number, how results are kept."""

from .data import BASELINES, REAL, SYNTHETIC, Corpus, RatingsSource, baselines, find_ratings, prepare
from .results import checkpoints, copy_figures, read_scores, same_pairs, summary, wide
from .run import PROFILES, ParameterError, Study, StudyError, open_study, versions

__all__ = [
    "BASELINES",
    "PROFILES",
    "REAL",
    "SYNTHETIC",
    "Corpus",
    "ParameterError",
    "RatingsSource",
    "Study",
    "StudyError",
    "baselines",
    "checkpoints",
    "copy_figures",
    "find_ratings",
    "open_study",
    "prepare",
    "read_scores",
    "same_pairs",
    "summary",
    "versions",
    "wide",
]
