"""Decision boundary of an outlier detector in two columns."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from ..columns.arrays import check_integer
from ..columns.types import Table
from ._common import (
    DATA_COLOR,
    MODEL_COLOR,
    check_data,
    check_estimator_method,
    check_labels,
    check_matplotlib,
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


class OutlierBoundaryDisplay:
    """Boundary between inliers and outliers in the plane of two columns.

    The boundary is drawn over the levels of the decision function. With more than two columns, the
    plane is a slice: the other columns are fixed at their medians. The dots are then the tenth of
    the rows nearest to the slice, which can still lie on either side of the boundary.

    It is recommended to use :meth:`from_estimator` to create an :class:`OutlierBoundaryDisplay`.

    Parameters
    ----------
    xx0, xx1 : ndarray of shape (grid_resolution, grid_resolution)
        Coordinates of the grid points.

    decision : ndarray of shape (grid_resolution, grid_resolution)
        Decision function on the grid, negative for outliers.

    X : ndarray of shape (n_samples, 2) or None, default=None
        Rows to draw as dots. If None, no dots are drawn.

    outlier : ndarray of shape (n_samples,) of bool or None, default=None
        Whether each row of X is an outlier. If None, no row is marked as one.

    feature_names : sequence of str, default=("x0", "x1")
        Names of the two columns.

    fixed : dict of str to float or None, default=None
        Values at which the other columns are fixed, by name.

    has_threshold : bool, default=True
        Whether rows are outliers where the decision function is negative. If not, because the
        estimator has no threshold or flags by a false discovery rate, no boundary is drawn.

    Attributes
    ----------
    surface_ : matplotlib ContourSet
        Filled contours of the decision function.

    boundary_ : matplotlib ContourSet or None
        Contour where the decision function is 0. None if the whole grid is on one side, or if there
        is no threshold.

    scatter_ : matplotlib PathCollection or None
        The dots. None if `X` is None.

    ax_ : matplotlib Axes
        Axes with the boundary.

    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skflows import DensityOutlierDetector
    >>> from skflows.inspection import OutlierBoundaryDisplay
    >>> X = load_iris().data[:, 2:]
    >>> detector = DensityOutlierDetector(GaussianMixture(2, random_state=0)).fit(X)
    >>> display = OutlierBoundaryDisplay.from_estimator(detector, X, grid_resolution=20)
    >>> display.decision.shape
    (20, 20)
    """

    def __init__(
        self,
        *,
        xx0,
        xx1,
        decision,
        X=None,
        outlier=None,
        feature_names=("x0", "x1"),
        fixed=None,
        has_threshold=True,
    ):
        self.xx0 = xx0
        self.xx1 = xx1
        self.decision = decision
        self.X = X
        self.outlier = outlier
        self.feature_names = feature_names
        self.fixed = fixed
        self.has_threshold = has_threshold

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        y: Table | None = None,
        *,
        features: ArrayLike | None = (0, 1),
        grid_resolution: int = 100,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Evaluate the decision function on a grid and draw it.

        Parameters
        ----------
        estimator : estimator with `decision_function`
            A fitted outlier detector.

        X : array-like of shape (n_samples, n_features)
            Rows that set the range of the grid and are drawn as dots.

        y : array-like of shape (n_samples,), default=None
            Labels that set the colours of the dots: 1 for inliers, -1 for outliers. If None,
            the labels are predicted by the detector.

        features : pair of int or str, default=(0, 1)
            Indices or names of the two columns, horizontal axis first.

        grid_resolution : int, default=100
            Number of grid points along each axis.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.contourf`.

        Returns
        -------
        display : OutlierBoundaryDisplay
            The display that stores the grid and the dots.

        Raises
        ------
        AttributeError
            If the estimator has no `decision_function`.
        ValueError
            If `features` are unknown or not two, if `y` has other labels than 1 and -1, if the
            columns of X do not match the fit, or if the decision function is finite nowhere
            on the grid.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "decision_function")
        rows, names = check_data(estimator, X)
        check_integer("grid_resolution", grid_resolution, least=2)
        indices = resolve_features(features, names)
        if len(indices) != 2:
            raise ValueError(f"features={features!r} contains {len(indices)} column(s): give two.")
        y = check_labels(y, rows)
        if y is None:
            y = estimator.predict(like_fitted(rows, X, estimator))
        mesh, grid, fixed = plane(estimator, rows, indices, names, grid_resolution)
        decision = estimator.decision_function(like_fitted(grid, X, estimator))
        near = near_medians(rows, fixed, names) if fixed else slice(None)
        display = cls(
            xx0=mesh[0],
            xx1=mesh[1],
            decision=np.asarray(decision).reshape(mesh[0].shape),
            X=rows[near][:, indices],
            outlier=np.asarray(y)[near] == -1,
            feature_names=[names[i] for i in indices],
            fixed=fixed,
            has_threshold=not np.isneginf(getattr(estimator, "offset_", 0.0))
            and getattr(estimator, "fdr", None) is None,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the boundary, the levels of the decision function and the dots.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.contourf`.

        Returns
        -------
        display : OutlierBoundaryDisplay
            This display.

        Raises
        ------
        ValueError
            If the decision function is finite nowhere on the grid.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        finite = self.decision[np.isfinite(self.decision)]
        if not len(finite):
            raise ValueError("The decision function is finite nowhere on the grid.")
        import matplotlib.pyplot as plt
        from matplotlib.colors import LinearSegmentedColormap

        ax = single_axes(plt, ax, (5.6, 4.6))
        self.ax_, self.figure_ = ax, ax.figure
        decision = np.where(np.isfinite(self.decision), self.decision, finite.min())
        # Quantiles, because a log-density is unbounded below far from the data.
        levels = np.unique(np.quantile(finite, np.linspace(0, 1, 13)))
        if len(levels) < 2:
            levels = levels[0] + np.array([-1.0, 1.0])
        shades = LinearSegmentedColormap.from_list("levels", ["#ffffff", "#c7cdd1"])
        self.surface_ = ax.contourf(
            self.xx0, self.xx1, decision, **({"levels": levels, "cmap": shades} | kwargs)
        )
        self.boundary_ = None
        if self.has_threshold and decision.min() < 0 <= decision.max():
            self.boundary_ = ax.contour(
                self.xx0, self.xx1, decision, levels=[0.0], colors="black", linewidths=1.5
            )
        self.scatter_ = None
        if self.X is not None:
            is_outlier = np.zeros(len(self.X)) if self.outlier is None else self.outlier
            dots = thin(np.column_stack([self.X, is_outlier]))
            dots = dots[np.argsort(dots[:, 2], kind="stable")]  # draw outliers on top
            colors = np.where(dots[:, 2] == 1, MODEL_COLOR, DATA_COLOR)
            self.scatter_ = ax.scatter(*dots[:, :2].T, s=10, c=colors, linewidths=0)
            for color, label in (DATA_COLOR, "inlier"), (MODEL_COLOR, "outlier"):
                ax.plot([], [], ".", color=color, label=label)
            ax.legend(loc="upper right", fontsize="small", framealpha=0.8)
        ax.set(
            xlim=(self.xx0.min(), self.xx0.max()),
            ylim=(self.xx1.min(), self.xx1.max()),
            xlabel=self.feature_names[0],
            ylabel=self.feature_names[1],
        )
        if self.fixed:
            others = other_columns(len(self.fixed))
            ax.set_title(f"slice: {others} at the median; dots: nearest rows", fontsize="medium")
        return self
