"""Our detectors among those of PyOD."""

import numpy as np
import pytest
from _densities import banana, small
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


def test_parameters_are_checked():
    with pytest.raises(ValueError, match=r"'contamination' parameter .* \(0\.0, 0\.5\].* 0\.6"):
        PyODDetector(STACK, contamination=0.6).fit(X)
    with pytest.raises(ValueError, match="'estimator' parameter"):
        PyODDetector(5).fit(X)
