"""What benchmarks/finetune.py measures, each in a process of its own: the rows, and the matrix rate."""

from __future__ import annotations

import contextlib
import importlib
import resource
import sys
import time
import warnings
import wave
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from humanclap import audio, load_clap
from humanclap.finetune import FinetuneConfig, prepare
from humanclap.finetune.train import Trainer, reproducible, small_on_cpu

naive_loop = importlib.import_module("naive_loop")  # of tests/

A, B = "A naive, audio read on the fly", "B naive, features ahead"
ENGINE, ENGINE_FP32, ENGINE_BF16 = "humanclap", "humanclap, fp32", "humanclap, bf16"
SETTINGS = {ENGINE_FP32: {"precision": "fp32"}, ENGINE_BF16: {"precision": "bf16"}}
BATCH, KIND = 8, "wsce+mae"
PAPER_TRAIN, PAPER_VALIDATION, PAPER_EPOCHS = 1_925, 458, 50


def measure(job: dict) -> dict:
    """Seconds a step of one row, after job["warm"] steps that pay for memory, kernels and loaders, its peak memory and its mean loss."""
    device = torch.device(job["device"])
    if job["row"] in (A, B):
        found = _naive(job, device)
    else:
        found = _engine(job, device)
    starts, losses = np.array(found.pop("starts")), found.pop("losses")
    wall, processor = (starts[-1] - starts[job["warm"]]) / (len(starts) - 1 - job["warm"])
    found |= {"seconds": float(wall), "cpu_seconds": float(processor)}
    found["loss"] = float(np.mean(losses))
    return found | _peaks(device)


# --- the naive loop -------------------------------------------------------------------------------------


class Clips(torch.utils.data.Dataset):
    """Reads a clip each time it is asked for."""

    def __init__(self, job: dict) -> None:
        from transformers import AutoTokenizer, ClapFeatureExtractor

        self.table, self.root = pd.read_csv(job["pairs"]), Path(job["pairs"]).parent
        self.extractor = ClapFeatureExtractor.from_pretrained(job["model"])
        self.tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, number: int):
        row = self.table.iloc[number]
        return read_wave(self.root / row["audio"], self.extractor.sampling_rate), row["text"], row["target"]

    def collate(self, items):
        """What the model takes, for one batch, and its scores."""
        clips, texts, target = zip(*items, strict=True)
        rate = self.extractor.sampling_rate
        features = self.extractor(list(clips), sampling_rate=rate, return_tensors="pt")
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        inputs = {"input_features": features["input_features"].float(), "is_longer": features["is_longer"]}
        tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        return inputs | tokens, torch.tensor(target, dtype=torch.float32)


def read_wave(path: Path, rate: int) -> np.ndarray:
    """A 16-bit mono WAV at `rate`, with what comes with Python and scipy."""
    from scipy.signal import resample_poly

    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32_768
        own = file.getframerate()
    return samples if own == rate else resample_poly(samples, rate, own).astype(np.float32)


def _loader(job: dict, n_workers: int) -> torch.utils.data.DataLoader:
    clips = Clips(job)
    order = torch.Generator().manual_seed(0)
    settings = {"batch_size": BATCH, "shuffle": True, "generator": order, "collate_fn": clips.collate}
    # A row runs in a spawned process, whose loaders would be spawned too, and import everything again.
    settings |= {"num_workers": n_workers, "multiprocessing_context": "fork" if n_workers else None}
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # on fewer cores than workers
    return torch.utils.data.DataLoader(clips, **settings, pin_memory=job["device"] == "cuda")


def _naive(job: dict, device: torch.device) -> dict:
    from transformers import ClapModel

    model = ClapModel.from_pretrained(job["model"]).to(device)
    reading = iter(_loader(job, job["workers"] if job["row"] == A else 0))  # held: its workers' end is not timed
    batches = islice(reading, job["steps"])
    if job["row"] == B:
        batches = list(batches)
    starts: list[tuple[float, float]] = []
    with small_on_cpu(model, device):
        losses = naive_loop.train(
            model, batches, KIND, dropout=True, before_step=lambda step: starts.append(_clocks(device))
        )
    return {"starts": [*starts, _clocks(device)], "losses": losses}


