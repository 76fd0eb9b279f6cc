"""What can go wrong on the way from a server to a folder."""

from __future__ import annotations


class DownloadError(OSError):
    """A file could not be fetched, or is not the file that was asked for; the message says what mends it."""


class GivenUpError(DownloadError):
    """The network, or the server, did not answer in all the attempts that patience allows."""


class ArchiveError(DownloadError):
    """An archive is damaged, or holds what no archive of clips has; nothing of it was unpacked."""
