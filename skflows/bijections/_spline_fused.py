"""The spline by compiled code, in one pass over the values, where that is installed and serves."""

import torch

from .. import _fused
from . import _spline_steps


def serves(spline, x, params):
    """Whether the functions below take these tensors. The compiler, for one, may have them."""
    is_compiling = torch.compiler.is_compiling()
    return (
        _fused._passes is not None
        and spline.n_bins <= _fused._passes.MAX_BINS
        and (_fused.takes(x, params) if is_compiling else _fused.serves(x, params))
        and _fused.is_one_each(x, params, spline.n_params)
    )


def evaluate(spline, x, params, add_up=False):
    """The spline, its log-slope, and what its gradient needs; log-slopes as of `run_forward`."""
    x, params, settings = x.contiguous(), _fused.in_blocks(params), _settings(spline)
    if not torch.compiler.is_compiling():
        outcome = _fused.run_forward("spline", _checked(settings), x, params, add_up)
        return *outcome, (x, params)
    z, log_slope = compiled_forward(x, params, settings)
    return z, log_slope.sum(-2, keepdim=True) if add_up else log_slope, (x, params)


def pull_back(spline, kept, grad_z, grad_log_slope):
    """Gradients of x and the parameters from those of z and its log-slope."""
    x, params = kept
    is_compiling = torch.compiler.is_compiling()
    if not (is_compiling or (_fused.is_plain(grad_z) and _fused.is_plain(grad_log_slope))):
        *_, kept = _spline_steps.evaluate(spline, x, params)
        return _spline_steps.pull_back(spline, kept, grad_z, grad_log_slope)
    call = compiled_backward if is_compiling else _backward
    return call(x, params, grad_z, grad_log_slope, _settings(spline))


def invert(spline, z, params):
    """The inverse of the spline and its log-slope."""
    z, params = z.contiguous(), _fused.in_blocks(params)
    return _fused.run_forward("spline_inverse", _checked(_settings(spline)), z, params)


def _forward(
    x: torch.Tensor, params: torch.Tensor, settings: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    return _fused.run_forward("spline", _checked(settings), x, params)


def _backward(
    x: torch.Tensor,
    params: torch.Tensor,
    grad_z: torch.Tensor,
    grad_log_slope: torch.Tensor,
    settings: list[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    grads = grad_z, grad_log_slope
    return _fused.run_backward("spline_backward", _checked(settings), x, params, *grads)


def _checked(settings):
    """For the passes, which have room for so many bins and no more."""
    if not 1 <= settings[0] <= _fused._passes.MAX_BINS:
        raise ValueError(
            f"{settings[0]:.0f} bins; compiled code has 1 to {_fused._passes.MAX_BINS}."
        )
    return tuple(settings)


# For the compiler, which cannot look into either: as operations of torch, with what they return.
compiled_forward = torch.library.custom_op("skflows::spline", _forward, mutates_args=())
compiled_backward = torch.library.custom_op("skflows::spline_backward", _backward, mutates_args=())
compiled_forward.register_fake(lambda x, *_: (torch.empty_like(x), torch.empty_like(x)))
compiled_backward.register_fake(
    lambda x, params, *_: (torch.empty_like(x), torch.empty_like(params))
)


def _settings(spline):
    sizes = spline.tail_bound, spline.least, spline.shared
    return [float(spline.n_bins), *sizes, spline.UNIT_SLOPE, spline.MIN_DERIVATIVE]
