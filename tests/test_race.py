"""The engine of mixtures, on a toy portfolio without flows."""

import threading
from functools import partial

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from sklearn.base import BaseEstimator, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_data_parallel import in_processes

from skflows.callbacks import Checkpoint, _progress
from skflows.callbacks._run import training_file
from skflows.ensemble._folds import Folds, make_folds
from skflows.ensemble._mixture import (
    can_gain,
    mixture_attributes,
    run_mixture,
    scores_of,
    weights_of,
)
from skflows.ensemble._race import Component, Fold, Task
from skflows.training.data_parallel import SingleProcess, current_group, in_group

X = np.random.default_rng(0).normal(size=(30, 1))
FOLDS = Folds(make_folds(2, 30, 0), np.ones(30), np.ones(30, dtype=bool))


class Normal:
    """A member: a normal of some mean."""

    def __init__(self, mean):
        self.mean = mean

    def score_samples(self, X):
        return -0.5 * (X[:, 0] - self.mean) ** 2 - 0.919


class Toy(CallbackSupportMixin, BaseEstimator):
    """A mixture of normals, each of which is fitted as its recipe says: ``recipe(i, seconds)``."""

    _parameter_constraints: dict = {}

    def __init__(
        self, components=(), n_jobs=None, time_limit=None, verbose=0, stacked=(), can_gain=None
    ):
        self.components = components
        self.n_jobs = n_jobs
        self.time_limit = time_limit
        self.verbose = verbose
        self.stacked = stacked
        self.can_gain = can_gain

    def _tasks(self, n_workers):
        pairs = [(c, i) for c in self.components for i in range(2) if c.name not in self.stacked]
        tasks = [Task([(c.name, i)], partial(fit, [(c, i)]), c.is_trained) for c, i in pairs]
        pairs = [(c, i) for c in self.components for i in range(2) if c.name in self.stacked]
        if pairs:
            tasks.append(Task([(c.name, i) for c, i in pairs], partial(fit, pairs), True))
        return tasks

    def _refits(self, done):
        def fit_to_all(component, seconds):
            component.recipe("all", seconds)
            return [Fold(Normal(X.mean()))]

        weights = weights_of(scores_of(done), FOLDS.held_out_weight, 1e-4)
        again = [c for (c, _), weight in zip(done, weights, strict=True) if c.refit and weight]
        return [Task([(c.name, 0)], partial(fit_to_all, c)) for c in again]

    def _attributes(self, done):
        def score(members):
            total = [np.log(weight) + member.score_samples(X) for member, weight in members]
            return np.logaddexp.reduce(total)

        found, members = mixture_attributes(done, FOLDS, 1e-4, "auto", score)
        return found | {"members_": members}

    @_fit_context(prefer_skip_nested_validation=True)  # ends the callbacks, also after an error
    def fit(self, X, y=None):
        run_mixture(
            self,
            list(self.components),
            2,
            self._tasks,
            self._refits,
            self._attributes,
            can_gain=self.can_gain,
            started=current_group().clock(),
            X=X,
        )
        return self


def fit(pairs, seconds):
    """Fit components in folds: a normal around the mean of the training rows, moved by a recipe."""
    found = []
    for component, i in pairs:
        train, held_out = FOLDS.splits[i]
        shift = component.recipe(i, seconds)
        member = Normal(X[train].mean() + (shift or 0.0))
        found.append(Fold(member, member.score_samples(X[held_out]), shift is None))
    return found


def nothing(i, seconds):
    return 0.0


class ManualClock(SingleProcess):
    """A group of one process, whose clock goes on when a component says so."""

    def __init__(self):
        self.now = 0.0
        self.given = {}

    def clock(self):
        return self.now

    def takes(self, name, seconds, *args, **kwargs):
        """Return a component that takes some seconds in each fold; note the time it is given."""

        def recipe(i, limit):
            self.given.setdefault(name, []).append(limit)
            self.now += seconds
            return 0.0

        return Component(name, recipe, *args, **kwargs)


def test_components_come_in_order_whatever_the_order_of_their_fits():
    """The last one starts at once, because it takes longest; the first one waits for it here."""
    last_is_fitted = threading.Event()

    def wait(i, seconds):
        assert last_is_fitted.wait(30)
        return 0.0

    def last(i, seconds):
        if i == 1:
            last_is_fitted.set()
        return 3.0

    components = [Component("a", wait), Component("b", nothing, refit=True), Component("c", last)]
    with parallel_config("threading"):
        density = Toy(components, n_jobs=2).fit(X)
    assert density.component_names_ == ["a", "b", "c"]
    assert density.leaderboard_["component"][-1] == "c"
    of_one = Toy([Component("b", nothing)]).fit(X)
    scores = dict(zip(*map(density.leaderboard_.get, ("component", "score")), strict=True))
    assert scores["b"] == pytest.approx(of_one.stacked_score_)
    assert {member.mean for member, _ in density.members_} >= {X.mean()}  # the refitted one
    assert np.isfinite(density.held_out_scores_).all()


