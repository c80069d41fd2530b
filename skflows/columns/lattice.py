"""Lattices of the values of discrete columns: their steps, and the nearest points."""

from functools import cached_property

import numpy as np

ROUNDING = 1e-9  # tolerance, in gaps
SAME = 1e-12  # gaps below this fraction of the largest value are floating-point rounding errors
MAX_UNSEEN = 10  # points of a lattice per value seen: sparser lattices yield the values seen only
MAX_ERROR = 0.05  # rounding error of values on a lattice, in gaps
MAX_DECIMALS = 12
FEW_DECIMALS = 6  # of columns of tables, at most
ON_LATTICE = 1e-2  # tolerance, in steps: float32 rounding moves values off the lattice


def nearest(grid, x):
    """Return the value of a grid that is nearest to each x."""
    return grid[nearest_index(grid, x)]


def nearest_index(grid, x):
    """Return the index of the value of a grid that is nearest to each x."""
    return np.searchsorted((grid[1:] + grid[:-1]) / 2, x)


def cell_ends(grid):
    """Return the ends of the cells of values nearest to each value of a grid."""
    return np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])


def lattice(values, gap):
    """Return all values of the lattice of the values seen, or these and False if there is none."""
    cells = np.rint((values - values[0]) / gap)
    error = 1e-6
    with np.errstate(over="ignore"):
        is_single = (values == values.astype(np.float32)).all()
    if is_single and cells[-1]:  # a gap between float32 values has their rounding errors
        gap = (values[-1] - values[0]) / cells[-1]
        error = np.clip(np.finfo(np.float32).eps * np.abs(values).max() / gap, error, MAX_ERROR)
    steps = (values - values[0]) / gap
    if np.abs(steps - cells).max() >= error or cells[-1] >= MAX_UNSEEN * len(values):
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


def is_whole(column):
    """Whether all values are whole numbers, and not only because they are too large for others."""
    largest = np.abs(column).max()
    return bool(largest < 1 / np.finfo(column.dtype).eps and (column == np.rint(column)).all())


def are_whole_apart(column):
    """Whether all values differ by whole numbers, such as prices that end in .99."""
    steps = column.astype(np.float64) - float(column.min())
    largest, error = np.abs(column).max(), np.finfo(column.dtype).eps
    is_exact = largest * error < MAX_ERROR * ON_LATTICE
    return bool(is_exact and (np.abs(steps - np.rint(steps)) <= 4 * error * largest).all())


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
    # A difference has the rounding errors of the two values, which may be larger than its rounding.
    return round_decimals(np.array([gap]), max(ROUNDING * gap, np.finfo(float).eps * largest))[0]


def lattice_of(distinct):
    """Return the step and decimals of numbers with few decimals, or None."""
    scale = np.abs(distinct).max()
    for decimals in range(FEW_DECIMALS + 1):
        steps = np.rint(distinct * 10**decimals)
        tolerance = min(1e-6 * scale, ON_LATTICE * 10.0**-decimals)
        merged = np.diff(distinct)[np.diff(steps) == 0]
        if (
            np.abs(distinct - np.round(distinct, decimals)).max() <= tolerance
            and merged.max(initial=0.0) <= SAME * scale
        ):
            if np.abs(steps).max() > 2**52:
                return None
            step = np.gcd.reduce(np.diff(steps.astype(np.int64))) if len(steps) > 1 else 1
            return max(int(step), 1) / 10**decimals, decimals
    return None


def decimals_of(values):
    """Return the decimals of numbers, or None if they have many."""
    step_and_decimals = lattice_of(np.unique(values))
    return None if step_and_decimals is None else step_and_decimals[1]


class Grid:
    """Listed values that a discrete column can have, each with a cell of what is nearest to it.

    Parameters
    ----------
    values : ndarray of shape (n_values,)
        In ascending order.
    is_complete : bool
        Whether the column can have no other values.
    step : float
        The least distance between values.
    """

    def __init__(self, values, is_complete, step):
        self.values, self.is_complete, self.step = values, is_complete, step
        self.ends = cell_ends(values)  # of the cells, one more than there are values

    @cached_property
    def lattice(self):
        """The step and decimals of a lattice on which all values are, or None."""
        return lattice_of(self.values)

    def cell(self, x):
        """Return the lower and the upper end of the cell in which each x is."""
        index = nearest_index(self.values, x)
        return self.ends[index], self.ends[index + 1]

    def round(self, x):
        """Return the value that is nearest to each x."""
        return nearest(self.values, x)

    def has(self, x):
        """Return whether each x is one of the values, except for rounding errors."""
        return np.abs(x - self.round(x)) <= ROUNDING * self.step

    def upper_end(self, x):
        """Return the upper end of the cell of the last value up to each x."""
        return self.ends[np.searchsorted(self.values, x + ROUNDING * self.step, side="right")]

    def inside(self, low, high):
        """Return ends of intervals, moved inwards to values: low exceeds high if there is none.

        Where values are a few of many, such as prices, the others of their lattice are possible
        too. Between two of these, both ends are the nearest one.
        """
        tolerance = ROUNDING * self.step
        if not self.is_complete:
            if self.lattice is None:
                return low, high
            (step, decimals), first = self.lattice, self.values[0]
            low, middle, high = ((x - first) / step for x in (low, (low + high) / 2, high))
            ends = np.ceil(low - ON_LATTICE), np.floor(high + ON_LATTICE)
            is_empty = ends[0] > ends[1]
            return [
                np.round(first + step * np.where(is_empty, np.rint(middle), end), decimals)
                for end in ends
            ]
        above = np.searchsorted(self.values, low - tolerance)
        below = np.searchsorted(self.values, high + tolerance, side="right")
        return np.append(self.values, np.inf)[above], np.append(-np.inf, self.values)[below]

    def unrolled(self, period):
        """Return the grid of values that wrap around, with a period more at either side."""
        if not np.isfinite(period):
            return self
        turns = [self.values - period, self.values, self.values + period]
        return Grid(np.concatenate(turns), self.is_complete, self.step)
