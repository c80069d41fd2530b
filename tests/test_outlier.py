"""The outlier detector follows scikit-learn's conventions, for any density and statistic."""

import pickle

import numpy as np
import pandas as pd
import pytest
from _densities import banana, small
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skflows import DensityOutlierDetector, NSFDensity, StackedDensity
from skflows.calibration import tails
from skflows.columns.checks import ColumnWarning
from skflows.outlier._statistics import STATISTICS

X = banana(150)
FLOW = small("nsf", max_iter=1, learning_rate_init=1e-4)


def detector(estimator=None, **params):
    """Return a detector that fits in milliseconds."""
    if estimator is None:
        estimator = GaussianMixture(reg_covar=1e-3, random_state=0)
    return DensityOutlierDetector(estimator, **{"random_state": 0, "alpha": 0.2} | params)


STACK = StackedDensity([("kde", KernelDensity(bandwidth=0.5))], cv=3, random_state=0)
CONFIGURATIONS = {
    "plain": detector(),
    "kernels": detector(KernelDensity(bandwidth=0.5)),
    "stack": detector(STACK, calibration="conformal"),
    "split": detector(calibration="conformal", cv=ShuffleSplit(1, test_size=0.5, random_state=0)),
    "cross": detector(calibration="conformal", cv=3),
    "empirical null": detector(calibration="empirical_null", cv=3),
    "trimmed": detector(trim=0.1),
    "typicality": detector(statistic="typicality"),
    "flow": detector(FLOW, contamination=0.2),
    "false discovery rate": detector(calibration="conformal", cv=3, fdr=0.5),
}
each_configuration = pytest.mark.parametrize("name", CONFIGURATIONS)


# The statistic and the calibration matter for few checks: these configurations run all of them,
# the others run those that depend on the scores.
FULLY_CHECKED = ["cross", "typicality", "flow"]
SCORE_CHECKS = ["check_estimators_dtypes", "check_fit_idempotent"]
# With fdr, a label depends on the other rows, and no row of a clean table may be flagged.
LABEL_CHECKS = ["check_methods_subset_invariance", "check_outliers_train"]


def failing_checks(estimator):
    """Return checks that fail: repeated rows, unlike weights, make a flow train in mini-batches."""
    reason = "the number of rows sets the batch size"
    is_flow = isinstance(estimator.estimator, NSFDensity)
    return {"check_sample_weight_equivalence_on_dense_data": reason} if is_flow else {}


@parametrize_with_checks(
    [CONFIGURATIONS[name] for name in FULLY_CHECKED], expected_failed_checks=failing_checks
)
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", [name for name in CONFIGURATIONS if name not in FULLY_CHECKED])
def test_checks_that_depend_on_the_scores(name, monkeypatch):
    # No check is about the accuracy of the tail: a few of the 60 distributions will do.
    monkeypatch.setattr(tails, "SHAPES", tails.SHAPES[::6])
    estimator = CONFIGURATIONS[name]
    for check in SCORE_CHECKS + (LABEL_CHECKS if estimator.fdr is None else []):
        getattr(estimator_checks, check)("DensityOutlierDetector", clone(estimator))


@pytest.mark.parametrize("name", ["kernels", "trimmed kernels"])
def test_weighting_a_row_equals_repeating_it(name):
    """Except where rows are shuffled, and in p-values: copies of a row are no more evidence."""
    estimator = detector(KernelDensity(), trim=0.1 if name.startswith("trimmed") else 0.0)
    estimator_checks.check_sample_weight_equivalence_on_dense_data("detector", estimator)


@each_configuration
def test_equal_weights_change_nothing(name):
    weighted = clone(CONFIGURATIONS[name]).fit(X, sample_weight=np.full(len(X), 3.0))
    plain = clone(CONFIGURATIONS[name]).fit(X)
    np.testing.assert_array_equal(weighted.score_samples(X), plain.score_samples(X))
    assert weighted.offset_ == plain.offset_
    if plain.calibration is not None:
        np.testing.assert_array_equal(weighted.p_values(X), plain.p_values(X))


@pytest.mark.parametrize("statistic", [s for s in STATISTICS if s != "dependence"])  # of tables
@pytest.mark.parametrize("calibration", [None, "conformal", "empirical_null"])
def test_weights_move_the_scores(statistic, calibration):
    """Rows on the right count 50 times as much, and rows of weight 0 not at all."""
    weight = np.where(X[:, 0] > 0, 1.0, 0.02)
    weight[:10] = 0
    params = {"statistic": statistic, "calibration": calibration, "cv": 2, "random_state": 0}
    estimator = detector(KernelDensity(bandwidth=0.5), **params)
    fitted, plain = clone(estimator).fit(X, sample_weight=weight), estimator.fit(X)
    gain = fitted.score_samples(X) - plain.score_samples(X)
    if statistic == "log_pool":
        assert gain[X[:, 0] > 0.5].mean() > gain[X[:, 0] < -0.5].mean() + 1
    assert np.any(gain != 0)
    assert np.isnan(fitted.held_out_scores_[:10]).all()
    assert np.isfinite(fitted.held_out_scores_[10:]).all()


