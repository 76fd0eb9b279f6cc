"""Sixteen kinds of sound event made by signal processing, and the scenes composed of them.

Every function named after a kind takes (rng, seconds) and returns a float64 array of about `seconds` at 16 kHz, of any
level, with random variation of its own; `render_event` cuts it to length and sets its loudness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import signal

from humanclap.checks import choice, number

SAMPLE_RATE = 16_000  # Hz
_LOUDNESS = 0.1  # RMS of an event's active frames, −20 dBFS
_FRAME = SAMPLE_RATE // 50
_EDGE_SECONDS = 0.01


def _seconds(duration: float) -> np.ndarray:
    """The time axis [T] of `duration` seconds."""
    return np.arange(max(1, round(duration * SAMPLE_RATE))) / SAMPLE_RATE


def _band(x: np.ndarray, low: float | None, high: float | None, order: int = 2) -> np.ndarray:
    """Butterworth band, low or high pass."""
    if low is None:
        sos = signal.butter(order, high, "lowpass", fs=SAMPLE_RATE, output="sos")
    elif high is None:
        sos = signal.butter(order, low, "highpass", fs=SAMPLE_RATE, output="sos")
    else:
        sos = signal.butter(order, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
    return signal.sosfilt(sos, x)


def _noise(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    return rng.standard_normal(len(t))


def _tone(frequency: np.ndarray | float, t: np.ndarray, partials: tuple[float, ...] = (1.0,)) -> np.ndarray:
    """A tone of moving frequency [T] or a constant one, with the amplitudes of its partials."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(frequency, t.shape)) / SAMPLE_RATE
    return sum(a * np.sin((k + 1) * phase) for k, a in enumerate(partials))


def _arch(t: np.ndarray, sharpness: float = 0.5) -> np.ndarray:
    """An envelope [T] that rises and falls, zero at both ends."""
    return np.sin(np.pi * np.linspace(0, 1, len(t))) ** sharpness


def _onsets(rng: np.random.Generator, seconds: float, rate: float, jitter: float) -> Iterator[float]:
    """Onset times about 1/rate s apart; at least one, whatever the length."""
    onset = rng.uniform(0.0, 0.1)
    while True:
        yield onset
        onset += max(0.03, (1 + jitter * rng.uniform(-1, 1)) / rate)
        if onset > seconds - 0.1:
            return


def _repeat(
    rng: np.random.Generator, seconds: float, rate: float, jitter: float, grain: Callable[[int], np.ndarray]
) -> np.ndarray:
    """Grain 0, 1, 2, … added at each onset; a grain's tail is cut at the end of the event."""
    out = np.zeros(round(seconds * SAMPLE_RATE))
    for i, onset in enumerate(_onsets(rng, seconds, rate, jitter)):
        start = round(onset * SAMPLE_RATE)
        g = grain(i)[: max(0, len(out) - start)]
        out[start : start + len(g)] += g
    return out


