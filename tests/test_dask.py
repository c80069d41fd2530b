"""Densities of Dask collections, on a cluster of two worker processes."""

import os
import pickle
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from _densities import Crash, banana
from sklearn.base import clone
from torch import distributed as c10d

from skflows import (
    DensityOutlierDetector,
    GaussianizationDensity,
    MAFDensity,
    NSFDensity,
    StackedDensity,
    TableDensity,
)
from skflows.callbacks import Checkpoint
from skflows.model_selection import FlowGridSearchCV
from skflows.training import trainer
from skflows.training.data_parallel import in_group

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")
import pandas as pd  # noqa: E402

from skflows.dask import DaskDensity, _fit, _partitions, _training  # noqa: E402

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
]
X = np.column_stack([banana(900), np.random.default_rng(1).poisson(2, 900)])
WEIGHT = np.random.default_rng(2).uniform(0, 2, len(X))
SEED = np.random.RandomState(0).randint(2**31 - 1)  # of rows to hold out, for random_state=0
SMALL = {"n_transforms": 2, "hidden_layer_sizes": 8, "dropout": 0, "random_state": 0}


def restore_workers(client):
    """Wait for two workers. The cluster forgets one that takes too long to start again."""
    client.cluster.scale(2)
    client.wait_for_workers(2, timeout=120)


@pytest.fixture(scope="session")
def client():
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def single(density, X, weight=None, chunks=250):
    """Fit a density in one process, to the rows that the workers train on and hold out."""
    held = []
    for i, start in enumerate(range(0, len(X), chunks)):
        rows = X[start : start + chunks]
        held.append(_partitions.is_held_out(_partitions.Partition(i, rows, None), 0.1, SEED))
    held = np.concatenate(held)
    weights = {}
    if weight is not None:
        weights = {"sample_weight": weight[~held], "sample_weight_val": weight[held]}
    return clone(density).fit(X[~held], X_val=X[held], **weights)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_a_single_batch_gives_what_one_process_gives(client, weight):
    density = MAFDensity(batch_size=1000, max_iter=8, discrete=None, **SMALL)
    one = single(density, X, weight)
    weights = None if weight is None else da.from_array(weight, chunks=250)
    table = da.from_array(X, chunks=(250, 2))  # the columns are in two blocks
    found = DaskDensity(density).fit(table, sample_weight=weights)
    assert abs(found.score(table) - one.score(X)) < 1e-4
    local = found.to_local()
    np.testing.assert_allclose(local.loss_curve_, one.loss_curve_, atol=1e-4)
    np.testing.assert_allclose(local.validation_scores_, one.validation_scores_, atol=1e-4)


@pytest.fixture(scope="module")
def frame():
    return pd.DataFrame(X, columns=["a", "b", "n"]).astype({"n": int})


@pytest.fixture(scope="module")
def fitted(client, frame):
    """A density of a DataFrame in uneven partitions, one of them empty, of unknown sizes."""
    table = dd.from_pandas(frame, npartitions=5).query("a > -1 or index > 300")
    density = DaskDensity(NSFDensity(max_iter=5, **SMALL), client).fit(table)
    return density, table


def test_two_fits_are_equal(fitted):
    density, table = fitted
    again = clone(density).fit(table).to_local()
    rows = table.compute()
    np.testing.assert_array_equal(again.score_samples(rows), density.to_local().score_samples(rows))


@pytest.mark.parametrize("method", ["score_samples", "decision_function", "predict", "transform"])
def test_results_are_lazy_and_those_of_the_local_density(fitted, method):
    density, table = fitted
    local = getattr(density.to_local(), method)
    rows = table.compute()
    found = getattr(density, method)(table)
    computed = found.compute()
    np.testing.assert_allclose(computed, local(rows), atol=1e-9)
    assert found.npartitions == table.npartitions
    assert [*computed.index] == [*rows.index]
    assert type(found._meta) is type(computed)
    np.testing.assert_array_equal(found._meta.dtypes, computed.dtypes)
    array = table.to_dask_array()  # of unknown chunk sizes
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        lazy = getattr(density, method)(array)
    np.testing.assert_array_equal(lazy.compute(), computed)


