"""Preprocessing before a flow: fixed maps, bounds, discrete columns and noise."""

import pickle
import re
import time
from unittest import mock

import numpy as np
import pytest
import torch
from _densities import (
    NAMES,
    AtEpochEnd,
    accurate,
    banana,
    each_estimator,
    each_kind,
    gaussian,
    small,
)
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from skflows import (
    AutoDensity,
    DensityOutlierDetector,
    GaussianizationDensity,
    NSFDensity,
    StackedDensity,
    TransformedDensity,
)
from skflows.bijections import Standardize
from skflows.columns import checks
from skflows.columns.checks import column_problems, dates_among, numbers_among
from skflows.columns.lattice import smallest_gap
from skflows.density._evaluation import column_scale
from skflows.preprocessing.dequantizer import Dequantizer, discrete_columns
from skflows.preprocessing.fixed_maps import fitted_preprocessor

MAPS = ["standardize", "whiten", "quantile", ("quantile", "whiten")]


def counts(n=200, seed=0):
    """Return two dependent columns of integers, and a continuous one."""
    rng = np.random.default_rng(seed)
    first = rng.poisson(3, n)
    return np.column_stack([first, rng.binomial(4, 0.5, n) + first, rng.standard_normal(n)])


def mass_in_square(estimator, low, high, size):
    """Return the integral of a density of two columns over a square, by a grid."""
    axis = np.linspace(low, high, size + 1)[:-1] + (high - low) / size / 2
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return np.exp(estimator.score_samples(grid)).sum() * ((high - low) / size) ** 2


@pytest.mark.parametrize(
    ("name", "preprocessing"),
    [("nsf", preprocessing) for preprocessing in MAPS]
    + [(name, "quantile") for name in NAMES if name != "nsf"],
)
def test_density_with_any_map_has_mass_one(name, preprocessing):
    estimator = accurate(name, tolerance=1e-5, preprocessing=preprocessing).fit(banana(100))
    assert mass_in_square(estimator, -12, 20, 100) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("preprocessing", MAPS)
def test_inverse_transform_inverts_transform_with_any_map(preprocessing):
    X = banana(100)
    estimator = small("nsf", preprocessing=preprocessing).fit(X)
    np.testing.assert_allclose(estimator.inverse_transform(estimator.transform(X)), X, atol=1e-6)


def test_unknown_map_raises():
    with pytest.raises(ValueError, match="preprocessing"):
        small("nsf", preprocessing="scale").fit(banana(50))
    with pytest.raises(ValueError, match=r"preprocessing='scale'.*standardize"):
        small("nsf", preprocessing=["whiten", "scale"]).fit(banana(50))


@each_estimator
def test_samples_and_mass_are_within_bounds(name):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.exponential(size=200), rng.beta(0.5, 0.5, 200)])
    estimator = accurate(name, tolerance=1e-5, bounds=[(0, None), (0, 1)]).fit(X)
    samples = estimator.sample(1000, random_state=0)
    assert (samples > 0).all()
    assert (samples[:, 1] < 1).all()
    outside = [[-1.0, 0.5], [1.0, 1.5]]
    assert (estimator.score_samples(outside) == -np.inf).all()
    assert (estimator.predict(outside) == -1).all()


def test_bounds_by_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.abs(banana(60)), columns=["a", "b"])
    by_name = small("nsf", bounds={"b": (0, None)}).fit(frame)
    by_order = small("nsf", bounds=[None, (0, None)]).fit(frame)
    np.testing.assert_array_equal(by_name.score_samples(frame), by_order.score_samples(frame))
    with pytest.raises(ValueError, match="bounds names the column 'z', which X does not have"):
        small("nsf", bounds={"z": (0, None)}).fit(frame)


def test_bounds_that_do_not_fit_the_table_raise():
    X = banana(50)
    with pytest.raises(ValueError, match=r"one pair \(low, high\) of numbers for each of the 2"):
        small("nsf", bounds=[(0, 1)]).fit(X)
    with pytest.raises(ValueError, match=r"X\[\d+, 0\] is -.*bounds\[0\]=\(0, None\)"):
        small("nsf", bounds=[(0, None), (None, None)]).fit(X)


