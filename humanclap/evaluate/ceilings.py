"""Ceilings of Tables I to III: how well a perfect score would do in each cell, on its own pairs and raters.

Ceilings of ranks come from a simulation: an ordered probit fitted by moments. In each system (those with fewer than 30
pairs together) pair i has a latent quality θ_i ~ N(0, 1), listener j hears √ρ · θ_i + √(1 - ρ) · ε_ij, and gives the
rating in whose interval that falls; the intervals cut the normal distribution at the ratings' own shares (so heaps on
0, 2, 5, 8 and 10 are kept), and ρ is the value at which two ratings of one pair correlate as they do in the data. A
pair's TRUE VALUE is its expected rating given θ_i, the mean of endless ratings. Pairs with the real numbers of raters
are then simulated, and a perfect score is the true value.

What this misses: quality that is not normal within a system. Where it has two peaks (clips either match or do not),
ceilings of SRCC were off by up to 0.05 over all pairs (KTAU: 0.07) and up to 0.24 in Table III's cells, as the cut at 5
then falls into the gap between the peaks (benchmarks/ceilings.md). A listener's own habits count as noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from humanclap import relate
from humanclap.checks import choice, whole_number

from .agreement import SINGLE, Components, Rated
from .bootstrap import TAIL, Estimate, ResamplePlan, bootstrap_samples
from .inputs import MIN_PAIRS, WITHIN, Cell, as_ratings, known_systems, make_cells, pair_index, widen, within_systems
from .weighted import METRICS

MIN_STRATUM = 30  # pairs from which a system is fitted by itself
SIMULATED, SIMULATED_EACH = 300_000, 10_000  # pairs behind a ceiling, and behind it in each resample
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(61)  # of the standard normal distribution
TABLES = ("overall", "system", "score_range")  # breakdowns with a ceiling: those of Tables I, II and III


class Probit:
    """The ordered probit of the module's docstring for rated pairs; `draw` gives simulated pairs."""

    def __init__(self, rated: Rated):
        self.values, code = np.unique(rated.values, return_inverse=True)
        self.raters = rated.raters
        shape = len(rated.pairs), len(self.values)
        self.counts = np.bincount(rated.pair * shape[1] + code, minlength=shape[0] * shape[1]).reshape(shape)
        systems = known_systems(rated.pairs) if "system" in rated.pairs else None
        labels = np.zeros(shape[0]) if systems is None else pd.factorize(systems, sort=True)[0]
        enough = (np.bincount(labels.astype(int)) >= MIN_STRATUM) & (
            np.bincount(labels.astype(int), self.raters > 1) >= 2
        )
        labels = np.where(enough[labels.astype(int)], labels, -1)  # the small ones together, last
        self.strata = [labels == label for label in sorted(set(labels), key=lambda label: (label < 0, label))]
        self.components = [Components(rated.only(rows)) for rows in self.strata]

    def fit(self, weights: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """For each stratum: borders between ratings [V - 1] on the latent line, and ρ; weights [n] are of the pairs."""
        fitted = []
        for rows, components in zip(self.strata, self.components, strict=True):
            shares = weights[rows] @ self.counts[rows]
            borders = special.ndtri(np.cumsum(shares)[:-1] / shares.sum())
            found = components(weights[rows][:, None])
            pair, residual = max(found["pair"][0], 0.0), found["residual"][0]
            fitted.append((borders, self._rho(borders, shares / shares.sum(), pair / (pair + residual))))
        return fitted

    def _rho(self, borders: np.ndarray, shares: np.ndarray, correlation: float) -> float:
        """The ρ at which two ratings of a pair have this correlation: Var(E[rating | θ]) / Var(rating)."""
        variance = shares @ self.values**2 - (shares @ self.values) ** 2
        weights = NODE_WEIGHTS / NODE_WEIGHTS.sum()

        def excess(rho: float) -> float:
            expected = self.expected(NODES, borders, rho)
            return weights @ (expected - weights @ expected) ** 2 / variance - correlation

        lowest, highest = 1e-6, 0.999
        if not excess(lowest) < 0:  # no agreement (or none known: NaN)
            return lowest
        return optimize.brentq(excess, lowest, highest, xtol=1e-5) if excess(highest) > 0 else highest

    def expected(self, theta: np.ndarray, borders: np.ndarray, rho: float) -> np.ndarray:
        """Expected rating at latent qualities [K], which rises with them."""
        above = special.ndtr((np.sqrt(rho) * theta[:, None] - borders) / np.sqrt(1 - rho))
        return self.values[0] + above @ np.diff(self.values)

    def draw(self, copies: int, rng: np.random.Generator):
        """Fix the random numbers of `copies` sets of pairs; a function from a fit to (true value, mean) [copies · n]."""
        theta = rng.standard_normal(copies * len(self.raters))
        raters = np.tile(self.raters, copies)
        noise, pair = rng.standard_normal(int(raters.sum())), np.repeat(np.arange(len(raters)), raters)
        strata = [np.tile(stratum, copies) for stratum in self.strata]

        def simulate(fitted) -> tuple[np.ndarray, np.ndarray]:
            true, rating = np.empty(len(theta)), np.empty(len(noise))
            for (borders, rho), rows in zip(fitted, strata, strict=True):
                true[rows] = self.expected(theta[rows], borders, rho)
                of = rows[pair]
                heard = np.sqrt(rho) * theta[pair[of]] + np.sqrt(1 - rho) * noise[of]
                rating[of] = self.values[np.searchsorted(borders, heard)]
            return true, np.bincount(pair, rating) / raters

        return simulate


def cell_ceilings(
    ratings: pd.DataFrame,
    by: str = "overall",
    metrics: Sequence[str] = ("srcc", "lcc", "ktau"),
    n_resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """What a score that knows every pair's true value would reach in each cell of Tables I to III.

    Per metric: lcc is √reliability of the cell's own pairs, as in `human_ceiling`, and mse the error of the true value
    on the scale of targets (0 to 1), σ²_e · mean(1 / n_i) / 100. srcc and ktau, and everything in score ranges (where
    the cut on the noisy mean breaks the variance components), come from 300,000 simulated pairs (this module's docstring
    says how, and what that misses). Score ranges are cut as the paper cuts them, by the noisy mean: the cut itself
    lowers the ceiling. "within systems" is the mean of the systems' ceilings weighted by their numbers of pairs.

    Args:
        ratings: one row per rating: audio, text, rating, without anchors; system where known.
        by: cells, as in `paper_table`: "overall", "system" or "score_range".
        metrics: of srcc, lcc, ktau, mse.
        n_resamples: of captions with all their pairs and ratings, never of listeners; the model is fitted and simulated
            anew for each, with the same random numbers. 0 leaves the intervals out.

    Returns:
        One row per cell and metric: cell, metric, ceiling, low, high, n (pairs), n_ratings, mean_raters, note. A
        ceiling that can't be known (fewer than 4 pairs, no pair with two ratings, all ratings equal) is NaN, and the
        note says why.

    Raises:
        ValueError: as `as_ratings`, an unknown `by` or metric, n_resamples or seed below 0.
        TypeError: no ratings at all.
    """
    metrics = tuple(choice(metric, "metrics", METRICS) for metric in metrics)
    n_resamples, seed = whole_number(n_resamples, "n_resamples"), whole_number(seed, "seed")
    choice(by, "by", TABLES)
    rated = Rated.of(ratings)
    unknown, plan = rated.unknown(), rated.plan(n_resamples, seed)
    found = {} if unknown else _simulated(rated, by, metrics, plan, seed)
    cells = []
    for cell in make_cells(rated.pairs, by):
        part = rated.only(cell.rows)
        note = cell.note or unknown or (part.unknown() if by == "system" else "")
        cells.append(Cell(cell.name, cell.rows, note))
        if not note and by != "score_range":
            found |= _from_components(cell, part, plan)
    if by == "system":
        within, used = within_systems(cells, rated.pairs)
        cells.append(within)
        sizes = np.array([cell.rows.sum() for cell in used], dtype=float)
        for metric in metrics if used else ():
            each = [found[cell.name, metric] for cell in used]
            samples = sizes @ np.stack([one.samples for one in each]) / sizes.sum()
            found[WITHIN, metric] = Estimate(sizes @ [one.value for one in each] / sizes.sum(), samples)
    rows, nothing = [], Estimate(np.nan, np.empty(0))
    for cell in cells:
        raters = rated.raters[cell.rows]
        counts = {"n": len(raters), "n_ratings": int(raters.sum())}
        counts["mean_raters"] = float(raters.mean()) if len(raters) else np.nan
        for metric in metrics:
            one = nothing if cell.note and cell.name != WITHIN else found.get((cell.name, metric), nothing)
            note = cell.note or ("" if np.isfinite(one.value) else SINGLE)
            rows.append(
                {"cell": cell.name, "metric": metric, "ceiling": one.value, **one.row(), **counts, "note": note}
            )
    return pd.DataFrame(rows)


def _from_components(cell: Cell, part: Rated, plan: ResamplePlan | None) -> dict[tuple[str, str], Estimate]:
    """lcc and mse of one cell, from the variance components of its own pairs (`part`)."""
    components = Components(part)

    def both(weights: np.ndarray) -> np.ndarray:
        found = components(weights)
        return np.stack([np.sqrt(found["reliability"]), found["noise"] / 100])

    value = both(np.ones((len(part.pairs), 1)))[:, 0]
    samples = bootstrap_samples(both, plan, cell.rows) if plan else np.empty((2, 0))
    return {(cell.name, metric): Estimate(float(value[i]), samples[i]) for i, metric in enumerate(("lcc", "mse"))}


def _simulated(rated: Rated, by: str, metrics: Sequence[str], plan: ResamplePlan | None, seed: int):
    """The ceiling of every cell and metric, by simulation: (cell, metric) -> Estimate."""
    probit, n_pairs = Probit(rated), len(rated.pairs)
    rng = np.random.default_rng([seed, 2])

    def ceilings(pairs: int):
        copies = -(-pairs // n_pairs)
        simulate, many = probit.draw(copies, rng), pd.concat([rated.pairs] * copies, ignore_index=True)

        def of(weights: np.ndarray) -> dict[tuple[str, str], float]:
            true, mean = simulate(probit.fit(weights))
            cells = make_cells(many.assign(mean_rating=mean), by)
            return {(c.name, metric): _metric(metric, true[c.rows], mean[c.rows]) for c in cells for metric in metrics}

        return of

    ones = np.ones(n_pairs)
    values = ceilings(SIMULATED)(ones)
    if plan is None:
        return {key: Estimate(value, np.empty(0)) for key, value in values.items()}
    each = ceilings(SIMULATED_EACH)
    at_ones = each(ones)
    drawn = [each(plan.counts[plan.codes, number].astype(float)) for number in range(plan.n_resamples)]
    return {
        key: Estimate(value, np.array([one[key] for one in drawn]) - at_ones[key] + value)
        for key, value in values.items()
    }


def _metric(metric: str, true: np.ndarray, mean: np.ndarray) -> float:
    """One metric of the true value against the mean rating; mse is on the scale of targets, a tenth of the ratings'."""
    if len(true) < MIN_PAIRS or np.ptp(true) == 0 or np.ptp(mean) == 0:
        return np.nan
    if metric == "mse":
        return float(np.mean((true - mean) ** 2) / 100)
    if metric == "srcc":
        true, mean = stats.rankdata(true), stats.rankdata(mean)
    return float(stats.kendalltau(true, mean).statistic if metric == "ktau" else np.corrcoef(true, mean)[0, 1])


def screened_ceilings(
    files: Mapping[str, pd.DataFrame], max_anchor_mean: float = 2.0, n_resamples: int = 200, seed: int = 0
) -> pd.DataFrame:
    """`cell_ceilings` by system of the test pairs of several sets of ratings, before and after screening.

    files: name (REL, IS, OS) -> ratings of `load_ratings`, anchors included. screening is "before" (everybody) and
    "after" (`screen_listeners` with `max_anchor_mean`). Screening lowers the noise of a rating and the number of raters
    at once: the ceiling shows what is left of both. One row per file, screening, cell and metric (srcc, lcc): file,
    screening, listeners (who rated test pairs), and the columns of `cell_ceilings`. ValueError: a file without test
    pairs, and as `cell_ceilings` and `screen_listeners` raise it.
    """
    tables = []
    for name, ratings in files.items():
        for screening, limit in (("before", 10.0), ("after", max_anchor_mean)):
            kept = relate.screen_listeners(ratings, limit).ratings
            kept = kept[kept["split"] == "test"]
            if kept.empty:
                raise ValueError(f"{name}: no ratings of the test split are left {screening} screening")
            table = cell_ceilings(kept, "system", ("srcc", "lcc"), n_resamples, seed)
            head = {"file": name, "screening": screening, "listeners": kept["listener"].nunique()}
            tables.append(table.assign(**head)[[*head, *table.columns]])
    return pd.concat(tables, ignore_index=True)


def homogeneous_score(
    scores: pd.DataFrame, ratings: pd.DataFrame, n_simulations: int = 200, seed: int = 0
) -> pd.DataFrame:
    """SRCC of each model in each cell of Table III beside that of a score that is equally good everywhere.

    A model's SRCC is lower below a rating of 5 than over all, but so is every score's: a cell holds a narrower range of
    true values, and the cut has sorted them by their noise. A simulated study draws true values m_i and ratings anew
    from the probit fitted to `ratings` (same systems, same numbers of raters), and gives pair i the HOMOGENEOUS score

        x_i = a · (m_i - mean m) / SD(m) + √(1 - a²) · z_i,    z_i standard normal,

    with the a, 0 to 1, at which its SRCC with the study's mean ratings, over all pairs, is the model's own. Its SRCC is
    then taken in the study's own cells. A model below the range is worse there than its overall SRCC and the cut explain.

    Args:
        scores: long score table as `paper_table` takes it; a model with several training_seeds is averaged over them.
        ratings: the ratings behind its targets, one row each: audio, text, rating, system where known.

    Returns:
        One row per model and cell: model, cell, metric (srcc), value (the model's), expected (mean over the
        simulations), low, high (the range that holds 95 % of them), verdict ("as expected", "less than expected", "more
        than expected": value inside, below or above it), overall (the model's SRCC over all pairs), n, n_simulations
        (those in which the cell is defined), note.

    Raises:
        ValueError: as `widen` and `as_ratings`; a scored pair without ratings, or whose target is not a tenth of their
            mean; n_simulations below 1.
    """
    n_simulations, seed = whole_number(n_simulations, "n_simulations", 1), whole_number(seed, "seed")
    wide = widen(scores)
    as_ratings(ratings)
    scored = pair_index(wide.pairs)
    rated = Rated.of(ratings[pair_index(ratings).isin(scored)])
    places = scored.get_indexer(pair_index(rated.pairs))  # of the rated pairs among the scored ones
    if len(places) < len(scored):
        missing = scored.difference(pair_index(rated.pairs))
        raise ValueError(f"{len(missing)} of {len(scored)} scored pairs have no ratings, for instance {missing[0]}")
    off = np.abs(10 * wide.target[places] - rated.pairs["mean_rating"].to_numpy()) > 1e-6
    if off.any():
        raise ValueError(
            f"{off.sum()} of {len(off)} targets are not a tenth of the pair's mean rating, for instance that of "
            f"{rated.pairs[off].iloc[0]['audio']}: pass the ratings that the targets were made of, screened in the same way"
        )
    mean, unknown = rated.pairs["mean_rating"].to_numpy(), rated.unknown()
    cells = make_cells(rated.pairs, "score_range")
    of_models = [wide.scores[wide.rows(name)][:, places] for name in wide.models]
    overall = np.array([np.mean([_metric("srcc", one, mean) for one in runs]) for runs in of_models])
    values = np.array([np.mean([_in_cells(one, mean, cells) for one in runs], axis=0) for runs in of_models])
    samples = np.full((n_simulations, *values.shape), np.nan)
    if not unknown:
        probit, ones = Probit(rated), np.ones(len(rated.pairs))
        fitted = probit.fit(ones)
        for number, of_study in enumerate(samples):
            rng = np.random.default_rng([seed, number])
            true, drawn = probit.draw(1, rng)(fitted)
            true, noise = (true - true.mean()) / true.std(), rng.standard_normal(len(true))
            ranks, in_study = stats.rankdata(drawn), make_cells(rated.pairs.assign(mean_rating=drawn), "score_range")
            for model, wanted in enumerate(overall):
                if np.isfinite(wanted):
                    of_study[model] = _in_cells(_as_good(true, noise, ranks, wanted), drawn, in_study)
    rows = []
    for model, name in enumerate(wide.models):
        for place, cell in enumerate(cells):
            drawn, value = samples[:, model, place], values[model, place]
            drawn = drawn[np.isfinite(drawn)]
            low, high = np.quantile(drawn, TAIL) if len(drawn) else (np.nan, np.nan)
            verdict = "less than expected" if value < low else "more than expected" if value > high else "as expected"
            row = {"model": name, "cell": cell.name, "metric": "srcc", "value": value}
            row |= {"expected": drawn.mean() if len(drawn) else np.nan, "low": low, "high": high}
            row |= {"verdict": verdict if np.isfinite(value + low) else "", "overall": overall[model]}
            note = cell.note or unknown or ("" if np.isfinite(value) else "constant score or target")
            rows.append(row | {"n": int(cell.rows.sum()), "n_simulations": len(drawn), "note": note})
    return pd.DataFrame(rows)


def _in_cells(score: np.ndarray, mean: np.ndarray, cells: Sequence[Cell]) -> np.ndarray:
    """SRCC of a score [n] with mean ratings [n] in each cell; NaN for fewer than 4 pairs or a constant."""
    return np.array([_metric("srcc", score[cell.rows], mean[cell.rows]) for cell in cells])


def _as_good(true: np.ndarray, noise: np.ndarray, ranks: np.ndarray, wanted: float) -> np.ndarray:
    """a · true + √(1 - a²) · noise with the SRCC `wanted`; the nearest there is where a would leave 0 to 1."""

    def mixed(share: float) -> np.ndarray:
        return share * true + np.sqrt(1 - share**2) * noise

    def excess(share: float) -> float:
        return np.corrcoef(np.argsort(np.argsort(mixed(share))), ranks)[0, 1] - wanted

    if excess(0.0) >= 0:
        return noise
    return true if excess(1.0) <= 0 else mixed(optimize.brentq(excess, 0.0, 1.0, xtol=1e-3))
