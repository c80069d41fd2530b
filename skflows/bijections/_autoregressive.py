"""Autoregressive bijections: each feature is mapped given the ones before it."""

import torch

from .._nn import MaskedResidualMLP
from ._base import Bijection


class MaskedAutoregressive(Bijection):
    """``z_j = f(x_j; params(x_<j))``: one network pass forwards, one incremental solve back.

    Parameters
    ----------
    n_features : int
        Number of columns.
    univariate : Shift, Affine or RationalQuadraticSpline
        The elementwise map f.
    hidden_layer_sizes : tuple of int
        Widths of the masked residual network.
    **network
        ``n_context``, ``activation`` and ``dropout`` of the network.

    References
    ----------
    Papamakarios, Pavlakou & Murray, "Masked Autoregressive Flow for Density Estimation", 2017.
    """

    def __init__(self, n_features, univariate, hidden_layer_sizes, **network):
        super().__init__()
        self.univariate = univariate
        self.net = MaskedResidualMLP(n_features, univariate.n_params, hidden_layer_sizes, **network)

    def forward(self, x, context=None):
        x = x.T
        params = self.net(x, context).view(self.univariate.n_params, *x.shape)
        z, log_slope = self.univariate.forward(x, params)
        return z.T, log_slope.sum(0)

    def inverse(self, z, context=None):
        log_slopes = []

        def next_feature(j, params):
            x, log_slope = self.univariate.inverse(z[None, :, j], params[:, None])
            log_slopes.append(log_slope)
            return x[0]

        x = self.net.solve(next_feature, len(z), z, context)
        return x.T, torch.cat(log_slopes).sum(0)
