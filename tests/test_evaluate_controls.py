"""Controls: AUC of matched against mismatched pairs, and captions dealt out anew."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from humanclap.evaluate import ResamplePlan, anchor_auc, swap_captions


def auc_by_loop(matched, mismatched) -> float:
    if not len(matched) or not len(mismatched):
        return np.nan
    return np.mean([(a > b) + 0.5 * (a == b) for a in matched for b in mismatched])


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(4)
    matched, mismatched = np.round(0.4 + 0.3 * rng.normal(size=60), 1), np.round(0.3 * rng.normal(size=25), 1)
    return matched, mismatched, [f"c{i % 20}" for i in range(60)], [f"c{i % 10 + 15}" for i in range(25)]


def test_auc_is_mann_whitney(scores):
    matched, mismatched, *_ = scores
    expected = stats.mannwhitneyu(matched, mismatched).statistic / (len(matched) * len(mismatched))
    assert anchor_auc(matched, mismatched, n_resamples=20).auc == pytest.approx(expected)


@pytest.mark.parametrize("by_caption", [True, False])
def test_auc_interval_equals_a_plain_loop(scores, by_caption):
    matched, mismatched, *groups = scores
    if not by_caption:  # pairs are then drawn by their place among the sorted scores
        groups = [None, None]
        matched, mismatched = np.sort(matched), np.sort(mismatched)
    found = anchor_auc(matched, mismatched, *groups, n_resamples=60, seed=8)
    labels = [*groups[0], *groups[1]] if by_caption else range(85)
    plan = ResamplePlan.draw(labels, 60, seed=8)
    both, first = np.concatenate([matched, mismatched]), np.arange(85) < 60
    samples = []
    for resample in range(60):
        rows = plan.indices(resample)
        samples.append(auc_by_loop(both[rows][first[rows]], both[rows][~first[rows]]))
    assert (found.low, found.high) == pytest.approx(np.nanpercentile(samples, [2.5, 97.5]))


def test_auc_without_one_side_in_a_resample_is_counted():
    found = anchor_auc([2, 3, 4], [1], ["a", "b", "c"], ["d"], n_resamples=200)
    plan = ResamplePlan.draw(list("abcd"), 200)
    one_sided = sum(set(plan.indices(b)) <= {3} or 3 not in plan.indices(b) for b in range(200))
    assert found.n_undefined == one_sided > 0
    assert (found.auc, found.low, found.high) == (1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], []), "needs both sides, not 1 matched"),
        (([1, np.nan], [1, 2]), "matched holds 1 NaN"),
        (([1, 2], [1, 2], ["a", "b"]), "groups .captions. of both sides"),
        (([1, 2], [1, 2], ["a", "b"], ["a"]), "groups has labels of shape .1,. for 2 pairs"),
    ],
)
def test_auc_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        anchor_auc(*arguments)


def make_pairs(n_captions=40, clips=3, repeats=1) -> pd.DataFrame:
    rows = [(f"{clip}/{c}.wav", f"caption {c // repeats}", 0.5) for c in range(n_captions) for clip in range(clips)]
    return pd.DataFrame(rows, columns=["audio", "text", "target"], index=np.arange(len(rows)) * 3)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("pairs", [make_pairs(), make_pairs(4, 3), make_pairs(2, 5), make_pairs(40, 3, repeats=10)])
def test_swapped_captions_belong_to_no_clip_of_theirs(pairs, seed):
    swapped = swap_captions(pairs, seed=seed)
    assert (swapped["text"].to_numpy() != pairs["text"].to_numpy()).all()
    assert sorted(swapped["text"]) == sorted(pairs["text"])
    pd.testing.assert_series_equal(swapped["original_text"], pairs["text"], check_names=False)
    pd.testing.assert_frame_equal(swapped[["audio", "target"]], pairs[["audio", "target"]])
    pd.testing.assert_frame_equal(swapped, swap_captions(pairs, seed=seed))
    assert "original_text" not in pairs


def test_swapping_does_not_depend_on_the_order_of_the_rows():
    pairs = make_pairs()
    shuffled = swap_captions(pairs.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(shuffled.sort_index(), swap_captions(pairs))
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0"):
        swap_captions(pairs, "a")


def test_a_clip_with_two_captions_gets_neither():
    pairs = pd.DataFrame({"audio": ["a", "a", "b", "b", "c", "c"], "text": ["1", "2", "3", "4", "5", "6"]})
    for seed in range(20):
        swapped = swap_captions(pairs, seed)
        for audio, rows in swapped.groupby("audio"):
            assert not set(rows["text"]) & set(pairs.loc[pairs["audio"] == audio, "text"])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (pd.DataFrame({"audio": list("abc"), "text": ["x", "x", "y"]}), "2 rows have 'x'"),
        (pd.DataFrame({"audio": ["a"], "text": ["x"]}), "found no way"),
        (pd.DataFrame({"audio": ["a"]}), "pairs has no column text"),
        (pd.DataFrame({"audio": ["a", "b"], "text": ["x", None]}), "rows have no text"),
    ],
)
def test_swaps_that_cannot_be(pairs, message):
    with pytest.raises(ValueError, match=message):
        swap_captions(pairs)
