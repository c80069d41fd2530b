"""Maps that are set from data once and never trained."""

import math

import torch
from torch.nn import functional as F

from ._base import Bijection

# Rows further out than this many standard deviations score as if they stood there. It keeps
# every later product and square finite, whatever finite number a user sends.
FARTHEST = 1e15
LEAST_SHRINKAGE = 1e-9  # of a correlation matrix: a singular one has no Cholesky factor


def weighted_moments(x, weight=None):
    """Mean and standard deviation of each column, in float64 and safe from overflow.

    A column that does not vary (up to rounding) gets a standard deviation of 1, or of its
    rounding where that is more. Columns may have weights ``(n, d)`` of their own.
    """
    x = x.double()
    if weight is None:
        weight = x.new_ones(len(x))
    weight = weight.double() / weight.sum(0)

    def average(values):
        return weight @ values if weight.ndim == 1 else (weight * values).sum(0)

    # Squares of columns near the largest float64 would overflow: work at unit magnitude.
    low, high = x.aminmax(dim=0)
    magnitude = torch.maximum(-low, high).clamp(min=torch.finfo(x.dtype).tiny)
    unit = x / magnitude  # the only copy, of what may be a large table
    mean = average(unit)
    std = average(unit.sub_(mean).square_()).sqrt()
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


class Whiten(Standardize):
    """Standardise, then take out the correlations, shrunk as Ledoit and Wolf do.

    A row ``x`` goes to ``L^-1 (x - loc) / scale`` with ``L L^T`` the correlation matrix of the
    data, pulled towards the identity just enough for the number of rows. The pull keeps every
    direction in which the data do not vary a narrow Gaussian rather than an infinite density.

    Parameters
    ----------
    n_features : int
        Number of columns.

    References
    ----------
    Ledoit & Wolf, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004.
    """

    def __init__(self, n_features):
        super().__init__(n_features)
        self.register_buffer("factor", torch.eye(n_features, dtype=torch.float64))

    def initialize(self, x, weight=None, context=None):
        super().initialize(x, weight)
        unit, _ = super().forward(x.double())
        self.factor.copy_(torch.linalg.cholesky(shrunk_correlation(unit, weight)))

    def forward(self, x, context=None):
        unit, log_det = super().forward(x)
        z = torch.linalg.solve_triangular(self.factor, unit.T, upper=False).T
        return z, log_det - self._log_det_factor()

    def inverse(self, z, context=None):
        x, log_det = super().inverse(z @ self.factor.T)
        return x, log_det + self._log_det_factor()

    def _log_det_factor(self):
        return self.factor.diagonal().log().sum()


def shrunk_correlation(unit, weight=None):
    """Correlation matrix of standardised rows, convexly combined with the identity."""
    share = unit.new_ones(len(unit)) if weight is None else weight.double()
    share = share / share.sum()
    covariance = unit.T @ (share[:, None] * unit)
    # A repeated row is one observation of twice the weight.
    distinct, row = unit.unique(dim=0, return_inverse=True)
    one_over_n = share.new_zeros(len(distinct)).index_add(0, row, share).square().sum()
    # How far the matrix is from the identity, and how far from it chance alone could take it.
    distance = (covariance - covariance.diagonal().diag()).square().sum()
    fourth = share @ unit.square().sum(1).square()
    chance = one_over_n * (fourth - covariance.square().sum())
    # Two rows, or rows on a sphere, look free of chance: a least pull, in the order of 1 / n^2.
    least = one_over_n.square().clamp(LEAST_SHRINKAGE, 1)
    shrinkage = (chance / distance.clamp(min=torch.finfo(unit.dtype).tiny)).clamp(least, 1)
    correlation = (1 - shrinkage) * covariance
    # A column that does not vary has no variance to shrink: it counts as a standardised one.
    correlation.diagonal().fill_(1)
    return correlation


