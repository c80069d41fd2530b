"""Monotone maps of one variable whose parameters a network provides.

Each map works elementwise on ``x`` of shape ``(d, n)`` with parameters of shape
``(n_params, d, n)``: the long axis, the rows, is last in memory, where elementwise kernels
are fastest. All parameters at zero give the identity.
"""

import torch

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
