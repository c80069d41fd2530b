"""Fits that diverge, are interrupted or fail, and the warnings about them."""

import time
import warnings

import numpy as np
import pytest
from _densities import (
    KINDS,
    N_ROWS,
    AtEpochEnd,
    accurate,
    banana,
    each_kind,
    each_kind_in_batches,
    gaussian,
    gaussian_log_density,
    small,
    standardization,
)
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

from skflows import (
    CNFDensity,
    ConditionalDensity,
    DensityOutlierDetector,
    FlowRegressor,
    StackedDensity,
)
from skflows.bijections._flow import ContinuousFlow, Flow
from skflows.model_selection import FlowGridSearchCV
from skflows.training import losses


@pytest.mark.parametrize(("name", "error"), [(name, 0.01) for name in KINDS] + [("nsf", np.nan)])
def test_inexact_inverse_warns(name, error, monkeypatch):
    def with_error(exact):
        def inverse(self, z, context=None):
            x, log_det = exact(self, z, context)
            return x + error * standardization(self).scale, log_det

        return inverse

    for flow in (Flow, ContinuousFlow):
        monkeypatch.setattr(flow, "inverse", with_error(flow.inverse))
    with pytest.warns(ConvergenceWarning, match="inverse of the fitted flow errs by"):
        small(name).fit(gaussian(50)[0])


def multiply_losses(monkeypatch, factor):
    """Multiply each loss, of a step or of held-out rows, by what a function returns."""
    exact = losses.weighted_nll
    monkeypatch.setattr(losses, "weighted_nll", lambda *args: exact(*args) * factor())


@each_kind_in_batches
def test_divergence_warns_and_leaves_a_usable_model(name, batch_size, monkeypatch):
    X, _ = gaussian(N_ROWS)
    steps = iter(range(1000))
    multiply_losses(monkeypatch, lambda: 1 if next(steps) < 8 else np.nan)
    params = {"max_iter": 100, "learning_rate_init": 0.002, "early_stopping": False}
    estimator = accurate(name, tolerance=1e-5, batch_size=batch_size, **params)
    with pytest.warns(ConvergenceWarning, match="a learning_rate_init smaller than 0.002"):
        estimator.fit(X)
    check_is_fitted(estimator)
    assert 1 <= estimator.best_iter_ <= estimator.n_iter_ < 100
    assert np.isfinite(estimator.score_samples(X)).all()


@each_kind
def test_absurd_learning_rate_warns_and_leaves_a_usable_model(name):
    X, _ = gaussian(N_ROWS)
    params = {"batch_size": 16, "max_iter": 20, "early_stopping": True}
    estimator = small(name, learning_rate_init=1e20, **params)
    with pytest.warns(ConvergenceWarning, match=r"learning_rate_init smaller than 1e\+20"):
        estimator.fit(X)
    assert np.isfinite(estimator.score_samples(X)).all()
    assert np.isfinite(estimator.sample(20, random_state=0)).all()


@each_kind
def test_single_step_that_is_not_finite_does_not_warn(name, monkeypatch):
    X, _ = gaussian(N_ROWS)
    steps = iter(range(1000))
    multiply_losses(monkeypatch, lambda: np.nan if next(steps) == 2 else 1)
    params = {"max_iter": 10, "early_stopping": False}
    estimator = accurate(name, tolerance=1e-5, **params).fit(X)
    assert estimator.n_iter_ == 10
    assert np.isfinite(estimator.score_samples(X)).all()
    assert estimator.history_["learning_rate"][3] < 0.5 * estimator.history_["learning_rate"][1]


