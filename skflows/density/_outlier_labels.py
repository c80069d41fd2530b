"""Scores and outlier labels of a density."""

import math
import time
from numbers import Real

import numpy as np
from sklearn.base import DensityMixin, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from ..columns.arrays import some_rows, validate_rows
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.dequantizer import N_POINTS
from ..preprocessing.sklearn_compat import check_sample_weight, weighted_percentile

FENCE_ROWS = 5_000  # enough to estimate quartiles
TIMED_ROWS = 100  # that tell how long a score takes
THRESHOLD_SHARE = 0.1  # of a time limit
SURE = 3  # standard deviations
LOWEST = np.finfo(float).min / 4  # stands for a density of 0 in quantiles
TIE = 1e-9  # relative difference of two scores that are equal up to rounding


def lowered(scores):
    """Return scores to compare others with, each lower by more than a rounding error.

    A row's score may differ by a rounding error between two batches. Rows with equal values have
    equal scores up to that: a comparison must be true for all of them or for none. With lower
    scores to compare with, such rows are inliers, and p-values are larger, so they stay valid.
    """
    scores = np.asarray(scores, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # infinite scores stay as they are
        lower = scores - TIE * np.maximum(1, np.abs(scores))
    return np.where(np.isfinite(scores), lower, scores)


def flags_more(scores, threshold, fraction, weight=None):
    """Whether a threshold flags more than a fraction of rows with these scores, beyond chance."""
    weight = np.ones(len(scores)) if weight is None else weight
    if not len(scores):
        return False
    n = weight.sum() ** 2 / (weight**2).sum()  # Kish's effective number of rows
    chance = SURE * math.sqrt(fraction * (1 - fraction) / n)
    return bool(np.average(scores < threshold, weights=weight) > fraction + chance)


def lower_fence(scores, weight):
    """Return the lower Tukey fence of weighted scores, Q1 - 1.5 (Q3 - Q1)."""
    first, third = (weighted_percentile(scores, weight, rank, average=True) for rank in (25, 75))
    return float(lowered(first - 1.5 * (third - first)))


class OutlierLabelsMixin(PersistenceMixin, OutlierMixin):
    """Scores and outlier labels, from `_score_rows` and `offset_`."""

    def __sklearn_is_fitted__(self):
        return hasattr(self, "offset_")

    def score_samples(self, X):
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

    def decision_function(self, X):
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

    def predict(self, X):
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
        return np.where(self.score_samples(X) >= self.offset_, 1, -1)

    def fit_predict(self, X, y=None, **kwargs):
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
            -1 for outliers, 1 for inliers: the result of `predict`, or that of the held-out scores
            of the rows if these set the threshold.
        """
        labels = super().fit_predict(X, y, **kwargs)
        if not getattr(self, "_judges_held_out", False):
            return labels
        scores = self.held_out_scores_
        return np.where(np.isnan(scores), labels, np.where(scores >= self.offset_, 1, -1))


class OutlierDensityMixin(OutlierLabelsMixin, DensityMixin):
    """Outlier labels of a density, whose threshold the parameter `contamination` sets."""

    def score(self, X, y=None, sample_weight=None):
        """Return the mean log-density of the rows, so that a search maximises the likelihood.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Importance of each row in the mean.

        Returns
        -------
        score : float
            In nats per row.
        """
        scores = self.score_samples(X)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, scores, ensure_non_negative=True)
        return float(np.average(scores, weights=sample_weight))

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
        return self._outlier_threshold(score_rows(X), weight)

    def _held_out_threshold(self, held_out, importance, scores_of_fit):
        """Return the attributes of a threshold on held-out scores.

        Parameters
        ----------
        held_out, importance : ndarray of shape (m,)
            Scores of rows by models that have not seen them, and their weights.
        scores_of_fit : callable
            Returns the scores of the rows of `fit`, and their weights, which a fraction needs.
        """
        if isinstance(self.contamination, Real):
            return self._fraction_threshold(*scores_of_fit(), held_out, importance)
        is_known = np.isfinite(held_out)
        threshold = self._outlier_threshold(held_out[is_known], importance[is_known])
        return {"offset_": threshold, "_judges_held_out": False}

    def _fraction_threshold(self, scores, weight, held_out, importance):
        """Return the attributes of a threshold by a fraction of the rows of `fit`.

        It is the quantile of their scores, as in scikit-learn, unless it would flag many more of
        the rows that were held out, because the model fits the others better. Then it is the
        quantile of held-out scores.

        Parameters
        ----------
        scores, weight : ndarray of shape (n,)
            Scores of the rows of `fit`, and their weights.
        held_out, importance : ndarray of shape (m,)
            Scores of rows by models that have not seen them, and their weights.
        """
        threshold = self._outlier_threshold(scores, weight)
        contradicts = flags_more(held_out, threshold, self.contamination, importance)
        if contradicts:
            threshold = self._outlier_threshold(np.maximum(held_out, LOWEST), importance)
        return {"offset_": threshold, "_judges_held_out": contradicts}

    def _outlier_threshold(self, scores, weight):
        """Return the threshold by `contamination`, from the scores of rows."""
        if self.contamination is None:
            return -np.inf
        if self.contamination == "auto":
            return lower_fence(scores, weight)
        rank = 100 * self.contamination
        return float(lowered(weighted_percentile(scores, weight, rank, average=True)))
