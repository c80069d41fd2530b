"""The maps of one variable against formulas written out one value at a time."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from skflows.bijections import Affine, RationalQuadraticSpline, Shift

N_BINS, TAIL_BOUND = 6, 2.5

with_both_implementations = pytest.mark.usefixtures("implementation")


def reference_knots(spline, params):
    """Return x, z and slopes of the knots that 3 K - 1 parameters give."""
    k, bound = spline.n_bins, spline.tail_bound
    places = []
    for logits in (params[:k], params[k : 2 * k]):
        sizes = spline.MIN_SIZE + (1 - k * spline.MIN_SIZE) * softmax(logits)
        places.append(np.concatenate([[-bound], -bound + 2 * bound * np.cumsum(sizes)]))
    inner = spline.MIN_SLOPE + np.logaddexp(0, params[2 * k :] + spline.UNIT_SLOPE)
    return *places, np.concatenate([[1.0], inner, [1.0]])


def reference_spline(x, x_knots, z_knots, slopes):
    """Return Gregory & Delbourgo's quotient P / Q, and its log-derivative by the quotient rule."""
    if not x_knots[0] < x < x_knots[-1]:
        return x, 0.0
    i = min(np.searchsorted(x_knots, x, side="right") - 1, len(x_knots) - 2)
    width = x_knots[i + 1] - x_knots[i]
    (z0, z1), (d0, d1) = z_knots[i : i + 2], slopes[i : i + 2]
    s = (z1 - z0) / width
    t = (x - x_knots[i]) / width
    p = s * z1 * t**2 + (z0 * d1 + z1 * d0) * t * (1 - t) + s * z0 * (1 - t) ** 2
    q = s + (d1 + d0 - 2 * s) * t * (1 - t)
    dp = 2 * s * z1 * t + (z0 * d1 + z1 * d0) * (1 - 2 * t) - 2 * s * z0 * (1 - t)
    dq = (d1 + d0 - 2 * s) * (1 - 2 * t)
    return p / q, np.log((dp * q - p * dq) / q**2 / width)


def draw(spread, n=40, seed=0, n_bins=N_BINS):
    """Return a spline, parameters for n values of a single feature, and the knots of each."""
    spline = RationalQuadraticSpline(n_bins, TAIL_BOUND)
    params = spread * np.random.default_rng(seed).standard_normal((spline.n_params, n))
    knots = [reference_knots(spline, column) for column in params.T]
    return spline, torch.from_numpy(params)[None], knots


@with_both_implementations
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_spline_equals_the_formula(spread):
    spline, params, knots = draw(spread)
    x = np.random.default_rng(1).uniform(-1.3 * TAIL_BOUND, 1.3 * TAIL_BOUND, len(knots))
    expected = np.array([reference_spline(x, *k) for x, k in zip(x, knots, strict=True)])
    z, log_slope = spline.forward(torch.from_numpy(x)[None], params)
    assert_close(z[0].numpy(), expected[:, 0], rtol=1e-10, atol=1e-10)
    assert_close(log_slope.numpy(), expected[:, 1], rtol=1e-9, atol=1e-9)

    back, log_slope_back = spline.inverse(torch.from_numpy(expected[:, 0])[None], params)
    assert_close(back[0].numpy(), x, rtol=1e-8, atol=1e-8)
    assert_close(log_slope_back.numpy(), -expected[:, 1], rtol=1e-7, atol=1e-7)


@with_both_implementations
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_spline_is_smooth_at_its_knots(side):
    """Exactly at a knot and one rounding beside it; the first and the last meet the tails."""
    spline, params, knots = draw(1.0)
    for i in range(N_BINS + 1):
        x, z, slope = (torch.from_numpy(np.array([k[j][i] for k in knots])) for j in range(3))
        mapped, log_slope = spline.forward(nudge(x, side)[None], params)
        assert_close(mapped[0], z, rtol=1e-12, atol=1e-12)
        assert_close(log_slope, slope.log(), rtol=1e-10, atol=1e-10)
        back, log_slope = spline.inverse(nudge(z, side)[None], params)
        assert_close(back[0], x, rtol=1e-12, atol=1e-12)
        assert_close(log_slope, -slope.log(), rtol=1e-10, atol=1e-10)


def nudge(x, side):
    return x if side == 0 else torch.nextafter(x, torch.full_like(x, side * torch.inf))


