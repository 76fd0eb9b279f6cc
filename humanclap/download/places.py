"""Where data and weights lie: one definition of each folder, for what fetches and for what reads."""

from __future__ import annotations

import os
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[2]
PROJECT = _SOURCE if (_SOURCE / "notebooks").is_dir() else Path.cwd()  # the latter where the package is installed
AUDIO_FOLDER = "RELATE_wave"
"""RELATE's clips, below its folder."""


def data_folder() -> Path:
    """Where fetched files are kept: `$HUMANCLAP_DATA`, or data/ beside the notebooks."""
    named = os.environ.get("HUMANCLAP_DATA")
    return Path(named).expanduser() if named else PROJECT / "data"


def relate_folder(data: str | os.PathLike | None = None) -> Path:
    """RELATE's folder, which holds scores/REL.csv and RELATE_wave/, there or not.

    `$HUMANCLAP_RELATE`, or relate/ below `data_folder()`; `data`, where given, goes before both.
    """
    named = os.environ.get("HUMANCLAP_RELATE")
    if data is None and named:
        return Path(named).expanduser().resolve()
    return (data_folder() if data is None else Path(data).expanduser()) / "relate"


def weights_folder(repository: str, data: str | os.PathLike | None = None) -> Path:
    """Where a hub repository's files are looked for before the hub's cache: `<data>/weights/<owner>/<name>`."""
    return (data_folder() if data is None else Path(data).expanduser()) / "weights" / repository
