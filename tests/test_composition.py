"""Pipelines, searches, threads, processes, pickles and copies."""

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
import torch
from _densities import NAMES, accurate, banana, each_estimator, each_kind, small
from _tables import few_components  # noqa: F401 - a fixture
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skflows import StackedDensity, TableDensity
from skflows.model_selection import FlowGridSearchCV
from skflows.training import torch_state

X = banana(90)


def assert_same(first, second):
    """Assert that two fitted estimators are equal, bit for bit."""
    for method in ("score_samples", "transform", "predict"):
        np.testing.assert_array_equal(getattr(first, method)(X), getattr(second, method)(X))
    np.testing.assert_array_equal(first.sample(5, 0), second.sample(5, 0))
    assert first.history_.keys() == second.history_.keys()
    for key, values in first.history_.items():
        np.testing.assert_array_equal(values, second.history_[key])
    assert first.offset_ == second.offset_


@each_kind
def test_pipeline_ends_in_a_density(name):
    pipeline = make_pipeline(StandardScaler(), accurate(name)).fit(X)
    scaled = StandardScaler().fit_transform(X)
    alone = accurate(name).fit(scaled)
    for method in ("score_samples", "decision_function", "predict", "transform"):
        np.testing.assert_array_equal(getattr(pipeline, method)(X), getattr(alone, method)(scaled))
    assert pipeline.score(X) == alone.score(scaled)
    Z = pipeline.transform(X)
    np.testing.assert_allclose(pipeline.inverse_transform(Z), X, atol=1e-9)


@each_kind
def test_density_as_a_transformer(name):
    pandas = pytest.importorskip("pandas")
    y = X[:, 1] > np.median(X[:, 1])
    pipeline = make_pipeline(small(name), LogisticRegression()).fit(X, y)
    assert pipeline.score(X, y) > 0.8

    frame = pandas.DataFrame(X, columns=["a", "b"], index=range(5, 95))
    transformer = ColumnTransformer([("latent", small(name), ["b", "a"])])
    latent = transformer.set_output(transform="pandas").fit_transform(frame)
    prefix = type(small(name)).__name__.lower()
    assert list(latent.columns) == [f"latent__{prefix}0", f"latent__{prefix}1"]
    assert list(latent.index) == list(frame.index)
    np.testing.assert_array_equal(latent, small(name).fit(X[:, ::-1]).transform(X[:, ::-1]))


@each_kind
def test_search_maximises_the_held_out_likelihood(name):
    X = banana(120)
    params = {"learning_rate_init": 0.03, "early_stopping": False}
    estimator = accurate(name, tolerance=1e-5, **params)
    search = GridSearchCV(estimator, {"max_iter": [1, 6]}, cv=KFold(2)).fit(X)
    assert search.best_params_["max_iter"] == 6
    by_hand = [
        clone(search.best_estimator_).fit(X[train]).score_samples(X[test]).mean()
        for train, test in KFold(2).split(X)
    ]
    assert search.best_score_ == pytest.approx(np.mean(by_hand), rel=1e-12)
    np.testing.assert_array_equal(
        search.score_samples(X), clone(search.best_estimator_).fit(X).score_samples(X)
    )


@each_kind
def test_cross_val_score(name):
    scores = cross_val_score(small(name), X, cv=3)
    assert scores.shape == (3,)
    expected = small(name).fit(X[30:]).score(X[:30])
    assert scores[0] == pytest.approx(expected, rel=1e-12)


@each_kind
def test_ensemble_of_weighted_clones(name):
    """A voting ensemble fits clones with weights, and leaves the prototypes unfitted."""
    prototypes = [small(name, random_state=seed, early_stopping=False) for seed in (0, 1)]
    members = [clone(prototype).fit(X, sample_weight=np.ones(len(X))) for prototype in prototypes]
    assert not any(hasattr(prototype, "flow_") for prototype in prototypes)
    mixture = np.logaddexp(*(member.score_samples(X) for member in members)) - np.log(2)
    assert np.isfinite(mixture).all()
    assert np.any(members[0].score_samples(X) != members[1].score_samples(X))


def fit_and_score(estimator, rows):
    return estimator.fit(rows).score_samples(rows)


@each_kind
def test_fits_in_threads_do_not_affect_each_other(name):
    """They share no random state."""
    alone = [fit_and_score(small(name, random_state=seed), X) for seed in range(3)]
    jobs = (joblib.delayed(fit_and_score)(small(name, random_state=s), X) for s in range(3))
    together = joblib.Parallel(n_jobs=3, backend="threading")(jobs)
    np.testing.assert_array_equal(together, alone)


@pytest.fixture(scope="module")
def workers():
    """Start two processes for the whole module, because each takes seconds to import torch."""
    with joblib.parallel_config("loky", n_jobs=2):
        yield joblib.Parallel()


@each_kind
def test_fits_and_scores_in_processes(name, workers):
    fitted = small(name).fit(X)
    expected = fitted.score_samples(X)
    jobs = [joblib.delayed(small(name).fit)(X), joblib.delayed(fitted.score_samples)(X)]
    fitted_there, scores = workers(jobs)
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    np.testing.assert_allclose(fitted_there.score_samples(X), expected, rtol=1e-9)


@pytest.mark.parametrize("search", [GridSearchCV, FlowGridSearchCV])
def test_search_in_processes(search, workers):
    grid = {"n_transforms": [1, 2]}
    searches = [search(small("nsf"), grid, cv=2, n_jobs=n).fit(X) for n in (1, 2)]
    first, second = (search.cv_results_["mean_test_score"] for search in searches)
    np.testing.assert_allclose(first, second, rtol=1e-9)


