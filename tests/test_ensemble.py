"""Mixtures of densities, weighted by the likelihood of held-out rows."""

import io
import itertools
import pickle
from inspect import signature

import joblib
import numpy as np
import pytest
from _densities import MORE_CHECKS, banana, gaussian, small
from scipy import stats
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter

from skflows import (
    DensityOutlierDetector,
    GaussianizationDensity,
    StackedDensity,
    TransformedDensity,
)
from skflows.ensemble._mixture import can_gain, mixture_weights
from skflows.training import data_parallel

X = banana(120)


def stack(**params):
    """Return a mixture of three densities that fits in milliseconds."""
    components = [
        ("flow", small("nsf", max_iter=2)),
        ("mixture", GaussianMixture(3, random_state=0)),
        ("kernel", KernelDensity(bandwidth=0.4)),
    ]
    return StackedDensity(components, **{"cv": 3, "random_state": 0} | params)


@pytest.fixture(scope="module")
def fitted():
    return stack().fit(X)


ESTIMATORS = {
    "gaussianization": lambda: GaussianizationDensity(max_iter=1, random_state=0),
    "transformed": lambda: TransformedDensity(KernelDensity(), random_state=0),
    "stacked": lambda: StackedDensity(
        [
            ("kernel", KernelDensity(bandwidth=0.5)),
            (
                "normal",
                TransformedDensity(KernelDensity(), preprocessing="standardize", discrete=None),
            ),
            ("flow", small("nsf", max_iter=1, learning_rate_init=1e-4, discrete=None)),
        ],
        cv=2,
        random_state=0,
    ),
}
HAVE_TRANSFORM = {"gaussianization"}
UNWEIGHTED = GaussianMixture(reg_covar=1e-3, random_state=0)


@parametrize_with_checks(
    [make() for make in ESTIMATORS.values()] + [TransformedDensity(UNWEIGHTED, random_state=0)]
)
def test_check_estimator(estimator, check):
    check(estimator)


