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
        _, _, _, x0, width, z0, height, d0, d1 = self.locate(clamped, params, along_z=True)
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

    @property
    def size_range(self):
        """What the softmax of the widths or heights shares out, above the least sizes."""
        return 1 - self.n_bins * self.MIN_SIZE

    def locate(self, value, params, along_z=False):
        """The bin that holds each value, found along x or along z.

        Returns
        -------
        widths, heights : softmax of the width and height logits, (n_bins, d, n)
        index : number of the bin, (1, d, n)
        x0, width, z0, height, d0, d1 : its corner, sizes and end slopes, (d, n)
        """
        k = self.n_bins
        shares = [params[:k].softmax(0), params[k : 2 * k].softmax(0)]
        scale = 2 * self.tail_bound
        ends = [  # right end of each bin
            (share * (scale * self.size_range) + scale * self.MIN_SIZE).cumsum(0) - self.tail_bound
            for share in shares
        ]
        # The last knot is the tail bound: comparing with the inner ones keeps bin k - 1 the
        # last whatever the rounding. For a few bins this beats a binary search.
        index = (ends[along_z][:-1] <= value).sum(0, keepdim=True)
        box = []
        for share, end in zip(shares, ends, strict=True):
            size = scale * (self.MIN_SIZE + self.size_range * share.gather(0, index)[0])
            box += [end.gather(0, index)[0] - size, size]
        # Slopes are 1 at both ends of the spline, where the identity takes over. Gathering
        # before the softplus computes it for two knots per element, not for all.
        first, last = index == 0, index == k - 1
        raw = params[2 * k :]
        slopes = []
        for knot, at_end in ((index - 1, first), (index, last)):
            inner = raw.gather(0, knot.clamp(0, k - 2)) + self.UNIT_SLOPE
            slope = F.softplus(inner) + self.MIN_DERIVATIVE
            slopes.append(torch.where(at_end, 1.0, slope)[0])
        return *shares, index, *box, *slopes


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

    The loss reaches the logits only through the corner, the sizes and the slopes of one bin
    per element: six (d, n) gradients in closed form and one pass over the logits replace the
    dozens of (n_bins, d, n) buffers that autograd would keep and fill.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x, params, spline):
        clamped = x.clamp(-spline.tail_bound, spline.tail_bound)
        widths, heights, index, x0, width, z0, height, d0, d1 = spline.locate(clamped, params)
        inside = spline.inside(x)
        slope = height / width
        t = ((clamped - x0) / width).clamp(0, 1)
        bend, _, top, bottom = _terms(t, slope, d0, d1)
        z = z0 + height * (slope * t**2 + d0 * bend) / bottom
        z = torch.where(inside, z, x)
        log_slope = torch.where(inside, _log_slope(slope, top, bottom), 0.0)
        return z, log_slope, inside, t, widths, heights, index, width, height, d0, d1

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.spline = inputs[2]
        saved = output[2:]
        ctx.mark_non_differentiable(*saved)
        ctx.save_for_backward(*saved)

    @staticmethod
    @once_differentiable  # what is saved has no gradient: a second derivative would be wrong
    def backward(ctx, grad_z, grad_log_slope, *_):
        spline = ctx.spline
        inside, t, widths, heights, index, width, height, d0, d1 = ctx.saved_tensors
        slope = height / width
        bend, curve, top, bottom = _terms(t, slope, d0, d1)
        gz = torch.where(inside, grad_z, 0.0)
        gl = torch.where(inside, grad_log_slope, 0.0)

        # z = z0 + height * f, f = rise / bottom; the log-slope is 2 log(slope) + log(top)
        # - 2 log(bottom). First their partial derivatives in t, slope, d0 and d1.
        rise = slope * t**2 + d0 * bend
        f = rise / bottom
        gf = gz * height / bottom
        l_top = gl / top
        l_bottom = -2 * gl / bottom
        flat = 1 - 2 * t
        top_t = 2 * (d1 * t + slope * flat - d0 * (1 - t))
        g_t = gf * slope * top / bottom + l_top * top_t + l_bottom * curve * flat
        g_slope = (
            gf * (t**2 - f * (1 - 2 * bend))
            + 2 * (gl / slope + l_top * bend)
            + l_bottom * (1 - 2 * bend)
        )
        g_d0 = gf * bend * (1 - f) + l_top * (1 - t) ** 2 + l_bottom * bend
        g_d1 = -gf * bend * f + l_top * t**2 + l_bottom * bend

        # Then through t = (x - x0) / width and slope = height / width.
        g_x = g_t / width
        g_width = -(g_t * t + g_slope * slope) / width
        g_height = gz * f + g_slope / width
        grads = torch.cat(
            [
                spline_logit_gradient(widths, index, -g_x, g_width, spline),
                spline_logit_gradient(heights, index, gz, g_height, spline),
                _slope_gradient(index, g_d0, g_d1, d0, d1, spline),
            ]
        )
        return torch.where(inside, g_x, grad_z), grads, None


def spline_logit_gradient(shares, index, g_corner, g_size, spline):
    """Gradient of the width (or height) logits from those of one bin's corner and size.

    The corner is the sum of the sizes before the bin, and sizes are softmax shares.
    """
    scale = 2 * spline.tail_bound * spline.size_range
    g_corner, g_size = scale * g_corner, scale * g_size
    share = shares.gather(0, index)[0]
    bins = torch.arange(spline.n_bins, device=index.device).view(-1, 1, 1)
    before = bins < index
    mean = g_corner * torch.where(before, shares, 0.0).sum(0) + g_size * share
    grad = torch.where(before, g_corner - mean, -mean)
    grad = grad.scatter_add(0, index, g_size[None])
    return shares * grad


def _slope_gradient(index, g_d0, g_d1, d0, d1, spline):
    """Gradient of the inner knots' parameters from those of one bin's end slopes."""
    last = spline.n_bins - 1
    grad = g_d0.new_zeros(last, *g_d0.shape)
    for knot, g, slope in ((index - 1, g_d0, d0), (index, g_d1, d1)):
        # The derivative of softplus, from its value.
        g = g * (1 - torch.exp(spline.MIN_DERIVATIVE - slope))
        inner = (knot >= 0) & (knot < last)
        grad = grad.scatter_add(0, knot.clamp(0, last - 1), torch.where(inner, g, 0.0))
    return grad