def test_maps_are_applied_only_if_another_one_follows():
    """Otherwise a fit would copy a large table for nothing."""
    rows, weight = torch.from_numpy(gaussian(50)[0]), torch.ones(50, dtype=torch.float64)
    with mock.patch.object(Standardize, "forward", side_effect=AssertionError("applied")):
        alone = fitted_preprocessor("standardize", None, rows, weight)
        with pytest.raises(AssertionError, match="applied"):
            fitted_preprocessor(["standardize", "quantile"], None, rows, weight)
    np.testing.assert_allclose(alone(rows)[0].std(0, correction=0), 1.0)


def test_column_scale_agrees_with_standardisation():
    X = banana(100) * [1e-8, 1e12]
    X = np.column_stack([X, np.full(100, 7.0)])
    standardize = Standardize(3)
    standardize.initialize(torch.from_numpy(X))
    expected = standardize.scale
    np.testing.assert_array_equal(column_scale(X.astype(np.float64)), expected)


def test_discrete_columns_are_detected():
    """Whole numbers, numbers that differ by such ones, and columns whose values often repeat."""
    rng = np.random.default_rng(0)
    columns = {
        "whole": rng.integers(0, 1000, 100),
        "ends in .99": rng.integers(1, 1000, 100) - 0.01,
        "continuous": rng.standard_normal(100),
        "constant": np.full(100, 0.5),
        "few values": rng.integers(0, 6, 100) / 10,
        "many values": rng.integers(0, 100, 100) / 10,
        "half zero": np.where(rng.random(100) < 0.5, 0.0, rng.random(100)),
        "too large to be whole": rng.standard_normal(100) * 1e20,
    }
    X = np.column_stack(list(columns.values()))
    found = {name: j in discrete_columns(X) for j, name in enumerate(columns)}
    discrete = {"whole", "ends in .99", "constant", "few values", "half zero"}
    assert {name for name, is_discrete in found.items() if is_discrete} == discrete
    np.testing.assert_allclose(
        Dequantizer.for_parameter("auto", X[:, [0, 1, 3, 4]]).gap, [1, 1, 1, 0.1]
    )


@pytest.mark.parametrize("n", [2, 10, 39, 40, 1000])
def test_detection_does_not_depend_on_the_number_of_rows(n):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 9, n), rng.random(n), np.ones(n), rng.random(n) * 1e9])
    assert discrete_columns(X) == [0, 2]


@pytest.mark.parametrize(
    ("values", "gap"),
    [([0, 3, 4], 1), ([0.1 + 0.2, 0.3, 0.5], 0.2), ([7, 7], 1), ([-1e300, 1e300], 2e300)],
)
def test_smallest_gap(values, gap):
    assert smallest_gap(np.array(values)) == pytest.approx(gap)


@pytest.mark.parametrize(
    ("start", "step"),
    [(0, 1e-4), (1e5, 1e-4), (2.46e6, 1e-5), (1.75e9, 0.01), (1e8, 0.0012), (-1e5, 1e-4)],
)
def test_smallest_gap_far_from_zero(start, step):
    """Such as of times in days or in seconds."""
    numbers = np.random.default_rng(0).integers(0, 100, 500)
    assert smallest_gap(start + step * numbers) == pytest.approx(step, rel=2e-4)
    with_rounding_errors = start * (1 + 1e-15 * numbers) + numbers
    assert smallest_gap(with_rounding_errors) == pytest.approx(1, rel=1e-5)


@each_kind
def test_samples_of_discrete_columns_are_values_they_can_have(name):
    X = counts()
    samples = accurate(name, tolerance=1e-5).fit(X).sample(300, random_state=0)
    for j in (0, 1):
        assert set(samples[:, j]) <= set(range(int(X[:, j].min()), int(X[:, j].max()) + 1))
    assert len(np.unique(samples[:, 2])) == 300


def test_score_of_a_discrete_column_is_its_log_probability():
    rng = np.random.default_rng(0)
    X = rng.binomial(3, 0.4, 1000)[:, None].astype(float)
    params = {"n_transforms": 1, "dropout": 0.0, "max_iter": 30, "learning_rate_init": 0.01}
    density = NSFDensity(**params, random_state=0).fit(X)
    values = np.arange(4.0)
    found = np.exp(density.score_samples(values[:, None]))
    np.testing.assert_allclose(found, stats.binom.pmf(values, 3, 0.4), atol=0.05)
    # In other units the cells are ten times as wide, and the density is a tenth.
    wide = clone(density).fit(10 * X)
    np.testing.assert_allclose(
        10 * np.exp(wide.score_samples(10 * values[:, None])), found, atol=1e-4
    )


