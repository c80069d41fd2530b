"""Displays of densities, samples, loss curves and latent coordinates."""

import copy
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from _tables import few_components  # noqa: F401 - a fixture
from scipy import stats
from scipy.integrate import trapezoid
from sklearn.datasets import load_iris, load_wine, make_moons
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PowerTransformer, QuantileTransformer

from skflows import CNFDensity, NSFDensity, TableDensity
from skflows.inspection import DensityDisplay, LatentDisplay, LossCurveDisplay, SamplesDisplay
from skflows.inspection._common import bins

NEEDS_X = [DensityDisplay, SamplesDisplay, LatentDisplay]
ALL = [*NEEDS_X, LossCurveDisplay]


@pytest.fixture(scope="module")
def iris():
    return load_iris(as_frame=True).data


@pytest.fixture(scope="module")
def moons():
    return make_moons(200, noise=0.1, random_state=0)[0]


@pytest.fixture(scope="module")
def flow(iris):
    return NSFDensity(
        n_transforms=2, hidden_layer_sizes=(8,), max_iter=6, early_stopping=True, random_state=0
    ).fit(iris)


@pytest.fixture(scope="module")
def mixture(iris):
    return GaussianMixture(3, random_state=0).fit(iris)


def from_estimator(display, estimator, X=None, **kwargs):
    """Call ``from_estimator``, with X if the display requires it."""
    data = () if display is LossCurveDisplay else (X,)
    return display.from_estimator(estimator, *data, **kwargs)


@pytest.mark.parametrize("display", ALL)
def test_plot_draws_on_new_or_given_axes(display, flow, iris):
    features = {"features": [0, 1]} if display in NEEDS_X else {}
    shown = from_estimator(display, flow, iris, **features)
    first = shown.figure_
    first.canvas.draw()
    assert shown.plot() is shown
    assert shown.figure_ is not first

    figure, (left, right) = plt.subplots(1, 2)
    assert shown.plot(ax=right) is shown
    assert shown.figure_ is figure
    figure.canvas.draw()
    panels = shown.axes_.ravel() if hasattr(shown, "axes_") else [shown.ax_]
    middle = left.get_position().x1
    assert all(panel.get_position().x0 > middle for panel in panels if panel is not None)
    assert not left.has_data()


def test_map_is_rasterized_in_vector_files(moons, tmp_path):
    """A vector file with a triangle for each of 10,000 grid points would take megabytes."""
    path = tmp_path / "picture.svg"
    density = KernelDensity(bandwidth=0.2).fit(moons)
    DensityDisplay.from_estimator(density, moons).figure_.savefig(path)
    assert path.stat().st_size < 300_000


# DensityDisplay


def test_density_map_shows_score_samples(moons):
    density = KernelDensity(bandwidth=0.2).fit(moons)
    display = DensityDisplay.from_estimator(density, moons, grid_resolution=15, depth=5)
    grid = np.column_stack([display.xx0.ravel(), display.xx1.ravel()])
    expected = density.score_samples(grid).reshape(15, 15)
    np.testing.assert_array_equal(display.log_density, expected)
    drawn = np.reshape(display.surface_.get_array(), (15, 15))
    np.testing.assert_array_equal(drawn, np.maximum(expected, expected.max() - 5))
    assert display.surface_.get_clim() == (expected.max() - 5, expected.max())
    np.testing.assert_array_equal(display.scatter_.get_offsets(), moons)
    assert display.fixed == {}

    display.plot(scale="density")
    drawn = np.reshape(display.surface_.get_array(), (15, 15))
    np.testing.assert_array_equal(drawn, np.exp(expected))
    assert display.surface_.get_clim()[0] == 0


def test_density_grid_covers_the_data_without_outliers(moons):
    X = np.vstack([moons, [[1e6, 0.0], [0.0, -1e6]]])
    display = DensityDisplay.from_estimator(
        KernelDensity(bandwidth=0.2).fit(X), X, grid_resolution=5
    )
    for grid, column in zip([display.xx0, display.xx1], moons.T, strict=True):
        assert grid.min() < column.min() and column.max() < grid.max()
        assert np.ptp(grid) < 3 * np.ptp(column)
    assert display.ax_.get_xlim() == (display.xx0.min(), display.xx0.max())
    assert display.ax_.get_ylim() == (display.xx1.min(), display.xx1.max())


