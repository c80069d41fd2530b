"""A fit by the workers of a Dask cluster, as the client sees it."""

import time
import uuid
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress

import dask
import distributed
import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from ..bijections._marginal_quantile import SMALL_SAMPLE
from ..density._warnings import warn_user
from ..preprocessing.validation import prepare_table
from . import _partitions, _training

POLL = 0.5  # seconds between two looks at the workers
PATIENCE = 10.0  # seconds for all workers to report why they stopped


class WorkersLost(Exception):
    """Some workers died in the training."""


class Fit:
    """One fit to a Dask collection.

    Parameters
    ----------
    client : distributed.Client
        The client.
    estimator : FlowDensity
        The density; it is left as it is.
    X, sample_weight : Dask collections
        The rows and their weights.
    """

    def __init__(self, client, estimator, X, sample_weight):
        self.client = client
        self.estimator = clone(estimator)
        self.estimator._validate_params()
        self.meta = X._meta if hasattr(X, "columns") else None
        self.parts = partitions_of(X)
        self.weights = [None] * len(self.parts)
        if sample_weight is not None:
            self.weights = partitions_of(sample_weight)
            if len(self.weights) != len(self.parts):
                raise ValueError(
                    f"sample_weight has {len(self.weights)} partitions, but X has "
                    f"{len(self.parts)}: give it the partitions of X, for example by rechunk."
                )
        self.seed = check_random_state(estimator.random_state).randint(2**31 - 1)

    def run(self):
        """Return the fitted estimator."""
        with scheduler_errors(self.client):
            self._prepare()
            while True:
                try:
                    return self._train()
                except WorkersLost as error:
                    warn_user(f"{error} Training starts again on the remaining workers.")

    def _prepare(self):
        """Validate the partitions on the workers, and draw the sample."""
        client, estimator = self.client, self.estimator
        checked = dask.delayed(_partitions.validated)
        estimator_there = dask.delayed(estimator, traverse=False)
        self.parts = client.compute(
            [
                checked(estimator_there, i, part, weight)
                for i, (part, weight) in enumerate(zip(self.parts, self.weights, strict=True))
            ]
        )
        del self.weights
        facts = client.gather(client.map(_partitions.facts, self.parts, pure=False))
        numbers, sizes, weights = zip(*facts, strict=True)
        self.sizes = {i: size for i, size in zip(numbers, sizes, strict=True) if size}
        self.parts = {i: self.parts[i] for i in self.sizes}
        n = sum(sizes)
        if n < 2:
            raise ValueError(f"X has {n} rows of positive weight; at least 2 are needed.")
        wanted = estimator.early_stopping
        wanted = n >= SMALL_SAMPLE if wanted == "auto" else wanted
        fraction = estimator.validation_fraction if wanted else 0.0
        self.estimator.set_params(early_stopping=wanted)
        self.settings = fraction, self.seed, (n, sum(weights) / n)
        samples = client.map(
            _partitions.sample_of,
            list(self.parts.values()),
            n_rows=n,
            fraction=fraction,
            seed=self.seed,
            pure=False,
        )
        self.sample = client.submit(_partitions.joined_sample, samples, self.meta, pure=False)
        if estimator.bounds is not None:
            table = client.submit(_partitions.columns_of, estimator, self.sample, pure=False)
            bounds = {"estimator": estimator, "columns": table}
            parts = list(self.parts.values())
            client.gather(client.map(_partitions.check_bounds, parts, pure=False, **bounds))

    def _train(self):
        """Train on the workers that are there; return the fitted estimator."""
        client, key = self.client, f"skflows-{uuid.uuid4().hex}"
        shares = self._shares()
        workers = list(shares)
        first, host = workers[0], host_of(workers[0])
        address = client.run(_training.open_store, key, host, workers=[first])[first]
        futures = {
            worker: client.submit(
                _training.train,
                self.estimator,
                self.sample,
                [self.parts[i] for i in numbers],
                *self.settings,
                key,
                address,
                host_of(worker),
                rank,
                len(workers),
                key=f"{key}-{rank}",
                workers=[worker],
                allow_other_workers=False,
                priority=1,
            )
            for rank, (worker, numbers) in enumerate(shares.items())
        }
        try:
            estimator, warned = self._first_result(futures)
        finally:
            client.cancel(list(futures.values()), force=True)
            with suppress(Exception):
                alive = [worker for worker in workers if worker in client.nthreads()]
                client.run(_training.close, key, workers=alive)
        for category, message in warned:
            warn_user(message, category)
        return estimator

    def _shares(self):
        """Return the numbers of the partitions of each worker.

        Which partitions train together does not depend on where they are, so that two fits are
        equal. They go to the worker that has most of their rows.
        """
        client, numbers = self.client, list(self.sizes)
        sizes = np.array(list(self.sizes.values()))
        workers = list(client.nthreads())
        if not workers:
            raise ValueError("The Dask cluster has no workers: start some.")
        middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
        group_of = (middles * len(workers)).astype(int)
        groups = [np.flatnonzero(group_of == g) for g in range(len(workers))]
        homes = client.who_has(list(self.parts.values()))
        shares = {}
        for group in filter(len, groups):
            at_home = dict.fromkeys(workers, 0)
            for i in group:
                for worker in set(homes[self.parts[numbers[i]].key]) & set(workers):
                    at_home[worker] += sizes[i]
            worker = max(workers, key=at_home.get)
            workers.remove(worker)
            shares[worker] = [numbers[i] for i in group]
        return shares

    def _first_result(self, futures):
        """Return the result of the first worker, or raise the error that stopped the training."""
        workers = {future: worker for worker, future in futures.items()}
        pending, stopped, lost = set(workers), None, []
        errors = []
        while pending:
            with suppress(TimeoutError):
                done, pending = distributed.wait(
                    pending, timeout=POLL, return_when="FIRST_COMPLETED"
                )
                errors += [f.exception() for f in done if f.status != "finished"]
            lost = [worker for worker in futures if worker not in self.client.nthreads()]
            pending = {future for future in pending if workers[future] not in lost}
            if (errors or lost) and stopped is None:
                stopped = time.monotonic()
            if stopped is not None and time.monotonic() - stopped > PATIENCE:
                break
        causes = [error for error in errors if not isinstance(error, ConnectionError)]
        if causes:
            raise causes[0]
        if lost:
            raise WorkersLost(f"The Dask workers {lost} died in the training.")
        if errors:
            raise errors[0]
        return next(iter(futures.values())).result()


def host_of(worker):
    """Return the host in the address of a worker."""
    return worker.rpartition("://")[2].rpartition(":")[0].strip("[]")


def partitions_of(collection):
    """Return the partitions of a Dask collection as delayed objects, in one block of columns."""
    if not hasattr(collection, "to_delayed"):
        raise TypeError(
            f"DaskDensity takes Dask arrays and DataFrames, not {type(collection).__name__}; "
            "fit the estimator itself to a table in memory."
        )
    if getattr(collection, "numblocks", (1,))[1:] not in ((), (1,)):
        collection = collection.rechunk({1: -1})
    return list(np.ravel(collection.to_delayed()))


@contextmanager
def scheduler_errors(client):
    """Raise a clear error if the scheduler died in this context."""
    try:
        yield
    except (CancelledError, OSError, TimeoutError) as error:
        if client.status == "running":
            raise
        raise ConnectionError(
            f"The Dask scheduler at {client.scheduler.address} is gone, and the fit with it: "
            "start the cluster again, and fit again."
        ) from error
