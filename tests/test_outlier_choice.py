"""Choosing among outlier detectors, without labels or with a few."""

import numpy as np
import pytest
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, get_scorer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KernelDensity, LocalOutlierFactor

from skflows import DensityOutlierDetector
from skflows.outlier import agreement, outlier_average_precision


class Given(BaseEstimator):
    """A detector with given scores."""

    def __init__(self, scores):
        self.scores = scores

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return np.asarray(self.scores, dtype=float)


def rows_with_outliers(seed=0, n=200, n_outliers=10):
    """Return rows of two correlated columns, whose first rows are outliers, and the labels."""
    rng = np.random.default_rng(seed)
    X = rng.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], n)
    X[:n_outliers, 1] = -np.sign(X[:n_outliers, 0]) * rng.uniform(1.5, 3, n_outliers)
    return X, np.where(np.arange(n) < n_outliers, -1, 1)


def test_agreement_is_the_rank_correlation_with_the_mean_ranks_of_the_others():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((4, 50))
    scores[2] = np.round(scores[2])  # ties
    scores[3] = scores[0] ** 3  # same ranks
    found = agreement([Given(some) for some in scores], np.zeros((50, 1)))
    ranks = np.array([stats.rankdata(some) for some in scores])
    for i in range(4):
        others = np.delete(ranks, i, axis=0).mean(axis=0)
        assert found[i] == pytest.approx(stats.spearmanr(scores[i], others)[0])
    assert found[3] == found[0]


def test_agreement_of_reversed_and_constant_scores():
    up = np.arange(9)
    detectors = [Given(up), Given(up), Given(up**2), Given(-up), Given(np.ones(9))]
    np.testing.assert_allclose(agreement(detectors[:2], up[:, None]), [1, 1])
    found = agreement(detectors, up[:, None])
    np.testing.assert_array_equal(np.isnan(found), [False] * 4 + [True])
    assert found[3] == pytest.approx(-1)
    with pytest.raises(ValueError, match="detectors has 1 entries: agreement needs at least two"):
        agreement(detectors[:1], up[:, None])


def test_agreement_is_lowest_for_random_scores():
    X, y = rows_with_outliers()
    noise = np.random.default_rng(1).standard_normal(len(X))
    detectors = [
        Given(noise),
        *(
            DensityOutlierDetector(GaussianMixture(k, random_state=0)).fit(X[y == 1])
            for k in (1, 3)
        ),
        IsolationForest(random_state=0).fit(X[y == 1]),
        LocalOutlierFactor(novelty=True).fit(X[y == 1]),
    ]
    assert agreement(detectors, X).argmin() == 0
    best = detectors[agreement(detectors, X).argmax()]
    assert outlier_average_precision(best, X, y) > 0.9
    assert outlier_average_precision(detectors[0], X, y) < 0.2


def test_scorer_is_the_average_precision_of_the_outliers():
    X, y = rows_with_outliers()
    fitted = DensityOutlierDetector(GaussianMixture()).fit(X)
    expected = average_precision_score(y == -1, -fitted.score_samples(X))
    assert outlier_average_precision(fitted, X, y) == expected
    # In scikit-learn's scorer, the inliers are the positive class.
    inliers = average_precision_score(y == 1, fitted.score_samples(X))
    assert get_scorer("average_precision")(fitted, X, y) == pytest.approx(inliers)
    assert abs(expected - inliers) > 0.01


def test_scorer_accepts_infinite_scores():
    X, y = rows_with_outliers()
    X[y == -1] += 50
    density = KernelDensity(kernel="tophat").fit(X[y == 1])
    assert np.isneginf(density.score_samples(X)).any()
    assert outlier_average_precision(density, X, y) == 1.0


def test_search_with_few_labels_finds_the_best_statistic():
    """In many columns, rows near the mode are outliers that only typicality detects."""
    X = np.random.default_rng(0).standard_normal((400, 30))
    y = np.where(np.arange(400) < 8, -1, 1)
    X[y == -1] *= 0.2
    search = GridSearchCV(
        DensityOutlierDetector(GaussianMixture(), random_state=0),
        {"statistic": ["log_density", "typicality"]},
        cv=StratifiedKFold(2),
        scoring=outlier_average_precision,
    ).fit(X, y)
    assert search.best_params_ == {"statistic": "typicality"}
    assert search.best_score_ > 0.4
    assert min(search.cv_results_["mean_test_score"]) < 0.1


@pytest.mark.parametrize("y", [np.ones(20), np.arange(20) % 2])
def test_labels_without_outliers_are_an_error(y):
    with pytest.raises(ValueError, match="y has no outlier: give -1"):
        outlier_average_precision(Given(np.zeros(20)), np.zeros((20, 1)), y)
