"""The automatic density: works on any table, in the time it is given."""

import pickle
import time
import warnings

import numpy as np
import pytest
from _densities import banana, gaussian
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skflows import AutoDensity
from skflows.ensemble._components import Budget, Component, budgets, fit_group, grouped
from skflows.ensemble._kernel_density import GaussianKernels
from skflows.ensemble._portfolio import BANDWIDTHS, portfolio

pytestmark = pytest.mark.filterwarnings("ignore:time_limit=.* left no time:UserWarning")
QUICK = {"cv": ShuffleSplit(1, test_size=0.2, random_state=0), "time_limit": 1.0}
X = banana(150)


@pytest.fixture(scope="module")
def fitted():
    return AutoDensity(cv=2, random_state=0).fit(X)


def few_components(monkeypatch):
    """Leave of the portfolio what takes no time."""
    import skflows._portfolio as module

    whole = module.portfolio
    monkeypatch.setattr(module, "portfolio", lambda *args: whole(*args)[:6])


def one_of_each_kind(monkeypatch):
    """Leave of the portfolio one component of each kind, and of the flows a glimpse."""
    import skflows._portfolio as module

    whole = module.portfolio

    def reduced(*args):
        kinds = {}
        for component in whole(*args):
            kind, _, size = component.name.partition(" of ")
            # Narrow kernels know each row they sit on: none would be an outlier.
            if "kernels" not in kind or size == "2":
                kinds.setdefault(kind, component)
        few = {"max_iter": 2, "n_transforms": 1, "hidden_layer_sizes": (4,)}
        for kind, component in kinds.items():
            known = component.estimator.get_params()
            params = {key: value for key, value in few.items() if key in known}
            estimator = clone(component.estimator).set_params(**params)
            kinds[kind] = component._replace(estimator=estimator)
        return list(kinds.values())

    monkeypatch.setattr(module, "portfolio", reduced)


@parametrize_with_checks(
    [AutoDensity(cv=QUICK["cv"], random_state=0)],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "tails are chosen by folds of the rows",
    },
)
def test_check_estimator(estimator, check, monkeypatch):
    one_of_each_kind(monkeypatch)
    check(estimator)


@pytest.mark.parametrize("check", ["check_param_validation", "check_requires_y_none"])
def test_check_left_out_of_check_estimator(check, monkeypatch):
    few_components(monkeypatch)
    getattr(estimator_checks, check)("AutoDensity", AutoDensity(**QUICK))


def test_says_what_carried_it(fitted):
    board = fitted.leaderboard_
    assert sum(board["weight"]) == pytest.approx(1)
    assert len(set(board["component"])) == len(board["component"]) == len(fitted.weights_)
    assert {"gaussian", "copula", "gaussianization", "quantile spline flow"} <= set(
        board["component"]
    )
    assert fitted.stacked_score_ >= max(board["score"]) - 1e-6


def test_beats_a_normal_where_the_table_is_none(fitted):
    new = banana(1000, seed=1)
    scores = dict(zip(fitted.leaderboard_["component"], fitted.leaderboard_["score"], strict=True))
    assert fitted.score(new) > scores["gaussian"] + 0.5
    assert (fitted.predict(new) == -1).mean() < 0.1
    assert (fitted.predict(new + 30) == -1).all()


def test_samples_look_like_the_rows(fitted):
    samples = fitted.sample(2000, random_state=0)
    np.testing.assert_allclose(samples.mean(axis=0), X.mean(axis=0), atol=0.3)
    assert np.isfinite(fitted.score_samples(samples)).all()


def test_survives_pickling_and_cloning(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    assert clone(fitted).get_params() == fitted.get_params()


def test_same_seed_same_density(monkeypatch):
    few_components(monkeypatch)
    first, second = (AutoDensity(cv=2, random_state=3).fit(X) for _ in range(2))
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))


ODD = {
    "20 rows": lambda rng: rng.standard_normal((20, 3)),
    "fewer rows than columns": lambda rng: rng.standard_normal((25, 40)),
    "3 rows": lambda rng: rng.standard_normal((3, 2)),
    "one column": lambda rng: rng.standard_cauchy((100, 1)),
    "integers and a constant": lambda rng: np.column_stack(
        [rng.poisson(4, 100), rng.standard_normal(100), np.full(100, 7.0)]
    ),
    "one value": lambda rng: np.full((200, 2), 3.0),
    "collinear": lambda rng: rng.standard_normal((80, 1)) * [1.0, 2.0, -1.0] + [0, 1, 5],
    "huge units": lambda rng: 1e150 * rng.standard_normal((60, 2)),
    "an outlier": lambda rng: np.vstack([rng.standard_normal((60, 2)), [[1e8, -1e8]]]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_tables_are_fitted_in_silence(name):
    table = ODD[name](np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "time_limit=2 left no time")
        cv = 2 if len(table) > 3 else "auto"
        density = AutoDensity(cv=cv, time_limit=2, random_state=0).fit(table)
    assert np.isfinite(density.score_samples(table)).all()
    assert np.isfinite(density.sample(50, random_state=0)).all()
    assert np.isfinite(density.offset_)


def test_wide_table():
    table = np.random.default_rng(0).standard_normal((60, 200))
    density = AutoDensity(cv=QUICK["cv"], random_state=0).fit(table)  # each component has its time
    assert np.isfinite(density.score_samples(table)).all()


def test_discrete_columns_and_bounds_reach_every_component(monkeypatch):
    few_components(monkeypatch)
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.poisson(2, 200), rng.exponential(size=200)])
    density = AutoDensity(cv=2, bounds=[(0, None), (0, None)], random_state=0).fit(table)
    samples = density.sample(1000, random_state=0)
    assert set(samples[:, 0]) <= set(range(int(table[:, 0].max()) + 1))
    assert (samples[:, 1] > 0).all()
    assert density.score_samples([[1.0, -0.5]]) == -np.inf


