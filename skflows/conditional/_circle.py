"""Outputs that wrap around, such as angles and times of the day."""

from functools import cached_property
from numbers import Real

import numpy as np
from sklearn.base import clone

from ..columns.arrays import column_index
from ..columns.lattice import cell_ends, nearest
from ..preprocessing.angles import emptiest_angle, wrapped
from ._distribution import N_DRAWS, ConditionalDistribution

MAX_COLUMNS = 3  # each multiplies the number of images of a row
LEAST_RESULTANT = 1e-12  # of directions: the logarithm of 0 would be infinite


class Circle:
    """The periods of the columns of y.

    Parameters
    ----------
    periods : ndarray of shape (n_outputs,)
        Infinite for columns that do not wrap around.
    starts : ndarray of shape (n_outputs,)
        The least value of each column that wraps around.
    cuts : ndarray of shape (n_outputs,)
        Where the flow cuts each circle open: where there are few rows.
    """

    def __init__(self, periods, starts, cuts):
        self.periods, self.starts, self.cuts = periods, starts, cuts

    @classmethod
    def for_parameter(cls, circular, Y, names, discrete):
        """Return the circle that the parameter ``circular`` of a density asks for.

        Discrete columns keep their values, such as months from 1 to 12, if these fit in a period.
        """
        d = Y.shape[1]
        given = dict.fromkeys(range(d), circular) if isinstance(circular, Real) else circular or {}
        periods = np.full(d, np.inf)
        for key, period in given.items():
            is_number = isinstance(period, Real) and not isinstance(period, bool)
            if not (is_number and 0 < period < np.inf):
                raise ValueError(
                    f"circular gives column {key!r} a period of {period!r}; it must be a positive "
                    "number."
                )
            periods[column_index(key, d, names, "circular", "y")] = period
        n_circles = np.isfinite(periods).sum()
        if n_circles > MAX_COLUMNS:
            raise ValueError(
                f"circular names {n_circles} columns of y. Each of them multiplies the time of "
                f"training by 3 and that of scores by 5: name at most {MAX_COLUMNS}, or model the "
                "sine and cosine of the others."
            )
        is_centred = (Y < 0).sum(axis=0) > (periods / 2 <= Y).sum(axis=0)
        starts = np.where(is_centred, -periods / 2, 0.0)
        keeps = np.isin(np.arange(d), discrete) & (np.ptp(Y, axis=0) < periods)
        starts[keeps] = Y[:, keeps].min(axis=0)
        cuts = starts.copy()
        for j in np.flatnonzero(np.isfinite(periods)):
            cut = emptiest_angle(Y[:, j], periods[j])
            cuts[j] = wrapped(cut, starts[j] - periods[j] / 2, periods[j])
        return cls(periods, starts, cuts)

    def __bool__(self):
        return bool(np.isfinite(self.periods).any())

    def wrap(self, Y, dequantizer=None):
        """Return rows of y within a period; with a dequantizer, within the cells of its values."""
        if not self:
            return Y
        starts = self.starts.copy()
        if dequantizer:
            starts[dequantizer.columns] -= dequantizer.gap / 2
        return wrapped(Y, starts, self.periods)

    def cut_open(self, Y):
        """Return rows of y within a period from the cut, as the flow sees them."""
        return wrapped(Y, self.cuts, self.periods) if self else Y

    def checked_flow(self, estimator, bounds):
        """Return an estimator for outputs that wrap around, or raise an error."""
        if any("objective" in phase for phase in estimator._phases(1)):
            raise ValueError(
                f"circular outputs need a flow that is trained by its exact likelihood, such as "
                f"NSFDensity, and {type(estimator).__name__} is not."
            )
        if bounds is not None:
            for j in np.flatnonzero(np.isfinite(self.periods) & np.isfinite(bounds).any(axis=1)):
                raise ValueError(
                    f"Column {j} of y is in both bounds and circular: remove it from one of them."
                )
        return clone(estimator).set_params(preprocessing="standardize")

    def wrap_flow(self, fit):
        """Let the density of the flow of a prepared fit wrap around."""
        import torch

        from ..bijections._wrapped import Wrapped

        rows = np.repeat(fit.train_rows[:1], 2, axis=0)
        rows[1, : len(self.periods)] += np.where(np.isfinite(self.periods), self.periods, 0.0)
        here, there = fit.flow.preprocess(torch.from_numpy(rows))[0]
        fit.flow.bijection = Wrapped(fit.flow.bijection, there - here).to(fit.device, fit.dtype)

    def images(self, rows):
        """Return rows of a single output beside its context, and their images if it is circular."""
        from ..bijections._wrapped import FARTHEST

        if not self:
            return [rows]
        turn = np.zeros(rows.shape[1])
        turn[0] = self.periods[0]
        return [rows + n * turn for n in range(-FARTHEST, FARTHEST + 1)]


