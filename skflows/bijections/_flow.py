"""A flow: a standard normal pulled back through a bijection."""

import torch
from torch import nn
from torch.special import ndtr, ndtri

from ._conditional import apart, innermost
from ._given import GivenChain
from ._normal import normal_log_density
from ._standardize import Whiten

LEAST_MASS = 1e-250  # of a cell, under a standard normal distribution, that has its digits


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
        d = y.shape[-1]
        if d < z.shape[-1]:  # the bijection does not return the context of rows
            x, fixed = self.preprocess.inverse(torch.cat([y, z[..., d:]], -1), context)
            return x[..., :d], fixed + trained
        x, fixed = self.preprocess.inverse(y, context)
        return x, fixed + trained

    def given(self, context):
        """Return the map at contexts ``(n, n_context)``, for many rows of each (see `Given`).

        The flow is of rows that have their context in their last columns.
        """
        parts = self.preprocess, self.bijection
        return GivenChain([part.given_others(context) for part in parts])

    def is_sequential(self, inverse=False):
        """Whether a direction takes many small operations (see `Bijection.is_sequential`)."""
        return self.bijection.is_sequential(inverse)

    def log_prob(self, x, context=None):
        """Return the log-density in nats, in the units of ``x``."""
        z, log_det = self(x, context)
        return standard_normal_log_prob(z) + log_det

    @property
    def is_separate(self):
        """Whether preprocessing maps each column by itself."""
        return not any(isinstance(each, Whiten) for each in self.preprocess.modules())

    def point_of_cell(self, x, gap, share):
        """Return a point of the cell of each row, and its log-density in the cell.

        It has a normal distribution within the cell after preprocessing, which is closer to the
        density of the flow than a uniform one. Preprocessing must map each column by itself.

        Parameters
        ----------
        x : tensor of shape (n, d)
            The middles of the cells.
        gap : tensor of shape (d,)
            The widths of the cells.
        share : tensor that broadcasts to (n, d)
            Uniform noise from 0 to 1: the probability in the cell below the point.
        """
        y_low, y_high = (self.preprocess(x + end)[0] for end in (-gap / 2, gap / 2))
        is_upper = y_low > 0  # the lower tail has more digits
        left = torch.where(is_upper, -y_high, y_low)
        right = torch.where(is_upper, -y_low, y_high)
        mass = ndtr(right) - ndtr(left)
        is_far = (mass < LEAST_MASS).any(-1)
        mass = mass.clamp(min=LEAST_MASS)
        y = ndtri(ndtr(left).clamp(min=LEAST_MASS) + torch.where(is_upper, 1 - share, share) * mass)
        y = torch.minimum(torch.maximum(y, left), right)
        y = torch.where(is_upper, -y, y)
        point, log_det = self.preprocess.inverse(y)
        log_density = (normal_log_density(y) - mass.log()).sum(-1) - log_det
        point = torch.where(is_far[..., None], x + gap * (share - 0.5), point)
        return point, torch.where(is_far, -gap.log().sum(-1), log_density)


class ContinuousFlow(Flow):
    """Density of rows that a continuous bijection moves.

    Parameters
    ----------
    preprocess, bijection : Bijection
        See `Flow`; the bijection is a `Continuous`.
    dequantized : sequence of int, default=()
        Columns to which noise is added, and over which densities are averaged.
    """

    is_key: torch.Tensor

    def __init__(self, preprocess, bijection, dequantized=()):
        super().__init__(preprocess, bijection)
        is_key = torch.ones(innermost(bijection).n_features, dtype=torch.float64)
        is_key[list(dequantized)] = 0.0
        self.register_buffer("is_key", is_key)

    @property
    def n_passes(self):
        """Number of columns that each row takes in a pass: itself, and its probes."""
        return 1 + innermost(self.bijection).n_probes

    def log_prob(self, x, context=None):
        by_probe, fixed, _ = self._by_probe(x, context)
        return by_probe.mean(0) + fixed

    def log_prob_by_probe(self, x, context=None):
        """Return the log-density by each of Hutchinson's probes, of shape (n, n_probes)."""
        by_probe, fixed, _ = self._by_probe(x, context)
        return (by_probe + fixed).mT

    def n_evaluations(self, x, context=None):
        """Return the evaluations of the velocity for each row."""
        return self._by_probe(x, context)[2].double()

    def _by_probe(self, x, context):
        """Return the log-density of preprocessed rows by each probe, the log-det of preprocessing,
        and counts."""
        y, fixed = self.preprocess(x, context)
        # Probes are hashed from x, not y: whitening rounds a row differently in another batch.
        keys = x[:, : len(self.is_key)] * self.is_key
        bijection, y, context = apart(self.bijection, y, context)
        solution = bijection.solve(y, context, keys=keys)
        log_prob = standard_normal_log_prob(solution.x) + solution.log_det
        return log_prob, fixed, solution.n_evaluations
