"""Audio files to what a model hears: decoded, one channel, the model's sample rate, a fixed window."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

MIN_SECONDS = 0.05
"""Shortest clip that is accepted. A shorter one, repeated to fill a window, becomes a tone above 20 Hz."""


class AudioError(ValueError):
    """An audio file that cannot be used: `path` is the file, `reason` says why, in one line."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(path, reason)  # both as arguments, so that the error survives pickling
        self.path = os.fspath(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def load_audio(path: str | os.PathLike, sample_rate: int) -> np.ndarray:
    """Read a file as one channel at `sample_rate` (Hz): float32 `[T]`, full scale ±1.

    Any format that libsndfile reads (WAV, FLAC, OGG, MP3, ...). Channels are averaged first; another rate is
    resampled with soxr HQ to ceil(n · sample_rate / file rate) samples, which is what `librosa.load`, and so
    laion-clap, does. Digital silence is audio and is returned: a system that generates nothing must be
    scored on it. Raises AudioError (a ValueError) with path and reason for a file that is missing, a
    folder, empty, not audio, a WAV cut short, shorter than MIN_SECONDS, or holds NaN or infinity; ValueError for
    a sample_rate that is no positive whole number.
    """
    if isinstance(sample_rate, bool) or sample_rate != int(sample_rate) or sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate!r}; it must be a positive whole number of Hz")
    mono, file_rate = decode_mono(path)
    return _resample(mono, file_rate, int(sample_rate))


def decode_mono(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Read a file as one channel at its own rate: float32 `[T]`, and that rate; raises as `load_audio`."""
    samples, file_rate = _decode(path)
    if len(samples) == 0:
        raise AudioError(path, "the file holds no samples")
    if len(samples) < MIN_SECONDS * file_rate:
        seconds = len(samples) / file_rate
        raise AudioError(path, f"too short: {seconds:.3f} s, at least {MIN_SECONDS} s is needed")
    if not np.isfinite(samples).all():
        raise AudioError(path, "the samples hold NaN or infinity")
    return samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0], file_rate


def window(waveform: np.ndarray, n_samples: int, policy: str = "first") -> np.ndarray:
    """Cut or fill `waveform` `[T]` to exactly `[n_samples]`, the same way at every call.

    A longer clip is cut by `policy`: "first" keeps its beginning, "center" its middle. A shorter one is
    filled as the LAION models were trained ("repeatpad"): repeated floor(n_samples / T) times, then zeros.
    Raises ValueError for an unknown policy (it lists the known), an empty clip or n_samples < 1.
    """
    if policy not in _CUTS:
        raise ValueError(f"unknown window {policy!r}; known: {', '.join(WINDOWS)}")
    return windows(waveform, n_samples, policy)[0]


def windows(
    waveform: np.ndarray,
    n_samples: int,
    policy: str,
    draw: Callable[[int], int] | None = None,
    fill: str = "repeatpad",
) -> np.ndarray:
    """All that a model hears of `waveform` `[T]` under `policy`: `[W, n_samples]`, W >= 1.

    "first" and "center" are one window; "mean" is ceil(T / n_samples) of them, side by side, the last one
    flush with the end; "upstream" is one that starts where `draw(T - n_samples)` says. A shorter clip is
    filled: "repeatpad" as in `window`, "repeat" goes on repeating to the end, as MS CLAP does. Raises
    ValueError for an unknown policy or fill, an empty clip or n_samples < 1.
    """
    if policy not in POLICIES or fill not in _FILLS:
        known = f"windows: {', '.join(POLICIES)}; fills: {', '.join(_FILLS)}"
        raise ValueError(f"unknown window {policy!r} or fill {fill!r}; {known}")
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples!r}; a window needs at least 1 sample")
    length = len(waveform)
    if waveform.ndim != 1 or length == 0:
        raise ValueError(f"the waveform has shape {list(waveform.shape)}; it must be [T] with T >= 1")
    overflow = length - n_samples
    if overflow <= 0:
        repeats = n_samples // length if fill == "repeatpad" else -(-n_samples // length)
        repeated = np.tile(waveform, repeats)[:n_samples]
        return np.pad(repeated, (0, n_samples - len(repeated)))[None]
    if policy == "upstream":
        if draw is None:
            raise ValueError("the window 'upstream' starts at a drawn place and needs `draw`")
        starts = [draw(overflow)]
    elif policy == "mean":
        starts = [*range(0, overflow, n_samples), overflow]
    else:
        starts = [_CUTS[policy](overflow)]
    return np.stack([waveform[start : start + n_samples] for start in starts])


# Each policy gives the start of the window from the number of samples that do not fit.
_CUTS: dict[str, Callable[[int], int]] = {
    "first": lambda overflow: 0,
    "center": lambda overflow: overflow // 2,
}
WINDOWS = tuple(_CUTS)
"""The policies that keep one window, at a fixed place."""

POLICIES = (*WINDOWS, "mean", "upstream")
"""The window policies that every model takes; one with feature fusion has "fusion" besides."""

_FILLS = ("repeatpad", "repeat")
_SLOPPY_BYTES = 64  # some writers count the header twice, or a padding byte that is not there
_OPEN_END = 0x7FFF_0000  # what writes to a pipe does not know its length and says one near the largest


def _decode(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """All samples of a file, float32 `[T, channels]`, and its rate in Hz."""
    import soundfile  # on use, and soxr too: a machine that trains on stored features may have neither

    file = Path(path)
    try:
        size = file.stat().st_size
    except OSError as error:
        reason = "file not found" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
        raise AudioError(path, reason) from error
    if not file.is_file():
        raise AudioError(path, "not a file")
    if size == 0:
        raise AudioError(path, "the file is empty (0 bytes)")
    announced = _announced_bytes(file)
    if announced > size + _SLOPPY_BYTES:
        # libsndfile would read what is there and say nothing.
        reason = f"cut short: its header says {announced:,} bytes, {size:,} are there; copy it again"
        raise AudioError(path, reason)
    try:
        return soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        # TypeError: soundfile takes ".raw" for headerless samples and asks for their rate. libsndfile's own
        # text begins with the path, which AudioError carries already.
        detail = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioError(path, f"not readable as audio ({detail}); make it a WAV, FLAC, OGG or MP3") from error


def _announced_bytes(file: Path) -> int:
    """The size of a WAV by its own header; 0 where it says none (a stream's) and for all other formats."""
    with file.open("rb") as handle:
        start = handle.read(12)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        return 0
    announced = int.from_bytes(start[4:8], "little")
    return announced + 8 if announced < _OPEN_END else 0


def _resample(mono: np.ndarray, file_rate: int, sample_rate: int) -> np.ndarray:
    if file_rate == sample_rate:
        return mono
    import soxr

    n_samples = math.ceil(len(mono) * (sample_rate / file_rate))
    resampled = soxr.resample(mono, file_rate, sample_rate, quality="HQ")[:n_samples]
    # soxr may return one sample less than librosa, which then fills with zero; so do we.
    return np.pad(resampled, (0, n_samples - len(resampled)))
