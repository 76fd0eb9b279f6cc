"""Calibration: what a score of 0.6 means on people's scale, and how far a map fitted elsewhere gets it there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from humanclap.checks import choice, listed, whole_number

from .bootstrap import Estimate, ResamplePlan, bootstrap_samples, percentile_interval, plan_for, seed_sd, weighted_mean
from .inputs import FEW, MIN_PAIRS, SEED, Wide, as_pair, pair_index, partners, widen
from .weighted import WeightedCorrelations

MAPS = ("none", "linear", "isotonic")


def fit_map(score, target, kind: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from scores to the target's scale (0 to 1), fitted by least squares on score and target [N].

    kind: "none" (scores as they are), "linear" (a + b · score, cut off at 0 and 1) or "isotonic" (the best
    non-decreasing step function, linear between its steps, constant outside the scores seen; scikit-learn's
    `IsotonicRegression`). A constant score is mapped to the mean target by the last two. ValueError for another kind,
    NaN, unequal lengths.
    """
    choice(kind, "map", MAPS)
    score, target = as_pair(score, target)
    if kind == "none":
        return lambda values: np.asarray(values, dtype=float)
    if kind == "linear":
        variance = np.mean((score - score.mean()) ** 2)
        slope = np.mean((score - score.mean()) * (target - target.mean())) / variance if np.ptp(score) > 0 else 0.0
        return lambda values: np.clip(target.mean() + slope * (np.asarray(values, float) - score.mean()), 0, 1)
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, increasing=True, out_of_bounds="clip").fit(score, target)
    return lambda values: fitted.predict(np.array(values, dtype=float))  # a copy: it may be read-only


def calibrated_scores(validation_scores: pd.DataFrame, test_scores: pd.DataFrame, kind: str) -> pd.DataFrame:
    """`test_scores` with each run's scores mapped by `fit_map` as fitted on its own `validation_scores`.

    Rows, order and index are kept. Arguments and errors: as `calibrate`.
    """
    fitted, test = _both(validation_scores, test_scores)
    pair = pair_index(test.pairs).get_indexer(pair_index(test_scores))
    values = np.full(len(test_scores), np.nan)
    for (name, seed), mapped in zip(test.runs, _mapped(fitted, test, kind), strict=True):
        rows = (test_scores["model"] == name).to_numpy()
        if seed is not None:
            rows = rows & (test_scores[SEED] == seed).to_numpy()
        values[rows] = mapped[pair[rows]]
    return test_scores.assign(clap_score=values)


