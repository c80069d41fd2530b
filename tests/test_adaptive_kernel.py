"""Adaptive kernels: densities by their definition, leave-one-out scores, and the width's k."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.utils.estimator_checks import parametrize_with_checks

from skflows import AdaptiveKernelDensity

X = np.random.default_rng(0).standard_normal((120, 2)) @ [[2.0, 0.5], [0.0, 1.0]] + [5.0, -3.0]
RAW = {"preprocessing": (), "discrete": None, "random_state": 0}


# A row of weight 2 is left out as a whole, one of two equal rows alone: thresholds differ a little.
@parametrize_with_checks(
    [AdaptiveKernelDensity(n_neighbors=5), AdaptiveKernelDensity()],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "the threshold is set by held-out scores"
    },
)
def test_check_estimator(estimator, check):
    check(estimator)


def kernels(rows, k):
    """Return the widths of kernels around rows, and their log-density at other points."""
    distances = np.linalg.norm(rows[:, None] - rows, axis=2)
    widths = np.sort(distances, axis=1)[:, k] / np.sqrt(rows.shape[1])

    def log_kernels(points):
        return norm.logpdf(points[:, None], rows, widths[None, :, None]).sum(axis=2)

    return widths, log_kernels


def test_scores_are_those_of_the_definition():
    density = AdaptiveKernelDensity(n_neighbors=3, **RAW).fit(X)
    _, log_kernels = kernels(X, 3)
    new = X[:20] + 0.3
    expected = logsumexp(log_kernels(new), axis=1) - np.log(len(X))
    np.testing.assert_allclose(density.score_samples(new), expected)
    others = log_kernels(X)
    np.fill_diagonal(others, -np.inf)
    expected = logsumexp(others, axis=1) - np.log(len(X) - 1)
    np.testing.assert_allclose(density.held_out_scores_, expected)


@pytest.mark.parametrize("preprocessing", ["standardize", "whiten", "quantile"])
def test_density_integrates_to_one(preprocessing):
    density = AdaptiveKernelDensity(preprocessing=preprocessing, random_state=0).fit(X[:, :1])
    total, _ = quad(lambda x: np.exp(density.score_samples([[x]])[0]), -40, 50, limit=200)
    assert total == pytest.approx(1, abs=1e-5)


def test_neighbors_are_chosen_by_leave_one_out_likelihood():
    chosen = AdaptiveKernelDensity(**RAW).fit(X).estimator_.n_neighbors_
    scores = {
        k: AdaptiveKernelDensity(n_neighbors=k, **RAW).fit(X).held_out_scores_.mean()
        for k in (2, 5, 10, 20, 50)
    }
    assert chosen == max(scores, key=scores.get)


def test_repeated_rows_count_like_weights():
    weight = np.arange(len(X)) % 3 + 1
    params = RAW | {"n_neighbors": 5}
    by_weight = AdaptiveKernelDensity(**params).fit(X, sample_weight=weight)
    by_copies = AdaptiveKernelDensity(**params).fit(np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(by_weight.score_samples(X), by_copies.score_samples(X))


def test_held_out_scores_leave_out_the_whole_weight_of_a_row():
    weight = np.random.default_rng(1).uniform(0.01, 1, len(X))
    density = AdaptiveKernelDensity(n_neighbors=3, **RAW).fit(X, sample_weight=weight)
    _, log_kernels = kernels(X, 3)
    others = log_kernels(X) + np.log(weight)
    np.fill_diagonal(others, -np.inf)
    expected = logsumexp(others, axis=1) - np.log(weight.sum() - weight)
    np.testing.assert_allclose(density.held_out_scores_, expected)


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_narrow_kernels_far_from_the_mean_are_exact(offset):
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.standard_normal((60, 20)), 1e5 + 1e-3 * rng.standard_normal((60, 20))])
    rows += offset
    density = AdaptiveKernelDensity(n_neighbors=3, **RAW).fit(rows)
    widths = density.estimator_.widths_
    assert (widths > 0).all()
    centers = density.estimator_.centers_
    log_kernels = norm.logpdf(rows[:, None], centers, widths[None, :, None]).sum(axis=2)
    expected = logsumexp(log_kernels, axis=1) - np.log(len(rows))
    np.testing.assert_allclose(density.score_samples(rows), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_distinct", [1, 2, 3])
def test_few_distinct_rows(n_distinct):
    rows = np.tile(X[:n_distinct], (5, 1))
    density = AdaptiveKernelDensity(random_state=0).fit(rows)
    assert np.isfinite(density.score_samples([*rows, [99.0, 0.0]])).all()
    assert np.isfinite(density.sample(5, random_state=0)).all()


def test_centers_are_a_sample_and_other_rows_are_held_out():
    density = AdaptiveKernelDensity(n_neighbors=3, max_centers=40, **RAW).fit(X)
    centers = density.estimator_.centers_
    assert len(centers) == 40
    has_center = (X[:, None] == centers).all(axis=2).any(axis=1)
    scores = density.score_samples(X)
    np.testing.assert_allclose(scores[~has_center], density.held_out_scores_[~has_center])
    assert (scores[has_center] > density.held_out_scores_[has_center]).all()


def test_sampled_centers_follow_the_weights():
    rows = np.random.default_rng(0).standard_normal((400, 2))
    rows[::10] += 9.0
    weight = np.where(np.arange(400) % 10, 1e-6, 1.0)
    kernels = AdaptiveKernelDensity(max_centers=120, **RAW).fit(rows, sample_weight=weight)
    assert (kernels.estimator_.centers_ > 4).all(axis=1).sum() == 40
    np.testing.assert_array_equal(kernels.estimator_.weights_, np.full(40, 3.0))
    assert np.isfinite(kernels.held_out_scores_).all()
    expected = AdaptiveKernelDensity(**RAW).fit(rows[::10])
    assert_close = np.testing.assert_allclose
    assert_close(kernels.score_samples(rows), expected.score_samples(rows), rtol=1e-9)
    assert_close(kernels.held_out_scores_[::10], expected.held_out_scores_, rtol=1e-9)


def test_far_and_close_rows():
    close = np.vstack([X, X + 1e-9])
    density = AdaptiveKernelDensity(n_neighbors=1, **RAW).fit(close)
    far = density.score_samples([[1e9, 1e9], [1e100, 0.0]])
    assert np.isfinite(far).all() and (far < -1e6).all()
    alone = [density.score_samples(row[None])[0] for row in X[:5]]
    np.testing.assert_allclose(density.score_samples(X)[:5], alone)


def test_samples_have_the_moments_of_the_kernels():
    density = AdaptiveKernelDensity(random_state=0).fit(X)
    drawn = density.sample(20_000, random_state=0)
    np.testing.assert_allclose(drawn.mean(axis=0), X.mean(axis=0), atol=0.1)
    assert drawn.std(axis=0) == pytest.approx(X.std(axis=0), rel=0.3)
    assert density.score(drawn) == pytest.approx(density.score(X), abs=1.0)
