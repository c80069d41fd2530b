"""Outputs that wrap around, such as angles and times of the day."""

from numbers import Real

import numpy as np
from sklearn.base import clone

from ..columns.arrays import column_index
from ..preprocessing.angles import emptiest_angle, wrapped

MAX_COLUMNS = 3  # each multiplies the number of images of a row


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
            if not (is_number and 0 < float(period) < np.inf):
                raise ValueError(
                    f"circular gives column {key!r} a period of {period!r}; it must be a positive "
                    "number."
                )
            periods[column_index(key, d, names, "circular", "y")] = period
        n_circles = np.isfinite(periods).sum()
        if n_circles > MAX_COLUMNS:
            raise ValueError(
                f"circular names {n_circles} columns of y. Each makes training take 3 times "
                f"and scores 5 times as long: name at most {MAX_COLUMNS}, or model the "
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

    def wrap(self, Y):
        """Return rows of y within a period."""
        return wrapped(Y, self.starts, self.periods) if self else Y

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

    def images(self, y):
        """Return values of a single output as (1, ...), or their images if it is circular."""
        from ..bijections._wrapped import FARTHEST

        if not self:
            return y[None]
        turns = np.arange(-FARTHEST, FARTHEST + 1)
        return np.add.outer(turns * self.periods[0], y)
