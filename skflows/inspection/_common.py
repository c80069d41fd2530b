"""Input validation and drawing helpers shared by the displays."""

import numbers
from importlib.util import find_spec

import numpy as np
from scipy import stats
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from ..columns.arrays import check_exact_table, listed
from ..columns.lattice import lattice_of
from ..density._third_party import unfrozen
from ..variational import VariationalDensity

# Blue for data, orange for the model: colour-blind readers can distinguish the two.
DATA_COLOR = "#3f90da"
MODEL_COLOR = "#e76300"
BAND = {"color": DATA_COLOR, "alpha": 0.25, "linewidth": 0}
CONFIDENCE = 0.95  # of bands

# With more dots, a scatter plot becomes slower and darker, but not clearer.
MAX_DOTS = 2000

# With more panels, a figure is unreadable at page size.
MAX_PANELS = 6


def check_matplotlib(caller):
    """Raise an ImportError if matplotlib is not installed, without importing it."""
    if find_spec("matplotlib") is None:
        raise ImportError(
            f"{caller} needs matplotlib, which is not installed: pip install matplotlib"
        )


# Estimators to suggest when a method is missing.
SHOWN = {
    "predict_distribution": "FlowRegressor or ConditionalDensity; for a pipeline, its last step",
    "reconstruct": "PointCloudDensity",
}


def check_estimator_method(estimator, method):
    """Raise an error if ``estimator`` lacks ``method`` or is not fitted."""
    if not hasattr(estimator, method):
        raise AttributeError(
            f"{type(estimator).__name__} has no `{method}` method, which this display calls. "
            f"Pass a fitted {SHOWN.get(method, 'density such as NSFDensity')}."
        )
    check_is_fitted(estimator)


def check_data(estimator, X):
    """Return X as a float64 array, and its column names, after a check against the fit."""
    check_exact_table(X)
    rows = check_array(X, dtype=np.float64, input_name="X")
    name = type(estimator).__name__
    n_features = getattr(estimator, "n_features_in_", rows.shape[1])
    if rows.shape[1] != n_features:
        raise ValueError(
            f"X has {rows.shape[1]} feature(s), but {name} was fitted with {n_features}: "
            "pass the columns it was fitted with."
        )
    fitted_names = getattr(estimator, "feature_names_in_", None)
    if not hasattr(X, "columns"):
        default = [f"x{i}" for i in range(n_features)]
        return rows, default if fitted_names is None else list(fitted_names)
    names = [str(column) for column in X.columns]
    if fitted_names is not None and names != list(fitted_names):
        raise ValueError(
            f"The columns of X are {listed(names)}, but {name} was fitted with "
            f"{listed(fitted_names)}: pass the same columns in the same order."
        )
    return rows, names


def check_labels(y, rows):
    """Return labels of inliers (1) and outliers (-1) as an array, or None."""
    if y is None:
        return None
    y = np.asarray(y)
    if y.shape != (len(rows),):
        raise ValueError(
            f"y has shape {y.shape}, but there are {len(rows)} rows: give one label each."
        )
    if others := set(np.unique(y).tolist()) - {1, -1}:
        raise ValueError(
            f"y contains the labels {listed(sorted(others))}: give 1 for inliers and -1 for "
            "outliers."
        )
    return y


def like_fitted(rows, X, estimator):
    """Return ``rows`` as a DataFrame of X's type if ``estimator`` was fitted with column names."""
    if hasattr(X, "columns") and hasattr(estimator, "feature_names_in_"):
        return type(X)(dict(zip(X.columns, rows.T, strict=True)))
    return rows


def resolve_features(features, names):
    """Return the column indices of ``features``: one or several indices or column names."""
    if isinstance(features, (str, numbers.Integral)):
        features = [features]
    indices = [_index_of(feature, names) for feature in features]
    if not indices:
        raise ValueError(f"features is empty: give at least one of {listed(names)}.")
    for position, index in enumerate(indices):
        if index in indices[:position]:
            raise ValueError(
                f"features={features!r} contains column {names[index]!r} twice: give each column "
                "once."
            )
    return indices


def _index_of(feature, names):
    if isinstance(feature, str):
        if feature in names:
            return names.index(feature)
        raise ValueError(
            f"features contains {feature!r}, which is not a column. The columns are "
            f"{listed(names)}."
        )
    if isinstance(feature, numbers.Integral) and not isinstance(feature, bool):
        if 0 <= int(feature) < len(names):
            return int(feature)
        raise ValueError(
            f"features contains {feature}, but the indices run from 0 to {len(names) - 1}: "
            f"the columns are {listed(names)}."
        )
    raise ValueError(
        f"features contains {feature!r}; give indices (int) or column names (str). "
        f"The columns are {listed(names)}."
    )


def view_limits(values):
    """Return the interval to draw: the central 98 % and a margin.

    The full range would compress the data to a dot if there are outliers.
    """
    low, high = np.percentile(values, [1, 99])
    if low == high:
        low, high = values.min(), values.max()
    margin = 0.25 * (high - low) or abs(low) or 1.0
    return low - margin, high + margin


