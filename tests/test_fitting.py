"""Fits: warm starts, `partial_fit`, early stopping, sample weights and outlier thresholds."""

import copy

import numpy as np
import pytest
import torch
from _densities import (
    KINDS,
    N_ROWS,
    OF_UNLIKE_COLUMNS,
    AtEpochEnd,
    accurate,
    banana,
    each_kind,
    each_kind_in_batches,
    gaussian,
    small,
)
from sklearn.base import clone

from skflows.training import trainer


@pytest.mark.parametrize("name", OF_UNLIKE_COLUMNS)
def test_loss_falls_to_the_entropy(name):
    """The loss is in the units of X, and ends at the score of the rows."""
    X, entropy = gaussian(300)
    estimator = accurate(
        name, tolerance=1e-5, max_iter=30, learning_rate_init=0.01, early_stopping=False
    ).fit(X)
    curve = estimator.loss_curve_
    assert estimator.n_iter_ == estimator.best_iter_ == len(curve) == 30
    assert curve[-1] < curve[0] - 0.05
    assert curve[-1] == pytest.approx(entropy, abs=0.15)
    assert curve[-1] == pytest.approx(-estimator.score(X), abs=0.05)
    assert estimator.validation_scores_ is None
    assert estimator.best_validation_score_ is None


@each_kind
def test_warm_start_continues(name):
    X, _ = gaussian(50)
    cold = small(name).fit(X)
    warm = small(name, warm_start=True).fit(X)
    assert warm.loss_curve_ == cold.loss_curve_
    before = copy.deepcopy(warm.flow_.preprocess.state_dict())

    warm.fit(X * 2)
    assert warm.n_iter_ == warm.best_iter_ == len(warm.loss_curve_) == 6
    assert warm.loss_curve_[:3] == cold.loss_curve_
    # The weights were trained for rows in the scale of the first fit.
    for value, kept in zip(
        warm.flow_.preprocess.state_dict().values(), before.values(), strict=True
    ):
        assert (value == kept).all()

    warm = small(name, warm_start=True).fit(X).fit(X)
    assert warm.loss_curve_[-1] < cold.loss_curve_[0]
    assert cold.fit(X).n_iter_ == 3


@each_kind
def test_partial_fit_improves_on_chunks_of_any_size(name):
    X = banana(211)
    chunks = [X[:100], X[100:150], X[150:157], X[157:158], X[158:]]
    estimator = accurate(name, tolerance=1e-5, learning_rate_init=0.05)
    first = estimator.partial_fit(chunks[0]).score(X)
    scores = [estimator.partial_fit(chunk).score(X) for chunk in chunks[1:] + 2 * chunks]
    assert estimator.n_iter_ == len(estimator.loss_curve_) == 15
    assert np.isfinite(scores).all()
    assert max(scores[-5:]) > first + 0.1  # the last chunks are small


@each_kind
def test_partial_fit_continues_after_fit(name):
    X, _ = gaussian(50)
    estimator = small(name).fit(X)
    before = estimator.score(X)
    for _ in range(3):
        estimator.partial_fit(X)
    assert estimator.n_iter_ == 6
    assert estimator.score(X) > before


@each_kind
def test_partial_fit_holds_nothing_out(name):
    estimator = small(name, early_stopping=True)
    estimator.partial_fit(gaussian(100)[0]).partial_fit(gaussian(100)[0])
    assert estimator.validation_scores_ is None


def test_partial_fit_ignores_the_time_limit():
    flows = [small("maf", time_limit=limit).partial_fit(banana(50)) for limit in (None, 1e-9)]
    assert flows[0].history_ == flows[1].history_


@each_kind
def test_tensors_are_not_of_inference_mode(name):
    """Training runs in inference mode, whose tensors autograd rejects."""
    estimator = small(name).partial_fit(gaussian(N_ROWS)[0])
    tensors = [*estimator.flow_.parameters(), *estimator.flow_.buffers()]
    tensors += estimator._optimizer_state.values()
    assert not any(tensor.is_inference() for tensor in tensors)


