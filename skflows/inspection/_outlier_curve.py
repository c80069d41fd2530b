"""How well a score ranks rows whose labels are known."""

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from ._common import (
    MODEL_COLOR,
    check_data,
    check_estimator_method,
    check_labels,
    check_matplotlib,
    like_fitted,
    single_axes,
)

# Of each kind: the curve as x and y, the number in the legend, and the axes' labels.
KINDS = {
    "roc": (
        lambda odd, oddness: roc_curve(odd, oddness)[:2],
        roc_auc_score,
        "AUC",
        ("inliers flagged (fraction)", "outliers found (fraction)"),
    ),
    "precision_recall": (
        lambda odd, oddness: precision_recall_curve(odd, oddness)[1::-1],
        average_precision_score,
        "AP",
        ("outliers found (fraction)", "true flags (fraction)"),
    ),
}


class OutlierCurveDisplay:
    """ROC or precision-recall curve of an outlier score, with outliers as the class to find.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions` to create an
    :class:`OutlierCurveDisplay`.

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        Score of each row; the lower, the more abnormal.

    y : array-like of shape (n_samples,)
        Labels, 1 for inliers and -1 for outliers, as `predict` gives them.

    name : str or None, default=None
        What the legend calls the score.

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
    def from_estimator(cls, estimator, X, y, *, kind="roc", name=None, ax=None, **kwargs):
        """Score labelled rows and draw the curve.

        Parameters
        ----------
        estimator : estimator with `score_samples`
            A fitted outlier detector or density.

        X : array-like of shape (n_samples, n_features)
            The rows.

        y : array-like of shape (n_samples,)
            Labels, 1 for inliers and -1 for outliers.

        kind : {"roc", "precision_recall"}, default="roc"
            The curve.

        name : str, default=None
            What the legend calls the score. None is the name of the estimator's class.

        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : OutlierCurveDisplay
            The display, with the scores it drew.

        Raises
        ------
        AttributeError
            If the estimator has no `score_samples`.
        ValueError
            If `kind` is unknown, or `y` holds other labels than 1 and -1, or only one of them.
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
    def from_predictions(cls, scores, y, *, kind="roc", name=None, ax=None, **kwargs):
        """Draw the curve of given scores.

        Parameters
        ----------
        scores : array-like of shape (n_samples,)
            Score of each row; the lower, the more abnormal.

        y : array-like of shape (n_samples,)
            Labels, 1 for inliers and -1 for outliers.

        kind : {"roc", "precision_recall"}, default="roc"
            The curve.

        name : str, default=None
            What the legend calls the score.

        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : OutlierCurveDisplay
            The display.
        """
        check_matplotlib(f"{cls.__name__}.from_predictions")
        scores = np.asarray(scores, dtype=np.float64)
        display = cls(scores=scores, y=_both_labels(y, scores), name=name)
        return display.plot(ax=ax, kind=kind, **kwargs)

    def plot(self, ax=None, *, kind="roc", **kwargs):
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        kind : {"roc", "precision_recall"}, default="roc"
            The curve.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : OutlierCurveDisplay
            The display itself.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: it must be one of {list(KINDS)}.")
        import matplotlib.pyplot as plt

        ax = single_axes(plt, ax, (4.8, 4.4))
        self.ax_, self.figure_ = ax, ax.figure
        curve, summary, short, labels = KINDS[kind]
        odd = np.asarray(self.y) == -1
        # Infinite where a density is 0: beyond all others, and scikit-learn takes no infinity.
        oddness = -np.nan_to_num(self.scores, neginf=np.finfo(float).min)
        self.summary_ = float(summary(odd, oddness))
        label = f"{short} {self.summary_:.3f}"
        label = label if self.name is None else f"{self.name}, {label}"
        style = {"color": MODEL_COLOR, "label": label, "drawstyle": "steps-post"} | kwargs
        (self.line_,) = ax.plot(*curve(odd, oddness), **style)
        ax.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="lower right" if kind == "roc" else "lower left")
        return self


def _both_labels(y, rows):
    y = check_labels(y, rows)
    if y is None or len(np.unique(y)) < 2:
        raise ValueError("y must hold both labels, 1 for inliers and -1 for outliers.")
    return y
