"""Distribution of p-values compared with the uniform distribution."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.base import BaseEstimator

from ..columns.types import Table
from ._common import (
    DATA_COLOR,
    MODEL_COLOR,
    check_data,
    check_estimator_method,
    check_matplotlib,
    like_fitted,
    single_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


CONFIDENCE = 0.95


class PValueDisplay:
    """Empirical distribution function of p-values, to check their calibration.

    The p-values of new inliers are uniform if they are calibrated: the curve follows the diagonal,
    or stays below it if they are conservative. The band contains the curve of as many independent
    uniform values with probability 0.95, at each p-value separately. Above the band, the p-values
    are too small, so too many rows are flagged. Outliers among the rows raise the left end of the
    curve.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions` to create a
    :class:`PValueDisplay`.

    Parameters
    ----------
    p_values : array-like of shape (n_samples,)
        The p-values.

    Attributes
    ----------
    line_ : matplotlib Line2D
        Fraction of the rows with at most each p-value.

    band_ : matplotlib PolyCollection
        Range of this fraction for uniform p-values.

    ax_ : matplotlib Axes
        Axes with the curve.

    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skflows import DensityOutlierDetector
    >>> from skflows.inspection import PValueDisplay
    >>> X, new = np.random.default_rng(0).standard_normal((2, 300, 3))
    >>> detector = DensityOutlierDetector(GaussianMixture(), calibration="conformal").fit(X)
    >>> display = PValueDisplay.from_estimator(detector, new)
    >>> len(display.p_values)
    300
    """

    def __init__(self, *, p_values):
        self.p_values = p_values

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        *,
        log: bool = True,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Compute the p-values of rows and draw their distribution function.

        Parameters
        ----------
        estimator : estimator with `p_values`
            Fitted :class:`skflows.DensityOutlierDetector` with a `calibration`.

        X : array-like of shape (n_samples, n_features)
            New rows, which were not used in the fit.

        log : bool, default=True
            Whether both axes are logarithmic, to show the small p-values that lead to flags.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.step`.

        Returns
        -------
        display : PValueDisplay
            The display that stores the p-values.

        Raises
        ------
        AttributeError
            If the estimator has no `p_values`.
        ValueError
            If the estimator was fitted without calibration, or the columns of X do not match the
            fit.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "p_values")
        rows, _ = check_data(estimator, X)
        p_values = estimator.p_values(like_fitted(rows, X, estimator))
        return cls(p_values=p_values).plot(ax=ax, log=log, **kwargs)

    @classmethod
    def from_predictions(
        cls, p_values: ArrayLike, *, log: bool = True, ax: "Axes | None" = None, **kwargs: Any
    ) -> Self:
        """Draw the distribution function of given p-values.

        Parameters
        ----------
        p_values : array-like of shape (n_samples,)
            The p-values.

        log : bool, default=True
            Whether both axes are logarithmic.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.step`.

        Returns
        -------
        display : PValueDisplay
            The display that stores the p-values.

        Raises
        ------
        ValueError
            If there are no p-values, or one is not between 0 and 1.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_predictions")
        return cls(p_values=p_values).plot(ax=ax, log=log, **kwargs)

    def plot(self, ax: "Axes | None" = None, *, log: bool = True, **kwargs: Any) -> Self:
        """Draw the distribution function and the band of uniform p-values.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        log : bool, default=True
            Whether both axes are logarithmic.

        **kwargs : dict
            Keyword arguments for :meth:`matplotlib.axes.Axes.step`.

        Returns
        -------
        display : PValueDisplay
            This display.

        Raises
        ------
        ValueError
            If there are no p-values, or one is not between 0 and 1.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        p_values = np.sort(np.asarray(self.p_values, dtype=np.float64))
        if not len(p_values) or not ((p_values >= 0) & (p_values <= 1)).all():
            raise ValueError("p_values must be one or more numbers between 0 and 1.")
        import matplotlib.pyplot as plt

        ax = single_axes(plt, ax, (4.8, 4.4))
        self.ax_, self.figure_ = ax, ax.figure
        n = len(p_values)
        least = min(0.5 / n, max(p_values[0], 1e-6))
        levels = np.geomspace(least, 1, 200) if log else np.linspace(0, 1, 200)
        low, high = (bound / n for bound in stats.binom.interval(CONFIDENCE, n, levels.clip(0, 1)))
        floor = 0.5 / n if log else 0.0
        self.band_ = ax.fill_between(
            levels,
            np.maximum(low, floor),
            np.maximum(high, floor),
            color=DATA_COLOR,
            alpha=0.25,
            linewidth=0,
            label=f"{CONFIDENCE:.0%} of uniform p-values",
        )
        ax.plot([levels[0], 1], [levels[0], 1], color="black", linestyle=":", linewidth=1)
        style = {"color": MODEL_COLOR, "where": "post", "label": f"{n} rows"} | kwargs
        (self.line_,) = ax.step(p_values, np.arange(1, n + 1) / n, **style)
        if log:
            ax.set(xscale="log", yscale="log", xlim=(levels[0], 1), ylim=(floor, 1))
        else:
            ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.set(xlabel="p-value", ylabel="fraction of rows with at most this p-value")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="upper left")
        return self