# The pandas and polars checks mix arrays and data frames deliberately.
@pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names:UserWarning")
@pytest.mark.parametrize(
    "check",
    [
        "check_dataframe_column_names_consistency",
        "check_param_validation",
        "check_requires_y_none",
    ],
)
def test_checks_that_check_estimator_omits(check):
    getattr(estimator_checks, check)("DensityOutlierDetector", detector())


@each_configuration
def test_pickles_and_clones_give_the_same_scores(name):
    fitted = clone(CONFIGURATIONS[name]).fit(X)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))
    fresh = clone(fitted)
    assert not hasattr(fresh, "offset_")
    np.testing.assert_array_equal(fresh.fit(X).score_samples(X), fitted.score_samples(X))


@each_configuration
def test_a_far_row_is_an_outlier(name):
    fitted = clone(CONFIGURATIONS[name]).fit(X)
    far = X.mean(axis=0) + 40 * X.std(axis=0)
    scores = fitted.score_samples([far, np.median(X, axis=0)])
    assert fitted.predict([far])[0] == -1
    assert scores[0] < scores[1]


@pytest.mark.parametrize("statistic", ["log_density", "typicality"])
def test_score_is_the_mean_of_score_samples(statistic):
    fitted = detector(statistic=statistic).fit(X)
    assert fitted.score(X) == pytest.approx(fitted.score_samples(X).mean())


def test_search_without_labels_maximizes_the_held_out_log_density():
    grid = {"estimator__n_components": [1, 4]}
    cv = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(detector(), grid, cv=cv).fit(X)
    direct = GridSearchCV(
        GaussianMixture(reg_covar=1e-3, random_state=0), {"n_components": [1, 4]}, cv=cv
    )
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], direct.fit(X).cv_results_["mean_test_score"]
    )


def test_search_with_labels_maximizes_the_roc_auc():
    """scikit-learn's scorers take the labels of `predict`: 1 for inliers, -1 for outliers."""
    rows = np.concatenate([X, X.mean(axis=0) + 9 * np.eye(2)])
    labels = np.repeat([1, -1], [len(X), 2])
    cv = ShuffleSplit(2, test_size=0.9, random_state=0)
    grid = {"statistic": ["log_density", "typicality"]}
    search = GridSearchCV(detector(), grid, cv=cv, scoring="roc_auc").fit(rows, labels)
    assert search.best_score_ > 0.9


def test_detector_works_in_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), detector()).fit(X)
    labels = pipeline.predict(X)
    assert set(labels) == {-1, 1}
    np.testing.assert_array_equal(labels == 1, pipeline.decision_function(X) >= 0)
    grid = {"densityoutlierdetector__estimator__n_components": [1, 2]}
    mixture = make_pipeline(StandardScaler(), DensityOutlierDetector(GaussianMixture()))
    search = GridSearchCV(mixture, grid, cv=2).fit(X)
    assert search.predict(X).shape == (len(X),)


def test_frozen_density_is_only_calibrated():
    mixture = GaussianMixture(random_state=0).fit(X)
    means = mixture.means_.copy()
    fitted = detector(FrozenEstimator(mixture), calibration="conformal").fit(banana(80, seed=1))
    np.testing.assert_array_equal(mixture.means_, means)
    np.testing.assert_array_equal(fitted.score_samples(X), mixture.score_samples(X))
    np.testing.assert_array_equal(
        fitted.held_out_scores_, mixture.score_samples(banana(80, seed=1))
    )


def test_detector_that_is_no_density_is_refused_where_log_densities_are_needed():
    with pytest.raises(TypeError, match="IsolationForest is an outlier detector"):
        DensityOutlierDetector(IsolationForest(), statistic="typicality").fit(banana(50))


def test_any_detector_can_be_calibrated():
    X = banana(300)
    forest = IsolationForest(n_estimators=10, random_state=0)
    detector = DensityOutlierDetector(forest, calibration="conformal", random_state=0).fit(X)
    assert detector.p_values([[9.0, -9.0]]) <= 0.02
    assert detector.p_values(banana(300, seed=1)).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("params", "contaminated"),
    [
        ({}, True),
        ({"calibration": "conformal"}, False),
        ({"calibration": "empirical_null"}, True),
        ({"contamination": 0.1}, True),
        ({"trim": 0.1}, True),
        ({"calibration": "conformal", "contamination": 0.1}, False),
    ],
)
def test_default_estimator(params, contaminated):
    fits = [DensityOutlierDetector(random_state=seed, **params).fit(X) for seed in (0, 0)]
    assert fits[0].models_[0].density.contaminated is contaminated
    np.testing.assert_array_equal(fits[0].score_samples(X), fits[1].score_samples(X))
    assert np.isfinite(fits[0].held_out_scores_).all() or "trim" in params


