"""Planar bijections."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from ._base import Bijection

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
        size = 2 * n_features + 1
        spread = n_features**-0.5
        self.parameters_ = nn.Parameter(torch.empty(size).uniform_(-spread, spread))
        with torch.no_grad():
            self.parameters_[:n_features] *= 0.1  # near the identity
        self.context = nn.Parameter(torch.zeros(size, n_context)) if n_context else None

    def _uwb(self, context):
        params = self.parameters_.unsqueeze(-2)
        if self.context is not None:
            params = params + context @ self.context.mT
        u, w, b = params.split([self.n_features, self.n_features, 1], dim=-1)
        wu = (w * u).sum(-1, keepdim=True)
        safe = F.softplus(wu + _UNIT) - 1  # w.u-hat > -1 is what invertibility needs
        norm = (w * w).sum(-1, keepdim=True).clamp(min=torch.finfo(w.dtype).eps)
        return u + (safe - wu) * w / norm, w, b.squeeze(-1)

    @staticmethod
    def _log_det(wu, bent):
        # 1 + w.u (1 - tanh^2), rounded up from 0 where w.u is -1 to rounding
        tiny = torch.finfo(bent.dtype).tiny
        return (1 + wu * (1 - bent**2)).clamp(min=tiny).log()

    def forward(self, x, context=None):
        u, w, b = self._uwb(context)
        bent = torch.tanh((x * w).sum(-1) + b)
        return x + u * bent.unsqueeze(-1), self._log_det((w * u).sum(-1), bent)

    def in_small_steps(self, inverse=False):
        return True

    def inverse(self, z, context=None):
        u, w, b = self._uwb(context)
        wu = (w * u).sum(-1)
        projected = (z * w).sum(-1) + b
        wu, projected = torch.broadcast_tensors(wu, projected)
        bent = torch.tanh(_solve_monotone(wu, projected, self.MAX_STEPS))
        return z - u * bent.unsqueeze(-1), -self._log_det(wu, bent)


def _solve_monotone(slope, target, max_steps):
    """The a with ``a + slope tanh(a) = target``, for ``slope > -1``."""
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
        # circles: bisect in their place.
        trusted = (newton > low) & (newton < high) & ((newton - a).abs() <= moved / 2)
        following = torch.where(trusted, newton, (low + high) / 2)
        following = torch.where(residual == 0, a, following)
        if torch.equal(following, a):
            break
        moved = (following - a).abs()
        a = following
    return a
