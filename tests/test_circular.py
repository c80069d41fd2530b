"""Outputs that wrap around, such as angles and hours."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import trapezoid
from torch.testing import assert_close

import skflows
from skflows import CNFDensity, ConditionalDensity, FlowRegressor, MAFDensity, NSFDensity
from skflows.bijections import Affine, Coupling
from skflows.bijections._wrapped import Wrapped
from skflows.conditional._circle import Circle
from skflows.inspection import ConditionalDensityDisplay
from skflows.preprocessing.angles import wrapped

QUICK = {"n_transforms": 1, "hidden_layer_sizes": (16,), "learning_rate_init": 1e-2}
HOURS = np.arange(24)[:, None]


def winding(n, seed=0):
    """Return x, and hours around 6 x, which wind around the clock once."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 2, (n, 1))
    return X, np.mod(6 * X[:, 0] + 2 * rng.standard_normal(n), 24)


@pytest.fixture(scope="module")
def fitted():
    flow = NSFDensity(max_iter=60, dropout=0.0, **QUICK)
    return ConditionalDensity(flow, circular=24, cv=2, random_state=0).fit(*winding(400))


def test_the_gradients_of_a_wrapped_bijection_are_those_of_autograd():
    torch.manual_seed(0)
    periods = torch.tensor([2.0, 0.0], dtype=torch.float64)
    wrapped = Wrapped(Coupling(2, Affine(), (8,)).double(), periods)
    for parameter in wrapped.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x = torch.randn(4, 2, dtype=torch.float64)
    (z, log_det), pullback = wrapped.vjp(x)
    g, g_log_det = torch.randn_like(z), torch.randn_like(log_det)
    g_x, gradients = pullback(g, g_log_det)
    x.requires_grad_()
    own, total = wrapped(x)
    assert_close((own, total), (z, log_det))
    loss = (g * own).sum() + (g_log_det * total).sum()
    expected = torch.autograd.grad(loss, [x, *wrapped.parameters()])
    assert_close(expected, (g_x, *gradients))


def test_the_density_is_periodic_and_integrates_to_1(fitted):
    X, _ = winding(5, seed=1)
    y = np.linspace(0, 24, 2001)[:, None]
    density = fitted.predict_distribution(X).pdf(y)
    np.testing.assert_allclose(density[0], density[-1], rtol=1e-6)
    np.testing.assert_allclose(trapezoid(density, y, axis=0), 1, atol=1e-4)
    shifted = fitted.log_prob(X, y[500:505, 0] - 48)
    np.testing.assert_allclose(shifted, np.log(density[500:505].diagonal()), rtol=1e-6)


def test_the_density_is_learned_across_the_ends_of_a_period(fitted):
    X, y = winding(2000, seed=1)
    truth = np.log(sum(stats.norm(6 * X[:, 0] + 24 * n, 2).pdf(y) for n in range(-2, 3))).mean()
    assert truth - 0.15 < fitted.score(X, y) < truth + 0.05
    apart = fitted.predict_distribution(X).mean() - 6 * X[:, 0]
    assert np.abs(stats.circmean(apart, 12, -12)) < 0.5


def test_distributions_are_counted_from_opposite_to_the_mean(fitted):
    X, _ = winding(4, seed=2)
    distribution = fitted.predict_distribution(X)
    assert repr(distribution) == "<CircularDistribution: n_rows=4, n_outputs=1>"
    q = np.array([[0.01], [0.3], [0.7], [0.99]])
    quantile = distribution.ppf(q)
    np.testing.assert_allclose(distribution.cdf(quantile), np.broadcast_to(q, (4, 4)), atol=1e-7)
    assert (np.abs(quantile - distribution.mean()) < 12).all()
    y = fitted.sample(X, 5000, random_state=0)[..., 0]
    assert ((y >= 0) & (y < 24)).all()
    apart = stats.circmean(y, 24, axis=1) - distribution.mean()
    assert (np.abs(np.mod(apart + 12, 24) - 12) < 0.2).all()
    np.testing.assert_allclose(stats.circstd(y, 24, axis=1), distribution.std(), rtol=0.06)
    np.testing.assert_allclose((distribution.cdf(y.T) <= 0.3).mean(axis=0), 0.3, atol=0.03)


def test_intervals_and_regions_wrap_around(fitted):
    regressor = FlowRegressor(fitted, calibration=0.3, random_state=0).fit(*winding(500))
    X_new, y_new = winding(300, seed=4)
    low, high = regressor.predict_interval(X_new, 0.8).T
    assert np.abs(np.mean(np.mod(y_new - low, 24) <= high - low) - 0.8) < 0.07
    assert (low < 0).any()
    regions = regressor.predict_region(X_new[:100], 0.8)
    is_inside = [
        (np.mod(value - own[:, 0], 24) <= np.diff(own, axis=1)[:, 0]).any()
        for own, value in zip(regions, y_new, strict=False)
    ]
    assert np.abs(np.mean(is_inside) - 0.8) < 0.1
    regressor.set_params(prediction="median")
    y = regressor.predict(X_new)
    assert ((y >= 0) & (y < 24)).all()


