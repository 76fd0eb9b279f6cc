"""Rated pairs for training: checked, their features and tokens computed once, cut into batches."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from humanclap.audio import AudioError
from humanclap.checks import listed, need_columns, shown
from humanclap.files import ArrayCache, cache_key, expanded, sha256_of
from humanclap.finetune.config import FinetuneConfig
from humanclap.relate import split_train_validation

COLUMNS = ("audio", "text", "target")
FEATURES = ("input_features", "is_longer")
T = TypeVar("T")


def split_pairs(pairs: pd.DataFrame, config: FinetuneConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs that train and pairs that validate, as `config` says: n_train, split_by and split_seed.

    Where there is a column `split`, rows of "test" are left out; its rows of "validation", if there are any, validate,
    and else some of "train". Raises what `relate.split_train_validation` raises.
    """
    if "split" in pairs and (pairs["split"] == "validation").any():
        train, validation = (pairs[pairs["split"] == name].reset_index(drop=True) for name in ("train", "validation"))
        if train.empty:
            raise ValueError("no pair has the split 'train', so there is nothing to train on")
        return train, validation
    return split_train_validation(pairs, n_train=config.n_train, by=config.split_by, seed=config.split_seed)


# --- features and tokens --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PairData:
    """N rated pairs with everything a model needs of them, shared by all variants that train on these pairs.

    Each distinct clip and caption is there once: `features` {"input_features": [clips, channels, frames, mels],
    "is_longer": [clips, 1]}, `tokens` {"input_ids": [captions, tokens], "attention_mask": same}, right-padded.
    `clip` and `caption` `[N]` say which of them a pair uses, `target` `[N]` is its human score in 0-1, `pairs` the
    DataFrame behind it (audio, text, target). `sha256` covers names, captions, ratings and the files' bytes;
    `front_end` describes how features and tokens were made. Where only heads train, both are {"pooled": [clips or
    captions, hidden]}: the outputs of the base's towers.
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


def front_end_of(clap, trains: str) -> str:
    """How `prepare` makes what is trained on: the front end of `clap`, and for heads the towers as well."""
    return clap.front_end if trains == "all" else f"{clap.front_end}, towers of {clap.checkpoint_sha256}"


def check_pairs(
    clap, pairs: pd.DataFrame | PairData, audio_root, name: str = "pairs", trains: str = "all"
) -> tuple[pd.DataFrame, str]:
    """The three columns and the `sha256` of what `prepare` makes of `pairs` (called `name`); no clip is decoded.

    Raises what `prepare` raises, but for clips that can't be decoded, and ValueError for another front end than clap's.
    """
    if isinstance(pairs, PairData):
        if pairs.front_end != (wanted := front_end_of(clap, trains)):
            raise ValueError(
                f"{name} were prepared with another front end than the base has: {pairs.front_end} against "
                f"{wanted}; prepare them with this base (trains={trains!r})"
            )
        return pairs.pairs, pairs.sha256
    if audio_root is None:
        raise ValueError(f"audio_root is None: it is needed to read the audio of {name}")
    need_columns(pairs, "pairs", COLUMNS, filled=True)
    if pairs.empty:
        raise ValueError("there are no pairs to train or validate on")
    pairs = pairs[list(COLUMNS)].reset_index(drop=True)
    for name in ("audio", "text"):
        bad = ~pairs[name].map(lambda value: isinstance(value, str) and bool(value.strip())).astype(bool)
        if bad.any():
            value = shown(pairs[name][bad.idxmax()])
            raise ValueError(f"row {bad.idxmax()} of the pairs: {name} is {value}; it must be text that is not empty")
    bad = ~pd.to_numeric(pairs["target"], errors="coerce").between(0, 1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(pairs)} targets are not within 0-1, such as {shown(pairs['target'][bad.idxmax()])} "
            f"in row {bad.idxmax()}; target is the mean rating (0-10) divided by 10"
        )
    if (twice := pairs.duplicated(["audio", "text"])).any():
        example = pairs[twice].iloc[0]
        raise ValueError(
            f"{int(twice.sum())} pairs are there more than once, such as {example['audio']} with "
            f"{example['text']!r}: average their ratings first, with relate.aggregate_pairs"
        )
    paths = _paths(pairs, audio_root)
    if absent := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(
            f"{len(absent)} of {len(paths)} audio files are not there, the first is {absent[0]}; audio_root "
            "must be the folder that the column audio is relative to (RELATE_wave for RELATE)"
        )
    digest = hashlib.sha256(pairs.to_csv(index=False).encode())
    for sha256 in _of_each(paths, sha256_of):
        digest.update(bytes.fromhex(sha256))
    return pairs, digest.hexdigest()


def prepare(
    clap,
    pairs: pd.DataFrame | PairData,
    audio_root: str | os.PathLike | None,
    progress: bool = True,
    cache_dir: str | os.PathLike | None = None,
    trains: str = "all",
) -> PairData:
    """Read every clip and caption of `pairs` once, through the front end of `clap` (a HuggingFaceClap).

    `pairs` has the columns audio (relative to `audio_root`), text and target (0-1), as `relate.aggregate_pairs`
    makes them. The crop, or the fusion chunks, of a clip longer than the window are those `clap` gives it, fixed for
    all epochs. With `cache_dir`, each clip's features are kept there by what they come from (the file's bytes and the
    front end): float32, 1 MB per clip for a full-size model with feature fusion.

    `trains`: as in FinetuneConfig. "heads": clips and captions also go through the towers, once, and only the towers'
    outputs are kept, 3 kB each for a full-size model, in `cache_dir` by content, front end and weights.

    Raises ValueError for a missing column, no rows, an empty cell, a target outside 0-1, a pair that is there twice
    or a window policy without fixed features ("mean", "upstream"), FileNotFoundError for audio that is not there, and
    AudioError, naming the bad clips, where any can't be read.
    """
    if isinstance(pairs, PairData):  # as they are
        return pairs
    if clap.window in ("mean", "upstream"):
        raise ValueError(
            f"window={clap.window!r} gives a clip several windows, or others each time, and training prepares one "
            "of each clip: open the base with window='first', 'center' or, with feature fusion, 'fusion'"
        )
    pairs, sha256 = check_pairs(clap, pairs, audio_root)
    heads = trains == "heads"
    clip, caption = (pd.factorize(pairs[name]) for name in ("audio", "text"))
    return PairData(
        pairs=pairs,
        features=(_pooled_clips if heads else _features)(clap, _paths(pairs, audio_root), progress, cache_dir),
        tokens=_pooled_captions(clap, list(caption[1])) if heads else clap.text_tokens(list(caption[1])),
        clip=torch.from_numpy(clip[0].astype(np.int64)),
        caption=torch.from_numpy(caption[0].astype(np.int64)),
        target=torch.from_numpy(pairs["target"].to_numpy(dtype=np.float32)),
        sha256=sha256,
        front_end=front_end_of(clap, trains),
    )


def open_base(base, device: str):
    """`base`, opened if it is a name or folder. Raises TypeError for what is no ClapModel."""
    if isinstance(base, (str, Path)):
        from humanclap.clap import load_clap

        base = load_clap(str(expanded(base)), device=device)
    if not all(hasattr(base, name) for name in ("model", "front_end", "front_end_parts")):
        raise TypeError(
            f"base is a {type(base).__name__}, and only a transformers ClapModel can be fine-tuned: give a "
            "save_pretrained folder, or convert a LAION .pt to one first (humanclap convert)"
        )
    return base


def warn_of_pairs(shared: dict[str, int], targets: dict[str, pd.Series]) -> None:
    if shared["pairs"] or shared["captions"]:
        warnings.warn(
            f"{shared['pairs']} pairs and {shared['captions']} captions are in both the training and the validation set: "
            "the validation loss then rewards memory. relate.split_train_validation(by='caption') keeps them apart",
            stacklevel=3,
        )
    for name, what in (("train", "no order can be learnt from them"), ("validation", "there is no validation SRCC")):
        if targets[name].nunique() == 1:
            equal = f"all {len(targets[name])} ratings of the {name} pairs are {targets[name].iloc[0]:g}"
            warnings.warn(f"{equal}: {what}", stacklevel=3)


def _features(clap, paths: list[Path], progress: bool, cache_dir) -> dict[str, torch.Tensor]:
    cache, front_end = None if cache_dir is None else ArrayCache(cache_dir), clap.front_end

    def features_of(path: Path) -> dict[str, np.ndarray]:
        sha256 = sha256_of(path)
        keys = {name: cache_key(kind=f"finetune {name}", front_end=front_end, sha256=sha256) for name in FEATURES}
        found = {name: cache.get(key) if cache else None for name, key in keys.items()}
        if all(values is not None for values in found.values()):
            return found
        features = clap.audio_features([path])
        if sha256_of(path) != sha256:
            raise AudioError(path, "it changed while it was read; wait until it is written, then start again")
        made = {name: features[name][0].numpy() for name in FEATURES}
        for name, key in keys.items() if cache else ():
            cache.put(key, made[name])
        return made

    whole: dict[str, torch.Tensor] = {}
    for row, made in enumerate(_of_each(paths, features_of, progress)):
        # Filled in place: a list, stacked at the end, would hold the features (2 GB for RELATE, fused) twice.
        for name, values in made.items():
            if name not in whole:
                whole[name] = torch.empty((len(paths), *values.shape), dtype=torch.from_numpy(values).dtype)
            whole[name][row] = torch.from_numpy(values)
    return whole


POOLED = "pooled"
_AT_ONCE = 16  # clips or captions through a tower
_AHEAD = 32  # clips that are decoded ahead


@torch.inference_mode()
def _pooled(clap, name: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The outputs `[n, hidden]` of the tower `name` ("audio" or "text") of clap's model, in eval mode and float32."""
    tower = getattr(clap.model.eval(), f"{name}_model")
    place = next(tower.parameters()).device
    with torch.autocast(place.type, enabled=False):
        return tower(**{key: values.to(place) for key, values in inputs.items()}).pooler_output.float().cpu()


