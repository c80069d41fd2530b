"""Trees as context of conditional flows."""

import copy
import io
import pickle
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from _densities import few_trees
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold

import skflows
from skflows import ConditionalDensity, FlowRegressor, MAFDensity, NSFDensity
from skflows.conditional import _density, _trees
from skflows.conditional._regressor import shares_of_few
from skflows.conditional._trees import Boosting, Forest, TreePredictions, least_squares, shares_of
from skflows.conditional._value_probabilities import (
    ValueProbabilities,
    fit_value_probabilities,
)
from skflows.density import _evaluation

FLOW = NSFDensity(n_transforms=1, hidden_layer_sizes=8, max_iter=3)


def steps(n, seed=0):
    """Return mixed columns with missing values, and steps of y with little noise."""
    rng = np.random.RandomState(seed)
    X = pd.DataFrame(
        {
            "a": rng.normal(size=n),
            "b": rng.choice(list("xyz"), n),
            "c": np.where(rng.rand(n) < 0.2, np.nan, rng.rand(n)),
            "d": rng.choice(["up", "down"], n),
        }
    )
    y = np.select([X.b == "x", X.d == "up"], [3.0, -2.0]) + 4 * (X.a > 0) + X.c.isna()
    return X, y + 0.05 * rng.normal(size=n)


@pytest.fixture(scope="module", autouse=True)
def with_few_trees():
    with pytest.MonkeyPatch.context() as patch:
        few_trees(patch)
        yield


@pytest.fixture(scope="module")
def fitted():
    density = ConditionalDensity(FLOW, cv=2, trees=True, random_state=0)
    return FlowRegressor(density).fit(*steps(150))


def test_trees_know_steps_that_a_short_training_does_not(fitted):
    X, y = steps(150, seed=1)
    without = clone(fitted).set_params(density__trees=False).fit(*steps(150))
    assert fitted.score(X, y) > 0.95 > without.score(X, y)
    assert fitted.density_.score(X, y) > without.density_.score(X, y) + 0.5
    low, high = fitted.predict_interval(X, 0.8).T
    assert 0.7 < np.mean((low <= y) & (y <= high)) < 0.93


def test_the_distribution_of_flows_with_trees_is_one(fitted):
    X, _ = steps(5)
    distribution = fitted.predict_distribution(X)
    q = np.array([[0.01], [0.3], [0.9]])
    assert_allclose(distribution.cdf(distribution.ppf(q)), q + np.zeros(5), atol=1e-6)
    y, step = distribution.ppf(0.3), 1e-4
    slope = (distribution.cdf(y + step) - distribution.cdf(y - step)) / (2 * step)
    assert_allclose(distribution.pdf(y), slope, rtol=1e-3)
    drawn = fitted.density_.sample(X, 2_000, random_state=0)[..., 0]
    assert_allclose(distribution.cdf(np.quantile(drawn, 0.5, axis=1)), 0.5, atol=0.05)
    assert fitted.density_.weights_.sum() == pytest.approx(1)


def test_networks_see_a_row_once_for_each_question(fitted):
    X, y = steps(150)
    fitted, seen = copy.deepcopy(fitted), []
    for flow in fitted.density_.flows_:
        (layer,) = (each for name, each in flow.named_modules() if name.endswith(".context"))
        layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-1]))
    distribution = fitted.predict_distribution(X)
    for ask in (
        lambda: distribution.logpdf(y),
        distribution.mean,
        lambda: distribution.ppf(np.linspace(0.05, 0.95, 19)[:, None]),
        lambda: distribution.logpdf(np.linspace(-3, 8, 30)[:, None]),
        lambda: distribution.rvs(20, random_state=0),
    ):
        seen.clear()
        ask()
        assert len(seen) == len(fitted.density_.flows_) and max(seen) == 150