def test_weights_leave_out_what_takes_none():
    weight = np.where(X[:, 0] > 0, 1.0, 0.0)
    density = AutoDensity(**QUICK, random_state=0).fit(X, sample_weight=weight)
    assert not [name for name in density.leaderboard_["component"] if "mixture" in name]
    assert (density.sample(500, random_state=0)[:, 0] > -0.7).mean() > 0.9


def test_time_limit_is_kept():
    table = np.random.default_rng(0).standard_normal((6000, 8))
    started = time.perf_counter()
    AutoDensity(time_limit=6, random_state=0).fit(table)
    assert time.perf_counter() - started < 9  # without a limit minutes; generous for a busy machine


def test_says_what_there_was_no_time_for():
    with pytest.warns(UserWarning, match=r"time_limit=0.01 left no time for \d+ of \d+ components"):
        density = AutoDensity(cv=2, time_limit=0.01, random_state=0).fit(X)
    assert density.component_names_ == ["gaussian"]


def test_time_is_shared_among_what_remains():
    components = portfolio(1000, 3, False, False, {"random_state": 0})
    groups = [[component] for component in components]
    assert budgets(groups, None, time.time(), 2) == [Budget()] * len(groups)
    shares = budgets(groups, 100, time.time(), 2)
    assert shares[0] == Budget()
    trains = [component.trains for component in components]
    assert trains == sorted(trains)  # the flows come last
    assert [share.rounds for share, yes in zip(shares, trains, strict=True) if yes] == [2, 2, 1, 1]
    assert shares[-1].seconds() > shares[-4].seconds() > 0


class Slow(KernelDensity):
    def fit(self, X):
        time.sleep(0.2)
        return super().fit(X)


def test_time_is_over_between_two_folds():
    splits = list(KFold(5).split(X))
    component = Component("slow", Slow(), False)
    started = time.perf_counter()
    assert fit_group([component], X, None, splits, Budget(time.time() + 0.3)) == [None]
    assert time.perf_counter() - started < 0.8  # 1 s for all folds
    (outcome,) = fit_group([component], X, None, splits, Budget())
    assert len(outcome.members) == 5


@pytest.mark.parametrize(
    ("n", "d", "n_workers", "sizes"),
    [(1000, 3, 1, [2]), (1000, 3, 2, [1, 1]), (4000, 6, 2, [3, 1]), (4000, 36, 2, [1, 1, 1, 1])],
)
def test_flows_of_one_shape_train_together(n, d, n_workers, sizes):
    """But not with large batches, nor so that a process has nothing to do."""
    components = portfolio(n, d, n <= 2000, False, {"random_state": 0})
    groups = grouped(components, n, d, n_workers)
    assert [component for group in groups for component in group] == components
    assert [len(group) for group in groups if group[0].trains] == sizes
    assert all(len(group) == 1 for group in groups if not group[0].trains)


def test_flows_are_what_they_would_be_alone(monkeypatch):
    import skflows._portfolio as module

    whole = module.portfolio
    monkeypatch.setattr(module, "portfolio", lambda *args: [c for c in whole(*args) if c.trains])
    cv = ShuffleSplit(1, test_size=22, random_state=0)
    together = AutoDensity(cv=cv, random_state=0).fit(X)
    monkeypatch.setattr("skflows._components.VALUES_OF_STACKS", 0)
    alone = AutoDensity(cv=cv, random_state=0).fit(X)
    scores = [
        dict(zip(*map(d.leaderboard_.get, ("component", "score")), strict=True))
        for d in (together, alone)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@pytest.mark.parametrize("size", [10**6, 300])
def test_kernels_are_a_sum_over_all_rows(monkeypatch, size):
    monkeypatch.setattr("skflows._kernels.VALUES_PER_CHUNK", size)
    rng = np.random.default_rng(0)
    rows, new = rng.standard_normal((200, 30)), rng.standard_normal((50, 30))
    width = BANDWIDTHS[1]
    log_density = norm.logpdf(new[:, None], rows, width).sum(-1)
    kernels = GaussianKernels(width).fit(rows)
    exact = logsumexp(log_density, axis=1) - np.log(200)
    np.testing.assert_allclose(kernels.score_samples(new), exact)

    weight = rng.uniform(0.5, 2, 200)
    kernels.fit(rows, sample_weight=weight)
    exact = logsumexp(log_density, axis=1, b=weight / weight.sum())
    np.testing.assert_allclose(kernels.score_samples(new), exact)


def test_samples_of_kernels_lie_around_the_rows():
    rows = np.array([[0.0, 0.0], [100.0, 0.0]])
    kernels = GaussianKernels(0.5).fit(rows, sample_weight=np.array([1.0, 3.0]))
    drawn = kernels.sample(4000, random_state=0)
    right = drawn[:, 0] > 50
    assert right.mean() == pytest.approx(0.75, abs=0.03)
    assert drawn[right].mean(axis=0) == pytest.approx(rows[1], abs=0.05)
    assert drawn[right].std(axis=0) == pytest.approx(0.5, abs=0.05)


def test_pipeline_and_rows_of_a_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(gaussian(80)[0], columns=["a", "b"])
    density = AutoDensity(**QUICK, random_state=0).fit(frame)
    assert list(density.feature_names_in_) == ["a", "b"]
    pipeline = make_pipeline(StandardScaler(), AutoDensity(**QUICK, random_state=0)).fit(frame)
    assert pipeline.predict(frame).shape == (80,)
