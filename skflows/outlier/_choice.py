"""Choosing among detectors, without labels or with a few."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.base import BaseEstimator

from ..columns.types import Floats, Table


def agreement(detectors: Sequence[BaseEstimator], X: Table) -> Floats:
    """Return how far each of several detectors agrees with the rankings of the others.

    Without labels nothing shows which ranking is right. But good rankings resemble one another,
    while bad ones differ in many ways: the detector that agrees most with the others is a safer
    choice than a random one. The detectors should differ, and most of them should be sensible.

    Parameters
    ----------
    detectors : list of estimators
        Fitted estimators with `score_samples`, such as scikit-learn's outlier detectors.

    X : array-like of shape (n_samples, n_features)
        The rows to be ranked, including the outliers. No labels are needed.

    Returns
    -------
    correlation : ndarray of shape (n_detectors,)
        Rank correlation of each detector's scores with the mean ranks of the others, between -1
        and 1; NaN for a detector that gives all rows the same score.

    References
    ----------
    Ma, Zhao, Zhang & Akoglu, "The Need for Unsupervised Outlier Model Selection: A Review and
    Evaluation of Internal Evaluation Strategies", 2023 (there among other criteria).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import IsolationForest
    >>> from sklearn.mixture import GaussianMixture
    >>> from skflows import DensityOutlierDetector
    >>> from skflows.outlier import agreement
    >>> X = np.random.default_rng(0).standard_normal((300, 2)) @ [[3.0, 2.0], [0.0, 1.0]]
    >>> detectors = [
    ...     DensityOutlierDetector(GaussianMixture()).fit(X),
    ...     DensityOutlierDetector(GaussianMixture(3, random_state=0)).fit(X),
    ...     IsolationForest(random_state=0).fit(X),
    ... ]
    >>> best = detectors[agreement(detectors, X).argmax()]
    """
    if len(detectors) < 2:
        raise ValueError(
            f"detectors has {len(detectors)} entries: agreement needs at least two, and is most "
            "informative with five or more."
        )
    ranks = np.array([stats.rankdata(detector.score_samples(X)) for detector in detectors])
    total = ranks.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array([rank_correlation(ranking, total - ranking) for ranking in ranks])


def rank_correlation(own, others):
    """Return Spearman's correlation of ranks with unranked values; NaN if either is constant."""
    return np.corrcoef(own, stats.rankdata(others))[0, 1]


def outlier_average_precision(estimator: BaseEstimator, X: Table, y: ArrayLike) -> float:
    """Return the average precision of the outliers: a scorer for searches with a few labels.

    scikit-learn's "average_precision" takes the inliers, whose label is 1, as the positive class.
    ("roc_auc" and "balanced_accuracy" are symmetric, but "roc_auc" refuses scores of minus
    infinity.)

    Parameters
    ----------
    estimator : estimator
        A fitted outlier detector or density, with `score_samples`.

    X : array-like of shape (n_samples, n_features)
        The rows.

    y : array-like of shape (n_samples,)
        Their labels: -1 for outliers, 1 for inliers.

    Returns
    -------
    score : float
        Between 0 and 1; the fraction of outliers for a random ranking.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skflows import DensityOutlierDetector
    >>> from skflows.outlier import outlier_average_precision
    >>> X = np.random.default_rng(0).standard_normal((400, 30))
    >>> y = np.where(np.arange(400) % 40 == 0, -1, 1)
    >>> X[y == -1] *= 0.2  # near the peak of the density, where no row should be
    >>> search = GridSearchCV(
    ...     DensityOutlierDetector(GaussianMixture(), random_state=0),
    ...     {"statistic": ["log_density", "typicality"]},
    ...     scoring=outlier_average_precision,
    ... ).fit(X, y)
    >>> search.best_params_
    {'statistic': 'typicality'}
    """
    from sklearn.metrics import average_precision_score  # takes long to import

    outlier = np.asarray(y) == -1
    if not outlier.any():
        raise ValueError("y has no outlier: give -1 for outliers and 1 for inliers.")
    # Ranks, because scikit-learn refuses the log of a density of 0.
    oddness = stats.rankdata(-estimator.score_samples(X))
    return float(average_precision_score(outlier, oddness))
