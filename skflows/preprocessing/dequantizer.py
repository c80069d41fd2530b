"""Dequantisation: uniform noise on columns of discrete values, and rounding of samples."""

from collections.abc import Mapping
from numbers import Real

import numpy as np

from ..columns.arrays import column_index
from ..columns.lattice import (
    Grid,
    are_whole_apart,
    coincidence,
    is_whole,
    lattice,
    nearest,
    smallest_gap,
)

# Probability that two rows have the same value, from which on a column counts as discrete.
COINCIDENCE = 0.1
SEEN = "seen"
OFTEN = 5  # rows per value, on average, from which on there are hardly any other values
MOST_ONCE = 0.002  # of the rows have a value of their own, of a column that has hardly any others
N_POINTS = 2  # of a cell, over which a density is averaged
ROWS_AT_ONCE = 2**15  # to bound the memory of all points


class Dequantizer:
    """Uniform noise on discrete columns, as wide as the smallest gap between their values.

    A likelihood is unbounded if values repeat: a density could put a spike on each of them. With
    uniform noise over a cell around each value it is bounded, and the probability of the value is
    the mean density of the cell times its width (Theis, van den Oord & Bethge, "A Note on the
    Evaluation of Generative Models", 2016).

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows that show which values occur.
    gaps : dict of int to float, "seen" or None
        The discrete columns, and the distance between their values; None for the smallest one. The
        values of samples are those seen for "seen" and, if each occurs often, for None; otherwise
        all that have this distance.
    alike : bool, default=False
        Whether all discrete columns have the same values, gap and rule.
    """

    spike: float | None = None  # a value that repeats in continuous columns that are alike

    def __init__(self, X, gaps, alike=False):
        self.columns = np.array(list(gaps), dtype=int)
        self.alike = alike and len(gaps) > 0
        self.values, self.counts = self._counted(X)
        gaps = list(gaps.values())[: len(self.values)]
        self.rules = [gap if gap is None or gap == SEEN else "lattice" for gap in gaps]
        gap = [
            float(gap) if rule == "lattice" else smallest_gap(values)
            for values, gap, rule in zip(self.values, gaps, self.rules, strict=True)
        ]
        self.gap = np.array(gap * len(self.columns) if self.alike else gap)

    @classmethod
    def for_parameter(cls, discrete, X, names=None, alike=False, what="X"):
        """Return the dequantizer of the columns that the parameter ``discrete`` asks for.

        Columns that are alike, such as the pixels of an image, share their values and their gap:
        "auto" takes all of them as discrete or none.
        """
        if alike and isinstance(discrete, str):
            return cls._of_like_columns(X)
        if discrete is None:
            discrete = {}
        elif isinstance(discrete, str):  # "auto"
            discrete = discrete_columns(X)
        if not isinstance(discrete, Mapping):
            discrete = dict.fromkeys(discrete)
        for column, gap in discrete.items():
            is_number = isinstance(gap, Real) and 0 < float(gap) < np.inf
            if not (gap is None or is_number or (isinstance(gap, str) and gap == SEEN)):
                raise ValueError(
                    f"discrete gives column {column!r} a gap of {gap!r}; it must be a positive "
                    'number, None for the smallest gap that occurs, or "seen" for samples of the '
                    "values that occur."
                )
        gaps = {
            column_index(key, X.shape[1], names, "discrete", what): gap
            for key, gap in discrete.items()
        }
        if len(gaps) < len(discrete):
            raise ValueError(f"discrete={discrete!r} names a column twice.")
        if alike and len(several := set(gaps.values())) > 1:
            raise ValueError(
                f"discrete gives columns of a grid the gaps {sorted(map(str, several))}; they have "
                "the same values, so give all of them the same gap."
            )
        return cls(X, gaps, alike)

    @classmethod
    def _of_like_columns(cls, X):
        values, counts = np.unique(X, return_counts=True)
        gap, repeats = smallest_gap(values), coincidence(X.ravel()) >= COINCIDENCE
        if is_whole(values) or (repeats and lattice(values.astype(np.float64), gap)[1]):
            return cls(X, dict.fromkeys(range(X.shape[1]), gap), alike=True)
        dequantizer = cls(X, {})
        if repeats:  # noise as wide as the least gap would keep the spike
            dequantizer.spike = float(values[counts.argmax()])
        return dequantizer

    def _groups(self, X):
        """Return the values of each discrete column, or of all in one if they are alike."""
        rows = np.asarray(X[:, self.columns], dtype=np.float64)
        return [rows.ravel()] if self.alike else rows.T

    def _counted(self, X):
        """Return the distinct values of each group, and how often they occur."""
        counted = [np.unique(values, return_counts=True) for values in self._groups(X)]
        return [list(each) for each in zip(*counted, strict=True)] or [[], []]

    def update(self, X):
        """Learn about new values, which samples may then take."""
        for i, (new, counts) in enumerate(zip(*self._counted(X), strict=True)):
            both, place = np.unique(np.append(self.values[i], new), return_inverse=True)
            self.counts[i] = np.bincount(place, np.append(self.counts[i], counts)).astype(int)
            self.values[i] = both

    def gaps(self):
        """Return the gap of each discrete column, by index: the parameter ``discrete``."""
        return dict(zip(self.columns.tolist(), self.gap.tolist(), strict=True))

    def named_gaps(self, names=None):
        """Return the gap of each discrete column, by name if columns have names."""
        return {j if names is None else names[j]: gap for j, gap in self.gaps().items()}

    def __bool__(self):
        return len(self.columns) > 0

    def add_noise(self, X, noise):
        """Return X in float64 with ``noise``, uniform on [0, 1), centred on each discrete value."""
        X = np.array(X, dtype=np.float64)
        X[:, self.columns] += self.gap * (noise - 0.5)
        return X

    def add_random_noise(self, X, random_state):
        """Return X in float64 with new noise."""
        return self.add_noise(X, random_state.uniform(size=(len(X), len(self.columns))))

    def points(self):
        """Return the points of a cell over which a density is averaged, as noise for each."""
        if self.alike:  # convolutions would see the stripes of a diagonal
            point = np.random.default_rng(0).uniform(size=len(self.columns))
        else:
            point = 0.5 + np.where(np.arange(len(self.columns)) % 2, 0.5, -0.5) / np.sqrt(3)
        return [point, 1 - point]

    def mean_density(self, log_density, X):
        """Return the log of the mean density over the cell of each row.

        The mean is over two points of the cell, by Gauss-Legendre quadrature on one of its
        diagonals: exact for a density that is a sum of quadratic functions of single columns. Of
        columns that are alike, they are random, opposite each other, and the same for all rows.
        """
        if not self:
            return log_density(X)
        points = self.points()
        scores = []
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = X[start : start + ROWS_AT_ONCE]
            at_points = log_density(
                np.concatenate([self.add_noise(rows, point) for point in points])
            )
            scores.append(np.logaddexp.reduce(np.split(at_points, N_POINTS)))
        return np.concatenate(scores) - np.log(N_POINTS)

    def groups(self):
        """Yield columns, the values that they can have, and whether there are no others."""
        columns = [self.columns] if self.alike else self.columns[:, None]
        about = self.values, self.counts, self.gap[: len(self.values)], self.rules
        for indices, values, counts, gap, rule in zip(columns, *about, strict=True):
            # The share of values that occur once is about the probability of a new value.
            occur_often = counts.sum() >= OFTEN * len(values) * len(indices)
            occur_often &= np.sum(counts == 1) <= MOST_ONCE * counts.sum()
            is_seen = rule == SEEN or (rule is None and occur_often)
            yield indices, *((values, True) if is_seen else lattice(values, gap))

    def grids(self):
        """Return the grid of the values that each discrete column can have."""
        groups, gaps = self.groups(), self.gap[: len(self.values)]
        return [
            grid
            for (indices, values, is_complete), gap in zip(groups, gaps, strict=True)
            for grid in len(indices) * [Grid(values, is_complete, gap)]
        ]

    def round(self, X):
        """Round the discrete columns of X to values they can have."""
        for columns, grid, _ in self.groups():
            X[:, columns] = nearest(grid, X[:, columns])
        return X


def discrete_columns(X):
    """Return the columns of whole numbers, or of numbers that differ by whole numbers, and those in
    which rows often have the same value.

    Neither depends on the number of rows, so that folds of a table agree with the table.
    """
    return [
        j
        for j, column in enumerate(X.T)
        if is_whole(column) or are_whole_apart(column) or coincidence(column) >= COINCIDENCE
    ]
