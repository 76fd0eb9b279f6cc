"""Listeners with an offset, a spread and habits of their own, some careless, and their questionnaire.

All numbers here were settled against RELATE's real ratings (tests/test_synthetic.py prints both side by
side). The noise was raised last, from 3.0 to 3.3, for a reliability that had come out too high, when first
fine-tuning results on an earlier, smaller corpus had been seen (benchmarks/demo_controls.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FAVOURITES = np.array([0, 2, 5, 8, 10])  # the ratings that people prefer: 70 % of all in RELATE
HABITS = ("careful", "lenient", "inattentive", "generous", "random")
# The share of each habit is exact in every corpus. Careful listeners answer the anchors with 0 or nearly so;
# the others are those whom the anchors are there to catch.
_HABIT_SHARES = {"careful": 0.82, "lenient": 0.12, "inattentive": 0.03, "generous": 0.015, "random": 0.015}
_OFFSET_SD = 1.4
_CENTRE = 6.8  # spread is about this point of the scale


@dataclass(frozen=True)
class Listener:
    """How one person rates: rating = heaped(centre + spread · (quality + offset + noise − centre))."""

    habit: str
    offset: float
    spread: float
    noise: float
    heaping: float
    anchor_level: float


def draw_listeners(n: int, rng: np.random.Generator) -> list[Listener]:
    """n listeners, each habit as often as its share says, in random order."""
    bounds = np.round(n * np.cumsum(list(_HABIT_SHARES.values()))).astype(int)
    habits = [HABITS[np.searchsorted(bounds, i, side="right")] for i in range(n)]
    rng.shuffle(habits)
    return [
        Listener(
            habit=habit,
            offset=rng.normal(0.0, _OFFSET_SD),
            spread=float(np.clip(rng.normal(0.85, 0.15), 0.5, 1.2)),
            noise=float(rng.lognormal(np.log(3.3), 0.3)),
            heaping=rng.beta(1.1, 2.0),
            anchor_level=rng.normal(3.1, 1.2) if habit == "lenient" else rng.normal(-1.2, 1.5),
        )
        for habit in habits
    ]


def rate(listener: Listener, quality: float, is_anchor: bool, rng: np.random.Generator) -> int:
    """One rating, 0–10, of a clip of the given true quality (ignored for an anchor, which does not match)."""
    heard, slip = rng.standard_normal(), rng.uniform()
    if listener.habit == "random":
        wish = rng.uniform(-0.5, 10.5)
    elif listener.habit == "generous":
        wish = 8.7 + 1.3 * heard
    elif listener.habit == "inattentive" and slip < 0.5:
        wish = 6.5 + 2.5 * heard
    elif is_anchor:
        wish = listener.anchor_level + 1.2 * heard
    elif slip < 0.03:  # also a careful listener sometimes slips
        wish = rng.uniform(-0.5, 10.5)
    else:
        wish = _CENTRE + listener.spread * (quality + listener.offset + listener.noise * heard - _CENTRE)
    if rng.uniform() < listener.heaping:
        return int(FAVOURITES[np.abs(FAVOURITES - wish).argmin()])
    return int(np.clip(np.rint(wish), 0, 10))


# Answers by RELATE's numbering (from 1), with the shares found there.
_ANSWERS = {
    "question1": (0.03, 0.28, 0.27, 0.19, 0.14, 0.09),  # age: 0–20, 21–30, 31–40, 41–50, 51–60, 61–
    "question2": (0.57, 0.42, 0.01),  # gender: male, female, non-binary
    "question6": (0.20, 0.19, 0.21, 0.14, 0.09, 0.17),  # earlier rating jobs: 0 … 4, 5–
    "question7": (0.0, 0.55, 0.18, 0.14, 0.09, 0.03, 0.01),  # the last one: never, 0–1 month, …, over 5 years
    "question8": (0.22, 0.31, 0.26, 0.11, 0.10),  # replays of a clip: 1 … 4, 5–
    "question9": (0.55, 0.40, 0.05),  # device: headphone, earphone, others
    "question10": (0.90, 0.074, 0.02, 0.004, 0.002),  # quiet: always, mostly, sometimes, noisy mostly, always
    "question11": (0.27, 0.60, 0.12, 0.01),  # difficulty: easy, not so difficult, not so easy, difficult
    "question12": (0.11, 0.89),  # works in speech or audio: yes, no
}
_COUNTRIES = {"United Kingdom": 0.60, "United States": 0.26, "Nigeria": 0.09, "Ghana": 0.03, "Canada": 0.02}


def questionnaire(rng: np.random.Generator) -> dict[str, str]:
    """One listener's twelve answers: question1 … question12 as in RELATE's listener_attributes."""
    answers = {q: str(1 + rng.choice(len(p), p=np.array(p) / sum(p))) for q, p in _ANSWERS.items()}
    if answers["question6"] == "1":
        answers["question7"] = "1"  # who never took part has no last time
    nation = str(rng.choice(list(_COUNTRIES), p=list(_COUNTRIES.values())))
    answers["question3"] = nation
    answers["question4"] = nation
    stays = rng.uniform() < 0.85 or nation.startswith("United")
    answers["question5"] = nation if stays else "United Kingdom"
    return {f"question{i}": answers[f"question{i}"] for i in range(1, 13)}
