"""Work in one pass over memory, by compiled code, where that is installed and serves.

On a few hundred rows most of the time of torch's operations is that of starting them; on thousands
it is that of their passes over memory. What serves elsewhere stands beside each use: both compute
the same, but for rounding.
"""

import math

import torch
from torch.autograd.forward_ad import unpack_dual

try:
    from . import _passes  # type: ignore[attr-defined]
except ImportError:  # installed where there was no C compiler
    _passes = None
if getattr(_passes, "VERSION", None) != 2:  # left by a build of other C
    _passes = None

DTYPES = torch.float32, torch.float64


def serves(*tensors):
    """Whether `run` is there, and takes these tensors now.

    It needs their memory, and leaves no operation behind for whoever records operations.
    """
    if _passes is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return takes(*tensors) and all(map(is_plain, tensors))


def takes(first, *others):
    """Whether tensors are of one of the types that passes are made for, and on the CPU."""
    dtype = first.dtype
    for other in others:
        if other.dtype is not dtype or not other.is_cpu:
            return False
    return dtype in DTYPES and first.is_cpu


def is_plain(tensor):
    """Whether its memory has all of it: no tangent, no sign to turn, not within `torch.vmap`."""
    try:
        has_memory = tensor.data_ptr() != 0 or tensor.numel() == 0
    except RuntimeError:
        return False
    return has_memory and not tensor.is_neg() and unpack_dual(tensor).tangent is None


def is_recorded(*tensors):
    """Whether autograd records what becomes of them."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def run(name, settings, sizes, *tensors):
    """Call a pass: ``csrc`` has the settings and the sizes of each, and its tensors or Nones."""
    pointers = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    getattr(_passes, name)(tensors[0].dtype == torch.float64, settings, sizes, *pointers)


def by_member(tensor, n_axes):
    """A tensor of so many axes, or of one more in a stack, and how far apart its members lie.

    Each is contiguous. Those of a tensor that has a single one for all members are not apart.
    """
    if tensor is None:
        return None, 0
    if not (tensor.is_contiguous() or (tensor.dim() > n_axes and tensor[0].is_contiguous())):
        tensor = tensor.contiguous()
    return tensor, tensor.stride(0) if tensor.dim() > n_axes and tensor.shape[0] > 1 else 0


def in_blocks(params):
    """Parameters that lie in blocks of all for some values: those of a feature, or of a member."""
    # Fewer rows than a pass takes at once would be slow in blocks of a feature.
    if params.shape[-1] >= _passes.TILE and params.transpose(-3, -2).is_contiguous():
        return params
    return params.contiguous()


def run_forward(name, settings, x, params):
    """Pass x, and parameters `in_blocks`, through a map of one variable: two tensors like x."""
    x = x.contiguous()
    z, log_slope = torch.empty_like(x), torch.empty_like(x)
    run(name, settings, (*_blocks(params), 1), x, params, z, log_slope)
    return z, log_slope


def run_backward(name, settings, x, params, grad_z, grad_log_slope):
    """Gradients of x and the parameters from those of z and its log-slope."""
    n_blocks, n = _blocks(params)
    n_alike = 1
    if grad_log_slope.shape[-2] == 1 and n == x.shape[-1]:
        n_alike = x.shape[-2]
    else:
        grad_log_slope = grad_log_slope.expand_as(x)
    grads = grad_z.to(x).expand_as(x).contiguous(), grad_log_slope.to(x).contiguous()
    outputs = torch.empty_like(x), torch.empty_like(params)
    run(name, settings, (n_blocks, n, n_alike), x, params, *grads, *outputs)
    return outputs


def _blocks(params):
    """How many there are, and of how many values."""
    *members, _, d, n = params.shape
    n_blocks = math.prod(members)
    return (n_blocks, d * n) if params.is_contiguous() else (n_blocks * d, n)