def test_hours_are_discrete_and_exact():
    X, y = winding(400)
    density = ConditionalDensity(NSFDensity(max_iter=3, **QUICK), circular=24, cv=2, random_state=0)
    distribution = density.fit(X, np.floor(y)).predict_distribution(X[:6])
    np.testing.assert_array_equal(distribution.support, HOURS[:, 0])
    pmf = distribution.pmf(HOURS)
    np.testing.assert_allclose(pmf.sum(axis=0), 1, atol=1e-9)
    np.testing.assert_allclose(density.log_prob(X[:6], np.full(6, 23)), np.log(pmf[23]))
    np.testing.assert_array_equal(np.unique(density.sample(X, 10)), HOURS[:, 0])
    at = distribution.ppf([[0.2], [0.8]])
    np.testing.assert_array_equal(at, np.rint(at))
    # The steps of the distribution function add up in the order of its values.
    order = np.argsort(distribution._unrolled(np.broadcast_to(HOURS, pmf.shape)), axis=0)
    steps = np.take_along_axis(pmf, order, 0)
    found = np.take_along_axis(distribution.cdf(HOURS), order, 0)
    np.testing.assert_allclose(found, steps.cumsum(axis=0), atol=1e-9)


def test_values_around_zero_stay_there():
    X, y = winding(100)
    density = ConditionalDensity(NSFDensity(max_iter=1, **QUICK), circular=24, random_state=0)
    y = density.fit(X, y - 12).sample(X, 5)
    assert y.min() < -6 and y.max() < 12 and y.min() >= -12


@pytest.mark.parametrize(
    ("values", "period"),
    [(np.arange(1, 13), 12), (np.arange(24), 24), (np.arange(-180, 180, 30), 360)],
)
def test_discrete_values_keep_their_names(values, period):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((120, 1)), np.resize(values, 120)
    density = ConditionalDensity(NSFDensity(max_iter=1, **QUICK), circular=period, cv=None)
    distribution = density.fit(X, y).predict_distribution(X[:3])
    np.testing.assert_array_equal(distribution.support, values)
    np.testing.assert_array_equal(np.unique(density.sample(X, 50, random_state=0)), values)
    np.testing.assert_allclose(distribution.pmf(values[:, None]).sum(axis=0), 1, atol=1e-9)


def test_a_circle_is_cut_where_it_is_empty():
    """Values around midnight look like those around noon to the flow."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 1)), 0.5 * rng.standard_normal(200)
    scores = []
    for centre in (0, 12):
        density = ConditionalDensity(NSFDensity(max_iter=15, **QUICK), circular=24, random_state=0)
        own = np.mod(y + centre, 24)
        scores.append(density.fit(X, own).score(X, own))
    assert abs(scores[0] - scores[1]) < 0.05


def test_where_circles_start():
    def start(y, period=360.0, discrete=()):
        return Circle.for_parameter(period, np.c_[np.array(y, float)], None, discrete).starts[0]

    assert start([-1e-9, 10.0, 200.0, 350.0]) == 0
    assert start([-170.0, -1.0, 5.0, 170.0]) == -180
    assert start([1, 200, 360], discrete=[0]) == 1
    assert start([0, 200, 360], discrete=[0]) == 0
    assert wrapped(-1e-17, 0.0, 24.0) == 0
    with pytest.raises(ValueError, match="circular names 4 columns"):
        Circle.for_parameter(24.0, np.zeros((5, 4)), None, [])


def test_some_of_several_outputs_wrap_around():
    X, y = winding(300)
    Y = np.column_stack([np.exp(X[:, 0]), y])
    flow = MAFDensity(max_iter=5, bounds={0: (0, None)}, **QUICK)
    density = ConditionalDensity(flow, circular={1: 24}, cv=None, random_state=0).fit(X, Y)
    shift = np.array([0, 24])
    np.testing.assert_allclose(density.log_prob(X, Y), density.log_prob(X, Y + shift), rtol=1e-6)
    distribution = density.predict_distribution(X[:3])
    y = density.sample(X[:3], 2000, random_state=0)
    median = distribution.median()[:, 0]
    np.testing.assert_allclose(median, np.median(y[..., 0], axis=1), rtol=0.1)
    low, high = distribution.interval(0.9)
    inside = np.mod(y[..., 1] - low[:, 1:], 24) <= (high - low)[:, 1:]
    np.testing.assert_allclose(inside.mean(axis=1), 0.9, atol=0.04)


def test_circular_densities_are_stored_and_shown(fitted, tmp_path):
    X, y = winding(3)
    fitted.save(tmp_path / "model")
    np.testing.assert_array_equal(
        skflows.load(tmp_path / "model").log_prob(X, y), fitted.log_prob(X, y)
    )
    display = ConditionalDensityDisplay.from_estimator(fitted, X)
    assert 0 <= display.grid.min() < 0.1 and 23.9 < display.grid.max() <= 24


@pytest.mark.parametrize(
    ("flow", "circular", "message"),
    [
        (NSFDensity(), {0: 0}, "a period of 0"),
        (NSFDensity(), {1: 24}, "which y does not have"),
        (NSFDensity(bounds=[(0, 25)]), 24, "Column 0 of y is in both bounds and circular"),
        (CNFDensity(), 24, "CNFDensity is not"),
        (NSFDensity(), True, "a period of True"),
    ],
)
def test_what_cannot_wrap_around_is_an_error(flow, circular, message):
    with pytest.raises(ValueError, match=message):
        ConditionalDensity(flow, circular=circular).fit(*winding(60))