def _pooled_clips(clap, paths: list[Path], progress: bool, cache_dir) -> dict[str, torch.Tensor]:
    cache, kept, waiting = None if cache_dir is None else ArrayCache(cache_dir), {}, []
    made_by = {"kind": "finetune pooled", "front_end": front_end_of(clap, "heads")}

    def features_of(path: Path) -> tuple[str, dict[str, np.ndarray] | None]:
        key = cache_key(**made_by, sha256=sha256_of(path))
        if cache and (found := cache.get(key)) is not None:
            kept[path] = found
            return key, None
        return key, clap.audio_features([path])

    def through_the_tower() -> None:
        inputs = {name: torch.cat([made[name] for _, _, made in waiting]) for name in waiting[0][2]}
        for (path, key, _), row in zip(waiting, _pooled(clap, "audio", inputs).numpy(), strict=True):
            kept[path] = row
            if cache:
                cache.put(key, row)
        waiting.clear()

    for path, (key, made) in zip(paths, _of_each(paths, features_of, progress)):
        waiting += [(path, key, made)] if made is not None else []
        if len(waiting) == _AT_ONCE:
            through_the_tower()
    if waiting:
        through_the_tower()
    return {POOLED: torch.from_numpy(np.stack([kept[path] for path in paths]))}


def _pooled_captions(clap, texts: list[str]) -> dict[str, torch.Tensor]:
    tokens = clap.text_tokens(texts)
    lengths = tokens["attention_mask"].sum(dim=1)
    parts = []
    for rows in torch.argsort(lengths, stable=True).split(_AT_ONCE):  # of like lengths: little padding
        width = int(lengths[rows].max())
        parts.append((rows, _pooled(clap, "text", {name: values[rows, :width] for name, values in tokens.items()})))
    whole = torch.empty(len(texts), parts[0][1].shape[1])
    for rows, found in parts:
        whole[rows] = found
    return {POOLED: whole}


