"""Classification by densities: Bayes' rule, p-values, sets and rejection."""

import time
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from _densities import few_trees
from _tables import two_components  # noqa: F401 - a fixture
from scipy.special import log_expit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import skflows
from skflows import (
    ConditionalDensity,
    DensityClassifier,
    DensityOutlierDetector,
    NSFDensity,
    StackedDensity,
    TableDensity,
)
from skflows.columns.checks import ColumnWarning
from skflows.conditional import _classifier, _probabilities, _trees
from skflows.conditional._probabilities import ClassProbabilities, pool_weights, pooled
from skflows.conditional._trees import Boosting, Forest
from skflows.table._components import held_out_of_classes, make_splits

FLOW = NSFDensity(
    n_transforms=1, hidden_layer_sizes=(8,), max_iter=5, preprocessing="standardize", dropout=0.0
)
QUICK = clone(FLOW).set_params(max_iter=20, learning_rate_init=0.05)  # learns to tell classes apart
# One class has a single row of positive weight in that check, from which no density follows.
TOO_FEW = {"check_sample_weight_equivalence_on_dense_data": "a density needs two rows"}


@parametrize_with_checks(
    [
        DensityClassifier(density, random_state=0)
        for density in (FLOW, ConditionalDensity(QUICK, cv=None))
    ],
    expected_failed_checks=lambda estimator: TOO_FEW,
)
def test_check_estimator(estimator, check):
    check(estimator)


