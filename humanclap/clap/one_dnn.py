"""Linear layers on a CPU through oneDNN: the same sums, on many machines in half the time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_BACKENDS = ("AVX2", "AVX512")
_LEAST_WEIGHTS = 64 * 64  # smaller layers gain nothing


class OneDnnLinear(TorchFunctionMode):
    """Within it, and in this thread, float32 `F.linear` on a CPU runs in oneDNN, not in MKL, torch's default.

    MKL has a slower path for processors that are not Intel's: measured on an AMD EPYC, 90 to 105 GFLOP/s a
    core against 200 to 240. Sums are taken in another order, so results differ in the seventh digit. Only
    without a graph, as under `torch.inference_mode`, and for layers of some size, whatever the batch; where
    this torch has no such operator, everything stays as it is.
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
