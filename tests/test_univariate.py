"""The elementwise maps that networks parametrise, against formulas written out one by one."""

import shutil
import sysconfig
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from _splines import plain_spline
from scipy.special import softmax
from torch.autograd import forward_ad, gradcheck
from torch.testing import assert_close

from skflows import kernels as _fused
from skflows.bijections import Affine, RationalQuadraticSpline, Shift, _spline_fused, _spline_steps
from skflows.bijections._univariate import outputs_of, params_of

N_BINS, TAIL_BOUND = 6, 2.5

has_kernel = pytest.mark.skipif(_fused._passes is None, reason="installed without a C compiler")


@pytest.mark.skipif(
    not shutil.which("gcc") or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="needs gcc, and the headers of Python",
)
def test_compiled_code_is_built_where_it_can_be():
    assert _fused._passes is not None


in_each_way = pytest.mark.usefixtures("implementation")


def reference_knots(spline, params):
    """Abscissae, ordinates and slopes of the knots from 3 K - 1 parameters."""
    k, bound = spline.n_bins, spline.tail_bound
    places = []
    for logits in (params[:k], params[k : 2 * k]):
        sizes = spline.MIN_SIZE + (1 - k * spline.MIN_SIZE) * softmax(logits)
        places.append(np.concatenate([[-bound], -bound + 2 * bound * np.cumsum(sizes)]))
    inner = spline.MIN_DERIVATIVE + np.logaddexp(0, params[2 * k :] + spline.UNIT_SLOPE)
    return *places, np.concatenate([[1.0], inner, [1.0]])


def reference_spline(x, x_knots, z_knots, slopes):
    """Gregory & Delbourgo's quotient P / Q, and its log-derivative by the quotient rule."""
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
    """A spline, its parameters for n columns of one row each, and their knots."""
    spline = RationalQuadraticSpline(n_bins, TAIL_BOUND)
    params = spread * np.random.default_rng(seed).standard_normal((spline.n_params, n))
    knots = [reference_knots(spline, column) for column in params.T]
    return spline, torch.from_numpy(params)[:, None], knots


@in_each_way
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_spline_equals_the_written_out_formula(spread):
    spline, params, knots = draw(spread)
    x = np.random.default_rng(1).uniform(-1.3 * TAIL_BOUND, 1.3 * TAIL_BOUND, len(knots))
    expected = np.array([reference_spline(x, *k) for x, k in zip(x, knots, strict=True)])
    z, log_slope = spline.forward(torch.from_numpy(x)[None], params)
    assert_close(z[0].numpy(), expected[:, 0], rtol=1e-10, atol=1e-10)
    assert_close(log_slope[0].numpy(), expected[:, 1], rtol=1e-9, atol=1e-9)

    back, log_slope_back = spline.inverse(torch.from_numpy(expected[:, 0])[None], params)
    assert_close(back[0].numpy(), x, rtol=1e-8, atol=1e-8)
    assert_close(log_slope_back[0].numpy(), -expected[:, 1], rtol=1e-7, atol=1e-7)


@in_each_way
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_spline_passes_through_its_knots_smoothly(side):
    """Exactly at a knot and one rounding beside it; the first and the last meet the tails."""
    spline, params, knots = draw(1.0)
    for i in range(N_BINS + 1):
        x, z, slope = (torch.from_numpy(np.array([k[j][i] for k in knots])) for j in range(3))
        forth, log_slope = spline.forward(nudge(x, side)[None], params)
        assert_close(forth[0], z, rtol=1e-12, atol=1e-12)
        assert_close(log_slope[0], slope.log(), rtol=1e-10, atol=1e-10)
        back, log_slope = spline.inverse(nudge(z, side)[None], params)
        assert_close(back[0], x, rtol=1e-12, atol=1e-12)
        assert_close(log_slope[0], -slope.log(), rtol=1e-10, atol=1e-10)


def nudge(x, side):
    return x if side == 0 else torch.nextafter(x, torch.full_like(x, side * torch.inf))


