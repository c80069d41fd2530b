"""Histograms and quantile-quantile plots of latent coordinates."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.base import BaseEstimator

from ..columns.types import Table
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
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class LatentDisplay:
    """Latent coordinates of data compared with the standard normal distribution.

    A flow that fits its data maps them to independent N(0, 1) coordinates. Each panel shows one
    coordinate and two statistics:

    - The distance from N(0, 1), by Kolmogorov and Smirnov: the largest difference between the two
      distribution functions. The distance in brackets ("by chance up to") is exceeded with
      probability 0.05 by a sample of the same size from N(0, 1).
    - The largest absolute value, because the distance is insensitive to a few outliers.

    Held-out data give the fairer assessment.

    It is recommended to use :meth:`from_estimator` to create a :class:`LatentDisplay`.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_coordinates)
        Latent coordinates of the rows.

    coordinate_names : list of str
        Names of the coordinates.

    n_all : int, default=None
        Number of coordinates in all, if these are the farthest from N(0, 1), for a note below the
        panels. If None, there is no note.

    Attributes
    ----------
    ks_ : ndarray of shape (n_coordinates,)
        Kolmogorov-Smirnov distance of each coordinate from N(0, 1).

    ks_chance_ : float
        Distance that a sample of the same size from N(0, 1) exceeds with probability 0.05.

    axes_ : ndarray of shape (n_rows, n_columns)
        Matplotlib Axes of the panels. None for the unused places of the grid.

    figure_ : matplotlib Figure
        Figure containing the panels.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import NSFDensity
    >>> from skflows.inspection import LatentDisplay
    >>> X = load_iris().data
    >>> flow = NSFDensity(max_iter=2, random_state=0).fit(X)
    >>> display = LatentDisplay.from_estimator(flow, X)
    >>> display.Z.shape, display.ks_.shape
    ((150, 4), (4,))
    """

    def __init__(self, *, Z, coordinate_names, n_all=None):
        self.Z = Z
        self.coordinate_names = coordinate_names
        self.n_all = n_all

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        features: ArrayLike | None = None,
        *,
        kind: str = "hist",
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Map data to the latent space of a fitted flow and draw the coordinates.

        Parameters
        ----------
        estimator : estimator with `transform`
            Fitted flow, such as :class:`skflows.NSFDensity`, or another transformer with
            `get_feature_names_out` whose output should be standard normal.

        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Data, with the columns that the estimator was fitted with.

        features : list of int or str, default=None
            Indices or names of the latent coordinates to draw. The names come from
            `get_feature_names_out`. If None, all are drawn or, if there are more than six, the six
            with the largest distance from N(0, 1).

        kind : {"hist", "qq"}, default="hist"
            Histograms with the standard normal density, which show the shape, or
            quantile-quantile plots, which show the tails.

        ax : matplotlib Axes, default=None
            Axes whose area is divided into the panels. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.stairs` (`kind="hist"`) or
            :func:`matplotlib.pyplot.plot` (`kind="qq"`).

        Returns
        -------
        display : LatentDisplay
            The display that stores the coordinates.

        Raises
        ------
        AttributeError
            If the estimator has no `transform`.
        ValueError
            If `features` or `kind` is unknown, if the columns of X do not match the fit, or if
            `ax` cannot be divided into panels.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        _check_kind(kind)
        check_estimator_method(estimator, "transform")
        rows, _ = check_data(estimator, X)
        names = [str(name) for name in estimator.get_feature_names_out()]
        indices = None if features is None else resolve_features(features, names)
        named = hasattr(estimator, "feature_names_in_")
        Z = np.asarray(estimator.transform(X if named else rows))
        n_all = None
        if indices is None:
            # Sorting the negated distances keeps the column order among ties.
            worst = np.argsort(-_ks_distances(Z), kind="stable")[:MAX_PANELS]
            indices = sorted(worst)
            n_all = len(names) if len(names) > MAX_PANELS else None
        display = cls(
            Z=Z[:, indices],
            coordinate_names=[names[i] for i in indices],
            n_all=n_all,
        )
        return display.plot(ax=ax, kind=kind, **kwargs)

    def plot(self, ax: "Axes | None" = None, *, kind: str = "hist", **kwargs: Any) -> Self:
        """Draw the coordinates.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes whose area is divided into the panels. If None, a new figure is created.

        kind : {"hist", "qq"}, default="hist"
            Histograms with the standard normal density, which show the shape, or
            quantile-quantile plots, which show the tails.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.stairs` (`kind="hist"`) or
            :func:`matplotlib.pyplot.plot` (`kind="qq"`).

        Returns
        -------
        display : LatentDisplay
            This display.

        Raises
        ------
        ValueError
            If `kind` is unknown, or `ax` cannot be divided into panels.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        _check_kind(kind)
        import matplotlib.pyplot as plt

        self.ks_ = _ks_distances(self.Z)
        self.ks_chance_ = stats.kstwo(len(self.Z)).ppf(0.95)
        n = self.Z.shape[1]
        n_cols = min(n, 3)
        n_rows = -(-n // n_cols)
        grid, self.figure_ = panel_grid(plt, ax, n_rows, n_cols, size=2.6)
        self.axes_ = np.full((n_rows, n_cols), None)
        for i, (name, z) in enumerate(zip(self.coordinate_names, self.Z.T, strict=True)):
            panel = self.figure_.add_subplot(grid[i // n_cols, i % n_cols])
            self.axes_.flat[i] = panel
            _DRAW[kind](panel, z, kwargs)
            panel.set_title(shorten(name, 24), fontsize="medium")
            panel.text(
                0.02,
                0.98,
                f"distance from N(0, 1): {self.ks_[i]:.3f}\n"
                f"(by chance up to {self.ks_chance_:.3f})\n"
                f"largest |z|: {np.abs(z).max():.3g}",
                fontsize="small",
                verticalalignment="top",
                transform=panel.transAxes,
            )
            panel.spines[["top", "right"]].set_visible(False)
        self._label(kind)
        if self.n_all is not None and ax is None:
            self.figure_.supxlabel(
                f"the {n} of {self.n_all} coordinates that are farthest from N(0, 1)",
                fontsize="medium",
            )
        return self

    def _label(self, kind):
        """Label the outer panels only, because all axes have the same meaning."""
        if kind == "hist":
            style = {"frameon": False, "fontsize": "small", "handlelength": 1.0}
            self.axes_[0, 0].legend(loc="upper right", bbox_to_anchor=(1.0, 0.76), **style)
            return
        for panel in self.axes_[:, 0]:
            panel.set_ylabel("quantile of z")
        for column in self.axes_.T:
            lowest = [panel for panel in column if panel is not None][-1]
            lowest.set_xlabel("quantile of N(0, 1)")


def _ks_distances(Z):
    return np.array([stats.kstest(z, "norm", method="asymp").statistic for z in Z.T])


def _draw_histogram(panel, z, kwargs):
    limits = (-4.0, 4.0)
    edges = bins(z, limits)
    heights = histogram(z, edges)
    style = {"fill": True, "color": DATA_COLOR, "alpha": 0.4} | kwargs
    panel.stairs(heights, edges, **style)
    grid = np.linspace(*limits, 200)
    density = stats.norm.pdf(grid)
    panel.plot(grid, density, color=MODEL_COLOR, linewidth=2, label="N(0, 1)")
    # Leave space for the text above the histogram.
    panel.set(xlim=limits, yticks=[], ylim=(0, 1.5 * max(heights.max(), density.max())))
    panel.spines["left"].set_visible(False)


def _draw_qq(panel, z, kwargs):
    quantiles = stats.norm.ppf((np.arange(len(z)) + 0.5) / len(z))
    style = {"marker": ".", "linestyle": "none", "color": DATA_COLOR, "rasterized": True}
    panel.plot(quantiles, np.sort(z), **(style | kwargs))
    panel.axline((0, 0), slope=1, color=MODEL_COLOR, linewidth=1.5)
    # Leave space for the text above the points.
    bottom, top = panel.get_ylim()
    panel.set_ylim(bottom, top + 0.5 * (top - bottom))


_DRAW = {"hist": _draw_histogram, "qq": _draw_qq}


def _check_kind(kind):
    if kind not in _DRAW:
        raise ValueError(f"kind={kind!r}: it must be one of {sorted(_DRAW)}.")