@pytest.mark.parametrize(
    ("name", "early_stopping"), [(name, True) for name in KINDS] + [("nsf", False)]
)
def test_interrupted_fit_warns_and_keeps_the_best_weights(name, early_stopping):
    X, _ = gaussian(100)
    seen = []

    def interrupt(epoch, fitted):
        seen.append(fitted.score_samples(X))
        if epoch == 3:
            raise KeyboardInterrupt

    params = {"max_iter": 50, "batch_size": 16, "early_stopping": early_stopping}
    estimator = accurate(name, tolerance=1e-5, **params).set_callbacks(AtEpochEnd(interrupt))
    with pytest.warns(UserWarning, match="interrupted after 3 epochs; the best weights"):
        estimator.fit(X)
    assert estimator.n_iter_ == 3
    assert estimator.best_iter_ >= 1
    np.testing.assert_array_equal(estimator.score_samples(X), seen[estimator.best_iter_ - 1])
    assert set(estimator.predict(X)) <= {-1, 1}


@each_kind
def test_failed_fit_leaves_an_unfitted_estimator(name):
    estimator = small(name, device="nowhere")
    with pytest.raises(ValueError, match="device='nowhere'"):
        estimator.fit(gaussian(50)[0])
    with pytest.raises(NotFittedError):
        estimator.score_samples(gaussian(50)[0])


@each_kind
def test_warnings_as_errors_leave_a_fitted_estimator(name):
    X, _ = gaussian(50)

    def interrupt(estimator, context):
        raise KeyboardInterrupt

    estimator = small(name).set_callbacks(AtEpochEnd(interrupt))
    with pytest.raises(UserWarning, match="interrupted"):
        estimator.fit(X)
    assert np.isfinite(estimator.score_samples(X)).all()


@pytest.mark.parametrize("batch_size", ["auto", 16])
@pytest.mark.parametrize("magnitude", [1e-300, 1e-50, 1e50, 1e308])
def test_magnitude_of_weights_does_not_matter(magnitude, batch_size):
    X, _ = gaussian(60)
    plain = small("maf", batch_size=batch_size).fit(X)
    weighted = small("maf", batch_size=batch_size).fit(X, sample_weight=np.full(60, magnitude))
    np.testing.assert_allclose(weighted.score_samples(X), plain.score_samples(X), rtol=1e-4)


@each_kind
def test_warm_start_does_not_lower_the_score(name):
    X, _ = gaussian(100)
    estimator = accurate(name, tolerance=1e-5, warm_start=True, max_iter=15).fit(X)
    held_out, _ = gaussian(500, seed=1)
    before = estimator.score(held_out)
    estimator.set_params(max_iter=1, learning_rate_init=0.9).fit(X)
    assert estimator.score(held_out) > before - 0.05


@each_kind
def test_short_fit_without_a_finite_step_warns(name, monkeypatch):
    multiply_losses(monkeypatch, lambda: np.nan)
    with pytest.warns(ConvergenceWarning, match="repeatedly not finite"):
        small(name, max_iter=3, early_stopping=False).fit(gaussian(50)[0])


