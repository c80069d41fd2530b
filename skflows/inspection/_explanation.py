"""Which columns make a row odd."""

from numbers import Integral

import numpy as np

from ._common import (
    DATA_COLOR,
    MODEL_COLOR,
    check_data,
    check_estimator_method,
    check_integer,
    check_matplotlib,
    like_fitted,
    shorten,
    single_axes,
)


class ExplanationDisplay:
    """What each column adds to the score of a row, the oddest on top.

    The parts add up to the score. Bars show them less the part that is usual, the median over
    the columns: to the left of zero a column speaks against the row, to the right for it.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions` to create an
    :class:`ExplanationDisplay`.

    Parameters
    ----------
    contributions : array-like of shape (n_features,)
        Part of each column in the score of the row.

    values : array-like of shape (n_features,) or None, default=None
        The row itself. None leaves its values out of the labels.

    feature_names : sequence of str or None, default=None
        Names of the columns. None numbers them.

    Attributes
    ----------
    bars_ : matplotlib BarContainer
        The bars, the oddest column first.

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
    >>> odd = X.iloc[[0]].assign(**{"petal width (cm)": 2.5})
    >>> display = ExplanationDisplay.from_estimator(detector, odd)
    >>> display.feature_names[display.contributions.argmin()]
    'petal width (cm)'
    """

    def __init__(self, *, contributions, values=None, feature_names=None):
        self.contributions = contributions
        self.values = values
        self.feature_names = feature_names

    @classmethod
    def from_estimator(cls, estimator, X, *, row=0, max_features=10, ax=None, **kwargs):
        """Explain the score of a row and draw it.

        Parameters
        ----------
        estimator : estimator with `explain`
            A fitted :class:`skflows.DensityOutlierDetector`.

        X : array-like of shape (n_samples, n_features)
            The rows.

        row : int, default=0
            Which of them to explain.

        max_features : int, default=10
            Columns with a bar of their own, the oddest ones.

        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : ExplanationDisplay
            The display, with the parts it drew.

        Raises
        ------
        AttributeError
            If the estimator has no `explain`.
        ValueError
            If there is no such row, or `max_features` is not a number of bars.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_integer("max_features", max_features)
        check_estimator_method(estimator, "explain")
        rows, names = check_data(estimator, X)
        if not isinstance(row, Integral) or not -len(rows) <= row < len(rows):
            raise ValueError(f"row={row!r}: X has {len(rows)} rows, from 0 to {len(rows) - 1}.")
        chosen = rows[[row]]
        display = cls(
            contributions=estimator.explain(like_fitted(chosen, X, estimator))[0],
            values=chosen[0],
            feature_names=names,
        )
        return display.plot(ax=ax, max_features=max_features, **kwargs)

    @classmethod
    def from_predictions(
        cls, contributions, *, values=None, feature_names=None, max_features=10, ax=None, **kwargs
    ):
        """Draw given parts of a score.

        Parameters
        ----------
        contributions : array-like of shape (n_features,)
            Part of each column in the score of the row.

        values : array-like of shape (n_features,), default=None
            The row itself. None leaves its values out of the labels.

        feature_names : sequence of str, default=None
            Names of the columns. None numbers them.

        max_features : int, default=10
            Columns with a bar of their own, the oddest ones.

        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : ExplanationDisplay
            The display.
        """
        check_matplotlib(f"{cls.__name__}.from_predictions")
        check_integer("max_features", max_features)
        display = cls(contributions=contributions, values=values, feature_names=feature_names)
        return display.plot(ax=ax, max_features=max_features, **kwargs)

    def plot(self, ax=None, *, max_features=10, **kwargs):
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        max_features : int, default=10
            Columns with a bar of their own, the oddest ones.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : ExplanationDisplay
            The display itself.
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
            labels = [
                f"{name} = {self.values[j]:,.6g}" for name, j in zip(labels, order, strict=True)
            ]
        ax = single_axes(plt, ax, (6.4, 1.1 + 0.3 * len(order)))
        self.ax_, self.figure_ = ax, ax.figure
        heights = parts[order] - usual
        # A part without end, beyond a bound, is drawn twice as long as the longest other one.
        finite = np.abs(heights[np.isfinite(heights)])
        longest = 2 * (finite.max() if len(finite) and finite.max() > 0 else 1.0)
        heights = np.nan_to_num(heights, neginf=-longest)
        colors = [MODEL_COLOR if height < 0 else DATA_COLOR for height in heights]
        places = np.arange(len(order))
        self.bars_ = ax.barh(places, heights, **({"color": colors} | kwargs))
        ax.set_yticks(places, labels)
        ax.set_ylim(len(order) - 0.5, -0.5)
        ax.axvline(0, color="black", linewidth=1)
        ax.set_xlabel(f"part in the score ({parts.sum():.4g} in all), less the median of all parts")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        return self
