"""Bijections of grids: rows that are flattened ``(height, width, channels)`` arrays."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.convolutional import ConvolutionalNet, DilatedNet
from ..nn.vjp import Pullback, as_leaf, by_autograd
from ._base import Bijection, Chain, Mapped
from ._conditional import FirstColumns
from ._coupling import Coupling
from ._linear import Permutation


class Squeeze(Permutation):
    """Move blocks of neighbouring pixels to channels: all pixels of a block are one position.

    Parameters
    ----------
    shape : tuple of int
        Height, width and channels of the grid.
    factors : tuple of int, default=(2, 2)
        Height and width of a block, which divide the grid's height and width.

    Attributes
    ----------
    shape : tuple of int
        Height, width and channels of the squeezed grid.

    References
    ----------
    Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", 2016.
    """

    def __init__(self, shape, factors=(2, 2)):
        (height, width, channels), (down, across) = shape, factors
        if height % down or width % across:
            raise ValueError(
                f"shape={tuple(shape)} is not divisible into blocks of factors={tuple(factors)}: "
                "choose factors that divide the height and the width."
            )
        index = torch.arange(height * width * channels)
        blocks = index.view(height // down, down, width // across, across, channels)
        order = blocks.permute(0, 2, 1, 3, 4).flatten()
        super().__init__(len(order), order)
        self.shape = height // down, width // across, down * across * channels


def split_channels(shape):
    """Return the permutation that moves the second half of the channels before the first.

    Each half is then a separate grid. An odd channel counts to the first half, as in
    `GridCoupling`.

    Parameters
    ----------
    shape : tuple of int
        Height, width and channels of the grid.
    """
    index = torch.arange(math.prod(shape)).view(shape)
    n_first = shape[-1] - shape[-1] // 2
    order = torch.cat([index[..., n_first:].flatten(), index[..., :n_first].flatten()])
    return Permutation(len(order), order)


class Pointwise(Bijection):
    """The same bijection of the channels at each position of a grid.

    With `LULinear`, it is Glow's invertible 1x1 convolution; with `ActNorm`, its normalisation of
    channels. A position may be a whole frame of a video.

    Parameters
    ----------
    bijection : Bijection
        The map of the channels. All positions have the context of their row.
    n_channels : int
        Their number; the columns of rows are a multiple of it.

    References
    ----------
    Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018.
    """

    def __init__(self, bijection, n_channels):
        super().__init__()
        self.bijection = bijection
        self.n_channels = n_channels
        self.n_context = bijection.n_context
        self.set_from_data = bijection.set_from_data

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        z, log_det = self.bijection(*self._positions(x, context))
        return self._joined(z, log_det, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        x, log_det = self.bijection.inverse(*self._positions(z, context))
        return self._joined(x, log_det, z)

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        (z, log_det), through = self.bijection.vjp(*self._positions(x, context))

        def pullback(g, g_log_det, to_x=True):
            positions, _ = self._positions(g)
            shares = g_log_det.repeat_interleave(positions.shape[-2] // g.shape[-2], -1)
            g, gradients = through(positions, shares, to_x=to_x)
            return g.reshape(x.shape) if to_x else None, gradients

        return self._joined(z, log_det, x), pullback

    def is_sequential(self, inverse: bool = False) -> bool:
        return self.bijection.is_sequential(inverse)

    def initialize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        positions, context = self._positions(x, context)
        if weight is not None:
            weight = weight.repeat_interleave(len(positions) // len(x))
        self.bijection.initialize(positions, weight, context)

    def _positions(self, x, context=None):
        """Return the channels at all positions of all rows as separate rows, and contexts."""
        if x.shape[-1] % self.n_channels:
            raise ValueError(
                f"Rows have {x.shape[-1]} columns, which n_channels={self.n_channels} does not "
                "divide: give n_channels columns for each position."
            )
        positions = x.unflatten(-1, (-1, self.n_channels)).flatten(-3, -2)
        if context is None or not self.n_context:
            return positions, None
        with torch.inference_mode(False):  # autograd refuses tensors of inference mode
            return positions, context.repeat_interleave(x.shape[-1] // self.n_channels, -2)

    def _joined(self, z, log_det, x):
        n_positions = x.shape[-1] // self.n_channels
        return z.reshape(x.shape), log_det.reshape(*x.shape[:-1], n_positions).sum(-1)


class GridCoupling(Coupling):
    """Map half of the channels given the other half and, by default, the other given the result.

    Mapped one way with `Affine`, a half has a normal prior whose mean and scale are functions of
    the other: the learned prior of a multi-scale architecture.

    Parameters
    ----------
    shape : tuple of int
        Height, width and channels of the grid.
    univariate : Shift, Affine or RationalQuadraticSpline
        The elementwise map.
    hidden_layer_sizes : tuple of int
        Channels of the hidden layers of the convolutional networks.
    both : bool, default=True
        Whether the second half is mapped too.
    **network
        ``n_context``, ``activation`` and ``dropout`` of the networks.

    References
    ----------
    Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", 2016.
    """

    # The pullback of a convolutional network may be called only once.
    vjp_with_score = Bijection.vjp_with_score

    def __init__(self, shape, univariate, hidden_layer_sizes, both=True, **network):
        nn.Module.__init__(self)
        height, width, n_channels = shape
        self.n_channels = halves = [n_channels - n_channels // 2, n_channels // 2]
        self.n_positions = height * width
        self.sizes = [self.n_positions * half for half in halves]
        self.univariate = univariate
        self.n_context = network.get("n_context", 0)
        self.nets = nn.ModuleList(
            ConvolutionalNet(
                (height, width, given), half * univariate.n_params, hidden_layer_sizes, **network
            )
            for half, given in list(zip(halves, halves[::-1], strict=True))[: 1 + both]
            if half
        )

    def _halves(self, x):
        positions = x.mT.unflatten(-2, (self.n_positions, -1))
        halves = positions.split_with_sizes(self.n_channels, -2)
        return [half.flatten(-3, -2).contiguous() for half in halves]

    def _joined(self, halves):
        shapes = [(self.n_positions, n) for n in self.n_channels]
        parts = [half.unflatten(-2, shape) for half, shape in zip(halves, shapes, strict=True)]
        return torch.cat(parts, -2).flatten(-3, -2).mT


class FrameAutoregressive(Bijection):
    """``z_t = f(x_t; features(x_{t-k}, ..., x_{t-1}))``: map each frame given the frames before.

    All frames have the same map f, conditioned on features that a convolutional network computes
    from the k frames before. Frames are mapped together; the inverse computes one after another.
    Rows may have any number of frames.

    Parameters
    ----------
    bijection : Bijection
        The map f of the columns of a frame. The size of its context is ``height * width`` times the
        number of features. Training is fastest if it consists of `GridCoupling` and bijections
        without a context.
    shape : tuple of int
        Height, width and channels of a frame. Rows are frames, one after another.
    n_previous : int
        Number k of frames that the network sees. An indicator marks frames before the row begins.
    hidden_layer_sizes : tuple of int
        Channels of the hidden layers of the network.
    **network
        ``n_context``, ``activation`` and ``dropout`` of the network (see
        `skflows.nn.convolutional.DilatedNet`).

    References
    ----------
    Kumar et al., "VideoFlow: A Conditional Flow-Based Model for Stochastic Video Generation", 2020.
    """

    def __init__(self, bijection, shape, n_previous, hidden_layer_sizes, **network):
        super().__init__()
        height, width, n_channels = shape
        self.bijection = bijection
        self.positions = height * width, n_channels
        self.n_previous = n_previous
        self.n_context = network.get("n_context", 0)
        self.set_from_data = bijection.set_from_data
        self.features_get_gradients = _gives_gradients_to_context(bijection)
        self.net = DilatedNet(
            (height, width, n_previous * (n_channels + 1)),
            bijection.n_context // self.positions[0],
            hidden_layer_sizes,
            **network,
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        z, log_det = self.bijection(self._rows(x), self._features(x, context))
        return self._joined(z, log_det, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        previous = [torch.zeros_like(_marked(self._frames(z)[..., 0, :, :]))] * self.n_previous
        rows, log_dets = [], []
        for latent in self._frames(z).flatten(-2).unbind(-2):
            features = self._features_given(previous, context)
            x, log_det = self.bijection.inverse(latent, features)
            previous = [*previous, _marked(x.unflatten(-1, self.positions))][1:]
            rows.append(x)
            log_dets.append(log_det)
        return torch.cat(rows, -1), sum(log_dets)

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        if not self.features_get_gradients:
            return super().vjp(x, context)
        (features,), through_net = by_autograd(
            lambda x: (self._features(x, context),), x, list(self.net.parameters())
        )
        features = as_leaf(features)
        (z, log_det), through_frames = self.bijection.vjp(self._rows(x), features)

        def pullback(g, g_log_det, to_x=True):
            shares = g_log_det.repeat_interleave(z.shape[-2] // g.shape[-2], -1)
            g_frames, of_frames = through_frames(self._rows(g), shares, to_x=to_x)
            g_seen, of_net = through_net(features.grad, to_x=to_x)
            return g_frames.reshape(x.shape) + g_seen if to_x else None, of_frames + of_net

        return self._joined(z, log_det, x), pullback

    def initialize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        rows = self._rows(x)
        if weight is not None:
            weight = weight.repeat_interleave(len(rows) // len(x))
        self.bijection.initialize(rows, weight, self._features(x, context))

    def _features(self, x, context):
        """Return the features for each frame of all rows."""
        frames = self._frames(x)
        n_frames = frames.shape[-3]
        marked = F.pad(_marked(frames), (0, 0, 0, 0, self.n_previous, 0))
        previous = [
            marked[..., i : i + n_frames, :, :].flatten(-4, -3) for i in range(self.n_previous)
        ]
        if context is not None:
            context = context.repeat_interleave(n_frames, -2)
        return self._features_given(previous, context)

    def _features_given(self, previous, context):
        return self.net(torch.cat(previous, -1).flatten(-2).mT, context).mT

    def _frames(self, x):
        return x.unflatten(-1, (-1, *self.positions))

    def _rows(self, x):
        """Return the frames of all rows as separate rows."""
        return self._frames(x).flatten(-2).flatten(-3, -2)

    def _joined(self, z, log_det, x):
        n_frames = x.shape[-1] // math.prod(self.positions)
        return z.reshape(x.shape), log_det.reshape(*x.shape[:-1], n_frames).sum(-1)


def _gives_gradients_to_context(bijection):
    """Return whether the pullback of ``vjp`` adds the gradient in the context to its ``grad``."""
    if type(bijection) is Chain and not bijection.shares_parameters:
        return all(map(_gives_gradients_to_context, bijection.bijections))
    if type(bijection) is FirstColumns:
        return _gives_gradients_to_context(bijection.bijection)
    return type(bijection) is GridCoupling or not bijection.n_context


def _marked(frames):
    """Return frames with a channel of ones, which tells them from frames that do not exist."""
    return torch.cat([frames, torch.ones_like(frames[..., :1])], -1)
