"""Parts of a score add up to it and name the odd column; scores are what they are called."""

import numpy as np
import pytest
import torch
from _densities import banana, gaussian, gaussian_log_density, small
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

from skflows import DensityOutlierDetector, NSFDensity, StackedDensity, TransformedDensity
from skflows.ensemble._components import Component
from skflows.ensemble._mixture import likeliest_of_each_kind
from skflows.ensemble._portfolio import StandardNormal, portfolio
from skflows.outlier import SCORES
from skflows.outlier._explain import contributions, quick_contributions

X = banana(120)
STACK = StackedDensity(
    [("kde", KernelDensity(bandwidth=0.5)), ("mixture", GaussianMixture(3, random_state=0))],
    cv=3,
    random_state=0,
)
DENSITIES = {
    "mixture": GaussianMixture(3, random_state=0),
    "kernels": KernelDensity(bandwidth=0.5),
    "flow": small("nsf"),
    "stack": STACK,
    "bounded": small("maf", bounds=[(-9, 9), (-9, None)]),
}
EXPLAINED = {name: {"estimator": density} for name, density in DENSITIES.items()} | {
    statistic: {"estimator": small("nsf"), "statistic": statistic} for statistic in SCORES
}
EXPLAINED["folds"] = {"estimator": STACK, "calibration": "conformal", "cv": 3}


@pytest.mark.parametrize("name", EXPLAINED)
def test_parts_add_up_to_the_score(name):
    fitted = DensityOutlierDetector(**EXPLAINED[name], random_state=0).fit(X)
    rows = np.concatenate([X[:20], X[:5] + np.array([0, 6.0])])
    for n_orders in (1, 4, 7):
        parts = fitted.explain(rows, n_orders=n_orders)
        assert parts.shape == rows.shape
        np.testing.assert_allclose(parts.sum(axis=1), fitted.score_samples(rows), rtol=0, atol=1e-6)


def test_contributions_of_one_model_add_up_by_themselves():
    fitted = DensityOutlierDetector(GaussianMixture(2, random_state=0)).fit(X)
    rows, rng = X[:20] * 2, np.random.RandomState(0)
    (model,) = fitted.models_
    parts = contributions(model, rows, fitted._reference, 5, rng)
    np.testing.assert_allclose(parts.sum(axis=1), model.score_samples(rows), rtol=0, atol=1e-9)


def test_rows_beyond_a_bound_have_parts_that_say_where():
    fitted = DensityOutlierDetector(DENSITIES["bounded"]).fit(X)
    rows = np.array([[0.0, -10.0], [9.5, 1.0], [0.0, 1.0]])
    parts = fitted.explain(rows)
    np.testing.assert_array_equal(parts == -np.inf, [[False, True], [True, False], [False, False]])
    np.testing.assert_allclose(parts.sum(axis=1), fitted.score_samples(rows))


def test_same_orders_in_each_call():
    fitted = DensityOutlierDetector(DENSITIES["mixture"]).fit(X)
    np.testing.assert_array_equal(fitted.explain(X), fitted.explain(X))
    first = fitted.explain(X, n_orders=1)
    others = [fitted.explain(X, n_orders=1, random_state=seed) for seed in range(1, 6)]
    assert any(np.any(first != other) for other in others)
    with pytest.raises(ValueError, match="n_orders=0; it must be an integer of at least 1"):
        fitted.explain(X, n_orders=0)


