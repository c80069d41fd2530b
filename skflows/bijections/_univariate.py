"""Monotone maps of one variable whose parameters a network provides.

Each map works elementwise on ``x`` of shape ``(..., d, n)`` with parameters of shape
``(..., n_params, d, n)``: the long axis, the rows, is last in memory, where elementwise kernels
are fastest. All parameters at zero give the identity.
"""

from dataclasses import dataclass

import torch

LOG_SCALE_BOUND = 3.0


def bounded_log_scale(raw, bound=LOG_SCALE_BOUND):
    """Clamp smoothly to ``(-bound, bound)``: an unbounded log-scale overflows on outliers."""
    return bound * torch.tanh(raw / bound)


def unbounded_log_scale(log_scale, bound=LOG_SCALE_BOUND):
    """The raw value that `bounded_log_scale` sends to ``log_scale``, or as near as it can."""
    return bound * torch.atanh((log_scale / bound).clamp(-0.99, 0.99))


@dataclass(frozen=True)
class Shift:
    """``z = x + t``: the additive map of NICE."""

    n_params = 1

    def forward(self, x, params):
        return x + params.squeeze(-3), torch.zeros_like(x)

    def inverse(self, z, params):
        return z - params.squeeze(-3), torch.zeros_like(z)


@dataclass(frozen=True)
class Affine:
    """``z = x exp(s) + t`` with a bounded log-scale ``s``."""

    n_params = 2

    def forward(self, x, params):
        shift, raw = params.unbind(-3)
        log_scale = bounded_log_scale(raw)
        return x * log_scale.exp() + shift, log_scale

    def inverse(self, z, params):
        shift, raw = params.unbind(-3)
        log_scale = bounded_log_scale(raw)
        return (z - shift) * (-log_scale).exp(), -log_scale
