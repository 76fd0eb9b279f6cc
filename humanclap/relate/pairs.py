"""From ratings to pairs, and from pairs to training and validation sets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from humanclap.checks import anchor_mask, choice, need_columns, need_ratings, whole_number

KEY = ["audio", "text"]


def aggregate_pairs(ratings: pd.DataFrame) -> pd.DataFrame:
    """Average the ratings of each audio-text pair.

    Args:
        ratings: non-anchor ratings, as in `Screening.ratings`.

    Returns:
        One row per pair, sorted by audio and text: `audio`, `text`, `system`, `split`, `n_ratings`, `mean_rating`
        (0-10), `rating_std` (sample standard deviation; NaN for a single rating) and `target` = mean_rating / 10, the
        a_i of equations 2-5 (0-1).

    Raises:
        ValueError: no ratings, anchors among them, missing columns or values, ratings outside 0-10, a listener twice.
    """
    need_columns(ratings, "ratings", (*KEY, "rating", "listener", "system", "split", "is_anchor"), filled=True)
    if ratings.empty:
        raise ValueError("there are no ratings to aggregate: did the screening remove every listener?")
    need_ratings(ratings)
    if anchor_mask(ratings).any():
        raise ValueError(
            f"{int(anchor_mask(ratings).sum())} of {len(ratings)} ratings are anchors (mismatched pairs): pass "
            "screen_listeners(ratings).ratings, or ratings[~ratings['is_anchor']] for everybody's"
        )
    pairs = (
        ratings.groupby([*KEY, "system", "split"], sort=True, observed=True)["rating"]
        .agg(n_ratings="size", mean_rating="mean", rating_std="std")
        .reset_index()
    )
    pairs["target"] = pairs["mean_rating"] / 10
    return pairs


def published_pairs(ratings: pd.DataFrame) -> pd.DataFrame:
    """RELATE's own pairs: the ratings that its column "in RELATE dataset" keeps, averaged.

    Returns:
        The columns of `aggregate_pairs`, and `relate_split` (train, validation, test).

    Raises:
        ValueError: ratings without that column (IS and OS have none).
    """
    used = published_ratings(ratings)
    pairs = aggregate_pairs(used)
    return pairs.merge(used[[*KEY, "relate_split"]].drop_duplicates(), on=KEY, validate="one_to_one")


def published_ratings(ratings: pd.DataFrame) -> pd.DataFrame:
    """The ratings behind `published_pairs`. Anchors go first: RELATE forgot to exclude a few of them."""
    need_columns(ratings, "ratings", (*KEY, "relate_split", "is_anchor"), filled=True)
    if (ratings["relate_split"] == "").any():
        raise ValueError('these ratings have no "in RELATE dataset": RELATE publishes it for REL.csv only')
    return ratings[~anchor_mask(ratings) & (ratings["relate_split"] != "excluded")].reset_index(drop=True)


def split_train_validation(
    pairs: pd.DataFrame, n_train: int | float = 1925, by: str = "caption", seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split training pairs at random into those that train and those that validate (paper, section IV-A).

    The paper trains on 1,925 pairs and does not say how they were drawn. A caption stands with three clips, so a split
    by pair puts most captions on both sides; `by="caption"` does not.

    Args:
        pairs: DataFrame with `text`. Where there is a column `split`, rows other than "train" are left aside, so that
            no test pair can slip in.
        n_train: pairs that train, or a fraction between 0 and 1. By caption, the nearest number that whole captions
            can reach is taken (the lower of two equally near).
        by: "caption" or "pair".
        seed: of the draw.

    Returns:
        (train, validation), both in the order of `pairs`, neither of them empty.

    Raises:
        ValueError: another `by`, an `n_train` that leaves nothing on one side.
    """
    need_columns(pairs, "pairs", ("text", "split") if "split" in pairs else ("text",), filled=True)
    if "split" in pairs:
        pairs = pairs[pairs["split"] == "train"]
    total = len(pairs)
    if total < 2:
        raise ValueError(f"{total} training pairs (split 'train') are too few to split in two")
    wanted = _number_to_train(n_train, total)
    rng = np.random.default_rng(whole_number(seed, "seed"))
    if choice(by, "by", ("caption", "pair")) == "pair":
        chosen = np.zeros(total, dtype=bool)
        chosen[rng.permutation(total)[:wanted]] = True
    else:
        sizes = pairs.groupby("text", sort=True).size()
        if len(sizes) < 2:
            raise ValueError(f"{total} pairs with {len(sizes)} caption cannot be split by caption; use by='pair'")
        sizes = sizes.iloc[rng.permutation(len(sizes))]
        chosen = pairs["text"].isin(sizes.index[_take_nearest(sizes.tolist(), wanted)]).to_numpy()
    return pairs[chosen].reset_index(drop=True), pairs[~chosen].reset_index(drop=True)


def _number_to_train(n_train: int | float, total: int) -> int:
    number = isinstance(n_train, (int, float, np.integer, np.floating)) and not isinstance(n_train, bool)
    if number and 0 < n_train < 1:
        wanted = round(float(n_train) * total)
    elif number and float(n_train).is_integer():
        wanted = int(n_train)
    else:
        raise ValueError(f"n_train={n_train!r}: allowed is a whole number of pairs or a fraction between 0 and 1")
    if not 0 < wanted < total:
        raise ValueError(
            f"n_train={n_train!r} of {total} training pairs leaves nothing on one side; allowed is 1 to {total - 1}"
        )
    return wanted


def _take_nearest(sizes: list[int], wanted: int) -> np.ndarray:
    """Mark groups, the first ones first, so that the marked sizes add up to the reachable sum nearest to `wanted`."""
    # reachable[i]: bit s is set where some of the groups i, i+1, … add up to s
    reachable = [1]
    for size in reversed(sizes):
        reachable.append(reachable[-1] | reachable[-1] << size)
    reachable.reverse()
    sums = [s for s in range(1, sum(sizes)) if reachable[0] >> s & 1]
    left = min(sums, key=lambda s: (abs(s - wanted), s))
    taken = np.zeros(len(sizes), dtype=bool)
    for i, size in enumerate(sizes):
        if size <= left and reachable[i + 1] >> (left - size) & 1:
            taken[i] = True
            left -= size
    return taken
