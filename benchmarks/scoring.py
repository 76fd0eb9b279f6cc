"""How long scoring takes beside laion-clap and transformers: full-size random weights, RELATE's captions.

    python benchmarks/scoring.py                  # the times: about 4 minutes on 2 idle cores
    python benchmarks/scoring.py --memory         # the peak memory at 100 and at 1,000 clips: about 2 minutes
    python benchmarks/scoring.py --device cuda    # the times on a GPU

Everything is timed in one run, the rows take turns, and the models are built before the clock starts. Captions come from
RELATE's REL.csv (HUMANCLAP_RELATE), clips are synthetic: 10 s at 16 kHz, three per caption. What both commands printed is
in scoring.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import numpy as np  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402

from humanclap import load_clap, relate, score_pairs  # noqa: E402
from humanclap.audio import load_audio  # noqa: E402
from humanclap.clap.fast_cpu import OneDnnLinear  # noqa: E402
from humanclap.clap.laion import to_clapmodel  # noqa: E402

CLIPS_PER_CAPTION = 3
A, B, C = "A laion-clap, README", "B laion-clap, no_grad", "C as B, each caption once"
HF, PT, FOLDER = "transformers", "humanclap, .pt", "humanclap, ClapModel"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=48, help="pairs per round, a multiple of 3 (default: 48)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each row is timed (default: 2)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    arguments = parser.parse_args()
    if arguments.pairs < 1 or arguments.pairs % CLIPS_PER_CAPTION:
        parser.error(f"--pairs is {arguments.pairs}; it must be a multiple of {CLIPS_PER_CAPTION}")
    full_size = importlib.import_module("full_size")  # of tests/: real formats, real sizes, random weights
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        root, captions = Path(folder), _captions()
        with full_size.serving(full_size.hub(root, captions)):
            checkpoint = full_size.laion_checkpoint(root)
            sources = {PT: checkpoint, FOLDER: root / "clapmodel"}
            to_clapmodel(checkpoint, sources[FOLDER])
            paths, texts = _pairs(root / "clips", captions, 1_002 if arguments.memory else arguments.pairs)
            if arguments.memory:
                print(*_memory(sources[FOLDER], paths, texts, arguments.device), sep="\n")
                return
            upstream = full_size.upstream_laion(checkpoint).to(arguments.device)
            rows = _rows(root / "cache", sources, upstream, arguments.device, paths, texts)
            times, scores = _take_turns(rows, arguments)
            lines = [_heading(arguments), *_table(times, scores, len(texts))]
            print(*lines, *(_per_clip(sources, paths) if arguments.device == "cpu" else []), sep="\n")


# --- the material ---------------------------------------------------------------------------------------


def _captions() -> list[str]:
    root = os.environ.get("HUMANCLAP_RELATE")
    if not root:
        sys.exit("set HUMANCLAP_RELATE to the folder that holds RELATE's scores/REL.csv")
    return sorted(set(relate.load_ratings(Path(root) / "scores" / "REL.csv")["text"]))


def _pairs(folder: Path, captions: list[str], n_pairs: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Clips of noise with slow changes, and captions drawn from RELATE's, each with three clips."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(captions, n_pairs // CLIPS_PER_CAPTION, replace=False)
    paths = []
    for number in range(n_pairs):
        envelope = np.interp(np.arange(160_000), np.arange(0, 160_001, 8_000), rng.uniform(0.01, 0.3, 21))
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], (envelope * rng.standard_normal(160_000)).clip(-1, 1), 16_000)
    return [str(path) for path in paths], [str(text) for text in np.repeat(chosen, CLIPS_PER_CAPTION)]


# --- the rows -------------------------------------------------------------------------------------------


def _rows(cache: Path, sources: dict, upstream, device: str, names: list[str], texts: list[str]) -> dict:
    """Each row's name, and a call that returns the cosines of the first n pairs."""
    processor, model = _transformers(sources[FOLDER], device)

    def ours(kind, precision="fp32", cache_dir=None):
        clap = load_clap(sources[kind], device=device, precision=precision)
        return lambda n: score_pairs(clap, names[:n], texts[:n], progress=False, cache_dir=cache_dir)[
            "cosine"
        ].to_numpy()

    no_grad, cached = torch.no_grad(), ours(FOLDER, cache_dir=cache)
    cached(len(names))
    return {
        A: lambda n: _laion(upstream, names[:n], texts[:n], batch_size=48),
        B: no_grad(lambda n: _laion(upstream, names[:n], texts[:n], batch_size=16)),
        C: no_grad(lambda n: _laion(upstream, names[:n], texts[:n], batch_size=16, once=True)),
        HF: no_grad(lambda n: _hugging_face(processor, model, names[:n], texts[:n])),
        PT: ours(PT),
        FOLDER: ours(FOLDER),
        f"{PT}, bf16": ours(PT, "bf16"),
        f"{FOLDER}, bf16": ours(FOLDER, "bf16"),
        f"{FOLDER}, from the cache": cached,
    }


def _laion(module, names: list[str], texts: list[str], batch_size: int, once: bool = False) -> np.ndarray:
    """laion_clap's own calls; the cosine of its normalised embeddings."""
    asked = list(dict.fromkeys(texts)) if once else texts
    audio = [module.get_audio_embedding_from_filelist(batch) for batch in _batches(names, batch_size)]
    text = [module.get_text_embedding(batch) for batch in _batches(asked, batch_size)]
    found = np.concatenate(text)[[asked.index(one) for one in texts] if once else slice(None)]
    return (np.concatenate(audio) * found).sum(axis=1)