def test_other_columns_are_refused_before_the_graph_runs(fitted):
    density, table = fitted
    assert density.n_features_in_ == 3
    assert [*density.feature_names_in_] == ["a", "b", "n"]
    with pytest.raises(ValueError, match="feature names should match"):
        density.score_samples(table[["b", "a", "n"]])
    with (
        pytest.warns(UserWarning, match="does not have valid feature names"),
        pytest.raises(ValueError, match="X has 2 features, but DaskDensity is expecting 3"),
    ):
        density.predict(da.zeros((4, 2)))
    with pytest.raises(TypeError, match="not DataFrame; use the estimator itself"):
        density.transform(table.compute())


@pytest.mark.parametrize("n_samples", [0, -5, 2.5])
def test_number_of_samples_is_checked(fitted, n_samples):
    with pytest.raises(ValueError, match=rf"n_samples={n_samples}; it must be an integer"):
        fitted[0].sample(n_samples)


def test_samples_are_lazy(fitted, frame, small_blocks):
    small_blocks()
    density, _ = fitted
    drawn = density.sample(100, random_state=0)
    assert drawn.npartitions == 3
    rows = drawn.compute()
    assert rows.shape == (100, 3)
    pd.testing.assert_series_equal(rows.dtypes, frame.dtypes)
    pd.testing.assert_series_equal(rows.dtypes, drawn.dtypes)
    assert len(rows.drop_duplicates()) == 100


def test_a_density_of_arrays_draws_arrays(client):
    table = da.from_array(X, chunks=(300, 3))
    density = DaskDensity(NSFDensity(max_iter=1, **SMALL)).fit(table)
    assert density.sample(7, 0).shape == density.sample(7, 0).compute().shape == (7, 3)
    assert pickle.loads(pickle.dumps(density)).to_local().score(X) == density.to_local().score(X)


def fail_in_the_third(block, block_info=None):
    if block_info[0]["chunk-location"][0] == 2:
        raise ZeroDivisionError("no such file")
    return block


WITH_NAN = X.copy()
WITH_NAN[:, 1] = np.nan
TABLE = da.from_array(X, chunks=(300, 3))
BOUNDED = NSFDensity(bounds={1: (-1e3, 1.0)})