def dog_bark(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Short harmonic bursts, the pitch up and down, through a snout's formant."""
    pitch, formant = rng.uniform(330, 520), rng.uniform(800, 1200)

    def bark(_):
        t = _seconds(rng.uniform(0.13, 0.2))
        sweep = pitch * rng.uniform(0.92, 1.08) * (0.8 + 0.5 * _arch(t, 1))
        voice = signal.sawtooth(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE) + 0.5 * _noise(rng, t)
        return _band(voice, formant * 0.6, formant * 1.7) * _arch(t, 0.6)

    return _repeat(rng, seconds, rng.uniform(2.2, 3.2), 0.25, bark)


def bird_chirp(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Quick sweeps between 3.5 and 6 kHz, in a song of three notes."""
    notes = rng.uniform(3500, 5400, size=3)
    bend = rng.uniform(0.08, 0.2) * rng.choice((-1, 1))

    def chirp(i):
        t = _seconds(rng.uniform(0.06, 0.11))
        return _tone(notes[i % 3] * (1 + bend * np.linspace(-1, 1, len(t))), t) * _arch(t, 1)

    return _repeat(rng, seconds, rng.uniform(5, 8), 0.2, chirp)


def siren(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A tone with few partials that wails up and down over an octave."""
    t = _seconds(seconds)
    centre, rate = rng.uniform(820, 1050), rng.uniform(0.5, 0.9)
    wail = centre * 2 ** (0.5 * np.sin(2 * np.pi * (rate * t + rng.uniform())))
    return _tone(wail, t, (1.0, 0.35, 0.2, 0.1))


def rain(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Steady bright noise with many small drops."""
    t = _seconds(seconds)
    steady = _band(_noise(rng, t), rng.uniform(900, 1400), None, order=1)
    drops = (rng.uniform(size=len(t)) < rng.uniform(120, 300) / SAMPLE_RATE) * rng.uniform(4, 14, len(t))
    return steady + _band(drops, 2500, 7000)


def engine(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Pulses of 24 to 38 Hz that ring in a low body."""
    t = _seconds(seconds)
    speed = rng.uniform(24, 38) * (1 + 0.04 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * t))
    pulses = np.diff(np.floor(np.cumsum(speed) / SAMPLE_RATE), prepend=0.0)
    body = _band(pulses * rng.uniform(0.7, 1.3, len(t)), 60, rng.uniform(180, 260))
    return body / (body.std() + 1e-9) + 0.35 * _band(_noise(rng, t), 100, 500, order=1)


def hammer(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Evenly spaced blows: a click, then wood that rings briefly."""
    modes = rng.uniform((350, 800, 1600), (480, 1100, 2300))

    def blow(_):
        t = _seconds(0.14)
        ring = sum(np.sin(2 * np.pi * f * t) * np.exp(-t / d) for f, d in zip(modes, (0.03, 0.02, 0.012)))
        return rng.uniform(0.8, 1.2) * (ring + 1.5 * _noise(rng, t) * np.exp(-t / 0.006))

    return _repeat(rng, seconds, rng.uniform(2.6, 3.8), 0.06, blow)


def bell(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Strokes with inharmonic partials that ring on."""
    fundamental, decay = rng.uniform(520, 760), rng.uniform(0.7, 1.2)
    partials = ((0.5, 0.4), (1.0, 1.0), (1.2, 0.7), (1.5, 0.4), (2.0, 0.9), (2.67, 0.5), (3.01, 0.3))

    def stroke(_):
        t = _seconds(2.0)
        return sum(
            a * np.sin(2 * np.pi * fundamental * r * t) * np.exp(-t * (0.6 + 0.4 * r) / decay) for r, a in partials
        )

    return _repeat(rng, seconds, rng.uniform(0.9, 1.3), 0.05, stroke)


def footsteps(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A walk: heel thuds about two a second, each with a scuff of the sole."""
    heel, scuff = rng.uniform(85, 130), rng.uniform(0.15, 0.3)

    def step(i):
        t = _seconds(0.16)
        thud = np.sin(2 * np.pi * heel * (1 + 0.1 * (i % 2)) * t) * np.exp(-t / 0.03)
        return rng.uniform(0.8, 1.2) * (thud + scuff * _band(_noise(rng, t), 300, 1100) * _arch(t, 1))

    return _repeat(rng, seconds, rng.uniform(1.7, 2.3), 0.06, step)


def wind(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Gusts of dark noise with a faint whistle that wanders."""
    t = _seconds(seconds)
    gust = 0.6 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.7) * t + rng.uniform()))
    howl = _tone(rng.uniform(480, 620) * (1 + 0.12 * gust), t) * gust**2
    breath = _band(_noise(rng, t), 180, rng.uniform(520, 700))
    return gust * breath / breath.std() + rng.uniform(0.2, 0.4) * howl


def phone(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Rings of two tones that alternate 22 times a second, with pauses."""
    low, trill = rng.uniform(1300, 1550), rng.uniform(19, 25)
    ring_seconds = rng.uniform(0.4, 0.55)

    def ring(_):
        t = _seconds(ring_seconds)
        tone = np.where(np.sin(2 * np.pi * trill * t) > 0, low, low * 1.25)
        return _tone(tone, t, (1.0, 0.5, 0.3)) * np.minimum(1, 8 * _arch(t, 1))

    return _repeat(rng, seconds, 1 / (ring_seconds + rng.uniform(0.2, 0.3)), 0.0, ring)


def water_drip(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Drops: a short tone that rises as the bubble closes, with one echo."""
    pitch = rng.uniform(750, 1050)

    def drop(_):
        t = _seconds(0.2)
        plink = _tone(pitch * rng.uniform(0.85, 1.2) * (1 + np.minimum(t / 0.04, 1.5)), t) * np.exp(-t / 0.018)
        plink[800:] += 0.35 * plink[:-800]
        return plink

    return _repeat(rng, seconds, rng.uniform(3, 5), 0.45, drop)


def thunder(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A clap, then a roll of very low noise that dies away in bumps."""
    t = _seconds(seconds)
    roll = _band(_noise(rng, t), 25, rng.uniform(90, 130))
    bumps = sum(
        a * np.exp(-((t - c) ** 2) / (2 * w**2))
        for a, c, w in zip(rng.uniform(0.3, 0.9, 4), rng.uniform(0.1, 0.8, 4) * seconds, rng.uniform(0.08, 0.2, 4))
    )
    envelope = np.minimum(1, t / 0.02) * np.exp(-t / (0.45 * seconds)) + bumps
    clap = _band(_noise(rng, t), 150, 900) * np.exp(-t / 0.07)
    return envelope * roll / roll.std() + rng.uniform(0.5, 1.0) * clap


def clock(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Ticks and tocks, evenly: two high clicks that differ a little in pitch."""
    pitch = rng.uniform(2900, 3600)

    def tick(i):
        t = _seconds(0.05)
        f = pitch * (1.0, 0.82)[i % 2]
        return (np.sin(2 * np.pi * f * t) + 0.5 * np.sin(2 * np.pi * 1.9 * f * t)) * np.exp(-t / 0.007)

    return _repeat(rng, seconds, rng.uniform(3.2, 4.8), 0.02, tick)


def horn(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Honks: two long reedy notes a third apart."""
    note, honk_seconds = rng.uniform(330, 420), rng.uniform(0.35, 0.7)

    def honk(_):
        t = _seconds(honk_seconds)
        chord = signal.sawtooth(2 * np.pi * note * t) + signal.sawtooth(2 * np.pi * 1.26 * note * t)
        return _band(chord, 250, 3000) * np.minimum(1, 8 * _arch(t, 1))

    return _repeat(rng, seconds, 1 / (honk_seconds + rng.uniform(0.15, 0.25)), 0.0, honk)


def frog(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Croaks: a rough tone, broken into 40 pulses a second."""
    pitch, pulse = rng.uniform(560, 720), rng.uniform(34, 48)

    def croak(_):
        t = _seconds(rng.uniform(0.25, 0.36))
        rough = np.maximum(0, np.sin(2 * np.pi * pulse * t)) ** 2
        return _tone(pitch * (1 + 0.1 * np.linspace(0, 1, len(t))), t, (1.0, 0.1, 0.5)) * rough * _arch(t)

    return _repeat(rng, seconds, rng.uniform(1.7, 2.4), 0.15, croak)


def saw(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Strokes of a hand saw: rasping noise, forward a little brighter than back."""
    centre, teeth = rng.uniform(2300, 2900), rng.uniform(90, 140)

    def stroke(i):
        t = _seconds(rng.uniform(0.24, 0.3))
        f = centre * (1.12, 0.9)[i % 2]
        rasp = 1 + 0.8 * np.sin(2 * np.pi * teeth * t)
        return _band(_noise(rng, t), 0.75 * f, 1.3 * f) * rasp * _arch(t, 1) * (1.0, 0.7)[i % 2]

    return _repeat(rng, seconds, rng.uniform(2.6, 3.4), 0.05, stroke)


# --- events and scenes -----------------------------------------------------------------------------------

_KINDS = {
    kind.__name__: kind
    for kind in (
        dog_bark, bird_chirp, siren, rain, engine, hammer, bell, footsteps,
        wind, phone, water_drip, thunder, clock, horn, frog, saw,
    )
}  # fmt: skip


def event_kinds() -> tuple[str, ...]:
    """The names of the sound events, in a fixed order."""
    return tuple(_KINDS)


def child_rng(*key: int) -> np.random.Generator:
    """The generator for one thing, by its keys alone: things can be made in any order."""
    return np.random.default_rng(np.random.SeedSequence(key))


def length(seconds: float, name: str = "clip_seconds") -> float:
    """`seconds` as a float; ValueError unless it is a number from 0.5 to 60."""
    return number(seconds, name, 0.5, 60)


def render_event(kind: str, rng: np.random.Generator, seconds: float = 2.0) -> np.ndarray:
    """One event of the given kind, its pitch, rate and timbre drawn from `rng`.

    Returns float32 [seconds · 16000] in [−1, 1], about −20 dBFS where it sounds. Raises ValueError for an
    unknown kind and for lengths outside 0.5 to 60 s.
    """
    return _event(choice(kind, "kind", event_kinds()), rng, length(seconds, "seconds"))


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
    # Loudness over the frames that sound: otherwise a tick would be made far louder than rain.
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
    """What can be heard in one clip: events, and a background noise (dBFS, with a spectral tilt)."""

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
