"""Distributions of outputs have the same properties whatever source they come from."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from _tables import few_components  # noqa: F401 - a fixture
from scipy import stats
from scipy.special import logsumexp, ndtr, ndtri

from skflows import ConditionalDensity, NSFDensity, TableDensity
from skflows.columns.lattice import Grid
from skflows.distribution.distribution import distribution_of
from skflows.distribution.normal import log_normal_mass
from skflows.preprocessing.angles import wrapped
from skflows.table._predictive import OneColumn

N_ROWS, N_DRAWS = 5, 4000
IN_TABLE = ("number", "positive", "count", "tenths", "few", "listed", "rain", "hour", "month")
TURNS = np.arange(-15, 16)
LEVELS = np.linspace(-4.5, 4.5, 121)


class Normals:
    """A source: independent outputs, normal with means around `mean`, and wrapped or rounded."""

    def __init__(self, mean, scale, grids=(None,), period=(np.inf,), start=(0.0,)):
        self.n, self.n_outputs, self.possible = N_ROWS, len(grids), list(grids)
        self.period, self.start = np.array(period), np.array(start)
        self.mean = np.atleast_1d(mean) + np.linspace(-1, 1, N_ROWS)[:, None] * scale
        self.scale = np.broadcast_to(np.float64(scale), (len(grids),))
        self.moment_ends = np.tile([-np.inf, np.inf], (len(grids), 1))

    def _images(self, y, j):
        return y[:, None] + (TURNS * self.period[j] if np.isfinite(self.period[j]) else [0.0])

    def _below(self, y, row, j):
        return ndtr((self._images(y, j) - self.mean[row, j, None]) / self.scale[j])

    def log_density(self, y, row):
        y, total = wrapped(y, self.start, self.period), np.zeros(len(y))
        for j, grid in enumerate(self.possible):
            if grid is None:
                at = self._images(y[:, j], j)
                total += logsumexp(stats.norm(self.mean[row, j, None], self.scale[j]).logpdf(at), 1)
            else:
                low, high = grid.unrolled(self.period[j]).cell(y[:, j])
                mass = (self._below(high, row, j) - self._below(low, row, j)).sum(axis=1)
                with np.errstate(divide="ignore"):
                    total += np.log(mass / grid.step)
        return total

    def cdf(self, y, row):
        return self._below(y, row, 0).sum(axis=1)

    def ppf(self, q, row, low=None):
        if low is None:
            return self.mean[row, 0] + self.scale[0] * ndtri(q)
        high = low + self.period[0]
        for _ in range(50):
            middle = (low + high) / 2
            is_below = self.cdf(middle, row) < q
            low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
        return low

    def nodes(self):
        y = self.mean[:, :1] + self.scale[0] * LEVELS
        weight = stats.norm.pdf(LEVELS)
        return y, weight / weight.sum(), np.broadcast_to(ndtr(LEVELS), y.shape)

    def draws(self, n_draws):
        unit = ndtri(stats.qmc.Sobol(self.n_outputs, seed=0).random(n_draws))
        return self.mean + self.scale * unit[:, None]

    def sample(self, size, random_state):
        unit = random_state.standard_normal((self.n, size, self.n_outputs))
        return self.mean[:, None] + self.scale * unit


def flows(kind):
    """Return the source of a fitted density."""
    rng = np.random.default_rng(0)
    X, e = rng.uniform(-1, 1, (150, 1)), rng.standard_normal(150)
    y = X[:, 0] + (1 + X[:, 0] / 2) * e
    hours = np.mod(6 * X[:, 0] + 2 * e, 24)
    y, bounds, circular = {
        "number": (y, None, None),
        "bounded": (np.exp(y), [(0, None)], None),
        "count": (np.rint(2 * y), None, None),
        "hour": (hours, None, 24),
        "month": (np.floor(hours / 2) + 1, None, 12),
        "several": (np.c_[y, hours, np.rint(2 * e)], None, {1: 24}),
    }[kind]
    flow = NSFDensity(
        n_transforms=1, hidden_layer_sizes=(16,), max_iter=3, learning_rate_init=1e-2, bounds=bounds
    )
    density = ConditionalDensity(flow, cv=2, circular=circular, random_state=0).fit(X, y)
    return density._source(density._encoded(np.linspace(-1, 1, N_ROWS)[:, None]))


@cache
def fitted_table():
    """Return a density of a column of each kind that distributions are of, and rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    y = x + rng.normal(size=300)
    table = pd.DataFrame(
        {
            "x": x,
            "number": y,
            "positive": np.exp(y),
            "count": rng.poisson(np.exp(2 + y / 4)),
            "tenths": np.round(y, 1),
            "few": rng.poisson(np.exp(x / 4)),
            "listed": rng.choice([0.0, 1.0, 2.5], 300),
            "rain": np.where(rng.uniform(size=300) < 0.4, 0.0, np.exp(y)),
            "hour": np.mod(6 * x + 2 * rng.normal(size=300), 24),
            "month": np.floor(np.mod(6 * x + 2 * rng.normal(size=300), 12)),
        }
    )
    columns = {"hour": ("circular", 24), "month": ("circular", 12), "listed": "ordinal"}
    density = TableDensity(columns, max_iter=1, n_orders=1, cv=2, random_state=0).fit(table)
    return density, pd.DataFrame({"x": np.linspace(-1, 1, N_ROWS)})


