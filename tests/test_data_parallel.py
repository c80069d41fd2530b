"""Fits by several processes, which threads of one stand for: they communicate in the same way."""

import datetime
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from _densities import banana
from _tables import few_components  # noqa: F401 - a fixture
from sklearn.base import clone
from torch import distributed

from skflows import CNFDensity, MAFDensity, NSFDensity, StackedDensity, TableDensity
from skflows.callbacks import Checkpoint, _checkpoint
from skflows.model_selection import FlowGridSearchCV
from skflows.training import data_parallel, trainer
from skflows.training.data_parallel import Group, current_group, in_group

X = np.column_stack([banana(301), np.random.default_rng(1).poisson(2, 301)])
WEIGHT = np.random.default_rng(2).uniform(0, 2, len(X))
TIMEOUT = datetime.timedelta(minutes=2)


def in_processes(run, size):
    """Return ``run(rank)`` of each of several threads that form a group."""
    store = distributed.HashStore()

    def join(rank):
        group = Group(distributed.ProcessGroupGloo(store, rank, size, TIMEOUT))
        with in_group(group):
            try:
                return run(rank)
            finally:
                group.processes = None  # as when the process ends

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(join, range(size)))


def fit_together(density, size, X=X, **kwargs):
    """Return the densities that several processes fit together, each from the whole table."""
    return in_processes(lambda rank: clone(density).fit(X, **kwargs), size)


@pytest.fixture
def union_batches(monkeypatch):
    """Batches of single processes are those that a group of two used before, joined."""
    used = {}
    shuffle = trainer.shuffled_batches

    def recorded(y, weight, batch_size, generators, n_batches=None):
        group = current_group()
        if group.size > 1:
            for batch in shuffle(y, weight, batch_size, generators, n_batches):
                used.setdefault(group.rank, []).append(batch)
                yield batch
        else:
            epoch = [used[rank][:n_batches] for rank in (0, 1)]
            for rank in (0, 1):
                del used[rank][:n_batches]
            for parts in zip(*epoch, strict=True):
                yield tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    monkeypatch.setattr(trainer, "shuffled_batches", recorded)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("sample_weight", [None, WEIGHT])
def test_a_single_batch_gives_what_one_process_gives(size, sample_weight):
    density = MAFDensity(
        n_transforms=2,
        hidden_layer_sizes=8,
        batch_size=1000,
        dropout=0,
        discrete=None,
        max_iter=5,
        random_state=0,
    )
    one = clone(density).fit(X, sample_weight=sample_weight)
    for found in fit_together(density, size, sample_weight=sample_weight):
        np.testing.assert_allclose(found.score_samples(X), one.score_samples(X), atol=1e-4)
        np.testing.assert_allclose(found.loss_curve_, one.loss_curve_, atol=1e-4)
        np.testing.assert_allclose(found.validation_scores_, one.validation_scores_, atol=1e-4)
        assert abs(found.offset_ - one.offset_) < 1e-4


@pytest.mark.parametrize("sample_weight", [None, WEIGHT[:200]])
def test_a_table_with_texts_and_gaps_gives_what_one_process_gives(mixed_table, sample_weight):
    density = TableDensity(max_iter=3, cv=2, random_state=0)
    one = clone(density).fit(mixed_table, sample_weight=sample_weight)
    for found in fit_together(density, 2, mixed_table, sample_weight=sample_weight):
        scores = found.score_samples(mixed_table)
        np.testing.assert_allclose(scores, one.score_samples(mixed_table), atol=1e-4)
        np.testing.assert_allclose(found.weights_, one.weights_, atol=1e-4)
        assert abs(found.offset_ - one.offset_) < 1e-4


def test_processes_agree_about_the_time_limit_of_a_table(mixed_table, monkeypatch):
    """Components, learning rates and the last step follow the clock of the first process."""
    ticks = itertools.count(), itertools.count(step=7)
    monkeypatch.setattr(data_parallel, "clock", lambda: next(ticks[current_group().rank]))
    density = TableDensity(time_limit=100, max_iter=1000, cv=2, random_state=0)
    one, other = fit_together(density, 2, mixed_table)
    assert one.component_names_[-1] == other.component_names_[-1] == "network on pairs"
    assert 1 < one.n_iter_ == other.n_iter_ < 100
    scores = [found.score_samples(mixed_table) for found in (one, other)]
    np.testing.assert_array_equal(*scores)


def test_mini_batches_give_what_one_process_gives_with_the_same_batches(union_batches):
    density = NSFDensity(
        n_transforms=2,
        hidden_layer_sizes=8,
        batch_size=64,
        dropout=0,
        discrete=None,
        max_iter=6,
        n_iter_no_change=2,
        random_state=0,
    )
    found = fit_together(density, 2)
    one = clone(density).fit(X)
    for each in found:
        np.testing.assert_allclose(each.score_samples(X), one.score_samples(X), atol=1e-4)
        np.testing.assert_allclose(each.loss_curve_, one.loss_curve_, atol=1e-4)
        assert each.best_iter_ == one.best_iter_