@with_both_implementations
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_spline_is_increasing_and_finite_for_extreme_parameters(dtype, direction):
    spline, params, _ = draw(spread=50.0, n=20)
    params = params.to(dtype).transpose(0, 2)  # one spline for each of 20 features
    x = torch.linspace(-1.2 * TAIL_BOUND, 1.2 * TAIL_BOUND, 2001, dtype=dtype)
    rows = x.expand(20, -1).contiguous(), params.expand(-1, -1, len(x)).contiguous()
    z, log_det = getattr(spline, direction)(*rows)
    # In float32 the inverse of an almost flat piece is known to a few digits only.
    is_inexact = (dtype, direction) == (torch.float32, "inverse")
    # Processors without fused multiply-add round once more: 40 in place of 2 units
    # in float32.
    units = 64 if dtype is torch.float32 else 4
    rounding = 0.05 if is_inexact else units * torch.finfo(dtype).eps
    assert (z.diff() >= -rounding).all()
    assert log_det.isfinite().all()
    with torch.no_grad():
        for gradient in spline.vjp(*rows)[1](torch.ones_like(z), torch.ones_like(log_det)):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("at", ["inside", "knots", "outside"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_spline_gradients_equal_finite_differences(at, direction):
    spline, params, knots = draw(1.0, n=N_BINS - 1)
    places = {
        "inside": np.linspace(-2.3, 2.4, N_BINS - 1),
        "knots": [k[direction == "inverse"][i + 1] for i, k in enumerate(knots)],
        "outside": np.linspace(-9, -3, N_BINS - 1),
    }
    x = torch.tensor(np.array(places[at]))[None].requires_grad_()
    call = getattr(spline, direction)
    if at == "knots":  # the log-slope has a kink there, but the map has none
        assert gradcheck(lambda *inputs: call(*inputs)[0], (x, params.requires_grad_()), atol=1e-4)
    else:
        assert gradcheck(call, (x, params.requires_grad_()), atol=1e-6)


def test_spline_has_second_derivatives():
    spline, params, _ = draw(1.0, n=4)
    x = torch.linspace(-2, 2, 4, dtype=torch.float64)[None].requires_grad_()
    assert gradgradcheck(spline.forward, (x, params.requires_grad_()), atol=1e-5)


@with_both_implementations
@pytest.mark.parametrize(
    ("univariate", "spread"),
    [
        (Shift(), 1.0),
        (Affine(), 2.0),
        (RationalQuadraticSpline(1, TAIL_BOUND), 2.0),
        (RationalQuadraticSpline(2, TAIL_BOUND), 2.0),
        (RationalQuadraticSpline(N_BINS, TAIL_BOUND), 0.3),
        (RationalQuadraticSpline(N_BINS, TAIL_BOUND), 20.0),
    ],
)
def test_vjp_equals_autograd(univariate, spread):
    """The hand-written gradients, by the kernels and by PyTorch operations."""
    generator = torch.Generator().manual_seed(0)
    d, n = 2, 40

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = torch.linspace(-1.3 * TAIL_BOUND, 1.3 * TAIL_BOUND, d * n).double().view(n, d).T
    x, params = x.contiguous(), spread * draw(d, univariate.n_params, n)
    g, g_log_det = draw(d, n), draw(n)
    with torch.no_grad():
        outcome, pullback = univariate.vjp(x, params)
        gradients = pullback(g, g_log_det)
    leaves = x.requires_grad_(), params.requires_grad_()
    recorded = univariate.forward(*leaves)
    assert_close(outcome, tuple(tensor.detach() for tensor in recorded), rtol=1e-9, atol=1e-9)
    total = (g * recorded[0]).sum() + (g_log_det * recorded[1]).sum()
    expected = torch.autograd.grad(total, leaves)
    assert_close(gradients, expected, rtol=1e-9, atol=1e-9)


@with_both_implementations
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spline_gradients_are_as_exact_as_their_dtype(dtype):
    """A constant added to all widths, or to all heights, changes nothing."""
    spline, params, _ = draw(1.0)
    x = torch.linspace(-2.4, 2.4, params.shape[-1], dtype=dtype)[None]
    with torch.no_grad():
        (z, log_det), pullback = spline.vjp(x, params.to(dtype))
        _, gradient = pullback(z.cos(), torch.ones_like(log_det))
    widths, heights, _ = gradient[0].split((N_BINS, N_BINS, N_BINS - 1))
    for part in (widths, heights):
        rounding = 100 * torch.finfo(dtype).eps * part.abs().sum(0)
        assert (part.sum(0).abs() <= rounding).all()


@with_both_implementations
@pytest.mark.parametrize(
    "univariate", [Shift(), Affine(), RationalQuadraticSpline(), RationalQuadraticSpline(2, 5.0)]
)
def test_zero_parameters_give_the_identity(univariate):
    x = torch.linspace(-7, 7, 30, dtype=torch.float64).view(2, 15)
    params = torch.zeros(2, univariate.n_params, 15, dtype=torch.float64)
    for direction in (univariate.forward, univariate.inverse):
        z, log_det = direction(x, params)
        assert_close(z, x, rtol=0, atol=1e-14)
        assert_close(log_det, torch.zeros(15).double(), rtol=0, atol=1e-14)


@with_both_implementations
def test_shift_adds_and_affine_scales_then_adds():
    x = torch.tensor([[1.0, -2.0]])
    shift, raw = torch.tensor([[0.5, 3.0]]), torch.tensor([[0.1, -0.2]])
    z, log_det = Shift().forward(x, shift[:, None])
    assert_close(z, torch.tensor([[1.5, 1.0]]))
    assert not log_det.any()
    z, log_det = Affine().forward(x, torch.stack([shift, raw], 1))
    assert_close(z, x * log_det.exp() + shift)
    # The bound hardly changes small log-scales, and limits large ones.
    assert_close(log_det, raw[0], rtol=0.01, atol=0)
    _, log_det = Affine().forward(x, torch.stack([shift, 1e6 * raw], 1))
    assert_close(log_det, torch.tensor([3.0, -3.0]))
