"""ROC and precision-recall curves of outlier scores."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from ..columns.types import Table
from ._common import (
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


# For each kind: the x and y of the curve, the summary, its name in the legend, the axis labels.
KINDS = {
    "roc": (
        lambda is_outlier, abnormality: roc_curve(is_outlier, abnormality)[:2],
        roc_auc_score,
        "AUC",
        ("inliers flagged (false positive rate)", "outliers flagged (true positive rate)"),
    ),
    "precision_recall": (
        lambda is_outlier, abnormality: precision_recall_curve(is_outlier, abnormality)[1::-1],
        average_precision_score,
        "AP",
        ("outliers flagged (recall)", "flags that are outliers (precision)"),
    ),
}


class OutlierCurveDisplay:
    """ROC or precision-recall curve of an outlier score, with outliers as the positive class.

    scikit-learn's displays take the inliers, whose label is 1, as the positive class.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions` to create an
    :class:`OutlierCurveDisplay`.

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        Score of each row. Lower scores are more abnormal.

    y : array-like of shape (n_samples,)
        Known labels: 1 for inliers, -1 for outliers.

    name : str or None, default=None
        Name of the score in the legend. If None, the legend has no name.

    Attributes
    ----------
    line_ : matplotlib Line2D
        The curve.

    summary_ : float
        Area under the ROC curve, or average precision.

    ax_ : matplotlib Axes
        Axes with the curve.

    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows.inspection import OutlierCurveDisplay
    >>> display = OutlierCurveDisplay.from_predictions([-9.0, -1.0, -2.0, 0.5], [-1, 1, -1, 1])
    >>> display.summary_
    1.0
    """

    def __init__(self, *, scores, y, name=None):
        self.scores = scores
        self.y = y
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        y: ArrayLike,
        *,
        kind: str = "roc",
        name: str | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Score labelled rows and draw the curve.

        Parameters
        ----------
        estimator : estimator with `score_samples`
            A fitted outlier detector or density.

        X : array-like of shape (n_samples, n_features)
            The rows.

        y : array-like of shape (n_samples,)
            Known labels: 1 for inliers, -1 for outliers.

        kind : {"roc", "precision_recall"}, default="roc"
            Type of curve.

        name : str, default=None
            Name of the score in the legend. If None, it is the class name of the estimator.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : OutlierCurveDisplay
            The display that stores the scores.

        Raises
        ------
        AttributeError
            If the estimator has no `score_samples`.
        ValueError
            If `kind` is unknown, if `y` has other labels than 1 and -1 or only one of them, or if
            the columns of X do not match the fit.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "score_samples")
        rows, _ = check_data(estimator, X)
        y = _both_labels(y, rows)
        scores = estimator.score_samples(like_fitted(rows, X, estimator))
        name = type(estimator).__name__ if name is None else name
        return cls(scores=scores, y=y, name=name).plot(ax=ax, kind=kind, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        scores: ArrayLike,
        y: ArrayLike,
        *,
        kind: str = "roc",
        name: str | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of given scores.

        Parameters
        ----------
        scores : array-like of shape (n_samples,)
            Score of each row. Lower scores are more abnormal.

        y : array-like of shape (n_samples,)
            Known labels: 1 for inliers, -1 for outliers.

        kind : {"roc", "precision_recall"}, default="roc"
            Type of curve.

        name : str, default=None
            Name of the score in the legend. If None, the legend has no name.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : OutlierCurveDisplay
            The display that stores the scores.

        Raises
        ------
        ValueError
            If `kind` is unknown, or `y` has other labels than 1 and -1 or only one of them.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_predictions")
        scores = np.asarray(scores, dtype=np.float64)
        display = cls(scores=scores, y=_both_labels(y, scores), name=name)
        return display.plot(ax=ax, kind=kind, **kwargs)

    def plot(self, ax: "Axes | None" = None, *, kind: str = "roc", **kwargs: Any) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        kind : {"roc", "precision_recall"}, default="roc"
            Type of curve.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : OutlierCurveDisplay
            This display.

        Raises
        ------
        ValueError
            If `kind` is unknown.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: it must be one of {list(KINDS)}.")
        import matplotlib.pyplot as plt

        ax = single_axes(plt, ax, (4.8, 4.4))
        self.ax_, self.figure_ = ax, ax.figure
        curve, summary, short, labels = KINDS[kind]
        is_outlier = np.asarray(self.y) == -1
        # Scores are -inf where the density is 0, and scikit-learn rejects infinite values.
        abnormality = -np.nan_to_num(self.scores, neginf=np.finfo(float).min)
        self.summary_ = float(summary(is_outlier, abnormality))
        label = f"{short} {self.summary_:.3f}"
        label = label if self.name is None else f"{self.name}, {label}"
        style = {"color": MODEL_COLOR, "label": label, "drawstyle": "steps-post"} | kwargs
        (self.line_,) = ax.plot(*curve(is_outlier, abnormality), **style)
        ax.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="lower right" if kind == "roc" else "lower left")
        return self


def _both_labels(y, rows):
    y = check_labels(y, rows)
    if y is None or len(np.unique(y)) < 2:
        raise ValueError("y must hold both labels, 1 for inliers and -1 for outliers.")
    return y
