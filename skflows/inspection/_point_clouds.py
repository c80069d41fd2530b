"""Clouds of points side by side: data, samples of a density, or steps between them."""

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from ..columns.arrays import check_integer
from ..columns.types import RandomState
from ..sets._clouds import read_clouds
from ._common import (
    DATA_COLOR,
    check_estimator_method,
    check_matplotlib,
    single_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WITHIN = 0.999  # quantile: few distant points would make the others small
MARGIN = 0.1  # between clouds, of the width of a cell


class PointCloudDisplay:
    """Clouds of points in the cells of a grid, row by row.

    It is recommended to use :meth:`from_estimator` to draw samples of a density. Points in space
    are projected without perspective, and coloured by their distance.

    Parameters
    ----------
    clouds : array-like of shape (n_clouds, n_points, n_features), or list of array-like
        The clouds, of 2 coordinates or 3.

    n_columns : int, default=None
        Number of clouds side by side. If None, about as many as there are rows.

    elevation, azimuth : float, default=20 and -60
        Direction from which points in space are seen, in degrees.

    Attributes
    ----------
    points_ : matplotlib PathCollection
        The drawn points.

    ax_ : matplotlib Axes
        Axes with the clouds.

    figure_ : matplotlib Figure
        Figure containing the clouds.

    See Also
    --------
    ImageGridDisplay : Images side by side.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows.inspection import PointCloudDisplay
    >>> clouds = np.random.default_rng(0).normal(size=(6, 50, 3))
    >>> display = PointCloudDisplay(clouds=clouds, n_columns=3).plot()
    >>> display.points_.get_offsets().shape
    (300, 2)
    """

    def __init__(self, *, clouds, n_columns=None, elevation=20.0, azimuth=-60.0):
        self.clouds = clouds
        self.n_columns = n_columns
        self.elevation = elevation
        self.azimuth = azimuth

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike | None = None,
        *,
        n_samples: int = 12,
        n_points: int | None = None,
        random_state: RandomState = None,
        n_columns: int | None = None,
        elevation: float = 20.0,
        azimuth: float = -60.0,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw samples of a fitted density of clouds, or given clouds in their place.

        Parameters
        ----------
        estimator : PointCloudDensity
            Fitted density of clouds.

        X : array-like of shape (n_clouds, n_points, n_features), or list, default=None
            Clouds to draw, such as the inverse transforms of latent codes. If None, samples of the
            estimator.

        n_samples : int, default=12
            Number of samples, if X is None.

        n_points : int, default=None
            Number of points of each sample. If None, drawn from the numbers in `fit`.

        random_state : int, RandomState instance or None, default=None
            Seed of the samples.

        n_columns : int, default=None
            Number of clouds side by side. If None, about as many as there are rows.

        elevation, azimuth : float, default=20 and -60
            Direction from which points in space are seen, in degrees.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.scatter`.

        Returns
        -------
        display : PointCloudDisplay
            The display that stores the clouds.

        Raises
        ------
        AttributeError
            If the estimator has no `reconstruct`: it is no density of clouds.
        ValueError
            If X has no clouds of 2 or 3 coordinates, as many as in `fit`, or if a number is not a
            positive integer.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "reconstruct")
        if X is None:
            X = estimator.sample(n_samples, random_state, n_points=n_points)
        clouds = read_clouds(X, estimator.n_features_in_)
        view = {"n_columns": n_columns, "elevation": elevation, "azimuth": azimuth}
        return cls(clouds=clouds, **view).plot(ax=ax, **kwargs)

    def _projected(self):
        """Return the places of all points on the page, and their closeness or None."""
        clouds = read_clouds(self.clouds)
        n_features = clouds[0].shape[1]
        if n_features not in (2, 3):
            raise ValueError(
                f"clouds have points with {n_features} coordinates; only 2 or 3 can be drawn."
            )
        n_columns = self.n_columns
        if n_columns is None:
            n_columns = math.ceil(math.sqrt(len(clouds)))
        check_integer("n_columns", n_columns)
        points = np.concatenate(clouds)
        closeness = None
        if n_features == 3:
            a, e = np.deg2rad([self.azimuth, self.elevation])
            right = [-np.sin(a), np.cos(a), 0]
            up = [-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)]
            towards = [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]
            points, closeness = points @ np.array([right, up]).T, points @ towards
        low, high = np.quantile(points, [1 - WITHIN, WITHIN], axis=0)
        size = (1 + MARGIN) * np.maximum(high - low, 1e-12)
        cell = np.repeat(np.arange(len(clouds)), [len(cloud) for cloud in clouds])
        row, column = np.divmod(cell, n_columns)
        return points - low + size * np.column_stack([column, -row]), closeness

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the clouds.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.scatter`.

        Returns
        -------
        display : PointCloudDisplay
            This display.

        Raises
        ------
        ValueError
            If the clouds do not have 2 coordinates or 3, or if `n_columns` is not a positive
            integer.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        places, closeness = self._projected()
        import matplotlib.pyplot as plt

        options: dict[str, Any] = {"s": 4, "linewidths": 0}
        if closeness is None:
            colors: dict[str, Any] = {"c": DATA_COLOR}
        else:  # the farthest first
            order = closeness.argsort()
            places = places[order]
            colors = {"c": closeness[order], "cmap": "viridis_r"}
        if not {"c", "color", "facecolor", "facecolors"} & set(kwargs):
            options |= colors
        width, height = np.maximum(np.ptp(places, axis=0), 1e-12)
        self.ax_ = single_axes(plt, ax, (6.4, float(np.clip(6.4 * height / width, 1, 10))))
        self.figure_ = self.ax_.figure
        self.points_ = self.ax_.scatter(*places.T, **options | kwargs)
        self.ax_.set_aspect("equal")
        self.ax_.set_axis_off()
        return self