def blobs(n, seed=0, labels=(0, 1)):
    """Return rows of two normals, three deviations apart, and the posterior of the second."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    X = rng.standard_normal((n, 2)) + 3 * np.outer(label, [1, 0])
    posterior = 1 / (1 + np.exp(4.5 - 3 * X[:, 0]))
    return X, np.asarray(labels)[label], posterior


def gaussians(**params):
    return DensityClassifier(GaussianMixture(), random_state=0, **params)


def test_bayes_rule():
    X, y, posterior = blobs(2000)
    classifier = gaussians(calibration=None).fit(X, y)
    assert np.abs(classifier.predict_proba(X)[:, 1] - posterior).max() < 0.1
    assert np.allclose(np.exp(classifier.predict_log_proba(X)).sum(axis=1), 1)
    densities = np.exp([density.score_samples(X) for density in classifier.estimators_])
    assert np.allclose(np.exp(classifier.score_samples(X)), classifier.priors_ @ densities)
    with pytest.raises(ValueError, match=r"calibration=0\.2"):
        classifier.p_values(X)


def test_verbose_names_the_classes(capsys):
    X, y, _ = blobs(60)
    flow = NSFDensity(n_transforms=1, max_iter=2, early_stopping=False)
    DensityClassifier(flow, calibration=None, verbose=2, random_state=0).fit(X, y)
    lines = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["Class 0 (1 of 2)", "Epoch 2/2", "Class 1 (2 of 2)", "Epoch 2/2"]


def test_all_classes_of_too_few_rows_are_named():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), np.array(["a"] * 57 + ["b", "b", "c"])
    message = (
        r"2 classes of y have too few rows: b \(2 samples, 1 of them for calibration\), c "
        r"\(1 sample, 1 of them for calibration\)\. .* leave these rows out, or merge the classes"
    )
    with pytest.raises(ValueError, match=message):
        gaussians(calibration=0.2).fit(X, y)


@pytest.mark.parametrize("calibration", ["auto", 0.5])
def test_the_temperature_undoes_overconfidence(calibration):
    """Eight noisy copies of a column, which a density takes for independent, count eight times."""
    X, y, posterior = blobs(2000)
    X = X[:, :1] + 0.05 * np.random.default_rng(1).standard_normal((2000, 8))
    density = GaussianMixture(covariance_type="diag")
    classifier = DensityClassifier(density, calibration=calibration, random_state=0).fit(X, y)
    assert 6 < classifier.temperature_ < 10
    assert np.abs(classifier.predict_proba(X)[:, 1] - posterior).max() < 0.1
    stacked = StackedDensity([("diagonal", density)], cv=3, random_state=0)
    stacked = DensityClassifier(stacked, random_state=0).fit(X, y)
    assert 6 < stacked.temperature_ < 10


def test_rows_unlike_those_seen_have_no_probability_of_0():
    X, y, _ = blobs(300)
    far = X[:1] + np.array([[0.0, 1e4]])
    classifier = gaussians(calibration=0.2).fit(X, y)
    n = sum(map(len, classifier.calibration_scores_))
    least = classifier.priors_ / (n + 2)
    proba = classifier.predict_proba(far)[0]
    assert classifier.prior_weight_ == 1 / (n + 2)
    assert (proba >= least).all() and proba.min() == pytest.approx(least[proba.argmin()], rel=1e-3)
    assert gaussians(calibration=None).fit(X, y).predict_proba(far).min() < 1e-9


def test_the_temperature_needs_rows():
    X, y, _ = blobs(30)
    assert gaussians().fit(X, y).temperature_ == 1


@pytest.mark.parametrize("apart", [20, 200])
def test_the_temperature_of_separable_classes_is_1(apart):
    X, y, _ = blobs(400)
    X[:, 0] += (apart - 3) * y
    assert gaussians().fit(X, y).temperature_ == pytest.approx(1, abs=1e-3)


def test_priors():
    X, y, _ = blobs(400)
    assert np.allclose(gaussians().fit(X, y).priors_, np.bincount(y) / 400)
    assert gaussians(priors=[3, 1]).fit(X, y).priors_.tolist() == [0.75, 0.25]
    never = gaussians(priors=[1, 0]).fit(X, y)
    assert (never.predict(X) == 0).all()
    assert never.temperature_ == pytest.approx(1, abs=1e-3)
    weight = np.where(y == 0, 3.0, 1.0)
    weighted = DensityClassifier(KernelDensity(), random_state=0).fit(X, y, weight)
    n = np.bincount(y, weight)
    assert np.allclose(weighted.priors_, n / n.sum())
    with pytest.raises(ValueError, match="a probability for each of the 2 classes"):
        gaussians(priors=[1]).fit(X, y)


def test_p_values_and_sets_of_new_rows():
    X, y, _ = blobs(2000)
    classifier = gaussians(calibration=0.5).fit(X, y)
    X, y, _ = blobs(4000, seed=1)
    p_values = classifier.p_values(X)
    sets = classifier.predict_set(X, coverage=0.9)
    for k in (0, 1):
        own = p_values[y == k, k]
        assert np.abs(np.quantile(own, [0.05, 0.1, 0.5]) - [0.05, 0.1, 0.5]).max() < 0.05
        assert np.abs(sets[y == k, k].mean() - 0.9) < 0.04
    assert 0.7 < sets.sum(axis=1).mean() < 1.2


@pytest.mark.parametrize(
    ("labels", "unknown"), [((3, 5), -1), (("a", "long name"), "unknown"), ((False, True), -1)]
)
def test_rejected_rows(labels, unknown):
    X, y, _ = blobs(600, labels=labels)
    classifier = gaussians(reject=0.02).fit(X, y)
    far = np.array([[50.0, 0.0], [-50.0, 9.0]])
    assert classifier.predict(far).tolist() == [unknown, unknown]
    assert not classifier.predict_set(far, 0.9).any()
    predicted = classifier.predict(X)
    assert (predicted == unknown).mean() < 0.06
    assert (predicted == y).mean() > 0.85
    with pytest.raises(ValueError, match="is the label of a class"):
        gaussians(reject=0.02, unknown_label=labels[0]).fit(X, y)
    other = 7 if isinstance(unknown, str) else "odd"
    with pytest.raises(ValueError, match=rf"unknown_label={other!r}, and the classes are"):
        gaussians(reject=0.02, unknown_label=other).fit(X, y)
    with pytest.raises(ValueError, match=r"reject=0\.02 needs p-values"):
        gaussians(reject=0.02, calibration=None).fit(X, y)


def test_classes_of_weight_0_are_left_out():
    X, y, _ = blobs(200)
    weight = np.arange(200) % 5
    y = np.where(weight, y, 7)
    classifier = DensityClassifier(KernelDensity(), random_state=0).fit(X, y, weight)
    assert classifier.classes_.tolist() == [0, 1]


def test_each_density_is_evaluated_once(monkeypatch):
    X, y, _ = blobs(200)
    classifier = gaussians(reject=0.2).fit(X, y)
    calls, score = [], GaussianMixture.score_samples
    monkeypatch.setattr(
        GaussianMixture, "score_samples", lambda self, X: calls.append(0) or score(self, X)
    )
    classifier.predict(X)
    assert len(calls) == 2


def test_as_many_rows_as_the_coverage_needs_exclude_a_class():
    """In floats, the least p-value of 9 rows, 0.1, exceeds 1 - 0.9."""
    X, y, _ = blobs(36)
    X, y = np.concatenate([X, X]), np.arange(72) % 2
    X[:, 0] += 50 * y
    classifier = gaussians(calibration=0.25).fit(X, y)
    assert [*map(len, classifier.calibration_scores_)] == [9, 9]
    assert (classifier.predict_set(X, coverage=0.9).sum(axis=1) <= 1).all()
    with pytest.warns(UserWarning, match=r"coverage=0.91 needs 11 rows of each class"):
        assert classifier.predict_set(X, coverage=0.91).all()


def test_warns_of_sets_of_all_classes():
    X, y, _ = blobs(60)
    classifier = gaussians(calibration=0.2).fit(X, y)
    with pytest.warns(UserWarning, match=r"coverage=0.95 needs 19 rows of each class"):
        assert classifier.predict_set(X, 0.95).any()


def test_warns_if_no_row_can_be_rejected():
    X, y, _ = blobs(60)
    with pytest.warns(UserWarning, match=r"No row can be rejected.*at least 0\.1.*it takes 99"):
        gaussians(reject=0.01).fit(X, y)
    with pytest.warns(UserWarning, match=r"Raise reject, or fit to more rows of this class\.$"):
        DensityClassifier(SMALL_STACK, reject=0.01, random_state=0).fit(X, y)


def test_held_out_scores_of_an_ensemble_calibrate():
    X, y, _ = blobs(300)
    stack = StackedDensity([("gaussian", GaussianMixture()), ("kernel", KernelDensity())])
    classifier = DensityClassifier(stack, reject=0.05, random_state=0).fit(X, y)
    assert [len(scores) for scores in classifier.calibration_scores_] == np.bincount(y).tolist()
    p_values = classifier.p_values(blobs(1000, seed=1)[0]).max(axis=1)
    assert np.abs((p_values <= 0.2).mean() - 0.17) < 0.06


SMALL_STACK = StackedDensity([("flow", FLOW), ("normal", GaussianMixture())], cv=2)


@pytest.mark.parametrize("as_frame", [False, True])
@pytest.mark.parametrize(
    ("estimator", "inner"),
    [
        (FLOW, lambda density: density),
        (SMALL_STACK, lambda density: dict(density.estimators)["flow"]),
        (GridSearchCV(FLOW, {"max_iter": [2]}, cv=2), lambda search: search.best_estimator_),
    ],
)
def test_discrete_columns_are_those_of_all_rows(estimator, inner, as_frame):
    X, y = load_iris(return_X_y=True)
    X = np.column_stack(
        [X[:, 0] + 0.001 * np.arange(150), np.where(y == 0, 0.0, np.arange(150) % 7 / 2)]
    )
    X = pd.DataFrame(X, columns=["a", "b"]) if as_frame else X
    classifier = DensityClassifier(estimator, random_state=0).fit(X, y)
    gaps = [inner(density).discrete for density in classifier.estimators_]
    assert gaps == 3 * [{1: 0.5}]


def test_discrete_columns_are_found_once(monkeypatch):
    calls, find = [], _classifier.discrete_gaps
    monkeypatch.setattr(_classifier, "discrete_gaps", lambda *args: calls.append(0) or find(*args))
    stack = StackedDensity([("one", FLOW), ("two", FLOW)])
    X = np.column_stack([np.exp(np.arange(150) / 50), np.arange(150) % 7 / 2])
    own = DensityClassifier(stack)._template(X, np.ones(150), 0)
    assert [density.discrete for _, density in own.estimators] == 2 * [{1: 0.5}]
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("cv", "calibration", "n_calibrating"),
    [(5, "auto", 300), (None, "auto", 60), (2, 0.5, 150), (5, None, 0)],
)
def test_classes_may_share_a_conditional_density(cv, calibration, n_calibrating, tmp_path):
    X, y, posterior = blobs(300, labels=["no", "yes"])
    frame = pd.DataFrame(X, columns=["a", "b"])
    density = ConditionalDensity(QUICK, cv=cv)
    classifier = DensityClassifier(density, calibration=calibration, random_state=0)
    classifier.fit(frame, y)
    assert len(classifier.estimators_) == 1
    assert sum(map(len, classifier.calibration_scores_ or [])) == n_calibrating
    proba = classifier.predict_proba(frame)
    assert np.abs(proba[:, 1] - posterior).mean() < 0.1
    log_densities = classifier._log_densities(frame)
    one_hot = np.tile([0.0, 1.0], (300, 1))
    assert np.array_equal(log_densities[:, 1], classifier.estimators_[0].log_prob(one_hot, frame))
    classifier.save(tmp_path / "classifier.skflows")
    assert np.array_equal(skflows.load(tmp_path / "classifier.skflows").predict_proba(frame), proba)


def test_rows_of_a_shared_density_that_calibrate_are_unseen():
    X, y, _ = blobs(400)
    density = ConditionalDensity(QUICK, cv=4)
    classifier = DensityClassifier(density, reject=0.2, random_state=0).fit(X, y)
    new, label, _ = blobs(2000, seed=1)
    p_values = classifier.p_values(new)[np.arange(2000), label]
    assert (p_values <= 0.2).mean() == pytest.approx(0.2, abs=0.05)
    assert (classifier.predict(X + 50) == -1).all()


def test_folds_of_a_shared_density_have_all_classes():
    X = np.random.default_rng(0).normal(size=(102, 2))
    y = np.repeat([0, 1, 2], [50, 50, 2])
    classifier = DensityClassifier(ConditionalDensity(QUICK, cv=5), random_state=0).fit(X, y)
    parts = [y[held_out] for held_out in classifier.estimators_[0].held_out_]
    assert all(9 <= (part == k).sum() <= 11 for part in parts for k in (0, 1))
    assert sorted((part == 2).sum() for part in parts) == [0, 0, 0, 1, 1]
    assert classifier.estimators_[0].cv == 5
    stratified = ConditionalDensity(QUICK, cv=StratifiedKFold(2))
    assert len(DensityClassifier(stratified).fit(X, y).estimators_[0].held_out_) == 2


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([(np.arange(20), np.arange(20, 40))], "lists rows; give a number of folds"),
        ("five", "The 'cv' parameter of ConditionalDensity must be"),
        (KFold(2), r"no row of class 0 is left to train on in split 0 of estimator.cv=KFold"),
    ],
)
def test_splits_that_a_shared_density_cannot_use(cv, message):
    X, y, _ = blobs(40)
    order = np.argsort(y)
    with pytest.raises(ValueError, match=message):
        DensityClassifier(ConditionalDensity(FLOW, cv=cv)).fit(X[order], y[order])


def test_rows_held_out_from_a_shared_density_need_no_folds():
    X, y, _ = blobs(400)
    density = ConditionalDensity(QUICK)
    assert density._folds(400)
    classifier = DensityClassifier(density, calibration=0.2, random_state=0).fit(X, y)
    assert len(classifier.estimators_[0].flows_) == 1


def test_a_shared_density_has_the_seed_of_its_flow_and_names_x():
    X, y, _ = blobs(40)
    flow = clone(FLOW).set_params(random_state=0)
    first, second = (
        DensityClassifier(ConditionalDensity(flow), calibration=None).fit(X, y).predict_proba(X)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    bounded = clone(FLOW).set_params(bounds={0: (1e3, 1e4)})
    with pytest.raises(ValueError, match=r"X\[.* not within bounds"):
        DensityClassifier(ConditionalDensity(bounded)).fit(X, y)


def test_discrete_columns_of_a_pipeline_are_its_own():
    X, y = load_iris(return_X_y=True)
    classifier = DensityClassifier(make_pipeline(StandardScaler(), FLOW), random_state=0)
    assert classifier.fit(X, y).estimators_[0][-1].discrete == "auto"


def test_probabilities_have_labels_on_demand():
    X = pd.DataFrame({"x": [0.0, 0.1, 5.0, 5.2] * 10}, index=range(100, 140))
    classifier = DensityClassifier(GaussianMixture(), calibration=None, random_state=0)
    classifier.fit(X, ["low", "low", "high", "high"] * 10)
    proba = classifier.predict_proba(X, as_frame=True)
    assert proba.columns.tolist() == ["high", "low"] and proba.index.equals(X.index)
    np.testing.assert_array_equal(proba, classifier.predict_proba(X))


@pytest.mark.parametrize("as_frame", [False, True])
def test_classes_of_a_table_share_kinds_and_categories(as_frame, tmp_path):
    """A class without a category, with other steps or without decimals can be told from others."""
    n = np.arange(90)
    y = np.where(n < 50, "a", "b")
    table = pd.DataFrame(
        {
            "color": np.where(n % 2, "red", np.where(y == "a", "green", None)),
            "step": np.where(y == "a", n % 5 / 2, n % 3),
            "size": np.where(y == "a", n + np.log(n + 1), n),
        }
    )
    X = table if as_frame else table.to_numpy()
    density = TableDensity(max_iter=1, cv=2)
    classifier = DensityClassifier(density, reject=0.1, calibration=0.25, random_state=0).fit(X, y)
    (shared,) = classifier.estimators_
    assert shared.columns_["kind"].tolist() == ["categorical", "ordinal", "continuous"]
    assert shared.columns is None
    assert [len(scores) for scores in classifier.calibration_scores_] == [12, 10]
    proba = classifier.predict_proba(X)
    assert np.isfinite(classifier._log_densities(X)).all()
    assert (classifier.classes_[proba.argmax(axis=1)] == y).mean() > 0.8
    assert classifier.predict_set(X, 0.8)[n, (n >= 50).astype(int)].mean() > 0.7
    odd = table[:1].assign(size=1e6)
    assert classifier.predict(odd if as_frame else odd.to_numpy()) == ["unknown"]
    classifier.save(tmp_path / "classifier.skflows")
    assert np.allclose(skflows.load(tmp_path / "classifier.skflows").predict_proba(X), proba)


def mixed_classes(n):
    """Return a table of three classes that differ in both columns, with gaps, and the classes."""
    rng = np.random.default_rng(0)
    y = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    color = np.where(rng.random(n) < 0.2 + 0.3 * y, "red", "blue")
    size = np.where(rng.random(n) < 0.1, np.nan, rng.normal(y, 1.0))
    return pd.DataFrame({"color": color, "size": size}), y


def test_the_densities_of_classes_of_a_table_sum_to_its_density():
    X, y = mixed_classes(150)
    density = TableDensity(max_iter=1, n_orders=1, cv=2)
    classifier = DensityClassifier(density, random_state=0).fit(X, y, 1.0 + y)
    (density,) = classifier.estimators_
    of_rows = classifier.score_samples(X)
    # A class has its share of the rows, instead of the ones of members.
    np.testing.assert_allclose(of_rows, density.score_samples(X), atol=0.1)
    grid = pd.DataFrame({"color": "red", "size": np.linspace(-12, 14, 2_001)})
    densities = np.exp(classifier._log_densities(pd.concat([grid, grid.assign(color="blue")])))
    total = densities.sum(axis=0) * (grid["size"][1] - grid["size"][0])
    np.testing.assert_allclose(total, 1, atol=0.02)


def test_rows_of_a_table_calibrate_by_members_that_have_not_seen_them(monkeypatch):
    """In a kernel of their own, rows would be far likelier."""
    few_trees(monkeypatch)
    X, y = mixed_classes(120)
    density = TableDensity(max_iter=1, n_orders=1, cv=3)
    classifier = DensityClassifier(density, classifiers=True, random_state=0).fit(X, y)
    shares = np.bincount(y)[y] / len(y)
    (density,) = classifier.estimators_
    known = np.sort(np.concatenate(classifier.calibration_scores_))
    unseen = np.sort(density.held_out_scores_ - np.log(shares))
    # Orders of a network differ a little, and so do the shares of the classes in a fold.
    np.testing.assert_allclose(known, unseen, atol=0.2)
    seen = classifier._log_densities(X)[np.arange(len(y)), y]
    assert seen.mean() > known.mean() + 0.05


def test_a_class_of_rows_that_break_a_rule():
    """The rule tells the total, so that the members do not see it."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 20 == 0
    table = pd.DataFrame(rng.lognormal(3, 1, (400, 2)).round(2), columns=["net", "tax"])
    table["total"] = (table.sum(axis=1) + y * rng.choice([-3.0, 3.0], 400)).round(2)
    density = TableDensity(max_iter=1, n_orders=1, cv=2)
    classifier = DensityClassifier(density, random_state=0).fit(table[:300], y[:300])
    assert classifier.estimators_[0].rules_["rule"].tolist() == ["total = net + tax"]
    assert np.array_equal(classifier.predict(table[300:]), y[300:])
    missing = classifier.predict_proba(table.assign(total=np.nan))
    assert missing[:, 1].mean() == pytest.approx(0.05, abs=0.02)


