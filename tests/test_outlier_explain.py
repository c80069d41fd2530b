"""Explanations of outlier scores, and the definitions of the statistics."""

from itertools import permutations

import numpy as np
import pytest
from _densities import banana, gaussian, gaussian_log_density, small
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

from skflows import DensityOutlierDetector, NSFDensity, StackedDensity, TransformedDensity
from skflows.ensemble._mixture import likeliest_of_each_family
from skflows.ensemble._portfolio import portfolio
from skflows.ensemble._race import Component
from skflows.ensemble._simple_densities import GaussianKernels, StandardNormal
from skflows.outlier._explain import (
    N_STARTS,
    along_orders,
    contributions,
    nearest,
    quick_contributions,
)
from skflows.outlier._statistics import STATISTICS

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
    statistic: {"estimator": small("nsf"), "statistic": statistic}
    for statistic in STATISTICS
    if statistic != "dependence"  # of tables
}
EXPLAINED["folds"] = {"estimator": STACK, "calibration": "conformal", "cv": 3}


@pytest.mark.parametrize("name", EXPLAINED)
def test_contributions_add_up_to_the_score(name):
    fitted = DensityOutlierDetector(**EXPLAINED[name], random_state=0).fit(X)
    rows = np.concatenate([X[:20], X[:5] + np.array([0, 6.0])])
    for n_orders in (1, 4):
        parts = fitted.explain(rows, n_orders=n_orders)
        assert parts.shape == rows.shape
        np.testing.assert_allclose(parts.sum(axis=1), fitted.score_samples(rows), rtol=0, atol=1e-6)


def test_contributions_of_one_model_add_up_without_correction():
    fitted = DensityOutlierDetector(GaussianMixture(2, random_state=0)).fit(X)
    rows, rng = X[:20] * 2, np.random.RandomState(0)
    (model,) = fitted.models_
    parts, base = contributions(model, rows, fitted._reference, 5, rng)
    sums = parts.sum(axis=1) + base
    np.testing.assert_allclose(sums, model.score_samples(rows), rtol=0, atol=1e-9)


def test_contribution_of_a_value_outside_the_bounds_is_infinite():
    fitted = DensityOutlierDetector(DENSITIES["bounded"]).fit(X)
    rows = np.array([[0.0, -10.0], [9.5, 1.0], [0.0, 1.0]])
    parts = fitted.explain(rows)
    np.testing.assert_array_equal(parts == -np.inf, [[False, True], [True, False], [False, False]])
    np.testing.assert_allclose(parts.sum(axis=1), fitted.score_samples(rows))


def test_explain_is_deterministic_unless_random_state_is_given():
    fitted = DensityOutlierDetector(DENSITIES["mixture"]).fit(X)
    np.testing.assert_array_equal(fitted.explain(X), fitted.explain(X))
    first = fitted.explain(X, n_orders=1)
    others = [fitted.explain(X, n_orders=1, random_state=seed) for seed in range(1, 6)]
    assert any(np.any(first != other) for other in others)
    with pytest.raises(ValueError, match="n_orders=0; it must be an integer of at least 1"):
        fitted.explain(X, n_orders=0)