WRAPPERS = {
    "transformed": TransformedDensity,
    "nested": lambda density: TransformedDensity(TransformedDensity(density)),
    "stacked": lambda density: StackedDensity([("kernel", KernelDensity()), ("own", density)]),
    "detector": DensityOutlierDetector,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapper_has_sample_weight_if_the_estimator_inside_has(name):
    for density in (KernelDensity(), small("nsf"), FrozenEstimator(UNWEIGHTED)):
        assert has_fit_parameter(WRAPPERS[name](density), "sample_weight")
    for density in (UNWEIGHTED, make_pipeline(StandardScaler(), KernelDensity())):
        wrapper = WRAPPERS[name](density)
        assert [*signature(wrapper.fit).parameters] == ["X", "y"]
        assert "sample_weight" in signature(type(wrapper).fit).parameters
        with pytest.raises(ValueError, match="takes no sample_weight"):
            wrapper.fit(X, None, np.arange(120.0))


def test_malformed_estimators_are_reported_by_fit():
    for estimators in (3, [3], [("a", KernelDensity(), 3)]):
        with pytest.raises(ValueError, match="estimators"):
            StackedDensity(estimators).fit(X)


# The pandas and polars checks mix arrays and frames on purpose.
@pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names:UserWarning")
@pytest.mark.parametrize(
    ("name", "check"),
    [
        (name, check)
        for name in ESTIMATORS
        for check in [*MORE_CHECKS, "check_param_validation"]
        if "partial_fit" not in check
        and (name in HAVE_TRANSFORM or not ("transform" in check or "out" in check))
    ],
)
def test_checks_that_check_estimator_leaves_out(name, check):
    estimator = ESTIMATORS[name]()
    getattr(estimator_checks, check)(type(estimator).__name__, estimator)


def test_weights_maximise_the_held_out_likelihood():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((400, 3)) * [1, 2, 0.5]
    weights = mixture_weights(scores)
    assert weights.sum() == pytest.approx(1)

    def likelihood(w):
        return np.log(np.exp(scores) @ w).mean()

    for _ in range(50):
        other = 0.95 * weights + 0.05 * rng.dirichlet(np.ones(3))
        assert likelihood(other) <= likelihood(weights) + 1e-3


def test_true_density_gets_nearly_all_weight():
    rows, _ = gaussian(1000)
    truth = stats.multivariate_normal(rows.mean(axis=0), np.cov(rows.T)).logpdf(rows)
    wrong = stats.multivariate_normal(rows.mean(axis=0) + 2, np.cov(rows.T)).logpdf(rows)
    assert mixture_weights(np.column_stack([truth, wrong]))[0] > 0.99


@pytest.mark.parametrize("seed", [20, 228, 258])
def test_a_component_far_below_the_others_weighs_nothing(seed):
    """EM left it a share that no quotient could hold, where it is the greatest in one row."""
    rng = np.random.default_rng(seed)
    n_rows = rng.integers(50, 300)
    good = rng.normal(-1, 0.5, n_rows)
    poor = good - 20
    poor[0] = good[0] + 0.1
    third = good - rng.uniform(0, 0.5) + rng.normal(0, 0.5, n_rows)
    _, share, _ = mixture_weights(np.column_stack([good, poor, third]))
    assert share == 0
    can_gain(None, np.column_stack([good, poor]), third)  # a warning is an error


def test_rows_of_density_0_do_not_affect_the_weights():
    scores = np.array([[-1.0, -2.0], [-np.inf, -np.inf], [-2.0, -1.0]])
    np.testing.assert_allclose(mixture_weights(scores), [0.5, 0.5], atol=1e-6)
    weighted = mixture_weights(scores, np.array([1.0, 0.0, 0.0]))
    assert weighted[0] > 0.7


def test_weighting_a_row_equals_repeating_it():
    rng = np.random.default_rng(0)
    scores, weight = rng.standard_normal((50, 3)), rng.integers(0, 3, 50)
    np.testing.assert_allclose(
        mixture_weights(scores, weight * 1.0),
        mixture_weights(np.repeat(scores, weight, axis=0)),
        atol=0.02,
    )


@pytest.mark.parametrize("refit", [False, True])
def test_density_is_the_weighted_mean_of_the_members(refit):
    density = stack(refit=refit).fit(X)
    assert density.weights_.sum() == pytest.approx(1)
    expected = np.zeros(len(X))
    for weight, members in zip(density.weights_, density.estimators_, strict=True):
        if weight:
            assert len(members) == (1 if refit else 3)
        for member in members:
            expected += weight / len(members) * np.exp(member.score_samples(X))
    np.testing.assert_allclose(np.exp(density.score_samples(X)), expected)


def test_mixture_is_hardly_worse_than_its_best_component(fitted):
    assert fitted.stacked_score_ >= max(fitted.leaderboard_["score"]) - 0.01


def test_leaderboard_has_weights_and_held_out_scores(fitted):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(fitted.leaderboard_)
    assert list(table.columns) == ["component", "weight", "score", "seconds"]
    assert set(table.component) == {"flow", "mixture", "kernel"}
    assert table.weight.is_monotonic_decreasing
    assert sorted(table.weight) == pytest.approx(sorted(fitted.weights_))
    # The score of the kernel is that of the models of the folds on their held-out rows.
    seed = np.random.RandomState(0).randint(2**31 - 1)
    expected = [
        KernelDensity(bandwidth=0.4).fit(X[train]).score_samples(X[test])
        for train, test in KFold(3, shuffle=True, random_state=seed).split(X)
    ]
    found = table.set_index("component").score["kernel"]
    assert found == pytest.approx(np.concatenate(expected).mean())


def test_samples_come_from_the_components_in_proportion():
    left, right = X - 100, X + 100
    density = StackedDensity(
        [("left", Fixed(left)), ("right", Fixed(right))], cv=3, random_state=0
    ).fit(np.vstack([left[:90], right[:30]]))
    samples = density.sample(4000, random_state=0)
    assert (samples[:, 0] < 0).mean() == pytest.approx(density.weights_[0], abs=0.03)
    assert density.weights_[0] == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(density.sample(9, 3), density.sample(9, 3))
    assert (density.sample(9, 3) != density.sample(9, 4)).any()


class Fixed(BaseEstimator):
    """A density that does not depend on the rows it is fitted to."""

    def __init__(self, rows):
        self.rows = rows

    def fit(self, X, y=None):
        self.kernels_ = KernelDensity(bandwidth=0.5).fit(self.rows)
        return self

    def score_samples(self, X):
        return self.kernels_.score_samples(X)

    def sample(self, n_samples=1, random_state=None):
        return self.kernels_.sample(n_samples, random_state=random_state)


@pytest.mark.parametrize("cv", [4, KFold(2), ShuffleSplit(1, random_state=0)])
def test_splitters_set_the_number_of_models(cv):
    density = stack(cv=cv).fit(X)
    n_models = getattr(cv, "n_splits", cv)
    assert {len(members) for members in density.estimators_ if members} == {n_models}


def test_pickle_clone_and_joblib(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    np.testing.assert_array_equal(joblib.load(file).sample(5, 0), fitted.sample(5, 0))
    assert not hasattr(clone(fitted), "weights_")


def test_parameters_of_components_can_be_searched():
    alone = StackedDensity([("kernel", KernelDensity())], cv=2, random_state=0)
    search = GridSearchCV(alone, {"kernel__bandwidth": [0.3, 30.0]}, cv=2).fit(X)
    assert search.best_params_ == {"kernel__bandwidth": 0.3}
    replaced = stack().set_params(kernel=KernelDensity(bandwidth=2.0))
    assert replaced.get_params()["kernel__bandwidth"] == 2.0


def test_pipeline_and_data_frame(fitted):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b"])
    density = stack().fit(frame)
    assert list(density.feature_names_in_) == ["a", "b"]
    np.testing.assert_array_equal(density.score_samples(frame), fitted.score_samples(X))
    pipeline = make_pipeline(StandardScaler(), stack()).fit(X)
    assert pipeline.predict(X).shape == (120,)
    assert np.isfinite(pipeline.score(X))


def test_thresholds(fitted):
    new = banana(400, seed=5)
    assert (fitted.predict(new) == -1).mean() < 0.15
    assert (fitted.predict(new + 50) == -1).all()
    assert (stack(contamination=0.1).fit_predict(X) == -1).sum() == 12
    without = stack(contamination=None).fit(X)
    assert without.offset_ == -np.inf
    assert (without.predict(new + 50) == 1).all()


def test_components_get_the_sample_weights():
    weight = np.where(X[:, 0] > 0, 1.0 + np.arange(len(X)) % 2, 0.0)
    components = [("flow", small("nsf")), ("kernel", KernelDensity(bandwidth=0.3))]
    density = StackedDensity(components, cv=3, random_state=0).fit(X, sample_weight=weight)
    assert (density.sample(300, random_state=0)[:, 0] > -1).mean() > 0.95
    with pytest.raises(ValueError, match="GaussianMixture takes no sample_weight"):
        stack().fit(X, sample_weight=weight)


class Recorder:
    """A callback that records the score after each component, and stops after one of them."""

    def __init__(self, last=None):
        self.last = last

    def setup(self, estimator, context):
        self.begun, self.ended, self.scores = [], [], []

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context.task_name)

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.ended.append(context.task_name)
        self.scores.append(fitted_estimator.score(X))
        return context.task_name == self.last


def test_each_component_is_a_callback_task():
    recorder = Recorder()
    density = stack()
    density.set_callbacks(recorder)
    density.fit(X)
    assert recorder.begun == ["fit", "flow", "mixture", "kernel"]
    assert recorder.ended == ["flow", "mixture", "kernel", "fit"]
    assert recorder.scores[-1] == recorder.scores[-2] == density.score(X)
    assert np.isfinite(recorder.scores).all()


def test_callback_can_stop_the_fit():
    density = stack()
    density.set_callbacks(Recorder(last="mixture"))
    density.fit(X)
    assert density.component_names_ == ["flow", "mixture"]
    assert np.isfinite(density.score(X))


def test_invalid_components_raise():
    for estimators in ([], [KernelDensity()], [(1, KernelDensity())]):
        with pytest.raises(ValueError, match="list of \\(name, estimator\\) pairs"):
            StackedDensity(estimators).fit(X)
    with pytest.raises(TypeError, match="score_samples"):
        StackedDensity([("scaler", StandardScaler())]).fit(X)
    with pytest.raises(TypeError, match="instance"):
        StackedDensity([("kernel", KernelDensity)]).fit(X)
    with pytest.raises(ValueError, match="not unique"):
        StackedDensity([("kernel", KernelDensity()), ("kernel", KernelDensity())]).fit(X)
    with pytest.raises(NotFittedError):
        stack().score_samples(X)


def test_gaussianization_fits_a_banana():
    density = GaussianizationDensity(random_state=0).fit(banana(500))
    test = banana(1000, seed=1)
    normal = stats.multivariate_normal(test.mean(axis=0), np.cov(test.T)).logpdf(test).mean()
    assert density.score(test) > normal + 0.5
    Z = density.transform(test)
    np.testing.assert_allclose(density.inverse_transform(Z), test, atol=1e-6)
    assert abs(np.cov(Z.T) - np.eye(2)).max() < 0.3
    assert 1 <= density.best_iter_ <= density.n_iter_ <= 50


@pytest.mark.parametrize("rotation", ["ica", "random"])
def test_gaussianization_integrates_to_one(rotation):
    density = GaussianizationDensity(rotation=rotation, max_iter=4, random_state=0).fit(X)
    axis = np.linspace(-20, 20, 200)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    mass = np.exp(density.score_samples(grid)).sum() * (axis[1] - axis[0]) ** 2
    assert mass == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("shape", [(60, 80), (80, 80)])
def test_gaussianization_of_no_more_rows_than_columns(shape):
    table = np.random.default_rng(0).standard_normal(shape)
    density = GaussianizationDensity(max_iter=2, random_state=0).fit(table)
    assert np.isfinite(density.score_samples(table)).all()


def test_gaussianization_of_a_continuous_column_that_is_constant():
    table = np.column_stack([X[:60], np.ones(60)])
    density = GaussianizationDensity(discrete=None, max_iter=3, random_state=0).fit(table)
    assert np.isfinite(density.score_samples(table)).all()


def test_held_out_scores_reveal_outliers_in_the_training_rows():
    """A kernel centred on an outlier gives it a high density; its held-out score is low."""
    rows = np.vstack([X, X[:1] + 40])
    density = stack().fit(rows)
    assert np.isfinite(density.held_out_scores_).all()
    is_outlier = density.held_out_scores_ < density.offset_
    assert is_outlier[-1]
    assert is_outlier[:-1].mean() < 0.1
    assert density.stacked_score_ == pytest.approx(density.held_out_scores_.mean())
    single = stack(cv=ShuffleSplit(1, test_size=12, random_state=0)).fit(X)
    assert np.isfinite(single.held_out_scores_).sum() == 12


# Flows treat fewer than 40 rows differently: with n = 49, the folds train on 39 and on 40.
@pytest.mark.parametrize("n", [3, 4, 6, 11, 48, 49, 50, 51])
def test_folds_of_few_rows(n):
    density = stack(cv=5)
    density.set_params(estimators=density.estimators[::2]).fit(X[:n])
    assert np.isfinite(density.score_samples(X)).all()


def test_invalid_parameters_of_components_raise():
    for params in ({"max_iter": 0}, {"dropout": 3.0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(params))):
            StackedDensity([("flow", small("nsf", **params))]).fit(X)


def test_input_noise_is_chosen_in_each_fold():
    flow = small("nsf", input_noise="auto", max_iter=15, early_stopping=True)
    density = StackedDensity([("flow", flow)], cv=2, random_state=0).fit(X)
    for member in density.estimators_[0]:
        assert member.input_noise_ in (0.0, 0.05, 0.1, 0.2)
        assert member.best_validation_score_ == max(member.validation_scores_)


def test_components_without_a_seed_get_one():
    unseeded = [("flow", small("nsf", random_state=None)), ("mixture", GaussianMixture(8))]
    first, second = (StackedDensity(unseeded, cv=3, random_state=1).fit(X) for _ in range(2))
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))
    assert unseeded[0][1].random_state is None


