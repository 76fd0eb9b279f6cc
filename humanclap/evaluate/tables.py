"""Tables I to III of the paper from one long score table, every number with its interval.

A long score table has one row a model and pair: model, audio, text, target (0 to 1), a score, and where
they are known system and mean_rating (0 to 10). All models and cells share one set of resamples, so
differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .bootstrap import ResamplePlan, percentile_interval, two_sided_p
from .cells import MIN_PAIRS, WITHIN, Cell, make_cells, system_cells
from .checks import PAIR, as_vector, listed
from .correlation import METRICS
from .weighted import WeightedCorrelations, check_metrics
from .wide import Wide, widen


@dataclass(frozen=True)
class _Evaluated:
    """One cell: name, n, note, and per metric values [M] and samples [M, B]."""

    name: str
    n: int
    note: str
    values: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]


def breakdown(
    table: pd.DataFrame,
    by: str = "overall",
    score: str = "clap_score",
    metrics: Sequence[str] | None = None,
    model: str = "model",
    groups: str | None = "text",
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    floor: str | None = None,
    cut: float = 5.0,
) -> pd.DataFrame:
    """Metrics of each model in each cell, with bootstrap intervals: tidy, one row a model, cell, metric.

    by: "overall" (Table I: cell "all"); "system" (Table II: each system, "synthesized" (the paper's "All"),
    "all", and "within systems", the mean of the single systems' values weighted by their numbers of pairs);
    "score_range" (Table III: mean_rating <= `cut` and above, each all, natural, synthesized). metrics:
    srcc, lcc, ktau, mse; None means all four overall and srcc elsewhere. groups: the column that is
    resampled (captions), None for pairs. floor: a column with a blind predictor's value for each pair
    (`blind_predictions`).

    Columns: model, cell, metric, value, low, high, n, n_constant, note; with `floor` also floor, its value
    in the same cell. n_constant counts resamples in which the metric is undefined; the interval leaves them
    out. A cell with fewer than 4 pairs, or where score or target is constant, stays, with NaN and a note
    that says why. ValueError: a missing column, NaN scores (counted for each model), a pair twice for one
    model, models that do not cover the same pairs, a target that differs between models.
    """
    wide = widen(table, score, model, [column for column in (groups, floor) if column])
    metrics = _metrics(metrics, by)
    plan = _plan(wide.pairs, groups, n_resamples, seed)
    scores = wide.scores
    if floor:
        scores = np.vstack([scores, as_vector(wide.pairs[floor], f"floor column {floor}")])
    rows = []
    for cell in _evaluate(scores, wide, by, cut, metrics, plan):
        for metric in metrics:
            values, samples = cell.values[metric], cell.samples[metric]
            for position, name in enumerate(wide.models):
                low, high = _interval(values[position], samples[position], level)
                row = {model: name, "cell": cell.name, "metric": metric, "value": values[position]}
                row |= {"low": low, "high": high, "n": cell.n}
                row["n_constant"] = int(np.isnan(samples[position]).sum())
                if floor:
                    row["floor"] = values[-1]
                rows.append(row | {"note": _note(cell, values[position])})
    return _by_model(rows, model, wide.models)


def compare_models(
    table: pd.DataFrame,
    baseline,
    by: str = "overall",
    score: str = "clap_score",
    metrics: Sequence[str] | None = None,
    model: str = "model",
    groups: str | None = "text",
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    cut: float = 5.0,
) -> pd.DataFrame:
    """Paired differences of each other model from `baseline`, per cell of `breakdown`, with interval and p.

    Columns: model, baseline, cell, metric, value, baseline_value, difference (value - baseline_value; for
    mse below zero is better), low, high, p (two-sided, as in `compare`; uncorrected), n, n_constant, note.
    Arguments, marks and errors as in `breakdown`; ValueError where the baseline is no model of the table.
    """
    wide = widen(table, score, model, [groups] if groups else [])
    if baseline not in wide.models:
        raise ValueError(f"baseline {baseline!r} is not in the table. Available: {listed(wide.models)}")
    metrics = _metrics(metrics, by)
    plan = _plan(wide.pairs, groups, n_resamples, seed)
    base = wide.models.index(baseline)
    rows = []
    for cell in _evaluate(wide.scores, wide, by, cut, metrics, plan):
        for metric in metrics:
            values, samples = cell.values[metric], cell.samples[metric]
            for position, name in enumerate(wide.models):
                if position == base:
                    continue
                difference = values[position] - values[base]
                differences = samples[position] - samples[base]
                low, high = _interval(difference, differences, level)
                p = two_sided_p(differences) if np.isfinite(difference) else np.nan
                rows.append({
                    model: name, "baseline": baseline, "cell": cell.name, "metric": metric,
                    "value": values[position], "baseline_value": values[base], "difference": difference,
                    "low": low, "high": high, "p": p, "n": cell.n,
                    "n_constant": int(np.isnan(differences).sum()), "note": _note(cell, difference),
                })
    if not rows:
        raise ValueError(f"the column {model} holds only {baseline!r}: nothing to compare with it")
    return _by_model(rows, model, wide.models)


def _evaluate(
    scores: np.ndarray, wide: Wide, by: str, cut: float, metrics: tuple[str, ...], plan: ResamplePlan
) -> list[_Evaluated]:
    """Values and samples of every cell; resamples are drawn once for all of them."""
    cells = make_cells(wide.pairs, by, cut)
    results = {cell.name: _empty(cell, metrics, len(scores), plan.n_resamples) for cell in cells}
    # how many pairs a resample has in each cell: the weights of "within systems"
    sizes = {cell.name: np.empty(plan.n_resamples) for cell in cells}
    for cell in cells:
        if results[cell.name].note:
            continue
        statistic = WeightedCorrelations(scores[:, cell.rows], wide.target[cell.rows], metrics)
        result = results[cell.name]
        result.values.update({m: v[:, 0] for m, v in statistic(np.ones((result.n, 1), np.float32)).items()})
        for chunk, weights in plan.chunks(cell.rows):
            sizes[cell.name][chunk] = weights.sum(axis=0)
            for metric, value in statistic(weights).items():
                result.samples[metric][:, chunk] = value
    evaluated = list(results.values())
    if by == "system":
        evaluated.append(_within_systems(wide, results, sizes, metrics))
    return evaluated


def _within_systems(wide: Wide, results: dict, sizes: dict, metrics: tuple[str, ...]) -> _Evaluated:
    """Mean of the systems' values weighted by n, in each resample by the resample's own numbers of pairs."""
    names = []
    if "system" in wide.pairs and not wide.pairs["system"].isna().any():
        systems = system_cells(wide.pairs["system"].to_numpy(object))
        names = [cell.name for cell in systems if cell.name != "synthesized"]
    cells = [results[name] for name in names if not results[name].note]
    if not cells:
        nobody = Cell(WITHIN, np.zeros(len(wide.pairs), dtype=bool), "no system with enough pairs")
        return _empty(nobody, metrics, len(wide.scores), next(iter(sizes.values())).size)
    weight = np.array([cell.n for cell in cells], float)
    drawn = np.stack([sizes[cell.name] for cell in cells])
    values, samples = {}, {}
    for metric in metrics:
        values[metric] = weight @ np.stack([cell.values[metric] for cell in cells]) / weight.sum()
        each = np.stack([cell.samples[metric] for cell in cells])  # [systems, M, B]
        # one system undefined in a resample (or not drawn: 0 · NaN) leaves the mean undefined there
        samples[metric] = np.einsum("sb,smb->mb", drawn, each) / drawn.sum(axis=0)
    left_out = [name for name in names if results[name].note and results[name].n]
    note = f"without {', '.join(left_out)} (fewer than {MIN_PAIRS} pairs)" if left_out else ""
    return _Evaluated(WITHIN, int(weight.sum()), note, values, samples)


def _empty(cell: Cell, metrics: tuple[str, ...], n_models: int, n_resamples: int) -> _Evaluated:
    """A cell with nothing computed yet; its note says why it must stay so."""
    n = int(cell.rows.sum())
    note = cell.note or (f"fewer than {MIN_PAIRS} pairs" if n < MIN_PAIRS else "")
    return _Evaluated(
        cell.name, n, note, {m: np.full(n_models, np.nan) for m in metrics},
        {m: np.full((n_models, n_resamples), np.nan) for m in metrics},
    )


def _interval(value: float, samples: np.ndarray, level: float) -> tuple[float, float]:
    """The samples' interval; none where the value itself is undefined, though some resamples may not be."""
    low, high = percentile_interval(samples, level)
    return (low, high) if np.isfinite(value) else (np.nan, np.nan)


def _note(cell: _Evaluated, value: float) -> str:
    return cell.note or ("" if np.isfinite(value) else "constant score or target")


def _metrics(metrics: Sequence[str] | None, by: str) -> tuple[str, ...]:
    return check_metrics(metrics if metrics is not None else METRICS if by == "overall" else ("srcc",))


def _plan(pairs: pd.DataFrame, groups: str | None, n_resamples: int, seed: int) -> ResamplePlan:
    labels = pd.MultiIndex.from_frame(pairs[PAIR]) if groups is None else pairs[groups]
    return ResamplePlan.draw(labels, len(pairs), n_resamples, seed)


def _by_model(rows: list[dict], model: str, models: list) -> pd.DataFrame:
    """Rows of one model together, in the order of the table; cells and metrics as they came."""
    return pd.DataFrame(sorted(rows, key=lambda row: models.index(row[model])))
