"""The standard normal distribution."""

import math

import torch
from torch.special import erfcx, log_ndtr, ndtri

from .. import kernels


def normal_log_density(z):
    """Return the log-density at each value of a tensor or an array."""
    return -0.5 * (z * z + math.log(2 * math.pi))


def log_normal_survival(z):
    """Return the logarithm of the probability of exceeding ``z``."""
    if kernels.is_traced():  # log_ndtr has no batching rule
        return erfcx(z * 2**-0.5).log() - 0.5 * z * z - math.log(2)
    return log_ndtr(-z)


def normal_survival(z):
    """Return the probability of exceeding ``z``, positive even where it underflows."""
    # Not by ndtr, which loses all digits of small probabilities.
    return log_normal_survival(z).exp().clamp(min=torch.finfo(z.dtype).tiny)


def upper_score(survival):
    """Return the value that is exceeded with this probability."""
    return -ndtri(survival.clamp(min=torch.finfo(survival.dtype).tiny))