class CircularDistribution(ConditionalDistribution):
    """The distribution of y at each row of X, if outputs are circular.

    The mean and the standard deviation are those of directions (`scipy.stats.circmean` and
    `circstd`). Probabilities and quantiles are counted from the point opposite to the mean: `cdf`
    is 0 there, and quantiles are at most half a period from the mean, where they may leave the
    range of y.

    Parameters
    ----------
    density : ConditionalDensity
        The fitted density.
    context : ndarray of shape (n, n_context)
        The encoded rows of X.
    """

    def __init__(self, density, context):
        super().__init__(density, context)
        circle = density._circle
        both = circle.periods, circle.starts
        self._period, self._start = (own[0] for own in both) if self._is_single else both

    def cdf(self, y):
        return super().cdf(self._unrolled(y))

    def pmf(self, y):
        return super().pmf(self._unrolled(y))

    def median(self):
        return wrapped(super().median(), self._start, self._period)

    @cached_property
    def _directions(self):
        """Mean and standard deviation of the directions of each entry, in the units of y."""
        if self._is_single:
            y, weight = self._weighted_values()
        else:
            y, weight = np.moveaxis(self._raw_draws, 0, -1), 1 / N_DRAWS
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
        for own, grid, _, _ in self._discrete():
            low[own] = nearest(cell_ends(grid)[1:-1], low[own])
        return low

    @cached_property
    def _below(self):
        """What `_cdf` of the density is there, for a single output."""
        return self._at(self._low, self._density._cdf)

    def _unrolled(self, y):
        return wrapped(np.asarray(y, dtype=np.float64), self._low, self._period)

    def _discrete(self):
        for own, grid, is_complete, gap in super()._discrete():
            period = self._period if self._is_single else self._period[own[1]]
            if np.isfinite(period):
                grid = np.concatenate([grid - period, grid, grid + period])
            yield own, grid, is_complete, gap

    def _continuous_cdf(self, y):
        if not self._is_single:
            return super()._continuous_cdf(y)
        y = np.clip(y, self._low, self._low + self._period)
        return super()._continuous_cdf(y) - self._below

    def _quantiles(self, q, row):
        low, below = self._low[row], self._below[row]
        middle, high = low + self._period / 2, low + self._period
        return self._density._root(q + below, self._context[row], middle, low, high)

    def _moments(self):
        mean, deviation = self._directions
        if self._is_single:
            return mean, deviation**2
        own = zip((mean, deviation**2), super()._moments(), strict=True)
        return tuple(np.where(np.isfinite(self._period), *both) for both in own)

    def _rounded(self, y):
        rows = y.reshape(-1, self._density.n_outputs_)
        inside = self._density._circle.wrap(rows, self._dequantizer)
        with np.errstate(invalid="ignore"):  # of columns that do not wrap around
            turns = np.rint((rows - inside) / self._period) * self._period
        turns = np.where(np.isfinite(self._period), turns, 0.0)
        return (self._dequantizer.round(inside) + turns).reshape(y.shape)

    def _edges(self):
        ends = [self._low, self._low + self._period]
        return np.column_stack([*ends, self._unrolled(super()._edges().T).T])

    def _limits(self, tail):
        return self._start, self._start + self._period
