"""Autoregressive bijections: each feature is mapped given the ones before it."""

import torch

from .._masked import MaskedResidualMLP
from ._base import Bijection
from ._univariate import outputs_of, params_of


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
        ``n_context``, ``activation`` and ``dropout`` of the network; ``reverse=True`` lets the last
        column lead in place of the first one.

    References
    ----------
    Papamakarios, Pavlakou & Murray, "Masked Autoregressive Flow for Density Estimation", 2017.
    """

    def __init__(self, n_features, univariate, hidden_layer_sizes, **network):
        super().__init__()
        self.univariate = univariate
        self.net = MaskedResidualMLP(n_features, univariate.n_params, hidden_layer_sizes, **network)

    @property
    def vjp_by_autograd(self):
        return super().vjp_by_autograd or self.univariate.vjp_by_autograd

    def forward(self, x, context=None):
        x = x.mT.contiguous()
        params = params_of(self.univariate, self.net(x, context))
        z, log_slope = self.univariate.forward(x, params)
        return z.mT, log_slope.sum(-2)

    def vjp(self, x):
        x = x.mT.contiguous()
        outputs, through_net = self.net.vjp(x)
        (z, log_det), through_map = self.univariate.vjp(x, params_of(self.univariate, outputs))

        def pullback(g, g_log_det, to_x=True):
            g, g_params = through_map(g.mT, g_log_det.unsqueeze(-2))
            g_seen, gradients = through_net(outputs_of(g_params), to_x)
            return (g + g_seen).mT if to_x else None, gradients

        return (z.mT, log_det.squeeze(-2)), pullback

    def in_small_steps(self, inverse=False):
        return inverse

    def inverse(self, z, context=None):
        z = z.mT
        next_feature, log_slopes = self._solving(z)
        x = self.net.solve(next_feature, z, context)
        return x.mT, torch.cat(log_slopes, -2).sum(-2)

    def inverse_vjp(self, z):
        z = z.mT
        next_feature, log_slopes = self._solving(z)
        x, params, through_net = self.net.solve_vjp(next_feature, z)

        def pullback(g, g_log_det, to_x=True):
            # x depends on z and on the weights as it must for the forward map to return z. Twice,
            # for a pullback may be called once.
            through_map = self.univariate.vjp(x, params)[1]
            slope, slope_in_params = through_map(
                torch.ones_like(x), torch.zeros_like(x[..., :1, :])
            )
            through_map = self.univariate.vjp(x, params)[1]
            # The log-determinant is minus the forward one.
            g_x, g_params = through_map(torch.zeros_like(x), -g_log_det.unsqueeze(-2))
            g_x = g_x + g.mT
            g_z = torch.empty_like(z)

            def next_gradient(j, g_seen):
                one = slice(j, j + 1)
                g_z[..., one, :] = (g_x[..., one, :] + g_seen) / slope[..., one, :]
                return torch.addcmul(
                    g_params[..., j, :], slope_in_params[..., j, :], g_z[..., one, :], value=-1
                )

            gradients = through_net(next_gradient)
            return g_z.mT if to_x else None, gradients

        return (x.mT, torch.cat(log_slopes, -2).sum(-2)), pullback

    def _solving(self, z):
        """What gives `MaskedResidualMLP.solve` each feature of x, and the list of log-slopes."""
        log_slopes = []

        def next_feature(j, params):
            feature = z[..., j : j + 1, :]
            x, log_slope = self.univariate.inverse(feature, params.unsqueeze(-2))
            log_slopes.append(log_slope)
            return x

        return next_feature, log_slopes