def _transformers(folder: Path, device: str):
    from transformers import ClapModel, ClapProcessor

    return ClapProcessor.from_pretrained(folder), ClapModel.from_pretrained(folder).eval().to(device)


def _hugging_face(processor, model, names: list[str], texts: list[str]) -> np.ndarray:
    """transformers' processor and model, 16 pairs per call; it leaves decoding and resampling to its user."""
    rows = []
    for some, captions in zip(_batches(names, 16), _batches(texts, 16), strict=True):
        audio = [load_audio(name, 48_000) for name in some]
        given = {"text": captions, "audio": audio, "sampling_rate": 48_000}
        inputs = processor(**given, return_tensors="pt", padding=True)
        out = model(**inputs.to(model.device))
        rows.append((out.audio_embeds * out.text_embeds).sum(dim=1).cpu().numpy())
    return np.concatenate(rows)


def _batches(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _take_turns(rows: dict, arguments: argparse.Namespace):
    """Seconds of each row in each round, one row after the other: wall and processor time; and its scores."""
    for call in rows.values():
        call(2 * CLIPS_PER_CAPTION)  # the first call pays for pages and kernels
    times, scores = {name: [] for name in rows}, {}
    for _ in range(arguments.rounds):
        for name, call in rows.items():
            start = time.perf_counter(), time.process_time()
            scores[name] = call(arguments.pairs)
            times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return times, scores


# --- what is printed ------------------------------------------------------------------------------------


def _heading(arguments) -> str:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    cpu = f"{(named or [platform.machine()])[0]}, {torch.get_num_threads()} threads"
    where = cpu if arguments.device == "cpu" else torch.cuda.get_device_name()
    return (
        f"# Scoring, beside the upstream packages\n\nPrinted by `python benchmarks/scoring.py` on {where}, "
        f"torch {torch.__version__}, Python {platform.python_version()}. HTSAT-tiny and RoBERTa at full size "
        f"with random weights, {arguments.pairs} pairs (10 s clips at 16 kHz, three per caption; RELATE's "
        f"captions), {arguments.rounds} rounds in which the rows take turns; ratios are medians over rounds. "
        "Other work on the machine slows every row, and those whose threads wait for each other most, which "
        "the processor time shows less.\n"
    )


def _table(times: dict, scores: dict, n_pairs: int) -> list[str]:
    """Wall and processor time per pair, both as ratios to A and B, and how far the scores are from A's."""
    names = ("ms per pair", "times A", "times B", "CPU ms per pair", "CPU times A", "CPU times B")
    lines = [f"| | {' | '.join(names)} | largest difference of a cosine from A |", "|---" * 8 + "|"]
    for name in times:
        cells = []
        for clock in (0, 1):
            own = np.array(times[name])[:, clock]
            ratios = [statistics.median(np.array(times[base])[:, clock] / own) for base in (A, B)]
            cells += [f"{1000 * statistics.median(own) / n_pairs:.4g}", *(f"{ratio:.3g}" for ratio in ratios)]
        error = np.abs(scores[name] - scores[A]).max()
        lines.append(f"| {name} | {' | '.join(cells)} | {error:.0e} |")
    return [
        *lines,
        "",
        "A: `CLAP_Module` as its README shows it, 48 pairs per call, every caption as often as it comes. B: "
        "the same under `no_grad`, 16 per call. transformers: its processor and model, 16 per call, `no_grad`. "
        "laion-clap and the rows on the .pt hear a clip through 16 bits, transformers and the ClapModel rows "
        "do not, hence their difference.",
        "",
    ]


def _per_clip(sources: dict[str, Path], names: list[str]) -> list[str]:
    """Processor time per clip on one core, with the linear layers of fast_cpu and with torch's own."""
    lines, n_threads, some = [], torch.get_num_threads(), names[:4]
    torch.set_num_threads(1)
    try:
        for kind, source in sources.items():
            clap = load_clap(source, device="cpu")
            batch = clap.audio_features(some)
            features, plain = _best(lambda: clap.audio_features(some)), _best(lambda: clap.embed_features(batch))
            with OneDnnLinear():
                fast = _best(lambda: clap.embed_features(batch))
            shown = " | ".join(f"{1000 * seconds / len(some):.0f}" for seconds in (features + fast, features + plain))
            lines.append(f"| {kind} | {shown} |")
    finally:
        torch.set_num_threads(n_threads)
    return [
        "## What the linear layers save", "",
        "Processor milliseconds per clip (decoding, log-mel, audio tower), on one core, in batches of four:", "",
        "| | oneDNN (`clap/fast_cpu.py`) | MKL (torch's default) |", "|---|---|---|", *lines,
    ]  # fmt: skip


def _best(call, n: int = 4) -> float:
    """The least processor time of several calls, in seconds: other work on the machine only adds to one."""
    times = []
    for _ in range(n):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def _memory(folder: Path, names: list[str], texts: list[str], device: str) -> list[str]:
    """Peak memory of a process that scores 100 clips and of one that scores 1,000, at full size."""
    peaks = []
    for n in (100, 1_000):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks.append(pool.apply(_peak, (str(folder), names[:n], texts[:n], device)))
    return [
        "## Memory",
        "",
        f"Peak resident memory of a process that scores 100 clips (ClapModel, full size, {device}): "
        f"{peaks[0]:.0f} MB. 1,000 clips: {peaks[1]:.0f} MB, {peaks[1] / peaks[0] - 1:+.1%}.",
    ]


def _peak(folder: str, names: list[str], texts: list[str], device: str) -> float:
    with contextlib.redirect_stderr(io.StringIO()):
        score_pairs(load_clap(folder, device=device), names, texts, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024**2)


if __name__ == "__main__":
    main()
