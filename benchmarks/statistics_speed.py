"""How long the intervals of Tables I to III take beside the straightforward scipy loop, both in one run.

Seven models on 2,892 pairs, 2,000 resamples of captions. The pairs, captions, systems and mean ratings are those of
RELATE's test split under the paper's screening where HUMANCLAP_RELATE is set (else simulated, and said so); the
scores are synthetic. The loop writes every resample out and calls scipy on every model, cell and metric; both sides
use the same resamples, and every end of every interval must agree within 1e-9.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import numpy as np
import pandas as pd
import scipy
from scipy import stats

from humanclap import relate
from humanclap.evaluate import ResamplePlan, breakdown
from humanclap.evaluate.cells import WITHIN, make_cells

MODELS = ("laion", "msclap", "wsce+mse", "wsce+mae", "wsce", "mse", "mae")
TABLES = {"overall": ("srcc", "lcc", "ktau", "mse"), "system": ("srcc",), "score_range": ("srcc",)}
PAIRS, RESAMPLES, SEED = 2892, 2000, 0
TOLERANCE, TARGET = 1e-9, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the resamples, printed only")
    arguments = parser.parse_args()
    n_resamples = RESAMPLES // 20 if arguments.quick else RESAMPLES
    pairs, source = rated_pairs()
    table = scored(pairs)
    rows = []
    for by in TABLES:
        settings = {"by": by, "metrics": TABLES[by], "n_resamples": n_resamples, "seed": SEED}
        runs = [timed(partial(breakdown, table, **settings)) for _ in range(3)]
        found = runs[0].result
        seconds, cpu = (float(np.median([getattr(run, kind) for run in runs])) for kind in ("wall", "cpu"))
        loop = timed(partial(scipy_loop, table, pairs, by, n_resamples))
        naive = loop.result
        keys = ["model", "cell", "metric"]
        found, naive = (frame.set_index(keys)[["value", "low", "high"]] for frame in (found, naive))
        apart = float((found.loc[naive.index] - naive).abs().max(axis=None))
        if not apart <= TOLERANCE or len(found) != len(naive):
            raise SystemExit(f"{by}: intervals are apart by {apart}, {len(found)} against {len(naive)} rows")
        rows.append((by, len(naive), loop.wall, seconds, loop.cpu, cpu, apart))
        print(rows[-1], file=sys.stderr)
    text = report(rows, source, n_resamples)
    print(text)
    if not arguments.quick:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Timed:
    """What a call returned, and how long it took: on the clock, and of processor time over all threads."""

    result: pd.DataFrame
    wall: float
    cpu: float


def timed(call: Callable[[], pd.DataFrame]) -> Timed:
    """Call it once."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return Timed(result, time.perf_counter() - wall, time.process_time() - cpu)


def rated_pairs() -> tuple[pd.DataFrame, str]:
    """2,892 rated pairs, one row each, and where they are from."""
    named = os.environ.get("HUMANCLAP_RELATE")
    if named:
        ratings = relate.load_ratings(Path(named) / "scores" / "REL.csv")
        pairs = relate.aggregate_pairs(relate.screen_listeners(ratings).ratings)
        pairs = pairs[pairs["split"] == "test"].reset_index(drop=True)
        if len(pairs) != PAIRS:
            raise SystemExit(f"the test split of {named} has {len(pairs)} pairs, not {PAIRS}")
        return pairs, "RELATE's test pairs and mean ratings (paper's screening), synthetic scores"
    rng = np.random.default_rng(SEED)
    caption = np.arange(PAIRS) // 3
    place, odd = np.arange(PAIRS) % 3, caption % 2 == 1
    others = np.where(odd, np.where(place == 1, "audioldm", "tango2"), np.where(place == 1, "audioldm2", "tango"))
    systems = np.where(place == 0, "natural", others)
    rating = 5 + rng.normal(size=caption.max() + 1)[caption] + 2 * rng.normal(size=PAIRS)
    rating = np.clip(np.round(rating * 3) / 3, 0, 10)
    pairs = pd.DataFrame({"audio": [f"{i}.wav" for i in range(PAIRS)], "text": [f"caption {c}" for c in caption]})
    pairs = pairs.assign(system=systems, mean_rating=rating, target=rating / 10)
    return pairs, "simulated pairs and ratings, synthetic scores"


