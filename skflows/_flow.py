"""A flow: a standard normal pulled back through a bijection."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Flow(nn.Module):
    """Density of rows whose latent image is standard normal.

    Parameters
    ----------
    preprocess : Bijection
        A map that is set from data and not trained (standardisation). It stays in float64,
        so that columns of any scale reach the trained part without loss.
    bijection : Bijection
        The trained map.
    """

    def __init__(self, preprocess, bijection):
        super().__init__()
        self.preprocess = preprocess
        self.bijection = bijection

    def forward(self, x, context=None):
        """Latent coordinates and ``log |dz/dx|`` of rows ``x``, of shape (n, d) and (n,)."""
        y, fixed = self.preprocess(x, context)
        z, trained = self.bijection(y, context)
        return z, fixed + trained

    def inverse(self, z, context=None):
        """Rows and ``log |dx/dz|`` of latent coordinates."""
        y, trained = self.bijection.inverse(z, context)
        x, fixed = self.preprocess.inverse(y, context)
        return x, fixed + trained

    def in_small_steps(self, inverse=False):
        """What its bijection says of that direction (see `Bijection.in_small_steps`)."""
        return self.bijection.in_small_steps(inverse)

    def log_prob(self, x, context=None):
        """Log-density in nats, in the units of ``x``."""
        z, log_det = self(x, context)
        return standard_normal_log_prob(z) + log_det


class ContinuousFlow(Flow):
    """Density of rows that a continuous bijection moves, with columns of noise beside them.

    The bijection has a density of rows and noise together, ``p(x, e)``. That of the rows is the
    mean of ``p(x, e) / q(e)`` over noise from a standard normal q, here over a fixed sample of
    it: an estimate without bias, whose logarithm is too low on average. Without noise it is
    the density itself.

    Parameters
    ----------
    preprocess, bijection : Bijection
        As of a `Flow`; the bijection, a `Continuous`, has the columns of noise last.
    n_augmented : int, default=0
        Number of columns of noise.
    n_importance_samples : int, default=1
        Size of the sample.
    drawn : sequence of int, default=()
        Columns of the rows that are drawn around a value, over which densities are averaged.

    References
    ----------
    Dupont, Doucet & Teh, "Augmented Neural ODEs", 2019; Huang, Dinh & Courville, "Augmented
    Normalizing Flows", 2020.
    """

    def __init__(self, preprocess, bijection, n_augmented=0, n_importance_samples=1, drawn=()):
        super().__init__(preprocess, bijection)
        n_draws = n_importance_samples if n_augmented else 1
        self.register_buffer("noise", torch.randn(n_draws, n_augmented, dtype=torch.float32))
        own = torch.ones(bijection.n_features - n_augmented, dtype=torch.float64)
        own[list(drawn)] = 0.0
        self.register_buffer("own", own)

    @property
    def n_passes(self):
        """What goes through the layers at once for each row: itself, and its probes."""
        return 1 + self.bijection.n_probes

    def forward(self, x, context=None):
        """Latent coordinates of rows with noise 0, ``(n, d + n_augmented)``, and the log-det."""
        y, fixed = self.preprocess(x, context)
        z, trained = self.bijection(F.pad(y, (0, self.noise.shape[1])), context)
        return z, fixed + trained

    def inverse(self, z, context=None):
        """Rows, without their noise, and ``log |dx/dz|`` of rows and noise."""
        y, trained = self.bijection.inverse(z, context)
        x, fixed = self.preprocess.inverse(y[:, : z.shape[1] - self.noise.shape[1]], context)
        return x, fixed + trained

    def log_prob(self, x, context=None):
        log_ratios, fixed, _ = self._log_ratios(x, context)
        return log_mean_exp(log_ratios.mean(0)) + fixed

    def log_prob_by_probe(self, x, context=None):
        """What each of Hutchinson's probes says the log-density is, of shape (n, n_probes)."""
        log_ratios, fixed, _ = self._log_ratios(x, context)
        return (log_mean_exp(log_ratios) + fixed).mT

    def n_evaluations(self, x, context=None):
        """Evaluations of the velocity for each row, a mean over the draws of noise."""
        return self._log_ratios(x, context)[2].double() / len(self.noise)

    def _log_ratios(self, x, context):
        """``log p(y, e) / q(e)`` for each probe, row and draw, and what the preprocessing adds."""
        y, fixed = self.preprocess(x, context)
        # Not y: a whitened row is rounded in another way beside others. And what is drawn, noise
        # or values in discrete columns, chooses nothing: probes of each draw's own would add their
        # errors to what the draws differ by, and so raise the mean over them.
        keys = x * self.own
        ratios, count = [], 0
        for draw in self.noise:  # one by one, for chunks of rows are as large as a cache bears
            noise = draw.expand(len(y), -1)
            solution = self.bijection.solve(torch.cat([y, noise], 1), context, keys=keys)
            base = standard_normal_log_prob(solution.x) - standard_normal_log_prob(noise)
            ratios.append(base + solution.log_det)
            count = count + solution.n_evaluations
        return torch.stack(ratios, -1), fixed, count


def log_mean_exp(values):
    """Logarithm of the mean of the exponentials along the last axis."""
    return values.logsumexp(-1) - math.log(values.shape[-1])


def standard_normal_log_prob(z):
    """Log-density of a standard normal at the rows of ``z``."""
    return -0.5 * (torch.linalg.vecdot(z, z) + z.shape[-1] * math.log(2 * math.pi))
