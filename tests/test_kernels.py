"""Compiled kernels against PyTorch operations, and when each of the two is used."""

import importlib
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import BaseTorchFunctionMode
from torch.testing import assert_close

from skflows import kernels
from skflows.bijections import MaskedAutoregressive, RationalQuadraticSpline

needs_kernels = pytest.mark.skipif(
    kernels._compiled is None, reason="installed without a C compiler"
)
MAX_BINS = 32
DTYPES = [torch.float32, torch.float64]
# Sizes around a block of 64 values; one and several features; members of a stack; no rows.
SHAPES = [(1, 1), (3, 150), (2, 3, 65), (2, 2, 1, 64), (3, 0)]
SPLINE = RationalQuadraticSpline(8, 2.5)


@pytest.fixture
def called(monkeypatch):
    """The names of the kernels that ran."""
    names = []
    run, run_backward = kernels.run_spline, kernels.run_spline_backward

    def recorded(name, *args):
        names.append(name)
        return run(name, *args)

    def recorded_backward(*args):
        names.append("spline_backward")
        return run_backward(*args)

    monkeypatch.setattr(kernels, "run_spline", recorded)
    monkeypatch.setattr(kernels, "run_spline_backward", recorded_backward)
    return names


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inputs(spline, *shape, dtype=torch.float64):
    """Values, parameters, and gradients of what the spline returns."""
    *members, d, n = shape
    return (
        2 * normal(*shape, dtype=dtype),  # on both sides of a spline's tail bound
        2 * normal(*members, d, spline.n_params, n, dtype=dtype, seed=1),
        normal(*shape, dtype=dtype, seed=2),
        normal(*members, n, dtype=dtype, seed=3),
    )


@torch.no_grad()
def outcomes(spline, x, params, g, g_log_det):
    """Return both directions of a spline, and the gradients of the first."""
    outcome, pullback = spline.vjp(x, params)
    return *outcome, *pullback(g, g_log_det), *spline.inverse(x, params)


@pytest.mark.skipif(
    not shutil.which("gcc") or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="needs gcc and the headers of Python",
)
def test_kernels_are_built_where_there_is_a_compiler():
    assert kernels._compiled is not None


# Values and gradients


@needs_kernels
@pytest.mark.parametrize("n_bins", [1, 2, 8, MAX_BINS])
@pytest.mark.parametrize("shape", SHAPES)
def test_splines_equal_torch(n_bins, shape, with_torch, called):
    """In float64 to rounding; in float32 nearly as exactly as PyTorch operations."""
    spline = RationalQuadraticSpline(n_bins, 2.5)
    double = inputs(spline, *shape)
    single = [tensor.float() for tensor in double]
    ours, ours_single = outcomes(spline, *double), outcomes(spline, *single)
    assert called == 2 * ["spline_forward", "spline_backward", "spline_inverse"]
    theirs = with_torch(outcomes, spline, *double)
    theirs_single = with_torch(outcomes, spline, *single)
    assert len(called) == 6
    assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for exact, one, other in zip(theirs, ours_single, theirs_single, strict=True):
        assert one.dtype == torch.float32
        error, rounding = ((each - exact).norm() for each in (one, other))
        assert error <= 50 * rounding + 1e-6 * exact.norm()
    assert_close(spline.forward(*double[:2]), ours[:2])


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_has_the_same_bits_in_any_batch(dtype):
    tensors = inputs(SPLINE, 3, 150, dtype=dtype)
    together = outcomes(SPLINE, *tensors)
    for part in (slice(0, 1), slice(5, 22), slice(77, 150)):
        alone = outcomes(SPLINE, *(tensor[..., part] for tensor in tensors))
        for whole, own in zip(together, alone, strict=True):
            assert torch.equal(whole[..., part], own)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize(("k", "d", "n"), [(0, 1, 5), (1, 1, 65), (7, 1, 150), (3, 2, 65)])