def scored(pairs: pd.DataFrame) -> pd.DataFrame:
    """The long score table: each model follows the ratings with noise of its own, clipped at 0 as CLAPScore is."""
    rng = np.random.default_rng(SEED)
    tables = []
    for place, model in enumerate(MODELS):
        noise = (0.5 - 0.04 * place) * rng.normal(size=len(pairs))
        tables.append(pairs.assign(model=model, clap_score=np.maximum(pairs["target"] - 0.2 + noise, 0)))
    return pd.concat(tables, ignore_index=True)


def scipy_loop(table: pd.DataFrame, pairs: pd.DataFrame, by: str, n_resamples: int) -> pd.DataFrame:
    """The same numbers the plain way: each resample written out, scipy for each model, cell and metric."""
    plan = ResamplePlan.draw(pairs["text"], n_resamples, SEED)
    target = pairs["target"].to_numpy()
    scores = {model: rows["clap_score"].to_numpy() for model, rows in table.groupby("model", sort=False)}
    cells = {cell.name: cell.rows for cell in make_cells(pairs, by)}
    functions = {
        "srcc": lambda x, y: stats.spearmanr(x, y).statistic, "lcc": lambda x, y: stats.pearsonr(x, y).statistic,
        "ktau": lambda x, y: stats.kendalltau(x, y).statistic, "mse": lambda x, y: np.mean((x - y) ** 2),
    }
    functions = {metric: functions[metric] for metric in TABLES[by]}
    systems = [name for name in cells if name not in ("synthesized", "all")]

    def everything(rows: np.ndarray) -> dict[tuple, float]:
        values, sizes = {}, {}
        for cell, inside in cells.items():
            chosen = rows[inside[rows]]
            sizes[cell] = len(chosen)
            for model, score in scores.items():
                for metric, function in functions.items():
                    values[model, cell, metric] = function(score[chosen], target[chosen])
        if by == "system":
            weights = [sizes[system] for system in systems]
            for model in scores:
                each = [values[model, system, "srcc"] for system in systems]
                values[model, WITHIN, "srcc"] = np.average(each, weights=weights)
        return values

    point = everything(np.arange(len(target)))
    samples = pd.DataFrame([everything(plan.indices(resample)) for resample in range(n_resamples)])
    rows = []
    for key, value in point.items():
        low, high = np.nanquantile(samples[key], [0.025, 0.975])
        rows.append((*key, value, low, high))
    return pd.DataFrame(rows, columns=["model", "cell", "metric", "value", "low", "high"])


def report(rows: list[tuple], source: str, n_resamples: int) -> str:
    """The table that is committed as statistics.md."""
    loop, ours, loop_cpu, ours_cpu = (sum(row[column] for row in rows) for column in range(2, 6))
    threads, load = os.environ.get("OMP_NUM_THREADS", "not set"), os.getloadavg()[0]
    names = {"overall": "I (SRCC, LCC, KTAU, MSE)", "system": "II (SRCC)", "score_range": "III (SRCC)"}
    lines = [
        "# All intervals of Tables I to III, against the scipy loop",
        "",
        f"`python benchmarks/statistics_speed.py`: {len(MODELS)} models, {PAIRS:,} pairs, {n_resamples:,} resamples of",
        f"captions; {source}. One run, the whole loop;",
        f"{os.cpu_count()} cores (humanclap uses all, the loop one), OMP_NUM_THREADS {threads}, load at the end",
        f"{load:.1f}; {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__},",
        f"scipy {scipy.__version__}.",
        "humanclap's seconds are the median of three.",
        "",
        "| table | intervals | scipy loop, s | `breakdown`, s | times as fast | processor time, s | times less |"
        " ends apart by at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total = ("all", sum(row[1] for row in rows), loop, ours, loop_cpu, ours_cpu, max(row[6] for row in rows))
    for by, count, wall, seconds, wall_cpu, cpu, apart in (*rows, total):
        lines.append(
            f"| {names.get(by, by)} | {count} | {wall:.1f} | {seconds:.2f} | {wall / seconds:.1f} | "
            f"{wall_cpu:.1f} and {cpu:.2f} | {wall_cpu / cpu:.1f} | {apart:.1e} |"
        )
    met, met_cpu = ("met" if ratio >= TARGET else "NOT met" for ratio in (loop / ours, loop_cpu / ours_cpu))
    lines += [
        "",
        f"Target: at least {TARGET} times as fast, ends equal within {TOLERANCE:g}: {met} on the clock, {met_cpu} in",
        "processor time, which does not gain from a second core and hardly from a quiet machine.",
    ]
    return "\n".join(lines) + "\n"
