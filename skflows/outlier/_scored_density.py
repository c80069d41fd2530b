"""A density and its statistic, fitted to rows that may contain outliers."""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from ..density._third_party import is_frozen, score_rows, unfrozen, was_interrupted
from ..preprocessing.validation import uneven
from ._statistics import STATISTICS

UNSEEN = 0.2  # fraction of the rows, for statistics that learn from unseen ones
TRIMMING_STEPS = 5


class EncodedDensity(NamedTuple):
    """A fitted density of tables, for the rows of an encoding."""

    estimator: Any
    encoding: Any

    def score_samples(self, rows):
        return score_rows(self.estimator, rows, self.encoding)

    def _pool_rows(self, rows):
        pool = getattr(unfrozen(self.estimator), "_pool_rows_of", self.score_samples)
        return pool(rows)

    @property
    def reconciled(self):
        """A function that lets columns of rows that mix two follow from others, or None."""
        return getattr(unfrozen(self.estimator), "_reconciled", None)

    def dependence(self, rows):
        return unfrozen(self.estimator)._dependence(rows)

    def surprises(self, rows):
        return unfrozen(self.estimator)._surprises(rows)

    @property
    def held_out_scores_(self):
        return self.estimator.held_out_scores_

    @property
    def _held_out_pool(self):
        return getattr(self.estimator, "_held_out_pool", self.held_out_scores_)

    @property
    def _interrupted(self):
        return was_interrupted(self.estimator)


class ScoredDensity(NamedTuple):
    """A fitted density, the name of a statistic, and what the statistic has learned."""

    density: object
    statistic: str
    learned: object
    kept: np.ndarray  # which rows the density was fitted to, after trimming

    @property
    def reconciled(self):
        """See `EncodedDensity`; other densities have no rules."""
        return getattr(self.density, "reconciled", None)

    def score_samples(self, X):
        with names_ignored(self.density), np.errstate(invalid="ignore"):
            scores = STATISTICS[self.statistic].compute(self.density, X, self.learned)
        # NaN is a difference of two infinities: where the density is 0, nothing is odder.
        return np.where(np.isnan(scores), -np.inf, scores)


def of_rows(density, encoding):
    """Return a fitted density, as one of encoded rows if there is an encoding."""
    return density if encoding is None else EncodedDensity(density, encoding)


@contextmanager
def names_ignored(density):
    """Allow arrays for a density that was fitted to a DataFrame, whose order was checked before."""
    with warnings.catch_warnings():
        if hasattr(density, "feature_names_in_"):
            warnings.filterwarnings("ignore", "X does not have valid feature names")
        yield


class Setting(NamedTuple):
    """How a density is fitted."""

    estimator: object  # the density, unfitted
    random_state: np.random.RandomState
    fit: Callable  # fits a density to rows and weights
    encoding: object = None  # of the table that rows stand for, or None


def fit_scored(statistic, setting, X, weight, trim):
    """Fit a density and its statistic to weighted rows."""
    rows, row_weight = X, weight
    unseen, unseen_weight = X, weight
    learn = STATISTICS[statistic].learn
    if learn is not None and not is_frozen(setting.estimator):
        from sklearn.model_selection import train_test_split  # takes long to import

        rows, unseen, row_weight, unseen_weight = train_test_split(
            X, weight, test_size=UNSEEN, random_state=setting.random_state
        )
    density, kept = fit_trimmed(setting, rows, row_weight, trim)
    learned = None
    if learn is not None:
        with names_ignored(density):
            learned = learn(density, unseen, unseen_weight)
    return ScoredDensity(density, statistic, learned, kept)


def fit_trimmed(setting, X, weight, trim):
    """Fit a density to the rows that are likeliest under it; return it and which rows they are.

    Fit and selection alternate until the selection is stable, like the concentration steps of
    robust covariance estimators.
    """
    kept = np.ones(len(X), dtype=bool)
    if is_frozen(setting.estimator):
        return of_rows(setting.estimator, setting.encoding), kept

    def fitted(rows, weight):
        density = setting.fit(clone(setting.estimator), rows, uneven(weight))
        return of_rows(density, setting.encoding)

    density = fitted(X, weight)
    for _ in range(TRIMMING_STEPS if trim else 0):
        before = kept
        order = np.argsort(-fair_scores(density, X, before), kind="stable")[::-1]
        kept = np.ones(len(X), dtype=bool)
        kept[order[np.cumsum(weight[order]) <= trim * weight.sum()]] = False
        if (kept == before).all() or was_interrupted(density):
            break
        density = fitted(X[kept], weight[kept])
    return density, kept


def fair_scores(density, X, fitted):
    """Return log-densities, for fitted rows by models that had not seen them if available.

    They are available only if the density keeps held-out scores of all its rows: otherwise scores
    of the remaining rows would be too high by comparison.
    """
    scores = np.asarray(density.score_samples(X), dtype=np.float64)
    held_out = getattr(density, "held_out_scores_", None)
    if held_out is not None and not np.isnan(held_out).any():
        scores[fitted] = held_out
    return scores