@pytest.mark.parametrize(
    ("fitted", "features"),
    [
        ("flow", [2, 1]),
        ("mixture", ["petal length (cm)", 1]),
        ("mixture", np.array([2, 1])),
    ],
)
def test_density_slice_fixes_the_other_columns_at_their_medians(fitted, features, iris, request):
    estimator = request.getfixturevalue(fitted)
    display = DensityDisplay.from_estimator(estimator, iris, features=features, grid_resolution=7)
    medians = iris.median()
    assert display.fixed == {
        name: medians[name] for name in ["sepal length (cm)", "petal width (cm)"]
    }
    rows = pd.DataFrame([medians] * 49)
    rows["petal length (cm)"] = display.xx0.ravel()
    rows["sepal width (cm)"] = display.xx1.ravel()
    expected = estimator.score_samples(rows).reshape(7, 7)
    np.testing.assert_allclose(display.log_density, expected, rtol=1e-12)
    assert display.ax_.get_xlabel() == "petal length (cm)"
    assert display.ax_.get_ylabel() == "sepal width (cm)"
    # Dots are the 20 rows that are nearest to the slice.
    offsets = ((iris - medians) / iris.std(ddof=0))[["sepal length (cm)", "petal width (cm)"]]
    near = np.linalg.norm(offsets, axis=1)
    shown = iris[["petal length (cm)", "sepal width (cm)"]][near <= np.sort(near)[19]]
    assert 20 == len(display.X) <= len(shown) < 30
    assert {*map(tuple, display.X)} <= {*map(tuple, shown.to_numpy())}
    assert "nearest" in display.ax_.get_title()


def test_density_curve_of_one_column(iris):
    X = iris[["petal length (cm)"]]
    display = DensityDisplay.from_estimator(
        KernelDensity(bandwidth=0.3).fit(X), X, grid_resolution=200
    )
    display.figure_.canvas.draw()
    x, y = display.surface_.get_data()
    np.testing.assert_array_equal(y, np.exp(display.log_density))
    assert display.ax_.get_xlabel() == "petal length (cm)"
    (bars,) = display.ax_.patches
    heights, edges, _ = bars.get_data()
    # The curve and the histogram have the same unit: both integrate to 1.
    assert np.sum(heights * np.diff(edges)) == pytest.approx(1)
    assert trapezoid(y, x) == pytest.approx(1, abs=0.01)


def test_density_histogram_counts_rows_outside_the_axis_in_the_total():
    X = np.random.RandomState(0).standard_cauchy((2000, 1))
    display = DensityDisplay.from_estimator(KernelDensity().fit(X), X)
    low, high = display.xx0[[0, -1]]
    heights, edges, _ = display.ax_.patches[0].get_data()
    inside = np.mean((low <= X) & (high >= X))
    assert inside < 1
    assert np.sum(heights * np.diff(edges)) == pytest.approx(inside)


@pytest.mark.parametrize("step", [0.1, 7.0])
def test_bins_of_rounded_numbers_hold_as_many_steps_each(step):
    """Otherwise, some would hold one more, which looks like a spike."""
    values = step * np.tile(np.arange(100), 4)
    edges = bins(values, (values.min() - step, values.max() + step))
    counts, _ = np.histogram(values, edges)
    assert 10 < len(counts) <= 31
    counts = counts[counts > 0]
    assert len({*counts[:-1]}) == 1 and counts.sum() == 400


def test_density_axes_follow_the_order_of_the_features(moons):
    density = KernelDensity(bandwidth=0.2).fit(moons)
    original = DensityDisplay.from_estimator(density, moons, grid_resolution=4)
    swapped = DensityDisplay.from_estimator(density, moons, [1, 0], grid_resolution=4)
    np.testing.assert_allclose(swapped.log_density, original.log_density.T)
    assert swapped.ax_.get_xlabel() == "x1"


def test_density_of_zero_is_drawn_as_background(moons):
    density = KernelDensity(bandwidth=0.2, kernel="tophat").fit(moons)
    display = DensityDisplay.from_estimator(density, moons)
    display.figure_.canvas.draw()
    assert np.isneginf(display.log_density).any()
    assert np.isfinite(np.asarray(display.surface_.get_array())).all()
    with pytest.raises(ValueError, match="finite nowhere on the grid"):
        DensityDisplay.from_estimator(density, moons + 100)