def test_folds_of_rows_without_weight():
    weight = np.zeros(120)
    weight[:6] = 1
    components = [("flow", small("nsf")), ("kernel", KernelDensity(bandwidth=1.0))]
    density = StackedDensity(components, cv=5, random_state=0).fit(X, sample_weight=weight)
    assert np.isfinite(density.held_out_scores_).sum() == 6
    halves = [(np.arange(60), np.arange(60, 120))]
    with pytest.raises(ValueError, match=r"split 0 of cv leaves 6 rows .* and 0 to hold out"):
        density.set_params(cv=halves).fit(X, sample_weight=weight)


def test_splits_may_be_masks():
    mask = np.arange(120) < 60
    numbers = [(np.flatnonzero(mask), np.flatnonzero(~mask))]
    by_mask, by_number = stack(cv=[(mask, ~mask)]).fit(X), stack(cv=numbers).fit(X)
    np.testing.assert_array_equal(by_mask.score_samples(X), by_number.score_samples(X))
    with pytest.raises(ValueError, match="cv makes no split"):
        stack(cv=[]).fit(X)


class Broken(Fixed):
    """A density that scores some rows as NaN."""

    def score_samples(self, X):
        return np.where(X[:, 0] > 0, np.nan, 0.0)


def test_component_with_scores_of_nan_gets_no_weight():
    components = [("broken", Broken(X)), ("kernel", KernelDensity(bandwidth=0.5))]
    with pytest.warns(UserWarning, match="NaN or inf under broken, which get no weight"):
        density = StackedDensity(components, cv=3, random_state=0).fit(X)
    assert density.weights_.tolist() == [0, 1]
    assert np.isfinite(density.score_samples(X)).all()
    with pytest.raises(ValueError, match="no component is left"):
        StackedDensity(components[:1], cv=3).fit(X)


