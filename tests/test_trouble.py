"""What can go wrong in a fit is survived, and said."""

import numpy as np
import pytest
from _densities import N_ROWS, AtEpochEnd, each_estimator, gaussian, small, whole_and_in_batches
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from skflows import _training
from skflows._flow import Flow


@pytest.mark.parametrize("error", [0.01, np.nan])
@each_estimator
def test_broken_inverse_warns(name, error, monkeypatch):
    exact = Flow.inverse

    def broken(self, z, context=None):
        x, log_det = exact(self, z, context)
        return x + error * self.preprocess.scale, log_det

    monkeypatch.setattr(Flow, "inverse", broken)
    with pytest.warns(ConvergenceWarning, match="inverse of the fitted flow is off by"):
        small(name).fit(gaussian(50)[0])


@whole_and_in_batches
@each_estimator
def test_divergence_warns_and_keeps_a_usable_model(name, batch_size, monkeypatch):
    X, _ = gaussian(N_ROWS)
    steps = iter(range(1000))
    exact = _training.weighted_nll

    def diverging(bijection, y, weight):
        return exact(bijection, y, weight) * (1 if next(steps) < 8 else np.nan)

    monkeypatch.setattr(_training, "weighted_nll", diverging)
    estimator = small(name, batch_size=batch_size, max_iter=100, early_stopping=False)
    with pytest.warns(ConvergenceWarning, match="try a smaller learning_rate_init than 0.002"):
        estimator.fit(X)
    check_is_fitted(estimator)
    assert 1 <= estimator.best_iter_ <= estimator.n_iter_ < 100
    assert np.isfinite(estimator.score_samples(X)).all()


@each_estimator
def test_absurd_rate_warns_and_keeps_a_usable_model(name):
    X, _ = gaussian(N_ROWS)
    params = {"batch_size": 16, "max_iter": 20, "early_stopping": True}
    estimator = small(name, learning_rate_init=1e20, **params)
    with pytest.warns(ConvergenceWarning, match=r"smaller learning_rate_init than 1e\+20"):
        estimator.fit(X)
    assert np.isfinite(estimator.score_samples(X)).all()
    assert np.isfinite(estimator.sample(20, random_state=0)).all()


@each_estimator
def test_single_bad_step_is_survived_in_silence(name, monkeypatch):
    X, _ = gaussian(N_ROWS)
    steps = iter(range(1000))
    exact = _training.weighted_nll
    monkeypatch.setattr(
        _training,
        "weighted_nll",
        lambda *args: exact(*args) * (np.nan if next(steps) == 2 else 1),
    )
    estimator = small(name, max_iter=10, early_stopping=False).fit(X)
    assert estimator.n_iter_ == 10
    assert np.isfinite(estimator.score_samples(X)).all()
    assert estimator.history_["learning_rate"][3] < 0.5 * estimator.history_["learning_rate"][1]


@pytest.mark.parametrize("early_stopping", [True, False])
@each_estimator
def test_interrupt_keeps_the_best_and_warns(name, early_stopping):
    X, _ = gaussian(N_ROWS)
    seen = []

    def interrupt(epoch, fitted):
        seen.append(fitted.score_samples(X))
        if epoch == 3:
            raise KeyboardInterrupt

    estimator = small(name, max_iter=50, early_stopping=early_stopping)
    estimator.set_callbacks(AtEpochEnd(interrupt))
    with pytest.warns(UserWarning, match="interrupted after 3 epochs; the best weights"):
        estimator.fit(X)
    assert estimator.n_iter_ == 3
    np.testing.assert_array_equal(estimator.score_samples(X), seen[estimator.best_iter_ - 1])
    assert set(estimator.predict(X)) <= {-1, 1}
