"""`humanclap finetune`: from a table of rated pairs to a model, and what it reached."""

from __future__ import annotations

import math
import os
import shlex
from pathlib import Path

import numpy as np
import pandas as pd

from humanclap import evaluate
from humanclap.checks import listed
from humanclap.evaluate.bootstrap import MIN_CAPTIONS
from humanclap.files import expanded, require_regular
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import split_pairs
from humanclap.finetune.result import FinetuneResult, write_card
from humanclap.finetune.train import finetune
from humanclap.tables import TableError, clip_name, read_table, stays_below

SPLITS = ("train", "validation", "test")
SHARE_TO_TRAIN = 0.8
"""Of a table with no more pairs than the paper's 1,925 that train, where `n_train` is not given."""


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


def finetune_table(
    pairs: str | os.PathLike,
    audio_root: str | os.PathLike,
    out: str | os.PathLike,
    settings: dict,
    config: str | os.PathLike | None = None,
    validation: str | os.PathLike | None = None,
    scale: tuple[float, float] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    cache: str | os.PathLike | None = None,
    progress: bool = True,
) -> FinetuneResult:
    """Fine-tune on the rated pairs of a table (`read_pairs`), and print what that reached.

    settings: of `FinetuneConfig`, by name; those that are not given come from `config`, a YAML file, or are the
        defaults (a table with too few pairs for the default `n_train` trains on 80 %).
    validation: a second table, all of which validates; None splits `pairs` (see `data.split_pairs`).
    scale: of a column rating, (lowest, highest).
    out, device, overwrite, resume, cache: as output_dir, device, ..., cache_dir of `finetune`.

    Raises what `read_pairs`, `FinetuneConfig` and `finetune` raise, each message naming what to change.
    """
    if config is not None:
        settings = _read_settings(config) | settings
    chosen = FinetuneConfig.from_dict(settings, str(config) if config is not None else "settings")
    table, notes = read_pairs(pairs, scale)
    if validation is not None:
        validate, more = read_pairs(validation, scale)
        train = table[table["split"] == "train"].reset_index(drop=True) if "split" in table else table
        notes += more
    else:
        n_pairs = int((table["split"] == "train").sum()) if "split" in table else len(table)
        if "n_train" not in settings and n_pairs <= chosen.n_train:
            chosen = FinetuneConfig.from_dict(settings | {"n_train": SHARE_TO_TRAIN}, "settings")
        train, validate = split_pairs(table, chosen)
        if "split" not in table or not (table["split"] == "validation").any():
            notes.append(f"no pairs are marked as validation: split by {chosen.split_by}, n_train {chosen.n_train}")
    for line in [*notes, f"{len(train):,} pairs train, {len(validate):,} validate"]:
        print(line)
    result = finetune(
        chosen,
        train,
        validate,
        audio_root=audio_root,
        output_dir=out,
        device=device,
        progress=progress,
        overwrite=overwrite,
        resume=resume,
        cache_dir=cache,
    )
    reached = _reached(result, train, validate)
    write_card(result.checkpoint, label=f"the ratings of {Path(pairs).name}", notes=reached)
    scored = expanded(out) / "scores.csv"
    command = ["humanclap", "score", pairs, "--clap", result.checkpoint, "--audio-root", audio_root, "--out", scored]
    for line in [*reached, f"model: {result.checkpoint}", f"score with it: {shlex.join(map(str, command))}"]:
        print(line)
    return result


def _read_settings(config: str | os.PathLike) -> dict:
    import yaml

    require_regular(expanded(config))
    try:
        settings = yaml.safe_load(expanded(config).read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{config} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise TypeError(f"{config}: it must map names of settings to values, such as 'epochs: 10'")
    return settings


def _reached(result: FinetuneResult, train: pd.DataFrame, validate: pd.DataFrame) -> list[str]:
    """The report: best epoch, validation SRCC before and after with intervals, and the floor."""
    scores = result.validation
    worse = "" if result.improved else ", which is not below the base's"
    lines = [
        f"{result.config.kind}: epoch {result.best_epoch} of {result.config.epochs} has the lowest validation loss{worse}",
        f"validation SRCC of the base {_srcc(scores, 'base_clap_score')}, fine-tuned {_srcc(scores, 'clap_score')}",
    ]
    if scores["text"].nunique() >= MIN_CAPTIONS:
        lines[-1] += f" (95 % intervals, {scores['text'].nunique():,} captions resampled)"
    floor = _floor(train, validate)
    if floor is not None:
        lines.append(f"floor {floor[1]:.3f}: {floor[0]}, which never hears the audio, fitted on the training pairs")
    return lines


def _srcc(scores: pd.DataFrame, column: str) -> str:
    value = evaluate.correlations(scores[column], scores["target"]).srcc if len(scores) > 1 else np.nan
    if np.isnan(value) or scores["text"].nunique() < MIN_CAPTIONS:
        return "does not exist" if np.isnan(value) else f"{value:.3f}"
    found = evaluate.bootstrap_correlations(scores[column], scores["target"], groups=scores["text"])
    return f"{value:.3f} [{found.low.srcc:.3f}, {found.high.srcc:.3f}]"


def _floor(train: pd.DataFrame, validate: pd.DataFrame) -> tuple[str, float] | None:
    """The strongest predictor that never hears the audio, by SRCC on the validation pairs; None where there is none."""
    for columns in (["text", "target", "system"], ["text", "target"]):
        try:
            found = evaluate.blind_baselines(train[columns], validate[columns])
        except (KeyError, ValueError):  # no systems, or some that only one side has
            continue
        found = found[(found["subset"] == "all") & found["srcc"].notna()]
        if len(found):
            best = found.loc[found["srcc"].idxmax()]
            return str(best["predictor"]), float(best["srcc"])
    return None
