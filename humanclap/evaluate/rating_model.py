"""A model of how listeners rate: true values that differ between pairs, noise, and a scale of heaped whole numbers.

Pair i has a place θ_i on a line, drawn from its system's own distribution g_s. Listener j hears θ_i + ε_ij and gives
the rating in whose interval that falls:

    P(r_ij ≤ r | θ_i) = (1 - λ) Φ(c_r - θ_i) + λ Φ((c_r - θ_i) / 3),    c_0 < c_1 < … the borders between ratings.

The noise is normal, with three times the spread in a share λ of the ratings, the careless ones. Wide intervals are the
heaps (0, 2, 5, 8, 10), the open ones at both ends the floor and the ceiling of the scale. A pair's TRUE VALUE is its
expected rating m(θ) = Σ r P(r | θ), what the mean of endless ratings would show: it rises with θ.

log g_s is a cubic B-spline with a penalty on third differences, so that what the ratings leave open is filled in by a
normal distribution. Borders, λ and all g_s are fitted together by penalised maximum likelihood (the g-modelling of
Efron, Biometrika 2016, with ordinal ratings). So g_s is the distribution of the true places, cleared of the noise
that spreads the raw means.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import linalg

from .rating_likelihood import GRID, N_SPLINES, RatingLikelihood, place_weights, rating_probabilities, unpack

MIN_STRATUM = 30  # pairs from which a distribution is fitted; smaller systems are joined


@dataclass(frozen=True)
class RatingModel:
    """A fitted model. G places on the grid, R different ratings, S strata, P free parameters.

    values [R]: the ratings that occur; strata: names, each a tuple of systems; stratum [n]: of each pair;
    probabilities [G, R]: of each rating at each place; weights [S, G]: g_s; parameters [P]; pulls [n, P]: the gradient
    of each pair's log-likelihood; curvature [P, P]: minus the Hessian of the penalised log-likelihood.
    """

    values: np.ndarray
    strata: tuple[tuple, ...]
    stratum: np.ndarray
    parameters: np.ndarray
    probabilities: np.ndarray
    weights: np.ndarray
    log_likelihood: float
    pulls: np.ndarray = field(repr=False)
    curvature: np.ndarray = field(repr=False)

    @property
    def true_value(self) -> np.ndarray:
        """Expected rating m(θ) at each place of the grid [G], rising."""
        return self.probabilities @ self.values

    def at(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(probabilities [G, R], weights [S, G]) for other parameters [P]."""
        borders, careless, coefficients = unpack(parameters, len(self.values), len(self.strata))
        return rating_probabilities(borders, careless), place_weights(coefficients)

    def stratum_of(self, parameter: int) -> int | None:
        """The stratum whose distribution a parameter shapes; None for the borders and the careless share."""
        first = len(self.parameters) - len(self.strata) * N_SPLINES
        return None if parameter < first else (parameter - first) // N_SPLINES

    def influence(self, gradient: np.ndarray) -> np.ndarray:
        """What each pair does to quantities whose derivatives by the parameters are gradient [P, M]: [n, M].

        To first order in the pairs' weights w, a new fit moves the parameters by H⁻¹ Σ (w_i - 1) u_i, with H the
        curvature and u_i the pulls; so a quantity moves by Σ (w_i - 1) · influence_i.
        """
        return self.pulls @ linalg.solve(self.curvature, gradient, assume_a="sym")

    def draw_places(self, rng: np.random.Generator) -> np.ndarray:
        """A place on the grid for each of as many pairs as were fitted [n], from their systems' distributions."""
        place = np.empty(len(self.stratum), dtype=int)
        for number, edges in enumerate(np.cumsum(self.weights, axis=1)):
            mine = self.stratum == number
            place[mine] = np.searchsorted(edges, rng.random(mine.sum()) * edges[-1], side="right")
        return np.minimum(place, len(GRID) - 1)

    def draw_means(self, place: np.ndarray, n_ratings: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Mean [n] of n_ratings [n] ratings drawn at each place [n]."""
        pair = np.repeat(np.arange(len(n_ratings)), n_ratings)
        below = np.cumsum(self.probabilities, axis=1)[place[pair]]
        rating = self.values[np.minimum((rng.random((len(pair), 1)) > below).sum(axis=1), len(self.values) - 1)]
        return np.bincount(pair, rating, len(n_ratings)) / n_ratings

    def simulate(self, n_ratings: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """New pairs like the fitted ones, with n_ratings [n] each: (true value, mean rating), both [n]."""
        place = self.draw_places(rng)
        # a place stands for its whole bin of the grid: no two pairs are exactly alike
        position = place + rng.random(len(place)) - 0.5
        true = np.interp(position, np.arange(len(GRID)), self.true_value)
        return true, self.draw_means(place, n_ratings, rng)


def fit_rating_model(values: np.ndarray, pair: np.ndarray, systems: np.ndarray) -> RatingModel:
    """Fit to ratings `values` [N], whole numbers, of the pairs `pair` [N] (0 … n - 1) with `systems` [n].

    Systems with fewer than 30 pairs share a distribution with the next smaller ones. ValueError where ratings are
    not whole numbers, are all equal, or no pair has two: then noise and pairs can't be told apart.
    """
    if (values != np.round(values)).any():
        bad = values[values != np.round(values)][0]
        raise ValueError(f"the rating model needs single ratings, whole numbers such as 0 to 10; {bad:g} is among them")
    if np.bincount(pair).max() < 2:
        raise ValueError("no pair has 2 ratings: noise and differences between pairs can't be told apart")
    kinds, code = np.unique(values, return_inverse=True)
    if len(kinds) < 2:
        raise ValueError(f"all ratings are {kinds[0]:g}: there is nothing to model")
    strata = _strata(systems)
    number = {system: place for place, names in enumerate(strata) for system in names}
    likelihood = RatingLikelihood(
        np.bincount(pair * len(kinds) + code, minlength=len(systems) * len(kinds)).reshape(-1, len(kinds)),
        np.array([number[system] for system in systems]),
        len(strata),
    )
    parameters = likelihood.maximise()
    borders, careless, coefficients = unpack(parameters, len(kinds), len(strata))
    return RatingModel(
        kinds, strata, likelihood.stratum, parameters,
        rating_probabilities(borders, careless), place_weights(coefficients),
        likelihood(parameters)[0], likelihood.pulls(parameters), likelihood.curvature(parameters),
    )  # fmt: skip


def _strata(systems: np.ndarray) -> tuple[tuple, ...]:
    """Systems by number of pairs, each alone; those with too few pairs joined with the next larger."""
    names, sizes = np.unique(systems.astype(str), return_counts=True)
    back = {str(system): system for system in systems}
    groups = sorted(([size, (back[name],)] for name, size in zip(names, sizes, strict=True)), key=lambda g: g[0])
    while len(groups) > 1 and groups[0][0] < MIN_STRATUM:
        first, second = groups[:2]
        groups = sorted([[first[0] + second[0], first[1] + second[1]], *groups[2:]], key=lambda g: g[0])
    return tuple(group[1] for group in groups)