def test_answers_do_not_depend_on_blocks(fitted, monkeypatch, small_blocks, two_threads):
    """Nor on how many values of a row are asked for together. All threads share the blocks."""
    X, _ = steps(40)
    distribution = fitted.predict_distribution(X)
    q = np.linspace(0.05, 0.95, 7)
    expected = [distribution.mean(), distribution.rvs(3, random_state=0)]
    y = distribution.ppf(q[:, None])
    assert_allclose(y, [distribution.ppf(each) for each in q], rtol=1e-9)
    below, density = distribution.cdf(y), distribution.logpdf(y)
    pools = []
    monkeypatch.setattr(
        _evaluation,
        "ThreadPoolExecutor",
        lambda size: pools.append(size) or ThreadPoolExecutor(size),
    )
    small_blocks()
    found = [distribution.mean(), distribution.rvs(3, random_state=0)]
    pools.clear()
    for values, others in zip(
        [*found, distribution.ppf(q[:, None]), distribution.cdf(y), distribution.logpdf(y)],
        [*expected, y, below, density],
        strict=True,
    ):
        assert_allclose(values, others, rtol=1e-9)
    assert pools == [2] * 3


def test_files_and_pickles_hold_the_trees_without_skops(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops", None)
    X, _ = steps(20, seed=1)
    X.loc[0, "a"], X.loc[1, "b"], X.loc[2, "b"] = np.nan, None, "unseen"
    file = io.BytesIO()
    fitted.save(file)
    file.seek(0)
    expected = fitted.predict(X)
    assert np.isfinite(expected).all()
    for again in skflows.load(file), pickle.loads(pickle.dumps(fitted)):
        assert (again.predict(X) == expected).all()


def test_predictions_of_training_rows_come_from_trees_that_have_not_seen_them():
    rng = np.random.RandomState(0)
    X, y = rng.rand(200, 3), rng.normal(size=200)
    trees = TreePredictions()
    unseen = trees.fit_transform(X, np.zeros(3, dtype=bool), y, None)
    assert abs(np.corrcoef(unseen[:, 0], y)[0, 1]) < 0.25
    assert np.corrcoef(trees.transform(X)[:, 0], y)[0, 1] > 0.5


@pytest.mark.parametrize("categories", [None, [True, False, False]])
def test_stored_trees_predict_as_the_estimators_of_scikit_learn(categories):
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.randint(5, size=90), rng.rand(90, 2)])
    X[:9, 2] = np.nan
    y = X[:, 0] ** 2 % 3 + X[:, 1]
    models = [
        HistGradientBoostingRegressor(max_iter=9, categorical_features=categories, random_state=0),
        ExtraTreesRegressor(5, random_state=0),
    ]
    for model, cls in zip(models, [Boosting, Forest], strict=True):
        trees = cls.of(model.fit(X, y))
        assert_allclose(trees.predict(X), model.predict(X), rtol=1e-12)
        for name in "left", "left_child", "feature", "feature_idx":
            if name in trees.nodes.dtype.names:
                nodes = trees.nodes.copy()
                nodes[name][0] = 10_000
                with pytest.raises(ValueError, match="a node that leads nowhere"):
                    trees._replace(nodes=nodes).predict(X)


@pytest.mark.parametrize(("calibration", "n_outputs"), [("auto", 1), (0.3, 2)])
def test_means_are_mixed_with_the_trees_by_squared_error(calibration, n_outputs):
    """Trees tell steps exactly, flows roughly, whatever their likelihood."""
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(300, 2))
    y = np.floor(4 * X) + rng.normal(0, 0.05, (300, 2))
    y = y[:, 0] if n_outputs == 1 else y
    density = ConditionalDensity(FLOW, trees=True, cv=2)
    regressor = FlowRegressor(density, calibration=calibration, random_state=0)
    regressor.fit(X[:200], y[:200])
    shares, predicted = regressor.mean_shares_, regressor.predict(X[200:])
    assert shares.shape[1] == n_outputs and predicted.shape == y[200:].shape
    assert (shares >= 0).all() and np.allclose(shares.sum(axis=0), 1)
    by_flows = regressor.predict_distribution(X[200:]).mean()
    error, error_of_flows = (np.abs(each - y[200:]).mean() for each in (predicted, by_flows))
    assert error < error_of_flows
    trees = regressor.density_.encoder_[-1].trees_
    by_trees = trees.loc_ + trees.scale_ * regressor.density_._encoded(X[200:])[:, -n_outputs:]
    assert error < 1.2 * np.abs(by_trees - y[200:].reshape(100, -1)).mean()