def test_rows_of_a_table_that_have_no_class():
    X, y = mixed_classes(90)
    density = TableDensity(max_iter=1, n_orders=1, cv=2)
    classifier = DensityClassifier(density, random_state=0).fit(X, y)
    far = pd.DataFrame({"color": "red", "size": [1e6, 1e9, 1e15]})
    np.testing.assert_allclose(classifier.predict_proba(far).sum(axis=1), 1, rtol=1e-12)
    never = np.array([[-3.0, -np.inf, -np.inf], [-np.inf] * 3])  # but in a class of prior 0
    priors = np.array([0.0, 0.5, 0.5])
    log_proba = _classifier.log_proba_of(never, priors, 1.0, 0.0)
    np.testing.assert_array_equal(np.exp(log_proba), np.tile(priors, (2, 1)))
    X[y == 2] = None
    with pytest.raises(ValueError, match="no row of class 2 has a known value: leave the class"):
        classifier.fit(X, y)


def test_splits_of_a_table_leave_rows_of_each_class_to_train_on():
    label = np.repeat([0, 1], [40, 4])
    copy_of = np.where(label == 1, 40, np.arange(44))  # all rows of a class are copies of one
    for train, _ in make_splits(2, copy_of, 0, label):
        assert set(label[train]) == {0, 1}
    pairs = np.repeat(np.arange(600), 2)  # of which no third can be held out
    splits = make_splits("auto", np.arange(1_200), 0, pairs)
    assert len(splits) == 5 and all(set(pairs[train]) == set(pairs) for train, _ in splits)


