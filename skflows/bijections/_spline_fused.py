"""The spline by compiled code, in one pass over the values, where that is installed and serves.

On a few hundred rows most of the time of torch's operations on a spline is that of starting dozens
of them; on thousands it is that of their passes over memory.
"""

import math
from functools import cache

import torch

from . import _spline_steps

try:
    from . import _spline_kernel  # type: ignore[attr-defined]
except ImportError:  # installed where there was no C compiler
    _spline_kernel = None

DTYPES = torch.float32, torch.float64
FEWEST = 64  # rows that blocks of a feature pay for: they are taken by so many


def serves(spline, x, params):
    """Whether the functions below are there, and take these tensors."""
    return (
        _spline_kernel is not None
        and not torch.compiler.is_compiling()  # it makes one pass of torch's operations itself
        and spline.n_bins <= _spline_kernel.MAX_BINS
        and x.dtype == params.dtype
        and x.dtype in DTYPES
        and x.device.type == params.device.type == "cpu"
        and params.shape == (*x.shape[:-2], spline.n_params, *x.shape[-2:])
        and _has_memory(x)
        and _has_memory(params)
    )


def evaluate(spline, x, params):
    """The spline, its log-slope, and what its gradient needs."""
    x, params = x.contiguous(), _in_blocks(params)
    z, log_slope = torch.empty_like(x), torch.empty_like(x)
    _call("forward", spline, params, x, params, z, log_slope)
    return z, log_slope, (x, params)


def pull_back(spline, kept, grad_z, grad_log_slope):
    """Gradients of x and the parameters from those of z and its log-slope."""
    x, params = kept
    if not (_has_memory(grad_z) and _has_memory(grad_log_slope)):
        *_, kept = _spline_steps.evaluate(spline, x, params)
        return _spline_steps.pull_back(spline, kept, grad_z, grad_log_slope)
    grad_z, grad_log_slope = grad_z.contiguous(), grad_log_slope.expand_as(x).contiguous()
    grad_x, grad_params = torch.empty_like(x), torch.empty_like(params)
    _call("backward", spline, params, x, params, grad_z, grad_log_slope, grad_x, grad_params)
    return grad_x, grad_params


def invert(spline, z, params):
    """The inverse of the spline and its log-slope."""
    z, params = z.contiguous(), _in_blocks(params)
    x, log_slope = torch.empty_like(z), torch.empty_like(z)
    _call("inverse", spline, params, z, params, x, log_slope)
    return x, log_slope


def _in_blocks(params):
    """Parameters that lie in blocks of all for some values: those of a feature, or of a member."""
    if params.shape[-1] >= FEWEST and params.transpose(-3, -2).is_contiguous():
        return params
    return params.contiguous()


def _call(name, spline, params, *tensors):
    *members, _, d, n = params.shape
    n_blocks = math.prod(members)
    n_blocks, n = (n_blocks, d * n) if params.is_contiguous() else (n_blocks * d, n)
    pointers = [tensor.data_ptr() for tensor in tensors]
    is_double = params.dtype == torch.float64
    getattr(_spline_kernel, name)(_settings(spline), is_double, n_blocks, n, *pointers)


@cache
def _settings(spline):
    sizes = spline.tail_bound, spline.least, spline.shared
    return spline.n_bins, *sizes, spline.UNIT_SLOPE, spline.MIN_DERIVATIVE


def _has_memory(tensor):
    """Whether it has values of its own, as those within `torch.func.vmap` have not."""
    try:
        return tensor.data_ptr() != 0 or tensor.numel() == 0
    except RuntimeError:
        return False