def test_only_components_with_a_weight_are_fitted_to_all_rows():
    fits = []

    def recipe(name, shift, i, seconds):
        fits.append((name, i))
        return shift

    components = [
        Component(name, partial(recipe, name, shift), refit=True)
        for name, shift in {"good": 0.0, "bad": 5.0}.items()
    ]
    density = Toy(components).fit(X)
    assert fits == [("good", 0), ("good", 1), ("bad", 0), ("bad", 1), ("good", "all")]
    assert [(member.mean, weight) for member, weight in density.members_] == [(X.mean(), 1.0)]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_only_trainings_that_gain_in_the_first_fold_go_on(n_jobs, capsys):
    fits, first = [], np.ones(len(FOLDS.splits[0][1]))

    def recipe(name, shift, i, seconds):
        fits.append((name, i))
        return shift

    components = [
        Component("quick", partial(recipe, "quick", 1.0)),
        *(
            Component(name, partial(recipe, name, shift), is_trained=True)
            for name, shift in {"far": 9.0, "better": 0.0, "same": 1.0}.items()
        ),
    ]
    toy = Toy(components, n_jobs=n_jobs, verbose=1, can_gain=partial(can_gain, first))
    with parallel_config("threading"):
        density = toy.fit(X)
    begun = {("quick", 1), *((name, 0) for name in ("quick", "far", "better", "same"))}
    assert set(fits) == begun | {("better", 1)} and len(fits) == 6
    assert sorted(density.component_names_) == ["better", "quick"]
    assert "far: no gain in the first fold\n" in capsys.readouterr().out
    assert Toy(components[:2], can_gain=partial(can_gain, first)).fit(X).weights_.tolist() == [1.0]


def test_a_time_limit_is_no_reason_to_give_up_a_training_that_gains():
    clock = ManualClock()
    components = [clock.takes("a", 1), clock.takes("b", 30, is_trained=True)]
    with in_group(clock):
        density = Toy(components, time_limit=50, can_gain=lambda others, scores: True).fit(X)
    assert density.component_names_ == ["a", "b"] and len(clock.given["b"]) == 2


def test_the_members_of_the_folds_stay_if_ctrl_c_or_the_time_limit_ends_the_fits_to_all_rows():
    def interrupt(i, seconds):
        if i == "all":
            raise KeyboardInterrupt
        return 0.0

    with pytest.warns(UserWarning, match="interrupted after 1 of 1 components"):
        density = Toy([Component("a", interrupt, refit=True)]).fit(X)
    assert density._interrupted and len(density.members_) == 2
    clock = ManualClock()
    components = [clock.takes("a", 30, refit=True), clock.takes("b", 30, True, True)]
    with in_group(clock):
        density = Toy(components, time_limit=100).fit(X)
    members = [member.mean for member, _ in density.members_]
    assert members.count(X.mean()) == 1 and len(members) == 3


def test_quick_components_have_two_fifths_of_the_time_and_the_others_share_the_rest():
    clock = ManualClock()
    quick = [clock.takes(name, 10) for name in ("first", "second", "late")]
    trained = [clock.takes(name, 1, is_trained=True) for name in ("flow", "other")]
    with in_group(clock), pytest.warns(UserWarning, match="left no time for 1 of 5 components"):
        density = Toy(quick + trained, time_limit=100).fit(X)
    assert density.component_names_ == ["first", "second", "flow", "other"]
    # 0.4 * 92 seconds are for the quick ones; a first fold leaves as much to the second one.
    assert clock.given["first"] == pytest.approx([36.8 / 2, 26.8])
    assert clock.given["second"] == pytest.approx([16.8 / 2, 6.8])
    assert "late" not in clock.given  # it would start after 40 seconds
    assert clock.given["flow"] == pytest.approx([52 / 4, 51 / 3])
    assert clock.given["other"] == pytest.approx([50 / 2, 49])


def test_the_first_component_and_a_training_that_has_begun_are_completed():
    clock = ManualClock()
    components = [clock.takes("first", 90)]
    components += [clock.takes(name, 90, is_trained=True) for name in ("flow", "late")]
    with in_group(clock), pytest.warns(UserWarning, match="left no time for 2 of 3 components"):
        density = Toy(components, time_limit=100).fit(X)
    assert density.component_names_ == ["first"] and len(clock.given["first"]) == 2
    components[0] = clock.takes("first", 1)
    with in_group(clock), pytest.warns(UserWarning, match="left no time for 1 of 3 components"):
        density = Toy(components, time_limit=100).fit(X)
    assert density.component_names_ == ["first", "flow"]
    assert clock.given["flow"] == pytest.approx([90 / 4, 0.2])


def test_ctrl_c_keeps_the_components_that_are_whole():
    def interrupt(i, seconds):
        raise KeyboardInterrupt

    components = [Component("a", nothing), Component("b", nothing), Component("c", interrupt)]
    density = Toy(components)
    with pytest.warns(UserWarning, match="interrupted after 2 of 3 components"):
        density.fit(X)
    assert density._interrupted and density.component_names_ == ["a", "b"]
    with pytest.raises(KeyboardInterrupt):
        Toy(components[::-1]).fit(X)