def test_density_of_a_constant_column(moons):
    X = np.column_stack([moons[:, 0], np.full(len(moons), 3.0)])
    display = DensityDisplay.from_estimator(KernelDensity().fit(X), X, grid_resolution=5)
    display.figure_.canvas.draw()
    assert display.xx1.min() < 3 < display.xx1.max()


def test_density_is_drawn_without_data(moons):
    display = DensityDisplay(xx0=np.arange(3.0), xx1=None, log_density=np.zeros(3)).plot()
    assert len(display.ax_.patches) == 0
    density = KernelDensity().fit(moons)
    drawn = DensityDisplay.from_estimator(density, moons, grid_resolution=4)
    drawn.X = None
    assert drawn.plot().scatter_ is None


def test_keyword_arguments_change_the_style(moons):
    density = KernelDensity().fit(moons)
    display = DensityDisplay.from_estimator(
        density, moons, cmap="viridis", scatter_kwargs={"color": "red"}
    )
    assert display.surface_.get_cmap().name == "viridis"
    assert matplotlib.colors.to_hex(display.scatter_.get_facecolor()[0]) == "#ff0000"
    curve = DensityDisplay.from_estimator(
        KernelDensity().fit(moons[:, :1]), moons[:, :1], color="green"
    )
    assert curve.surface_.get_color() == "green"


def test_density_of_a_pipeline_or_search(moons):
    pipeline = make_pipeline(MinMaxScaler(), KernelDensity(bandwidth=0.1)).fit(moons)
    search = GridSearchCV(KernelDensity(), {"bandwidth": [0.1, 0.3]}, cv=2).fit(moons)
    for estimator in (pipeline, search):
        display = DensityDisplay.from_estimator(estimator, moons, grid_resolution=5)
        grid = np.column_stack([display.xx0.ravel(), display.xx1.ravel()])
        np.testing.assert_array_equal(display.log_density.ravel(), estimator.score_samples(grid))


def test_data_frame_names_the_axes_of_an_estimator_fitted_to_an_array(iris):
    mixture = GaussianMixture(random_state=0).fit(iris.to_numpy())
    display = DensityDisplay.from_estimator(mixture, iris, [0, 3], grid_resolution=4)
    assert display.feature_names == ["sepal length (cm)", "petal width (cm)"]


# SamplesDisplay


def test_samples_are_those_of_the_estimator(flow, iris):
    display = SamplesDisplay.from_estimator(flow, iris, n_samples=30, random_state=3)
    np.testing.assert_array_equal(display.samples, flow.sample(30, random_state=3))
    np.testing.assert_array_equal(display.X, iris)
    assert display.estimator_name == "NSFDensity"


def test_samples_panels_show_each_column_and_pair(flow, iris):
    features = ["petal width (cm)", 0, 1]
    names = ["petal width (cm)", "sepal length (cm)", "sepal width (cm)"]
    display = SamplesDisplay.from_estimator(
        flow, iris, features=features, n_samples=50, random_state=0
    )
    assert display.axes_.shape == (3, 3)
    for row in range(3):
        for column in range(3):
            panel = display.axes_[row, column]
            if column > row:
                assert panel is None
                continue
            assert panel.get_xlabel() == (names[column] if row == 2 else "")
            if column == row:
                data, samples = panel.patches[:2]
                for bars, values in [(data, display.X), (samples, display.samples)]:
                    heights, edges, _ = bars.get_data()
                    inside = (edges[0] <= values[:, row]) & (values[:, row] <= edges[-1])
                    assert np.sum(heights * np.diff(edges)) == pytest.approx(inside.mean())
                continue
            assert panel.get_ylabel() == (names[row] if column == 0 else "")
            (dots,) = panel.collections
            drawn = np.asarray(dots.get_offsets())
            rows = np.vstack([display.X, display.samples])[:, [column, row]]
            np.testing.assert_array_equal(drawn[np.lexsort(drawn.T)], rows[np.lexsort(rows.T)])
            _, counts = np.unique(dots.get_facecolor(), axis=0, return_counts=True)
            assert sorted(counts) == [50, 150]
    texts = [text.get_text() for text in display.axes_[0, 0].get_legend().get_texts()]
    assert texts == ["data\n(150 rows)", "NSFDensity\n(50 samples)"]


def test_samples_and_data_have_different_colors(moons):
    display = SamplesDisplay(X=moons, samples=moons + 100, feature_names=["a", "b"]).plot()
    (dots,) = display.axes_[1, 0].collections
    far = dots.get_offsets()[:, 0] > 50
    colors = dots.get_facecolor()
    assert len(np.unique(colors[far], axis=0)) == len(np.unique(colors[~far], axis=0)) == 1
    assert not np.array_equal(colors[far][0], colors[~far][0])


