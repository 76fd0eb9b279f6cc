"""Hugging Face Accelerate under one training: device, precision, and this process's share of each batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from humanclap.finetune.config import FinetuneConfig

_KINDS = ("NO", "MULTI_CPU", "MULTI_GPU")  # Accelerate's names for one process and for several plain ones
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def launched() -> bool:
    """Whether this is one of several processes, as `accelerate launch` or torchrun start them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """Which of them this process is, 0 being the first."""
    return int(os.environ.get("RANK", "0")) if launched() else 0


def choose_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on `device`: "bf16" on a CUDA device that computes in it (Ampere or later), else "fp32".

    Raises ValueError for "fp16" on a CPU, where Accelerate has no loss scaling.
    """
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision 'fp16' needs a GPU; allowed on a CPU: 'auto', 'fp32' and 'bf16'")
    if precision != "auto":
        return precision
    bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if bf16 else "fp32"


@contextmanager
def state_kept() -> Iterator[None]:
    """Give Accelerate's process-wide settings back as they were: a notebook may have an Accelerator of its own."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    if launched():  # the process group belongs to the launcher, and stays
        yield
        return
    states = (PartialState, AcceleratorState, GradientState)
    before = [dict(state._shared_state) for state in states]
    try:
        yield
    finally:
        for state, values in zip(states, before, strict=True):
            state._shared_state.clear()
            state._shared_state.update(values)


class Engine:
    """One of the processes of a training: `device`, `precision`, `rank` of `world`, and what they do together.

    A batch is cut into one share for each process, and the contrastive loss is taken over all of it, in every
    process: each computes the loss of the whole batch, from embeddings of which its own have a graph. The sum
    over processes of what reaches the weights is then the gradient of that one loss, as one process would
    have it. (DistributedDataParallel means gradients of separate losses, and waits for processes without pairs.)
    """

    def __init__(self, config: FinetuneConfig, device: torch.device | None = None) -> None:
        """`device` None: the one that Accelerate gives this process.

        Several processes always take that one, unless `device` is a CPU. Raises ValueError for a precision that
        the device does not have, for a launch with FSDP, DeepSpeed or the like, and for batch-norm statistics that
        several processes would take apart.
        """
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, GradientState, PartialState

        AcceleratorState._reset_state(reset_partial_state=not launched())
        GradientState._reset_state()
        cpu = device is not None and device.type == "cpu"
        state = PartialState(cpu=cpu)
        self.device = device if device is not None and not launched() else state.device
        self.precision = choose_precision(config.precision, self.device)
        self.accelerator = Accelerator(
            cpu=cpu, device_placement=False, mixed_precision=_MIXED[self.precision]
        )
        kind = str(self.accelerator.distributed_type.value)
        if kind not in _KINDS:
            raise ValueError(
                f"Accelerate is set up for {kind}, which shards or wraps the model; allowed: plain processes, on CPUs "
                "or on GPUs (accelerate launch --multi_gpu, or an accelerate config without it)"
            )
        self.rank, self.world = state.process_index, state.num_processes
        if self.world > 1 and not config.freeze_batch_norm:
            raise ValueError(
                f"freeze_batch_norm=False takes batch statistics, and each of {self.world} processes would take "
                "its own: use one process, or freeze_batch_norm=True"
            )

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.accelerator.wait_for_everyone()

    def shares(self, n_rows: int) -> list[range]:
        """Which of `n_rows` rows each process takes: neighbours, as equal as can be; a late one may get none."""
        base, extra = divmod(n_rows, self.world)
        starts = [rank * base + min(rank, extra) for rank in range(self.world + 1)]
        return [range(start, end) for start, end in zip(starts[:-1], starts[1:], strict=True)]

    def together(self, rows: torch.Tensor, n_rows: int) -> torch.Tensor:
        """The rows `[n_rows, D]` of all processes, of which this one gives its share, with its graph."""
        if self.world == 1:
            return rows
        shares = self.shares(n_rows)
        most = len(shares[0])
        padded = rows.new_zeros((most, rows.shape[1]))
        padded[: len(rows)] = rows.detach()
        parts = list(self.accelerator.gather(padded).split(most))
        parts = [part[: len(share)] for part, share in zip(parts, shares, strict=True)]
        parts[self.rank] = rows
        return torch.cat(parts)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Put the sum over all processes in the place of each gradient; what no process has stays without."""
        if self.world == 1:
            return
        have = torch.tensor([float(values.grad is not None) for values in parameters], device=self.device)
        reached = self.accelerator.reduce(have, "sum").tolist()
        graded = [values for values, count in zip(parameters, reached, strict=True) if count]
        for values in graded:
            if values.grad is None:
                values.grad = torch.zeros_like(values)
        if not graded:
            return
        flat = torch.cat([values.grad.flatten() for values in graded])
        flat = self.accelerator.reduce(flat, "sum")
        for values, total in zip(graded, flat.split([values.numel() for values in graded]), strict=True):
            values.grad.copy_(total.view_as(values))

    def require_same(self, facts: dict) -> None:
        """Raise ValueError where another process has other `facts`: other data or weights would go unseen."""
        if self.world == 1:
            return
        from accelerate.utils import gather_object

        for rank, theirs in enumerate(gather_object([facts])):
            differing = [name for name in facts if facts[name] != theirs[name]]
            if differing:
                raise ValueError(
                    f"process {rank} of {self.world} has another {', '.join(differing)} than process {self.rank}: "
                    "give all of them the same data, base and configuration"
                )
