"""Callbacks of scikit-learn, and the output of ``verbose``."""

import sys
import warnings
from importlib.util import find_spec, module_from_spec
from itertools import count

import numpy as np
import pytest
from _densities import NAMES, AtEpochEnd, banana, each_kind, few_trees, small
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skflows import (
    AutoDensity,
    ConditionalDensity,
    DensityClassifier,
    DensityOutlierDetector,
    FlowRegressor,
    TransformedDensity,
)
from skflows.callbacks import _progress
from skflows.callbacks._run import fit_task

X = banana(90)


class Recorder:
    """A callback that records its calls, and stops the fit after some epochs."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.calls = []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X):
        self.calls.append(("begin", context.task_name, context.task_id, context.max_subtasks))
        self.n_rows = len(X)

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
        self.calls.append(("end", context.task_name, context.task_id))
        if context.task_name == "epoch":
            self.last = fitted_estimator
            self.last_score = fitted_estimator.score(X)
            return context.task_id + 1 == self.stop_after


@each_kind
def test_each_epoch_is_a_task(name):
    recorder = Recorder()
    estimator = small(name, early_stopping=False).set_callbacks(recorder).fit(X)
    epochs = [step for i in range(3) for step in (("begin", "epoch", i, 0), ("end", "epoch", i))]
    assert recorder.calls == [
        "setup", ("begin", "fit", 0, 3), *epochs, ("end", "fit", 0), "teardown"
    ]  # fmt: skip
    assert recorder.n_rows == len(X)
    np.testing.assert_array_equal(recorder.last.score_samples(X), estimator.score_samples(X))


@each_kind
def test_callbacks_do_not_change_the_fit(name):
    plain = small(name).fit(X)
    watched = small(name).set_callbacks(Recorder()).fit(X)
    np.testing.assert_array_equal(plain.score_samples(X), watched.score_samples(X))


@each_kind
def test_fit_stops_if_a_callback_returns_true(name):
    recorder = Recorder(stop_after=2)
    estimator = small(name, max_iter=50, early_stopping=False).set_callbacks(recorder).fit(X)
    assert estimator.n_iter_ == estimator.best_iter_ == 2
    assert recorder.calls[-2:] == [("end", "fit", 0), "teardown"]
    assert recorder.last_score == estimator.score(X)


@each_kind
def test_partial_fit_is_one_epoch(name):
    recorder = Recorder()
    estimator = small(name).set_callbacks(recorder)
    estimator.partial_fit(X).partial_fit(X)
    once = ["setup", ("begin", "partial_fit", 0, 1), ("begin", "epoch", 0, 0), ("end", "epoch", 0)]
    once += [("end", "partial_fit", 0), "teardown"]
    assert recorder.calls == once * 2


@each_kind
def test_callbacks_are_torn_down_after_an_error(name):
    recorder = Recorder()
    recorder.on_fit_task_end = None  # not callable: the first epoch ends in an error
    with pytest.raises(TypeError, match="callable"):
        small(name).set_callbacks(recorder).fit(X)
    assert recorder.calls[-1] == "teardown"


@each_kind
def test_scoring_monitor(name):
    """It scores only if y is given, which a density ignores."""
    monitor = ScoringMonitor(scoring=lambda est, X, y: {"score": est.score(X, y)})
    estimator = small(name, early_stopping=False).set_callbacks(monitor)
    estimator.fit(X, y=np.zeros(len(X)))
    scores = [row["score"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 3
    assert scores[-1] == pytest.approx(estimator.score(X), rel=1e-12)
    assert scores[0] < scores[-1]


@each_kind
def test_progress_bar(name, capsys):
    small(name).set_callbacks(ProgressBar()).fit(X)
    assert f"{type(small(name)).__name__} - fit" in capsys.readouterr().out


def test_progress_bar_of_a_pipeline(capsys):
    pipeline = make_pipeline(StandardScaler(), small("nsf"))
    pipeline.set_callbacks(ProgressBar()).fit(X)
    out = capsys.readouterr().out
    assert "Pipeline - fit" in out
    assert "NSFDensity - fit" in out


def test_progress_bar_of_a_search(capsys):
    search = GridSearchCV(small("nsf"), {"n_transforms": [1, 2]}, cv=2)
    search.set_callbacks(ProgressBar()).fit(X)
    out = capsys.readouterr().out
    assert "GridSearchCV - fit" in out
    assert "NSFDensity - fit" in out


class Propagated(Recorder):
    """A recorder that is passed on to the estimators inside."""

    max_propagation_depth = None

    def on_fit_task_begin(self, estimator, context, *, X):
        self.calls.append((type(estimator).__name__, context.task_name, context.max_subtasks))

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.parent is None:
            self.fitted = fitted_estimator


EPOCHS = [("NSFDensity", "fit", 3), *[("NSFDensity", "epoch", 0)] * 3]


def test_callbacks_follow_the_fit_inside_a_wrapper():
    recorder = Propagated()
    density = TransformedDensity(small("nsf"), random_state=0).set_callbacks(recorder).fit(X)
    assert recorder.calls == ["setup", ("TransformedDensity", "fit", 1), *EPOCHS, "teardown"]
    np.testing.assert_array_equal(recorder.fitted.score_samples(X), density.score_samples(X))
    assert not hasattr(density.estimator_, "_skl_callbacks")

    recorder = Propagated()
    detector = DensityOutlierDetector(small("nsf"), calibration="conformal", cv=2, random_state=0)
    detector.set_callbacks(recorder).fit(X)
    own = ("DensityOutlierDetector", "fit", 2)
    assert recorder.calls == ["setup", own, *EPOCHS, *EPOCHS, "teardown"]
    np.testing.assert_array_equal(recorder.fitted.p_values(X), detector.p_values(X))


@pytest.mark.parametrize("trees", [False, True])
def test_the_largest_number_of_epochs_of_a_conditional_density_is_known(trees, monkeypatch):
    few_trees(monkeypatch)
    recorder = Propagated()
    flow = small("nsf", early_stopping=False)
    density = ConditionalDensity(flow, cv=2, trees=trees, random_state=0)
    density.set_callbacks(recorder).fit(X, X[:, 0] ** 2)
    n = 3 * (1 + trees)  # a second stack of flows has the predictions of the trees
    assert recorder.calls[1] == ("ConditionalDensity", "fit", n)
    assert recorder.calls.count(("ConditionalDensity", "epoch", 0)) == n


def test_callbacks_of_a_wrapper_see_the_fits_of_an_estimator_without_callbacks():
    recorder = Propagated()
    detector = DensityOutlierDetector(GaussianMixture(), trim=0.1, random_state=0)
    detector.set_callbacks(recorder).fit(X)
    first, *fits = recorder.calls[1:-1]
    assert first == ("DensityOutlierDetector", "fit", None)  # trimming repeats the fit
    assert 2 <= len(fits) == fits.count(("DensityOutlierDetector", "fit-GaussianMixture", 0))


def test_progress_bar_of_a_detector(capsys):
    detector = DensityOutlierDetector(AutoDensity(time_limit=0.5, random_state=0), random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "time_limit=")
        detector.set_callbacks(ProgressBar()).fit(X)
    out = capsys.readouterr().out
    assert "DensityOutlierDetector - fit" in out
    assert "AutoDensity - fit" in out


@pytest.mark.parametrize(
    ("name", "verbose", "epochs"),
    [(name, 2, [2, 4]) for name in NAMES]
    + [("nsf", 0, []), ("nsf", 1, [1, 2, 3, 4]), ("nsf", 3, [3])],
)
def test_verbose(name, verbose, epochs, capsys):
    estimator = small(name, max_iter=4, verbose=verbose, early_stopping=False).fit(X)
    expected = [f"Epoch {i}/4: loss {estimator.loss_curve_[i - 1]:.4f}" for i in epochs]
    assert capsys.readouterr().out.splitlines() == expected


@each_kind
def test_verbose_prints_held_out_scores(name, capsys):
    estimator = small(name, max_iter=2, verbose=1, early_stopping=True).fit(X)
    lines = capsys.readouterr().out.splitlines()
    for line, score in zip(lines, estimator.validation_scores_, strict=True):
        assert line.endswith(f", held-out score {score:.4f}")


def test_a_long_fit_says_how_far_it_is_to_a_person_who_waits(monkeypatch, capsys):
    seconds = count(0, 6)
    monkeypatch.setattr(_progress, "monotonic", lambda: next(seconds))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    flow = small("nsf", max_iter=3, early_stopping=False)

    def lines(fit, *data):
        fit(*data)
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()

    epochs = "skflows: 2 of 3 epochs after 12 s"
    assert lines(flow.fit, X) == [epochs]
    # The fit inside is the only one of each of these.
    assert lines(TransformedDensity(flow).fit, X) == [epochs]
    density = ConditionalDensity(flow, cv=None)
    assert lines(FlowRegressor(density).fit, X, X[:, 0]) == [epochs]
    classifier = DensityClassifier(flow, calibration=None)
    classes = ["skflows: 2 of 3 classes after 12 s"]
    assert lines(classifier.fit, X, np.arange(len(X)) % 3) == classes
    assert lines(GridSearchCV(flow, {"max_iter": [3]}, cv=2).fit, X) == []
    for quiet in (0, False):
        flow.set_params(verbose=quiet)
        assert lines(flow.fit, X) == []
        assert lines(ConditionalDensity(flow, cv=None).fit, X, X[:, 0]) == []


def test_callback_may_fit_in_other_threads():
    """There is no deadlock: these fits do not wait for the training that waits for them."""

    def act(epoch, density):
        fits = [delayed(small("maf", random_state=i).fit)(X) for i in range(2)]
        scores.append(
            [flow.score(X) for flow in Parallel(2, backend="threading", timeout=60)(fits)]
        )

    scores = []
    small("maf", max_iter=1).set_callbacks(AtEpochEnd(act)).fit(X)
    alone = [small("maf", random_state=i).fit(X).score(X) for i in range(2)]
    np.testing.assert_allclose(scores, [alone])


def test_fits_run_without_callbacks_where_scikit_learn_has_none(monkeypatch):
    """As before scikit-learn 1.9."""
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    spec = find_spec("skflows.callbacks._support")
    support = module_from_spec(spec)
    spec.loader.exec_module(support)

    class Estimator(support.CallbackSupportMixin, BaseEstimator):
        pass

    estimator = Estimator().set_callbacks()
    with fit_task(estimator, X, max_subtasks=2) as task:
        task.begin("epoch")
        assert not task.end(dict)
        with task.inside(Estimator()):
            pass
    with pytest.raises(NotImplementedError, match=r"install scikit-learn>=1\.9"):
        estimator.set_callbacks(ProgressBar)
