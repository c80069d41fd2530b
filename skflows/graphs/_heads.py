"""Distributions of types of atoms and orders of bonds, from the outputs of a network."""

import math

import torch
from torch.nn import functional as F

from ..nn.random_draws import uniform_draws

NOISE = (
    0.9  # width of the uniform noise on indicators: below 1, so that the largest tells the value
)
SCALE_BOUND = 3.0  # of log-scales
POINTS = torch.linspace(-6.0, 6.0, 97, dtype=torch.float64)  # for integrals over a normal


class Categorical:
    """Logits of the values."""

    def n_outputs(self, n_values):
        """Return the number of outputs that describe a distribution of n values."""
        return n_values

    def bound(self, outputs, values, allowed):
        """Return the log-probability of the values, by which the network is trained."""
        return self.log_probs(outputs, allowed).gather(1, values[:, None]).squeeze(1)

    def log_probs(self, outputs, allowed):
        """Return the log-probability of each allowed value."""
        return outputs.masked_fill(~allowed, -torch.inf).log_softmax(-1)

    def draw(self, outputs, allowed, temperature, generator):
        """Draw an allowed value for each row."""
        uniform = torch.rand(outputs.shape, dtype=torch.float64, generator=generator)
        scores = outputs - temperature * (-uniform.log()).log()  # the largest is such a draw
        return scores.masked_fill(~allowed, -torch.inf).argmax(-1)


class NormalFlow:
    """An affine flow of the values' indicators with uniform noise: the largest tells the value.

    A standard normal latent vector is scaled and shifted; the value drawn is its largest
    coordinate. Training maximises the density of indicators with noise. The probability of a value
    needs no noise: it is an integral over one coordinate.
    """

    def n_outputs(self, n_values):
        """Return the number of outputs that describe a distribution of n values."""
        return 2 * n_values

    def _moments(self, outputs):
        mean, log_scale = outputs.chunk(2, -1)
        return mean, SCALE_BOUND * (log_scale / SCALE_BOUND).tanh()

    def bound(self, outputs, values, allowed):
        """Return the log-density of values with noise, whose mean is below the log-probability."""
        mean, log_scale = self._moments(outputs)
        x = F.one_hot(values, mean.shape[1]).to(mean.dtype)
        x = x + NOISE * uniform_draws(mean)
        latent = (x - mean) * (-log_scale).exp()
        n_values = mean.shape[1]
        normal = -0.5 * latent.square() - log_scale - 0.5 * math.log(2 * math.pi)
        return normal.sum(-1) + n_values * math.log(NOISE)

    def log_probs(self, outputs, allowed):
        """Return the log-probability of each allowed value, scaled to a sum of 1."""
        mean, log_scale = (part[..., None] for part in self._moments(outputs))
        points = POINTS.to(outputs.dtype)
        x = mean + log_scale.exp() * points  # (n, values, points)
        total = torch.zeros_like(x)
        for other in range(mean.shape[1]):
            below = torch.special.log_ndtr(
                (x - mean[:, other : other + 1]) * (-log_scale[:, other : other + 1]).exp()
            )
            below[:, other] = 0.0
            total = total + below.masked_fill(~allowed[:, other, None, None], 0.0)
        logits = torch.logsumexp(total - 0.5 * points.square(), -1)
        return logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)

    def draw(self, outputs, allowed, temperature, generator):
        """Draw an allowed value for each row."""
        mean, log_scale = self._moments(outputs)
        noise = torch.randn(mean.shape, dtype=torch.float64, generator=generator).to(mean.dtype)
        x = mean + temperature * log_scale.exp() * noise
        return x.masked_fill(~allowed, -torch.inf).argmax(-1)


HEADS = {"categorical": Categorical, "flow": NormalFlow}
