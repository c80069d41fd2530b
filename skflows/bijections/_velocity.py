"""Vector fields that know their own derivatives."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .._affine import ColumnLinear
from .._draws import dropout_factors

N_FREQUENCIES = 4  # of the time: the field may turn as often on its way
RANGE = 5.0  # of columns in unit variance, beyond which there are next to no rows to learn from
FARTHEST_BEYOND = 1e8  # beyond it: the fourth power must be finite in float32


def _silu_slope(h, activated):
    share = torch.sigmoid(h)
    return share + activated * (1 - share)


def _gelu_slope(h, activated):
    density = torch.exp(-0.5 * h * h) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(h / math.sqrt(2))) + h * density


# Derivatives of the activations, given argument and value.
SLOPES = {
    "relu": lambda h, activated: (h > 0).to(h.dtype),
    "tanh": lambda h, activated: 1 - activated * activated,
    "silu": _silu_slope,
    "gelu": _gelu_slope,
    "elu": lambda h, activated: (activated + 1).clamp(max=1),
}


class Slopes(NamedTuple):
    """What a velocity's Jacobian is made of at some columns."""

    hidden: list  # derivatives of the activations, (size, n) for each hidden layer
    drift: torch.Tensor | None  # times the identity, (n,) or (1,)
    # What a network adds whose share varies: its output, times the gradient of the share.
    output: torch.Tensor
    gradient: torch.Tensor


def normal_drift(t):
    """Velocity over place that keeps a standard normal one, and the scale of the ways at a time.

    Half-way along straight ways from rows of unit variance to independent noise, the variance
    is a half: the best linear velocity leads there and back.
    """
    variance = t.square() + (1 - t).square()
    return (2 * t - 1) / variance, variance.rsqrt()


def share_within_range(x):
    """What columns take of a network's velocity, of shape ``(1, n)``, and its gradient.

    All of it within `RANGE`, and less the farther they are beyond: a network goes on in straight
    lines where it has seen no rows, and a field that grows with the distance would throw them
    off without bounds.
    """
    beyond = F.softshrink(x, RANGE).clamp(-FARTHEST_BEYOND, FARTHEST_BEYOND)
    square = beyond.square()
    # The fourth power: a solver needs smooth derivatives.
    share = 1 / (1 + square.square().sum(-2, keepdim=True))
    return share, -4 * share.square() * square * beyond


class Velocity(nn.Module):
    """A residual network of rows, time and context, with the exact trace of its Jacobian.

    Time and context shift the argument of every hidden layer. The last layer starts at 0. Far
    from all rows the network fades out, and the drift alone is left.

    Parameters
    ----------
    n_features : int
        Number of input and output rows of the columns.
    hidden_layer_sizes : tuple of int
        Width of each hidden layer; a layer as wide as the one before it is residual.
    n_context : int, default=0
        Size of the context.
    activation : str, default="silu"
        The name of an elementwise function in `SLOPES`. A solver needs a smooth one.
    dropout : float, default=0.0
        Probability that `masks` drop a hidden unit. Members of a stack may differ in it.
    drift : bool, default=True
        Whether the network adds to `normal_drift`, and sees columns in its scale. It then has
        little left to learn of straight ways.
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

    def masks(self, columns):
        """Masks of dropout for columns, to hold all along their way; None without dropout."""
        if not (self.training and self.dropout):
            return None
        *members, _, n = columns.shape
        units = (columns.new_ones(*members, size, n) for size in self.sizes)
        return [dropout_factors(each, self.dropout)[0] for each in units]

    def forward(self, t, x, context=None, slopes=False, masks=None):
        """Velocity of columns, and the slopes of its hidden units if they are asked for.

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
            What the values of each hidden layer are multiplied by.

        Returns
        -------
        velocity : Tensor of shape (n_features, n)
        slopes : Slopes
            Without hidden layers if not asked for.
        """
        shifts = self._shifts(t, context)
        kept = []
        drift, scale = normal_drift(t) if self.drift else (None, None)
        seen = x if drift is None else x * scale.unsqueeze(-2)
        h = self.input(seen) + shifts[0]
        for i in range(len(self.sizes)):
            activated = getattr(F, self.activation)(h)
            if slopes:
                kept.append(SLOPES[self.activation](h, activated))
            if masks:
                activated = activated * masks[i]
                if slopes:
                    kept[i] = kept[i] * masks[i]
            if i < len(self.hidden):
                update = self.hidden[i](activated) + shifts[i + 1]
                h = h + update if update.shape == h.shape else update
        output = self.output(activated)
        share, gradient = share_within_range(seen)
        velocity = share * output
        if drift is not None:
            velocity = torch.addcmul(velocity, x, drift.unsqueeze(-2))
            share, gradient = share * scale.unsqueeze(-2), gradient * scale.unsqueeze(-2)
        if slopes:
            kept[-1] = kept[-1] * share
        return velocity, Slopes(kept, drift, output, gradient)

    def trace(self, slopes):
        """Exact trace of the Jacobian with these slopes.

        One or two hidden layers need no more than one product of the size of a layer: with
        ``A = input @ output``, the trace is a form of the slopes whose matrix does not depend
        on the row. More layers carry a tangent for each column along.
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
            # The residual path: its slope is that of the last layer alone.
            direct = loop.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
            return (slopes[1] * (between @ slopes[0] + direct)).sum(-2)
        return (slopes[1] * (between @ slopes[0])).sum(-2)

    def _trace_by_tangents(self, slopes):
        weight = self.input.weight
        tangents = weight.unsqueeze(-1)  # one for each column, the same in all rows
        last = self._carry(tangents, slopes)
        return (self.output.weight.mT.unsqueeze(-1) * last).sum((-3, -2))

    def _carry(self, tangents, slopes):
        """Tangents ``(size, K, n)`` of the first layer's argument, carried to the last value."""
        for slope, layer in zip(slopes, self.hidden, strict=False):
            moved = slope.unsqueeze(-2) * tangents
            update = (layer.weight @ moved.flatten(-2)).unflatten(-1, moved.shape[-2:])
            residual = update.shape[-3] == moved.shape[-3]
            tangents = tangents + update if residual else update
        return slopes[-1].unsqueeze(-2) * tangents

    def jvp(self, slopes, tangents):
        """The Jacobian times tangents of shape ``(n_features, K, n)``."""
        shape = tangents.shape[-2:]
        first = (self.input.weight @ tangents.flatten(-2)).unflatten(-1, shape)
        last = self._carry(first, slopes.hidden)
        product = (self.output.weight @ last.flatten(-2)).unflatten(-1, shape)
        along = (slopes.gradient.unsqueeze(-2) * tangents).sum(-3, keepdim=True)
        product = product + slopes.output.unsqueeze(-2) * along
        if slopes.drift is None:
            return product
        return product + slopes.drift.unsqueeze(-2).unsqueeze(-2) * tangents
