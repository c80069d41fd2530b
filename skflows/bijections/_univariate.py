"""Monotone maps of one variable whose parameters a network provides.

Each map works elementwise on ``x`` of shape ``(..., d, n)`` with parameters of shape
``(..., n_params, d, n)``: the long axis, the rows, is last in memory, where elementwise kernels
are fastest. All parameters at zero give the identity.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

import torch

from .. import _fused
from .._pullbacks import drop_inherited, leaf, recorded, squash_vjp

LOG_SCALE_BOUND = 3.0


def bounded_log_scale(raw):
    """Clamp smoothly to ``(-3, 3)``: an unbounded log-scale overflows on outliers."""
    return bounded_log_scale_vjp(raw)[0]


def bounded_log_scale_vjp(raw):
    """The same, and its pullback."""
    return squash_vjp(raw, LOG_SCALE_BOUND)


def unbounded_log_scale(log_scale):
    """The raw value that `bounded_log_scale` sends to ``log_scale``, or as near as it can."""
    share = (log_scale / LOG_SCALE_BOUND).clamp(-0.99, 0.99)
    return LOG_SCALE_BOUND * share * torch.rsqrt(1 - share**2)


def params_of(univariate, outputs):
    """Its parameters from what a network returns, where those of a feature are neighbours."""
    return outputs.unflatten(-2, (-1, univariate.n_params)).transpose(-3, -2)


def outputs_of(params):
    """The inverse of `params_of`."""
    return params.transpose(-3, -2).flatten(-3, -2)


class Univariate(ABC):
    """A monotone map of one variable with parameters for each value.

    A subclass has ``n_params``, ``forward`` and ``inverse``. Both take values of shape
    ``(..., d, n)`` and parameters of the same dtype of shape ``(..., n_params, d, n)``, and return
    the mapped values with the logarithm of the slope of that direction at each. In memory those of
    a feature are neighbours: ``view`` may refuse what ``unbind`` takes. Gradients of what `inverse`
    returns may be found from ``vjp``, for it undoes ``forward``.
    """

    def __init_subclass__(cls):
        super().__init_subclass__()
        drop_inherited(cls, Univariate, forward="vjp")

    @property
    def vjp_by_autograd(self):
        """Whether `vjp` leaves something to autograd, where a compiler does not follow it."""
        return type(self).vjp is Univariate.vjp

    def is_one_pass(self, tensor):
        """Whether it leaves nothing for a compiler to join, on values like those of a tensor."""
        return False

    @abstractmethod
    def forward(self, x, params):
        """Map data to latent: ``(z, log dz/dx)``."""

    @abstractmethod
    def inverse(self, z, params):
        """Map latent to data: ``(x, log dx/dz)``."""

    def vjp(self, x, params):
        """z, the log-slopes added up over the columns to one row, and their pullback.

        See `skflows._pullbacks`. It takes the gradients of both to those of x and the parameters,
        by autograd if not written out.
        """
        params = leaf(params)

        def forward(x):
            z, log_slope = self.forward(x, params)
            return z, log_slope.sum(-2, keepdim=True)

        outcome, by_autograd = recorded(forward, x, [params])

        def pullback(g, g_log_det):
            g_x, (g_params,) = by_autograd(g, g_log_det)
            return g_x, g_params

        return outcome, pullback


@dataclass(frozen=True)
class Shift(Univariate):
    """``z = x + t``: the additive map of NICE."""

    n_params = 1

    def forward(self, x, params):
        return x + params.squeeze(-3), torch.zeros_like(x)

    def vjp(self, x, params):
        outcome = x + params.squeeze(-3), torch.zeros_like(x[..., :1, :])
        return outcome, lambda g, g_log_det: (g, g.unsqueeze(-3))

    def inverse(self, z, params):
        return z - params.squeeze(-3), torch.zeros_like(z)


@dataclass(frozen=True)
class Affine(Univariate):
    """``z = x exp(s) + t`` with a bounded log-scale ``s``."""

    n_params = 2
    SETTINGS = (LOG_SCALE_BOUND,)  # of compiled code

    def forward(self, x, params):
        if _fused.serves_map(x, params, self.n_params):
            x, params = x.contiguous(), _fused.in_blocks(params)
            return _fused.run_forward("affine", self.SETTINGS, x, params)
        shift, raw = params.unbind(-3)
        log_scale = bounded_log_scale(raw)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def vjp(self, x, params):
        if _fused.serves_map(x, params, self.n_params):
            return self._vjp_fused(x, params)
        shift, raw = params.unbind(-3)
        log_scale, through_bound = bounded_log_scale_vjp(raw)
        scale = log_scale.exp()

        def pullback(g, g_log_det):
            g_x = g * scale
            g_raw = through_bound(torch.addcmul(g_log_det, g_x, x))
            return g_x, torch.stack([g, g_raw], -2).transpose(-3, -2)

        outcome = torch.addcmul(shift, x, scale), log_scale.sum(-2, keepdim=True)
        return outcome, pullback

    def _vjp_fused(self, x, params):
        x, params = x.contiguous(), _fused.in_blocks(params)
        outcome = _fused.run_forward("affine", self.SETTINGS, x, params, add_up=True)
        return outcome, partial(_fused.run_backward, "affine_backward", self.SETTINGS, x, params)

    def inverse(self, z, params):
        if _fused.serves_map(z, params, self.n_params):
            z, params = z.contiguous(), _fused.in_blocks(params)
            return _fused.run_forward("affine_inverse", self.SETTINGS, z, params)
        shift, raw = params.unbind(-3)
        log_scale = bounded_log_scale(raw)
        return (z - shift) * (-log_scale).exp(), -log_scale
