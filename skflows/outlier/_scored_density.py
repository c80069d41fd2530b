"""A density and its statistic, fitted to rows that may contain outliers."""

import warnings
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from ..density._third_party import fit_density, is_frozen, was_interrupted
from ._statistics import STATISTICS

UNSEEN = 0.2  # fraction of the rows, for statistics that learn from unseen ones
TRIMMING_STEPS = 5


class ScoredDensity(NamedTuple):
    """A fitted density, the name of a statistic, and what the statistic has learned."""

    density: object
    statistic: str
    learned: object
    kept: np.ndarray  # which rows the density was fitted to, after trimming

    def score_samples(self, X):
        with names_ignored(self.density), np.errstate(invalid="ignore"):
            scores = STATISTICS[self.statistic].compute(self.density, X, self.learned)
        # NaN is a difference of two infinities: where the density is 0, nothing is odder.
        return np.where(np.isnan(scores), -np.inf, scores)


@contextmanager
def names_ignored(density):
    """Allow arrays for a density that was fitted to a DataFrame, whose order was checked before."""
    with warnings.catch_warnings():
        if hasattr(density, "feature_names_in_"):
            warnings.filterwarnings("ignore", "X does not have valid feature names")
        yield


def fit_scored(statistic, setting, X, trim):
    """Fit a density and its statistic to rows."""
    rows = unseen = X
    if STATISTICS[statistic].needs_unseen and not is_frozen(setting.estimator):
        from sklearn.model_selection import train_test_split  # takes long to import

        rows, unseen = train_test_split(X, test_size=UNSEEN, random_state=setting.random_state)
    density, kept = fit_trimmed(setting.estimator, rows, trim)
    if unseen is X:
        unseen = X[kept]
    with names_ignored(density):
        learned = STATISTICS[statistic].learn(density, unseen, setting)
    return ScoredDensity(density, statistic, learned, kept)


def fit_trimmed(estimator, X, trim):
    """Fit a density to the rows that are likeliest under it; return it and which rows they are.

    Fit and selection alternate until the selection is stable, like the concentration steps of
    robust covariance estimators.
    """
    kept = np.ones(len(X), dtype=bool)
    if is_frozen(estimator):
        return estimator, kept
    density = fit_density(clone(estimator), X)
    n_kept = len(X) - int(trim * len(X))
    for _ in range(TRIMMING_STEPS if n_kept < len(X) else 0):
        before = kept
        kept = np.zeros(len(X), dtype=bool)
        kept[np.argsort(-fair_scores(density, X, before), kind="stable")[:n_kept]] = True
        if (kept == before).all() or was_interrupted(density):
            break
        density = fit_density(clone(estimator), X[kept])
    return density, kept


def fair_scores(density, X, fitted):
    """Return log-densities, those of fitted rows by models that had not seen them if available.

    They are available only if the density keeps held-out scores of all its rows: otherwise scores
    of the remaining rows would be too high by comparison.
    """
    scores = np.asarray(density.score_samples(X), dtype=np.float64)
    held_out = getattr(density, "held_out_scores_", None)
    if held_out is not None and not np.isnan(held_out).any():
        scores[fitted] = held_out
    return scores
