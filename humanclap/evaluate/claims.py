"""The ledger of the paper's claims: each comparison that a claim makes, with an interval and a verdict of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd

from humanclap import paper

from .bootstrap import Estimate, ResamplePlan, bootstrap_samples, weighted_mean
from .tables import paper_table

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "can't be told from this data"
WHOLE = "the claim"
SYNTHESIZED = ("audioldm", "audioldm2", "tango", "tango2")
LOW_RATING = 2.0  # pairs with a mean rating (0-10) of at most this are "low-rated"


def verdict(low, high, threshold: float = 0.0) -> str:
    """Whether differences with intervals [low, high] (scalars or equally long lists) are all at least `threshold`.

    "holds" if every interval lies at or above it, "does not hold" if one lies wholly below, else "can't be told from
    this data"; so also where an interval is NaN, or there is none.
    """
    low, high = np.atleast_1d(np.asarray(low, float)), np.atleast_1d(np.asarray(high, float))
    if (high < threshold).any():
        return FAILS
    return HOLDS if len(low) and (low >= threshold).all() else UNDECIDED


def ledger(
    scores: pd.DataFrame, baseline: str, model: str = "wsce+mae", n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Compare the paper's claims (sections IV-B and V) with these scores: one row per comparison, then one per claim.

    Args:
        scores: long score table with the five variants and the baseline: model, audio, text, system, mean_rating,
            target, clap_score, and training_seed where there are several (claims are of the means over seeds).
        baseline: the model that the paper's LAION CLAP is here.
        model: the variant that the paper calls best.

    Returns:
        Columns claim, of (the cell or the rival; "the claim" in the row that sums up), paper (its number; NaN: none
        given), here, low, high (95 %), at_least (what the claim asks for), n, verdict. A comparison's verdict is its
        own; the claim holds if all its comparisons do, fails if one does, and shows its smallest number. Claims on
        systems or on a loss that the scores do not have are left out.
    """
    settings = {"n_resamples": n_resamples, "seed": seed, "correct": False, "metrics": ("srcc",)}
    tables = [paper_table(scores, by, baseline, **settings) for by in ("overall", "system", "score_range")]
    gains = pd.concat(tables, ignore_index=True).query("model == @model").dropna(subset="difference")
    gains = gains.drop_duplicates("cell").set_index("cell")[["difference", "diff_low", "diff_high", "n"]]
    gains.columns = ["here", "low", "high", "n"]
    rivals, best = scores[scores["model"] != baseline], gains.iloc[:0]
    if rivals["model"].nunique() > 1:
        against = paper_table(rivals, "overall", model, **settings).set_index("model").drop(model)
        ends = {"here": -against["difference"], "low": -against["diff_high"], "high": -against["diff_low"]}
        best = pd.DataFrame(ends | {"n": against["n"]})
    claims = [
        ("SRCC gain of 0.15 or more", gains, {"all": ("I", "all")}, 0.15),
        (f"{model} has the highest SRCC", best, {rival: ("I", "all", model, rival) for rival in best.index}, 0),
        ("gain on every generator", gains, {system: ("II", system) for system in SYNTHESIZED}, 0),
        ("about +0.25 on synthesized audio (0.2 or more)", gains, {"synthesized": ("II", "synthesized")}, 0.2),
        ("gain on low and on high ratings", gains, {half: ("III", half) for half in ("<=5 all", ">5 all")}, 0),
    ]
    rows = []
    for claim, cells, wanted, at_least in claims:
        found = cells[cells.index.isin(wanted)]
        papers = [paper.gain(table, cell, *(who or [model])) for table, cell, *who in map(wanted.get, found.index)]
        rows += _rows(claim, found.assign(paper=papers), at_least)
    if "mae" in set(scores["model"]) and model != "mae":
        drop = _low_rated_drop(scores, "mae", model, n_resamples, seed)
        claim = f"wSCE lowers scores of pairs rated <= {LOW_RATING:g} (mae - {model})"
        rows += _rows(claim, drop.assign(paper=np.nan), 0)
    return pd.DataFrame(rows, columns=["claim", "of", "paper", "here", "low", "high", "at_least", "n", "verdict"])


def _rows(claim: str, found: pd.DataFrame, at_least: float) -> list[dict]:
    """A row per comparison, and the claim's own below them; none where there is nothing to compare."""
    if not len(found):
        return []
    rows = [
        {"claim": claim, "of": of, **row, "at_least": at_least, "verdict": verdict(row["low"], row["high"], at_least)}
        for of, row in found.to_dict("index").items()
    ]
    whole = {"claim": claim, "of": WHOLE, "paper": found["paper"].min(), "here": found["here"].min()}
    whole |= {"low": np.nan, "high": np.nan, "at_least": at_least, "n": found["n"].max()}
    return [*rows, whole | {"verdict": verdict(found["low"], found["high"], at_least)}]


def _low_rated_drop(scores, before: str, after: str, n_resamples: int, seed: int) -> pd.DataFrame:
    """Mean score of the low-rated pairs under `before` minus that under `after`, captions resampled."""
    low_rated = scores[scores["mean_rating"] <= LOW_RATING]
    # the mean over training seeds, where there are several
    both = low_rated.pivot_table(index=["audio", "text"], columns="model", values="clap_score", aggfunc="mean")
    both = both.reindex(columns=[before, after]).reset_index()
    found = Estimate(np.nan, np.empty(0))
    if both["text"].nunique() > 1:
        drop = (both[before] - both[after]).to_numpy()
        plan = ResamplePlan.draw(both["text"].to_numpy(), n_resamples, seed)
        found = Estimate(float(drop.mean()), bootstrap_samples(weighted_mean(drop), plan))
    row = {"here": found.value, **found.row(), "n": len(both)}
    return pd.DataFrame([row], index=[f"rated <= {LOW_RATING:g}"])