def calibrate(
    validation_scores: pd.DataFrame, test_scores: pd.DataFrame, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """MSE of each model's scores as they are, and mapped by what was fitted on validation pairs only.

    Args:
        validation_scores, test_scores: long score tables of the same models (and training seeds) on two sets of pairs;
            no pair may be in both.

    Returns:
        One row per model and map (`MAPS`): model, map, mse with low and high, srcc (a linear map with a rising slope
        leaves it as it is, but for ties where it is cut off at 0 or 1; an isotonic one makes ties), constant_mse (of
        the validation pairs' mean target: what no score is needed for), difference (mse - constant_mse; below zero the
        score is worth something), difference_low, difference_high, n, n_validation, n_seeds, seed_sd (of the mse),
        note. Captions are resampled, the same for all; several training seeds are averaged. Maps stay as fitted: the
        intervals are of the test pairs alone. Fewer than 4 test pairs: NaN and a note.

    Raises:
        ValueError: as `widen` does for both tables; another model or seed in the one than in the other; pairs in both.
    """
    fitted, test = _both(validation_scores, test_scores)
    n = len(test.target)
    plan = ResamplePlan.draw(test.pairs["text"], n_resamples, seed)
    constant = np.full((1, n), fitted.target.mean())
    rows = []
    for kind in MAPS:
        engine = WeightedCorrelations(np.vstack([_mapped(fitted, test, kind), constant]), test.target, ("srcc", "mse"))
        whole = engine(np.ones((n, 1), np.float32))
        srcc, mse = (whole[metric][:, 0] if n >= MIN_PAIRS else np.full(len(whole[metric]), np.nan) for metric in whole)
        samples = bootstrap_samples(lambda weights, engine=engine: engine(weights)["mse"], plan)
        reference = Estimate(mse[-1], samples[-1])
        for name in test.models:
            runs = test.rows(name)
            found, rank = Estimate.mean(mse[runs], samples[runs]), float(srcc[runs].mean())
            gain = found - reference
            row = {"model": name, "map": kind, "mse": found.value, **found.row(), "srcc": rank}
            row |= {"constant_mse": reference.value, "difference": gain.value, **gain.row("difference_")}
            row |= {"n": n, "n_validation": len(fitted.target), "n_seeds": len(runs), "seed_sd": seed_sd(mse[runs])}
            note = "" if np.isfinite(rank) else "constant: the map or score says nothing"
            rows.append(row | {"note": FEW if n < MIN_PAIRS else note})
    return pd.DataFrame(sorted(rows, key=lambda row: test.models.index(row["model"])))


def reliability_curve(
    score, target, bins: int = 10, groups=None, n_resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """A reliability diagram: mean target [0, 1] of the pairs whose scores [N] lie in each of some quantile bins.

    Columns: bin (1, 2, …), score_low, score_high (the bin's own smallest and largest score), score (mean), target
    (mean), low, high (of the target's mean), n, note. A score is calibrated where target = score. Equal scores stay in
    one bin, so ties leave fewer than `bins` of them, of unequal sizes; a constant score has one. groups: captions,
    resampled with all their pairs; None: pairs are. A bin with fewer than 4 pairs has no interval, and a note.
    ValueError for NaN, unequal lengths, bins below 1.
    """
    score, target = as_pair(score, target)
    bins = whole_number(bins, "bins", 1)
    edges = np.unique(np.quantile(score, np.arange(1, bins) / bins))
    number = np.unique(np.searchsorted(edges, score, side="left"), return_inverse=True)[1]
    plan = plan_for(groups, target, score, n_resamples=n_resamples, seed=seed)
    rows = []
    for place in range(number.max() + 1):
        chosen = number == place
        n, own = int(chosen.sum()), score[chosen]
        samples = bootstrap_samples(weighted_mean(target[chosen]), plan, chosen)
        low, high = percentile_interval(samples) if n >= MIN_PAIRS else (np.nan, np.nan)
        row = {"bin": place + 1, "score_low": own.min(), "score_high": own.max(), "score": own.mean()}
        row |= {"target": target[chosen].mean(), "low": low, "high": high, "n": n}
        rows.append(row | {"note": "" if n >= MIN_PAIRS else FEW})
    return pd.DataFrame(rows)


def _both(validation_scores: pd.DataFrame, test_scores: pd.DataFrame) -> tuple[Wide, Wide]:
    """Both tables, one row per pair, with the runs of the validation table in the order of the test table's."""
    validation, test = widen(validation_scores), widen(test_scores)
    both = pair_index(validation.pairs).intersection(pair_index(test.pairs))
    if len(both):
        raise ValueError(
            f"{len(both)} pairs are in validation and in test, for instance {tuple(both[0])}: a map must not be fitted on "
            "what it is judged by"
        )
    order = partners(test, validation, "test_scores", "validation_scores")
    missing = [name for name in validation.models if name not in test.models]
    if missing:
        raise ValueError(f"validation_scores has models that test_scores lacks: {listed(missing)}")
    return Wide(test.models, test.runs, validation.scores[order], validation.target, validation.pairs), test


def _mapped(fitted: Wide, test: Wide, kind: str) -> np.ndarray:
    """Test scores [R, n], each run's by its own map."""
    maps = [fit_map(scores, fitted.target, kind) for scores in fitted.scores]
    return np.stack([to_scale(scores) for to_scale, scores in zip(maps, test.scores, strict=True)])
