"""Velocity fields with the exact trace of their Jacobian."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.activations import ACTIVATIONS
from ..nn.linear import ColumnLinear
from ..nn.random_draws import dropout_factors

N_FREQUENCIES = 4  # of the time features
RANGE = 5.0  # of columns in unit variance: hardly any training rows are beyond
FARTHEST_BEYOND = 1e8  # the fourth power of a larger distance would overflow in float32


class Slopes(NamedTuple):
    """The factors of a velocity's Jacobian at some columns."""

    hidden: list  # derivatives of the activations, (size, n) for each hidden layer
    drift: Tensor | None  # times the identity, (n,) or (1,)
    # The output of the network, which is multiplied by a weight, and the gradient of that weight.
    output: Tensor
    gradient: Tensor


def normal_drift(t):
    """Return the linear velocity that keeps a standard normal, and the scale of the columns at a
    time.

    Along straight paths from rows of unit variance to independent noise, the variance falls to a
    half and rises again: the best linear velocity follows it.
    """
    variance = t.square() + (1 - t).square()
    return (2 * t - 1) / variance, variance.rsqrt()


def weight_within_range(x):
    """Return the weight of the network's velocity at columns, of shape ``(1, n)``, and its
    gradient.

    The weight is 1 within `RANGE` and falls to 0 beyond. A network extrapolates linearly where it
    has seen no rows, and a velocity that grows with the distance would move rows without bound.
    """
    beyond = F.softshrink(x, RANGE).clamp(-FARTHEST_BEYOND, FARTHEST_BEYOND)
    square = beyond.square()
    # The fourth power, because a solver needs smooth derivatives.
    weight = 1 / (1 + square.square().sum(-2, keepdim=True))
    return weight, -4 * weight.square() * square * beyond


