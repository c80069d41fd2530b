"""Convolutional conditioner networks, on columns that are flattened grids."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from .activations import ACTIVATIONS, squash
from .linear import ColumnLinear
from .random_draws import dropout_factors
from .residual_mlp import FARTHEST_SEEN
from .vjp import by_autograd


class Convolution(nn.Module):
    """A convolution with zero padding that keeps the size of the grid.

    A stack of M members takes feature maps of shape ``(n, M * n_in, h, w)``, as M groups.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of channels.
    size : int
        Side of the kernel, an odd number.
    dilation : int, default=1
        Distance of the positions that it sees.
    zero : bool, default=False
        Whether all parameters start at 0.
    """

    def __init__(self, n_in, n_out, size, dilation=1, zero=False):
        super().__init__()
        self.dilation = dilation
        bound = 0.0 if zero else (n_in * size**2) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_out, n_in, size, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_out).uniform_(-bound, bound))

    def forward(self, h):
        weight = self.weight.flatten(0, -4)
        groups = h.shape[1] // weight.shape[1]
        padding = self.dilation * (weight.shape[-1] // 2)
        return F.conv2d(
            h, weight, self.bias.flatten(), padding=padding, dilation=self.dilation, groups=groups
        )


class ConvolutionalNet(nn.Module):
    """A convolutional network whose last layer starts at 0, with the interface of `ResidualMLP`.

    The first layer is a 3x3 convolution, by default the last one too, and those between them are
    1x1. Beside its channels, it sees the two coordinates of each position.

    Parameters
    ----------
    shape : tuple of int
        Height, width and channels of the grid in the columns, flattened in this order.
    n_out : int
        Number of output channels.
    hidden_layer_sizes : tuple of int
        Channels of each hidden layer; a layer as wide as the one before it is residual.
    n_context : int, default=0
        Size of the context, which is added to the first hidden layer at all positions.
    context_grid : tuple of int, default=None
        Height and width of the context, if it is a grid. Each position of the first hidden layer
        then gets the mean of the part of the grid that it covers.
    output_size : int, default=3
        Side of the kernel of the last layer. If there are many outputs, it takes most of the time.
    activation : str, default="relu"
        A name in `skflows.nn.activations.ACTIVATIONS`.
    dropout : float, default=0.0
        Probability that a hidden unit is dropped in training. Members of a stack may differ in it.
    """

    member_settings = ("dropout",)

    def __init__(
        self,
        shape,
        n_out,
        hidden_layer_sizes,
        n_context=0,
        context_grid=None,
        output_size=3,
        activation="relu",
        dropout=0.0,
    ):
        super().__init__()
        self.shape = tuple(shape)
        height, width, n_in = shape
        self.positions: torch.Tensor
        sizes = list(hidden_layer_sizes)
        self.activation = activation
        self.dropout = dropout
        self.input, self.hidden, self.output = self._layers(n_in + 2, sizes, n_out, output_size)
        self.context_shape: tuple[int, ...] | None = None
        self.context: nn.Module | None = None
        if context_grid is not None:
            self.context_shape = *context_grid, n_context // math.prod(context_grid)
            self.context = Convolution(self.context_shape[-1], sizes[0], 1)
        elif n_context:
            self.context = ColumnLinear(n_context, sizes[0])
        axes = (torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in (height, width))
        self.register_buffer("positions", torch.stack(torch.meshgrid(*axes, indexing="ij"), -1))

    def _layers(self, n_in, sizes, n_out, output_size):
        """Return the first layer, the hidden layers and the last layer."""
        hidden = nn.ModuleList(Convolution(a, b, 1) for a, b in pairwise(sizes))
        output = Convolution(sizes[-1], n_out, output_size, zero=True)
        return Convolution(n_in, sizes[0], 3), hidden, output

    def forward(self, x, context=None):
        """Return the outputs of columns x, of shape (height * width * n_out, n)."""
        members = x.shape[:-2]  # one axis in a stack
        maps = _maps(squash(x, FARTHEST_SEEN), self.shape)
        positions = self.positions.to(x.dtype).expand(*members, *self.positions.shape)
        positions = positions.movedim((-3, -2), (0, 1)).expand(*maps.shape[:-1], 2)
        h = self.input(_channels_last(torch.cat([maps, positions], -1)))
        if self.context is not None:
            if self.context_shape is None:
                shift = self.context(context.mT).movedim(-1, 0).reshape(*h.shape[:2], 1, 1)
            else:
                maps = _channels_last(_maps(context.mT, self.context_shape))
                if self.context_shape[:2] != self.shape[:2]:
                    maps = F.adaptive_avg_pool2d(maps, self.shape[:2])
                shift = self.context(maps)
            h = h + shift
        for layer in self.hidden:
            update = layer(self._activate(h, members))
            h = h + update if update.shape == h.shape else update
        maps = self.output(self._activate(h, members)).movedim(1, -1).unflatten(-1, (*members, -1))
        return maps.movedim((0, 1, 2), (-1, -4, -3)).flatten(-4, -2)

    def vjp(self, x, context=None):
        """Return the outputs and their pullback (see `skflows.nn.vjp`), by autograd.

        The pullback adds the gradient of a context that requires it to its ``grad``.
        """
        inputs = list(self.parameters())
        context_needs_it = context is not None and context.requires_grad
        if context_needs_it:
            inputs.append(context)
        (outputs,), pullback = by_autograd(lambda x: (self(x, context),), x, inputs)

        def through(g, to_x=True):
            g_x, gradients = pullback(g, to_x=to_x)
            if context_needs_it:
                g_context = gradients.pop()
                context.grad = g_context if context.grad is None else context.grad + g_context
            return g_x, gradients

        return outputs, through

    def _activate(self, h, members):
        units = ACTIVATIONS[self.activation].function(h)
        if not (self.dropout and self.training):
            return units
        # The random draws of each member are contiguous.
        by_member = units.unflatten(1, (*members, -1)).flatten(-3).movedim(0, -2)
        return units * dropout_factors(by_member, self.dropout).movedim(-2, 0).reshape(h.shape)


class DilatedNet(ConvolutionalNet):
    """A convolutional network that sees far, for features at each position of a grid.

    The first and last layers are 1x1 convolutions. The hidden layers are 3x3 convolutions with
    dilations 1, 2, 4, 1, 2, 4, ...: three of them see seven positions in each direction. The last
    layer does not start at 0.

    Parameters
    ----------
    shape, n_out, hidden_layer_sizes, **network
        See `ConvolutionalNet`; a hidden layer as wide as the one before it is residual.
    """

    def _layers(self, n_in, sizes, n_out, output_size):
        hidden = nn.ModuleList(
            Convolution(a, b, 3, 2 ** (k % 3)) for k, (a, b) in enumerate(pairwise(sizes))
        )
        return Convolution(n_in, sizes[0], 1), hidden, Convolution(sizes[-1], n_out, 1)


def _maps(columns, shape):
    """Return columns (..., height * width * channels, n) as (n, height, width, ..., channels)."""
    return columns.unflatten(-2, shape).movedim((-1, -4, -3), (0, 1, 2))


def _channels_last(maps):
    """Return maps as the input of a convolution, with channels last in memory.

    Convolutions of few channels are fastest then.
    """
    return maps.flatten(3).movedim(-1, 1)
