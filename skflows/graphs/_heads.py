"""Distributions of types of atoms and orders of bonds, from the outputs of a network."""

import torch

SCALE_BOUND = 1.0  # of log-scales: points of an integral must resolve the smallest scale
FARTHEST = 6.0  # standard deviations of a latent coordinate, in integrals over it
N_POINTS, N_TRAINING_POINTS = 97, 33


class Categorical:
    """Logits of the values."""

    def n_outputs(self, n_values):
        """Return the number of outputs that describe a distribution of n values."""
        return n_values

    def log_probs(self, outputs, allowed, training=False):
        """Return the log-probability of each allowed value."""
        return outputs.masked_fill(~allowed, -torch.inf).log_softmax(-1)

    def draw(self, outputs, allowed, temperature, generator):
        """Draw an allowed value for each row."""
        uniform = torch.rand(outputs.shape, dtype=torch.float64, generator=generator)
        scores = outputs - temperature * (-uniform.log()).log()  # the largest is such a draw
        return scores.masked_fill(~allowed, -torch.inf).argmax(-1)


class NormalFlow:
    """An affine flow of indicators of the values: the largest coordinate tells the value.

    A standard normal latent vector is scaled and shifted. The probability of a value is an
    integral over its coordinate, of the probabilities that all others are smaller. The paper
    trains by the density of indicators with uniform noise instead, a bound that is far lower.
    """

    def n_outputs(self, n_values):
        """Return the number of outputs that describe a distribution of n values."""
        return 2 * n_values

    def log_probs(self, outputs, allowed, training=False):
        """Return the log-probability of each allowed value, by fewer points in training."""
        mean, log_scale = (part[..., None] for part in self._moments(outputs))
        n_points = N_TRAINING_POINTS if training else N_POINTS
        latent = torch.linspace(-FARTHEST, FARTHEST, n_points).to(outputs)
        x = mean + log_scale.exp() * latent  # (n, values, points)
        value = torch.arange(mean.shape[1], device=x.device)
        total = -0.5 * latent.square()
        for other in range(mean.shape[1]):
            z = (x - mean[:, other : other + 1]) * (-log_scale[:, other : other + 1]).exp()
            counts = allowed[:, other : other + 1] & (value != other)
            total = total + torch.special.log_ndtr(z).where(counts[..., None], 0.0)
        logits = total.logsumexp(-1)
        return logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)  # rounded to a sum of 1

    def draw(self, outputs, allowed, temperature, generator):
        """Draw an allowed value for each row."""
        mean, log_scale = self._moments(outputs)
        noise = torch.randn(mean.shape, dtype=torch.float64, generator=generator)
        x = mean + temperature * log_scale.exp() * noise
        return x.masked_fill(~allowed, -torch.inf).argmax(-1)

    def _moments(self, outputs):
        mean, log_scale = outputs.chunk(2, -1)
        return mean, SCALE_BOUND * (log_scale / SCALE_BOUND).tanh()


HEADS = {"categorical": Categorical, "flow": NormalFlow}
