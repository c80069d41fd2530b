"""Predicted density of y at single rows."""

import numpy as np

from ._common import (
    DATA_COLOR,
    MAX_PANELS,
    MODEL_COLOR,
    check_estimator_method,
    check_integer,
    check_matplotlib,
    panel_grid,
)
from ._predictive_bands import check_single_output

TAIL = 1e-3  # probability beyond each end of the picture
MAX_STEMS = 200


class ConditionalDensityDisplay:
    """Density of y at each of a few rows of X, with what was observed.

    A discrete y has its probabilities in place of a density.

    It is recommended to use :meth:`from_estimator` to create a :class:`ConditionalDensityDisplay`.

    Parameters
    ----------
    grid : ndarray of shape (n_points,)
        Values of y.

    density : ndarray of shape (n_points, n_rows)
        Density, or probability, at each value for each row.

    is_discrete : bool, default=False
        Whether they are probabilities.

    y : ndarray of shape (n_rows,), default=None
        The observed values.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (n_rows,)
        Axes of each row.

    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows import ConditionalDensity, NSFDensity
    >>> from skflows.inspection import ConditionalDensityDisplay
    >>> X, y = np.random.default_rng(0).standard_normal((2, 200, 1))
    >>> density = ConditionalDensity(NSFDensity(max_iter=5)).fit(X, y)
    >>> display = ConditionalDensityDisplay.from_estimator(density, X[:2], y=y[:2])
    >>> display.density.shape
    (200, 2)
    """

    def __init__(self, *, grid, density, is_discrete=False, y=None):
        self.grid = grid
        self.density = density
        self.is_discrete = is_discrete
        self.y = y

    @classmethod
    def from_estimator(cls, estimator, X, *, y=None, grid_resolution=200, ax=None):
        """Compute the density at rows, and draw.

        Parameters
        ----------
        estimator : FlowRegressor or ConditionalDensity
            Fitted to a single output.

        X : array-like of shape (n_rows, n_features)
            From one to six rows.

        y : array-like of shape (n_rows,), default=None
            The observed values, which are then marked.

        grid_resolution : int, default=200
            Number of values of y, unless it is discrete.

        ax : matplotlib Axes, default=None
            Axes to divide, with a panel for each row. If None, a new figure is created.

        Returns
        -------
        display : ConditionalDensityDisplay
            The display that stores the densities.

        Raises
        ------
        AttributeError
            If the estimator has no `predict_distribution`.
        ValueError
            If there are several outputs, or more than six rows.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "predict_distribution")
        check_integer("grid_resolution", grid_resolution, 2)
        check_single_output(estimator)
        distribution = estimator.predict_distribution(X)
        if len(distribution) > MAX_PANELS:
            raise ValueError(
                f"X has {len(distribution)} rows; a picture shows {MAX_PANELS} at most."
            )
        low, high = distribution._limits(TAIL)
        is_discrete = distribution.is_discrete
        if is_discrete:
            grid = distribution.support
            grid = grid[(low <= grid) & (grid <= high)]
            grid = grid[:: -(-len(grid) // MAX_STEMS)]
        else:
            grid = np.linspace(low, high, grid_resolution)
        compute = distribution.pmf if is_discrete else distribution.pdf
        return cls(
            grid=grid,
            density=compute(grid[:, None]),
            is_discrete=is_discrete,
            y=None if y is None else np.ravel(y).astype(float),
        ).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the densities.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to divide, with a panel for each row. If None, a new figure is created.

        Returns
        -------
        display : ConditionalDensityDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        n_rows = self.density.shape[1]
        n_columns = min(n_rows, 3)
        grid, self.figure_ = panel_grid(plt, ax, -(-n_rows // n_columns), n_columns, 3.0)
        panels = []
        for i in range(n_rows):
            panel = self.figure_.add_subplot(
                grid[divmod(i, n_columns)], sharex=panels[0] if panels else None
            )
            panels.append(panel)
            if self.is_discrete:
                panel.vlines(self.grid, 0, self.density[:, i], color=MODEL_COLOR, linewidth=2)
            else:
                panel.plot(self.grid, self.density[:, i], color=MODEL_COLOR)
                panel.fill_between(self.grid, self.density[:, i], color=MODEL_COLOR, alpha=0.2)
            if self.y is not None:
                panel.axvline(self.y[i], color=DATA_COLOR, linestyle="--")
            panel.set(title=f"row {i}", xlabel="y", ylim=(0, None))
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel("probability" if self.is_discrete else "density")
        self.axes_ = np.array(panels)
        return self
