"""Importance weights: smoothing of their tail, effective sample size and the evidence."""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

FEWEST_IN_TAIL = 5
PRIOR_DRAWS, PRIOR_K = 10, 0.5  # of the shape of the tail


class Weights(NamedTuple):
    """Smoothed importance weights of draws, and what they say.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        They sum to 1.
    log_mean : float
        Logarithm of the mean weight: an estimate of the evidence.
    log_mean_error : float
        Its standard error.
    ess : float
        Effective sample size divided by n.
    pareto_k : float
        Shape of the tail of the weights.
    """

    weights: np.ndarray
    log_mean: float
    log_mean_error: float
    ess: float
    pareto_k: float


def importance_weights(log_ratio):
    """Return the `Weights` of draws with these logs of ratios; NaN counts as a weight of 0.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto Smoothed Importance Sampling", 2024.
    """
    log_ratio = np.where(np.isnan(log_ratio), -np.inf, log_ratio)
    log_weight, pareto_k = _smoothed(log_ratio)
    total = logsumexp(log_weight)
    weights = np.exp(log_weight - total)
    n = len(weights)
    ess = 1 / (n * np.square(weights).sum())
    error = np.sqrt(max(1 / ess - 1, 0.0) / n)
    return Weights(weights, float(total - np.log(n)), float(error), float(ess), float(pareto_k))


def _smoothed(log_ratio):
    """Return log-weights whose largest ones follow a generalised Pareto distribution, and its k."""
    n = len(log_ratio)
    n_tail = int(min(0.2 * n, 3 * np.sqrt(n)))
    order = np.argsort(log_ratio, kind="stable")
    tail, cutoff = order[-n_tail:], log_ratio[order[-n_tail - 1]]
    largest = log_ratio[order[-1]]
    if n_tail < FEWEST_IN_TAIL or not np.isfinite(cutoff):
        return log_ratio, np.inf  # hardly any draw has a weight
    excess = np.exp(log_ratio[tail] - largest) - np.exp(cutoff - largest)
    if excess[-1] <= 1e-10:  # weights that are equal, up to rounding
        return log_ratio, -np.inf
    k, scale = _pareto_fit(excess)
    quantiles = (np.arange(n_tail) + 0.5) / n_tail
    expected = -np.log1p(-quantiles) if k == 0 else np.expm1(-k * np.log1p(-quantiles)) / k
    log_weight = log_ratio.copy()
    log_weight[tail] = np.log(scale * expected + np.exp(cutoff - largest)) + largest
    return np.minimum(log_weight, largest), k


def _pareto_fit(excess):
    """Return shape and scale of a generalised Pareto distribution, from ascending excesses.

    References
    ----------
    Zhang & Stephens, "A New and Efficient Estimation Method for the Generalized Pareto
    Distribution", 2009.
    """
    n = len(excess)
    m = 30 + int(np.sqrt(n))
    quartile = excess[int(n / 4 + 0.5) - 1]
    b = 1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))
    b = b / (3 * max(quartile, np.finfo(float).tiny)) + 1 / excess[-1]
    k = np.log1p(-b[:, None] * excess).mean(axis=1)
    log_likelihood = n * (np.log(-b / k) - k - 1)
    share = np.exp(log_likelihood - logsumexp(log_likelihood))
    b = (b * share).sum()
    k = np.log1p(-b * excess).mean()
    scale = -k / b
    return (n * k + PRIOR_DRAWS * PRIOR_K) / (n + PRIOR_DRAWS), scale
