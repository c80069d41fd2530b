"""Training by several workers, each with its partitions."""

import copy
import datetime
import warnings

from torch import distributed as c10d

from ..training.data_parallel import Group, SharedFile, in_group
from ._partitions import split

# For a message of another worker, which may fit latent classes to a table. Lost workers are noticed
# earlier.
TIMEOUT, TABLE_TIMEOUT = datetime.timedelta(minutes=10), datetime.timedelta(hours=1)
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
    states : dict
        The states of the trainings of an earlier fit, by number, to continue from.
    """

    def __init__(self, processes, own, n_rows, states):
        super().__init__(processes)
        self.own = own
        self.n = n_rows
        self.states = dict(states)
        self.n_trainings = 0

    def n_rows(self, rows):
        return self.n

    def local_rows(self, *tables, encode=None):
        shares = self.own
        if encode is not None:
            shares = [(*encode(rows), weight) for rows, weight in shares]
        return [table and mine for table, mine in zip(tables, shares, strict=True)]

    def check_same(self, *values):
        """Do nothing: the sample is the same, and the rows are meant to differ."""

    def file(self, file):
        self.n_trainings += 1
        return KeptState(self, file, self.n_trainings)


class KeptState(SharedFile):
    """The state of a training after each epoch, in the memory of each worker.

    All workers have the same state: those that survive another one continue from it.
    """

    def __init__(self, group, file, number):
        super().__init__(group, file)
        self.number = number

    def load(self):
        stored = super().load()
        return self.group.states.get(self.number, stored)

    def save(self, phase, state, is_over):
        super().save(phase, state, is_over)
        content = {"phase": phase, "is_over": is_over, "state": copy.deepcopy(state())}
        self.group.states[self.number] = content


def open_store(key, host):
    """Open the store in which the workers of a fit find each other; return its address."""
    store = c10d.TCPStore(host, 0, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
    _OPEN[key] = {"store": store}
    return host, store.port


def states(key):
    """Return the states of the trainings of a fit that this worker has, by number."""
    return dict(getattr(_OPEN.get(key, {}).get("group"), "states", {}))


def n_epochs(key):
    """Return after how many epochs this worker has the states of the trainings of a fit."""
    return count(states(key))


def count(states):
    """Return after how many epochs the trainings with these states are, together."""
    return sum(len(s["state"]["progress"][0]["history"]["loss"]) for s in states.values())


def close(key):
    """Close the store of a fit, and end its training here."""
    if (group := _OPEN.pop(key, {}).get("group")) is not None:
        group.processes = None


def connect(address, host, rank, size, timeout):
    """Return the processes of a fit."""
    store = c10d.TCPStore(*address, timeout=TIMEOUT)
    # The address that other workers know this one by, whatever its host name stands for.
    device = c10d.ProcessGroupGloo.create_device(hostname=host)
    # Private, because the public init_process_group allows one group in a process, and workers may
    # be its threads.
    options = c10d.ProcessGroupGloo._Options()
    options._devices, options._timeout = [device], timeout
    return c10d.ProcessGroupGloo(store, rank, size, options)


def train(estimator, sample, partitions, states, place, *, n_rows, mean_weight, fraction, seed):
    """Fit an estimator to a sample, but train it on the rows of some partitions.

    Parameters
    ----------
    estimator : FlowDensity or TableDensity
        The estimator.
    sample : dict
        What `arguments_of` returned.
    partitions : list of Partition
        The rows of this worker.
    states : dict
        The states of the trainings of an earlier fit, to continue from.
    place : tuple
        The name of the fit, where the workers meet, and host, rank and number of them.
    n_rows, mean_weight : int and float
        Number of rows of all workers, and their mean weight.
    fraction, seed : float and int
        Which rows are held out.

    Returns
    -------
    estimator : FlowDensity or TableDensity
        The fitted estimator in the first worker, None in others.
    warned : list of tuple
        Category and message of each warning of the first worker.
    """
    key, address, host, rank, size = place
    if rank:
        estimator.set_callbacks()  # the first worker's are enough
    tables = split(partitions, fraction, seed, least=1)
    weighted = [(rows, weight / mean_weight) for rows, weight in tables]
    is_table = "held_out" in sample
    timeout = TABLE_TIMEOUT if is_table else TIMEOUT
    group = WorkerGroup(connect(address, host, rank, size, timeout), weighted, n_rows, states)
    _OPEN.setdefault(key, {})["group"] = group
    try:
        with in_group(group), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit = estimator._fit_held_out if is_table else estimator.fit
            fit(**sample)
    finally:
        # Nothing else holds them: this closes the connections, and the other workers need not wait.
        group.processes = None
    if rank:
        return None, []
    return estimator, [(each.category, str(each.message)) for each in caught]
