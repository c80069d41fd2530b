"""Scores and outlier labels of a density."""

import time
from typing import Any

import numpy as np
from sklearn.base import DensityMixin, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from ..calibration.thresholds import by_contamination
from ..columns.arrays import some_rows, validate_rows
from ..columns.types import Floats, Labels, Table, Weights
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.dequantizer import N_POINTS
from ..preprocessing.sklearn_compat import check_sample_weight

FENCE_ROWS = 5_000  # enough to estimate quartiles
TIMED_ROWS = 100  # that tell how long a score takes
THRESHOLD_SHARE = 0.1  # of a time limit


class OutlierLabelsMixin(PersistenceMixin, OutlierMixin):
    """Scores and outlier labels, from `_score_rows` and `offset_`."""

    def __sklearn_is_fitted__(self):
        return hasattr(self, "offset_")

    def score_samples(self, X: Table) -> Floats:
        """Return the log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, in the units of X; up to rounding, a row's value does not depend on the other
            rows. If a `CNFDensity` has columns of noise, it is the log of an importance-weighted
            estimate.
        """
        check_is_fitted(self)
        return self._score_rows(validate_rows(self, X, reset=False))

    def decision_function(self, X: Table) -> Floats:
        """Return the score above the outlier threshold: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``, or `score_samples` if there is no threshold
            (its sign then means nothing).
        """
        scores = self.score_samples(X)
        return scores if np.isneginf(self.offset_) else scores - self.offset_

    def predict(self, X: Table) -> Labels:
        """Label each row as an inlier or an outlier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for outliers, 1 for inliers.
        """
        margin = self.decision_function(X)
        return np.where((margin >= 0) | np.isneginf(self.offset_), 1, -1)

    def fit_predict(self, X: Table, y: object = None, **kwargs: Any) -> Labels:
        """Fit to the rows, and label each of them as an inlier or an outlier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        **kwargs : dict
            Further arguments of `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for outliers, 1 for inliers: by `predict`, or by the held-out scores of the rows if
            these set the threshold.
        """
        labels = super().fit_predict(X, y, **kwargs)
        if not getattr(self, "_judges_held_out", False):
            return labels
        scores = self.held_out_scores_
        return np.where(np.isnan(scores), labels, np.where(scores >= self.offset_, 1, -1))


class OutlierDensityMixin(OutlierLabelsMixin, DensityMixin):
    """Outlier labels of a density, whose threshold the parameter `contamination` sets."""

    def score(self, X: Table, y: object = None, sample_weight: Weights = None) -> float:
        """Return the mean log-density of the rows, so that a search maximises the likelihood.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the mean.

        Returns
        -------
        score : float
            In nats per row.
        """
        scores = self.score_samples(X)
        if sample_weight is None:
            return float(np.mean(scores))
        weight = check_sample_weight(sample_weight, scores, ensure_non_negative=True)
        return float(np.average(scores, weights=weight))

    def _threshold_on(self, X, weight, score_rows):
        """Return the threshold by `contamination`, on training rows.

        A sample of the rows is enough for quartiles; a fraction is meant to be exact, unless there
        is no time for it.
        """
        if self.contamination is None:
            return -np.inf
        few = FENCE_ROWS // (N_POINTS if self.discrete_ else 1)
        n = few if self.contamination == "auto" else len(X)
        if (limit := getattr(self, "time_limit", None)) is not None:
            started = time.perf_counter()
            score_rows(X[:TIMED_ROWS])
            seconds = max(time.perf_counter() - started, 1e-6) / min(len(X), TIMED_ROWS)
            n = min(n, max(TIMED_ROWS, int(THRESHOLD_SHARE * limit / seconds)))
        if n < len(X):
            rows = some_rows(len(X), n)
            X, weight = X[rows], weight[rows]
        return by_contamination(self.contamination, score_rows(X), weight)