@pytest.mark.parametrize(
    ("density", "table", "weight", "message"),
    [
        (NSFDensity(), TABLE.map_blocks(fail_in_the_third, dtype=float), None,
         "Partition 2 of X: ZeroDivisionError: no such file"),
        (NSFDensity(), da.from_array(WITH_NAN, chunks=(300, 3)), None,
         "Partition 0 of X: Input X contains NaN"),
        (NSFDensity(), TABLE, da.from_array(-WEIGHT, chunks=300), "Partition 0 .* negative"),
        (NSFDensity(), TABLE, da.from_array(WEIGHT, chunks=200), "5 partitions, but X has 3"),
        (BOUNDED, TABLE, None, r"Partition 0 of X: X\[.* not within bounds"),
        (NSFDensity(), TABLE[TABLE[:, 0] > 1e9], None, "0 rows .* at least 2"),
        (NSFDensity(), X, None, "Dask arrays and DataFrames, not ndarray; use the estimator"),
        (GaussianizationDensity(), TABLE, None, r"got Gaussianiz.* Fit it to a random sample"),
        (TableDensity(cv=2), TABLE.map_blocks(fail_in_the_third, dtype=float), None,
         r"cv=2: rows of a cluster are held out once"),
        (TableDensity(), TABLE[:1], None, r"1 rows .* at least 2"),
        (TableDensity(random_state=0), TABLE[:2], None, "0 of 2 rows are held out by chance: fit"),
        (NSFDensity(max_iter=0), TABLE, None, "max_iter"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(client, density, table, weight, message):
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        DaskDensity(density).fit(table, sample_weight=weight)


@pytest.fixture(scope="module")
def threads():
    """A cluster of two workers that are threads of this process: patches reach them."""
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        silence_logs=50,
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.mark.parametrize("weight", [None, WEIGHT[:200]])
def test_a_table_with_texts_and_gaps_gives_what_one_process_gives(threads, mixed_table, weight):
    density = TableDensity(max_iter=8, random_state=0)
    table = dd.from_pandas(mixed_table, npartitions=4)
    weights = None if weight is None else da.from_array(weight, chunks=50)
    found = DaskDensity(density, threads).fit(table, sample_weight=weights)
    local = found.to_local()
    held_out = [
        _partitions.is_held_out(_partitions.Partition(i, [0] * n, None), 0.15, SEED)
        for i, n in enumerate([50, 49, 50, 50])
    ]
    held_out = np.concatenate(held_out)
    is_known = np.flatnonzero(mixed_table.notna().any(axis=1))
    order = np.concatenate([is_known[~held_out], is_known[held_out]])
    rows = table.compute().iloc[order]
    weight = None if weight is None else weight[order]
    one = clone(density)._fit_held_out(rows, weight, np.sort(held_out))
    np.testing.assert_allclose(local.score_samples(rows), one.score_samples(rows), atol=1e-4)
    np.testing.assert_allclose(local.weights_, one.weights_, atol=1e-4)
    scores = found.score_samples(table).compute()
    np.testing.assert_allclose(scores, local.score_samples(mixed_table), atol=1e-9)
    drawn = found.sample(30, 0)
    pd.testing.assert_series_equal(drawn.compute().dtypes, drawn.dtypes)
    assert not hasattr(found, "transform")


def test_a_sample_prepares_a_larger_table(threads, mixed_table, monkeypatch):
    monkeypatch.setattr(_partitions, "MAX_ROWS", 100)
    monkeypatch.setattr(_partitions, "MAX_DISTINCT", 5)
    # Row 9 is in the random share of the rows; row 7 only shows its values.
    mixed_table.loc[[7, 9], "kind"] = ["emu", "fox"]
    mixed_table.loc[7, "n"] = 77
    density = TableDensity(max_iter=8, handle_unknown="rare", random_state=0)
    found = DaskDensity(density, threads).fit(dd.from_pandas(mixed_table, npartitions=20))
    here = density.fit(mixed_table)
    local = found.to_local()
    assert abs(local.score(mixed_table) - here.score(mixed_table)) < 1
    assert local.levels("kind") == ["cat", "dog", "(rare)"]
    assert 77 in local.levels("n")
    row = mixed_table.iloc[[7]]
    rare, unseen = (local.score(row.assign(kind=kind)) for kind in ("emu", "yak"))
    assert rare >= unseen


def test_a_checkpoint_outlives_the_cluster(threads, tmp_path, crash_after):
    density = NSFDensity(max_iter=5, batch_size=128, early_stopping=False, **SMALL)
    whole = DaskDensity(density, threads).fit(TABLE).to_local()
    density.set_callbacks(Checkpoint(tmp_path, every=0))
    crash_after(3)
    with pytest.raises(Crash):
        DaskDensity(density, threads).fit(TABLE)
    crash_after(3)  # two epochs are left
    found = DaskDensity(density, threads).fit(TABLE).to_local()
    np.testing.assert_array_equal(found.score_samples(X), whole.score_samples(X))
    assert found.loss_curve_ == whole.loss_curve_


class Killer:
    """Kills a worker in each training, after some epochs, and keeps the states that continue."""

    def __init__(self, client, monkeypatch, n_kills):
        self.client, self.n_kills = client, n_kills
        self.restored, self.threads = [], []
        start = _fit.Fit._start

        def start_and_kill(fit, key, futures, states):
            start(fit, key, futures, states)
            self.restored.append(states)
            if len(self.threads) < self.n_kills:
                n_epochs = _training.count(states) + 3
                self.threads.append(threading.Thread(target=self.kill, args=(key, n_epochs)))
                self.threads[-1].start()

        monkeypatch.setattr(_fit.Fit, "_start", start_and_kill)

    def kill(self, key, n_epochs):
        def progress():
            return max(self.client.run(_training.n_epochs, key, on_error="ignore").values())

        pids = self.client.run(os.getpid)
        while progress() < n_epochs:
            time.sleep(0.01)
        os.kill(max(pids.values()), signal.SIGKILL)


def test_killed_workers_are_survived(client, monkeypatch):
    killer = Killer(client, monkeypatch, 1)
    density = NSFDensity(max_iter=40, early_stopping=False, **SMALL)
    with pytest.warns(UserWarning, match=r"died .* continues on the others, after") as caught:
        local = DaskDensity(density).fit(TABLE).to_local()
    for thread in killer.threads:
        thread.join()
    assert local.n_iter_ == 40
    _, *restored = killer.restored  # the first training has none
    for states in restored[-1:]:
        state = states[1]["state"]
        n_epochs = state["epoch"]
        assert n_epochs >= 3
        assert any(f"after {n_epochs} epochs in all." in str(each.message) for each in caught)
        before = state["progress"][0]["history"]["loss"]
        assert local.loss_curve_[:n_epochs] == before
        assert local.loss_curve_[n_epochs] < before[-1] + 0.1  # the weights are those, too
    restore_workers(client)


@pytest.fixture
def die_before_training(threads, monkeypatch):
    """Return a function that lets a worker die before each of the next ``n`` trainings."""
    run, failed = threads.run, []

    def die(n):
        def run_or_fail(function, *args, **kwargs):
            if function is _training.open_store and len(failed) < n:
                failed.append(True)
                raise OSError("Timed out trying to connect to the worker")
            return run(function, *args, **kwargs)

        monkeypatch.setattr(threads, "run", run_or_fail)

    return die


def test_too_many_lost_workers_end_the_fit(threads, die_before_training, monkeypatch):
    monkeypatch.setattr(_fit, "MAX_RESTARTS", 1)
    die_before_training(2)
    fit = DaskDensity(NSFDensity(max_iter=2, **SMALL), client=threads).fit
    with (
        pytest.warns(UserWarning, match="continues on the others"),
        pytest.raises(
            RuntimeError,
            match=r"died before .* restarted 1 times already, giving up: check the logs",
        ),
    ):
        fit(TABLE)


def test_a_worker_that_dies_before_the_training_is_survived(threads, die_before_training):
    die_before_training(1)
    with pytest.warns(UserWarning, match=r"died before .* continues on the others, after 0 epochs"):
        density = DaskDensity(NSFDensity(max_iter=2, **SMALL), client=threads).fit(TABLE)
    assert density.estimator_.n_iter_ == 2


def test_a_scheduler_that_dies_ends_the_fit(monkeypatch):
    start = _fit.Fit._start
    timeouts = dask.config.get("distributed.comm.timeouts")

    def start_and_close(fit, *args):
        start(fit, *args)
        # Attempts to reconnect are short, but not those to connect at first.
        monkeypatch.setattr(fit.client, "_timeout", 0.1)
        monkeypatch.setitem(timeouts, "connect", "100ms")
        cluster.sync(cluster.scheduler.close)

    monkeypatch.setattr(_fit.Fit, "_start", start_and_close)
    density = NSFDensity(max_iter=10_000, **SMALL)
    cluster = distributed.LocalCluster(processes=False, dashboard_address=":0", silence_logs=50)
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        with pytest.raises(ConnectionError, match=r"The Dask scheduler at .* is gone"):
            DaskDensity(density, client).fit(TABLE)
        monkeypatch.setattr(client, "_timeout", 5)  # to close


@pytest.mark.parametrize(
    "estimator",
    [
        FlowGridSearchCV(NSFDensity(max_iter=2, **SMALL), {"n_bins": [4, 8]}, cv=2),
        StackedDensity(
            [(name, NSFDensity(max_iter=2, **SMALL)) for name in "ab"], cv=2, random_state=0
        ),
        DensityOutlierDetector(
            StackedDensity(
                [(name, NSFDensity(max_iter=2, **SMALL)) for name in "ab"], cv=2, random_state=0
            ),
            random_state=0,
        ),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_joblib_sends_fits_to_the_workers(client, estimator):
    restore_workers(client)
    here = clone(estimator).fit(X)
    with joblib.parallel_config("dask"):
        there = clone(estimator).fit(X)
    np.testing.assert_allclose(there.score_samples(X), here.score_samples(X), atol=1e-6)


# Without a cluster.


def partition(number, rows):
    return _partitions.Partition(number, rows, np.ones(len(rows)))


def test_a_sample_of_a_large_table_shows_its_values(monkeypatch):
    monkeypatch.setattr(_partitions, "MAX_ROWS", 200)
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=5000), rng.integers(0, 9, 5000), np.zeros(5000)])
    rows[17, 1], rows[4321, 2] = 40, 0.5
    parts = [partition(i, part) for i, part in enumerate(np.split(rows, 5))]
    found = [_partitions.sample_of(part, 5000, 0.1, 0) for part in parts]
    masks = [_partitions.is_held_out(part, 0.1, 0) for part in parts]
    train = rows[~np.concatenate(masks)]
    merged = _partitions.merged
    in_turn = merged([merged(found[:2]), merged(found[2:])])  # as a tree of workers does
    for each in (merged(found), in_turn):
        sample = _partitions.arguments_of(each, NSFDensity(), None)
        is_row = sample["sample_weight"] > 0.5
        assert 175 <= is_row.sum() <= 185
        assert sample["sample_weight"][~is_row].sum() < 1e-6
        for ours, theirs in zip(sample["X"].T, train.T, strict=True):
            assert ours.min() == theirs.min()
            assert ours.max() == theirs.max()
        assert {*sample["X"][:, 1]} == {*train[:, 1]}
        assert {*sample["X"][:, 2]} == {*train[:, 2]}
        assert {*map(tuple, sample["X"])} <= {*map(tuple, train)}
        assert len(sample["X_val"]) == pytest.approx(500, abs=10)
        assert abs(np.median(sample["X"][is_row, 0])) < 0.3


def test_quantiles_of_the_merged_sample_are_those_of_the_table(monkeypatch):
    """Each partition has other values, and the rank error is that of a random sample."""
    monkeypatch.setattr(_partitions, "MAX_ROWS", 10_000)
    column = np.sort(np.random.default_rng(0).normal(size=100_000))[:, None]
    parts = [partition(i, part) for i, part in enumerate(np.array_split(column, 7))]
    samples = [_partitions.sample_of(part, 100_000, 0.1, 0) for part in parts]
    (rows, _), *_ = _partitions.merged(samples)
    levels = np.linspace(0.001, 0.999, 999)
    ranks = np.searchsorted(column[:, 0], np.quantile(rows, levels)) / len(column)
    assert np.abs(ranks - levels).max() < 1.63 / np.sqrt(len(rows))  # Kolmogorov's, at 1 %


def test_the_sample_of_a_table_shows_its_values(monkeypatch):
    monkeypatch.setattr(_partitions, "MAX_DISTINCT", 5)
    n = 200
    table = pd.DataFrame({"x": np.arange(n) / 4, "day": pd.date_range("2024-01-01", periods=n)})
    table["kind"] = np.repeat(["a", "b", None, "c"], n // 4)
    table["gap"] = None
    found = _partitions.witnesses_of(table)
    assert {*found["kind"].dropna()} == {*"abc"}
    assert 0.25 in {*found["x"]}  # with two decimals
    for name in ("x", "day"):
        assert [found[name].min(), found[name].max()] == [table[name].min(), table[name].max()]
    assert len(found) < 12
    assert not len(_partitions.witnesses_of(table[:0]))


def test_each_training_continues_from_its_own_state(mixed_table, monkeypatch):
    """A table has two networks: a worker that dies in the second one costs nothing of the first."""
    rows = mixed_table.drop(index=60)
    held_out = np.arange(len(rows)) % 5 == 0
    own = [(rows[mask], np.ones(mask.sum())) for mask in (~held_out, held_out)]

    def fit(states):
        processes = c10d.ProcessGroupGloo(c10d.HashStore(), 0, 1)
        group = _training.WorkerGroup(processes, own, len(rows), states)
        with in_group(group):
            density = TableDensity(max_iter=3, random_state=0)
            return density._fit_held_out(rows, None, held_out), group.states

    density, states = fit({})
    assert sorted(states) == [1, 2]
    monkeypatch.setattr(trainer.Trainer, "_fit_epoch", None)  # nothing is trained again
    again, _ = fit(states)
    np.testing.assert_array_equal(again.score_samples(rows), density.score_samples(rows))


def test_rows_are_held_out_by_partition_wherever_it_is():
    parts = [partition(i, np.full((n, 1), float(i))) for i, n in enumerate([95, 3, 0, 40])]
    _, (held_out, _) = _partitions.split(parts, 0.2, 5)
    alone = [_partitions.split([part], 0.2, 5)[1][0] for part in parts]
    np.testing.assert_array_equal(held_out, np.concatenate(alone))
    assert 19 <= (held_out == 0).sum() <= 20
    assert 8 == (held_out == 3).sum()


def test_a_worker_has_a_row_to_train_on():
    parts = [partition(i, np.ones((1, 1))) for i in range(2)]
    assert [len(rows) for rows, _ in _partitions.split(parts, 1.0, 0)] == [0, 2]
    assert [len(rows) for rows, _ in _partitions.split(parts, 1.0, 0, least=1)] == [1, 1]


def test_columns_of_a_partition_in_another_order_are_refused():
    part = pd.DataFrame({"b": [1.0, 2.0], "a": [3.0, 4.0]})
    with pytest.raises(ValueError, match=r"\['b', 'a'\], but the table says \['a', 'b'\]"):
        _partitions.validated(NSFDensity(), ["a", "b"], 0, part)
