"""Who rates what: forms of six captions, their anchors, and the rows of RELATE's REL.csv."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .captions import Caption
from .listeners import Listener, rate

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
    if isinstance(n_listeners, bool) or not isinstance(n_listeners, (int, np.integer)):
        raise ValueError(f"n_listeners is {n_listeners!r}; allowed: None or a whole number")
    if not forms <= n_listeners <= most:
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
        told, heard, folder, score, is_anchor = rows[k]
        in_relate = not is_anchor and anchor_mean < (2 if heard.split == "train" else 1)
        values = (
            f"/{folder}/{heard.split}/{heard.item_id}.wav",
            told.caption.text,
            score,
            listener_id,
            AUDIO_TYPES[folder],
            is_anchor,
            told.relate_split if in_relate else "excluded",
            "" if is_anchor else heard.split,
        )
        yield dict(zip(COLUMNS, values))
