"""Tables I to III of the paper from one long score table, every number with its interval.

A long score table has one row a model and pair: model, audio, text, target (0 to 1), a score, and where
they are known system and mean_rating (0 to 10). Where a fine-tuned model has several training seeds, the
column training_seed tells its runs apart (NaN for models that have none), and every value is the mean over
its seeds. All models, seeds and cells share one set of resamples, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from .checks import as_vector, listed
from .intervals import check_interval
from .sampled import default_metrics, sample_cells
from .significance import check_correction, holm
from .wide import Wide, widen


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
    interval: str = "percentile",
) -> pd.DataFrame:
    """Metrics of each model in each cell, with bootstrap intervals: tidy, one row a model, cell, metric.

    by: "overall" (Table I: cell "all"); "system" (Table II: each system, "synthesized" (the paper's "All"),
    "all", and "within systems", the mean of the single systems' values weighted by their numbers of pairs);
    "score_range" (Table III: mean_rating <= `cut` and above, each all, natural, synthesized); "n_events",
    "caption_length", "temporal", "n_ratings", "rating_std" (`make_cells`). metrics:
    srcc, lcc, ktau, mse; None means all four overall and srcc elsewhere. groups: the column that is
    resampled (captions), None for pairs. floor: a column with a blind predictor's value for each pair
    (`blind_predictions`), or a model of the table, which then has no rows of its own. interval: "percentile"
    or "bca".

    Columns: model, cell, metric, value (the mean over training seeds), low, high (of that mean: captions
    resampled with all pairs and all seeds), n, n_constant, n_seeds (1 for a model without seeds), seed_sd (SD
    of the seeds' values; NaN for one), note; with `floor` also floor, its value in the same cell. n_constant
    counts resamples in which the metric is undefined; the interval leaves them out. A cell with fewer than 4
    pairs, or where score or target is constant, stays, with NaN and a note that says why. ValueError: a
    missing column, NaN scores (counted for each model), a pair twice for one model and seed, models or seeds
    that do not cover the same pairs, a target that differs between models.
    """
    jackknife = check_interval(interval)
    metrics = default_metrics(metrics, by)
    wide, blind = with_floor(table, score, model, groups, floor)
    rows = []
    for cell in sample_cells(wide, by, cut, metrics, groups, n_resamples, seed, jackknife):
        for metric in metrics:
            for name in wide.models:
                runs = wide.rows(name)
                estimate = cell.estimate(metric, runs)
                ends = estimate.ends(level)
                row = {model: name, "cell": cell.name, "metric": metric, "value": estimate.value}
                row |= {"low": ends.low, "high": ends.high, "n": cell.n, "n_constant": estimate.n_undefined}
                row |= {"n_seeds": len(runs), "seed_sd": cell.seed_sd(metric, runs)}
                if blind is not None:
                    row["floor"] = cell.estimate(metric, blind).value
                rows.append(row | {"note": cell.notes(metric, runs, also=ends.note)})
    return by_model(rows, model, wide.models)


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
    interval: str = "percentile",
    family: str | None = None,
) -> pd.DataFrame:
    """Paired differences of each other model from `baseline`, per cell of `breakdown`, with interval and p.

    Columns: model, baseline, cell, metric, value, baseline_value, difference (value - baseline_value; for
    mse below zero is better), low, high, p (two-sided, as in `compare`; uncorrected), n, n_constant, n_seeds,
    seed_sd (SD over the model's seeds of `value`, not of the difference), note. family: the name of the
    family that all rows here form; adds p_holm, Holm's correction over them (NaN where there is no p), and
    the column family, and needs n_resamples >= 10,000. Other arguments, marks and errors as in `breakdown`;
    ValueError where the baseline is no model of the table or n_resamples too few for the correction.
    """
    if family is not None:
        check_correction(n_resamples)
    jackknife = check_interval(interval)
    metrics = default_metrics(metrics, by)
    wide = widen(table, score, model, [groups] if groups else [])
    need_baseline(wide, baseline, model)
    base = wide.rows(baseline)
    rows = []
    for cell in sample_cells(wide, by, cut, metrics, groups, n_resamples, seed, jackknife):
        for metric in metrics:
            for name in wide.models:
                if name == baseline:
                    continue
                runs = wide.rows(name)
                value, reference = cell.estimate(metric, runs), cell.estimate(metric, base)
                difference = value - reference
                ends = difference.ends(level)
                rows.append({
                    model: name, "baseline": baseline, "cell": cell.name, "metric": metric,
                    "value": value.value, "baseline_value": reference.value, "difference": difference.value,
                    "low": ends.low, "high": ends.high, "p": difference.p(), "n": cell.n,
                    "n_constant": difference.n_undefined, "n_seeds": len(runs),
                    "seed_sd": cell.seed_sd(metric, runs),
                    "note": cell.notes(metric, runs, base, also=ends.note),
                })
    found = by_model(rows, model, wide.models)
    return found if family is None else with_holm(found, family)


def need_baseline(wide: Wide, baseline, model: str) -> None:
    """ValueError where `baseline` is no model of the table, or the only one."""
    if baseline not in wide.models:
        raise ValueError(f"baseline {baseline!r} is not in the table. Available: {listed(wide.models)}")
    if len(wide.models) == 1:
        raise ValueError(f"the column {model} holds only {baseline!r}: nothing to compare with it")


def with_floor(
    table: pd.DataFrame, score: str, model: str, groups: str | None, floor: str | None
) -> tuple[Wide, np.ndarray | None]:
    """The wide table and which rows of its scores are the floor's: a column for each pair, or one of its models.

    A floor is no model any more: it leaves `models`. ValueError where `floor` is neither.
    """
    also = [groups] if groups else []
    if floor is None:
        return widen(table, score, model, also), None
    if floor in table:
        wide = widen(table, score, model, [*also, floor])
        values = as_vector(wide.pairs[floor], f"floor column {floor}")
        return replace(wide, scores=np.vstack([wide.scores, values])), np.array([len(wide.scores)])
    wide = widen(table, score, model, also)
    if floor not in wide.models:
        raise ValueError(
            f"floor {floor!r} is neither a column nor a model of the table. Models: {listed(wide.models)}; "
            f"columns: {listed(table.columns)}"
        )
    return replace(wide, models=[name for name in wide.models if name != floor]), wide.rows(floor)


def with_holm(found: pd.DataFrame, family: str) -> pd.DataFrame:
    """The rows with p_holm after p, corrected over all of them, and the family's name before note."""
    found = found.copy()
    found.insert(found.columns.get_loc("p") + 1, "p_holm", holm(found["p"]))
    found.insert(found.columns.get_loc("note"), "family", family)
    return found


def by_model(rows: list[dict], model: str, models: list) -> pd.DataFrame:
    """Rows of one model together, in the order of the table; cells and metrics as they came."""
    return pd.DataFrame(sorted(rows, key=lambda row: models.index(row[model])))
