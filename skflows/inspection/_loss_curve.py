"""How training went."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._common import DATA_COLOR, MODEL_COLOR, check_matplotlib


class LossCurveDisplay:
    """Training and validation loss of a fitted flow, epoch by epoch.

    Both curves are negative log-likelihoods per row in nats, in the units of the training data.
    The validation loss can lie below: it is that of the averaged weights after the epoch, without
    dropout; the training loss is the mean over the steps of the epoch.

    It is recommended to use :meth:`from_estimator` to create a :class:`LossCurveDisplay`.

    Parameters
    ----------
    train_loss : array-like of shape (n_epochs,)
        Mean negative log-likelihood of the training rows in each epoch.

    validation_loss : array-like of shape (n_epochs,) or None, default=None
        The same on the held-out rows. None when nothing was held out.

    best_iter : int or None, default=None
        The epoch, counted from 1, whose weights were kept. None marks no epoch.

    Attributes
    ----------
    train_line_ : matplotlib Line2D
        Curve of the training loss.

    validation_line_ : matplotlib Line2D or None
        Curve of the validation loss.

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

    def __init__(self, *, train_loss, validation_loss=None, best_iter=None):
        self.train_loss = train_loss
        self.validation_loss = validation_loss
        self.best_iter = best_iter

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
        scores = np.asarray(estimator.history_["validation_score"])
        display = cls(
            train_loss=np.asarray(estimator.history_["loss"]),
            validation_loss=None if np.isnan(scores).all() else -scores,
            best_iter=getattr(estimator, "best_iter_", None),
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
        self.train_line_ = self._curve(self.train_loss, DATA_COLOR, "training", kwargs)
        self.validation_line_ = self.best_ = None
        curves = [self.train_loss]
        if self.validation_loss is not None:
            curves.append(self.validation_loss)
            self.validation_line_ = self._curve(curves[1], MODEL_COLOR, "validation", kwargs)
        if self.best_iter:
            # After a fit with held-out rows, partial_fit adds epochs to the training curve alone.
            kept = [loss for loss in curves if np.isfinite(loss[self.best_iter - 1])][-1]
            best_loss = kept[self.best_iter - 1]
            (self.best_,) = ax.plot(
                self.best_iter,
                best_loss,
                "o",
                color="black",
                label=f"best epoch: {self.best_iter} ({best_loss:.3f})",
            )
            ax.axvline(self.best_iter, color="black", linewidth=0.8, linestyle=":")
        ax.set(xlabel="epoch", ylabel="negative log-likelihood per row (nats)")
        # One wild epoch (an outlier among the held-out rows) must not flatten all the others.
        losses = np.concatenate(curves)
        losses = losses[np.isfinite(losses)]
        if losses.size:
            low, usual, high = np.percentile(losses, [0, 90, 100])
            if high - usual > 10 * (usual - low) > 0:
                ax.set_ylim(top=usual + 2 * (usual - low))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        return self

    def _curve(self, loss, color, label, kwargs):
        style = {"color": color, "label": label, "linewidth": 2} | kwargs
        (line,) = self.ax_.plot(np.arange(1, len(loss) + 1), loss, **style)
        return line