@in_each_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_spline_is_increasing_and_finite_for_extreme_parameters(dtype, direction):
    spline, params, _ = draw(spread=50.0, n=20)
    params = params.to(dtype).requires_grad_()
    x = torch.linspace(-1.2 * TAIL_BOUND, 1.2 * TAIL_BOUND, 2001, dtype=dtype)
    z, log_slope = getattr(spline, direction)(
        x.expand(20, -1), params.transpose(1, 2).expand(-1, -1, len(x))
    )
    # In float32 the inverse of an almost flat piece is known to a few digits only.
    rounding = (
        0.05 if (dtype, direction) == (torch.float32, "inverse") else 4 * torch.finfo(dtype).eps
    )
    assert (z.diff() >= -rounding).all()
    assert log_slope.isfinite().all()
    (z + log_slope).sum().backward()
    assert params.grad.isfinite().all()


@in_each_way
@pytest.mark.parametrize("at", ["inside", "knots", "outside"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_spline_gradients_equal_finite_differences(at, direction):
    """The backward pass is written out: it is compared input by input, in each kind of place."""
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


@in_each_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spline_gradients_are_as_exact_as_their_dtype(dtype):
    """A constant added to all widths, or to all heights, changes nothing."""
    spline, params, _ = draw(1.0)
    params = params.to(dtype).requires_grad_()
    x = torch.linspace(-2.4, 2.4, params.shape[-1], dtype=dtype)[None]
    z, log_slope = spline.forward(x, params)
    (grad,) = torch.autograd.grad((z.sin() + log_slope).sum(), params)
    widths, heights, _ = grad.split((N_BINS, N_BINS, N_BINS - 1))
    for part in (widths, heights):
        rounding = 100 * torch.finfo(dtype).eps * part.abs().sum(0)
        assert (part.sum(0).abs() <= rounding).all()


@in_each_way
def test_spline_refuses_a_second_derivative_rather_than_get_it_wrong():
    spline, params, _ = draw(1.0)
    x = torch.linspace(-2, 2, params.shape[-1], dtype=torch.float64)[None].requires_grad_()
    z, _ = spline.forward(x, params)
    (slope,) = torch.autograd.grad((z**2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(slope.sum(), x)


@in_each_way
@pytest.mark.parametrize(
    "univariate", [Shift(), Affine(), RationalQuadraticSpline(), RationalQuadraticSpline(2, 5.0)]
)
def test_zero_parameters_give_the_identity(univariate):
    x = torch.linspace(-7, 7, 29, dtype=torch.float64)[None]
    params = torch.zeros(univariate.n_params, *x.shape, dtype=torch.float64)
    for direction in (univariate.forward, univariate.inverse):
        z, log_slope = direction(x, params)
        assert_close(z, x, rtol=0, atol=1e-14)
        assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-14)


def test_shift_adds_and_affine_scales_then_adds():
    x = torch.tensor([[1.0, -2.0]])
    params = torch.tensor([[[0.5, 3.0]], [[0.1, -0.2]]])
    z, log_slope = Shift().forward(x, params[:1])
    assert_close(z, torch.tensor([[1.5, 1.0]]))
    assert not log_slope.any()
    z, log_slope = Affine().forward(x, params)
    assert_close(z, x * log_slope.exp() + params[0])
    # The bound hardly touches small log-scales and caps large ones.
    assert_close(log_slope, params[1], rtol=0.01, atol=0)
    _, log_slope = Affine().forward(x, 1e6 * params)
    assert_close(log_slope, torch.tensor([[3.0, -3.0]]))


@in_each_way
@pytest.mark.parametrize("n_bins", [1, 2, N_BINS])
@pytest.mark.parametrize("spread", [0.3, 2.0, 20.0])
def test_spline_gradients_are_autograds(spread, n_bins, monkeypatch):
    """Those written out, and those in the form that a compiler is given."""
    spline, params, _ = draw(spread, n_bins=n_bins)
    x = torch.linspace(-1.3 * TAIL_BOUND, 1.3 * TAIL_BOUND, params.shape[-1], dtype=params.dtype)

    def values_and_gradients(forward):
        inputs = x.clone()[None].requires_grad_(), params.clone().requires_grad_()
        z, log_slope = forward(*inputs)
        weights = torch.linspace(0.5, 2.0, x.numel(), dtype=x.dtype)
        return z, log_slope, *torch.autograd.grad((weights * (z.sin() + log_slope)).sum(), inputs)

    plain = values_and_gradients(partial(plain_spline, spline, _spline_steps.scan))
    assert_close(values_and_gradients(spline.forward), plain, rtol=1e-9, atol=1e-9)
    # Not the function, by which the compiler knows it: it would not know it again in later tests.
    monkeypatch.setattr(torch.compiler, "_is_compiling_flag", True)
    assert torch.compiler.is_compiling()
    assert_close(values_and_gradients(spline.forward), plain, rtol=1e-9, atol=1e-9)


def of_a_spline(n_bins, *shape, dtype=torch.float64, spread=2.0):
    """A spline, and values, parameters and gradients of z and of its log-slope of that shape."""
    generator = torch.Generator().manual_seed(0)
    spline = RationalQuadraticSpline(n_bins, TAIL_BOUND)
    *members, d, n = shape
    shapes = shape, (*members, spline.n_params, d, n), shape, (*members, 1, n)
    scales = TAIL_BOUND / 1.5, spread, 1.0, 1.0
    drawn = [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]
    return spline, *(scale * tensor for scale, tensor in zip(scales, drawn, strict=True))


def all_of_a_spline(spline, x, params, g, g_log_slope):
    """Both directions, and the gradients of the first."""
    with torch.no_grad():
        outcome, pullback = spline.vjp(x, params)
        return *outcome, *pullback(g, g_log_slope), *spline.inverse(x, params)


@has_kernel
@pytest.mark.parametrize("by_feature", [False, True])
@pytest.mark.parametrize("n_bins", [1, 2, 8, 32])
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 50), (2, 64), (4, 3, 33), (2, 3, 150), (2, 2, 1, 65), (3, 0)]
)
def test_the_kernel_of_splines_equals_their_steps(n_bins, shape, by_feature, monkeypatch):
    """In float64 to rounding; in float32 it is about as far from that as the steps are."""
    drawn = of_a_spline(n_bins, *shape)
    if by_feature:
        spline, x, params, *others = drawn
        drawn = spline, x, params_of(spline, outputs_of(params)), *others
    single = drawn[0], *(tensor.float() for tensor in drawn[1:])
    assert _spline_fused.serves(*drawn[:3]) and _spline_fused.serves(*single[:3])
    ours, ours_single = all_of_a_spline(*drawn), all_of_a_spline(*single)
    monkeypatch.setattr(_fused, "_passes", None)
    theirs, theirs_single = all_of_a_spline(*drawn), all_of_a_spline(*single)
    assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for exact, one, other in zip(theirs, ours_single, theirs_single, strict=True):
        error, rounding = ((each - exact).norm() for each in (one, other))
        assert error <= 10 * rounding + 1e-6 * exact.norm()
    z, log_slope = drawn[0].forward(*drawn[1:3])
    assert_close(ours[:2], (z, log_slope.sum(-2, keepdim=True)), rtol=1e-10, atol=1e-10)