def _paths(pairs: pd.DataFrame, audio_root: str | os.PathLike) -> list[Path]:
    return [expanded(audio_root) / name for name in pairs["audio"].unique()]


def _of_each(paths: list[Path], work: Callable[[Path], T], progress: bool = False) -> Iterator[T]:
    """`work(path)` of every path, in order, from threads; once all were tried, an AudioError names the bad ones."""
    from tqdm.auto import tqdm

    def tried(path: Path) -> T | AudioError:
        try:
            return work(path)
        except AudioError as error:
            return error
        except OSError as error:
            return AudioError(path, error.strerror or str(error).removeprefix(f"{path} "))

    def ahead(pool: ThreadPoolExecutor) -> Iterator[T | AudioError]:
        """Results in order, a few dozen of them made ahead: whoever takes them may be slower, and clips are large."""
        waiting: deque = deque()
        for path in paths:
            waiting.append(pool.submit(tried, path))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)

    bad = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for result in tqdm(ahead(pool), "audio features", len(paths), unit="clip", disable=not progress):
            if isinstance(result, AudioError):
                bad.append(result)
            else:
                yield result
    if bad:
        others = listed(Path(error.path).name for error in bad[1:4])
        more = f", also {others}{' …' if len(bad) > 4 else ''}" if others else ""
        raise AudioError(bad[0].path, f"{bad[0].reason} ({len(bad)} of {len(paths)} clips can't be used{more})")


# --- batches --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Batch:
    """The pairs of one step: `pairs`, `clips` `[n]`, distinct `captions` `[m]`, `caption_of` `[n]` in 0..m-1.

    `width` is the number of tokens of the longest caption: the padding after it is cut off, which is exact,
    as padding is masked. None where there are no tokens any more, but outputs of the tower.
    """

    pairs: torch.Tensor
    clips: torch.Tensor
    captions: torch.Tensor
    caption_of: torch.Tensor
    width: int | None


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
    lengths, found = None if POOLED in data.tokens else data.tokens["attention_mask"].sum(dim=1), []
    for members in map(torch.tensor, batches):
        captions, caption_of = torch.unique(data.caption[members], return_inverse=True)
        width = None if lengths is None else int(lengths[captions].max())
        found.append(Batch(members, data.clip[members], captions, caption_of, width))
    return found


def repeated_captions(batches: list[Batch]) -> int:
    """How many pairs are in a batch that already holds their caption."""
    return sum(len(batch.pairs) - len(batch.captions) for batch in batches)


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