def test_rare_classes_of_a_large_table_hold_out_enough_rows():
    label = np.repeat([0, 1, 2, 3], [10_000, 90, 30, 2])
    train, held_out = held_out_of_classes(label, 0)
    assert np.bincount(label[held_out], minlength=4).tolist() == [1_500, 20, 10, 0]
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), np.arange(len(label)))


def test_classes_of_a_table_share_weights():
    """Those of all rows: nothing is held out, because the density keeps held-out scores."""
    color, weight = np.tile(["green", "red", "red"], 20), np.tile([1.0, 2.0, 3.0], 20)
    density = TableDensity(max_iter=1, n_orders=1, cv=2)
    classifier = DensityClassifier(density, reject=0.1, random_state=0)
    classifier.fit(pd.DataFrame({"color": color}), np.arange(60) % 2, weight)
    (density,) = classifier.estimators_
    colors, classes = density._schema.variables
    assert colors.counts == pytest.approx([10, 50])
    assert classes.counts == pytest.approx([30, 30])
    assert [len(scores) for scores in classifier.calibration_scores_] == [30, 30]


def test_shared_kinds_are_those_of_one_table():
    """A clone that is fitted to other columns, or with other parameters, finds kinds anew."""
    n = np.arange(40)
    table = pd.DataFrame({"p": n / 7, "q": n % 3, "color": np.where(n % 2, "red", "blue")})
    density = TableDensity(max_iter=1, n_orders=1, cv=2, random_state=0)
    first = density._share_columns(table, np.random.RandomState(0))
    part = clone(first).fit(table[table["color"] == "red"])
    assert part._encoding.categories[2] == ["blue", "red"]
    other = clone(first).fit(table[["q", "p"]])
    assert other._schema.names == list(other.feature_names_in_) == ["q", "p"]
    assert other._schema.columns[1].kind == part._schema.columns[0].kind != "ordinal"
    assert set(other.sample(20, random_state=0)["q"]) <= {0, 1, 2}
    renamed = table.assign(color=np.where(n % 2, "red", "green"))
    assert clone(first).fit(renamed)._encoding.categories[2] == ["green", "red"]
    searched = clone(first).set_params(missing="model", columns={"q": "categorical"}).fit(table)
    assert [column.has_flag for column in searched._schema.columns] == [True] * 3
    assert searched._schema.columns[1].kind == "categorical"


