"""Statistics by which a density ranks rows; a higher value is always more normal."""

import warnings
from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from ..columns.checks import ColumnWarning
from ..density._third_party import fit_density
from ..preprocessing.validation import uneven

STEP = 1e-4  # of a central difference, in standard deviations of the column
REPLACED = 0.3  # fraction of the values that a background of noised rows takes from other rows


class Setting(NamedTuple):
    """The settings that a statistic may learn with."""

    estimator: object  # the density, unfitted
    background: object  # another density for the likelihood ratio, or None
    random_state: np.random.RandomState
    fit: Callable  # fits a density to rows and weights
    encoding: object = None  # of the table that rows stand for, or None


class Statistic(NamedTuple):
    """A statistic: how it is computed, and what it learns from rows first."""

    compute: Callable  # (density, X, learned) -> array of shape (n,)
    learn: Callable = lambda density, X, weight, setting: None
    needs_unseen: bool = False  # whether it learns from rows that the density was not fitted to
    held_out: Callable | None = None  # (density) -> its values for held-out rows, if it keeps any
    needs_background: bool = False


def log_density(density, X, learned):
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


def latent_norm(density, X, learned):
    return -np.linalg.norm(density.transform(X), axis=1)


def mean_log_density(density, X, weight, setting):
    scores = log_density(density, X, None)
    is_finite = np.isfinite(scores)
    if not is_finite.any():
        raise ValueError(
            "statistic='typicality' compares log-densities with their mean over unseen rows, which "
            "all have a density of 0: give a smoother density, or choose another statistic."
        )
    return np.average(scores[is_finite], weights=weight[is_finite])


def typicality(density, X, mean):
    return -np.abs(log_density(density, X, None) - mean)


def scales_of_columns(density, X, weight, setting):
    from ..density._evaluation import column_scale  # imports torch

    return column_scale(X, weight)


def score_norm(density, X, scales):
    squares = np.zeros(len(X))
    for j, scale in enumerate(scales):
        ahead, behind = np.array(X, dtype=np.float64), np.array(X, dtype=np.float64)
        ahead[:, j] += STEP * scale
        behind[:, j] -= STEP * scale
        slope = log_density(density, ahead, None) - log_density(density, behind, None)
        squares += (slope / (2 * STEP)) ** 2
    return -np.sqrt(squares)


def background_density(density, X, weight, setting):
    weight = uneven(weight)
    if setting.background is not None:
        return fit_density(clone(setting.background), X, weight)
    random_state = setting.random_state
    if weight is None:
        others = np.column_stack([random_state.permutation(column) for column in X.T])
    else:
        shares = weight / weight.sum()
        others = np.column_stack([random_state.choice(column, len(X), p=shares) for column in X.T])
    noised = np.where(random_state.uniform(size=X.shape) < REPLACED, others, X)
    return fit_density(clone(setting.estimator), noised, weight)


def likelihood_ratio(density, X, background):
    return log_density(density, X, None) - log_density(background, X, None)


def density_of_statistics(density, X, weight, setting):
    from ..density import TransformedDensity
    from ..ensemble._simple_densities import StandardNormal

    names = [name for name in COMBINED if name != "latent_norm" or hasattr(density, "transform")]
    learned = {name: STATISTICS[name].learn(density, X, weight, setting) for name in names}
    values = stacked_statistics(density, X, learned)
    copula = TransformedDensity(
        StandardNormal(), preprocessing=("quantile", "whiten"), discrete=None, random_state=0
    )
    is_finite = np.isfinite(values).all(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColumnWarning)  # statistics may depend on one another
        copula.fit(values[is_finite], sample_weight=weight[is_finite])
    return learned, copula


def stacked_statistics(density, X, learned):
    values = [STATISTICS[name].compute(density, X, own) for name, own in learned.items()]
    return np.column_stack(values)


def ensemble(density, X, learned):
    parts, copula = learned
    values = stacked_statistics(density, X, parts)
    is_finite = np.isfinite(values).all(axis=1)
    joint = np.full(len(X), -np.inf)
    if is_finite.any():
        joint[is_finite] = copula.score_samples(values[is_finite])
    return joint


STATISTICS = MappingProxyType(
    {
        "log_pool": Statistic(log_pool, held_out=held_out_pool),
        "log_density": Statistic(log_density, held_out=held_out_log_density),
        "dependence": Statistic(dependence),
        "latent_norm": Statistic(latent_norm),
        "typicality": Statistic(typicality, mean_log_density, needs_unseen=True),
        "score_norm": Statistic(score_norm, scales_of_columns),
        "likelihood_ratio": Statistic(likelihood_ratio, background_density, needs_background=True),
        "ensemble": Statistic(
            ensemble, density_of_statistics, needs_unseen=True, needs_background=True
        ),
    }
)
COMBINED = ("log_density", "score_norm", "latent_norm", "likelihood_ratio")


def held_out_values(statistic, density):
    """Return the values of a statistic for held-out rows that a density keeps, or None."""
    held_out = STATISTICS[statistic].held_out
    return None if held_out is None else held_out(density)
