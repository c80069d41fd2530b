"""Predicted density of y, or of a column of a table, at single rows."""

import re
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..columns.arrays import check_integer, is_missing
from ..columns.types import Table
from ..table import TableDensity
from ._common import (
    DATA_COLOR,
    MAX_PANELS,
    MODEL_COLOR,
    check_estimator_method,
    check_matplotlib,
    panel_grid,
    shorten,
)
from ._predictive_bands import check_single_output, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


TAIL = 1e-3  # probability beyond each end of the picture
MAX_STEMS, N_BINS = 60, 40  # with more values of a discrete y, bins are drawn
MAX_NAMES = 20  # of categories, with one for the others


class ConditionalDensityDisplay:
    """Density of y at each of a few rows of X, with what was observed.

    A density is drawn by its means in the cells of a grid. For a discrete y, probabilities are
    drawn instead or, if it has many values, the mean density of bins. Of more than 20 categories,
    the probable ones are drawn, and the others share a bar. For a `skflows.TableDensity`, y
    is one of the columns, given the known values of the others.

    It is recommended to use :meth:`from_estimator` to create a :class:`ConditionalDensityDisplay`.

    Parameters
    ----------
    grid : ndarray of shape (n_points,)
        Values of y: numbers or categories.

    density : ndarray of shape (n_points, n_rows)
        Mean density of the cell around each value, or its probability, for each row.

    is_discrete : bool, default=False
        Whether they are probabilities.

    y : ndarray of shape (n_rows,), default=None
        The observed values. NaN or None is unknown.

    name : str, default="y"
        Name of y.

    atoms : dict of float to ndarray of shape (n_rows,), default=None
        Values with a probability of their own, which the density leaves out, and this probability
        for each row. They stand above the panels.

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

    def __init__(self, *, grid, density, is_discrete=False, y=None, name="y", atoms=None):
        self.grid = grid
        self.density = density
        self.is_discrete = is_discrete
        self.y = y
        self.name = name
        self.atoms = atoms

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table,
        *,
        column: int | str | None = None,
        y: Table | None = None,
        grid_resolution: int = 200,
        ax: "Axes | None" = None,
    ) -> Self:
        """Compute the density at rows, and draw.

        Parameters
        ----------
        estimator : FlowRegressor, ConditionalDensity or TableDensity
            Fitted to a single output, or to a table.

        X : array-like of shape (n_rows, n_features)
            From one to six rows. Rows of a table may have missing values.

        column : str or int, default=None
            The column of a table whose density is drawn, given the others: numbers, categories or
            listed values. The value in X is marked. A value of a number with a probability of
            its own, such as a fee of 0, is left out of the density, and named above it.

        y : array-like of shape (n_rows,), default=None
            The observed values, which are then marked. The axes have the name of a Series, or
            the name of y in `fit`. For a table, they are in X.

        grid_resolution : int, default=200
            Number of cells, unless y is discrete.

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
            If there are several outputs or more than six rows, or if the column is unknown, not
            given for a table, or given for another density.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_integer("grid_resolution", grid_resolution, 2)
        if isinstance(estimator, TableDensity):
            if y is not None:
                raise ValueError("y is for a single output; a table has the observed values in X.")
            fields = _column_of_table(estimator, X, column, grid_resolution)
        else:
            if column is not None:
                raise ValueError(
                    f"column={column!r} is for a TableDensity; {type(estimator).__name__} has a "
                    "single output."
                )
            fields = _output(estimator, X, grid_resolution)
            names = getattr(estimator, "output_names_", None) if y is None else None
            name = name_of(y) if names is None else names[0]
            fields |= {"y": None if y is None else np.ravel(y), "name": name}
        return cls(**fields).plot(ax=ax)

    def plot(self, ax: "Axes | None" = None) -> Self:
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
        panels: list = []
        for i in range(n_rows):
            panel = self.figure_.add_subplot(
                grid[divmod(i, n_columns)], sharex=panels[0] if panels else None
            )
            panels.append(panel)
            if self.grid.dtype == object:
                names = [shorten(name) for name in self.grid]
                panel.bar(range(len(names)), self.density[:, i], color=MODEL_COLOR)
                panel.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
            elif self.is_discrete:
                panel.vlines(self.grid, 0, self.density[:, i], color=MODEL_COLOR, linewidth=2)
            else:
                panel.plot(self.grid, self.density[:, i], color=MODEL_COLOR)
                panel.fill_between(self.grid, self.density[:, i], color=MODEL_COLOR, alpha=0.2)
            if self.grid.dtype != object:
                panel.locator_params(axis="x", nbins=4)
            if self.y is not None and not is_missing(self.y[i]):
                style = {"color": DATA_COLOR, "linestyle": "--"}
                for place in self._places(self.y[i]):
                    panel.axvline(place, label="observed", **style)
            atoms = [f"\nexactly {x:.6g}: {p[i]:.0%}" for x, p in (self.atoms or {}).items()]
            panel.set(title="".join([f"row {i}", *atoms]), xlabel=self.name, ylim=(0, None))
            panel.spines[["top", "right"]].set_visible(False)
        if marked := [panel for panel in panels if panel.get_legend_handles_labels()[1]]:
            marked[0].legend(fontsize="small", frameon=False)
        panels[0].set_ylabel("probability" if self.is_discrete else "density")
        self.axes_ = np.array(panels)
        return self

    def _places(self, y):
        """Return where an observed value is on the axis: one place, or none without its bar."""
        if self.grid.dtype != object:
            return [y]
        places = np.flatnonzero(self.grid == y)
        if not len(places) and re.fullmatch(r"\d+ others", self.grid[-1]):
            return [len(self.grid) - 1]
        return places