def test_categories_of_classes_inside_a_detector():
    """Each detector encodes its class, which lacks the first category."""
    n = np.arange(60)
    table = pd.DataFrame({"color": np.where(n < 30, "blue", np.where(n % 2, "red", "green"))})
    density = TableDensity(max_iter=1, n_orders=1, cv=2)
    detector = DensityOutlierDetector(density, calibration=None)
    classifier = DensityClassifier(detector, random_state=0).fit(table, n >= 30)
    for own in classifier.estimators_:
        schema = own.models_[0].density.estimator._schema
        assert own._encoding.categories == schema.encoding.categories == [["blue", "green", "red"]]
    assert classifier.score(table, n >= 30) == 1


def test_kinds_of_classes_inside_a_detector():
    """Each detector has folds, for which it would find the kinds of its class."""
    n = np.arange(60)
    table = pd.DataFrame({"size": np.where(n < 30, n, np.sqrt(n))})
    detector = DensityOutlierDetector(TableDensity(max_iter=1, n_orders=1, cv=2), cv=2)
    classifier = DensityClassifier(detector, random_state=0).fit(table, n >= 30)
    schemas = [own.models_[0].density.estimator._schema for own in classifier.estimators_]
    assert [schema.columns[0].kind for schema in schemas] == ["continuous"] * 2
    again = DensityClassifier(clone(classifier.estimators_[0].estimator), random_state=0)
    again.fit(table.round(), n >= 30)
    assert [own._schema.columns[0].kind for own in again.estimators_] == ["count"]


def test_clones_of_fitted_densities_know_nothing_of_earlier_rows():
    rng = np.random.default_rng(0)
    n = rng.integers(0, 10, 120)
    table = pd.DataFrame({"n": n, "s": 3 * n + 1, "x": rng.normal(size=120)})
    density = TableDensity(max_iter=1, n_orders=1, cv=2)
    classifier = DensityClassifier(density, random_state=0).fit(table, n % 2)
    assert len(classifier.estimators_[0].rules_) == 1
    other = table[:30].assign(s=rng.integers(0, 40, 30))
    assert clone(classifier.estimators_[0]).fit(other).rules_.empty


def test_a_frozen_density_stays_as_it_is():
    n = np.arange(40)
    density = TableDensity(max_iter=1, n_orders=1, cv=2, random_state=0).fit(n[:, None])
    DensityClassifier(FrozenEstimator(density), calibration=None).fit(n[:, None], n % 2)
    assert density._shared is None


