"""Ceilings of Tables I to III: how well a perfect score would do in each cell, on its own pairs and raters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from humanclap import relate
from humanclap.relate.checks import need_seed

from .agreement import Components
from .cells import MIN_PAIRS, WITHIN, Cell
from .checks import check_level, listed, whole_number
from .intervals import percentile_interval
from .rated_pairs import ExpectedCells, RatedPairs
from .resamples import ResamplePlan
from .weighted import check_metrics

FEW = f"fewer than {MIN_PAIRS} pairs"
TABLES = ("overall", "system", "score_range")  # breakdowns with a ceiling: those of Tables I, II and III
LEVEL_OF_FIT = 0.99  # of the interval of the ratings' own LCC ceiling in which that of the model must lie
BEFORE, AFTER = "before", "after"


@dataclass
class _Found:
    """Values of one cell: per metric the ceiling and its resamples [B]."""

    cell: Cell
    values: dict[str, float]
    samples: dict[str, np.ndarray]
    note: str = ""


def cell_ceilings(
    ratings: pd.DataFrame,
    by: str = "overall",
    cut: float = 5.0,
    metrics: Sequence[str] = ("srcc", "lcc", "ktau"),
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """What a score that knows every pair's true value would reach in each cell of `breakdown`.

    A pair's true value is its expected rating, what the mean of endless ratings would show. A perfect score
    still misses the mean of the few ratings that there are. Per metric:

    - lcc: √reliability of the cell's own pairs, as in `human_ceiling`; in score ranges, where the cut on the
      noisy mean breaks the variance components, from the rating model.
    - srcc, ktau: from the rating model (`rating_model`): whole-number ratings with their heaps, a distribution of
      true values for each system that is cleared of noise, each system's own numbers of raters. The model's joint
      distribution of true value and mean rating is summed up exactly, which is what endless simulated studies
      would give; true values vary without ties.
    - mse: the error of the true value on the scale of targets (0 to 1): σ²_e · mean(1 / n_i) / 100; in score
      ranges from the model (where a score that knew the cut could do better still).

    Score ranges are cut as the paper cuts them, by the noisy mean: the cut itself lowers the ceiling. "within
    systems" is the mean of the systems' ceilings weighted by their numbers of pairs.

    Args:
        ratings: one row a rating: audio, text, rating (whole numbers), without anchors; system where known.
        by, cut: cells, as in `breakdown`: "overall", "system" or "score_range".
        metrics: of srcc, lcc, ktau, mse.
        n_resamples: of captions with all their pairs and ratings, never of listeners; 0 leaves the intervals out.
            In place of a new fit for each resample, the effect of every pair on the model and so on the ceiling
            is worked out once, to first order (the infinitesimal jackknife).

    Returns:
        One row a cell and metric: cell, metric, ceiling, low, high, n (pairs), n_ratings, mean_raters, note. A
        ceiling that can't be known (fewer than 4 pairs, no pair with two ratings, all ratings equal) is NaN, and
        the note says why. Where the model's own LCC ceiling is not that of the ratings, the note says "rating model
        off": srcc and ktau, and score ranges, err in the same direction.

    Raises:
        ValueError: a missing column, anchors, a rating that is no whole number (for srcc, ktau, and score ranges), an
            unknown `by` or metric, n_resamples or seed below 0, a level not between 0 and 1.
    """
    metrics, seed = check_metrics(metrics), need_seed(seed)
    n_resamples = whole_number(n_resamples, "n_resamples", 0)
    check_level(level)
    if by not in TABLES:
        raise ValueError(f"there are no ceilings by {by!r}. Available: {listed(TABLES)}")
    rated = RatedPairs.of(ratings)
    cells = [_checked(cell) for cell in rated.cells(by, cut)]
    if rated.unknown:
        cells = [Cell(cell.name, cell.rows, cell.note or rated.unknown) for cell in cells]
    captions = rated.pairs["text"].to_numpy(object)
    plan = None
    if n_resamples and len(set(captions)) > 1:
        plan = ResamplePlan.draw(captions, len(captions), n_resamples, seed)
    empty = np.full(plan.n_resamples if plan else 0, np.nan)
    found = [_Found(cell, dict.fromkeys(metrics, np.nan), {metric: empty.copy() for metric in metrics}, cell.note)
             for cell in cells]
    by_components = [metric for metric in metrics if metric in ("lcc", "mse") and by != "score_range"]
    by_model = [metric for metric in metrics if metric not in by_components]
    filled = [one for one in found if not one.note]
    for one in filled if by_components else []:
        _from_components(one, rated, by_components, plan)
    if by_model and filled:
        _from_model(filled, rated, by, cut, by_model, plan)
    if by == "system":
        found.append(_within(found, rated, metrics, plan))
    return pd.DataFrame([row for one in found for row in _rows(one, rated, metrics, level)])


def screened_ceilings(
    files: Mapping[str, pd.DataFrame],
    max_anchor_mean: float = 2.0,
    split: str | None = "test",
    by: str = "system",
    cut: float = 5.0,
    metrics: Sequence[str] = ("srcc", "lcc"),
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """`cell_ceilings` of several sets of ratings, before and after screening.

    files: name (REL, IS, OS) -> ratings of `load_ratings`, anchors included. split: train, test, or None for both.
    screening is "before" (everybody) and "after" (`screen_listeners` with `max_anchor_mean`). Screening lowers the
    noise of a rating and the number of raters at once: the ceiling shows what is left of both. One row a file,
    screening, cell and metric: file, screening, listeners (who rated in this split), and the columns of
    `cell_ceilings`. ValueError: no files, a split that a file lacks, and as `cell_ceilings` and `screen_listeners`
    raise it.
    """
    if not files:
        raise ValueError('no files given: for example {"REL": load_ratings("scores/REL.csv")}')
    tables = []
    for name, ratings in files.items():
        for screening, limit in ((BEFORE, 10.0), (AFTER, max_anchor_mean)):
            kept = relate.screen_listeners(ratings, limit).ratings
            if split is not None:
                kept = kept[kept["split"] == split]
            if kept.empty:
                raise ValueError(f"{name}: no ratings of the split {split!r} are left {screening} screening")
            table = cell_ceilings(kept, by, cut, metrics, n_resamples, seed)
            head = {"file": name, "screening": screening, "listeners": kept["listener"].nunique()}
            tables.append(table.assign(**head)[[*head, *table.columns]])
    return pd.concat(tables, ignore_index=True)


def _checked(cell: Cell) -> Cell:
    return cell if cell.note or cell.rows.sum() >= MIN_PAIRS else Cell(cell.name, cell.rows, FEW)


def _from_components(one: _Found, rated: RatedPairs, metrics: Sequence[str], plan: ResamplePlan | None) -> None:
    """LCC and MSE of one cell from the variance components of its own pairs."""
    rows = one.cell.rows
    chosen = rows[rated.pair]
    if np.bincount(rated.pair[chosen]).max(initial=0) < 2:
        one.note = "no pair with 2 ratings: no lcc, mse"
        return
    components = Components(rated.values[chosen], (np.cumsum(rows) - 1)[rated.pair[chosen]])

    def both(weights):
        _, residual, reliability, noise = components.all(weights)
        return {"lcc": np.sqrt(reliability), "mse": noise / 100}

    value = both(np.ones((int(rows.sum()), 1)))
    for metric in metrics:
        one.values[metric] = float(value[metric][0])
    for chunk, weights in plan.chunks(rows) if plan else ():
        for metric, sample in both(weights).items():
            if metric in metrics:
                one.samples[metric][chunk] = sample


def _from_model(
    cells: list[_Found], rated: RatedPairs, by: str, cut: float, metrics: Sequence[str], plan: ResamplePlan | None
) -> None:
    """The metrics that need the rating model, of all cells at once."""
    model = rated.fit()
    expected = ExpectedCells(rated, model, by, cut)
    names = [one.cell.name for one in cells]
    values = expected.values(names, metrics)
    samples = np.empty((*values.shape, plan.n_resamples if plan else 0))
    if plan:
        influence = expected.influence(names, metrics)
        for chunk, weights in plan.chunks():
            samples[..., chunk] = values[..., None] + np.tensordot(influence, weights.astype(np.float64) - 1, (0, 0))
    joined = {str(name): names for names in model.strata if len(names) > 1 for name in names}
    for one, value, sample in zip(cells, values, samples, strict=True):
        one.values |= dict(zip(metrics, value.tolist(), strict=True))
        one.samples |= dict(zip(metrics, sample, strict=True))
        if one.cell.name in joined:
            one.note = f"few pairs: true values of {listed(joined[one.cell.name])} modelled together"
    if plan:
        whole = ExpectedCells(rated, model, "system", cut)
        for one in cells:
            one.note = "; ".join(filter(None, [one.note, _misfit(one.cell.name.split(" ")[-1], rated, whole, plan)]))


def _misfit(group: str, rated: RatedPairs, expected: ExpectedCells, plan: ResamplePlan) -> str:
    """A warning where the model's LCC ceiling of all pairs of a system (or all, synthesized) is not the ratings' own.

    √reliability of the ratings owes nothing to the model; "not its own" is outside of its interval at LEVEL_OF_FIT.
    """
    rows = next(cell.rows for cell in rated.cells("system", expected.cut) if cell.name == group)
    chosen = rows[rated.pair]
    if np.bincount(rated.pair[chosen]).max(initial=0) < 2:
        return ""
    components = Components(rated.values[chosen], (np.cumsum(rows) - 1)[rated.pair[chosen]])
    samples = np.concatenate([np.sqrt(components(weights)[2]) for _, weights in plan.chunks(rows)])
    low, high = percentile_interval(samples, LEVEL_OF_FIT)
    modelled = expected.values([group], ("lcc",))[0, 0]
    if not modelled < low and not modelled > high:
        return ""
    own = float(np.sqrt(components(np.ones((int(rows.sum()), 1)))[2][0]))
    return f"rating model off: its lcc is {modelled:.2f}, that of the ratings {own:.2f}"


def _within(found: list[_Found], rated: RatedPairs, metrics: Sequence[str], plan: ResamplePlan | None) -> _Found:
    """Mean of the systems' ceilings weighted by n, in each resample by the resample's own numbers of pairs."""
    single = [one for one in found if one.cell.name not in ("synthesized", "all") and one.cell.rows.any()]
    usable = [one for one in single if not one.cell.note]
    rows = np.any([one.cell.rows for one in usable] or [np.zeros(len(rated.pairs), bool)], axis=0)
    if not usable:
        cell = Cell(WITHIN, rows, "no system with enough pairs")
        return _Found(cell, dict.fromkeys(metrics, np.nan), {m: np.full(0, np.nan) for m in metrics}, cell.note)
    size = np.array([one.cell.rows.sum() for one in usable], float)
    values = {m: float(size @ [one.values[m] for one in usable] / size.sum()) for m in metrics}
    samples = {m: np.full(0, np.nan) for m in metrics}
    if plan:
        drawn = np.stack([
            np.concatenate([weights.sum(axis=0) for _, weights in plan.chunks(one.cell.rows)]) for one in usable
        ])  # fmt: skip
        for m in metrics:
            samples[m] = (drawn * np.stack([one.samples[m] for one in usable])).sum(axis=0) / drawn.sum(axis=0)
    left_out = [one.cell.name for one in single if one.cell.note]
    return _Found(Cell(WITHIN, rows), values, samples, f"without {listed(left_out)} ({FEW})" if left_out else "")


def _rows(one: _Found, rated: RatedPairs, metrics: Sequence[str], level: float) -> list[dict]:
    n_ratings = rated.n_ratings[one.cell.rows]
    counts = {
        "n": len(n_ratings), "n_ratings": int(n_ratings.sum()),
        "mean_raters": float(n_ratings.mean()) if len(n_ratings) else np.nan, "note": one.note,
    }  # fmt: skip
    rows = []
    for metric in metrics:
        value = one.values[metric]
        low, high = percentile_interval(one.samples[metric], level) if np.isfinite(value) else (np.nan, np.nan)
        rows.append({"cell": one.cell.name, "metric": metric, "ceiling": value, "low": low, "high": high})
    return [row | counts for row in rows]