def test_repeated_parameters_give_the_bits_of_copies(direction, k, d, n):
    x = 2 * normal(k, d, n)
    params = normal(1, d, SPLINE.n_params, n, seed=1).expand(k, -1, -1, -1)
    map_ = getattr(SPLINE, direction)
    for ours, theirs in zip(map_(x, params), map_(x, params.clone()), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("implementation")
def test_a_member_of_a_stack_has_the_bits_that_it_has_alone():
    tensors = inputs(SPLINE, 4, 3, 48, dtype=torch.float32)
    together = outcomes(SPLINE, *tensors)
    for i, own in enumerate(zip(*tensors, strict=True)):
        for whole, alone in zip(together, outcomes(SPLINE, *own), strict=True):
            assert torch.equal(whole[i], alone)


@needs_kernels
def test_splines_take_any_strides():
    tensors = inputs(SPLINE, 4, 70)
    strided = [tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor for tensor in tensors]
    assert not any(tensor.is_contiguous() for tensor in strided[:3])
    for ours, theirs in zip(outcomes(SPLINE, *tensors), outcomes(SPLINE, *strided), strict=True):
        assert torch.equal(ours, theirs)


@needs_kernels
def test_splines_of_many_bins_are_left_to_torch(called):
    assert kernels._compiled.MAX_BINS == MAX_BINS
    spline = RationalQuadraticSpline(MAX_BINS + 1)
    assert all(part.isfinite().all() for part in outcomes(spline, *inputs(spline, 2, 5)))
    assert not called


@pytest.mark.usefixtures("implementation")
def test_a_spline_in_float32_meets_its_tail():
    """However steep it is there: no term cancels at the end of a bin."""
    x, params, *_ = inputs(SPLINE, 1, 500, dtype=torch.float32)
    x[:] = SPLINE.tail_bound
    params[:, -1] = 1000.0
    assert_close(SPLINE.forward(x, params)[0], x, rtol=1e-5, atol=0)


@pytest.mark.usefixtures("implementation")
def test_splines_hide_no_nan():
    """Training tells by NaN which member of a stack is lost."""
    x, params, *_ = inputs(SPLINE, 1, 6)
    x[0] = torch.tensor([torch.nan, 0.0, 0.0, -9.0, 9.0, 0.0])
    params[0, 0, 1] = params[0, 9, 2] = torch.nan
    for direction in (SPLINE.forward, SPLINE.inverse):
        z, log_det = direction(x, params)
        assert z[0].isnan().tolist() == [True, True, True, False, False, False]
        assert log_det[1:3].isnan().all()
        assert not log_det[3:].isnan().any()


# When the kernels run


@needs_kernels
def test_what_autograd_records_is_left_to_torch(called):
    x, params, *_ = inputs(SPLINE, 2, 6)
    for leaf in (x, params):
        leaf.requires_grad_()
        assert SPLINE.forward(x, params)[0].requires_grad
        assert SPLINE.inverse(x, params)[0].requires_grad
        leaf.requires_grad_(False)
    assert not called


@needs_kernels
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*functools.lru_cache:UserWarning")
def test_what_is_traced_or_transformed_is_left_to_torch(called):
    x, params, *_ = inputs(SPLINE, 3, 2, 6)
    direction = torch.ones_like(x)

    def inverse(x, params):
        return SPLINE.inverse(x, params)

    with torch.no_grad():
        expected = inverse(x, params)
        called.clear()
        assert_close(inverse(torch._neg_view(-x), params), expected)
        assert_close(torch.vmap(inverse)(x, params), expected)
        traced = torch.jit.trace(inverse, (x, params), check_trace=False)
        graph = make_fx(inverse)(x, params)
        compiled = torch.compile(inverse, backend="eager", fullgraph=True)
        for program in (traced, graph, compiled):  # on other values than they were recorded with
            assert_close(program(x.flip(-1), params.flip(-1))[1], expected[1].flip(-1))
        _, (tangent, _) = torch.func.jvp(lambda x: inverse(x, params), (x,), (direction,))
        with forward_ad.dual_level():
            dual = inverse(forward_ad.make_dual(x, direction), params)[0]
            assert_close(forward_ad.unpack_dual(dual).tangent, tangent)
    assert not called
    (slope,) = torch.autograd.grad(inverse(leaf := x.requires_grad_(), params)[0].sum(), leaf)
    assert_close(tangent, slope)


@needs_kernels
@pytest.mark.filterwarnings("ignore")  # torch warns of itself
def test_an_exported_map_takes_any_number_of_rows():
    bijection = MaskedAutoregressive(3, RationalQuadraticSpline(4), (8,)).double().eval()
    rows = torch.export.Dim("n", min=2, max=4096)
    with torch.no_grad():
        program = torch.export.export(bijection, (normal(9, 3),), dynamic_shapes=({0: rows},))
        for n in (5, 700):
            assert_close(program.module()(normal(n, 3)), bijection(normal(n, 3)))


@pytest.fixture
def reload_kernels():
    """Reloads the module, and again after the test, when what was patched is restored."""

    def reload():
        del kernels._compiled  # otherwise the import statement finds it in the package
        importlib.reload(kernels)

    yield reload
    reload()


@needs_kernels
@pytest.mark.parametrize(
    ("owner", "hook"),
    [(torch._C, "_len_torch_dispatch_stack"), (torch._C._functorch, "maybe_current_level")],
)
def test_kernels_are_not_used_if_torch_cannot_tell_who_records(
    owner, hook, reload_kernels, monkeypatch
):
    """A later release of torch may lack the private functions that tell."""
    assert kernels.usable(normal(3))
    monkeypatch.delattr(owner, hook)
    reload_kernels()
    assert not kernels.usable(normal(3))


@needs_kernels
def test_a_build_of_another_version_is_not_used(reload_kernels, monkeypatch):
    monkeypatch.setattr(kernels._compiled, "VERSION", 0)
    with pytest.warns(UserWarning, match="Reinstall skflows"):
        reload_kernels()
    assert not kernels.usable(normal(3))


@needs_kernels
def test_kernels_need_one_real_dtype():
    x = normal(3)
    assert kernels.usable(x, x)
    assert not kernels.usable(x, x.float())
    assert not kernels.usable(x.half())
    assert not kernels.usable(x.int())
    assert not kernels.usable(x.to_sparse())
    assert not kernels.usable(torch._efficientzerotensor(x.shape))
    assert not kernels.usable(x.as_subclass(type("Own", (torch.Tensor,), {})))
    with BaseTorchFunctionMode():
        assert not kernels.usable(x)
    empty = torch.empty(0, 3)
    assert not kernels.usable_spline(empty, torch.empty(0, 2, 3), 2)


# What the C code checks by itself


SETTINGS = 3.0, 1e-3, 1e-3, 0.5


def arrays_of_a_spline(n_params=2):
    """Values, parameters, mapped values and log-determinants of 3 features and 5 rows."""
    return [np.zeros(s) for s in ((3, 5), (3, n_params, 5), (3, 5), (5,))]


def readonly(array):
    array.flags.writeable = False
    return array


BAD_ARRAYS = {
    "other dtype": (1, lambda array: array.astype(np.float32), ValueError),
    "integers": (0, lambda array: array.astype(int), ValueError),
    "too few values": (2, lambda array: array[:, :4].copy(), ValueError),
    "too few parameters": (1, lambda array: array[:2].copy(), ValueError),
    "too few log-determinants": (3, lambda array: array[:4].copy(), ValueError),
    "too many axes": (3, lambda array: array[None], ValueError),
    "too few axes": (0, lambda array: array[0].copy(), ValueError),
    "another number of parameters": (1, lambda array: np.repeat(array, 2, 1), ValueError),
    "strides": (0, lambda array: array.T.copy().T, (ValueError, BufferError)),
    "readonly output": (2, readonly, (ValueError, BufferError)),
    "no array": (0, lambda array: array.tolist(), (TypeError, BufferError)),
}


@needs_kernels
@pytest.mark.parametrize(("i", "change", "error"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_c_refuses_arrays_that_do_not_fit(i, change, error):
    arrays = arrays_of_a_spline()
    kernels._compiled.spline_forward(*arrays, *SETTINGS)
    arrays[i] = change(arrays[i])
    with pytest.raises(error):
        kernels._compiled.spline_forward(*arrays, *SETTINGS)


@needs_kernels
def test_c_repeats_parameters_along_the_first_of_three_axes():
    z, log_det = np.zeros((4, 3, 5)), np.zeros((4, 5))
    x, params = np.ones((4, 3, 5)), np.zeros((1, 3, 2, 5))
    kernels._compiled.spline_forward(x, params, z, log_det, *SETTINGS)
    assert np.abs(z - z[0]).max() == 0 < z.min()
    for values, one in ((x[:0], params), (x[0], params[0, :1])):
        with pytest.raises(ValueError, match="does not fit"):
            arrays = values, one, values.copy(), values[..., 0, :].copy()
            kernels._compiled.spline_forward(*arrays, *SETTINGS)
    with pytest.raises(ValueError, match="does not fit"):  # gradients would be sums
        arrays = x, params, x, log_det, z, np.zeros_like(params)
        kernels._compiled.spline_backward(*arrays, *SETTINGS)


@needs_kernels
@pytest.mark.parametrize("n_params", [1, 3 * MAX_BINS + 2])
def test_c_refuses_numbers_of_parameters_without_a_spline(n_params):
    with pytest.raises(ValueError, match=f"{n_params} parameters"):
        kernels._compiled.spline_forward(*arrays_of_a_spline(n_params), *SETTINGS)


@needs_kernels
@pytest.mark.parametrize("settings", [(), (*SETTINGS, 1.0), ("wide", *SETTINGS[1:])])
def test_c_refuses_other_settings(settings):
    with pytest.raises(TypeError):
        kernels._compiled.spline_forward(*arrays_of_a_spline(), *settings)


def test_an_extension_that_cannot_be_loaded_is_not_used(monkeypatch):
    """A file that the loader refuses: built for another system, or damaged."""

    def refuse(name, package):
        raise ImportError("invalid ELF header")

    monkeypatch.setattr(kernels, "import_module", refuse)
    with pytest.warns(UserWarning, match="cannot be loaded .invalid ELF header.*Reinstall skflows"):
        assert kernels._import_compiled() is None
