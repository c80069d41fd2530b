"""Map or curve of a fitted density."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from ..columns.arrays import check_integer, listed
from ..columns.types import Table
from ..table import TableDensity
from ._common import (
    DATA_COLOR,
    MODEL_COLOR,
    bins,
    check_data,
    check_estimator_method,
    check_matplotlib,
    histogram,
    like_fitted,
    near_medians,
    other_columns,
    plane,
    resolve_features,
    single_axes,
    thin,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# The blue of the dots is dark enough to be visible on both ends of the colour map.
MAP_COLORS = ["white", "#fdd0a2", MODEL_COLOR]
DOT_COLOR = "#1b4f8a"


class DensityDisplay:
    """Density of a fitted estimator, drawn with the data.

    A density of one column is drawn as a curve over a histogram, two columns as a map. With more
    columns, the map is a slice: two columns vary, and the others are fixed at their medians. The
    dots are then the tenth of the rows nearest to the slice.
    For a :class:`skflows.TableDensity`, the map is the marginal density of two columns of numbers
    that are not rounded, and the dots are the rows where both are known.

    It is recommended to use :meth:`from_estimator` to create a :class:`DensityDisplay`.

    Parameters
    ----------
    xx0 : ndarray of shape (grid_resolution, grid_resolution) or (grid_resolution,)
        First coordinate of the grid.

    xx1 : ndarray of shape (grid_resolution, grid_resolution) or None
        Second coordinate of the grid. If None, the density is drawn as a curve.

    log_density : ndarray of the shape of `xx0`
        Log-density on the grid, in nats.

    X : ndarray of shape (n_samples, 2) or (n_samples, 1) or None, default=None
        Data to draw with the density. If None, only the density is drawn.

    feature_names : sequence of str, default=("x0", "x1")
        Names of the drawn columns, which label the axes.

    fixed : dict of str to float or None, default=None
        For a slice, the values at which the other columns are fixed, by name.

    Attributes
    ----------
    surface_ : matplotlib QuadMesh or Line2D
        The map, or the curve for one column.

    scatter_ : matplotlib PathCollection or None
        The dots on a map. None for a curve, or if `X` is None.

    ax_ : matplotlib Axes
        Axes with the density.

    figure_ : matplotlib Figure
        Figure containing the axes.

    See Also
    --------
    SamplesDisplay : Pair plot of data and samples.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from skflows import NSFDensity
    >>> from skflows.inspection import DensityDisplay
    >>> X, _ = make_moons(200, noise=0.1, random_state=0)
    >>> flow = NSFDensity(max_iter=2, random_state=0).fit(X)
    >>> display = DensityDisplay.from_estimator(flow, X, grid_resolution=20)
    >>> display.log_density.shape
    (20, 20)
    """

    def __init__(self, *, xx0, xx1, log_density, X=None, feature_names=("x0", "x1"), fixed=None):
        self.xx0 = xx0
        self.xx1 = xx1
        self.log_density = log_density
        self.X = X
        self.feature_names = feature_names
        self.fixed = fixed

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        features: ArrayLike | None = None,
        *,
        grid_resolution: int = 100,
        scale: str = "log",
        depth: float = 10.0,
        scatter_kwargs: dict | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Evaluate the density of a fitted estimator on a grid and draw it.

        The grid spans the 1st to the 99th percentile of each column, extended by a quarter of
        that range on either side. A few outliers therefore do not dominate the plot.

        Parameters
        ----------
        estimator : estimator with `score_samples`
            Fitted density, such as :class:`skflows.NSFDensity` or
            :class:`sklearn.neighbors.KernelDensity`.

        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Data to draw, with the columns that the estimator was fitted with.

        features : pair of int or str, default=None
            Indices or names of the columns to draw, horizontal axis first. If None, the first two
            are drawn; for a table, the first two that can be drawn.

        grid_resolution : int, default=100
            Number of grid points along each axis.

        scale : {"log", "density"}, default="log"
            Whether the colours show the log-density (in nats) or the density. A curve always
            shows the density.

        depth : float, default=10.0
            With `scale="log"`, range of the colours in nats below the maximum on the grid.
            Lower values are drawn as background.

        scatter_kwargs : dict, default=None
            Keyword arguments for :func:`matplotlib.pyplot.scatter`, which draws the dots.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.pcolormesh`, or for
            :func:`matplotlib.pyplot.plot` if there is one column.

        Returns
        -------
        display : DensityDisplay
            The display that stores the grid and the data.

        Raises
        ------
        AttributeError
            If the estimator has no `score_samples`.
        ValueError
            If `features` are unknown or not two, if `scale`, `depth` or `grid_resolution` is
            invalid, if the columns of X do not match the fit, or if the log-density is finite
            nowhere on the grid.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        _check_options(scale, depth)
        check_estimator_method(estimator, "score_samples")
        check_integer("grid_resolution", grid_resolution, least=2)
        is_table = isinstance(estimator, TableDensity)
        if is_table:
            rows, names, density = _marginal(estimator, X, features)
            n_drawn, indices = len(names), list(range(len(names)))
        else:
            rows, names = check_data(estimator, X)
            n_drawn = min(2, len(names))
            indices = resolve_features(range(n_drawn) if features is None else features, names)
        if len(indices) != n_drawn:
            raise ValueError(
                f"features={features!r} contains {len(indices)} column(s), but {n_drawn} are drawn "
                f"when X has {len(names)} column(s): give {n_drawn}."
            )

        mesh, grid, fixed = plane(estimator, rows, indices, names, grid_resolution)
        if not is_table:
            density, grid = estimator, like_fitted(grid, X, estimator)
        log_density = np.asarray(density.score_samples(grid))

        display = cls(
            xx0=mesh[0],
            xx1=mesh[1] if n_drawn == 2 else None,
            log_density=log_density.reshape(mesh[0].shape),
            X=rows[near_medians(rows, fixed, names) if fixed else slice(None)][:, indices],
            feature_names=[names[i] for i in indices],
            fixed=fixed,
        )
        return display.plot(
            ax=ax, scale=scale, depth=depth, scatter_kwargs=scatter_kwargs, **kwargs
        )

    def plot(
        self,
        ax: "Axes | None" = None,
        *,
        scale: str = "log",
        depth: float = 10.0,
        scatter_kwargs: dict | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the density and the data.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        scale : {"log", "density"}, default="log"
            Whether the colours show the log-density (in nats) or the density. A curve always
            shows the density.

        depth : float, default=10.0
            With `scale="log"`, range of the colours in nats below the maximum on the grid.
            Lower values are drawn as background.

        scatter_kwargs : dict, default=None
            Keyword arguments for :func:`matplotlib.pyplot.scatter`, which draws the dots.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.pcolormesh`, or for
            :func:`matplotlib.pyplot.plot` if there is one column.

        Returns
        -------
        display : DensityDisplay
            This display.

        Raises
        ------
        ValueError
            If `scale` or `depth` is invalid, or the log-density is finite nowhere on the grid.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        _check_options(scale, depth)
        if not np.isfinite(self.log_density).any():
            raise ValueError(
                "The log-density is finite nowhere on the grid, so there is nothing to draw. "
                "Choose other features, or a density that is positive there."
            )
        import matplotlib.pyplot as plt
        from matplotlib.colors import LinearSegmentedColormap

        ax = single_axes(plt, ax)
        self.ax_, self.figure_, self.scatter_ = ax, ax.figure, None
        ax.set_xlabel(self.feature_names[0])
        if self.xx1 is None:
            self._plot_curve(kwargs)
        else:
            cmap = LinearSegmentedColormap.from_list("skflows", MAP_COLORS)
            self._plot_map(scale, depth, scatter_kwargs or {}, {"cmap": cmap} | kwargs)
        return self

    def _plot_curve(self, kwargs):
        limits = self.xx0[0], self.xx0[-1]
        if self.X is not None:
            edges = bins(self.X[:, 0], limits)
            self.ax_.stairs(
                histogram(self.X[:, 0], edges),
                edges,
                fill=True,
                color=DATA_COLOR,
                alpha=0.4,
                label="data",
            )
        style = {"color": MODEL_COLOR, "linewidth": 2, "label": "density"} | kwargs
        (self.surface_,) = self.ax_.plot(self.xx0, np.exp(self.log_density), **style)
        self.ax_.set(xlim=limits, ylabel="density")
        self.ax_.set_ylim(bottom=0)
        self.ax_.legend(frameon=False)

    def _plot_map(self, scale, depth, scatter_kwargs, kwargs):
        ax = self.ax_
        if scale == "log":
            floor = self.log_density[np.isfinite(self.log_density)].max() - depth
            values, label, extend = np.maximum(self.log_density, floor), "log-density (nats)", "min"
        else:
            floor, values, label, extend = 0.0, np.exp(self.log_density), "density", "neither"
        style = {"vmin": floor, "shading": "gouraud", "rasterized": True}
        self.surface_ = ax.pcolormesh(self.xx0, self.xx1, values, **(style | kwargs))
        self.figure_.colorbar(self.surface_, ax=ax, label=label, extend=extend)
        if self.X is not None:
            dots = {"s": 4, "color": DOT_COLOR, "alpha": 0.6, "linewidths": 0, "rasterized": True}
            self.scatter_ = ax.scatter(*thin(self.X).T, **(dots | scatter_kwargs))
        # Otherwise, outliers among the dots extend the axes beyond the grid.
        ax.set(
            xlim=(self.xx0.min(), self.xx0.max()),
            ylim=(self.xx1.min(), self.xx1.max()),
            ylabel=self.feature_names[1],
        )
        if self.fixed:
            others = other_columns(len(self.fixed))
            ax.set_title(f"slice: {others} at the median; dots: nearest rows", fontsize="medium")


def _marginal(density, X, features):
    """Return complete rows of one or two columns of a table, their names, and their density."""
    schema = density._schema
    names = [str(name) for name in schema.names]
    parts = {
        i: schema.columns[i].value_variables[0]
        for i in range(len(names))
        if schema.columns[i].is_number
    }
    drawable = [i for i, part in parts.items() if part.has_number and part.step is None]
    indices = drawable[:2] if features is None else resolve_features(features, names)
    others = [i for i in indices if i not in drawable]
    if others or not 0 < len(indices) <= 2:
        what = "X" if features is None else f"features={features!r}"
        if not drawable:
            raise ValueError(
                "X has no column of numbers that are not rounded, which DensityDisplay draws: see "
                "SamplesDisplay, or predict_proba"
            )
        kinds = ", ".join(f"{names[i]!r} is {schema.columns[i].kind}" for i in others)
        remedy = f"choose one or two of {listed([names[i] for i in drawable])}"
        raise ValueError(
            f"{what} has {len(indices)} columns{kinds and f', of which {kinds}'}; DensityDisplay "
            f"draws one or two columns of numbers that are not rounded; {remedy}."
        )
    columns = [density._read(X).columns[schema.places[i]] for i in indices]
    rows = np.stack([np.where(column.known, column.values, np.nan) for column in columns], axis=1)
    chosen = [schema.names[i] for i in indices]
    rows = rows[~np.isnan(rows).any(axis=1)]
    if not len(rows):
        raise ValueError(f"no row of X has known values of {chosen}: give other rows or features.")
    return rows, [names[i] for i in indices], density.marginal(chosen)


def _check_options(scale, depth):
    if scale not in ("log", "density"):
        raise ValueError(f"scale={scale!r}: it must be 'log' or 'density'.")
    if not depth > 0:
        raise ValueError(f"depth={depth!r}: it must be a positive number of nats.")
