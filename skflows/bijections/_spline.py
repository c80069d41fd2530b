"""Monotone rational-quadratic splines, with an analytic backward pass.

Tensors keep the rows last, as in `_univariate`: ``x`` is ``(d, n)``, parameters are
``(3 n_bins - 1, d, n)``.
"""

import math

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class RationalQuadraticSpline:
    """Monotone rational-quadratic spline on ``[-tail_bound, tail_bound]``, identity outside.

    Parameters
    ----------
    n_bins : int, default=8
        Number of bins. There are ``3 n_bins - 1`` parameters: widths, heights, and the
        derivatives at the inner knots. All at zero give the identity.
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

    def forward(self, x, params):
        z, log_slope, *_ = _SplineForward.apply(x, params, self)
        return z, log_slope

    def inverse(self, z, params):
        inside = self.inside(z)
        clamped = z.clamp(-self.tail_bound, self.tail_bound)
        _, _, (x0, z0), (width, height), (d0, d1) = self.locate(clamped, params, along_z=True)
        slope = height / width
        rise = clamped - z0
        excess = rise * (d1 + d0 - 2 * slope)
        a = height * (slope - d0) + excess
        b = height * d0 - excess
        c = -slope * rise
        discriminant = (b**2 - 4 * a * c).clamp(min=0)
        # This form of the root has no cancellation where a is near 0.
        t = (2 * c / (-b - discriminant.sqrt())).clamp(0, 1)
        *_, top, bottom = _terms(t, slope, d0, d1)
        log_slope = _log_slope(slope, top, bottom)
        x = x0 + width * t
        return torch.where(inside, x, z), torch.where(inside, -log_slope, 0.0)

    def inside(self, value):
        """Where the spline, not the identity, applies."""
        return (value > -self.tail_bound) & (value < self.tail_bound)

    def locate(self, value, params, along_z=False):
        """The bin that holds each value, found along x or along z.

        Widths and heights are treated alike, as the two halves of one tensor.

        Returns
        -------
        shares : (2, n_bins, d, n), softmax of the width and height logits
        index : (1, d, n), number of the bin
        corner, size, slopes : (2, d, n), its lower corner and its size along x and z, and the
            derivatives at its two ends
        """
        k = self.n_bins
        shares = params[: 2 * k].view(2, k, *value.shape).softmax(1)
        # Right end of each bin. The last knot is the tail bound: comparing with the inner ones
        # keeps bin k - 1 the last whatever the rounding. For few bins this beats a search.
        ends = self._size(shares).cumsum(1) - self.tail_bound
        index = (ends[int(along_z), :-1] <= value).sum(0, keepdim=True)
        both = index.expand(2, -1, -1, -1)
        size = self._size(shares.gather(1, both)[:, 0])
        corner = ends.gather(1, both)[:, 0] - size
        # Gathering before the softplus computes it for two knots per element, not for all.
        inner, knots = self._end_knots(index)
        slopes = F.softplus(params[2 * k :].gather(0, knots) + self.UNIT_SLOPE)
        # At both ends of the spline, where the identity takes over, the slope is 1.
        slopes = torch.where(inner, slopes + self.MIN_DERIVATIVE, 1.0)
        return shares, index, corner, size, slopes

    @property
    def share_scale(self):
        """What the softmax shares out among the bins, above their least sizes."""
        return 2 * self.tail_bound * (1 - self.n_bins * self.MIN_SIZE)

    def _size(self, share):
        return share * self.share_scale + 2 * self.tail_bound * self.MIN_SIZE

    def _end_knots(self, index):
        """The inner knots at the two ends of a bin, and whether they are inner ones at all."""
        knots = torch.cat([index - 1, index])
        inner = (knots >= 0) & (knots < self.n_bins - 1)
        return inner, knots.clamp(0, self.n_bins - 2)

    def gradient(self, shares, index, corner, size, slopes, g_corner, g_size, g_slopes):
        """Gradient of the parameters from those of one bin's corner, size and end slopes."""
        # The corner is the sum of the sizes before the bin, and sizes are softmax shares.
        least = 2 * self.tail_bound * self.MIN_SIZE
        share = (size - least) / self.share_scale
        share_before = (corner + self.tail_bound - least * index.to(corner)) / self.share_scale
        mean = g_corner * share_before + g_size * share
        before = torch.arange(self.n_bins, device=index.device).view(-1, 1, 1) < index
        grad = torch.where(before, (g_corner - mean)[:, None], -mean[:, None])
        grad = grad.scatter_add(1, index.expand(2, -1, -1, -1), g_size[:, None])
        logits = shares * grad * self.share_scale
        # The derivative of softplus, from its value.
        inner, knots = self._end_knots(index)
        g_raw = torch.where(inner, g_slopes * (1 - torch.exp(self.MIN_DERIVATIVE - slopes)), 0.0)
        raw = g_raw.new_zeros(self.n_bins - 1, *g_raw.shape[1:]).scatter_add(0, knots, g_raw)
        return torch.cat([*logits, raw])


