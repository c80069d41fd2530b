"""Standardisation and whitening: linear maps that are set from data and never trained."""

import torch
from torch import Tensor

from ._base import Bijection, Mapped

# Rows further out than this many standard deviations score as if they were there. It keeps every
# later product and square finite, whatever finite number a user sends.
FARTHEST = 1e15
MIN_SHRINKAGE = 1e-9  # of a correlation matrix: a singular one has no Cholesky factor


def weighted_moments(x, weight=None):
    """Return the mean and standard deviation of each column, in float64 and safe from overflow.

    A column that does not vary (up to rounding) gets a standard deviation of 1, or of its rounding
    error if that is larger. Each column may have its own weights, ``(n, d)``.
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

    loc: Tensor
    scale: Tensor
    set_from_data = True

    def __init__(self, n_features):
        super().__init__()
        self.register_buffer("loc", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_features, dtype=torch.float64))

    def initialize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        loc, scale = weighted_moments(x, weight)
        self.loc.copy_(loc)
        self.scale.copy_(scale)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        z = ((x - self.loc) / self.scale).clamp(-FARTHEST, FARTHEST)
        return z, -self.scale.log().sum().expand(x.shape[:-1])

    def forward_by_column(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map each column separately, and return the logarithm of the slope of each value."""
        return Standardize.forward(self, x)[0], -self.scale.log().expand(x.shape)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return z * self.scale + self.loc, self.scale.log().sum().expand(z.shape[:-1])


class Whiten(Standardize):
    """Standardise, then remove the correlations, shrunk as by Ledoit and Wolf.

    A row ``x`` is mapped to ``L^-1 (x - loc) / scale`` with ``L L^T`` the correlation matrix of the
    data, shrunk towards the identity just enough for the number of rows. Shrinkage makes every
    direction in which the data do not vary a narrow Gaussian rather than an infinite density.

    Parameters
    ----------
    n_features : int
        Number of columns.

    References
    ----------
    Ledoit & Wolf, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004.
    """

    factor: Tensor

    def __init__(self, n_features):
        super().__init__(n_features)
        self.register_buffer("factor", torch.eye(n_features, dtype=torch.float64))

    def initialize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        super().initialize(x, weight)
        unit, _ = super().forward(x.double())
        self.factor.copy_(torch.linalg.cholesky(shrunk_correlation(unit, weight)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        unit, log_det = super().forward(x)
        z = torch.linalg.solve_triangular(self.factor, unit.T, upper=False).T
        return z, log_det - self._log_det_factor()

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        x, log_det = super().inverse(z @ self.factor.T)
        return x, log_det + self._log_det_factor()

    def _log_det_factor(self):
        return self.factor.diagonal().log().sum()


def shrunk_correlation(unit, weight=None):
    """Return the correlation matrix of standardised rows, shrunk towards the identity."""
    share = unit.new_ones(len(unit)) if weight is None else weight.double()
    share = share / share.sum()
    covariance = unit.T @ (share[:, None] * unit)
    # A repeated row is one observation of twice the weight.
    distinct, row = unit.unique(dim=0, return_inverse=True)
    one_over_n = share.new_zeros(len(distinct)).index_add(0, row, share).square().sum()
    # How far the matrix is from the identity, and how far sampling error alone would take it.
    distance = (covariance - covariance.diagonal().diag()).square().sum()
    fourth = share @ unit.square().sum(1).square()
    sampling_error = one_over_n * (fourth - covariance.square().sum())
    # Two rows, or rows on a sphere, have no such error: shrink by at least the order of 1 / n^2.
    least = one_over_n.square().clamp(MIN_SHRINKAGE, 1)
    tiny = torch.finfo(unit.dtype).tiny
    shrinkage = (sampling_error / distance.clamp(min=tiny)).clamp(least, 1)
    correlation = (1 - shrinkage) * covariance
    # A column that does not vary has no variance to shrink: it counts as a standardised one.
    correlation.diagonal().fill_(1)
    return correlation
