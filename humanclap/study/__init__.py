"""What the notebooks share: parameters, where things lie, what data stands behind a number, how results are kept."""

from .data import REAL, SYNTHETIC, Corpus, RatedPairs, RatingsSource, find_ratings, prepare
from .lineup import Lineup, ModelSource, lineup
from .own_clips import OwnClips, chosen_clap, own_clips, rated_scores
from .preflight import Preflight, preflight
from .results import checkpoints, copy_figures, read_scores, same_pairs, score_lineup, score_variants, study_scores, summary, with_blind
from .run import PROFILES, ParameterError, Study, StudyError, cache_folder, open_study, versions
from .runner import notebooks, run_notebooks
from .windows import LongClips, long_clips, window_effect, window_scores

__all__ = [
    "PROFILES",
    "REAL",
    "SYNTHETIC",
    "Corpus",
    "Lineup",
    "ModelSource",
    "LongClips",
    "OwnClips",
    "ParameterError",
    "Preflight",
    "RatedPairs",
    "RatingsSource",
    "Study",
    "StudyError",
    "cache_folder",
    "checkpoints",
    "chosen_clap",
    "copy_figures",
    "find_ratings",
    "lineup",
    "open_study",
    "long_clips",
    "notebooks",
    "own_clips",
    "preflight",
    "prepare",
    "rated_scores",
    "read_scores",
    "run_notebooks",
    "same_pairs",
    "score_lineup",
    "score_variants",
    "study_scores",
    "summary",
    "versions",
    "window_effect",
    "window_scores",
    "with_blind",
]
