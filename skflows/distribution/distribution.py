"""Distributions of y at each row, with the methods of scipy's frozen distributions."""

import math
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ..columns.arrays import check_integer
from ..columns.lattice import Grid, nearest
from ..columns.types import Floats, RandomState
from ..preprocessing.angles import wrapped
from .regions import LEVEL_DRAWS, HighestDensity, joint_scores

MAX_VALUES = 121  # of a discrete output, up to which moments are sums over all of them
N_DRAWS = 512  # of several outputs, which have no quantiles in closed form
ROWS_AT_ONCE = 2**16  # of a source, to bound its memory
LEAST_RESULTANT = 1e-12  # of directions: the logarithm of 0 would be infinite


def checked_probabilities(q, name="q", with_ends=True):
    """Return probabilities of quantiles as floats, or raise an error; 0 and 1 are the ends."""
    values = np.asarray(q, dtype=np.float64)
    are_valid = (values >= 0) & (values <= 1) if with_ends else (values > 0) & (values < 1)
    if not are_valid.all():
        wrong = values[~are_valid][0]
        remedy = f": give {wrong / 100:g} for {wrong:g} %" if 1 < wrong < 100 else ""
        ends = "are from 0 to 1" if with_ends else "must be more than 0 and less than 1"
        raise ValueError(f"{name}={q!r}; probabilities {ends}{remedy}.")
    return values