def test_a_training_that_ctrl_c_ended_is_kept_if_it_is_the_last_fold():
    interrupted = Component("flow", lambda i, seconds: None if i else 0.0, is_trained=True)
    components = [Component("a", nothing), interrupted, Component("b", nothing)]
    with pytest.warns(UserWarning, match="interrupted after 2 of 3 components"):
        density = Toy(components).fit(X)
    assert density.component_names_ == ["a", "flow"]
    interrupted = interrupted._replace(recipe=lambda i, seconds: 0.0 if i else None)
    with pytest.warns(UserWarning, match="interrupted after 1 of 3 components"):
        density = Toy([components[0], interrupted, components[2]]).fit(X)
    assert density.component_names_ == ["a"]


def test_all_components_that_train_together_are_kept():
    stack = [Component(name, lambda i, seconds: None, is_trained=True) for name in ("c", "d")]
    components = [Component("a", nothing), *stack]
    with pytest.warns(UserWarning, match="interrupted after 3 of 3 components"):
        density = Toy(components, stacked=("c", "d")).fit(X)
    assert density.component_names_ == ["a", "c", "d"]


def test_a_component_that_fails_is_named():
    def fail(i, seconds):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        Toy([Component("a", nothing), Component("b", fail)]).fit(X)
    assert caught.value.__notes__ == ["(while fitting the component 'b')"]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_fit_continues_from_its_checkpoint(tmp_path, n_jobs):
    """Every fold finds its file, in any process, and the time that it took counts."""
    worked, given, crashes = [], [], [InterruptedError]
    both = threading.Event()

    def trained(i, seconds):
        file = training_file(None, "trained", i)
        if file.load() is None:
            worked.append(i)
            file.started -= 30  # as if it had taken half a minute
            file.save(0, lambda: {}, True)
        if len(worked) == 2:
            both.set()
        return 0.0

    def last(i, seconds):
        assert both.wait(30)
        if crashes:
            raise crashes.pop()
        given.append(seconds)
        return 0.0

    components = [
        Component("first", nothing),
        *(Component(recipe.__name__, recipe, is_trained=True) for recipe in (trained, last)),
    ]
    density = Toy(components, n_jobs, 100).set_callbacks(Checkpoint(tmp_path, every=0))
    with parallel_config("threading"):
        with pytest.raises(InterruptedError):
            density.fit(X)
        density.fit(X)
    assert sorted(worked) == [0, 1]  # once each
    assert density.component_names_ == ["first", "trained", "last"]
    if n_jobs == 1:  # the last training has what is left after a minute
        assert given[-1] == pytest.approx(92 - 60, abs=5)


def test_processes_of_a_group_agree_about_the_time():
    """The first one's clock decides for all; another one's, which is far ahead, does not."""

    def trained(i, seconds):
        given[current_group().rank].append(seconds)
        return 0.0

    given = {0: [], 1: []}

    def fit(rank):
        group = current_group()
        group.clock = lambda: group.broadcast(1e6 * rank)
        components = [Component("first", nothing), Component("flow", trained, is_trained=True)]
        return Toy(components, n_jobs=2, time_limit=100).fit(X)

    one, other = in_processes(fit, 2)
    assert one.component_names_ == other.component_names_ == ["first", "flow"]
    assert given[0] == given[1] == pytest.approx([46, 92])
    np.testing.assert_array_equal(one.weights_, other.weights_)


def test_a_group_keeps_what_all_of_its_processes_know():
    """A process that Ctrl-C ends elsewhere cannot tell how far the others are."""

    def interrupt(i, seconds):
        raise KeyboardInterrupt

    trained = Component("flow", lambda i, seconds: None, is_trained=True)
    group = ManualClock()
    group.size = 2
    with in_group(group):
        with pytest.warns(UserWarning, match="interrupted after 1 of 2 components"):
            density = Toy([Component("a", nothing), trained]).fit(X)
        assert density.component_names_ == ["a"]
        with pytest.raises(KeyboardInterrupt):
            Toy([Component("a", nothing), Component("b", interrupt)]).fit(X)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_long_fit_says_how_far_it_is_to_a_person_who_waits(monkeypatch, capsys, is_terminal):
    seconds = [0]

    def recipe(i, limit):
        seconds[0] += 4
        return 0.0

    monkeypatch.setattr(_progress, "monotonic", lambda: seconds[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    components = [Component(name, recipe) for name in "abcd"]
    toy = Toy(components, verbose="auto")
    toy.fit(X)
    lines = ["skflows: 2 of 4 components after 16 s", "skflows: 4 of 4 components after 32 s"]
    assert capsys.readouterr().err.splitlines() == lines * is_terminal
    pipeline = make_pipeline(StandardScaler(), toy).fit(X)
    assert capsys.readouterr().err.splitlines() == lines * is_terminal
    GridSearchCV(pipeline, {"toy__time_limit": [None]}, scoring=lambda *args: 0, cv=2).fit(X)
    with parallel_config("threading"):
        Parallel(2)(delayed(toy.fit)(X) for _ in range(2))
    toy.set_params(verbose=False).fit(X)
    assert capsys.readouterr() == ("", "")
