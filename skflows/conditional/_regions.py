"""Prediction intervals and highest-density regions, and their conformal calibration."""

import numpy as np

LEVEL_DRAWS = 128  # of a quasi-random sequence, whose first draws are even too


def translated(scores, one, mean):
    """Return the scores under a mean of models that correspond to scores under one of them.

    Parameters
    ----------
    scores : ndarray of shape (n,) or (n, n_outputs)
        Scores from 0 to 1 under one model.
    one, mean : ndarray of shape (m,) or (m, n_outputs)
        Scores of the same rows under one model and under the mean.

    Returns
    -------
    scores : ndarray of shape (n,) or (n, n_outputs)
        The quantiles of `mean` that the scores are of `one`.
    """
    if scores.ndim > 1:
        return np.column_stack([*map(translated, scores.T, one.T, mean.T)])
    return np.interp(scores, *(np.sort([0, *own, 1]) for own in (one, mean)))


def central_scores(distribution, y):
    """Return the probability of the narrowest central interval that contains y."""
    return np.abs(2 * distribution._continuous_cdf(distribution._unrolled(y)) - 1)


class HighestDensity:
    """Highest-density regions of a single output, from a histogram of each row.

    The level of a value is the probability of all cells that are denser than its own, and half of
    its own. It is uniform if the density is right.

    Parameters
    ----------
    distribution : ConditionalDistribution
        The distributions.

    References
    ----------
    Izbicki, Shimizu & Stern, "CD-split and HPD-split: Efficient Conformal Regions in High
    Dimensions", 2022.
    """

    def __init__(self, distribution):
        self.unrolled = distribution._unrolled
        self.edges, mass = distribution._histogram()
        with np.errstate(divide="ignore", invalid="ignore"):
            density = np.nan_to_num(mass / np.diff(self.edges, axis=1), posinf=np.inf)
        order = np.argsort(-density, axis=1, kind="stable")
        sorted_mass = np.take_along_axis(mass, order, 1)
        level = np.cumsum(sorted_mass, axis=1) - sorted_mass / 2
        self.levels = np.empty_like(level)
        np.put_along_axis(self.levels, order, level, 1)

    def scores(self, y):
        """Return the level of the y of each row."""
        cell = (self.edges <= self.unrolled(y)[:, None]).sum(axis=1) - 1
        is_inside = (cell >= 0) & (cell < self.levels.shape[1])
        cell = np.clip(cell, 0, self.levels.shape[1] - 1)
        return np.where(is_inside, self.levels[np.arange(len(cell)), cell], 1.0)

    def regions(self, level):
        """Return the intervals of each row's region of a level, as arrays of shape (k, 2)."""
        if level >= 1:
            return [np.array([[-np.inf, np.inf]]) for _ in self.edges]
        is_part = np.pad(self.levels <= level, ((0, 0), (1, 1)))
        change = np.diff(is_part.astype(int), axis=1)
        return [
            np.column_stack([edges[steps > 0], edges[steps < 0]])
            for edges, steps in zip(self.edges, change, strict=True)
        ]


class JointHighestDensity:
    """Highest-density levels for several outputs: the probability of all denser values.

    They are estimated by draws from each distribution.

    Parameters
    ----------
    distribution : ConditionalDistribution
        The distributions.
    """

    def __init__(self, distribution):
        self.distribution = distribution
        draws = distribution._rounded(distribution._draws[:LEVEL_DRAWS])
        self.densities = distribution.logpdf(draws)

    def scores(self, y):
        """Return the level of the y of each row."""
        own = self.distribution.logpdf(y)
        return ((self.densities > own).mean(axis=0) + (self.densities >= own).mean(axis=0)) / 2


def possible_ends(low, high, grid, tolerance):
    """Move ends of intervals inwards to the values of a grid.

    Where an interval has no value inside, the lower end is above the upper one.
    """
    return (
        np.append(grid, np.inf)[np.searchsorted(grid, low - tolerance)],
        np.append(-np.inf, grid)[np.searchsorted(grid, high + tolerance, side="right")],
    )
