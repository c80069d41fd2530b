"""Predictive bands of a regression against one feature."""

from decimal import Decimal
from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from ..columns.arrays import check_exact_table, is_missing
from ._common import (
    DATA_COLOR,
    MODEL_COLOR,
    check_estimator_method,
    check_integer,
    check_matplotlib,
    single_axes,
    thin,
    view_limits,
)


class PredictiveBandsDisplay:
    """Central intervals and median of the predicted distribution along one feature.

    The other columns are held at the median of their numbers, or at the most frequent category.

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

    def __init__(self, *, grid, median, bands, feature_name, x=None, y=None, name="y"):
        self.grid = grid
        self.median = median
        self.bands = bands
        self.feature_name = feature_name
        self.x = x
        self.y = y
        self.name = name

    @classmethod
    def from_estimator(
        cls, estimator, X, feature=0, *, y=None, levels=(0.5, 0.9), grid_resolution=60, ax=None
    ):
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
        rows, name = _along(X, feature, grid_resolution)
        distribution = estimator.predict_distribution(rows)
        grid, x = (_column(table, name).astype(float) for table in (rows, X))
        return cls(
            grid=grid,
            median=distribution.ppf(0.5),
            bands={level: distribution.interval(level) for level in sorted(levels, reverse=True)},
            feature_name=name if isinstance(name, str) else f"x{name}",
            x=None if y is None else x,
            y=None if y is None else np.ravel(y).astype(float),
            name=name_of(y),
        ).plot(ax=ax)

    def plot(self, ax=None):
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
        return self


def check_single_output(estimator):
    """Raise an error if an estimator has several outputs."""
    check_is_fitted(estimator)
    if estimator.n_outputs_ > 1:
        raise ValueError(
            f"y has {estimator.n_outputs_} columns, and this display shows one: fit to one of them."
        )


def name_of(y):
    """Return the name of a Series, or "y"."""
    name = getattr(y, "name", None)
    return "y" if name is None else str(name)


def _column(X, name):
    """Return a column of an array or table, as floats if it holds numbers of any dtype."""
    if not hasattr(X, "columns"):
        return np.asarray(X)[:, name]
    values = X[name].to_numpy()
    if values.dtype.kind != "O":
        return values
    known = np.array([not is_missing(value) for value in values], dtype=bool)
    if not all(isinstance(v, Real | Decimal) and not isinstance(v, bool) for v in values[known]):
        return values
    found = np.full(len(values), np.nan)  # pandas has objects for decimals and integers with NaN
    found[known] = values[known].astype(np.float64)
    return found


def _along(X, feature, n):
    """Return rows along a feature, the others fixed, and the index or name of the feature."""
    check_exact_table(X)
    is_frame = hasattr(X, "columns")
    if not is_frame:
        X = check_array(X, dtype=None, ensure_all_finite="allow-nan", input_name="X")
    names = list(X.columns) if is_frame else list(range(X.shape[1]))
    known = feature in names
    if not known and not (is_frame and isinstance(feature, Integral) and 0 <= feature < len(names)):
        raise ValueError(f"feature={feature!r} is not a column of X; it has {names}.")
    name = feature if known else names[feature]
    kinds = getattr(X, "dtypes", None)
    kinds = (
        kinds.items() if hasattr(kinds, "items") else ()
    )  # pandas: categories stay what they are
    categories = {key: kind for key, kind in kinds if str(kind) == "category"}
    columns = {
        key: _middle(_column(X, key).astype(object) if key in categories else _column(X, key))
        for key in names
    }
    values = _column(X, name)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"feature={feature!r} is not a column of numbers.")
    grid = np.linspace(np.nanmin(values), np.nanmax(values), n)
    columns = {key: grid if key == name else np.repeat(own, n) for key, own in columns.items()}
    if not is_frame:
        return np.column_stack(list(columns.values())), name
    rows = type(X)(columns)
    return rows.astype(categories) if categories else rows, name


def _middle(values):
    """Return the median of numbers, or the most frequent of other values, in an array of one."""
    if values.dtype.kind in "iuf":
        return np.array([np.nanmedian(values)])
    known = [value for value in values if value is not None and value == value]
    return np.array([max(sorted(set(known), key=str), key=known.count)], dtype=object)
