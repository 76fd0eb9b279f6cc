"""What the notebooks share: parameters and results, the data and its label, the models, and what a run needs."""

from .data import (
    REAL,
    SYNTHETIC,
    Corpus,
    RatedPairs,
    RatingsSource,
    add_blind,
    find_ratings,
    prepare,
    read_scores,
    same_pairs,
    score_lineup,
    score_variants,
    study_scores,
    with_blind,
)
from .models import Lineup, ModelSource, checkpoints, chosen_clap, chosen_variant, lineup
from .own_clips import OwnClips, OwnClipsError, own_clips, rated_scores
from .preflight import Preflight, preflight
from .run import PROFILES, ParameterError, Study, StudyError, cache_folder, open_study, profile_parameters, versions
from .windows import LongClips, long_clips, window_effect, window_scores

__all__ = [
    "PROFILES",
    "REAL",
    "SYNTHETIC",
    "Corpus",
    "Lineup",
    "LongClips",
    "ModelSource",
    "OwnClips",
    "OwnClipsError",
    "ParameterError",
    "Preflight",
    "RatedPairs",
    "RatingsSource",
    "Study",
    "StudyError",
    "add_blind",
    "cache_folder",
    "checkpoints",
    "chosen_clap",
    "chosen_variant",
    "find_ratings",
    "lineup",
    "long_clips",
    "open_study",
    "own_clips",
    "preflight",
    "prepare",
    "profile_parameters",
    "rated_scores",
    "read_scores",
    "same_pairs",
    "score_lineup",
    "score_variants",
    "study_scores",
    "versions",
    "window_effect",
    "window_scores",
    "with_blind",
]