def test_partial_fit_continues_after_steps_that_are_not_finite():
    X, _ = gaussian(50)
    estimator = small("maf", learning_rate_init=1e20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(4):
            estimator.partial_fit(X)
    assert np.isfinite(estimator.score_samples(X)).all()


def test_failed_refit_leaves_an_unfitted_estimator():
    """Not the old flow on the columns of the new table."""
    estimator = small("nsf").fit(banana(60))
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        estimator.set_params(hidden_layer_sizes=(0,)).fit(banana(60, seed=1) + 100)
    with pytest.raises(NotFittedError):
        estimator.score_samples(banana(5))


def test_rejected_increment_changes_nothing():
    X = np.random.default_rng(0).poisson(1, (60, 2)).clip(0, 3).astype(float)
    estimator = small("nsf", bounds=[(0, 4)] * 2).partial_fit(X)
    before = estimator.sample(50, random_state=0)
    with pytest.raises(ValueError, match="not within bounds"):
        estimator.partial_fit(X + 100)
    np.testing.assert_array_equal(estimator.sample(50, random_state=0), before)


FLOW = small("maf", max_iter=9, early_stopping=False)  # whose folds do not train together
NESTED = {
    "detector": DensityOutlierDetector(FLOW, calibration="conformal", cv=3, random_state=0),
    "stacked": StackedDensity([("flow", FLOW)], cv=3),
    "search": FlowGridSearchCV(FLOW, {"dropout": [0.0, 0.1]}, cv=3),
}


@pytest.mark.filterwarnings("ignore:Training was interrupted")
@pytest.mark.parametrize("name", ["detector", "stacked", "search"])
def test_interrupt_ends_the_whole_fit(name, interrupt):
    """Not only that of one flow, after which the next one would train."""
    estimator = clone(NESTED[name])
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(banana(40))
    assert len(interrupt) == 3
    assert not {"models_", "estimators_", "best_estimator_"} & set(vars(estimator))


def test_interrupt_of_a_fold_does_not_say_that_its_flow_is_kept(interrupt):
    with warnings.catch_warnings(), pytest.raises(KeyboardInterrupt):
        warnings.simplefilter("error")
        clone(NESTED["detector"]).fit(banana(40))


def test_interrupt_of_folds_that_train_together_warns_once(interrupt):
    X = banana(40)
    regressor = FlowRegressor(ConditionalDensity(small("maf", max_iter=9), cv=3))
    with pytest.warns(UserWarning, match="interrupted after 2 epochs") as caught:
        regressor.fit(X[:, :1], X[:, 1])
    assert len(caught) == 1
    assert len(interrupt) == 3


@pytest.mark.filterwarnings("ignore:Training was interrupted")
@pytest.mark.parametrize("calibration", ["auto", 0.6])
def test_few_rows_calibrate_after_an_interrupt(interrupt, monkeypatch, calibration):
    """It would take longer than the epoch that the user did not wait for."""
    monkeypatch.setattr("skflows.conditional._regressor.FEW_ROWS", 30)
    X = banana(120)
    density = ConditionalDensity(small("maf", max_iter=9), cv=3)
    regressor = FlowRegressor(density, calibration=calibration, random_state=0)
    regressor.fit(X[:, :1], X[:, 1])
    assert [len(scores) for scores in regressor.calibration_scores_.values()] == [30, 30]
    low, high = regressor.predict_interval(X[:, :1]).T
    assert (np.isfinite(low) & (low < high)).all()


@pytest.mark.filterwarnings("ignore:Training was interrupted")
def test_interrupt_keeps_a_density_that_is_whole(interrupt):
    detector = DensityOutlierDetector(FLOW).fit(banana(40))
    assert len(interrupt) == 3
    assert np.isfinite(detector.score_samples(banana(40))).all()


def test_time_limit_bounds_the_whole_fit():
    """Threshold and check of the inverse included, which take longer than the training here."""
    X = np.random.default_rng(0).standard_normal((4000, 20))
    estimator = CNFDensity(time_limit=0.5, contamination=0.1, random_state=0)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X)
    assert time.perf_counter() - started < 10  # 1 s on an idle machine; a minute without the bound


@each_kind
def test_divergence_without_held_out_rows_keeps_the_initial_weights(name):
    """The latest weights are those that diverged."""
    X = gaussian(60)[0]
    estimator = small(name, learning_rate_init=1e20, early_stopping=False, max_iter=8)
    with pytest.warns(ConvergenceWarning, match=r"best weights so far are kept \(the initial ones"):
        estimator.fit(X)
    assert np.isfinite(estimator.offset_)
    assert estimator.score(X) > gaussian_log_density(X).mean() - 5


def test_threshold_that_flags_more_of_other_rows_warns_at_the_line_of_the_user():
    X = banana(200)
    shifted = X[:50] + np.array([2.0, 0.0])
    estimator = small("nsf", contamination=0.05)
    with pytest.warns(UserWarning, match=r"contamination=0.05 flags .* but 0\.\d+ of") as caught:
        estimator.fit(X, X_val=shifted)
    assert caught[0].filename == __file__
    estimator.fit(X, X_val=X[:50])
    estimator.set_params(contamination=None).fit(X, X_val=shifted)