class Velocity(nn.Module):
    """A residual network of rows, time and context, with the exact trace of its Jacobian.

    Time and context shift the argument of every hidden layer. The last layer starts at 0. Far from
    all rows the network fades out, and only the drift remains.

    Parameters
    ----------
    n_features : int
        Number of columns.
    hidden_layer_sizes : tuple of int
        Width of each hidden layer; a layer as wide as the one before it is residual.
    n_context : int, default=0
        Size of the context.
    activation : str, default="silu"
        A name in `skflows.nn.activations.ACTIVATIONS`. A solver needs a smooth one.
    dropout : float, default=0.0
        Probability that `dropout_masks` drops a hidden unit. Members of a stack may differ in it.
    drift : bool, default=True
        Whether the network is added to `normal_drift`, and sees columns in its scale. It then has
        little left to learn of straight paths.
    """

    member_settings = ("dropout",)

    def __init__(
        self,
        n_features,
        hidden_layer_sizes,
        n_context=0,
        activation="silu",
        dropout=0.0,
        drift=True,
    ):
        super().__init__()
        sizes = list(hidden_layer_sizes)
        self.n_features = n_features
        self.sizes = sizes
        self.activation = activation
        self.dropout = dropout
        self.drift = drift
        self.input = ColumnLinear(n_features, sizes[0])
        self.time = ColumnLinear(2 * N_FREQUENCIES + 1 + n_context, sum(sizes))
        self.hidden = nn.ModuleList(ColumnLinear(a, b) for a, b in pairwise(sizes))
        self.output = ColumnLinear(sizes[-1], n_features, zero=True)

    def _shifts(self, t, context):
        frequencies = torch.arange(1, N_FREQUENCIES + 1, device=t.device, dtype=t.dtype)
        angles = math.pi * frequencies.unsqueeze(-1) * t.unsqueeze(-2)
        features = [t.unsqueeze(-2) - 0.5, angles.sin(), angles.cos()]
        if context is not None:
            size = *context.shape[:-1], max(t.shape[-1], context.shape[-1])
            features = [f.expand(*f.shape[:-1], size[-1]) for f in features] + [context]
        return self.time(torch.cat(features, -2)).split(self.sizes, -2)

    def dropout_masks(self, columns):
        """Return dropout factors that hold along whole trajectories; None without dropout."""
        if not (self.training and self.dropout):
            return None
        *members, _, n = columns.shape
        units = (columns.new_ones(*members, size, n) for size in self.sizes)
        return [dropout_factors(each, self.dropout) for each in units]

    def forward(self, t, x, context=None, slopes=False, masks=None):
        """Return the velocity of columns and, on request, the slopes of its hidden units.

        Parameters
        ----------
        t : Tensor of shape (n,) or (1,)
            Times.
        x : Tensor of shape (n_features, n)
            Columns.
        context : Tensor of shape (n_context, n), optional
            Context, as columns.
        slopes : bool, default=False
            Whether to return what `trace` and `jvp` need.
        masks : list of Tensor of shape (size, n), optional
            Factors on the values of each hidden layer.

        Returns
        -------
        velocity : Tensor of shape (n_features, n)
        slopes : Slopes
            Without hidden layers unless requested.
        """
        activation = ACTIVATIONS[self.activation]
        shifts = self._shifts(t, context)
        kept = []
        drift, scale = normal_drift(t) if self.drift else (None, None)
        seen = x if drift is None else x * scale.unsqueeze(-2)
        h = self.input(seen) + shifts[0]
        for i in range(len(self.sizes)):
            value = activation.function(h)
            if slopes:
                kept.append(activation.derivative(h, value))
            if masks:
                value = value * masks[i]
                if slopes:
                    kept[i] = kept[i] * masks[i]
            if i < len(self.hidden):
                update = self.hidden[i](value) + shifts[i + 1]
                h = h + update if update.shape == h.shape else update
        output = self.output(value)
        weight, gradient = weight_within_range(seen)
        velocity = weight * output
        if drift is not None:
            velocity = torch.addcmul(velocity, x, drift.unsqueeze(-2))
            weight, gradient = weight * scale.unsqueeze(-2), gradient * scale.unsqueeze(-2)
        if slopes:
            kept[-1] = kept[-1] * weight
        return velocity, Slopes(kept, drift, output, gradient)

    def trace(self, slopes):
        """Return the exact trace of the Jacobian with these slopes.

        One or two hidden layers take one product of the size of a layer: with
        ``A = input @ output``, the trace is a form of the slopes whose matrix does not depend on
        the row. More layers carry a tangent for each column along.
        """
        trace = self._trace_of_network(slopes.hidden) + (slopes.output * slopes.gradient).sum(-2)
        return trace if slopes.drift is None else trace + self.n_features * slopes.drift

    def _trace_of_network(self, slopes):
        if len(slopes) > 2:
            return self._trace_by_tangents(slopes)
        if len(slopes) == 1:
            through = (self.input.weight * self.output.weight.mT).sum(-1)
            return (through.unsqueeze(-1) * slopes[0]).sum(-2)
        loop = (self.input.weight @ self.output.weight).mT
        between = self.hidden[0].weight * loop
        if self.sizes[0] == self.sizes[1]:
            # The residual path has the slope of the last layer only.
            direct = loop.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
            return (slopes[1] * (between @ slopes[0] + direct)).sum(-2)
        return (slopes[1] * (between @ slopes[0])).sum(-2)

    def _trace_by_tangents(self, slopes):
        tangents = self.input.weight.unsqueeze(-1)  # one for each column, the same for all rows
        last = self._carry(tangents, slopes)
        return (self.output.weight.mT.unsqueeze(-1) * last).sum((-3, -2))

    def _carry(self, tangents, slopes):
        """Carry tangents ``(size, K, n)`` of the first layer's argument to the last hidden
        value."""
        for slope, layer in zip(slopes, self.hidden, strict=False):
            moved = slope.unsqueeze(-2) * tangents
            update = (layer.weight @ moved.flatten(-2)).unflatten(-1, moved.shape[-2:])
            is_residual = update.shape[-3] == moved.shape[-3]
            tangents = tangents + update if is_residual else update
        return slopes[-1].unsqueeze(-2) * tangents

    def jvp(self, slopes, tangents):
        """Return the Jacobian times tangents of shape ``(n_features, K, n)``."""
        shape = tangents.shape[-2:]
        first = (self.input.weight @ tangents.flatten(-2)).unflatten(-1, shape)
        last = self._carry(first, slopes.hidden)
        product = (self.output.weight @ last.flatten(-2)).unflatten(-1, shape)
        along = (slopes.gradient.unsqueeze(-2) * tangents).sum(-3, keepdim=True)
        product = product + slopes.output.unsqueeze(-2) * along
        if slopes.drift is None:
            return product
        return product + slopes.drift.unsqueeze(-2).unsqueeze(-2) * tangents
