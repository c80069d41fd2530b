"""Properties of single bijections, beyond those that all share."""

import math

import pytest
import torch
from _bijections import (
    CONTEXTS,
    DIMENSIONS,
    TABLE,
    build,
    check_vjp,
    make_case,
    randomize,
    values_and_gradients,
)
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from skflows.bijections import (
    ActNorm,
    Bijection,
    Chain,
    Coupling,
    ElementwiseAffine,
    LULinear,
    Permutation,
    Planar,
    Standardize,
)
from skflows.bijections._planar import _invertible, _solve_monotone
from skflows.nn.random_draws import drawing_from
from skflows.nn.residual_mlp import ResidualMLP
from skflows.training.model_stack import stack
from skflows.training.trainer import Rows, Trainer

EXACT = {"rtol": 1e-12, "atol": 1e-12}

in_dimensions = pytest.mark.parametrize("d", DIMENSIONS)
with_and_without_context = pytest.mark.parametrize("n_context", CONTEXTS)
couplings = pytest.mark.parametrize("name", [n for n in TABLE if n.startswith("coupling")])
autoregressives = pytest.mark.parametrize(
    "name", [n for n in TABLE if n.startswith("autoregressive")]
)


@couplings
@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize(("direction", "first"), [("forward", 0), ("inverse", 1)])
def test_coupling_maps_each_half_of_the_columns_given_the_other(name, d, direction, first):
    """The half that is mapped second sees the other one after its mapping."""
    bijection, x, _ = make_case(name, d)
    call = getattr(bijection, direction)
    jacobians = jacobian(lambda x: call(x)[0].sum(0), x).transpose(0, 1)
    halves = torch.arange(d).tensor_split(2)
    mapped, others = halves[first], halves[1 - first]
    own = jacobians[:, mapped][:, :, mapped]
    assert torch.equal(own, own * torch.eye(len(mapped)))
    assert jacobians.diagonal(dim1=1, dim2=2).all()
    if "narrow" not in name:  # enough units to see every column
        assert jacobians[:, mapped][:, :, others].any(0).all()
        assert jacobians[:, others].any(0).all()


