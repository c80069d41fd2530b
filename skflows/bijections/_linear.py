"""Linear bijections: permutations, rotations and invertible matrices."""

import torch
from torch import Tensor, nn

from ..nn.linear import affine
from ..nn.vjp import Pullback
from ._base import Bijection, Mapped
from ._univariate import bounded_log_scale, bounded_log_scale_vjp, unbounded_log_scale


class Permutation(Bijection):
    """Reorder the columns; by default reverse them."""

    def __init__(self, n_features, order=None):
        super().__init__()
        order = torch.arange(n_features).flip(0) if order is None else torch.as_tensor(order)
        self.register_buffer("order", order)
        self.register_buffer("restore", order.argsort())

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return _reorder(x, self.order), x.new_zeros(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return _reorder(z, self.restore), z.new_zeros(z.shape[:-1])

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        def pullback(g, g_log_det, to_x=True):
            return _reorder(g, self.restore), []

        return self.forward(x), pullback

    def vjp_with_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Mapped, Tensor, Pullback]:
        mapped, pullback = self.vjp(x)
        return mapped, _reorder(score, self.order), pullback


def _reorder(x, order):
    return x.mT.index_select(-2, order).mT


class Rotation(Bijection):
    """A fixed orthogonal matrix, which leaves distances and volumes as they are.

    Parameters
    ----------
    matrix : Tensor of shape (d, d)
        The matrix ``R`` of ``z = R x``.
    """

    matrix: Tensor

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return x @ self.matrix.T, x.new_zeros(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return z @ self.matrix, z.new_zeros(z.shape[:-1])


class LULinear(Bijection):
    """An invertible matrix ``P L U`` with a shift: Glow's 1x1 convolution for tables.

    ``L`` has a unit diagonal and ``U`` a bounded one, so that the matrix stays invertible while it
    trains. Its log-determinant is a sum and its inverse takes two triangular solves.

    Parameters
    ----------
    n_features : int
        Number of columns.
    rotation : bool, default=False
        Start at a random rotation, as Glow does, instead of the identity.

    References
    ----------
    Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018.
    """

    permutation: Tensor | None
    sign: Tensor

    def __init__(self, n_features, rotation=False):
        super().__init__()
        matrix = torch.eye(n_features, dtype=torch.float64)
        if rotation:
            matrix, _ = torch.linalg.qr(torch.randn_like(matrix))
        permutation, lower, upper = torch.linalg.lu(matrix)
        diagonal = upper.diagonal()
        dtype = torch.get_default_dtype()
        # A matrix, not an index: members of a stack have different permutations.
        self.register_buffer("permutation", permutation.to(dtype) if rotation else None)
        self.register_buffer("sign", diagonal.sign().diag().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.raw_log_diagonal = nn.Parameter(unbounded_log_scale(diagonal.abs().log()).to(dtype))
        self.shift = nn.Parameter(torch.zeros(n_features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        log_diagonal = bounded_log_scale(self.raw_log_diagonal)
        matrix = self._permute(_product(*self._factors(log_diagonal.exp())))
        z = affine(self.shift.unsqueeze(-1), matrix, x.mT).mT
        return z, log_diagonal.sum(-1, keepdim=True).expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        log_diagonal = bounded_log_scale(self.raw_log_diagonal)
        lower, upper = self._factors(log_diagonal.exp())
        y = (z - self.shift.unsqueeze(-2)).mT
        if self.permutation is not None:
            y = self.permutation.mT @ y
        y = torch.linalg.solve_triangular(lower, y, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, y, upper=True)
        return x.mT, -log_diagonal.sum(-1, keepdim=True).expand(z.shape[:-1])

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        log_diagonal, through_bound = bounded_log_scale_vjp(self.raw_log_diagonal)
        diagonal = log_diagonal.exp()
        lower, upper = self._factors(diagonal)
        permutation, sign = self.permutation, self.sign
        matrix = self._permute(_product(lower, upper))

        def pullback(g, g_log_det, to_x=True):
            g_matrix = g.mT @ x
            if permutation is not None:
                g_matrix = permutation.mT @ g_matrix
            g_upper = affine(g_matrix, lower.mT, g_matrix)
            g_lower = (g_matrix @ upper.mT).tril(-1)
            # U has the signs times the exponential, which is its own derivative, on its diagonal.
            g_log_diagonal = (g_upper * sign).sum(-1) * diagonal
            g_log_diagonal = g_log_diagonal + g_log_det.sum(-1, keepdim=True)
            gradients = [g_lower, g_upper.triu(1), through_bound(g_log_diagonal), g.sum(-2)]
            return (matrix.mT @ g.mT).mT if to_x else None, gradients

        z = affine(self.shift.unsqueeze(-1), matrix, x.mT).mT
        return (z, log_diagonal.sum(-1, keepdim=True).expand(x.shape[:-1])), pullback

    def vjp_with_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Mapped, Tensor, Pullback]:
        mapped, pullback = self.vjp(x)
        # The log-determinant is constant: the score takes the inverse of the transposed matrix.
        lower, upper = self._factors(bounded_log_scale(self.raw_log_diagonal).exp())
        score = torch.linalg.solve_triangular(upper.mT, score.mT, upper=False)
        score = torch.linalg.solve_triangular(lower.mT, score, upper=True, unitriangular=True)
        return mapped, self._permute(score).mT, pullback

    def _factors(self, diagonal):
        """Return L without its unit diagonal, and U."""
        upper = torch.addcmul(self.upper.triu(1), self.sign, diagonal.unsqueeze(-2))
        return self.lower.tril(-1), upper

    def _permute(self, matrix):
        return matrix if self.permutation is None else self.permutation @ matrix


def _product(lower, upper):
    """Return ``L U``, with L given without its unit diagonal."""
    return affine(upper, lower, upper)
