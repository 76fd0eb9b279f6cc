"""How single listeners use the scale, beside the others who rated the same pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .checks import PAIR, as_ratings

LABELLED = (0, 2, 5, 8, 10)  # the ratings that RELATE's instruction puts words to


def listener_habits(ratings: pd.DataFrame) -> pd.DataFrame:
    """One row a listener: listener, n_ratings, n_shared, offset, spread, share_labelled.

    offset: mean over the pairs with other raters (n_shared) of own rating - mean rating of the others, in
    rating units, NaN without such a pair; it holds the others' habits too, so its SD over listeners
    overstates theirs. spread: SD of the listener's ratings (NaN for one rating). share_labelled: share of
    ratings on 0, 2, 5, 8, 10. ratings: one row a rating with audio, text, rating, listener, without
    anchors. ValueError for a missing column or cell, a rating that is no number, anchors (is_anchor true), an
    is_anchor that is neither True nor False, one listener twice on a pair.
    """
    rating = pd.Series(as_ratings(ratings, "listener"), ratings.index)
    of_pair = rating.groupby([ratings[column] for column in PAIR], observed=True)
    others = of_pair.transform("size") - 1
    others_mean = (of_pair.transform("sum") - rating) / others.where(others > 0)
    table = pd.DataFrame({
        "listener": ratings["listener"],
        "rating": rating,
        "difference": rating - others_mean,
        "labelled": np.isin(rating, LABELLED).astype(float),
    })
    return table.groupby("listener", as_index=False, observed=True).agg(
        n_ratings=("rating", "size"),
        n_shared=("difference", "count"),
        offset=("difference", "mean"),
        spread=("rating", "std"),
        share_labelled=("labelled", "mean"),
    )
