"""How long scoring takes beside laion-clap and transformers: full-size random weights, RELATE's captions.

    python benchmarks/scoring.py                  # the times: about 4 minutes on 2 idle cores
    python benchmarks/scoring.py --memory         # the peak memory at 100 and at 1,000 clips: about 2 minutes
    python benchmarks/scoring.py --device cuda    # the times on a GPU

Everything is timed in one run, the rows take turns, and building a model is left out on all sides and printed
apart. Captions come from RELATE's REL.csv (HUMANCLAP_RELATE), clips are synthetic: 10 s at 16 kHz, three a
caption. What both commands printed is in scoring.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import numpy as np  # noqa: E402
import scoring_report as report  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402

from humanclap import load_clap, relate, score_pairs  # noqa: E402
from humanclap.audio import load_audio  # noqa: E402
from humanclap.clap.convert import to_clapmodel  # noqa: E402

full_size = importlib.import_module("full_size")  # of tests/: real formats, real sizes, random weights

CLIPS_A_CAPTION = 3
A, B, C = "A laion-clap, README", "B laion-clap, no_grad", "C as B, each caption once"
HF, PT, FOLDER = "transformers", "humanclap, .pt", "humanclap, ClapModel"


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        root = Path(folder)
        captions = _captions()
        with full_size.serving(full_size.hub(root, captions)):
            checkpoint = full_size.laion_checkpoint(root)
            sources = {PT: checkpoint, FOLDER: root / "clapmodel"}
            paths, texts = _pairs(root / "clips", captions, 1_002 if arguments.memory else arguments.pairs)
            if arguments.memory:
                to_clapmodel(checkpoint, sources[FOLDER])
                print(*report.memory(sources[FOLDER], paths, texts, arguments.device), sep="\n")
                return
            rows, built = _rows(root, sources, arguments.device, paths, texts)
            times, scores = _take_turns(rows, arguments)
            lines = [report.heading(arguments), *report.table(times, scores, len(texts), A, B)]
            print(*lines, *report.built_in(built), sep="\n")
            if arguments.device == "cpu":
                print(*report.where_the_time_goes(sources, paths, times, len(texts)), sep="\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=48, help="pairs a round, a multiple of 3 (default: 48)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each row is timed (default: 2)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    arguments = parser.parse_args()
    if arguments.pairs < 1 or arguments.pairs % CLIPS_A_CAPTION:
        parser.error(f"--pairs is {arguments.pairs}; it must be a multiple of {CLIPS_A_CAPTION}")
    return arguments


# --- the material ---------------------------------------------------------------------------------------


def _captions() -> list[str]:
    root = os.environ.get("HUMANCLAP_RELATE")
    if not root:
        sys.exit("set HUMANCLAP_RELATE to the folder that holds RELATE's scores/REL.csv")
    return sorted(set(relate.load_ratings(Path(root) / "scores" / "REL.csv")["text"]))


def _pairs(folder: Path, captions: list[str], n_pairs: int, seed: int = 0) -> tuple[list[Path], list[str]]:
    """Clips of noise with slow changes, and captions drawn from RELATE's, each with three clips."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(captions, n_pairs // CLIPS_A_CAPTION, replace=False)
    paths = []
    for number in range(n_pairs):
        envelope = np.interp(np.arange(160_000), np.arange(0, 160_001, 8_000), rng.uniform(0.01, 0.3, 21))
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], (envelope * rng.standard_normal(160_000)).clip(-1, 1), 16_000)
    return paths, [str(text) for text in np.repeat(chosen, CLIPS_A_CAPTION)]


# --- the rows -------------------------------------------------------------------------------------------


def _rows(root: Path, sources: dict, device: str, paths: list[Path], texts: list[str]):
    """Each row's name and a call that scores all pairs, and how long its models took to build."""
    names, built = [str(path) for path in paths], {}

    def build(what, make):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            made = make()
        built[what] = time.perf_counter() - start
        return made

    checkpoint = sources[PT]
    upstream = build("laion-clap", lambda: full_size.upstream_laion(checkpoint)).to(device)
    folder = build(".pt to ClapModel folder", lambda: to_clapmodel(checkpoint, sources[FOLDER]))
    processor, model = build("transformers", lambda: _transformers(folder, device))
    claps = {}
    for kind, source in sources.items():
        for precision in ("fp32", "bf16"):
            opened = partial(load_clap, source, device=device, precision=precision)
            claps[kind, precision] = build(f"{kind}, {precision}", opened)
    cache = root / "cache"

    def ours(kind, n, precision="fp32", cache_dir=None):
        table = score_pairs(claps[kind, precision], names[:n], texts[:n], progress=False, cache_dir=cache_dir)
        return table["cosine"].to_numpy()

    no_grad = torch.no_grad()
    rows = {
        A: lambda n: _laion(upstream, names[:n], texts[:n], batch_size=48),
        B: no_grad(lambda n: _laion(upstream, names[:n], texts[:n], batch_size=16)),
        C: no_grad(lambda n: _laion(upstream, names[:n], texts[:n], batch_size=16, once=True)),
        HF: no_grad(lambda n: _hugging_face(processor, model, names[:n], texts[:n])),
        PT: lambda n: ours(PT, n),
        FOLDER: lambda n: ours(FOLDER, n),
        f"{PT}, bf16": lambda n: ours(PT, n, "bf16"),
        f"{FOLDER}, bf16": lambda n: ours(FOLDER, n, "bf16"),
        f"{FOLDER}, from the cache": lambda n: ours(FOLDER, n, cache_dir=cache),
    }
    ours(FOLDER, len(names), cache_dir=cache)
    return rows, built


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
    """transformers' processor and model, 16 pairs a call; it leaves decoding and resampling to its user."""
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
        call(2 * CLIPS_A_CAPTION)  # the first call pays for pages and kernels
    times, scores = {name: [] for name in rows}, {}
    for _ in range(arguments.rounds):
        for name, call in rows.items():
            start = time.perf_counter(), time.process_time()
            scores[name] = call(arguments.pairs)
            times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return times, scores


if __name__ == "__main__":
    main()
