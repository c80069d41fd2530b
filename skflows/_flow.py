"""A flow: a standard normal pulled back through a bijection."""

import math

import torch
from torch import nn


class Flow(nn.Module):
    """Density of rows whose latent image is standard normal.

    Parameters
    ----------
    preprocess : Bijection
        A map that is set from data and not trained (standardisation). It stays in float64,
        so that columns of any scale reach the trained part without loss.
    bijection : Bijection
        The trained map.
    """

    def __init__(self, preprocess, bijection):
        super().__init__()
        self.preprocess = preprocess
        self.bijection = bijection

    def forward(self, x, context=None):
        """Latent coordinates and ``log |dz/dx|`` of rows ``x``, of shape (n, d) and (n,)."""
        y, fixed = self.preprocess(x, context)
        z, trained = self.bijection(y, context)
        return z, fixed + trained

    def inverse(self, z, context=None):
        """Rows and ``log |dx/dz|`` of latent coordinates."""
        y, trained = self.bijection.inverse(z, context)
        x, fixed = self.preprocess.inverse(y, context)
        return x, fixed + trained

    def log_prob(self, x, context=None):
        """Log-density in nats, in the units of ``x``."""
        z, log_det = self(x, context)
        return standard_normal_log_prob(z) + log_det


def standard_normal_log_prob(z):
    """Log-density of a standard normal at the rows of ``z``."""
    return -0.5 * (torch.linalg.vecdot(z, z) + z.shape[-1] * math.log(2 * math.pi))
