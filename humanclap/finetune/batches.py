"""Prepared pairs cut into batches, in a seeded order, with no caption twice in one where that can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from humanclap.finetune.data import PairData


@dataclass(frozen=True, eq=False)
class Batch:
    """The pairs of one step: `pairs`, `clips` `[n]`, distinct `captions` `[m]`, `caption_of` `[n]` in 0..m-1.

    `width` is the number of tokens of the longest caption: the padding after it is cut off, which is exact,
    as padding is masked.
    """

    pairs: torch.Tensor
    clips: torch.Tensor
    captions: torch.Tensor
    caption_of: torch.Tensor
    width: int


def draw_batches(
    data: PairData,
    batch_size: int,
    generator: torch.Generator,
    distinct_captions: bool,
    drop_last: bool = False,
) -> list[Batch]:
    """Cut the pairs, in an order drawn from `generator`, into ceil(N / batch_size) batches.

    With `distinct_captions`, a pair whose caption already stands in its batch changes places with one of
    another batch. Where no exchange helps (fewer captions than a batch has pairs, or a caption with more
    clips than there are batches), it stays: every pair is used once an epoch, and the number of steps does
    not change. `drop_last` leaves the short batch out, unless it is the only one.
    """
    order = torch.randperm(len(data), generator=generator).tolist()
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if distinct_captions:
        _part_captions(batches, data.caption.tolist())
    if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    lengths = data.tokens["attention_mask"].sum(dim=1).cpu()
    return [_batch(data, torch.tensor(members), lengths) for members in batches]


def own_share(data: PairData, batch: Batch, share: range, whole_width: bool = False) -> Batch:
    """One process's part of a batch: the pairs at the places `share`, perhaps none.

    `whole_width` gives each pair its caption by itself, at the width of the longest of all: shapes that do not
    change from batch to batch, for torch.compile.
    """
    members = batch.pairs[share.start : share.stop]
    if whole_width:
        captions, width = data.caption[members], data.tokens["input_ids"].shape[1]
        return Batch(members, data.clip[members], captions, torch.arange(len(members)), width)
    if len(members) == len(batch.pairs):
        return batch
    captions, caption_of = torch.unique(data.caption[members], return_inverse=True)
    return Batch(members, data.clip[members], captions, caption_of, batch.width)


def repeated_captions(batches: list[Batch]) -> int:
    """How many pairs stand in a batch that already holds their caption."""
    return sum(len(batch.pairs) - len(batch.captions) for batch in batches)


def _batch(data: PairData, members: torch.Tensor, lengths: torch.Tensor) -> Batch:
    captions, caption_of = torch.unique(data.caption[members], return_inverse=True)
    return Batch(members, data.clip[members], captions, caption_of, int(lengths[captions].max()))


def _part_captions(batches: list[list[int]], caption_of: list[int]) -> None:
    """Exchange pairs between batches, in place, until no batch repeats a caption or no exchange helps."""
    held = [[caption_of[pair] for pair in batch] for batch in batches]
    for here, batch in enumerate(batches):
        for slot, caption in enumerate(held[here]):
            if caption not in held[here][:slot]:
                continue
            # The search begins after this batch and goes round, so that no batch is drawn on more than
            # others.
            for there in (*range(here + 1, len(batches)), *range(here)):
                if caption in held[there]:
                    continue
                other = next((k for k, wanted in enumerate(held[there]) if wanted not in held[here]), None)
                if other is not None:
                    batch[slot], batches[there][other] = batches[there][other], batch[slot]
                    held[here][slot], held[there][other] = held[there][other], caption
                    break
