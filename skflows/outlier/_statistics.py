"""Statistics by which a density ranks rows; a higher value is always more normal."""

from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class Statistic(NamedTuple):
    """A statistic: how it is computed, and what it learns from rows first."""

    compute: Callable  # (density, X, learned) -> array of shape (n,)
    learn: Callable | None = None  # (density, X, weight) -> learned, from rows that density lacks
    held_out: Callable | None = None  # (density) -> its values for held-out rows, if it keeps any


def log_density(density, X, learned=None):
    return np.asarray(density.score_samples(X), dtype=np.float64)


def log_pool(density, X, learned):
    pool = getattr(density, "_pool_rows", density.score_samples)
    return np.asarray(pool(X), dtype=np.float64)


def held_out_log_density(density):
    return getattr(density, "held_out_scores_", None)


def held_out_pool(density):
    return getattr(density, "_held_out_pool", held_out_log_density(density))


def dependence(density, X, learned):
    return density.dependence(X)


def mean_log_density(density, X, weight):
    scores = log_density(density, X)
    is_finite = np.isfinite(scores)
    if not is_finite.any():
        raise ValueError(
            "statistic='typicality' compares log-densities with their mean over unseen rows, which "
            "all have a density of 0: give a smoother density, or choose another statistic."
        )
    return np.average(scores[is_finite], weights=weight[is_finite])


def typicality(density, X, mean):
    return -np.abs(log_density(density, X) - mean)


STATISTICS = MappingProxyType(
    {
        "log_pool": Statistic(log_pool, held_out=held_out_pool),
        "log_density": Statistic(log_density, held_out=held_out_log_density),
        "dependence": Statistic(dependence),
        "typicality": Statistic(typicality, mean_log_density),
    }
)


def held_out_values(statistic, density):
    """Return the values of a statistic for held-out rows that a density keeps, or None."""
    held_out = STATISTICS[statistic].held_out
    return None if held_out is None else held_out(density)
