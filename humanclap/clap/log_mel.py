"""transformers' log-mel spectrogram, number for number, in less than half its time and mostly without the GIL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import ClapFeatureExtractor

_FRAMES = 64  # at a time: they stay in a core's cache
_FLOOR = 1e-10  # of a mel bin's power: -100 dB


def log_mel(extractor: ClapFeatureExtractor, waveform: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """`waveform` `[T]` -> log-mels float32 `[frames, M]` in dB, as `extractor._np_extract_fbank_features` does.

    That walks frame by frame in Python; here the frames are cut and transformed by the block, in the same
    order of the same float64 and complex64 steps. `filters` is `[bins, M]`.
    """
    size = extractor.fft_window_size
    hann = np.hanning(size + 1)[:-1]  # periodic
    padded = np.pad(waveform, size // 2, mode="reflect").astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: extractor.hop_length]
    power = np.empty((len(frames), filters.shape[1]))
    for start in range(0, len(frames), _FRAMES):
        spectrum = np.fft.rfft(frames[start : start + _FRAMES] * hann).astype(np.complex64)
        power[start : start + _FRAMES] = np.abs(spectrum, dtype=np.float64) ** 2 @ filters
    return (10.0 * np.log10(np.maximum(power, _FLOOR))).astype(np.float32)
