"""Invertible residual blocks."""

import torch
from torch import Tensor

from .. import kernels
from ..nn.contraction import ContractiveMLP
from ._base import Bijection, Mapped

MAX_STEPS = 100


class Residual(Bijection):
    """``z = x + g(x)``, where the network g has a Lipschitz constant below 1.

    Parameters
    ----------
    n_features : int
        Number of columns.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers of the network.
    n_context : int, default=0
        Size of the context.

    References
    ----------
    Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen, "Invertible Residual Networks", 2019; Chen,
    Behrmann, Duvenaud & Jacobsen, "Residual Flows for Invertible Generative Modeling", 2019.
    """

    def __init__(self, n_features, hidden_layer_sizes, n_context=0):
        super().__init__()
        self.network = ContractiveMLP(n_features, hidden_layer_sizes, n_context)
        self.n_features = n_features
        self.n_context = n_context

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        residual = self.network.given(context)
        value, slopes = residual.with_slopes(x.mT)
        return x + value.mT, self._log_det(residual, slopes)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        residual = self.network.given(context)
        with torch.no_grad():
            x = self._solve(residual, z)
        # One more step, which is differentiable.
        value, slopes = residual.with_slopes(x.mT)
        x = x + self._divide(residual, slopes, z - x - value.mT)
        _, slopes = residual.with_slopes(x.mT)
        return x, -self._log_det(residual, slopes)

    def is_sequential(self, inverse: bool = False) -> bool:
        return inverse

    def _jacobian(self, residual, slopes):
        jacobian = residual.jacobian(slopes)
        return jacobian + torch.eye(self.n_features, dtype=jacobian.dtype, device=jacobian.device)

    def _log_det(self, residual, slopes):
        return torch.linalg.slogdet(self._jacobian(residual, slopes)).logabsdet

    def _divide(self, residual, slopes, rows):
        """Return the inverse of the Jacobian, which is held constant, times rows."""
        jacobian = self._jacobian(residual, slopes).detach()
        return torch.linalg.solve(jacobian, rows.unsqueeze(-1)).squeeze(-1)

    def _solve(self, residual, z):
        """Return the rows that are mapped to z.

        A step of Newton's method, or of the fixed point ``x = z - g(x)`` for rows that it does not
        bring at least as much nearer.
        """

        def miss(x):
            value, slopes = residual.with_slopes(x.mT)
            error = z - x - value.mT
            return error, slopes, torch.linalg.vector_norm(error, dim=-1)

        x = z
        error, slopes, size = miss(x)
        done = torch.zeros_like(size, dtype=torch.bool)
        tolerance = torch.finfo(z.dtype).eps * torch.linalg.vector_norm(z, dim=-1)
        for _ in range(MAX_STEPS):
            moved = x + self._divide(residual, slopes, error)
            is_worse = ~(miss(moved)[2] <= size / 2)
            moved = torch.where((is_worse & ~done).unsqueeze(-1), x + error, moved)
            moved_error, moved_slopes, moved_size = miss(moved)
            done = done | ~(moved_size < size) | (size <= tolerance)
            kept = done.unsqueeze(-1)
            x = torch.where(kept, x, moved)
            error = torch.where(kept, error, moved_error)
            size = torch.where(done, size, moved_size)
            slopes = [
                torch.where(kept.mT, old, new) for old, new in zip(slopes, moved_slopes, strict=True)
            ]
            if not kernels.is_traced() and done.all():
                break
        return x
