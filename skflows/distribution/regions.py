"""Highest-density regions, and the levels of values in them."""

import numpy as np

LEVEL_DRAWS = 128  # of a quasi-random sequence, whose first draws are even too


class HighestDensity:
    """Highest-density regions of a single output, from a histogram of each row.

    The level of a value is the probability of all cells that are denser than its cell, and half
    the probability of its cell. It is uniform if the density is right.

    Parameters
    ----------
    edges : ndarray of shape (n, k + 1)
        The edges of the cells, in ascending order.
    mass : ndarray of shape (n, k)
        The probability of each cell.

    References
    ----------
    Izbicki, Shimizu & Stern, "CD-split and HPD-split: Efficient Conformal Regions in High
    Dimensions", 2022.
    """

    def __init__(self, edges, mass):
        self.edges = edges
        with np.errstate(divide="ignore", invalid="ignore"):
            density = np.nan_to_num(mass / np.diff(self.edges, axis=1), posinf=np.inf)
        order = np.argsort(-density, axis=1, kind="stable")
        sorted_mass = np.take_along_axis(mass, order, 1)
        level = np.cumsum(sorted_mass, axis=1) - sorted_mass / 2
        self.levels = np.empty_like(level)
        np.put_along_axis(self.levels, order, level, 1)

    def scores(self, y):
        """Return the level of the y of each row."""
        cell = (self.edges <= y[:, None]).sum(axis=1) - 1
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


def joint_scores(drawn, own):
    """Return the highest-density level of each row for several outputs.

    Parameters
    ----------
    drawn : ndarray of shape (n_draws, n)
        Log-densities of draws from each row's distribution.
    own : ndarray of shape (n,)
        The log-density of the y of each row.

    Returns
    -------
    scores : ndarray of shape (n,)
        The share of the draws that are denser.
    """
    return ((drawn > own).mean(axis=0) + (drawn >= own).mean(axis=0)) / 2
