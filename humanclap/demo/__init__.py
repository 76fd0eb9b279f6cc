"""The embedded demo: a synthetic corpus in RELATE's own files, and two tiny CLAPs that are pretrained on its sounds."""

from __future__ import annotations

from .captions import kind_caption
from .clips import SHOWCASE, pretraining_clips, showcase_clips, single_event_clips
from .corpus import make_corpus
from .sounds import SAMPLE_RATE, event_kinds, render_event
from .standins import ARCHITECTURES, Pretraining, final_improvement, fused_twin, make_standins, naming_accuracy

__all__ = [
    "ARCHITECTURES",
    "SAMPLE_RATE",
    "SHOWCASE",
    "Pretraining",
    "event_kinds",
    "final_improvement",
    "fused_twin",
    "kind_caption",
    "make_corpus",
    "make_standins",
    "naming_accuracy",
    "pretraining_clips",
    "render_event",
    "showcase_clips",
    "single_event_clips",
]