@pytest.fixture
def undrawn(monkeypatch):
    """Let no plot of samples be drawn: it takes long."""
    monkeypatch.setattr(SamplesDisplay, "plot", lambda self, ax: self)


def test_samples_of_estimators_of_scikit_learn(iris, mixture, undrawn):
    """`GaussianMixture.sample` returns (X, labels) and has no random_state."""
    seeded = [
        SamplesDisplay.from_estimator(mixture, iris, random_state=seed).samples
        for seed in (1, 1, 2)
    ]
    assert seeded[0].shape == iris.shape
    np.testing.assert_array_equal(seeded[0], seeded[1])
    assert not np.array_equal(seeded[0], seeded[2])
    assert mixture.random_state == 0
    unseeded = SamplesDisplay.from_estimator(mixture, iris, n_samples=9).samples
    np.testing.assert_array_equal(unseeded, mixture.sample(9)[0])

    kernel = KernelDensity().fit(iris)
    shown = SamplesDisplay.from_estimator(kernel, iris, n_samples=7, random_state=0)
    np.testing.assert_array_equal(shown.samples, kernel.sample(7, random_state=0))


def test_samples_of_a_table(mixed_table):
    grade = pd.Categorical(["low", "high"] * 100, ["low", "mid", "high"], ordered=True)
    table = mixed_table[["kg", "kind", "day"]].assign(grade=grade)
    density = TableDensity(max_iter=1, n_orders=1, cv=2, random_state=0).fit(table)
    table.loc[7, "kind"] = "cow"
    display = SamplesDisplay.from_estimator(density, table[::-1], n_samples=20, random_state=0)
    assert display.categories == {
        "kind": ["cat", "dog", "(unseen)"],
        "grade": ["low", "mid", "high"],
    }
    kg, kind, day, grade = display.X[::-1].T
    np.testing.assert_array_equal(kg, table["kg"])
    np.testing.assert_array_equal(kind, table["kind"].map({"cat": 0, "dog": 1, "cow": 2}))
    assert np.isnan(day[60]) and np.allclose(np.delete(day, 60), 2024.13, atol=0.14)
    np.testing.assert_array_equal(grade, table["grade"].cat.codes)
    assert display.samples.shape == (20, 4) and set(display.samples[:, 3]) <= {0, 1, 2}
    with pytest.raises(ValueError, match=r"lacks the columns \['day'\]"):
        SamplesDisplay.from_estimator(density, table.drop(columns="day"))


def test_samples_show_at_most_six_columns_by_default(undrawn):
    wine = load_wine(as_frame=True).data
    kernel = KernelDensity().fit(wine)
    display = SamplesDisplay.from_estimator(kernel, wine, n_samples=5)
    assert display.feature_names == list(wine.columns[:6])
    display = SamplesDisplay.from_estimator(kernel, wine, features=range(7), n_samples=5)
    assert display.feature_names == list(wine.columns[:7])


def test_samples_and_dots_have_a_maximum_number():
    X = np.random.RandomState(0).normal(size=(6000, 2))
    display = SamplesDisplay.from_estimator(KernelDensity().fit(X), X)
    assert len(display.samples) == 5000
    assert len(display.axes_[1, 0].collections[0].get_offsets()) == 4000


def test_samples_of_one_column(iris):
    X = iris[["petal length (cm)"]]
    display = SamplesDisplay.from_estimator(KernelDensity().fit(X), X, random_state=0)
    display.figure_.canvas.draw()
    assert display.axes_.shape == (1, 1)
    assert display.axes_[0, 0].get_xlabel() == "petal length (cm)"


def test_long_names_are_truncated_on_small_panels(iris):
    X = iris.iloc[:, :2].set_axis(["a" * 40, "b"], axis=1)
    display = SamplesDisplay.from_estimator(KernelDensity().fit(X), X)
    label = display.axes_[1, 0].get_xlabel()
    assert label.startswith("aaa") and label.endswith("…") and len(label) < 20


# LossCurveDisplay


