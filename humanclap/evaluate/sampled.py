"""Every run of every model in every cell, at full weight and on one shared set of resamples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from .cells import MIN_PAIRS, WITHIN, Cell, make_cells, system_order
from .checks import PAIR
from .correlation import METRICS
from .intervals import Estimate
from .resamples import ResamplePlan, Whole
from .weighted import WeightedCorrelations, check_metrics
from .wide import Wide

MOST_THREADS = 8  # each holds a chunk of resamples: some 30 MB at RELATE's size


@dataclass(frozen=True)
class SampledCell:
    """One cell: name, n, note, and per metric values [R], samples [R, B] and, for BCa, jackknife [R, G].

    computed: False where the cell must stay empty, for the reason in `note`.
    """

    name: str
    n: int
    note: str
    computed: bool
    values: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]
    jackknife: dict[str, np.ndarray] = field(default_factory=dict)

    def estimate(self, metric: str, runs: np.ndarray) -> Estimate:
        """Mean of the metric over `runs` (the seeds of one model), in each resample the same."""
        jackknife = self.jackknife[metric][runs].mean(axis=0) if self.jackknife else None
        return Estimate(float(self.values[metric][runs].mean()), self.samples[metric][runs].mean(axis=0), jackknife)

    def seed_sd(self, metric: str, runs: np.ndarray) -> float:
        """SD (n - 1) of the metric over `runs`; NaN for one."""
        return float(self.values[metric][runs].std(ddof=1)) if len(runs) > 1 else np.nan

    def notes(self, metric: str, *runs: np.ndarray, also: str = "") -> str:
        """What there is to say about the metric of one model's `runs` (of each of several models) here, in one line."""
        notes = [self.note]
        for rows in runs if self.computed else ():
            undefined = int(np.isnan(self.values[metric][rows]).sum())
            if undefined:
                some = f" in {undefined} of {len(rows)} training seeds" if undefined < len(rows) else ""
                notes.append(f"constant score or target{some}")
        return "; ".join(dict.fromkeys(note for note in (*notes, also) if note))


def default_metrics(metrics: Sequence[str] | None, by: str) -> tuple[str, ...]:
    """The metrics asked for; None: all four overall, srcc elsewhere. ValueError for an unknown one."""
    return check_metrics(metrics if metrics is not None else METRICS if by == "overall" else ("srcc",))


def sample_cells(
    wide: Wide, by: str, cut: float, metrics: tuple[str, ...], groups: str | None,
    n_resamples: int, seed: int, jackknife: bool,
) -> list[SampledCell]:
    """Values and samples of `wide.scores` [R, n] in every cell of `by`; resamples are drawn once for all of them.

    by "system" ends with "within systems": the mean of the systems' values weighted by their numbers of pairs,
    in each resample by the resample's own numbers.
    """
    labels = pd.MultiIndex.from_frame(wide.pairs[PAIR]) if groups is None else wide.pairs[groups]
    plan = ResamplePlan.draw(labels, len(wide.pairs), n_resamples, seed)
    plans = {"values": Whole(len(wide.pairs)), "samples": plan}
    if jackknife:
        plans["jackknife"] = plan.leave_one_out()
    cells = [_marked(cell) for cell in make_cells(wide.pairs, by, cut)]
    engines = {
        cell.name: (cell.rows, WeightedCorrelations(wide.scores[:, cell.rows], wide.target[cell.rows], metrics))
        for cell in cells if not cell.note
    }
    if by == "system":
        cells.append(_within_cell(wide.pairs, cells))
    parts = _system_names(wide.pairs) if by == "system" else []
    sampled = {kind: _over(each, engines, parts) for kind, each in plans.items()}
    empty = {kind: np.full((len(wide.scores), each.n_resamples), np.nan) for kind, each in plans.items()}
    rows = []
    for cell in cells:
        found = {kind: each.get(cell.name, dict.fromkeys(metrics, empty[kind])) for kind, each in sampled.items()}
        found["values"] = {metric: values[:, 0] for metric, values in found["values"].items()}
        rows.append(SampledCell(cell.name, int(cell.rows.sum()), cell.note, cell.name in sampled["values"], **found))
    return rows


def _over(plan, engines: dict, parts: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Each cell's metrics [R, B] over a plan, and within systems from those of `parts` that could be computed."""
    sizes = {name: np.empty(plan.n_resamples) for name in engines}
    sampled = {
        name: {m: np.empty((len(engine.scores), plan.n_resamples)) for m in engine.metrics}
        for name, (_, engine) in engines.items()
    }

    def fill(task: tuple[str, slice]) -> None:
        name, span = task
        rows, engine = engines[name]
        weights = plan.weights(span.start, span.stop, rows)
        sizes[name][span] = weights.sum(axis=0)
        for metric, value in engine(weights).items():
            sampled[name][metric][:, span] = value

    # numpy lets go of the interpreter in its loops, and each task writes to a place of its own
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, [(name, span) for name in engines for span in plan.spans()]))
    parts = [part for part in parts if part in engines]
    if parts:
        drawn = np.stack([sizes[part] for part in parts])
        each = {m: np.stack([sampled[part][m] for part in parts]) for m in sampled[parts[0]]}  # [systems, R, B]
        # one system undefined in a resample (or not drawn: 0 · NaN) leaves the mean undefined there
        sampled[WITHIN] = {m: np.einsum("sb,srb->rb", drawn, e) / drawn.sum(axis=0) for m, e in each.items()}
    return sampled


def _marked(cell: Cell) -> Cell:
    """The cell, with a note where it has too few pairs for any correlation."""
    few = f"fewer than {MIN_PAIRS} pairs" if cell.rows.sum() < MIN_PAIRS else ""
    return replace(cell, note=cell.note or few)


def _within_cell(pairs: pd.DataFrame, cells: list[Cell]) -> Cell:
    """The pairs of the systems that have enough of them; a note names those that have some and too few."""
    systems = [cell for cell in cells if cell.name in _system_names(pairs)]
    rows = np.zeros(len(pairs), dtype=bool)
    for cell in systems:
        rows |= cell.rows & (not cell.note)
    if not rows.any():
        return Cell(WITHIN, rows, "no system with enough pairs")
    few = [cell.name for cell in systems if cell.note and cell.rows.any()]
    return Cell(WITHIN, rows, f"without {', '.join(few)} (fewer than {MIN_PAIRS} pairs)" if few else "")


def _system_names(pairs: pd.DataFrame) -> list[str]:
    """The single systems' cells, without "synthesized"; none where no system is known."""
    if "system" not in pairs or pairs["system"].isna().any():
        return []
    return [str(system) for system in system_order(pairs["system"].to_numpy(object))]
