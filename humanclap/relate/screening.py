"""Who can be trusted: listeners judged by the mismatched pairs (anchors) that each of them rated."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from humanclap.checks import anchor_mask, need_columns, need_ratings, number

RATING_COLUMNS = ("audio", "text", "rating", "listener", "split", "is_anchor")


@dataclass(frozen=True)
class Screening:
    """What is left when listeners are screened by their anchors.

    Attributes:
        ratings: the kept listeners' ratings, anchors left out; columns of `load_ratings`.
        kept, removed: listener ids, sorted.
        anchor_means: each listener's mean anchor rating (0-10), indexed by listener id.
        max_anchor_mean: the threshold; a listener above it is removed.
    """

    ratings: pd.DataFrame = field(repr=False)
    kept: tuple[str, ...] = field(repr=False)
    removed: tuple[str, ...] = field(repr=False)
    anchor_means: pd.Series = field(repr=False)
    max_anchor_mean: float

    def counts(self) -> pd.DataFrame:
        """Ratings, pairs and listeners left: one row for each split, and "all"."""
        parts = {split: self.ratings[self.ratings["split"] == split] for split in ("train", "test")}
        return pd.DataFrame(
            {
                name: {
                    "ratings": len(part),
                    "pairs": len(part[["audio", "text"]].drop_duplicates()),
                    "listeners": part["listener"].nunique(),
                }
                for name, part in {**parts, "all": self.ratings}.items()
            }
        ).T.rename_axis("split")

    def __str__(self) -> str:
        return (
            f"mean anchor rating <= {self.max_anchor_mean:g}: {len(self.kept)} listeners kept, "
            f"{len(self.removed)} removed, {len(self.ratings):,} ratings left"
        )


def anchor_means(ratings: pd.DataFrame) -> pd.Series:
    """Mean rating (0-10) that each listener gave to the anchors, indexed by listener id.

    Raises:
        ValueError: a listener without anchors, who cannot be judged by them; missing columns or values.
    """
    need_columns(ratings, "ratings", RATING_COLUMNS, filled=True)
    need_ratings(ratings)
    listener = ratings["listener"].astype(str)
    anchors = anchor_mask(ratings)
    means = ratings[anchors].groupby(listener[anchors])["rating"].mean()
    without = sorted(set(listener) - set(means.index))
    if without:
        raise ValueError(
            f"{len(without)} of {listener.nunique()} listeners have no anchor ratings, so they cannot be screened "
            f"by them (first: {', '.join(without[:3])}). Pass all ratings of load_ratings, anchors included, or leave "
            "these listeners out"
        )
    return means.rename("anchor_mean").sort_index()


def screen_listeners(ratings: pd.DataFrame, max_anchor_mean: float = 2.0) -> Screening:
    """Remove all anchors, and the listeners whose mean anchor rating is above a threshold (paper, section II-B).

    Args:
        ratings: DataFrame of `load_ratings`, anchors included.
        max_anchor_mean: 0-10; the paper's value is 2. 10 keeps everybody.

    Raises:
        ValueError: a threshold outside 0-10; a listener without anchors; missing columns or values.
    """
    limit = number(max_anchor_mean, "max_anchor_mean", 0, 10)
    means = anchor_means(ratings)
    kept = means.index[means <= limit]
    left = ratings[ratings["listener"].astype(str).isin(kept) & ~anchor_mask(ratings)].reset_index(drop=True)
    removed = means.index.difference(kept)
    return Screening(left, tuple(kept), tuple(removed), means, limit)
