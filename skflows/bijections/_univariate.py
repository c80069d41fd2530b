"""Monotone maps of one variable whose parameters a network provides.

Each map works elementwise on ``x`` of shape ``(d, n)`` with parameters of shape
``(n_params, d, n)``: the long axis, the rows, is last in memory, where elementwise kernels
are fastest. All parameters at zero give the identity.
"""

import math

import torch
from torch.nn import functional as F

LOG_SCALE_BOUND = 3.0


def bounded_log_scale(raw, bound=LOG_SCALE_BOUND):
    """Clamp smoothly to ``(-bound, bound)``: an unbounded log-scale overflows on outliers."""
    return bound * torch.tanh(raw / bound)


def unbounded_log_scale(log_scale, bound=LOG_SCALE_BOUND):
    """The raw value that `bounded_log_scale` sends to ``log_scale``, or as near as it can."""
    return bound * torch.atanh((log_scale / bound).clamp(-0.99, 0.99))


class Shift:
    """``z = x + t``: the additive map of NICE."""

    n_params = 1

    def forward(self, x, params):
        return x + params[0], torch.zeros_like(x)

    def inverse(self, z, params):
        return z - params[0], torch.zeros_like(z)


class Affine:
    """``z = x exp(s) + t`` with a bounded log-scale ``s``."""

    n_params = 2

    def forward(self, x, params):
        log_scale = bounded_log_scale(params[1])
        return x * log_scale.exp() + params[0], log_scale

    def inverse(self, z, params):
        log_scale = bounded_log_scale(params[1])
        return (z - params[0]) * (-log_scale).exp(), -log_scale


class RationalQuadraticSpline:
    """Monotone rational-quadratic spline on ``[-tail_bound, tail_bound]``, identity outside.

    Parameters
    ----------
    n_bins : int, default=8
        Number of bins. There are ``3 n_bins - 1`` parameters: widths, heights, and the
        derivatives at the inner knots.
    tail_bound : float, default=3.0
        Where the spline ends and the identity begins.

    References
    ----------
    Durkan, Bekasov, Murray & Papamakarios, "Neural Spline Flows", 2019.
    Gregory & Delbourgo, "Piecewise Rational Quadratic Interpolation to Monotonic Data", 1982.
    """

    MIN_SIZE = 1e-3  # least width and height of a bin, as a fraction of the whole
    MIN_DERIVATIVE = 1e-3
    # softplus of this is 1 - MIN_DERIVATIVE, so that a zero parameter means a slope of 1
    UNIT_SLOPE = math.log(math.expm1(1 - MIN_DERIVATIVE))

    def __init__(self, n_bins=8, tail_bound=3.0):
        self.n_bins = n_bins
        self.tail_bound = tail_bound
        self.n_params = 3 * n_bins - 1

    def _knots(self, logits):
        sizes = self.MIN_SIZE + (1 - self.n_bins * self.MIN_SIZE) * logits.softmax(0)
        inner = 2 * self.tail_bound * sizes[:-1].cumsum(0) - self.tail_bound
        # The end knots are set, not summed, so that rounding cannot move the domain.
        return F.pad(inner, (0, 0, 0, 0, 1, 0), value=-self.tail_bound), inner

    def _bin(self, value, params, search):
        """Left corner, width, height and end slopes of the bin that holds ``value``.

        ``search`` is 0 to look along x, 1 to look along z.
        """
        k = self.n_bins
        lefts, inner = zip(
            self._knots(params[:k]), self._knots(params[k : 2 * k]), strict=True
        )
        index = (inner[search] <= value).sum(0, keepdim=True)
        corners = [left.gather(0, index)[0] for left in lefts]
        ends = [F.pad(knots, (0, 0, 0, 0, 0, 1), value=self.tail_bound) for knots in inner]
        sizes = [
            end.gather(0, index)[0] - corner for end, corner in zip(ends, corners, strict=True)
        ]
        # Slopes are 1 at both ends, where the identity takes over.
        raw = F.pad(params[2 * k :], (0, 0, 0, 0, 1, 1), value=0.0)
        # Gather first: softplus of two values per element, not of n_bins + 1.
        slopes = [
            F.softplus(raw.gather(0, index + side)[0] + self.UNIT_SLOPE) + self.MIN_DERIVATIVE
            for side in (0, 1)
        ]
        return *corners, *sizes, *slopes

    def _inside(self, value):
        return (value > -self.tail_bound) & (value < self.tail_bound)

    @staticmethod
    def _log_slope(t, slope, d0, d1):
        """log dz/dx at the fraction ``t`` of a bin of mean slope ``slope``."""
        bend = t * (1 - t)
        numerator = d1 * t**2 + 2 * slope * bend + d0 * (1 - t) ** 2
        denominator = slope + (d1 + d0 - 2 * slope) * bend
        return 2 * slope.log() + numerator.log() - 2 * denominator.log()

    def forward(self, x, params):
        inside = self._inside(x)
        clamped = x.clamp(-self.tail_bound, self.tail_bound)
        x0, z0, width, height, d0, d1 = self._bin(clamped, params, search=0)
        slope = height / width
        t = ((clamped - x0) / width).clamp(0, 1)
        bend = t * (1 - t)
        denominator = slope + (d1 + d0 - 2 * slope) * bend
        z = z0 + height * (slope * t**2 + d0 * bend) / denominator
        log_slope = self._log_slope(t, slope, d0, d1)
        return torch.where(inside, z, x), torch.where(inside, log_slope, 0.0)

    def inverse(self, z, params):
        inside = self._inside(z)
        clamped = z.clamp(-self.tail_bound, self.tail_bound)
        x0, z0, width, height, d0, d1 = self._bin(clamped, params, search=1)
        slope = height / width
        rise = clamped - z0
        excess = rise * (d1 + d0 - 2 * slope)
        a = height * (slope - d0) + excess
        b = height * d0 - excess
        c = -slope * rise
        discriminant = (b**2 - 4 * a * c).clamp(min=0)
        # This form of the root has no cancellation where a is near 0.
        t = (2 * c / (-b - discriminant.sqrt())).clamp(0, 1)
        x = x0 + width * t
        log_slope = self._log_slope(t, slope, d0, d1)
        return torch.where(inside, x, z), torch.where(inside, -log_slope, 0.0)