def test_score_averages_the_density_over_the_cell_of_a_row(small_blocks):
    """Exactly, if the density is a sum of quadratic functions of the columns."""
    X = counts()
    gap = np.array([1.0, 2.0, 0.0])
    noisy = Dequantizer(X, {0: 1.0, 1: 2.0})

    def density(rows, variance=0.0):
        return (3 * (rows**2 + variance) - rows + 1).sum(1)

    expected = np.log(density(X, gap**2 / 12))
    found = noisy.mean_density(lambda rows: np.log(density(rows)), X)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    small_blocks()
    found = noisy.mean_density(lambda rows: np.log(density(rows)), X)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_score_with_discrete_columns_is_a_mean_density():
    X = counts()
    flow = small("nsf").fit(X)
    expected = flow._dequantizer.mean_density(lambda rows: flow._map_rows("log_prob", rows)[0], X)
    np.testing.assert_allclose(flow.score_samples(X), expected, rtol=1e-11)
    assert (flow.score_samples(X) != flow._map_rows("log_prob", X)[0]).all()


def test_discrete_columns_by_name_index_and_gap():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(counts(), columns=["a", "b", "c"])
    for discrete in (["a"], {"a": None}, {0: 1.0}, [0]):
        assert small("nsf", discrete=discrete).fit(frame).discrete_ == {"a": 1.0}
    assert small("nsf", discrete=[0]).fit(frame.to_numpy()).discrete_ == {0: 1.0}
    assert small("nsf", discrete=None).fit(frame).discrete_ == {}
    assert small("nsf", discrete={"b": 0.5}).fit(frame).discrete_ == {"b": 0.5}
    with pytest.raises(ValueError, match="discrete names the column 'z', which X does not have"):
        small("nsf", discrete=["z"]).fit(frame)
    with pytest.raises(ValueError, match="gap of 0"):
        small("nsf", discrete={"a": 0}).fit(frame)


def test_discrete_samples_are_exactly_the_values_of_the_table():
    rng = np.random.default_rng(0)
    tenths = rng.integers(0, 6, 200) / 10
    sparse = rng.choice([1.0, 10.0, 100.0, 1e6], 200)
    odd = rng.choice([0.0, 1.0, 2.5], 200)
    X = np.column_stack([tenths, sparse, odd])
    samples = small("nsf").fit(X).sample(500, random_state=0)
    for j in range(3):
        assert np.isin(samples[:, j], X[:, j]).all()


def test_only_a_data_frame_has_an_index():
    frame = pytest.importorskip("pandas").DataFrame(counts(60), columns=["a", "b", "c"])
    density = small("nsf").fit(frame)
    Z = density.transform(frame)
    found = density.inverse_transform(Z.tolist(), as_frame=True)
    assert found.equals(density.inverse_transform(Z, as_frame=True))


@pytest.mark.parametrize("density", [small("nsf"), TransformedDensity(KernelDensity())])
def test_samples_as_a_data_frame_have_the_names_of_the_columns(density):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(counts(60), columns=["a", "b", "c"])
    density.fit(frame)
    samples = density.sample(5, random_state=0, as_frame=True)
    assert list(samples.columns) == ["a", "b", "c"]
    np.testing.assert_array_equal(samples, density.sample(5, random_state=0))
    with pytest.raises(ValueError, match="fitted without"):
        density.fit(frame.to_numpy()).sample(5, as_frame=True)