def test_stacked_density_in_processes(workers):
    components = [("flow", small("nsf")), ("kernel", KernelDensity(bandwidth=0.4))]
    alone, shared = (
        StackedDensity(components, cv=2, n_jobs=n, random_state=0).fit(X) for n in (1, 2)
    )
    np.testing.assert_array_equal(alone.score_samples(X), shared.score_samples(X))
    np.testing.assert_array_equal(alone.weights_, shared.weights_)


@pytest.mark.parametrize("time_limit", [None, 60])
def test_table_density_in_processes(time_limit, workers):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=["x0", "x1"])
    table["side"] = np.where(table["x0"] > 0, "right", None)
    alone, shared = (
        TableDensity(cv=2, max_iter=2, n_jobs=n, time_limit=time_limit, random_state=0).fit(table)
        for n in (1, 2)
    )
    assert alone.component_names_ == shared.component_names_
    expected = alone.score_samples(table)
    tolerance = 1e-6 if time_limit is None else 1e-2  # the learning rate follows the clock
    np.testing.assert_allclose(shared.score_samples(table), expected, atol=tolerance)


def through_a_file(estimator, path):
    joblib.dump(estimator, path / "model.joblib")
    return joblib.load(path / "model.joblib")


def through_a_compressed_file(estimator, path):
    joblib.dump(estimator, path / "model.joblib", compress=3)
    return joblib.load(path / "model.joblib")


def through_read_only_memory(estimator, path):
    joblib.dump(estimator, path / "model.joblib")
    return joblib.load(path / "model.joblib", mmap_mode="r")


COPIES = {
    "pickle": lambda estimator, _: pickle.loads(pickle.dumps(estimator)),
    "joblib": through_a_file,
    "joblib, compressed": through_a_compressed_file,
    "joblib, read-only": through_read_only_memory,
    "copy": lambda estimator, _: copy.copy(estimator),
    "deepcopy": lambda estimator, _: copy.deepcopy(estimator),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "pickle") for name in NAMES] + [("nsf", kind) for kind in COPIES if kind != "pickle"],
)
def test_copies_are_equal(name, kind, tmp_path):
    estimator = small(name, batch_size=32).fit(X)
    other = COPIES[kind](estimator, tmp_path)
    assert_same(other, estimator)
    assert_same(other.partial_fit(X[:40]), estimator.partial_fit(X[:40]))


@each_kind
def test_changes_to_a_copy_do_not_affect_the_original(name):
    estimator = small(name).partial_fit(X)
    before = estimator.score_samples(X)
    for other in (copy.deepcopy(estimator), copy.copy(estimator)):
        other.partial_fit(X).set_params(max_iter=7)
        assert np.any(other.score_samples(X) != before)
        np.testing.assert_array_equal(estimator.score_samples(X), before)
        assert estimator.n_iter_ == 1


@each_kind
def test_pickling_between_increments_changes_nothing(name):
    estimator = small(name, batch_size=32).partial_fit(X).partial_fit(X)
    other = pickle.loads(pickle.dumps(estimator))
    assert_same(other.partial_fit(X).partial_fit(X), estimator.partial_fit(X).partial_fit(X))


class DevicesOfTensors(pickle.Pickler):
    """A pickler that records the device of each tensor."""

    def __init__(self):
        super().__init__(io.BytesIO())
        self.devices = set()

    def reducer_override(self, obj):
        if isinstance(obj, torch.Tensor):
            self.devices.add(obj.device.type)
        return NotImplemented


def devices_in_pickle(estimator):
    pickler = DevicesOfTensors()
    pickler.dump(estimator)
    return pickler.devices


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@each_estimator
def test_pickle_holds_no_tensors(name, method):
    estimator = getattr(small(name), method)(X)
    assert devices_in_pickle(estimator) == set()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each_kind
def test_model_on_a_gpu_is_pickled_for_the_cpu(name):
    estimator = small(name, device="cuda").partial_fit(X).partial_fit(X)
    assert next(estimator.flow_.parameters()).is_cuda
    other = pickle.loads(pickle.dumps(estimator))
    assert not next(other.flow_.parameters()).is_cuda
    for method in ("score_samples", "transform"):
        here, there = getattr(other, method)(X), getattr(estimator, method)(X)
        np.testing.assert_allclose(here, there, rtol=1e-6, atol=1e-6)
    assert np.isfinite(other.partial_fit(X).score(X))
    on_cpu = small(name, device="cpu").fit(X)
    assert small(name, device="cuda").fit(X).score(X) == pytest.approx(on_cpu.score(X), abs=0.1)


def test_large_fits_warn_in_a_forked_process(monkeypatch):
    """What forked processes do at all is in test_threads.py."""
    monkeypatch.setattr(torch_state, "is_forked", lambda: True)
    monkeypatch.setattr(torch_state, "MIN_SHARED_WORK", 0)
    with pytest.warns(UserWarning, match="was forked"):
        small("maf", max_iter=1).fit(X)


def test_held_out_log_densities_by_cross_val_predict():
    density = small("maf", contamination=None)  # no threshold to subtract
    cv = KFold(3)
    found = cross_val_predict(density, X, method="decision_function", cv=cv)
    for train, held_out in cv.split(X):
        expected = clone(density).fit(X[train]).score_samples(X[held_out])
        np.testing.assert_array_equal(found[held_out], expected)