@each_kind
def test_partial_fit_keeps_the_state_of_the_optimizer(name):
    X, _ = gaussian(N_ROWS)
    estimator = small(name).partial_fit(X)
    without_state = copy.deepcopy(estimator)
    without_state._optimizer_state = None
    scores = estimator.partial_fit(X).score_samples(X)
    assert np.any(without_state.partial_fit(X).score_samples(X) != scores)


@each_kind
def test_each_partial_fit_shuffles_differently(name, monkeypatch):
    """With an integer seed a sequence of calls is repeatable, but its orders differ."""
    X, _ = gaussian(N_ROWS)
    orders = []
    shuffle = trainer.shuffled_batches

    def recorded(*args, **kwargs):
        batches = list(shuffle(*args, **kwargs))
        orders.append([rows.tolist() for rows, _ in batches])
        return batches

    monkeypatch.setattr(trainer, "shuffled_batches", recorded)
    for _ in range(2):
        small(name, batch_size=16).partial_fit(X).partial_fit(X).partial_fit(X)
    assert orders[0] != orders[1] != orders[2]
    assert orders[:3] == orders[3:]


@pytest.mark.parametrize(("name", "batch_size"), [(name, 50) for name in KINDS] + [("nsf", 1000)])
def test_early_stopping_keeps_the_best_epoch(name, batch_size):
    X = 1e3 * banana(120)
    scores_of_epochs = []
    estimator = accurate(
        name,
        tolerance=1e-5,
        early_stopping=True,
        max_iter=7,
        learning_rate_init=0.1,
        batch_size=batch_size,
    )

    def keep_scores(_, fitted):
        scores_of_epochs.append(fitted.score_samples(X))

    estimator.set_callbacks(AtEpochEnd(keep_scores))
    estimator.fit(X)
    scores = estimator.validation_scores_
    assert estimator.n_iter_ == len(scores) == len(estimator.loss_curve_)
    assert estimator.best_iter_ == 1 + np.argmax(scores)
    assert estimator.best_validation_score_ == max(scores)
    assert max(scores) == pytest.approx(estimator.score(X), abs=3)  # in the units of X
    best = scores_of_epochs[estimator.best_iter_ - 1]
    np.testing.assert_array_equal(estimator.score_samples(X), best)
    assert np.any(scores_of_epochs[0] != scores_of_epochs[-1])


@each_kind
def test_early_stopping_ends_when_nothing_improves(name):
    X, _ = gaussian(100)
    params = {"early_stopping": True, "tol": 100.0, "n_iter_no_change": 3, "max_iter": 50}
    assert small(name, **params).fit(X).n_iter_ == 3


@pytest.mark.parametrize(
    ("name", "early_stopping", "n", "held_out"),
    [(name, "auto", N_ROWS + 1, True) for name in KINDS]
    + [
        ("nsf", "auto", N_ROWS, False),
        ("nsf", True, 20, True),
        ("nsf", False, 100, False),
    ],
)
def test_when_rows_are_held_out(name, early_stopping, n, held_out):
    estimator = small(name, early_stopping=early_stopping).fit(gaussian(n)[0])
    assert (estimator.validation_scores_ is not None) is held_out


@each_kind_in_batches
def test_rows_of_weight_0_are_left_out(name, batch_size):
    X, _ = gaussian(N_ROWS)
    weight = np.random.default_rng(0).integers(0, 3, N_ROWS)
    estimators = [small(name, batch_size=batch_size) for _ in range(2)]
    estimators[0].fit(X, sample_weight=weight)
    estimators[1].fit(X[weight > 0], sample_weight=weight[weight > 0])
    first, second = (estimator.score_samples(X) for estimator in estimators)
    np.testing.assert_array_equal(first, second)
    assert estimators[0].offset_ == estimators[1].offset_


