"""Listeners with an offset, a spread and habits of their own, some careless; who rates what, and the questionnaire.

All numbers here were fitted to RELATE's real ratings (tests/test_demo.py prints both side by side). The noise was
changed last, from 3.0 to 3.3, because the reliability was too high; by then the first fine-tuning results on an
earlier, smaller corpus had been seen (benchmarks/demo_controls.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from humanclap.checks import whole_number

from .captions import Caption

CAPTIONS_PER_FORM = 6  # each with its three clips; and three anchors: 21 rows a listener
ANCHORS_PER_FORM = 3
ROWS_PER_LISTENER = 3 * CAPTIONS_PER_FORM + ANCHORS_PER_FORM
MAX_RATINGS = 12
MEAN_RATINGS = 4.15
AUDIO_TYPES = {
    "audiocaps": "natural",
    "audioldm": "audioldm",
    "audioldm2": "audioldm",  # RELATE's own: the file has one name for both, the folder tells
    "tango": "tango",
    "tango2": "tango",
}
COLUMNS = (
    "wavname", "text", "score", "listener_id", "audio type", "anchor label", "in RELATE dataset", "in AudioCaps"
)  # fmt: skip

FAVOURITES = np.array([0, 2, 5, 8, 10])  # the ratings that people prefer: 70 % of all in RELATE
HABITS = ("careful", "lenient", "inattentive", "generous", "random")
# The share of each habit is exact in every corpus. Careful listeners answer the anchors with 0 or nearly so;
# the anchors are there to find the others.
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
        answers["question7"] = "1"  # whoever never took part has no last time
    nation = str(rng.choice(list(_COUNTRIES), p=list(_COUNTRIES.values())))
    answers["question3"] = nation
    answers["question4"] = nation
    stays = rng.uniform() < 0.85 or nation.startswith("United")
    answers["question5"] = nation if stays else "United Kingdom"
    return {f"question{i}": answers[f"question{i}"] for i in range(1, 13)}


# --- who rates what, and the rows of RELATE's REL.csv ----------------------------------------------------


@dataclass(frozen=True)
class Item:
    """A caption of the corpus: its id (the stem of its three clips), split, folders, and clip qualities."""

    item_id: int
    caption: Caption
    split: str
    relate_split: str
    folders: tuple[str, ...]
    qualities: tuple[float, ...]


@dataclass(frozen=True)
class Form:
    """Six captions and three anchors (item of the caption, item of the natural clip) and its listeners."""

    items: tuple[int, ...]
    anchors: tuple[tuple[int, int], ...]
    n_listeners: int


def n_forms(n_items: int) -> int:
    """How many forms hold all captions."""
    return -(-n_items // CAPTIONS_PER_FORM)


def default_listeners(n_items: int) -> int:
    """As many listeners as give each pair RELATE's mean number of ratings."""
    return round(MEAN_RATINGS * n_forms(n_items))


def check_listeners(n_listeners: int, n_items: int) -> None:
    """Raise ValueError where so many listeners cannot give every pair 1 to 12 ratings."""
    forms = n_forms(n_items)
    # The last form may borrow captions to be full: those are rated on two forms.
    most = MAX_RATINGS * forms if n_items % CAPTIONS_PER_FORM == 0 else MAX_RATINGS // 2 * forms
    if not forms <= whole_number(n_listeners, "n_listeners", 1) <= most:
        raise ValueError(
            f"n_listeners is {n_listeners}; allowed for {n_items} captions: {forms} to {most}, "
            "so that each pair gets 1 to 12 ratings; leave it None for RELATE's mean of 4.15"
        )


def make_forms(items: Sequence[Item], n_listeners: int, rng: np.random.Generator) -> list[Form]:
    """All captions dealt to forms of six, the splits mixed; three of each form's captions get an anchor."""
    forms = n_forms(len(items))
    deck = list(rng.permutation(len(items)))
    spare = forms * CAPTIONS_PER_FORM - len(items)
    deck += deck[:spare]  # the first form's captions, also in the last one
    most = MAX_RATINGS if spare == 0 else MAX_RATINGS // 2
    sizes = np.clip(rng.poisson(n_listeners / forms, size=forms), 1, most)
    while sizes.sum() != n_listeners:
        step = int(np.sign(n_listeners - sizes.sum()))
        free = np.flatnonzero((sizes + step >= 1) & (sizes + step <= most))
        sizes[rng.choice(free)] += step
    result = []
    for k, size in enumerate(sizes):
        chosen = tuple(int(i) for i in deck[k * CAPTIONS_PER_FORM : (k + 1) * CAPTIONS_PER_FORM])
        anchored = chosen[:ANCHORS_PER_FORM]
        anchors = tuple((i, _mismatched(items, i, rng)) for i in anchored)
        result.append(Form(chosen, anchors, int(size)))
    return result


def _mismatched(items: Sequence[Item], i: int, rng: np.random.Generator) -> int:
    """Another caption whose natural clip has no event in common with caption i."""
    named = set(items[i].caption.kinds)
    others = [j for j, item in enumerate(items) if not named & set(item.caption.kinds)]
    if not others:
        raise ValueError("no clip without the caption's events is left for an anchor: ask for more captions")
    return int(rng.choice(others))


def rate_form(
    form: Form, items: Sequence[Item], listener: Listener, listener_id: str, rng: np.random.Generator
) -> Iterator[dict[str, object]]:
    """One listener's 21 rows in random order, with RELATE's own screening in the column "in RELATE dataset"."""
    rows = []
    for i in form.items:
        item = items[i]
        for folder, quality in zip(item.folders, item.qualities):
            rows.append((item, item, folder, rate(listener, quality, False, rng), False))
    for i, j in form.anchors:
        rows.append((items[i], items[j], "audiocaps", rate(listener, 0.0, True, rng), True))
    anchor_mean = np.mean([score for *_, score, is_anchor in rows if is_anchor])
    for k in rng.permutation(len(rows)):
        asked, heard, folder, score, is_anchor = rows[k]
        in_relate = not is_anchor and anchor_mean < (2 if heard.split == "train" else 1)
        values = (
            f"/{folder}/{heard.split}/{heard.item_id}.wav",
            asked.caption.text,
            score,
            listener_id,
            AUDIO_TYPES[folder],
            is_anchor,
            asked.relate_split if in_relate else "excluded",
            "" if is_anchor else heard.split,
        )
        yield dict(zip(COLUMNS, values))
