"""From a caption to a clip: a faithful natural scene, four imperfect generators, and each clip's true quality.

Every system makes good and bad clips, only with other odds: to tell them apart one has to listen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .captions import Caption
from .events import Part, Scene, event_kinds

_QUIET_NOISE_DB = (-60.0, -45.0)
_EVENT_DB = -20.0  # what an event without a gain has, see events.render_event
_SYNTHETIC_GAIN_DB = 3.0  # events differ in level by up to this, in every clip, faulty or not


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
        gain = rng.uniform(-_SYNTHETIC_GAIN_DB, _SYNTHETIC_GAIN_DB)
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


def single_event_scene(kind: str, clip_seconds: float, rng: np.random.Generator) -> Scene:
    """A clean scene of one event."""
    scene = compose(Caption("", (kind,), "single"), Fault(), clip_seconds, rng)
    return replace(scene, noise_db=float(rng.uniform(*_QUIET_NOISE_DB)))
