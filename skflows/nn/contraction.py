"""Networks with a Lipschitz constant below 1, and the Jacobians of their rows."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .activations import ACTIVATIONS
from .linear import ColumnLinear, affine

LIPSCHITZ = 0.97  # largest constant of a network
N_SQUARINGS = 6


def log_norm_bound(weight):
    """Return the log of an upper bound of the spectral norm of matrices, less than 5 % above it.

    Power iteration on the whole matrix: its Gram matrix is squared repeatedly, and the trace of the
    power bounds the largest eigenvalue from above. Unlike the iteration of a vector, it has no
    state, never falls short of the norm, and has an exact gradient.
    """
    is_wide = weight.shape[-1] > weight.shape[-2]
    power = weight @ weight.mT if is_wide else weight.mT @ weight
    tiny = torch.finfo(weight.dtype).tiny
    total = 0.0
    for i in range(N_SQUARINGS + 1):
        if i:
            power = power @ power
        trace = power.diagonal(dim1=-2, dim2=-1).sum(-1) + tiny
        power = power / trace[..., None, None]
        total = total + trace.log() / 2**i
    return total / 2


class ContractiveMLP(nn.Module):
    """A network with a Lipschitz constant below 1 in the columns; the context may do anything.

    The weights are divided by a bound of the product of their spectral norms where it exceeds the
    constant. The last layer starts at 0.

    Parameters
    ----------
    n_features : int
        Number of columns, and of outputs.
    hidden_layer_sizes : tuple of int
        Width of each hidden layer.
    n_context : int, default=0
        Size of the context, which shifts the argument of every hidden layer.
    activation : str, default="lipswish"
        A name in `skflows.nn.activations.ACTIVATIONS` with slopes between -1 and 1.
    """

    def __init__(self, n_features, hidden_layer_sizes, n_context=0, activation="lipswish"):
        super().__init__()
        sizes = [n_features, *hidden_layer_sizes]
        self.sizes = sizes[1:]
        self.activation = activation
        self.hidden = nn.ModuleList(ColumnLinear(a, b) for a, b in pairwise(sizes))
        self.output = ColumnLinear(sizes[-1], n_features, zero=True)
        self.context = ColumnLinear(n_context, sum(self.sizes)) if n_context else None

    def given(self, context=None):
        """Return the `Contraction` for contexts ``(n, n_context)``."""
        layers = [*self.hidden, self.output]
        weights = [layer.weight for layer in layers]
        log_bound = sum(log_norm_bound(weight) for weight in weights)
        log_scale = (torch.tensor(LIPSCHITZ).log().item() - log_bound).clamp(max=0)
        weights[-1] = weights[-1] * log_scale.exp()[..., None, None]
        shifts = [layer.bias for layer in layers]
        if self.context is not None:
            of_context = self.context(context.mT).split(self.sizes, -2)
            shifts[:-1] = [a + b for a, b in zip(shifts, of_context, strict=False)]
        return Contraction(weights, shifts, self.activation)


@dataclass
class Contraction:
    """A contractive map of columns, ``(d, n) -> (d, n)``, with the weights that it is made of."""

    weights: list[Tensor]
    shifts: list[Tensor]
    activation: str

    def __call__(self, x):
        """Return the values at columns."""
        return self.with_slopes(x)[0]

    def with_slopes(self, x):
        """Return the values at columns, and the slopes of the hidden units for `jacobian`."""
        activation = ACTIVATIONS[self.activation]
        slopes = []
        *hidden, last = zip(self.shifts, self.weights, strict=True)
        for shift, weight in hidden:
            x = weight @ x + shift
            value = activation.function(x)
            slopes.append(activation.derivative(x, value))
            x = value
        return affine(*last, x), slopes

    def jacobian(self, slopes):
        """Return the Jacobian of each column, of shape ``(n, d, d)``."""
        first, *between, last = self.weights
        tangents = first.unsqueeze(-1)
        for weight, slope in zip(between, slopes, strict=False):
            tangents = self._carry(weight, tangents * slope.unsqueeze(-2))
        if between:
            return self._carry(last, tangents * slopes[-1].unsqueeze(-2)).movedim(-1, -3)
        # One product for all columns.
        pairs = last.unsqueeze(-2) * first.mT.unsqueeze(-3)
        rows = slopes[0].mT @ pairs.flatten(-3, -2).mT
        return rows.unflatten(-1, pairs.shape[-3:-1])

    @staticmethod
    def _carry(weight, tangents):
        return (weight @ tangents.flatten(-2)).unflatten(-1, tangents.shape[-2:])
