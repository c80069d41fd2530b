"""Checkpoints: a fit that something ended continues to the same bits."""

import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _densities import AtEpochEnd, Crash, banana, small
from _mutants import mutated, mutated_files, rewrite
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV

from skflows import (
    AutoDensity,
    ConditionalDensity,
    DensityClassifier,
    DensityOutlierDetector,
    FlowRegressor,
    GaussianizationDensity,
    StackedDensity,
    TableDensity,
    TableImputer,
    TransformedDensity,
)
from skflows.callbacks import Checkpoint
from skflows.callbacks._fingerprint import fingerprint
from skflows.model_selection import FlowGridSearchCV
from skflows.outlier import OutlierEnsemble
from skflows.persistence.model_file import read, write

X = banana(120)
Y = X[:, 0] + X[:, 1] ** 2
LABELS = (X[:, 1] > 1).astype(int)
RATES = {"learning_rate_init": [1e-3, 1e-2]}


def nsf(**params):
    return small("nsf", **{"dropout": 0.1, "batch_size": 32} | params)


def search(cls):
    return cls(nsf(), RATES, cv=2, error_score="raise")


# Estimators without a seed among them: the folder keeps one.
CASES = {
    "nsf": (lambda: nsf(random_state=None, discrete={0: 0.1}), (X,)),
    "two phases": (lambda: small("cnf", objective="both", max_iter=4), (X,)),
    "layers": (lambda: GaussianizationDensity(max_iter=3, random_state=0), (X,)),
    "stack": (
        lambda: nsf(
            input_noise="auto", n_iter_no_change=1, tol=0.02, max_iter=9, learning_rate_init=0.01
        ),
        (X,),
    ),
    "transformed": (lambda: TransformedDensity(nsf(random_state=None)), (X,)),
    "mixture": (lambda: StackedDensity([("a", nsf()), ("b", small("maf"))], cv=2), (X,)),
    "conditional": (lambda: ConditionalDensity(nsf(random_state=None), cv=2), (X, Y)),
    "regressor": (lambda: FlowRegressor(ConditionalDensity(nsf(), cv=None)), (X, Y)),
    "classifier": (lambda: DensityClassifier(nsf()), (X, LABELS)),
    "detector": (lambda: DensityOutlierDetector(nsf(), calibration="conformal", cv=2), (X,)),
    "search": (lambda: search(GridSearchCV), (X,)),
    "stacked search": (lambda: search(FlowGridSearchCV), (X,)),
    "ensemble": (lambda: OutlierEnsemble([("a", nsf())]), (X,)),
    "table": (lambda: TableDensity(max_iter=3, cv=2), (X,)),
    "imputer": (lambda: TableImputer(TableDensity(max_iter=3, cv=2)), (X,)),
}


def result(estimator, data):
    """Return numbers that depend on all weights of a fitted estimator."""
    if isinstance(estimator, ConditionalDensity):
        return estimator.log_prob(*data)
    if isinstance(estimator, FlowRegressor):
        return estimator.predict(data[0])
    if isinstance(estimator, TableImputer):
        return estimator.transform([[np.nan, y] for _, y in X])
    return getattr(estimator, "best_estimator_", estimator).score_samples(data[0])


@pytest.fixture
def only_a_network(monkeypatch, keep_components):
    """Let tables have no component but a network, which trains in milliseconds."""
    keep_components(lambda component: component.name == "network on pairs")
    monkeypatch.setattr("skflows.table._components.HIDDEN", (8,))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:The inverse of the fitted flow")
def test_fit_continues_to_the_same_bits(name, tmp_path, crash_after, only_a_network):
    make, data = CASES[name]
    with pytest.raises(Crash):
        crash_after(1)
        make().set_callbacks(Checkpoint(tmp_path / "crashed", every=0)).fit(*data)
    (tmp_path / "whole").mkdir()
    seed = (tmp_path / "crashed" / "fit.json").read_bytes()
    (tmp_path / "whole" / "fit.json").write_bytes(seed)
    crash_after(-1)
    whole = make().set_callbacks(Checkpoint(tmp_path / "whole")).fit(*data)
    with pytest.raises(Crash):
        crash_after(2)
        make().set_callbacks(Checkpoint(tmp_path / "crashed", every=0)).fit(*data)
    crash_after(-1)
    continued = make().set_callbacks(Checkpoint(tmp_path / "crashed")).fit(*data)
    np.testing.assert_array_equal(result(continued, data), result(whole, data))
    crash_after(1)  # but nothing is left to train
    again = make().set_callbacks(Checkpoint(tmp_path / "crashed")).fit(*data)
    np.testing.assert_array_equal(result(again, data), result(whole, data))