def table(column):
    density, rows = fitted_table()
    return density.predict_distribution(column, rows)._source


WHOLE = Grid(np.arange(-60.0, 61), False, 1.0)
FEES = np.sort(np.round(np.random.default_rng(0).uniform(22, 100, 40), 2))
CENTS = Grid(np.append(0.0, FEES), False, np.diff(FEES).min())
SOURCES = (
    {
        "normal": lambda: Normals(2.0, 0.7),
        "whole": lambda: Normals(3.0, 2.0, [WHOLE]),
        "listed": lambda: Normals(2.0, 2.0, [Grid(np.array([0.0, 1, 2, 5]), True, 1.0)]),
        "cents": lambda: Normals(60.0, 30.0, [CENTS]),
        "tenths": lambda: Normals(0.1, 0.2, [Grid(np.arange(12) / 10, True, 0.1)], [1.2], [0.0]),
        "angle": lambda: Normals(350.0, 40.0, period=[360.0]),
        "month": lambda: Normals(12.0, 2.0, [Grid(np.arange(1.0, 13), True, 1.0)], [12.0], [1.0]),
        "daytime": lambda: Normals(23.0, 4.0, [Grid(np.arange(6.0, 23), True, 1.0)], [24.0], [6.0]),
        "two": lambda: Normals([0.0, 5.0], [1.0, 3.0], [None, WHOLE], 2 * [np.inf], [0.0, 0.0]),
        "angle and number": lambda: Normals(
            [23.0, 5.0], [2.0, 3.0], [None, None], [24.0, np.inf], [0.0, 0.0]
        ),
    }
    | {
        f"flows: {kind}": lambda kind=kind: flows(kind)
        for kind in ("number", "bounded", "count", "hour", "month", "several")
    }
    | {f"table: {kind}": lambda kind=kind: table(kind) for kind in IN_TABLE}
)


@cache
def made(name):
    """Return the distribution of a source, which is made once."""
    return distribution_of(SOURCES[name]())


def of_sources(condition):
    """Run a test on the distribution of each source that fulfils a condition."""

    def decorate(test):
        names = [name for name in SOURCES if name in condition]
        return pytest.mark.parametrize("distribution", [pytest.param(n, id=n) for n in names])(test)

    return decorate


SEVERAL = {"two", "angle and number", "flows: several"}
CIRCULAR = {"angle", "month", "daytime", "tenths", "angle and number"} | {
    *(f"flows: {kind}" for kind in ("hour", "month", "several")),
    *(f"table: {kind}" for kind in ("hour", "month")),
}
DISCRETE = {
    *("whole", "listed", "cents", "tenths", "month", "daytime", "flows: count", "flows: month"),
    *(f"table: {kind}" for kind in ("count", "tenths", "few", "listed", "month")),
}
SINGLE = set(SOURCES) - SEVERAL


@pytest.fixture
def own(distribution):
    return made(distribution)


def as_levels(distribution, q):
    return np.reshape(q, (-1, *[1] * len(distribution._shape)))


