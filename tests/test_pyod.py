"""Our detectors among those of PyOD."""

import numpy as np
import pytest
from _densities import banana, small
from scipy import stats
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from skflows import DensityOutlierDetector, StackedDensity
from skflows.outlier import PyODDetector

ODD = np.array([[0.0, -6.0], [4.0, 0.0], [-3.0, -3.0], [0.0, 9.0], [4.0, 4.0]])
X = np.concatenate([banana(95), ODD])
STACK = StackedDensity([("kernels", KernelDensity(bandwidth=0.1))], cv=3, random_state=0)
ESTIMATORS = {
    "flow": small("nsf"),
    "mixture": GaussianMixture(3, random_state=0),
    "detector": DensityOutlierDetector(GaussianMixture(3, random_state=0)),
    "forest": IsolationForest(random_state=0),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_scores_and_labels_have_the_polarity_of_pyod(name):
    detector = PyODDetector(ESTIMATORS[name], contamination=0.05).fit(X)
    scores = detector.decision_function(X)
    np.testing.assert_array_equal(scores, -detector.estimator_.score_samples(X))
    np.testing.assert_array_equal(detector.decision_scores_, scores)
    np.testing.assert_array_equal(detector.labels_, scores > detector.threshold_)
    np.testing.assert_array_equal(detector.predict(X), detector.labels_)
    assert detector.labels_.sum() == 5
    assert detector.labels_[-5:].sum() >= 3


def test_rows_of_fit_are_judged_by_held_out_scores():
    """Narrow kernels give each row of `fit` a high density."""
    detector = PyODDetector(STACK, contamination=0.05).fit(X)
    np.testing.assert_array_equal(detector.decision_scores_, -detector.estimator_.held_out_scores_)
    assert detector.labels_[-5:].all()
    few = clone(STACK).set_params(cv=[(np.arange(50), np.arange(50, 100))])
    detector = PyODDetector(few).fit(X)
    np.testing.assert_array_equal(detector.decision_scores_, detector.decision_function(X))


def test_probabilities_and_confidences_are_what_pyod_defines():
    """Written out for one detector; the test below compares with PyOD where it is installed."""
    detector = PyODDetector(GaussianMixture(3, random_state=0), contamination=0.05).fit(X)
    known, odd = detector.decision_scores_, np.array([[0.0, 50.0]])
    probabilities, confidence = detector.predict_proba(X, return_confidence=True)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    linear = (known - known.min()) / (known.max() - known.min())
    np.testing.assert_allclose(probabilities[:, 1], linear)
    assert (
        detector.predict_proba(odd)[0, 1] == detector.predict_proba(odd, method="unify")[0, 1] == 1
    )
    middle = X[[np.argsort(known)[50]]]
    assert 0 <= detector.predict_proba(middle, method="unify")[0, 1] < 0.6
    labels, same = detector.predict(X, return_confidence=True)
    np.testing.assert_array_equal(labels, detector.fit_predict(X))
    np.testing.assert_array_equal(same, confidence)
    np.testing.assert_array_equal(detector.predict_confidence(X), confidence)
    # A row beyond all others: that 95 of 100 rows or fewer lie below it has this probability.
    n_below = stats.binom(100, 101 / 102)
    np.testing.assert_allclose(detector.predict_confidence(odd), n_below.sf(95))
    with pytest.raises(ValueError, match="method='rank'; choose one of"):
        detector.predict_proba(X, method="rank")


def test_methods_agree_with_base_detector():
    """Of PyOD, a class that takes our scores in its own way of calculating the rest."""
    base = pytest.importorskip("pyod.models.base")

    class Reference(base.BaseDetector):
        def __init__(self, contamination):
            super().__init__(contamination)

        def fit(self, X, y=None):
            self.mixture_ = GaussianMixture(3, random_state=0).fit(X)
            self.decision_scores_ = self.decision_function(X)
            self._set_n_classes(y)
            self._process_decision_scores()

        def decision_function(self, X):
            return -self.mixture_.score_samples(X)

    reference = Reference(0.05)
    reference.fit(X)
    detector = PyODDetector(GaussianMixture(3, random_state=0), contamination=0.05).fit(X)
    np.testing.assert_array_equal(detector.labels_, reference.labels_)
    reference.threshold_ = detector.threshold_  # PyOD interpolates between two scores
    for method in ("linear", "unify"):
        ours = detector.predict_proba(X + 0.1, method=method, return_confidence=True)
        theirs = reference.predict_proba(X + 0.1, method=method, return_confidence=True)
        np.testing.assert_allclose(ours[0], theirs[0])
        np.testing.assert_allclose(ours[1], theirs[1])
    np.testing.assert_array_equal(*[d.predict(X + 0.1) for d in (detector, reference)])


def test_parameters_are_checked():
    with pytest.raises(ValueError, match=r"'contamination' parameter .* \(0\.0, 0\.5\].* 0\.6"):
        PyODDetector(STACK, contamination=0.6).fit(X)
    with pytest.raises(ValueError, match="'estimator' parameter"):
        PyODDetector(5).fit(X)
