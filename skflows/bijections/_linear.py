"""Linear bijections: permutations, scales and invertible matrices."""

import torch
from torch import nn

from ._base import Bijection
from ._fixed import weighted_moments
from ._univariate import bounded_log_scale, unbounded_log_scale


class Permutation(Bijection):
    """Reorder the columns; by default reverse them, so that the last one comes to lead."""

    def __init__(self, n_features, order=None):
        super().__init__()
        order = torch.arange(n_features).flip(0) if order is None else torch.as_tensor(order)
        self.register_buffer("order", order)
        self.register_buffer("restore", order.argsort())

    def forward(self, x, context=None):
        return x.index_select(1, self.order), x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z.index_select(1, self.restore), z.new_zeros(len(z))


class ElementwiseAffine(Bijection):
    """A trained scale and shift for each column, started at the identity."""

    def __init__(self, n_features):
        super().__init__()
        self.raw_log_scale = nn.Parameter(torch.zeros(n_features))
        self.shift = nn.Parameter(torch.zeros(n_features))

    def forward(self, x, context=None):
        log_scale = bounded_log_scale(self.raw_log_scale)
        return x * log_scale.exp() + self.shift, log_scale.sum().expand(len(x))

    def inverse(self, z, context=None):
        log_scale = bounded_log_scale(self.raw_log_scale)
        return (z - self.shift) * (-log_scale).exp(), -log_scale.sum().expand(len(z))


class ActNorm(ElementwiseAffine):
    """A scale and shift started so that the first data come out with mean 0 and variance 1.

    References
    ----------
    Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018.
    """

    set_from_data = True

    @torch.no_grad()
    def initialize(self, x, weight=None, context=None):
        mean, std = weighted_moments(x, weight)
        self.raw_log_scale.copy_(unbounded_log_scale(-std.log()))
        self.shift.copy_(-mean * bounded_log_scale(self.raw_log_scale).exp())


class LULinear(Bijection):
    """An invertible matrix ``P L U`` with a shift: Glow's 1x1 convolution for tables.

    ``L`` has a unit diagonal and ``U`` a bounded one, so the matrix stays invertible while it
    trains, its log-determinant is a sum and its inverse two triangular solves.

    Parameters
    ----------
    n_features : int
        Number of columns.
    rotation : bool, default=False
        Start at a random rotation, as Glow does, in place of the identity.

    References
    ----------
    Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018.
    """

    def __init__(self, n_features, rotation=False):
        super().__init__()
        matrix = torch.eye(n_features, dtype=torch.float64)
        if rotation:
            matrix, _ = torch.linalg.qr(torch.randn_like(matrix))
        permutation, lower, upper = torch.linalg.lu(matrix)
        diagonal = upper.diagonal()
        dtype = torch.get_default_dtype()
        self.register_buffer("order", permutation.argmax(1))
        self.register_buffer("unit", torch.eye(n_features))
        self.register_buffer("sign", diagonal.sign().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.raw_log_diagonal = nn.Parameter(unbounded_log_scale(diagonal.abs().log()).to(dtype))
        self.shift = nn.Parameter(torch.zeros(n_features))

    def _factors(self):
        log_diagonal = bounded_log_scale(self.raw_log_diagonal)
        lower = self.lower.tril(-1) + self.unit
        upper = self.upper.triu(1) + self.unit * (self.sign * log_diagonal.exp())
        return lower, upper, log_diagonal.sum()

    def forward(self, x, context=None):
        lower, upper, log_det = self._factors()
        matrix = (lower @ upper).index_select(0, self.order)
        return torch.addmm(self.shift, x, matrix.T), log_det.expand(len(x))

    def inverse(self, z, context=None):
        lower, upper, log_det = self._factors()
        y = (z - self.shift).T[self.order.argsort()]
        y = torch.linalg.solve_triangular(lower, y, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, y, upper=True)
        return x.T, -log_det.expand(len(z))
