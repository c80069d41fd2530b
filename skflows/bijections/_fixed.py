"""Maps that are set from data once and never trained."""

import torch

from ._base import Bijection

# Rows further out than this many standard deviations score as if they stood there. It keeps
# every later product and square finite, whatever finite number a user sends.
FARTHEST = 1e15


def weighted_moments(x, weight=None):
    """Mean and standard deviation of each column, in float64 and safe from overflow.

    A column that does not vary (up to rounding) gets a standard deviation of 1, or of its
    rounding where that is more.
    """
    x = x.double()
    if weight is None:
        weight = x.new_ones(len(x))
    weight = (weight.double() / weight.sum())[:, None]
    # Squares of columns near the largest float64 would overflow: work at unit magnitude.
    magnitude = x.abs().amax(0).clamp(min=torch.finfo(x.dtype).tiny)
    unit = x / magnitude
    mean = (weight * unit).sum(0)
    std = (weight * (unit - mean) ** 2).sum(0).sqrt()
    rounding = 10 * torch.finfo(x.dtype).eps * len(x) ** 0.5 * mean.abs()
    std = torch.where(std <= rounding, (1 / magnitude).clamp(min=rounding), std)
    return mean * magnitude, std * magnitude


class Standardize(Bijection):
    """Centre and scale each column by the (weighted) mean and standard deviation of the data."""

    set_from_data = True

    def __init__(self, n_features):
        super().__init__()
        self.register_buffer("loc", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_features, dtype=torch.float64))

    def initialize(self, x, weight=None, context=None):
        loc, scale = weighted_moments(x, weight)
        self.loc.copy_(loc)
        self.scale.copy_(scale)

    def forward(self, x, context=None):
        z = ((x - self.loc) / self.scale).clamp(-FARTHEST, FARTHEST)
        return z, -self.scale.log().sum().expand(len(x))

    def inverse(self, z, context=None):
        return z * self.scale + self.loc, self.scale.log().sum().expand(len(z))
