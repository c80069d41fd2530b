"""Conditioner networks whose outputs depend on earlier features alone."""

from itertools import pairwise

import torch

from ._columns import GrowingColumns, GrowingProduct, add_product
from ._nn import FARTHEST_SEEN, ResidualMLP
from ._pullbacks import squash

FEATURES_AT_ONCE = 6  # whose rows share the products with what all of them see
# Of parameters, from which on a run of features has a product of its own, and how many may.
VALUES_OF_A_RUN, MOST_RUNS = 2**17, 4


def hidden_degrees(n_features, size, n_context=0):
    """Sorted degrees of a masked layer: a unit of degree m sees the first m features.

    Degree 0 is of use only with a context (or for a single feature), and is kept for that.
    """
    lowest = 0 if n_context or n_features == 1 else 1
    n_degrees = n_features - lowest
    return lowest + torch.arange(size) * n_degrees // size


class MaskedResidualMLP(ResidualMLP):
    """A residual MADE: output row ``p d + j`` depends on the features before j alone.

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
        self.n_outputs = n_features * n_params
        degrees = [hidden_degrees(n_features, size, n_context) for size in hidden_layer_sizes]
        places = torch.arange(n_features)  # of the features, in the order in which they see others
        places = places.flip(0) if reverse else places
        masks = [degrees[0][:, None] > places]
        masks += [b[:, None] >= a for a, b in pairwise(degrees)]
        masks += [(places[:, None] >= degrees[-1]).repeat(n_params, 1)]
        super().__init__(
            n_features,
            self.n_outputs,
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

    def n_runs(self, n):
        """Into how many `runs` to part the features of n rows.

        The copies of weights that it takes pay for many parameters alone, and not where autograd
        has to undo them.
        """
        if torch.is_grad_enabled():
            return 1
        return max(1, min(n * self.n_outputs // VALUES_OF_A_RUN, MOST_RUNS, self.n_features))

    def runs(self, n_runs, x, context=None):
        """The parameters of the features, a run of features at a time.

        The units that the leading features see come first. Products for a run leave out the units
        that no feature of it sees: of four runs, three eighths of the arithmetic.

        Yields
        ------
        features : slice
            The run.
        params : Tensor of shape (..., n_params, n_features of the run, n)
            Its parameters.
        """
        d = self.n_features
        h = self.last_hidden(x, context)
        bias, weight = (
            tensor.unflatten(-2, (-1, d))
            for tensor in (self.output.bias, self.output.masked_weight())
        )
        for i in range(n_runs):
            features = slice(d * i // n_runs, d * (i + 1) // n_runs)
            seen = self.bounds[-1][d - features.start if self.reverse else features.stop]
            start = bias[..., features, :].flatten(-3, -2)
            rows = weight[..., features, :seen].flatten(-3, -2)
            params = add_product(start, rows, h[..., :seen, :])
            yield features, params.unflatten(-2, (bias.shape[-3], -1))

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
        d = self.n_features
        layers = [self.input, *self.hidden, self.output]
        weights = [layer.masked_weight() for layer in layers]
        biases = [layer.bias for layer in layers]
        n_params = self.n_outputs // d
        if self.reverse:
            weights[0] = weights[0].flip(-1)
        for tensors in (weights, biases):
            # Outputs of one feature after those of another: a block of rows too.
            by_feature = tensors[-1].unflatten(-2, (n_params, d)).transpose(-3, -2)
            by_feature = by_feature.flip(-3) if self.reverse else by_feature
            tensors[-1] = by_feature.flatten(-3, -2)
        bounds = [*self.bounds, range(0, d * n_params + 1, n_params)]
        shift = None if self.context is None else self.context(context.mT)
        inputs = [GrowingColumns(size, z) for size in (d, *self.sizes)]
        *hidden, output = map(GrowingProduct, weights, biases, inputs)
        x = []
        for place in range(d):
            if place % FEATURES_AT_ONCE == 0:
                end = min(place + FEATURES_AT_ONCE, d)
                for product, bound in zip([*hidden, output], bounds, strict=True):
                    product.begin(bound[place], bound[end])
            h = None
            for k, product in enumerate(hidden):
                update = product.rows(bounds[k][place], bounds[k][place + 1])
                if k == 0 and shift is not None:
                    update = update + shift[..., bounds[k][place] : bounds[k][place + 1], :]
                residual = k > 0 and self.sizes[k] == self.sizes[k - 1]
                h = h + update if residual else update
                inputs[k + 1].append(self.activate(h))
            j = d - 1 - place if self.reverse else place
            feature = next_feature(j, output.rows(bounds[-1][place], bounds[-1][place + 1]))
            inputs[0].append(squash(feature, FARTHEST_SEEN))
            x.append(feature)
        return torch.cat(x[::-1] if self.reverse else x, -2)