class Interrupted(Fixed):
    """A density whose fit Ctrl-C ends."""

    def fit(self, X, y=None):
        raise KeyboardInterrupt


def test_interrupt_keeps_fitted_components():
    density = stack().set_params(mixture=Interrupted(X))
    density.set_params(estimators=density.estimators[::-1])
    with pytest.warns(UserWarning, match="interrupted after 1 of 3 components"):
        density.fit(X)
    assert density.component_names_ == ["kernel"]


def test_interrupt_keeps_all_flows_that_train_together(interrupt):
    flows = [(f"flow{p}", small("nsf", max_iter=9, dropout=p)) for p in (0.0, 0.2)]
    cv = ShuffleSplit(1, test_size=0.2, random_state=0)
    density = StackedDensity([*flows, ("kernel", KernelDensity())], cv=cv, random_state=0)
    with (
        pytest.warns(UserWarning, match="interrupted after 2 of 3 components"),
        pytest.warns(UserWarning, match="interrupted after 2 epochs"),
    ):
        density.fit(X)
    assert density.component_names_ == ["flow0.0", "flow0.2"]


def test_flows_that_cannot_stack_share_the_time(monkeypatch):
    """Folds of 64 and 65 rows have one batch and two: neither takes all the time."""
    ticks = itertools.count()  # a clock that does not depend on other work of the machine
    monkeypatch.setattr(data_parallel, "clock", lambda: 0.005 * next(ticks))
    params = {"batch_size": 64, "max_iter": 10**6, "n_iter_no_change": 10**6, "time_limit": 0.6}
    splits = [(np.arange(n), np.arange(100, 120)) for n in (64, 65)]
    density = StackedDensity([("flow", small("nsf", **params))], cv=splits, random_state=0).fit(X)
    assert min(len(flow.history_["loss"]) for flow in density.estimators_[0]) > 10


