"""`humanclap finetune`: from a table of rated pairs to a model, and what it reached."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from humanclap import evaluate
from humanclap.files import expanded
from humanclap.finetune.card import write_card
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import read_pairs, split_pairs
from humanclap.finetune.record import FinetuneResult
from humanclap.finetune.train import finetune

SHARE_TO_TRAIN = 0.8
"""Of a table with no more pairs than the paper's 1,925 that train, where `n_train` is not given."""
MIN_CAPTIONS = 4
"""Below this many captions there is no interval."""


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
    say: Callable[[str], object] = print,
) -> FinetuneResult:
    """Fine-tune on the rated pairs of a table (`data.read_pairs`), and say what that reached.

    settings: of `FinetuneConfig`, by name; those that are not given come from `config`, a YAML file, or are the
        defaults (a table with too few pairs for the default `n_train` trains on 80 %).
    validation: a second table, all of which validates; None splits `pairs` (see `data.split_pairs`).
    scale: of a column rating, (lowest, highest).
    out, device, overwrite, resume, cache: as output_dir, device, ..., cache_dir of `finetune`.
    say: is called with each line of the report.

    Raises what `read_pairs`, `FinetuneConfig` and `finetune` raise, each message naming what to change.
    """
    if config is not None:
        import yaml

        settings = (yaml.safe_load(expanded(config).read_text("utf-8")) or {}) | settings
    chosen = FinetuneConfig.from_dict(settings, str(config) if config is not None else "settings")
    table, notes = read_pairs(pairs, scale)
    if validation is not None:
        train, more = read_pairs(validation, scale)
        validate, train = train, table
        notes += more
        if "split" in train:
            train = train[train["split"] == "train"].reset_index(drop=True)
    else:
        n_pairs = int((table["split"] == "train").sum()) if "split" in table else len(table)
        if "n_train" not in settings and n_pairs <= chosen.n_train:
            chosen = FinetuneConfig.from_dict(settings | {"n_train": SHARE_TO_TRAIN}, "settings")
        train, validate = split_pairs(table, chosen)
        if "split" not in table or not (table["split"] == "validation").any():
            notes.append(f"no pairs are marked as validation: split by {chosen.split_by}, n_train {chosen.n_train}")
    for line in [*notes, f"{len(train):,} pairs train, {len(validate):,} validate"]:
        say(line)
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
        say(line)
    return result


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
