"""Moved to `humanclap.files`; kept until its last users import from there."""

from humanclap.files import sha256_of

remembered_sha256 = sha256_of

__all__ = ["remembered_sha256", "sha256_of"]