class Source(Protocol):
    """What a model supplies about k outputs in each of n rows.

    Values that a method gets, m of them, belong to the rows that an array of indices names. `cdf`,
    `ppf` and `nodes` are asked of a single output only. Values are not yet rounded to possible
    ones, nor wrapped. There may be very many: a source works in blocks that bound its memory.
    """

    n: int
    n_outputs: int
    possible: list[Grid | None]  # the values that each output can have, if it is discrete
    period: np.ndarray  # of each output, infinite if it does not wrap around
    start: np.ndarray  # the least value of each output that wraps around
    moment_ends: np.ndarray  # (k, 2): moments take values beyond these for the ends

    def log_density(self, y: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Return the log-density in nats at y, of shape (m, k); of discrete outputs, per step."""

    def cdf(self, y: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Return the probability of values up to y, of shape (m,).

        It grows by 1 with each period of an output that wraps around: differences matter.
        """

    def ppf(self, q: np.ndarray, row: np.ndarray, low: np.ndarray | None = None) -> np.ndarray:
        """Return where `cdf` is q; for outputs that wrap around, within a period from `low`."""

    def nodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return values (n, p), close where the density is high, their weights and their `cdf`.

        The weights, for moments, add up to 1. The last is None if it takes a call of `cdf`.
        """

    def draws(self, n_draws: int) -> np.ndarray:
        """Return draws (n_draws, n, k) from a quasi-random sequence, of several outputs only."""

    def sample(self, size: int, random_state: np.random.RandomState) -> np.ndarray:
        """Return random draws (n, size, k)."""


def plausible_ends(low, high):
    """Return the ends of values for moments, from the ends of the values seen.

    Heavy tails may have no mean, so that moments do without values that are further from the seen
    ones than these are from each other: such values count as the ends.
    """
    return 2 * low - high, 2 * high - low


def distribution_of(source):
    """Return the distribution that a source describes."""
    is_circular = np.isfinite(source.period).any()
    return (CircularDistribution if is_circular else ConditionalDistribution)(source)


class ConditionalDistribution:
    """The distribution of y at each row of X, as a frozen distribution of `scipy.stats`.

    Arguments broadcast against one entry per row: ``cdf(0.0)`` has shape (n,) and
    ``ppf([[0.1], [0.9]])`` has shape (2, n). With several outputs there is one entry per row and
    output, and all methods but `logpdf` and `pdf` are about single outputs. They then rest on 512
    draws from a quasi-random sequence.

    Moments exist for any tail: a value further from the training values than these are from each
    other counts as no further than that.

    `ConditionalDensity.predict_distribution` and `TableDensity.predict_distribution` return one; it
    is not meant to be created by users.

    Parameters
    ----------
    source : Source
        The model of y and its rows.
    """

    def __init__(self, source):
        self._source = source
        self._is_single = source.n_outputs == 1
        self._shape = (source.n,) if self._is_single else (source.n, source.n_outputs)
        self._grids = source.possible

    def __len__(self):
        return self._source.n

    def __repr__(self):
        return f"<{type(self).__name__}: n_rows={len(self)}, n_outputs={self._source.n_outputs}>"

    @property
    def is_discrete(self) -> bool:
        """Whether there is a single output, of discrete values."""
        return self._is_single and self._grids[0] is not None

    @property
    def support(self) -> Floats:
        """Possible values of a single, discrete output, in ascending order."""
        if not self.is_discrete:
            raise ValueError("Only a single, discrete output has a support of single values.")
        return self._source.possible[0].values

    def logpdf(self, y: ArrayLike) -> Floats:
        """Return the log-density at y, in nats (see `ConditionalDensity.log_prob`).

        Parameters
        ----------
        y : array-like
            Values that broadcast against one entry per row, and output.

        Returns
        -------
        log_density : ndarray
            One entry per row.
        """
        return self._at(y, self._source.log_density)

    def pdf(self, y: ArrayLike) -> Floats:
        """Return the density at y.

        Parameters
        ----------
        y : array-like
            Values that broadcast against one entry per row, and output.

        Returns
        -------
        density : ndarray
            One entry per row.
        """
        return np.exp(self.logpdf(y))

    def pmf(self, y: ArrayLike) -> Floats:
        """Return the probability of a value of a single, discrete output.

        Parameters
        ----------
        y : array-like
            Values that broadcast against one entry per row.

        Returns
        -------
        probability : ndarray
            One entry per row.
        """
        if not self.is_discrete:
            raise ValueError("pmf needs a single, discrete output; pdf is the density of others.")
        (grid,) = self._grids
        y = self._unrolled(y)
        low, high = grid.cell(y)
        probability = self._continuous_cdf(high) - self._continuous_cdf(low)
        return np.where(grid.has(y), np.maximum(probability, 0), 0.0)

    def cdf(self, y: ArrayLike) -> Floats:
        """Return the probability of values up to y.

        Parameters
        ----------
        y : array-like
            Values that broadcast against one entry per row, and output.

        Returns
        -------
        probability : ndarray
        """
        y = self._unrolled(y)
        y = np.array(self._broadcast(y))
        for entries, grid in self._discrete():
            y[entries] = grid.upper_end(y[entries])
        return self._continuous_cdf(y)

    def sf(self, y: ArrayLike) -> Floats:
        """Return the probability of values above y.

        Parameters
        ----------
        y : array-like
            Values that broadcast against one entry per row, and output.

        Returns
        -------
        probability : ndarray
        """
        return 1 - self.cdf(y)

    def ppf(self, q: ArrayLike) -> Floats:
        """Return quantiles.

        Parameters
        ----------
        q : array-like
            Probabilities that broadcast against one entry per row, and output: as in scipy,
            ``ppf([0.1, 0.9])`` of two rows is a quantile of each, and ``ppf([[0.1], [0.9]])`` two
            quantiles of each, of shape (2, n_samples).

        Returns
        -------
        y : ndarray
            A possible value if the output is discrete.
        """
        return self._rounded(self._continuous_ppf(q))

    quantile = ppf

    def median(self) -> Floats:
        """Return the median.

        Returns
        -------
        median : ndarray
            One entry per row, and output.
        """
        return self._in_period(self._continuous_ppf(0.5))

    def mean(self) -> Floats:
        """Return the mean.

        Returns
        -------
        mean : ndarray
            One entry per row, and output.
        """
        return self._moments()[0]

    def var(self) -> Floats:
        """Return the variance.

        Returns
        -------
        variance : ndarray
            One entry per row, and output.
        """
        return self._moments()[1]

    def std(self) -> Floats:
        """Return the standard deviation.

        Returns
        -------
        deviation : ndarray
            One entry per row, and output.
        """
        return np.sqrt(self.var())

    def interval(self, confidence: float) -> tuple[Floats, Floats]:
        """Return the central interval of the given probability, which is not calibrated.

        Parameters
        ----------
        confidence : float
            The probability.

        Returns
        -------
        low, high : ndarray
            One entry per row, and output.
        """
        return self.ppf((1 - confidence) / 2), self.ppf((1 + confidence) / 2)

    def rvs(self, size: int = 1, random_state: RandomState = None) -> Floats:
        """Draw values.

        Parameters
        ----------
        size : int, default=1
            Number of draws for each row.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        y : ndarray of shape (size, n) or (size, n, n_outputs)
            The draws.
        """
        check_integer("size", size)
        y = self._sample(size, random_state)
        return np.moveaxis(y[..., 0] if self._is_single else y, 1, 0)

    def _sample(self, n_samples, random_state):
        """Return draws of shape (n, n_samples, n_outputs)."""
        return self._in_period(self._source.sample(n_samples, check_random_state(random_state)))

    def _unrolled(self, y):
        """Return values of y as they are ordered, which matters if they are circular."""
        return np.asarray(y, dtype=np.float64)

    def _in_period(self, y):
        """Return the possible values nearest to y; circular ones within a period from the start."""
        return self._rounded(y)

    def _rounded(self, y):
        """Return the possible values nearest to y."""
        y = np.array(y, order="C")
        for entries, grid in self._discrete():
            y[entries] = grid.round(y[entries])
        return y

    def _index(self, j):
        """Return the index of output j into entries."""
        return ... if self._is_single else (..., j)

    def _discrete(self):
        """Yield the index into entries and the grid of discrete outputs."""
        for j, grid in enumerate(self._grids):
            if grid is not None:
                yield self._index(j), grid

    def _broadcast(self, values):
        """Return values with entries for each row, and output."""
        return broadcast_to_entries(values, self._shape)

    def _at(self, y, function):
        """Return a function of rows of y, and of the rows they belong to, that broadcast."""
        y = self._broadcast(y)
        if self._is_single:
            y = y[..., None]
        return self._by_row(function, np.moveaxis(y, -2, 0))

    def _by_row(self, function, values):
        """Return a function of values (n, ..., d), and of the rows they belong to, as (..., n).

        Values of the same row are next to each other: networks see its context once.
        """
        n, *entries, d = values.shape
        row = np.repeat(np.arange(n), math.prod(entries))
        results = function(values.reshape(len(row), d), row)
        return np.moveaxis(results.reshape(n, *entries), 0, -1)

    def _continuous_cdf(self, y):
        if self._is_single:
            return self._at(y, lambda y, row: self._source.cdf(y[:, 0], row))
        y = self._broadcast(y)
        shape, y = y.shape, y.reshape(-1, *self._shape)
        draws = self._draws
        below = [(draws <= values).mean(axis=0) for values in y]
        return np.reshape(below, shape)

    def _continuous_ppf(self, q):
        q = self._broadcast(checked_probabilities(q))
        if self._is_single:
            return self._by_row(
                lambda q, row: self._quantiles(q[:, 0], row), np.moveaxis(q[..., None], -2, 0)
            )
        levels, which = np.unique(q, return_inverse=True)
        quantiles = np.quantile(self._draws, levels, axis=0).reshape(len(levels), *self._shape)
        which = which.reshape(-1, *self._shape)
        return np.take_along_axis(quantiles, which, axis=0).reshape(q.shape)

    def _quantiles(self, q, row):
        """Return the quantile of each row by index, of a single output."""
        return self._source.ppf(q, row)

    def _moments(self):
        y, weight = self._weighted_values()
        mean = (weight * y).sum(axis=-1)
        return mean, (weight * (y - mean[..., None]) ** 2).sum(axis=-1)

    def _weighted_values(self):
        """Return possible values of y along a last axis, and their weights."""
        if self.is_discrete and len(self.support) <= MAX_VALUES:
            return self.support, self._masses()
        if self._is_single:
            y, weight, _ = self._source.nodes()
            ends = self._source.moment_ends[0]
        else:
            y, weight = np.moveaxis(self._raw_draws, 0, -1), 1 / N_DRAWS
            ends = self._source.moment_ends.T[:, None, :, None]
        y = np.clip(y, *ends)
        return np.moveaxis(self._in_period(np.moveaxis(y, -1, 0)), 0, -1), weight

    def _masses(self, edges=slice(None)):
        """Return the probabilities of all values of a single, discrete output, (n, n_values).

        Given indices of values as edges, return the probability of the values from each edge up to,
        but not including, the next one.
        """
        ends = self._grids[0].ends[edges]
        return np.diff(self._continuous_cdf(ends[:, None]), axis=0).T

    def _histogram(self):
        """Return edges (n, k + 1) and probabilities (n, k) of cells of a single output."""
        edges, below = self._edges()
        if below is None:
            edges = np.sort(edges, axis=1)
            below = self._continuous_cdf(edges.T).T
        return edges, np.diff(below, axis=1)

    def _edges(self):
        """Return edges of cells of a single output, and their `cdf` or None."""
        edges, _, below = self._source.nodes()
        return edges, below

    def _limits(self, tail):
        """Return ends that contain all but the tails of the distributions of a single output."""
        return self.ppf(tail).min(), self.ppf(1 - tail).max()

    def _central_scores(self, y):
        """Return the probability of the narrowest central interval that contains y."""
        return np.abs(2 * self._continuous_cdf(self._unrolled(y)) - 1)

    def _central_interval(self, level):
        """Return the ends of the central intervals of a level, which belong to them."""
        is_all = np.greater_equal(level, 1)
        levels = np.broadcast_to(np.where(is_all, 0, level), self._shape)
        ends = self._continuous_ppf((1 + np.multiply.outer([-1, 1], levels)) / 2)
        for entries, grid in self._discrete():
            low, high = ends[0][entries], ends[1][entries]
            inside = grid.inside(low, high)
            is_empty = inside[0] > inside[1]
            middle = grid.round((low + high) / 2)
            for end, moved in zip(ends, inside, strict=True):
                end[entries] = np.where(is_empty, middle, moved)
        return [
            np.where(is_all, sign * np.inf, end) for sign, end in zip((-1, 1), ends, strict=True)
        ]

    def _density_scores(self, y):
        """Return the probability of all values that are denser than the y of each row."""
        if self._is_single:
            return HighestDensity(*self._histogram()).scores(self._unrolled(y))
        draws = self._rounded(self._draws[:LEVEL_DRAWS])
        return joint_scores(self.logpdf(draws), self.logpdf(y))

    def _regions(self, level):
        """Return the intervals of each row's highest-density region of a level, (k, 2) each."""
        regions = HighestDensity(*self._histogram()).regions(level)
        (grid,) = self._grids
        if level < 1 and grid is not None:
            regions = [np.stack(grid.inside(*region.T), -1) for region in regions]
            regions = [region[region[:, 0] <= region[:, 1]] for region in regions]
            if not grid.is_complete:  # two may be moved to the same multiple of a step
                regions = [np.unique(region, axis=0) for region in regions]
        return regions

    @cached_property
    def _draws(self):
        """Draws from a quasi-random sequence as they are ordered, (N_DRAWS, n, n_outputs)."""
        return self._unrolled(self._raw_draws)

    @cached_property
    def _raw_draws(self):
        return self._source.draws(N_DRAWS)


class CircularDistribution(ConditionalDistribution):
    """The distribution of y at each row of X, if outputs are circular.

    The mean and the standard deviation are circular ones (`scipy.stats.circmean` and `circstd`).
    Probabilities and quantiles are counted from the point opposite to the mean: `cdf` is 0 there,
    and quantiles are at most half a period from the mean, where they may leave the range of y.

    Parameters
    ----------
    source : Source
        The model of y and its rows.
    """

    def __init__(self, source):
        super().__init__(source)
        both = source.period, source.start
        self._period, self._start = (values[0] for values in both) if self._is_single else both
        grids = zip(source.possible, source.period, strict=True)
        self._grids = [grid and grid.unrolled(period) for grid, period in grids]

    @cached_property
    def _directions(self):
        """Mean and standard deviation of the directions of each entry, in the units of y."""
        y, weight = self._weighted_values()
        unit = np.asarray(self._period) / (2 * np.pi)
        resultant = (weight * np.exp(1j * y / unit[..., None])).sum(axis=-1)
        length = np.clip(np.abs(resultant), LEAST_RESULTANT, 1)
        with np.errstate(invalid="ignore"):  # of columns that do not wrap around
            mean = wrapped(unit * np.angle(resultant), self._start, self._period)
            return mean, unit * np.sqrt(-2 * np.log(length))

    @cached_property
    def _low(self):
        """Where the values of each entry start; between two cells if they are discrete."""
        low = self._directions[0] - self._period / 2
        for entries, grid in self._discrete():
            low[entries] = nearest(grid.ends[1:-1], low[entries])
        return low

    @cached_property
    def _below(self):
        """What `cdf` of the source is there, for a single output."""
        return super()._continuous_cdf(self._low)

    def _unrolled(self, y):
        return wrapped(np.asarray(y, dtype=np.float64), self._low, self._period)

    def _in_period(self, y):
        y = self._rounded(wrapped(y, self._start, self._period))
        for j, grid in enumerate(self._source.possible):
            if grid is not None:
                entries = self._index(j)
                start = self._source.start[j] - grid.step / 2
                y[entries] = grid.round(wrapped(y[entries], start, self._source.period[j]))
        return y

    def _continuous_cdf(self, y):
        if not self._is_single:
            return super()._continuous_cdf(y)
        y = np.clip(y, self._low, self._low + self._period)
        return super()._continuous_cdf(y) - self._below

    def _masses(self, edges=slice(None)):
        n = len(self.support)
        ends = self._grids[0].ends[n : 2 * n + 1][edges]
        return np.diff(super()._continuous_cdf(ends[:, None]), axis=0).T

    def _quantiles(self, q, row):
        return self._source.ppf(q + self._below[row], row, self._low[row])

    def _moments(self):
        mean, deviation = self._directions
        if self._is_single:
            return mean, deviation**2
        moments = zip((mean, deviation**2), super()._moments(), strict=True)
        return tuple(np.where(np.isfinite(self._period), *both) for both in moments)

    def _edges(self):
        ends = [self._low, self._low + self._period]
        return np.column_stack([*ends, self._unrolled(super()._edges()[0].T).T]), None

    def _limits(self, tail):
        return self._start, self._start + self._period


def broadcast_to_entries(values, shape, what="a distribution with entries"):
    """Return numbers broadcast to the entries of a distribution, possibly several for each.

    An error says what has the shape of the entries.
    """
    values = np.asarray(values, dtype=np.float64)
    try:
        found = np.broadcast_shapes(values.shape, shape)
    except ValueError:
        found = ()
    if found[-len(shape) :] != shape:  # a single entry would become several
        raise ValueError(
            f"values of shape {values.shape} do not fit {what} of shape {shape}: give a number, an "
            f"array of that shape, or k values for all entries as an array of shape "
            f"(k{', 1' * len(shape)})."
        )
    return np.broadcast_to(values, found)


def in_blocks(function, *arrays, each=1, at_once=None, map_=map):
    """Return a function of arrays, computed in blocks; it takes memory for `each` rows by row.

    Blocks take memory for `at_once` rows. A ``map_`` may share them among threads.
    """
    size = max(1, (at_once or ROWS_AT_ONCE) // each)
    starts = range(0, max(len(arrays[0]), 1), size)
    blocks = [[array[start : start + size] for array in arrays] for start in starts]
    return np.concatenate([*map_(lambda block: function(*block), blocks)])
