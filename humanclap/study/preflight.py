"""Before a long run: is everything here, is there room, how long will it take, and which command fetches what is missing."""

from __future__ import annotations

import math
import os
import shutil
import time
from dataclasses import dataclass

import pandas as pd

from humanclap.models import MODELS

from .models import Lineup
from .run import StudyError, runs_folder

HERE, MADE, MISSING, SMALL = "here", "made here", "missing", "too small"

# What a full-size run costs. Operations as counted in benchmarks/finetune.md and upstream's sizes (HTSAT-tiny, RoBERTa).
TRAIN_FLOP_PER_PAIR = 0.4e12 / 8
SCORE_FLOP_PER_PAIR = 11.8e9 + 3.4e9
FEATURE_BYTES_PER_CLIP = 4 * 1001 * 64 * 4  # fused: four log-mels in float32
CHECKPOINT_BYTES = 0.62e9  # a ClapModel in float32; what resuming needs is three times that, twice at most
EXPECTED_GPU_BYTES = 15e9
"""What training at the paper's settings is expected to fit into (a card sold as 16 GB); not measured, so it stops nobody."""
EFFICIENCY = 0.35
"""Share of a matrix product's speed that training reaches; an assumption, and the estimate is no better than it."""


@dataclass(frozen=True)
class Preflight:
    """What a run needs and has. table: one row per need, with need, state, detail, command (that fetches it, or "")."""

    table: pd.DataFrame
    hours: float
    device: str

    @property
    def missing(self) -> pd.DataFrame:
        """The rows that would stop the run."""
        return self.table[self.table["state"].isin([MISSING, SMALL])]

    def require(self) -> None:
        """Raise StudyError, with every missing piece and the command that fetches it, unless everything is here."""
        if len(self.missing):
            lines = [f"- {row.need}: {row.state} ({row.detail})" for row in self.missing.itertuples()]
            commands = [command for command in dict.fromkeys(self.missing["command"]) if command]
            raise StudyError("\n".join(["this run can't start:", *lines, "What to do:", *commands]))

    def __str__(self) -> str:
        if math.isnan(self.hours):
            return f"on {self.device}; the first cell says how long this takes in the demo"
        span = f"about {self.hours:.1f} hours" if self.hours >= 1 else f"about {60 * self.hours:.0f} minutes"
        return f"{span} of computing on {self.device} (an estimate from its matrix speed, {EFFICIENCY:.0%} of it used)"


def preflight(
    profile: str, lineup: Lineup, n_train: float = 1925, epochs: int = 50, seeds: int = 1, n_pairs: int = 5784
) -> Preflight:
    """Look for ratings, clips and every model's weights, at the disk and the device, and estimate the time.

    Args:
        n_train: training pairs (a share is taken of half of `n_pairs`); epochs, seeds: of each of the five variants.
        n_pairs: pairs that are scored by every model.

    Nothing is fetched, opened or raised here: `.table` shows all, `.require()` stops a run that lacks something.
    """
    from humanclap.losses import KINDS

    trainings = len(KINDS) * seeds
    pairs = n_train if n_train >= 1 else n_train * n_pairs / 2
    rows = _data_rows(profile) + _model_rows(profile, lineup)
    needed = FEATURE_BYTES_PER_CLIP * n_pairs + CHECKPOINT_BYTES * (trainings + 6) if profile != "demo" else 0.5e9
    rows.append(_disk_row(needed))
    device, rate, device_row = _device(profile)
    rows.append(device_row)
    hours = float("nan")  # in the demo nothing is estimated: the notebooks' first cells say what it took
    if profile != "demo":
        flop = trainings * epochs * pairs * TRAIN_FLOP_PER_PAIR + SCORE_FLOP_PER_PAIR * n_pairs * 2 * (trainings + 5)
        hours = flop / (rate * EFFICIENCY) / 3600
    return Preflight(pd.DataFrame(rows, columns=["need", "state", "detail", "command"]), hours, device)


def _data_rows(profile: str) -> list[tuple]:
    if profile == "demo":
        return [("rated pairs with clips", MADE, "the synthetic corpus", "")]
    from humanclap import download

    places = [("scores/REL.csv", "relate"), ("RELATE_wave", "relate-audio")]
    if os.environ.get("HUMANCLAP_RELATE"):  # copied by hand, or ratings of one's own: taken as it is
        found = [(need, download.relate_folder() / need, f"humanclap fetch {source}") for need, source in places]
        return [
            (need, HERE, f"in HUMANCLAP_RELATE: {path}", "") if path.exists() else (need, MISSING, str(path), command)
            for need, path, command in found
        ]
    return [row for piece, source in places for row in _pieces(download.status(source), (piece, f"{piece}.zip"), piece)]


def _model_rows(profile: str, lineup: Lineup) -> list[tuple]:
    if profile == "demo":
        return [(name, MADE, "a tiny stand-in", "") for name in lineup.names]
    from humanclap import download

    rows = []
    for name, source in lineup.sources.items():
        own = source.checkpoint or (source.clap if source.clap.startswith("/") else None)
        if own is not None:
            rows.append((name, HERE, f"your own: {own}", ""))
        else:
            model = next(model for model in MODELS.values() if model.row == name)
            rows += _pieces(download.status(model.group), tuple(spec.name for spec in model.needs), name)
    return rows


def _pieces(status: pd.DataFrame, wanted: tuple[str, ...], need: str) -> list[tuple]:
    """One row per wanted piece; whether RELATE's files are whole is for the notebooks to see."""
    rows = []
    for row in status[status["piece"].isin(wanted)].itertuples():
        state = HERE if row.state == "here" else MISSING
        name = need if row.piece == need else f"{need}: {row.piece}"
        rows.append((name, state, row.note or row.path or "not in the hub's cache", row.command))
    return rows


def _disk_row(needed: float) -> tuple:
    folder = runs_folder()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    state = HERE if free >= needed else SMALL
    detail = f"{free / 1e9:.0f} GB free below {folder}, {needed / 1e9:.1f} GB needed"
    return ("disk", state, detail, "" if state == HERE else "make room, or set HUMANCLAP_RUNS to a larger disk")


def _device(profile: str) -> tuple[str, float, tuple]:
    """Name and speed (operations per second) of the device, and its row."""
    import torch

    from humanclap.clap.embedder import choose_device

    device = torch.device(choose_device("auto"))
    if device.type == "cuda":
        name, memory = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
        doubt = (
            ", less than expected (not measured): lower batch_size if it runs out"
            if memory < EXPECTED_GPU_BYTES
            else ""
        )
        row = ("GPU memory", HERE, f"{name}, {memory / 1e9:.0f} GB{doubt if profile != 'demo' else ''}", "")
    else:
        name = f"{device.type.upper()} ({torch.get_num_threads()} threads)"
        row = ("device", HERE, f"{name}: no CUDA GPU is seen" if profile != "demo" else name, "")
    return name, float("nan") if profile == "demo" else _matrix_rate(device), row


def _matrix_rate(device) -> float:
    """Operations per second of a square matrix product, in the precision that training uses there."""
    import torch

    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):  # the first one warms up
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
