"""Before a long run: is everything here, is there room, how long will it take, and which command fetches what is missing."""

from __future__ import annotations

import math
import os
import shutil
import time
from dataclasses import dataclass

import pandas as pd

from humanclap import download
from humanclap.losses import KINDS
from humanclap.models import MODELS

from .models import Lineup
from .run import StudyError, runs_folder

HERE, MADE, MISSING, SMALL = "here", "made here", "missing", "too small"

# What a full-size run costs. Operations as counted in benchmarks/finetune.md and upstream's sizes (HTSAT-tiny, RoBERTa).
TRAIN_FLOP_PER_PAIR = 0.4e12 / 8
SCORE_FLOP_PER_PAIR = 11.8e9 + 3.4e9
FEATURE_BYTES_PER_CLIP = 4 * 1001 * 64 * 4  # fused: four log-mels in float32
CHECKPOINT_BYTES = 0.62e9  # a ClapModel in float32; what resuming needs is three times that, twice at most
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
    import torch

    from humanclap.clap.embedder import choose_device

    device = torch.device(choose_device("auto"))
    name = f"{device.type.upper()} ({torch.get_num_threads()} threads)"
    detail = name if profile == "demo" else f"{name}: no CUDA GPU is seen"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        detail = f"{name}, {torch.cuda.get_device_properties(device).total_memory / 1e9:.0f} GB"
    last = ("device", HERE, detail, "")
    if profile == "demo":  # nothing is estimated: the notebooks' first cells say what it took
        rows = [("rated pairs with clips", MADE, "the synthetic corpus", "")]
        rows += [(row, MADE, "a tiny stand-in", "") for row in lineup.names] + [_disk_row(0.5e9), last]
        return Preflight(_table(rows), float("nan"), name)
    trainings, pairs = len(KINDS) * seeds, n_train if n_train >= 1 else n_train * n_pairs / 2
    flop = trainings * epochs * pairs * TRAIN_FLOP_PER_PAIR + SCORE_FLOP_PER_PAIR * n_pairs * 2 * (trainings + 5)
    disk = _disk_row(FEATURE_BYTES_PER_CLIP * n_pairs + CHECKPOINT_BYTES * (trainings + 6))
    rows = [*_data_rows(), *_model_rows(lineup), disk, last]
    return Preflight(_table(rows), flop / (_matrix_rate(device) * EFFICIENCY) / 3600, name)


def _table(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["need", "state", "detail", "command"])


def _data_rows() -> list[tuple]:
    rows = []
    for need, source in (("scores/REL.csv", "relate"), ("RELATE_wave", "relate-audio")):
        path = download.relate_folder() / need
        if not os.environ.get("HUMANCLAP_RELATE"):
            rows += _pieces(download.status(source), (need, f"{need}.zip"), need)
        elif path.exists():  # copied by hand, or ratings of one's own: taken as it is
            rows.append((need, HERE, f"in HUMANCLAP_RELATE: {path}", ""))
        else:
            rows.append((need, MISSING, str(path), f"humanclap fetch {source}"))
    return rows


def _model_rows(lineup: Lineup) -> list[tuple]:
    rows = []
    for name, source in lineup.sources.items():
        if own := source.checkpoint or (source.clap if source.clap.startswith("/") else None):
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
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    detail = f"{free / 1e9:.0f} GB free below {folder}, {needed / 1e9:.1f} GB needed"
    if free >= needed:
        return ("disk", HERE, detail, "")
    return ("disk", SMALL, detail, "make room, or set HUMANCLAP_RUNS to a larger disk")


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