@pytest.mark.parametrize(("name", "n"), [(name, N_ROWS) for name in KINDS] + [("nsf", 500)])
def test_importance_weights_correct_a_biased_sample(name, n):
    """Weights exp(x) make rows of N(0, 1) stand for N(1, 1)."""
    X = np.random.default_rng(0).standard_normal((n, 2))
    estimator = small(name)

    def fitted_mean(weight):
        estimator.fit(X, sample_weight=weight)
        return estimator.sample(4000, random_state=0).mean(axis=0)

    weight = np.exp(X[:, 0])
    moved = fitted_mean(weight) - fitted_mean(None)
    assert moved[0] > 0.5
    expected = np.average(X, axis=0, weights=weight) - X.mean(axis=0)
    np.testing.assert_allclose(moved, expected, atol=0.1)
    # Only the ratios of the weights matter.
    scores = estimator.fit(X, sample_weight=weight).score_samples(X)
    scaled = estimator.fit(X, sample_weight=weight * 2.0**20)
    np.testing.assert_allclose(scaled.score_samples(X), scores, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "contamination"), [(name, 0.25) for name in KINDS] + [("nsf", 0.05), ("nsf", 0.5)]
)
def test_contamination_is_the_fraction_flagged(name, contamination):
    X, _ = gaussian(200)
    estimator = small(name, contamination=contamination)
    flagged = estimator.fit_predict(X) == -1
    assert flagged.mean() == pytest.approx(contamination, abs=1 / 200)
    scores = estimator.score_samples(X)
    assert scores[flagged].max() < scores[~flagged].min()


@each_kind
def test_no_rows_are_flagged_without_contamination(name):
    X, _ = gaussian(100)
    estimator = small(name, contamination=None).fit(X)
    assert estimator.offset_ == -np.inf
    assert (estimator.predict(X.mean(axis=0) + 1e3 * X.std(axis=0)[None]) == 1).all()
    np.testing.assert_array_equal(estimator.decision_function(X), estimator.score_samples(X))
    np.testing.assert_array_equal(estimator.score_samples(X), small(name).fit(X).score_samples(X))


@each_kind
def test_automatic_threshold_flags_rows_far_from_a_gaussian(name):
    X, _ = gaussian(400)
    estimator = small(name).fit(X)
    assert (estimator.predict(X) == -1).mean() < 0.1
    far = X.mean(axis=0) + 8 * X.std(axis=0) * [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    assert (estimator.predict(far) == -1).all()


@each_kind
def test_decisions_agree_with_the_threshold(name):
    X, _ = gaussian(100)
    estimator = small(name, contamination=0.1).fit(X)
    decision = estimator.decision_function(X)
    np.testing.assert_array_equal(decision, estimator.score_samples(X) - estimator.offset_)
    np.testing.assert_array_equal(estimator.predict(X), np.where(decision >= 0, 1, -1))
    np.testing.assert_array_equal(
        small(name, contamination=0.1).fit_predict(X), estimator.predict(X)
    )
    assert estimator.score(X) == estimator.score_samples(X).mean()


@each_kind
def test_reconstruction_error(name):
    X, _ = gaussian(60)
    estimator = accurate(name, max_iter=5, learning_rate_init=0.01).fit(X)
    error = estimator.reconstruction_error(X)
    assert error.shape == (60,)
    assert error.max() < 1e-9
    round_trip = estimator.inverse_transform(estimator.transform(X))
    np.testing.assert_array_equal(error, np.abs(round_trip - X).max(axis=1))


@pytest.mark.parametrize("name", ["nsf", "cnf"])
def test_autocast_of_the_caller_changes_nothing(name):
    X = banana(60)
    outside = small(name, hidden_layer_sizes=(16,)).fit(X)
    with torch.autocast("cpu", torch.bfloat16):
        inside = small(name, hidden_layer_sizes=(16,)).fit(X)
    np.testing.assert_array_equal(inside.score_samples(X), outside.score_samples(X))


def test_automatic_input_noise_does_not_depend_on_an_earlier_fit():
    """Without held-out rows there is no search, and no noise."""
    flow = small("nsf", n_transforms=4, input_noise="auto", max_iter=20, learning_rate_init=0.05)
    flow.fit(np.random.default_rng(1).normal(size=(60, 2)))
    assert flow.input_noise_ > 0
    X = banana(30)
    assert flow.fit(X).input_noise_ == 0
    np.testing.assert_array_equal(flow.score_samples(X), clone(flow).fit(X).score_samples(X))