def test_samples_as_a_data_frame_have_the_dtypes_of_whole_columns():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    columns = {
        "flag": rng.random(80) < 0.3,
        "count": rng.integers(0, 9, 80).astype(np.uint8),
        "nullable": pandas.array(rng.integers(0, 4, 80), dtype="Int64"),
        "whole": rng.integers(0, 5, 80) * 1.0,
        "size": rng.standard_normal(80),
    }
    frame = pandas.DataFrame(columns)
    expected = frame.dtypes.astype(str).to_dict() | {"whole": "int64"}
    density = TransformedDensity(KernelDensity(), random_state=0)
    for estimator in (small("nsf"), density, StackedDensity([("only", density)], cv=2)):
        samples = estimator.fit(frame).sample(40, random_state=0, as_frame=True)
        dtypes = samples.dtypes.astype(str).to_dict()
        if isinstance(estimator, StackedDensity):  # which does not treat a float as discrete
            dtypes["whole"] = "int64"
        assert dtypes == expected
        assert samples["flag"].any()
        assert not samples["flag"].all()
    loaded = pickle.loads(pickle.dumps(estimator))
    assert loaded.sample(2, random_state=0, as_frame=True)["flag"].dtype == bool


def test_rows_of_latent_coordinates_as_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(banana(60), columns=["a", "b"], index=range(5, 65))
    flow = small("nsf").set_output(transform="pandas").fit(frame)
    found = flow.inverse_transform(flow.transform(frame), as_frame=True)
    pandas.testing.assert_frame_equal(found, frame)
    assert isinstance(flow.inverse_transform(flow.transform(frame)), np.ndarray)
    with pytest.raises(ValueError, match="as_frame=True needs column names"):
        small("nsf").fit(banana(60)).inverse_transform(banana(3), as_frame=True)


# Columns under which a likelihood has no meaning


def dependent_columns(n=300):
    """Return continuous columns, a sum, dummies of a category, and a sum with a count."""
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, n)) * [[1.0], [1e3], [0.1]] + [[0], [1e5], [0]]
    dummies, count = np.eye(3)[rng.integers(0, 3, n)], rng.integers(0, 6, n)
    return np.column_stack([a, b, 2 * b - 500 * a + 3, dummies, c, count, c + count])


def test_exact_linear_functions_of_other_columns_are_named():
    X = dependent_columns()
    discrete = discrete_columns(X)
    first, second = column_problems(X, discrete)
    for text, columns in ((first, {0, 1, 2}), (second, {6, 7, 8})):
        named = {int(number) for number in re.findall(r"\d+", text)}
        assert named == columns
    assert column_problems(X[:, [0, 1, 3, 4, 5, 6, 7]], discrete=[2, 3, 4, 6]) == []
    assert len(column_problems(X[:, [0, 1, 3, 4, 5]], discrete=[])) == 1  # dummies without noise
    assert len(column_problems(X[:, :3].astype(np.float32), [])) == 1
    rounded = X + 1e-6 * X.std(axis=0) * np.random.default_rng(1).standard_normal(X.shape)
    assert column_problems(rounded, []) == []
    assert column_problems(X[:12], discrete) == []  # too few rows to tell
    assert column_problems(np.repeat(X[:12], 20, axis=0), discrete) == []


def test_values_that_were_filled_in_are_named():
    rng = np.random.default_rng(0)
    n = 400
    age, size = rng.integers(18, 90, n) * 1.0, rng.standard_normal(n)
    grade = rng.choice([1.0, 2.0, 2.5, 3.0, 4.0], n)
    rain = np.where(rng.random(n) < 0.2, 0.0, rng.exponential(size=n))
    X = np.column_stack([age, size, grade, rain])
    assert column_problems(X, [2]) == []
    gaps = rng.random((2, n)) < 0.05
    for column, gap in enumerate(gaps):
        X[gap, column] = X[~gap, column].mean()
    texts = column_problems(X, [2], names=["age", "size", "grade", "rain"])
    for text, name, gap in zip(texts, ["age", "size"], gaps, strict=True):
        assert f"column '{name}', near its mean" in text
        assert text.startswith(f"{gap.mean():.1%} of the rows have the value ")


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_digits])
def test_clean_tables_raise_no_alarm(load):
    X = load().data
    for table in (X, X.astype(np.float32), (X - X.mean(axis=0)) / X.std(axis=0).clip(1e-9)):
        assert column_problems(table, discrete_columns(table)) == []