@in_each_way
def test_a_spline_in_float32_meets_its_tail():
    """However steep it is there: at the end of a bin no term may cancel."""
    spline, x, params, *_ = of_a_spline(8, 1, 500)
    x[:] = TAIL_BOUND
    params[-1] = 1000.0
    z, _ = spline.forward(x.float(), params.float())
    assert_close(z, x.float(), rtol=1e-5, atol=0)


@in_each_way
def test_splines_take_gradients_of_any_dtype_and_shape():
    spline, x, params, g, g_log_slope = of_a_spline(4, 3, 20)
    with torch.no_grad():
        expected = spline.vjp(x, params)[1](g[:1].expand(3, -1).contiguous(), g_log_slope)
        ours = spline.vjp(x, params)[1](g[:1], g_log_slope)
    assert_close(ours, expected)


@in_each_way
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # of torch, for a level
def test_splines_hide_no_tangent():
    spline, x, params, *_ = of_a_spline(4, 1, 6)
    with forward_ad.dual_level(), torch.no_grad(), pytest.raises(NotImplementedError):
        spline.forward(forward_ad.make_dual(x, torch.ones_like(x)), params)


@has_kernel
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_the_kernel_of_splines_leaves_what_is_recorded_or_turned_to_their_steps():
    spline, x, params, *_ = of_a_spline(4, 1, 6)
    expected = spline.inverse(x, params)
    turned = torch._neg_view(-x)
    assert_close(spline.inverse(turned, params), expected)
    traced = torch.jit.trace(spline.inverse, (x, params), check_trace=False)
    assert_close(traced(x, params), expected)


