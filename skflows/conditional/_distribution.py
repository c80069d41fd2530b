"""Distributions of y at the rows of X, with the methods of scipy's frozen distributions."""

import math
from functools import cached_property

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm, qmc

from ..columns.lattice import ROUNDING, cell_ends

FARTHEST = 4.5  # of the levels in the latent space, in standard deviations
N_LEVELS, LEVELS_PER_FLOW = 121, 8
N_DRAWS = 512  # of several outputs, which have no quantiles in closed form
ROWS_AT_ONCE = 2**16  # to bound the memory of their repeated contexts


class ConditionalDistribution:
    """The distribution of y at each row of X, as a frozen distribution of `scipy.stats`.

    Arguments broadcast against one entry per row: ``cdf(0.0)`` has shape (n,) and
    ``ppf([[0.1], [0.9]])`` has shape (2, n). With several outputs there is one entry per row and
    output, and all methods but `logpdf` and `pdf` are about single outputs. They then rest on 512
    draws from a quasi-random sequence.

    `ConditionalDensity.predict_distribution` returns one; it is not meant to be created by users.

    Parameters
    ----------
    density : ConditionalDensity
        The fitted density.
    context : ndarray of shape (n, n_context)
        The encoded rows of X.
    """

    def __init__(self, density, context):
        self._density = density
        self._context = context
        self._dequantizer = density._dequantizer
        self._is_single = density.n_outputs_ == 1
        n, d = len(context), density.n_outputs_
        self._shape = (n,) if self._is_single else (n, d)

    def __len__(self):
        return len(self._context)

    def __repr__(self):
        return f"<{type(self).__name__}: n_rows={len(self)}, n_outputs={self._density.n_outputs_}>"

    @property
    def is_discrete(self):
        """Whether there is a single output, of discrete values."""
        return self._is_single and bool(self._dequantizer)

    @property
    def support(self):
        """Possible values of a single, discrete output, in ascending order."""
        if not self.is_discrete:
            raise ValueError("Only a single, discrete output has a support of single values.")
        return self._dequantizer.grids()[0][0]

    def logpdf(self, y):
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
        return self._at(y, self._density._log_prob)

    def pdf(self, y):
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

    def pmf(self, y):
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
        ((_, grid, _, gap),) = self._discrete()
        y, tolerance, ends = np.asarray(y, dtype=np.float64), ROUNDING * gap, cell_ends(grid)
        last = np.maximum(np.searchsorted(grid, y + tolerance, side="right") - 1, 0)
        probability = self._continuous_cdf(ends[last + 1]) - self._continuous_cdf(ends[last])
        return np.where(np.abs(y - grid[last]) <= tolerance, np.maximum(probability, 0), 0.0)

    def cdf(self, y):
        """Return the probability of values up to y.

        Parameters
        ----------
        y : array-like
            Values that broadcast against one entry per row, and output.

        Returns
        -------
        probability : ndarray
        """
        y = np.asarray(y, dtype=np.float64)
        y = np.array(np.broadcast_to(y, np.broadcast_shapes(y.shape, self._shape)))
        for own, grid, _, gap in self._discrete():
            y[own] = cell_ends(grid)[np.searchsorted(grid, y[own] + ROUNDING * gap, side="right")]
        return self._continuous_cdf(y)

    def sf(self, y):
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

    def ppf(self, q):
        """Return quantiles.

        Parameters
        ----------
        q : array-like
            Probabilities that broadcast against one entry per row, and output.

        Returns
        -------
        y : ndarray
            A possible value if the output is discrete.
        """
        return self._rounded(self._continuous_ppf(q))

    quantile = ppf

    def median(self):
        """Return the median.

        Returns
        -------
        median : ndarray
            One entry per row, and output.
        """
        return self.ppf(0.5)

    def mean(self):
        """Return the mean.

        Returns
        -------
        mean : ndarray
            One entry per row, and output.
        """
        return self._moments()[0]

    def var(self):
        """Return the variance.

        Returns
        -------
        variance : ndarray
            One entry per row, and output.
        """
        return self._moments()[1]

    def std(self):
        """Return the standard deviation.

        Returns
        -------
        deviation : ndarray
            One entry per row, and output.
        """
        return np.sqrt(self.var())

    def interval(self, confidence):
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

    def rvs(self, size=1, random_state=None):
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
        y = self._density._draw(self._context, size, random_state)
        return np.moveaxis(y[..., 0] if self._is_single else y, 1, 0)

    def _unrolled(self, y):
        """Return values of y as they are ordered, which matters if they are circular."""
        return np.asarray(y, dtype=np.float64)

    def _discrete(self):
        """Yield the index into entries, the grid, if it is complete, and the gap of outputs."""
        discrete = self._dequantizer
        for j, grid, gap in zip(discrete.columns, discrete.grids(), discrete.gap, strict=True):
            yield ... if self._is_single else (..., j), *grid, gap

    def _complete_grids(self):
        """Return the index, the values and their rounding error of outputs without other values."""
        return [
            (own, grid, ROUNDING * gap)
            for own, grid, is_complete, gap in self._discrete()
            if is_complete
        ]

    def _at(self, y, function):
        """Return a function of rows of y beside their context, at values that broadcast."""
        y = np.asarray(y, dtype=np.float64)
        y = np.broadcast_to(y, np.broadcast_shapes(y.shape, self._shape))
        if self._is_single:
            y = y[..., None]
        return self._by_row(
            lambda y, row: function(np.column_stack([y, self._context[row]])), np.moveaxis(y, -2, 0)
        )

    def _by_row(self, function, values):
        """Return a function of values (n, ..., d), and of the rows they belong to, as (..., n).

        Values of the same row are next to each other: networks see its context once.
        """
        entries = values.shape[:-1]
        row = np.repeat(np.arange(len(self)), math.prod(entries[1:]))
        found = in_blocks(function, values.reshape(len(row), values.shape[-1]), row)
        return np.moveaxis(found.reshape(entries), 0, -1)

    def _continuous_cdf(self, y):
        if self._is_single:
            return self._at(y, self._density._cdf)
        shape = np.broadcast_shapes(np.shape(y), self._shape)
        y = np.broadcast_to(y, shape).reshape(-1, *self._shape)
        draws = self._draws
        below = [(draws <= values).mean(axis=0) for values in y]
        return np.reshape(below, shape)

    def _continuous_ppf(self, q):
        q = np.asarray(q, dtype=np.float64)
        if not ((q >= 0) & (q <= 1)).all():
            raise ValueError(f"q={q!r}; probabilities are from 0 to 1.")
        q = np.broadcast_to(q, np.broadcast_shapes(q.shape, self._shape))
        if self._is_single:
            return self._by_row(
                lambda q, row: self._quantiles(q[:, 0], row), np.moveaxis(q[..., None], -2, 0)
            )
        levels, which = np.unique(q, return_inverse=True)
        found = np.quantile(self._draws, levels, axis=0).reshape(len(levels), *self._shape)
        which = which.reshape(-1, *self._shape)
        return np.take_along_axis(found, which, axis=0).reshape(q.shape)

    def _quantiles(self, q, row):
        """Return the quantile of each row by index, of a single output."""
        return self._density._ppf(q, self._context[row])

    def _moments(self):
        if self.is_discrete and len(self.support) <= N_LEVELS:
            y = self.support
            weight = np.diff(self._continuous_cdf(cell_ends(y)[:, None]), axis=0).T
        else:
            y, weight = self._weighted_values()
            y = np.moveaxis(self._rounded(np.moveaxis(y, -1, 0)), 0, -1)
        mean = (weight * y).sum(axis=-1)
        return mean, (weight * (y - mean[..., None]) ** 2).sum(axis=-1)

    def _weighted_values(self):
        """Return values of y along a last axis, and their weights."""
        if not self._is_single:
            return np.moveaxis(self._draws, 0, -1), 1 / N_DRAWS
        y, levels = self._nodes()
        weight = np.concatenate([norm.pdf(own) / norm.pdf(own).sum() for own in levels])
        return y, weight / len(levels)

    def _rounded(self, y):
        """Return values of y rounded to possible ones."""
        return self._dequantizer.round(y.reshape(-1, self._density.n_outputs_)).reshape(y.shape)

    def _nodes(self):
        """Return values of y (n, k) at latent levels that are dealt out to the flows, and these."""
        n_flows = len(self._density.flows_)
        levels = np.linspace(-FARTHEST, FARTHEST, max(N_LEVELS, LEVELS_PER_FLOW * n_flows))
        levels = [levels[i::n_flows] for i in range(n_flows)]
        return np.column_stack([self._flow_nodes(i, own) for i, own in enumerate(levels)]), levels

    def _flow_nodes(self, i, latent):
        """Return y at latent values, of shape (n, k), for each row under flow i."""
        density, k = self._density, len(latent)

        def nodes(context):
            tiled = density._signs[i] * np.tile(latent, len(context))[:, None]
            repeated = np.repeat(context, k, axis=0)
            return density._inverse(density.flows_[i], tiled, repeated).reshape(-1, k)

        return in_blocks(nodes, self._context, size=max(1, ROWS_AT_ONCE // k))

    def _histogram(self):
        """Return edges (n, k + 1) and probabilities (n, k) of cells of a single output.

        The edges are quantiles of the flows, so that cells are narrow where the density is high.
        Those of different flows are at different levels, in order not to meet.
        """
        if len(self._density.flows_) == 1 and not self._density._circle:
            edges, (levels,) = self._nodes()
            return edges, np.tile(np.diff(norm.cdf(levels)), (len(edges), 1))
        edges = np.sort(self._edges(), axis=1)
        return edges, np.diff(self._continuous_cdf(edges.T).T, axis=1)

    def _edges(self):
        return self._nodes()[0]

    def _limits(self, tail):
        """Return ends that contain all but the tails of the distributions of a single output."""
        return self.ppf(tail).min(), self.ppf(1 - tail).max()

    @cached_property
    def _draws(self):
        """Draws from a quasi-random sequence as they are ordered, (N_DRAWS, n, n_outputs)."""
        return self._unrolled(self._raw_draws)

    @cached_property
    def _raw_draws(self):
        density, d = self._density, self._density.n_outputs_
        latent = ndtri(qmc.Sobol(d, seed=0).random(N_DRAWS) * (1 - 1e-9) + 5e-10)
        n_flows = len(density.flows_)

        def draws(context):
            y = np.empty((len(context), N_DRAWS, d))
            # In turn, so that the first draws are of all flows; blocks of the sequence are even.
            for i, own in enumerate(np.array_split(latent, n_flows)):
                rows = np.repeat(context, len(own), axis=0)
                found = density._inverse(density.flows_[i], np.tile(own, (len(context), 1)), rows)
                y[:, i::n_flows] = found.reshape(-1, len(own), d)
            return y

        return np.moveaxis(in_blocks(draws, self._context, size=ROWS_AT_ONCE // N_DRAWS), 1, 0)


def in_blocks(function, *arrays, size=ROWS_AT_ONCE):
    """Return a function of arrays, computed in blocks of their rows."""
    starts = range(0, max(len(arrays[0]), 1), size)
    return np.concatenate(
        [function(*(array[start : start + size] for array in arrays)) for start in starts]
    )
