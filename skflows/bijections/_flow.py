"""A flow: a standard normal pulled back through a bijection."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from ._conditional import apart, innermost
from ._normal import normal_log_density


def standard_normal_log_prob(z):
    """Return the log-density of a standard normal at the rows of ``z``."""
    return normal_log_density(z).sum(-1)


class Flow(nn.Module):
    """Density of rows whose latent image is standard normal.

    Parameters
    ----------
    preprocess : Bijection
        A map that is set from data and not trained, such as standardisation. It stays in float64,
        so that columns of any scale reach the trained part without loss.
    bijection : Bijection
        The trained map.
    """

    def __init__(self, preprocess, bijection):
        super().__init__()
        self.preprocess = preprocess
        self.bijection = bijection

    def forward(self, x, context=None):
        """Return latent coordinates and ``log |dz/dx|`` of rows ``x``, of shape (n, d) and (n,)."""
        y, fixed = self.preprocess(x, context)
        z, trained = self.bijection(y, context)
        return z, fixed + trained

    def inverse(self, z, context=None):
        """Return rows and ``log |dx/dz|`` of latent coordinates."""
        y, trained = self.bijection.inverse(z, context)
        x, fixed = self.preprocess.inverse(y, context)
        return x, fixed + trained

    def is_sequential(self, inverse=False):
        """Whether a direction takes many small operations (see `Bijection.is_sequential`)."""
        return self.bijection.is_sequential(inverse)

    def log_prob(self, x, context=None):
        """Return the log-density in nats, in the units of ``x``."""
        z, log_det = self(x, context)
        return standard_normal_log_prob(z) + log_det


class ContinuousFlow(Flow):
    """Density of rows that a continuous bijection moves, with columns of noise beside them.

    The bijection has a density of rows and noise together, ``p(x, e)``. The density of the rows is
    the mean of ``p(x, e) / q(e)`` over noise from a standard normal q, here over a fixed sample of
    it: an unbiased estimate, whose logarithm is too low on average. Without noise it is exact.

    Parameters
    ----------
    preprocess, bijection : Bijection
        See `Flow`; the bijection, a `Continuous`, has the columns of noise last.
    n_augmented : int, default=0
        Number of columns of noise.
    n_importance_samples : int, default=1
        Size of the sample.
    dequantized : sequence of int, default=()
        Columns to which noise is added, and over which densities are averaged.

    References
    ----------
    Dupont, Doucet & Teh, "Augmented Neural ODEs", 2019; Huang, Dinh & Courville, "Augmented
    Normalizing Flows", 2020.
    """

    def __init__(
        self, preprocess, bijection, n_augmented=0, n_importance_samples=1, dequantized=()
    ):
        super().__init__(preprocess, bijection)
        n_draws = n_importance_samples if n_augmented else 1
        self.register_buffer("noise", torch.randn(n_draws, n_augmented, dtype=torch.float32))
        n_features = self._continuous.n_features - n_augmented
        is_key = torch.ones(n_features, dtype=torch.float64)
        is_key[list(dequantized)] = 0.0
        self.register_buffer("is_key", is_key)

    @property
    def _continuous(self):
        return innermost(self.bijection)

    @property
    def n_passes(self):
        """Number of columns that each row takes in a pass: itself, and its probes."""
        return 1 + self._continuous.n_probes

    def forward(self, x, context=None):
        """Return the latent coordinates of rows with noise 0, ``(n, d + n_augmented)``, and
        log-dets."""
        y, fixed = self.preprocess(x, context)
        bijection, y, context = apart(self.bijection, y, context)
        z, trained = bijection(F.pad(y, (0, self.noise.shape[1])), context)
        return z, fixed + trained

    def inverse(self, z, context=None):
        """Return rows, without their noise, and ``log |dx/dz|`` of rows and noise."""
        bijection, z, context = apart(self.bijection, z, context)
        y, trained = bijection.inverse(z, context)
        x, fixed = self.preprocess.inverse(y[:, : z.shape[1] - self.noise.shape[1]], context)
        return x, fixed + trained

    def log_prob(self, x, context=None):
        log_ratios, fixed, _ = self._log_ratios(x, context)
        return log_mean_exp(log_ratios.mean(0)) + fixed

    def log_prob_by_probe(self, x, context=None):
        """Return the log-density by each of Hutchinson's probes, of shape (n, n_probes)."""
        log_ratios, fixed, _ = self._log_ratios(x, context)
        return (log_mean_exp(log_ratios) + fixed).mT

    def n_evaluations(self, x, context=None):
        """Return the evaluations of the velocity for each row, averaged over the draws of noise."""
        return self._log_ratios(x, context)[2].double() / len(self.noise)

    def _log_ratios(self, x, context):
        """Return ``log p(y, e) / q(e)`` by probe, row and draw, the log-det of preprocessing, and
        counts."""
        y, fixed = self.preprocess(x, context)
        # Probes are hashed from x, not y: whitening rounds a row differently in another batch.
        # Noise is not hashed: different probes for each draw would raise the mean over the draws.
        keys = x[:, : len(self.is_key)] * self.is_key
        bijection, y, context = apart(self.bijection, y, context)
        ratios, count = [], 0
        for draw in self.noise:  # one by one, to bound the memory
            noise = draw.expand(len(y), -1)
            solution = bijection.solve(torch.cat([y, noise], 1), context, keys=keys)
            base = standard_normal_log_prob(solution.x) - standard_normal_log_prob(noise)
            ratios.append(base + solution.log_det)
            count = count + solution.n_evaluations
        return torch.stack(ratios, -1), fixed, count


def log_mean_exp(values):
    """Return the logarithm of the mean of the exponentials along the last axis."""
    return values.logsumexp(-1) - math.log(values.shape[-1])
