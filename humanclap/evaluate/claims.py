"""The ledger of the paper's claims: each put to a long score table, with an interval and a verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from humanclap import paper

from .bootstrap import ResamplePlan, bootstrap_statistic
from .tables import compare_models

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "can't be told from this data"
SYNTHESIZED = ("audioldm", "audioldm2", "tango", "tango2")


def verdict(low, high, threshold: float = 0.0) -> str:
    """Whether differences with intervals [low, high] are all at least `threshold`.

    "holds" if every interval lies at or above it, "does not hold" if one lies wholly below, else "can't be told from
    this data"; so also where an interval is NaN. Scalars or equally long lists.
    """
    low, high = np.atleast_1d(np.asarray(low, float)), np.atleast_1d(np.asarray(high, float))
    if (high < threshold).any():
        return FAILS
    return HOLDS if (low >= threshold).all() else UNDECIDED


def ledger(
    scores: pd.DataFrame,
    baseline: str,
    model: str = "wsce+mae",
    low_rating: float = 2.0,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Put the paper's claims (sections IV-B and V) to these scores: one row a single comparison, grouped by claim.

    Args:
        scores: long score table with the five variants and the baseline: model, audio, text, system, mean_rating,
            target, clap_score, and training_seed where there are several (claims are of the means over seeds).
        baseline: the model that stands for LAION CLAP.
        model: the variant that the paper calls best.
        low_rating: pairs rated at most this (0-10) are "low-rated".

    Returns:
        Columns claim, of (the cell or the rival), paper (its number; NaN: none given), here, low, high (95 %), at_least
        (what the claim asks for), n, verdict; the verdict is of the whole claim, the same in each of its rows.
    """
    settings = {"n_resamples": n_resamples, "seed": seed}
    gains = pd.concat(
        [
            compare_models(scores, baseline, by=by, metrics=("srcc",), **settings)
            for by in ("overall", "system", "score_range")
        ]
    )
    gains = gains[gains["model"] == model].drop_duplicates("cell").set_index("cell")
    rivals = scores[scores["model"] != baseline]
    against = compare_models(rivals, model, metrics=("srcc",), **settings).set_index("model")
    flipped = pd.DataFrame(
        {
            "difference": -against["difference"],
            "low": -against["high"],
            "high": -against["low"],
            "n": against["n"],
        }
    )

    def papers(table: str, cells) -> list[float]:
        return [paper.gain(table, cell, model) for cell in cells]

    halves = ["<=5 all", ">5 all"]
    rows = [
        _rows("SRCC gain of 0.15 or more", gains.loc[["all"]], papers("I", ["all"]), 0.15),
        _rows(
            f"{model} has the highest SRCC",
            flipped,
            [paper.gain("I", "all", model, rival) for rival in flipped.index],
            0,
        ),
        _rows("gain on every generator", gains.loc[list(SYNTHESIZED)], papers("II", SYNTHESIZED), 0),
        _rows(
            "about +0.25 on synthesized audio (0.2 or more)",
            gains.loc[["synthesized"]],
            papers("II", ["synthesized"]),
            0.2,
        ),
        _rows("gain on low and on high ratings", gains.loc[halves], papers("III", halves), 0),
    ]
    if "mae" in set(scores["model"]) and model != "mae":
        drop = _low_rated_drop(scores, "mae", model, low_rating, **settings)
        rows.append(
            _rows(f"wSCE lowers scores of pairs rated <= {low_rating:g} (mae - {model})", drop, [np.nan], 0)
        )
    return pd.concat(rows, ignore_index=True)


def _rows(claim: str, cells: pd.DataFrame, papers: list[float], at_least: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "claim": claim,
            "of": cells.index,
            "paper": papers,
            "here": cells["difference"].to_numpy(),
            "low": cells["low"].to_numpy(),
            "high": cells["high"].to_numpy(),
            "at_least": at_least,
            "n": cells["n"].to_numpy(),
            "verdict": verdict(cells["low"], cells["high"], at_least),
        }
    )


def _low_rated_drop(
    scores, before: str, after: str, low_rating: float, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Mean score of the low-rated pairs under `before` minus that under `after`, captions resampled."""
    low_rated = scores[scores["mean_rating"] <= low_rating]
    # the mean over training seeds, where there are several
    both = low_rated.pivot_table(index=["audio", "text"], columns="model", values="clap_score", aggfunc="mean")
    both = both.reindex(columns=[before, after]).reset_index()
    if both.empty:
        return pd.DataFrame(
            {"difference": [np.nan], "low": [np.nan], "high": [np.nan], "n": [0]},
            index=[f"rated <= {low_rating:g}"],
        )
    drop = (both[before] - both[after]).to_numpy()
    plan = ResamplePlan.draw(both["text"].to_numpy(), len(both), n_resamples, seed)
    found = bootstrap_statistic(lambda weights: drop @ weights / weights.sum(axis=0), plan)
    return pd.DataFrame(
        {"difference": [found.value], "low": [found.low], "high": [found.high], "n": [len(both)]},
        index=[f"rated <= {low_rating:g}"],
    )
