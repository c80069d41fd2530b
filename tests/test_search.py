"""FlowGridSearchCV: the scores, results and rules of GridSearchCV."""

import warnings

import joblib
import numpy as np
import pytest
from _densities import ARCHITECTURES, accurate, banana, each_estimator, small
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skflows import MAFDensity, NSFDensity, RealNVPDensity
from skflows.model_selection import FlowGridSearchCV
from skflows.model_selection._joint_evaluation import Task, stack_tasks
from skflows.training import joint_fit

# Training amplifies rounding. With enough columns, and batches of a multiple of 16 rows, a stack is
# computed by the same kernels as its members: then the bits are the same.
N_COLUMNS = 8
X = np.hstack([banana(160, seed) for seed in range(N_COLUMNS // 2)])
CV = KFold(2, shuffle=True, random_state=0)
# Parameters in which the members of a stack may differ.
OPTIMISATION = [
    {"learning_rate_init": [0.003, 0.03], "weight_decay": [0.5]},
    {"dropout": [0.0, 0.3]},
]

DROPOUT = {"dropout": [0.0, 0.1]}


def fit_both(estimator, grid, X=X, fit_params=None, **params):
    """Return both searches, fitted in the same way, without a refit unless it is asked for."""
    params = {"cv": CV, "refit": False} | params
    return [
        search(estimator, grid, **params).fit(X, **fit_params or {})
        for search in (FlowGridSearchCV, GridSearchCV)
    ]


def assert_same_results(ours, theirs, atol=1e-4):
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    for name, expected in theirs.cv_results_.items():
        if name.endswith("score") and "rank" not in name:
            np.testing.assert_allclose(ours.cv_results_[name], expected, rtol=0, atol=atol)
    for name in ("n_splits_", "multimetric_", "best_params_", "best_index_"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.fixture
def stacks(monkeypatch):
    """The sizes of the stacks that are trained."""
    sizes = []
    fit_stack = joint_fit.fit_stack

    def counted(fits, *args):
        sizes.append(len(fits))
        return fit_stack(fits, *args)

    monkeypatch.setattr(joint_fit, "fit_stack", counted)
    return sizes


# The scores of GridSearchCV


@pytest.mark.parametrize(
    ("architecture", "batch_size", "early_stopping"),
    [
        (NSFDensity, 32, True),
        (NSFDensity, 32, False),
        (NSFDensity, "auto", True),
        (MAFDensity, 32, True),
        (RealNVPDensity, 32, True),
    ],
)
def test_scores_agree_with_grid_search(architecture, batch_size, early_stopping, stacks):
    estimator = architecture(
        n_transforms=2,
        hidden_layer_sizes=(16, 16),
        max_iter=5,
        n_iter_no_change=2,
        batch_size=batch_size,
        early_stopping=early_stopping,
        validation_fraction=0.2,
        random_state=0,
    )
    ours, theirs = fit_both(estimator, OPTIMISATION, refit=True)
    assert stacks == [8]
    assert_same_results(ours, theirs)
    np.testing.assert_array_equal(ours.score_samples(X), theirs.score_samples(X))


@pytest.mark.parametrize(
    ("architecture", "n"),
    [(NSFDensity, 313), (MAFDensity, 329), (RealNVPDensity, 329)],
)
def test_scores_agree_bit_for_bit_for_any_number_of_rows(architecture, n, stacks):
    """Because batches are filled up to a multiple of 16 rows."""
    rows = np.hstack([banana(n, seed) for seed in range(N_COLUMNS // 2)])
    params = {"n_transforms": 2, "hidden_layer_sizes": (10, 10), "max_iter": 3}
    estimator = architecture(**params, random_state=0)
    ours, theirs = fit_both(estimator, OPTIMISATION, rows)
    assert sum(stacks) == 8
    assert_same_results(ours, theirs, atol=0)


@each_estimator
def test_every_architecture_trains_in_one_stack(name, stacks):
    estimator = accurate(name, tolerance=1e-5, max_iter=2, batch_size=32)
    ours, theirs = fit_both(estimator, {"learning_rate_init": [0.01, 0.1]})
    assert stacks == [4]
    assert_same_results(ours, theirs)


@pytest.mark.parametrize(
    "grid",
    [
        {"tol": [0.0, 0.5], "n_iter_no_change": [1, 3]},
        {"random_state": [0, 1, 2]},
        {"preprocessing": ["standardize", "whiten", "quantile"]},
        {"bounds": [None, [(-9, None)] * N_COLUMNS]},
        {"discrete": ["auto", [0]]},
        {"contamination": ["auto", 0.1]},
    ],
)
def test_members_of_a_stack_may_differ_in_some_parameters(grid, stacks):
    params = {"early_stopping": True, "validation_fraction": 0.2, "learning_rate_init": 0.1}
    estimator = small("nsf", batch_size=32, max_iter=4, **params)
    ours, theirs = fit_both(estimator, grid)
    assert stacks == [2 * len(ours.cv_results_["params"])]
    assert_same_results(ours, theirs)


@pytest.mark.parametrize(
    ("name", "params", "grid", "n_generators"),
    [
        ("nsf", {}, {"learning_rate_init": [0.01, 0.1]}, 1),
        ("maf", {}, {"learning_rate_init": [0.01, 0.1]}, 1),
        ("realnvp", {}, {"learning_rate_init": [0.01, 0.1]}, 1),
        ("nsf", {}, {"dropout": [0.0, 0.1, 0.2]}, 2),
        ("maf", {}, {"random_state": [0, 1, 0]}, 2),
        ("maf", {"input_noise": 0.1}, {"learning_rate_init": [0.01, 0.1]}, 4),
    ],
)
def test_members_share_a_generator_if_they_would_draw_the_same_numbers(
    name, params, grid, n_generators, monkeypatch
):
    """And their scores agree with those of flows alone bit for bit."""
    given = []
    train_in_phases = joint_fit.train_in_phases

    def recorded(*args, generators, **settings):
        given.extend(generators)
        return train_in_phases(*args, generators=generators, **settings)

    monkeypatch.setattr(joint_fit, "train_in_phases", recorded)
    size = {"hidden_layer_sizes": (16, 16), "batch_size": 48, "max_iter": 3, "dropout": 0.1}
    ours, theirs = fit_both(small(name, **size | params), grid)
    assert len(given) == 2 * len(ours.cv_results_["params"])
    assert len(set(given)) == n_generators
    assert_same_results(ours, theirs, atol=0)


def test_members_continue_from_their_own_draws_in_the_next_phase(stacks):
    """Flow matching ends at its first validation for some members, and later for others."""
    settings = {"objective": "both", "batch_size": 32, "max_iter": 9, "learning_rate_init": 0.1}
    settings |= {"early_stopping": True, "validation_fraction": 0.2, "contamination": None}
    settings |= {"dropout": 0.1, "tol": 100.0}
    rows = X[:96, :2]
    estimator = accurate("cnf", tolerance=1e-6, **settings)
    lengths = [clone(estimator).set_params(n_iter_no_change=n).fit(rows).n_iter_ for n in (1, 100)]
    assert lengths == [6, 9]
    ours, theirs = fit_both(estimator, {"n_iter_no_change": [1, 100]}, rows)
    assert stacks == [4]
    assert_same_results(ours, theirs, atol=1e-3)


def test_flows_of_different_shapes_form_separate_stacks(stacks):
    grid = {"n_transforms": [1, 2], "hidden_layer_sizes": [(4,), (8,)], "dropout": [0.0, 0.1]}
    ours, theirs = fit_both(small("maf", batch_size=32, max_iter=2), grid)
    assert stacks == [4] * 4
    assert_same_results(ours, theirs)


@pytest.mark.parametrize(
    "grid",
    [{"max_iter": [2, 5]}, {"batch_size": [16, 32]}, {"early_stopping": [True, False]}],
)
def test_flows_with_different_steps_form_separate_stacks(grid, stacks):
    ours, theirs = fit_both(small("maf", batch_size=32), grid)
    assert stacks == [2, 2]
    assert_same_results(ours, theirs)


def test_rows_of_a_step_limit_the_size_of_a_stack(stacks, monkeypatch):
    monkeypatch.setattr(joint_fit, "MAX_ROWS", 3 * 32)
    ours, theirs = fit_both(small("maf", batch_size=32), {"weight_decay": [0.0, 0.1, 0.2, 0.3]})
    assert stacks == [3, 3, 2]
    assert_same_results(ours, theirs)


def test_folds_of_different_sizes_form_separate_stacks(stacks):
    """With padding for the rows of a larger fold, a flow would meet other batches."""
    groups = np.repeat([0, 1, 2], [32, 48, 80])
    params = {"fit_params": {"groups": groups}, "cv": GroupKFold(3)}
    ours, theirs = fit_both(small("nsf", batch_size=32), {"weight_decay": [0.0, 0.1]}, **params)
    assert stacks == [2, 2, 2]
    assert_same_results(ours, theirs)


def test_sample_weights_are_split_and_weight_the_scores(stacks):
    weight = np.random.default_rng(0).uniform(size=len(X)) + 0.1
    arguments = {"sample_weight": weight}
    ours, theirs = fit_both(small("maf"), DROPOUT, fit_params=arguments)
    assert stacks == [4]
    assert_same_results(ours, theirs)
    plain = FlowGridSearchCV(small("maf"), DROPOUT, cv=CV).fit(X)
    assert plain.best_score_ != ours.best_score_


def test_scores_on_small_tables_agree_with_grid_search(stacks):
    few = X[:36]
    ours, theirs = fit_both(small("nsf"), {"learning_rate_init": [0.01, 0.1]}, few)
    assert stacks == [4]
    assert_same_results(ours, theirs)


def test_n_jobs_does_not_change_the_results():
    """In threads, which start faster than processes (see test_composition.py)."""
    with joblib.parallel_config("threading"):
        one_job, two_jobs = (
            FlowGridSearchCV(small("maf", batch_size=32), OPTIMISATION, cv=CV, n_jobs=n_jobs).fit(X)
            for n_jobs in (None, 2)
        )
    assert_same_results(one_job, two_jobs)


# Results and rules


def test_results_have_the_columns_and_types_of_grid_search():
    ours, theirs = fit_both(small("maf"), DROPOUT, return_train_score=True, verbose=0)
    assert_same_results(ours, theirs)
    for name, values in theirs.cv_results_.items():
        if name != "params":
            assert ours.cv_results_[name].dtype == values.dtype, name
            assert ours.cv_results_[name].shape == values.shape, name
    assert (ours.cv_results_["mean_fit_time"] > 0).all()
    assert (ours.cv_results_["mean_score_time"] > 0).all()


def inliers(estimator, X, y=None):
    return (estimator.predict(X) == 1).mean()


def mean_and_inliers(estimator, X, y=None):
    return {"mean": estimator.score(X), "inliers": inliers(estimator, X)}


@pytest.mark.parametrize(
    ("scoring", "refit"),
    [
        (inliers, True),
        (mean_and_inliers, "mean"),
        ({"inliers": inliers, "low": lambda *args: -inliers(*args)}, "low"),
        (None, lambda results: len(results["params"]) - 1),
        (None, False),
        ({"inliers": inliers}, False),
    ],
)
def test_scorers_and_refit(scoring, refit, stacks):
    grid = {"contamination": [0.3, 0.05]}
    estimator = small("maf")
    searches = [
        search(estimator, grid, cv=CV, scoring=scoring, refit=refit).fit(X)
        for search in (FlowGridSearchCV, GridSearchCV)
    ]
    assert stacks == [4]
    ours, theirs = (vars(search) for search in searches)
    public = {name for name in theirs if name.endswith("_")}
    assert {name for name in ours if name.endswith("_")} == public
    for name in ("best_index_", "best_params_", "multimetric_"):
        assert ours.get(name) == theirs.get(name)
    for name, expected in theirs["cv_results_"].items():
        if name.startswith("mean_test"):
            np.testing.assert_allclose(ours["cv_results_"][name], expected, atol=1e-4)
    if refit:
        np.testing.assert_array_equal(*(search.score_samples(X) for search in searches))
        if not callable(refit):
            assert searches[0].score(X) == pytest.approx(searches[1].score(X))


def test_invalid_candidate_fails_alone(stacks):
    grid = {"dropout": [0.0, 2.0, 0.1]}
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 6"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One or more of the test scores")
            ours = FlowGridSearchCV(small("maf"), grid, cv=CV).fit(X)
    assert stacks == [4]
    assert np.isnan(ours.cv_results_["mean_test_score"][1])
    assert np.isfinite(ours.cv_results_["mean_test_score"][[0, 2]]).all()
    with pytest.raises(ValueError, match="dropout"):
        FlowGridSearchCV(small("maf"), grid, cv=CV, error_score="raise").fit(X)
    assert stacks == [4]  # it raises before any training


def test_candidate_whose_preparation_fails_fails_alone(stacks):
    grid = {"hidden_layer_sizes": [(8,), (0,)]}
    with pytest.warns(FitFailedWarning, match="2 fits failed"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One or more of the test scores")
        FlowGridSearchCV(small("maf"), grid, cv=CV).fit(X)
    assert stacks == [2]


def test_candidate_that_diverges_fails_alone(stacks):
    """The training of its stack ends with the warning of that member, here an error."""
    grid = {"learning_rate_init": [1e-3, 1e30]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ConvergenceWarning)
        ours, theirs = fit_both(small("maf", max_iter=10), grid)
    assert stacks == [4]
    assert np.isnan(theirs.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert_same_results(ours, theirs)


def test_members_of_a_failed_stack_are_fitted_one_by_one(monkeypatch):
    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(joint_fit, "fit_stack", fail)
    assert_same_results(*fit_both(small("maf"), DROPOUT))


class OwnScore(ARCHITECTURES["maf"]):
    """A flow that overrides `score`."""

    def score(self, X, y=None):
        return np.mean(self.predict(X) == 1)


def test_overridden_score_is_used(stacks):
    estimator = OwnScore(n_transforms=1, hidden_layer_sizes=8, max_iter=2, random_state=0)
    ours, theirs = fit_both(estimator, DROPOUT)
    assert stacks == [4]
    assert np.isfinite(theirs.cv_results_["mean_test_score"]).all()
    assert_same_results(ours, theirs)


def test_table_without_columns_raises_as_in_grid_search():
    for search in (FlowGridSearchCV, GridSearchCV):
        with pytest.raises(ValueError, match=r"0 feature\(s\)"):
            search(small("maf"), DROPOUT, cv=CV, error_score="raise").fit(X[:, :0])


def test_empty_search_raises():
    with pytest.raises(ValueError, match="nothing to fit"):
        FlowGridSearchCV(small("maf"), {"dropout": [0.1]}, cv=[]).fit(X)


def test_verbose_prints_each_fit(capsys):
    FlowGridSearchCV(small("maf"), DROPOUT, cv=CV, verbose=3).fit(X)
    out = capsys.readouterr().out
    assert "Fitting 2 folds for each of 2 candidates, totalling 4 fits" in out
    assert out.count("END") == 4
    assert "[CV 2/2] END" in out


def test_column_names_are_kept():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdefgh"))
    search = FlowGridSearchCV(small("maf"), DROPOUT, cv=CV).fit(frame)
    assert list(search.feature_names_in_) == list("abcdefgh")
    assert search.n_features_in_ == N_COLUMNS


# Searches that are left to GridSearchCV


class OwnFit(ARCHITECTURES["maf"]):
    """A flow that overrides `fit`, which a search must call."""

    def fit(self, X, y=None, sample_weight=None):
        self.own_fit_ = True
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (GaussianMixture(random_state=0), {"n_components": [1, 2]}),
        (make_pipeline(StandardScaler(), small("maf")), {"mafdensity__dropout": [0.0, 0.1]}),
        (small("maf", time_limit=1e6), DROPOUT),
        (small("maf"), {"time_limit": [None, 1e6]}),
        (OwnFit(n_transforms=1, max_iter=2, random_state=0), DROPOUT),
    ],
)
def test_what_cannot_be_stacked_is_left_to_grid_search(estimator, grid, stacks):
    ours, theirs = fit_both(estimator, grid)
    assert stacks == []
    assert_same_results(ours, theirs, atol=1e-6)


def test_search_with_callbacks_is_left_to_grid_search(stacks):
    callbacks = pytest.importorskip("sklearn.callback")
    pytest.importorskip("rich")
    search = FlowGridSearchCV(small("maf"), DROPOUT, cv=CV)
    search.set_callbacks(callbacks.ProgressBar()).fit(X)
    assert stacks == []


# Distribution of the work


@pytest.mark.parametrize(("n_jobs", "sizes"), [(1, [12, 3]), (2, [6, 6, 3]), (4, [4, 4, 4, 3])])
def test_stacks_hold_each_task_once_and_a_single_shape(n_jobs, sizes):
    candidates = [{"dropout": p, "n_bins": 8} for p in (0.0, 0.1, 0.2, 0.3)] + [{"n_bins": 4}]
    tasks = [
        Task(c, np.arange(3), np.arange(3), (0, 5), (j, 3)) for c in candidates for j in range(3)
    ]
    found = stack_tasks(tasks, n_jobs, 9)
    assert [len(stack) for stack in found] == sizes
    assert sorted(i for stack in found for i in stack) == list(range(15))
    for stack in found:
        assert len({tasks[i].parameters["n_bins"] for i in stack}) == 1


def test_members_and_values_limit_the_size_of_a_stack():
    tasks = [Task({"random_state": i}, *[np.arange(3)] * 2, (i, 100), (0, 1)) for i in range(100)]
    assert max(map(len, stack_tasks(tasks, 1, 9))) <= 32
    assert max(map(len, stack_tasks(tasks, 1, 2_000_000))) <= 4
    assert max(map(len, stack_tasks(tasks, 1, 20_000_000))) == 1


@pytest.mark.parametrize("n_folds", [1, 2, 5])
def test_long_trainings_are_shared_evenly_by_the_jobs(n_folds):
    grid = [(0, "long"), (0, "short"), (1, "long"), (1, "short")]
    tasks = [
        Task({"random_state": c}, *[np.arange(3)] * 2, (i, 4), (j, n_folds))
        for i, c in enumerate(grid)
        for j in range(n_folds)
    ]
    long = [i for i, task in enumerate(tasks) if task.parameters["random_state"][1] == "long"]
    shares = [len(set(stack) & set(long)) for stack in stack_tasks(tasks, 2, 9)]
    assert shares == [n_folds, n_folds]


def test_stacks_of_one_job_hold_neighbouring_candidates():
    """Neighbours train for about as long, and end together."""
    tasks = [Task({"random_state": i}, *[np.arange(3)] * 2, (i, 60), (0, 1)) for i in range(60)]
    assert stack_tasks(tasks, 1, 9) == [list(range(30)), list(range(30, 60))]