def test_a_fit_warns_of_its_columns_once():
    X = dependent_columns(80)[:, :3]
    density = TransformedDensity(KernelDensity(), random_state=0)
    stack = StackedDensity([("only", density)], cv=3)
    for estimator in (small("maf"), density, stack, DensityOutlierDetector(density, cv=2)):
        with pytest.warns(UserWarning, match="exact linear function") as caught:
            estimator.fit(X)
        assert len(caught) == 1
        assert caught[0].filename == __file__


def test_parts_of_an_ensemble_do_not_check_the_columns_again(monkeypatch):
    calls = []
    monkeypatch.setattr(checks, "column_problems", lambda *args: calls.append(args) or [])
    density = TransformedDensity(KernelDensity(), random_state=0)
    stack = StackedDensity([("only", density), ("flow", small("planar"))], cv=3)
    stack.fit(banana(60))
    assert len(calls) == 1
    DensityOutlierDetector(stack, cv=2).fit(banana(60))
    assert len(calls) == 2


def test_partial_fit_learns_about_new_values():
    rng = np.random.default_rng(0)
    first, more = rng.integers(0, 3, (100, 1)), rng.integers(0, 9, (100, 1))
    density = small("maf", learning_rate_init=0.05).partial_fit(first)
    for _ in range(15):
        density.partial_fit(more)
    assert density.sample(500, random_state=0).max() > 2


def test_rows_of_weight_0_contribute_no_values():
    X = np.column_stack([np.arange(60) % 4, np.random.default_rng(0).standard_normal(60)])
    X = np.vstack([X, [[0.5, 0.0], [99.0, 0.0]]])
    weight = np.append(np.ones(60), [0, 0])
    for density in (small("nsf"), TransformedDensity(KernelDensity(), random_state=0)):
        density.fit(X, sample_weight=weight)
        assert density.discrete_ == {0: 1.0}
        assert density.sample(200, random_state=0)[:, 0].max() <= 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bounds": [1, 2]}, "one pair"),
        ({"bounds": [("a", "b"), None]}, "one pair"),
        ({"bounds": [(9, -9), None]}, "the lower one first"),
        ({"bounds": [(np.nan, 9), None]}, "the lower one first"),
        ({"discrete": {0: "x"}}, "gap of 'x'"),
        ({"discrete": [True, False]}, "discrete names the column True"),
        ({"discrete": {0: None, -2: 1.0}}, "twice"),
        ({"preprocessing": [["whiten"]]}, "preprocessing"),
    ],
)
def test_invalid_preprocessing_parameters_raise(params, message):
    for density in (small("nsf", **params), TransformedDensity(KernelDensity(), **params)):
        with pytest.raises(ValueError, match=message):
            density.fit(banana(50))


def test_invalid_held_out_rows_raise():
    X = np.abs(banana(60))
    with pytest.raises(ValueError, match=r"X_val\[0, 0\] is -1"):
        small("nsf", bounds=[(0, None), None]).fit(X, X_val=[[-1.0, 1.0]])
    with pytest.raises(ValueError, match="early_stopping=False"):
        small("nsf", early_stopping=False).fit(X, X_val=X)
    with pytest.raises(ValueError, match="without X_val"):
        small("nsf").fit(X, sample_weight_val=np.ones(60))


def test_preprocessing_without_maps():
    X = banana(60)
    transformed = TransformedDensity(KernelDensity(), preprocessing=[])
    for density in (small("nsf", preprocessing=[]), transformed):
        assert np.isfinite(density.fit(X).score_samples(X)).all()
    expected = KernelDensity().fit(X).score_samples(X)
    np.testing.assert_allclose(transformed.score_samples(X), expected)


def test_bounds_of_a_discrete_column_include_its_cells():
    X = counts()
    estimator = small("nsf", bounds=[(0, None), (0, None), (None, None)]).fit(X)
    assert np.isfinite(estimator.score_samples(X)).all()
    assert (estimator.sample(500, random_state=0)[:, :2] >= 0).all()


def test_noise_is_drawn_anew_in_each_epoch(monkeypatch):
    drawn = []
    add_noise = Dequantizer.add_noise

    def recorded(self, X, noise):
        drawn.append(noise)
        return add_noise(self, X, noise)

    monkeypatch.setattr(Dequantizer, "add_noise", recorded)
    small("nsf", max_iter=4, early_stopping=False).fit(counts())
    draws = {noise.tobytes() for noise in drawn if noise.ndim == 2 and len(noise) == 200}
    assert len(draws) >= 4


