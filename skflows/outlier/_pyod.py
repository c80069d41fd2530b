"""The interface of PyOD's detectors, for its combinations of detectors."""

from numbers import Real
from typing import Self

import numpy as np
from scipy.special import erf
from scipy.stats import binom
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from ..columns.types import Floats, Labels, Table
from ..density._third_party import fit_density, is_frozen
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import HasMethods, Interval
from ..training.threads import fit_context

METHODS = "linear", "unify"  # of `predict_proba`


class PyODDetector(PersistenceMixin, MetaEstimatorMixin, BaseEstimator):
    """A density or outlier detector with the interface of PyOD's detectors.

    PyOD's conventions are opposite to scikit-learn's: higher scores are more abnormal, and outliers
    have the label 1. The combinations of PyOD, such as SUOD and LSCP, take this detector as one of
    their own. It has the attributes and methods of PyOD's `BaseDetector`, except
    `fit_predict_score`, `predict_with_rejection` and `compute_rejection_stats`. PyOD need not be
    installed.

    Parameters
    ----------
    estimator : estimator
        A density or outlier detector with `fit` and `score_samples`, such as
        `skflows.DensityOutlierDetector` or `sklearn.ensemble.IsolationForest`.

    contamination : float, default=0.1
        Fraction of outliers in the rows of `fit`, which sets `threshold_`. That of the estimator is
        not used.

    Attributes
    ----------
    estimator_ : estimator
        The fitted estimator.

    decision_scores_ : ndarray of shape (n_samples,)
        Scores of the rows of `fit`: minus the `held_out_scores_` of the estimator if it has one for
        every row, otherwise minus the scores by `score_samples`.

    threshold_ : float
        Quantile of these scores above which a row is an outlier.

    labels_ : ndarray of shape (n_samples,)
        Labels of the rows of `fit` by these scores: 1 for outliers, 0 for inliers. Those of
        `predict` may differ, because a model knows the rows that it was fitted to.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skflows.outlier import PyODDetector
    >>> X = np.random.default_rng(0).standard_normal((300, 2))
    >>> detector = PyODDetector(GaussianMixture(), contamination=0.05).fit(X)
    >>> int(detector.labels_.sum())
    15
    >>> detector.predict([[0.0, 0.0], [6.0, 0.0]])
    array([0, 1])
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "score_samples"])],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
    }

    def __init__(self, estimator, *, contamination=0.1):
        self.estimator = estimator
        self.contamination = contamination

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: object = None) -> Self:
        """Fit the estimator, and label the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted detector.
        """
        validate_data(self, X, skip_check_array=True)  # the estimator checks the rest
        self.estimator_ = fit_density(clone(self.estimator), X)
        scores = getattr(self.estimator_, "held_out_scores_", None)
        if scores is None or is_frozen(self.estimator_) or np.isnan(scores).any():
            scores = self.estimator_.score_samples(X)
        self.decision_scores_ = -scores
        self.threshold_ = float(
            np.quantile(self.decision_scores_, 1 - self.contamination, method="lower")
        )
        self.labels_ = self._label(self.decision_scores_)
        return self

    def decision_function(self, X: Table) -> Floats:
        """Return the score of each row: the higher, the more abnormal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Minus the scores of the estimator.
        """
        check_is_fitted(self)
        validate_data(self, X, reset=False, skip_check_array=True)
        return -self.estimator_.score_samples(X)

    def predict(self, X: Table, return_confidence: bool = False) -> Labels | tuple[Labels, Floats]:
        """Label each row as an inlier or an outlier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        return_confidence : bool, default=False
            Whether to return `predict_confidence` too.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            1 for outliers, 0 for inliers.

        confidence : ndarray of shape (n_samples,)
            Only with `return_confidence=True`.
        """
        scores = self.decision_function(X)
        labels = self._label(scores)
        return (labels, self._confidence(scores)) if return_confidence else labels

    def fit_predict(self, X: Table, y: object = None) -> Labels:
        """Fit the estimator, and return the labels of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            `labels_`: 1 for outliers, 0 for inliers.
        """
        return self.fit(X).labels_

    def predict_proba(
        self, X: Table, method: str = "linear", return_confidence: bool = False
    ) -> Floats | tuple[Floats, Floats]:
        """Map the score of each row to a number between 0 and 1.

        PyOD calls it a probability. `DensityOutlierDetector.p_values` has error rates that hold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        method : {"linear", "unify"}, default="linear"
            "linear" maps the least of `decision_scores_` to 0 and the largest to 1. "unify" assumes
            that they are normal, as `Kriegel et al. (2011)
            <https://doi.org/10.1137/1.9781611972818.2>`_ do.

        return_confidence : bool, default=False
            Whether to return `predict_confidence` too.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, 2)
            That the row is an inlier, and that it is an outlier.

        confidence : ndarray of shape (n_samples,)
            Only with `return_confidence=True`.
        """
        if method not in METHODS:
            raise ValueError(f"method={method!r}; choose one of {list(METHODS)}.")
        scores = self.decision_function(X)
        known = self.decision_scores_
        if method == "linear":
            outlier = (scores - known.min()) / (np.ptp(known) or 1.0)
        else:
            outlier = erf((scores - known.mean()) / (known.std() or 1.0) / np.sqrt(2))
        outlier = np.clip(outlier, 0, 1)
        probabilities = np.column_stack([1 - outlier, outlier])
        return (probabilities, self._confidence(scores)) if return_confidence else probabilities

    def predict_confidence(self, X: Table) -> Floats:
        """Return the probability that each label stays the same if training rows are drawn again.

        See `Perini et al. (2020) <https://doi.org/10.1007/978-3-030-67664-3_14>`_.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        confidence : ndarray of shape (n_samples,)
            Between 0 and 1.
        """
        return self._confidence(self.decision_function(X))

    def _label(self, scores):
        return (scores > self.threshold_).astype(int)

    def _confidence(self, scores):
        n = len(self.decision_scores_)
        n_below = np.searchsorted(np.sort(self.decision_scores_), scores, side="right")
        n_inliers = n - int(n * self.contamination)
        is_flagged = binom.sf(n_inliers, n, (1 + n_below) / (2 + n))
        return np.where(self._label(scores) == 1, is_flagged, 1 - is_flagged)
