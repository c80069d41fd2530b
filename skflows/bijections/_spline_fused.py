"""The spline by compiled code, in one pass over the values, where that is installed and serves."""

from .. import _fused
from . import _spline_steps


def serves(spline, x, params):
    """Whether the functions below take these tensors."""
    return _fused.serves_map(x, params, spline.n_params) and has_room(spline)


def serves_like(spline, tensor):
    """Whether they take tensors like this one, where nobody records operations."""
    return _fused._passes is not None and has_room(spline) and _fused.takes(tensor)


def has_room(spline):
    """Whether the passes, which have room for so many bins and no more, have it for a spline's."""
    return 1 <= spline.n_bins <= _fused._passes.MAX_BINS


def evaluate(spline, x, params, add_up=False):
    """The spline, its log-slope, and what its gradient needs; log-slopes as of `run_forward`."""
    x, params = x.contiguous(), _fused.in_blocks(params)
    outcome = _fused.run_forward("spline", _settings(spline), x, params, add_up)
    return *outcome, (x, params)


def pull_back(spline, kept, grad_z, grad_log_slope):
    """Gradients of x and the parameters from those of z and its log-slope."""
    x, params = kept
    if not (_fused.is_plain(grad_z) and _fused.is_plain(grad_log_slope)):
        *_, kept = _spline_steps.evaluate(spline, x, params)
        return _spline_steps.pull_back(spline, kept, grad_z, grad_log_slope)
    grads = grad_z, grad_log_slope
    return _fused.run_backward("spline_backward", _settings(spline), x, params, *grads)


def invert(spline, z, params):
    """The inverse of the spline and its log-slope."""
    z, params = z.contiguous(), _fused.in_blocks(params)
    return _fused.run_forward("spline_inverse", _settings(spline), z, params)


def _settings(spline):
    if not has_room(spline):
        raise ValueError(f"{spline.n_bins} bins; compiled code has 1 to {_fused._passes.MAX_BINS}.")
    sizes = spline.tail_bound, spline.least, spline.shared
    return float(spline.n_bins), *sizes, spline.UNIT_SLOPE, spline.MIN_DERIVATIVE
