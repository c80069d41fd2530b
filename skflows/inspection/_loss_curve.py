"""Training and validation loss curves of a fitted flow."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ._common import DATA_COLOR, MODEL_COLOR, check_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes


NLL = "negative log-likelihood per row (nats)"
SQUARED_ERROR = "squared error of the velocity"


class LossCurveDisplay:
    """Training and validation loss of a fitted flow in each epoch.

    Both curves are mean negative log-likelihoods per row in nats, in the units of the training
    data. The validation loss can be lower than the training loss: it is computed after the epoch,
    from the averaged weights and without dropout, while the training loss is the mean over the
    mini-batches of the epoch.

    The training loss of flow matching (:class:`skflows.CNFDensity`) is a squared error. If there
    are likelihoods to draw as well, it has a separate axis on the right.

    It is recommended to use :meth:`from_estimator` to create a :class:`LossCurveDisplay`.

    Parameters
    ----------
    train_loss : array-like of shape (n_epochs,) or None, default=None
        Mean negative log-likelihood of the training rows in each epoch, in nats. NaN in epochs
        that did not compute it. None if no epoch did.

    validation_loss : array-like of shape (n_epochs,) or None, default=None
        Mean negative log-likelihood of the held-out rows after each epoch, in nats. None if no
        rows were held out.

    best_iter : int or None, default=None
        Epoch whose weights were kept, counted from 1. If None, no epoch is marked.

    matching_loss : array-like of shape (n_epochs,) or None, default=None
        Mean squared error of the velocity in each epoch of flow matching. NaN in epochs with
        another objective. None for other flows.

    Attributes
    ----------
    train_line_ : matplotlib Line2D or None
        Curve of the training loss. None if `train_loss` is None.

    validation_line_ : matplotlib Line2D or None
        Curve of the validation loss. None if `validation_loss` is None.

    matching_line_ : matplotlib Line2D or None
        Curve of the flow matching loss. None if `matching_loss` is None.

    best_ : matplotlib Line2D or None
        Marker of the best epoch. None if `best_iter` is None.

    ax_ : matplotlib Axes
        Axes with the curves.

    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import NSFDensity
    >>> from skflows.inspection import LossCurveDisplay
    >>> X = load_iris().data
    >>> flow = NSFDensity(max_iter=2, early_stopping=True, random_state=0).fit(X)
    >>> display = LossCurveDisplay.from_estimator(flow)
    >>> len(display.train_loss), len(display.validation_loss)
    (2, 2)
    """

    def __init__(
        self, *, train_loss=None, validation_loss=None, best_iter=None, matching_loss=None
    ):
        self.train_loss = train_loss
        self.validation_loss = validation_loss
        self.best_iter = best_iter
        self.matching_loss = matching_loss

    @classmethod
    def from_estimator(
        cls, estimator: BaseEstimator, *, ax: "Axes | None" = None, **kwargs: Any
    ) -> Self:
        """Draw the loss curves of a fitted flow.

        Parameters
        ----------
        estimator : estimator with `history_`
            Fitted flow, such as :class:`skflows.NSFDensity`.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.plot`, for all curves.

        Returns
        -------
        display : LossCurveDisplay
            The display that stores the losses.

        Raises
        ------
        AttributeError
            If the estimator has no `history_`.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        name = type(estimator).__name__
        if not hasattr(estimator, "history_"):
            raise AttributeError(
                f"{name} has no `history_`, so there is no loss curve to draw. Pass a fitted flow "
                "such as NSFDensity. For a pipeline, pass its last step; for a search, its "
                "best_estimator_."
            )
        history = {key: np.asarray(values) for key, values in estimator.history_.items()}
        loss, matching = history["loss"], history.get("matching")
        if matching is not None:
            loss = np.where(np.isnan(matching), loss, np.nan)
        # With penalties, the loss is not the likelihood alone.
        nll = history.get("nll", loss)
        loss = np.where(np.isnan(nll), loss, nll)
        scores = history["validation_score"]
        display = cls(
            train_loss=None if np.isnan(loss).all() and matching is not None else loss,
            validation_loss=None if np.isnan(scores).all() else -scores,
            best_iter=getattr(estimator, "best_iter_", None),
            matching_loss=matching,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.plot`, for all curves.

        Returns
        -------
        display : LossCurveDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
            ax.locator_params(axis="x", integer=True)
        self.ax_, self.figure_ = ax, ax.figure
        in_nats = not (self.train_loss is None and self.validation_loss is None)
        matching_ax = ax.twinx() if in_nats and self.matching_loss is not None else ax
        self.train_line_ = _curve(ax, self.train_loss, "training", DATA_COLOR, kwargs)
        self.validation_line_ = _curve(ax, self.validation_loss, "validation", MODEL_COLOR, kwargs)
        self.matching_line_ = _curve(
            matching_ax, self.matching_loss, "matching", DATA_COLOR, kwargs
        )
        curves = self.train_line_, self.matching_line_, self.validation_line_
        lines = [line for line in curves if line is not None]
        self.best_ = self._mark(lines) if self.best_iter else None
        matching_ax.set_ylabel(SQUARED_ERROR)
        ax.set(xlabel="epoch", ylabel=NLL if in_nats else SQUARED_ERROR)
        sides = list(dict.fromkeys((ax, matching_ax)))
        for side in sides:
            _keep_readable(side, [line.get_ydata() for line in lines if line.axes is side])
            side.spines["top"].set_visible(False)
        place = {}
        if matching_ax is ax:
            ax.spines["right"].set_visible(False)
        else:
            self.matching_line_.set_linestyle("--")
            # Above the axes, because loc="best" considers the curves of one side only.
            place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 2}
        handles = [line for side in sides for line in side.get_legend_handles_labels()[0]]
        matching_ax.legend(handles=handles, frameon=False, **place)
        return self

    def _mark(self, lines):
        # After a fit with held-out rows, partial_fit only extends the training curve.
        known = [line for line in lines if np.isfinite(line.get_ydata()[self.best_iter - 1])]
        loss = known[-1].get_ydata()[self.best_iter - 1]
        label = f"best epoch: {self.best_iter} ({loss:.3f})"
        (mark,) = known[-1].axes.plot(self.best_iter, loss, "o", color="black", label=label)
        self.ax_.axvline(self.best_iter, color="black", linewidth=0.8, linestyle=":")
        return mark


def _curve(ax, loss, label, color, kwargs):
    if loss is None:
        return None
    style = {"color": color, "label": label, "linewidth": 2} | kwargs
    (line,) = ax.plot(np.arange(1, len(loss) + 1), loss, **style)
    return line


def _keep_readable(ax, losses):
    """Limit the axis so that one extreme epoch does not flatten the rest of the curve.

    An outlier among the held-out rows can cause such an epoch.
    """
    losses = np.concatenate(losses)
    losses = losses[np.isfinite(losses)]
    if losses.size:
        low, usual, high = np.percentile(losses, [0, 90, 100])
        if high - usual > 10 * (usual - low) > 0:
            ax.set_ylim(top=usual + 2 * (usual - low))
