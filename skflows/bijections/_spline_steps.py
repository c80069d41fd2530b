"""The spline by torch's operations, with an analytic backward pass.

They are for any device, for gradients that are taken many at once, and for the compiler. Shapes are
as in `_spline`.
"""

from functools import cache, reduce
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn import functional as F

from . import _rational


class Bin(NamedTuple):
    """The bin that holds each value, along x and along z, with what its gradient needs."""

    shares: torch.Tensor  # (..., 2, n_bins, d, n), softmax of the logits of all bins
    # (..., n_bins - 1, d, n), 1.0 for inner knots before it, else 0.0; None of a `scan`
    passed: torch.Tensor | None
    number: torch.Tensor  # (..., 1, d, n), of the bin, from 0, as a float
    ends: torch.Tensor | None  # (..., 2, d, n), indices of its two knots; None of a `scan`
    corner: torch.Tensor  # (..., 2, d, n), its lower end
    size: torch.Tensor  # (..., 2, d, n)
    raw: torch.Tensor  # (..., 2, d, n), what softplus makes the slopes at its two knots of


def evaluate(spline, x, params, add_up=False):
    """The spline, its log-slope, and what its gradient needs.

    Log-slopes are those of each value, or add up over the features to one row.
    """
    clamped = x.clamp(-spline.tail_bound, spline.tail_bound)
    inside = torch.eq(x, clamped, out=torch.empty_like(x))
    find = scan if torch.compiler.is_compiling() else locate
    bin_ = find(spline, clamped, params)
    (x0, z0), (width, height) = bin_.corner.unbind(-3), bin_.size.unbind(-3)
    d0, d1 = slopes(spline, bin_.raw).unbind(-3)

    slope = height / width
    t = ((clamped - x0) / width).clamp_(0, 1)
    at = _rational.terms(t, slope, d0, d1)
    share = _rational.share_below(t, at)
    z = torch.addcmul(z0, height, share)
    steep = _rational.steepness(slope, at)
    kept = *bin_, *at, inside, t, share, slope, steep
    # lerp is exact at both ends for finite x, and faster than where.
    log_slope = steep.log() * inside
    log_slope = log_slope.sum(-2, keepdim=True) if add_up else log_slope
    return torch.lerp(x, z, inside), log_slope, kept


def pull_back(spline, kept, grad_z, grad_log_slope):
    """Gradients of x and the parameters from those of z and its log-slope.

    The loss reaches the logits only through the corner, the size and the slopes of one bin per
    element: gradients in closed form and one pass over the logits replace the dozens of
    (n_bins, d, n) buffers that autograd would keep and fill.
    """
    *both, inside, t, share, slope, steep = kept
    n = len(Bin._fields)
    bin_ = Bin(*both[:n])
    bend, curve, bottom, first, second, top = both[n:]
    width, height = bin_.size.unbind(-3)
    gz = grad_z * inside
    gl = grad_log_slope * inside

    # z = z0 + height * rise / bottom, where rise = t * first = slope t^2 + d0 bend, and log_slope =
    # log(slope^2 top / bottom^2).
    g_rise = gz * height / bottom
    g_top = gl / top
    by_bottom = gl / bottom
    g_bottom = torch.addcmul(-2 * by_bottom, g_rise, share, value=-1)
    # Their derivatives in slope, d0 and d1, of which curve = d0 + d1 - 2 slope is made too.
    r = 1 - t
    t2 = t * t
    g_curve = g_bottom * bend
    g_slope = torch.addcmul(torch.addcmul(g_bottom, g_rise, t2), g_top, bend, value=2)
    g_slope = torch.addcdiv(torch.sub(g_slope, g_curve, alpha=2), gl, slope, value=2)
    g_d0 = torch.addcmul(torch.addcmul(g_curve, g_rise, bend), g_top * r, r)
    g_d1 = torch.addcmul(g_curve, g_top, t2)
    # In t = (x - x0) / width z has the steepness times width, and the rest is log_slope's.
    g_t = torch.addcmul(g_top * (second - first), by_bottom * curve, r - t, value=-1)  # half of it
    g_x = torch.addcdiv(gz * steep, g_t, width, value=2)

    # Then through t and slope = height / width.
    g_x0 = -g_x
    g_height = g_slope / width
    g_width = torch.addcmul(g_x0 * t, g_height, slope, value=-1)
    g_height = torch.addcmul(g_height, gz, share)
    g_places = torch.stack([g_x0, gz, g_width, g_height], -3)
    g_params = _gradient(spline, bin_, g_places, torch.stack([g_d0, g_d1], -3))
    return torch.lerp(grad_z, g_x, inside), g_params


