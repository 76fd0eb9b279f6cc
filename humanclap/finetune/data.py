"""Rated pairs for training: read from a table, checked, their features computed once, cut into batches."""

from __future__ import annotations

import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from humanclap.audio import AudioError
from humanclap.checks import listed, need_columns, shown
from humanclap.files import ArrayCache, cache_key, expanded, require_regular, sha256_of
from humanclap.finetune.config import FinetuneConfig
from humanclap.relate import split_train_validation
from humanclap.tables import TableError, clip_name, read_table, stays_below

COLUMNS = ("audio", "text", "target")
SPLITS = ("train", "validation", "test")


# --- tables of ratings ----------------------------------------------------------------------------------


def read_pairs(path: str | os.PathLike, scale: tuple[float, float] | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Read rated pairs from a table (any that `tables.read_table` reads), and notes on what was read.

    Columns: audio, text, and either target (0-1, as `humanclap screen` writes it) or rating (on `scale`, 0-10 unless
    given); where known listener, system and split (train, validation, test). Several ratings of a pair are averaged.

    Returns one row per pair, in the order of the file: audio, text, n_ratings, target (0-1), and system and split
    where the table has them. Raises TableError, with line, column and value, for what is missing or out of range, a
    listener who rates a pair twice, and a pair in two systems or splits; FileNotFoundError.
    """
    table = read_table(path)
    if "wav_name" in table.header:
        raise TableError(f"{path} holds single ratings in RELATE's format: humanclap screen makes pairs of them first")
    value = "target" if "target" in table.header else "rating"
    table.need(("audio", "text", value), row="rating")
    if value == "target" and scale is not None:
        raise TableError(f"{path} has a column 'target', which is 0-1; a scale goes with a column 'rating'")
    low, high = (0.0, 1.0) if value == "target" else (0.0, 10.0) if scale is None else map(float, scale)
    if not -math.inf < low < high < math.inf:
        raise TableError(f"the scale {low:g} {high:g} must run from the lowest rating to the highest, such as 1 5")
    table.require("audio", lambda name: bool(name.strip()), "a file name must not be empty")
    table.require("audio", stays_below, "it must be relative to the audio's root and stay below it")
    table.require("text", lambda text: bool(text.strip()), "a caption must not be empty")
    hint = "" if value == "target" else "; another scale is given as --scale 1 5 (scale=(1, 5))"
    table.require(value, lambda text: _within(text, low, high), f"{value} runs from {low:g} to {high:g} here{hint}")
    if "split" in table.header:
        table.require("split", lambda split: split.strip() in SPLITS, f"split is one of {listed(SPLITS)}")
    frame = pd.DataFrame({"audio": map(clip_name, table.columns["audio"]), "text": table.stripped("text")})
    frame["target"] = (pd.Series(table.columns[value]).astype(float) - low) / (high - low)
    key = ["audio", "text"]
    if "listener" in table.header:
        frame["listener"] = table.stripped("listener")
        twice = frame.duplicated([*key, "listener"])
        _refuse(table, twice, "listener", "has rated this pair before; give one rating per listener and pair")
    kept = [name for name in ("system", "split") if name in table.header]
    for name in kept:
        frame[name] = table.stripped(name)
        first = frame.groupby(key, sort=False)[name].transform("first")
        _refuse(table, frame[name] != first, name, "is not what this pair has in a line above; a pair has one")
    grouped = frame.groupby(key, sort=False)
    pairs = grouped.agg(n_ratings=("target", "size"), target=("target", "mean"), **{n: (n, "first") for n in kept})
    notes = list(table.notes)
    if len(pairs) < len(frame):
        notes.append(f"{len(frame):,} ratings of {len(pairs):,} pairs were averaged")
    return pairs.reset_index(), notes


def _within(text: str, low: float, high: float) -> bool:
    try:
        return low <= float(text) <= high
    except ValueError:
        return False


def _refuse(table, bad: pd.Series, column: str, why: str) -> None:
    if bad.any():
        row = int(bad.idxmax())
        value = table.columns[column][row]
        raise TableError(
            f"{table.path}, line {table.lines[row]}, column {column!r}: {value!r} {why} ({int(bad.sum())} such lines)"
        )


def split_pairs(pairs: pd.DataFrame, config: FinetuneConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs that train and pairs that validate, as `config` says: n_train, split_by and split_seed.

    Where there is a column `split`, rows of "test" are left out; its rows of "validation", if there are any, validate,
    and else some of "train". Raises what `relate.split_train_validation` raises.
    """
    if "split" in pairs and (pairs["split"] == "validation").any():
        parts = [pairs[pairs["split"] == name].reset_index(drop=True) for name in ("train", "validation")]
        if parts[0].empty:
            raise ValueError("no pair has the split 'train', so there is nothing to train on")
        return parts[0], parts[1]
    return split_train_validation(pairs, n_train=config.n_train, by=config.split_by, seed=config.split_seed)


# --- features and tokens --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PairData:
    """N rated pairs with everything a model needs of them, shared by all variants that train on these pairs.

    Each distinct clip and caption is there once: `features` {"input_features": [clips, channels, frames, mels],
    "is_longer": [clips, 1]}, `tokens` {"input_ids": [captions, tokens], "attention_mask": same}, right-padded.
    `clip` and `caption` `[N]` say which of them a pair uses, `target` `[N]` is its human score in 0-1, `pairs` the
    DataFrame behind it (audio, text, target). `sha256` covers names, captions, ratings and the files' bytes;
    `front_end` describes how features and tokens were made.
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


@dataclass(frozen=True)
class CheckedPairs:
    """Pairs found fit to train, before any clip is decoded: paths of the distinct clips, and their hashes."""

    pairs: pd.DataFrame
    paths: list[Path]
    hashes: list[str]

    @property
    def sha256(self) -> str:
        """Of names, captions, ratings and the files' bytes; the `PairData` made of it has the same."""
        digest = hashlib.sha256(self.pairs.to_csv(index=False).encode())
        for one in self.hashes:
            digest.update(bytes.fromhex(one))
        return digest.hexdigest()


def check_pairs(pairs: pd.DataFrame, audio_root: str | os.PathLike) -> CheckedPairs:
    """Check everything about `pairs` that needs no decoding; raises what `prepare` raises for it."""
    need_columns(pairs, "pairs", COLUMNS)
    if pairs.empty:
        raise ValueError("there are no pairs to train or validate on")
    pairs = pairs[list(COLUMNS)].reset_index(drop=True)
    for name in ("audio", "text"):
        bad = ~pairs[name].map(lambda value: isinstance(value, str) and bool(value.strip()))
        if bad.any():
            value = pairs[name][bad.idxmax()]
            raise ValueError(f"row {bad.idxmax()} of the pairs: {name} is {value!r}; it must be text that is not empty")
    _check_targets(pairs)
    twice = pairs.duplicated(["audio", "text"])
    if twice.any():
        example = pairs[twice].iloc[0]
        raise ValueError(
            f"{int(twice.sum())} pairs are there more than once, such as {example['audio']} with "
            f"{example['text']!r}: average their ratings first, with relate.aggregate_pairs"
        )
    paths = [expanded(audio_root) / name for name in pairs["audio"].unique()]
    absent = [path for path in paths if not path.exists()]
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} of {len(paths)} audio files are not there, the first is {absent[0]}; audio_root "
            "must be the folder that the column audio is relative to (RELATE_wave for RELATE)"
        )
    hashes = _each_clip(paths, _sha256_of_clip)
    return CheckedPairs(pairs, paths, hashes)


