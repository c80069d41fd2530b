"""Coupling bijections: each half of the features is mapped given the other."""

from functools import reduce

import torch
from torch import nn

from .._nn import ResidualMLP
from ._base import Bijection, Chain
from ._linear import Permutation
from ._univariate import outputs_of, params_of


class Coupling(Bijection):
    """Map the first half of the columns given the others, and these given what the first became.

    A single column has nothing to be conditioned on: it is mapped with free parameters.

    Parameters
    ----------
    n_features : int
        Number of columns.
    univariate : Shift, Affine or RationalQuadraticSpline
        The elementwise map.
    hidden_layer_sizes : tuple of int
        Widths of the two residual networks.
    **network
        ``n_context``, ``activation`` and ``dropout`` of the networks.

    References
    ----------
    Dinh, Krueger & Bengio, "NICE", 2014; Dinh, Sohl-Dickstein & Bengio, "RealNVP", 2016.
    """

    def __init__(self, n_features, univariate, hidden_layer_sizes, **network):
        super().__init__()
        self.sizes = sizes = [n_features - n_features // 2, n_features // 2]
        self.univariate = univariate
        self.nets = nn.ModuleList(
            ResidualMLP(given, size * univariate.n_params, hidden_layer_sizes, **network)
            for size, given in zip(sizes, sizes[::-1], strict=True)
            if size
        )

    @staticmethod
    def chain(n_features, bijections):
        """A chain of couplings and others, within which the even columns come before the odd ones.

        Neighbours, which often depend on each other, are in different halves that way.

        Parameters
        ----------
        n_features : int
            Number of columns.
        bijections : sequence of Bijection
            The first one nearest to the data.

        Returns
        -------
        chain : Chain
        """
        deal = Permutation(n_features, [*range(0, n_features, 2), *range(1, n_features, 2)])
        return Chain([deal, *bijections, Permutation(n_features, deal.restore)])

    def _halves(self, x):
        return list(x.mT.contiguous().split_with_sizes(self.sizes, -2))

    @property
    def vjp_by_autograd(self):
        return super().vjp_by_autograd or self.univariate.vjp_by_autograd

    def _apply_maps(self, univariate_map, turns, x, context):
        halves = self._halves(x)
        log_slopes = []
        for i in turns:
            params = params_of(self.univariate, self.nets[i](halves[1 - i], context))
            halves[i], log_slope = univariate_map(halves[i], params)
            log_slopes.append(log_slope)
        return torch.cat(halves, -2).mT, torch.cat(log_slopes, -2).sum(-2)

    def vjp(self, x):
        halves = self._halves(x)
        log_dets, pullbacks = [], []
        for i, net in enumerate(self.nets):
            outputs, through_net = net.vjp(halves[1 - i])
            params = params_of(self.univariate, outputs)
            (halves[i], log_det), through_map = self.univariate.vjp(halves[i], params)
            log_dets.append(log_det)
            pullbacks.append((through_map, through_net))

        def pullback(g, g_log_det, to_x=True):
            g_halves = self._halves(g)
            gradients: list[torch.Tensor] = []
            for i in reversed(range(len(self.nets))):
                through_map, through_net = pullbacks[i]
                g_halves[i], g_params = through_map(g_halves[i], g_log_det.unsqueeze(-2))
                g_given, own = through_net(outputs_of(g_params), to_x or i > 0)
                gradients = own + gradients
                if g_given is not None:
                    g_halves[1 - i] = g_halves[1 - i] + g_given
            if not to_x:
                return None, gradients
            return torch.cat(g_halves, -2).mT, gradients

        log_det = reduce(torch.add, log_dets).squeeze(-2)
        return (torch.cat(halves, -2).mT, log_det), pullback

    def forward(self, x, context=None):
        return self._apply_maps(self.univariate.forward, range(len(self.nets)), x, context)

    def inverse(self, z, context=None):
        turns = reversed(range(len(self.nets)))
        return self._apply_maps(self.univariate.inverse, turns, z, context)
