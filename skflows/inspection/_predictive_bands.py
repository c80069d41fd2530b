"""Predictive bands of a regression against one feature."""

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..columns.arrays import check_integer, column_names
from ..columns.encoding import Encoding
from ..columns.types import Table
from ._common import (
    DATA_COLOR,
    MODEL_COLOR,
    check_estimator_method,
    check_matplotlib,
    other_columns,
    single_axes,
    thin,
    view_limits,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class PredictiveBandsDisplay:
    """Central intervals and median of the predicted distribution along one feature.

    The other columns are held at the median of their numbers or dates, or at the most frequent
    category.

    It is recommended to use :meth:`from_estimator` to create a :class:`PredictiveBandsDisplay`.

    Parameters
    ----------
    grid : ndarray of shape (n_points,)
        Values of the feature.

    median : ndarray of shape (n_points,)
        Median of y at each of them.

    bands : dict of float to tuple of ndarray
        Lower and upper ends of the central intervals, by their probability.

    feature_name : str
        Name of the feature.

    x, y : ndarray of shape (n_samples,), default=None
        Rows to show beside the bands.

    name : str, default="y"
        Name of y.

    n_others : int, default=0
        Number of other columns, for a note above the bands.

    Attributes
    ----------
    line_ : matplotlib Line2D
        The median.

    bands_ : list of matplotlib PolyCollection
        The intervals, the widest one first.

    scatter_ : matplotlib PathCollection or None
        The rows.

    ax_ : matplotlib Axes
        Axes with the bands.

    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows import ConditionalDensity, FlowRegressor, NSFDensity
    >>> from skflows.inspection import PredictiveBandsDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-1, 1, (200, 1))
    >>> y = X[:, 0] + (1 + X[:, 0]) * rng.standard_normal(200)
    >>> density = ConditionalDensity(NSFDensity(max_iter=5))
    >>> regressor = FlowRegressor(density, calibration=None).fit(X, y)
    >>> display = PredictiveBandsDisplay.from_estimator(regressor, X, y=y)
    """

    def __init__(self, *, grid, median, bands, feature_name, x=None, y=None, name="y", n_others=0):
        self.grid = grid
        self.median = median
        self.bands = bands
        self.feature_name = feature_name
        self.x = x
        self.y = y
        self.name = name
        self.n_others = n_others

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        feature: int | str = 0,
        *,
        y: Table | None = None,
        levels: Sequence[float] = (0.5, 0.9),
        grid_resolution: int = 60,
        ax: "Axes | None" = None,
    ) -> Self:
        """Predict along a feature, and draw the bands.

        Parameters
        ----------
        estimator : FlowRegressor or ConditionalDensity
            Fitted to a single output.

        X : array-like of shape (n_samples, n_features)
            Rows that set the range of the feature and the values of the others.

        feature : int or str, default=0
            The feature, a column of numbers, by index or by name.

        y : array-like of shape (n_samples,), default=None
            Target of the rows, which are then shown. The axis has the name of a Series.

        levels : sequence of float, default=(0.5, 0.9)
            Probabilities of the central intervals.

        grid_resolution : int, default=60
            Number of values of the feature.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        Returns
        -------
        display : PredictiveBandsDisplay
            The display that stores the bands.

        Raises
        ------
        AttributeError
            If the estimator has no `predict_distribution`.
        ValueError
            If the feature is not a column of numbers, or there are several outputs.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "predict_distribution")
        check_integer("grid_resolution", grid_resolution, 2)
        check_single_output(estimator)
        rows, grid, x, name = _along(X, feature, grid_resolution)
        distribution = estimator.predict_distribution(rows)
        return cls(
            grid=grid,
            median=distribution.ppf(0.5),
            bands={level: distribution.interval(level) for level in sorted(levels, reverse=True)},
            feature_name=name if isinstance(name, str) else f"x{name}",
            x=None if y is None else x,
            y=None if y is None else np.ravel(y).astype(float),
            name=name_of(y),
            n_others=rows.shape[1] - 1,
        ).plot(ax=ax)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the bands.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        Returns
        -------
        display : PredictiveBandsDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        ax = single_axes(plt, ax, (6.4, 4.2))
        self.ax_, self.figure_ = ax, ax.figure
        self.scatter_ = None
        if self.y is not None:
            x, y = thin(np.column_stack([self.x, self.y])).T
            self.scatter_ = ax.scatter(x, y, s=8, color=DATA_COLOR, alpha=0.5, linewidth=0)
            self.scatter_.set_label("rows")
        self.bands_ = [
            ax.fill_between(
                self.grid, *ends, color=MODEL_COLOR, alpha=0.2, linewidth=0, label=f"{level:.0%}"
            )
            for level, ends in self.bands.items()
        ]
        (self.line_,) = ax.plot(self.grid, self.median, color=MODEL_COLOR, label="median")
        ends = [end for band in self.bands.values() for end in band]
        shown = np.concatenate([*ends, [] if self.y is None else self.y])
        ax.set(
            xlabel=self.feature_name,
            ylabel=self.name,
            xlim=(self.grid.min(), self.grid.max()),
            ylim=view_limits(shown),
        )
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        if self.n_others:
            others = other_columns(self.n_others)
            ax.set_title(f"{others} at the median or most frequent category", fontsize="medium")
        return self


def check_single_output(estimator):
    """Raise an error if an estimator has several outputs."""
    check_is_fitted(estimator)
    if estimator.n_outputs_ > 1:
        raise ValueError(
            f"y has {estimator.n_outputs_} columns, and this display shows one: fit to one of them."
        )


def name_of(y):
    """Return the name of a Series, or of the only column of a DataFrame, or "y"."""
    names = column_names(y)
    name = getattr(y, "name", None) if names is None else names[0]
    return "y" if name is None else str(name)


def _along(X, feature, n):
    """Return a table along a feature, its values, those in X, and the feature's name."""
    encoding, rows = Encoding.read(X)
    names = encoding.keys
    is_place = isinstance(feature, Integral) and 0 <= int(feature) < len(names)
    if feature not in names and not is_place:
        raise ValueError(f"feature={feature!r} is not a column of X; it has {names}.")
    j = names.index(feature) if feature in names else feature
    if encoding.roles[j] != "number":
        raise ValueError(f"feature={feature!r} is not a column of numbers.")
    x = rows[:, j]
    along = np.tile(encoding.typical(rows), (n, 1))
    along[:, j] = np.linspace(np.nanmin(x), np.nanmax(x), n)
    return encoding.with_floats().decode(along), along[:, j], x, names[j]
