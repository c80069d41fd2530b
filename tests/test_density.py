"""The estimators are densities: mass one, exact samples, the right units, the right fit."""

import numpy as np
import pytest
from _densities import N_ROWS, NAMES, banana, each_estimator, gaussian, gaussian_log_density, small
from scipy import stats
from scipy.spatial.distance import pdist, squareform
from sklearn.preprocessing import StandardScaler

from skflows.training import torch_state as _engine

N_CELLS = 400  # of a grid, in each direction


@pytest.fixture(scope="module", params=NAMES)
def fitted(request):
    """Each estimator, fitted to a banana in units far from 1."""
    params = {"max_iter": 25, "learning_rate_init": 0.02, "early_stopping": False}
    return small(request.param, **params).fit(banana(600) * [1e3, 1e-2])


@pytest.fixture(scope="module", params=NAMES)
def fitted_to_gaussian(request):
    params = {"max_iter": 20, "learning_rate_init": 0.01, "batch_size": 100}
    params["early_stopping"] = False  # the rate ends at 0, which beats the choice of an epoch
    return small(request.param, **params).fit(gaussian(1000)[0])


def fresh_rows(n):
    return banana(n, seed=1) * [1e3, 1e-2]


@pytest.fixture(scope="module")
def masses(fitted):
    """Edges and probability of the cells of a fine grid, by the midpoint rule."""
    X = fresh_rows(600)
    reach = [-14, 14] * X.std(axis=0)[:, None] + X.mean(axis=0)[:, None]
    edges = [np.linspace(low, high, N_CELLS + 1) for low, high in reach]
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    points = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 2)
    area = np.prod([edge[1] - edge[0] for edge in edges])
    mass = np.exp(fitted.score_samples(points)) * area
    return edges, mass.reshape(N_CELLS, N_CELLS)


def test_mass_is_1(masses):
    assert masses[1].sum() == pytest.approx(1, abs=0.01)