def test_rows_that_calibrate_a_table_share_categories_alone():
    """New rows would be less likely than them if the map of a number had steps at their values."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"size": np.exp(rng.normal(3, 1, 600)).round(), "color": "red"})
    is_used = np.arange(600) < 500
    X["steps"] = np.arange(600) % 50 + np.where(is_used, 0, 0.5)
    X.loc[~is_used, "color"] = "green"
    assert not X["size"][~is_used].isin(X["size"][is_used]).all()

    def schema(rows, weight):
        return TableDensity()._share_columns(rows, np.random.RandomState(0), weight)._shared

    shared, own = schema(X, 1.0 * is_used), schema(X[is_used], None)
    assert shared.columns[1].variables[0].levels == ["green", "red"]
    assert [column.kind for column in shared.columns] == ["count", "categorical", "count"]
    numbers = X["size"].to_numpy()
    maps = [found.columns[0].variables[0].maps["quantile"] for found in (shared, own)]
    assert np.array_equal(*(found.forward(numbers)[0] for found in maps))
    assert not np.array_equal(
        maps[0].forward(numbers)[0],
        schema(X, None).columns[0].variables[0].maps["quantile"].forward(numbers)[0],
    )


def test_the_default_density_shares_its_networks_and_takes_numbers(monkeypatch):
    X, y, _ = blobs(20)
    default = _classifier.default_density()
    assert default.estimator.input_noise == 0.1
    monkeypatch.setattr(_classifier, "default_density", lambda: ConditionalDensity(QUICK, cv=2))
    classifier = DensityClassifier(random_state=0).fit(X, y)
    (density,) = classifier.estimators_
    assert len(density.held_out_) == 2
    assert classifier.predict_proba(X).shape == (len(X), 2)
    assert (classifier.predict(pd.DataFrame(X).to_numpy()) == classifier.predict(X)).all()
    table = pd.DataFrame(X).add_prefix("x")
    assert DensityClassifier().fit(table, y).score(table, y) > 0.5


def test_the_default_density_of_other_columns_is_one_of_tables(monkeypatch, tmp_path):
    quick = TableDensity(max_iter=1, n_orders=1, cv=2)
    monkeypatch.setattr(_classifier, "default_table_density", lambda: quick)
    monkeypatch.setattr(_classifier, "default_density", lambda: ConditionalDensity(QUICK, cv=2))
    X, y, _ = blobs(60)
    table = pd.DataFrame({"size": X[:, 0], "color": np.where(X[:, 1] > 0, "red", "blue")})
    table["who"] = [f"Person {i}" for i in range(60)]
    gaps = X.copy()
    gaps[3, 0] = np.nan
    monkeypatch.setattr(_probabilities, "STAGES", (25,))
    with pytest.warns(ColumnWarning, match="'who' seems to name the rows") as caught:
        of_table = DensityClassifier(random_state=0).fit(table, y)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # names of new rows are new
        of_table.predict(table.assign(who=[f"New person {i}" for i in range(60)]))
    of_gaps = DensityClassifier(random_state=0).fit(gaps, y)
    for rows, classifier in (table, of_table), (gaps, of_gaps):
        assert [type(density) for density in classifier.estimators_] == [TableDensity]
        assert len(classifier.weights_) > 1
        assert classifier.score(rows, y) > 0.9
        assert classifier.p_values(rows).shape == (60, 2)
    classifier.save(tmp_path / "classifier.skflows")
    again = skflows.load(tmp_path / "classifier.skflows")
    assert np.array_equal(again.predict_proba(gaps), classifier.predict_proba(gaps))
    assert isinstance(classifier.fit(X, y).estimators_[0], ConditionalDensity)
    assert _classifier.has_more_than_numbers(table.to_numpy())


def test_rows_that_the_default_density_of_numbers_does_not_take(monkeypatch):
    monkeypatch.setattr(_classifier, "default_density", lambda: ConditionalDensity(QUICK, cv=2))
    X, y, _ = blobs(40)
    classifier = DensityClassifier()
    assert get_tags(classifier).input_tags.allow_nan
    classifier.fit(X, y)
    assert not get_tags(classifier).input_tags.allow_nan
    gaps = np.where(X == X[0], np.nan, X)
    for rows in gaps, pd.DataFrame(gaps), np.where(X == X[0], "a", X.astype(object)):
        with pytest.raises(
            ValueError, match=r"fit DensityClassifier\(TableDensity\(handle_unknown="
        ):
            classifier.predict(rows)


def xor(n, seed=0, n_classes=2):
    """Return rows whose classes are separated by trees only, and the classes."""
    X = np.random.RandomState(seed).uniform(-1, 1, (n, 2))
    label = (X[:, 0] > 0) ^ (X[:, 1] > 0)
    return X, label + (n_classes - 2) * (X[:, 0] > 0.5)


def test_rows_far_from_all_classes_are_rejected_though_classifiers_are_sure_of_them(monkeypatch):
    monkeypatch.setattr(_probabilities, "STAGES", (25,))
    X, y, _ = blobs(56)
    classifier = gaussians(calibration=0.8, classifiers=True, reject=0.05).fit(X, y)
    assert min(map(len, classifier.calibration_scores_)) < 25
    far = 100 * X[:20]
    assert (classifier.predict_proba(far).max(axis=1) > 0.7).all()
    assert (classifier.predict(far) == -1).all()
    assert not classifier.predict_set(far, 0.95).any()
    assert (classifier.predict(X) != -1).mean() > 0.9


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifiers_are_pooled_with_bayes_rule(n_classes, tmp_path, monkeypatch):
    monkeypatch.setattr(_probabilities, "STAGES", (25, 50))
    X, y = xor(150, 0, n_classes)
    new, label = xor(300, 1, n_classes)
    plain = gaussians(calibration=0.3).fit(X, y)
    assert plain.weights_ == {"Bayes' rule": 1.0}
    classifier = clone(plain).set_params(classifiers=True).fit(X, y)
    trees = [classifier.weights_[name] for name in ("extra trees", "gradient boosting")]
    straight = [weight for name, weight in classifier.weights_.items() if "regression" in name]
    assert len(straight) == 3
    assert min(trees) > 1.2 * max(straight)
    losses = [log_loss(label, each.predict_proba(new)) for each in (classifier, plain)]
    assert losses[0] < 0.6 * losses[1]
    assert np.allclose(classifier.predict_proba(new).sum(axis=1), 1)
    assert np.array_equal(classifier.score_samples(new), plain.score_samples(new))
    for each in (classifier, plain):
        own = each.p_values(new)[np.arange(300), label]
        assert (own <= 0.2).mean() < 0.28
    # The densities leave more classes possible.
    n_possible = [each.predict_set(new, 0.8).sum(axis=1).mean() for each in (classifier, plain)]
    assert n_possible[0] < 0.85 * n_possible[1]
    classifier.save(tmp_path / "classifier.skflows")
    again = skflows.load(tmp_path / "classifier.skflows")
    assert np.array_equal(again.predict_proba(new), classifier.predict_proba(new))
    never = classifier.set_params(priors=[0, *(n_classes - 1) * [1]]).fit(X, y)
    assert (never.predict_proba(new)[:, 0] == 0).all()
    with pytest.raises(ValueError, match="classifiers=True needs held-out rows"):
        classifier.set_params(calibration=None).fit(X, y)


def test_probabilities_of_training_rows_come_from_models_that_have_not_seen_them(monkeypatch):
    monkeypatch.setattr(_probabilities, "STAGES", (25, 50))
    rng = np.random.RandomState(0)
    X, label = rng.rand(200, 3), rng.randint(3, size=200)
    models, rows = ClassProbabilities(), np.arange(200)
    unseen = models.fit_transform(X, label, np.ones(200))
    assert unseen[:, rows, label].mean(axis=1).max() < np.log(0.4)
    place = [*models.models_].index("extra trees")
    assert models.transform(X)[place, rows, label].mean() > np.log(0.9)


@pytest.mark.parametrize("n_known", [0, 1])
@pytest.mark.parametrize("value", [3.0, "red"])
def test_classifiers_take_columns_without_known_values(n_known, value, monkeypatch):
    monkeypatch.setattr(_probabilities, "STAGES", (25,))
    X, y = xor(60)
    table = pd.DataFrame(X, columns=["a", "b"]).assign(c=None, d=np.nan)
    table.loc[: n_known - 1, "c"] = value
    models = ClassProbabilities()
    assert np.isfinite(models.fit_transform(table, y, np.ones(60))).all()
    assert np.isfinite(models.transform(table)).all()


@pytest.mark.parametrize(("n", "n_classes"), [(20_000, 2), (900, 90)])
def test_extra_trees_stay_small(n, n_classes, monkeypatch):
    """Leaves of single rows would take about four times as much."""
    monkeypatch.setattr(_probabilities, "N_TREES", 2)
    monkeypatch.setattr(ClassProbabilities, "_fit_boosting", lambda *args: None)
    X, label = np.random.RandomState(0).rand(n, 2), np.arange(n) % n_classes
    models = ClassProbabilities()
    models.fit_transform(X, label, np.ones(n))
    forest = models.models_["extra trees"]
    assert (forest.nodes.nbytes + forest.values.nbytes) / 2 < 500_000


def test_stored_models_predict_as_the_estimators_of_scikit_learn():
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.randint(5, size=90), rng.rand(90, 2)])
    X[:9, 2] = np.nan
    for n_classes in 2, 3:
        y = (X[:, 0] + (X[:, 1] > 0.5)) % n_classes
        boosting = HistGradientBoostingClassifier(max_iter=9, random_state=0).fit(X, y)
        log_odds = boosting.decision_function(X)
        np.testing.assert_allclose(Boosting.of(boosting).predict(X), log_odds, rtol=1e-12)
        forest = ExtraTreesClassifier(5, random_state=0).fit(X, y)
        np.testing.assert_allclose(Forest.of(forest).predict(X), forest.predict_proba(X))


def test_temperature_and_pool_weight_classes_by_their_priors(monkeypatch):
    """A TableDensity of few rows holds out all of them, one of many rows a part."""
    found = []

    def spy(function, *args):
        found.append((args[1], args[-1]))
        return function(*args)

    for name in "temperature", "pool_weights":
        monkeypatch.setattr(_classifier, name, partial(spy, getattr(_classifier, name)))
    monkeypatch.setattr(_probabilities, "STAGES", (25,))
    X, y = xor(80)
    classifier = gaussians(classifiers=True, priors=[0.9, 0.1], calibration=0.3).fit(X, y)
    assert len(found) == 2
    for label, weight in found:
        assert len(label) == sum(map(len, classifier.calibration_scores_))
        np.testing.assert_allclose(np.bincount(label, weight), [0.9, 0.1])


def test_the_weights_of_a_pool_minimise_its_log_loss():
    rng = np.random.RandomState(0)
    log_odds = rng.normal(size=4_000)
    y = (rng.rand(4_000) < 1 / (1 + np.exp(-2 * log_odds))).astype(int)
    informed = log_expit(np.column_stack([-log_odds, log_odds]))
    noise = log_expit(np.outer(rng.normal(size=4_000), [-1, 1]))
    weights = pool_weights(np.array([informed, noise]), y, np.ones(4_000))
    np.testing.assert_allclose(weights, [2, 0], atol=0.15)
    few = pool_weights(np.array([informed, noise])[:, :3], y[:3], np.ones(3))
    np.testing.assert_allclose(few, [0.5, 0.5], atol=0.15)
    assert pooled(weights, np.array([informed, noise])).shape == (4_000, 2)


def test_a_short_time_limit_leaves_little_time_to_the_classifiers():
    X, y = xor(100)
    flow = ConditionalDensity(clone(QUICK).set_params(time_limit=0.01), cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = DensityClassifier(flow, classifiers=True, random_state=0).fit(X, y)
    assert classifier.classifiers_ is None
    assert classifier.weights_ == {"Bayes' rule": 1.0}
    assert classifier.predict_proba(X).shape == (100, 2)
    assert classifier.estimators_[0].estimator.time_limit == 0.01


@pytest.mark.parametrize(
    ("seconds", "n_forests", "n_boostings"), [(30, 1, 1), (100, 6, 7), (200, 6, 7)]
)
def test_models_that_take_too_long_are_left_out(seconds, n_forests, n_boostings, monkeypatch):
    """Extra trees take ten seconds here, and an iteration of gradient boosting a fifth."""
    now, fits = [0.0], []

    def slow(cls, seconds_of):
        fit = cls.fit

        def slow_fit(self, *args, **kwargs):
            fits.append(cls)
            now[0] += seconds_of(self)
            return fit(self, *args, **kwargs)

        monkeypatch.setattr(cls, "fit", slow_fit)

    slow(ExtraTreesClassifier, lambda model: 10)
    slow(HistGradientBoostingClassifier, lambda model: model.max_iter / 5)
    for module in _trees, _probabilities:
        monkeypatch.setattr(module, "clock", lambda: now[0])
    monkeypatch.setattr(_trees, "STAGES", (25, 50))
    monkeypatch.setattr(_probabilities, "STAGES", (25, 50))
    X, y = xor(60)
    models = ClassProbabilities(seconds=seconds)
    unseen = models.fit_transform(X, y, np.ones(60))
    assert now[0] <= seconds
    assert fits.count(ExtraTreesClassifier) == n_forests
    assert fits.count(HistGradientBoostingClassifier) == n_boostings
    is_left_out = {"extra trees": n_forests == 1, "gradient boosting": n_boostings == 1}
    assert {name: name not in models.models_ for name in is_left_out} == is_left_out
    assert len(unseen) == len(models.models_) == len(models.transform(X))


def test_rows_without_a_class():
    X, y, _ = blobs(20)
    for missing in (None, np.nan, pd.NA):
        labels = np.where(np.arange(len(y)) == 3, missing, y.astype(str).astype(object))
        for given in (labels, pd.Series(labels)):
            with pytest.raises(ValueError, match="Input y contains NaN or None"):
                gaussians().fit(X, given)


def test_too_few_rows_of_a_class():
    X, y, _ = blobs(20)
    y[0] = 7
    with pytest.raises(ValueError, match=r"1 class of y has too few rows: 7 \(1 sample\)"):
        gaussians().fit(X, y)


def test_composition():
    X, y, _ = blobs(300)
    flow = DensityClassifier(FLOW, random_state=0)
    assert cross_val_score(make_pipeline(StandardScaler(), flow), X, y, cv=2).min() > 0.85
    assert cross_val_predict(gaussians(), X, y, cv=3, method="predict_proba").shape == (300, 2)
    calibrated = CalibratedClassifierCV(gaussians(), cv=2).fit(X, y)
    assert calibrated.score(X, y) > 0.9
    grid = {"estimator__n_components": [1, 2]}
    assert GridSearchCV(gaussians(), grid, scoring="neg_log_loss", cv=2).fit(X, y).best_score_ > -1


def test_frames(tmp_path):
    X, y, _ = blobs(200, labels=["no", "yes"])
    frame = pd.DataFrame(X, columns=["a", "b"])
    classifier = DensityClassifier(FLOW, random_state=0).fit(frame, y)
    assert list(classifier.feature_names_in_) == ["a", "b"]
    classifier.save(tmp_path / "classifier.skflows")
    loaded = skflows.load(tmp_path / "classifier.skflows")
    assert np.array_equal(loaded.predict(frame), classifier.predict(frame))


def test_interrupt_ends_the_fit_of_all_classes(interrupt):
    """Not only the density of one class, after which the next one would train."""
    X, y, _ = blobs(80)
    classifier = DensityClassifier(clone(FLOW).set_params(early_stopping=False))
    with warnings.catch_warnings(), pytest.raises(KeyboardInterrupt):
        warnings.simplefilter("error")  # nothing says that a density is kept: none is
        classifier.fit(X, y)
    assert len(interrupt) == 3
    assert {name for name in vars(classifier) if name.endswith("_")} == {"n_features_in_"}
    with pytest.raises(NotFittedError):
        classifier.predict(X)


class Slow(GaussianMixture):
    """A density that takes all the time it may."""

    def __init__(self, time_limit=None, random_state=None):
        super().__init__(random_state=random_state)
        self.time_limit = time_limit

    def fit(self, X, y=None):
        self.had = self.time_limit
        time.sleep(self.time_limit)
        return super().fit(X)


def test_time_limit_holds_for_all_classes_together():
    X, y = load_iris(return_X_y=True)
    classifier = DensityClassifier(Slow(time_limit=0.9), calibration=None).fit(X, y)
    had = [density.had for density in classifier.estimators_]
    assert sum(had) < 1
    assert min(had) > 0.2
    assert [density.time_limit for density in classifier.estimators_] == [0.9] * 3
