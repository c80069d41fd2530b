"""Monotone maps of one variable, whose parameters a network provides.

Values have the shape ``(..., d, n)`` and parameters ``(..., d, n_params, n)``: the rows are last in
memory, where elementwise operations are fastest. Parameters of 0 give the identity.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..nn.activations import squash, squash_vjp
from ..nn.vjp import Pullback, as_leaf, by_autograd, drop_inherited_vjp
from ._base import Mapped

LOG_SCALE_BOUND = 3.0


def bounded_log_scale(raw):
    """Clamp smoothly to ``(-3, 3)``: an unbounded log-scale overflows on outliers."""
    return squash(raw, LOG_SCALE_BOUND)


def bounded_log_scale_vjp(raw):
    """Return what `bounded_log_scale` does, and its pullback."""
    return squash_vjp(raw, LOG_SCALE_BOUND)


def unbounded_log_scale(log_scale):
    """Return the raw value that `bounded_log_scale` maps to ``log_scale``, or nearly so."""
    share = (log_scale / LOG_SCALE_BOUND).clamp(-0.99, 0.99)
    return LOG_SCALE_BOUND * share * torch.rsqrt(1 - share**2)


class Univariate(ABC):
    """A monotone map of one variable with parameters for each value.

    A subclass has ``n_params``, ``forward`` and ``inverse``. Both take values of shape
    ``(..., d, n)`` and parameters of the same dtype of shape ``(..., d, n_params, n)``. They return
    the mapped values and the log-slopes of that direction, summed over the features to the shape
    ``(..., n)``.
    """

    def __init_subclass__(cls):
        super().__init_subclass__()
        drop_inherited_vjp(cls, Univariate, forward="vjp")
        drop_inherited_vjp(cls, Univariate, forward="derivatives")

    @property
    @abstractmethod
    def n_params(self) -> int:
        """Number of parameters for each value."""

    @abstractmethod
    def forward(self, x: Tensor, params: Tensor) -> Mapped:
        """Map data to latent: ``(z, log |det dz/dx|)``."""

    @abstractmethod
    def inverse(self, z: Tensor, params: Tensor) -> Mapped:
        """Map latent to data: ``(x, log |det dx/dz|)``."""

    def vjp(self, x: Tensor, params: Tensor) -> tuple[Mapped, Pullback]:
        """Return the output of ``forward`` and its pullback (see `skflows.nn.vjp`).

        The pullback maps gradients in z and in the log-determinants to gradients in x and in the
        parameters. Gradients of ``inverse`` are derived from it too. It uses autograd unless
        written out.
        """
        params = as_leaf(params)
        outcome, pullback = by_autograd(lambda x: self.forward(x, params), x, [params])

        def both(g, g_log_det):
            g_x, (g_params,) = pullback(g, g_log_det)
            return g_x, g_params

        return outcome, both

    def derivatives(self, x: Tensor, params: Tensor) -> tuple[Mapped, Mapped]:
        """Return the derivatives of the value and of the log-slope, in x and in the parameters."""
        ones, zeros = torch.ones_like(x), torch.zeros_like(x)
        # A pullback may be called only once.
        of_value = self.vjp(x, params)[1](ones, zeros[..., 0, :])
        return of_value, self.vjp(x, params)[1](zeros, ones[..., 0, :])


@dataclass(frozen=True)
class Shift(Univariate):
    """``z = x + t``: the additive map of NICE."""

    n_params = 1

    def forward(self, x: Tensor, params: Tensor) -> Mapped:
        return x + params.squeeze(-2), torch.zeros_like(x[..., 0, :])

    def inverse(self, z: Tensor, params: Tensor) -> Mapped:
        return z - params.squeeze(-2), torch.zeros_like(z[..., 0, :])

    def vjp(self, x: Tensor, params: Tensor) -> tuple[Mapped, Pullback]:
        return self.forward(x, params), lambda g, g_log_det: (g, g.unsqueeze(-2))


@dataclass(frozen=True)
class Affine(Univariate):
    """``z = x exp(s) + t`` with a bounded log-scale ``s``."""

    n_params = 2

    def forward(self, x: Tensor, params: Tensor) -> Mapped:
        shift, raw = params.unbind(-2)
        log_scale = bounded_log_scale(raw)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale.sum(-2)

    def inverse(self, z: Tensor, params: Tensor) -> Mapped:
        shift, raw = params.unbind(-2)
        log_scale = bounded_log_scale(raw)
        return (z - shift) * (-log_scale).exp(), -log_scale.sum(-2)

    def vjp(self, x: Tensor, params: Tensor) -> tuple[Mapped, Pullback]:
        shift, raw = params.unbind(-2)
        log_scale, through_bound = bounded_log_scale_vjp(raw)
        scale = log_scale.exp()

        def pullback(g, g_log_det):
            g_x = g * scale
            g_raw = through_bound(torch.addcmul(g_log_det.unsqueeze(-2), g_x, x))
            return g_x, torch.stack([g, g_raw], -2)

        return (torch.addcmul(shift, x, scale), log_scale.sum(-2)), pullback

    def derivatives(self, x: Tensor, params: Tensor) -> tuple[Mapped, Mapped]:
        raw = params.select(-2, 1)
        log_scale, through_bound = bounded_log_scale_vjp(raw)
        scale, ones, zeros = log_scale.exp(), torch.ones_like(x), torch.zeros_like(x)
        slope = through_bound(ones)
        of_value = scale, torch.stack([ones, slope * scale * x], -2)
        return of_value, (zeros, torch.stack([zeros, slope], -2))
