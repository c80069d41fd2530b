"""Coupling bijections: half of the features are mapped given the other half."""

import torch

from .._nn import ResidualMLP
from ._base import Bijection


class Coupling(Bijection):
    """Map the columns of one parity given those of the other; a pair of them maps all.

    A single column has nothing to be conditioned on: it is mapped with free parameters.

    Parameters
    ----------
    n_features : int
        Number of columns.
    univariate : Shift, Affine or RationalQuadraticSpline
        The elementwise map.
    hidden_layer_sizes : tuple of int
        Widths of the residual network.
    odd : bool, default=False
        Map the columns 1, 3, ... in place of 0, 2, ...
    **network
        ``n_context``, ``activation`` and ``dropout`` of the network.

    References
    ----------
    Dinh, Krueger & Bengio, "NICE", 2014; Dinh, Sohl-Dickstein & Bengio, "RealNVP", 2016.
    """

    def __init__(self, n_features, univariate, hidden_layer_sizes, odd=False, **network):
        super().__init__()
        columns = torch.arange(n_features)
        parity = int(odd and n_features > 1)
        self.register_buffer("mapped", columns[columns % 2 == parity])
        self.register_buffer("given", columns[columns % 2 != parity])
        self.register_buffer("restore", torch.cat([self.mapped, self.given]).argsort())
        self.univariate = univariate
        self.net = ResidualMLP(
            len(self.given),
            len(self.mapped) * univariate.n_params,
            hidden_layer_sizes,
            **network,
        )

    def _apply_map(self, univariate_map, x, context):
        x = x.mT
        mapped, given = x.index_select(-2, self.mapped), x.index_select(-2, self.given)
        params = self.net(given, context).unflatten(-2, (self.univariate.n_params, -1))
        mapped, log_slope = univariate_map(mapped, params)
        x = torch.cat([mapped, given], -2).index_select(-2, self.restore)
        return x.mT, log_slope.sum(-2)

    def forward(self, x, context=None):
        return self._apply_map(self.univariate.forward, x, context)

    def inverse(self, z, context=None):
        return self._apply_map(self.univariate.inverse, z, context)
