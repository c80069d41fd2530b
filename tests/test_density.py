"""Statistical correctness: unit mass, exact samples, units of the data, quality of the fit."""

import numpy as np
import pytest
from _densities import (
    N_ROWS,
    OF_ANY_UNITS,
    OF_UNLIKE_COLUMNS,
    accurate,
    banana,
    each_estimator,
    gaussian,
    gaussian_log_density,
    small,
)
from scipy import stats
from scipy.integrate import trapezoid
from scipy.spatial.distance import pdist, squareform
from sklearn.preprocessing import StandardScaler

N_CELLS = 90  # of a grid, along each axis


@pytest.fixture(scope="module", params=OF_ANY_UNITS)
def fitted(request):
    """Return an estimator fitted to a banana in units far from 1."""
    params = {"max_iter": 25, "learning_rate_init": 0.02, "early_stopping": False}
    return accurate(request.param, tolerance=1e-6, **params).fit(banana(600) * [1e3, 1e-2])


@pytest.fixture(scope="module", params=OF_UNLIKE_COLUMNS)
def fitted_to_gaussian(request):
    params = {"max_iter": 15, "learning_rate_init": 0.01, "batch_size": 100}
    params["early_stopping"] = False  # at a rate that falls to 0, the last epoch is the best
    return accurate(request.param, tolerance=1e-5, **params).fit(gaussian(1000)[0])


def fresh_rows(n):
    return banana(n, seed=1) * [1e3, 1e-2]


@pytest.fixture(scope="module")
def masses(fitted):
    """Return the edges and the probabilities of the cells of a grid, by the midpoint rule."""
    X = fresh_rows(600)
    reach = [-10.5, 10.5] * X.std(axis=0)[:, None] + X.mean(axis=0)[:, None]
    edges = [np.linspace(low, high, N_CELLS + 1) for low, high in reach]
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    points = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 2)
    area = np.prod([edge[1] - edge[0] for edge in edges])
    mass = np.exp(fitted.score_samples(points)) * area
    return edges, mass.reshape(N_CELLS, N_CELLS)


def test_density_integrates_to_one(masses):
    assert masses[1].sum() == pytest.approx(1, abs=0.01)