def _terms(t, slope, d0, d1):
    """The polynomials of the spline at the fraction t of a bin of mean slope ``slope``."""
    bend = t * (1 - t)
    curve = d1 + d0 - 2 * slope
    top = d1 * t**2 + 2 * slope * bend + d0 * (1 - t) ** 2
    bottom = slope + curve * bend
    return bend, curve, top, bottom


def _log_slope(slope, top, bottom):
    return (slope**2 * top / bottom**2).log()


class _SplineForward(torch.autograd.Function):
    """The spline and its log-slope, with gradients written out.

    The loss reaches the logits only through the corner, the size and the slopes of one bin per
    element: gradients in closed form and one pass over the logits replace the dozens of
    (n_bins, d, n) buffers that autograd would keep and fill.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x, params, spline):
        clamped = x.clamp(-spline.tail_bound, spline.tail_bound)
        shares, index, corner, size, slopes = spline.locate(clamped, params)
        (x0, z0), (width, height), (d0, d1) = corner, size, slopes
        inside = spline.inside(x)
        slope = height / width
        t = ((clamped - x0) / width).clamp(0, 1)
        bend, _, top, bottom = _terms(t, slope, d0, d1)
        z = z0 + height * (slope * t**2 + d0 * bend) / bottom
        z = torch.where(inside, z, x)
        log_slope = torch.where(inside, _log_slope(slope, top, bottom), 0.0)
        return z, log_slope, inside, t, shares, index, corner, size, slopes

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.spline = inputs[2]
        saved = output[2:]
        ctx.mark_non_differentiable(*saved)
        ctx.save_for_backward(*saved)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_z, grad_log_slope, *_):
        inside, t, shares, index, corner, size, slopes = ctx.saved_tensors
        (width, height), (d0, d1) = size, slopes
        slope = height / width
        bend, curve, top, bottom = _terms(t, slope, d0, d1)
        gz = torch.where(inside, grad_z, 0.0)
        gl = torch.where(inside, grad_log_slope, 0.0)

        # z = z0 + height * f with f = rise / bottom, and the log-slope is
        # 2 log(slope) + log(top) - 2 log(bottom): their derivatives in t, slope, d0 and d1.
        t2, bend2, flat = t**2, 1 - 2 * bend, 1 - 2 * t
        f = (slope * t2 + d0 * bend) / bottom
        gf = gz * height / bottom
        l_top = gl / top
        l_bottom = -2 * gl / bottom
        top_t = 2 * (d1 * t + slope * flat - d0 * (1 - t))
        g_t = gf * slope * top / bottom + l_top * top_t + l_bottom * curve * flat
        g_slope = gf * (t2 - f * bend2) + 2 * (gl / slope + l_top * bend) + l_bottom * bend2
        shared = (l_bottom - gf * f) * bend
        g_d0 = gf * bend + shared + l_top * (1 - t) ** 2
        g_d1 = shared + l_top * t2

        # Then through t = (x - x0) / width and slope = height / width.
        g_x = g_t / width
        g_width = -(g_t * t + g_slope * slope) / width
        g_height = gz * f + g_slope / width
        g_params = ctx.spline.gradient(
            shares,
            index,
            corner,
            size,
            slopes,
            torch.stack([-g_x, gz]),
            torch.stack([g_width, g_height]),
            torch.stack([g_d0, g_d1]),
        )
        return torch.where(inside, g_x, grad_z), g_params, None
