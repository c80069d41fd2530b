"""Work in one pass over memory, by compiled code, where that is installed and serves.

On a few hundred rows most of the time of torch's operations is that of starting them; on thousands
it is that of their passes over memory. What serves elsewhere stands beside each use: both compute
the same, but for rounding.
"""

import math
import threading

import torch
from torch.autograd import forward_ad

try:
    from . import _passes  # type: ignore[attr-defined]
except ImportError:  # installed where there was no C compiler
    _passes = None
if getattr(_passes, "VERSION", None) != 4:  # left by a build of other C
    _passes = None

DTYPES = torch.float32, torch.float64
# Modes that record, or count, what torch does; transforms of functions, which wrap new tensors.
n_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
transform = getattr(getattr(torch._C, "_functorch", None), "maybe_current_level", lambda: None)


class _Here(threading.local):
    is_unwatched = False


_here = _Here()


class unwatched:
    """A context that asks once for all whether somebody records, or casts, what torch does.

    To ask each time takes a twentieth of a step on few rows. It asks of the tensor that all others
    are made of: if somebody does, nothing changes. Whoever enters it promises that nobody starts
    to within it, but for autograd, a compiler, and transforms of functions such as `torch.vmap`.
    """

    def __init__(self, tensor):
        self.tensor = tensor

    def __enter__(self):
        self.outside = _here.is_unwatched
        _here.is_unwatched = serves(self.tensor)

    def __exit__(self, *error):
        _here.is_unwatched = self.outside


def serves(*tensors):
    """Whether `run` is there, and takes these tensors now.

    It needs their memory, leaves no operation behind for whoever records operations, and keeps
    their dtype.
    """
    if _passes is None or torch.compiler.is_compiling() or transform() is not None:
        return False
    if _here.is_unwatched and not torch.is_grad_enabled():
        return takes(*tensors)
    if torch.jit.is_tracing():
        return False
    if n_modes() or torch.is_autocast_enabled("cpu"):
        return False
    is_recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not is_recorded and takes(*tensors) and all(map(is_plain, tensors))


def is_traced():
    """Whether what torch does becomes a program: numbers of rows, for one, may be any then."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def takes(first, *others):
    """Whether tensors are of one of the types that passes are made for, and on the CPU."""
    dtype = first.dtype
    for other in others:
        if other.dtype is not dtype or not other.is_cpu:
            return False
    return dtype in DTYPES and first.is_cpu


def serves_map(x, params, n_params):
    """Whether `run_forward` takes these, of a map with so many parameters for each value."""
    return serves(x, params) and is_one_each(x, params, n_params)


def is_one_each(x, params, n_params):
    """Whether each value has its own parameters: passes have nothing that is shared."""
    return params.shape == (*x.shape[:-2], n_params, *x.shape[-2:])


def is_plain(tensor):
    """Whether its memory has all of it: no tangent, no sign to turn, not within `torch.vmap`."""
    try:
        has_memory = tensor.data_ptr() != 0 or tensor.numel() == 0
    except RuntimeError:
        return False
    # That nobody is within a level of tangents is known at once, where torch has the number.
    may_be_dual = getattr(forward_ad, "_current_level", 0) >= 0
    is_dual = may_be_dual and forward_ad.unpack_dual(tensor).tangent is not None
    return has_memory and not tensor.is_neg() and not is_dual


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
    if tensor.dim() == n_axes:
        return tensor.contiguous(), 0
    if not (tensor.is_contiguous() or tensor.stride()[1:] in ((tensor.shape[-1], 1), (1,))):
        tensor = tensor.contiguous()
    return tensor, tensor.stride(0) if tensor.shape[0] > 1 else 0


def as_like(grad, x):
    """The gradient of a contiguous x as such a tensor, whatever its dtype, and shared or not."""
    if grad.shape != x.shape or grad.dtype is not x.dtype:
        grad = grad.to(x).expand_as(x)
    return grad.contiguous()


def in_blocks(params):
    """Parameters that lie in blocks of all for some values: those of a feature, or of a member."""
    # Fewer rows than a pass takes at once would be slow in blocks of a feature.
    if params.shape[-1] >= _passes.TILE and params.transpose(-3, -2).is_contiguous():
        return params
    return params.contiguous()


def run_forward(name, settings, x, params, add_up=False):
    """Pass contiguous x, and parameters `in_blocks`, through a map of one variable.

    Log-slopes are those of each value, or add up over the features to one row.
    """
    (n_blocks, n), z = _blocks(params), torch.empty_like(x)
    n_alike = x.shape[-2] if add_up and n == x.shape[-1] else 1
    log_slope = torch.empty_like(x if n_alike == 1 else x[..., :1, :])
    run(name, settings, (n_blocks, n, n_alike), x, params, z, log_slope)
    return z, log_slope.sum(-2, keepdim=True) if add_up and n_alike == 1 else log_slope


def run_backward(name, settings, x, params, grad_z, grad_log_slope):
    """Gradients of x and the parameters from those of z and of its log-slopes, or of their sums."""
    n_blocks, n = _blocks(params)
    n_alike = x.shape[-2] if grad_log_slope.shape[-2] == 1 and n == x.shape[-1] else 1
    grads = as_like(grad_z, x), as_like(grad_log_slope, x if n_alike == 1 else x[..., :1, :])
    outputs = torch.empty_like(x), torch.empty_like(params)
    run(name, settings, (n_blocks, n, n_alike), x, params, *grads, *outputs)
    return outputs


def _blocks(params):
    """How many there are, and of how many values."""
    *members, _, d, n = params.shape
    n_blocks = math.prod(members)
    return (n_blocks, d * n) if params.is_contiguous() else (n_blocks * d, n)
