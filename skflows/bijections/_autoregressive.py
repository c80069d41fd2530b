"""Autoregressive bijections: each column is mapped given the ones before it."""

import torch
from torch import Tensor, nn

from ..nn.causal import CausalNet
from ..nn.made import ResidualMADE
from ..nn.vjp import Pullback
from ._base import Bijection, Mapped
from ._given import Given


class GivenUnivariate(Given):
    """A map of a single column at n contexts (see `Given`).

    Parameters
    ----------
    univariate : Univariate
        The map.
    params : Tensor of shape (1, n_params, n)
        Its parameters at each context.
    """

    def __init__(self, univariate, params):
        self.univariate = univariate
        self.params = params

    def forward(self, x):
        return self._mapped(self.univariate.forward, x)

    def inverse(self, z):
        return self._mapped(self.univariate.inverse, z)

    def take(self, index):
        return GivenUnivariate(self.univariate, self.params.index_select(-1, index))

    def _mapped(self, direction, x):
        """Map rows ``(k, n, 1)``."""
        columns = x.mT.expand(-1, -1, self.params.shape[-1])
        z, log_det = direction(columns, self.params.expand(len(columns), -1, -1, -1))
        return z.mT, log_det


class MaskedAutoregressive(Bijection):
    """``z_j = f(x_j; params(x_<j))``: one network pass forward, one incremental solve back.

    Parameters
    ----------
    n_features : int
        Number of columns.
    univariate : Shift, Affine or RationalQuadraticSpline
        The elementwise map f.
    hidden_layer_sizes : tuple of int
        Widths of the masked residual network.
    **network
        ``n_context``, ``activation`` and ``dropout`` of the network; with ``reverse=True`` the last
        column comes first.

    References
    ----------
    Papamakarios, Pavlakou & Murray, "Masked Autoregressive Flow for Density Estimation", 2017.
    """

    net: ResidualMADE | CausalNet

    def __init__(self, n_features, univariate, hidden_layer_sizes, **network):
        super().__init__()
        self.univariate = univariate
        self.n_context = network.get("n_context", 0)
        self.net = ResidualMADE(n_features, univariate.n_params, hidden_layer_sizes, **network)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        x = x.mT.contiguous()
        z, log_det = self.univariate.forward(x, self._params_of(x, context))
        return z.mT, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        z = z.mT
        if z.shape[-2] == 1:
            x, log_det = self.univariate.inverse(z, self._params_of(z, context))
            return x.mT, log_det
        next_feature, log_slopes = self._solving(z)
        x = self.net.solve(next_feature, z, context)
        return x.mT, sum(log_slopes)

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        x = x.mT.contiguous()
        outputs, through_net = self.net.vjp(x, context)
        (z, log_det), through_map = self.univariate.vjp(x, self._map_parameters(outputs))

        def pullback(g, g_log_det, to_x=True):
            g, g_params = through_map(g.mT, g_log_det)
            g_seen, gradients = through_net(g_params.flatten(-3, -2), to_x)
            return (g + g_seen).mT if to_x else None, gradients

        return (z.mT, log_det), pullback

    def inverse_vjp(self, z: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        z = z.mT
        next_feature, log_slopes = self._solving(z)
        x, params, through_net = self.net.solve_vjp(next_feature, z, context)

        def pullback(g, g_log_det, to_x=True):
            # x depends on z and the weights such that the forward map returns z. The map is run
            # twice, because a pullback may be called only once.
            _, through_map = self.univariate.vjp(x, params)
            slope, slope_in_params = through_map(torch.ones_like(x), torch.zeros_like(x[..., 0, :]))
            _, through_map = self.univariate.vjp(x, params)
            # The log-determinant is minus the forward one.
            g_x, g_params = through_map(torch.zeros_like(x), -g_log_det)
            g_x = g_x + g.mT
            g_z = torch.empty_like(z)

            def next_gradient(j, g_seen):
                one = slice(j, j + 1)
                g_z[..., one, :] = (g_x[..., one, :] + g_seen) / slope[..., one, :]
                direct, through_z = g_params[..., j, :, :], slope_in_params[..., j, :, :]
                return torch.addcmul(direct, through_z, g_z[..., one, :], value=-1)

            gradients = through_net(next_gradient)
            return g_z.mT if to_x else None, gradients

        return (x.mT, sum(log_slopes)), pullback

    def given(self, context: Tensor | None) -> Given:
        if context is None or not self.n_context or self.net.n_features > 1:
            return super().given(context)
        # The parameters of a single column do not depend on its values: one value is enough.
        params = self._params_of(context.new_zeros(1, 1), context)
        return GivenUnivariate(self.univariate, params)

    def is_sequential(self, inverse: bool = False) -> bool:
        return inverse

    def _params_of(self, x, context):
        """Return the parameters of the maps of columns x."""
        return self._map_parameters(self.net(x, context))

    def _map_parameters(self, outputs):
        return outputs.unflatten(-2, (-1, self.univariate.n_params))

    def _solving(self, z):
        """Return the function that gives `ResidualMADE.solve` a feature of x, and log-slopes."""
        log_slopes = []

        def next_feature(j, params):
            feature = z[..., j : j + 1, :]
            x, log_slope = self.univariate.inverse(feature, params.unsqueeze(-3))
            log_slopes.append(log_slope)
            return x

        return next_feature, log_slopes


class GridAutoregressive(MaskedAutoregressive):
    """``z_ij = f(x_ij; params(x_<i))``: each row of a grid is mapped given the rows above it.

    The parameters of a value depend on the rows above it, at its position and to both sides, by
    convolutions that are dilated in both directions. The inverse computes one row after another, in
    as many steps as there are rows.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the grid in the columns, which is flattened in this order.
    univariate : Shift, Affine or RationalQuadraticSpline
        The elementwise map f.
    hidden_layer_sizes : tuple of int
        Channels of the convolutional network. The dilation doubles from layer to layer.
    **network
        ``n_context``, ``n_frames``, ``activation`` and ``dropout`` of the network (see
        `skflows.nn.causal.CausalNet`).

    References
    ----------
    Ping, Peng, Zhao & Song, "WaveFlow: A Compact Flow-Based Model for Raw Audio", 2020.
    """

    def __init__(self, shape, univariate, hidden_layer_sizes, **network):
        nn.Module.__init__(self)
        self.width = shape[1]
        self.univariate = univariate
        self.n_context = network.get("n_context", 0)
        self.net = CausalNet(shape, univariate.n_params, hidden_layer_sizes, **network)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        z = z.mT
        log_dets = []

        def next_row(i, outputs):
            row = z[..., i * self.width : (i + 1) * self.width, :]
            x, log_det = self.univariate.inverse(row, self._map_parameters(outputs))
            log_dets.append(log_det)
            return x

        x = self.net.solve(next_row, z, context)
        return x.mT, sum(log_dets)
