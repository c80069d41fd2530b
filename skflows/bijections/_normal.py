"""The standard normal distribution."""

import math

import torch
from torch.special import log_ndtr, ndtri


def normal_log_density(z):
    """Return the log-density at each value of a tensor or an array."""
    return -0.5 * (z * z + math.log(2 * math.pi))


def normal_survival(z):
    """Return the probability of exceeding ``z``, positive even where it underflows."""
    # Not by ndtr, which loses all digits of small probabilities.
    return log_ndtr(-z).exp().clamp(min=torch.finfo(z.dtype).tiny)


def upper_score(survival):
    """Return the value that is exceeded with this probability."""
    return -ndtri(survival.clamp(min=torch.finfo(survival.dtype).tiny))
