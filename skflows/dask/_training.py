"""Training by several workers, each with its partitions."""

import datetime
import warnings

from torch import distributed as c10d

from ..training.data_parallel import Group, in_group
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
    """

    def __init__(self, processes, own, n_rows):
        super().__init__(processes)
        self.own = own
        self.n = n_rows

    def n_rows(self, rows):
        return self.n

    def own_part(self, train, held_out):
        return self.own[0], held_out and self.own[1]

    def check_same(self, *arrays):
        """Do nothing: the sample is the same, and the rows are meant to differ."""


def open_store(key, host):
    """Open the store in which the workers of a fit find each other; return its address."""
    _OPEN[key] = [store := c10d.TCPStore(host, 0, None, True, TIMEOUT, False)]
    return host, store.port


def close(key):
    """Close the store of a fit, and end its training here."""
    for each in _OPEN.pop(key, []):
        if isinstance(each, WorkerGroup):
            each.processes = None


def connect(address, host, rank, size):
    """Return the processes of a fit."""
    store = c10d.TCPStore(*address, None, False, TIMEOUT)
    # The address that other workers know this one by, whatever its host name stands for.
    device = c10d.ProcessGroupGloo.create_device(hostname=host)
    options = c10d.ProcessGroupGloo._Options()
    options._devices, options._timeout = [device], TIMEOUT
    return c10d.ProcessGroupGloo(store, rank, size, options)


def train(estimator, sample, partitions, fraction, seed, totals, key, address, host, rank, size):
    """Fit an estimator to a sample, but train it on the rows of some partitions.

    Returns
    -------
    estimator : estimator
        The fitted estimator in the first worker, None in others.
    warned : list of tuple
        Category and message of each warning of the first worker.
    """
    n_rows, mean_weight = totals
    own = [
        (rows, weight / mean_weight) for rows, weight in split(partitions, fraction, seed)
    ]
    group = WorkerGroup(connect(address, host, rank, size), own, n_rows)
    _OPEN.setdefault(key, []).append(group)
    try:
        with in_group(group), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator.fit(**sample)
    finally:
        group.processes = None  # closes the connections: the other workers need not wait
    if rank:
        return None, []
    return estimator, [(each.category, str(each.message)) for each in caught]
