"""Breakdowns beyond the paper's: what captions say, how many people rated and how they differed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_evaluate_tables import make_pairs, make_table

from humanclap.evaluate import breakdown
from humanclap.evaluate.inputs import FURTHER, is_temporal, make_cells, n_words

B = 40
CELLS = {
    "caption_length": ["1-6 words", "7-9 words", "10-13 words", "14+ words"],
    "temporal": ["temporal words", "no temporal words"],
    "n_ratings": ["1 rating", "2 ratings", "3 ratings", "4 ratings", "5+ ratings"],
    "rating_std": ["one rating", "SD <1", "SD 1-2", "SD 2-3", "SD >=3"],
}


@pytest.fixture(scope="module")
def table():
    pairs = make_pairs(captions=60)
    rng = np.random.default_rng(0)
    parts = np.array(["a dog barks", "a man speaks softly", "water is running in the sink", "wind blows"])
    captions = [" then ".join(rng.permutation(parts)[: 1 + k % 4]) + f" {k}" for k in range(60)]
    pairs["text"] = pairs["text"].map({f"caption {k}": caption for k, caption in enumerate(captions)})
    pairs["n_ratings"] = rng.integers(1, 8, size=len(pairs))
    pairs["rating_std"] = np.where(pairs["n_ratings"] > 1, rng.uniform(0, 4, size=len(pairs)), np.nan)
    return make_table(pairs)


def masks(pairs: pd.DataFrame, by: str) -> list[np.ndarray]:
    """The cells, written down once more."""
    ratings, spread = pairs["n_ratings"].to_numpy(), pairs["rating_std"].to_numpy()
    words = np.array([len(text.split()) for text in pairs["text"]])
    thens = np.array([text.count(" then ") for text in pairs["text"]])
    ones, twos = (spread >= 1) & (spread < 2), (spread >= 2) & (spread < 3)
    return {
        "caption_length": [words <= 6, (words >= 7) & (words <= 9), (words >= 10) & (words <= 13), words >= 14],
        "temporal": [thens > 0, thens == 0],
        "n_ratings": [ratings == 1, ratings == 2, ratings == 3, ratings == 4, ratings >= 5],
        "rating_std": [ratings == 1, spread < 1, ones, twos, spread >= 3],
    }[by]


@pytest.mark.parametrize("by", FURTHER)
def test_each_cell_holds_its_pairs_and_each_pair_stands_once(table, by):
    pairs = table[table["model"] == "laion"].reset_index(drop=True)
    found = breakdown(table, by=by, n_resamples=B).query("model == 'laion'").set_index("cell")
    assert list(found.index) == CELLS[by]
    for (name, row), mask in zip(found.iterrows(), masks(pairs, by), strict=True):
        expected = stats.spearmanr(pairs["clap_score"][mask], pairs["target"][mask]).statistic
        assert (row["n"], row["value"]) == (mask.sum(), pytest.approx(expected)), name
    assert found["n"].sum() == len(pairs) and (found["n"] > 4).all()


def test_a_data_set_of_means_has_no_cells_by_ratings_and_says_so(table):
    means = table.assign(n_ratings=np.nan, rating_std=np.nan)
    for by in ("n_ratings", "rating_std"):
        found = breakdown(means, by=by, n_resamples=B)
        assert list(found["cell"].unique()) == CELLS[by]
        assert (found["note"] == "number of ratings not known").all() and found["value"].isna().all()
    assert np.isfinite(breakdown(means, by="temporal", n_resamples=B)["value"]).all()


@pytest.mark.parametrize(
    ("by", "spoil", "message"),
    [
        ("n_ratings", lambda t: t.drop(columns="n_ratings"), "aggregate_pairs makes n_ratings.*no column n_ratings"),
        ("rating_std", lambda t: t.drop(columns="rating_std"), "no column rating_std"),
        (
            "n_ratings",
            lambda t: t.assign(n_ratings=t["n_ratings"].where(t["audio"] != t["audio"][0])),
            "1 of 180 rows have no n_ratings",
        ),
        ("rating_std", lambda t: t.assign(rating_std=np.nan), "rows have no rating_std"),
        ("n_ratings", lambda t: t.assign(n_ratings=t["n_ratings"] + (t.index == 200)), "n_ratings differs between"),
    ],
)
def test_what_is_missing_is_named(table, by, spoil, message):
    with pytest.raises(ValueError, match=message):
        breakdown(spoil(table), by=by, n_resamples=B)


def test_words_and_temporal_words():
    captions = ["A dog  barks", "Rain, THEN thunder", "a horn followed by a bell", "followed closely by", "an athenian"]
    assert list(n_words(captions)) == [3, 3, 6, 3, 2]
    assert list(is_temporal(captions)) == [False, True, True, False, False]


def test_cells_of_real_pairs_hold_each_pair_once(real_ratings):
    from humanclap import relate

    pairs = relate.aggregate_pairs(relate.screen_listeners(real_ratings).ratings)
    for by in FURTHER:
        cells = make_cells(pairs, by)
        np.testing.assert_array_equal(np.sum([cell.rows for cell in cells], axis=0), 1)
        assert all(cell.rows.sum() > 50 and not cell.note for cell in cells)
