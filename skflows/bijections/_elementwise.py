"""Elementwise maps: trained scales and shifts, and fixed maps of tails and bounds."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.vjp import Pullback
from ._base import Bijection, Mapped
from ._standardize import FARTHEST, weighted_moments
from ._univariate import bounded_log_scale, bounded_log_scale_vjp, unbounded_log_scale


class ElementwiseAffine(Bijection):
    """A trained scale and shift for each column, started at the identity."""

    def __init__(self, n_features):
        super().__init__()
        self.raw_log_scale = nn.Parameter(torch.zeros(n_features))
        self.shift = nn.Parameter(torch.zeros(n_features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        log_scale, shift = self._scale_and_shift()
        return x * log_scale.exp() + shift, log_scale.sum(-1).expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        log_scale, shift = self._scale_and_shift()
        return (z - shift) * (-log_scale).exp(), -log_scale.sum(-1).expand(z.shape[:-1])

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        log_scale, through_bound = bounded_log_scale_vjp(self.raw_log_scale)
        scale = log_scale.exp().unsqueeze(-2)
        z = torch.addcmul(self.shift.unsqueeze(-2), x, scale)

        def pullback(g, g_log_det, to_x=True):
            g_x = g * scale
            g_log_scale = (g_x * x).sum(-2) + g_log_det.sum(-1, keepdim=True)
            return g_x, [through_bound(g_log_scale), g.sum(-2)]

        return (z, log_scale.sum(-1, keepdim=True).expand(x.shape[:-1])), pullback

    def vjp_with_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Mapped, Tensor, Pullback]:
        mapped, pullback = self.vjp(x)
        log_scale, _ = self._scale_and_shift()
        return mapped, score * (-log_scale).exp(), pullback

    def _scale_and_shift(self):
        """Return both with the shape (1, d), or (M, 1, d) in a stack."""
        return bounded_log_scale(self.raw_log_scale).unsqueeze(-2), self.shift.unsqueeze(-2)


class ActNorm(ElementwiseAffine):
    """A scale and shift started so that the first data come out with mean 0 and variance 1.

    References
    ----------
    Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018.
    """

    set_from_data = True

    @torch.no_grad()
    def initialize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        mean, std = weighted_moments(x, weight)
        self.raw_log_scale.copy_(unbounded_log_scale(-std.log()))
        self.shift.copy_(-mean * bounded_log_scale(self.raw_log_scale).exp())


class Asinh(Bijection):
    """Compress the tails of standardised columns: ``scale asinh(x / scale)``.

    Values within the scale hardly move, and those beyond it are mapped to their logarithms: a
    standard normal in latent space then has the tails of a log-normal.

    Parameters
    ----------
    scale : float
        Distance from 0 at which the compression begins.
    """

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        unit = x / self.scale
        return self.scale * unit.asinh(), -unit.square().log1p().sum(-1) / 2

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        farthest = math.asinh(FARTHEST / self.scale)
        unit = (z / self.scale).clamp(-farthest, farthest)
        return self.scale * unit.sinh(), unit.cosh().log().sum(-1)


class Bounded(Bijection):
    """Map columns from within their bounds to the whole real line.

    A column with two bounds goes through a logit, one with a single bound through a logarithm,
    always increasing; the others stay as they are. The inverse never leaves the bounds.

    Rows on a bound or beyond are mapped like the nearest number inside. There the density is zero,
    hence the log-determinant ``-inf``.

    Parameters
    ----------
    bounds : sequence of (low, high) or None
        The bounds of each column; None for an open end, or for a column without any bound.

    Raises
    ------
    ValueError
        If there is no number between the bounds of a column.
    """

    low: Tensor
    high: Tensor

    def __init__(self, bounds):
        super().__init__()
        ends = [_checked_ends(column, pair) for column, pair in enumerate(bounds)]
        low, high = torch.tensor(ends, dtype=torch.float64).view(-1, 2).unbind(1)
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def _support(self):
        """Return which columns have a lower and an upper bound, and the width if both exist."""
        below, above = self.low.isfinite(), self.high.isfinite()
        width = torch.where(below & above, self.high - self.low, 1.0)
        return below, above, width

    def _inside(self, x):
        return x.clamp(self.low.nextafter(self.high), self.high.nextafter(self.low))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        below, above, width = self._support()
        outside = ((x <= self.low) | (x >= self.high)).any(1)
        x = self._inside(x)
        # Logarithms of the distances from the two bounds; 0, without a gradient, for an open end.
        rise = torch.where(below, x - self.low, 1.0).log()
        fall = torch.where(above, self.high - x, 1.0).log()
        z = torch.where(below | above, rise - fall, x)
        log_det = (width.log() - rise - fall).sum(1)
        return z, log_det.masked_fill(outside, -math.inf)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        below, above, width = self._support()
        # Beyond this, the exponential overflows.
        limit = math.log(torch.finfo(z.dtype).max)
        t = z.clamp(-limit, limit)
        # Logarithms of the distances from the two bounds, as fractions of the width if there is
        # one.
        rise = torch.where(above, F.logsigmoid(t), t)
        fall = torch.where(below, F.logsigmoid(-t), -t)
        # Measured from the nearer bound, to keep most digits.
        from_below = below & (~above | (z < 0))
        x = torch.where(from_below, self.low + width * rise.exp(), self.high - width * fall.exp())
        x = self._inside(torch.where(below | above, x, z))
        log_det = torch.where(below, rise, 0.0) + torch.where(above, fall, 0.0) + width.log()
        return x, log_det.sum(1)


def _checked_ends(column, pair):
    """Return the bounds of a column as two floats, an open end as an infinity."""
    low, high = pair or (None, None)
    low = -math.inf if low is None else float(low)
    high = math.inf if high is None else float(high)
    if not math.nextafter(low, high) < high:
        raise ValueError(
            f"bounds[{column}]={pair} leaves no number between its ends; give (low, high) with "
            "low < high, and None for an open end."
        )
    return low, high