def test_contamination_none_flags_no_row():
    fitted = DensityOutlierDetector(GaussianMixture(), contamination=None).fit(banana(50))
    assert (fitted.predict([[1e6, 1e6]]) == 1).all()


def test_frozen_density_checks_column_names():
    frame = pytest.importorskip("pandas").DataFrame(X, columns=["a", "b"])
    frozen = FrozenEstimator(small("maf").fit(frame))
    assert detector(frozen).fit(frame).predict(frame).shape == (len(X),)
    with pytest.raises(
        ValueError, match=r"columns \['b', 'a'\].* fitted estimator has \['a', 'b'\]"
    ):
        detector(frozen).fit(frame[["b", "a"]])
    refitted = detector(GaussianMixture().fit(frame)).fit(frame[["b", "a"]])
    assert refitted.feature_names_in_.tolist() == ["b", "a"]


# Thresholds by a fraction of the rows


MEMORY = KernelDensity(bandwidth=0.1)  # whose training rows all score higher than others
HOLDING_OUT = {
    "stack": StackedDensity([("kernels", MEMORY)], cv=5, contamination=0.1, random_state=0),
    "folds": DensityOutlierDetector(MEMORY, cv=5, contamination=0.1, random_state=0),
    "detector of a stack": DensityOutlierDetector(
        StackedDensity([("kernels", MEMORY)], cv=5, random_state=0), contamination=0.1
    ),
    "split": DensityOutlierDetector(
        MEMORY, cv=ShuffleSplit(1, random_state=0), contamination=0.1, random_state=0
    ),
}


@pytest.mark.parametrize("name", HOLDING_OUT)
def test_contamination_is_the_fraction_of_rows_held_out_if_training_rows_score_higher(name):
    rows, new = banana(300), banana(2000, 1)
    fitted = clone(HOLDING_OUT[name]).fit(rows)
    assert (fitted.predict(new) == -1).mean() == pytest.approx(0.1, abs=0.06)
    training = fitted.score_samples(rows)
    assert (fitted.score_samples(new) < np.quantile(training, 0.1)).mean() > 0.2
    if name != "split":
        labels = clone(HOLDING_OUT[name]).fit_predict(rows)
        assert (labels == -1).sum() == 30
        np.testing.assert_array_equal(labels == -1, fitted.held_out_scores_ < fitted.offset_)


def test_contamination_is_the_fraction_of_training_rows_if_held_out_rows_agree():
    rows = banana(300)
    wide = KernelDensity(bandwidth=1.0)
    for estimator in (
        StackedDensity([("kernels", wide)], cv=5, contamination=0.1, random_state=0),
        DensityOutlierDetector(wide, cv=5, contamination=0.1, random_state=0),
    ):
        labels = estimator.fit_predict(rows)
        assert (labels == -1).sum() == 30
        np.testing.assert_array_equal(labels, estimator.predict(rows))


def test_verbose_reaches_pipelines_as_a_bool(capsys):
    X = np.random.default_rng(0).standard_normal((40, 2))
    pipeline = make_pipeline(StandardScaler(), GaussianMixture())
    DensityOutlierDetector(pipeline, calibration="conformal", cv=2, verbose=2).fit(X)
    assert "(step 1 of 2)" in capsys.readouterr().out


def test_gaps_that_make_the_default_slow_are_pointed_out():
    table = pd.DataFrame({"a": [0.5, np.nan, 2.5], "b": [1, 2, 3]})
    with pytest.raises(ColumnWarning, match="missing values in 'a': the detector fits a Table"):
        DensityOutlierDetector().fit(table)


def test_a_value_that_no_such_row_has_is_odd():
    rng = np.random.default_rng(0)
    status = rng.choice(["paid", "refunded"], 200, p=[0.7, 0.3])
    amount = pd.Series(np.round(rng.lognormal(4, 0.5, 200), 2))
    table = pd.DataFrame({"status": status, "amount": amount})
    table["refund"] = np.round(amount * rng.uniform(0.2, 0.9, 200), 2).where(status == "refunded")
    scores = DensityOutlierDetector(random_state=0).fit(table).score_samples
    odd = table.assign(refund=np.round(amount / 2, 2).where(status == "paid"))
    assert (scores(odd) < np.quantile(scores(table), 0.1)).mean() > 0.95