def test_the_mean_consists_of_the_means(fitted):
    """With weights of the rows, for outputs of equal and of different shares."""
    X, y = steps(60, seed=1)
    Y = np.column_stack([y, y**2])
    density = ConditionalDensity(FLOW, trees=True, cv=2)
    other = FlowRegressor(density, random_state=0).fit(X, Y, np.arange(60.0))
    rng = np.random.default_rng(0)
    for regressor in (fitted, other):
        density = regressor.density_
        context = density._encoded(X[:20])
        means = density._means(context)
        shape = len(means), density.n_outputs_
        equal = np.repeat(rng.dirichlet(np.ones(len(means)))[:, None], shape[1], axis=1)
        for shares in (regressor.mean_shares_, equal, rng.dirichlet(np.ones(shape[1]), len(means))):
            together = np.einsum("knd,kd->nd", means, shares)
            found = density._mean(context, shares)
            assert np.abs(found - together).max() < 0.02 * Y.std()
    unweighted = FlowRegressor(other.density, random_state=0).fit(X, Y)
    assert not np.array_equal(unweighted.mean_shares_, other.mean_shares_)


def test_the_mean_consists_of_few_kinds():
    """A prediction that adds nothing but chance has no share, one that halves the error has one."""
    rng = np.random.default_rng(0)
    y, noise = rng.normal(size=400), rng.normal(size=(3, 400))
    columns = np.column_stack([y + noise[0], y + noise[0] + 0.1 * noise[1], y + noise[2]])
    shares = shares_of_few(columns, y, np.ones(400))
    assert shares[1] == 0 and np.abs(shares[[0, 2]] - 0.5).max() < 0.1
    assert_allclose(shares_of_few(columns[:, [0, 0]], y, np.ones(400)), [1, 0])
    exact = np.column_stack([y + noise[0], y])
    assert_allclose(shares_of_few(exact, y, np.ones(400)), [0, 1])


def test_few_calibration_rows_set_no_shares():
    density = ConditionalDensity(FLOW, trees=True, cv=2)
    regressor = FlowRegressor(density, calibration=0.2, random_state=0).fit(*steps(100))
    assert regressor.mean_shares_ is None


@pytest.mark.parametrize(
    ("params", "n_kinds"), [({}, 3), ({"bounds": [(-9, 99)]}, 2), ({"preprocessing": "whiten"}, 2)]
)
def test_differences_are_also_modelled_in_units_of_y(monkeypatch, params, n_kinds):
    """Unless bounds forbid it, or preprocessing leaves the units."""
    monkeypatch.setattr(
        _density, "shares_of", lambda scores, weight: np.full(scores.shape[1], 1 / scores.shape[1])
    )
    flow = clone(FLOW).set_params(max_iter=1, **params)
    density = ConditionalDensity(flow, cv=2, trees=True, random_state=0).fit(*steps(60))
    kinds = [type(flow.preprocess).__name__ for flow in density.flows_[::2]]
    assert kinds == ["FirstColumns", "Difference", "Chain"][:n_kinds]
    X, _ = steps(5, seed=1)
    for flow in density.flows_[::2]:  # density and quantiles are of the same map
        one = density._mixture([flow], [1.0], np.ones(1), density._encoded(X))
        median = one.ppf(np.full(5, 0.5), np.arange(5))
        assert_allclose(one.cdf(median, np.arange(5)), 0.5, atol=1e-6)


@pytest.mark.parametrize(("trees", "calibration"), [(True, None), (False, "auto")])
def test_the_mean_is_the_distributions_without_trees_or_calibration_rows(trees, calibration):
    X, y = steps(60)
    density = ConditionalDensity(FLOW, trees=trees, cv=2)
    regressor = FlowRegressor(density, calibration=calibration, random_state=0).fit(X, y)
    assert regressor.mean_shares_ is None
    assert np.array_equal(regressor.predict(X), regressor.predict_distribution(X).mean())


def test_trees_that_do_not_help_are_left_out(monkeypatch):
    monkeypatch.setattr(_density, "shares_of", lambda scores, weight: np.array([1.0, 0.0, 0.0]))
    X, y = steps(60)
    density = ConditionalDensity(FLOW, cv=2, trees=True, random_state=0)
    regressor = FlowRegressor(density).fit(X, y)
    assert len(regressor.density_.flows_) == 2
    assert regressor.density_.encoder_[-1].trees_ is None
    assert regressor.predict_interval(X).shape == (60, 2)


