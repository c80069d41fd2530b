"""Calibration of predicted distributions: probability integral transforms and coverage."""

from typing import TYPE_CHECKING, Self

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from ..columns.types import RandomState, Table
from ._common import (
    BAND,
    CONFIDENCE,
    MODEL_COLOR,
    check_estimator_method,
    check_matplotlib,
    panel_grid,
    plot_shares,
    uniform_panel,
)
from ._predictive_bands import check_single_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes


N_BINS = 20


class PredictiveCalibrationDisplay:
    """Histogram of the predicted probabilities of y, and coverage of the central intervals.

    If the distributions are right, the probability integral transform ``cdf(y)`` of new rows is
    uniform: the histogram is flat and the coverage on the diagonal, within bands that hold 95 % of
    such samples. A hill means that the distributions are too wide, a valley that they are too
    narrow, a slope that they are too low or too high.

    It is recommended to use :meth:`from_estimator` to create a
    :class:`PredictiveCalibrationDisplay`.

    Parameters
    ----------
    pit : ndarray of shape (n_samples,)
        The transform of each row.

    Attributes
    ----------
    bars_ : matplotlib BarContainer
        The histogram.

    line_ : matplotlib Line2D
        Fraction of the rows inside the central interval of each probability.

    axes_ : ndarray of matplotlib Axes of shape (2,)
        Axes with the histogram and the coverage.

    figure_ : matplotlib Figure
        Figure containing the axes.

    References
    ----------
    Gneiting, Balabdaoui & Raftery, "Probabilistic Forecasts, Calibration and Sharpness", 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows import ConditionalDensity, FlowRegressor, NSFDensity
    >>> from skflows.inspection import PredictiveCalibrationDisplay
    >>> X, y = np.random.default_rng(0).standard_normal((2, 200, 1))
    >>> density = ConditionalDensity(NSFDensity(max_iter=5))
    >>> regressor = FlowRegressor(density, calibration=None).fit(X[:100], y[:100])
    >>> display = PredictiveCalibrationDisplay.from_estimator(regressor, X[100:], y[100:])
    >>> display.pit.shape
    (100,)
    """

    def __init__(self, *, pit):
        self.pit = pit

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        y: Table,
        *,
        random_state: RandomState = 0,
        ax: "Axes | None" = None,
    ) -> Self:
        """Compute the transforms of rows, and draw.

        Parameters
        ----------
        estimator : FlowRegressor or ConditionalDensity
            Fitted to a single output.

        X : array-like of shape (n_samples, n_features)
            New rows, which were not used in the fit.

        y : array-like of shape (n_samples,)
            Their targets.

        random_state : int, RandomState instance or None, default=0
            Seeds the transforms of discrete targets, which are uniform between the probabilities
            below and up to y.

        ax : matplotlib Axes, default=None
            Axes to divide into two. If None, a new figure is created.

        Returns
        -------
        display : PredictiveCalibrationDisplay
            The display that stores the transforms.

        Raises
        ------
        AttributeError
            If the estimator has no `predict_distribution`.
        ValueError
            If there are several outputs.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "predict_distribution")
        check_single_output(estimator)
        distribution = estimator.predict_distribution(X)
        y = np.ravel(y)
        pit = distribution.cdf(y)
        if distribution.is_discrete:
            share = check_random_state(random_state).uniform(size=len(y))
            pit = pit - share * distribution.pmf(y)
        return cls(pit=np.clip(pit, 0, 1)).plot(ax=ax)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the histogram and the coverage.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to divide into two. If None, a new figure is created.

        Returns
        -------
        display : PredictiveCalibrationDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        grid, self.figure_ = panel_grid(plt, ax, 1, 2, 3.6)
        left, right = (self.figure_.add_subplot(cell) for cell in grid)
        self.axes_ = np.array([left, right])
        n = len(self.pit)
        counts, edges = np.histogram(self.pit, bins=N_BINS, range=(0, 1))
        self.bars_ = left.bar(
            edges[:-1], counts * N_BINS / n, 1 / N_BINS, align="edge", color=MODEL_COLOR, alpha=0.6
        )
        low, high = np.array(stats.binom.interval(CONFIDENCE, n, 1 / N_BINS)) * N_BINS / n
        left.axhspan(low, high, **BAND)
        left.axhline(1, color="black", linestyle=":", linewidth=1)
        left.set(xlabel="probability below y", ylabel="density of the rows", xlim=(0, 1))

        left.spines[["top", "right"]].set_visible(False)

        uniform_panel(right, n)
        self.line_ = plot_shares(right, np.abs(2 * np.asarray(self.pit) - 1), color=MODEL_COLOR)
        right.legend(fontsize="small", frameon=False)
        right.set(
            xlabel="probability of the central interval", ylabel="fraction of the rows inside"
        )
        return self
