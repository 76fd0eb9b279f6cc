"""A synthetic corpus in RELATE's own files: sound events, captions, imperfect generators and listeners."""

from __future__ import annotations

from .captions import kind_caption
from .corpus import make_corpus
from .events import event_kinds, render_event
from .pretraining import pretraining_clips, single_event_clips
from .showcase import SHOWCASE, showcase_clips
from .sounds import SAMPLE_RATE

__all__ = [
    "SAMPLE_RATE",
    "SHOWCASE",
    "event_kinds",
    "kind_caption",
    "make_corpus",
    "pretraining_clips",
    "render_event",
    "showcase_clips",
    "single_event_clips",
]
