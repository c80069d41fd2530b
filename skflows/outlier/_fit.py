"""A density and its score, fitted to rows that may hold outliers."""

import warnings
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from ..density._protocol import fit_density, is_frozen
from ._scores import SCORES, log_density

UNSEEN = 0.2  # of the rows, for scores that learn of rows the density has not seen
TRIMMINGS = 5


class ScoredDensity(NamedTuple):
    """A fitted density, a score, and what the score has learned of rows."""

    density: object
    score: str
    learned: object
    kept: np.ndarray  # which rows the density was fitted to, after trimming

    def score_samples(self, X):
        with names_ignored(self.density), np.errstate(invalid="ignore"):
            scores = SCORES[self.score].compute(self.density, X, self.learned)
        # A difference of two infinities: where the density is 0, nothing is odder.
        return np.where(np.isnan(scores), -np.inf, scores)

    def log_density(self, X):
        with names_ignored(self.density):
            return log_density(self.density, X, None)


@contextmanager
def names_ignored(density):
    """Score arrays by a density that was fitted to a frame: their order was checked before."""
    with warnings.catch_warnings():
        if hasattr(density, "feature_names_in_"):
            warnings.filterwarnings("ignore", "X does not have valid feature names")
        yield


def fit_scored(score, setting, X, trim):
    """A density and its score, fitted to rows."""
    rows = unseen = X
    if SCORES[score].unseen and not is_frozen(setting.estimator):
        from sklearn.model_selection import train_test_split  # takes long to import

        rows, unseen = train_test_split(X, test_size=UNSEEN, random_state=setting.random_state)
    density, kept = fit_trimmed(setting.estimator, rows, trim)
    if unseen is X:
        unseen = X[kept]
    with names_ignored(density):
        learned = SCORES[score].learn(density, unseen, setting)
    return ScoredDensity(density, score, learned, kept)


def fit_trimmed(estimator, X, trim):
    """A density fitted to the rows that are likeliest under it, and which rows these are.

    Fit and choice take turns until the choice stays, as in the concentration steps of robust
    covariances.
    """
    kept = np.ones(len(X), dtype=bool)
    if is_frozen(estimator):
        return estimator, kept
    density = fit_density(clone(estimator), X)
    n_kept = len(X) - int(trim * len(X))
    for _ in range(TRIMMINGS if n_kept < len(X) else 0):
        before = kept
        kept = np.zeros(len(X), dtype=bool)
        kept[np.argsort(-fair_scores(density, X, before), kind="stable")[:n_kept]] = True
        if (kept == before).all():
            break
        density = fit_density(clone(estimator), X[kept])
    return density, kept


def fair_scores(density, X, fitted):
    """Log-densities by models that had not seen the row, where the density keeps them of all rows.

    Of some rows alone they would not do: those of the others are higher.
    """
    scores = np.asarray(density.score_samples(X), dtype=np.float64)
    held_out = getattr(density, "held_out_scores_", None)
    if held_out is not None and not np.isnan(held_out).any():
        scores[fitted] = held_out
    return scores
