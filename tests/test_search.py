"""The search whose flows train together: the scores, results and rules of GridSearchCV."""

import warnings

import numpy as np
import pytest
from _densities import ARCHITECTURES, banana, each_estimator, small
from sklearn.callback import ProgressBar
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skflows import MAFDensity, NSFDensity, RealNVPDensity
from skflows.training import joint_fit as _together
from skflows.model_selection import FlowGridSearchCV
from skflows.model_selection._joint_evaluation import Task, pieces

# Training amplifies rounding. With enough columns, and batches of a multiple of 16 rows, the same
# kernels compute a stack and its members, on memory that is aligned alike: then it is the same.
N_COLUMNS = 8
X = np.hstack([banana(240, seed) for seed in range(N_COLUMNS // 2)])
CV = KFold(3, shuffle=True, random_state=0)
# Parameters in which members of one stack may differ.
OPTIMISATION = [
    {"learning_rate_init": [0.003, 0.03], "weight_decay": [0.0, 0.5]},
    {"dropout": [0.0, 0.3]},
]

DROPOUT = {"dropout": [0.0, 0.1]}


def both(estimator, grid, X=X, fit_params=None, **params):
    """The search and GridSearchCV, fitted alike."""
    params = {"cv": CV} | params
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
    """Sizes of the stacks that are trained."""
    sizes = []
    fit_together = _together.fit_together

    def counted(runs, *args):
        sizes.append(len(runs))
        return fit_together(runs, *args)

    monkeypatch.setattr(_together, "fit_together", counted)
    return sizes


# The scores of GridSearchCV


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("batch_size", [32, "auto"])
@pytest.mark.parametrize("architecture", [NSFDensity, MAFDensity, RealNVPDensity])
def test_scores_are_those_of_grid_search(architecture, batch_size, early_stopping, stacks):
    estimator = architecture(
        n_transforms=2,
        hidden_layer_sizes=(16, 16),
        max_iter=12,
        n_iter_no_change=3,
        batch_size=batch_size,
        early_stopping=early_stopping,
        validation_fraction=0.2,
        random_state=0,
    )
    ours, theirs = both(estimator, OPTIMISATION)
    assert stacks == [18]
    assert_same_results(ours, theirs)
    np.testing.assert_array_equal(ours.score_samples(X), theirs.score_samples(X))


@pytest.mark.parametrize("architecture", [NSFDensity, MAFDensity, RealNVPDensity])
@pytest.mark.parametrize("n", [235, 247])
def test_scores_are_the_same_for_any_number_of_rows(architecture, n, stacks):
    """To the last bit: batches are filled up to a multiple of 16 rows."""
    rows = np.hstack([banana(n, seed) for seed in range(N_COLUMNS // 2)])
    estimator = architecture(hidden_layer_sizes=(16, 16), max_iter=12, random_state=0)
    ours, theirs = both(estimator, OPTIMISATION, rows)
    assert sum(stacks) == 18
    assert_same_results(ours, theirs, atol=0)


@each_estimator
def test_every_flow_searches_in_one_stack(name, stacks):
    ours, theirs = both(small(name, batch_size=32), {"learning_rate_init": [0.01, 0.1]})
    assert stacks == [6]
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
def test_parameters_that_are_each_members_own(grid, stacks):
    params = {"early_stopping": True, "validation_fraction": 0.2, "learning_rate_init": 0.1}
    estimator = small("nsf", batch_size=32, max_iter=8, **params)
    ours, theirs = both(estimator, grid)
    assert stacks == [3 * len(ours.cv_results_["params"])]
    assert_same_results(ours, theirs)


def test_noise_of_held_out_rows_is_that_of_a_flow_alone(stacks):
    params = {"training": "flow_matching", "n_augmented": 1, "max_iter": 6, "batch_size": 32}
    ours, theirs = both(small("cnf", **params), {"learning_rate_init": [0.01, 0.03]})
    assert max(stacks) == 6
    assert_same_results(ours, theirs, atol=1e-3)


@pytest.mark.parametrize(
    ("params", "grid", "n_generators"),
    [
        ({}, {"learning_rate_init": [0.01, 0.1]}, 1),
        ({"activation": "silu"}, {"learning_rate_init": [0.01, 0.1]}, 1),
        ({}, {"dropout": [0.0, 0.1, 0.2]}, 2),
        ({}, {"random_state": [0, 1, 0]}, 2),
        ({"input_noise": 0.1}, {"learning_rate_init": [0.01, 0.1]}, 6),
    ],
)
@pytest.mark.parametrize("name", ["nsf", "maf", "realnvp"])
def test_flows_that_would_draw_the_same_numbers_draw_them_once(
    name, params, grid, n_generators, monkeypatch
):
    """And their scores are those of flows alone, to the last bit."""
    given = []
    fit_in_phases = _together.fit_in_phases

    def watched(*args, generators, **settings):
        given.extend(generators)
        return fit_in_phases(*args, generators=generators, **settings)

    monkeypatch.setattr(_together, "fit_in_phases", watched)
    size = {"hidden_layer_sizes": (16, 16), "batch_size": 48, "max_iter": 4, "dropout": 0.1}
    ours, theirs = both(small(name, **size | params), grid)
    assert len(given) == 3 * len(ours.cv_results_["params"])
    assert len(set(given)) == n_generators
    assert_same_results(ours, theirs, atol=0)


def test_a_flow_goes_on_from_its_own_draws_in_the_next_phase(stacks):
    """Some members match for longer than others before all of them are trained by likelihood."""
    settings = {"training": "both", "batch_size": 32, "max_iter": 30, "learning_rate_init": 0.1}
    estimator = small("cnf", early_stopping=True, validation_fraction=0.2, **settings)
    grid = {"n_iter_no_change": [1, 100], "dropout": [0.1]}
    ours, theirs = both(estimator, grid, X[:, :2])
    assert stacks == [6]
    assert_same_results(ours, theirs, atol=1e-3)


def test_other_shapes_make_other_stacks(stacks):
    grid = {"n_transforms": [1, 2], "hidden_layer_sizes": [(4,), (8,)], "dropout": [0.0, 0.1]}
    ours, theirs = both(small("maf", batch_size=32), grid)
    assert stacks == [6] * 4
    assert_same_results(ours, theirs)


@pytest.mark.parametrize(
    "grid",
    [{"max_iter": [2, 5]}, {"batch_size": [16, 32]}, {"early_stopping": [True, False]}],
)
def test_other_steps_make_other_stacks(grid, stacks):
    ours, theirs = both(small("maf", batch_size=32), grid)
    assert stacks == [3, 3]
    assert_same_results(ours, theirs)


def test_stacks_take_no_more_rows_in_a_step_than_they_gain_from(stacks, monkeypatch):
    monkeypatch.setattr(_together, "MOST_ROWS", 5 * 32)
    ours, theirs = both(small("maf", batch_size=32), {"weight_decay": [0.0, 0.1, 0.2, 0.3]})
    assert stacks == [5, 5, 2]
    assert_same_results(ours, theirs)


def test_folds_of_other_sizes_make_other_stacks(stacks):
    """With the rows of another fold as padding, a flow would meet other batches."""
    groups = np.repeat([0, 1, 2], [48, 80, 112])
    arguments = {"groups": groups}
    grid = {"weight_decay": [0.0, 0.1]}
    ours, theirs = both(small("nsf", batch_size=32), grid, fit_params=arguments, cv=GroupKFold(3))
    assert stacks == [2, 2, 2]
    assert_same_results(ours, theirs)


def test_weights_are_split_and_weigh_the_scores(stacks):
    weight = np.random.default_rng(0).uniform(size=len(X)) + 0.1
    arguments = {"sample_weight": weight}
    ours, theirs = both(small("maf"), DROPOUT, fit_params=arguments)
    assert stacks == [6]
    assert_same_results(ours, theirs)
    plain = FlowGridSearchCV(small("maf"), DROPOUT, cv=CV).fit(X)
    assert plain.best_score_ != ours.best_score_


def test_small_tables_are_trained_whole(stacks):
    few = X[:36]
    ours, theirs = both(small("nsf"), {"learning_rate_init": [0.01, 0.1]}, few)
    assert stacks == [6]
    assert_same_results(ours, theirs)


def test_processes_find_the_same():
    alone, apart = (
        FlowGridSearchCV(small("maf", batch_size=32), OPTIMISATION, cv=CV, n_jobs=n_jobs).fit(X)
        for n_jobs in (None, 2)
    )
    assert_same_results(alone, apart)


# Its results and rules


def test_results_have_the_columns_and_types_of_grid_search():
    ours, theirs = both(small("maf"), DROPOUT, return_train_score=True, verbose=0)
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
    assert stacks == [6]
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
    with pytest.warns(FitFailedWarning, match="3 fits failed out of a total of 9"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One or more of the test scores")
            ours = FlowGridSearchCV(small("maf"), grid, cv=CV).fit(X)
    assert stacks == [6]
    assert np.isnan(ours.cv_results_["mean_test_score"][1])
    assert np.isfinite(ours.cv_results_["mean_test_score"][[0, 2]]).all()
    with pytest.raises(ValueError, match="dropout"):
        FlowGridSearchCV(small("maf"), grid, cv=CV, error_score="raise").fit(X)
    assert stacks == [6]  # it raises before any training


def test_trouble_that_only_preparation_finds_fails_alone(stacks):
    grid = {"hidden_layer_sizes": [(8,), (0,)]}
    with pytest.warns(FitFailedWarning, match="3 fits failed"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One or more of the test scores")
        FlowGridSearchCV(small("maf"), grid, cv=CV).fit(X)
    assert stacks == [3]


def test_trouble_at_the_end_of_training_fails_alone(stacks):
    """A stack with a member that diverges ends in the warning of that member, here an error."""
    grid = {"learning_rate_init": [1e-3, 1e30]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ConvergenceWarning)
        ours, theirs = both(small("maf", max_iter=12), grid)
    assert stacks == [6]
    assert np.isnan(theirs.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert_same_results(ours, theirs)


def test_a_stack_that_fails_is_fitted_one_by_one(monkeypatch):
    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(_together, "fit_together", fail)
    assert_same_results(*both(small("maf"), DROPOUT))


class Selective(ARCHITECTURES["maf"]):
    """A flow with a `score` of its own, by more than the density."""

    def score(self, X, y=None):
        return np.mean(self.predict(X) == 1)


def test_a_score_of_its_own_is_used(stacks):
    estimator = Selective(n_transforms=1, hidden_layer_sizes=8, max_iter=2, random_state=0)
    ours, theirs = both(estimator, DROPOUT)
    assert stacks == [6]
    assert np.isfinite(theirs.cv_results_["mean_test_score"]).all()
    assert_same_results(ours, theirs)


def test_table_without_columns_fails_as_in_grid_search():
    for search in (FlowGridSearchCV, GridSearchCV):
        with pytest.raises(ValueError, match=r"0 feature\(s\)"):
            search(small("maf"), DROPOUT, cv=CV, error_score="raise").fit(X[:, :0])


def test_empty_grid_is_refused():
    with pytest.raises(ValueError, match="nothing to fit"):
        FlowGridSearchCV(small("maf"), {"dropout": [0.1]}, cv=[]).fit(X)


def test_verbose_tells_of_each_fit(capsys):
    FlowGridSearchCV(small("maf"), DROPOUT, cv=CV, verbose=3).fit(X)
    out = capsys.readouterr().out
    assert "Fitting 3 folds for each of 2 candidates, totalling 6 fits" in out
    assert out.count("END") == 6
    assert "[CV 2/3] END" in out


def test_names_of_columns_are_kept():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdefgh"))
    search = FlowGridSearchCV(small("maf"), DROPOUT, cv=CV).fit(frame)
    assert list(search.feature_names_in_) == list("abcdefgh")
    assert search.n_features_in_ == N_COLUMNS


# What it leaves to GridSearchCV


class Watchful(ARCHITECTURES["maf"]):
    """A flow with a `fit` of its own, which a search must call."""

    def fit(self, X, y=None, sample_weight=None):
        self.watched_ = True
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (GaussianMixture(random_state=0), {"n_components": [1, 2]}),
        (make_pipeline(StandardScaler(), small("maf")), {"mafdensity__dropout": [0.0, 0.1]}),
        (small("maf", time_limit=1e6), DROPOUT),
        (small("maf"), {"time_limit": [None, 1e6]}),
        (small("planar"), {"compile": [False]}),
        (Watchful(n_transforms=1, max_iter=2, random_state=0), DROPOUT),
    ],
)
def test_what_cannot_be_stacked_is_left_to_grid_search(estimator, grid, stacks):
    ours, theirs = both(estimator, grid)
    assert stacks == []
    assert_same_results(ours, theirs, atol=1e-6)


def test_callbacks_see_each_fit(stacks):
    pytest.importorskip("rich")
    search = FlowGridSearchCV(small("maf"), DROPOUT, cv=CV)
    search.set_callbacks(ProgressBar()).fit(X)
    assert stacks == []


# How the work is divided


@pytest.mark.parametrize(("n_jobs", "sizes"), [(1, [12, 3]), (2, [6, 6, 3]), (4, [4, 4, 4, 3])])
def test_pieces_hold_each_task_once_and_share_a_shape(n_jobs, sizes):
    candidates = [{"dropout": p, "n_bins": 8} for p in (0.0, 0.1, 0.2, 0.3)] + [{"n_bins": 4}]
    tasks = [
        Task(c, np.arange(3), np.arange(3), (0, 5), (j, 3)) for c in candidates for j in range(3)
    ]
    parts = pieces(tasks, n_jobs, 9)
    assert [len(part) for part in parts] == sizes
    assert sorted(i for part in parts for i in part) == list(range(15))
    for part in parts:
        assert len({tasks[i].parameters["n_bins"] for i in part}) == 1


def test_pieces_are_no_larger_than_a_stack_gains_from():
    tasks = [Task({"random_state": i}, *[np.arange(3)] * 2, (i, 100), (0, 1)) for i in range(100)]
    assert max(len(part) for part in pieces(tasks, 1, 9)) <= 32
    assert max(len(part) for part in pieces(tasks, 1, 2_000_000)) <= 4
    assert max(len(part) for part in pieces(tasks, 1, 20_000_000)) == 1


@pytest.mark.parametrize("n_folds", [1, 2, 5])
def test_each_job_has_its_share_of_the_candidates_that_train_for_long(n_folds):
    grid = [(0, "long"), (0, "short"), (1, "long"), (1, "short")]
    tasks = [
        Task({"random_state": c}, *[np.arange(3)] * 2, (i, 4), (j, n_folds))
        for i, c in enumerate(grid)
        for j in range(n_folds)
    ]
    long = [i for i, task in enumerate(tasks) if task.parameters["random_state"][1] == "long"]
    shares = [len(set(part) & set(long)) for part in pieces(tasks, 2, 9)]
    assert shares == [n_folds, n_folds]


def test_stacks_of_one_job_hold_neighbours():
    """It trains them one after another, and those that are alike end together."""
    tasks = [Task({"random_state": i}, *[np.arange(3)] * 2, (i, 60), (0, 1)) for i in range(60)]
    assert pieces(tasks, 1, 9) == [list(range(30)), list(range(30, 60))]