@of_sources(SINGLE)
def test_quantiles_invert_the_distribution_function(own):
    q = as_levels(own, [0.001, 0.02, 0.3, 0.5, 0.77, 0.99])
    y = own.ppf(q)
    assert y.shape == (6, N_ROWS) and (np.diff(y, axis=0) >= 0).all()
    below = own.cdf(y)
    if not own.is_discrete:  # with equality, except at atoms
        assert (own.cdf(np.nextafter(y, -np.inf)) - 1e-7 <= q).all() and (q <= below + 1e-7).all()
        return
    assert (below >= q - 1e-7).all()
    assert (below - own.pmf(y) <= q + 1e-7).all()


@pytest.mark.parametrize(
    "name, ends",
    [
        ("normal", (-np.inf, np.inf)),
        ("flows: number", (-np.inf, np.inf)),
        ("flows: bounded", (0.0, np.inf)),
    ],
)
def test_quantiles_of_0_and_1_are_the_ends(name, ends):
    own = made(name)
    np.testing.assert_array_equal(own.ppf([[0], [1]]), np.repeat(np.c_[ends].T, N_ROWS, 1))


@of_sources(SEVERAL)
def test_quantiles_of_several_outputs_are_those_of_their_draws(own):
    q = as_levels(own, [0.1, 0.5, 0.9])
    y = own.ppf(q)
    assert y.shape == (3, N_ROWS, own._source.n_outputs)
    assert (own.cdf(y) >= q - 0.01).all()
    assert (np.abs(own.cdf(y) - q)[..., 0] < 0.01).all()  # the first is continuous


@of_sources(SINGLE - {"table: rain"})
def test_probabilities_sum_to_1_and_their_sums_are_the_distribution_function(own):
    if own.is_discrete:
        y = np.tile(own.support[:, None], N_ROWS)
        mass = own.pmf(y)
        assert (own.pmf(y + 0.3 * own._grids[0].step) == 0).all()
    else:
        y = own.ppf(np.linspace(0.0005, 0.9995, 2000)[:, None])
        density = own.pdf(y)
        mass = (density[1:] + density[:-1]) / 2 * np.diff(y, axis=0)
        mass = np.concatenate([own.cdf(y[:1]), mass])
    atol = 1e-6 if own.is_discrete else 2e-3
    np.testing.assert_allclose(mass.sum(axis=0), 1, atol=atol)
    order = np.argsort(own._unrolled(y), axis=0)
    mass, y = (np.take_along_axis(each, order, axis=0) for each in (mass, y))
    np.testing.assert_allclose(np.cumsum(mass, axis=0), own.cdf(y), atol=atol)
    np.testing.assert_array_equal(own.sf(y), 1 - own.cdf(y))


@of_sources(DISCRETE)
def test_densities_of_values_are_their_probabilities_by_step(own):
    step, y, error = own._grids[0].step, own.support[:, None], {"rtol": 1e-5}
    if isinstance(own._source, OneColumn):
        # Tables keep the probability of about one row for other values, and what is beyond.
        low, high = own._grids[0].cell(own.support)
        y, error = y[np.isclose(high - low, step)], {"rtol": 4e-3, "atol": 3e-6}
    mass = own.pmf(y)
    has_mass = mass > 1e-9
    np.testing.assert_allclose(own.pdf(y)[has_mass] * step, mass[has_mass], **error)


@of_sources(SOURCES)
def test_moments_are_those_of_draws(own):
    y = own.rvs(N_DRAWS, random_state=0)
    assert y.shape == (N_DRAWS, *own._shape)
    np.testing.assert_allclose(own.var(), own.std() ** 2)
    y = y.reshape(N_DRAWS, N_ROWS, -1)
    y = np.clip(y, *own._source.moment_ends.T)
    mean, std = own.mean().reshape(N_ROWS, -1), own.std().reshape(N_ROWS, -1)
    error = 5 * std / np.sqrt(N_DRAWS) + 0.02 * std
    for j, period in enumerate(own._source.period):
        drawn, apart = y[..., j], y[..., j].mean(axis=0) - mean[:, j]
        found = drawn.std(axis=0)
        if np.isfinite(period):
            apart = wrapped(stats.circmean(drawn, period, axis=0) - mean[:, j], -period / 2, period)
            found = stats.circstd(drawn, period, axis=0)
            # The direction of a mean vector of length R has an error of at most 1 / (R sqrt(2 n)).
            turn = period / (2 * np.pi)
            length = np.exp(-((std[:, j] / turn) ** 2) / 2)
            error[:, j] += 5 * turn / (length * np.sqrt(2 * N_DRAWS))
        assert (np.abs(apart) < error[:, j]).all()
        np.testing.assert_allclose(found, std[:, j], rtol=0.15)  # heavy tails vary


