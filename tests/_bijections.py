"""The table of all bijections, and test cases of its entries.

A bijection that is entered in ``TABLE`` has all tests of `test_bijections`.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch.testing import assert_close

from skflows.bijections import (
    ActNorm,
    Affine,
    Asinh,
    Bijection,
    Bounded,
    Chain,
    Continuous,
    Coupling,
    ElementwiseAffine,
    FrameAutoregressive,
    GridAutoregressive,
    GridCoupling,
    Inverse,
    LULinear,
    MarginalQuantile,
    MaskedAutoregressive,
    Permutation,
    Planar,
    Pointwise,
    RationalQuadraticSpline,
    Residual,
    Rotation,
    Shift,
    Squeeze,
    Standardize,
    Whiten,
)
from skflows.bijections._conditional import FirstColumns
from skflows.bijections._difference import Difference
from skflows.bijections._grid import split_channels
from skflows.bijections._ode import RungeKutta4
from skflows.variational._support import Ordered, Simplex

N_ROWS = 5
DIMENSIONS = (1, 2, 5, 16)
CONTEXTS = (0, 3)

UNIVARIATE = {
    "shift": Shift,
    "affine": Affine,
    "spline": lambda: RationalQuadraticSpline(n_bins=4),
}
# Residual, not residual, and with fewer units than most tables have features. A smooth
# activation lets the same table serve comparisons with finite differences.
HIDDEN = {"": (12, 12), "_unequal": (12, 9), "_narrow": (3,)}

# Wide enough for the rows of every case, with each kind of bound.
BOUNDS = ((-50, 50), (-50, None), (None, 50), None)


def coupling(univariate, d, n_context, hidden=(12, 12), activation="tanh", **kwargs):
    return Coupling(
        d, UNIVARIATE[univariate](), hidden, n_context=n_context, activation=activation, **kwargs
    )


def autoregressive(univariate, d, n_context, hidden=(12, 12), activation="tanh", **kwargs):
    return MaskedAutoregressive(
        d, UNIVARIATE[univariate](), hidden, n_context=n_context, activation=activation, **kwargs
    )


def continuous(d, n_context, hidden=(12, 12)):
    solver = RungeKutta4(n_steps=20)
    return Continuous(d, hidden, n_context, activation="tanh", solver=solver)


def residual_series(d, n_context):
    """A block whose series has the exact trace, from one vector for each column."""
    bijection = Residual(d, (12, 9), n_context, log_det="series")
    bijection.probes = d**0.5 * torch.eye(d)
    return bijection


def grid_coupling(univariate, shape, n_context, **kwargs):
    univariate = UNIVARIATE[univariate]()
    return GridCoupling(shape, univariate, (4, 4), n_context=n_context, activation="tanh", **kwargs)


def grid_autoregressive(univariate, shape, n_context, **kwargs):
    univariate = UNIVARIATE[univariate]()
    return GridAutoregressive(
        shape, univariate, (4, 4), n_context=n_context, activation="tanh", **kwargs
    )


def frames(univariate, shape, n_previous, n_context):
    height, width, n_channels = shape
    grid = {"context_grid": (height, width), "n_context": height * width * 3}
    coupling = GridCoupling(shape, UNIVARIATE[univariate](), (4, 4), activation="tanh", **grid)
    frame = Chain([Pointwise(ActNorm(n_channels), n_channels), coupling])
    return frame_autoregressive(frame, shape, n_previous, n_context)


def frame_autoregressive(frame, shape, n_previous, n_context):
    return FrameAutoregressive(
        frame, shape, n_previous, (4, 4), n_context=n_context, activation="tanh"
    )


def multiscale(shape, n_context):
    """A squeeze, and a learned prior of half of the channels given the others."""
    squeeze = Squeeze(shape)
    height, width, channels = squeeze.shape
    n_deep = channels // 2
    deep = [
        Pointwise(ActNorm(n_deep), n_deep),
        grid_coupling("spline", (height, width, n_deep), n_context),
    ]
    return Chain(
        [
            squeeze,
            Pointwise(LULinear(channels, rotation=True), channels),
            grid_coupling("affine", squeeze.shape, n_context, both=False),
            split_channels(squeeze.shape),
            FirstColumns(Chain(deep), height * width * n_deep),
        ]
    )


class FreeSimplex(Bijection):
    """A simplex without its first column, which follows from the others."""

    def __init__(self, d):
        super().__init__()
        self.simplex = Simplex([*range(1, d + 1), 0], d + 1)

    def forward(self, x, context=None):
        return self.simplex(torch.cat([1 - x.sum(1, keepdim=True), x], 1))

    def inverse(self, z, context=None):
        x, log_det = self.simplex.inverse(z)
        return x[:, 1:], log_det


class AfterPredictions(Bijection):
    """The difference of rows from the same predictions."""

    def __init__(self, d):
        super().__init__()
        scores = torch.arange(d) % 3 - 1.0
        self.difference = Difference(Asinh(scale=1.5), torch.full((d,), 0.5), torch.full((d,), 2.0))
        self.difference.residual_scale.fill_(0.7)
        self.register_buffer("scores", scores)

    def forward(self, x, context=None):
        z, log_det = self.difference(self._with_scores(x))
        return z[:, : len(self.scores)], log_det

    def inverse(self, z, context=None):
        x, log_det = self.difference.inverse(self._with_scores(z))
        return x[:, : len(self.scores)], log_det

    def _with_scores(self, rows):
        return torch.cat([rows, self.scores.expand(len(rows), -1)], 1)


def chain(d, n_context):
    return Chain(
        [
            Standardize(d),
            ActNorm(d),
            LULinear(d, rotation=True),
            coupling("affine", d, n_context),
            Permutation(d),
            autoregressive("spline", d, n_context),
            Inverse(autoregressive("affine", d, n_context)),
            Planar(d, n_context),
        ]
    )


# name -> constructor(d, n_context). Bijections without a context ignore it.
TABLE = {
    "standardize": lambda d, c: Standardize(d),
    "whiten": lambda d, c: Whiten(d),
    "rotation": lambda d, c: Rotation(torch.linalg.qr(correlated_rows(d, n=d)).Q),
    "asinh": lambda d, c: Asinh(scale=1.5),
    "bounded": lambda d, c: Bounded([BOUNDS[i % len(BOUNDS)] for i in range(d)]),
    "ordered": lambda d, c: Ordered([*range(1, d), 0]),
    "simplex": lambda d, c: FreeSimplex(d),
    "difference": lambda d, c: AfterPredictions(d),
    "marginal_quantile": lambda d, c: MarginalQuantile(d, n_bins=4),
    "elementwise_affine": lambda d, c: ElementwiseAffine(d),
    "act_norm": lambda d, c: ActNorm(d),
    "permutation": lambda d, c: Permutation(d),
    "permutation_order": lambda d, c: Permutation(d, torch.arange(d).roll(1)),
    "lu_linear": lambda d, c: LULinear(d),
    "lu_linear_rotation": lambda d, c: LULinear(d, rotation=True),
    "permutation_squeeze": lambda d, c: Squeeze((d, 1, 1), (d, 1)),
    "pointwise_act_norm": lambda d, c: Pointwise(ActNorm(d), d),
    "pointwise_affine": lambda d, c: Pointwise(ElementwiseAffine(1), 1),
    "grid_coupling": lambda d, c: grid_coupling("affine", (1, 1, d), c),
    "grid_autoregressive": lambda d, c: grid_autoregressive("affine", (d, 1), c),
    "frame_autoregressive": lambda d, c: frames("affine", (1, 1, 1), 2, c),
    "planar": Planar,
    "continuous": continuous,
    "residual": lambda d, c: Residual(d, (12,), c),
    "residual_series": residual_series,
    "residual_deep": lambda d, c: Residual(d, (12, 9), c),
    "inverse_planar": lambda d, c: Inverse(Planar(d, c)),
    "chain": chain,
    "inverse_autoregressive": lambda d, c: Inverse(autoregressive("affine", d, c)),
    "inverse_inverse": lambda d, c: Inverse(Inverse(autoregressive("affine", d, c))),
    "inverse_autoregressive_square": lambda d, c: Inverse(
        autoregressive("shift", d, c, (d, d), activation="relu")
    ),
    "inverse_autoregressive_relu": lambda d, c: Inverse(
        autoregressive("spline", d, c, activation="relu", reverse=True)
    ),
    "inverse_autoregressive_unequal": lambda d, c: Inverse(
        autoregressive("affine", d, c, HIDDEN["_unequal"], activation="relu")
    ),
    "coupling_relu": lambda d, c: coupling("affine", d, c, activation="relu"),
    "autoregressive_relu": lambda d, c: autoregressive("affine", d, c, activation="relu"),
    "autoregressive_reverse": lambda d, c: autoregressive("spline", d, c, reverse=True),
}
for u in UNIVARIATE:
    TABLE |= {
        f"coupling_{u}": lambda d, c, u=u: coupling(u, d, c),
        f"autoregressive_{u}": lambda d, c, u=u: autoregressive(u, d, c),
    }
for suffix in ("_unequal", "_narrow"):
    TABLE |= {
        f"coupling{suffix}": lambda d, c, h=HIDDEN[suffix]: coupling("spline", d, c, h),
        f"autoregressive{suffix}": lambda d, c, h=HIDDEN[suffix]: autoregressive("spline", d, c, h),
    }


# Accuracy of the bijections that a solver computes; the others are exact up to rounding.
SOLVED = {"continuous": 1e-4, "residual_series": 2e-4}


# Maps that are defined on a part of the space, of which these are rows, also four times as large.
WITHIN = {
    "ordered": lambda x: x.sort(1).values.roll(1, 1),
    "simplex": lambda x: x.sigmoid() / (8 * x.shape[1]),
}


class Case(NamedTuple):
    """A bijection with rows and a context."""

    bijection: Bijection
    x: torch.Tensor
    context: torch.Tensor | None


def build(name, d, n_context=0):
    """Return a new bijection in float64, and leave the state of torch's generator as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TABLE[name](d, n_context).double().eval()