def test_loss_curves_show_the_history(flow):
    display = LossCurveDisplay.from_estimator(flow)
    epochs = np.arange(1, flow.n_iter_ + 1)
    np.testing.assert_array_equal(display.train_line_.get_data(), [epochs, flow.loss_curve_])
    np.testing.assert_array_equal(
        display.validation_line_.get_data(), [epochs, -np.array(flow.validation_scores_)]
    )
    (x,), (y,) = display.best_.get_data()
    assert x == flow.best_iter_
    assert y == -flow.best_validation_score_
    assert "nats" in display.ax_.get_ylabel()
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == [
        "training",
        "validation",
        f"best epoch: {flow.best_iter_} ({y:.3f})",
    ]


def test_loss_curve_without_held_out_rows(moons):
    flow = NSFDensity(n_transforms=1, max_iter=3, early_stopping=False, random_state=0).fit(moons)
    display = LossCurveDisplay.from_estimator(flow)
    assert display.validation_loss is None
    assert display.validation_line_ is None
    np.testing.assert_array_equal(display.train_line_.get_ydata(), flow.loss_curve_)
    assert display.best_.get_ydata()[0] == flow.loss_curve_[flow.best_iter_ - 1]


def test_loss_curve_after_partial_fit(iris):
    """partial_fit holds out no rows and only extends the training curve."""
    flow = NSFDensity(n_transforms=1, max_iter=2, early_stopping=True, random_state=0).fit(iris)
    flow.partial_fit(iris)
    display = LossCurveDisplay.from_estimator(flow)
    assert len(display.train_loss) == 3
    assert display.best_.get_data()[0][0] == flow.best_iter_


@pytest.mark.parametrize(
    ("objective", "penalty"),
    [("flow_matching", 0.1), ("both", 0.0), ("both", 0.1), ("likelihood", 0.1)],
)
def test_loss_curve_of_flow_matching_has_a_separate_axis(moons, objective, penalty):
    """Squared errors have a separate axis, and likelihoods are drawn without penalties."""
    params = {"objective": objective, "max_iter": 3, "n_steps": 2, "early_stopping": True}
    params |= {"jacobian_penalty": penalty, "hidden_layer_sizes": 8, "random_state": 0}
    flow = CNFDensity(**params).fit(moons)
    display = LossCurveDisplay.from_estimator(flow)
    assert display.ax_.get_ylabel().startswith("negative log-likelihood")
    display.figure_.canvas.draw()
    assert display.validation_line_.axes is display.ax_
    history = {name: np.array(values) for name, values in flow.history_.items()}
    matched = {"flow_matching": 3, "both": 2, "likelihood": 0}[objective]
    if matched < 3:
        nll = history["nll" if penalty else "loss"].copy()
        nll[:matched] = np.nan
        np.testing.assert_array_equal(display.train_line_.get_ydata(), nll)
        assert display.train_line_.axes is display.ax_
    else:
        assert display.train_line_ is None
    if matched:
        np.testing.assert_array_equal(display.matching_line_.get_ydata(), history["matching"])
        assert display.matching_line_.axes.get_ylabel().startswith("squared error")
        assert display.matching_line_.axes is not display.ax_
    else:
        assert display.matching_line_ is None


def test_loss_curve_of_flow_matching_without_held_out_rows_has_one_axis(moons):
    params = {"max_iter": 2, "early_stopping": False, "hidden_layer_sizes": 8, "random_state": 0}
    display = LossCurveDisplay.from_estimator(CNFDensity(**params).fit(moons))
    display.figure_.canvas.draw()
    assert display.figure_.axes == [display.ax_]
    assert display.ax_.get_ylabel().startswith("squared error")
    assert display.best_.get_ydata()[0] == display.matching_loss[-1]


def test_extreme_epoch_does_not_set_the_range_of_the_loss_axis():
    loss = np.linspace(3.0, 1.0, 40)
    extreme = loss.copy()
    extreme[7] = 1e6
    display = LossCurveDisplay(train_loss=loss, validation_loss=extreme, best_iter=40).plot()
    assert display.ax_.get_ylim()[1] < 10
    assert LossCurveDisplay(train_loss=loss).plot().ax_.get_ylim()[1] > 3
    extreme[7] = np.nan
    assert LossCurveDisplay(train_loss=loss, validation_loss=extreme).plot().ax_.get_ylim()[1] > 3


def test_two_loss_curves_share_axes():
    _, ax = plt.subplots()
    LossCurveDisplay(train_loss=np.array([3.0, 2.0, 1.0])).plot(ax=ax)
    LossCurveDisplay(train_loss=np.array([30.0, 20.0, 10.0])).plot(ax=ax, label="other")
    assert ax.get_ylim()[1] > 30