def p_value_of_rows(rows, edges, mass):
    """Return the p-value of a chi-squared test that rows follow the probabilities of cells."""
    counts, *_ = np.histogram2d(*rows.T, bins=edges)
    # Blocks of cells, to have enough rows in each. All other cells together are one more bin.
    size = 2
    blocks = (N_CELLS // size, size, N_CELLS // size, size)
    observed = counts.reshape(blocks).sum(axis=(1, 3)).ravel()
    expected = len(rows) * mass.reshape(blocks).sum(axis=(1, 3)).ravel()
    large = expected >= 10
    assert large.sum() > 20
    observed = np.append(observed[large], len(rows) - observed[large].sum())
    expected = np.append(expected[large], len(rows) - expected[large].sum())
    return stats.chisquare(observed, expected).pvalue


def test_samples_follow_the_density(fitted, masses):
    rows = fitted.sample(3000, random_state=0)
    assert p_value_of_rows(rows, *masses) > 1e-3
    # The test has power: it rejects rows of a Gaussian with the moments of the samples.
    rng = np.random.default_rng(0)
    wrong = rng.multivariate_normal(rows.mean(axis=0), np.cov(rows.T), 3000)
    assert p_value_of_rows(wrong, *masses) < 1e-6


def p_value_of_two_samples(first, second, n_permutations=199):
    """Return the p-value of a permutation test of the energy distance; n is the same in both."""
    distances = squareform(pdist(StandardScaler().fit_transform(np.vstack([first, second]))))
    labels = np.repeat([1.0, -1.0], len(first))
    rng = np.random.default_rng(0)
    labels = np.stack([labels] + [rng.permutation(labels) for _ in range(n_permutations)])
    energy = -np.einsum("pi,ij,pj->p", labels, distances, labels, optimize=True)
    return (energy >= energy[0]).mean()


def test_samples_are_distributed_like_held_out_rows(fitted_to_gaussian):
    held_out, _ = gaussian(400, seed=1)
    samples = fitted_to_gaussian.sample(400, random_state=0)
    assert p_value_of_two_samples(samples, held_out) > 0.01
    # The test has power: it rejects samples whose columns are independent.
    rng = np.random.default_rng(0)
    independent = np.column_stack([rng.permutation(column) for column in samples.T])
    assert p_value_of_two_samples(independent, held_out) < 0.01


def test_score_on_a_gaussian_is_near_its_entropy(fitted_to_gaussian):
    fresh, entropy = gaussian(4000, seed=1)
    true = gaussian_log_density(fresh)
    assert true.mean() == pytest.approx(-entropy, abs=0.03)
    divergence = true.mean() - fitted_to_gaussian.score(fresh)  # estimates Kullback-Leibler
    assert -0.005 < divergence < 0.03


def test_latent_rows_are_standard_normal(fitted_to_gaussian):
    Z = fitted_to_gaussian.transform(gaussian(1000)[0])
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(np.cov(Z.T), np.eye(2), atol=0.1)
    for column in Z.T:
        assert stats.kstest(column, "norm").pvalue > 0.01


def test_banana_is_fitted_better_than_by_the_best_gaussian(fitted):
    X, fresh = banana(600) * [1e3, 1e-2], fresh_rows(2000)
    best_gaussian = stats.multivariate_normal(X.mean(axis=0), np.cov(X.T)).logpdf(fresh).mean()
    assert fitted.score(fresh) > best_gaussian + 0.2


def test_inverse_transform_inverts_transform(fitted):
    X = fresh_rows(300)
    back = fitted.inverse_transform(fitted.transform(X))
    # A CNF is inverted to the tolerance of its solver, times the stretch of the latent map.
    atol = 1e-5 if hasattr(fitted, "tolerance") else 1e-9
    np.testing.assert_allclose(back / [1e3, 1e-2], X / [1e3, 1e-2], atol=atol)


def test_scores_do_not_depend_on_the_batch(fitted, small_blocks):
    X = np.vstack([fresh_rows(60), [[1e9, -1e9], [1e300, 1e300]]])
    scores = fitted.score_samples(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(fitted.score_samples(X[order]), scores[order], rtol=1e-10)
    np.testing.assert_allclose(fitted.score_samples(X[:3]), scores[:3], rtol=1e-10)
    for i in (0, 7, 61):
        np.testing.assert_allclose(fitted.score_samples(X[[i]]), scores[[i]], rtol=1e-10)
    small_blocks()
    np.testing.assert_allclose(fitted.score_samples(X), scores, rtol=1e-10)


# Powers of 2 scale rows without rounding errors: only the moments of the columns have them.
BINARY_UNITS = [2.0**5, 2.0**-7], [3.0, -16.0]


@pytest.mark.parametrize(
    ("name", "units", "batch_size", "tolerance"),
    [(name, ([1.7e6, 3e-5], [-4e5, 0.3]), "auto", 1e-5) for name in OF_ANY_UNITS]
    + [("nsf", BINARY_UNITS, "auto", 1e-6), ("nsf", BINARY_UNITS, 16, 1e-2)],
)
def test_units_change_the_density_by_their_jacobian(name, units, batch_size, tolerance):
    a, b = units
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
    """The density integrates to one, and is that of the slope of a monotonic latent map."""
    X = np.random.default_rng(0).gamma(3.0, 100.0, size=(300, 1))
    estimator = accurate(name, tolerance=1e-6, max_iter=20, learning_rate_init=0.02).fit(X)
    grid = np.linspace(-5000, 6000, 2001)
    density = np.exp(estimator.score_samples(grid[:, None]))
    assert trapezoid(density, grid) == pytest.approx(1, abs=0.01)

    z = estimator.transform(grid[:, None])[:, 0]
    assert (np.diff(z) > 0).all()
    inside = slice(800, 1400)
    expected = stats.norm.pdf(z) * np.gradient(z, grid)
    np.testing.assert_allclose(density[inside], expected[inside], rtol=0.02, atol=1e-7)
    assert estimator.sample(5, random_state=0).shape == (5, 1)