# --- the engine -----------------------------------------------------------------------------------------


def open_all(job: dict):
    """The base and the prepared pairs, through this benchmark's reader where soundfile or soxr is missing."""
    try:
        import soundfile  # noqa: F401
        import soxr  # noqa: F401
    except ImportError:
        audio.load_audio = read_wave
    clap = load_clap(job["model"], device=job["device"])
    pairs, root = pd.read_csv(job["pairs"]), Path(job["pairs"]).parent
    return clap, lambda part: prepare(clap, part, root, progress=False, cache_dir=job["cache"]), pairs


@contextlib.contextmanager
def trainer_of(job: dict, **settings):
    """A Trainer on the first steps' worth of pairs."""
    clap, ready, pairs = open_all(job)
    device = torch.device(job["device"])
    data = ready(pairs[: BATCH * job["steps"]])
    with reproducible(device), small_on_cpu(clap.model, device):
        yield Trainer(FinetuneConfig(kind=KIND, batch_size=BATCH, **settings), clap.model, data, data, device)


def _engine(job: dict, device: torch.device) -> dict:
    with trainer_of(job, **SETTINGS.get(job["row"], {})) as trainer:
        if device.type == "cuda":
            trainer.train_epoch(1)
            torch.cuda.reset_peak_memory_stats()
        starts, losses = [_clocks(device)], []

        def note(step: int, loss: torch.Tensor) -> None:
            losses.append(loss)
            # Only at both ends of what is timed, as waiting for a GPU at every step would be a cost of its own.
            starts.append(_clocks(device if step in (job["warm"], job["steps"]) else torch.device("cpu")))

        trainer.train_epoch(2, note)
        held = sum(values.numel() * values.element_size() for values in trainer.train_pairs.features.values())
        precision = trainer.precision
        began = _now(device)
        trainer.validate(2)
        validation = (_now(device) - began) / len(trainer.validation_pairs)
    return {
        "starts": starts, "losses": [float(loss) for loss in losses], "precision": precision,
        "feature_bytes": held, "clips": BATCH * job["steps"], "validation_seconds": validation,
    }  # fmt: skip


# --- the floor ------------------------------------------------------------------------------------------


def floor(job: dict) -> dict:
    """FLOP of a step's matrix products, counted by torch as they run, and the rate of large ones on this device."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import ClapModel

    device = torch.device(job["device"])
    model = ClapModel.from_pretrained(job["model"]).to(device)
    batch = next(iter(_loader(job, 0)))
    tokens = batch[0]["input_ids"].shape
    with FlopCounterMode(display=False) as counter, small_on_cpu(model, device):
        naive_loop.train(model, [batch], KIND, dropout=True)
    types = (torch.float32, torch.bfloat16)
    rates = {str(kind).removeprefix("torch."): matrix_rate(device, kind) for kind in types}
    return {"flop": counter.get_total_flops(), "tokens": list(tokens), "rates": rates}


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP a second of a product of large square matrices: the best of ten."""
    size = 8192 if device.type == "cuda" else 2048
    one = torch.ones(size, size, device=device, dtype=dtype)
    times = []
    with reproducible(device):  # no TF32
        for _ in range(12):
            began = _now(device)
            one @ one
            times.append(_now(device) - began)
    return 2 * size**3 / min(times[2:])


# --- helpers --------------------------------------------------------------------------------------------


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _clocks(device: torch.device) -> tuple[float, float]:
    """Wall time and this process's processor time, once the device is done."""
    return _now(device), time.process_time()


def _peaks(device: torch.device) -> dict:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"memory": peak / (1024 if sys.platform != "darwin" else 1024**2)}
    if device.type == "cuda":
        found["gpu_memory"] = torch.cuda.max_memory_allocated() / 2**20
        found["gpu_reserved"] = torch.cuda.max_memory_reserved() / 2**20
    return found
