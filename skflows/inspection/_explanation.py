"""Bar plot of the contributions of columns to an outlier score."""

from collections.abc import Sequence
from numbers import Integral
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
    check_matplotlib,
    like_fitted,
    shorten,
    single_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ExplanationDisplay:
    """Contribution of each column to the score of a row, the most abnormal on top.

    The contributions add up to the score. The bars show the difference from the median
    contribution: a bar to the left of zero marks a column that makes the row abnormal.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions` to create an
    :class:`ExplanationDisplay`.

    Parameters
    ----------
    contributions : array-like of shape (n_features,)
        Contribution of each column to the score of the row.

    values : array-like of shape (n_features,) or None, default=None
        The values of the row, for the labels: numbers, or texts that are shown as they are. If
        None, the labels are the names alone.

    feature_names : sequence of str or None, default=None
        Names of the columns. If None, they are "x0", "x1" and so on.

    Attributes
    ----------
    bars_ : matplotlib BarContainer
        The bars, in ascending order of the contribution.

    ax_ : matplotlib Axes
        Axes with the bars.

    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skflows import DensityOutlierDetector
    >>> from skflows.inspection import ExplanationDisplay
    >>> X = load_iris(as_frame=True).data
    >>> detector = DensityOutlierDetector(GaussianMixture(3, random_state=0)).fit(X)
    >>> row = X[:1].assign(**{"petal width (cm)": 2.5})
    >>> display = ExplanationDisplay.from_estimator(detector, row)
    >>> display.feature_names[display.contributions.argmin()]
    'petal width (cm)'
    """

    def __init__(self, *, contributions, values=None, feature_names=None):
        self.contributions = contributions
        self.values = values
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        *,
        row: int = 0,
        max_features: int = 10,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Explain the score of a row and draw it.

        Parameters
        ----------
        estimator : estimator with `explain`
            A fitted :class:`skflows.DensityOutlierDetector`.

        X : array-like of shape (n_samples, n_features)
            The rows.

        row : int, default=0
            Index of the row to explain. Negative indices count from the end.

        max_features : int, default=10
            Maximum number of bars. Columns with the lowest contributions are drawn.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : ExplanationDisplay
            The display that stores the contributions.

        Raises
        ------
        AttributeError
            If the estimator has no `explain`.
        ValueError
            If `row` is out of range, if `max_features` is not a positive integer, or if the
            columns of X do not match the fit.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_integer("max_features", max_features)
        check_estimator_method(estimator, "explain")
        rows, names = check_data(estimator, X)
        if not isinstance(row, Integral) or not -len(rows) <= row < len(rows):
            raise ValueError(
                f"row={row!r}: X has {len(rows)} rows, with indices from 0 to {len(rows) - 1}."
            )
        chosen = rows[[row]]
        display = cls(
            contributions=estimator.explain(like_fitted(chosen, X, estimator))[0],
            values=chosen[0],
            feature_names=names,
        )
        return display.plot(ax=ax, max_features=max_features, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        contributions: ArrayLike,
        *,
        values: ArrayLike | None = None,
        feature_names: Sequence[str] | None = None,
        max_features: int = 10,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw given contributions.

        Parameters
        ----------
        contributions : array-like of shape (n_features,)
            Contribution of each column to the score of the row.

        values : array-like of shape (n_features,), default=None
            The values of the row, for the labels: numbers, or texts that are shown as they are. If
            None, the labels are the names alone.

        feature_names : sequence of str, default=None
            Names of the columns. If None, they are "x0", "x1" and so on.

        max_features : int, default=10
            Maximum number of bars. Columns with the lowest contributions are drawn.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : ExplanationDisplay
            The display that stores the contributions.

        Raises
        ------
        ValueError
            If `max_features` is not a positive integer.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_predictions")
        check_integer("max_features", max_features)
        display = cls(contributions=contributions, values=values, feature_names=feature_names)
        return display.plot(ax=ax, max_features=max_features, **kwargs)

    def plot(self, ax: "Axes | None" = None, *, max_features: int = 10, **kwargs: Any) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        max_features : int, default=10
            Maximum number of bars. Columns with the lowest contributions are drawn.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : ExplanationDisplay
            This display.

        Raises
        ------
        ValueError
            If `max_features` is not a positive integer.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        check_integer("max_features", max_features)
        import matplotlib.pyplot as plt

        parts = np.asarray(self.contributions, dtype=np.float64)
        names = self.feature_names
        names = [f"x{j}" for j in range(len(parts))] if names is None else list(names)
        order = np.argsort(parts, kind="stable")[:max_features]
        usual = np.median(parts) if len(parts) > 1 else 0.0
        labels = [shorten(str(names[j]), 30) for j in order]
        if self.values is not None:
            values = [self.values[j] for j in order]
            texts = [value if isinstance(value, str) else f"{value:,.6g}" for value in values]
            labels = [f"{name} = {text}" for name, text in zip(labels, texts, strict=True)]
        ax = single_axes(plt, ax, (6.4, 1.3 + 0.3 * len(order)))
        self.ax_, self.figure_ = ax, ax.figure
        heights = parts[order] - usual
        # A contribution of -inf (outside the bounds) is drawn twice as long as the longest other.
        finite = np.abs(heights[np.isfinite(heights)])
        longest = 2 * (finite.max() if len(finite) and finite.max() > 0 else 1.0)
        heights = np.nan_to_num(heights, neginf=-longest)
        colors = [MODEL_COLOR if height < 0 else DATA_COLOR for height in heights]
        places = np.arange(len(order))
        self.bars_ = ax.barh(places, heights, **({"color": colors} | kwargs))
        ax.set_yticks(places, labels)
        ax.set_ylim(len(order) - 0.5, -0.5)
        ax.axvline(0, color="black", linewidth=1)
        # Two lines, since one would be wider than the axes beside long names.
        ax.set_xlabel(f"contribution to the score ({parts.sum():.4g})\nminus the median one")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        return self
