"""Public files at pinned revisions, checked before anything reads them: RELATE, the CLAPs' weights, tokenizers."""

from __future__ import annotations

from .checksums import remembered_sha256, sha256_of
from .errors import ArchiveError, DownloadError
from .pieces import fetch, listing, status
from .places import data_folder, relate_folder, weights_folder
from .ratings import fetch_ratings
from .sources import RELATE_REVISION, RELATE_SHA256, SOURCES
from .transfer import Patience

__all__ = [
    "RELATE_REVISION",
    "RELATE_SHA256",
    "SOURCES",
    "ArchiveError",
    "DownloadError",
    "Patience",
    "data_folder",
    "fetch",
    "fetch_ratings",
    "listing",
    "relate_folder",
    "remembered_sha256",
    "sha256_of",
    "status",
    "weights_folder",
]
