"""Displays of predicted distributions."""

from datetime import datetime
from itertools import accumulate

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.integrate import trapezoid
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression
from test_conditional import heteroscedastic, quick, table
from test_output_distributions import Normals

from skflows import ConditionalDensity, FlowRegressor
from skflows.columns.lattice import Grid
from skflows.distribution.distribution import distribution_of
from skflows.inspection import (
    ConditionalDensityDisplay,
    PosteriorCalibrationDisplay,
    PredictiveBandsDisplay,
    PredictiveCalibrationDisplay,
    posterior_calibration,
)
from skflows.inspection._conditional_density import N_BINS, _curves, _most_probable
from skflows.inspection._predictive_bands import _along, name_of


@pytest.fixture(scope="module")
def fitted():
    X, y = heteroscedastic(400)
    density = ConditionalDensity(quick(), cv=None)
    return FlowRegressor(density, calibration=None, random_state=0).fit(X, y)


def test_bands(fitted):
    X, y = heteroscedastic(100, seed=1)
    series = pd.Series(y, name="price")
    display = PredictiveBandsDisplay.from_estimator(fitted, X, y=series, grid_resolution=9)
    assert display.grid[0] == X.min() and display.grid[-1] == X.max()
    distribution = fitted.predict_distribution(display.grid[:, None])
    assert np.allclose(display.line_.get_ydata(), distribution.ppf(0.5))
    assert list(display.bands) == [0.9, 0.5]
    assert np.allclose(display.bands[0.5], distribution.ppf([[0.25], [0.75]]))
    assert np.array_equal(display.scatter_.get_offsets()[:, 1], y)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("x0", "price")
    assert display.ax_.get_title() == ""  # there are no other columns
    figure, ax = plt.subplots()
    assert display.plot(ax=ax).figure_ is figure


def test_bands_hold_other_columns_fixed():
    X, y = table()
    density = ConditionalDensity(quick(2), cv=None, random_state=0).fit(X, y)
    display = PredictiveBandsDisplay.from_estimator(density, X, "gaps", grid_resolution=3)
    assert display.feature_name == "gaps"
    assert display.ax_.get_title().startswith("4 other columns at the median")
    assert display.scatter_ is None
    rows = pd.DataFrame({"number": X["number"].median(), "gaps": display.grid})
    for name in ("few", "many", "kind"):
        rows[name] = X[name].mode().iloc[0]
    rows["kind"] = rows["kind"].astype(X["kind"].dtype)
    few = X["few"].value_counts().index[0]
    expected = density.predict_distribution(rows.assign(few=few)).median()
    assert np.allclose(display.median, expected)
    with pytest.raises(ValueError, match="not a column of numbers"):
        PredictiveBandsDisplay.from_estimator(density, X, "few")
    with pytest.raises(ValueError, match="not a column of X"):
        PredictiveBandsDisplay.from_estimator(density, X, "other")


def test_categories_of_integers_are_held_at_the_most_frequent():
    X = pd.DataFrame({"x": np.arange(5.0), "kind": pd.Categorical([0, 0, 1, 3, 4])})
    rows, grid, x, name = _along(X, np.int64(0), 3)
    assert (name, grid.tolist(), x.tolist()) == ("x", [0, 2, 4], [0, 1, 2, 3, 4])
    assert rows["kind"].tolist() == [0, 0, 0]
    assert rows["kind"].dtype == X["kind"].dtype


