"""Histogram of outlier scores."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from ..columns.types import Table
from ._common import (
    DATA_COLOR,
    MODEL_COLOR,
    check_data,
    check_estimator_method,
    check_labels,
    check_matplotlib,
    like_fitted,
    single_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# The axis starts at most this many interquartile ranges below the first quartile.
MAX_SPREAD = 8


class OutlierScoreDisplay:
    """Histogram of outlier scores, with the threshold below which rows are flagged.

    Rows with extremely low scores count in the first bin. Otherwise, all other rows would share
    one bin.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions` to create an
    :class:`OutlierScoreDisplay`.

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        Score of each row. Lower scores are more abnormal.

    threshold : float or None, default=None
        Score below which a row is an outlier. If None, no threshold is drawn.

    y : array-like of shape (n_samples,) or None, default=None
        Known labels: 1 for inliers, -1 for outliers. If None, all rows share one histogram.

    Attributes
    ----------
    bars_ : list of matplotlib StepPatch
        The histogram of all rows, or one for inliers and one for outliers.

    line_ : matplotlib Line2D or None
        The threshold. None if it is not drawn.

    ax_ : matplotlib Axes
        Axes with the histograms.

    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skflows import DensityOutlierDetector
    >>> from skflows.inspection import OutlierScoreDisplay
    >>> X = load_iris().data
    >>> detector = DensityOutlierDetector(GaussianMixture(3, random_state=0)).fit(X)
    >>> display = OutlierScoreDisplay.from_estimator(detector, X)
    >>> len(display.scores)
    150
    """

    def __init__(self, *, scores, threshold=None, y=None):
        self.scores = scores
        self.threshold = threshold
        self.y = y

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        y: Table | None = None,
        *,
        n_bins: int = 40,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Score rows and draw the histogram.

        Parameters
        ----------
        estimator : estimator with `score_samples`
            Fitted outlier detector or density. The threshold is its `offset_`, if it has one. With
            a false discovery rate, no threshold is drawn, because there is no fixed one.

        X : array-like of shape (n_samples, n_features)
            The rows.

        y : array-like of shape (n_samples,), default=None
            Known labels: 1 for inliers, -1 for outliers. If None, all rows share one histogram.

        n_bins : int, default=40
            Number of bins.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.stairs`.

        Returns
        -------
        display : OutlierScoreDisplay
            The display that stores the scores.

        Raises
        ------
        AttributeError
            If the estimator has no `score_samples`.
        ValueError
            If `y` has other labels than 1 and -1, if the columns of X do not match the fit, or
            if no score is finite.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "score_samples")
        rows, _ = check_data(estimator, X)
        scores = estimator.score_samples(like_fitted(rows, X, estimator))
        threshold = getattr(estimator, "offset_", None)
        if getattr(estimator, "fdr", None) is not None:
            threshold = None  # the threshold depends on the other rows
        display = cls(scores=scores, threshold=threshold, y=check_labels(y, scores))
        return display.plot(ax=ax, n_bins=n_bins, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        scores: ArrayLike,
        y: Table | None = None,
        *,
        threshold: float | None = None,
        n_bins: int = 40,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the histogram of given scores.

        Parameters
        ----------
        scores : array-like of shape (n_samples,)
            Score of each row. Lower scores are more abnormal.

        y : array-like of shape (n_samples,), default=None
            Known labels: 1 for inliers, -1 for outliers. If None, all rows share one histogram.

        threshold : float, default=None
            Score below which a row is an outlier. If None, no threshold is drawn.

        n_bins : int, default=40
            Number of bins.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.stairs`.

        Returns
        -------
        display : OutlierScoreDisplay
            The display that stores the scores.

        Raises
        ------
        ValueError
            If `y` has other labels than 1 and -1, or no score is finite.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_predictions")
        scores = np.asarray(scores, dtype=np.float64)
        display = cls(scores=scores, threshold=threshold, y=check_labels(y, scores))
        return display.plot(ax=ax, n_bins=n_bins, **kwargs)

    def plot(self, ax: "Axes | None" = None, *, n_bins: int = 40, **kwargs: Any) -> Self:
        """Draw the histogram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        n_bins : int, default=40
            Number of bins.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.stairs`.

        Returns
        -------
        display : OutlierScoreDisplay
            This display.

        Raises
        ------
        ValueError
            If no score is finite.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        ax = single_axes(plt, ax, (6.4, 3.6))
        self.ax_, self.figure_ = ax, ax.figure
        low, high = self._limits()
        groups = {"all rows": (np.ones(len(self.scores), dtype=bool), DATA_COLOR)}
        if self.y is not None:
            is_outlier = np.asarray(self.y) == -1
            groups = {"inliers": (~is_outlier, DATA_COLOR), "outliers": (is_outlier, MODEL_COLOR)}
        self.bars_ = []
        for name, (rows, color) in groups.items():
            heights, edges = np.histogram(self.scores[rows].clip(low, high), n_bins, (low, high))
            style = {"fill": True, "alpha": 0.6, "color": color, "label": name} | kwargs
            self.bars_.append(ax.stairs(heights, edges, **style))
        self.line_ = None
        if self.threshold is not None and np.isfinite(self.threshold):
            n_below = (self.scores < self.threshold).sum()
            self.line_ = ax.axvline(
                self.threshold,
                color="black",
                linestyle=":",
                label=f"threshold: {n_below} of {len(self.scores)} rows below",
            )
        label = "score (lower is more abnormal)"
        if n_beyond := (self.scores < low).sum():
            label += f"\nrows below the axis, which the first bin counts: {n_beyond}"
        ax.set(xlim=(low, high), xlabel=label, ylabel="rows")
        ax.spines[["top", "right"]].set_visible(False)
        # Above the axes, so that the line of the threshold does not pass through it.
        ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
        return self

    def _limits(self):
        finite = self.scores[np.isfinite(self.scores)]
        if not len(finite):
            raise ValueError("No score is finite, so there is nothing to draw.")
        first, third = np.percentile(finite, [25, 75])
        low = max(finite.min(), first - MAX_SPREAD * (third - first))
        if self.threshold is not None and np.isfinite(self.threshold):
            low = min(low, self.threshold)
        high = finite.max()
        margin = 0.02 * (high - low) or 0.5
        return low - margin, high + margin
