"""Interface to the optional compiled kernels; the caller has PyTorch operations to fall back on.

A kernel computes in one pass over memory what takes PyTorch dozens of operations: the
rational-quadratic spline, its inverse and its gradient. This package is the only one that imports
the C extension. The caller asks `usable_spline` and calls the kernel, or else does the same with
PyTorch operations; the tests compare the two.
"""

import warnings
from importlib import import_module
from typing import Any

import torch
from torch.autograd import forward_ad

VERSION = 7  # of the interface between this module and the extension


def _import_compiled():
    """Return the extension, or None without one; warn of one that cannot be used."""
    try:
        compiled: Any = import_module("._compiled", __name__)
    except ModuleNotFoundError:  # installed without a C compiler
        return None
    except ImportError as error:
        problem = f"cannot be loaded ({error})"
    else:
        if getattr(compiled, "VERSION", None) == VERSION:
            return compiled
        problem = f"in {compiled.__file__} are of another version of skflows"
    warnings.warn(
        f"The compiled kernels {problem}: PyTorch operations run in their place. Reinstall "
        "skflows to rebuild them, or delete the file.",
        stacklevel=3,
    )
    return None


_compiled = _import_compiled()

DTYPES = torch.float32, torch.float64
PLAIN = torch.Tensor, torch.nn.Parameter  # a subclass may have no memory, or hooks of its own
as_array = torch.Tensor.numpy  # it shares the memory, and the C code checks it

# Private hooks of torch that tell whether operations are recorded or transformed. Without one of
# them nobody could tell, so the kernels are not used.
_n_dispatch_modes: Any = getattr(torch._C, "_len_torch_dispatch_stack", None)
_n_function_modes: Any = getattr(torch._C, "_len_torch_function_stack", None)
_transform_level: Any = getattr(getattr(torch._C, "_functorch", None), "maybe_current_level", None)
_has_hooks = None not in (_n_dispatch_modes, _n_function_modes, _transform_level) and hasattr(
    forward_ad, "_current_level"
)


def is_traced():
    """Whether a compiler, an exporter or a function transform such as `torch.vmap` is at work.

    Then values must not decide which operations are run, and no tensor may be changed in place.
    """
    return torch.compiler.is_compiling() or (_has_hooks and _transform_level() is not None)


def usable(*tensors):
    """Whether kernels can take these tensors, here and now.

    They take dense CPU tensors of one floating dtype, and only where no gradient, tracer, compiler,
    function transform such as `torch.vmap`, or dispatch mode needs to see an operation.
    """
    if _compiled is None or not _has_hooks or is_traced():
        return False
    dtype = tensors[0].dtype
    for tensor in tensors:
        if type(tensor) not in PLAIN or tensor.dtype is not dtype or not tensor.is_cpu:
            return False
        if tensor.layout is not torch.strided or tensor.is_neg() or tensor._is_zerotensor():
            return False
    return (
        dtype in DTYPES
        and not torch.jit.is_tracing()
        and not _n_dispatch_modes()
        and not _n_function_modes()
        and forward_ad._current_level < 0
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
    )


def usable_spline(x, params, n_params):
    """Whether the kernels can take these values and parameters of a spline.

    Parameters
    ----------
    x : Tensor of shape (..., n_features, n)
        The values.
    params : Tensor
        The parameters. Kernels need separate ones for each value: (..., n_features, n_params, n).
    n_params : int
        Number of parameters of the spline, 3 for each bin but 1.
    """
    return (
        usable(x, params)  # first: a tracer would see the comparison
        and n_params < 3 * _compiled.MAX_BINS
        and params.shape == (*x.shape[:-1], n_params, x.shape[-1])
        and x.shape[-2] > 0
    )


def run_spline(name, settings, x, params):
    """Run a spline.

    Parameters
    ----------
    name : {"spline_forward", "spline_inverse"}
        The kernel.
    settings : tuple of float
        Its settings, which ``csrc/spline.h`` lists.
    x : Tensor of shape (..., n_features, n)
        The values.
    params : Tensor of shape (..., n_features, n_params, n)
        The parameters of each value. Bins of those that repeat along the first axis are computed
        once.

    Returns
    -------
    z : Tensor of shape (..., n_features, n)
        The mapped values.
    log_det : Tensor of shape (..., n)
        The log-slopes, summed over the features.
    """
    is_repeated = params.ndim > 3 and params.stride(0) == 0  # such as by Tensor.expand
    x, params = x.contiguous(), (params[:1] if is_repeated else params).contiguous()
    z, log_det = torch.empty_like(x), x.new_empty((*x.shape[:-2], x.shape[-1]))
    getattr(_compiled, name)(*map(as_array, (x, params, z, log_det)), *settings)
    return z, log_det


def run_spline_backward(settings, x, params, grad_z, grad_log_det):
    """Return the gradients in x and params, from those in what "spline_forward" returned."""
    x, params = x.contiguous(), params.contiguous()
    grads = grad_z.contiguous(), grad_log_det.contiguous()
    outputs = torch.empty_like(x), torch.empty_like(params)
    _compiled.spline_backward(*map(as_array, (x, params, *grads, *outputs)), *settings)
    return outputs
