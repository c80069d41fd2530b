"""Convolutional networks on grids, causal over the height."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from .activations import squash
from .convolutional import Convolution, ConvolutionalNet
from .residual_mlp import FARTHEST_SEEN

SIZE = 3  # of the kernels


class CausalConvolution(Convolution):
    """A dilated 3x3 convolution that sees its own row and rows above it, to both sides.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of channels.
    dilation : int
        Distance of the rows, and of the columns, that it sees.
    """

    def __init__(self, n_in, n_out, dilation):
        super().__init__(n_in, n_out, SIZE, dilation)

    def forward(self, h):
        """Map all rows of ``(n, channels, height, width)``."""
        d = self.dilation
        return self._convolve(F.pad(h, (d, d, (SIZE - 1) * d, 0)), (d, d))

    def next_row(self, rows):
        """Return the last row of the output, from a list of the rows of the input so far."""
        d = self.dilation
        last, padding = len(rows) - 1, torch.zeros_like(rows[0])
        reach = range(last - (SIZE - 1) * d, last + 1, d)
        seen = [rows[i] if i >= 0 else padding for i in reach]
        return self._convolve(F.pad(torch.cat(seen, 2), (d, d)), (1, d))

    def _convolve(self, h, dilation):
        weight = self.weight.flatten(0, -4)
        groups = h.shape[1] // weight.shape[1]
        return F.conv2d(h, weight, self.bias.flatten(), dilation=dilation, groups=groups)


class CausalNet(ConvolutionalNet):
    """A network whose outputs at a row of a grid depend on the rows above it, at all positions.

    Layer k has a dilation of ``2 ** k``, so L layers see ``2 ** (L + 1) - 1`` rows above.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the grid of single values in the columns.
    n_out : int
        Number of output channels.
    hidden_layer_sizes : tuple of int
        Channels of each hidden layer; a layer as wide as the one before it is residual.
    n_context : int, default=0
        Size of the context.
    n_frames : int, default=1
        Number of frames that the context consists of, one after another. They are spread evenly
        over the width, with linear interpolation between them, and added to every hidden layer.
    activation, dropout
        See `ConvolutionalNet`.
    """

    def __init__(
        self,
        shape,
        n_out,
        hidden_layer_sizes,
        n_context=0,
        n_frames=1,
        activation="relu",
        dropout=0.0,
    ):
        nn.Module.__init__(self)
        self.shape = tuple(shape)
        sizes = list(hidden_layer_sizes)
        self.n_frames = n_frames
        self.activation = activation
        self.dropout = dropout
        self.input = Convolution(2, sizes[0], 1)
        self.hidden = nn.ModuleList(
            CausalConvolution(a, b, 2**k) for k, (a, b) in enumerate(pairwise([sizes[0], *sizes]))
        )
        self.output = Convolution(sizes[-1], n_out, 1, zero=True)
        n_channels = n_context // n_frames
        self.widths = [sizes[0], *sizes]
        self.frames = Convolution(n_channels, sum(self.widths), 1) if n_context else None

    @property
    def n_features(self):
        """Number of values of the grid."""
        return math.prod(self.shape)

    def forward(self, x, context=None):
        """Return the outputs of columns x, of shape (height * width * n_out, n)."""
        members = x.shape[:-2]
        seen = self._seen(x.unflatten(-2, self.shape))
        above = F.pad(seen, (0, 0, 1, -1))
        shifts = self._shifts(context)
        return self._outputs(above, shifts, members, lambda k, h: self.hidden[k](h))

    def solve(self, next_row, z, context=None):
        """Compute columns row by row, at the cost of one evaluation.

        Parameters
        ----------
        next_row : callable
            ``next_row(i, outputs)`` returns columns ``(width, n)`` of row i, from the outputs at
            this row, of shape ``(width * n_out, n)``.
        z : Tensor of shape (height * width, n)
            Gives shape, dtype and device.
        context : Tensor, optional
            The context.

        Returns
        -------
        x : Tensor of shape (height * width, n)
            The columns.
        """
        members = z.shape[:-2]
        shifts = self._shifts(context)
        history: list[list[torch.Tensor]] = [[] for _ in self.hidden]

        def convolve(k, h):
            history[k].append(h)
            return self.hidden[k].next_row(history[k])

        above = torch.zeros_like(self._seen(z.unflatten(-2, self.shape)[..., :1, :, :]))
        rows = []
        for i in range(self.shape[0]):
            rows.append(next_row(i, self._outputs(above, shifts, members, convolve)))
            above = self._seen(rows[-1].unsqueeze(-3))
        return torch.cat(rows, -2)

    def _seen(self, x):
        """Return what the network sees of columns ``(rows, width, n)``: their values, and ones.

        The ones tell values from padding.
        """
        values = squash(x, FARTHEST_SEEN).movedim((-1, -3, -2), (0, 1, 2)).unsqueeze(-1)
        # Channels last in memory, where convolutions of few channels are fastest.
        return torch.cat([values, torch.ones_like(values)], -1).flatten(3).movedim(-1, 1)

    def _shifts(self, context):
        """Return what the context adds to each hidden layer at each position of a row."""
        if self.frames is None:
            return [0.0] * len(self.widths)
        *members, _, _ = context.shape
        frames = context.unflatten(-1, (self.n_frames, -1)).movedim((-3, -2), (0, -1))
        shifts = self.frames(frames.flatten(1, -2).unsqueeze(2))
        shifts = F.interpolate(shifts.squeeze(2), self.shape[1], mode="linear").unsqueeze(2)
        by_layer = shifts.unflatten(1, (*members, -1)).split_with_sizes(self.widths, -3)
        return [shift.flatten(1, -3) for shift in by_layer]

    def _outputs(self, above, shifts, members, convolve):
        h = self.input(above) + shifts[0]
        for k in range(len(self.hidden)):
            update = convolve(k, self._activate(h, members)) + shifts[k + 1]
            h = h + update if update.shape == h.shape else update
        maps = self.output(self._activate(h, members)).movedim(1, -1).unflatten(-1, (*members, -1))
        return maps.movedim((0, 1, 2), (-1, -4, -3)).flatten(-4, -2)