@pytest.mark.parametrize(
    "density",
    [
        NSFDensity(input_noise="auto", batch_size=64, max_iter=2, random_state=0),
        NSFDensity(time_limit=1.0, max_iter=1000, random_state=None),
        NSFDensity(early_stopping=False, batch_size=16, max_iter=2),
        CNFDensity(max_iter=2, random_state=0),
        CNFDensity(objective="likelihood", max_iter=1, random_state=0),
    ],
    ids=repr,
)
def test_processes_agree_to_the_bit(density):
    """Noise, dropout, a clock and draws without a seed are those of one training."""
    one, other = fit_together(density.set_params(hidden_layer_sizes=8), 2)
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    assert one.history_ == other.history_
    assert one.offset_ == other.offset_


def test_fewer_rows_than_processes_have_batches_of_padding():
    density = NSFDensity(batch_size=2, max_iter=2, n_transforms=1, hidden_layer_sizes=4)
    found = in_processes(lambda rank: clone(density).fit(X[:7]), 3)
    np.testing.assert_array_equal(found[0].score_samples(X), found[2].score_samples(X))
    y, weight = torch.arange(2.0)[:, None], torch.ones(2)
    generators = [torch.Generator().manual_seed(0)]
    batches = list(trainer.shuffled_batches(y, weight, 1, generators, 5))
    assert [len(rows) for rows, _ in batches] == [1] * 5
    assert sum(float(weight.sum()) for _, weight in batches) == 2


@pytest.mark.parametrize(
    "fit_differently",
    [
        lambda rank: NSFDensity().fit(X[rank:]),
        lambda rank: NSFDensity().fit(X, X_val=X[rank:40]),
        lambda rank: NSFDensity(batch_size=16 * (1 + rank)).fit(X),
        lambda rank: TableDensity(max_iter=1).fit(X[rank:]),
    ],
)
def test_different_arguments_are_refused_in_every_process(fit_differently):
    def fit(rank):
        with pytest.raises(ValueError, match="different tables or parameters; give the same rows"):
            fit_differently(rank)
        return True

    assert in_processes(fit, 2) == [True, True]


@pytest.mark.parametrize("limit", [1, 3])
def test_a_process_that_fails_does_not_hang_the_others(limit, monkeypatch):
    shuffle, epochs = trainer.shuffled_batches, []

    def fail(*args):
        if current_group().rank == 1:
            epochs.append(0)
            if len(epochs) == limit:
                current_group().processes = None  # as when the process ends
        return shuffle(*args)

    monkeypatch.setattr(trainer, "shuffled_batches", fail)

    def fit(rank):
        message = "stopped" if rank else "ended, or did not answer"
        with pytest.raises(ConnectionError, match=message):
            NSFDensity(max_iter=1000, n_transforms=1).fit(X)
        return True

    assert in_processes(fit, 2) == [True, True]


@pytest.mark.parametrize(
    "estimator",
    [
        StackedDensity(
            [(name, NSFDensity(max_iter=2, n_transforms=1)) for name in "ab"], cv=2, random_state=0
        ),
        FlowGridSearchCV(
            NSFDensity(max_iter=2, n_transforms=1, random_state=0), {"dropout": [0.0, 0.2]}, cv=2
        ),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators_with_several_trainings_agree(estimator):
    one, other = fit_together(estimator, 2)
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))


@pytest.mark.parametrize("n_before", [1, 4])
def test_a_checkpoint_is_that_of_the_first_process(tmp_path, monkeypatch, n_before):
    """All processes continue from it, to the bits of a fit that nothing ended."""
    density = NSFDensity(n_transforms=1, hidden_layer_sizes=8, batch_size=64, random_state=0)
    density.set_params(max_iter=6, early_stopping=False)  # else the initial weights may be best
    whole, _ = fit_together(density, 2)
    fit_epoch, epochs = trainer.Trainer._fit_epoch, []

    def counted(self):
        epochs.append(self.epoch)
        if self.epoch == limit:
            raise InterruptedError
        fit_epoch(self)

    def fit(rank):
        return clone(density).set_callbacks(Checkpoint(tmp_path, every=0)).fit(X)

    monkeypatch.setattr(trainer.Trainer, "_fit_epoch", counted)
    monkeypatch.setattr(_checkpoint, "is_first_process", lambda: current_group().rank == 0)
    limit = n_before
    with pytest.raises(InterruptedError):
        in_processes(fit, 2)
    assert len([*tmp_path.glob("*.checkpoint")]) == 1
    limit = None
    epochs.clear()
    for found in in_processes(fit, 2):
        np.testing.assert_array_equal(found.score_samples(X), whole.score_samples(X))
        assert found.loss_curve_ == whole.loss_curve_
    assert sorted(epochs) == sorted([*range(n_before, 6)] * 2)


SCRIPT = """
import sys
import numpy as np
from torch import distributed
from skflows import MAFDensity

distributed.init_process_group("gloo")
rank = distributed.get_rank()
X = np.load(sys.argv[1])
density = MAFDensity(n_transforms=1, hidden_layer_sizes=4, max_iter=3, random_state=0).fit(X)
np.save(f"{sys.argv[1]}.{rank}.npy", density.score_samples(X))
try:
    MAFDensity().fit(X[rank:])
except ValueError as error:
    assert "different tables" in str(error)
else:
    raise AssertionError("different tables are not refused")
distributed.destroy_process_group()
"""


@pytest.mark.distributed
def test_torchrun_trains_one_density(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    np.save(tmp_path / "X.npy", X)
    command = [sys.executable, "-W", "error", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", tmp_path / "script.py", tmp_path / "X.npy"]
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    one, other = (np.load(tmp_path / f"X.npy.{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert len(one) == len(X)
