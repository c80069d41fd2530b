"""What stands before a flow: fixed maps, bounds, discrete columns and noise."""

import time
from unittest import mock

import numpy as np
import pytest
import torch
from _densities import AtEpochEnd, banana, each_estimator, gaussian, small
from scipy import stats
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from skflows import GaussianizationDensity, NSFDensity, TransformedDensity
from skflows.bijections import Standardize
from skflows.bijections._fixed import weighted_moments
from skflows.preprocessing import dequantizer as _discrete
from skflows.training import torch_state as _engine
from skflows.preprocessing.dequantizer import Dequantizer, discrete_columns, smallest_gap
from skflows.preprocessing.fixed_maps import fitted_preprocessor

MAPS = ["standardize", "whiten", "quantile", ("quantile", "whiten")]


def counts(n=200, seed=0):
    """Two columns of integers that depend on each other, and one that is continuous."""
    rng = np.random.default_rng(seed)
    first = rng.poisson(3, n)
    return np.column_stack([first, rng.binomial(4, 0.5, n) + first, rng.standard_normal(n)])


def on_a_grid(estimator, low, high, size=400):
    """Integral of a density of two columns over a square."""
    axis = np.linspace(low, high, size + 1)[:-1] + (high - low) / size / 2
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return np.exp(estimator.score_samples(grid)).sum() * ((high - low) / size) ** 2


@pytest.mark.parametrize("preprocessing", MAPS)
@each_estimator
def test_density_with_any_map_before_it_integrates_to_one(name, preprocessing):
    estimator = small(name, preprocessing=preprocessing).fit(banana(300))
    assert on_a_grid(estimator, -25, 25, 400) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("preprocessing", MAPS)
def test_round_trip_with_any_map(preprocessing):
    X = banana(100)
    estimator = small("nsf", preprocessing=preprocessing).fit(X)
    np.testing.assert_allclose(estimator.inverse_transform(estimator.transform(X)), X, atol=1e-6)


def test_unknown_map_is_an_error():
    with pytest.raises(ValueError, match="preprocessing"):
        small("nsf", preprocessing="scale").fit(banana(50))
    with pytest.raises(ValueError, match=r"preprocessing='scale'.*standardize"):
        small("nsf", preprocessing=["whiten", "scale"]).fit(banana(50))


@each_estimator
def test_samples_and_mass_stay_within_bounds(name):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.exponential(size=200), rng.beta(0.5, 0.5, 200)])
    estimator = small(name, bounds=[(0, None), (0, 1)]).fit(X)
    samples = estimator.sample(2000, random_state=0)
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
    with pytest.raises(ValueError, match="no column 'z' in X"):
        small("nsf", bounds={"z": (0, None)}).fit(frame)


def test_bounds_that_do_not_fit_are_an_error():
    X = banana(50)
    with pytest.raises(ValueError, match=r"one pair \(low, high\) of numbers for each of the 2"):
        small("nsf", bounds=[(0, 1)]).fit(X)
    with pytest.raises(ValueError, match=r"X\[\d+, 0\] is -.*bounds\[0\]=\(0, None\)"):
        small("nsf", bounds=[(0, None), (None, None)]).fit(X)


def test_maps_are_applied_only_where_another_one_follows():
    """Setting a map from a large table takes no copies of the table that nobody needs."""
    rows, weight = torch.from_numpy(gaussian(50)[0]), torch.ones(50, dtype=torch.float64)
    with mock.patch.object(Standardize, "forward", side_effect=AssertionError("applied")):
        alone = fitted_preprocessor("standardize", None, rows, weight)
        with pytest.raises(AssertionError, match="applied"):
            fitted_preprocessor(["standardize", "quantile"], None, rows, weight)
    np.testing.assert_allclose(alone(rows)[0].std(0, correction=0), 1.0)


def test_scale_of_each_column_is_that_of_all_at_once():
    X = banana(100) * [1e-8, 1e12]
    X = np.column_stack([X, np.full(100, 7.0)])
    expected = weighted_moments(torch.from_numpy(X))[1]
    np.testing.assert_array_equal(_engine.column_scale(X.astype(np.float64)), expected)


def test_discrete_columns_are_found():
    rng = np.random.default_rng(0)
    X = np.column_stack(
        [rng.integers(0, 5, 100), rng.standard_normal(100), np.ones(100), rng.random(100).round(1)]
    )
    assert discrete_columns(X) == [0, 2, 3]
    assert discrete_columns(X[:20]) == [2]
    dequantizer = Dequantizer.for_parameter("auto", X)
    np.testing.assert_allclose(dequantizer.gap, [1, 1, 0.1])


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
    """Of times in days or in seconds, for one."""
    numbers = np.random.default_rng(0).integers(0, 100, 500)
    assert smallest_gap(start + step * numbers) == pytest.approx(step, rel=2e-4)
    with_dirt = start * (1 + 1e-15 * numbers) + numbers  # as arithmetic leaves
    assert smallest_gap(with_dirt) == pytest.approx(1, rel=1e-5)


