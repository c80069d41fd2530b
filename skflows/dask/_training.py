"""Training by several workers, each with its partitions."""

import copy
import datetime
import warnings

from torch import distributed as c10d

from ..training.data_parallel import Group, SharedFile, in_group
from ._partitions import split

TIMEOUT = datetime.timedelta(minutes=10)  # for a message of another worker
_OPEN: dict = {}  # the store and the groups of each fit in this process


class WorkerGroup(Group):
    """Workers that train together, each on the rows of its partitions.

    Parameters
    ----------
    processes : Backend
        They communicate through it.
    own : tuple of tuple
        Training rows and held-out rows of this worker, with their weights.
    n_rows : int
        Number of rows of all workers.
    state : dict or None
        The state of an earlier training, to continue from.
    """

    def __init__(self, processes, own, n_rows, state):
        super().__init__(processes)
        self.own = own
        self.n = n_rows
        self.state = state

    def n_rows(self, rows):
        return self.n

    def local_rows(self, train, held_out):
        return self.own[0], held_out and self.own[1]

    def check_same(self, *values):
        """Do nothing: the sample is the same, and the rows are meant to differ."""

    def file(self, file):
        return KeptState(self, file)


class KeptState(SharedFile):
    """The state of a training after each epoch, in the memory of each worker.

    All workers have the same state: those that survive another one continue from it.
    """

    def load(self):
        found = super().load()
        return found if self.group.state is None else self.group.state

    def save(self, phase, state, is_over):
        super().save(phase, state, is_over)
        found = {"phase": phase, "is_over": is_over, "state": copy.deepcopy(state())}
        self.group.state = found


def open_store(key, host):
    """Open the store in which the workers of a fit find each other; return its address."""
    _OPEN[key] = {"store": (store := c10d.TCPStore(host, 0, None, True, TIMEOUT, False))}
    return host, store.port


def n_epochs(key):
    """Return after how many epochs this worker has the state of a training."""
    group = _OPEN.get(key, {}).get("group")
    if group is None or group.state is None:
        return 0
    return len(group.state["state"]["progress"][0]["history"]["loss"])


def state(key):
    """Return the state of a training that this worker has."""
    return _OPEN[key]["group"].state


def close(key):
    """Close the store of a fit, and end its training here."""
    if (group := _OPEN.pop(key, {}).get("group")) is not None:
        group.processes = None


def connect(address, host, rank, size):
    """Return the processes of a fit."""
    store = c10d.TCPStore(*address, None, False, TIMEOUT)
    # The address that other workers know this one by, whatever its host name stands for.
    device = c10d.ProcessGroupGloo.create_device(hostname=host)
    options = c10d.ProcessGroupGloo._Options()
    options._devices, options._timeout = [device], TIMEOUT
    return c10d.ProcessGroupGloo(store, rank, size, options)


def train(estimator, sample, partitions, state, place, *, n_rows, mean_weight, fraction, seed):
    """Fit an estimator to a sample, but train it on the rows of some partitions.

    Parameters
    ----------
    estimator : FlowDensity
        The estimator.
    sample : dict
        The arguments of `fit`.
    partitions : list of Partition
        The rows of this worker.
    state : dict or None
        The state of an earlier training, to continue from.
    place : tuple
        The name of the fit, where the workers meet, and host, rank and number of them.
    n_rows, mean_weight : int and float
        Of the rows of all workers.
    fraction, seed : float and int
        Which rows are held out.

    Returns
    -------
    estimator : FlowDensity
        The fitted estimator in the first worker, None in others.
    warned : list of tuple
        Category and message of each warning of the first worker.
    """
    key, address, host, rank, size = place
    if rank:
        estimator.set_callbacks()  # those of the first worker are enough
    tables = split(partitions, fraction, seed)
    own = [(rows, weight / mean_weight) for rows, weight in tables]
    group = WorkerGroup(connect(address, host, rank, size), own, n_rows, state)
    _OPEN.setdefault(key, {})["group"] = group
    try:
        with in_group(group), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator.fit(**sample)
    finally:
        group.processes = None  # closes the connections: the other workers need not wait
    if rank:
        return None, []
    return estimator, [(each.category, str(each.message)) for each in caught]