class Rotation(Bijection):
    """A fixed orthogonal matrix: distances and volumes stay as they are.

    Parameters
    ----------
    matrix : Tensor of shape (d, d)
        The matrix ``R`` of ``z = R x``.
    """

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x, context=None):
        return x @ self.matrix.T, x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z @ self.matrix, z.new_zeros(len(z))


class Asinh(Bijection):
    """Compress far values of standardised columns: ``scale asinh(x / scale)``.

    It hardly moves values within the scale, and takes those beyond it to their logarithms: a
    standard normal behind it has the tails of a log-normal.

    Parameters
    ----------
    scale : float
        Distance from 0 at which the compression sets in.
    """

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x, context=None):
        unit = x / self.scale
        return self.scale * unit.asinh(), -unit.square().log1p().sum(-1) / 2

    def inverse(self, z, context=None):
        farthest = math.asinh(FARTHEST / self.scale)
        unit = (z / self.scale).clamp(-farthest, farthest)
        return self.scale * unit.sinh(), unit.cosh().log().sum(-1)


class Bounded(Bijection):
    """Take columns from within their bounds to the whole real line.

    A column with two bounds goes through a logit, one with a single bound through a logarithm,
    always increasing; the others stay as they are. The inverse never leaves the bounds.

    Rows on a bound or beyond go where the nearest number inside goes. Beyond it, the density is
    zero and the log-determinant ``-inf``.

    Parameters
    ----------
    bounds : sequence of (low, high) or None
        The bounds of each column; None for an open end, or for a column without any bound.

    Raises
    ------
    ValueError
        If there is no number between the bounds of a column.
    """

    def __init__(self, bounds):
        super().__init__()
        ends = [_checked_ends(column, pair) for column, pair in enumerate(bounds)]
        low, high = torch.tensor(ends, dtype=torch.float64).view(-1, 2).unbind(1)
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def _support(self):
        """Which columns have a lower and an upper bound, and the log-width of those with both."""
        below, above = self.low.isfinite(), self.high.isfinite()
        width = torch.where(below & above, self.high - self.low, 1.0)
        return below, above, width

    def _inside(self, x):
        return x.clamp(self.low.nextafter(self.high), self.high.nextafter(self.low))

    def forward(self, x, context=None):
        below, above, width = self._support()
        outside = ((x < self.low) | (x > self.high)).any(1)
        x = self._inside(x)
        # Logarithms of the distances from the two bounds. An unused one stays out of gradients.
        rise = torch.where(below, x - self.low, 1.0).log()
        fall = torch.where(above, self.high - x, 1.0).log()
        z = torch.where(below | above, rise - fall, x)
        log_det = (width.log() - rise - fall).sum(1)
        return z, log_det.masked_fill(outside, -math.inf)

    def inverse(self, z, context=None):
        below, above, width = self._support()
        # Further out than this the exponential overflows.
        limit = math.log(torch.finfo(z.dtype).max)
        t = z.clamp(-limit, limit)
        # Logarithms of the distances from the two bounds, as shares of the width if there is one.
        rise = torch.where(above, F.logsigmoid(t), t)
        fall = torch.where(below, F.logsigmoid(-t), -t)
        # Measured from the nearer bound, where most of the digits are.
        from_below = below & (~above | (z < 0))
        x = torch.where(from_below, self.low + width * rise.exp(), self.high - width * fall.exp())
        x = self._inside(torch.where(below | above, x, z))
        log_det = torch.where(below, rise, 0.0) + torch.where(above, fall, 0.0) + width.log()
        return x, log_det.sum(1)


def _checked_ends(column, pair):
    """The bounds of a column as two floats, an open end as an infinity."""
    low, high = pair or (None, None)
    low = -math.inf if low is None else float(low)
    high = math.inf if high is None else float(high)
    if not math.nextafter(low, high) < high:
        raise ValueError(
            f"bounds[{column}]={pair} leaves no number between its ends; give (low, high) with "
            "low < high, and None for an open end."
        )
    return low, high
