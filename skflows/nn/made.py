"""MADE: networks whose outputs for a feature depend on earlier features only."""

from itertools import pairwise

import torch

from . import incremental
from .activations import squash, squash_vjp
from .residual_mlp import FARTHEST_SEEN, ResidualMLP


def hidden_degrees(n_features, size, n_context=0):
    """Return the sorted degrees of a masked layer: a unit of degree m sees the first m features.

    Degree 0 is used with a context (or for a single feature) only.
    """
    lowest = 0 if n_context or n_features == 1 else 1
    n_degrees = n_features - lowest
    return lowest + torch.arange(size) * n_degrees // size


class ResidualMADE(ResidualMLP):
    """A residual MADE: output rows ``j n_params + p`` depend on the features before j only.

    Parameters
    ----------
    n_features : int
        Number of features.
    n_params : int
        Number of outputs for each feature.
    hidden_layer_sizes, n_context, activation, dropout
        See `ResidualMLP`.
    reverse : bool, default=False
        Whether the order of the features is reversed: outputs depend on the features after j.

    References
    ----------
    Germain, Gregor, Murray & Larochelle, "MADE", 2015; Durkan et al., "Neural Spline Flows", 2019
    (residual).
    """

    def __init__(
        self,
        n_features,
        n_params,
        hidden_layer_sizes,
        n_context=0,
        activation="relu",
        dropout=0.0,
        reverse=False,
    ):
        self.n_features = n_features
        self.n_params = n_params
        degrees = [hidden_degrees(n_features, size, n_context) for size in hidden_layer_sizes]
        positions = torch.arange(n_features)  # of the features, in their order
        positions = positions.flip(0) if reverse else positions
        masks = [degrees[0][:, None] > positions]
        masks += [b[:, None] >= a for a, b in pairwise(degrees)]
        masks += [(positions[:, None] >= degrees[-1]).repeat_interleave(n_params, 0)]
        super().__init__(
            n_features,
            n_features * n_params,
            hidden_layer_sizes,
            n_context,
            activation,
            dropout,
            masks=[mask.to(torch.get_default_dtype()) for mask in masks],
        )
        self.reverse = reverse
        # How many units of each layer see no more than the first j features in their order.
        counts = [torch.searchsorted(m, torch.arange(n_features + 1)) for m in degrees]
        self.bounds = [count.tolist() for count in counts]
        self.sizes = tuple(hidden_layer_sizes)

    def solve(self, next_feature, z, context=None):
        """Compute the features one by one, each from outputs that depend on the features before it.

        Parameters
        ----------
        next_feature : callable
            ``next_feature(j, params)`` returns feature j, of shape ``(1, n)``, from its
            ``(n_params, n)`` parameters.
        z : Tensor of shape (n_features, n)
            What the features are mapped to; gives shape, dtype and device.
        context : Tensor of shape (n, n_context), optional
            The context.

        Returns
        -------
        x : Tensor of shape (n_features, n)
        """
        x = []

        def activate(k, h):
            return self._activate(h)

        def next_input(position, params):
            x.append(next_feature(self._feature(position), params))
            return squash(x[-1], FARTHEST_SEEN)

        weights, biases, bounds = self._in_order(context)
        incremental.run(weights, biases, bounds, z, activate, next_input)
        return self._reorder(torch.cat(x, -2), -2)

    def solve_vjp(self, next_feature, z, context=None):
        """Return what `solve` does, the parameters, and a pullback.

        Gradients are computed feature by feature too, the last one first, at the cost of one dense
        pass. Autograd would keep all that each feature was computed from.

        Returns
        -------
        x : Tensor of shape (n_features, n)
        params : Tensor of shape (n_features, n_params, n)
        pullback : callable
            Takes a function, and returns the gradients in the parameters of the network. The
            function takes a feature j and the gradient in it through the features after it, of
            shape ``(1, n)``, and returns the gradient in the outputs of j, of shape ``(n_params,
            n)``.
        """
        x, params, through_squash = [], [], []
        slopes: list[list[torch.Tensor]] = [[] for _ in self.sizes]  # by layers and blocks

        def activate(k, h):
            units, through_units = self._activate_vjp(h)
            slopes[k].append(through_units(torch.ones_like(h)))
            return units

        def next_input(position, outputs):
            params.append(outputs)
            x.append(next_feature(self._feature(position), outputs))
            seen, through = squash_vjp(x[-1], FARTHEST_SEEN)
            through_squash.append(through)
            return seen

        weights, biases, bounds = self._in_order(context)
        seen, *units = incremental.run(weights, biases, bounds, z, activate, next_input)

        def pullback(next_gradient):
            def next_outputs(position, g):
                return next_gradient(self._feature(position), through_squash[position](g))

            joined = [torch.cat(of_blocks, -2) for of_blocks in slopes]
            *hidden, outputs = incremental.run_backward(weights, bounds, joined, z, next_outputs)
            layers = zip(
                [self.input, *self.hidden, self.output],
                [*hidden, self._reorder_outputs(outputs)],
                [self._reorder(seen, -2), *units],
                strict=True,
            )
            gradients = []
            for layer, g, h in layers:
                gradients += layer.gradients(g, h)
            if self.context is not None:
                gradients += self.context.gradients(hidden[0], context.mT)
            return gradients

        solution = self._reorder(torch.cat(x, -2), -2)
        return solution, self._reorder(torch.stack(params, -3), -3), pullback

    def _in_order(self, context):
        """Return weights, biases and block bounds with features in their order, for
        `incremental`."""
        layers = [self.input, *self.hidden, self.output]
        weights = [layer.effective_weight() for layer in layers]
        biases = [layer.bias for layer in layers]
        weights[0] = self._reorder(weights[0], -1)
        for tensors in (weights, biases):
            tensors[-1] = self._reorder_outputs(tensors[-1])
        if self.context is not None:
            biases[0] = biases[0] + self.context(context.mT)
        n_outputs = self.n_features * self.n_params
        return weights, biases, [*self.bounds, range(0, n_outputs + 1, self.n_params)]

    def _feature(self, position):
        return self.n_features - 1 - position if self.reverse else position

    def _reorder(self, tensor, dim):
        """Move between the order of the columns and the order of the features."""
        return tensor.flip(dim) if self.reverse else tensor

    def _reorder_outputs(self, outputs):
        if not self.reverse:
            return outputs
        return outputs.unflatten(-2, (-1, self.n_params)).flip(-3).flatten(-3, -2)