def test_time_limit_of_gaussianization_leaves_one_layer():
    assert GaussianizationDensity(time_limit=1e-6, random_state=0).fit(X).n_iter_ == 1


def test_default_number_of_folds_is_5():
    density = stack(cv=None).fit(X)
    np.testing.assert_array_equal(density.score_samples(X), stack(cv=5).fit(X).score_samples(X))


def test_more_folds_than_rows_raise():
    with pytest.raises(ValueError, match="cv=121, but X has 120 rows"):
        stack(cv=121).fit(X)


def test_outlier_detectors_are_rejected():
    for density in (
        StackedDensity([("f", IsolationForest())]),
        TransformedDensity(IsolationForest()),
    ):
        with pytest.raises(TypeError, match="IsolationForest is an outlier detector"):
            density.fit(X)


def test_rows_of_density_0_are_inliers_without_a_threshold():
    kernels = KernelDensity(kernel="tophat", bandwidth=1.0)
    density = StackedDensity([("kernels", kernels)], cv=3, contamination=None, random_state=0)
    rows = [[0.0, 0.0], [1e3, 0.0]]
    assert density.fit(X).predict(rows).tolist() == [1, 1]
    np.testing.assert_array_equal(density.decision_function(rows), density.score_samples(rows))


def test_failed_fit_leaves_an_unfitted_estimator():
    density = stack(cv=[])
    with pytest.raises(ValueError, match="no split"):
        density.fit(X)
    with pytest.raises(NotFittedError):
        density.score_samples(X)


def test_error_names_the_member_that_cannot_be_sampled():
    pipeline = make_pipeline(StandardScaler(), KernelDensity())
    density = StackedDensity([("pipeline", pipeline)], cv=2).fit(X)
    with pytest.raises(AttributeError, match="Pipeline has no sample"):
        density.sample(3)


def test_frozen_density_is_sampled_from_each_seed_and_takes_weights():
    """The seed reaches the estimator inside the wrapper, which is left as it was."""
    frozen = FrozenEstimator(GaussianMixture(2, random_state=0).fit(X))
    density = TransformedDensity(frozen, preprocessing=[], discrete=None)
    density.fit(X, sample_weight=np.linspace(1, 2, len(X)))
    first, second = (density.sample(3, random_state=seed) for seed in (0, 1))
    assert not np.isin(first, second).any()
    assert frozen.estimator.random_state == 0


def test_equal_weights_change_nothing():
    """Not even for estimators that take no weights."""
    weight = np.full(len(X), 3.0)
    for density in (
        TransformedDensity(GaussianMixture(2, random_state=0), random_state=0),
        StackedDensity([("mixture", GaussianMixture(2))], cv=2, random_state=0),
    ):
        weighted = clone(density).fit(X, sample_weight=weight)
        np.testing.assert_array_equal(weighted.score_samples(X), density.fit(X).score_samples(X))