def test_contributions_of_independent_columns_are_their_log_densities():
    """If the density is a product, contributions are marginal log-densities up to a constant."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 3))
    density = TransformedDensity(StandardNormal(), preprocessing="standardize", discrete=None)
    fitted = DensityOutlierDetector(density).fit(rows)
    outliers = np.array([[8.0, 0.0, 0.0], [0.0, -5.0, 7.0]])
    parts = fitted.explain(outliers, n_orders=8)
    marginal = -0.5 * ((outliers - rows.mean(axis=0)) / rows.std(axis=0)) ** 2
    np.testing.assert_allclose(np.ptp(parts - marginal, axis=1), 0, atol=3)
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
    """Return rows to fit, rows with one value shifted by 6 standard deviations, and its column."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(TABLES[table])
    train, rows = rows[: len(rows) // 2], rows[-40:].copy()
    column = rng.integers(rows.shape[1], size=40)
    rows[np.arange(40), column] += rng.choice([-1, 1], 40) * 6 * train.std(axis=0)[column]
    return train, rows, column


@pytest.mark.parametrize(
    ("table", "density"),
    [("30 correlated columns", density) for density in WRAPPED]
    + [("13 columns", "copula"), ("a rotated normal", "pool"), ("a rotated normal", "flow")],
)
def test_shifted_column_has_the_lowest_contribution(table, density):
    train, rows, column = planted(table)
    parts = DensityOutlierDetector(WRAPPED[density]).fit(train).explain(rows)
    assert (parts.argmin(axis=1) == column).mean() >= 0.9


@pytest.mark.parametrize("table", TABLES)
def test_shifted_column_has_the_lowest_quick_contribution(table):
    train, rows, column = planted(table)
    parts = quick_contributions(rows, train)
    assert parts.shape == rows.shape
    assert (parts.argmin(axis=1) == column).mean() >= 0.9


def test_quick_contributions_are_the_mean_over_all_orders():
    rng = np.random.default_rng(0)
    train = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 3))
    train[:, 1] = np.exp(train[:, 1] / 2)
    rows = np.vstack([train[:5], [[9.0, 3.0, -4.0], [-40.0, 2.0, 50.0]]])
    similar = nearest(rows / train.std(axis=0), train / train.std(axis=0), N_STARTS)
    orders = [np.array(order) for order in permutations(range(3))]
    expected = [
        along_orders(density.fit(train), rows, np.repeat(train[start, None], 6, axis=1), orders)[0]
        for density in (
            TransformedDensity(StandardNormal(), preprocessing=names, discrete=None)
            for names in ("whiten", ("quantile", "whiten"))
        )
        for start in similar.T
    ]
    found = quick_contributions(rows, train)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [3, 40])
def test_quick_contributions_with_few_rows_and_a_constant_column(n):
    rows = np.random.default_rng(0).standard_normal((n, 3))
    rows[:, 1] = 7.0
    outliers = np.array([[9.0, 7.0, 0.0], [0.0, 8.0, 0.0]])
    parts = quick_contributions(outliers, rows)
    assert np.isfinite(parts).all()
    assert parts[1].argmin() == 1


# Definitions of the statistics


def score(statistic, estimator, rows, **params):
    fitted = DensityOutlierDetector(estimator, statistic=statistic, random_state=0, **params)
    return fitted.fit(X).score_samples(rows)


def test_log_density_is_that_of_the_estimator():
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


def test_log_pool_is_the_mean_over_the_likeliest_of_each_family():
    expected = (
        KernelDensity(bandwidth=0.5).fit(X).score_samples(X)
        + GaussianMixture(3, random_state=0).fit(X).score_samples(X)
    ) / 2
    np.testing.assert_allclose(score("log_pool", MANY, X), expected)


def test_held_out_log_pool_uses_the_members_not_fitted_to_the_row():
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
def test_each_family_of_components_has_one_vote(folds):
    components = portfolio(1000, 5, folds, False, {"random_state": 0})
    means = np.arange(len(components), dtype=float)
    names = [components[i].name for i in likeliest_of_each_family(components, means)]
    families = ["gaussian", "copula", "gaussianization", "quantile mixture", "axis mixture"]
    families += ["diagonal mixture", "axis kernels", "whitened kernels", "copula kernels"]
    families += ["whitened adaptive kernels"]
    flows = ["quantile spline flow", "whitened spline flow"]
    flows += [] if folds else ["copula spline flow", "quantile coupling flow"]
    assert sorted(name.split(" of ")[0] for name in names) == sorted(families + flows)
    assert "axis kernels of 0.05" in names  # the last one has the highest mean


def test_component_without_a_finite_likelihood_has_no_vote():
    components = [Component(name, None) for name in ("a of 1", "a of 2", "b", "c")]
    assert likeliest_of_each_family(components, np.array([1, 0, -np.inf, np.nan])) == [0]
    assert likeliest_of_each_family(components, np.array([-np.inf, np.nan, -np.inf, 0])) == [3]
    assert likeliest_of_each_family(components, np.array([-np.inf] * 3 + [np.nan])) == [1, 2]