def _output(estimator, X, grid_resolution):
    """Return the densities of a single output."""
    check_estimator_method(estimator, "predict_distribution")
    check_single_output(estimator)
    distribution = estimator.predict_distribution(X)
    _check_few(len(distribution))
    return _curves(distribution, grid_resolution)


def _column_of_table(density, X, column, grid_resolution):
    """Return the densities of a column of a table, given the others."""
    check_is_fitted(density)
    schema = density._schema
    if column is None:
        raise ValueError(f"A TableDensity needs column: one of {schema.names}.")
    density._check_names([column], "column")
    i = schema.names.index(column)
    model, part = schema.columns[i], schema.columns[i].value_variables[0]
    if model.kind == "datetime":
        raise ValueError(
            f"column {column!r} is datetime, without a density of numbers to draw; use "
            "TableDensity.quantile."
        )
    rows, _ = density._some_columns(X)
    _check_few(len(rows))
    variables = rows[:, schema.of_column[i]]
    y, values = np.full(len(rows), None), model.joined(variables)
    known = ~np.isnan(values) & ~model.is_unseen(variables)
    y[known] = schema.encoding.named(schema.places[i], values[known])
    fields: dict[str, Any] = {"name": str(column), "y": y}
    if model.is_levels:
        grid = np.array(levels := density.levels(column))
        if grid.dtype.kind != "f":  # names of categories
            grid = np.array([str(level) for level in levels], dtype=object)
            # Of a rare category, the bar is the last one, "(rare)".
            names = [value if value is None else str(value) for value in y]
            names = [name if name is None or name in grid else grid[-1] for name in names]
            fields["y"] = np.array(names)
        proba = density.predict_proba(column, X).T
        if grid.dtype == object and len(grid) > MAX_NAMES:
            grid, proba = _most_probable(grid, proba)
        return fields | {"grid": grid, "density": proba, "is_discrete": True}
    distribution = density.predict_distribution(column, X)
    fields["atoms"] = {atom: _probability(distribution, atom) for atom in part.atoms.tolist()}
    return fields | _curves(distribution, grid_resolution, part.atoms)


def _probability(distribution, atom):
    """Return the probability of an atom in each row."""
    if distribution.is_discrete:
        return distribution.pmf(atom)
    return distribution.cdf(atom) - distribution.cdf(np.nextafter(atom, -np.inf))


def _most_probable(names, proba):
    """Return the most probable categories, and one for the others, with their probabilities."""
    kept = np.zeros(len(names), dtype=bool)
    kept[np.argsort(-proba.max(axis=1), kind="stable")[: MAX_NAMES - 1]] = True
    others = f"{(~kept).sum()} others"
    return np.append(names[kept], others), np.vstack([proba[kept], proba[~kept].sum(axis=0)])


def _curves(distribution, grid_resolution, atoms=()):
    """Return the densities of the rows of a distribution, or the probabilities of some values.

    Atoms are left out.
    """
    low, high = distribution._limits(TAIL)
    if not distribution.is_discrete:
        # Means of cells, because densities of rounded numbers have spikes between their points.
        ends, width = np.linspace(low, high, grid_resolution + 1, retstep=True)
        atoms = np.array([atom for atom in atoms if low < atom < high])
        is_near = (np.abs(ends[:, None] - atoms) < width / 2).any(axis=1)
        ends = np.sort([*ends[~is_near], *atoms])
        below = distribution.cdf(np.nextafter(ends, -np.inf)[1:, None])
        density = (below - distribution.cdf(ends[:-1, None])) / np.diff(ends)[:, None]
        grid = (ends[1:] + ends[:-1]) / 2
        return {"grid": grid, "density": np.maximum(density, 0), "is_discrete": False}
    values = distribution.support
    shown = np.flatnonzero((low <= values) & (values <= high))
    # Bins of as many values each: bins of equal width would alias with the lattice.
    n_together = 1 if len(shown) <= MAX_STEMS else -(-len(shown) // N_BINS)
    is_atom = np.isin(values, atoms)
    apart = shown[is_atom[shown]]  # an atom has a bin of its own
    edges = np.unique([*shown[::n_together], shown[-1] + 1, *apart, *(apart + 1)])
    grid, heights = values[edges[:-1]], distribution._masses(edges).T
    if n_together > 1:
        widths = np.gradient(values)  # of the cells of values
        ends = values[0] - widths[0] / 2 + np.append(0.0, np.cumsum(widths))[edges]
        grid, heights = (ends[1:] + ends[:-1]) / 2, heights / np.diff(ends)[:, None]
    kept = ~is_atom[edges[:-1]]
    return {"grid": grid[kept], "density": heights[kept], "is_discrete": n_together == 1}


def _check_few(n_rows):
    if n_rows > MAX_PANELS:
        raise ValueError(f"X has {n_rows} rows; a picture shows {MAX_PANELS} at most.")
