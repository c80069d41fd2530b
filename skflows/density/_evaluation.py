"""Evaluating a flow on the rows of an array, in chunks."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy

import numpy as np
import torch

from ..bijections._standardize import weighted_moments
from ..distribution.distribution import in_blocks
from ..training.torch_state import one_thread

# Values and rows of a chunk. Larger ones are slower: activations leave the CPU's cache, and the
# allocator returns their memory to the system after each operation.
VALUES_PER_CHUNK = 2**16
ROWS_PER_CHUNK = 800
SEQUENTIAL_FACTOR = 2  # larger chunks for maps of many small operations
GPU_FACTOR = 128  # larger chunks on a GPU
VALUES_AT_ONCE = 2**16  # of a single column, of which a network sees each context once
MAX_PASSES = 25  # by which the size of a chunk is divided: chunks of very few rows are slower


@one_thread()
def column_scale(X, weight=None):
    """Return the standard deviation of each column, positive also for a constant one."""
    weight = None if weight is None else torch.tensor(weight)
    # One by one, because together they would take several times the memory of a large table.
    columns = (torch.tensor(column[:, None]) for column in X.T)
    return np.array([weighted_moments(column, weight)[1].item() for column in columns])


def device_of(flow):
    """Return the device of a flow's tensors."""
    return next(flow.buffers(), torch.empty(0)).device


@contextmanager
def parallel_map(n_tasks):
    """Yield a ``map`` that shares tasks among as many threads as torch may use.

    A chunk is too small for torch to divide: each has a thread of its own.
    """
    n_threads = min(torch.get_num_threads(), n_tasks)
    if n_threads <= 1:
        yield map
        return
    with one_thread(), ThreadPoolExecutor(n_threads) as pool:
        yield pool.map


@contextmanager
def inference(device):
    """Evaluate without gradients, on one thread of a CPU in this context."""
    # Torch's own threads gain little on an idle machine, and lose much on a busy one.
    with one_thread() if device.type == "cpu" else nullcontext(), torch.inference_mode():
        yield


def map_rows(flow, method, rows):
    """Call a method of a flow on rows in chunks.

    Parameters
    ----------
    flow : Module
        A flow, or a bijection.
    method : str
        Name of a method that takes a tensor of rows.
    rows : ndarray of shape (n, d)
        The rows.

    Returns
    -------
    outputs : list of ndarray
        What the method returns, in float64.
    """
    device = device_of(flow)
    is_cpu = device.type == "cpu"
    is_sequential = flow.is_sequential(method == "inverse")
    factor = (SEQUENTIAL_FACTOR if is_sequential else 1) if is_cpu else GPU_FACTOR
    most = min(VALUES_PER_CHUNK // rows.shape[1], ROWS_PER_CHUNK) * factor
    size = max(1, most // min(getattr(flow, "n_passes", 1), MAX_PASSES))

    def outputs(start):
        with inference(device):
            chunk = rows[start : start + size]
            chunk = torch.tensor(chunk, dtype=torch.float64, device=device)
            result = getattr(flow, method)(chunk)
            return as_arrays(result if isinstance(result, tuple) else (result,))

    if len(rows) <= size:
        return outputs(0)
    starts = range(0, len(rows), size)
    whole = None
    with parallel_map(len(starts) if is_cpu and not is_sequential else 1) as map_:
        for start, parts in zip(starts, map_(outputs, starts), strict=True):
            if whole is None:  # filled in place: joining the parts would take the memory twice
                whole = [np.empty((len(rows), *part.shape[1:])) for part in parts]
            for array, part in zip(whole, parts, strict=True):
                array[start : start + size] = part
    return whole


def as_arrays(tensors):
    """Return tensors as arrays."""
    return [tensor.contiguous().cpu().numpy() for tensor in tensors]


class GivenFlow:
    """A flow at n contexts, which maps arrays (see `skflows.bijections._given.Given`).

    Parameters
    ----------
    flow : Flow
        A flow of rows that have their context in their last columns.
    context : ndarray of shape (n, n_context)
        The contexts.
    """

    def __init__(self, flow, context):
        self.device = device_of(flow)
        with inference(self.device):
            context = torch.tensor(context, dtype=torch.float64, device=self.device)
            self.given = flow.given(context)

    def take(self, index):
        """Return the flow at some of the contexts, by their indices, which may repeat."""
        some = copy(self)
        with inference(self.device):
            some.given = self.given.take(torch.tensor(index, device=self.device))
        return some

    def map(self, method, rows):
        """Call a method on rows (k, n, d), k for each context: rows and log-determinants."""
        with inference(self.device):
            rows = torch.tensor(rows, dtype=torch.float64, device=self.device)
            return as_arrays(getattr(self.given, method)(rows))


def in_large_blocks(flow, function, *arrays, each=1):
    """Return a function of arrays, computed in blocks, that maps a single column by `GivenFlow`.

    It maps `each` values for a row. Threads of a CPU share the blocks, even if the maps take many
    operations: these are large.
    """
    is_cpu = device_of(flow).type == "cpu"
    at_once = VALUES_AT_ONCE * (1 if is_cpu else GPU_FACTOR)
    with parallel_map(-(-len(arrays[0]) * each // at_once) if is_cpu else 1) as map_:
        return in_blocks(function, *arrays, each=each, at_once=at_once, map_=map_)
