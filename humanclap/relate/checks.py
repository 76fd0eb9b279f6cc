"""Moved to `humanclap.checks`; kept until its last users import from there."""

from humanclap.checks import anchor_mask, need_ratings, whole_number


def need_seed(seed) -> int:
    """The seed as an int; ValueError unless it is a whole number of at least 0."""
    return whole_number(seed, "seed")


__all__ = ["anchor_mask", "need_ratings", "need_seed"]
