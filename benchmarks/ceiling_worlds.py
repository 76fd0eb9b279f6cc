"""Made-up ways of rating whose truth is known, none of them the model that `evaluate.cell_ceilings` fits.

A world draws pairs with the expected rating of each (its true value) and single ratings. They differ in how true values
are spread, in the noise, in the heaps, and in what listeners share.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

VALUES = np.arange(11)
HEAPS = np.array([0, 2, 5, 8, 10])
# share of RELATE's test captions with 1, 2, … ratings a pair after the paper's screening (16 % have one)
RATER_SHARES = np.array([0.16, 0.21, 0.2, 0.16, 0.13, 0.06, 0.05, 0.02, 0.01, 0.0, 0.0, 0.0])


def draw_pairs(world: Callable, n_pairs: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Ratings of n_pairs pairs (three a caption, with one number of raters), and the pairs' true values [n]."""
    n_captions = -(-n_pairs // 3)
    raters = np.repeat(rng.choice(len(RATER_SHARES), n_captions, p=RATER_SHARES) + 1, 3)[:n_pairs]
    pair = np.repeat(np.arange(n_pairs), raters)
    true, rating = world(raters, pair, rng)
    names = np.array([f"{p:07d}.wav" for p in range(n_pairs)], dtype=object)
    captions = np.array([f"caption {p // 3}" for p in range(n_pairs)], dtype=object)
    return pd.DataFrame({"audio": names[pair], "text": captions[pair], "rating": rating}), true


def from_table(table: np.ndarray, pair: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True values and ratings from each pair's own probabilities [n, 11]."""
    edges = np.cumsum(table, axis=1)[pair]
    return table @ VALUES, np.minimum((rng.random((len(pair), 1)) * edges[:, -1:] > edges).sum(axis=1), 10)


def rounded(centre: np.ndarray, spread, law=stats.norm, heaped: float = 0.0) -> np.ndarray:
    """Probabilities [n, 11] of centre + spread · noise, rounded and held within 0 to 10; a share to the heaps only."""
    spread = np.broadcast_to(spread, centre.shape)[:, None]

    def shares(borders):
        below = law.cdf((borders - centre[:, None]) / spread)
        return np.diff(np.concatenate([0 * below[:, :1], below, 0 * below[:, :1] + 1], axis=1), axis=1)

    table = (1 - heaped) * shares(np.arange(10) + 0.5)
    table[:, HEAPS] += heaped * shares((HEAPS[1:] + HEAPS[:-1]) / 2)
    return table


def normal_with_heaps(raters, pair, rng):
    """Normal quality and normal noise; two ratings in three go to a labelled point."""
    return from_table(rounded(rng.normal(6.8, 2.4, len(raters)), 2.6, heaped=0.67), pair, rng)


def skewed(raters, pair, rng):
    """Most pairs good, a long tail of bad ones; each rating from a beta distribution of its own, wide and U-shaped."""
    quality = rng.beta(3.2, 1.1, len(raters))
    borders = np.append((np.arange(10) + 0.5) / 10, 1.0)
    below = stats.beta.cdf(borders, 3 * quality[:, None] + 0.05, 3 * (1 - quality[:, None]) + 0.05)
    return from_table(np.diff(below, axis=1, prepend=0), pair, rng)


def bimodal(raters, pair, rng):
    """Good and bad pairs, few between; noise with a sharp peak and long tails (Laplace)."""
    good = rng.random(len(raters)) < 0.6
    quality = np.where(good, rng.normal(8.3, 0.9, len(raters)), rng.normal(2.5, 1.0, len(raters)))
    return from_table(rounded(quality, 1.8, stats.laplace, heaped=0.5), pair, rng)


def careless(raters, pair, rng):
    """One rating in eight is any number at all; the others are careful."""
    table = rounded(rng.normal(6.5, 2.5, len(raters)), 1.8, heaped=0.6)
    return from_table(0.875 * table + 0.125 / 11, pair, rng)


def ambiguous(raters, pair, rng):
    """Some pairs are hard to judge: the noise has its own spread for each pair, from 1 to 5 points."""
    spread = np.exp(rng.normal(0.8, 0.4, len(raters)))
    return from_table(rounded(rng.normal(6.5, 2.2, len(raters)), spread, heaped=0.6), pair, rng)


def careful(raters, pair, rng):
    """Little noise: a rating is the number of ten details that are right (binomial)."""
    share = rng.beta(2.0, 1.2, len(raters))
    return from_table(stats.binom.pmf(VALUES, 10, share[:, None]), pair, rng)


def floor_and_ceiling(raters, pair, rng):
    """One pair in six is hopeless and one in four perfect, or nearly: most of their ratings are 0, or 10."""
    kind, quality = rng.random(len(raters)), rng.normal(6, 2, len(raters))
    quality = np.where(kind < 1 / 6, rng.normal(-2, 1.0, len(raters)), quality)
    quality = np.where(kind > 3 / 4, rng.normal(11, 1.0, len(raters)), quality)
    return from_table(rounded(quality, 2.2, heaped=0.6), pair, rng)


def habits(raters, pair, rng):
    """Listeners are lenient or strict (SD 1.3 points) on all 18 pairs they rate, and share the heaps."""
    quality = rng.normal(6.5, 2.3, len(raters))
    # six captions of three clips make a form; the j-th rating of every pair of a form is of one listener
    place = np.arange(len(pair)) - np.repeat(np.cumsum(raters) - raters, raters)
    lenience = rng.normal(0, 1.3, (len(raters) // 18 + 1, raters.max()))
    _, rating = from_table(rounded(quality[pair] + lenience[pair // 18, place], 1.9, heaped=0.6),
                           np.arange(len(pair)), rng)  # fmt: skip
    # over all listeners the two noises are one: normal, of the summed variance, rounded afterwards
    return rounded(quality, np.hypot(1.3, 1.9), heaped=0.6) @ VALUES, rating


def five_kinds(raters, pair, rng):
    """True values on five points only, with nothing between: ties that the fitted model does not allow for."""
    return from_table(rounded(rng.choice([1.0, 4.0, 6.0, 8.0, 9.5], len(raters)), 2.4, heaped=0.6), pair, rng)


WORLDS = {
    "normal, heaps": normal_with_heaps,
    "skewed": skewed,
    "bimodal": bimodal,
    "careless listeners": careless,
    "ambiguous pairs": ambiguous,
    "careful listeners": careful,
    "floor and ceiling": floor_and_ceiling,
    "listeners' habits": habits,
}
TIED = {"five kinds of pairs (ties)": five_kinds}


def truth(world: Callable, n_pairs: int, seed: int, cut: float = 5.0) -> dict[tuple[str, str], float]:
    """Correlations of the true value with the mean rating by scipy, in very many pairs: (cell, metric) -> value."""
    ratings, true = draw_pairs(world, n_pairs, np.random.default_rng([seed, 9]))
    mean = ratings.groupby("audio")["rating"].mean().to_numpy()
    cells = {"all": mean == mean, f"<={cut:g} all": mean <= cut, f">{cut:g} all": mean > cut}
    found = {}
    for cell, rows in cells.items():
        few = np.flatnonzero(rows)[:40_000]  # Kendall's tau needs no more
        found[cell, "srcc"] = stats.spearmanr(true[rows], mean[rows]).statistic
        found[cell, "lcc"] = stats.pearsonr(true[rows], mean[rows]).statistic
        found[cell, "ktau"] = stats.kendalltau(true[few], mean[few]).statistic
        found[cell, "mse"] = np.mean((true[rows] - mean[rows]) ** 2) / 100
    return found
