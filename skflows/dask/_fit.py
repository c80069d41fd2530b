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
from ..columns.checks import warn_user
from ..table import TableDensity
from ..table._components import HELD_OUT, MAX_HELD_OUT
from . import _partitions, _training

POLL = 0.5  # seconds between two looks at the workers
WAIT = 60.0  # seconds for a first worker
MAX_RESTARTS = 3
FAN_IN = 16  # samples that a worker merges at once
PATIENCE = 10.0  # seconds for all workers to report why they stopped


class WorkersLost(Exception):
    """Some workers died in the training."""


class Fit:
    """One fit to a Dask collection.

    Parameters
    ----------
    client : distributed.Client
        The client.
    estimator : FlowDensity or TableDensity
        The density; it is left as it is.
    X, sample_weight : Dask collections
        The rows and their weights.
    """

    def __init__(self, client, estimator, X, sample_weight):
        self.client = client
        self.estimator = clone(estimator)
        self.estimator._validate_params()
        if getattr(estimator, "cv", "auto") != "auto":
            raise ValueError(
                f"cv={estimator.cv}: rows of a cluster are held out once. Leave cv='auto'."
            )
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
        with self.client.as_current(), scheduler_errors(self.client):
            self._prepare()
            states: dict = {}
            for n_lost in range(MAX_RESTARTS + 1):
                key = f"skflows-{uuid.uuid4().hex}"
                futures: dict = {}
                try:
                    self._start(key, futures, states)
                    return self._result(futures)
                except WorkersLost as error:
                    if n_lost == MAX_RESTARTS:
                        raise RuntimeError(
                            f"{error} The fit was restarted {MAX_RESTARTS} times already, giving "
                            "up: check the logs of the workers; they may need more memory."
                        ) from error
                    states = self._latest_states(key, states)
                    warn_user(
                        f"{error} Training continues on the others, after "
                        f"{_training.count(states)} epochs in all."
                    )
                finally:
                    self._end(key, futures)

    def _prepare(self):
        """Validate the partitions on the workers, and draw the sample."""
        client, estimator = self.client, self.estimator
        validated = dask.delayed(_partitions.validated)
        there = dask.delayed(estimator, traverse=False)
        pairs = zip(self.parts, self.weights, strict=True)
        names = None if self.meta is None else [*self.meta.columns]
        parts = client.compute([validated(there, names, i, *pair) for i, pair in enumerate(pairs)])
        del self.weights
        facts = self._of_parts(_partitions.facts, dict(enumerate(parts)))
        sizes, weights = zip(*facts, strict=True)
        self.sizes = {i: size for i, size in enumerate(sizes) if size}
        self.parts = {i: parts[i] for i in self.sizes}
        n = sum(sizes)
        if n < 2:
            raise ValueError(f"X has {n} rows of positive weight; at least 2 are needed.")
        held_out = {"fraction": held_out_fraction(estimator, n), "seed": self.seed}
        self.settings = {"n_rows": n, "mean_weight": sum(weights) / n} | held_out
        samples = client.map(
            _partitions.sample_of, list(self.parts.values()), n_rows=n, pure=False, **held_out
        )
        while len(samples) > 1:
            some = [samples[i : i + FAN_IN] for i in range(0, len(samples), FAN_IN)]
            samples = client.map(_partitions.merged, some, pure=False)
        self.sample = client.submit(
            _partitions.arguments_of, *samples, estimator, self.meta, pure=False
        )
        if getattr(estimator, "bounds", None) is not None:
            columns = client.submit(_partitions.columns_of, estimator, self.sample, pure=False)
            known = {"estimator": estimator, "columns": columns}
            self._of_parts(_partitions.check_bounds, self.parts, **known)

    def _of_parts(self, function, parts, **kwargs):
        """Return the value of a function for each partition; an error names the partition."""
        futures = self.client.map(function, list(parts.values()), pure=False, **kwargs)
        distributed.wait(futures)
        for i, future in zip(parts, futures, strict=True):
            if future.status == "error":
                error = future.exception()
                kind = type(error) if isinstance(error, TypeError | ValueError) else RuntimeError
                name = "" if kind is type(error) else f"{type(error).__name__}: "
                raise kind(f"Partition {i} of X: {name}{error}") from error
        return self.client.gather(futures)

    def _start(self, key, futures, states):
        """Start the training on the workers that are there; add the future of each to a dict."""
        client, shares = self.client, self._shares()
        first = next(iter(shares))
        try:
            address = client.run(_training.open_store, key, host_of(first), workers=[first])[first]
        except OSError as error:
            if client.status != "running":
                raise
            raise WorkersLost(f"A Dask worker died before the training ({error}).") from error
        for rank, (worker, numbers) in enumerate(shares.items()):
            futures[worker] = client.submit(
                _training.train,
                self.estimator,
                self.sample,
                [self.parts[i] for i in numbers],
                states,
                (key, address, host_of(worker), rank, len(shares)),
                **self.settings,
                key=f"{key}-{rank}",
                workers=[worker],
                allow_other_workers=False,
                priority=1,
            )

    def _latest_states(self, key, states):
        """Return the states after the most epochs: the workers' or earlier ones."""
        client = self.client
        n_epochs = client.run(_training.n_epochs, key, on_error="ignore")
        worker = max(n_epochs, key=n_epochs.get, default=None)
        if worker is None or n_epochs[worker] <= _training.count(states):
            return states
        by_worker = client.run(_training.states, key, workers=[worker], on_error="ignore")
        return by_worker.get(worker, states)

    def _end(self, key, futures):
        """End the training on all workers; without a scheduler, they end themselves."""
        if self.client.status != "running":
            return
        with suppress(Exception):
            self.client.cancel(list(futures.values()), force=True)
            self.client.run(_training.close, key, on_error="ignore")

    def _shares(self):
        """Return the numbers of the partitions of each worker.

        Which partitions train together does not depend on where they are, so that two fits are
        equal. They go to the worker that has most of their rows.
        """
        client, numbers = self.client, list(self.sizes)
        sizes = np.array(list(self.sizes.values()))
        client.wait_for_workers(1, timeout=WAIT)
        workers = list(client.nthreads())
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

    def _result(self, futures):
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
        estimator, warned = next(iter(futures.values())).result()
        for category, message in warned:
            warn_user(message, category)
        return estimator


def held_out_fraction(estimator, n):
    """Set `early_stopping` of a flow for n rows, and return the fraction of them to hold out."""
    if isinstance(estimator, TableDensity):
        return min(HELD_OUT, MAX_HELD_OUT / n)
    wanted = estimator.early_stopping
    wanted = n >= SMALL_SAMPLE if wanted == "auto" else wanted
    estimator.set_params(early_stopping=wanted)
    return estimator.validation_fraction * wanted


def host_of(worker):
    """Return the host in the address of a worker."""
    protocol, _, place = worker.partition("://")
    return "127.0.0.1" if protocol == "inproc" else place.rpartition(":")[0].strip("[]")


def check_collection(X):
    """Raise an error for anything but a Dask collection."""
    if not hasattr(X, "to_delayed"):
        raise TypeError(
            f"DaskDensity takes Dask arrays and DataFrames, not {type(X).__name__}; use the "
            "estimator itself, such as the result of to_local(), for a table in memory."
        )


def partitions_of(collection):
    """Return the partitions of a Dask collection as delayed objects, in one block of columns."""
    check_collection(collection)
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
