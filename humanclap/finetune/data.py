"""Rated pairs made ready for training: features and tokens once, and batches in a seeded order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

COLUMNS = ("audio", "text", "target")
CLIPS_PER_CHUNK = 32


@dataclass(frozen=True, eq=False)
class PairData:
    """N rated pairs with everything a model needs of them, shared by all variants that train on these pairs.

    Each distinct clip and caption stands once: `features` {"input_features": [clips, channels, frames, mels],
    "is_longer": [clips, 1]}, `tokens` {"input_ids": [captions, tokens], "attention_mask": same},
    right-padded. `clip` and `caption` `[N]` say which of them a pair uses, `target` `[N]` is its human score
    in 0-1, `pairs` the DataFrame behind it (audio, text, target). `sha256` covers names, captions, ratings
    and the files' bytes; `front_end` describes how features and tokens were made.
    """

    pairs: pd.DataFrame
    features: dict[str, torch.Tensor]
    tokens: dict[str, torch.Tensor]
    clip: torch.Tensor
    caption: torch.Tensor
    target: torch.Tensor
    sha256: str
    front_end: str

    def __len__(self) -> int:
        return len(self.target)

    def with_target(self, target: Sequence[float]) -> PairData:
        """The same pairs with other human scores `[N]` in 0-1, for a control with permuted ratings."""
        pairs = self.pairs.assign(target=np.asarray(target, dtype=np.float64))
        _check_targets(pairs, "with_target")
        digest = hashlib.sha256(self.sha256.encode() + pairs["target"].to_numpy().tobytes()).hexdigest()
        return replace(self, pairs=pairs, target=_target_tensor(pairs), sha256=digest)

    def to(self, device: str | torch.device) -> PairData:
        """The same pairs with their tensors on `device`; what indexes a batch stays on the CPU."""
        features = {name: tensor.to(device) for name, tensor in self.features.items()}
        tokens = {name: tensor.to(device) for name, tensor in self.tokens.items()}
        return replace(self, features=features, tokens=tokens, target=self.target.to(device))


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


def prepare(clap, pairs: pd.DataFrame, audio_root: str | Path, progress: bool = True) -> PairData:
    """Read every clip and caption of `pairs` once, through the front end of `clap` (a HuggingFaceClap).

    `pairs` has the columns audio (relative to `audio_root`), text and target (0-1), as
    `relate.aggregate_pairs` makes them. The crop, or the fusion chunks, of a clip longer than the window are
    those `clap` gives it, fixed for all epochs. Raises ValueError for a missing column, no rows, an empty
    caption, a target outside 0-1, a pair that stands twice or a window policy that has no fixed features
    ("mean", "upstream"), FileNotFoundError for audio that is not there, and what the decoder raises, with the
    path, for audio that cannot be read.
    """
    pairs = _checked_pairs(pairs)
    if clap.window in ("mean", "upstream"):
        raise ValueError(
            f"window={clap.window!r} gives a clip several windows, or others each time, and training prepares one "
            "of each clip: open the base with window='first', 'center' or, with feature fusion, 'fusion'"
        )
    clip, names = pd.factorize(pairs["audio"])
    caption, texts = pd.factorize(pairs["text"])
    paths = [Path(audio_root) / name for name in names]
    _check_files(paths)
    return PairData(
        pairs=pairs,
        features=_features(clap, paths, progress),
        tokens=clap.text_tokens(list(texts)),
        clip=torch.from_numpy(clip.astype(np.int64)),
        caption=torch.from_numpy(caption.astype(np.int64)),
        target=_target_tensor(pairs),
        sha256=_content_hash(pairs, paths),
        front_end=clap.front_end,
    )


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


def _checked_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(pairs, pd.DataFrame):
        raise TypeError(
            f"pairs is a {type(pairs).__name__}; give a DataFrame, as relate.aggregate_pairs makes it"
        )
    missing = [name for name in COLUMNS if name not in pairs.columns]
    if missing:
        raise ValueError(
            f"pairs have no column {', '.join(missing)}; needed: {', '.join(COLUMNS)}, as "
            "relate.aggregate_pairs makes them (target = mean rating / 10)"
        )
    if pairs.empty:
        raise ValueError("there are no pairs to train or validate on")
    pairs = pairs[list(COLUMNS)].reset_index(drop=True)
    for name in ("audio", "text"):
        bad = ~pairs[name].map(lambda value: isinstance(value, str) and bool(value.strip()))
        if bad.any():
            raise ValueError(
                f"row {bad.idxmax()} of the pairs: {name} is {pairs[name][bad.idxmax()]!r}, not text"
            )
    _check_targets(pairs, "pairs")
    twice = pairs.duplicated(["audio", "text"])
    if twice.any():
        example = pairs[twice].iloc[0]
        raise ValueError(
            f"{int(twice.sum())} pairs stand more than once, such as {example['audio']} with "
            f"{example['text']!r}: average their ratings first, with relate.aggregate_pairs"
        )
    return pairs


def _check_targets(pairs: pd.DataFrame, source: str) -> None:
    target = pd.to_numeric(pairs["target"], errors="coerce")
    bad = ~target.between(0, 1)  # NaN is not between
    if bad.any():
        raise ValueError(
            f"{source}: {int(bad.sum())} of {len(pairs)} targets are not within 0-1, such as "
            f"{pairs['target'][bad.idxmax()]!r} in row {bad.idxmax()}; target is the mean rating (0-10) "
            "divided by 10"
        )


def _target_tensor(pairs: pd.DataFrame) -> torch.Tensor:
    return torch.from_numpy(pairs["target"].to_numpy(dtype=np.float32))


def _check_files(paths: list[Path]) -> None:
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} of {len(paths)} audio files are not there, the first is {absent[0]}; audio_root "
            "must be the folder that the column audio is relative to (RELATE_wave for RELATE)"
        )


def _features(clap, paths: list[Path], progress: bool) -> dict[str, torch.Tensor]:
    from tqdm.auto import tqdm

    # Filled in place: a list of chunks, joined at the end, would hold the features (2 GB for RELATE, fused)
    # twice.
    whole: dict[str, torch.Tensor] = {}
    starts = range(0, len(paths), CLIPS_PER_CHUNK)
    for start in tqdm(starts, desc="audio features", unit="chunk", disable=not progress):
        chunk = clap.audio_features(paths[start : start + CLIPS_PER_CHUNK])
        for name, values in chunk.items():
            rows = whole.setdefault(name, values.new_empty((len(paths), *values.shape[1:])))
            rows[start : start + len(values)] = values
    return whole


def _content_hash(pairs: pd.DataFrame, paths: list[Path]) -> str:
    digest = hashlib.sha256(pairs.to_csv(index=False).encode())
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
