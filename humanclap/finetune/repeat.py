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
    """Give the global RNG back as it was, and on a CPU sum gradients in a fixed order.

    Without the latter, the gradient of a large relative position bias is added up by several threads at once.
    """
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    with torch.random.fork_rng(devices=devices):
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


def epoch_seeds(seed: int, epoch: int) -> tuple[int, int]:
    """Two independent seeds for an epoch: of its order and of its dropout."""
    order, dropout = np.random.SeedSequence([seed, epoch]).generate_state(2)
    return int(order), int(dropout)


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generator that dropout on `device` draws from, and no other."""
    # torch.manual_seed would reach the generators of devices that have no part in this.
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