def test_numbers_of_any_dtype_are_held_at_the_median():
    pa = pytest.importorskip("pyarrow")
    table = pd.DataFrame(
        {
            "x": np.arange(5.0),
            "gaps": pd.array([1, 1, 2, 9, None], dtype="Int64"),
            "arrow": pd.Series([1, 1, 2, 9, None], dtype=pd.ArrowDtype(pa.int64())),
        }
    )
    rows = _along(table, "x", 3)[0]
    assert rows["gaps"].tolist() == rows["arrow"].tolist() == [1.5] * 3
    assert _along(table, "gaps", 3)[0]["gaps"].tolist() == [1, 5, 9]
    with pytest.raises(ValueError, match="column 'x' holds 1152921504606846977"):
        _along(table.assign(x=2**60 + np.arange(5)), "gaps", 3)


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_rows_along_a_feature_have_the_columns_of_the_table(library):
    at = [datetime(2024, 1, day) for day in (1, 2, 8)]
    table = library(
        {"n": [1, 2, 4], "at": at, "flag": [True, True, False], "kind": ["b", "a", "b"]}
    )
    rows = _along(table, "n", 4)[0]
    expected = {"n": [1.0, 2.0, 3.0, 4.0], "at": [at[1]] * 4, "flag": [True] * 4, "kind": ["b"] * 4}
    assert {name: list(rows[name]) for name in rows.columns} == expected
    density = ConditionalDensity(quick(1), cv=None, random_state=0)
    density.fit(library({name: [*table[name]] * 20 for name in table.columns}), np.arange(60.0))
    assert density.predict_distribution(rows).median().shape == (4,)


