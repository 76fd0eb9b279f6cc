"""Sound events and the scenes made of them: loudness, placing, background, 16-bit rendering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import signal

from . import sounds
from .sounds import SAMPLE_RATE

_KINDS = {
    "dog_bark": sounds.dog_bark,
    "bird_chirp": sounds.bird_chirp,
    "siren": sounds.siren,
    "rain": sounds.rain,
    "engine": sounds.engine,
    "hammer": sounds.hammer,
    "bell": sounds.bell,
    "footsteps": sounds.footsteps,
    "wind": sounds.wind,
    "phone": sounds.phone,
    "water_drip": sounds.water_drip,
    "thunder": sounds.thunder,
    "clock": sounds.clock,
    "horn": sounds.horn,
    "frog": sounds.frog,
    "saw": sounds.saw,
}
_LOUDNESS = 0.1  # RMS of an event's active frames, −20 dBFS
_FRAME = SAMPLE_RATE // 50
_EDGE_SECONDS = 0.01


def event_kinds() -> tuple[str, ...]:
    """The names of the sound events, in a fixed order."""
    return tuple(_KINDS)


def check_kind(kind: str) -> None:
    """Raise ValueError where `kind` is not one of `event_kinds()`."""
    if kind not in _KINDS:
        raise ValueError(f"unknown event kind {kind!r}; allowed: {', '.join(_KINDS)}")


def check_seconds(seconds: float, name: str = "clip_seconds") -> None:
    """Raise ValueError where a length is not a number of seconds from 0.5 to 60."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0.5 <= seconds <= 60:
        raise ValueError(f"{name} is {seconds!r}; allowed: a number of seconds from 0.5 to 60")


def render_event(kind: str, rng: np.random.Generator, seconds: float = 2.0) -> np.ndarray:
    """One event of the given kind, its pitch, rate and timbre drawn from `rng`.

    Returns float32 [seconds · 16000] in [−1, 1], about −20 dBFS where it sounds. Raises ValueError for an
    unknown kind and for lengths outside 0.5 to 60 s.
    """
    check_kind(kind)
    check_seconds(seconds, "seconds")
    return _event(kind, rng, seconds)


def _event(kind: str, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """`render_event` without its checks: in the shortest clips a scene's events last less than 0.5 s."""
    n = round(seconds * SAMPLE_RATE)
    x = np.zeros(n)
    raw = _KINDS[kind](rng, seconds)[:n]
    x[: len(raw)] = raw
    edge = round(_EDGE_SECONDS * SAMPLE_RATE)
    fade = np.sin(0.5 * np.pi * np.arange(edge) / edge) ** 2
    x[:edge] *= fade
    x[-edge:] *= fade[::-1]
    # Loudness over the frames that sound: a tick would else be made far louder than rain.
    frames = x[: n - n % _FRAME].reshape(-1, _FRAME)
    power = (frames**2).mean(axis=1)
    active = power[power > 0.01 * power.max()]
    x *= _LOUDNESS / np.sqrt(active.mean())
    return np.clip(x, -1.0, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Part:
    """One event in a scene: its kind, when it starts, how long it lasts, its gain."""

    kind: str
    start_seconds: float
    seconds: float
    gain_db: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What is to be heard in one clip: events, and a background noise (dBFS, with a spectral tilt)."""

    parts: tuple[Part, ...]
    noise_db: float
    noise_tilt: float
    clip_seconds: float


def render_scene(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The scene as 16-bit mono samples, int16 [clip_seconds · 16000], scaled down only where it would clip."""
    n = round(scene.clip_seconds * SAMPLE_RATE)
    mix = np.zeros(n)
    for part in scene.parts:
        start = round(part.start_seconds * SAMPLE_RATE)
        x = _event(part.kind, rng, part.seconds)[: n - start]
        mix[start : start + len(x)] += x * 10 ** (part.gain_db / 20)
    # One pole gives the noise its colour, from white (0) to dark (0.9).
    noise = signal.lfilter([1.0], [1.0, -scene.noise_tilt], rng.standard_normal(n))
    mix += noise / noise.std() * 10 ** (scene.noise_db / 20)
    mix *= min(1.0, 0.98 / np.abs(mix).max())
    return np.round(mix * 32767).astype(np.int16)