def test_shares_keep_some_of_the_flows_without_trees():
    rng = np.random.RandomState(0)
    better = np.column_stack([rng.normal(size=50) - 9, rng.normal(size=50)])
    assert_allclose(shares_of(better, np.ones(50)), [0.03, 0.97])
    assert_allclose(shares_of(better[:, ::-1], np.ones(50)), [1, 0])
    third = np.column_stack([better, better[:, 1] - 9])
    assert_allclose(shares_of(third, np.ones(50)), [0.03, 0.97, 0])
    y = rng.normal(size=50)
    columns = np.column_stack([y + 1, y - 3])
    assert_allclose(least_squares(columns, y, np.ones(50)), [0.75, 0.25], atol=1e-4)


def test_each_of_several_outputs_has_trees_and_a_single_flow_weighs_by_its_held_out_rows():
    X, y = steps(120)
    Y = np.column_stack([y, -2 * y + X.a])
    density = ConditionalDensity(MAFDensity(max_iter=2), cv=None, trees=True, random_state=0)
    density.fit(X, Y)
    assert len(density.flows_) == 2
    assert len(density.encoder_[-1].trees_.trees_) == 2
    mean = density.sample(X[:30], 200, random_state=0).mean(axis=1)
    assert np.corrcoef(mean[:, 1], Y[:30, 1])[0, 1] > 0.9


@pytest.mark.parametrize("n_known", [0, 1])
@pytest.mark.parametrize("is_category", [False, True])
def test_columns_without_known_values(n_known, is_category):
    X, y = np.random.RandomState(0).rand(2, 60)
    X = np.column_stack([X, np.full(60, np.nan)])
    X[:n_known, 1] = 3.0
    trees = TreePredictions(seconds=60)
    unseen = trees.fit_transform(X, np.array([False, is_category]), y, None)
    assert np.isfinite(unseen).all()
    assert np.isfinite(trees.transform(X)).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"circular": 24}, "circular outputs"),
        ({"cv": None, "estimator": NSFDensity(early_stopping=False)}, "no rows are held out"),
        ({"trees": "yes"}, "The 'trees' parameter of ConditionalDensity must be"),
    ],
)
def test_trees_that_cannot_be_are_an_error(params, message):
    with pytest.raises(ValueError, match=message):
        ConditionalDensity(**{"trees": True} | params).fit(*steps(60))


def test_a_short_time_limit_leaves_little_time_to_the_boosting(monkeypatch):
    monkeypatch.setattr(_trees, "STAGES", (25, 50, 150))
    X, y = steps(100)
    sizes, seconds = [], []
    for limit in 600, 0.01:
        flow = clone(FLOW).set_params(time_limit=limit)
        started = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            density = ConditionalDensity(flow, cv=2, trees=True, random_state=0).fit(X, y)
        seconds.append(time.process_time() - started)
        trees = [each for _, each in density.encoder_[-1].trees_.trees_[0]]
        sizes.append(max(len(each.sizes) for each in trees if isinstance(each, Boosting)))
    assert sizes[0] > 25 == sizes[1]
    assert seconds[1] < 0.7 * seconds[0]


def test_by_default_the_default_flow_has_trees(monkeypatch):
    monkeypatch.setattr(_density, "default_flow", lambda: FLOW)
    X, y = steps(60)
    assert ConditionalDensity(cv=2, random_state=0).fit(X, y).encoder_[-1].trees_ is not None
    for params, n in ({"estimator": FLOW}, 60), ({"circular": 9}, 60), ({}, 45):
        density = ConditionalDensity(cv=2, random_state=0, **params).fit(X[:n], y[:n])
        assert density.encoder_[-1].trees_ is None


def test_splits_of_groups_leave_trees_out():
    """Trees with folds of their own would know other rows of the group that is held out."""
    X, y = np.random.RandomState(0).normal(size=(60, 2)), np.repeat(np.arange(15.0), 4)
    splits = list(GroupKFold(3).split(X, y, groups=y))
    with pytest.raises(ValueError, match="trees=True with splits as cv"):
        ConditionalDensity(FLOW, cv=splits, trees=True).fit(X, y)
    density = ConditionalDensity(cv=splits, random_state=0)
    pairs = density._read(X, y, None)
    assert density._new_trees(pairs, FLOW, np.random.RandomState(0)) is None
    density.set_params(cv=3)
    assert density._new_trees(pairs, FLOW, np.random.RandomState(0)) is not None


