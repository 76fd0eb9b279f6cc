"""Rated pairs made ready for training: checked, and their features and tokens computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from humanclap.cache import cache_key
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.feature_cache import Allocate, ArraySets
from humanclap.relate import split_train_validation

COLUMNS = ("audio", "text", "target")
CLIPS_PER_CHUNK = 32


@dataclass(frozen=True, eq=False)
class PairData:
    """N rated pairs with everything a model needs of them, shared by all variants that train on these pairs.

    Each distinct clip and caption stands once: `features` {"input_features": [clips, channels, frames, mels],
    "is_longer": [clips, 1]}, `tokens` {"input_ids": [captions, tokens], "attention_mask": same},
    right-padded. `clip` and `caption` `[N]` say which of them a pair uses, `target` `[N]` is its human score
    in 0-1, `pairs` the DataFrame behind it (audio, text, target). `sha256` covers names, captions, ratings
    and the files' bytes; `front_end` describes how features and tokens were made; `audio_root` is the folder
    that the files lie below.
    """

    pairs: pd.DataFrame
    features: dict[str, torch.Tensor]
    tokens: dict[str, torch.Tensor]
    clip: torch.Tensor
    caption: torch.Tensor
    target: torch.Tensor
    sha256: str
    front_end: str
    audio_root: Path | None = None

    def __len__(self) -> int:
        return len(self.target)

    def with_target(self, target: Sequence[float]) -> PairData:
        """The same pairs with other human scores `[N]` in 0-1, for a control with permuted ratings."""
        pairs = self.pairs.assign(target=np.asarray(target, dtype=np.float64))
        _check_targets(pairs, "with_target")
        digest = hashlib.sha256(self.sha256.encode() + pairs["target"].to_numpy().tobytes()).hexdigest()
        return replace(self, pairs=pairs, target=_target_tensor(pairs), sha256=digest)


def split_pairs(pairs: pd.DataFrame, config: FinetuneConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs that train and pairs that validate, as `config` says: n_train, split_by and split_seed.

    Only rows of the train split are taken, where there is a column `split`. Raises what
    `relate.split_train_validation` raises.
    """
    return split_train_validation(pairs, n_train=config.n_train, by=config.split_by, seed=config.split_seed)


def prepare(
    clap,
    pairs: pd.DataFrame,
    audio_root: str | Path,
    progress: bool = True,
    cache_dir: str | Path | None = None,
) -> PairData:
    """Read every clip and caption of `pairs` once, through the front end of `clap` (a HuggingFaceClap).

    `pairs` has the columns audio (relative to `audio_root`), text and target (0-1), as
    `relate.aggregate_pairs` makes them. The crop, or the fusion chunks, of a clip longer than the window are
    those `clap` gives it, fixed for all epochs. With `cache_dir`, the features of the whole set are kept there
    by what they come from (the files' bytes, in their order, and the front end with its window) and found again;
    they are float32, 1 MB a clip for a full-size model with feature fusion, and mapped into memory. Raises
    ValueError for a missing column, no rows, an empty caption, a target outside 0-1, a pair that stands twice or
    a window policy that has no fixed features ("mean", "upstream"), FileNotFoundError for audio that is not
    there, and what the decoder raises, with the path, for audio that cannot be read.
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
    hashes = [file_sha256(path) for path in paths]
    if cache_dir is None:
        features, tokens = _features(clap, paths, progress), clap.text_tokens(list(texts))
    else:
        cache = ArraySets(cache_dir)
        features = _cached_features(cache, clap, paths, hashes, progress)
        tokens = _cached_tokens(cache, clap, list(texts))
    return PairData(
        pairs=pairs,
        features=features,
        tokens=tokens,
        clip=torch.from_numpy(clip.astype(np.int64)),
        caption=torch.from_numpy(caption.astype(np.int64)),
        target=_target_tensor(pairs),
        sha256=_content_hash(pairs, hashes),
        front_end=clap.front_end,
        audio_root=Path(audio_root),
    )


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
                f"row {bad.idxmax()} of the pairs: {name} is {pairs[name][bad.idxmax()]!r}; it must be text that is not empty"
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


Allocated = Callable[[str, torch.Tensor, int], torch.Tensor]


def _features(
    clap, paths: list[Path], progress: bool, allocate: Allocated | None = None
) -> dict[str, torch.Tensor]:
    from tqdm.auto import tqdm

    # Filled in place: a list of chunks, joined at the end, would hold the features (2 GB for RELATE, fused)
    # twice.
    whole: dict[str, torch.Tensor] = {}
    starts = range(0, len(paths), CLIPS_PER_CHUNK)
    for start in tqdm(starts, desc="audio features", unit="chunk", disable=not progress):
        chunk = clap.audio_features(paths[start : start + CLIPS_PER_CHUNK])
        for name, values in chunk.items():
            if name not in whole:
                whole[name] = (allocate or _in_memory)(name, values, len(paths))
            whole[name][start : start + len(values)] = values
    return whole


def _in_memory(name: str, like: torch.Tensor, n_rows: int) -> torch.Tensor:
    return like.new_empty((n_rows, *like.shape[1:]))


def _cached_features(cache: ArraySets, clap, paths: list[Path], hashes: list[bytes], progress: bool):
    def fill(allocate: Allocate) -> None:
        def on_disk(name: str, like: torch.Tensor, n_rows: int) -> torch.Tensor:
            return torch.from_numpy(allocate(name, (n_rows, *like.shape[1:]), like.numpy().dtype))

        _features(clap, paths, progress, on_disk)

    content = hashlib.sha256(b"".join(hashes)).hexdigest()
    key = cache_key(kind="finetune features", front_end=clap.front_end, files=content)
    return _tensors(cache.get_or_make(key, ("input_features", "is_longer"), fill))


def _cached_tokens(cache: ArraySets, clap, texts: list[str]) -> dict[str, torch.Tensor]:
    def fill(allocate: Allocate) -> None:
        for name, values in clap.text_tokens(texts).items():
            allocate(name, tuple(values.shape), values.numpy().dtype)[:] = values.numpy()

    content = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    key = cache_key(kind="finetune tokens", front_end=clap.front_end, texts=content)
    return _tensors(cache.get_or_make(key, ("input_ids", "attention_mask"), fill))


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def file_sha256(path: Path) -> bytes:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _content_hash(pairs: pd.DataFrame, hashes: list[bytes]) -> str:
    digest = hashlib.sha256(pairs.to_csv(index=False).encode())
    for one in hashes:
        digest.update(one)
    return digest.hexdigest()
