"""The scores by which a fitted density ranks rows; of all, higher means more normal."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from ..density._protocol import fit_density

STEP = 1e-4  # of a central difference, in standard deviations of the column
REPLACED = 0.3  # of the values, by those of other rows, for a background of noised rows


class Setting(NamedTuple):
    """What a score may need beyond a fitted density and rows."""

    estimator: object  # the density, unfitted
    background: object  # another one for the likelihood ratio, or None
    random_state: np.random.RandomState


class Score(NamedTuple):
    """How a score is computed, and what it has to learn of rows before it can be."""

    compute: Callable  # (density, X, learned) -> array of shape (n,)
    learn: Callable = lambda density, X, setting: None
    unseen: bool = False  # whether it learns of rows that the density was not fitted to
    held_out: str = ""  # attribute in which mixtures keep it for the rows they held out
    compares: bool = False  # whether it needs a background


def log_density(density, X, learned):
    return np.asarray(density.score_samples(X), dtype=np.float64)


def log_pool(density, X, learned):
    pool = getattr(density, "_pool_rows", density.score_samples)
    return np.asarray(pool(X), dtype=np.float64)


def latent_norm(density, X, learned):
    return -np.linalg.norm(density.transform(X), axis=1)


def mean_log_density(density, X, setting):
    scores = log_density(density, X, None)
    return scores[np.isfinite(scores)].mean()


def typicality(density, X, mean):
    return -np.abs(log_density(density, X, None) - mean)


def column_scales(density, X, setting):
    scales = X.std(axis=0, dtype=np.float64)
    return np.where(scales > 0, scales, 1.0)


def score_norm(density, X, scales):
    squares = np.zeros(len(X))
    for j, scale in enumerate(scales):
        ahead, behind = np.array(X, dtype=np.float64), np.array(X, dtype=np.float64)
        ahead[:, j] += STEP * scale
        behind[:, j] -= STEP * scale
        slope = log_density(density, ahead, None) - log_density(density, behind, None)
        squares += (slope / (2 * STEP)) ** 2
    return -np.sqrt(squares)


def background_density(density, X, setting):
    if setting.background is not None:
        return fit_density(clone(setting.background), X)
    random_state = setting.random_state
    others = np.column_stack([random_state.permutation(column) for column in X.T])
    noised = np.where(random_state.uniform(size=X.shape) < REPLACED, others, X)
    return fit_density(clone(setting.estimator), noised)


def likelihood_ratio(density, X, background):
    return log_density(density, X, None) - log_density(background, X, None)


def density_of_scores(density, X, setting):
    from .._portfolio import StandardNormal
    from ..density import TransformedDensity

    names = [name for name in ENSEMBLED if name != "latent_norm" or hasattr(density, "transform")]
    learned = {name: SCORES[name].learn(density, X, setting) for name in names}
    scores = stacked_scores(density, X, learned)
    copula = TransformedDensity(
        StandardNormal(), preprocessing=("quantile", "whiten"), discrete=None, random_state=0
    )
    return learned, copula.fit(scores[np.isfinite(scores).all(axis=1)])


def stacked_scores(density, X, learned):
    scores = [SCORES[name].compute(density, X, what) for name, what in learned.items()]
    return np.column_stack(scores)


def ensemble(density, X, learned):
    parts, copula = learned
    scores = stacked_scores(density, X, parts)
    known = np.isfinite(scores).all(axis=1)
    joint = np.full(len(X), -np.inf)
    if known.any():
        joint[known] = copula.score_samples(scores[known])
    return joint


SCORES = {
    "log_pool": Score(log_pool, held_out="_held_out_pool"),
    "log_density": Score(log_density, held_out="held_out_scores_"),
    "latent_norm": Score(latent_norm),
    "typicality": Score(typicality, mean_log_density, unseen=True),
    "score_norm": Score(score_norm, column_scales),
    "likelihood_ratio": Score(likelihood_ratio, background_density, compares=True),
    "ensemble": Score(ensemble, density_of_scores, unseen=True, compares=True),
}
ENSEMBLED = ("log_density", "score_norm", "latent_norm", "likelihood_ratio")
