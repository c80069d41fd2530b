"""What can go wrong in a fit is survived, and said."""

import warnings

import numpy as np
import pytest
from _densities import (
    N_ROWS,
    AtEpochEnd,
    each_estimator,
    gaussian,
    small,
    standardization,
    whole_and_in_batches,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

from skflows.training import losses as _objective
from skflows.bijections._flow import ContinuousFlow, Flow


@pytest.mark.parametrize("error", [0.01, np.nan])
@each_estimator
def test_broken_inverse_warns(name, error, monkeypatch):
    def broken(exact):
        def inverse(self, z, context=None):
            x, log_det = exact(self, z, context)
            return x + error * standardization(self).scale, log_det

        return inverse

    for flow in (Flow, ContinuousFlow):
        monkeypatch.setattr(flow, "inverse", broken(flow.inverse))
    with pytest.warns(ConvergenceWarning, match="inverse of the fitted flow is off by"):
        small(name).fit(gaussian(50)[0])


def multiply_losses(monkeypatch, factor):
    """Multiply each loss, of a step or of held-out rows, by what a function returns."""
    exact, of_a_step = _objective.weighted_nll, _objective._weighted_nll_fused

    def multiplied(*args):
        loss, *gradients = of_a_step(*args)
        return loss * factor(), *gradients

    monkeypatch.setattr(_objective, "weighted_nll", lambda *args: exact(*args) * factor())
    monkeypatch.setattr(_objective, "_weighted_nll_fused", multiplied)


@whole_and_in_batches
@each_estimator
def test_divergence_warns_and_keeps_a_usable_model(name, batch_size, monkeypatch):
    X, _ = gaussian(N_ROWS)
    steps = iter(range(1000))
    multiply_losses(monkeypatch, lambda: 1 if next(steps) < 8 else np.nan)
    params = {"max_iter": 100, "learning_rate_init": 0.002, "early_stopping": False}
    estimator = small(name, batch_size=batch_size, **params)
    with pytest.warns(ConvergenceWarning, match="a learning_rate_init smaller than 0.002"):
        estimator.fit(X)
    check_is_fitted(estimator)
    assert 1 <= estimator.best_iter_ <= estimator.n_iter_ < 100
    assert np.isfinite(estimator.score_samples(X)).all()


@each_estimator
def test_absurd_rate_warns_and_keeps_a_usable_model(name):
    X, _ = gaussian(N_ROWS)
    params = {"batch_size": 16, "max_iter": 20, "early_stopping": True}
    estimator = small(name, learning_rate_init=1e20, **params)
    with pytest.warns(ConvergenceWarning, match=r"learning_rate_init smaller than 1e\+20"):
        estimator.fit(X)
    assert np.isfinite(estimator.score_samples(X)).all()
    assert np.isfinite(estimator.sample(20, random_state=0)).all()


@each_estimator
def test_single_bad_step_is_survived_in_silence(name, monkeypatch):
    X, _ = gaussian(N_ROWS)
    steps = iter(range(1000))
    multiply_losses(monkeypatch, lambda: np.nan if next(steps) == 2 else 1)
    estimator = small(name, max_iter=10, early_stopping=False).fit(X)
    assert estimator.n_iter_ == 10
    assert np.isfinite(estimator.score_samples(X)).all()
    assert estimator.history_["learning_rate"][3] < 0.5 * estimator.history_["learning_rate"][1]


@pytest.mark.parametrize("early_stopping", [True, False])
@each_estimator
def test_interrupt_keeps_the_best_and_warns(name, early_stopping):
    X, _ = gaussian(400)
    seen = []

    def interrupt(epoch, fitted):
        seen.append(fitted.score_samples(X))
        if epoch == 3:
            raise KeyboardInterrupt

    params = {"max_iter": 50, "batch_size": 16, "early_stopping": early_stopping}
    estimator = small(name, **params).set_callbacks(AtEpochEnd(interrupt))
    with pytest.warns(UserWarning, match="interrupted after 3 epochs; the best weights"):
        estimator.fit(X)
    assert estimator.n_iter_ == 3
    assert estimator.best_iter_ >= 1
    np.testing.assert_array_equal(estimator.score_samples(X), seen[estimator.best_iter_ - 1])
    assert set(estimator.predict(X)) <= {-1, 1}


@each_estimator
def test_failed_fit_leaves_an_unfitted_estimator(name):
    estimator = small(name, device="nowhere")
    with pytest.raises(ValueError, match="device='nowhere'"):
        estimator.fit(gaussian(50)[0])
    with pytest.raises(NotFittedError):
        estimator.score_samples(gaussian(50)[0])


@each_estimator
def test_warnings_as_errors_lose_nothing(name):
    X, _ = gaussian(50)

    def interrupt(estimator, context):
        raise KeyboardInterrupt

    estimator = small(name).set_callbacks(AtEpochEnd(interrupt))
    with pytest.raises(UserWarning, match="interrupted"):
        estimator.fit(X)
    assert np.isfinite(estimator.score_samples(X)).all()


@pytest.mark.parametrize("batch_size", ["auto", 16])
@pytest.mark.parametrize("magnitude", [1e-300, 1e-50, 1e50, 1e308])
def test_weights_of_any_magnitude(magnitude, batch_size):
    X, _ = gaussian(60)
    plain = small("maf", batch_size=batch_size).fit(X)
    weighted = small("maf", batch_size=batch_size).fit(X, sample_weight=np.full(60, magnitude))
    np.testing.assert_allclose(weighted.score_samples(X), plain.score_samples(X), rtol=1e-4)


@each_estimator
def test_warm_start_does_not_get_worse(name):
    X, _ = gaussian(100)
    estimator = small(name, warm_start=True, max_iter=30).fit(X)
    held_out, _ = gaussian(1000, seed=1)
    before = estimator.score(held_out)
    estimator.set_params(max_iter=1, learning_rate_init=0.9).fit(X)
    assert estimator.score(held_out) > before - 0.05


@each_estimator
def test_no_good_step_in_few_epochs_warns_too(name, monkeypatch):
    multiply_losses(monkeypatch, lambda: np.nan)
    with pytest.warns(ConvergenceWarning, match="not finite again and again"):
        small(name, max_iter=3, early_stopping=False).fit(gaussian(50)[0])


def test_partial_fit_survives_a_step_that_was_not_finite():
    X, _ = gaussian(50)
    estimator = small("maf", learning_rate_init=1e20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(4):
            estimator.partial_fit(X)
    assert np.isfinite(estimator.score_samples(X)).all()