def test_input_noise_widens_the_density():
    X, _ = gaussian(200)
    params = {"max_iter": 40, "learning_rate_init": 0.01, "early_stopping": False}
    scores = [small("maf", input_noise=noise, **params).fit(X).score(X) for noise in (0.0, 0.5)]
    # Noise of half a standard deviation multiplies each variance by 1.25.
    assert scores[1] < scores[0] - 0.02


@pytest.mark.parametrize(
    ("estimator", "preprocessing"),
    [(GaussianMixture(2, random_state=0), preprocessing) for preprocessing in MAPS]
    + [(KernelDensity(bandwidth=0.4), "quantile")],
)
def test_transformed_density_has_mass_one_and_can_be_sampled(estimator, preprocessing):
    X = banana(100)
    density = TransformedDensity(estimator, preprocessing=preprocessing).fit(X)
    assert mass_in_square(density, -20, 30, 150) == pytest.approx(1, abs=0.02)
    samples = density.sample(500, random_state=0)
    assert samples.shape == (500, 2)
    assert density.score(samples) == pytest.approx(density.score(X), abs=0.5)
    assert (density.sample(5, random_state=1) == density.sample(5, random_state=1)).all()
    assert (density.sample(5, random_state=1) != density.sample(5, random_state=2)).any()


def test_transformed_density_is_in_the_units_of_the_table():
    X, _ = gaussian(500)
    plain = GaussianMixture(1, random_state=0).fit(X)
    moved = TransformedDensity(GaussianMixture(1, random_state=0)).fit(X)
    np.testing.assert_allclose(moved.score_samples(X), plain.score_samples(X), atol=1e-3)


def test_transformed_density_passes_weights_or_raises():
    X = banana(60)
    weight = np.arange(60) % 3
    # Repeated rows would change the folds by which "quantile" chooses bins and tails.
    params = {"preprocessing": "standardize", "discrete": None}
    density = TransformedDensity(KernelDensity(), **params)
    repeated = density.fit(np.repeat(X, weight, axis=0)).score_samples(X)
    np.testing.assert_allclose(density.fit(X, sample_weight=weight).score_samples(X), repeated)
    with pytest.raises(ValueError, match="GaussianMixture takes no sample_weight"):
        TransformedDensity(GaussianMixture()).fit(X, sample_weight=weight)


@pytest.mark.parametrize("preprocessing", MAPS)
@pytest.mark.parametrize("name", ["nsf", "gaussianization"])
def test_held_out_rows_can_be_given(name, preprocessing):
    X, held_out = banana(200), banana(50, seed=1)
    if name == "nsf":
        density = small("nsf", max_iter=5, preprocessing=preprocessing)
    else:
        density = GaussianizationDensity(preprocessing=preprocessing, random_state=0)
    density.fit(X, X_val=held_out)
    assert density.best_validation_score_ == pytest.approx(density.score(held_out), abs=1e-4)


def test_learning_rate_falls_towards_0_within_the_time_limit():
    density = small("nsf", max_iter=100_000, n_iter_no_change=100_000, time_limit=1)
    started = time.perf_counter()
    density.fit(banana(300))
    assert time.perf_counter() - started < 10  # 100,000 epochs take an hour
    rates = density.history_["learning_rate"]
    assert rates[-1] < 0.1 * max(rates)
    assert np.isfinite(density.score(banana(50)))


def test_time_limit_that_ends_the_first_epoch_warns():
    with pytest.warns(ConvergenceWarning, match="time_limit=1e-09 ended training within its first"):
        small("maf", batch_size=20, max_iter=50, time_limit=1e-9).fit(banana(300))


def test_automatic_input_noise_is_one_of_the_candidates():
    X, _ = gaussian(80)
    density = small("nsf", n_transforms=4, input_noise="auto", max_iter=20, learning_rate_init=0.02)
    density.fit(X)
    assert density.input_noise_ in (0.0, 0.05, 0.1, 0.2)
    assert density.best_validation_score_ == max(density.validation_scores_)
    assert len(density.validation_scores_) == density.n_iter_
    assert np.isfinite(density.sample(10, random_state=0)).all()


