"""The ledger of the paper's claims: verdicts by hand, and data for which the answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from humanclap.evaluate import claims


@pytest.mark.parametrize(
    "low, high, threshold, expected",
    [
        (0.1, 0.3, 0, claims.HOLDS),
        (0.1, 0.3, 0.2, claims.UNDECIDED),
        (-0.3, -0.1, 0, claims.FAILS),
        ([0.1, -0.1], [0.3, 0.2], 0, claims.UNDECIDED),
        ([0.1, -0.3], [0.3, -0.1], 0, claims.FAILS),
        ([0.1, 0.2], [0.3, 0.4], 0.1, claims.HOLDS),
        (np.nan, np.nan, 0, claims.UNDECIDED),
        ([0.1, np.nan], [0.3, np.nan], 0, claims.UNDECIDED),
    ],
)
def test_verdict(low, high, threshold, expected):
    assert claims.verdict(low, high, threshold) == expected


@pytest.fixture(scope="module")
def scores():
    """Scores of known quality: the baseline is noise, wsce+mae follows the ratings closest."""
    rng = np.random.default_rng(1)
    systems = np.tile(["natural", "audioldm", "tango2", "natural", "audioldm2", "tango"], 120)
    captions = [f"caption {i // 3}" for i in range(720)]
    pairs = pd.DataFrame({"audio": [f"{i}.wav" for i in range(720)], "text": captions, "system": systems})
    pairs["mean_rating"] = rng.uniform(0, 10, 720)
    pairs["target"] = pairs["mean_rating"] / 10
    noise = {"laion-standin": 9.0, "wsce+mse": 0.5, "wsce+mae": 0.1, "wsce": 0.6, "mse": 0.5, "mae": 0.4}
    tables = []
    for model, spread in noise.items():
        score = pairs["target"] + rng.normal(0, spread, 720) + (0.3 if model == "mae" else 0)
        tables.append(pairs.assign(model=model, clap_score=score))
    return pd.concat(tables, ignore_index=True)


def test_the_ledger_says_what_the_data_were_made_to_show(scores):
    table = claims.ledger(scores, "laion-standin", n_resamples=300)
    verdicts = table[table["of"] == claims.WHOLE].set_index("claim")["verdict"]
    assert len(verdicts) == 6 and set(verdicts) == {claims.HOLDS}
    single = table[table["of"] != claims.WHOLE]
    assert (single["low"] <= single["here"]).all() and (single["here"] <= single["high"]).all()
    gain = single.set_index("claim").loc["SRCC gain of 0.15 or more"]
    assert gain["paper"] == pytest.approx(0.177) and gain["n"] == 720
    low = scores[scores["mean_rating"] <= 2].groupby("model")["clap_score"].mean()
    assert table["here"].iloc[-1] == pytest.approx(low["mae"] - low["wsce+mae"])
