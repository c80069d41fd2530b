"""The spline by compiled code, in one pass over the values, where that is installed and serves."""

from .. import _fused
from . import _spline_steps


def serves(spline, x, params):
    """Whether the functions below take these tensors."""
    is_one_each = _fused.serves_map(x, params, spline.n_params)
    return is_one_each and spline.n_bins <= _fused._passes.MAX_BINS


def serves_like(spline, tensor):
    """Whether they take tensors like this one, where nobody records operations."""
    has_room = _fused._passes is not None and spline.n_bins <= _fused._passes.MAX_BINS
    return has_room and _fused.takes(tensor)


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
    """For the passes, which have room for so many bins and no more."""
    if not 1 <= spline.n_bins <= _fused._passes.MAX_BINS:
        raise ValueError(f"{spline.n_bins} bins; compiled code has 1 to {_fused._passes.MAX_BINS}.")
    sizes = spline.tail_bound, spline.least, spline.shared
    return float(spline.n_bins), *sizes, spline.UNIT_SLOPE, spline.MIN_DERIVATIVE
