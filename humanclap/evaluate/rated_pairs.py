"""Ratings sorted into pairs, and what the fitted model expects of such pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from .cells import Cell, make_cells
from .checks import PAIR, as_ratings
from .joint_table import JointTable, MeanRatings
from .rating_model import RatingModel, fit_rating_model
from .wide import Wide


@dataclass(frozen=True)
class RatedPairs:
    """Ratings `values` [N] of the pairs `pair` [N], and the pairs themselves.

    pairs: one row a pair, by audio and text: audio, text, n_ratings, mean_rating (0-10) and, where it is known, system.
    Ratings are sorted by pair and value, so the order of the rows that came says nothing.
    """

    values: np.ndarray
    pair: np.ndarray
    pairs: pd.DataFrame

    @classmethod
    def of(cls, ratings: pd.DataFrame) -> RatedPairs:
        """From one row a rating: audio, text, rating, without anchors. ValueError as `checks.as_ratings` raises it."""
        values = as_ratings(ratings)
        grouped = ratings.groupby(PAIR, observed=True)
        pair = grouped.ngroup().to_numpy()
        order = np.lexsort((values, pair))
        values, pair = values[order], pair[order]
        n_ratings = np.bincount(pair)
        pairs = ratings.iloc[order[np.cumsum(n_ratings) - n_ratings]][[c for c in (*PAIR, "system") if c in ratings]]
        pairs = pairs.reset_index(drop=True).assign(
            n_ratings=n_ratings, mean_rating=np.bincount(pair, values) / n_ratings
        )
        if "system" in pairs and (grouped["system"].nunique(dropna=False) > 1).any():
            raise ValueError("one pair stands under two systems: the ratings of a pair need one system")
        return cls(values, pair, pairs)

    @classmethod
    def behind(cls, wide: Wide, ratings: pd.DataFrame) -> tuple[RatedPairs, np.ndarray]:
        """The ratings behind a score table, and where in it each of their pairs stands: a place each [n].

        Ratings of pairs without a score play no part. ValueError where a scored pair has no ratings, or a target is not
        a tenth of the mean of its ratings.
        """
        as_ratings(ratings)
        scored = pd.MultiIndex.from_frame(wide.pairs[PAIR])
        rated = cls.of(ratings[pd.MultiIndex.from_frame(ratings[PAIR]).isin(scored)])
        places = scored.get_indexer(pd.MultiIndex.from_frame(rated.pairs[PAIR]))
        if len(places) < len(scored):
            missing = scored.difference(pd.MultiIndex.from_frame(rated.pairs[PAIR]))
            raise ValueError(f"{len(missing)} of {len(scored)} scored pairs have no ratings, for instance {missing[0]}")
        off = np.abs(10 * wide.target[places] - rated.pairs["mean_rating"].to_numpy()) > 1e-6
        if off.any():
            row = rated.pairs[off].iloc[0]
            raise ValueError(
                f"{off.sum()} of {len(off)} targets are not a tenth of the pair's mean rating, for instance that of "
                f"{row['audio']}: pass the ratings that the targets were made of, screened in the same way"
            )
        return rated, places

    @property
    def unknown(self) -> str:
        """Why no rating model of these pairs can be known, or ""."""
        if self.n_ratings.max() < 2:
            return "no pair with 2 ratings"
        return "all ratings are equal" if np.ptp(self.values) == 0 else ""

    @property
    def n_ratings(self) -> np.ndarray:
        return self.pairs["n_ratings"].to_numpy()

    @cached_property
    def systems(self) -> np.ndarray:
        """The system of each pair [n]; "" everywhere where none is known."""
        if "system" not in self.pairs or self.pairs["system"].isna().all():
            return np.full(len(self.pairs), "", dtype=object)
        return self.pairs["system"].to_numpy(object)

    def fit(self) -> RatingModel:
        """The rating model of these pairs; ValueError where it can't be known."""
        return fit_rating_model(self.values, self.pair, self.systems)

    def cells(self, by: str, cut: float) -> list[Cell]:
        """The cells of `make_cells`."""
        return make_cells(self.pairs, by, cut)