def prepare(
    clap,
    pairs: pd.DataFrame | CheckedPairs,
    audio_root: str | os.PathLike | None = None,
    progress: bool = True,
    cache_dir: str | os.PathLike | None = None,
) -> PairData:
    """Read every clip and caption of `pairs` once, through the front end of `clap` (a HuggingFaceClap).

    `pairs` has the columns audio (relative to `audio_root`), text and target (0-1), as `relate.aggregate_pairs`
    makes them. The crop, or the fusion chunks, of a clip longer than the window are those `clap` gives it, fixed for
    all epochs. With `cache_dir`, each clip's features are kept there by what they come from (the file's bytes and the
    front end): float32, 1 MB per clip for a full-size model with feature fusion.

    Raises ValueError for a missing column, no rows, an empty caption, a target outside 0-1, a pair that is there twice
    or a window policy without fixed features ("mean", "upstream"), FileNotFoundError for audio that is not there, and
    AudioError, naming the bad clips, where any can't be read.
    """
    if clap.window in ("mean", "upstream"):
        raise ValueError(
            f"window={clap.window!r} gives a clip several windows, or others each time, and training prepares one "
            "of each clip: open the base with window='first', 'center' or, with feature fusion, 'fusion'"
        )
    checked = pairs if isinstance(pairs, CheckedPairs) else check_pairs(pairs, audio_root)
    clip, caption = (pd.factorize(checked.pairs[name]) for name in ("audio", "text"))
    return PairData(
        pairs=checked.pairs,
        features=_features(clap, checked, progress, cache_dir),
        tokens=clap.text_tokens(list(caption[1])),
        clip=torch.from_numpy(clip[0].astype(np.int64)),
        caption=torch.from_numpy(caption[0].astype(np.int64)),
        target=_target_tensor(checked.pairs),
        sha256=checked.sha256,
        front_end=clap.front_end,
    )