def test_checkpoint_does_not_change_the_fit(tmp_path):
    plain = nsf().fit(X)
    kept = nsf().set_callbacks(Checkpoint(tmp_path, every=0)).fit(X)
    np.testing.assert_array_equal(kept.score_samples(X), plain.score_samples(X))
    assert kept.history_ == plain.history_


KILLED = """
    import glob, os, random, signal, sys, time
    import numpy as np, torch
    sys.path.insert(0, {tests!r})
    torch.set_num_threads(1)
    from _densities import banana, small
    from skflows.callbacks import Checkpoint

    X, folder = banana(200), {folder!r}

    def fit(folder, name):
        flow = small("nsf", max_iter=40, batch_size=32, dropout=0.1)
        flow.set_callbacks(Checkpoint(folder, every=0)).fit(X)
        np.save(name, flow.score_samples(X))

    def state():
        return [os.stat(path).st_mtime_ns for path in glob.glob(folder + "/killed/*.checkpoint")]

    for n_kills in range(3):
        before, child = state(), os.fork()
        if not child:
            fit(folder + "/killed", folder + "/killed.npy")
            os._exit(0)
        if n_kills < 2:
            while state() == before:
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(status)
    fit(folder + "/whole", folder + "/whole.npy")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed after a fork")
def test_fit_continues_after_kill_9_at_random_moments(tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    run = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["9", "9", "0"]  # two were killed
    whole, killed = np.load(tmp_path / "whole.npy"), np.load(tmp_path / "killed.npy")
    np.testing.assert_array_equal(killed, whole)
    assert len(list((tmp_path / "killed").iterdir())) == 2  # no temporary file is left


@pytest.mark.parametrize(
    ("params", "data", "message"),
    [
        ({"max_iter": 4}, {"X": X}, "max_iter 3, now 4"),
        ({"hidden_layer_sizes": (9,)}, {"X": X}, r"hidden_layer_sizes \(8,\), now \(9,\)"),
        ({}, {"X": X[1:]}, r"X of shape \(120, 2\), now of shape \(119, 2\)"),
        ({}, {"X": X + 1e-9}, r"X of shape \(120, 2\), now other values"),
        ({}, {"X": X, "sample_weight": np.ones(120)}, "sample_weight None, now of shape"),
        ({}, {"X": X, "X_val": X[:20]}, r"X_val None, now of shape \(20, 2\)"),
    ],
)
def test_another_fit_is_refused(params, data, message, tmp_path):
    nsf().set_callbacks(Checkpoint(tmp_path)).fit(X)
    other = nsf(**params).set_callbacks(Checkpoint(tmp_path))
    with pytest.raises(ValueError, match=rf"another fit \({message}.*delete this one"):
        other.fit(**data)


def test_another_estimator_is_refused(tmp_path):
    nsf().set_callbacks(Checkpoint(tmp_path)).fit(X)
    with pytest.raises(ValueError, match="estimator NSFDensity, now MAFDensity"):
        small("maf").set_callbacks(Checkpoint(tmp_path)).fit(X)


def test_another_nested_estimator_is_refused(tmp_path):
    def fit(density):
        TransformedDensity(density, random_state=0).set_callbacks(Checkpoint(tmp_path)).fit(X)

    fit(small("nice"))
    with pytest.raises(ValueError, match="NICEDensity, now RealNVPDensity"):
        fit(small("realnvp"))


def test_a_random_state_that_changed_is_refused(tmp_path):
    flow = nsf(random_state=np.random.RandomState(0)).set_callbacks(Checkpoint(tmp_path))
    flow.fit(X)
    with pytest.raises(ValueError, match=r"random_state RandomState\(MT19937\), now other values"):
        flow.fit(X)


def test_parameters_of_the_time_may_differ(tmp_path, crash_after):
    nsf().set_callbacks(Checkpoint(tmp_path)).fit(X)
    crash_after(1)
    nsf(verbose=1, time_limit=1000).set_callbacks(Checkpoint(tmp_path)).fit(X)


def test_time_of_earlier_runs_counts(tmp_path, crash_after):
    def flow():
        return nsf(max_iter=10_000, time_limit=100).set_callbacks(Checkpoint(tmp_path, every=0))

    with pytest.raises(Crash):
        crash_after(2)
        flow().fit(X)
    (path,) = tmp_path.glob("*.checkpoint")
    write(read(path, "checkpoint", dict) | {"seconds": 1000}, "checkpoint", path)
    assert flow().fit(X).n_iter_ == 3  # a fit trains one epoch at least


@pytest.mark.parametrize("damage", [lambda content: content[:-50], lambda content: b""])
def test_damaged_file_is_refused(damage, tmp_path, crash_after):
    with pytest.raises(Crash):
        crash_after(1)
        nsf().set_callbacks(Checkpoint(tmp_path, every=0)).fit(X)
    crash_after(-1)
    (path,) = tmp_path.glob("*.checkpoint")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{path.name} is not a checkpoint.*Delete it to repeat"):
        nsf().set_callbacks(Checkpoint(tmp_path)).fit(X)
    manifest = tmp_path / "fit.json"
    manifest.write_bytes(damage(manifest.read_bytes()))
    with pytest.raises(ValueError, match=r"fit.json is damaged .*delete"):
        nsf().set_callbacks(Checkpoint(tmp_path)).fit(X)


@pytest.mark.parametrize(
    "content",
    [
        "[]", "5", 100_000 * "[", '{"seed": "x"}', '{"seed": -1}', '{"seed": 4294967296}',
        '{"seed": true}', '{"fit": 5}', '{"fit": {"X": 5}}', '{"fit": {"X": ["a"]}}', '{"a": 1}',
        '{"fit": {"X": ["a", 1]}}', '{"seed": 1e999}',
    ],
)  # fmt: skip
def test_manifest_of_another_form_is_refused(content, tmp_path):
    (tmp_path / "fit.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"fit.json is damaged .*delete"):
        nsf(random_state=None).set_callbacks(Checkpoint(tmp_path)).fit(X)


def test_checkpoint_of_another_training_is_refused(tmp_path):
    """Even if it has the name of the right one."""
    paths = []
    for seed in (0, 1):
        nsf(random_state=seed).set_callbacks(Checkpoint(tmp_path / str(seed))).fit(X)
        paths += (tmp_path / str(seed)).glob("*.checkpoint")
    paths[0].write_bytes(paths[1].read_bytes())
    with pytest.raises(ValueError, match=rf"{paths[0].name}: it is of another training. Delete"):
        nsf(random_state=0).set_callbacks(Checkpoint(tmp_path / "0")).fit(X)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": 1}, {"phase": -1}, {"phase": 0.0}, {"is_over": 1}, {"seconds": "x"},
        {"seconds": np.inf}, {"seconds": -1}, {"state": []}, {"state": {}},
    ],
)  # fmt: skip
def test_checkpoint_of_another_form_is_refused(change, tmp_path):
    nsf().set_callbacks(Checkpoint(tmp_path)).fit(X)
    (path,) = tmp_path.glob("*.checkpoint")
    write(read(path, "checkpoint", dict) | change, "checkpoint", path)
    with pytest.raises(ValueError, match=rf"cannot continue from .*{path.name}.*Delete it to"):
        nsf().set_callbacks(Checkpoint(tmp_path)).fit(X)


@pytest.mark.parametrize("name", ["nsf", "layers"])
@pytest.mark.filterwarnings("ignore")
def test_mutated_checkpoints_continue_or_are_refused(name, tmp_path, crash_after):
    make, data = CASES[name]
    with pytest.raises(Crash):
        crash_after(2)
        make().set_callbacks(Checkpoint(tmp_path, every=0)).fit(*data)
    crash_after(-1)
    (path,) = tmp_path.glob("*.checkpoint")
    manifest = tmp_path / "fit.json"
    kept = {each: each.read_bytes() for each in (path, manifest)}
    rng = random.Random(0)
    n_refused = 0
    for i in range(30):
        for each, content in kept.items():
            each.write_bytes(content)
        if i % 4:
            rewrite(path, lambda files: mutated_files(files, rng))
        else:
            changed = mutated(json.loads(kept[manifest]), rng)
            manifest.write_text(json.dumps(changed), encoding="utf-8")
        try:
            make().set_callbacks(Checkpoint(tmp_path)).fit(*data)
        except ValueError as error:
            assert str(tmp_path) in str(error)
            n_refused += 1
    assert n_refused > 15


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot make the folder .* of the checkpoint"):
        nsf().set_callbacks(Checkpoint(tmp_path / "file" / "folder")).fit(X)


@pytest.mark.parametrize("every", [-1, np.nan, "10"])
def test_every_is_a_number_of_seconds(every):
    with pytest.raises(ValueError, match=r"every=.*; it must be a number of at least 0"):
        Checkpoint("folder", every=every)


def test_writes_are_rare_unless_asked_for(tmp_path, monkeypatch):
    epochs = []
    path = "skflows.callbacks._checkpoint.TrainingFile.load"
    monkeypatch.setattr(path, lambda self: None)  # both fits train
    for every in (0, 1000):
        folder = tmp_path / str(every)

        def see(epoch, fitted, folder=folder):
            found = [read(path, "checkpoint", dict) for path in folder.glob("*.checkpoint")]
            epochs.append([each["state"]["epoch"] for each in found])

        nsf().set_callbacks(Checkpoint(folder, every=every), AtEpochEnd(see)).fit(X)
    assert epochs == [[], [1], [2], [], [], []]
    assert len(list((tmp_path / "1000").glob("*.checkpoint"))) == 1  # at the end


def test_partial_fit_stores_nothing(tmp_path):
    flow = nsf().set_callbacks(Checkpoint(tmp_path / "folder", every=0))
    flow.partial_fit(X).partial_fit(X[:50])
    assert flow.n_iter_ == 2
    assert not (tmp_path / "folder").exists()


def test_warm_start_continues_from_the_last_weights(tmp_path):
    flow = nsf(warm_start=True).set_callbacks(Checkpoint(tmp_path, every=0))
    twice = nsf(warm_start=True).fit(X).fit(X)
    np.testing.assert_array_equal(flow.fit(X).fit(X).score_samples(X), twice.score_samples(X))
    assert len(list(tmp_path.glob("*.checkpoint"))) == 2


def test_ctrl_c_ends_a_fit_that_continues_later(tmp_path):
    def interrupt(epoch, fitted):
        if epoch == 2:
            raise KeyboardInterrupt

    flow = nsf(max_iter=5).set_callbacks(Checkpoint(tmp_path, every=0), AtEpochEnd(interrupt))
    with pytest.warns(UserWarning, match="Training was interrupted after 2 epochs"):
        flow.fit(X)
    flow.set_callbacks(Checkpoint(tmp_path, every=0)).fit(X)
    assert flow.n_iter_ == 5
    np.testing.assert_array_equal(flow.score_samples(X), nsf(max_iter=5).fit(X).score_samples(X))


def stack_in_threads():
    members = [(str(k), small("maf", hidden_layer_sizes=(k,))) for k in range(4, 10)]
    return StackedDensity(members, cv=2, n_jobs=2, random_state=0)


def search_in_threads():
    grid = {"hidden_layer_sizes": [(k,) for k in range(4, 10)]}
    return FlowGridSearchCV(small("maf"), grid, cv=2, n_jobs=2)


def table_in_threads():
    return TableDensity(cv=3, max_iter=2, n_jobs=2, random_state=0)


@pytest.mark.parametrize(
    ("make", "n_files"), [(stack_in_threads, 6), (search_in_threads, 7), (table_in_threads, 6)]
)
def test_trainings_in_threads_have_files(make, n_files, tmp_path, crash_after, keep_components):
    """More of them than joblib asks for at once, of shapes that do not train together."""
    keep_components(lambda component: component.is_trained)

    def fit():
        with parallel_config("threading"):
            return make().set_callbacks(Checkpoint(tmp_path, every=0)).fit(X).score_samples(X)

    first = fit()
    assert len(list(tmp_path.glob("*.checkpoint"))) == n_files
    crash_after(1)  # but nothing is left to train
    np.testing.assert_array_equal(fit(), first)


def test_seeds_of_a_search_do_not_depend_on_the_order_of_its_fits(tmp_path, crash_after):
    """Threads stand for processes: neither knows the folder of the fit from its context."""

    def fit(n_jobs):
        found = GridSearchCV(nsf(random_state=None), RATES, cv=2, error_score="raise")
        found.set_params(n_jobs=n_jobs).set_callbacks(Checkpoint(tmp_path, every=0))
        with parallel_config("threading"):
            return found.fit(X).best_estimator_.score_samples(X)

    first = fit(2)
    assert len(list(tmp_path.glob("*.checkpoint"))) == 5
    crash_after(1)  # but nothing is left to train
    np.testing.assert_array_equal(fit(1), first)


def test_files_of_others_stay(tmp_path):
    stray = tmp_path / ".other.csv.0123.tmp"
    left_over = tmp_path / ".fit.json.0123.tmp"
    for file in (stray, left_over):
        file.touch()
    nsf().set_callbacks(Checkpoint(tmp_path)).fit(X)
    assert stray.exists() and not left_over.exists()


def test_fingerprints_tell_values_apart():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None]})
    distinct = [
        X, X[:60], X.astype(np.float32), X.T, [1, 2], [12], {"a": 1}, {"a": 2}, None, "a", b"a",
        1, 1.5, frame, frame.rename(columns={"a": "c"}), nsf(), nsf(max_iter=9), small("maf"),
        np.random.RandomState(0), np.random.RandomState(1), len, sum, np.array("a"),
        AutoDensity(cv=2), KeyError,
    ]  # fmt: skip
    assert len({fingerprint(value) for value in distinct}) == len(distinct)
    same = [
        (X, X.copy(order="F")),
        (frame, frame.copy()),
        (nsf(), nsf(verbose=1)),
        (3, np.int64(3)),
        ({0, 8}, {8, 0}),  # in another order
    ]
    assert all(fingerprint(a) == fingerprint(b) for a, b in same)
