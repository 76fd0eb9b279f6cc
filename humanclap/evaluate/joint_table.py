"""Correlations of a table of probabilities: a true value that varies without gaps against mean ratings with ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .correlation import METRICS


@dataclass(frozen=True)
class JointTable:
    """How often each true value comes with each mean rating.

    probability [G, V] (need not sum to 1); true [G]: values of the score, one a bin, rising; mean [V]: mean ratings,
    rising. A row is a bin of a score without ties: two pairs in one bin are ordered at random, whatever their ratings.
    """

    probability: np.ndarray
    true: np.ndarray
    mean: np.ndarray

    def where(self, columns: np.ndarray) -> JointTable:
        """The table of the pairs whose mean rating is in `columns` (a mask [V]), as a cut on the mean leaves them."""
        return JointTable(self.probability[:, columns], self.true, self.mean[columns])

    def metrics(self, wanted: Sequence[str] = METRICS) -> dict[str, float]:
        """srcc, lcc, ktau (tau-b) and mse of the true value against the mean rating, in endless pairs.

        SRCC is Pearson's correlation of the mid-distribution ranks; those of the true value have variance 1/12, as it
        has no ties. KTAU is (P(concordant) - P(discordant)) / √(1 - P(tied means)). mse is on the scale of targets,
        a tenth of the ratings'. NaN where the mean ratings are constant or the table is empty.
        """
        total = self.probability.sum()
        table = self.probability / total if total > 0 else self.probability
        row, column = table.sum(axis=1), table.sum(axis=0)
        if not total > 0 or np.isclose(column.max(initial=0), 1, rtol=0, atol=1e-12):
            return dict.fromkeys(wanted, np.nan)
        found = {}
        if "srcc" in wanted:
            true_rank = np.cumsum(row) - row / 2 - 0.5
            mean_rank = np.cumsum(column) - column / 2 - 0.5
            found["srcc"] = true_rank @ table @ mean_rank / np.sqrt(column @ mean_rank**2 / 12)
        if "lcc" in wanted:
            true, mean = self.true - row @ self.true, self.mean - column @ self.mean
            found["lcc"] = true @ table @ mean / np.sqrt((row @ true**2) * (column @ mean**2))
        if "ktau" in wanted:
            before = np.cumsum(table, axis=0) - table  # of smaller true values
            upto = np.cumsum(before, axis=1)
            order = 2 * upto - before - upto[:, -1:]  # of those, P(smaller mean) - P(larger mean)
            found["ktau"] = 2 * (table * order).sum() / np.sqrt(1 - (column**2).sum())
        if "mse" in wanted:
            found["mse"] = (table * (self.true[:, None] - self.mean) ** 2).sum() / 100
        return {metric: float(found[metric]) for metric in wanted}


class MeanRatings:
    """Distribution of the mean of n ratings, for each n that occurs, on one axis of all possible means.

    values [R]: the ratings, whole numbers; numbers: the different n.
    """

    def __init__(self, values: np.ndarray, numbers: np.ndarray):
        self.numbers = np.unique(numbers)
        self.lowest, self.width = int(values[0]), int(values[-1] - values[0])
        self.places = np.asarray(values - values[0], dtype=int)
        means = []
        for n in self.numbers:
            sums = np.arange(self.width * n + 1)
            divisor = np.gcd(sums, n)  # fractions in lowest terms: equal means are one
            means.append(np.stack([sums // divisor, n // divisor], axis=1))
        fractions, inverse = np.unique(np.concatenate(means), axis=0, return_inverse=True)
        order = np.argsort(fractions[:, 0] / fractions[:, 1], kind="stable")
        back = np.argsort(order)
        self.mean = self.lowest + (fractions[:, 0] / fractions[:, 1])[order]
        self.where = np.split(back[inverse.ravel()], np.cumsum([len(m) for m in means])[:-1])

    def of_number(self, probabilities: np.ndarray):
        """For each n: (places of its means on the axis, P(mean | place on the grid) [G, places]).

        From the probabilities of single ratings [G, R], by their n-fold convolution.
        """
        length = self.width * int(self.numbers[-1]) + 1
        single = np.zeros((len(probabilities), self.width + 1))
        single[:, self.places] = probabilities
        transformed = np.fft.rfft(single, length, axis=1)
        for n, where in zip(self.numbers, self.where, strict=True):
            yield where, np.fft.irfft(transformed**n, length, axis=1)[:, : self.width * n + 1].clip(0)
