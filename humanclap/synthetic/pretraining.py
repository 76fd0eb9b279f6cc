"""What the demo's stand-in CLAPs learn from before they see a rating, and clips to test their naming on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .captions import Caption, captions_in, draw_captions
from .events import Scene, check_seconds, event_kinds, render_scene
from .generators import Fault, compose, single_event_scene

PRETRAINING_STREAM, NAMING_STREAM = 101, 102  # first keys of the child seeds, one a purpose; see plan.py
_NAMES_ONE, _NAMES_BOTH, _NAMES_ORDER = 0.50, 0.40, 0.05  # the rest is mislabelled
_MISLABELLED = 0.05


def child_rng(*key: int) -> np.random.Generator:
    """The generator of one clip, by its keys alone: clips can be made in any order."""
    return np.random.default_rng(np.random.SeedSequence(key))


def check_whole(value: int, name: str, least: int, most: int = 1_000_000) -> None:
    """Raise ValueError where a count or seed is not a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}; allowed: a whole number from {least} to {most}")


def as_float(samples: np.ndarray) -> np.ndarray:
    """16-bit samples as a decoder gives them: float32 in [−1, 1)."""
    return samples.astype(np.float32) / 32768.0


def pretraining_clips(seed: int, n: int, clip_seconds: float = 4.0) -> Iterator[tuple[np.ndarray, str]]:
    """n pairs of a clip and a caption that leaves things out, for contrastive pretraining.

    Yields (waveform float32 [clip_seconds · 16000] at 16 kHz, caption). Most clips hold two events: half the
    captions name only one thing, 40 % two things without their order ("and"), one in twenty the order, one in
    twenty is wrong. No caption is in a corpus's train or test split. Raises ValueError, at once, for a bad seed,
    n or length.
    """
    check_whole(seed, "seed", 0, 2**32 - 1)
    check_whole(n, "n", 1)
    check_seconds(clip_seconds)
    return (_pretraining_clip(seed, i, float(clip_seconds)) for i in range(n))


def _pretraining_clip(seed: int, i: int, clip_seconds: float) -> tuple[np.ndarray, str]:
    rng = child_rng(PRETRAINING_STREAM, seed, i)
    scene, told = _scene_and_caption(clip_seconds, rng)
    return as_float(render_scene(scene, rng)), told.text


def _scene_and_caption(clip_seconds: float, rng: np.random.Generator) -> tuple[Scene, Caption]:
    """What is heard, and what is told of it."""
    told = draw_captions("pretraining", 1, rng)[0] if rng.uniform() < _NAMES_ORDER else None
    if told is None:
        told = _vague_caption(rng)
    heard = _scene_behind(told, rng)
    fault = Fault(snr_db=float(rng.uniform(5, 20)) if rng.uniform() < 0.2 else 40.0)
    scene = compose(heard, fault, clip_seconds, rng)
    if rng.uniform() < _MISLABELLED:
        told = _vague_caption(rng)
    return scene, told


def _vague_caption(rng: np.random.Generator) -> Caption:
    """A caption that names one thing, or two with "and"-like words; its wording never says the order."""
    one = rng.uniform() < _NAMES_ONE / (_NAMES_ONE + _NAMES_BOTH)
    choices = captions_in("pretraining", "single" if one else "together")
    return choices[rng.integers(len(choices))]


def _scene_behind(told: Caption, rng: np.random.Generator) -> Caption:
    """What really happens where a caption says less: another event beside, or an order it is silent about."""
    if told.relation == "sequence":
        return told
    kinds = list(told.kinds)
    if told.relation == "single" and rng.uniform() < 0.5:
        kinds.append(str(rng.choice([kind for kind in event_kinds() if kind != kinds[0]])))
    if len(kinds) == 1:
        return told
    rng.shuffle(kinds)
    return Caption(told.text, tuple(kinds), "sequence" if rng.uniform() < 0.6 else "together")


def single_event_clips(
    seed: int, n_per_kind: int, clip_seconds: float = 4.0
) -> Iterator[tuple[np.ndarray, str]]:
    """Held-out clips of one event each, for zero-shot naming against `kind_caption`.

    Yields (waveform float32 [clip_seconds · 16000] at 16 kHz, kind), n_per_kind of every kind in turn. No clip
    is in pretraining or in a corpus. Raises ValueError, at once, for a bad seed, number or length.
    """
    check_whole(seed, "seed", 0, 2**32 - 1)
    check_whole(n_per_kind, "n_per_kind", 1)
    check_seconds(clip_seconds)
    turns = ((i, k) for i in range(n_per_kind) for k in range(len(event_kinds())))
    return (_single_event_clip(seed, i, k, float(clip_seconds)) for i, k in turns)


def _single_event_clip(seed: int, i: int, k: int, clip_seconds: float) -> tuple[np.ndarray, str]:
    rng = child_rng(NAMING_STREAM, seed, i, k)
    kind = event_kinds()[k]
    return as_float(render_scene(single_event_scene(kind, clip_seconds, rng), rng)), kind
