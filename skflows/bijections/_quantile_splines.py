"""Splines through the quantiles of columns, with tails: increasing maps to a standard normal.

Columns have the shape ``(d, n)``.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.special import ndtr, ndtri

from .. import kernels
from . import _rational_quadratic as rq
from ._normal import normal_log_density
from ._standardize import FARTHEST, weighted_moments
from ._tails import ALL_TAILS, Exceedances

ALL_KINDS = tuple(range(len(ALL_TAILS)))  # a range could not be traced by PyTorch 2.4
ROWS_BEYOND = 20  # beyond each outermost knot
SHARE_BEYOND = (0.005, 0.15)  # least and largest share of these rows among all
MIN_WIDTH = 1e-6  # of a bin, relative to the scale of the column and to its distance


class QuantileSplines(NamedTuple):
    """Increasing maps of columns: a spline between the outermost knots, and a tail on each side.

    Columns with fewer bins than others repeat their last knot.
    """

    knots: Tensor  # (3, d, n_bins + 1): x, z and slope
    tail: Tensor  # (2, d), index in ALL_TAILS of the lower and the upper tail
    scale: Tensor  # (2, d), of the tails
    shape: Tensor  # (2, d)

    def padded(self, n_knots):
        """Return the same maps with more knots, the last one repeated."""
        last = self.knots[:, :, -1:].expand(-1, -1, n_knots - self.knots.shape[2])
        return self._replace(knots=torch.cat([self.knots, last], 2))

    def where(self, columns, other):
        """Return these maps for the chosen columns, and others with as many knots for the rest."""
        return QuantileSplines(
            torch.where(columns[:, None], self.knots, other.knots),
            *(torch.where(columns, a, b) for a, b in zip(self[1:], other[1:], strict=True)),
        )

    def _bin(self, value, along):
        """Return both ends (x, z, slope) of the bin that holds each value, an x or z."""
        ends = self.knots[along, :, 1:].contiguous()
        if kernels.is_traced():  # the same, with operations that all exporters know
            index = (ends[:, None] < value[..., None]).sum(-1)
        else:
            index = torch.searchsorted(ends, value.contiguous())
        index = index.clamp(max=ends.shape[1] - 1)
        index = index.expand(3, -1, -1)
        return self.knots.gather(2, index), self.knots.gather(2, index + 1)

    def _beyond(self, value, along):
        """Yield the elements beyond the outermost knots, grouped by the kind of tail."""
        below = value < self.knots[along, :, :1]
        above = value > self.knots[along, :, -1:]
        column, row = (below | above).nonzero(as_tuple=True)
        side = above[column, row].long()
        kind = self.tail[side, column]
        for k in kind.unique().tolist():
            chosen = kind == k
            c, s = column[chosen], side[chosen]
            sign = 2 * s - 1
            x, z, _ = self.knots[:, c, -s]
            parameters = sign * z, self.scale[s, c], self.shape[s, c]
            yield ALL_TAILS[k], (c, row[chosen]), sign, x, parameters

    def _beyond_by_mask(self, value, along, kinds):
        """Yield what `_beyond` does as masks over all elements, for kinds of tails and both sides.

        It takes several times as long, but the values don't decide what is computed.
        """
        for s, sign in enumerate((-1, 1)):
            x, z, _ = self.knots[:, :, -s, None]
            beyond = sign * value > sign * self.knots[along, :, -s, None]
            parameters = sign * z, self.scale[s, :, None], self.shape[s, :, None]
            for k in kinds:
                yield ALL_TAILS[k], beyond & (self.tail[s] == k)[:, None], sign, x, parameters

    def forward(self, x, kinds=ALL_KINDS):
        low, high = self.knots[0, :, :1], self.knots[0, :, -1:]
        inside = x.maximum(low).minimum(high)
        (x0, z0, d0), (x1, z1, d1) = self._bin(inside, along=0)
        slope = (z1 - z0) / (x1 - x0)
        t = (inside - x0) / (x1 - x0)
        at = rq.terms(t, slope, d0, d1)
        z = z0 + (z1 - z0) * rq.rise(t, at)
        log_slope = rq.derivative(slope, at).log()
        if kernels.is_traced():
            for tail, where, sign, corner, parameters in self._beyond_by_mask(x, 0, kinds):
                # Twice, because a gradient must not see the infinities of other elements.
                excess = torch.where(where, sign * (x - corner), 0.0)
                score, log_slope_there = tail.forward(excess, *parameters)
                z = torch.where(where, sign * score, z)
                log_slope = torch.where(where, log_slope_there, log_slope)
            return z, log_slope
        for tail, where, sign, corner, parameters in self._beyond(x, along=0):
            score, log_slope_there = tail.forward(sign * (x[where] - corner), *parameters)
            z = z.index_put(where, sign * score)
            log_slope = log_slope.index_put(where, log_slope_there)
        return z, log_slope

    def inverse(self, z, kinds=ALL_KINDS):
        low, high = self.knots[1, :, :1], self.knots[1, :, -1:]
        inside = z.maximum(low).minimum(high)
        (x0, z0, d0), (x1, z1, d1) = self._bin(inside, along=1)
        t, log_slope = rq.invert(inside - z0, x1 - x0, z1 - z0, d0, d1)
        x, log_slope = x0 + (x1 - x0) * t, -log_slope
        if kernels.is_traced():
            for tail, where, sign, corner, parameters in self._beyond_by_mask(z, 1, kinds):
                score = torch.where(where, sign * z, parameters[0])
                excess = tail.inverse(score, *parameters).clamp(max=FARTHEST)
                x = torch.where(where, corner + sign * excess, x)
                log_slope_there = -tail.forward(excess, *parameters)[1]
                log_slope = torch.where(where, log_slope_there, log_slope)
            return x, log_slope
        for tail, where, sign, corner, parameters in self._beyond(z, along=1):
            # The quantiles of far scores exceed any float.
            excess = tail.inverse(sign * z[where], *parameters).clamp(max=FARTHEST)
            x = x.index_put(where, corner + sign * excess)
            log_slope = log_slope.index_put(where, -tail.forward(excess, *parameters)[1])
        return x, log_slope

    def log_prob(self, x):
        z, log_slope = self.forward(x)
        return normal_log_density(z) + log_slope


class SortedSample:
    """Columns ``(d, n)``, sorted for quantiles, with weights ``(n,)`` or ``(d, n)``."""

    def __init__(self, columns, weight):
        share = weight / weight.sum(-1, keepdim=True)
        self.n_rows = 1 / share.square().sum(-1)  # effective sample size
        self.mean, self.std = (moment[:, None] for moment in weighted_moments(columns.T, share.t()))
        self.columns, order = columns.contiguous().sort(1)
        self.share = share.expand_as(columns).gather(1, order)
        # Equal values share the middle of their probabilities, so that weights count as
        # repetitions.
        total = pad(self.share.cumsum(1), (1, 0))
        first = torch.searchsorted(self.columns, self.columns)
        after = torch.searchsorted(self.columns, self.columns, right=True)
        self.level = (total.gather(1, first) + total.gather(1, after)) / 2

    def quantile(self, level):
        """Return the quantiles ``(d, k)`` at probabilities ``(k,)`` or ``(d, k)``.

        They are interpolated linearly between distinct values, and extrapolated beyond.
        """
        levels = self.level
        level = level.expand(len(levels), -1).contiguous()
        second = torch.searchsorted(levels, levels[:, :1].contiguous(), right=True)
        last = torch.searchsorted(levels, levels[:, -1:].contiguous())
        upper = torch.searchsorted(levels, level).maximum(second).minimum(last)
        lower = (upper - 1).clamp(min=0)
        level0, level1 = levels.gather(1, lower), levels.gather(1, upper)
        x0, x1 = self.columns.gather(1, lower), self.columns.gather(1, upper)
        fraction = torch.where(level1 > level0, (level - level0) / (level1 - level0), 0.0)
        return x0 + fraction * (x1 - x0)

    def scores(self, n_bins):
        """Return the normal scores ``(d, n_bins + 1)`` of the knots."""
        edge = -ndtri((ROWS_BEYOND / self.n_rows).clamp(*SHARE_BEYOND))
        z = edge[..., None] * torch.linspace(-1, 1, n_bins + 1).to(self.columns)
        return z.expand(len(self.columns), -1)

    def fit_affine(self):
        """Return affine maps, by mean and standard deviation."""
        z = self.scores(1)
        knots = torch.stack([self.mean + self.std * z, z, (1 / self.std).expand_as(z)])
        scale = self.std.T.expand(2, -1)
        return QuantileSplines(knots, torch.zeros_like(scale, dtype=torch.long), scale, 0 * scale)

    def fit(self, n_bins, tail):
        """Return maps with so many bins and with tails ``(2, d)``."""
        if n_bins == 0:
            return self.fit_affine()
        z = self.scores(n_bins)
        constant = self.columns[:, :1] == self.columns[:, -1:]
        x = apart(torch.where(constant, self.mean + self.std * z, self.quantile(ndtr(z))))
        slope = z.diff() / x.diff()
        # Harmonic means are central differences of x by z, whose knots are equidistant.
        inner = 2 / (1 / slope[:, :-1] + 1 / slope[:, 1:])
        mirrored = -self.columns.flip(1), self.share.flip(1)
        sides = [
            fit_tails(*mirrored, -x[:, 0], slope[:, 0], z[:, -1], tail[0]),
            fit_tails(self.columns, self.share, x[:, -1], slope[:, -1], z[:, -1], tail[1]),
        ]
        (low, high), scale, shape = (torch.stack(pair) for pair in zip(*sides, strict=True))
        slopes = torch.cat([low[:, None], inner, high[:, None]], 1)
        return QuantileSplines(torch.stack([x, z, slopes]), tail, scale, shape)


def fit_tails(columns, share, knot, slope, edge, kind):
    """Return the slope at the upper knot of sorted columns, and scale and shape of the tail: (3,
    d)."""
    excess = (columns - knot[:, None]).clamp(min=0)
    share = share * (excess > 0)
    beyond = slice(columns.shape[1] - int((excess > 0).sum(1).max()), None)
    distance = knot.clamp(min=MIN_WIDTH)
    outside = Exceedances(edge, distance, slope, excess[:, beyond], share[:, beyond])
    fitted = knot.new_empty(3, len(knot))
    for k in kind.unique().tolist():
        chosen = kind == k
        scale, shape = ALL_TAILS[k].fit(outside.select(chosen))
        _, log_slope = ALL_TAILS[k].forward(torch.zeros_like(scale), edge[chosen], scale, shape)
        fitted[:, chosen] = torch.stack([log_slope.exp(), scale, shape])
    return fitted


def apart(knots):
    """Return knots that increase strictly, moved outwards from the middle one where necessary."""
    size = knots.abs()
    least = MIN_WIDTH * (1 + size[:, 1:] + size[:, :-1])
    width = knots.diff().maximum(least)
    middle = width.shape[1] // 2
    start = knots[:, middle : middle + 1]
    above = start + width[:, middle:].cumsum(1)
    below = start - width[:, :middle].flip(1).cumsum(1).flip(1)
    return torch.cat([below, start, above], 1)
