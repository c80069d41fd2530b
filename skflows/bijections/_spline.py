"""Monotone rational-quadratic splines.

Tensors keep the rows last, as in `_univariate`: ``x`` is ``(..., d, n)``, parameters are
``(..., 3 n_bins - 1, d, n)``.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch.autograd.function import once_differentiable

from . import _spline_fused, _spline_steps
from ._univariate import Univariate


@dataclass(frozen=True)
class RationalQuadraticSpline(Univariate):
    """Monotone rational-quadratic spline on ``[-tail_bound, tail_bound]``, identity outside.

    Parameters
    ----------
    n_bins : int, default=8
        Number of bins. There are ``3 n_bins - 1`` parameters: widths, heights, and the
        derivatives at the inner knots. All at zero give the identity. More than 32 are always
        computed by torch's operations, which take several times as long.
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
    MIN_DERIVATIVE = 1e-3
    # softplus of this is 1 - MIN_DERIVATIVE, so that a zero parameter means a slope of 1
    UNIT_SLOPE = math.log(math.expm1(1 - MIN_DERIVATIVE))

    @property
    def n_params(self):
        return 3 * self.n_bins - 1

    @property
    def least(self):
        """The least size of a bin."""
        return 2 * self.tail_bound * self.MIN_SIZE

    @property
    def shared(self):
        """What the softmax shares out among the bins, above their least sizes."""
        return 2 * self.tail_bound - self.n_bins * self.least

    def forward(self, x, params):
        if not torch.is_grad_enabled():  # a few percent of a call on one row
            return _way(self, x, params).evaluate(self, x, params)[:2]
        return _SplineForward.apply(x, params, self)

    def vjp(self, x, params):
        way = _way(self, x, params)
        *outcome, kept = way.evaluate(self, x, params, add_up=True)
        return outcome, partial(way.pull_back, self, kept)

    def is_one_pass(self, tensor):
        return _spline_fused.serves_like(self, tensor)

    def inverse(self, z, params):
        # Gradients of the inverse are autograd's, and a compiler has no operation for it.
        way = _spline_steps if torch.compiler.is_compiling() else _way(self, z, params)
        return way.invert(self, z, params)


def _way(spline, x, params):
    """The module that serves: both compute the same, of what is finite."""
    return _spline_fused if _spline_fused.serves(spline, x, params) else _spline_steps


class _SplineForward(torch.autograd.Function):
    """The spline and its log-slope for autograd, with the gradients that are written out."""

    @staticmethod
    def forward(ctx, x, params, spline):
        # Autograd refuses to save those of inference mode.
        x, params = (t.clone() if t.is_inference() else t for t in (x, params))
        ctx.spline, ctx.way = spline, _way(spline, x, params)
        z, log_slope, kept = ctx.way.evaluate(spline, x, params)
        ctx.save_for_backward(*kept)
        return z, log_slope

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_z, grad_log_slope):
        return *ctx.way.pull_back(ctx.spline, ctx.saved_tensors, grad_z, grad_log_slope), None
