"""The automatic density: its portfolio, its time limit, and tables of any kind."""

import pickle
import time
import warnings

import numpy as np
import pytest
from _densities import banana, gaussian
from joblib import parallel_config
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skflows import AutoDensity, NSFDensity
from skflows.ensemble import _mixture, _portfolio
from skflows.ensemble._estimators import group_components
from skflows.ensemble._simple_densities import GaussianKernels

ONE_SPLIT = ShuffleSplit(1, test_size=0.2, random_state=0)
X = banana(150)


def reduce_portfolio(monkeypatch, reduced):
    """Replace the portfolio by ``reduced(portfolio)``."""
    whole = _portfolio.portfolio
    monkeypatch.setattr(_portfolio, "portfolio", lambda *args: reduced(whole(*args)))


def with_few_steps(component):
    """Return a component that is fitted in a few steps."""
    params = component.recipe.get_params()
    few = {"max_iter": 2, "n_transforms": 1, "hidden_layer_sizes": (4,), "estimator__n_init": 1}
    few = {key: value for key, value in few.items() if key in params}
    return component._replace(recipe=clone(component.recipe).set_params(**few))


@pytest.fixture(scope="module")
def fitted():
    """Return a density of the whole portfolio, with flows that are trained briefly."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        reduce_portfolio(monkeypatch, lambda components: [*map(with_few_steps, components)])
        return AutoDensity(cv=2, random_state=0).fit(X)


@pytest.mark.filterwarnings("ignore:The column . is an exact linear function")
def test_exact_sums_and_frequent_values_are_left_to_a_flow(monkeypatch):
    """With much dropout, the flows of the folds were a nat behind a single one at its defaults."""
    rng = np.random.default_rng(0)
    amounts = np.exp(3 + rng.standard_normal((1400, 6))) * (rng.random((1400, 6)) < 0.4)
    first, second = amounts[:, :3].sum(axis=1), amounts[:, 3:].sum(axis=1)
    rows = np.column_stack([amounts, first, second, first + second])
    train, test = rows[:400], rows[400:]
    kept = "quantile spline flow"  # which has all the weight there
    reduce_portfolio(monkeypatch, lambda components: [c for c in components if c.name == kept])
    density = AutoDensity(random_state=0).fit(train)
    assert density.score(test) > NSFDensity(random_state=0).fit(train).score(test) - 0.1


@pytest.fixture
def two_estimators(monkeypatch):
    """Reduce the portfolio to a normal and wide kernels, weighted in a few steps."""
    monkeypatch.setattr(_mixture, "EM_STEPS", 20)
    reduce_portfolio(
        monkeypatch,
        lambda components: [c for c in components if c.name in ("gaussian", "axis kernels of 2")],
    )


@pytest.fixture
def one_of_each_kind(monkeypatch):
    """Reduce the portfolio to one component of each kind, fitted in a few steps."""

    def reduced(components):
        # Narrow kernels overfit the training rows so much that no row would be an outlier.
        usable = [c for c in components if "kernels" not in c.name or c.name.endswith(" of 2")]
        kinds = {}  # "kernels" of "axis kernels of 2"
        for component in usable:
            kinds.setdefault(component.family.split()[-1], with_few_steps(component))
        return list(kinds.values())

    monkeypatch.setattr(_mixture, "EM_STEPS", 20)
    reduce_portfolio(monkeypatch, reduced)


@pytest.mark.usefixtures("two_estimators")
@parametrize_with_checks([AutoDensity(cv=ONE_SPLIT, random_state=0)])
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.usefixtures("two_estimators")
@pytest.mark.parametrize("check", ["check_param_validation", "check_requires_y_none"])
def test_checks_that_check_estimator_leaves_out(check):
    getattr(estimator_checks, check)("AutoDensity", AutoDensity(cv=ONE_SPLIT))


def test_leaderboard_lists_all_components(fitted):
    board = fitted.leaderboard_
    assert sum(board["weight"]) == pytest.approx(1)
    assert len(set(board["component"])) == len(board["component"]) == len(fitted.weights_)
    assert {"gaussian", "whitened adaptive kernels", "quantile spline flow"} <= set(
        board["component"]
    )
    assert fitted.stacked_score_ >= max(board["score"]) - 1e-6


def test_banana_is_fitted_better_than_by_a_normal(fitted):
    new = banana(1000, seed=1)
    scores = dict(zip(fitted.leaderboard_["component"], fitted.leaderboard_["score"], strict=True))
    assert fitted.score(new) > scores["gaussian"] + 0.5
    assert (fitted.predict(new) == -1).mean() < 0.1
    assert (fitted.predict(new + 30) == -1).all()


def test_samples_have_the_mean_of_the_rows(fitted):
    samples = fitted.sample(2000, random_state=0)
    np.testing.assert_allclose(samples.mean(axis=0), X.mean(axis=0), atol=0.3)
    assert np.isfinite(fitted.score_samples(samples)).all()


def test_pickle_and_clone(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    assert clone(fitted).get_params() == fitted.get_params()


@pytest.mark.usefixtures("one_of_each_kind")
def test_same_seed_gives_equal_results():
    first, second = (AutoDensity(cv=2, random_state=3).fit(X[:60]) for _ in range(2))
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))


ODD = {
    "20 rows": lambda rng: rng.standard_normal((20, 3)),
    "fewer rows than columns": lambda rng: rng.standard_normal((25, 40)),
    "3 rows": lambda rng: rng.standard_normal((3, 2)),
    "one column": lambda rng: rng.standard_cauchy((60, 1)),
    "integers and a constant": lambda rng: np.column_stack(
        [rng.poisson(4, 60), rng.standard_normal(60), np.full(60, 7.0)]
    ),
    "one value": lambda rng: np.full((60, 2), 3.0),
    "collinear": lambda rng: rng.standard_normal((60, 1)) * [1.0, 2.0, -1.0] + [0, 1, 5],
    "huge units": lambda rng: 1e150 * rng.standard_normal((60, 2)),
    "an outlier": lambda rng: np.vstack([rng.standard_normal((60, 2)), [[1e8, -1e8]]]),
}


def assert_fits_without_warnings(table, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*exact linear function")  # which is true of one table
        density = AutoDensity(random_state=0, **params).fit(table)
    assert np.isfinite(density.score_samples(table)).all()
    assert np.isfinite(density.sample(50, random_state=0)).all()
    assert np.isfinite(density.offset_)


@pytest.mark.usefixtures("one_of_each_kind")
@pytest.mark.parametrize("name", ODD)
def test_odd_tables_are_fitted_without_warnings(name):
    table = ODD[name](np.random.default_rng(0))
    assert_fits_without_warnings(table, cv=2 if len(table) > 3 else "auto")


def test_whole_portfolio_fits_an_odd_table_without_warnings(monkeypatch):
    reduce_portfolio(monkeypatch, lambda components: [*map(with_few_steps, components)])
    table = ODD["integers and a constant"](np.random.default_rng(0))
    assert_fits_without_warnings(table, cv=ONE_SPLIT)


@pytest.mark.usefixtures("one_of_each_kind")
def test_wide_table():
    table = np.random.default_rng(0).standard_normal((30, 120))
    density = AutoDensity(cv=ONE_SPLIT, random_state=0).fit(table)
    assert np.isfinite(density.score_samples(table)).all()


@pytest.mark.usefixtures("one_of_each_kind")
def test_discrete_columns_and_bounds_apply_to_every_component():
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.poisson(2, 80), rng.exponential(size=80)])
    density = AutoDensity(cv=2, bounds=[(0, None), (0, None)], random_state=0).fit(table)
    for member in np.concatenate([members for members in density.estimators_ if members]):
        assert member.score_samples([[1.0, -0.5]]) == -np.inf
        samples = member.sample(200, random_state=0)
        assert set(samples[:, 0]) <= set(range(int(table[:, 0].max()) + 1))
        assert (samples[:, 1] > 0).all()


@pytest.mark.usefixtures("one_of_each_kind")
def test_sample_weights_exclude_components_that_ignore_them():
    weight = np.where(X[:, 0] > 0, 1.0 + np.arange(len(X)) % 2, 0.0)
    density = AutoDensity(cv=ONE_SPLIT, random_state=0).fit(X, sample_weight=weight)
    assert not [name for name in density.leaderboard_["component"] if "mixture" in name]
    assert (density.sample(500, random_state=0)[:, 0] > -0.7).mean() > 0.9


@pytest.mark.filterwarnings("ignore:time_limit=1 left no time:UserWarning")
def test_time_limit_is_kept():
    table = np.random.default_rng(0).standard_normal((4000, 8))
    started = time.perf_counter()
    AutoDensity(time_limit=1, random_state=0).fit(table)
    assert time.perf_counter() - started < 4  # minutes without a limit


def test_components_without_time_are_reported():
    with pytest.warns(UserWarning, match=r"time_limit=0.01 left no time for \d+ of \d+ components"):
        density = AutoDensity(cv=2, time_limit=0.01, random_state=0).fit(X)
    assert density.component_names_ == ["gaussian"]


def test_trained_components_come_last():
    """They share the time that the others leave."""
    for folds in (False, True):
        components = _portfolio.portfolio(1000, 3, folds, False, {"random_state": 0})
        is_trained = [component.is_trained for component in components]
        assert is_trained == sorted(is_trained) and any(is_trained) and not is_trained[0]


@pytest.mark.parametrize(
    ("n", "d", "n_workers", "sizes"),
    [(1000, 3, 1, [1, 1]), (1000, 3, 2, [1, 1]), (4000, 6, 2, [3, 1]), (4000, 36, 2, [1, 1, 1, 1])],
)
def test_flows_of_one_shape_train_together(n, d, n_workers, sizes):
    """Except with large batches, or if a worker would be idle."""
    components = _portfolio.portfolio(n, d, n <= 2000, False, {"random_state": 0})
    groups = group_components(components, n, d, n_workers)
    assert [component for group in groups for component in group] == components
    assert [len(group) for group in groups if group[0].is_trained] == sizes
    assert all(len(group) == 1 for group in groups if not group[0].is_trained)


def test_flows_that_train_together_equal_flows_alone(monkeypatch):
    """Each of two workers gets one."""
    reduce_portfolio(
        monkeypatch, lambda components: [with_few_steps(c) for c in components if c.is_trained]
    )
    together = AutoDensity(cv=ONE_SPLIT, random_state=0).fit(X)
    with parallel_config("threading"):
        alone = AutoDensity(cv=ONE_SPLIT, n_jobs=2, random_state=0).fit(X)
    scores = [
        dict(zip(*map(d.leaderboard_.get, ("component", "score")), strict=True))
        for d in (together, alone)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_kernels_are_a_sum_over_all_rows(small_blocks, in_blocks):
    if in_blocks:
        small_blocks()
    rng = np.random.default_rng(0)
    rows, new = rng.standard_normal((200, 30)), rng.standard_normal((50, 30))
    width = _portfolio.BANDWIDTHS[1]
    log_density = norm.logpdf(new[:, None], rows, width).sum(-1)
    kernels = GaussianKernels(width).fit(rows)
    exact = logsumexp(log_density, axis=1) - np.log(200)
    np.testing.assert_allclose(kernels.score_samples(new), exact)

    weight = rng.uniform(0.5, 2, 200)
    kernels.fit(rows, sample_weight=weight)
    exact = logsumexp(log_density, axis=1, b=weight / weight.sum())
    np.testing.assert_allclose(kernels.score_samples(new), exact)


def test_samples_of_kernels_are_normal_around_the_rows():
    rows = np.array([[0.0, 0.0], [100.0, 0.0]])
    kernels = GaussianKernels(0.5).fit(rows, sample_weight=np.array([1.0, 3.0]))
    drawn = kernels.sample(4000, random_state=0)
    right = drawn[:, 0] > 50
    assert right.mean() == pytest.approx(0.75, abs=0.03)
    assert drawn[right].mean(axis=0) == pytest.approx(rows[1], abs=0.05)
    assert drawn[right].std(axis=0) == pytest.approx(0.5, abs=0.05)


@pytest.mark.usefixtures("two_estimators")
def test_pipeline_and_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(gaussian(80)[0], columns=["a", "b"])
    density = AutoDensity(cv=ONE_SPLIT, random_state=0).fit(frame)
    assert list(density.feature_names_in_) == ["a", "b"]
    pipeline = make_pipeline(StandardScaler(), AutoDensity(cv=ONE_SPLIT, random_state=0)).fit(frame)
    assert pipeline.predict(frame).shape == (80,)
