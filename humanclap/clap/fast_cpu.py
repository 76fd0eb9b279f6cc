"""What a CPU spends most time on, in fewer passes over memory: linear layers, LAION's Swin blocks, log-mels.

The numbers are those of torch, laion_clap and transformers; benchmarks/scoring.md shows what each part saves.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_BACKENDS = ("AVX2", "AVX512")
_LEAST_WEIGHTS = 64 * 64  # smaller layers gain nothing
_FRAMES = 64  # of a spectrogram at a time: they stay in a core's cache
FLOOR = 1e-10
"""Of a mel bin's power: -100 dB."""


# --- linear layers --------------------------------------------------------------------------------------


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


# --- laion_clap's Swin blocks ---------------------------------------------------------------------------


def run_layers(layers: torch.nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
    """Tokens `[B, L, C]` through all layers of laion_clap's HTSAT, with its own weights, in eval mode -> `[B, L', C']`.

    The package's attention maps and their means, which no score uses, are left out.
    """
    for layer in layers:
        for block in layer.blocks:
            x = _block(block, x)
        x = x if layer.downsample is None else layer.downsample(x)
    return x


def _block(block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    n_batch, n_tokens, n_channels = x.shape
    size, heads = block.window_size**2, block.attn.num_heads
    n_windows = n_tokens // size
    to_windows, back = _orders(*block.input_resolution, block.window_size, block.shift_size, str(x.device))
    # One gather is the package's shift and cut into windows; one puts the tokens back.
    qkv = block.attn.qkv(block.norm1(x)[:, to_windows])
    qkv = qkv.view(n_batch, n_windows, size, 3, heads, n_channels // heads)
    # Windows and heads are one axis, so that one mask serves windows of all kinds: [B, W·h, size, C/h].
    query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3).unbind(0)
    mask = _bias(block).to(query.dtype)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=block.attn.scale)
    mixed = mixed.view(n_batch, n_windows, heads, size, -1).transpose(2, 3).reshape(x.shape)
    x = x + block.attn.proj(mixed)[:, back]
    return x + block.mlp(block.norm2(x))


def _bias(block: torch.nn.Module) -> torch.Tensor:
    """What is added to the attention: by relative place, and, in shifted windows, against other regions."""
    attention, size = block.attn, block.window_size**2
    bias = attention.relative_position_bias_table[attention.relative_position_index.flatten()]
    bias = bias.view(size, size, -1).permute(2, 0, 1)[None]  # [1, h, size, size]
    height, width = block.input_resolution
    n_windows = height * width // size
    if block.attn_mask is not None:
        bias = bias + block.attn_mask[:, None]
    return bias.expand(n_windows, -1, -1, -1).flatten(0, 1)[None]


@lru_cache(maxsize=32)
def _orders(height: int, width: int, side: int, shift: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each token of the windows comes from, `[L]`, and the way back."""
    with torch.inference_mode(False):  # to be used in training too, whoever asks first
        tokens = torch.arange(height * width).view(height, width).roll((-shift, -shift), dims=(0, 1))
        order = tokens.view(height // side, side, width // side, side).transpose(1, 2).flatten()
        return order.to(device), order.argsort().to(device)


# --- transformers' log-mels -----------------------------------------------------------------------------


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
