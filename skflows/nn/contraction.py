"""Networks with a Lipschitz constant below 1, and the Jacobians of their rows."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .activations import ACTIVATIONS
from .linear import ColumnLinear, affine

LIPSCHITZ = 0.97  # largest constant of a network
POWERS = 4, 8  # of a Gram matrix, one after the other


def log_norm_bound(weight):
    """Return the log of an upper bound of the spectral norm of matrices.

    Power iteration by squaring: with the Gram matrix ``A`` and ``m = 33``, the bound of the squared
    norm is ``trace(A^m)^(1/m)``. It is at most ``n^(1/66)`` times the norm, where n is the smaller
    side of the matrix. Unlike the iteration of a vector it has no state, never falls short of the
    norm, and its gradient is exact and costs one product.
    """
    is_wide = weight.shape[-1] > weight.shape[-2]
    gram = weight @ weight.mT if is_wide else weight.mT @ weight
    tiny = torch.finfo(weight.dtype).tiny
    with torch.no_grad():
        power, log_scale = gram, gram.new_zeros(())
        for n in POWERS:  # in two steps, because the power of a large matrix would vanish
            size = torch.linalg.vector_norm(power, dim=(-2, -1), keepdim=True) + tiny
            power = torch.linalg.matrix_power(power / size, n)
            log_scale = n * (log_scale + size.log())
        log_scale = log_scale[..., 0, 0]
    log_trace = ((power * gram).sum((-2, -1)) + tiny).log()
    # Its gradient is correct, with the power held constant, and its value is corrected.
    value = (log_scale + log_trace) / (math.prod(POWERS) + 1)
    return (log_trace + (value - log_trace).detach()) / 2


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
        log_scale = (math.log(LIPSCHITZ) - log_bound).clamp(max=0)
        weights[-1] = weights[-1] * log_scale.exp()[..., None, None]
        shifts = [layer.bias for layer in layers]
        if self.context is not None:
            of_context = self.context(context.mT).split(self.sizes, -2)
            shifts[:-1] = [a + b for a, b in zip(shifts, of_context, strict=False)]
        lipschitz = (log_bound + log_scale).exp()
        return Contraction(weights, shifts, self.activation, lipschitz)


@dataclass
class Contraction:
    """A contractive map g of columns, ``(d, n) -> (d, n)``, with the weights that it is made of.

    Its Jacobian G at a column is given by the slopes of the hidden units there.
    """

    weights: list[Tensor]
    shifts: list[Tensor]
    activation: str
    lipschitz: Tensor  # a bound, of shape () or (M,)

    @property
    def through_units(self):
        """Whether determinants are of matrices between hidden units, which are fewer."""
        return len(self.weights) == 2 and self.weights[0].shape[-2] < self.weights[0].shape[-1]

    def __call__(self, x):
        """Return the values at columns, and the slopes of the hidden units."""
        activation = ACTIVATIONS[self.activation]
        slopes = []
        *hidden, last = zip(self.shifts, self.weights, strict=True)
        for shift, weight in hidden:
            x = weight @ x + shift
            value = activation.function(x)
            slopes.append(activation.derivative(x, value))
            x = value
        return affine(*last, x), slopes

    def log_det(self, slopes):
        """Return ``log det (I + G)`` of each column, exactly."""
        return torch.linalg.slogdet(self._matrix(slopes)).logabsdet

    def divide(self, slopes, rows):
        """Return ``(I + G)^-1`` times rows ``(n, d)``, with the matrix held constant."""
        matrix = self._matrix(slopes).detach()
        if not self.through_units:
            return torch.linalg.solve(matrix, rows.unsqueeze(-1)).squeeze(-1)
        first, last = (weight.detach() for weight in self.weights)
        moved = slopes[0].detach() * (first @ rows.mT)
        return rows - (last @ torch.linalg.solve(matrix, moved.mT.unsqueeze(-1)).squeeze(-1).mT).mT

    def _matrix(self, slopes):
        """Return ``I + G``, or a smaller matrix of the same determinant: ``det(I + A B)`` is
        ``det(I + B A)``."""
        matrix = self._between_units(slopes) if self.through_units else self.jacobian(slopes)
        return matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)

    def _between_units(self, slopes):
        first, last = self.weights
        return slopes[0].mT.unsqueeze(-1) * (first @ last).unsqueeze(-3)

    def jacobian(self, slopes):
        """Return G of each column, of shape ``(n, d, d)``."""
        first, *between, last = self.weights
        if not between:  # one product for all columns
            pairs = last.unsqueeze(-2) * first.mT.unsqueeze(-3)
            return (slopes[0].mT @ pairs.flatten(-3, -2).mT).unflatten(-1, pairs.shape[-3:-1])
        return self._carry(self.weights[1:], slopes, first.unsqueeze(-1)).movedim(-1, -3)

    def jvp(self, slopes, tangents):
        """Return G times tangents of shape ``(d, k, n)``."""
        first, *others = self.weights
        return self._carry(others, slopes, _times(first, tangents))

    def vjp(self, slopes, cotangents):
        """Return the transpose of G times cotangents of shape ``(d, k, n)``."""
        *others, last = [weight.mT for weight in self.weights]
        return self._carry(others[::-1], slopes[::-1], _times(last, cotangents))

    @staticmethod
    def _carry(weights, slopes, tangents):
        for weight, slope in zip(weights, slopes, strict=True):
            tangents = _times(weight, slope.unsqueeze(-2) * tangents)
        return tangents


def _times(weight, tangents):
    return (weight @ tangents.flatten(-2)).unflatten(-1, tangents.shape[-2:])
