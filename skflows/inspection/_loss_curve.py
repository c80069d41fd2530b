"""How training went."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._common import DATA_COLOR, MODEL_COLOR, check_matplotlib

NLL = "negative log-likelihood per row (nats)"
SQUARED_ERROR = "squared error of the velocity"


class LossCurveDisplay:
    """Training and validation loss of a fitted flow, epoch by epoch.

    Both curves are negative log-likelihoods per row in nats, in the units of the training data.
    The validation loss can lie below: it is that of the averaged weights after the epoch, without
    dropout; the training loss is the mean over the epoch, row by row.

    Flow matching (:class:`skflows.CNFDensity`) has a training loss that is no likelihood: where
    there are likelihoods to draw as well, it has an axis of its own, on the right.

    It is recommended to use :meth:`from_estimator` to create a :class:`LossCurveDisplay`.

    Parameters
    ----------
    train_loss : array-like of shape (n_epochs,) or None, default=None
        Mean negative log-likelihood of the training rows in each epoch, nan in epochs that did
        not compute it. None when none did.

    validation_loss : array-like of shape (n_epochs,) or None, default=None
        The same on the held-out rows. None when nothing was held out.

    best_iter : int or None, default=None
        The epoch, counted from 1, whose weights were kept. None marks no epoch.

    matching_loss : array-like of shape (n_epochs,) or None, default=None
        Mean squared error of the velocity of a flow that is matched, nan in epochs of another
        training.

    Attributes
    ----------
    train_line_ : matplotlib Line2D or None
        Curve of the training loss.

    validation_line_ : matplotlib Line2D or None
        Curve of the validation loss.

    matching_line_ : matplotlib Line2D or None
        Curve of the loss of flow matching.

    best_ : matplotlib Line2D or None
        Mark of the best epoch.

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
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Draw the loss curves that a fitted flow has kept.

        Parameters
        ----------
        estimator : flow estimator
            Fitted flow, such as :class:`skflows.NSFDensity`.

        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.plot`, for both curves.

        Returns
        -------
        display : LossCurveDisplay
            The display, with the curves it drew.

        Raises
        ------
        AttributeError
            If the estimator keeps no history of its training.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        name = type(estimator).__name__
        if not hasattr(estimator, "history_"):
            raise AttributeError(
                f"{name} has no `history_`, so there is no loss curve to draw. Pass a fitted flow "
                "such as NSFDensity; of a pipeline its last step, of a search its best_estimator_."
            )
        history = {key: np.asarray(values) for key, values in estimator.history_.items()}
        loss, matching = history["loss"], history.get("matching")
        if matching is not None:
            loss = np.where(np.isnan(matching), loss, np.nan)
        # With penalties, the loss is more than the likelihood.
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

    def plot(self, ax=None, **kwargs):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None makes a new figure.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.plot`, for both curves.

        Returns
        -------
        display : LossCurveDisplay
            The display itself.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
            ax.locator_params(axis="x", integer=True)
        self.ax_, self.figure_ = ax, ax.figure
        in_nats = not (self.train_loss is None and self.validation_loss is None)
        beside = ax.twinx() if in_nats and self.matching_loss is not None else ax
        self.train_line_ = _curve(ax, self.train_loss, "training", DATA_COLOR, kwargs)
        self.validation_line_ = _curve(ax, self.validation_loss, "validation", MODEL_COLOR, kwargs)
        self.matching_line_ = _curve(beside, self.matching_loss, "matching", DATA_COLOR, kwargs)
        lines = self.train_line_, self.matching_line_, self.validation_line_
        lines = [line for line in lines if line is not None]
        self.best_ = self._mark(lines) if self.best_iter else None
        beside.set_ylabel(SQUARED_ERROR)
        ax.set(xlabel="epoch", ylabel=NLL if in_nats else SQUARED_ERROR)
        sides = list(dict.fromkeys((ax, beside)))
        for side in sides:
            _keep_readable(side, [line.get_ydata() for line in lines if line.axes is side])
            side.spines["top"].set_visible(False)
        place = {}
        if beside is ax:
            ax.spines["right"].set_visible(False)
        else:
            self.matching_line_.set_linestyle("--")
            # Above: "best" looks at the curves of one side alone.
            place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 2}
        handles = [line for side in sides for line in side.get_legend_handles_labels()[0]]
        beside.legend(handles=handles, frameon=False, **place)
        return self

    def _mark(self, lines):
        # After a fit with held-out rows, partial_fit adds epochs to the training curve alone.
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
    """Lest one wild epoch (an outlier among the held-out rows) flattens all the others."""
    losses = np.concatenate(losses)
    losses = losses[np.isfinite(losses)]
    if losses.size:
        low, usual, high = np.percentile(losses, [0, 90, 100])
        if high - usual > 10 * (usual - low) > 0:
            ax.set_ylim(top=usual + 2 * (usual - low))