# LatentDisplay


@pytest.mark.parametrize("kind", ["hist", "qq"])
def test_latent_panels_show_the_transformed_rows(kind, flow, iris):
    display = LatentDisplay.from_estimator(flow, iris, kind=kind)
    display.figure_.canvas.draw()
    np.testing.assert_allclose(display.Z, flow.transform(iris))
    assert display.coordinate_names == list(flow.get_feature_names_out())
    for i, z in enumerate(display.Z.T):
        panel = display.axes_.flat[i]
        assert display.ks_[i] == pytest.approx(stats.kstest(z, "norm").statistic)
        assert panel.get_title() == display.coordinate_names[i]
        text = panel.texts[0].get_text()
        assert f"distance from N(0, 1): {display.ks_[i]:.3f}" in text
        assert f"largest |z|: {np.abs(z).max():.3g}" in text
    assert list(display.axes_.flat[4:]) == [None, None]


def test_latent_histogram_is_compared_with_the_normal_density(flow, iris):
    panel = LatentDisplay.from_estimator(flow, iris, features=[1]).axes_[0, 0]
    heights, edges, _ = panel.patches[0].get_data()
    z = flow.transform(iris)[:, 1]
    assert np.sum(heights * np.diff(edges)) == pytest.approx(np.mean(np.abs(z) <= 4))
    x, y = panel.lines[0].get_data()
    np.testing.assert_allclose(y, stats.norm.pdf(x))


def test_latent_quantiles_of_a_normal_sample_lie_on_the_line():
    n = 500
    Z = stats.norm.ppf((np.arange(n) + 0.5) / n)[::-1, None]
    display = LatentDisplay(Z=Z, coordinate_names=["z"]).plot(kind="qq")
    x, y = display.axes_[0, 0].lines[0].get_data()
    np.testing.assert_allclose(x, y)
    assert display.ks_[0] == pytest.approx(0.5 / n)
    assert display.ks_[0] < display.ks_chance_


def test_normal_samples_exceed_the_chance_level_with_probability_005():
    Z = np.random.RandomState(0).normal(size=(100, 400))
    display = LatentDisplay(Z=Z[:, :1], coordinate_names=["z"]).plot()
    distances = [stats.kstest(z, "norm", method="asymp").statistic for z in Z.T]
    assert 0.02 < np.mean(distances > display.ks_chance_) < 0.09


def test_latent_shows_the_six_least_normal_coordinates_by_default():
    X = np.random.RandomState(0).normal(size=(200, 9))
    X[:, [2, 7]] = X[:, [2, 7]] ** 3
    same = QuantileTransformer(n_quantiles=200, output_distribution="normal").fit(X)
    power = PowerTransformer(standardize=False).fit(X)
    power.lambdas_[:] = 1.0  # the identity
    display = LatentDisplay.from_estimator(power, X)
    assert display.Z.shape == (200, 6)
    assert {"x2", "x7"} < set(display.coordinate_names)
    assert display.coordinate_names == sorted(display.coordinate_names)
    assert "6 of 9 coordinates" in display.figure_.get_supxlabel()
    assert display.n_all == 9
    assert LatentDisplay.from_estimator(power, X, features=range(9)).Z.shape == (200, 9)
    assert LatentDisplay.from_estimator(same, X, features=["x4"]).ks_[0] < 0.02


def test_latent_of_a_flow_with_pandas_output(iris):
    flow_frames = NSFDensity(n_transforms=1, max_iter=1, random_state=0)
    flow_frames.set_output(transform="pandas").fit(iris)
    display = LatentDisplay.from_estimator(flow_frames, iris)
    np.testing.assert_allclose(display.Z, flow_frames.transform(iris))


# Errors, which are raised before any computation


@pytest.mark.parametrize("display", ALL)
def test_unfitted_estimator_is_an_error(display, iris):
    with pytest.raises(NotFittedError, match="NSFDensity"):
        from_estimator(display, NSFDensity(), iris)


@pytest.mark.parametrize(
    ("display", "estimator", "missing"),
    [
        (DensityDisplay, MinMaxScaler(), "score_samples"),
        (SamplesDisplay, MinMaxScaler(), "sample"),
        (LatentDisplay, KernelDensity(), "transform"),
        (LossCurveDisplay, KernelDensity(), "history_"),
    ],
)
def test_unsuitable_estimator_is_an_error(display, estimator, missing, iris):
    with pytest.raises(AttributeError, match=f"{type(estimator).__name__} has no `{missing}`"):
        from_estimator(display, estimator.fit(iris), iris)


