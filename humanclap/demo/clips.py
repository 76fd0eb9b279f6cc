"""From a caption to a clip: a faithful natural scene, four imperfect generators, and each clip's true quality.

Every system makes good and bad clips, only with other odds: a score has to listen to tell them apart. Here are also the
clips that are not part of the corpus: those for pretraining and naming, and the showcase of notebook 05.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from humanclap.checks import whole_number

from .captions import Caption, captions_in, draw_captions
from .sounds import SAMPLE_RATE, Part, Scene, child_rng, event_kinds, length, render_scene

_QUIET_NOISE_DB = (-60.0, -45.0)
_EVENT_DB = -20.0  # what an event without a gain has, see sounds.render_event
_GAIN_DB = 3.0  # events differ in level by up to this, in every clip, faulty or not


@dataclass(frozen=True)
class Odds:
    """How often a system's clips have each fault, and how strong noise and faintness are (dB)."""

    missing: float = 0.0
    replaced: float = 0.0
    swapped: float = 0.0
    added: float = 0.0
    faint: float = 0.0
    noisy: float = 0.0
    faint_db: tuple[float, float] = (6.0, 24.0)
    snr_db: tuple[float, float] = (-4.0, 14.0)


SYSTEM_ODDS = {
    "natural": Odds(faint=0.24, noisy=0.30),
    "audioldm": Odds(missing=0.19, replaced=0.14, swapped=0.34, added=0.12, faint=0.28, noisy=0.36),
    "audioldm2": Odds(missing=0.17, replaced=0.14, swapped=0.32, added=0.12, faint=0.28, noisy=0.36),
    "tango": Odds(missing=0.13, replaced=0.12, swapped=0.30, added=0.10, faint=0.28, noisy=0.34),
    "tango2": Odds(missing=0.015, replaced=0.015, swapped=0.05, added=0.03, faint=0.16, noisy=0.20),
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with one clip; the defaults are a perfect one.

    missing, replaced: the numbers of the caption's events it befell; swapped: the order is wrong; added: an
    event that the caption does not name; faint_db: how far one event (`faint_event`) is below its level;
    snr_db: events over background noise.
    """

    missing: tuple[int, ...] = ()
    replaced: tuple[int, ...] = ()
    swapped: bool = False
    added: bool = False
    faint_event: int = 0
    faint_db: float = 0.0
    snr_db: float = 40.0


def quality(caption: Caption, fault: Fault) -> float:
    """The true quality of a clip, 0–10: how much of the caption is there, less what disturbs it.

    Each event counts its share of 10, less as it grows faint (none left 26 dB down); an event in another's
    place costs 1 more, a wrong order 4, an added event 1.5, noise up to 4 as the SNR falls from 16 to −4 dB.
    """
    present = np.ones(len(caption.kinds))
    present[fault.faint_event] -= np.clip((fault.faint_db - 4.0) / 22.0, 0.0, 1.0)
    present[list(fault.missing + fault.replaced)] = 0.0
    score = 10.0 * present.mean() - 1.0 * len(fault.replaced) - 1.5 * fault.added
    score -= 4.0 * (fault.swapped and present.min() > 0)
    score -= 4.0 * np.clip((16.0 - fault.snr_db) / 20.0, 0.0, 1.0)
    return float(np.clip(score, 0.0, 10.0))


def draw_fault(caption: Caption, odds: Odds, rng: np.random.Generator) -> Fault:
    """The faults of one clip by a system's odds; each of a caption's events can fail by itself."""
    fate = rng.uniform(size=len(caption.kinds))
    missing = tuple(i for i, u in enumerate(fate) if u < odds.missing)
    replaced = tuple(i for i, u in enumerate(fate) if odds.missing <= u < odds.missing + odds.replaced)
    swap, add, faint, noise = rng.uniform(size=4)
    return Fault(
        missing=missing,
        replaced=replaced,
        swapped=bool(caption.relation == "sequence" and not missing and swap < odds.swapped),
        added=bool(add < odds.added),
        faint_event=int(rng.integers(len(caption.kinds))),
        faint_db=float(rng.uniform(*odds.faint_db)) if faint < odds.faint else 0.0,
        snr_db=float(rng.uniform(*odds.snr_db)) if noise < odds.noisy else 40.0,
    )


def compose(caption: Caption, fault: Fault, clip_seconds: float, rng: np.random.Generator) -> Scene:
    """The scene that a caption describes, with the faults put in; without faults it follows the caption."""
    others = [kind for kind in event_kinds() if kind not in caption.kinds]
    strangers = rng.permutation(others)
    kinds = [str(strangers[i]) if i in fault.replaced else kind for i, kind in enumerate(caption.kinds)]
    if caption.relation == "sequence":
        turn = clip_seconds * rng.uniform(0.45, 0.55)
        slots = [(0.0, turn), (turn, clip_seconds - turn)]
    else:
        slots = [(0.0, clip_seconds)] * len(kinds)
    parts = []
    for i, kind in enumerate(kinds):
        # The wrong order is told by time alone: each event keeps its gain and takes the other's slot.
        start, seconds = slots[1 - i if fault.swapped else i]
        gain = rng.uniform(-_GAIN_DB, _GAIN_DB)
        if i == fault.faint_event and i not in fault.replaced:
            gain -= fault.faint_db
        parts.append(Part(kind, start, seconds, gain))
    parts = [part for i, part in enumerate(parts) if i not in fault.missing]
    if fault.added:
        parts.append(Part(str(strangers[-1]), 0.0, clip_seconds, rng.uniform(-9.0, -3.0)))
    noise_db = float(rng.uniform(*_QUIET_NOISE_DB))
    if fault.snr_db < 40.0:
        noise_db = _EVENT_DB - fault.snr_db
    return Scene(tuple(parts), noise_db, float(rng.uniform(0.0, 0.9)), clip_seconds)


# --- clips that are not part of the corpus ---------------------------------------------------------------

PRETRAINING_STREAM, _NAMING_STREAM = 101, 102  # first keys of the child seeds, one per purpose; see corpus.py
_PROMPTS_STREAM, _SHOWCASE_STREAM = 201, 202
_NAMES_ONE, _NAMES_BOTH, _NAMES_ORDER = 0.50, 0.40, 0.05  # the rest is mislabelled
_MISLABELLED = 0.05
SHOWCASE = {
    "faithful": Odds(),
    "forgetful": Odds(missing=0.5),
    "mistaken": Odds(replaced=0.5),
    "noisy": Odds(noisy=1.0, snr_db=(-4.0, 4.0)),
}
"""The systems of the showcase and how often each fails, and how; the first follows every prompt."""


def _as_float(samples: np.ndarray) -> np.ndarray:
    """16-bit samples as a decoder gives them: float32 in [−1, 1)."""
    return samples.astype(np.float32) / 32768.0


def pretraining_clips(seed: int, n: int, clip_seconds: float = 4.0) -> Iterator[tuple[np.ndarray, str]]:
    """n pairs of a clip and a caption that leaves things out, for contrastive pretraining.

    Yields (waveform float32 [clip_seconds · 16000] at 16 kHz, caption). Most clips hold two events: half the
    captions name only one thing, 40 % two things without their order ("and"), one in twenty the order, one in
    twenty is wrong. No caption is in a corpus's train or test split. Raises ValueError, at once, for a bad seed,
    n or length.
    """
    seed, n, clip_seconds = whole_number(seed, "seed"), whole_number(n, "n", 1), length(clip_seconds)

    def clip(i: int) -> tuple[np.ndarray, str]:
        rng = child_rng(PRETRAINING_STREAM, seed, i)
        scene, caption = scene_and_caption(clip_seconds, rng)
        return _as_float(render_scene(scene, rng)), caption.text

    return map(clip, range(n))


def scene_and_caption(clip_seconds: float, rng: np.random.Generator) -> tuple[Scene, Caption]:
    """A scene for pretraining, and what its caption says of it."""
    caption = draw_captions("pretraining", 1, rng)[0] if rng.uniform() < _NAMES_ORDER else None
    if caption is None:
        caption = _vague_caption(rng)
    heard = _scene_behind(caption, rng)
    fault = Fault(snr_db=float(rng.uniform(5, 20)) if rng.uniform() < 0.2 else 40.0)
    scene = compose(heard, fault, clip_seconds, rng)
    if rng.uniform() < _MISLABELLED:
        caption = _vague_caption(rng)
    return scene, caption


def _vague_caption(rng: np.random.Generator) -> Caption:
    """A caption that names one thing, or two with "and"-like words; its wording never says the order."""
    one = rng.uniform() < _NAMES_ONE / (_NAMES_ONE + _NAMES_BOTH)
    choices = captions_in("pretraining", "single" if one else "together")
    return choices[rng.integers(len(choices))]


def _scene_behind(caption: Caption, rng: np.random.Generator) -> Caption:
    """What really happens where a caption says less: another event beside, or an order that it does not mention."""
    if caption.relation == "sequence":
        return caption
    kinds = list(caption.kinds)
    if caption.relation == "single" and rng.uniform() < 0.5:
        kinds.append(str(rng.choice([kind for kind in event_kinds() if kind != kinds[0]])))
    if len(kinds) == 1:
        return caption
    rng.shuffle(kinds)
    return Caption(caption.text, tuple(kinds), "sequence" if rng.uniform() < 0.6 else "together")


def single_event_clips(seed: int, n_per_kind: int, clip_seconds: float = 4.0) -> Iterator[tuple[np.ndarray, str]]:
    """Held-out clips of one event each, for zero-shot naming against `kind_caption`.

    Yields (waveform float32 [clip_seconds · 16000] at 16 kHz, kind), n_per_kind of every kind in turn. No clip
    is in pretraining or in a corpus. Raises ValueError, at once, for a bad seed, number or length.
    """
    seed, n_per_kind = whole_number(seed, "seed"), whole_number(n_per_kind, "n_per_kind", 1)
    clip_seconds, kinds = length(clip_seconds), event_kinds()

    def clip(place: int) -> tuple[np.ndarray, str]:
        i, k = divmod(place, len(kinds))
        rng = child_rng(_NAMING_STREAM, seed, i, k)
        scene = compose(Caption("", (kinds[k],), "single"), Fault(), clip_seconds, rng)
        scene = replace(scene, noise_db=float(rng.uniform(*_QUIET_NOISE_DB)))
        return _as_float(render_scene(scene, rng)), kinds[k]

    return map(clip, range(n_per_kind * len(kinds)))


def showcase_clips(root: str | Path, seed: int = 0, n_prompts: int = 24, clip_seconds: float = 4.0) -> Path:
    """Write <system>/<number>.wav for each system of SHOWCASE and prompts.csv (audio, text, system); returns that CSV.

    Every system gets the same prompts, of the corpus's test pool. The same arguments give the same bytes; what is there
    is overwritten. 16 kHz, mono, 16 bit. Raises ValueError for a seed, number or length that is not allowed.
    """
    import soundfile

    seed, n_prompts, clip_seconds = (
        whole_number(seed, "seed"),
        whole_number(n_prompts, "n_prompts", 1),
        length(clip_seconds),
    )
    root, rows = Path(root), []
    prompts = draw_captions("test", n_prompts, child_rng(_PROMPTS_STREAM, seed))
    for at, (system, odds) in enumerate(SHOWCASE.items()):
        (root / system).mkdir(parents=True, exist_ok=True)
        for number, prompt in enumerate(prompts):
            rng = child_rng(_SHOWCASE_STREAM, seed, at, number)
            scene = compose(prompt, draw_fault(prompt, odds, rng), clip_seconds, rng)
            audio = f"{system}/{number:03d}.wav"
            soundfile.write(root / audio, render_scene(scene, rng), SAMPLE_RATE, subtype="PCM_16")
            rows.append({"audio": audio, "text": prompt.text, "system": system})
    pd.DataFrame(rows).to_csv(root / "prompts.csv", index=False, lineterminator="\n")
    return root / "prompts.csv"