def _features(clap, checked: CheckedPairs, progress: bool, cache_dir) -> dict[str, torch.Tensor]:
    cache = None if cache_dir is None else ArrayCache(cache_dir)
    front_end = clap.front_end

    def features_of(path: Path) -> dict[str, np.ndarray]:
        sha256 = sha256_of(path)
        keys = {name: cache_key(kind=f"finetune {name}", front_end=front_end, sha256=sha256) for name in names}
        found = {} if cache is None else {name: cache.get(key) for name, key in keys.items()}
        if found and all(values is not None for values in found.values()):
            return found
        made = {name: values[0].numpy() for name, values in clap.audio_features([path]).items() if name in names}
        if sha256_of(path) != sha256:
            raise AudioError(path, "it changed while it was read; wait until it is written, then start again")
        if cache is not None:
            for name, key in keys.items():
                cache.put(key, made[name])
        return made

    names = ("input_features", "is_longer")
    whole: dict[str, torch.Tensor] = {}

    def store(row: int, made: dict[str, np.ndarray]) -> None:
        # Filled in place: a list, stacked at the end, would hold the features (2 GB for RELATE, fused) twice.
        for name, values in made.items():
            if name not in whole:
                whole[name] = torch.empty((len(checked.paths), *values.shape), dtype=torch.from_numpy(values).dtype)
            whole[name][row] = torch.from_numpy(values)

    _each_clip(checked.paths, features_of, store, progress)
    return whole


def _sha256_of_clip(path: Path) -> str:
    try:
        require_regular(path)
        return sha256_of(path)
    except OSError as error:
        raise AudioError(path, error.strerror or str(error).removeprefix(f"{path} ")) from error


def _each_clip(paths: list[Path], work, store=None, progress: bool = False) -> list:
    """`work` of every path, in threads and in order; AudioError that names the bad ones, once all were tried."""
    from tqdm.auto import tqdm

    def tried(path: Path):
        try:
            return work(path)
        except AudioError as error:
            return error

    results, bad = [], []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        bar = tqdm(pool.map(tried, paths), "audio features", len(paths), unit="clip", disable=not progress)
        for row, result in enumerate(bar):
            if isinstance(result, AudioError):
                bad.append(result)
            elif store is None:
                results.append(result)
            elif not bad:
                store(row, result)
    if bad:
        others = listed(Path(error.path).name for error in bad[1:4])
        more = f", also {others}{' …' if len(bad) > 4 else ''}" if others else ""
        raise AudioError(bad[0].path, f"{bad[0].reason} ({len(bad)} of {len(paths)} clips can't be used{more})")
    return results


def _check_targets(pairs: pd.DataFrame) -> None:
    bad = ~pd.to_numeric(pairs["target"], errors="coerce").between(0, 1)  # NaN is not between
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(pairs)} targets are not within 0-1, such as {shown(pairs['target'][bad.idxmax()])} "
            f"in row {bad.idxmax()}; target is the mean rating (0-10) divided by 10"
        )


def _target_tensor(pairs: pd.DataFrame) -> torch.Tensor:
    return torch.from_numpy(pairs["target"].to_numpy(dtype=np.float32))


# --- batches --------------------------------------------------------------------------------------------


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
    data: PairData, batch_size: int, generator: torch.Generator, distinct_captions: bool, drop_last: bool = False
) -> list[Batch]:
    """Cut the pairs, in an order drawn from `generator`, into ceil(N / batch_size) batches.

    With `distinct_captions`, a pair whose caption is already in its batch changes places with one of another batch.
    Where no exchange helps (fewer captions than a batch has pairs, or a caption with more clips than there are
    batches), it stays: every pair is used once per epoch, and the number of steps does not change. `drop_last` leaves
    the short batch out, unless it is the only one.
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
    """How many pairs are in a batch that already holds their caption."""
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
            # The search begins after this batch and goes round, so that no batch is drawn on more than others.
            for there in (*range(here + 1, len(batches)), *range(here)):
                if caption in held[there]:
                    continue
                other = next((k for k, wanted in enumerate(held[there]) if wanted not in held[here]), None)
                if other is not None:
                    batch[slot], batches[there][other] = batches[there][other], batch[slot]
                    held[here][slot], held[there][other] = held[there][other], caption
                    break
