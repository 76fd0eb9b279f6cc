"""Audio files to what a model hears: decoded, one channel, the model's sample rate, a fixed window."""

from __future__ import annotations

import logging
import math
import mmap
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from .checks import whole_number
from .files import expanded, kind_of

MIN_SECONDS = 0.05
"""Shortest clip that is accepted. A shorter one, repeated to fill a window, becomes a tone above 20 Hz."""

POLICIES = ("first", "center", "mean", "upstream")
"""The window policies of every model; one with feature fusion has "fusion" as well."""

_RATES = (1_000, 1_000_000)  # Hz; anything else is a broken header
_BLOCK = 2**18  # values decoded at once: 1 MB
_UNKNOWN = 2**62  # libsndfile's length of a FLAC that states none is beyond this
_SLOPPY_BYTES = 64  # some writers count the header twice, or a padding byte that does not exist
_SLOPPY_MP3 = 4 * 1_152  # samples: encoders count their delay differently
_OPEN_END = range(0x7FFF_0000, 0x1_0000_0000)  # 32-bit sizes written to a pipe, whose length nobody knew
_FAR_BEYOND = 2.0  # full scales
_CANCELLED = 1e-3  # power of the mix in that of the channels: -30 dB
_SILENT = 1e-8  # power: -80 dB
# libsndfile's log of the container, whatever its format: "data : 64000 (should be 31978)".
_SIZES = re.compile(r"(?im)^\s*(?:RIFF|RIFX|FORM|data|SSND|BODY|Riff size|Data size) *: (\d+) \(should be (\d+)\)")
_log = logging.getLogger(__name__)
_notes: dict[str, str] = {}  # by path, of the last time each was read


class AudioError(ValueError):
    """An audio file that cannot be used: `path` is the file, `reason` says why, in one line."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(path, reason)  # both as arguments, so that the error survives pickling
        self.path = os.fspath(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def load_audio(path: str | os.PathLike, sample_rate: int, seconds: float | None = None) -> np.ndarray:
    """Read a file as one channel at `sample_rate` (Hz): float32 `[T]`, full scale ±1.

    Any format that libsndfile reads (WAV, FLAC, OGG, MP3, ...). Channels are averaged first; another rate is resampled
    with soxr HQ to T = ceil(n · sample_rate / file rate) samples, as `librosa.load`, and so laion-clap, does. With
    `seconds`, only the beginning is read: the same samples as of the whole, in memory of their size. Digital silence is
    audio: a system that generates nothing must be scored on it. Samples far beyond full scale, and channels that cancel
    each other, are read with a warning (see `note_of`).

    Raises AudioError (a ValueError), with path and reason, for whatever is wrong with the file: missing, a folder or a
    pipe, empty, not audio, a rate that no recording has, fewer samples than its header promises, shorter than
    MIN_SECONDS, NaN or infinity among the samples; ValueError for a sample_rate that is not a positive whole number.
    """
    whole_number(sample_rate, "sample_rate", 1)
    return _decoded(path, sample_rate, seconds)[0]


def decode_mono(path: str | os.PathLike, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Read a file as one channel at its own rate: float32 `[T]`, and that rate; otherwise as `load_audio`."""
    return _decoded(path, None, seconds)


def check_file(path: str | os.PathLike) -> os.stat_result:
    """The status of a regular file that is not empty; AudioError for anything else.

    To be asked before a file is opened: opening a named pipe waits for a writer that may never come.
    """
    try:
        status = os.stat(expanded(path))
    except (OSError, ValueError) as error:  # ValueError: NUL, or a character that no file name can hold
        raise AudioError(path, _why_absent(os.fspath(path), error)) from error
    if kind := kind_of(status.st_mode):
        raise AudioError(path, f"not a file but {kind}")
    if status.st_size == 0:
        raise AudioError(path, "the file is empty (0 bytes)")
    return status


def note_of(path: str | os.PathLike) -> str | None:
    """What was odd about a file when this process last read it, which its score does not show; None for nothing."""
    return _notes.get(os.fspath(path))