@pytest.mark.parametrize("display", [DensityDisplay, SamplesDisplay])
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["petal length (cm)", "weight"], "'weight', which is not a column.*'sepal length"),
        ([0, 4], "contains 4, but the indices run from 0 to 3: the columns are 'sepal length"),
        ([0, -1], "contains -1, but the indices run from 0 to 3"),
        ([0, 1.5], r"contains 1\.5; give indices \(int\) or column names \(str\)"),
        ([0, True], "contains True; give indices"),
        ([1, "sepal width (cm)"], r"'sepal width \(cm\)' twice"),
    ],
)
def test_invalid_features_are_an_error(display, features, message, mixture, iris):
    silent = copy.copy(mixture)
    silent.score_samples = silent.sample = None  # features are checked before
    with pytest.raises(ValueError, match=message):
        display.from_estimator(silent, iris, features)
    assert plt.get_fignums() == []


def test_invalid_latent_feature_is_an_error(flow, iris):
    with pytest.raises(ValueError, match=r"'z9', which is not a column.*'nsfdensity0'"):
        LatentDisplay.from_estimator(flow, iris, ["z9"])


def test_error_for_a_wide_table_lists_only_the_first_names():
    X = np.zeros((3, 500))
    with pytest.raises(ValueError, match="'x11' and 488 more") as error:
        SamplesDisplay.from_estimator(KernelDensity().fit(X), X, ["y"])
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("features", [0, "petal width (cm)", [0], [0, 1, 2]])
def test_density_of_another_number_of_features_is_an_error(features, mixture, iris):
    with pytest.raises(ValueError, match=r"2 are drawn when X has 4 column\(s\): give 2"):
        DensityDisplay.from_estimator(mixture, iris, features)


@pytest.mark.parametrize("display", NEEDS_X)
def test_columns_that_differ_from_the_fit_are_an_error(display, flow, iris):
    with pytest.raises(ValueError, match=r"X has 3 feature\(s\), but NSFDensity was fitted with 4"):
        display.from_estimator(flow, iris.iloc[:, :3])
    with pytest.raises(ValueError, match=r"columns of X are .*, but NSFDensity was fitted with"):
        display.from_estimator(flow, iris.iloc[:, ::-1])
    with pytest.raises(ValueError, match="contains NaN"):
        display.from_estimator(flow, iris.where(iris > 1))


@pytest.mark.parametrize(
    ("display", "options", "message"),
    [
        (DensityDisplay, {"scale": "linear"}, "scale='linear': it must be 'log' or 'density'"),
        (DensityDisplay, {"depth": 0}, "depth=0: it must be a positive number"),
        (DensityDisplay, {"grid_resolution": 1}, "grid_resolution=1; .* at least 2"),
        (DensityDisplay, {"grid_resolution": 9.5}, r"grid_resolution=9\.5"),
        (SamplesDisplay, {"n_samples": 0}, "n_samples=0; .* at least 1"),
        (DensityDisplay, {"features": []}, "features is empty"),
        (SamplesDisplay, {"features": []}, "features is empty"),
        (LatentDisplay, {"features": []}, "features is empty"),
        (LatentDisplay, {"kind": "violin"}, "kind='violin': it must be one of"),
    ],
)
def test_invalid_options_are_an_error(display, options, message, flow, iris):
    with pytest.raises(ValueError, match=message):
        display.from_estimator(flow, iris, **options)


@pytest.mark.parametrize("display", [SamplesDisplay, LatentDisplay])
def test_axes_that_cannot_be_divided_into_panels_are_an_error(display, flow, iris):
    free = plt.figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match="cannot be divided into panels"):
        display.from_estimator(flow, iris, ax=free)


@pytest.mark.parametrize("display", ALL)
def test_missing_matplotlib_is_an_error(display, flow, iris, monkeypatch):
    shown = display.__new__(display)  # plot raises before it reads the arrays
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"{}\.{} needs matplotlib.*pip install matplotlib"
    with pytest.raises(ImportError, match=message.format(display.__name__, "from_estimator")):
        from_estimator(display, flow, iris)
    with pytest.raises(ImportError, match=message.format(display.__name__, "plot")):
        shown.plot()