def thin(rows):
    """Return at most MAX_DOTS evenly spaced rows, the same ones in each call."""
    if len(rows) <= MAX_DOTS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_DOTS).astype(int)]


def histogram(values, edges):
    """Return the heights of a density histogram.

    Rows outside the edges count in the total, so that the heights are comparable with a density.
    """
    return np.histogram(values, edges)[0] / (max(len(values), 1) * np.diff(edges))


def bins(values, limits):
    """Return edges of equal bins that cover ``limits``.

    Bins of rounded numbers hold as many of their steps each: others would alias with the steps.
    """
    # A square-root rule, because NumPy's "auto" makes millions of bins for heavy-tailed columns.
    n_bins = int(np.clip(1.5 * np.sqrt(len(values)), 12, 60))
    edges = np.linspace(limits[0], limits[1], n_bins + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        step_and_decimals = lattice_of(np.unique(values))
    if step_and_decimals is None:
        return edges
    step, _ = step_and_decimals
    width = step * np.ceil((edges[1] - edges[0]) / step)
    start = values.min() - step / 2
    places = (edges[[0, -1]] - start) / width
    return start + width * np.arange(np.floor(places[0]), np.ceil(places[1]) + 1)


def shorten(name, limit=18):
    """Truncate a name to fit the label of a small panel."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def uniform_panel(panel, n):
    """Prepare axes for distribution functions of n numbers that should be uniform.

    The diagonal is what they should be, in a band that holds 95 % of samples at each point.
    """
    points = np.linspace(0, 1, 101)
    low, high = np.array(stats.binom.interval(CONFIDENCE, n, points)) / n
    panel.fill_between(points, low, high, label="95 % if calibrated", **BAND)
    panel.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    panel.set(xlim=(0, 1), ylim=(0, 1))
    panel.spines[["top", "right"]].set_visible(False)


def plot_shares(panel, values, **kwargs):
    """Draw the distribution function of numbers between 0 and 1, and return the line."""
    points = np.linspace(0, 1, 101)
    shares = np.searchsorted(np.sort(values), points, side="right") / len(values)
    return panel.plot(points, shares, **kwargs)[0]


def plane(estimator, rows, indices, names, grid_resolution):
    """Return a grid over some columns, with the other columns fixed at their medians.

    Fixed columns of a simplex are scaled, so that its columns still sum to 1.

    Parameters
    ----------
    estimator : estimator
        The fitted density or detector.
    rows : ndarray of shape (n, d)
        Data that set the range of the grid and the medians.
    indices : list of int, of length k
        Columns of the grid.
    names : list of str, of length d
        Column names.
    grid_resolution : int
        Number of grid points along each axis.

    Returns
    -------
    mesh : list of k ndarrays, each of shape (grid_resolution,) * k
        Coordinates of the grid points.
    grid : ndarray of shape (grid_resolution ** k, d)
        The grid points as rows with all columns.
    fixed : dict of str to float
        Value of each other column that is the same in all rows of the grid, by name.
    """
    limits = [view_limits(rows[:, i]) for i in indices]
    mesh = np.meshgrid(*(np.linspace(low, high, grid_resolution) for low, high in limits))
    medians = np.median(rows, axis=0)
    grid = np.tile(medians, (mesh[0].size, 1))
    for i, coordinate in zip(indices, mesh, strict=True):
        grid[:, i] = coordinate.ravel()
    if isinstance(density := unfrozen(estimator), VariationalDensity):
        grid = density._scaled_to_simplex(grid, indices)
    others = [i for i in range(len(names)) if i not in indices and not np.ptp(grid[:, i])]
    return mesh, grid, {names[i]: grid[0, i] for i in others}


def other_columns(n):
    """Return a text on a number of other columns."""
    return "1 other column" if n == 1 else f"{n} other columns"


def near_medians(rows, fixed, names):
    """Return the indices of the tenth of the rows, at least 20, nearest to a slice by `plane`."""
    indices = [names.index(name) for name in fixed]
    offsets = rows[:, indices] - [fixed[name] for name in fixed]
    scales = np.std(rows[:, indices], axis=0)
    distances = np.linalg.norm(offsets / np.where(scales > 0, scales, 1), axis=1)
    return np.sort(np.argsort(distances, kind="stable")[: max(20, len(rows) // 10)])


def single_axes(plt, ax, size=None):
    """Return ``ax``, or the axes of a new figure if it is None."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def panel_grid(plt, ax, n_rows, n_cols, size):
    """Return a gridspec and its figure: a new figure, or the area of ``ax`` if it is given."""
    if ax is None:
        figure = plt.figure(figsize=(size * n_cols, size * n_rows), layout="constrained")
        return figure.add_gridspec(n_rows, n_cols), figure
    if ax.get_subplotspec() is None:
        raise ValueError(
            "ax was not made by `plt.subplots` or `figure.add_subplot`, so it cannot be divided "
            "into panels: pass such an axes, or ax=None for a new figure."
        )
    ax.set_axis_off()
    return ax.get_subplotspec().subgridspec(n_rows, n_cols), ax.figure
