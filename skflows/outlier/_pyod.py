"""The interface of PyOD's detectors, for its combinations of detectors."""

from numbers import Real
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from ..columns.types import Floats, Labels, Table
from ..density._third_party import fit_density, is_frozen
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import HasMethods, Interval
from ..training.threads import fit_context


class PyODDetector(PersistenceMixin, MetaEstimatorMixin, BaseEstimator):
    """A density or outlier detector with the part of PyOD's interface that combinations use.

    PyOD's conventions are opposite to scikit-learn's: higher scores are more abnormal, and outliers
    have the label 1. The combinations of PyOD, such as SUOD and LSCP, take this detector as one of
    their own. PyOD need not be installed.

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

    def predict(self, X: Table) -> Labels:
        """Label each row as an inlier or an outlier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            1 for outliers, 0 for inliers.
        """
        return self._label(self.decision_function(X))

    def _label(self, scores):
        return (scores > self.threshold_).astype(int)
