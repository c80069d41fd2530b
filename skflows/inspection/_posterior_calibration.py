"""Calibration of conditional densities of any number of outputs: ranks, and expected coverage."""

from typing import TYPE_CHECKING, Self

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch, check_random_state

from ..columns.arrays import check_integer
from ..columns.types import RandomState, Table
from ._common import (
    MODEL_COLOR,
    check_estimator_method,
    check_matplotlib,
    panel_grid,
    plot_shares,
    uniform_panel,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def posterior_calibration(
    estimator: BaseEstimator,
    X: Table,
    y: Table,
    *,
    n_samples: int = 200,
    random_state: RandomState = 0,
) -> Bunch:
    """Compare pairs of X and y with draws of y given X.

    In simulation-based inference, y are the parameters and X the simulated data. If the density is
    right, all numbers are uniform between 0 and 1. The ranks of simulation-based calibration test
    each output alone; the credibilities (tests of accuracy with random points, TARP) test all
    outputs together: they see wrong dependence too, but small shifts less well than ranks do. The
    random point is one more draw.

    Parameters
    ----------
    estimator : ConditionalDensity or FlowRegressor
        Fitted, or any fitted estimator with ``sample(X, n_samples, random_state=...)`` that returns
        an array of shape (n_rows, n_samples, n_outputs).

    X : array-like of shape (n_rows, n_features)
        New rows, which were not used in the fit.

    y : array-like of shape (n_rows,) or (n_rows, n_outputs)
        Their outputs.

    n_samples : int, default=200
        Number of draws for each row.

    random_state : int, RandomState instance or None, default=0
        Seeds the draws and the order of equal values.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        With these attributes:

        ranks : ndarray of shape (n_rows, n_outputs)
            ``(below + u * (equal + 1)) / (n_samples + 1)``, where draws are below y or equal to it,
            and u is random between 0 and 1: uniform if y is distributed as its draws.
        credibility : ndarray of shape (n_rows,)
            Rank of the distance between y and a random point among the distances of the draws.
            A region around the random point that holds this share of the draws just contains y.
        rank_p_values : ndarray of shape (n_outputs,)
            P-value of a Kolmogorov-Smirnov test that the ranks of an output are uniform.
        coverage_p_value : float
            P-value of the same test of the credibilities.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari & Gelman, "Validating Bayesian Inference Algorithms with
    Simulation-Based Calibration", 2018.

    Lemos, Coogan, Hezaveh & Perreault-Levasseur, "Sampling-Based Accuracy Testing of Posterior
    Estimators for General Inference", 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows import ConditionalDensity, NSFDensity
    >>> from skflows.inspection import posterior_calibration
    >>> rng = np.random.default_rng(0)
    >>> y = rng.standard_normal((400, 2))
    >>> X = y + rng.standard_normal((400, 2))
    >>> density = ConditionalDensity(NSFDensity(max_iter=5)).fit(X[:200], y[:200])
    >>> result = posterior_calibration(density, X[200:], y[200:])
    >>> result.ranks.shape, result.credibility.shape
    ((200, 2), (200,))
    """
    estimator = getattr(estimator, "density_", estimator)
    check_estimator_method(estimator, "sample")
    check_integer("n_samples", n_samples)
    random_state = check_random_state(random_state)
    Y = np.asarray(y, dtype=np.float64)
    Y = Y.reshape(len(Y), -1)
    draws = np.asarray(estimator.sample(X, n_samples + 1, random_state=random_state))
    expected = (len(Y), n_samples + 1, Y.shape[1])
    if draws.shape != expected:
        raise ValueError(
            f"The draws have the shape {draws.shape}, but y, of shape {np.shape(y)}, needs "
            f"{expected}: give the outputs of the fit, one row for each row of X."
        )
    scale = Y.std(axis=0)
    scale[scale == 0] = 1.0
    # Points among the draws show more than points far away, from which all errors look alike.
    points, draws = draws[:, 0], draws[:, 1:]
    distance = np.linalg.norm((Y - points) / scale, axis=1)
    of_draws = np.linalg.norm((draws - points[:, None]) / scale, axis=2)
    ranks = ranks_among(draws, Y, random_state)
    credibility = ranks_among(of_draws[:, :, None], distance[:, None], random_state)[:, 0]
    return Bunch(
        ranks=ranks,
        credibility=credibility,
        rank_p_values=np.array([stats.kstest(column, "uniform").pvalue for column in ranks.T]),
        coverage_p_value=float(stats.kstest(credibility, "uniform").pvalue),
    )


def ranks_among(draws, values, random_state):
    """Return ranks of values among their draws that are uniform if both have one distribution.

    Parameters
    ----------
    draws : ndarray of shape (n_rows, n_samples, n_outputs)
        The draws.
    values : ndarray of shape (n_rows, n_outputs)
        The values, which are placed at random among draws that equal them.
    random_state : RandomState
        Seeds this place, and the place between two draws.
    """
    below = (draws < values[:, None]).sum(axis=1)
    equal = (draws == values[:, None]).sum(axis=1)
    place = random_state.uniform(size=values.shape)
    return (below + place * (equal + 1)) / (draws.shape[1] + 1)


class PosteriorCalibrationDisplay:
    """Ranks of y among draws from a conditional density, and the coverage of its regions.

    If the density is right, the distribution functions of the ranks (one for each output) and of
    the credibilities follow the diagonal, within bands that hold 95 % of such samples at each
    point. Ranks: a curve above the diagonal on the left and below it on the right means that the
    density is too narrow, the reverse that it is too wide, and a curve on one side that it is
    shifted. Coverage: a curve below the diagonal means that regions hold
    less than they promise.

    It is recommended to use :meth:`from_estimator` to create a
    :class:`PosteriorCalibrationDisplay`.

    Parameters
    ----------
    ranks : ndarray of shape (n_rows, n_outputs)
        The ranks, by :func:`posterior_calibration`.

    credibility : ndarray of shape (n_rows,)
        The credibilities, by the same function.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        Distribution function of the ranks of each output.

    coverage_line_ : matplotlib Line2D
        Expected coverage: fraction of the rows whose credibility is at most each value.

    axes_ : ndarray of matplotlib Axes of shape (2,)
        Axes with the ranks and the coverage.

    figure_ : matplotlib Figure
        Figure containing the axes.

    See Also
    --------
    posterior_calibration : The numbers, without a plot.
    PredictiveCalibrationDisplay : Calibration for a single output, without draws.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows import ConditionalDensity, NSFDensity
    >>> from skflows.inspection import PosteriorCalibrationDisplay
    >>> rng = np.random.default_rng(0)
    >>> y = rng.standard_normal((400, 2))
    >>> X = y + rng.standard_normal((400, 2))
    >>> density = ConditionalDensity(NSFDensity(max_iter=5)).fit(X[:200], y[:200])
    >>> display = PosteriorCalibrationDisplay.from_estimator(density, X[200:], y[200:])
    >>> len(display.lines_)
    2
    """

    def __init__(self, *, ranks, credibility):
        self.ranks = ranks
        self.credibility = credibility

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        y: Table,
        *,
        n_samples: int = 200,
        random_state: RandomState = 0,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw from a density at new rows, compare, and plot.

        Parameters
        ----------
        estimator : ConditionalDensity or FlowRegressor
            A fitted conditional density.

        X : array-like of shape (n_rows, n_features)
            New rows, which were not used in the fit.

        y : array-like of shape (n_rows,) or (n_rows, n_outputs)
            Their outputs.

        n_samples : int, default=200
            Number of draws for each row.

        random_state : int, RandomState instance or None, default=0
            Seeds the draws and the order of equal values.

        ax : matplotlib Axes, default=None
            Axes to divide into two. If None, a new figure is created.

        Returns
        -------
        display : PosteriorCalibrationDisplay
            The display that stores the ranks and the credibilities.

        Raises
        ------
        AttributeError
            If the estimator has no `sample`.
        ValueError
            If y is not what the estimator draws.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        result = posterior_calibration(
            estimator, X, y, n_samples=n_samples, random_state=random_state
        )
        return cls(ranks=result.ranks, credibility=result.credibility).plot(ax=ax)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the distribution functions of the ranks and of the credibilities.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to divide into two. If None, a new figure is created.

        Returns
        -------
        display : PosteriorCalibrationDisplay
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
        for panel in self.axes_:
            uniform_panel(panel, len(self.ranks))
        self.lines_ = [
            plot_shares(left, ranks, label=f"output {j}") for j, ranks in enumerate(self.ranks.T)
        ]
        if len(self.lines_) <= 10:
            left.legend(fontsize="small", frameon=False)
        left.set(xlabel="rank of y among draws", ylabel="fraction of the rows")
        self.coverage_line_ = plot_shares(right, self.credibility, color=MODEL_COLOR)
        right.set(xlabel="credibility of the region", ylabel="fraction of the rows inside")
        return self
