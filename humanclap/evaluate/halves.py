"""Table III without its artefact: one half of a pair's raters says where the pair belongs, the other what it is worth.

The paper cuts pairs at the mean rating and correlates a score with the same mean. The cut sorts pairs by their noise
as well: a mean below 5 is often a fair pair with harsh listeners, so within a half the mean says less about the pair
than it does over all. Raters who do not take part in the cut bring no such noise along.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from humanclap.relate.checks import need_seed

from .cells import MIN_PAIRS, make_cells
from .checks import check_level, whole_number
from .intervals import percentile_interval
from .joint_table import MeanRatings
from .rank_influence import srcc_influence
from .rated_pairs import ExpectedCells, RatedPairs
from .resamples import ResamplePlan
from .split_half import random_halves
from .wide import widen


def halves_by_raters(
    scores: pd.DataFrame,
    ratings: pd.DataFrame,
    cut: float = 5.0,
    n_splits: int = 50,
    score: str = "clap_score",
    model: str = "model",
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """SRCC of each model in Table III's cells, cut by one half of a pair's raters and correlated with the other's mean.

    In each split the ratings of every pair with at least two are dealt at random into two halves (of an odd number
    either half gets one more). The mean of the first half says in which cell the pair stands (at most `cut`, or above);
    the SRCC is that of the score with the mean of the second half. Values are averaged over the splits.

    Args:
        scores: long score table as `breakdown` takes it; a model with several training_seeds is averaged over them.
        ratings: the ratings behind its targets, a row each: audio, text, rating. Those of other pairs play no part.
        n_resamples: of captions; pairs move the mean over all splits and seeds to first order (`srcc_influence`).

    Returns:
        One row a model and cell: model, cell, metric (srcc), value, low, high, ceiling (of a score that knows every
        true value, cut and correlated in the same way, from the rating model: half of the raters say less than all,
        so it is not that of Table III), n (pairs in the cell, mean over the splits), n_single (pairs of its systems
        with one rating, which can't take part), n_splits (those in which the cell has 4 pairs and no constant),
        split_sd (SD over them), n_seeds, seed_sd, note.

    Raises:
        ValueError: as `breakdown`; pairs without ratings; targets that are not the means of these ratings.
    """
    n_splits = whole_number(n_splits, "n_splits", 1)
    n_resamples, seed = whole_number(n_resamples, "n_resamples", 0), need_seed(seed)
    check_level(level)
    wide = widen(scores, score, model, [])
    rated, places = RatedPairs.behind(wide, ratings)
    values = wide.scores[:, places]
    halves, several = random_halves(rated.values, rated.pair, rated.n_ratings, n_splits, seed)
    names = [cell.name for cell in make_cells(rated.pairs, "score_range", cut)]
    shape = len(wide.runs), len(names), n_splits
    found, sizes = np.full(shape, np.nan), np.zeros(shape[1:])
    influence = np.zeros((len(rated.pairs), *shape[:2]))
    numbers = np.flatnonzero(several)
    for split, (first, second) in enumerate(halves):
        cells = make_cells(rated.pairs[several].assign(mean_rating=first), "score_range", cut)
        for place, cell in enumerate(cells):
            sizes[place, split] = cell.rows.sum()
            if cell.rows.sum() < MIN_PAIRS:
                continue
            for run, of_run in enumerate(values):
                found[run, place, split], change = srcc_influence(of_run[several][cell.rows], second[cell.rows])
                influence[numbers[cell.rows], run, place] += np.nan_to_num(change)
    defined = np.isfinite(found).sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        influence /= defined
        mean = np.nansum(found, axis=2) / defined  # [runs, cells]
    plan = None
    if n_resamples and rated.pairs["text"].nunique() > 1:
        plan = ResamplePlan.draw(rated.pairs["text"].to_numpy(object), len(rated.pairs), n_resamples, seed)
    ceilings = _ceilings(rated, cut, names)
    notes = {cell.name: cell.note for cell in make_cells(rated.pairs, "score_range", cut)}
    rows = []
    for name in wide.models:
        runs = wide.rows(name)
        for place, cell in enumerate(names):
            value = mean[runs, place]
            low, high = _interval(value.mean(), influence[:, runs, place].mean(axis=1), plan, level)
            used = int(defined[runs, place].min())
            splits = found[runs, place].mean(axis=0)
            rows.append({
                model: name, "cell": cell, "metric": "srcc", "value": value.mean(), "low": low, "high": high,
                "ceiling": ceilings[cell], "n": sizes[place].mean(), "n_single": _singles(rated, cell),
                "n_splits": used, "split_sd": np.nanstd(splits, ddof=1) if used > 1 else np.nan,
                "n_seeds": len(runs), "seed_sd": value.std(ddof=1) if len(runs) > 1 else np.nan,
                "note": notes[cell] or ("" if used else f"fewer than {MIN_PAIRS} pairs, or a constant, in every split"),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _interval(value: float, influence: np.ndarray, plan: ResamplePlan | None, level: float) -> tuple[float, float]:
    if plan is None or not np.isfinite(value):
        return np.nan, np.nan
    samples = np.concatenate([influence @ (weights.astype(np.float64) - 1) for _, weights in plan.chunks()])
    return percentile_interval(np.clip(value + samples, -1, 1), level)


def _singles(rated: RatedPairs, cell: str) -> int:
    """Pairs with one rating among the systems of a cell, on either side of the cut."""
    single = rated.n_ratings == 1
    group = cell.split(" ", 1)[1]
    if group == "all":
        return int(single.sum())
    return int((single & ((rated.systems == "natural") == (group == "natural")) & (rated.systems != "")).sum())


def _ceilings(rated: RatedPairs, cut: float, names: list[str]) -> dict[str, float]:
    """SRCC of the true value in each cell under such splits, from the rating model; NaN where it can't be known."""
    if rated.unknown:
        return dict.fromkeys(names, np.nan)
    model = rated.fit()
    expected = ExpectedCells(rated, model, "score_range", cut)
    low, high, mean = half_tables(expected)
    tables = {name: expected.join(name, low, high, model.true_value, mean) for name in names}
    return {name: table.metrics(("srcc",))["srcc"] for name, table in tables.items()}


def half_tables(expected: ExpectedCells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True value and second half's mean, where the first half's is at most the cut, and above.

    Two tables [U, G, V], and the means on their last axis [V].
    """
    model = expected.model
    dealt = [(n // 2, n - n // 2, of_n / 2)
             for n, of_n in zip(expected.means.numbers, expected.sizes().T, strict=True) if n > 1]
    dealt += [(second, first, of_n) for first, second, of_n in dealt]
    means = MeanRatings(model.values, np.array([sides[:2] for sides in dealt]))
    of_number = dict(zip(means.numbers, means.of_number(model.probabilities), strict=True))
    below = {n: mean[:, means.mean[where] <= expected.cut].sum(axis=1) for n, (where, mean) in of_number.items()}
    tables = np.zeros((2, len(expected.units), len(model.true_value), len(means.mean)))
    for first, second, of_n in dealt:
        where, mean = of_number[second]
        for side, chance in enumerate((below[first], 1 - below[first])):
            tables[side][:, :, where] += of_n[:, None, None] * (chance[:, None] * mean)
    low, high = tables * model.weights[expected.stratum][:, :, None]
    return low, high, means.mean
