"""Interface to the optional compiled kernels; callers have the PyTorch operations to fall back on.

A kernel computes in one pass over memory what takes PyTorch many operations: the
rational-quadratic spline, the affine map (both with inverse and gradient) and the AdamW step.
This package is the only one that imports the C extension. A caller asks `usable` and calls the
kernel, or else does the same with PyTorch operations; the tests compare the two.
"""

import warnings
from importlib import import_module
from typing import Any

import torch
from torch.autograd import forward_ad

VERSION = 5  # of the interface between this module and the extension


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


def usable_map(x, params, n_params):
    """Whether kernels can take these values and parameters of a map of one variable.

    Parameters
    ----------
    x : Tensor of shape (..., n_features, n)
        The values.
    params : Tensor
        The parameters. Kernels need separate ones for each value: (..., n_features, n_params, n).
    n_params : int
        Number of parameters of the map.
    """
    return (
        usable(x, params)  # first: a tracer would see the comparison
        and params.shape == (*x.shape[:-1], n_params, x.shape[-1])
        and x.shape[-2] > 0
    )


def has_bins(n_bins):
    """Whether the spline kernels support this number of bins."""
    return _compiled is not None and n_bins <= _compiled.MAX_BINS


def run_map(name, settings, x, params):
    """Run a map of one variable.

    Parameters
    ----------
    name : {"spline_forward", "spline_inverse", "affine_forward", "affine_inverse"}
        The kernel.
    settings : tuple of float
        Its settings, which its C header lists.
    x : Tensor of shape (..., n_features, n)
        The values.
    params : Tensor of shape (..., n_features, n_params, n)
        The parameters of each value.

    Returns
    -------
    z : Tensor of shape (..., n_features, n)
        The mapped values.
    log_det : Tensor of shape (..., n)
        The log-slopes, summed over the features.
    """
    x, params = x.contiguous(), params.contiguous()
    z, log_det = torch.empty_like(x), x.new_empty((*x.shape[:-2], x.shape[-1]))
    getattr(_compiled, name)(*_arrays(x, params, z, log_det), *settings)
    return z, log_det


def run_map_backward(name, settings, x, params, grad_z, grad_log_det):
    """Return the gradients in x and params, from those in what `run_map` returned."""
    x, params = x.contiguous(), params.contiguous()
    grads = grad_z.contiguous(), grad_log_det.contiguous()
    outputs = torch.empty_like(x), torch.empty_like(params)
    getattr(_compiled, name)(*_arrays(x, params, *grads, *outputs), *settings)
    return outputs


def run_adamw(arrays, settings):
    """Move weights in place by a step of AdamW; ``csrc/adamw.h`` lists arrays and settings."""
    _compiled.adamw(*_arrays(*arrays), *settings)


def _arrays(*tensors):
    """NumPy arrays that share the memory of the tensors, which the C code can check."""
    return [tensor.numpy() for tensor in tensors]
