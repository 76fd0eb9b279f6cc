"""What benchmarks/scoring.py says: the table of times, the machine's matrix rate, the peak memory."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from humanclap import load_clap, score_pairs
from humanclap.audio import load_audio
from humanclap.clap.fast_cpu import OneDnnLinear

CLIP_GFLOP = 11.8  # HTSAT-tiny, forward


def heading(arguments) -> str:
    threads = f"{_processor()}, {torch.get_num_threads()} threads"
    where = threads if arguments.device == "cpu" else torch.cuda.get_device_name()
    gpu = "" if arguments.device == "cuda" else " Not measured on a GPU; the command stands ready."
    return (
        f"# Scoring, beside the upstream packages\n\nPrinted by `python benchmarks/scoring.py` on {where}, "
        f"torch {torch.__version__}, Python {platform.python_version()}. HTSAT-tiny and RoBERTa at full size "
        f"with random weights, {arguments.pairs} pairs (10 s clips at 16 kHz, three a caption; RELATE's "
        f"captions), {arguments.rounds} rounds in which the rows take turns; ratios are medians over rounds. "
        "Other work on the machine slows every row, and those whose threads wait for each other most, which "
        f"the processor time shows less.{gpu}\n"
    )


def table(times: dict, scores: dict, n_pairs: int, a: str, b: str) -> list[str]:
    """Wall and processor time a pair, both as ratios to A and B, and how far the scores are from A's."""
    names = ("ms a pair", "times A", "times B", "CPU ms a pair", "CPU times A", "CPU times B")
    lines = [f"| | {' | '.join(names)} | largest difference of a cosine from A |", "|---" * 8 + "|"]
    for name in times:
        cells = []
        for clock in (0, 1):
            own = np.array(times[name])[:, clock]
            ratios = [statistics.median(np.array(times[base])[:, clock] / own) for base in (a, b)]
            cells += [f"{1000 * statistics.median(own) / n_pairs:.4g}", *(f"{ratio:.3g}" for ratio in ratios)]
        error = np.abs(scores[name] - scores[a]).max()
        lines.append(f"| {name} | {' | '.join(cells)} | {error:.0e} |")
    return [
        *lines,
        "",
        "A: `CLAP_Module` as its README shows it, 48 pairs a call, every caption as often as it comes. B: "
        "the same under `no_grad`, 16 a call. transformers: its processor and model, 16 a call, `no_grad`. "
        "laion-clap and the rows on the .pt hear a clip through 16 bits, transformers and the ClapModel rows "
        "do not, hence their difference.",
        "",
    ]


def built_in(built: dict) -> list[str]:
    parts = ", ".join(f"{what} {seconds:.1f}" for what, seconds in built.items())
    return [f"Left out above, seconds to build: {parts}.", ""]


def where_the_time_goes(sources: dict[str, Path], paths: list[Path], times: dict, n_pairs: int) -> list[str]:
    """The matrix rate of this machine, what a clip takes of it on one core, and what takes the rest."""

    class Timed(OneDnnLinear):
        spent = 0.0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            start = time.process_time()
            result = super().__torch_function__(func, types, args, kwargs)
            Timed.spent += (time.process_time() - start) * (func is torch.nn.functional.linear)
            return result

    names, n_threads = [str(path) for path in paths[:4]], torch.get_num_threads()
    rates = [_matrix_rate(one_dnn=False), _matrix_rate(one_dnn=True)]
    bound = CLIP_GFLOP / max(rates)
    found = []
    torch.set_num_threads(1)
    try:
        for kind, source in sources.items():
            clap, linear = load_clap(source, device="cpu"), []
            decode = _best(lambda: [load_audio(name, clap.sample_rate) for name in names]) / 4
            features = _best(lambda: clap.audio_features(names)) / 4
            batch = clap.audio_features(names)
            plain = _best(lambda: clap.embed_features(batch)) / 4

            def timed():
                Timed.spent = 0.0
                with Timed():
                    clap.embed_features(batch)
                linear.append(Timed.spent / 4)

            fast = _best(timed) / 4
            rest, whole = fast - min(linear), features + fast
            parts = (decode, features - decode, min(linear), rest, whole, features + plain)
            pair = min(processor for _, processor in times[kind]) / n_pairs
            shown = " | ".join(f"{1000 * part:.0f}" for part in parts)
            found.append(f"| {kind} | {shown} | {1000 * pair:.0f} | {bound / pair:.0%} |")
    finally:
        torch.set_num_threads(n_threads)
    return [
        "## How far from the machine's matrix rate",
        "",
        f"A product of 1536 x 1536 float32 matrices runs at {rates[0]:.0f} GFLOP/s on a core in MKL, torch's "
        f"default, and at {rates[1]:.0f} in oneDNN. A clip costs {CLIP_GFLOP} GFLOP: {1000 * bound:.0f} ms "
        "of a core at the better rate. Processor milliseconds a clip, on one core, in batches of four:",
        "",
        "| | decode, resample | log-mel | linear layers | attention, norms, GELU, copies | in all | in all "
        f"with MKL | a pair, {n_threads} cores at once | of the matrix rate |",
        "|---|---|---|---|---|---|---|---|---|",
        *found,
        "",
        "A pair has a third of a caption in it.",
    ]


def _matrix_rate(one_dnn: bool) -> float:
    """GFLOP/s of a large float32 product on one core."""
    size, before = 1536, torch.get_num_threads()
    x, weight = torch.ones(size, size), torch.ones(size, size)
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(), OneDnnLinear() if one_dnn else contextlib.nullcontext():
            return 2 * size**3 / 1e9 / _best(lambda: torch.nn.functional.linear(x, weight, None), 20)
    finally:
        torch.set_num_threads(before)


def _best(call, n: int = 4) -> float:
    """The least processor time of several calls, in seconds: other work on the machine only adds to one."""
    times = []
    for _ in range(n):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def memory(folder: Path, paths: list[Path], texts: list[str], device: str) -> list[str]:
    """Peak memory of a process that scores 100 clips and of one that scores 1,000, at full size."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for n in (100, 1_000):
        with context.Pool(1) as pool:
            names = [str(path) for path in paths[:n]]
            peaks.append(pool.apply(_peak, (str(folder), names, texts[:n], device)))
    return [
        "## Memory",
        "",
        f"Peak resident memory of a process that scores 100 clips (ClapModel, full size, {device}): "
        f"{peaks[0]:.0f} MB. 1,000 clips: {peaks[1]:.0f} MB, {peaks[1] / peaks[0] - 1:+.1%}.",
    ]


def _peak(folder: str, paths: list[str], texts: list[str], device: str) -> float:
    with contextlib.redirect_stderr(io.StringIO()):
        score_pairs(load_clap(folder, device=device), paths, texts, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024**2)


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
