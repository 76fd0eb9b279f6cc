"""`make_corpus`: the synthetic corpus, written as RELATE's own files and folders."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from .events import check_seconds
from .plan import FOLDERS, Plan, Settings, clip_paths, clips_table, make_plan, rating_tables, render_clip
from .pretraining import check_whole
from .ratings import ROWS_PER_LISTENER, check_listeners, default_listeners
from .sounds import SAMPLE_RATE

SETTINGS_FILE = "synthetic.json"
CLIPS_FILE = "synthetic_clips.csv"
RATINGS_FILE = "scores/REL.csv"
LISTENERS_FILE = "listener_attributes/REL.csv"
_VERSION = 2  # raise it when the same seed gives other files


def make_corpus(
    root: str | Path,
    seed: int = 0,
    n_train_captions: int = 804,
    n_test_captions: int = 288,
    n_listeners: int | None = None,
    clip_seconds: float = 4.0,
) -> Path:
    """Write a synthetic corpus in RELATE's format to `root` and return that folder.

    Holds scores/REL.csv, listener_attributes/REL.csv, RELATE_wave/<folder>/<split>/<id>.wav (16 kHz, mono,
    16 bit), synthetic.json (the settings) and synthetic_clips.csv (each clip's faults and true quality, 0–10).
    The same arguments give the same bytes. A complete corpus with these settings is left alone; one with others
    is replaced, at once and only when the new one is complete.

    n_train_captions: three clips each; 804 leave about as many training pairs, once listeners are screened, as
    the paper reports (2,383). n_listeners: None gives each pair RELATE's mean of 4.15 ratings before screening.
    clip_seconds: 0.5 to 60. Raises ValueError for a value that is not allowed, FileExistsError where `root`
    holds anything else.
    """
    root = Path(root)
    settings = _checked(seed, n_train_captions, n_test_captions, n_listeners, clip_seconds)
    place = root.resolve()  # a link keeps pointing where it did, and its target's own disk is written to
    found = _found_settings(place)
    if found == _as_json(settings) and _is_complete(place, settings):
        return root
    plan = make_plan(settings)
    place.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        _write_corpus(building / "new", plan)
        _put_in_place(building / "new", place, building / "old")
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def _checked(
    seed: int, n_train_captions: int, n_test_captions: int, n_listeners: int | None, clip_seconds: float
) -> Settings:
    """The arguments as plain numbers; ValueError for one that is not allowed."""
    check_whole(seed, "seed", 0, 2**32 - 1)
    check_whole(n_train_captions, "n_train_captions", 6)
    check_whole(n_test_captions, "n_test_captions", 6)
    check_seconds(clip_seconds)
    n_captions = int(n_train_captions) + int(n_test_captions)
    if n_listeners is None:
        n_listeners = default_listeners(n_captions)
    check_listeners(n_listeners, n_captions)
    return Settings(
        int(seed), int(n_train_captions), int(n_test_captions), int(n_listeners), float(clip_seconds)
    )


def _as_json(settings: Settings) -> dict:
    return {"data": "synthetic", "version": _VERSION, **asdict(settings)}


def _found_settings(root: Path) -> dict | None:
    """The settings of the corpus in `root`, None where there is nothing; FileExistsError for anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    try:
        found = json.loads((root / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("data") != "synthetic":
        raise FileExistsError(
            f"{root} holds something that is not a synthetic corpus (no valid {SETTINGS_FILE}); "
            "name another folder, or move this one away"
        )
    return found


def _is_complete(root: Path, settings: Settings) -> bool:
    """Whether every file of a corpus is there: each table with all its rows, each clip with its full length."""
    rows = {
        RATINGS_FILE: ROWS_PER_LISTENER * settings.n_listeners,
        LISTENERS_FILE: settings.n_listeners,
        CLIPS_FILE: 3 * (settings.n_train_captions + settings.n_test_captions),
    }
    for name, n_rows in rows.items():
        if not (root / name).is_file() or (root / name).read_bytes().count(b"\n") != n_rows + 1:
            return False
    size = 44 + 2 * round(settings.clip_seconds * SAMPLE_RATE)
    paths = (root / "RELATE_wave" / audio for audio in clip_paths(settings))
    return all(path.is_file() and path.stat().st_size == size for path in paths)


def _write_corpus(root: Path, plan: Plan) -> None:
    import soundfile  # on use: a machine that only trains may lack it

    for folder in FOLDERS:
        for split in ("train", "test"):
            (root / "RELATE_wave" / folder / split).mkdir(parents=True)
    for clip in plan.clips:
        samples = render_clip(clip, plan.settings.clip_seconds)
        soundfile.write(root / "RELATE_wave" / clip.audio, samples, SAMPLE_RATE, subtype="PCM_16")
    ratings, answers = rating_tables(plan)
    _write_table(root / RATINGS_FILE, ratings)
    _write_table(root / LISTENERS_FILE, answers)
    _write_table(root / CLIPS_FILE, clips_table(plan))
    text = json.dumps(_as_json(plan.settings), indent=2) + "\n"
    (root / SETTINGS_FILE).write_text(text, encoding="utf-8")


def _write_table(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")


def _put_in_place(new: Path, root: Path, old: Path) -> None:
    """Rename `new` to `root`, what is there now to `old`; if that fails, `root` is as it was."""
    try:
        if root.exists():
            os.replace(root, old)
        os.replace(new, root)
    except BaseException:  # also Ctrl-C between the two: the caller deletes `old` with the rest
        if old.exists() and not root.exists():
            os.replace(old, root)
        raise
