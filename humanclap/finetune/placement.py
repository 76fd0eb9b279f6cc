"""Where features lie while a model trains: beside it, or in memory and copied a batch at a time."""

from __future__ import annotations

from dataclasses import replace

import torch

from humanclap.finetune.data import PairData

SHARE_OF_FREE_MEMORY = 0.4
"""Features may take this much of what is free on a GPU; the rest is for weights, optimizer and activations. On a
card of 16 GB it leaves room for RELATE's fused features, about 3 GB with validation. Not measured on a GPU."""


def placed(data: PairData, device: torch.device) -> PairData:
    """`data` with tokens and targets on `device`, and the features too, where they fit (see above)."""
    features = data.features
    size = sum(values.numel() * values.element_size() for values in features.values())
    if device.type != "cuda" or size <= SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]:
        features = {name: values.to(device) for name, values in features.items()}
    tokens = {name: values.to(device) for name, values in data.tokens.items()}
    return replace(data, features=features, tokens=tokens, target=data.target.to(device))


def take(values: torch.Tensor, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values[rows]` on `device`, for rows `[n]` that are on the CPU.

    Values that stayed in memory are gathered in page-locked memory, from where the copy does not make the CPU
    wait: it goes on while the step before it still computes.
    """
    if values.device.type != "cpu":
        return values[rows.to(device, non_blocking=True)]
    if device.type != "cuda":
        return values[rows].to(device)
    staged = torch.empty((len(rows), *values.shape[1:]), dtype=values.dtype, pin_memory=True)
    torch.index_select(values, 0, rows, out=staged)
    return staged.to(device, non_blocking=True)
