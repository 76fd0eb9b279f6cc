"""RELATE's human ratings: load, screen, aggregate, split (section II-B of the paper)."""

from .pairs import aggregate_pairs, published_pairs, published_ratings, split_train_validation
from .ratings import QUESTIONS, RELATE_SPLITS, SPLITS, SYSTEMS, RatingsError, load_listeners, load_ratings
from .screening import Screening, anchor_means, screen_listeners

__all__ = [
    "QUESTIONS",
    "RELATE_SPLITS",
    "SPLITS",
    "SYSTEMS",
    "RatingsError",
    "Screening",
    "aggregate_pairs",
    "anchor_means",
    "load_listeners",
    "load_ratings",
    "published_pairs",
    "published_ratings",
    "screen_listeners",
    "split_train_validation",
]
