"""What benchmarks/finetune.py prints: the tables, the floor, the paper's trainings."""

from __future__ import annotations

import contextlib
import platform
import statistics
from pathlib import Path

import torch
from finetune_rows import BATCH, ENGINE, PAPER_EPOCHS, PAPER_TRAIN, PAPER_VALIDATION, A, B

from humanclap.losses import KINDS

GPU_COMMAND = "`python benchmarks/finetune.py --device cuda`"
EXPECTED_TFLOP = 0.4


def heading(arguments) -> list[str]:
    import transformers

    where = (
        torch.cuda.get_device_name()
        if arguments.device == "cuda"
        else f"{processor()}, {torch.get_num_threads()} threads"
    )
    lines = [
        "# Fine-tuning, beside a straightforward script",
        "",
        f"Printed by `python benchmarks/finetune.py{_options(arguments)}` on **{where}**, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}. Random weights, synthetic clips, "
        f"batches of {BATCH}, loss wSCE + MAE, dropout on. Rows take turns, each in a process of its own; ratios are "
        f"medians over rounds ({arguments.rounds}); the first {arguments.warm} steps of a row are not timed, nor is what is made "
        "before it: models, and for B and humanclap the features. Other work on the machine slows every row, which the "
        "processor time shows less.",
        "",
        "A: a loop over transformers' model in float32 with torch's AdamW, its clips read, resampled and made "
        f"features of by {arguments.workers} loader processes. B: the same loop, features made ahead. Both are "
        "tests/naive_loop.py, which the engine's tests compare it with.",
        "",
    ]
    if arguments.device == "cpu":
        lines += [f"**Not measured on a GPU.** The command for one: {GPU_COMMAND}", ""]
    return lines


def _options(arguments) -> str:
    given = {"device": arguments.device} if arguments.device != "cpu" else {}
    given |= {"steps": arguments.steps} if arguments.steps else {}
    given |= {"rounds": arguments.rounds} if arguments.rounds != 2 else {}
    return "".join(f" --{name} {value}" for name, value in given.items())


def table(size: str, steps: int, found: dict[str, list[dict]]) -> list[str]:
    """Milliseconds a step, ratios to A and B in each round, and memory."""
    name = {"tiny": "The demo's tiny model", "full": "Full size (HTSAT-tiny with fusion, RoBERTa-base)"}[size]
    gpu = any("gpu_memory" in one for one in found[A])
    memory = "peak GPU memory, MB (reserved)" if gpu else "peak resident memory, MB"
    lines = [
        f"## {name}, {steps} steps", "",
        f"| | ms a step | steps a second | times A | times B | CPU ms a step | CPU times B | {memory} |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row, rounds in found.items():
        seconds = [one["seconds"] for one in rounds]
        ratios = [
            statistics.median(base["seconds"] / own for base, own in zip(found[name], seconds, strict=True))
            for name in (A, B)
        ]
        own, processor = (statistics.median(one[clock] for one in rounds) for clock in ("seconds", "cpu_seconds"))
        spared = statistics.median(
            base["cpu_seconds"] / one["cpu_seconds"] for base, one in zip(found[B], rounds, strict=True)
        )
        held = max(one["gpu_memory" if gpu else "memory"] for one in rounds)
        shown = f"{held:,.0f}" + (f" ({max(one['gpu_reserved'] for one in rounds):,.0f})" if gpu else "")
        label = row + (f" ({rounds[0]['precision']})" if row == ENGINE else "")
        wall = f"{1000 * own:.4g} | {1 / own:.3g} | {ratios[0]:.3g} | {ratios[1]:.3g}"
        lines.append(f"| {label} | {wall} | {1000 * processor:.4g} | {spared:.3g} | {shown} |")
    return [*lines, "", "CPU: of the training process alone, so A without its loaders.", ""]


def floor(found: dict, floor: dict) -> list[str]:
    """How far a step is from the device's matrix rate."""
    flop, own = floor["flop"], statistics.median(one["seconds"] for one in found[ENGINE])
    precision = found[ENGINE][0]["precision"]
    used = "bfloat16" if precision == "bf16" else "float32"
    rate = floor["rates"][used]
    rates = ", ".join(f"{value / 1e12:.3g} TFLOP/s in {name}" for name, value in floor["rates"].items())
    rows, width = floor["tokens"]
    lines = [
        "### Distance from the floor", "",
        f"A step is {flop / 1e12:.3g} TFLOP: every matrix product, convolution and attention of forward and backward pass "
        f"as torch's FlopCounterMode counts them while they run (batch of {rows} clips and captions, {width} tokens wide; "
        f"about {EXPECTED_TFLOP} was expected). Large square products run at {rates} here. At that rate in {used} the step "
        f"would take {1000 * flop / rate:.3g} ms; it takes {1000 * own:.4g} ms: **{flop / rate / own:.0%} of the matrix "
        "rate**.",
        "",
    ]  # fmt: skip
    return lines


def paper(found: dict, device: str) -> list[str]:
    """Five variants x 50 epochs x 1,925 pairs, projected."""
    steps = -(-PAPER_TRAIN // BATCH) * PAPER_EPOCHS * len(KINDS)
    validated = PAPER_VALIDATION * (PAPER_EPOCHS + 1) * len(KINDS)
    lines = [
        "### The paper's five trainings", "",
        f"{len(KINDS)} variants x {PAPER_EPOCHS} epochs x {PAPER_TRAIN:,} pairs are {steps:,} steps, with {PAPER_VALIDATION} "
        "validation pairs after each epoch. Projected from the table, without reading the audio once (humanclap and B):", "",
        "| | hours |", "|---|---|",
    ]  # fmt: skip
    for row, rounds in found.items():
        seconds = steps * statistics.median(one["seconds"] for one in rounds)
        validation = statistics.median(one.get("validation_seconds", 0.0) for one in rounds) * validated
        note = "" if validation else " (without validation)"
        lines.append(f"| {row}{note} | {(seconds + validation) / 3600:,.3g} |")
    if device == "cuda":
        peak = max(rounds["gpu_memory"] for rounds in found[ENGINE])
        lines += ["", f"Memory of the GPU: {peak:,.0f} MB at most; features stay in main memory."]
    return [*lines, ""]


def processor() -> str:
    """The CPU's name, as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