def p_value_of_rows(rows, edges, mass):
    """Chi-squared test that rows follow the probabilities of the cells of a grid."""
    counts, *_ = np.histogram2d(*rows.T, bins=edges)
    # Blocks of cells, large enough to hold rows; what is in no block is one more.
    size = 5
    blocks = (N_CELLS // size, size, N_CELLS // size, size)
    observed = counts.reshape(blocks).sum(axis=(1, 3)).ravel()
    expected = len(rows) * mass.reshape(blocks).sum(axis=(1, 3)).ravel()
    large = expected >= 10
    assert large.sum() > 20
    observed = np.append(observed[large], len(rows) - observed[large].sum())
    expected = np.append(expected[large], len(rows) - expected[large].sum())
    return stats.chisquare(observed, expected).pvalue


def test_samples_follow_the_density(fitted, masses):
    """Whatever was fitted, `sample` draws from what `score_samples` says."""
    rows = fitted.sample(5000, random_state=0)
    assert p_value_of_rows(rows, *masses) > 1e-3
    # The test has power: a Gaussian with the moments of the samples fails it.
    rng = np.random.default_rng(0)
    wrong = rng.multivariate_normal(rows.mean(axis=0), np.cov(rows.T), 5000)
    assert p_value_of_rows(wrong, *masses) < 1e-6


def p_value_of_two_samples(first, second, n_permutations=199):
    """Permutation test by the energy distance of samples of one size."""
    distances = squareform(pdist(StandardScaler().fit_transform(np.vstack([first, second]))))
    labels = np.repeat([1.0, -1.0], len(first))
    rng = np.random.default_rng(0)
    labels = np.stack([labels] + [rng.permutation(labels) for _ in range(n_permutations)])
    energy = -np.einsum("pi,ij,pj->p", labels, distances, labels, optimize=True)
    return (energy >= energy[0]).mean()


def test_samples_pass_for_held_out_rows(fitted_to_gaussian):
    held_out, _ = gaussian(400, seed=1)
    samples = fitted_to_gaussian.sample(400, random_state=0)
    assert p_value_of_two_samples(samples, held_out) > 0.01
    # The test has power: the columns of the samples, each shuffled by itself, fail it.
    rng = np.random.default_rng(0)
    apart = np.column_stack([rng.permutation(column) for column in samples.T])
    assert p_value_of_two_samples(apart, held_out) < 0.01


def test_gaussian_is_fitted_to_its_entropy(fitted_to_gaussian):
    fresh, entropy = gaussian(10_000, seed=1)
    true = gaussian_log_density(fresh)
    assert true.mean() == pytest.approx(-entropy, abs=0.03)
    divergence = true.mean() - fitted_to_gaussian.score(fresh)  # Kullback-Leibler, nearly
    assert -0.005 < divergence < 0.03


def test_latent_rows_are_standard_normal(fitted_to_gaussian):
    Z = fitted_to_gaussian.transform(gaussian(1000)[0])
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(np.cov(Z.T), np.eye(2), atol=0.1)
    for column in Z.T:
        assert stats.kstest(column, "norm").pvalue > 0.01


def test_banana_is_fitted_better_than_by_a_gaussian(fitted):
    X, fresh = banana(600) * [1e3, 1e-2], fresh_rows(2000)
    best_gaussian = stats.multivariate_normal(X.mean(axis=0), np.cov(X.T)).logpdf(fresh).mean()
    assert fitted.score(fresh) > best_gaussian + 0.2


def test_latent_map_goes_there_and_back(fitted):
    X = fresh_rows(300)
    back = fitted.inverse_transform(fitted.transform(X))
    np.testing.assert_allclose(back / [1e3, 1e-2], X / [1e3, 1e-2], atol=1e-9)


def test_score_of_a_row_depends_on_that_row_alone(fitted, monkeypatch):
    X = np.vstack([fresh_rows(300), [[1e9, -1e9], [1e300, 1e300]]])
    scores = fitted.score_samples(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(fitted.score_samples(X[order]), scores[order], rtol=1e-10)
    np.testing.assert_allclose(fitted.score_samples(X[:3]), scores[:3], rtol=1e-10)
    for i in (0, 7, 301):
        np.testing.assert_allclose(fitted.score_samples(X[[i]]), scores[[i]], rtol=1e-10)
    monkeypatch.setattr(_engine, "VALUES_PER_CHUNK", 14)
    np.testing.assert_allclose(fitted.score_samples(X), scores, rtol=1e-10)


@pytest.mark.parametrize(
    ("a", "b", "batch_size", "tolerance"),
    [
        # Exact in binary: only the moments of the columns are rounded differently.
        ([2.0**5, 2.0**-7], [3.0, -16.0], "auto", 1e-6),
        ([1.7e6, 3e-5], [-4e5, 0.3], "auto", 1e-5),
        ([2.0**5, 2.0**-7], [3.0, -16.0], 16, 1e-2),
    ],
)
@each_estimator
def test_units_change_the_density_by_their_jacobian(name, a, b, batch_size, tolerance):
    X = np.round(banana(N_ROWS) * 2**10) / 2**10
    first, second = (small(name, batch_size=batch_size).fit(rows) for rows in (X, X * a + b))
    shift = -np.log(a).sum()
    kwargs = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(
        second.score_samples(X * a + b), first.score_samples(X) + shift, **kwargs
    )
    np.testing.assert_allclose(second.offset_, first.offset_ + shift, **kwargs)
    np.testing.assert_allclose(second.loss_curve_, np.subtract(first.loss_curve_, shift), **kwargs)
    np.testing.assert_allclose(second.transform(X * a + b), first.transform(X), **kwargs)
    np.testing.assert_allclose(
        (second.sample(20, random_state=0) - b) / a, first.sample(20, random_state=0), **kwargs
    )


@each_estimator
def test_single_column(name):
    """In one dimension all can be computed: the integral, and the slope of the latent map."""
    X = np.random.default_rng(0).gamma(3.0, 100.0, size=(300, 1))
    estimator = small(name, max_iter=20, learning_rate_init=0.02).fit(X)
    grid = np.linspace(-5000, 6000, 20001)
    density = np.exp(estimator.score_samples(grid[:, None]))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)

    z = estimator.transform(grid[:, None])[:, 0]
    assert (np.diff(z) > 0).all()
    inside = slice(8000, 14000)
    expected = stats.norm.pdf(z) * np.gradient(z, grid)
    np.testing.assert_allclose(density[inside], expected[inside], rtol=0.02, atol=1e-7)
    assert estimator.sample(5, random_state=0).shape == (5, 1)
