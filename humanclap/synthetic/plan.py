"""What a corpus holds, before any sound is made: captions, faults, clip qualities, ratings and answers.

Everything follows from the settings alone; the audio is rendered from the same plan, and no rating depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .captions import Caption, draw_captions
from .events import render_scene
from .generators import SYSTEM_ODDS, Fault, compose, draw_fault, quality
from .listeners import draw_listeners, questionnaire
from .pretraining import child_rng
from .ratings import COLUMNS, Item, make_forms, rate_form

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
