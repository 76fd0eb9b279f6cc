"""Likelihood of whole-number ratings under the rating model, and its derivatives (the formulas: `rating_model`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import linalg, optimize, special
from scipy.interpolate import BSpline

WIDE = 3.0  # spread of the careless ratings' noise, in units of the others'
CARELESS_BEFORE = (-2.0, 1.0)  # mean and SD, before any rating is seen, of the logit of the careless share
GRID = np.linspace(-6, 6, 61)  # places θ, in units of the noise
N_SPLINES = 16
PENALTY = 3.0  # on squared third differences of log g's coefficients
RIDGE = 1e-3  # on the coefficients themselves: only to hold what no rating tells
LEAST_PROBABILITY = 1e-12


@cache
def basis() -> np.ndarray:
    """Cubic B-splines on the grid [G, N_SPLINES]."""
    inner = np.linspace(GRID[0], GRID[-1], N_SPLINES - 2)
    knots = np.concatenate([[GRID[0]] * 3, inner, [GRID[-1]] * 3])
    return BSpline.design_matrix(GRID, knots, 3).toarray()


@cache
def penalty_matrix() -> np.ndarray:
    """Of the coefficients of one log g [N_SPLINES, N_SPLINES]."""
    third = np.diff(np.eye(N_SPLINES), 3, axis=0)
    return PENALTY * third.T @ third + RIDGE * np.eye(N_SPLINES)


def unpack(parameters: np.ndarray, n_values: int, n_strata: int) -> tuple[np.ndarray, float, np.ndarray]:
    """Borders [R - 1], careless share, coefficients of log g [S, N_SPLINES].

    The borders have mean 0, as the line may begin anywhere.
    """
    steps = np.concatenate([[0.0], np.exp(parameters[1 : n_values - 1])])
    borders = np.cumsum(steps)
    coefficients = parameters[n_values - 1 :].reshape(n_strata, N_SPLINES)
    return borders - borders.mean(), float(special.expit(parameters[0])), coefficients


def rating_probabilities(borders: np.ndarray, careless: float) -> np.ndarray:
    distance = borders - GRID[:, None]
    below = (1 - careless) * special.ndtr(distance) + careless * special.ndtr(distance / WIDE)
    below = np.concatenate([np.zeros((len(GRID), 1)), below, np.ones((len(GRID), 1))], axis=1)
    # ratings beyond both borders are rare at the other end: keep their logarithm finite
    probabilities = np.maximum(np.diff(below, axis=1), LEAST_PROBABILITY)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def _density(distance: np.ndarray, careless: float) -> np.ndarray:
    return (1 - careless) * _normal(distance) + careless * _normal(distance / WIDE) / WIDE


def _normal(x: np.ndarray) -> np.ndarray:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def place_weights(coefficients: np.ndarray) -> np.ndarray:
    return special.softmax(coefficients @ basis().T, axis=1)


class RatingLikelihood:
    """Penalised log-likelihood of counts [n, R] with strata [n], and its derivatives."""

    def __init__(self, counts: np.ndarray, stratum: np.ndarray, n_strata: int):
        self.counts, self.stratum, self.n_strata = counts.astype(float), stratum, n_strata
        self.n_values = counts.shape[1]
        self.rows = [np.flatnonzero(stratum == number) for number in range(n_strata)]
        self.steps = slice(1, self.n_values - 1)
        self.places = [slice(self.n_values - 1 + s * N_SPLINES, self.n_values - 1 + (s + 1) * N_SPLINES)
                       for s in range(n_strata)]

    def _posterior(self, parameters):
        borders, careless, coefficients = unpack(parameters, self.n_values, self.n_strata)
        probabilities, weights = rating_probabilities(borders, careless), place_weights(coefficients)
        log = self.counts @ np.log(probabilities).T
        top = log.max(axis=1, keepdims=True)
        joint = np.exp(log - top) * weights[self.stratum]
        total = joint.sum(axis=1, keepdims=True)
        return probabilities, weights, joint / total, float((np.log(total) + top).sum())

    def _by_noise(self, parameters) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of P(rating <= r | θ) by its border and by the logit of the careless share, [G, R - 1] each."""
        borders, careless, _ = unpack(parameters, self.n_values, self.n_strata)
        distance = borders - GRID[:, None]
        wider = special.ndtr(distance / WIDE) - special.ndtr(distance)
        return _density(distance, careless), careless * (1 - careless) * wider

    def _penalty(self, parameters) -> tuple[float, np.ndarray]:
        """What is taken off the log-likelihood, and its gradient."""
        gradient = np.zeros_like(parameters)
        off = (parameters[0] - CARELESS_BEFORE[0]) / CARELESS_BEFORE[1]
        gradient[0] = off / CARELESS_BEFORE[1]
        total = off**2 / 2
        for place in self.places:
            gradient[place] = penalty_matrix() @ parameters[place]
            total += gradient[place] @ parameters[place] / 2
        return float(total), gradient

    def _by_steps(self, by_border: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """Derivatives by the borders [..., R - 1] as derivatives by the log steps [..., R - 2]."""
        later = np.cumsum(by_border[..., ::-1], axis=-1)[..., ::-1]
        share = np.arange(self.n_values - 2, 0, -1) / (self.n_values - 1)  # of the mean that a step moves
        return (later[..., 1:] - later[..., :1] * share) * np.exp(parameters[self.steps])

    def __call__(self, parameters) -> tuple[float, float, np.ndarray]:
        """(log-likelihood, penalised log-likelihood, gradient of the latter)."""
        probabilities, weights, posterior, value = self._posterior(parameters)
        density, wider = self._by_noise(parameters)
        expected = posterior.T @ self.counts / probabilities  # [G, R]
        change = expected[:, :-1] - expected[:, 1:]
        gradient = np.empty_like(parameters)
        gradient[0] = (wider * change).sum()
        gradient[self.steps] = self._by_steps((density * change).sum(axis=0), parameters)
        for rows, place, weight in zip(self.rows, self.places, weights, strict=True):
            gradient[place] = (posterior[rows].sum(axis=0) - len(rows) * weight) @ basis()
        penalty, pull = self._penalty(parameters)
        return value, value - penalty, gradient - pull

    def pulls(self, parameters) -> np.ndarray:
        """Gradient of each pair's log-likelihood, without the penalty: [n, P]."""
        probabilities, weights, posterior, _ = self._posterior(parameters)
        below, above = self.counts[:, :-1], self.counts[:, 1:]
        density, wider = (
            below * (posterior @ (change / probabilities[:, :-1]))
            - above * (posterior @ (change / probabilities[:, 1:]))
            for change in self._by_noise(parameters)
        )
        pulls = np.zeros((len(self.counts), len(parameters)))
        pulls[:, 0] = wider.sum(axis=1)
        pulls[:, self.steps] = self._by_steps(density, parameters)
        for rows, place, weight in zip(self.rows, self.places, weights, strict=True):
            pulls[rows, place] = (posterior[rows] - weight) @ basis()
        return pulls

    def curvature(self, parameters) -> np.ndarray:
        """Minus the Hessian of the penalised log-likelihood, by central differences of its gradient: [P, P]."""
        width = 1e-4
        rows = [(self(parameters - step)[2] - self(parameters + step)[2]) / (2 * width)
                for step in width * np.eye(len(parameters))]
        hessian = np.array(rows)
        return (hessian + hessian.T) / 2

    def start(self) -> np.ndarray:
        """Borders where the ratings' shares would put them, and normal distributions of the pairs."""
        share = np.cumsum(self.counts.sum(axis=0))[:-1] / self.counts.sum()
        borders = 1.5 * special.ndtri(share)
        middle = np.linspace(GRID[0], GRID[-1], N_SPLINES) + borders.mean()
        steps = np.log(np.maximum(np.diff(borders), 1e-3))
        return np.concatenate([CARELESS_BEFORE[:1], steps, np.tile(-0.5 * middle**2, self.n_strata)])

    def maximise(self) -> np.ndarray:
        """Maximum of the penalised log-likelihood: L-BFGS in axes that the pairs' pulls have made round."""
        parameters = self.start()
        for _ in range(4):
            pulls = self.pulls(parameters)
            information = pulls.T @ pulls + 1e-3 * np.eye(len(parameters))
            for place in self.places:
                information[place, place] += penalty_matrix()
            factor = linalg.cholesky(information, lower=True)

            def negative(z, factor=factor, centre=parameters):
                moved = centre + linalg.solve_triangular(factor, z, lower=True, trans="T")
                _, value, gradient = self(moved)
                return -value, -linalg.solve_triangular(factor, gradient, lower=True)

            found = optimize.minimize(negative, np.zeros(len(parameters)), jac=True, method="L-BFGS-B",
                                      options={"maxiter": 50, "maxcor": 20, "ftol": 1e-10, "gtol": 1e-2})
            parameters = parameters + linalg.solve_triangular(factor, found.x, lower=True, trans="T")
            if found.success:
                break
        return parameters
