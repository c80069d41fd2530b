"""Linear bijections: permutations, scales and invertible matrices."""

import math

import torch
from torch import nn

from .. import _fused
from .._columns import add_product
from ._base import Bijection
from ._fixed import weighted_moments
from ._univariate import (
    LOG_SCALE_BOUND,
    bounded_log_scale,
    bounded_log_scale_vjp,
    unbounded_log_scale,
)

MOST_FUSED = 64  # columns up to which plain loops multiply triangular matrices as fast as libraries


class Permutation(Bijection):
    """Reorder the columns; by default reverse them, so that the last one comes to lead."""

    def __init__(self, n_features, order=None):
        super().__init__()
        order = torch.arange(n_features).flip(0) if order is None else torch.as_tensor(order)
        self.register_buffer("order", order)
        self.register_buffer("restore", order.argsort())

    def forward(self, x, context=None):
        return self._reordered(x, self.order), x.new_zeros(x.shape[:-1])

    def inverse(self, z, context=None):
        return self._reordered(z, self.restore), z.new_zeros(z.shape[:-1])

    def vjp(self, x):
        def pullback(g, g_log_det, to_x=True):
            return self._reordered(g, self.restore), []

        return self.forward(x), pullback

    @staticmethod
    def _reordered(x, order):
        return x.mT.index_select(-2, order).mT


class ElementwiseAffine(Bijection):
    """A trained scale and shift for each column, started at the identity."""

    def __init__(self, n_features):
        super().__init__()
        self.raw_log_scale = nn.Parameter(torch.zeros(n_features))
        self.shift = nn.Parameter(torch.zeros(n_features))

    def forward(self, x, context=None):
        log_scale, shift = self._scale_and_shift()
        return x * log_scale.exp() + shift, log_scale.sum(-1).expand(x.shape[:-1])

    def vjp(self, x):
        log_scale, through_bound = bounded_log_scale_vjp(self.raw_log_scale)
        scale = log_scale.exp().unsqueeze(-2)
        z = torch.addcmul(self.shift.unsqueeze(-2), x, scale)

        def pullback(g, g_log_det, to_x=True):
            g_x = g * scale
            g_log_scale = (g_x * x).sum(-2) + g_log_det.sum(-1, keepdim=True)
            return g_x, [through_bound(g_log_scale), g.sum(-2)]

        return (z, log_scale.sum(-1, keepdim=True).expand(x.shape[:-1])), pullback

    def inverse(self, z, context=None):
        log_scale, shift = self._scale_and_shift()
        return (z - shift) * (-log_scale).exp(), -log_scale.sum(-1).expand(z.shape[:-1])

    def _scale_and_shift(self):
        """Of shape (1, d), or (M, 1, d) in a stack."""
        return bounded_log_scale(self.raw_log_scale).unsqueeze(-2), self.shift.unsqueeze(-2)


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
        # A matrix, not an index: members of a stack have permutations of their own.
        self.register_buffer("permutation", permutation.to(dtype) if rotation else None)
        self.register_buffer("sign", diagonal.sign().diag().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.raw_log_diagonal = nn.Parameter(unbounded_log_scale(diagonal.abs().log()).to(dtype))
        self.shift = nn.Parameter(torch.zeros(n_features))

    def forward(self, x, context=None):
        (matrix, log_diagonal), _ = self._matrix_vjp()
        z = add_product(self.shift.unsqueeze(-1), matrix, x.mT).mT
        return z, log_diagonal.sum(-1, keepdim=True).expand(x.shape[:-1])

    def vjp(self, x):
        (matrix, log_diagonal), through_matrix = self._matrix_vjp()
        z = add_product(self.shift.unsqueeze(-1), matrix, x.mT).mT

        def pullback(g, g_log_det, to_x=True):
            gradients = through_matrix(g.mT @ x, g_log_det.sum(-1, keepdim=True))
            g_x = (matrix.mT @ g.mT).mT if to_x else None
            return g_x, [*gradients, g.sum(-2)]

        return (z, log_diagonal.sum(-1, keepdim=True).expand(x.shape[:-1])), pullback

    def _matrix_vjp(self):
        """The matrix and the logarithms of U's diagonal, and their pullback to the parameters.

        It takes the gradient of the sum of the latter.
        """
        factors = self.lower, self.upper, self.raw_log_diagonal, self.sign
        d = self.lower.shape[-1]
        is_fused = d <= MOST_FUSED and _fused.serves(*factors)
        (matrix, log_diagonal), through = (_lu_fused if is_fused else _lu)(*factors)
        permutation = self.permutation

        def pullback(g_matrix, g_log_det):
            if permutation is not None:
                g_matrix = permutation.mT @ g_matrix
            return through(g_matrix, g_log_det)

        matrix = matrix if permutation is None else permutation @ matrix
        return (matrix, log_diagonal), pullback

    def inverse(self, z, context=None):
        log_diagonal = bounded_log_scale(self.raw_log_diagonal)
        log_det = log_diagonal.sum(-1, keepdim=True)
        lower, upper = _factors(self.lower, self.upper, self.sign, log_diagonal.exp())
        y = (z - self.shift.unsqueeze(-2)).mT
        if self.permutation is not None:
            y = self.permutation.mT @ y
        y = torch.linalg.solve_triangular(lower, y, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, y, upper=True)
        return x.mT, -log_det.expand(z.shape[:-1])


def _lu(lower, upper, raw_log_diagonal, sign):
    """``L U`` and the logarithms of U's diagonal, and their pullback to the parameters."""
    log_diagonal, through_bound = bounded_log_scale_vjp(raw_log_diagonal)
    diagonal = log_diagonal.exp()
    lower, upper = _factors(lower, upper, sign, diagonal)

    def pullback(g_matrix, g_log_det):
        g_upper = add_product(g_matrix, lower.mT, g_matrix)
        g_lower = (g_matrix @ upper.mT).tril(-1)
        # U has the signed exponential, its own derivative, on its diagonal, as the signs are.
        g_log_diagonal = (g_upper * sign).sum(-1) * diagonal + g_log_det
        return [g_lower, g_upper.triu(1), through_bound(g_log_diagonal)]

    return (add_product(upper, lower, upper), log_diagonal), pullback


def _factors(lower, upper, sign, diagonal):
    """L but for its unit diagonal, and U."""
    return lower.tril(-1), torch.addcmul(upper.triu(1), sign, diagonal.unsqueeze(-2))


def _lu_fused(*factors):
    """What `_lu` returns, by compiled code."""
    parts = [_fused.by_member(t, axes) for t, axes in zip(factors, (2, 2, 1, 2), strict=True)]
    factors, strides = zip(*parts, strict=True)
    *members, d, _ = factors[0].shape
    sizes, settings = (math.prod(members), d, *strides), (LOG_SCALE_BOUND,)
    matrix, log_diagonal = factors[0].new_empty(*members, d, d), factors[2].new_empty(*members, d)
    _fused.run("lu", settings, sizes, *factors, matrix, log_diagonal)

    def pullback(g_matrix, g_log_det):
        gradients = [torch.empty_like(like) for like in (matrix, matrix, log_diagonal)]
        grads = g_matrix.to(matrix).contiguous(), g_log_det.to(matrix).contiguous()
        _fused.run("lu_backward", settings, sizes, *factors, *grads, *gradients)
        return gradients

    return (matrix, log_diagonal), pullback
