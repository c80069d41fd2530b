"""Invertible residual blocks."""

import math

import torch
from torch import Tensor

from .. import kernels
from ..nn.contraction import LIPSCHITZ, ContractiveMLP
from ..nn.random_draws import sign_draws, uniform_draws
from ._base import Bijection, Mapped

EXACT_SIZE = 128  # of the determinants that are computed exactly
EXACT_SIZE_IN_TRAINING = 32
NEWTON_STEPS = 50  # of which most rows take five
FIXED_POINT_STEPS = 1000  # in which the largest Lipschitz constant leaves rounding errors
REMAINDER = 1e-4  # nats that the terms which a series leaves out may have
N_CERTAIN = 8  # terms of the series in training that are never left out
CONTINUE = 0.75  # probability of each later term, given the one before it


class Residual(Bijection):
    """``z = x + g(x)``, where the network g has a Lipschitz constant below 1.

    The inverse solves for x up to rounding errors, by Newton's method where determinants are exact,
    and by the fixed point ``x = z - g(x)`` otherwise. The distance from the solution is at most
    ``|z - x - g(x)| / (1 - L)``, where ``L`` is the Lipschitz constant, at most .97.

    The log-determinant is exact, or a power series with Hutchinson's estimate of the traces. In
    training, the number of terms is random and the terms are weighted such that the estimate is
    unbiased (Russian roulette), and the signs are drawn anew in each call. Otherwise the signs are
    always the same, and terms are added until the rest is known to be below 1e-4 nats.

    Parameters
    ----------
    n_features : int
        Number of columns.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers of the network.
    n_context : int, default=0
        Size of the context.
    log_det : {"auto", "exact", "series"}, default="auto"
        How the log-determinant is computed. A determinant has as many rows as there are columns,
        or as there are units in a single hidden layer, if these are fewer. "auto" is exact for at
        most 128 of them, and in training for at most 32.
    n_probes : int, default=8
        Vectors of random signs for the series, except in training, where there is one.

    References
    ----------
    Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen, "Invertible Residual Networks", 2019; Chen,
    Behrmann, Duvenaud & Jacobsen, "Residual Flows for Invertible Generative Modeling", 2019.
    """

    probes: Tensor

    def __init__(self, n_features, hidden_layer_sizes, n_context=0, log_det="auto", n_probes=8):
        super().__init__()
        self.network = ContractiveMLP(n_features, hidden_layer_sizes, n_context)
        self.n_context = n_context
        sizes = [n_features, *hidden_layer_sizes]
        size = min(sizes) if len(sizes) == 2 else n_features
        self.is_exact = log_det == "exact" or (log_det == "auto" and size <= EXACT_SIZE)
        self.is_exact_in_training = log_det == "exact" or (
            log_det == "auto" and size <= EXACT_SIZE_IN_TRAINING
        )
        signs = torch.randint(2, (n_features, n_probes), dtype=torch.float32) * 2 - 1
        self.register_buffer("probes", signs)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        contraction = self.network.given(context)
        value, slopes = contraction(x.mT)
        return x + value.mT, self._log_det(contraction, slopes)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        contraction = self.network.given(context)
        with torch.no_grad():
            x = self._solve(contraction, z)
        value, slopes = contraction(x.mT)
        if self.is_exact or torch.is_grad_enabled():
            # One step of Newton's method more, which has the gradient of the solution.
            x = x + contraction.divide(slopes, z - x - value.mT)
            _, slopes = contraction(x.mT)
        return x, -self._log_det(contraction, slopes)

    def is_sequential(self, inverse: bool = False) -> bool:
        return inverse

    def _log_det(self, contraction, slopes):
        if self.is_exact_in_training if self.training else self.is_exact:
            return contraction.log_det(slopes)
        if self.training:
            return roulette(contraction, slopes)
        return truncated_series(contraction, slopes, self.probes).mean(-2)

    def _solve(self, contraction, z):
        """Return the rows that are mapped to z.

        Rows that Newton's method does not bring at least twice as near take a step of the fixed
        point, which always brings them nearer. A row is done when rounding keeps it from that.
        """

        def miss(x):
            value, slopes = contraction(x.mT)
            error = z - x - value.mT
            return error, torch.linalg.vector_norm(error, dim=-1), slopes

        x = z
        error, size, slopes = miss(x)
        least = torch.finfo(z.dtype).eps * torch.linalg.vector_norm(z, dim=-1)
        done = size <= least
        for _ in range(NEWTON_STEPS if self.is_exact else FIXED_POINT_STEPS):
            moved = x + (contraction.divide(slopes, error) if self.is_exact else error)
            new_error, new_size, new_slopes = miss(moved)
            is_slow = ~(done | (new_size <= size / 2))
            if self.is_exact and (kernels.is_traced() or is_slow.any()):
                moved = torch.where(is_slow.unsqueeze(-1), x + error, moved)
                new_error, new_size, new_slopes = miss(moved)
            done = done | ~(new_size < size)
            x = torch.where(done.unsqueeze(-1), x, moved)
            error, size, slopes = new_error, new_size, new_slopes
            done = done | (size <= least)
            if not kernels.is_traced() and done.all():
                break
        return x


def truncated_series(contraction, slopes, probes):
    """Return ``log det (I + G)`` of each column by each vector of signs, of shape (k, n)."""
    probes = probes.unsqueeze(-1).to(slopes[0].dtype)
    tangents = probes.expand(*probes.shape[:-1], slopes[0].shape[-1])
    lipschitz = contraction.lipschitz[..., None, None]
    reach = lipschitz / (1 - lipschitz) * math.sqrt(probes.shape[-3])
    total = torch.zeros_like(tangents[..., 0, :, :])
    done = torch.zeros_like(total, dtype=torch.bool)
    n_terms = math.ceil(math.log(REMAINDER * (1 - LIPSCHITZ) / probes.shape[-3], LIPSCHITZ))
    for k in range(1, n_terms + 1):
        tangents = contraction.jvp(slopes, tangents)
        term = (probes * tangents).sum(-3) * ((-1) ** (k + 1) / k)
        total = total + torch.where(done, 0.0, term)
        rest = torch.linalg.vector_norm(tangents.detach(), dim=-3) * reach.detach() / (k + 1)
        done = done | (rest <= REMAINDER)
        if not kernels.is_traced() and done.all():
            break
    return total


def roulette(contraction, slopes):
    """Return an unbiased estimate of ``log det (I + G)`` of each column, with unbiased gradients.

    The gradient is the derivative of G between a vector of signs and the same vector times the
    inverse of ``I + G``, which is a series too: no gradient passes through the terms, and the
    memory does not grow with their number.
    """
    first = contraction.weights[0]
    *members, _, n = slopes[0].shape
    signs = sign_draws(first.new_empty(*members, first.shape[-1], n)).unsqueeze(-2)
    with torch.no_grad():
        draws = uniform_draws(first.new_empty(*members, 1)).unsqueeze(-1)
        n_terms = N_CERTAIN + (torch.log1p(-draws) / math.log(CONTINUE)).floor()
        cotangents, inverse = signs, signs
        total = torch.zeros_like(signs[..., 0, :, :])
        for k in range(1, int(n_terms.max()) + 1):
            cotangents = -contraction.vjp(slopes, cotangents)
            weight = (n_terms >= k) / CONTINUE ** max(0, k - N_CERTAIN)
            total = total + weight * ((signs * cotangents).sum(-3) / -k)
            inverse = inverse + weight.unsqueeze(-1) * cotangents
        total = total.squeeze(-2)
    along = (inverse * contraction.jvp(slopes, signs)).sum((-3, -2))
    return total + along - along.detach()