def correlated_rows(d, n=60):
    """Return rows for the maps that are set from data."""
    generator = torch.Generator().manual_seed(2)
    independent = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return independent + 0.5 * independent.roll(1, 1) + torch.arange(d) % 3


def tailed_rows(d, n=200):
    """Return columns with ever heavier tails; the first one has none."""
    generator = torch.Generator().manual_seed(3)
    x = 2 * torch.rand(n, d, generator=generator, dtype=torch.float64) - 1
    power = torch.tensor([0, 0.25, 0.5, 1, 1.5])[torch.arange(d) % 5]
    return x / (1 - x.abs()) ** power


@cache
def marginal_state(d):
    """Return the state after a fit to columns that need all kinds of tails."""
    bijection = MarginalQuantile(d, n_bins=4)
    bijection.initialize(tailed_rows(d))
    return bijection.state_dict()


@torch.no_grad()
def randomize(bijection, scale=0.3, seed=0):
    """Move every parameter: most bijections start at the identity, which is too easy to test."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in bijection.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter += scale * noise.to(parameter.dtype)
    for module in bijection.modules():
        if isinstance(module, Whiten):
            module.initialize(correlated_rows(len(module.loc)))
        elif isinstance(module, MarginalQuantile):
            module.load_state_dict(marginal_state(len(module.loc)))
        elif isinstance(module, Standardize):
            module.loc.copy_(torch.arange(len(module.loc)) % 3 - 1.5)
            module.scale.copy_(0.5 + torch.arange(len(module.scale)) % 4)
    return bijection


def values_and_gradients(bijection, direction, x, context=None):
    """Return what a direction of a bijection does, and gradients by autograd."""
    x = x.clone().requires_grad_()
    z, log_det = direction(x, context)
    inputs = [x, *bijection.parameters()]
    total = z.sin().sum() + log_det.sin().sum()
    return [z, log_det, *torch.autograd.grad(total, inputs, materialize_grads=True)]


def check_vjp(bijection, x, context=None):
    """Check that the values and gradients of `vjp` are those of autograd."""
    expected = values_and_gradients(bijection, bijection.forward, x, context)
    for records_nothing in (torch.inference_mode, torch.no_grad):
        with records_nothing():
            (z, log_det), pullback = bijection.vjp(x, context)
            g_x, gradients = pullback(z.cos(), log_det.cos())
            _, others = bijection.vjp(x, context)[1](z.cos(), log_det.cos(), to_x=False)
        for value, other in zip([z, log_det, g_x, *gradients], expected, strict=True):
            assert not value.requires_grad
            assert_close(value, other, rtol=1e-10, atol=1e-10)
        assert len(others) == len(gradients)
        assert all(map(torch.equal, gradients, others))


def make_case(name, d, n_context=0):
    """Return a randomised bijection, with rows on both sides of the splines' tail bound."""
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(N_ROWS, d, generator=generator, dtype=torch.float64)
    context = None
    if n_context:
        context = torch.randn(N_ROWS, n_context, generator=generator, dtype=torch.float64)
    x = WITHIN.get(name, torch.clone)(x)
    return Case(randomize(build(name, d, n_context)), x, context)
