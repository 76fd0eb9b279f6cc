"""Captions of one or two events, and three pools of wordings that share no caption.

A caption's text alone decides its pool (pretraining, train or test, by a hash), so whatever the seeds,
no caption of pretraining or training can be in a test set.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np

from humanclap.checks import choice

from .sounds import event_kinds

POOLS = ("pretraining", "train", "test")
RELATIONS = ("single", "sequence", "together")

_WORDINGS = {
    "dog_bark": ("a dog barking", "a barking dog", "dog barks"),
    "bird_chirp": ("a bird chirping", "a chirping bird", "bird chirps"),
    "siren": ("a siren wailing", "a wailing siren", "an ambulance siren"),
    "rain": ("rain falling", "falling rain", "heavy rain"),
    "engine": ("an engine idling", "an idling engine", "a car engine"),
    "hammer": ("a hammer hitting wood", "hammer blows", "a person hammering"),
    "bell": ("a bell ringing out", "a church bell", "bell strokes"),
    "footsteps": ("a person walking", "footsteps", "walking steps"),
    "wind": ("wind blowing", "blowing wind", "gusts of wind"),
    "phone": ("a phone ringing", "a ringing phone", "a telephone"),
    "water_drip": ("water dripping", "dripping water", "drops of water"),
    "thunder": ("thunder rumbling", "rumbling thunder", "a clap of thunder"),
    "clock": ("a clock ticking", "a ticking clock", "clock ticks"),
    "horn": ("a car horn honking", "a honking horn", "horn honks"),
    "frog": ("a frog croaking", "a croaking frog", "frog croaks"),
    "saw": ("a person sawing", "a saw cutting wood", "sawing of wood"),
}
_FRAMES = {
    "single": ("{a}", "the sound of {a}", "a recording of {a}", "only {a}", "{a} alone", "we hear {a}"),
    "sequence": ("{a} followed by {b}", "{a} then {b}", "{a} and then {b}"),
    "together": ("{a} while {b}", "{a} and {b}", "{a} as {b}", "{a} with {b}"),
}
# The share of each relation in a split. RELATE's captions say "followed by" or "then" 48 times in 100.
_SHARES = {"single": 0.22, "sequence": 0.48, "together": 0.30}


@dataclass(frozen=True)
class Caption:
    """A text, the kinds of event it names in their order, and whether they sound in sequence or together."""

    text: str
    kinds: tuple[str, ...]
    relation: str


def kind_caption(kind: str) -> str:
    """The plain caption of one event kind, as for zero-shot naming; raises ValueError for an unknown kind."""
    return _sentence(_WORDINGS[choice(kind, "kind", event_kinds())][0])


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def pool_of(text: str) -> str:
    """The pool that a caption belongs to, whatever the case of its letters and the seed of a corpus."""
    text = text.strip().lower()
    if text in {wordings[0] for wordings in _WORDINGS.values()}:
        return "pretraining"  # kind_caption: a stand-in must have seen what it is asked to name
    return POOLS[hashlib.sha256(text.encode()).digest()[0] % 3]


@cache
def captions_in(pool: str, relation: str) -> tuple[Caption, ...]:
    """All captions of one pool and relation, in a fixed order; ValueError for unknown names."""
    choice(pool, "the caption pool", POOLS)
    choice(relation, "the relation", RELATIONS)
    found = []
    for frame in _FRAMES[relation]:
        for kinds in itertools.permutations(event_kinds(), 1 if relation == "single" else 2):
            for words in itertools.product(*(_WORDINGS[kind] for kind in kinds)):
                text = _sentence(frame.format(**dict(zip("ab", words))))
                if pool_of(text) == pool:
                    found.append(Caption(text, kinds, relation))
    return tuple(found)


def draw_captions(pool: str, n: int, rng: np.random.Generator) -> list[Caption]:
    """n different captions of a pool: 22 % one event, 48 % a sequence, 30 % together, in random order.

    Large n may exhaust the one-event captions of a pool; two-event captions then fill the rest. Raises
    ValueError where the pool holds fewer than n.
    """
    available = {relation: captions_in(pool, relation) for relation in RELATIONS}
    total = sum(map(len, available.values()))
    if n > total:
        raise ValueError(f"{n} captions were asked for, but the {pool} pool holds {total}: ask for fewer")
    counts = {r: min(round(_SHARES[r] * n), len(available[r])) for r in ("single", "together")}
    counts["sequence"] = min(n - sum(counts.values()), len(available["sequence"]))
    counts["together"] = min(n - counts["single"] - counts["sequence"], len(available["together"]))
    counts["single"] = n - counts["sequence"] - counts["together"]
    chosen = [
        available[relation][i]
        for relation in RELATIONS
        for i in rng.choice(len(available[relation]), size=counts[relation], replace=False)
    ]
    return [chosen[i] for i in rng.permutation(n)]
