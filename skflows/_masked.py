"""Conditioner networks whose outputs depend on earlier features alone."""

from itertools import pairwise

import torch

from ._columns import grow, grow_back, weight_gradient
from ._nn import FARTHEST_SEEN, ResidualMLP
from ._pullbacks import refuse_context, squash, squash_vjp


def hidden_degrees(n_features, size, n_context=0):
    """Sorted degrees of a masked layer: a unit of degree m sees the first m features.

    Degree 0 is of use only with a context (or for a single feature), and is kept for that.
    """
    lowest = 0 if n_context or n_features == 1 else 1
    n_degrees = n_features - lowest
    return lowest + torch.arange(size) * n_degrees // size


class MaskedResidualMLP(ResidualMLP):
    """A residual MADE: output rows ``j n_params + p`` depend on the features before j alone.

    In ``reverse``, on those behind it: the last one leads.

    References
    ----------
    Germain, Gregor, Murray & Larochelle, "MADE", 2015; Durkan et al., 2019 (residual).
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
        places = torch.arange(n_features)  # of the features, in the order in which they see others
        places = places.flip(0) if reverse else places
        masks = [degrees[0][:, None] > places]
        masks += [b[:, None] >= a for a, b in pairwise(degrees)]
        masks += [(places[:, None] >= degrees[-1]).repeat_interleave(n_params, 0)]
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
        """Build the features one by one, each from the outputs that those before it allow.

        Hidden units are sorted by degree, so feature j newly determines one block of each
        layer. Computing only that block makes the whole loop cost one dense pass, not d.

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
            return self.activate(h)

        def next_input(place, params):
            x.append(next_feature(self._feature(place), params))
            return squash(x[-1], FARTHEST_SEEN)

        weights, biases, bounds = self._by_place()
        if self.context is not None:
            biases[0] = biases[0] + self.context(context.mT)
        grow(weights, biases, bounds, z, activate, next_input)
        return self._turned(torch.cat(x, -2), -2)

    def solve_vjp(self, next_feature, z):
        """What `solve` returns without a context, the parameters, and a pullback.

        Gradients come feature by feature as well, the last one first, by the arithmetic of one
        dense pass. Autograd would keep all that each feature was computed from.

        Returns
        -------
        x : Tensor of shape (n_features, n)
        params : Tensor of shape (n_params, n_features, n)
        pullback : callable
            Takes a function, and returns the gradients in the weights. The function is given a
            feature j and the gradient in it by way of the features after it, of shape ``(1, n)``,
            and returns the gradient in the parameters of j, of shape ``(n_params, n)``.
        """
        refuse_context(self)
        x, params, through_squash = [], [], []
        slopes: list[list[torch.Tensor]] = [[] for _ in self.sizes]  # of activations, by blocks

        def activate(k, h):
            units, through_units = self._activate_vjp(h)
            slopes[k].append(through_units(torch.ones_like(h)))
            return units

        def next_input(place, outputs):
            params.append(outputs)
            x.append(next_feature(self._feature(place), outputs))
            seen, through = squash_vjp(x[-1], FARTHEST_SEEN)
            through_squash.append(through)
            return seen

        weights, biases, bounds = self._by_place()
        seen, *units = grow(weights, biases, bounds, z, activate, next_input)

        def pullback(next_gradient):
            def next_outputs(place, g):
                return next_gradient(self._feature(place), through_squash[place](g))

            joined = [torch.cat(own, -2) for own in slopes]
            *hidden, outputs = grow_back(weights, bounds, joined, z, next_outputs)
            own = zip(
                self._layers(),
                [*hidden, self._turned_rows(outputs)],
                [self._turned(seen, -2), *units],
                strict=True,
            )
            gradients = []
            for layer, g, h in own:
                gradients.append(layer.masked_gradient(weight_gradient(g, h)))
                gradients.append(g.sum(-1, keepdim=True))
            return gradients

        found = torch.cat(x, -2), torch.stack(params, -3).transpose(-3, -2)
        return *(self._turned(tensor, -2) for tensor in found), pullback

    def _layers(self):
        return [self.input, *self.hidden, self.output]

    def _by_place(self):
        """Weights, biases and bounds of blocks of each layer, for `grow`."""
        layers = self._layers()
        weights = [layer.masked_weight() for layer in layers]
        biases = [layer.bias for layer in layers]
        weights[0] = self._turned(weights[0], -1)
        for tensors in (weights, biases):
            tensors[-1] = self._turned_rows(tensors[-1])
        n_outputs = self.n_features * self.n_params
        return weights, biases, [*self.bounds, range(0, n_outputs + 1, self.n_params)]

    def _feature(self, place):
        return self.n_features - 1 - place if self.reverse else place

    def _turned(self, tensor, dim):
        """From the order of features to that of their places, or back."""
        return tensor.flip(dim) if self.reverse else tensor

    def _turned_rows(self, outputs):
        """The same of the features to which rows of the output belong."""
        if not self.reverse:
            return outputs
        return outputs.unflatten(-2, (-1, self.n_params)).flip(-3).flatten(-3, -2)
