"""Properties of the maps that are set from data, beyond those that all bijections share."""

import copy
import math
import pickle

import pytest
import torch
from _bijections import correlated_rows
from scipy import stats
from sklearn.covariance import ledoit_wolf
from torch.testing import assert_close

from skflows.bijections import Bounded, MarginalQuantile, Standardize, Whiten
from skflows.bijections._tails import ALL_TAILS, STUDENT_T, TAILS, StudentT

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def fitted(bijection, x, weight=None):
    bijection.initialize(x, weight)
    return bijection


def normal(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Whiten


@pytest.mark.parametrize("n, d", [(5, 3), (20, 1), (50, 4), (10, 30), (2000, 5)])
def test_whiten_shrinks_as_scikit_learn_does(n, d):
    x = normal(n, d) @ normal(d, d, seed=1) * 10.0 ** torch.arange(d).clamp(max=9)
    expected, _ = ledoit_wolf(fitted(Standardize(d), x)(x)[0].numpy())
    factor = fitted(Whiten(d), x).factor
    assert_close(factor @ factor.T, torch.from_numpy(expected), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("n, d", [(20, 3), (300, 6)])
def test_whiten_depends_on_the_proportions_of_weights_alone(n, d):
    x, weight = correlated_rows(d, n), torch.arange(n).double() % 3
    reference = fitted(Whiten(d), x, weight).state_dict()
    for other in (
        fitted(Whiten(d), x, 1e-3 * weight),
        fitted(Whiten(d), x[weight > 0], weight[weight > 0]),
    ):
        for name, value in other.state_dict().items():
            assert_close(value, reference[name], **EXACT)
    equal = fitted(Whiten(d), x, torch.full((n,), 7.0)).factor
    assert_close(equal, fitted(Whiten(d), x).factor, **EXACT)


def test_whiten_takes_out_the_correlations():
    x = correlated_rows(4, n=20_000)
    z, _ = fitted(Whiten(4), x)(x)
    assert_close(z.mean(0), torch.zeros(4).double(), rtol=0, atol=1e-10)
    assert_close(z.T.cov(), torch.eye(4).double(), rtol=0, atol=5e-3)


SINGULAR = {
    "collinear": normal(10_000, 1) * torch.tensor([1.0, -2.0, 1e6]),
    "constant": torch.cat([normal(50, 2), torch.full((50, 2), 3.0)], 1),
    "all constant": torch.full((50, 3), 3.0).double(),
    "two rows": normal(2, 4),
    "fewer rows than columns": normal(5, 20),
    "huge": normal(50, 3) @ normal(3, 3) * 1e300,
    "tiny": normal(50, 3) @ normal(3, 3) * 1e-300,
    "two points": normal(2, 3).repeat(5000, 1),
}


@pytest.mark.parametrize("x", SINGULAR.values(), ids=SINGULAR)
def test_whiten_takes_rows_without_a_covariance(x):
    whiten = fitted(Whiten(x.shape[1]), x)
    z, log_det = whiten(x)
    assert (z.abs() < 1e6).all()
    assert log_det.isfinite().all()
    back, _ = whiten.inverse(z)
    assert_close(back / whiten.scale, x / whiten.scale, rtol=1e-9, atol=1e-9)


def test_whiten_treats_a_constant_column_as_standardize_does():
    x = torch.cat([correlated_rows(2), torch.full((60, 1), 3.0)], 1)
    factor = fitted(Whiten(3), x).factor
    assert_close(factor[2], torch.tensor([0.0, 0.0, 1.0]).double())
    assert_close(factor[:2, :2], fitted(Whiten(2), x[:, :2]).factor, **EXACT)


# Bounded

INTERVALS = [(0, 1), (-3.5, 1e6), (1e6, 1e6 + 1), (0, None), (-7, None), (None, 0), (None, 1e5)]
intervals = pytest.mark.parametrize("interval", INTERVALS)


@intervals
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounded_inverse_never_leaves_the_bounds(interval, dtype):
    bounded = Bounded([interval]).to(dtype)
    z = torch.cat([torch.linspace(-1e4, 1e4, 101), torch.linspace(-50, 50, 101)]).to(dtype)
    x, log_det = bounded.inverse(z[:, None])
    assert ((bounded.low < x) & (x < bounded.high)).all()
    assert x.isfinite().all()
    assert log_det.isfinite().all()
    for value in bounded(x):
        assert value.isfinite().all()


@intervals
def test_bounded_increases(interval):
    z = torch.linspace(-5, 5, 101).double()[:, None]
    x, _ = Bounded([interval]).inverse(z)
    assert (x.diff(dim=0) > 0).all()


@intervals
def test_bounded_gives_no_density_on_a_bound_and_beyond(interval):
    bounded = Bounded([interval, None])
    for bound, outwards in zip(interval, (-1, 1), strict=True):
        if bound is None:
            continue
        at = torch.tensor([[bound, 0.0]]).double()
        beyond = at + outwards * torch.tensor([[1.0, 0.0]])
        far = at + outwards * torch.tensor([[1e300, 0.0]])
        z, log_det = bounded(torch.cat([at, beyond, far]))
        # All of them go where the nearest number inside goes.
        assert_close(z, z[:1].expand(3, 2), **EXACT)
        assert z[0, 0] * outwards > 10
        assert z.isfinite().all()
        assert (log_det == -math.inf).all()


def test_bounded_maps_are_the_logit_and_the_logarithms():
    x = torch.tensor([[0.25, 3.0, -4.0, 5.0]]).double()
    z, _ = Bounded([(-1, 1), (1, None), (None, 0), None])(x)
    expected = [math.log(1.25 / 0.75), math.log(2), -math.log(4), 5.0]
    assert_close(z, torch.tensor([expected], dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("pair", [(1, 1), (2, 1), (0, math.nan), (math.inf, None), (0, 5e-324)])
def test_bounded_refuses_bounds_with_nothing_between(pair):
    with pytest.raises(ValueError, match=r"bounds\[1\]=.* low < high"):
        Bounded([None, pair])


# MarginalQuantile

TAIL_NAMES = ["gaussian", "student_t", "pareto"]
over_tails = pytest.mark.parametrize("tails", TAIL_NAMES)


def uniform(*size, seed=0):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cauchy(*size):
    return (math.pi * (uniform(*size) - 0.5)).tan()


def modes(*size):
    return torch.where(uniform(*size) < 0.4, 0.5 * normal(*size, seed=1) - 2, normal(*size) + 1.5)


SHAPES = {
    "normal": normal,
    "lognormal": lambda *size: normal(*size).exp(),
    "exponential": lambda *size: -uniform(*size).log(),
    "cauchy": cauchy,
    "uniform": uniform,
    "modes": modes,
}
ENTROPIES = {
    "normal": 0.5 * math.log(2 * math.pi * math.e),
    "lognormal": 0.5 * math.log(2 * math.pi * math.e),
    "exponential": 1.0,
    "cauchy": math.log(4 * math.pi),
    "uniform": 0.0,
}


def log_density(bijection, x):
    """Log-density of each column by itself, (d, n)."""
    unit = ((x - bijection.loc) / bijection.scale).T
    return bijection._splines().log_prob(unit) - bijection.scale.log()[:, None]


def n_bins(marginal):
    return (marginal.knots[0].diff() > 0).sum(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_marginal_gives_standard_normals(shape):
    x = SHAPES[shape](4000, 3)
    marginal = fitted(MarginalQuantile(3), x[:2000])
    z, _ = marginal(x[2000:])
    for column in z.numpy().T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert_close(z.mean(0), torch.zeros(3).double(), rtol=0, atol=0.1)
    assert_close(z.std(0), torch.ones(3).double(), rtol=0, atol=0.1)


@pytest.mark.parametrize("shape", ENTROPIES)
@pytest.mark.parametrize("n, loss", [(500, 0.06), (4000, 0.015)])
def test_marginal_density_is_near_the_true_one(shape, n, loss):
    x = SHAPES[shape](n + 20_000, 4)
    marginal = fitted(MarginalQuantile(4), x[:n])
    assert abs(log_density(marginal, x[n:]).mean() + ENTROPIES[shape]) < loss


@over_tails
@pytest.mark.parametrize(
    ("shape", "bins"), [*((shape, 7) for shape in SHAPES), ("lognormal", 0), ("lognormal", 1)]
)
def test_marginal_density_has_mass_one(tails, shape, bins):
    marginal = fitted(MarginalQuantile(2, bins, tails), SHAPES[shape](300, 2))
    # Where its latent points lie: those of heavy tails are far apart.
    z = torch.linspace(-7, 7, 20_001).double()[:, None].expand(-1, 2)
    x, _ = marginal.inverse(z)
    mass = torch.trapezoid(log_density(marginal, x).exp(), x.T)
    assert_close(mass, torch.ones(2).double(), rtol=0, atol=1e-4)


@over_tails
def test_marginal_density_has_no_jump(tails):
    marginal = fitted(MarginalQuantile(3, 4, tails), cauchy(300, 3) + 0.5 * normal(300, 3))
    knots = marginal.knots[0] * marginal.scale[:, None] + marginal.loc[:, None]
    width = 1e-9 * marginal.scale[:, None]
    below, above = (log_density(marginal, (knots + side * width).T) for side in (-1, 1))
    assert_close(below, above, rtol=0, atol=1e-6)


def test_marginal_chooses_sensibly():
    columns = torch.stack([SHAPES[shape](2000) for shape in SHAPES], 1)
    marginal = fitted(MarginalQuantile(len(SHAPES)), columns)
    bins = dict(zip(SHAPES, n_bins(marginal).tolist(), strict=True))
    tails = dict(zip(SHAPES, marginal.tail.T.tolist(), strict=True))
    assert bins["normal"] == 1
    assert bins["modes"] >= 8
    gaussian, student_t_1, pareto = (ALL_TAILS.index(TAILS[name][-1]) for name in TAIL_NAMES)
    assert tails["normal"] == tails["uniform"] == [gaussian, gaussian]
    assert set(tails["cauchy"]) <= {student_t_1, pareto}
    assert tails["lognormal"][0] == gaussian


def test_marginal_takes_few_rows_for_gaussian():
    x = cauchy(39, 2)
    z, _ = fitted(MarginalQuantile(2), x)(x)
    assert_close(z, (x - x.mean(0)) / x.std(0, correction=0), rtol=1e-9, atol=1e-9)


def test_marginal_fits_each_column_by_itself():
    columns = torch.stack([SHAPES[shape](500) for shape in SHAPES], 1)
    together = fitted(MarginalQuantile(len(SHAPES)), columns)(columns)
    alone = [fitted(MarginalQuantile(1), column)(column) for column in columns.split(1, 1)]
    assert_close(together[0], torch.cat([z for z, _ in alone], 1), **EXACT)
    assert_close(together[1], sum(log_det for _, log_det in alone), **EXACT)


@pytest.mark.parametrize("tails", ["gaussian", "pareto"])
@pytest.mark.parametrize("bins", [0, 4])
def test_marginal_takes_weights_for_repetitions(tails, bins):
    x = SHAPES["lognormal"](8000, 2)
    x[:4000, 1] = x[:4000, 1].round()
    weight = torch.arange(8000) % 4
    weighted = fitted(MarginalQuantile(2, bins, tails), x, weight.double())
    repeated = fitted(MarginalQuantile(2, bins, tails), x.repeat_interleave(weight, 0))
    for key, value in repeated.state_dict().items():
        assert_close(weighted.state_dict()[key], value, rtol=1e-8, atol=1e-8)


ODD = {
    "constant": torch.full((200,), 3.0),
    "zero": torch.zeros(200),
    "large constant": torch.full((200,), 1e12),
    "two values": torch.arange(200) % 2,
    "one differs": torch.arange(200) == 7,
    "counts": normal(200).abs().floor(),
    "mostly zero": normal(200).clamp(min=0.5) - 0.5,
    "two spikes": torch.arange(200) % 2 + 1e-9 * normal(200),
    "far from zero": 1e12 + normal(200),
    "huge": 1e290 * normal(200),
    "tiny": 1e-300 * normal(200),
    "outlier": torch.cat([normal(199), torch.tensor([-1e15])]),
    "many magnitudes": (30 * normal(200)).exp(),
    "heaviest": cauchy(200) ** 5,
}
odd_columns = torch.stack([column.double() for column in ODD.values()], 1)
choices = pytest.mark.parametrize(
    "bins, tails", [("auto", "auto"), (0, "auto"), (1, "pareto"), (5, "student_t"), (8, "gaussian")]
)


@choices
@pytest.mark.parametrize("n", [1, 2, 5, 41, 200])
def test_marginal_takes_odd_columns(n, bins, tails):
    x = odd_columns[-n:]
    marginal = fitted(MarginalQuantile(len(ODD), bins, tails), x)
    assert all(value.isfinite().all() for value in marginal.state_dict().values())
    steps = torch.tensor([0, 1e-3, 1, 1e3, 1e8, 1e15]).double()[:, None]
    far = torch.cat([marginal.loc + sign * marginal.scale * steps for sign in (-1, 1)])
    latent = torch.cat([-steps, steps]).expand(-1, len(ODD)).clamp(-1e4, 1e4)
    for direction, rows in [
        (marginal.forward, x),
        (marginal.forward, far),
        (marginal.inverse, latent),
    ]:
        values, log_det = direction(rows)
        assert values.isfinite().all()
        assert log_det.isfinite().all()
    assert (marginal(far[6:])[0].diff(dim=0) >= 0).all()


@pytest.mark.parametrize("bins, tails", [("auto", "auto"), (0, "pareto"), (5, "gaussian")])
def test_marginal_treats_a_constant_column_as_standardize_does(bins, tails):
    x = torch.full((100, 1), 3.0).double()
    rows = torch.tensor([[-1.0], [3.0], [4.5]]).double()
    z, log_det = fitted(MarginalQuantile(1, bins, tails), x)(rows)
    assert_close(z, rows - 3, **EXACT)
    assert_close(log_det, torch.zeros(3).double(), **EXACT)


@over_tails
def test_marginal_round_trip_of_extreme_values(tails):
    marginal = fitted(MarginalQuantile(2, 4, tails), cauchy(500, 2))
    x = 10.0 ** torch.linspace(-10, 14.9, 60).double()[:, None].expand(-1, 2)
    for rows in (x, -x):
        z, log_det = marginal(rows)
        back, log_det_back = marginal.inverse(z)
        assert_close(back, rows, rtol=1e-9, atol=1e-9)
        assert_close(log_det_back, -log_det, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("nu", STUDENT_T)
def test_student_t_tails_are_those_of_the_distribution(nu):
    tail = StudentT(nu)
    t = torch.cat([torch.linspace(1.0, 50.0, 100).double(), torch.tensor([1e3, 1e6, 1e15])])
    expected = torch.from_numpy(stats.t.sf(t.numpy(), nu))
    assert_close(tail.survival(t), expected, rtol=1e-10, atol=0)
    assert_close(tail.quantile(expected), t, rtol=1e-10, atol=0)


def test_pareto_tail_finds_the_shape():
    u = uniform(20_000, 1)
    x = torch.cat([u, 1 + ((1 - u) ** -0.7 - 1) / 0.7])
    marginal = fitted(MarginalQuantile(1, 8, "pareto"), x)
    assert_close(marginal.tail_shape[1], torch.tensor([0.7]).double(), rtol=0.1, atol=0)


def test_marginal_state_moves_to_another_one():
    x = torch.stack([cauchy(300), uniform(300)], 1)
    marginal = fitted(MarginalQuantile(2), x)
    loaded = MarginalQuantile(2)
    loaded.load_state_dict(marginal.state_dict())
    for other in (loaded, copy.deepcopy(marginal), pickle.loads(pickle.dumps(marginal)).double()):
        for value, expected in zip(other(x), marginal(x), strict=True):
            assert torch.equal(value, expected)


@pytest.mark.parametrize("arguments", [{"n_bins": -1}, {"tails": "cauchy"}])
def test_marginal_refuses_what_it_does_not_know(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MarginalQuantile(1, **arguments)