@autoregressives
@pytest.mark.parametrize(("d", "n_context"), [(2, 0), (5, 3), (16, 0)])
def test_autoregressive_jacobian_is_triangular(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    jacobians = jacobian(lambda x: bijection(x, context)[0].sum(0), x).transpose(0, 1)
    if "reverse" in name:
        jacobians = jacobians.flip(1, 2)
    assert torch.equal(jacobians, jacobians.tril())
    if d == 5 and "narrow" not in name:  # enough units to see every earlier feature
        assert torch.equal((jacobians != 0).any(0), torch.ones(d, d).tril().bool())


@autoregressives
@pytest.mark.parametrize(("d", "n_context"), [(1, 0), (2, 3), (16, 3)])
@pytest.mark.parametrize("grad", [True, False])
def test_incremental_inverse_equals_one_pass_per_feature(name, d, n_context, grad):
    bijection, z, context = make_case(name, d, n_context)
    univariate = bijection.univariate
    x = torch.zeros_like(z).T
    for _ in range(d):  # each pass settles at least one more feature
        params = bijection.net(x, context).unflatten(0, (d, univariate.n_params))
        x, expected = univariate.inverse(z.T, params)
    with torch.set_grad_enabled(grad):
        solved, log_det = bijection.inverse(z, context)
    assert solved.requires_grad == grad
    assert_close(solved, x.T, rtol=1e-11, atol=1e-11)
    assert_close(log_det, expected, rtol=1e-11, atol=1e-11)


@autoregressives
def test_maps_of_one_column_use_each_context_once(name):
    bijection, x, context = make_case(name, 1, n_context=3)
    rows = torch.stack([x, x + 1, x / 2])
    rows[1, 2] = torch.nan  # which only its own row may see
    known = ~rows.isnan()[..., 0]
    expected = bijection(rows, context), bijection.inverse(rows, context)
    seen = []
    bijection.net.context.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.inference_mode():
        given = bijection.given(context)
        found = given.forward(rows), given.inverse(rows)
        assert [columns.shape[1] for columns in seen] == [len(context)]
        assert given.forward(rows[:0])[0].shape == (0, len(x), 1)
        assert bijection.given(context[:0]).forward(rows[:, :0])[0].shape == (3, 0, 1)
    for (y, log_det), (y_expected, log_det_expected) in zip(found, expected, strict=True):
        assert_close(y[known], y_expected[known], rtol=1e-11, atol=1e-11)
        assert_close(log_det[known], log_det_expected[known], rtol=1e-11, atol=1e-11)


@autoregressives
@pytest.mark.parametrize("d", [1, 5])
def test_context_reaches_every_column(name, d):
    """Also the first one, which no other column conditions."""
    bijection, x, context = make_case(name, d, n_context=3)
    change = bijection(x, context)[0] - bijection(x, context.flip(0))[0]
    assert change.any(0).all()


@pytest.mark.parametrize("name", ["coupling_affine", "autoregressive_affine"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_dropout_acts_in_both_directions_and_in_training_only(name, direction):
    bijection, x, _ = make_case(name, 4)
    for module in bijection.modules():
        if isinstance(module, ResidualMLP):
            module.dropout = 0.5
    call = getattr(bijection, direction)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bijection.train()
        assert not torch.equal(call(x)[0], call(x)[0])
        bijection.eval()
        assert torch.equal(call(x)[0], call(x)[0])


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("n_generators", [1, 3])
@pytest.mark.parametrize("rates", [0.5, [0.0, 0.2, 0.5]])
@pytest.mark.parametrize(
    "name",
    [
        "coupling_relu",
        "autoregressive_relu",
        "coupling_unequal",
        "coupling_affine",
        "inverse_autoregressive",
        "inverse_autoregressive_relu",
        "inverse_autoregressive_unequal",
    ],
)
def test_vjp_has_the_dropout_of_autograd(name, rates, n_generators):
    """Also in a stack whose members differ in their rates, or share a generator."""
    bijections, rows = zip(*(make_case(name, 5)[:2] for _ in range(3)), strict=True)
    bijection, x = stack(bijections).train(), torch.stack(rows)
    for module in bijection.modules():
        if isinstance(module, ResidualMLP):
            module.dropout = rates

    def drawing():
        own = [torch.Generator().manual_seed(i) for i in range(n_generators)]
        return drawing_from(own * (3 // n_generators))

    with drawing():
        expected = values_and_gradients(bijection, bijection.forward, x)
    with drawing(), torch.no_grad():
        (z, log_det), pullback = bijection.vjp(x)
        g_x, gradients = pullback(z.cos(), log_det.cos())
    assert not torch.equal(z, bijection.eval()(x)[0])
    for value, other in zip([z, log_det, g_x, *gradients], expected, strict=True):
        assert_close(value, other, **EXACT)


@pytest.mark.parametrize("name", ["coupling_relu", "autoregressive_relu"])
def test_an_outlier_in_one_column_does_not_blow_up_the_others(name):
    bijection, x, _ = make_case(name, 2)
    x[:, 0] = x[:, 0].sign() * 1e15
    # Networks see at most 10 of a far value, even with unbounded activations.
    assert (bijection(x)[0][:, 1].abs() < 1e4).all()
    randomize(bijection, scale=100.0)
    _, log_det = bijection(x)
    assert (log_det.abs() <= 2 * 3.0).all()  # at most LOG_SCALE_BOUND for each column


def test_permutation_reverses_by_default_or_follows_the_order():
    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(Permutation(3)(x)[0], x.flip(1))
    z, _ = Permutation(3, [1, 2, 0])(x)
    assert torch.equal(z, x[:, [1, 2, 0]])


@pytest.mark.parametrize("d", [1, 2, 5])
def test_chain_of_couplings_has_even_columns_first_and_restores_the_order(d):
    x = torch.arange(2.0 * d).view(2, d)
    chain = Coupling.chain(d, [ElementwiseAffine(d)])
    first, *_ = chain.bijections
    assert first(x)[0].tolist() == [[*row[::2], *row[1::2]] for row in x.tolist()]
    assert torch.equal(chain(x)[0], x)


def test_chain_computes_no_gradient_for_leading_parts_without_parameters():
    x = torch.arange(6.0).view(2, 3)
    chain = Chain([Permutation(3), ElementwiseAffine(3), Permutation(3)])
    chain.bijections[0].vjp = lambda x, context: (chain.bijections[0](x), None)  # no pullback
    with torch.no_grad():
        g_x, gradients = chain.vjp(x)[1](x, torch.ones(2), to_x=False)
    assert g_x is None
    assert [g.shape for g in gradients] == [p.shape for p in chain.parameters()]


class CachingScale(Bijection):
    """A scale for each column, which caches a tensor."""

    def __init__(self, n_features):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.zeros(n_features))
        self._cached = None

    def _log_scale(self):
        if self._cached is None:
            self._cached = torch.arange(1.0, 1 + len(self.log_scale))
        return self.log_scale * self._cached

    def forward(self, x, context=None):
        log_scale = self._log_scale()
        return x * log_scale.exp(), log_scale.sum().expand(len(x))

    def inverse(self, z, context=None):
        log_scale = self._log_scale()
        return z * (-log_scale).exp(), -log_scale.sum().expand(len(z))


def test_bijections_may_cache_a_tensor():
    """A tensor made without autograd, for the first held-out score, can be used with it later."""
    bijection, x = Chain([ElementwiseAffine(3), CachingScale(3)]), torch.randn(100, 3)
    rows = Rows(x, torch.ones(100))
    settings = {"max_iter": 3, "batch_size": 50, "learning_rate": 0.01}
    history = Trainer(bijection, rows, rows, **settings).fit()
    assert history.validation_score[-1] > history.validation_score[0]


@in_dimensions
@pytest.mark.parametrize("rotation", [False, True])
def test_lu_linear_is_one_matrix(d, rotation):
    name = "lu_linear_rotation" if rotation else "lu_linear"
    bijection, x, _ = make_case(name, d)
    eye = torch.eye(d, dtype=torch.float64)
    matrix = (bijection(eye)[0] - bijection(torch.zeros_like(eye))[0]).T
    z, log_det = bijection(x)
    assert_close(z, x @ matrix.T + bijection.shift, **EXACT)
    assert_close(log_det, torch.linalg.slogdet(matrix).logabsdet.expand(len(x)), **EXACT)


@in_dimensions
@pytest.mark.parametrize("seed", range(2))
def test_lu_linear_can_start_at_a_rotation(d, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bijection = LULinear(d, rotation=True)
    matrix, log_det = bijection(torch.eye(d))
    assert_close(matrix @ matrix.T, torch.eye(d), rtol=0, atol=1e-5)
    assert_close(log_det, torch.zeros(d), rtol=0, atol=1e-5)
    if d > 2:
        assert (matrix.abs() > 1e-6).sum() > d  # not a mere permutation


@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("length", [1.0, 30.0, 1e3])
@pytest.mark.parametrize("wu", [-1e3, -30.0, -1.0, 1.0, 30.0])
def test_planar_inverse_is_exact_to_rounding(d, length, wu):
    """Also where w.u is -1 up to rounding, and the map is flat somewhere."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(d, generator=generator, dtype=torch.float64)
    w = length * direction / direction.norm()
    across = torch.randn(d, generator=generator, dtype=torch.float64)
    u = across - (across @ w) * w / length**2 + wu * w / length**2
    bijection = Planar(d).double()
    with torch.no_grad():
        bijection.parameters_.copy_(torch.cat([u, w, torch.tensor([0.3])]))
        u_hat, _ = _invertible(u[:, None], w[:, None])
        assert (w @ u_hat).item() > -1 - 1e-12
        z = torch.randn(200, d, generator=generator, dtype=torch.float64)
        z[0] = -0.3 * w / length**2  # w.z + b = 0, where the map is flattest
        x, log_det = bijection.inverse(z)
        z_of_x, log_det_forward = bijection(x)
        _, log_det_of_flat = bijection(z[:1])
    assert_close(z_of_x, z, **EXACT)
    assert log_det.isfinite().all()
    assert log_det_of_flat.isfinite().all()
    # Where w.u is -1 and the map flat, the last digit of x decides about 1 - tanh^2.
    steep = log_det < 20
    assert_close(log_det[steep], -log_det_forward[steep], rtol=1e-10, atol=1e-6)
    assert steep.sum() >= 199


@pytest.mark.parametrize("length", [2.0**-30, 2.0**-10, 1.0])
@pytest.mark.parametrize("wu", [-1e3, 0.5])
def test_planar_vjp_where_rounding_is_cached_at_bay(length, wu):
    """Where w nearly vanishes, and at a row where w.u is -1 and the map flat."""
    u, w = [wu / length, 1.0, -2.0], [length, 0.0, 0.0]
    bijection = Planar(3).double()
    with torch.no_grad():
        bijection.parameters_.copy_(torch.tensor([*u, *w, 0.0]))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64) / length
    x[0, 0] = 1e-9 / length  # of tanh 1e-9, whose square is lost beside 1
    check_vjp(bijection, x)


def weighted(values, weight):
    return (weight[:, None] * values).sum(0) / weight.sum()


@pytest.mark.parametrize("cls", [Standardize, ActNorm])
def test_initialize_makes_weighted_mean_0_and_variance_1(cls):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64) * torch.tensor([0.5, 2, 4])
    x = x + 5
    weight = torch.rand(50, generator=generator, dtype=torch.float64)
    bijection = cls(3).double()
    bijection.initialize(x, weight)
    z, log_det = bijection(x)
    assert_close(weighted(z, weight), torch.zeros(3).double(), **EXACT)
    assert_close(weighted(z**2, weight), torch.ones(3).double(), **EXACT)
    std = weighted((x - weighted(x, weight)) ** 2, weight).sqrt()
    assert_close(log_det, -std.log().sum().expand(50), **EXACT)


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e12, 1e300])
def test_standardize_takes_columns_of_any_scale(scale):
    generator = torch.Generator().manual_seed(0)
    unit = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    bijection = Standardize(2)
    bijection.initialize(unit * scale)
    z, log_det = bijection(unit * scale)
    assert_close(z.std(0, correction=0), torch.ones(2).double(), **EXACT)
    expected = -unit.std(0, correction=0).log().sum() - 2 * math.log(scale)
    assert_close(log_det, expected.expand(50), **EXACT)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e12])
def test_standardize_only_centres_a_constant_column(value):
    x = torch.full((7, 1), value, dtype=torch.float64)
    bijection = Standardize(1)
    bijection.initialize(x)
    z, log_det = bijection(x)
    assert_close(bijection.scale, torch.ones(1).double())
    assert_close(z, torch.zeros_like(z), rtol=0, atol=1e-15 * abs(value))
    assert not log_det.any()


def test_standardize_keeps_the_farthest_rows_finite():
    largest = torch.finfo(torch.float64).max
    z, log_det = build("standardize", 1)(torch.tensor([[largest], [-largest]]).double())
    assert z.isfinite().all()
    assert (z**2).isfinite().all()
    assert log_det.isfinite().all()


def test_chain_initializes_each_bijection_on_the_output_of_the_one_before():
    bijection = randomize(build("chain", 3))
    generator = torch.Generator().manual_seed(0)
    x = 1e3 + torch.randn(50, 3, generator=generator, dtype=torch.float64)
    bijection.initialize(x)
    standardize, act_norm = bijection.bijections[:2]
    y, _ = standardize(x)
    assert_close(y.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-10)
    # Already standardised rows leave nothing to do.
    assert_close(act_norm(y)[0], y, rtol=1e-10, atol=1e-10)


def test_planar_equation_is_solved_for_every_slope():
    """Newton's method alone cycles for slopes of 4 to 8."""
    slopes = torch.cat([torch.linspace(-1 + 1e-9, 12, 200), torch.tensor([100.0, 1e4])]).double()
    slope, target = torch.meshgrid(slopes, torch.linspace(-9, 9, 301).double(), indexing="ij")
    a = _solve_monotone(slope, target, Planar.MAX_STEPS)
    assert_close(a + slope * torch.tanh(a), target, rtol=1e-14, atol=1e-13 * float(slopes[-2]))
    few = slope < 50
    assert_close((a + slope * torch.tanh(a))[few], target[few], rtol=1e-14, atol=1e-13)
