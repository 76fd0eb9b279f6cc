"""Which groups of pairs (captions) stand in which resample, and the leave-one-out twin of such a plan.

One caption is rated with several clips by the same listeners, so pairs of one caption are not independent:
a resample draws captions with replacement and takes each with all its pairs. It is kept as counts, never
written out. A plan holds the draws alone, so that every score, metric and cell is computed on the same
resamples and differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from humanclap.relate.checks import need_seed

from .checks import whole_number
from .groups import group_codes

CHUNK = 250  # resamples done together: large enough for numpy, small enough for the cache


class _Chunked:
    """What both plans do: hand out the weights of their columns in chunks."""

    def spans(self) -> list[slice]:
        """The resamples cut into chunks."""
        starts = range(0, self.n_resamples, CHUNK)
        return [slice(start, min(start + CHUNK, self.n_resamples)) for start in starts]

    def chunks(self, rows=slice(None)) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (slice of resamples, weights [n, B] of the pairs `rows`) over the whole plan."""
        for span in self.spans():
            yield span, self.weights(span.start, span.stop, rows)


@dataclass(frozen=True)
class ResamplePlan(_Chunked):
    """Which groups stand in which resample: `codes` [n] (group of a pair), `counts` [n_groups, n_resamples].

    The draws depend on the groups, the seed and nothing else: groups are numbered by their labels, so the
    order of the rows says nothing. A longer plan begins with the shorter one's.
    """

    codes: np.ndarray
    counts: np.ndarray

    @classmethod
    def draw(cls, groups=None, n: int | None = None, n_resamples: int = 2000, seed: int = 0) -> ResamplePlan:
        """A plan for pairs with the labels `groups` [n] (a caption each), or for `n` pairs by their places.

        Each resample draws as many groups as there are, with replacement. ValueError on a missing label,
        labels that are not one for each of the `n` pairs, fewer than 2 groups, fewer than 1 resample, a seed
        that is no whole number of at least 0.
        """
        n_resamples, seed = whole_number(n_resamples, "n_resamples", 1), need_seed(seed)
        if groups is None:
            if n is None:
                raise ValueError("ResamplePlan.draw needs groups, a label for each pair, or n, their number")
            codes = np.arange(n)
        else:
            codes = group_codes(groups, n)
        n_groups = int(codes.max(initial=-1)) + 1
        if n_groups < 2:
            raise ValueError(
                f"a bootstrap needs at least 2 groups to draw from; {len(codes)} pairs have {n_groups}"
            )
        rng = np.random.default_rng(seed)
        counts = np.empty((n_groups, n_resamples), dtype=np.int32)
        for resample in range(n_resamples):
            counts[:, resample] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
        return cls(codes, counts)

    @property
    def n_groups(self) -> int:
        return self.counts.shape[0]

    @property
    def n_resamples(self) -> int:
        return self.counts.shape[1]

    def weights(self, start: int = 0, stop: int | None = None, rows=slice(None)) -> np.ndarray:
        """How often each pair (of `rows`) stands in resamples start … stop - 1: float32 [n, B]."""
        return self.counts[:, start:stop].astype(np.float32).take(self.codes[rows], axis=0)

    def indices(self, resample: int) -> np.ndarray:
        """Positions of the pairs of one resample, written out: for a plain loop over resamples."""
        return np.repeat(np.arange(len(self.codes)), self.counts[self.codes, resample])

    def leave_one_out(self) -> LeaveOneOut:
        """The jackknife over the same groups."""
        return LeaveOneOut(self.codes, self.n_groups)


@dataclass(frozen=True)
class LeaveOneOut(_Chunked):
    """The jackknife as a plan: column g has every pair once, those of group g not at all (`codes` [n])."""

    codes: np.ndarray
    n_groups: int

    @property
    def n_resamples(self) -> int:
        return self.n_groups

    def weights(self, start: int = 0, stop: int | None = None, rows=slice(None)) -> np.ndarray:
        """Weights without group start … stop - 1, one a column: float32 [n, B], zeros and ones."""
        stop = self.n_groups if stop is None else stop
        return (self.codes[rows][:, None] != np.arange(start, stop)).astype(np.float32)


@dataclass(frozen=True)
class Whole(_Chunked):
    """All `n_pairs` pairs once, as a plan of one column: what the data themselves say."""

    n_pairs: int
    n_resamples: int = 1

    def weights(self, start: int = 0, stop: int | None = None, rows=slice(None)) -> np.ndarray:
        """Weights of one: float32 [n, 1]."""
        return np.ones((self.n_pairs, 1), dtype=np.float32)[rows]