@each_estimator
def test_samples_of_discrete_columns_are_values_they_can_have(name):
    X = counts()
    samples = small(name).fit(X).sample(300, random_state=0)
    for j in (0, 1):
        assert set(samples[:, j]) <= set(range(int(X[:, j].min()), int(X[:, j].max()) + 1))
    assert len(np.unique(samples[:, 2])) == 300


def test_score_of_a_discrete_column_is_its_log_probability():
    rng = np.random.default_rng(0)
    X = rng.binomial(3, 0.4, 2000)[:, None].astype(float)
    density = NSFDensity(n_transforms=2, dropout=0.0, max_iter=40, random_state=0).fit(X)
    values = np.arange(4.0)
    found = np.exp(density.score_samples(values[:, None]))
    np.testing.assert_allclose(found, stats.binom.pmf(values, 3, 0.4), atol=0.05)
    # In other units the cells are wider, and the density that much lower.
    wide = density.__class__(**density.get_params()).fit(10 * X)
    np.testing.assert_allclose(
        10 * np.exp(wide.score_samples(10 * values[:, None])), found, atol=1e-4
    )


def test_a_row_of_discrete_columns_scores_as_the_mean_over_its_draws(monkeypatch):
    X = counts()
    density = NSFDensity(max_iter=2, random_state=0).fit(X)
    draws = [
        density._map_rows("log_prob", density._dequantizer.spread(X, draw))[0]
        for draw in _discrete.lattice(2)
    ]
    expected = logsumexp(draws, axis=0) - np.log(len(draws))
    np.testing.assert_allclose(density.score_samples(X), expected, rtol=1e-11)
    monkeypatch.setattr(_discrete, "SPREAD_ROWS", 7)
    np.testing.assert_allclose(density.score_samples(X), expected, rtol=1e-11)


def test_discrete_columns_by_name_number_and_gap():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(counts(), columns=["a", "b", "c"])
    for discrete in (["a"], {"a": None}, {0: 1.0}, [0]):
        density = small("nsf", discrete=discrete).fit(frame)
        assert density.discrete_ == {0: 1.0}
    assert small("nsf", discrete=None).fit(frame).discrete_ == {}
    assert small("nsf", discrete={"b": 0.5}).fit(frame).discrete_ == {1: 0.5}
    with pytest.raises(ValueError, match="no column 'z' in X"):
        small("nsf", discrete=["z"]).fit(frame)
    with pytest.raises(ValueError, match="gap of 0"):
        small("nsf", discrete={"a": 0}).fit(frame)


def test_samples_are_values_to_the_last_digit():
    rng = np.random.default_rng(0)
    tenths = rng.integers(0, 6, 200) / 10
    sparse = rng.choice([1.0, 10.0, 100.0, 1e6], 200)
    odd = rng.choice([0.0, 1.0, 2.5], 200)
    X = np.column_stack([tenths, sparse, odd])
    samples = small("nsf").fit(X).sample(500, random_state=0)
    for j in range(3):
        assert np.isin(samples[:, j], X[:, j]).all()


def test_increments_may_bring_new_values():
    rng = np.random.default_rng(0)
    first, more = rng.integers(0, 3, (100, 1)), rng.integers(0, 9, (100, 1))
    density = small("maf", learning_rate_init=0.02).partial_fit(first)
    for _ in range(40):
        density.partial_fit(more)
    assert density.sample(500, random_state=0).max() > 2


def test_rows_of_no_weight_show_no_values():
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
        ({"discrete": [True, False]}, "no column True"),
        ({"discrete": {0: None, -2: 1.0}}, "twice"),
        ({"preprocessing": [["whiten"]]}, "preprocessing"),
    ],
)
def test_unusable_parameters_are_errors(params, message):
    for density in (small("nsf", **params), TransformedDensity(KernelDensity(), **params)):
        with pytest.raises(ValueError, match=message):
            density.fit(banana(50))


def test_held_out_rows_that_nothing_can_use_are_errors():
    X = np.abs(banana(60))
    with pytest.raises(ValueError, match=r"X_val\[0, 0\] is -1"):
        small("nsf", bounds=[(0, None), None]).fit(X, X_val=[[-1.0, 1.0]])
    with pytest.raises(ValueError, match="early_stopping=False"):
        small("nsf", early_stopping=False).fit(X, X_val=X)
    with pytest.raises(ValueError, match="without X_val"):
        small("nsf").fit(X, sample_weight_val=np.ones(60))


def test_no_map_at_all():
    X = banana(60)
    kernels = TransformedDensity(KernelDensity(), preprocessing=[])
    for density in (small("nsf", preprocessing=[]), kernels):
        assert np.isfinite(density.fit(X).score_samples(X)).all()
    expected = KernelDensity().fit(X).score_samples(X)
    np.testing.assert_allclose(kernels.score_samples(X), expected)


