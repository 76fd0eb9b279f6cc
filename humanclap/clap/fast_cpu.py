"""What a CPU spends most time on, in fewer passes over memory: linear layers and log-mels.

The numbers are those of torch and transformers; benchmarks/scoring.md shows what each part saves.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_BACKENDS = ("AVX2", "AVX512")
_LEAST_WEIGHTS = 64 * 64  # smaller layers gain nothing
_FRAMES = 64  # of a spectrogram at a time: they stay in a core's cache
FLOOR = 1e-10
"""Of a mel bin's power: -100 dB."""


class OneDnnLinear(TorchFunctionMode):
    """Within it, and in this thread, float32 `F.linear` on a CPU runs in oneDNN, not in MKL, torch's default.

    MKL has a slower path for processors that are not Intel's: measured on an AMD EPYC, 90 to 105 GFLOP/s per core
    against 200 to 240. Sums are taken in another order, so results differ in the seventh digit. Only without a graph, as
    under `torch.inference_mode`, and for layers of some size, whatever the batch; where this torch has no such operator,
    everything stays as it is.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and not kwargs and len(args) == 3 and _fits(*args):
            return _OPERATOR(*args, "none", [], "")
        return func(*args, **(kwargs or {}))


def _find_operator():
    """What torch.compile uses for linear layers on a CPU, or None. It takes plain tensors as weights too."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() not in _BACKENDS:
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _fits(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    return (
        _OPERATOR is not None
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.layout == weight.layout == torch.strided
        and weight.dim() == 2
        and weight.numel() >= _LEAST_WEIGHTS
        and x.numel() > 0
    )


_OPERATOR = _find_operator()


def log_mel(waveform: np.ndarray, filters: np.ndarray, fft_size: int, hop: int) -> np.ndarray:
    """`waveform` `[T]`, `filters` `[bins, M]` -> log-mels float32 `[frames, M]` in dB, as `ClapFeatureExtractor` does.

    transformers walks frame by frame in Python; here the frames are cut and transformed by the block, in the same order
    of the same float64 and complex64 steps, mostly without the GIL.
    """
    hann = np.hanning(fft_size + 1)[:-1]  # periodic
    padded = np.pad(waveform, fft_size // 2, mode="reflect").astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft_size)[::hop]
    power = np.empty((len(frames), filters.shape[1]))
    for start in range(0, len(frames), _FRAMES):
        spectrum = np.fft.rfft(frames[start : start + _FRAMES] * hann).astype(np.complex64)
        power[start : start + _FRAMES] = np.abs(spectrum, dtype=np.float64) ** 2 @ filters
    return (10.0 * np.log10(np.maximum(power, FLOOR))).astype(np.float32)
