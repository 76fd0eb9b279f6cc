"""What makes a training repeatable: seeds by epoch, a fixed order of summation, the global RNG left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

SMALL_MODEL = 5_000_000
"""Parameters below which a model on a CPU trains with one thread; the released models have 150 million."""


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Give the global RNG back as it was, sum gradients on a CPU in a fixed order, and keep float32 whole.

    Without the second, the gradient of a large relative position bias is added up by several threads at once.
    Without the third, cuDNN rounds the operands of float32 convolutions to TF32, 10 bits of mantissa, and so do
    matrix products where a caller asked for it; what runs under bf16 autocast is not touched.
    """
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    with torch.random.fork_rng(devices=devices), full_float32():
        try:
            if device.type == "cpu":
                torch.use_deterministic_algorithms(True)
                # It costs time, and matters only to code that reads memory before it writes it.
                torch.utils.deterministic.fill_uninitialized_memory = False
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.utils.deterministic.fill_uninitialized_memory = before[2]


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 within; the flags are put back afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def small_on_cpu(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """One thread while a model of fewer than SMALL_MODEL parameters trains on a CPU.

    Its operations are too short to share: on a machine whose cores are not idle, threads that wait for each
    other made a step of the demo's model 20 times slower.
    """
    if device.type != "cpu" or sum(values.numel() for values in model.parameters()) >= SMALL_MODEL:
        yield
        return
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def epoch_seeds(seed: int, epoch: int, rank: int = 0) -> tuple[int, int]:
    """Two independent seeds for an epoch: of its order, and of its dropout in the process `rank`."""
    order, dropout = np.random.SeedSequence([seed, epoch]).generate_state(2)
    if rank:  # processes share the order, and must not share the masks
        dropout = np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]
    return int(order), int(dropout)


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generator that dropout on `device` draws from, and no other."""
    # torch.manual_seed would reach the generators of devices that have no part in this.
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