def test_rows_along_a_feature_of_an_array():
    rows, grid, _, name = _along(np.array([[0, 1], [4, 1], [1, 3]]), 0, 3)
    assert rows.tolist() == [[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]
    assert name == 0 and np.array_equal(rows[:, 0], grid)


def test_name_of_what_is_shown():
    y = np.zeros(2)
    for given in (pd.Series(y, name="name"), pd.DataFrame({"name": y}), pl.DataFrame({"name": y})):
        assert name_of(given) == "name"
    assert name_of(y) == name_of(pd.Series(y)) == "y"


def test_calibration(fitted):
    X, y = heteroscedastic(300, seed=1)
    display = PredictiveCalibrationDisplay.from_estimator(fitted, X, y)
    assert np.allclose(display.pit, fitted.predict_distribution(X).cdf(y))
    heights = [bar.get_height() for bar in display.bars_]
    assert np.isclose(np.mean(heights), 1)
    low, high = fitted.predict_distribution(X).interval(0.7)
    inside = ((low <= y) & (y <= high)).mean()
    levels, coverage = display.line_.get_data()
    assert np.isclose(np.interp(0.7, levels, coverage), inside, atol=0.02)


def test_calibration_of_whole_numbers_is_spread_over_their_probability():
    X, y = heteroscedastic(300)
    y = np.rint(y)
    density = ConditionalDensity(quick(), cv=None, random_state=0).fit(X, y)
    display = PredictiveCalibrationDisplay.from_estimator(density, X, y)
    distribution = density.predict_distribution(X)
    assert (display.pit <= distribution.cdf(y) + 1e-9).all()
    assert (display.pit >= distribution.cdf(y - 1) - 1e-6).all()
    assert len(np.unique(display.pit)) == 300


class Drawing(BaseEstimator):
    def fit(self, X, y):
        return self

    def __sklearn_is_fitted__(self):
        return True


class Normal(Drawing):
    """Draws of two outputs around x, with correlated errors of unit variance."""

    def __init__(self, *, width=1.0, shift=0.0, correlation=0.9):
        self.width, self.shift, self.correlation = width, shift, correlation

    def sample(self, X, n_samples, random_state):
        noise = random_state.standard_normal((len(X), n_samples, 2))
        rest = np.sqrt(1 - self.correlation**2)
        noise[..., 1] = self.correlation * noise[..., 0] + rest * noise[..., 1]
        return X[:, None] + self.shift + self.width * noise


X_NORMAL = np.random.RandomState(0).uniform(-1, 1, (1000, 2))
Y_NORMAL = Normal().sample(X_NORMAL, 1, np.random.RandomState(1))[:, 0]


@pytest.mark.parametrize(
    ("density", "ranks_differ", "coverage_differs"),
    [
        (Normal(), False, False),
        (Normal(width=0.7), True, True),
        (Normal(width=1.4), True, True),
        (Normal(shift=0.3), True, None),  # which single outputs show best
        (Normal(correlation=0.0), False, True),  # which no single output shows
    ],
)
def test_posterior_calibration_of_a_known_normal(density, ranks_differ, coverage_differs):
    result = posterior_calibration(density, X_NORMAL, Y_NORMAL, n_samples=100)
    assert ((result.rank_p_values < 0.001) == ranks_differ).all()
    assert ranks_differ or (result.rank_p_values > 0.01).all()
    if coverage_differs is not None:
        assert (result.coverage_p_value < 0.001) == coverage_differs


def test_posterior_calibration_counts_draws_and_splits_ties():
    class Fixed(Drawing):
        def sample(self, X, n_samples, random_state):
            return np.tile([9.0, 0.0, 1.0, 1.0, 2.0], (len(X), 1))[:, :, None]

    X = np.zeros((3000, 1))
    ranks = posterior_calibration(Fixed(), X, np.repeat([1.0, 3.0, -1.0], 1000), n_samples=4).ranks
    ties, above, below = ranks[:, 0].reshape(3, 1000)
    for found, low, high in [(ties, 0.2, 0.8), (above, 0.8, 1.0), (below, 0.0, 0.2)]:
        assert low <= found.min() < low + 0.01 and high - 0.01 < found.max() <= high
    with pytest.raises(ValueError, match=r"needs \(3000, 5, 2\)"):
        posterior_calibration(Fixed(), X, np.zeros((3000, 2)), n_samples=4)


def test_posterior_calibration_display(fitted):
    X, y = heteroscedastic(200, seed=1)
    display = PosteriorCalibrationDisplay.from_estimator(fitted, X, y, n_samples=50)
    result = posterior_calibration(fitted.density_, X, y, n_samples=50)
    assert np.array_equal(display.ranks, result.ranks)
    levels, shares = display.lines_[0].get_data()
    assert np.isclose(np.interp(0.5, levels, shares), (result.ranks <= 0.5).mean())
    levels, shares = display.coverage_line_.get_data()
    assert np.isclose(np.interp(0.9, levels, shares), (result.credibility <= 0.9).mean())
    # Of one output, the ranks among many draws are nearly the probability below y.
    assert np.abs(result.ranks[:, 0] - fitted.predict_distribution(X).cdf(y)).max() < 0.3
    with pytest.raises(AttributeError, match="sample"):
        PosteriorCalibrationDisplay.from_estimator(LinearRegression().fit(X, y), X, y)


def test_density_at_rows(fitted):
    X, y = heteroscedastic(3, seed=1)
    display = ConditionalDensityDisplay.from_estimator(fitted, X, y=y, grid_resolution=50)
    assert display.density.shape == (50, 3)
    assert np.allclose(trapezoid(display.density, display.grid, axis=0), 1, atol=0.02)
    assert len(display.axes_) == 3
    assert display.axes_[0].get_xlabel() == "y"
    with pytest.raises(ValueError, match="column='x' is for a TableDensity"):
        ConditionalDensityDisplay.from_estimator(fitted, X, column="x")
    with pytest.raises(ValueError, match="6 at most"):
        ConditionalDensityDisplay.from_estimator(fitted, np.zeros((7, 1)))
    X, y = heteroscedastic(200)
    counts = ConditionalDensity(quick(2), cv=None, random_state=0).fit(X, np.rint(y))
    display = ConditionalDensityDisplay.from_estimator(counts, X[:1])
    assert np.array_equal(display.grid, np.rint(display.grid))
    assert np.isclose(display.density.sum(), 1, atol=0.01)
    # Many values are binned, and the axis has the name of y in fit.
    prices = pd.Series(np.rint(1000 * y), name="price")
    regressor = FlowRegressor(ConditionalDensity(quick(2), cv=None), calibration=None)
    display = ConditionalDensityDisplay.from_estimator(regressor.fit(X, prices), X[:2])
    ends = ends_of_bins(regressor.predict_distribution(X[:2]), display.grid)
    assert display.axes_[0].get_xlabel() == "price"
    assert N_BINS / 2 < len(display.grid) <= N_BINS and display.density.shape[1] == 2
    assert np.allclose(np.diff(ends) @ display.density, 1, atol=0.01)


def ends_of_bins(distribution, centres):
    """Return the ends of bins, each of which ends where the next one starts."""
    values = distribution.support
    first = np.searchsorted(values, distribution._limits(1e-3)[0])
    start = values[first] - np.diff(values)[max(first - 1, 0)] / 2
    return [*accumulate(centres, lambda end, centre: 2 * centre - end, initial=start)]


@pytest.mark.parametrize(
    ("mean", "top", "period", "atoms"),
    [
        (0.0, 600, np.inf, []),  # about half of the probability is at 0
        (300.0, 600, np.inf, []),
        (300.0, 600, np.inf, [300.0]),
        (20.0, 1439, 1440.0, []),  # minutes of a day
    ],
)
def test_bins_of_whole_numbers_hold_what_their_values_do(mean, top, period, atoms):
    source = Normals(mean, 60.0, [Grid(np.arange(top + 1.0), True, 1.0)], [period])
    distribution = distribution_of(source)
    drawn = _curves(distribution, 200, np.array(atoms))
    values = distribution.support
    low, high = distribution._limits(1e-3)
    values = values[(low <= values) & (values <= high)]
    centres = np.sort([*drawn["grid"], *atoms])
    ends = ends_of_bins(distribution, centres)
    assert ends[-1] == values[-1] + 0.5
    widths, mass = np.diff(ends), distribution.pmf(values[:, None])
    # Each bin has as many values, except the last one, an atom and the bins at its sides.
    assert (widths == widths[0]).sum() >= len(widths) - 1 - 3 * len(atoms)
    kept = ~np.isin(centres, atoms)
    of_bins = np.add.reduceat(mass, np.searchsorted(values, ends[:-1]))
    np.testing.assert_allclose((drawn["density"].T * widths[kept]).T, of_bins[kept], atol=1e-9)


@pytest.mark.parametrize("atoms", [[], [500.0]])
def test_densities_of_rounded_numbers_have_no_spikes(atoms):
    """Uniform on the whole numbers below 1000, with an atom, which is left out."""

    class Rounded:
        is_discrete = False
        _limits = staticmethod(lambda tail: (0.0, 1000.0))
        cdf = staticmethod(lambda y: (np.floor(y) + (y >= 500) * 100 * len(atoms)) / 1100)

    drawn = _curves(Rounded, 40, np.array(atoms))
    assert len(drawn["grid"]) == 40
    np.testing.assert_allclose(drawn["density"], 1 / 1100, rtol=0.05)


def test_the_most_probable_of_many_categories_are_drawn():
    names = np.array([f"category {i:02}" for i in range(30)], dtype=object)
    proba = np.eye(30)[:, [25, 3]] * 0.5 + 0.5 / 30
    grid, density = _most_probable(names, proba)
    assert len(grid) == 20 and {names[25], names[3]} < {*grid} and grid[-1] == "11 others"
    np.testing.assert_allclose(density.sum(axis=0), 1)
    display = ConditionalDensityDisplay(
        grid=grid, density=density, is_discrete=True, y=np.array([names[3], names[29]])
    ).plot()
    marks = [line.get_xdata()[0] for panel in display.axes_ for line in panel.lines]
    assert marks == [list(grid).index(names[3]), 19]
    legends = [panel.get_legend() for panel in display.axes_]
    assert legends[0].get_texts()[0].get_text() == "observed" and legends[1] is None
    display.grid, display.density = grid[:-1], density[:-1]
    marks = [len(panel.lines) for panel in display.plot().axes_]
    assert marks == [1, 0]  # no bar of the others


@pytest.mark.parametrize(
    "display",
    [ConditionalDensityDisplay, PredictiveBandsDisplay, PredictiveCalibrationDisplay],
)
def test_estimators_that_cannot_be_shown(display):
    X, y = heteroscedastic(60)
    arguments = (X, y) if display is PredictiveCalibrationDisplay else (X,)
    with pytest.raises(AttributeError, match="predict_distribution"):
        display.from_estimator(LinearRegression().fit(X, y), *arguments)
    both = ConditionalDensity(quick(1), cv=None, random_state=0).fit(X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match="y has 2 columns"):
        display.from_estimator(both, *arguments)
