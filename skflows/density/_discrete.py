"""Columns of repeated values: found, spread over their cells, and rounded back."""

from collections.abc import Mapping
from functools import cache
from numbers import Integral, Real

import numpy as np

LEAST_ROWS = 40  # from which on a repeated value is no coincidence
MOST_DISTINCT = 0.5  # of the rows: a column with fewer distinct values is discrete
ROUNDING = 1e-9  # of a gap, which is no difference
SAME = 1e-12  # gaps below this fraction of the largest value are none: arithmetic leaves such dirt
MOST_UNSEEN = 10  # places of a lattice for each value seen: of a sparser one, no other is likely
MOST_DECIMALS = 12
N_DRAWS = 8  # of the noise, over which a score is averaged
SPREAD_ROWS = 2**15  # at once: a table of all draws would take several times its memory


class Dequantizer:
    """Uniform noise on discrete columns, of the width of their smallest gap; there may be none.

    A density has no bound where values repeat: on every value it could put a spike. Spread
    over a cell around the value, it has one, and the probability of the value is the mean
    density of the cell times its width (Theis, van den Oord & Bethge, "A Note on the
    Evaluation of Generative Models", 2016).

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows that show which values occur.
    gaps : dict of int to float or None
        The discrete columns, and the distance between their values; None for the smallest
        that occurs.
    """

    def __init__(self, X, gaps):
        self.columns = np.array(list(gaps), dtype=int)
        self.values = [np.unique(column) for column in self._discrete(X).T]
        self.gap = np.array(
            [
                smallest_gap(values) if gap is None else float(gap)
                for values, gap in zip(self.values, gaps.values(), strict=True)
            ]
        )

    @classmethod
    def for_parameter(cls, discrete, X, names=None):
        """The one for the columns that the parameter ``discrete`` asks for."""
        if discrete is None:
            discrete = {}
        elif isinstance(discrete, str):  # "auto"
            discrete = discrete_columns(X)
        if not isinstance(discrete, Mapping):
            discrete = dict.fromkeys(discrete)
        for column, gap in discrete.items():
            if gap is not None and not (isinstance(gap, Real) and 0 < gap < np.inf):
                raise ValueError(
                    f"discrete gives column {column!r} a gap of {gap!r}; it must be a positive "
                    "number, or None for the smallest gap that occurs."
                )
        gaps = {column_index(key, X.shape[1], names): gap for key, gap in discrete.items()}
        if len(gaps) < len(discrete):
            raise ValueError(f"discrete={discrete!r} names a column twice.")
        return cls(X, gaps)

    def _discrete(self, X):
        return np.asarray(X[:, self.columns], dtype=np.float64)

    def see(self, X):
        """Learn of further values, which samples may then take."""
        self.values = [
            np.union1d(values, column)
            for values, column in zip(self.values, self._discrete(X).T, strict=True)
        ]

    def gaps(self):
        """What to give as the parameter ``discrete`` for the same cells on other rows."""
        return dict(zip(self.columns.tolist(), self.gap.tolist(), strict=True))

    def __bool__(self):
        return len(self.columns) > 0

    def spread(self, X, noise):
        """X as float64 with ``noise``, uniform on [0, 1), centred on each discrete value."""
        X = np.array(X, dtype=np.float64)
        X[:, self.columns] += self.gap * (noise - 0.5)
        return X

    def spread_anew(self, X, random_state):
        """X spread by new noise."""
        return self.spread(X, random_state.uniform(size=(len(X), len(self.columns))))

    def mean_density(self, log_density, X):
        """Log of the density's mean over the cell of each row, by the same draws for all."""
        if not self:
            return log_density(X)
        noise = lattice(len(self.columns))
        scores = []
        for start in range(0, len(X), SPREAD_ROWS):
            rows = X[start : start + SPREAD_ROWS]
            of_draws = log_density(np.concatenate([self.spread(rows, draw) for draw in noise]))
            scores.append(np.logaddexp.reduce(np.split(of_draws, N_DRAWS)))
        return np.concatenate(scores) - np.log(N_DRAWS)

    def round(self, X):
        """X with discrete columns rounded to values they can have."""
        for j, values, gap in zip(self.columns, self.values, self.gap, strict=True):
            grid = possible_values(values, gap)
            X[:, j] = grid[np.searchsorted((grid[1:] + grid[:-1]) / 2, X[:, j])]
        return X


@cache
def lattice(n_columns):
    """The noise of each draw on each discrete column."""
    from scipy.stats import qmc  # slow to import

    return qmc.LatinHypercube(n_columns, scramble=False, rng=0).random(N_DRAWS)


def possible_values(values, gap):
    """The values of a lattice, where those seen are on one and fill it well; else those seen."""
    steps = (values - values[0]) / gap
    cells = np.rint(steps)
    regular = np.abs(steps - cells).max() < 1e-6 and cells[-1] < MOST_UNSEEN * len(values)
    if not regular:
        return values
    grid = clean(values[0] + gap * np.arange(cells[-1] + 1), ROUNDING * gap)
    grid[cells.astype(int)] = values  # to the last digit
    return grid


def clean(values, error):
    """Values without the dirt of binary fractions, where they are decimal ones but for an error."""
    for decimals in range(MOST_DECIMALS):
        rounded = np.round(values, decimals)
        if np.abs(rounded - values).max() < error:
            return rounded
    return values


def discrete_columns(X):
    """Columns that are constant or, in all but small tables, repeat most of their values."""
    most = MOST_DISTINCT * len(X) if len(X) >= LEAST_ROWS else 2
    return [j for j, column in enumerate(X.T) if len(np.unique(column)) < most]


def smallest_gap(column):
    """The least distance between two values, 1 if there is but one."""
    values = np.unique(column)
    gaps, largest = np.diff(values), np.abs(values).max()
    gaps = gaps[gaps > SAME * largest]
    gap = gaps.min() if len(gaps) else 1.0
    # A difference has the errors of the two values, which may be large beside it.
    return clean(np.array([gap]), max(ROUNDING * gap, np.finfo(float).eps * largest))[0]


def column_index(column, n_features, names):
    """Number of a column that is given by number or, where columns have names, by name."""
    if isinstance(column, str) and names is not None and column in names:
        return list(names).index(column)
    is_number = isinstance(column, Integral) and not isinstance(column, bool | np.bool_)
    if is_number and -n_features <= column < n_features:
        return int(column) % n_features
    known = f"0 to {n_features - 1}" if names is None else f"0 to {n_features - 1} or {list(names)}"
    raise ValueError(f"there is no column {column!r} in X; it has {known}.")