def test_a_constant_output():
    X, y = steps(60)
    Y = np.column_stack([y, np.ones(60)])
    density = ConditionalDensity(FLOW, cv=2, trees=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        density.fit(X, Y)
    assert np.isfinite(density.log_prob(X, Y)).all()
    assert np.isfinite(density.sample(X, random_state=0)).all()


def test_flows_that_fail_with_trees_have_no_weight():
    scores = np.zeros((20, 3))
    scores[3, 1] = np.nan
    assert shares_of(scores, np.ones(20)).tolist() == [0.5, 0.0, 0.5]
    scores[4, 2] = -np.inf
    assert shares_of(scores, np.ones(20)).tolist() == [1.0, 0.0, 0.0]


def test_draws_of_flows_with_little_weight(fitted):
    X, _ = steps(3)
    context = fitted.density_._encoded(X)
    weights = np.array([1e-4, *fitted.density_.weights_[1:]])
    mixture = fitted.density_._mixture(
        fitted.density_.flows_, fitted.density_._signs, weights / weights.sum(), context
    )
    assert np.isfinite(mixture.draws(4)).all()


def hours(n, seed=0):
    """Return columns, and whole numbers: some rows prefer one, others the multiples of five."""
    rng = np.random.RandomState(seed)
    X = rng.normal(size=(n, 2))
    preferred = np.where(X[:, 0] > 0, 40, 5 * rng.randint(4, 13, n))
    return X, np.where(rng.rand(n) < 0.8, preferred, rng.randint(20, 61, n))


def with_equal_weights(monkeypatch, **params):
    """Return a density whose members have equal weights."""
    monkeypatch.setattr(
        _density, "shares_of", lambda scores, weight: np.full(scores.shape[1], 1 / scores.shape[1])
    )
    return ConditionalDensity(FLOW, cv=2, trees=True, random_state=0, **params)


def test_trees_know_frequent_values():
    X, y = hours(400)
    new, truth = hours(300, seed=1)
    flow = clone(FLOW).set_params(max_iter=20)
    density = ConditionalDensity(flow, cv=2, trees=True, random_state=0)
    regressor = FlowRegressor(density).fit(X, y)
    density = regressor.density_
    assert any(isinstance(flow, ValueProbabilities) for flow in density.flows_)
    without = clone(density).set_params(trees=False).fit(X, y)
    assert density.score(new, truth) > without.score(new, truth) + 0.1
    at = new[[new[:, 0].argmax(), new[:, 0].argmin()]]
    often, rarely = regressor.predict_distribution(at).pmf(40)
    assert often > rarely + 0.15
    interval = regressor.predict_interval(new, 0.8)
    assert 0.75 < ((interval[:, 0] <= truth) & (truth <= interval[:, 1])).mean() < 0.93


def test_distributions_of_values_by_trees_agree_with_themselves(monkeypatch, tmp_path):
    X, y = hours(120)
    density = with_equal_weights(monkeypatch).fit(X, y / 10)
    assert [type(flow).__name__ for flow in density.flows_[::2]] == 3 * ["Flow"] + 2 * [
        "ValueProbabilities"
    ]
    assert_allclose(density.weights_, 0.1)
    new, _ = hours(30, seed=1)
    distribution = density.predict_distribution(new)
    values = distribution.support[:, None]
    probability = distribution.pmf(values)
    assert_allclose(probability.sum(axis=0), 1, atol=1e-9)
    assert_allclose(np.cumsum(probability, axis=0), distribution.cdf(values), atol=1e-9)
    assert_allclose((values * probability).sum(axis=0), distribution.mean(), atol=1e-9)
    for q in (0.01, 0.3, 0.5, 0.99):
        quantile = distribution.ppf(q)
        assert (distribution.cdf(quantile) >= q - 1e-7).all()
        assert (distribution.cdf(quantile - 0.1) < q + 1e-7).all()
    draws = distribution.rvs(2_000, random_state=0)
    assert np.abs((draws == 4.0).mean(axis=0) - distribution.pmf(4.0)).max() < 0.05
    assert np.isin(np.round(10 * draws), np.round(10 * distribution.support)).all()
    density.save(tmp_path / "density.skflows")
    again = skflows.load(tmp_path / "density.skflows").predict_distribution(new)
    assert np.array_equal(again.pmf(values), probability)


def test_intervals_know_that_trees_have_seen_the_rows(monkeypatch):
    """Small leaves hold the value of each training row, of which new rows know nothing."""
    monkeypatch.setattr(_density, "shares_of", lambda *args: np.array([0.1, 0, 0, 0.9, 0]))
    rng = np.random.RandomState(0)
    X, noise = rng.normal(size=(1100, 3)), rng.normal(size=1100)
    y = np.rint(2 * X[:, 0] + 1.5 * noise)
    density = ConditionalDensity(FLOW, cv=4, trees=True, random_state=0)
    regressor = FlowRegressor(density).fit(X[:300], y[:300])
    low, high = regressor.predict_interval(X[300:], 0.8).T
    assert 0.7 < ((low <= y[300:]) & (y[300:] <= high)).mean() < 0.9


def test_maps_of_values_by_trees_have_inverses():
    X, y = hours(200)
    (fitted, _) = fit_value_probabilities(
        [(np.column_stack([y, X]), np.ones(200))], y[:, None], 1.0, 0
    )
    given = fitted.given(X[:7]).take(np.array([3, 3, 0, 6, 5]))
    rng = np.random.RandomState(0)
    rows = rng.choice(fitted.values, (9, 5, 1)) + rng.uniform(-0.5, 0.5, (9, 5, 1))
    latent, log_slope = given.map("forward", rows)
    again, log_slope_back = given.map("inverse", latent)
    assert_allclose(again, rows, atol=1e-6)
    assert_allclose(log_slope_back, -log_slope, atol=1e-6)
    higher = given.map("forward", rows + 1e-6)[0]
    inside = np.abs(rows - np.floor(rows) - 0.5)[..., 0] > 1e-3
    slope = (higher - latent)[..., 0] / 1e-6
    assert_allclose(slope[inside], np.exp(log_slope)[inside], rtol=1e-3)
    assert np.array_equal(
        given.map("forward", np.array([[[0.0]], [[99.0]]]))[0][..., 0],
        [[-np.inf] * 5, [np.inf] * 5],
    )


@pytest.mark.parametrize(
    ("y", "params"),
    [
        (lambda X, y: X[:, 1], {}),  # continuous
        (lambda X, y: np.column_stack([y, y]), {}),
        (lambda X, y: np.arange(120) % 31, {}),  # too many values for these rows
        (lambda X, y: y, {"time_limit": 1e-6}),
    ],
)
def test_other_outputs_have_no_values_by_trees(monkeypatch, y, params):
    X, hours_of_rows = hours(120)
    density = with_equal_weights(monkeypatch).set_params(
        estimator=clone(FLOW).set_params(max_iter=1, **params)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        density.fit(X, y(X, hours_of_rows))
    assert not any(isinstance(flow, ValueProbabilities) for flow in density.flows_)


@pytest.mark.filterwarnings("error")
def test_values_need_not_be_on_a_lattice():
    """Nor repeat so often that scikit-learn takes them for classes."""
    rng = np.random.RandomState(0)
    X = rng.normal(size=(400, 2))
    prices = np.array([5, 7, 10, 12, 15, 20, 30])
    y = np.where((X[:, 0] > 0) & (rng.rand(400) < 0.8), 10, rng.choice(prices, 400))
    (fitted, _) = fit_value_probabilities(
        [(np.column_stack([y, X]), np.ones(400))], y[:, None], 2.0, 0
    )
    given = fitted.given(np.array([[2.0, 0.0], [-2.0, 0.0]]))
    ends = (prices[:, None, None] + np.array([-1.0, 1.0])[:, None, None, None]) + np.zeros((2, 1))
    low, high = (stats.norm.cdf(given.map("forward", each)[0][..., 0]) for each in ends)
    assert_allclose((high - low).sum(axis=0), 1)
    often, rarely = (high - low)[2]
    assert often > 0.5 > 0.4 > rarely
    rounded = np.round(rng.normal(size=100), 1)
    with_equal = ConditionalDensity(clone(FLOW).set_params(max_iter=1), cv=2, trees=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with_equal.fit(X[:100], rounded)


def test_damaged_shares_of_values_are_an_error():
    X, y = hours(100)
    (fitted, _) = fit_value_probabilities(
        [(np.column_stack([y, X]), np.ones(100))], y[:, None] // 5 * 5, 5.0, 0
    )
    for damaged in (
        fitted._replace(leaf_values=fitted.leaf_values + 1000),
        fitted._replace(leaf_ends=fitted.leaf_ends + 2**30),
    ):
        with pytest.raises(ValueError, match=r"indices|index pointer|indptr"):
            damaged.given(X)