def invert(spline, z, params):
    """The inverse of the spline and its log-slope."""
    clamped = z.clamp(-spline.tail_bound, spline.tail_bound)
    bin_ = locate(spline, clamped, params, along_z=True)
    (x0, z0), (width, height) = bin_.corner.unbind(-3), bin_.size.unbind(-3)
    d0, d1 = slopes(spline, bin_.raw).unbind(-3)
    t, log_slope = _rational.invert(clamped - z0, width, height, d0, d1)
    inside = z == clamped
    return torch.where(inside, x0 + width * t, z), torch.where(inside, -log_slope, 0.0)


def locate(spline, value, params, along_z=False):
    """The `Bin` of each value, found along x or along z."""
    k = spline.n_bins
    logits, raw = params.split((2 * k, k - 1), -3)
    # Widths and heights are treated alike, as the two halves of one tensor.
    shares = logits.unflatten(-3, (2, k)).softmax(-3)
    places = _cumulation(spline, shares.dtype, shares.device) @ shares.flatten(-2)
    knots = places.unflatten(-1, shares.shape[-2:])
    with torch.no_grad():
        # Comparing with the inner knots alone keeps bin k - 1 the last whatever the rounding.
        # For few bins this beats a search, and floats as results beat booleans.
        inner_knots = knots[..., int(along_z), 1:-1, :, :]
        passed = torch.empty_like(inner_knots)
        torch.le(inner_knots, value.unsqueeze(-3), out=passed)
        number = passed.sum(-3, keepdim=True)
        ends = torch.cat([number, number + 1], -3).long()
    index = ends.unsqueeze(-4).expand(*knots.shape[:-3], -1, -1, -1)
    corner, far_corner = knots.gather(-3, index).unbind(-3)
    # A zero, hence a slope of 1, at both ends of the spline, where the identity takes over.
    zero = torch.zeros_like(number)
    raw = torch.cat([zero, raw, zero], -3).gather(-3, ends) + spline.UNIT_SLOPE
    return Bin(shares, passed, number, ends, corner, far_corner - corner, raw)


def scan(spline, x, params):
    """What `locate` finds along x, bin by bin: a compiler makes a single loop of it."""
    k = spline.n_bins
    logits, raw = params.split((2 * k, k - 1), -3)
    logits = logits.unflatten(-3, (2, k))
    (x_knots, x_total), (z_knots, z_total) = (_knots(spline, part) for part in logits.unbind(-4))
    end = torch.zeros_like(x)
    knots = list(zip(x_knots, z_knots, [end, *raw.unbind(-3), end], strict=True))
    number = end
    low, high = map(list, knots[:2])
    for i, (knot, after) in enumerate(pairwise(knots[1:]), 1):
        passed = x >= knot[0]
        number = torch.where(passed, float(i), number)
        low = [torch.where(passed, *pair) for pair in zip(knot, low, strict=True)]
        high = [torch.where(passed, *pair) for pair in zip(after, high, strict=True)]
    start, stop = torch.stack(low, -3), torch.stack(high, -3)
    log_total = torch.stack([x_total, z_total], -3)
    return Bin(
        shares=(logits - log_total.unsqueeze(-3)).exp(),
        passed=None,
        number=number.unsqueeze(-3),
        ends=None,
        corner=start[..., :2, :, :],
        size=(stop - start)[..., :2, :, :],
        raw=torch.stack([start[..., 2, :, :], stop[..., 2, :, :]], -3) + spline.UNIT_SLOPE,
    )


