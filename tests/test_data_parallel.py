"""Fits by several processes, which threads stand for: they communicate in the same way."""

import datetime
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import numpy as np
import pytest
import torch
from _densities import banana
from sklearn.base import clone
from torch import distributed

from skflows import CNFDensity, MAFDensity, NSFDensity
from skflows.training import trainer
from skflows.training.data_parallel import Group, in_group

X = np.column_stack([banana(301), np.random.default_rng(1).poisson(2, 301)])
WEIGHT = np.random.default_rng(2).uniform(0, 2, len(X))
TIMEOUT = datetime.timedelta(seconds=20)


def in_processes(run, size):
    """Return ``run(rank)`` of each of several threads that form a group."""
    store = distributed.HashStore()

    def join(rank):
        group = Group(distributed.ProcessGroupGloo(store, rank, size, TIMEOUT))
        with in_group(group):
            return run(rank)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(join, range(size)))


def fit_together(density, size, **kwargs):
    """Return the densities that several processes fit together, each from the whole table."""
    return in_processes(lambda rank: clone(density).fit(X, **kwargs), size)


@pytest.fixture
def union_batches(monkeypatch):
    """Batches of single processes are those that a group of two used before, joined."""
    used = {}
    shuffle = trainer.shuffled_batches

    def recorded(y, weight, batch_size, generators, n_batches=None):
        from skflows.training.data_parallel import current_group

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
        n_transforms=2, hidden_layer_sizes=8, batch_size=1000, dropout=0, discrete=None,
        max_iter=5, random_state=0,
    )
    one = clone(density).fit(X, sample_weight=sample_weight)
    for found in fit_together(density, size, sample_weight=sample_weight):
        np.testing.assert_allclose(found.score_samples(X), one.score_samples(X), atol=1e-4)
        np.testing.assert_allclose(found.loss_curve_, one.loss_curve_, atol=1e-4)
        np.testing.assert_allclose(found.validation_scores_, one.validation_scores_, atol=1e-4)
        assert abs(found.offset_ - one.offset_) < 1e-4


def test_mini_batches_give_what_one_process_gives_with_the_same_batches(union_batches):
    density = NSFDensity(
        n_transforms=2, hidden_layer_sizes=8, batch_size=64, dropout=0, discrete=None,
        max_iter=6, n_iter_no_change=2, random_state=0,
    )
    found = fit_together(density, 2)
    one = clone(density).fit(X)
    for each in found:
        np.testing.assert_allclose(each.score_samples(X), one.score_samples(X), atol=1e-4)
        np.testing.assert_allclose(each.loss_curve_, one.loss_curve_, atol=1e-4)
        assert each.best_iter_ == one.best_iter_