@of_sources(DISCRETE)
def test_draws_are_possible_values_with_their_probabilities(own):
    y = own.rvs(N_DRAWS, random_state=1)
    assert np.isin(y, own.support).all()
    assert np.isin(own.median(), own.support).all()
    share = (y == own.support[:, None, None]).mean(axis=1)
    assert np.abs(share - own.pmf(own.support[:, None])).max() < 5 * 0.5 / np.sqrt(N_DRAWS)


def test_an_atom_has_a_probability():
    own = made("table: rain")
    assert own.pdf(0.0) == pytest.approx(own.cdf(0.0) - own.cdf(-1e-9), rel=1e-4)
    assert (own.rvs(N_DRAWS, random_state=0) == 0).mean(axis=0) == pytest.approx(
        own.cdf(0.0), abs=0.04
    )


@of_sources(set(SOURCES) - {"table: rain"})
def test_levels_of_draws_are_uniform(own):
    y = own.rvs(100, random_state=2)
    found = [own._central_scores(y), [own._density_scores(values) for values in y[:40]]]
    for scores in map(np.ravel, found):
        assert ((scores >= 0) & (scores <= 1)).all()
        if all(grid is None for grid in own._grids):
            assert stats.kstest(scores, "uniform").pvalue > 1e-3


@of_sources(SINGLE)
def test_intervals_and_regions_are_what_has_a_level(own):
    y = own.rvs(50, random_state=3)
    at = own._unrolled(y)
    low, high = own._central_interval(0.8)
    is_inside = own._central_scores(y) <= 0.8
    is_complete = own._grids[0] is not None and own._grids[0].is_complete
    is_empty = is_complete & (low == high)  # an interval has a value even if none is inside
    found = (low - 1e-9 <= at) & (at <= high + 1e-9)
    np.testing.assert_array_equal(found[:, ~is_empty], is_inside[:, ~is_empty])
    regions = own._regions(0.8)
    for values, turned in zip(y[:10], at[:10], strict=True):
        found = [
            ((ends[:, 0] - 1e-9 <= value) & (value <= ends[:, 1] + 1e-9)).any()
            for ends, value in zip(regions, turned, strict=True)
        ]
        np.testing.assert_array_equal(found, own._density_scores(values) <= 0.8)
    assert np.isinf(own._central_interval(1.0)).all()
    assert own._regions(1.0)[0].tolist() == [[-np.inf, np.inf]]


@pytest.mark.parametrize(("dtype", "scale"), [(float, 1), (float, 1000), (np.float32, 1)])
def test_intervals_end_at_cents_if_the_seen_values_are_some_of_many_cents(dtype, scale):
    """The least distance between these is more than a cent."""
    fees = np.sort(np.round(scale * np.random.default_rng(0).uniform(22, 100, 40), 2))
    values = np.append(0.0, fees).astype(dtype).astype(float)
    grid = Grid(values, False, np.diff(fees).min())
    low = np.array([-0.003, 41.884, 50.001, 104_766.081])
    found = grid.inside(low, np.array([41.884, 41.893, 50.004, 104_766.096]))
    expected = [[0.0, 41.89, 50.0, 104_766.09], [41.88, 41.89, 50.0, 104_766.09]]
    np.testing.assert_array_equal(found, expected)


@of_sources(CIRCULAR)
def test_circular_outputs_are_the_same_after_a_period(own):
    source = own._source
    period = np.where(np.isfinite(source.period), source.period, 0.0)
    period = period[0] if own._is_single else period
    y = own.rvs(20, random_state=4)
    for turns in (-3, 1, 2):
        np.testing.assert_allclose(own.logpdf(y + turns * period), own.logpdf(y), rtol=1e-6)
        np.testing.assert_allclose(own.cdf(y + turns * period), own.cdf(y), atol=1e-9)
    is_circular = np.isfinite(source.period)
    values = y.reshape(-1, source.n_outputs)[:, is_circular]
    start = source.start[is_circular]
    assert ((values >= start) & (values <= start + source.period[is_circular])).all()


