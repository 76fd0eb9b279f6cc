"""What a score that is equally good everywhere would show in each cell: the cut alone, and no weakness of its own.

A model's SRCC is lower below a rating of 5 than over all, but so is every score's: a cell holds a narrower range of
true values, and the cut has sorted them by their noise. The comparison is with a HOMOGENEOUS score, the true value with
one and the same noise on every pair, no better and no worse over all than the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import optimize, stats

from humanclap.relate.checks import need_seed

from .cells import MIN_PAIRS, WITHIN, Cell, make_cells
from .checks import check_level, listed, whole_number
from .rated_pairs import RatedPairs
from .wide import widen

TABLES = ("system", "score_range")
INSIDE, LESS, MORE = "as expected", "less than expected", "more than expected"


def homogeneous_score(
    scores: pd.DataFrame,
    ratings: pd.DataFrame,
    by: str = "score_range",
    cut: float = 5.0,
    n_simulations: int = 200,
    score: str = "clap_score",
    model: str = "model",
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """SRCC of each model in each cell of Table II or III beside that of a homogeneous score of the same overall SRCC.

    A simulated study draws the pairs' true values and ratings anew from the rating model that is fitted to `ratings`
    (same systems, same numbers of raters), and gives pair i, with true value m_i, the score

        x_i = a · (m_i - mean m) / SD(m) + √(1 - a²) · z_i,    z_i standard normal,

    with the a, 0 to 1, at which its SRCC with the study's mean ratings, over all pairs, is the model's own. Its SRCC is
    then taken in the study's own cells: those that the study's mean ratings cut (III), or the systems (II), and
    "within systems", their mean weighted by n. A model below the range is worse there than its overall SRCC and the
    cut explain.

    Args:
        scores: long score table as `breakdown` takes it; a model with several training_seeds is averaged over them.
        ratings: the ratings behind its targets, a row each: audio, text, rating (whole numbers), system where known.
        by: "system" or "score_range".

    Returns:
        One row a model and cell: model, cell, metric (srcc), value (the model's), expected (mean over the simulations),
        low, high (the range that holds `level` of them), verdict ("as expected", "less than expected", "more than
        expected": value inside, below or above it), overall (the model's SRCC over all pairs), n, n_simulations (those
        in which the cell is defined), note.

    Raises:
        ValueError: as `halves_by_raters`; another `by`, n_simulations below 1.
    """
    if by not in TABLES:
        raise ValueError(f"a homogeneous score is compared by {listed(TABLES)}, not by {by!r}")
    n_simulations, seed = whole_number(n_simulations, "n_simulations", 1), need_seed(seed)
    check_level(level)
    wide = widen(scores, score, model, [])
    rated, places = RatedPairs.behind(wide, ratings)
    cells = _with_within(make_cells(rated.pairs, by, cut), by)
    mean = rated.pairs["mean_rating"].to_numpy()
    in_cells, everything = _CellRanks(mean, cells), _CellRanks(mean, make_cells(rated.pairs, "overall"))
    values, overall = np.empty((len(wide.models), len(cells))), np.empty(len(wide.models))
    for number, name in enumerate(wide.models):
        of_model = wide.scores[wide.rows(name)][:, places]
        overall[number] = np.mean([everything(one)[0] for one in of_model])
        values[number] = np.mean([in_cells(one) for one in of_model], axis=0)
    note = rated.unknown
    samples = np.full((n_simulations, *values.shape), np.nan)
    if not note:
        samples = _simulate(rated, overall, by, cut, samples, seed)
    rows = []
    for number, name in enumerate(wide.models):
        for place, cell in enumerate(cells):
            drawn, value = samples[:, number, place], values[number, place]
            drawn = drawn[np.isfinite(drawn)]
            low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if len(drawn) else (np.nan, np.nan)
            calibrated = cell.name == "all"  # all pairs: equal by construction
            verdict = "" if calibrated or not len(drawn) else _verdict(value, low, high)
            rows.append({
                model: name, "cell": cell.name, "metric": "srcc", "value": value,
                "expected": drawn.mean() if len(drawn) else np.nan, "low": low, "high": high, "verdict": verdict,
                "overall": overall[number], "n": int(cell.rows.sum()), "n_simulations": len(drawn),
                "note": cell.note or note or _why(cell, value) or ("equal by construction" if calibrated else ""),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _verdict(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return ""
    return LESS if value < low else MORE if value > high else INSIDE


def _why(cell: Cell, value: float) -> str:
    if np.isfinite(value):
        return ""
    return f"fewer than {MIN_PAIRS} pairs" if cell.rows.sum() < MIN_PAIRS else "constant score or target"


def _with_within(cells: list[Cell], by: str) -> list[Cell]:
    """The cells, and after those of the systems "within systems", which stands for all pairs of the single ones."""
    if by != "system":
        return cells
    rows = np.any([cell.rows for cell in _single(cells)], axis=0)
    return [*cells, Cell(WITHIN, rows, "" if rows.any() else "no system with enough pairs")]


def _single(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.name not in ("synthesized", "all", WITHIN)]


class _CellRanks:
    """Mean ratings [n] in each of some cells, ranked once for many scores."""

    def __init__(self, mean: np.ndarray, cells: Sequence[Cell]):
        self.rows = {cell.name: np.flatnonzero(cell.rows) for cell in cells if cell.name != WITHIN}
        self.ranks = {name: _unit(stats.rankdata(mean[rows])) for name, rows in self.rows.items()}
        self.within = [cell.name for cell in _single(cells) if cell.rows.sum() >= MIN_PAIRS]
        self.has_within = cells[-1].name == WITHIN

    def __call__(self, score: np.ndarray, ranked=stats.rankdata) -> np.ndarray:
        """SRCC of a score [n] in each cell, "within systems" last; NaN for fewer than 4 pairs or a constant."""
        found = {name: np.nan if len(rows) < MIN_PAIRS else float(_unit(ranked(score[rows])) @ self.ranks[name])
                 for name, rows in self.rows.items()}
        if self.has_within:
            sizes = [len(self.rows[name]) for name in self.within]
            mean = np.average([found[name] for name in self.within], weights=sizes) if sizes else np.nan
            found[WITHIN] = float(mean)
        return np.array(list(found.values()))


def _unit(ranks: np.ndarray) -> np.ndarray:
    """Centred and of length 1, so that a product is a correlation; NaN where they are all equal."""
    centred = ranks - ranks.mean() if len(ranks) else ranks
    length = np.sqrt(centred @ centred)
    return centred / length if length > 0 else np.full(len(ranks), np.nan)


def _rank_untied(values: np.ndarray) -> np.ndarray:
    """Ranks of values without ties: scipy's rankdata, faster."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values)] = np.arange(len(values))
    return ranks


def _simulate(
    rated: RatedPairs, overall: np.ndarray, by: str, cut: float, samples: np.ndarray, seed: int
) -> np.ndarray:
    """SRCC in each cell of each simulated study [B, models, cells]."""
    fitted = rated.fit()
    for number, of_study in enumerate(samples):
        rng = np.random.default_rng([seed, number])
        true, mean = fitted.simulate(rated.n_ratings, rng)
        noise = rng.standard_normal(len(true))
        true = (true - true.mean()) / true.std()
        ranked = _unit(stats.rankdata(mean))
        in_cells = _CellRanks(mean, _with_within(make_cells(rated.pairs.assign(mean_rating=mean), by, cut), by))
        for place, wanted in enumerate(overall):
            if np.isfinite(wanted):
                of_study[place] = in_cells(_calibrated(true, noise, ranked, wanted), _rank_untied)
    return samples


def _calibrated(true: np.ndarray, noise: np.ndarray, ranked: np.ndarray, wanted: float) -> np.ndarray:
    """a · true + √(1 - a²) · noise with the SRCC `wanted`; the nearest there is where a would leave 0 to 1."""

    def mixed(share: float) -> np.ndarray:
        return share * true + np.sqrt(1 - share**2) * noise

    def excess(share: float) -> float:
        return _unit(_rank_untied(mixed(share))) @ ranked - wanted

    if excess(0.0) >= 0:
        return noise
    if excess(1.0) <= 0:
        return true
    return mixed(optimize.brentq(excess, 0.0, 1.0, xtol=1e-3))
