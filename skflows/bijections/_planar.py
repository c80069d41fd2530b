"""Planar bijections."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import kernels
from ..nn.vjp import Pullback
from ._base import Bijection, Mapped

aten = torch.ops.aten

# softplus of this is 1: makes w.u = 0 at the start give u-hat = u
_UNIT = math.log(math.e - 1)


class Planar(Bijection):
    """``z = x + u tanh(w.x + b)``, kept invertible by ``u.w > -1``.

    The inverse has no closed form, but the row only moves along u: it is one monotone scalar
    equation per row, solved by bisection-guarded Newton steps to the precision of the dtype.

    Parameters
    ----------
    n_features : int
        Number of columns.
    n_context : int, default=0
        Size of the context, which shifts u, w and b linearly.

    References
    ----------
    Rezende & Mohamed, "Variational Inference with Normalizing Flows", 2015.
    """

    MAX_STEPS = 200  # slopes up to 1e4 need fewer than 100 to reach float64's last bits

    def __init__(self, n_features, n_context=0):
        super().__init__()
        self.n_features = n_features
        self.n_context = n_context
        size = 2 * n_features + 1
        spread = n_features**-0.5
        self.parameters_ = nn.Parameter(torch.empty(size).uniform_(-spread, spread))
        with torch.no_grad():
            self.parameters_[:n_features] *= 0.1  # near the identity
        self.context = nn.Parameter(torch.zeros(size, n_context)) if n_context else None

    def _parameters_of(self, context):
        """Return the columns u, w and b, one for all rows or for each row's context."""
        params = self.parameters_.unsqueeze(-1)
        if self.context is not None:
            params = params + self.context @ context.mT
        return params.split([self.n_features, self.n_features, 1], -2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        x = x.mT
        u, w, b = self._parameters_of(context)
        u, _ = _invertible(u, w)
        bent = torch.tanh(_dot(w, x) + b)
        stretch, _ = _stretch(_dot(w, u), bent)
        return torch.addcmul(x, u, bent).mT, stretch.log().squeeze(-2)

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        x = x.mT
        u, w, b = self._parameters_of(context)
        u, through_invertible = _invertible(u, w)
        wu = _dot(w, u)
        bent = torch.tanh(_dot(w, x) + b)
        stretch, slope = _stretch(wu, bent)

        def pullback(g, g_log_det, to_x=True):
            g = g.mT
            g_stretch = g_log_det.unsqueeze(-2) / stretch
            # None where the determinant was rounded up.
            g_stretch = aten.threshold_backward(g_stretch, stretch, _least_stretch(stretch))
            g_bent = torch.addcmul(_dot(u, g), g_stretch * bent, wu, value=-2)
            g_along = g_bent * slope
            # Gradients in u, w and w.u: a column for each row with a context, otherwise a single
            # one.
            total = _sum if self.context is None else lambda columns: columns
            g_wu = total(g_stretch * slope)
            g_u, g_w = through_invertible(torch.addcmul(total(g * bent), g_wu, w))
            g_w = torch.addcmul(g_w, g_wu, u) + total(x * g_along)
            g_params = torch.cat([g_u, g_w, total(g_along)], -2)
            gradients = [_sum(g_params).squeeze(-1)]
            if self.context is not None:
                gradients.append(g_params @ context)
            return torch.addcmul(g, w, g_along).mT if to_x else None, gradients

        return (torch.addcmul(x, u, bent).mT, stretch.log().squeeze(-2)), pullback

    def is_sequential(self, inverse: bool = False) -> bool:
        return True

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        z = z.mT
        u, w, b = self._parameters_of(context)
        u, _ = _invertible(u, w)
        wu, projected = torch.broadcast_tensors(_dot(w, u), _dot(w, z) + b)
        bent = torch.tanh(_solve_monotone(wu, projected, self.MAX_STEPS))
        stretch, _ = _stretch(wu, bent)
        return torch.addcmul(z, u, bent, value=-1).mT, -stretch.log().squeeze(-2)


def _dot(u, w):
    """Return the inner products of columns, of shape (..., 1, n)."""
    return (u * w).sum(-2, keepdim=True)


def _sum(columns):
    """Return the sum over rows."""
    return columns.sum(-1, keepdim=True)


def _invertible(u, w):
    """Return u-hat, whose product with w is more than -1, and its pullback to u and w."""
    wu = _dot(w, u)
    least = torch.finfo(w.dtype).eps
    norm = _dot(w, w).clamp(min=least)
    excess = (F.softplus(wu + _UNIT) - 1 - wu) / norm

    def pullback(g):
        g_excess = _dot(g, w) / norm
        g_wu = torch.addcmul(-g_excess, g_excess, torch.sigmoid(wu + _UNIT))
        g_norm = aten.threshold_backward(g_excess * excess, norm, least)  # of -norm
        g_w = torch.addcmul(excess * g, g_wu, u)
        return torch.addcmul(g, g_wu, w), torch.addcmul(g_w, g_norm, w, value=-2)

    return torch.addcmul(u, excess, w), pullback


def _least_stretch(like):
    return torch.finfo(like.dtype).tiny


def _stretch(wu, bent):
    """Return the determinant, and the slope of tanh where its value is ``bent``."""
    slope = 1 - bent * bent
    # Rounded up from 0 where w.u is -1 to rounding.
    return (1 + wu * slope).clamp(min=_least_stretch(bent)), slope


def _solve_monotone(slope, target, max_steps):
    """Return the a with ``a + slope tanh(a) = target``, for ``slope > -1``."""
    low, high = target - slope.abs(), target + slope.abs()
    a = target - slope * torch.tanh(target)
    moved = high - low
    for _ in range(max_steps):
        bent = torch.tanh(a)
        residual = a + slope * bent - target
        low = torch.where(residual <= 0, a, low)
        high = torch.where(residual >= 0, a, high)
        newton = a - residual / (1 + slope * (1 - bent**2))
        # Newton steps that leave the bracket or do not halve the last step can go round in
        # circles: bisect instead.
        trusted = (newton > low) & (newton < high) & ((newton - a).abs() <= moved / 2)
        following = torch.where(trusted, newton, (low + high) / 2)
        following = torch.where(residual == 0, a, following)
        if not kernels.is_traced() and torch.equal(following, a):
            break
        moved = (following - a).abs()
        a = following
    return a