@pytest.mark.parametrize("name", ["angle", "month", "angle and number"])
@pytest.mark.parametrize("turn", [7.0, 100.0])
def test_circular_distributions_turn_with_the_data(name, turn):
    own, turned = made(name), SOURCES[name]()
    turned.mean = turned.mean + np.where(np.isfinite(turned.period), turn, 0.0)
    turned = distribution_of(turned)
    by = turn * np.isfinite(own._source.period)
    period = own._source.period
    by, period = (by[0], period[0]) if own._is_single else (by, period)

    def angle(y):  # without the place where a period starts
        with np.errstate(invalid="ignore"):
            unit = np.where(np.isfinite(period), 2j * np.pi * y / period, y)
        return np.where(np.isfinite(period), np.exp(unit), y)

    for method, args in [("mean", ()), ("median", ()), ("ppf", (0.1,)), ("ppf", (0.95,))]:
        found, before = (getattr(each, method)(*args) for each in (turned, own))
        np.testing.assert_allclose(angle(found), angle(before + by), atol=1e-6)
    np.testing.assert_allclose(turned.std(), own.std(), rtol=1e-9)
    y = own.rvs(10, random_state=0)
    np.testing.assert_allclose(turned.logpdf(y + by), own.logpdf(y), rtol=1e-9)


@of_sources({name for name in SINGLE if name.startswith("flows")})
def test_a_row_is_answered_alone(distribution):
    own, alone = made(distribution), SOURCES[distribution]()
    alone.context = alone.context[[2]]
    alone = distribution_of(alone)
    for ask in (lambda d: d.ppf(0.3), lambda d: d.mean(), lambda d: d.cdf(1.0)):
        np.testing.assert_allclose(ask(alone)[0], ask(own)[2], atol=1e-7)


def test_rows_may_have_different_numbers_of_values():
    source = SOURCES["flows: number"]()
    y, row = np.linspace(-2, 2, 7), np.array([0, 0, 0, 0, 1, 2, 2])
    alone = [source.cdf(y[[k]], row[[k]])[0] for k in range(len(y))]
    np.testing.assert_allclose(source.cdf(y, row), alone, rtol=1e-12)


def test_part_of_a_mixture():
    """The density of the mixture is the mean of the densities of single flows."""
    source = SOURCES["flows: number"]()
    y = np.linspace(-2, 2, N_ROWS)
    parts = [distribution_of(source.of([i])) for i in range(len(source.flows))]
    whole = distribution_of(source)
    np.testing.assert_allclose(np.mean([part.pdf(y) for part in parts], axis=0), whole.pdf(y))
    np.testing.assert_allclose(np.mean([part.cdf(y) for part in parts], axis=0), whole.cdf(y))


@pytest.mark.parametrize("width", [1e-7, 1e-5, 3e-5, 1e-4, 1e-2, 1.0])
def test_log_mass_of_normals_is_exact(width):
    """Against Gauss-Legendre quadrature of the density, far into both tails."""
    low = np.linspace(-9, 9, 37)
    high = low + width
    middle = (low + high) / 2
    at, weight = np.polynomial.legendre.leggauss(30)
    logs = stats.norm.logpdf(middle[:, None] + (high - low)[:, None] / 2 * at)
    expected = logsumexp(logs, b=weight, axis=1) + np.log((high - low) / 2)
    found = log_normal_mass(low, middle, high, 0.0, 1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [1, N_ROWS])
@pytest.mark.parametrize("method", ["ppf", "cdf", "sf", "logpdf", "pdf"])
def test_values_that_do_not_fit_the_rows(method, n):
    source = Normals(0.0, 1.0)
    source.n = n
    distribution = distribution_of(source)
    message = rf"shape \(2,\) do not fit .* shape \({n},\): .* of shape \(k, 1\)"
    with pytest.raises(ValueError, match=message):
        getattr(distribution, method)([0.1, 0.9])
    assert getattr(distribution, method)([[0.1], [0.9]]).shape == (2, n)