def windows(
    waveform: np.ndarray,
    n_samples: int,
    policy: str,
    draw: Callable[[int], int] | None = None,
    fill: str = "repeatpad",
) -> np.ndarray:
    """All that a model hears of `waveform` `[T]` under `policy`: `[W, n_samples]`, W >= 1.

    "first" is the beginning and "center" the middle; "mean" is ceil(T / n_samples) windows, side by side, the
    last one flush with the end; "upstream" is one that starts where `draw(T - n_samples)` says. A shorter clip is
    filled: "repeatpad", as the LAION models were trained, repeats it floor(n_samples / T) times, then
    zeros; "repeat" repeats it to the end, as MS CLAP does. Raises ValueError for an unknown policy, an empty clip or
    n_samples < 1.
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown window {policy!r}; known: {', '.join(POLICIES)}")
    whole_number(n_samples, "n_samples", 1)
    length = len(waveform)
    if waveform.ndim != 1 or length == 0:
        raise ValueError(f"the waveform has shape {list(waveform.shape)}; it must be [T] with T >= 1")
    overflow = length - n_samples
    if overflow <= 0:
        repeats = n_samples // length if fill == "repeatpad" else -(-n_samples // length)
        repeated = np.tile(waveform, repeats)[:n_samples]
        return np.pad(repeated, (0, n_samples - len(repeated)))[None]
    if policy == "mean":
        starts = [*range(0, overflow, n_samples), overflow]
    elif policy == "upstream":
        starts = [draw(overflow)]
    else:
        starts = [0 if policy == "first" else overflow // 2]
    return np.stack([waveform[start : start + n_samples] for start in starts])


def _decoded(path: str | os.PathLike, sample_rate: int | None, seconds: float | None) -> tuple[np.ndarray, int]:
    """Whatever a decoder, a resampler or the file system raises becomes AudioError."""
    check_file(path)
    try:
        clip = _Clip(path)
        with clip.handle:
            rate = sample_rate or clip.rate
            n_wanted = math.inf if seconds is None else round(seconds * rate)
            blocks = clip.blocks() if rate == clip.rate else _resampled(clip.blocks(), clip.rate, rate)
            samples = _joined(blocks, n_wanted)
            clip.check()
        n_samples = min(n_wanted, math.ceil(clip.n_read * (rate / clip.rate)))
        if len(samples) < n_samples:  # soxr may return one sample less; librosa then adds a zero, and so does this
            samples = np.pad(samples, (0, n_samples - len(samples)))
        return samples[:n_samples], rate
    except AudioError:
        raise
    except MemoryError as error:
        raise AudioError(path, "too long for this machine's memory; cut it into shorter clips") from error
    except Exception as error:
        # libsndfile's own text begins with the path, which AudioError carries already. TypeError: soundfile
        # takes ".raw" for samples without a header and asks for their rate.
        detail = " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")
        if detail.startswith("File does not exist"):  # it does: the beginning of an MP3
            detail = "no sound is found in it"
        if "malformed" in detail:  # a CAF that was cut anywhere, an OGG at its beginning
            raise AudioError(path, f"cut short or damaged ({detail}); copy it again") from error
        raise AudioError(path, f"not readable as audio ({detail}); make it a WAV, FLAC, OGG or MP3") from error


class _Clip:
    """An open audio file at its own `rate` (Hz), read once from its beginning; `n_read` frames so far."""

    def __init__(self, path: str | os.PathLike):
        import soundfile  # on use, and soxr too: a machine that trains on stored features may have neither

        self.path, self.n_read, self._ended = path, 0, False
        self._peak = self._power = self._mixed_power = 0.0
        name = os.fspath(expanded(path))
        # As bytes where names are bytes: they need not be text.
        self.handle = soundfile.SoundFile(name if os.name == "nt" else os.fsencode(name))
        if self.handle.frames == 0 and (content := _open_ended(name)) is not None:
            self.handle = soundfile.SoundFile(content)
        self.handle.seekable = lambda: False  # soundfile seeks after each read, which fails in a FLAC of unknown length
        self.rate = self.handle.samplerate
        if not _RATES[0] <= self.rate <= _RATES[1]:
            allowed = f"{_RATES[0]:,} to {_RATES[1]:,} Hz"
            raise AudioError(path, f"a broken header: its sample rate is {self.rate:,} Hz, and must be {allowed}")
        # libsndfile reads what is there of a file that was cut short, and says so in its log alone.
        form = self.handle.format
        for said, found in _SIZES.findall(self.handle.extra_info):
            open_end = int(said) in _OPEN_END and form not in ("RF64", "W64")
            if int(said) > int(found) + _SLOPPY_BYTES and not open_end:
                sizes = f"its header says {int(said):,} bytes, {int(found):,} are there"
                raise AudioError(path, f"cut short: {sizes}; copy it again")
        if form == "OGG" and _ends_inside_a_page(name):
            raise AudioError(path, "cut short: its last Ogg page is not whole; copy it again")

    def blocks(self) -> Iterator[np.ndarray]:
        """The channels' mean, float32 `[n]` at a time. Raises AudioError for NaN, infinity and what can't be decoded."""
        channels = self.handle.channels
        while len(block := self._read(max(1, _BLOCK // channels))):
            self.n_read += len(block)
            low, high = float(block.min()), float(block.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise AudioError(self.path, "the samples hold NaN or infinity")
            self._peak = max(self._peak, high, -low)
            mono = block.mean(axis=1) if channels > 1 else block[:, 0]
            if channels > 1:
                self._power += float(np.vdot(block, block)) / channels
                self._mixed_power += float(np.vdot(mono, mono))
            yield mono
        self._ended = True

    def check(self) -> None:
        """After the last block that is needed: AudioError for too few samples, a note for odd ones."""
        promised, form = self.handle.frames, self.handle.format
        slack = _SLOPPY_MP3 if form == "MP3" else 0
        if promised < _UNKNOWN:
            if self._ended and self.n_read < promised - slack:
                raise self._cut_short(f"{self.n_read:,} are there")
            # Other formats say the size of what follows, in bytes.
            last = max(promised - slack - 1, self.n_read - 1)
            if not self._ended and form in ("FLAC", "MP3") and not len(self._read(1, at=last)):
                raise self._cut_short("not all are there")
        if self.n_read == 0:
            raise AudioError(self.path, "the file holds no samples")
        if self._ended and self.n_read < MIN_SECONDS * self.rate:
            seconds = self.n_read / self.rate
            raise AudioError(self.path, f"too short: {seconds:.3f} s, at least {MIN_SECONDS} s is needed")
        note = None
        if self._peak > _FAR_BEYOND:
            peak = f"samples reach {self._peak:,.4g} times full scale"
            note = f"{peak}, and models clip or misjudge them; scale them to ±1"
        elif self._power > _SILENT * self.n_read and self._mixed_power < _CANCELLED * self._power:
            note = "the channels cancel each other (antiphase): their mean, which a model hears, is nearly silent"
        name = os.fspath(self.path)
        if note != _notes.pop(name, None) and note:  # one warning per file
            _log.warning("%s: %s", name, note)
        if note:
            _notes[name] = note

    def _read(self, n_frames: int, at: int | None = None) -> np.ndarray:
        """The next frames, or those from `at` on, float32 `[n, channels]`; none at the end of the file."""
        import soundfile

        try:
            if at is not None:
                self.handle.seek(at)
            return self.handle.read(n_frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise self._cut_short(f"decoding ends after {self.n_read:,} ({error.error_string})") from error

    def _cut_short(self, found: str) -> AudioError:
        said = f"{self.handle.frames:,} samples" if self.handle.frames < _UNKNOWN else "no length"
        return AudioError(self.path, f"cut short or damaged: its header says {said}, {found}; copy it again")


def _joined(blocks: Iterable[np.ndarray], n_samples: float) -> np.ndarray:
    """Blocks, until there are `n_samples`, as one array; in memory once, though nobody knows how many will come."""
    joined = bytearray()
    for block in blocks:
        joined += block.data
        if len(joined) >= 4 * n_samples:
            break
    return np.frombuffer(joined, dtype=np.float32)


def _resampled(blocks: Iterable[np.ndarray], file_rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Blocks at another rate, the same samples as of all at once."""
    import soxr

    stream = soxr.ResampleStream(file_rate, sample_rate, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _open_ended(path: str) -> mmap.mmap | None:
    """A WAV stream whose header says 0 bytes although samples follow, with the number of bytes there are."""
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    data = content.find(b"data\0\0\0\0", 12, 2**16)
    if content[:4] != b"RIFF" or data < 0 or len(content) <= data + 8:
        return None
    for size_at in (4, data + 4):
        follow = min(len(content) - size_at - 4, 2**32 - 1) & ~1  # even: a chunk is padded to that
        content[size_at : size_at + 4] = follow.to_bytes(4, "little")
    return content


def _ends_inside_a_page(path: str) -> bool:
    """Whether the last page of an Ogg file promises more bytes than follow: 27 bytes, a table of lengths, the parts."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * 65_307))  # the largest page, twice
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _why_absent(path: str, error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return f"no file can have this name ({error})"
    if not isinstance(error, FileNotFoundError):
        return error.strerror or str(error)
    if "\\" in path and os.name != "nt":
        return "file not found; its path holds backslashes: write it with /"
    folder, name = os.path.split(expanded(path))
    for form in ("NFC", "NFD"):
        others = os.path.join(folder, unicodedata.normalize(form, name)), unicodedata.normalize(form, path)
        if any(other != path and os.path.exists(other) for other in others):
            return f"file not found; the same name is there in Unicode form {form}: write the path in that form"
    return "file not found"