def _knots(spline, logits):
    """All knots along one axis, in order, and the logarithm of what the softmax divides by."""
    logits = logits.unbind(-3)
    largest = reduce(torch.maximum, logits)
    parts = [(logit - largest).exp() for logit in logits]
    total = sum(parts)
    unit = spline.shared / total
    knots = [torch.full_like(largest, -spline.tail_bound)]
    for part in parts:
        knots.append(torch.addcmul(knots[-1] + spline.least, part, unit))
    return knots, largest + total.log()


def slopes(spline, raw):
    return F.softplus(raw) + spline.MIN_DERIVATIVE


def _gradient(spline, bin_, g_places, g_slopes):
    """Gradient of the parameters from those of one bin's corner and size, and end slopes."""
    k = spline.n_bins
    # The corner is the sum of the sizes before the bin, and sizes are softmax shares: the
    # gradient of the logits is that of the shares less its mean, times the shares.
    g_corner, g_size = g_places.split(2, -3)
    minus_before = torch.add(-spline.tail_bound - bin_.corner, bin_.number, alpha=spline.least)
    to_share = bin_.size - spline.least
    minus_mean = torch.addcmul(g_corner * minus_before, g_size, to_share, value=-1)
    g_corner, g_size = (g_places * spline.shared).split(2, -3)
    g_raw = g_slopes * torch.sigmoid(bin_.raw)
    if bin_.passed is None:
        return _spread(spline, bin_, g_corner, g_size, minus_mean, g_raw)
    # Neither end has a slope among the parameters. What would be its gradient at the upper one
    # is written over by that of the knot before it, and at the lower one it falls on the row of
    # the last height, which comes later.
    *members, d, n = g_raw.shape[:-3] + g_raw.shape[-2:]
    grad = g_raw.new_empty(*members, d, spline.n_params, n).transpose(-3, -2)
    low, high = bin_.ends.split(1, -3)
    g_low, g_high = g_raw.split(1, -3)
    g_knots = grad[..., 2 * k - 1 :, :, :].zero_()
    g_knots.scatter_(-3, high.clamp(max=k - 1), g_high).scatter_(-3, low, g_low)
    logits = grad[..., : 2 * k, :, :].view(bin_.shares.shape)
    logits.copy_(minus_mean.unsqueeze(-3))
    logits[..., :-1, :, :].addcmul_(bin_.passed.unsqueeze(-4), g_corner.unsqueeze(-3))
    index = low.unsqueeze(-4).expand(*bin_.shares.shape[:-3], -1, -1, -1)
    logits.scatter_add_(-3, index, g_size.unsqueeze(-3)).mul_(bin_.shares)
    return grad


def _spread(spline, bin_, g_corner, g_size, minus_mean, g_raw):
    """The same as one expression of each parameter, after a `scan`."""
    number = bin_.number
    at = torch.arange(spline.n_bins, device=number.device)[:, None, None]
    g_low, g_high = g_raw.split(1, -3)
    g_raw = torch.where(at[1:] == number, g_low, torch.where(at[1:] == number + 1, g_high, 0.0))
    number, g_corner, g_size, minus_mean = (
        tensor.unsqueeze(-3) for tensor in (number, g_corner, g_size, minus_mean)
    )
    g_share = torch.where(at < number, g_corner, torch.where(at == number, g_size, 0.0))
    g_logits = (g_share + minus_mean) * bin_.shares
    # Feature by feature, as networks have them, lest a compiler copy them.
    by_feature = [part.transpose(-3, -2) for part in (g_logits.flatten(-4, -3), g_raw)]
    return torch.cat(by_feature, -2).transpose(-3, -2)


@cache
@torch.inference_mode(False)
def _cumulation(spline, dtype, device):
    """The matrix from the shares of all bins, which sum to 1, to the places of all knots."""
    k = spline.n_bins
    knot, bin_ = torch.arange(k + 1.0, dtype=torch.float64)[:, None], torch.arange(k)
    matrix = spline.shared * (bin_ < knot).double() + spline.least * knot - spline.tail_bound
    return matrix.to(dtype).to(device)
