"""What the notebooks share: parameters, where things lie, what data stands behind a number, how results are kept."""

from .data import REAL, SYNTHETIC, Corpus, RatedPairs, RatingsSource, find_ratings, prepare
from .lineup import Lineup, ModelSource, lineup
from .results import checkpoints, copy_figures, read_scores, same_pairs, summary, wide
from .run import PROFILES, ParameterError, Study, StudyError, open_study, versions
from .runner import notebooks, run_notebooks

__all__ = [
    "PROFILES",
    "REAL",
    "SYNTHETIC",
    "Corpus",
    "Lineup",
    "ModelSource",
    "ParameterError",
    "RatedPairs",
    "RatingsSource",
    "Study",
    "StudyError",
    "checkpoints",
    "copy_figures",
    "find_ratings",
    "lineup",
    "open_study",
    "notebooks",
    "prepare",
    "read_scores",
    "run_notebooks",
    "same_pairs",
    "summary",
    "versions",
    "wide",
]
