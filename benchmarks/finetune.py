"""How fast fine-tuning is beside a straightforward script (tests/naive_loop.py): random weights, synthetic clips.

    python benchmarks/finetune.py                  # CPU: tiny model, a few full-size steps: about 10 minutes
    python benchmarks/finetune.py --device cuda    # one GPU, full size, every row

Rows take turns, each in a process of its own; models and features are made before the clock starts. It needs torch,
transformers and scipy; soundfile, soxr, laion-clap and msclap may be missing, as on many GPU images. What
the first command printed is in finetune.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import wave
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "benchmarks")]

import finetune_report as report  # noqa: E402
import finetune_rows as rows  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from humanclap.demo.standins import ARCHITECTURES, new_front_end, new_model, new_tokenizer  # noqa: E402

RATE, CLIPS_A_CAPTION, TINY_SECONDS = 16_000, 3, 4
WORDS = (
    "a an the dog cat bird car train engine rain wind water bell door man woman child crowd speaks barks sings runs "
    "passes rings falls laughs loud soft distant nearby then while and followed by in background with repeatedly"
).split()


def main() -> None:
    arguments = _arguments()
    print(*report.heading(arguments), sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for size in ("tiny", "full") if arguments.size == "both" else (arguments.size,):
            steps = arguments.steps or {"tiny": 48, "full": 48 if arguments.device == "cuda" else 3}[size]
            n_pairs = rows.BATCH * steps
            model, pairs = make_material(root / size, size, n_pairs)
            job = {
                "model": str(model), "pairs": str(pairs), "device": arguments.device, "steps": steps,
                "workers": arguments.workers, "cache": str(root / size / "cache"), "size": size, "warm": arguments.warm,
            }  # fmt: skip
            found = _take_turns(job, _row_names(arguments), arguments.rounds)
            print(*report.table(size, steps, found), sep="\n", flush=True)
            if size == "full":
                print(*report.floor(found, _apart(rows.floor, job)), sep="\n", flush=True)
                print(*report.paper(found, arguments.device), sep="\n", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", choices=("tiny", "full", "both"), help="default: both on the CPU, full on a GPU")
    parser.add_argument("--steps", type=int, help="a row and round; default: 48, full size on the CPU 3")
    parser.add_argument("--rounds", type=int, default=2, help="how often each row is timed (default: 2)")
    parser.add_argument("--workers", type=int, default=4, help="loader processes of row A (default: 4)")
    arguments = parser.parse_args()
    arguments.size = arguments.size or ("full" if arguments.device == "cuda" else "both")
    arguments.warm = 2 if arguments.device == "cuda" else 1
    if arguments.steps is not None and arguments.steps <= arguments.warm:
        parser.error(f"--steps is {arguments.steps}; the first {arguments.warm} are not timed, so it must be more")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; leave it out to measure on the CPU")
    return arguments


def _row_names(arguments: argparse.Namespace) -> list[str]:
    return [rows.A, rows.B, rows.ENGINE, rows.ENGINE_FP32 if arguments.device == "cuda" else rows.ENGINE_BF16]


def _take_turns(job: dict, names: list[str], n_rounds: int) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(n_rounds):
        for name in names:
            found[name].append(_apart(rows.measure, job | {"row": name}))
            print(f"{name}: {json.dumps(found[name][-1])}", file=sys.stderr, flush=True)
    return found


def _apart(function, job: dict):
    """What `function` returns, from a fresh process: its memory is its own, and nothing is warm from before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, job).result()


# --- the material ---------------------------------------------------------------------------------------


def make_material(root: Path, size: str, n_pairs: int, seed: int = 0) -> tuple[Path, Path]:
    """A random ClapModel folder of this size, and a CSV of rated pairs beside the clips it names."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    rng = np.random.default_rng(seed)
    texts = list(dict.fromkeys(" ".join(rng.choice(WORDS, rng.integers(5, 21))) for _ in range(n_pairs)))
    root.mkdir(parents=True)
    torch.manual_seed(seed)
    tokenizer = new_tokenizer(texts, 600)
    if size == "tiny":
        shape = ARCHITECTURES["laion-standin"]
        parts, seconds = (new_model(shape, len(tokenizer)), new_front_end(shape, TINY_SECONDS)), (TINY_SECONDS,)
    else:  # HTSAT-tiny with fusion and RoBERTa, as laion/clap-htsat-fused; RELATE's clips are 10.0 to 10.24 s
        audio = {"enable_fusion": True, "fusion_type": "aff_2d", "enable_patch_layer_norm": True}
        extractor = ClapFeatureExtractor(
            feature_size=64, sampling_rate=48_000, hop_length=480, max_length_s=10, fft_window_size=1024,
            frequency_min=50, frequency_max=14_000, truncation="fusion",
        )  # fmt: skip
        model = ClapModel(ClapConfig(text_config={"layer_norm_eps": 1e-5}, audio_config=audio))
        parts, seconds = (model, extractor), (10.0, 10.06, 10.24)
    for part in (*parts, tokenizer):
        part.save_pretrained(root / "model")
    table = []
    for number in range(n_pairs):
        n = round(seconds[number % len(seconds)] * RATE)
        envelope = np.interp(np.arange(n), np.linspace(0, n, 21), rng.uniform(300, 9000, 21))
        with wave.open(str(root / f"{number}.wav"), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(RATE)
            file.writeframes((envelope * rng.standard_normal(n)).clip(-32_000, 32_000).astype("<i2").tobytes())
        text = texts[number // CLIPS_A_CAPTION]
        table.append({"audio": f"{number}.wav", "text": text, "target": rng.integers(0, 11) / 10})
    pd.DataFrame(table).to_csv(root / "pairs.csv", index=False)
    return root / "model", root / "pairs.csv"


if __name__ == "__main__":
    main()
