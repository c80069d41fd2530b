"""Coupling bijections: each half of the columns is mapped given the other."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..nn.residual_mlp import ResidualMLP
from ..nn.vjp import Pullback
from ._base import Bijection, Chain, Mapped
from ._linear import Permutation


class Coupling(Bijection):
    """Map the first half of the columns given the second, and the second given the mapped first.

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
        self.n_context = network.get("n_context", 0)
        self.nets = nn.ModuleList(
            ResidualMLP(given, size * univariate.n_params, hidden_layer_sizes, **network)
            for size, given in zip(sizes, sizes[::-1], strict=True)
            if size
        )

    @staticmethod
    def chain(n_features: int, bijections: Iterable[Bijection]) -> Chain:
        """Return a chain of couplings and others, within which even columns come before odd ones.

        Neighbouring columns often depend on each other: this puts them in different halves.

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
        split = Permutation(n_features, [*range(0, n_features, 2), *range(1, n_features, 2)])
        return Chain([split, *bijections, Permutation(n_features, split.restore)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return self._map(self.univariate.forward, range(len(self.nets)), x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return self._map(self.univariate.inverse, reversed(range(len(self.nets))), z, context)

    def _map(self, univariate_map, order, x, context):
        halves = self._halves(x)
        log_dets = []
        for i in order:
            params = self._map_parameters(i, self.nets[i](halves[1 - i], context))
            halves[i], log_det = univariate_map(halves[i], params)
            log_dets.append(log_det)
        return self._joined(halves), sum(log_dets)

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        halves = self._halves(x)
        log_dets, pullbacks = [], []
        for i, net in enumerate(self.nets):
            outputs, through_net = net.vjp(halves[1 - i], context)
            params = self._map_parameters(i, outputs)
            (halves[i], log_det), through_map = self.univariate.vjp(halves[i], params)
            log_dets.append(log_det)
            pullbacks.append((through_map, through_net))
        return (self._joined(halves), sum(log_dets)), self._pullback(pullbacks)

    def vjp_with_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Mapped, Tensor, Pullback]:
        halves, scores = self._halves(x), self._halves(score)
        log_dets, pullbacks = [], []
        for i, net in enumerate(self.nets):
            outputs, through_net = net.vjp(halves[1 - i], context)
            params = self._map_parameters(i, outputs)
            value, bend = self.univariate.derivatives(halves[i], params)
            (halves[i], log_det), through_map = self.univariate.vjp(halves[i], params)
            # The score before the map is what its pullback makes of the score after it, with 1 for
            # the log-determinant.
            scores[i] = (scores[i] - bend[0]) / value[0]
            g_params = torch.addcmul(bend[1], value[1], scores[i].unsqueeze(-2))
            g_given, _ = through_net(g_params.flatten(-3, -2), to_parameters=False)
            scores[1 - i] = scores[1 - i] - g_given
            log_dets.append(log_det)
            pullbacks.append((through_map, through_net))
        mapped = self._joined(halves), sum(log_dets)
        return mapped, self._joined(scores), self._pullback(pullbacks)

    def _pullback(self, pullbacks):
        """Return the pullback of both halves, from the pullbacks of their maps and networks."""

        def pullback(g, g_log_det, to_x=True):
            g_halves = self._halves(g)
            gradients: list[Tensor] = []
            for i in reversed(range(len(self.nets))):
                through_map, through_net = pullbacks[i]
                g_halves[i], g_params = through_map(g_halves[i], g_log_det)
                g_given, of_net = through_net(g_params.flatten(-3, -2), to_x or i > 0)
                gradients = of_net + gradients
                if g_given is not None:
                    g_halves[1 - i] = g_halves[1 - i] + g_given
            return self._joined(g_halves) if to_x else None, gradients

        return pullback

    def _halves(self, x):
        return list(x.mT.contiguous().split_with_sizes(self.sizes, -2))

    def _joined(self, halves):
        return torch.cat(halves, -2).mT

    def _map_parameters(self, i, outputs):
        return outputs.unflatten(-2, (self.sizes[i], self.univariate.n_params))
