"""Distributions of types of atoms and orders of bonds, from the outputs of a network."""

import torch

from ..nn.mlp import means_and_log_scales

SCALE_BOUND = 0.25  # of log-scales: the points of an integral must resolve the smallest scale
FARTHEST = 6.0  # standard deviations of a latent coordinate, in an integral over it
N_POINTS = 23


class Categorical:
    """Logits of the values."""

    outputs_of_value = 1

    def log_probs(self, outputs, values, allowed):
        """Return the log-probability of each row's value among the allowed ones."""
        logits = outputs.masked_fill(~allowed, -torch.inf)
        return logits.log_softmax(-1).gather(1, values[:, None]).squeeze(1)

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

    outputs_of_value = 2

    def log_probs(self, outputs, values, allowed):
        means, log_scales = means_and_log_scales(outputs, SCALE_BOUND)
        latent = torch.linspace(-FARTHEST, FARTHEST, N_POINTS).to(outputs)
        mean, log_scale = (part.gather(1, values[:, None]) for part in (means, log_scales))
        x = (mean + log_scale.exp() * latent)[..., None]  # (n, points, 1)
        z = (x - means[:, None]) * (-log_scales[:, None]).exp()
        others = allowed.scatter(1, values[:, None], False)
        smaller = torch.special.log_ndtr(z).where(others[:, None], 0.0).sum(-1)
        weights = (-0.5 * latent.square()).log_softmax(0)
        return (weights + smaller).logsumexp(-1)

    def draw(self, outputs, allowed, temperature, generator):
        mean, log_scale = means_and_log_scales(outputs, SCALE_BOUND)
        noise = torch.randn(mean.shape, dtype=torch.float64, generator=generator)
        x = mean + temperature * log_scale.exp() * noise
        return x.masked_fill(~allowed, -torch.inf).argmax(-1)


HEADS = {"categorical": Categorical, "flow": NormalFlow}
