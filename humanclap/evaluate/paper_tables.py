"""Tables I to III as one tidy frame each: value, interval, floor, ceiling, difference from the baseline, mark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .checks import need_columns
from .intervals import Estimate, check_interval
from .sampled import SampledCell, default_metrics, sample_cells
from .significance import check_correction
from .tables import by_model, need_baseline, with_floor, with_holm

FAMILIES = {"overall": "Table I", "system": "Table II", "score_range": "Table III"}
BETTER, WORSE, ABOVE_FLOOR = "*", "‡", "†"
SMALLER_IS_BETTER = ("mse",)


def paper_table(
    scores: pd.DataFrame,
    by: str = "overall",
    baseline: str = "laion-clap",
    floor: str | None = None,
    ceilings: pd.DataFrame | None = None,
    score: str = "clap_score",
    metrics: Sequence[str] | None = None,
    model: str = "model",
    groups: str | None = "text",
    n_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    cut: float = 5.0,
    interval: str = "percentile",
    family: str | None = None,
    correct: bool = True,
) -> pd.DataFrame:
    """One of the paper's tables, or another breakdown, from a long score table: a row a model, cell and metric.

    by, score, metrics, groups, level, cut, interval: as in `breakdown`; Table II has SRCC "within systems"
    beside "all". baseline: the model that the others are compared with. floor: a column with a blind
    predictor's value for each pair, or a model of the table that never listens; it has no rows of its own and
    stands in no comparison. ceilings: frame with cell, metric, ceiling (one row each). family: name of the
    family of Holm's correction, which is all differences from the baseline in this table; None: "Table I",
    "Table II", "Table III", or the name of the breakdown. correct: False leaves the correction and its
    marks out, and then n_resamples may be below 10,000.

    Columns: model, cell, metric, value (mean over training seeds), low, high, n, n_constant, n_seeds, seed_sd
    as in `breakdown`; floor, ceiling (NaN where not known); difference from the baseline with diff_low,
    diff_high (paired), p (uncorrected), p_holm; floor_diff_low, floor_diff_high, the paired interval of the
    difference from the floor; mark; family; baseline, groups ("pairs" for None), n_resamples, level, interval;
    note. The mark holds
    - "*": better than the baseline, p_holm < 1 - level;
    - "‡": worse than the baseline, p_holm < 1 - level;
    - "†": the paired interval of the difference from the floor lies on the better side of zero (uncorrected).
    Better is smaller for mse, else larger. ValueError as `breakdown` and `compare_models`.
    """
    if correct:
        check_correction(n_resamples)
    jackknife = check_interval(interval)
    metrics = default_metrics(metrics, by)
    ceiling_of = _ceilings(ceilings)
    wide, blind = with_floor(scores, score, model, groups, floor)
    need_baseline(wide, baseline, model)
    base = wide.rows(baseline)
    rows = []
    for cell in sample_cells(wide, by, cut, metrics, groups, n_resamples, seed, jackknife):
        for metric in metrics:
            for name in wide.models:
                runs = wide.rows(name)
                row = {model: name, "cell": cell.name, "metric": metric}
                row |= _row(cell, metric, runs, base if name != baseline else None, blind, level)
                row["ceiling"] = ceiling_of.get((cell.name, metric), np.nan)
                rows.append(row)
    table = by_model(rows, model, wide.models).assign(
        baseline=baseline, groups=groups or "pairs", n_resamples=n_resamples, level=level, interval=interval
    )
    family = family or FAMILIES.get(by, by)
    table = with_holm(table, family) if correct else table.assign(p_holm=np.nan, family="")
    table["mark"] = _marks(table, 1 - level)
    return table[[
        model, "cell", "metric", "value", "low", "high", "n", "n_constant", "n_seeds", "seed_sd", "floor", "ceiling",
        "difference", "diff_low", "diff_high", "p", "p_holm", "floor_diff_low", "floor_diff_high", "mark", "family",
        "baseline", "groups", "n_resamples", "level", "interval", "note",
    ]]


def _row(
    cell: SampledCell, metric: str, runs: np.ndarray, base: np.ndarray | None, blind: np.ndarray | None, level: float
) -> dict:
    """The numbers of one model in one cell."""
    value = cell.estimate(metric, runs)
    ends = value.ends(level)
    nothing = Estimate(np.nan, np.full_like(value.samples, np.nan))
    difference = nothing if base is None else value - cell.estimate(metric, base)
    over_floor = nothing if blind is None else value - cell.estimate(metric, blind)
    between, above = difference.ends(level), over_floor.ends(level)
    compared = (runs,) if base is None else (runs, base)
    notes = [note for note in (ends.note, f"difference: {between.note}" if between.note else "") if note]
    return {
        "value": value.value, "low": ends.low, "high": ends.high, "n": cell.n, "n_constant": value.n_undefined,
        "n_seeds": len(runs), "seed_sd": cell.seed_sd(metric, runs),
        "floor": np.nan if blind is None else cell.estimate(metric, blind).value,
        "difference": difference.value, "diff_low": between.low, "diff_high": between.high, "p": difference.p(),
        "floor_diff_low": above.low, "floor_diff_high": above.high,
        "note": cell.notes(metric, *compared, also="; ".join(notes)),
    }


def _marks(table: pd.DataFrame, alpha: float) -> pd.Series:
    """"*", "‡" and "†" of each row, as `paper_table` says."""
    sign = np.where(table["metric"].isin(SMALLER_IS_BETTER), -1, 1)
    differs = table["p_holm"] < alpha
    nearer_end = np.where(sign > 0, table["floor_diff_low"], -table["floor_diff_high"])
    marks = pd.Series("", index=table.index)
    marks += np.where(differs & (sign * table["difference"] > 0), BETTER, "")
    marks += np.where(differs & (sign * table["difference"] < 0), WORSE, "")
    return marks + np.where(nearer_end > 0, ABOVE_FLOOR, "")


def _ceilings(ceilings: pd.DataFrame | None) -> dict[tuple, float]:
    """(cell, metric) -> ceiling; ValueError for a missing column or a cell and metric that stand twice."""
    if ceilings is None:
        return {}
    need_columns(ceilings, "ceilings", ("cell", "metric", "ceiling"))
    keys = ["cell", "metric"]
    if ceilings.duplicated(keys).any():
        twice = ceilings.loc[ceilings.duplicated(keys), keys].iloc[0]
        raise ValueError(f"ceilings has cell {twice['cell']!r}, metric {twice['metric']!r} twice: give one row each")
    return ceilings.set_index(keys)["ceiling"].to_dict()