def test_parts_of_independent_columns_are_their_own():
    """Where the density is a product, a part is what the column alone says, but for a constant."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 3))
    density = TransformedDensity(StandardNormal(), discrete=None)
    fitted = DensityOutlierDetector(density).fit(rows)
    odd = np.array([[8.0, 0.0, 0.0], [0.0, -5.0, 7.0]])
    parts = fitted.explain(odd, n_orders=8)
    alone = -0.5 * ((odd - rows.mean(axis=0)) / rows.std(axis=0)) ** 2
    np.testing.assert_allclose(np.ptp(parts - alone, axis=1), 0, atol=3)
    np.testing.assert_array_equal(parts.argmin(axis=1), [0, 2])


TABLES = {
    "30 correlated columns": StandardScaler().fit_transform(load_breast_cancer().data),
    "13 columns": StandardScaler().fit_transform(load_wine().data),
    "a rotated normal": np.random.default_rng(1).standard_normal((600, 10))
    @ np.random.default_rng(2).standard_normal((10, 10)),
}
WRAPPED = {
    "mixture": GaussianMixture(2, reg_covar=1e-3, random_state=0),
    "kernels": KernelDensity(bandwidth=0.5),
    "copula": TransformedDensity(
        StandardNormal(), preprocessing=("quantile", "whiten"), discrete=None
    ),
    "flow": NSFDensity(preprocessing="quantile", discrete=None, max_iter=20, random_state=0),
}
WRAPPED["pool"] = StackedDensity(
    [(name, WRAPPED[name]) for name in ("mixture", "kernels", "copula")], cv=2, random_state=0
)


def planted(table):
    """Rows to fit to, rows with a value six standard deviations off, and the column of each."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(TABLES[table])
    train, rows = rows[: len(rows) // 2], rows[-100:].copy()
    column = rng.integers(rows.shape[1], size=100)
    rows[np.arange(100), column] += rng.choice([-1, 1], 100) * 6 * train.std(axis=0)[column]
    return train, rows, column


@pytest.mark.parametrize("density", WRAPPED)
@pytest.mark.parametrize("table", TABLES)
def test_planted_column_comes_first(table, density):
    train, rows, column = planted(table)
    parts = DensityOutlierDetector(WRAPPED[density]).fit(train).explain(rows)
    assert (parts.argmin(axis=1) == column).mean() >= 0.9


@pytest.mark.parametrize("table", TABLES)
def test_planted_column_comes_first_in_the_quick_explanation(table):
    train, rows, column = planted(table)
    parts = quick_contributions(rows, train)
    assert parts.shape == rows.shape
    assert (parts.argmin(axis=1) == column).mean() >= 0.9


@pytest.mark.parametrize("n", [3, 40])
def test_quick_explanation_by_few_or_constant_rows(n):
    rows = np.random.default_rng(0).standard_normal((n, 3))
    rows[:, 1] = 7.0
    odd = np.array([[9.0, 7.0, 0.0], [0.0, 8.0, 0.0]])
    parts = quick_contributions(odd, rows)
    assert np.isfinite(parts).all()
    assert parts[1].argmin() == 1


# What the scores are


def score(statistic, estimator, rows, **params):
    fitted = DensityOutlierDetector(estimator, statistic=statistic, random_state=0, **params)
    return fitted.fit(X).score_samples(rows)


def test_log_density_is_the_estimators():
    expected = GaussianMixture(3, random_state=0).fit(X).score_samples(X)
    np.testing.assert_array_equal(score("log_density", DENSITIES["mixture"], X), expected)
    np.testing.assert_array_equal(score("log_pool", DENSITIES["mixture"], X), expected)


MANY = StackedDensity(
    [
        ("kernels of 0.05", KernelDensity(bandwidth=0.05)),
        ("kernels of 0.5", KernelDensity(bandwidth=0.5)),
        ("mixture", GaussianMixture(3, random_state=0)),
    ],
    cv=3,
    refit=True,
    random_state=0,
)


def test_log_pool_is_the_mean_over_the_likeliest_of_each_kind():
    expected = (
        KernelDensity(bandwidth=0.5).fit(X).score_samples(X)
        + GaussianMixture(3, random_state=0).fit(X).score_samples(X)
    ) / 2
    np.testing.assert_allclose(score("log_pool", MANY, X), expected)


def test_held_out_log_pool_is_that_of_the_members_that_had_not_seen_the_row():
    splits = [(np.delete(np.arange(len(X)), rows), rows) for rows in np.split(np.arange(120), 3)]
    stack = clone(MANY).set_params(cv=splits)
    fitted = DensityOutlierDetector(stack, random_state=0).fit(X)
    for train, rows in splits:
        expected = (
            KernelDensity(bandwidth=0.5).fit(X[train]).score_samples(X[rows])
            + GaussianMixture(3, random_state=0).fit(X[train]).score_samples(X[rows])
        ) / 2
        np.testing.assert_allclose(fitted.held_out_scores_[rows], expected)


@pytest.mark.parametrize("folds", [True, False])
def test_every_kind_of_density_and_space_has_a_vote(folds):
    components = portfolio(1000, 5, folds, False, {"random_state": 0})
    means = np.arange(len(components), dtype=float)
    names = [components[i].name for i in likeliest_of_each_kind(components, means)]
    kinds = ["gaussian", "copula", "gaussianization", "quantile mixture", "axis mixture"]
    kinds += ["diagonal mixture", "axis kernels", "whitened kernels", "copula kernels"]
    flows = ["quantile spline flow", "whitened spline flow"]
    flows += [] if folds else ["copula spline flow", "quantile coupling flow"]
    assert sorted(name.split(" of ")[0] for name in names) == sorted(kinds + flows)
    assert "axis kernels of 0.05" in names  # the last, to which the highest mean was given


def test_what_has_no_likelihood_has_no_vote():
    components = [Component(name, None, False) for name in ("a of 1", "a of 2", "b", "c")]
    assert likeliest_of_each_kind(components, np.array([1, 0, -np.inf, np.nan])) == [0]
    assert likeliest_of_each_kind(components, np.array([-np.inf, np.nan, -np.inf, 0])) == [3]
    assert likeliest_of_each_kind(components, np.array([-np.inf] * 3 + [np.nan])) == [1, 2]


def test_latent_norm_is_the_distance_to_the_origin():
    flow = small("maf").fit(X)
    expected = -np.sqrt((flow.transform(X) ** 2).sum(axis=1))
    np.testing.assert_allclose(score("latent_norm", FrozenEstimator(flow), X), expected)


@pytest.mark.parametrize("name", ["nsf", "maf", "realnvp"])
def test_score_norm_is_that_of_the_gradient(name):
    flow = small(name, discrete=None).fit(X)
    rows = torch.tensor(X[:30], requires_grad=True)
    (gradient,) = torch.autograd.grad(flow.flow_.log_prob(rows).sum(), rows)
    expected = -np.linalg.norm(gradient.numpy() * X.std(axis=0), axis=1)
    np.testing.assert_allclose(
        score("score_norm", FrozenEstimator(flow), X[:30]), expected, rtol=1e-3
    )


def test_typicality_is_the_distance_to_the_mean_of_unseen_rows():
    rows, entropy = gaussian(4000)

    class Truth(GaussianMixture):
        def fit(self, X, y=None):
            return self

        def score_samples(self, X):
            return gaussian_log_density(X)

    fitted = DensityOutlierDetector(Truth(), statistic="typicality", random_state=0).fit(rows)
    expected = -np.abs(gaussian_log_density(rows) + entropy)
    np.testing.assert_allclose(fitted.score_samples(rows), expected, atol=0.1)


def test_likelihood_ratio_is_a_difference():
    background = KernelDensity(bandwidth=3.0)
    mixture = DENSITIES["mixture"]
    expected = score("log_density", mixture, X) - score("log_density", background, X)
    found = score("likelihood_ratio", mixture, X, background=background)
    np.testing.assert_allclose(found, expected)


def test_noised_background_breaks_what_holds_columns_together():
    """Of rows without any dependence, the noised ones are as good: the ratio says nothing."""
    rng = np.random.default_rng(0)
    for correlation, low, high in ((0.0, -0.1, 0.1), (0.95, 0.2, 3.0)):
        rows = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], 4000)
        fitted = DensityOutlierDetector(
            GaussianMixture(), statistic="likelihood_ratio", random_state=0
        ).fit(rows)
        assert low < fitted.score_samples(rows).mean() < high


def test_ensemble_finds_rows_that_any_of_its_scores_finds():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((800, 30))
    fitted = DensityOutlierDetector(
        GaussianMixture(reg_covar=1e-3), statistic="ensemble", random_state=0
    ).fit(rows)
    typical = np.quantile(fitted.score_samples(rng.standard_normal((400, 30))), 0.01)
    for odd in (np.zeros((1, 30)), np.full((1, 30), 2.0)):  # too likely, too far
        assert fitted.score_samples(odd)[0] < typical