def test_callbacks_get_the_best_candidate_of_the_search_for_input_noise():
    X, _ = gaussian(80)
    seen = []
    density = small("nsf", input_noise="auto", max_iter=3)
    density.set_callbacks(AtEpochEnd(lambda _, fitted: seen.append(fitted.score(X))))
    density.fit(X)
    assert len(set(seen)) == 3


MEMORY = np.random.default_rng(0).choice([2.0, 4, 8, 16, 24, 32], 200)


@pytest.mark.parametrize(
    "density",
    [small("nsf"), AutoDensity(cv=2, time_limit=1, random_state=0)],
    ids=["flow", "mixture"],
)
@pytest.mark.filterwarnings("ignore:time_limit")
def test_samples_take_the_values_seen_if_each_occurs_often(density):
    """A computer has 2, 4 or 8 GB, not 6."""
    X = np.column_stack([MEMORY, np.random.default_rng(1).standard_normal(200)])
    drawn = clone(density).fit(X).sample(500, random_state=0)
    assert set(drawn[:, 0]) <= set(MEMORY)


def test_samples_take_other_values_if_each_occurs_rarely_or_a_distance_is_given():
    X = np.column_stack([MEMORY, np.random.default_rng(1).standard_normal(200)])
    lattice = small("nsf", discrete={0: 2}).fit(X).sample(500, random_state=0)[:, 0]
    assert 6 in lattice and set(lattice) <= set(range(2, 33, 2))
    counts = np.random.default_rng(0).poisson(40, (60, 1)).astype(float)
    drawn = small("nsf").fit(counts).sample(500, random_state=0)
    assert not set(drawn[:, 0]) <= set(counts[:, 0])
    only_seen = small("nsf", discrete={0: "seen"}).fit(counts).sample(500, random_state=0)
    assert set(only_seen[:, 0]) <= set(counts[:, 0])
    increments = small("nsf").partial_fit(MEMORY[:100, None])
    increments.partial_fit(MEMORY[100:, None] + 1)
    assert set(increments.sample(500, random_state=0)[:, 0]) <= {*MEMORY, *(MEMORY + 1)}


def test_samples_take_other_values_if_some_rows_have_a_value_of_their_own():
    """Though small counts repeat often, more rows would show other large ones."""
    counts = np.random.default_rng(0).negative_binomial(1, 0.02, (2000, 1)).astype(float)
    values, n = np.unique(counts, return_counts=True)
    assert len(counts) > 5 * len(values) and 0.01 < (n == 1).sum() / len(counts)
    (grid,) = Dequantizer(counts, {0: None}).grids()
    assert len(grid.values) == counts.max() + 1
    in_parts = Dequantizer(counts[:1000], {0: None})
    in_parts.update(counts[1000:])
    assert np.array_equal(in_parts.grids()[0].values, grid.values)
    (often,) = Dequantizer(np.minimum(counts, 40) // 20 * 20, {0: None}).grids()
    assert often.values.tolist() == [0, 20, 40]


@pytest.mark.parametrize(
    ("text", "is_date"),
    [
        *dict.fromkeys(["2024-12-31", "31/12/2024", "1/31/2024", "31.12.24 18:30"], True).items(),
        *dict.fromkeys(["1.2.10", "20-00-00", "99/99/99", "31/13/2024", "1-2/2024"], False).items(),
    ],
)
def test_texts_that_look_like_dates(text, is_date):
    assert bool(dates_among([text])) == is_date


@pytest.mark.parametrize(
    ("text", "is_number"),
    [
        *dict.fromkeys(["$1,200.50", "12 %", "1'000", "-5 €", "US$ 5"], True).items(),
        *dict.fromkeys(["\u22125 €", "-$.50", "1 200 €", "1,200,300.5"], True).items(),
        *dict.fromkeys(["4.093,35", "635,38", "-0,007", "12,50 €", "1.234.567"], True).items(),
        *dict.fromkeys(["1200", "0041", "$", "12 kg", "A-12", "1.23,5", "1,2,3"], False).items(),
        *dict.fromkeys(["555 1234", "100 200", "5'10", "+49 30 1234567", "1.2.3"], False).items(),
    ],
)
def test_texts_that_look_like_numbers(text, is_number):
    assert bool(numbers_among([text])) == is_number