@has_kernel
def test_the_kernel_of_splines_takes_any_strides():
    spline, *drawn = of_a_spline(5, 4, 70)
    strided = [tensor.mT.contiguous().mT for tensor in drawn]
    assert not any(tensor.is_contiguous() for tensor in strided[:3])
    for ours, theirs in zip(*(all_of_a_spline(spline, *t) for t in (drawn, strided)), strict=True):
        assert torch.equal(ours, theirs)


@has_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_of_splines_gives_a_value_the_same_bits_anywhere(dtype):
    spline, *drawn = of_a_spline(8, 3, 150, dtype=dtype)
    together = all_of_a_spline(spline, *drawn)
    for at in (slice(0, 1), slice(5, 22), slice(77, 150)):
        alone = all_of_a_spline(spline, *(tensor[..., at] for tensor in drawn))
        for whole, part in zip(together, alone, strict=True):
            assert torch.equal(whole[..., at], part)


@in_each_way
@pytest.mark.filterwarnings("ignore:.*functools.lru_cache:UserWarning")  # which it looks through
def test_a_compiler_follows_the_inverse_of_a_spline():
    spline, z, params, *_ = of_a_spline(4, 2, 70)
    traced = torch.compile(spline.inverse, fullgraph=True, backend="eager")
    assert_close(traced(z, params), spline.inverse(z, params))


@in_each_way
def test_splines_hide_no_nan():
    """Training tells from it which member of a stack is lost."""
    spline, x, params, *_ = of_a_spline(4, 1, 6)
    x[0, :5] = torch.tensor([torch.nan, 0.0, 0.0, -9.0, 9.0])
    params[0, 0, 1] = params[6, 0, 2] = torch.nan
    for direction in (spline.forward, spline.inverse):
        z, log_slope = direction(x, params)
        assert z[0].isnan().tolist() == [True, True, True, False, False, False]
        assert log_slope[0, 1:3].isnan().all()
        assert not log_slope[0, 3:].isnan().any()


@has_kernel
def test_splines_of_many_bins_are_computed_in_steps():
    most = _fused._passes.MAX_BINS
    drawn = of_a_spline(most + 1, 2, 5)
    assert not _spline_fused.serves(*drawn[:3])
    assert all(part.isfinite().all() for part in all_of_a_spline(*drawn))
    with pytest.raises(ValueError, match="33 bins"):
        _spline_fused.evaluate(*drawn[:3])


@in_each_way
@pytest.mark.parametrize(("d", "n"), [(3, 16), (3, 48), (10, 128)])
def test_a_spline_in_a_stack_has_the_bits_that_it_has_alone(d, n):
    """And the products that its gradient goes to need not copy it."""
    torch.manual_seed(0)
    spline, m = RationalQuadraticSpline(), 4
    x, g, g_log_slope = torch.randn(m, d, n), torch.randn(m, d, n), torch.randn(m, 1, n)
    params = params_of(spline, torch.randn(m, d * spline.n_params, n))

    def values_and_gradients(*of_members):
        x, params, g, g_log_slope = of_members
        outcome, pullback = spline.vjp(x, params)
        return *outcome, *pullback(g, g_log_slope)

    with torch.no_grad():
        together = values_and_gradients(x, params, g, g_log_slope)
        for i, own in enumerate(zip(x, params, g, g_log_slope, strict=True)):
            for part, alone in zip(together, values_and_gradients(*own), strict=True):
                assert torch.equal(part[i], alone)
    if n >= 64:
        outputs = outputs_of(together[-1])
        assert outputs.data_ptr() == together[-1].data_ptr()
