"""Monotone rational-quadratic splines, with their gradient written out."""

import math
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import kernels
from ..nn.vjp import Pullback
from . import _rational_quadratic as rq
from ._base import Mapped
from ._univariate import Univariate


class Bins(NamedTuple):
    """The bin that holds each value, along x and along z.

    The axis before the last two of ``corner``, ``size`` and ``shares`` stands for x and z.
    """

    shares: Tensor  # (..., d, 2, n_bins, n), softmax of the logits of all bins
    number: Tensor  # (..., d, 1, n), of the bin, from 0
    corner: Tensor  # (..., d, 2, n), its lower end
    size: Tensor  # (..., d, 2, n)
    raw_slopes: Tensor  # (..., d, 2, n), at its two knots, before the softplus

    def corners_and_sizes(self):
        """Return x0, z0, width and height."""
        return *self.corner.unbind(-2), *self.size.unbind(-2)


@dataclass(frozen=True)
class RationalQuadraticSpline(Univariate):
    """Monotone rational-quadratic spline on ``[-tail_bound, tail_bound]``, identity outside.

    Parameters
    ----------
    n_bins : int, default=8
        Number of bins. There are ``3 n_bins - 1`` parameters: widths, heights, and the derivatives
        at the inner knots. Compiled kernels take at most 32 bins; more take several times as long.
    tail_bound : float, default=3.0
        Where the spline ends and the identity begins.

    References
    ----------
    Durkan, Bekasov, Murray & Papamakarios, "Neural Spline Flows", 2019.
    Gregory & Delbourgo, "Piecewise Rational Quadratic Interpolation to Monotonic Data", 1982.
    """

    n_bins: int = 8
    tail_bound: float = 3.0

    MIN_SIZE = 1e-3  # least width and height of a bin, as a fraction of the whole
    MIN_SLOPE = 1e-3
    # Its softplus is 1 - MIN_SLOPE, so that a parameter of 0 gives a slope of 1.
    UNIT_SLOPE = math.log(math.expm1(1 - MIN_SLOPE))

    @cached_property
    def n_params(self):
        return 3 * self.n_bins - 1

    @property
    def min_size(self) -> float:
        """Least size of a bin."""
        return 2 * self.tail_bound * self.MIN_SIZE

    @property
    def shared_size(self) -> float:
        """What the softmax distributes among the bins, above their least sizes."""
        return 2 * self.tail_bound - self.n_bins * self.min_size

    @cached_property
    def settings(self):
        """Settings of the kernels, a tuple of floats."""
        return self.tail_bound, self.min_size, self.MIN_SLOPE, self.UNIT_SLOPE

    def forward(self, x: Tensor, params: Tensor) -> Mapped:
        if kernels.usable_spline(x, params, self.n_params):
            return kernels.run_spline("spline_forward", self.settings, x, params)
        z, log_slope, _ = self._evaluate(x, params)
        return z, log_slope.sum(-2)

    def inverse(self, z: Tensor, params: Tensor) -> Mapped:
        if kernels.usable_spline(z, params, self.n_params):
            return kernels.run_spline("spline_inverse", self.settings, z, params)
        clamped = z.clamp(-self.tail_bound, self.tail_bound)
        bins = self._find_bins(clamped, params, along_z=True)
        x0, z0, width, height = bins.corners_and_sizes()
        d0, d1 = self._slopes(bins).unbind(-2)
        t, log_slope = rq.invert(clamped - z0, width, height, d0, d1)
        inside = z == clamped
        x = torch.where(inside, x0 + width * t, z)
        return x, torch.where(inside, -log_slope, 0.0).sum(-2)

    def vjp(self, x: Tensor, params: Tensor) -> tuple[Mapped, Pullback]:
        if kernels.usable_spline(x, params, self.n_params):
            outcome = kernels.run_spline("spline_forward", self.settings, x, params)
            return outcome, partial(kernels.run_spline_backward, self.settings, x, params)
        z, log_slope, kept = self._evaluate(x, params)

        def pullback(g, g_log_det):
            return self._gradients(g, g_log_det.unsqueeze(-2), *kept)

        return (z, log_slope.sum(-2)), pullback

    def _evaluate(self, x, params):
        """Return z, the log-slope of each value, and what `_gradients` needs."""
        clamped = x.clamp(-self.tail_bound, self.tail_bound)
        inside = x == clamped
        bins = self._find_bins(clamped, params)
        x0, z0, width, height = bins.corners_and_sizes()
        d0, d1 = self._slopes(bins).unbind(-2)
        slope = height / width
        t = ((clamped - x0) / width).clamp(0, 1)
        at = rq.terms(t, slope, d0, d1)
        rise = rq.rise(t, at)
        derivative = rq.derivative(slope, at)
        z = torch.where(inside, torch.addcmul(z0, height, rise), x)
        log_slope = torch.where(inside, derivative.log(), 0.0)
        return z, log_slope, (inside, bins, t, slope, at, rise, derivative)

    def _gradients(self, grad_z, grad_log_slope, inside, bins, t, slope, at, rise, derivative):
        """Return the gradients in x and in the parameters.

        A loss depends on the logits only through the corner, the size and the slopes of one bin for
        each value. With closed forms for these, one pass over the logits replaces the dozens of
        buffers of shape (d, n_bins, n) that autograd would fill.
        """
        *_, width, height = bins.corners_and_sizes()
        gz = grad_z * inside
        gl = grad_log_slope * inside

        # z = z0 + height * top_of_rise / bottom, where top_of_rise = t * first = slope t^2 + d0
        # bend, and log_slope = log(slope^2 top / bottom^2).
        g_rise = gz * height / at.bottom
        g_top = gl / at.top
        by_bottom = gl / at.bottom
        g_bottom = torch.addcmul(-2 * by_bottom, g_rise, rise, value=-1)
        # Derivatives in slope, d0 and d1, through curve = d0 + d1 - 2 slope as well.
        r = 1 - t
        t2 = t * t
        g_curve = g_bottom * at.bend
        g_slope = torch.addcmul(torch.addcmul(g_bottom, g_rise, t2), g_top, at.bend, value=2)
        g_slope = torch.addcdiv(torch.sub(g_slope, g_curve, alpha=2), gl, slope, value=2)
        g_d0 = torch.addcmul(torch.addcmul(g_curve, g_rise, at.bend), g_top * r, r)
        g_d1 = torch.addcmul(g_curve, g_top, t2)
        # In t = (x - x0) / width, z has the derivative times width; the rest comes from log_slope.
        half_g_t = g_top * (at.second - at.first)
        half_g_t = torch.addcmul(half_g_t, by_bottom * at.curve, r - t, value=-1)
        g_x = torch.addcdiv(gz * derivative, half_g_t, width, value=2)

        # Through t and slope = height / width.
        g_x0 = -g_x
        g_height = g_slope / width
        g_width = torch.addcmul(g_x0 * t, g_height, slope, value=-1)
        g_height = torch.addcmul(g_height, gz, rise)
        g_corner = torch.stack([g_x0, gz], -2)
        g_size = torch.stack([g_width, g_height], -2)
        g_params = self._parameter_gradients(bins, g_corner, g_size, torch.stack([g_d0, g_d1], -2))
        return torch.where(inside, g_x, grad_z), g_params

    def _parameter_gradients(self, bins, g_corner, g_size, g_slopes):
        """Return the gradient in the parameters, given the ones in corner, size and slopes."""
        # The corner is the sum of the sizes before the bin, and sizes are shares of a softmax: the
        # gradient in the logits is the gradient in the shares minus its mean, times the shares.
        number = bins.number
        minus_before = torch.add(-self.tail_bound - bins.corner, number, alpha=self.min_size)
        shared = bins.size - self.min_size
        minus_mean = torch.addcmul(g_corner * minus_before, g_size, shared, value=-1).unsqueeze(-2)
        g_corner, g_size = (self.shared_size * g.unsqueeze(-2) for g in (g_corner, g_size))
        index = torch.arange(self.n_bins, device=number.device).unsqueeze(-1)
        at_bin = torch.where(index == number.unsqueeze(-2), g_size, minus_mean.new_zeros(()))
        g_share = torch.where(index < number.unsqueeze(-2), g_corner, at_bin)
        g_logits = (g_share + minus_mean) * bins.shares
        g_raw = g_slopes * torch.sigmoid(bins.raw_slopes)
        g_low, g_high = g_raw.split(1, -2)
        g_inner = torch.where(index[1:] == number + 1, g_high, minus_mean.new_zeros(()))
        g_inner = torch.where(index[1:] == number, g_low, g_inner)
        return torch.cat([g_logits.flatten(-3, -2), g_inner], -2)

    def _find_bins(self, value, params, along_z=False):
        """Return the `Bins` of values, x or z, within the tail bound."""
        k = self.n_bins
        logits, raw = params.split((2 * k, k - 1), -2)
        # Widths and heights are treated alike, along an axis of two.
        shares = logits.unflatten(-2, (2, k)).softmax(-2)
        # A tensor that an exporter creates must not stay in the cache.
        cumulation = _cumulation if kernels.is_traced() else _cached_cumulation
        knots = cumulation(self, shares.dtype, shares.device) @ shares
        # Comparing with the inner knots only keeps bin k - 1 the last, whatever the rounding.
        inner = knots[..., int(along_z), 1:-1, :]
        number = (inner <= value.unsqueeze(-2)).sum(-2, keepdim=True)
        index = number.unsqueeze(-3).expand(*knots.shape[:-2], -1, -1)
        corner, end = knots.gather(-2, index), knots.gather(-2, index + 1)
        # A raw slope of 0, hence a slope of 1, at both ends, where the identity takes over.
        zero = raw.new_zeros(*raw.shape[:-2], 1, raw.shape[-1])
        raw = torch.cat([zero, raw, zero], -2)  # PyTorch 2.4 cannot pad an array without rows
        raw_slopes = torch.cat([raw.gather(-2, number), raw.gather(-2, number + 1)], -2)
        size = (end - corner).squeeze(-2)
        return Bins(shares, number, corner.squeeze(-2), size, raw_slopes + self.UNIT_SLOPE)

    def _slopes(self, bins):
        return F.softplus(bins.raw_slopes) + self.MIN_SLOPE


def _cumulation(spline, dtype, device):
    """Return the matrix from the shares of all bins, which sum to 1, to the places of all knots."""
    k = spline.n_bins
    knot, bin_ = torch.arange(k + 1.0, dtype=torch.float64)[:, None], torch.arange(k)
    matrix = spline.shared_size * (bin_ < knot).double()
    return (matrix + spline.min_size * knot - spline.tail_bound).to(dtype).to(device)


_cached_cumulation = cache(torch.inference_mode(False)(_cumulation))
