"""The spline by compiled code, in one pass over the values, where that is installed and serves.

On a few hundred rows most of the time of torch's operations on a spline is that of starting dozens
of them; on thousands it is that of their passes over memory.
"""

import math

import torch
from torch.autograd.forward_ad import unpack_dual

from . import _spline_steps

try:
    from . import _spline_kernel  # type: ignore[attr-defined]
except ImportError:  # installed where there was no C compiler
    _spline_kernel = None
if getattr(_spline_kernel, "VERSION", None) != 1:  # left by a build of other C
    _spline_kernel = None

DTYPES = torch.float32, torch.float64


def serves(spline, x, params):
    """Whether the functions below are there, and take these tensors.

    They need their memory, and leave no operation behind for whoever records operations, but for
    the compiler.
    """
    is_compiling = torch.compiler.is_compiling()
    return (
        _spline_kernel is not None
        and (is_compiling or not torch.jit.is_tracing())
        and spline.n_bins <= _spline_kernel.MAX_BINS
        and x.dtype == params.dtype
        and x.dtype in DTYPES
        and x.device.type == params.device.type == "cpu"
        and params.shape == (*x.shape[:-2], spline.n_params, *x.shape[-2:])
        and (is_compiling or (_is_plain(x) and _is_plain(params)))
    )


def evaluate(spline, x, params):
    """The spline, its log-slope, and what its gradient needs."""
    call = compiled_forward if torch.compiler.is_compiling() else _forward
    x, params = x.contiguous(), _in_blocks(params)
    return *call(x, params, _settings(spline)), (x, params)


def pull_back(spline, kept, grad_z, grad_log_slope):
    """Gradients of x and the parameters from those of z and its log-slope."""
    x, params = kept
    is_compiling = torch.compiler.is_compiling()
    if not (is_compiling or (_is_plain(grad_z) and _is_plain(grad_log_slope))):
        *_, kept = _spline_steps.evaluate(spline, x, params)
        return _spline_steps.pull_back(spline, kept, grad_z, grad_log_slope)
    grad_z, grad_log_slope = (g.to(x).expand_as(x).contiguous() for g in (grad_z, grad_log_slope))
    call = compiled_backward if is_compiling else _backward
    return call(x, params, grad_z, grad_log_slope, _settings(spline))


def invert(spline, z, params):
    """The inverse of the spline and its log-slope."""
    z, params = z.contiguous(), _in_blocks(params)
    x, log_slope = torch.empty_like(z), torch.empty_like(z)
    _call("inverse", _settings(spline), params, z, params, x, log_slope)
    return x, log_slope


def _forward(
    x: torch.Tensor, params: torch.Tensor, settings: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    z, log_slope = torch.empty_like(x), torch.empty_like(x)
    _call("forward", settings, params, x, params, z, log_slope)
    return z, log_slope


def _backward(
    x: torch.Tensor,
    params: torch.Tensor,
    grad_z: torch.Tensor,
    grad_log_slope: torch.Tensor,
    settings: list[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    grad_x, grad_params = torch.empty_like(x), torch.empty_like(params)
    _call("backward", settings, params, x, params, grad_z, grad_log_slope, grad_x, grad_params)
    return grad_x, grad_params


# For the compiler, which cannot look into either: as operations of torch, with what they return.
compiled_forward = torch.library.custom_op("skflows::spline", _forward, mutates_args=())
compiled_backward = torch.library.custom_op("skflows::spline_backward", _backward, mutates_args=())
compiled_forward.register_fake(lambda x, *_: (torch.empty_like(x), torch.empty_like(x)))
compiled_backward.register_fake(
    lambda x, params, *_: (torch.empty_like(x), torch.empty_like(params))
)


def _in_blocks(params):
    """Parameters that lie in blocks of all for some values: those of a feature, or of a member."""
    # Fewer rows than the kernel takes at once would be slow in blocks of a feature.
    if params.shape[-1] >= _spline_kernel.TILE and params.transpose(-3, -2).is_contiguous():
        return params
    return params.contiguous()


def _call(name, settings, params, *tensors):
    *members, _, d, n = params.shape
    n_blocks = math.prod(members)
    n_blocks, n = (n_blocks, d * n) if params.is_contiguous() else (n_blocks * d, n)
    pointers = [tensor.data_ptr() for tensor in tensors]
    is_double = params.dtype == torch.float64
    n_bins, *sizes = settings
    getattr(_spline_kernel, name)((int(n_bins), *sizes), is_double, n_blocks, n, *pointers)


def _settings(spline):
    sizes = spline.tail_bound, spline.least, spline.shared
    return [float(spline.n_bins), *sizes, spline.UNIT_SLOPE, spline.MIN_DERIVATIVE]


def _is_plain(tensor):
    """Whether its memory has all of it: no tangent, no sign to turn, not within `torch.vmap`."""
    try:
        has_memory = tensor.data_ptr() != 0 or tensor.numel() == 0
    except RuntimeError:
        return False
    return has_memory and not tensor.is_neg() and unpack_dual(tensor).tangent is None