class ExpectedCells:
    """What the model says of each cell: the joint table of true values and mean ratings of its pairs.

    The cells are those of `make_cells`. A cell of a score range is cut out of the table by the mean rating, just as the
    paper cuts the pairs.
    """

    def __init__(self, rated: RatedPairs, model: RatingModel, by: str, cut: float):
        self.model, self.cut = model, cut
        self.units, self.unit = np.unique(rated.systems.astype(str), return_inverse=True)
        strata = {str(system): number for number, names in enumerate(model.strata) for system in names}
        self.stratum = np.array([strata[unit] for unit in self.units])
        self.means = MeanRatings(model.values, rated.n_ratings)
        self.number = np.searchsorted(self.means.numbers, rated.n_ratings)
        # one made-up pair a system on either side of the cut: which cells it falls into is what make_cells says
        sample = pd.DataFrame({"mean_rating": np.tile([cut, cut + 1.0], len(self.units))})
        if "system" in rated.pairs:
            known = {str(system): system for system in rated.systems}
            names = [known[unit] or None for unit in self.units]
            sample["system"] = np.repeat(np.array(names, dtype=object), 2)
        self.members = {cell.name: cell.rows.reshape(-1, 2) for cell in make_cells(sample, by, cut)}

    def sizes(self) -> np.ndarray:
        """Number of pairs of each system with each number of ratings [U, K]."""
        shape = len(self.units), len(self.means.numbers)
        code = np.ravel_multi_index((self.unit, self.number), shape)
        return np.bincount(code, minlength=np.prod(shape)).reshape(shape)

    def by_system(self, sizes: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """P(mean rating | place on the grid) of each system's pairs, times their number: [U, G, V]."""
        tables = np.zeros((len(self.units), len(probabilities), len(self.means.mean)))
        for number, (where, mean) in enumerate(self.means.of_number(probabilities)):
            tables[:, :, where] += sizes[:, number, None, None] * mean
        return tables

    def values(self, names: Sequence[str], metrics: Sequence[str]) -> np.ndarray:
        """The metrics of the true value in the cells `names`: [cells, metrics]."""
        model = self.model
        return self._values(names, metrics, self.by_system(self.sizes(), model.probabilities), model.weights)

    def _values(self, names, metrics, spread, weights, true=None) -> np.ndarray:
        tables = spread * weights[self.stratum][:, :, None]
        true = self.model.true_value if true is None else true
        return np.array([list(self.table(name, tables, true).metrics(metrics).values()) for name in names])

    def influence(self, names: Sequence[str], metrics: Sequence[str]) -> np.ndarray:
        """First-order effect of each pair on those values, through the fit and its own raters: [n, cells, metrics].

        Derivatives are central differences (of the numbers of pairs: forward); only the cells that a system stands
        in are looked at again when its distribution moves.
        """
        model, width, sizes = self.model, 1e-3, self.sizes()
        spread = self.by_system(sizes, model.probabilities)
        values = self._values(names, metrics, spread, model.weights)
        with_system = np.array([self.members[name].any(axis=1) for name in names])  # [cells, U]
        by_parameter = np.zeros((len(model.parameters), *values.shape))
        for place, step in enumerate(width * np.eye(len(model.parameters))):
            stratum = model.stratum_of(place)
            moving = self.stratum == stratum if stratum is not None else np.ones(len(self.units), bool)
            touched = with_system[:, moving].any(axis=1)
            some = [name for name, yes in zip(names, touched, strict=True) if yes]
            ends = []
            for parameters in (model.parameters + step, model.parameters - step):
                probabilities, weights = model.at(parameters)
                moved = self.by_system(sizes, probabilities) if stratum is None else spread
                ends.append(self._values(some, metrics, moved, weights, probabilities @ model.values))
            by_parameter[place, touched] = (ends[0] - ends[1]) / (2 * width)
        by_size = np.zeros((*sizes.shape, *values.shape))
        for unit, number in zip(*np.nonzero(sizes), strict=True):
            more = np.zeros(sizes.shape)
            more[unit, number] = width * sizes[unit, number]
            moved = spread.copy()
            moved[unit] += self.by_system(more, model.probabilities)[unit]
            touched = with_system[:, unit]
            some = [name for name, yes in zip(names, touched, strict=True) if yes]
            change = self._values(some, metrics, moved, model.weights) - values[touched]
            by_size[unit, number, touched] = change / more[unit, number]
        through_fit = model.influence(by_parameter.reshape(len(by_parameter), -1)).reshape(-1, *values.shape)
        return through_fit + by_size[self.unit, self.number]

    def table(self, name: str, tables: np.ndarray, true: np.ndarray) -> JointTable:
        """The joint table of one cell, from the systems' tables."""
        low = self.means.mean <= self.cut
        return self.join(name, tables * low, tables * ~low, true, self.means.mean)

    def join(self, name: str, low: np.ndarray, high: np.ndarray, true: np.ndarray, mean: np.ndarray) -> JointTable:
        """The same from tables of the pairs on either side of the cut [U, G, V]; axes: true [G], mean [V]."""
        below, above = self.members[name].T
        return JointTable(low[below].sum(axis=0) + high[above].sum(axis=0), true, mean)
