"""Pair plot of data and samples of a fitted density."""

from copy import copy
from inspect import signature
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from ..columns.arrays import check_integer
from ..columns.encoding import NUMERIC, UNSEEN_CATEGORY
from ..columns.types import RandomState, Table
from ..table import TableDensity
from ._common import (
    DATA_COLOR,
    MAX_PANELS,
    MODEL_COLOR,
    bins,
    check_data,
    check_estimator_method,
    check_matplotlib,
    histogram,
    panel_grid,
    resolve_features,
    shorten,
    thin,
    view_limits,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MAX_SAMPLES = 5000
MAX_NAMES = 8  # of categories along an axis
SECONDS_IN_YEAR = 365.2425 * 86400


class SamplesDisplay:
    """Pair plot of data and samples of a fitted estimator, in two colours.

    The diagonal shows a histogram of each column. The panels below it show a scatter plot of each
    pair of columns. Categories have bars, and are spread out at random in scatter plots. Missing
    values are left out, and dates are in years.

    It is recommended to use :meth:`from_estimator` to create a :class:`SamplesDisplay`.

    Parameters
    ----------
    X : ndarray of shape (n_data, n_columns)
        The data.

    samples : ndarray of shape (n_samples, n_columns)
        Samples of the model, with the same columns.

    feature_names : list of str
        Names of the columns.

    estimator_name : str, default="model"
        Name of the model in the legend.

    categories : dict of str to list of str, default=None
        Names of the categories that columns number from 0, by column name.

    Attributes
    ----------
    axes_ : ndarray of shape (n_columns, n_columns)
        Matplotlib Axes of the panels. None above the diagonal.

    figure_ : matplotlib Figure
        Figure containing the panels.

    See Also
    --------
    DensityDisplay : Density of one or two columns.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import NSFDensity
    >>> from skflows.inspection import SamplesDisplay
    >>> X = load_iris(as_frame=True).data
    >>> flow = NSFDensity(max_iter=2, random_state=0).fit(X)
    >>> display = SamplesDisplay.from_estimator(flow, X, n_samples=100, random_state=0)
    >>> display.samples.shape
    (100, 4)
    """

    def __init__(self, *, X, samples, feature_names, estimator_name="model", categories=None):
        self.X = X
        self.samples = samples
        self.feature_names = feature_names
        self.estimator_name = estimator_name
        self.categories = categories

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        features: ArrayLike | None = None,
        *,
        n_samples: int | None = None,
        random_state: RandomState = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Sample from a fitted estimator, and draw the samples with the data.

        Parameters
        ----------
        estimator : estimator with `sample`
            Fitted density, such as :class:`skflows.NSFDensity`, :class:`skflows.TableDensity` or
            :class:`sklearn.mixture.GaussianMixture`.

        X : {array-like, DataFrame} of shape (n_data, n_features)
            Data, with the columns that the estimator was fitted with.

        features : list of int or str, default=None
            Indices or names of the columns to draw. If None, at most the first six are drawn.

        n_samples : int, default=None
            Number of samples. If None, as many as X has rows, at most 5000.

        random_state : int, RandomState instance or None, default=None
            Seed of the samples. If None, the estimator uses its own default.

        ax : matplotlib Axes, default=None
            Axes whose area is divided into the panels. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.scatter`.

        Returns
        -------
        display : SamplesDisplay
            The display that stores the data and the samples.

        Raises
        ------
        AttributeError
            If the estimator has no `sample`.
        ValueError
            If `features` are unknown, if `n_samples` is not a positive integer, if the columns of
            X do not match the fit, or if `ax` cannot be divided into panels.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "sample")

        def draw(n_rows):
            n = min(n_rows, MAX_SAMPLES) if n_samples is None else n_samples
            check_integer("n_samples", n)
            return _draw(estimator, n, random_state)

        return cls._of_samples(estimator, X, draw, features).plot(ax=ax, **kwargs)

    @classmethod
    def _of_samples(cls, estimator, X, draw, features):
        """Return a display of data and of the samples that a function draws beside so many rows."""
        is_table = isinstance(estimator, TableDensity)
        rows, names = (X, estimator._schema.encoding.keys) if is_table else check_data(estimator, X)
        names = [str(name) for name in names]
        indices = resolve_features(
            range(min(len(names), MAX_PANELS)) if features is None else features, names
        )
        samples, categories = draw(np.shape(rows)[0]), {}
        if is_table:
            (rows, samples), categories = _numbered(estimator._schema.encoding, X, samples)
        return cls(
            X=np.asarray(rows)[:, indices],
            samples=np.asarray(samples)[:, indices],
            feature_names=[names[i] for i in indices],
            estimator_name=type(estimator).__name__,
            categories={names[i]: categories[i] for i in indices if i in categories},
        )

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the panels.

        The axis of a column spans its 1st to its 99th percentile, extended by a quarter of that
        range on either side. Scatter plots show at most 2000 rows of data and 2000 samples.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes whose area is divided into the panels. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.scatter`.

        Returns
        -------
        display : SamplesDisplay
            This display.

        Raises
        ------
        ValueError
            If `ax` cannot be divided into panels.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        n_columns = self.X.shape[1]
        grid, self.figure_ = panel_grid(
            plt, ax, n_columns, n_columns, size=max(1.8, 5.5 / n_columns)
        )
        self.axes_ = np.full((n_columns, n_columns), None)
        self._levels = [(self.categories or {}).get(name) for name in self.feature_names]
        limits = [
            view_limits(column[~np.isnan(column)]) if levels is None else (-0.6, len(levels) - 0.4)
            for column, levels in zip(self.X.T, self._levels, strict=True)
        ]
        for row, column in zip(*np.tril_indices(n_columns), strict=True):
            panel = self.figure_.add_subplot(grid[row, column])
            self.axes_[row, column] = panel
            if row == column:
                self._plot_histograms(panel, row, limits[row])
            else:
                self._plot_dots(panel, column, row, kwargs)
                panel.set_ylim(limits[row])
            panel.set_xlim(limits[column])
        self._label()
        return self

    def _plot_histograms(self, panel, column, limits):
        styles: tuple[dict, ...] = (
            {"fill": True, "color": DATA_COLOR, "alpha": 0.4},
            {"color": MODEL_COLOR},
        )
        data, samples = (x[~np.isnan(x)] for x in (self.X[:, column], self.samples[:, column]))
        levels = self._levels[column]
        edges = bins(data, limits) if levels is None else np.arange(len(levels) + 1) - 0.5
        for values, style in zip((data, samples), styles, strict=True):
            heights = histogram(values, edges)
            panel.stairs(heights, edges, linewidth=1.5, **style)
        panel.set_yticks([])
        panel.spines[["top", "right", "left"]].set_visible(False)

    def _plot_dots(self, panel, column, row, kwargs):
        data, samples = thin(self.X), thin(self.samples)
        dots = np.vstack([data, samples])[:, [column, row]]
        colors = np.repeat([DATA_COLOR, MODEL_COLOR], [len(data), len(samples)])
        rng = np.random.default_rng(0)
        for values, i in zip(dots.T, (column, row), strict=True):
            if self._levels[i] is not None:
                values += rng.uniform(-0.3, 0.3, len(values))
        # Shuffled, so that samples do not hide the data.
        order = rng.permutation(len(dots))
        style = {"s": 4, "alpha": 0.5, "linewidths": 0, "rasterized": True} | kwargs
        panel.scatter(*dots[order].T, c=colors[order], **style)
        panel.spines[["top", "right"]].set_visible(False)

    def _label(self):
        for column, name in enumerate(self.feature_names):
            self.axes_[-1, column].set_xlabel(shorten(name))
            if levels := self._levels[column]:
                # Of many categories, some have names: others would overlap.
                places = range(0, len(levels), -(-len(levels) // MAX_NAMES))
                names = [shorten(levels[place]) for place in places]
                self.axes_[-1, column].set_xticks(places, names, rotation=90)
                if column:
                    self.axes_[column, 0].set_yticks(places, names)
            else:
                for panel in self.axes_[column:, column]:
                    panel.locator_params(axis="x", nbins=3)
                    panel.tick_params(axis="x", labelsize="small")
                    panel.ticklabel_format(axis="x", scilimits=(-3, 5))
                for panel in self.axes_[column, :column]:
                    panel.ticklabel_format(axis="y", scilimits=(-3, 5))
            for panel in self.axes_[column:-1, column]:
                panel.tick_params(labelbottom=False)
        for row in range(1, len(self.feature_names)):
            self.axes_[row, 0].set_ylabel(shorten(self.feature_names[row]))
            for panel in self.axes_[row, 1:row]:
                panel.tick_params(labelleft=False)
        self.figure_.align_ylabels(self.axes_[1:, 0])
        self._legend()

    def _legend(self):
        """Add a legend right of the first panel, or inside it if it is the only one."""
        panel = self.axes_[0, 0]
        handles = [
            panel.stairs([], [0], fill=True, color=DATA_COLOR, alpha=0.4),
            panel.stairs([], [0], color=MODEL_COLOR, linewidth=1.5),
        ]
        labels = [
            f"data\n({len(self.X)} rows)",
            f"{self.estimator_name}\n({len(self.samples)} samples)",
        ]
        place = {"loc": "upper left", "bbox_to_anchor": (1.05, 1.0)} if len(self.axes_) > 1 else {}
        # Otherwise, the layout widens the first column to make space for the legend.
        panel.legend(handles, labels, frameon=False, fontsize="small", **place).set_in_layout(False)


def _numbered(encoding, *tables):
    """Return tables as numbers, and the names of the categories that some columns number.

    Categories are in the order of their dtype, then of their texts; unseen ones come last.
    """
    numbered = [encoding.encode_and_unseen(table)[0] for table in tables]
    categories = {}
    for j, role in enumerate(encoding.roles):
        columns = [rows[:, j] for rows in numbered]
        if role == "datetime":
            for column in columns:
                column[:] = 1970 + column / SECONDS_IN_YEAR
        elif role not in NUMERIC:
            seen, declared = encoding.categories[j], encoding.columns[j].categories or []
            names = [*declared, *(name for name in seen if name not in declared)]
            number = np.array([*map(names.index, seen), len(names)])
            for column in columns:
                known = ~np.isnan(column)
                column[known] = number[column[known].astype(int)]
            if any((column == len(names)).any() for column in columns):
                names.append(UNSEEN_CATEGORY)
            categories[j] = [str(name) for name in names]
    return numbered, categories


def _draw(estimator, n_samples, random_state):
    if "random_state" in signature(estimator.sample).parameters:
        samples = estimator.sample(n_samples, random_state=random_state)
    else:
        # GaussianMixture.sample takes no seed. A shallow copy gets another random_state without
        # changing the caller's estimator.
        if random_state is not None:
            estimator = copy(estimator).set_params(random_state=random_state)
        samples = estimator.sample(n_samples)
    return np.asarray(samples[0] if isinstance(samples, tuple) else samples)
