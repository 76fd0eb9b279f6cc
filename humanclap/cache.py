"""Moved to `humanclap.files`; kept until its last users import from there."""

from .files import ArrayCache, cache_key

__all__ = ["ArrayCache", "cache_key"]
