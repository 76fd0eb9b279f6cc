"""`make_corpus`: the synthetic corpus, planned from its settings alone and written as RELATE's own files and folders.

The audio is rendered from the plan, and no rating depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from humanclap.checks import whole_number
from humanclap.files import writing

from .captions import Caption, draw_captions
from .clips import SYSTEM_ODDS, Fault, compose, draw_fault, quality
from .listeners import (
    COLUMNS,
    ROWS_PER_LISTENER,
    Item,
    check_listeners,
    default_listeners,
    draw_listeners,
    make_forms,
    questionnaire,
    rate_form,
)
from .sounds import SAMPLE_RATE, child_rng, length, render_scene

SETTINGS_FILE = "synthetic.json"
CLIPS_FILE = "synthetic_clips.csv"
RATINGS_FILE = "scores/REL.csv"
LISTENERS_FILE = "listener_attributes/REL.csv"
_VERSION = 2  # raise it when the same seed gives other files

FOLDERS = {"audiocaps": "natural", **{name: name for name in ("audioldm", "audioldm2", "tango", "tango2")}}
# As in RELATE, each half of the captions goes to two of the four systems.
_FOLDERS_OF_EVEN, _FOLDERS_OF_ODD = ("audiocaps", "audioldm", "tango2"), ("audiocaps", "audioldm2", "tango")
_FIRST_ID = {"train": 10_001, "test": 50_001}
# First keys of the child seeds, one a purpose: what is drawn for one does not move the others.
_CAPTIONS, _CLIP, _FORMS, _LISTENERS, _RATINGS, _ATTRIBUTES = range(1, 7)


@dataclass(frozen=True)
class Settings:
    """The arguments of `make_corpus`, checked; they and the package's version decide every byte."""

    seed: int
    n_train_captions: int
    n_test_captions: int
    n_listeners: int
    clip_seconds: float

    def n_captions(self, split: str) -> int:
        """How many captions a split has."""
        return {"train": self.n_train_captions, "test": self.n_test_captions}[split]


@dataclass(frozen=True)
class Clip:
    """One clip that is to be made: its path below RELATE_wave, caption, fault, and the key of its seed."""

    audio: str
    caption: Caption
    fault: Fault
    key: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Captions with the true quality of their clips, and the clips, three a caption in the same order."""

    settings: Settings
    items: tuple[Item, ...]
    clips: tuple[Clip, ...]


def folders_of(i: int) -> tuple[str, ...]:
    """The three folders that hold clips of the i-th caption of a split."""
    return _FOLDERS_OF_EVEN if i % 2 == 0 else _FOLDERS_OF_ODD


def clip_paths(settings: Settings) -> Iterator[str]:
    """The paths of all clips below RELATE_wave."""
    for split, first in _FIRST_ID.items():
        for i in range(settings.n_captions(split)):
            yield from (f"{folder}/{split}/{first + i}.wav" for folder in folders_of(i))


def make_plan(settings: Settings) -> Plan:
    """Draw the captions and the faults of their clips; ValueError where there are not that many captions."""
    items, clips = [], []
    for split_key, split in enumerate(_FIRST_ID):
        rng = child_rng(_CAPTIONS, settings.seed, split_key)
        captions = draw_captions(split, settings.n_captions(split), rng)
        in_test_half = rng.permutation(len(captions)) % 2 == 0
        for i, caption in enumerate(captions):
            item_id, folders = _FIRST_ID[split] + i, folders_of(i)
            made = []
            for folder in folders:
                key = (_CLIP, settings.seed, split_key, i, list(FOLDERS).index(folder))
                fault = draw_fault(caption, SYSTEM_ODDS[FOLDERS[folder]], child_rng(*key))
                made.append(Clip(f"{folder}/{split}/{item_id}.wav", caption, fault, key))
            qualities = tuple(quality(caption, clip.fault) for clip in made)
            relate_split = split if split == "train" or in_test_half[i] else "validation"
            items.append(Item(item_id, caption, split, relate_split, folders, qualities))
            clips += made
    return Plan(settings, tuple(items), tuple(clips))


def render_clip(clip: Clip, clip_seconds: float) -> np.ndarray:
    """The clip's 16-bit mono samples, int16 [clip_seconds · 16000]."""
    rng = child_rng(*clip.key)
    system = FOLDERS[clip.audio.split("/")[0]]
    fault = draw_fault(clip.caption, SYSTEM_ODDS[system], rng)  # as planned; what follows is drawn after it
    return render_scene(compose(clip.caption, fault, clip_seconds, rng), rng)


def clips_table(plan: Plan) -> pd.DataFrame:
    """One row a clip: what its caption asks for, its faults and its true quality (0–10)."""
    qualities = [quality for item in plan.items for quality in item.qualities]
    return pd.DataFrame([
        {
            "audio": clip.audio, "text": clip.caption.text, "relation": clip.caption.relation,
            "kinds": " ".join(clip.caption.kinds), "quality": round(true_quality, 4),
            "n_missing": len(clip.fault.missing), "n_replaced": len(clip.fault.replaced),
            "swapped": clip.fault.swapped, "added": clip.fault.added,
            "faint_db": round(clip.fault.faint_db, 2), "snr_db": round(clip.fault.snr_db, 2),
        }
        for clip, true_quality in zip(plan.clips, qualities, strict=True)
    ])  # fmt: skip


def rating_tables(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(the rows of scores/REL.csv, the rows of listener_attributes/REL.csv)."""
    seed, n_listeners = plan.settings.seed, plan.settings.n_listeners
    forms = make_forms(plan.items, n_listeners, child_rng(_FORMS, seed))
    form_of = [form for form in forms for _ in range(form.n_listeners)]
    listeners = draw_listeners(n_listeners, child_rng(_LISTENERS, seed))
    rows, answers = [], []
    for k, (form, listener) in enumerate(zip(form_of, listeners, strict=True)):
        name = f"{k:04d}"
        rows += rate_form(form, plan.items, listener, name, child_rng(_RATINGS, seed, k))
        answers.append({"listener_id": name, **questionnaire(child_rng(_ATTRIBUTES, seed, k))})
    return pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(answers)


# --- the files ------------------------------------------------------------------------------------------


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
    if _found_settings(place) == _as_json(settings) and _is_complete(place, settings):
        return root
    plan = make_plan(settings)
    place.parent.mkdir(parents=True, exist_ok=True)
    with writing(place, folder=True) as fresh:
        _write_corpus(fresh, plan)
    return root


def _checked(
    seed: int, n_train_captions: int, n_test_captions: int, n_listeners: int | None, clip_seconds: float
) -> Settings:
    """The arguments as plain numbers; ValueError for one that is not allowed."""
    n_train = whole_number(n_train_captions, "n_train_captions", 6)
    n_test = whole_number(n_test_captions, "n_test_captions", 6)
    if n_listeners is None:
        n_listeners = default_listeners(n_train + n_test)
    check_listeners(n_listeners, n_train + n_test)
    return Settings(whole_number(seed, "seed"), n_train, n_test, int(n_listeners), length(clip_seconds))


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
    import soundfile

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
