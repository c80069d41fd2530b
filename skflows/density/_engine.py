"""The torch half of the estimators, imported when one is first fitted or used."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from .._fused import unwatched
from ..bijections._fixed import weighted_moments

# In one pass of scoring: bounds the memory, and keeps the activations in a CPU's cache. Those of
# tables with few columns are as wide as the hidden layers. With half of them, threads would wait
# for each other to start the next operation: a fifth more time.
VALUES_PER_CHUNK = 2**16
ROWS_PER_CHUNK = 2**12
LARGER = 2  # chunks, in this proportion, where the operations on each are many and small
# Torch has one random state for all threads: fits in threads take turns, lest they mix draws.
RNG_LOCK = threading.RLock()
# Rows times weights of a pass from which on a second thread pays; where one alone has its products
# in tiles.
SMALLEST_SHARED_WORK, SMALLEST_WITH_TILES = 1e8, 5e8

# The C library hands a freed block beyond a threshold back to the system, and pays for every page
# of the next one: half the time of scoring, and a tenth of a fit. glibc raises the threshold to
# the size of a block that it sees freed, of 32 MiB at most. This one is never touched.
torch.empty(2**25 - 4096, dtype=torch.uint8, device="cpu")


def resolve_device(name):
    """The torch device that the parameter ``device`` asks for."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has tensors, but no values
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f'device={name!r} cannot be used here ({str(error).splitlines()[0]}); "auto" and '
            '"cpu" always work.'
        ) from error
    return device


@contextmanager
def seeded(seed, device):
    """Seed torch in this context and leave the caller's random state as it was."""
    on_cuda = device.type == "cuda"
    with RNG_LOCK, torch.random.fork_rng(devices=[device] if on_cuda else []):
        # Not torch.manual_seed, which seeds devices that nobody saved as well.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def suitable_threads(module, n_rows, in_tiles=False):
    """One thread in this context where passes of so many rows, or their steps, are too small.

    Threads that wait for each other at every small kernel gain nothing on an idle machine, and
    on a busy one they slow a fit a hundredfold. Products that are in tiles on one thread gain less.
    """
    work = n_rows * sum(p.numel() for p in module.parameters())
    smallest = SMALLEST_WITH_TILES if in_tiles else SMALLEST_SHARED_WORK
    are_small = work < smallest or module.in_small_steps()
    with one_thread() if are_small else nullcontext():
        yield


class OneThread:
    """Torch uses one thread in contexts of this, as do threads that begin in one.

    The number is that of a thread, and of those that begin: where contexts of several threads
    overlap, the last one to end leaves what the first one found.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.n_inside = 0

    @contextmanager
    def __call__(self):
        with self.lock:
            before = torch.get_num_threads()
            if not self.n_inside:
                self.outside = before
            self.n_inside += 1
            torch.set_num_threads(1)
        try:
            yield
        finally:
            with self.lock:
                self.n_inside -= 1
                torch.set_num_threads(before if self.n_inside else self.outside)


one_thread = OneThread()


@one_thread()
def column_scale(X):
    """Standard deviation of each column, positive for one that does not vary too."""
    # One after another: together they would take several times the memory of a large table.
    return np.array([weighted_moments(torch.tensor(column[:, None]))[1].item() for column in X.T])


def on_cpu(flow):
    """The flow itself if it is on the CPU, else a copy there."""
    return flow if device_of(flow).type == "cpu" else copy.deepcopy(flow).cpu()


def device_of(flow):
    """Where a flow's tensors are."""
    return next(flow.buffers(), torch.empty(0)).device


@contextmanager
def threads_for(n_tasks):
    """A ``map`` in this context that shares tasks among as many threads as torch may use.

    Passes over a chunk are too small for torch to share out: each has a thread to itself.
    """
    n_threads = min(torch.get_num_threads(), n_tasks)
    if n_threads <= 1:
        yield map
        return
    with one_thread(), ThreadPoolExecutor(n_threads) as pool:
        yield pool.map


def map_rows(flow, direction, rows):
    """Apply a method of a flow to rows in chunks; its outputs as float64 arrays."""
    device = device_of(flow)
    is_cpu = device.type == "cpu"
    in_small_steps = flow.in_small_steps(direction == "inverse")
    larger = 32 if not is_cpu else LARGER if in_small_steps else 1
    most = min(VALUES_PER_CHUNK // rows.shape[1], ROWS_PER_CHUNK) * larger
    size = max(1, most // getattr(flow, "n_passes", 1))

    def outputs(start):
        # Torch's threads would save a sixth of many rows on an idle machine, and nothing of few,
        # but take up to 70 times as long on a busy one.
        with one_thread() if is_cpu else nullcontext(), torch.inference_mode():
            chunk = torch.tensor(rows[start : start + size], dtype=torch.float64, device=device)
            with unwatched(chunk):
                found = getattr(flow, direction)(chunk)
            found = found if isinstance(found, tuple) else (found,)
            return [tensor.contiguous().cpu().numpy() for tensor in found]

    if len(rows) <= size:
        return outputs(0)
    starts = range(0, len(rows), size)
    whole = None
    with threads_for(len(starts) if is_cpu and not in_small_steps else 1) as over:
        for start, parts in zip(starts, over(outputs, starts), strict=True):
            if whole is None:  # not joined at the end, which would take the memory twice
                whole = [np.empty((len(rows), *part.shape[1:])) for part in parts]
            for array, part in zip(whole, parts, strict=True):
                array[start : start + size] = part
    return whole