def test_bounds_of_a_discrete_column_hold_its_cells():
    X = counts()
    estimator = small("nsf", bounds=[(0, None), (0, None), (None, None)]).fit(X)
    assert np.isfinite(estimator.score_samples(X)).all()
    assert (estimator.sample(500, random_state=0)[:, :2] >= 0).all()


def test_noise_is_drawn_anew_in_each_epoch(monkeypatch):
    drawn = []
    exact = Dequantizer.spread

    def spread(self, X, noise):
        drawn.append(noise)
        return exact(self, X, noise)

    monkeypatch.setattr(Dequantizer, "spread", spread)
    small("nsf", max_iter=4, early_stopping=False).fit(counts())
    draws = {noise.tobytes() for noise in drawn if noise.ndim == 2 and len(noise) == 200}
    assert len(draws) >= 4


def test_input_noise_widens_the_density():
    X, _ = gaussian(400)
    params = {"max_iter": 60, "n_iter_no_change": 60, "early_stopping": False}
    volume = [small("maf", input_noise=noise, **params).fit(X).score(X) for noise in (0.0, 0.5)]
    # Noise of half a standard deviation multiplies each variance by about 1.25.
    assert volume[1] < volume[0] - 0.02


@pytest.mark.parametrize("preprocessing", MAPS)
@pytest.mark.parametrize(
    "estimator", [GaussianMixture(2, random_state=0), KernelDensity(bandwidth=0.4)]
)
def test_transformed_density_is_a_density(estimator, preprocessing):
    X = banana(200)
    density = TransformedDensity(estimator, preprocessing=preprocessing).fit(X)
    assert on_a_grid(density, -20, 30, 500) == pytest.approx(1, abs=0.02)
    samples = density.sample(500, random_state=0)
    assert samples.shape == (500, 2)
    assert density.score(samples) == pytest.approx(density.score(X), abs=0.5)
    assert (density.sample(5, random_state=1) == density.sample(5, random_state=1)).all()
    assert (density.sample(5, random_state=1) != density.sample(5, random_state=2)).any()


def test_transformed_density_is_in_the_units_of_its_rows():
    X, _ = gaussian(500)
    plain = GaussianMixture(1, random_state=0).fit(X)
    moved = TransformedDensity(GaussianMixture(1, random_state=0)).fit(X)
    np.testing.assert_allclose(moved.score_samples(X), plain.score_samples(X), atol=1e-3)


def test_transformed_density_passes_weights_or_says_that_it_cannot():
    X = banana(60)
    weight = np.arange(60) % 3
    density = TransformedDensity(KernelDensity(), discrete=None)
    repeated = density.fit(np.repeat(X, weight, axis=0)).score_samples(X)
    np.testing.assert_allclose(density.fit(X, sample_weight=weight).score_samples(X), repeated)
    with pytest.raises(ValueError, match="GaussianMixture takes no sample_weight"):
        TransformedDensity(GaussianMixture()).fit(X, sample_weight=weight)


@pytest.mark.parametrize("preprocessing", MAPS)
@pytest.mark.parametrize("name", ["nsf", "gaussianization"])
def test_held_out_rows_may_be_given(name, preprocessing):
    X, more = banana(200), banana(50, seed=1)
    if name == "nsf":
        density = small("nsf", max_iter=5, preprocessing=preprocessing)
    else:
        density = GaussianizationDensity(preprocessing=preprocessing, random_state=0)
    density.fit(X, X_val=more)
    assert density.best_validation_score_ == pytest.approx(density.score(more), abs=1e-4)


def test_time_limit_ends_training_at_a_rate_of_nothing():
    density = small("nsf", max_iter=100_000, n_iter_no_change=100_000, time_limit=1.0)
    started = time.perf_counter()
    density.fit(banana(300))
    assert time.perf_counter() - started < 10  # 100,000 epochs take an hour
    rates = density.history_["learning_rate"]
    assert rates[-1] < 0.1 * max(rates)
    assert np.isfinite(density.score(banana(50)))


def test_a_time_limit_that_leaves_no_time_to_train_is_told():
    with pytest.warns(ConvergenceWarning, match="time_limit=1e-09 ended training within its first"):
        small("maf", batch_size=20, max_iter=50, time_limit=1e-9).fit(banana(300))


def test_input_noise_can_be_chosen():
    X, _ = gaussian(80)
    density = small("nsf", n_transforms=4, input_noise="auto", max_iter=40, learning_rate_init=0.01)
    density.fit(X)
    assert density.input_noise_ in (0.0, 0.05, 0.1, 0.2)
    assert density.best_validation_score_ == max(density.validation_scores_)
    assert len(density.validation_scores_) == density.n_iter_
    assert np.isfinite(density.sample(10, random_state=0)).all()


def test_callbacks_see_the_flow_that_leads_the_search():
    X, _ = gaussian(80)
    seen = []
    density = small("nsf", input_noise="auto", max_iter=3)
    density.set_callbacks(AtEpochEnd(lambda _, fitted: seen.append(fitted.score(X))))
    density.fit(X)
    assert len(set(seen)) == 3
