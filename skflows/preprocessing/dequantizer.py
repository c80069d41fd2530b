"""Dequantisation: uniform noise on columns of discrete values, and rounding of samples."""

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np

# Probability that two rows have the same value, from which on a column counts as discrete.
COINCIDENCE = 0.1
ROUNDING = 1e-9  # tolerance, in gaps
SAME = 1e-12  # gaps below this fraction of the largest value are floating-point rounding errors
MAX_UNSEEN = 10  # points of a lattice per value seen: sparser lattices yield the values seen only
MAX_DECIMALS = 12
SEEN = "seen"
OFTEN = 5  # rows per value, on average, from which on there are hardly any other values
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
    """

    alike = False  # whether all columns have the same values

    def __init__(self, X, gaps):
        self.columns = np.array(list(gaps), dtype=int)
        self.values = [np.unique(column) for column in self._discrete(X).T]
        self.rules = [gap if gap is None or gap == SEEN else "lattice" for gap in gaps.values()]
        self.n_rows = len(X)
        self.gap = np.array(
            [
                float(gap) if rule == "lattice" else smallest_gap(values)
                for values, gap, rule in zip(self.values, gaps.values(), self.rules, strict=True)
            ]
        )

    @classmethod
    def for_parameter(cls, discrete, X, names=None, alike=False, what="X"):
        """Return the dequantizer of the columns that the parameter ``discrete`` asks for.

        Columns that are alike, such as the pixels of an image, have the same values: "auto" takes
        all of them as discrete or none.
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
            is_number = isinstance(gap, Real) and 0 < gap < np.inf
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
        return cls(X, gaps)

    @classmethod
    def _of_like_columns(cls, X):
        values = X.reshape(-1, 1)
        if not discrete_columns(values):
            return cls(X, {})
        dequantizer = cls(X, dict.fromkeys(range(X.shape[1]), smallest_gap(values)))
        dequantizer.values = [np.unique(values)] * X.shape[1]
        dequantizer.alike = True
        return dequantizer

    def _discrete(self, X):
        return np.asarray(X[:, self.columns], dtype=np.float64)

    def update(self, X):
        """Learn about new values, which samples may then take."""
        self.n_rows += len(X)
        self.values = [
            np.union1d(values, column)
            for values, column in zip(self.values, self._discrete(X).T, strict=True)
        ]

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

        The mean is over two points of the cell, those of Gauss-Legendre quadrature on one of its
        diagonals: exact for a density that is a sum of quadratic functions of single columns. Of
        columns that are alike, they are random, opposite each other, and the same for all rows.
        """
        if not self:
            return log_density(X)
        points = self.points()
        scores = []
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = X[start : start + ROWS_AT_ONCE]
            found = log_density(np.concatenate([self.add_noise(rows, point) for point in points]))
            scores.append(np.logaddexp.reduce(np.split(found, N_POINTS)))
        return np.concatenate(scores) - np.log(N_POINTS)

    def grids(self):
        """Return the values that each discrete column can have, and whether there are no others."""
        grids = []
        for values, gap, rule in zip(self.values, self.gap, self.rules, strict=True):
            occur_often = rule is None and self.n_rows >= OFTEN * len(values)
            known = (values, True) if rule == SEEN or occur_often else lattice(values, gap)
            grids.append(known)
        return grids

    def round(self, X):
        """Round the discrete columns of X to values they can have."""
        for j, (grid, _) in zip(self.columns, self.grids(), strict=True):
            X[:, j] = nearest(grid, X[:, j])
        return X


def nearest(grid, x):
    """Return the value of a grid that is nearest to each x."""
    return grid[np.searchsorted((grid[1:] + grid[:-1]) / 2, x)]


def cell_ends(grid):
    """Return the ends of the cells of values nearest to each value of a grid."""
    return np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])


def lattice(values, gap):
    """Return all values of the lattice of the values seen, or these and False if there is none."""
    steps = (values - values[0]) / gap
    cells = np.rint(steps)
    regular = np.abs(steps - cells).max() < 1e-6 and cells[-1] < MAX_UNSEEN * len(values)
    if not regular:
        return values, False
    grid = round_decimals(values[0] + gap * np.arange(cells[-1] + 1), ROUNDING * gap)
    grid[cells.astype(int)] = values  # exactly
    return grid, True


def round_decimals(values, error):
    """Return decimal numbers without their rounding error, other values as they are."""
    for decimals in range(MAX_DECIMALS):
        rounded = np.round(values, decimals)
        if np.abs(rounded - values).max() < error:
            return rounded
    return values


def discrete_columns(X):
    """Return the integer-valued columns, and those in which rows often have the same value.

    Neither depends on the number of rows, so that folds of a table agree with the table.
    """
    return [
        j for j, column in enumerate(X.T) if is_whole(column) or coincidence(column) >= COINCIDENCE
    ]


def is_whole(column):
    """Whether all values are whole numbers, and not only because they are too large for others."""
    largest = np.abs(column).max()
    return bool(largest < 1 / np.finfo(column.dtype).eps and (column == np.rint(column)).all())


def coincidence(column):
    """Return the estimated probability that two random rows have the same value."""
    if len(column) == 1:
        return 1.0
    _, counts = np.unique(column, return_counts=True)
    counts = counts.astype(float)
    return (counts * (counts - 1)).sum() / (len(column) * (len(column) - 1))


def smallest_gap(column):
    """Return the least distance between two values, 1 if there is only one."""
    values = np.unique(column)
    gaps, largest = np.diff(values), np.abs(values).max()
    gaps = gaps[gaps > SAME * largest]
    gap = gaps.min() if len(gaps) else 1.0
    # A difference has the rounding errors of the two values, which may be larger than its own.
    return round_decimals(np.array([gap]), max(ROUNDING * gap, np.finfo(float).eps * largest))[0]


def column_index(column, n_features, names, parameter, what="X"):
    """Return the index of a column that is given by index or, if columns have names, by name."""
    if isinstance(column, str) and names is not None and column in names:
        return list(names).index(column)
    is_number = isinstance(column, Integral) and not isinstance(column, bool | np.bool_)
    if is_number and -n_features <= column < n_features:
        return int(column) % n_features
    known = f"0 to {n_features - 1}" if names is None else f"0 to {n_features - 1} or {list(names)}"
    raise ValueError(
        f"{parameter} names the column {column!r}, which {what} does not have; it has {known}."
    )