def test_typicality_is_the_negative_distance_to_the_mean_log_density():
    rows, entropy = gaussian(4000)

    class TrueDensity(GaussianMixture):
        def fit(self, X, y=None):
            return self

        def score_samples(self, X):
            return gaussian_log_density(X)

    fitted = DensityOutlierDetector(TrueDensity(), statistic="typicality", random_state=0).fit(rows)
    expected = -np.abs(gaussian_log_density(rows) + entropy)
    np.testing.assert_allclose(fitted.score_samples(rows), expected, atol=0.1)


def test_contributions_as_a_data_frame_have_the_names_of_the_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b"]).iloc[::-1]
    fitted = DensityOutlierDetector(DENSITIES["mixture"]).fit(frame)
    found = fitted.explain(frame[:5], as_frame=True)
    with pytest.warns(UserWarning, match="valid feature names"):
        of_list = fitted.explain(frame[:5].to_numpy().tolist(), as_frame=True)
    np.testing.assert_array_equal(of_list, found)
    assert [*found.columns] == ["a", "b"]
    assert found.index.equals(frame.index[:5])
    np.testing.assert_array_equal(found.to_numpy(), fitted.explain(frame[:5]))
    with pytest.raises(ValueError, match=r"as_frame=True needs column names.*set_output"):
        DensityOutlierDetector(DENSITIES["mixture"]).fit(X).explain(X[:5], as_frame=True)
    with pytest.raises(ValueError, match="as_frame=True and as_shap=True: set only one"):
        fitted.explain(frame, as_frame=True, as_shap=True)


# Columns that are odd only together


def related_columns(n, seed=0):
    """Return two nearly equal columns, two discrete ones that differ by 1 at most, and noise."""
    rng = np.random.default_rng(seed)
    first, noise = rng.standard_normal((2, n))
    second, count = first + 0.1 * rng.standard_normal(n), rng.integers(0, 6, n)
    return np.column_stack([first, second, count, count + rng.integers(0, 2, n), noise])


TOGETHER = {
    "continuous columns": ([1.4, -1.4, 2, 2, 0], {0, 1}),
    "discrete columns": ([0, 0, 5, 0, 0], {2, 3}),
    "a value alone": ([0, 0, 2, 2, 9], None),
    "two values alone": ([5, 5, 2, 2, 9], None),
    "nothing": ([0.5, 0.5, 1, 2, 0.5], None),
}


@pytest.mark.parametrize("name", ["mixture", "kernels", "flow"])
def test_pairs_are_odd_together_but_normal_alone(name):
    density = {
        "mixture": TransformedDensity(
            GaussianMixture(6, random_state=0), preprocessing="standardize", random_state=0
        ),
        "kernels": TransformedDensity(
            GaussianKernels(0.3), preprocessing="standardize", random_state=0
        ),
        "flow": NSFDensity(max_iter=10, n_transforms=2, random_state=0),
    }[name]
    fitted = DensityOutlierDetector(density, random_state=0).fit(related_columns(400))
    pairs = fitted.odd_pairs(np.array([row for row, _ in TOGETHER.values()], dtype=float))
    found = [None if pair is None else set(pair) for pair in pairs]
    assert found == [expected for _, expected in TOGETHER.values()]
    assert np.mean([pair is None for pair in fitted.odd_pairs(related_columns(100, 1))]) > 0.9


def test_pairs_have_the_names_of_the_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(related_columns(200)[:, :2], columns=["left", "right"])
    for cv, calibration in (("auto", None), (2, "conformal")):
        detector = DensityOutlierDetector(
            GaussianMixture(), calibration=calibration, cv=cv, random_state=0
        )
        pairs = detector.fit(frame).odd_pairs(frame[:1].assign(left=1.5, right=-1.5))
        assert set(pairs[0]) == {"left", "right"}


def test_values_outside_the_bounds_are_odd_alone():
    fitted = DensityOutlierDetector(DENSITIES["bounded"], random_state=0).fit(X)
    assert fitted.odd_pairs([[0.0, -10.0], [9.5, 1.0], [9.5, -10.0]]) == [None] * 3
