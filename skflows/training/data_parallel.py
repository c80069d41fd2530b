"""Processes that train one model together, each on its part of the rows.

Every process makes the same steps from the same weights: gradients and losses are summed over the
processes, and the first process decides for all of them where the clock or a callback matters.
"""

import pickle
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import distributed

from ..callbacks._fingerprint import fingerprint
from ..callbacks._run import clock


class SingleProcess:
    """A single process: sums and decisions need no other."""

    size, rank = 1, 0

    def sum(self, tensor):
        """Return the sum of a tensor over all processes."""
        return tensor

    def mean(self, value, weight):
        """Return the mean of a value over all processes, by the weight of each of them."""
        return value

    def step(self, losses, gradients, count):
        """Return the sums of losses, the gradients and the count of a step over all rows."""
        return losses, gradients, count

    def broadcast(self, value):
        """Return the value of the first process."""
        return value

    def clock(self):
        """Return the time in seconds in the first process."""
        return self.broadcast(clock())

    def split_generators(self, generators):
        """Seed generators differently in each process, from a draw of the first one."""

    def file(self, file):
        """Return the checkpoint of a training, from which all processes continue."""
        return file

    def n_rows(self, rows):
        """Return the number of rows of all processes."""
        return len(rows)

    def local_rows(self, *tables, encode=None):
        """Return the part of each table that this process trains on.

        Parameters
        ----------
        *tables : tuple of ndarray, or None
            Rows, in one array or several, and their weights in the last one.
        encode : callable, optional
            ``encode(X)`` returns the arrays of rows that are given as to `fit`.
        """
        return tables

    def check_same(self, *values):
        """Raise an error in every process if one of them has other values."""


SINGLE_PROCESS = SingleProcess()
_GROUP: ContextVar[SingleProcess | None] = ContextVar("group", default=None)


class Group(SingleProcess):
    """Processes of `torch.distributed` that have the same table and train on a part of it each.

    Parameters
    ----------
    processes : ProcessGroup or Backend
        They communicate through it.
    device : str, default="cpu"
        Device of the tensors that they exchange.
    """

    def __init__(self, processes, device="cpu"):
        self.processes = processes
        self.device = device
        self.size, self.rank = processes.size(), processes.rank()

    def sum(self, tensor):
        total = tensor.detach().to(self.device, copy=True).contiguous()
        self._communicate("allreduce", total)
        return total.to(tensor.device)

    def _communicate(self, collective, tensor):
        """Let all processes work on a tensor in place; raise an error if one is gone."""
        if self.processes is None:
            raise ConnectionError("The training was stopped.")
        try:
            getattr(self.processes, collective)([tensor]).wait()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ConnectionError(
                f"A process that trains with this one ended, or did not answer in time: {reason}"
            ) from error

    def mean(self, value, weight):
        value = torch.as_tensor(value, dtype=torch.float64)
        weight = weight.double().cpu()
        # A process without rows has a mean of NaN.
        parts = torch.stack([torch.where(weight > 0, weight * value, 0.0), weight.expand_as(value)])
        total, weight = self.sum(parts)
        return (total / weight).tolist()

    def step(self, losses, gradients, count):
        # Each gradient is a mean over the rows of its process.
        weights = count.unsqueeze(-1)
        parts = [g.reshape(*count.shape, -1) for g in gradients]
        columns = [weights, *(loss.unsqueeze(-1) for loss in losses.values())]
        columns += [part * weights for part in parts]
        sizes = [column.shape[-1] for column in columns]
        dtype = gradients[0].dtype
        flat = self.sum(torch.cat([column.to(dtype) for column in columns], -1))
        total, *reduced = flat.split(sizes, -1)
        sums = {name: sum_.squeeze(-1) for name, sum_ in zip(losses, reduced, strict=False)}
        reduced = [part / total.clamp(min=1) for part in reduced[len(losses) :]]
        return sums, reduced, total.squeeze(-1).to(count.dtype)

    def broadcast(self, value):
        content = np.frombuffer(pickle.dumps(value), dtype=np.uint8).copy()
        size = self._broadcast_tensor(torch.tensor([len(content)]))
        if self.rank:
            content = np.empty(int(size), dtype=np.uint8)
        return pickle.loads(self._broadcast_tensor(torch.from_numpy(content)).numpy().tobytes())

    def _broadcast_tensor(self, tensor):
        tensor = tensor.to(self.device)
        self._communicate("broadcast", tensor)
        return tensor.cpu()

    def split_generators(self, generators):
        seed = self.broadcast(int(torch.randint(2**62, (), generator=generators[0])))
        if self.rank:
            for i, generator in enumerate(dict.fromkeys(generators)):
                generator.manual_seed(seed + i * self.size + self.rank)

    def file(self, file):
        return SharedFile(self, file)

    def local_rows(self, *tables, encode=None):
        share = slice(self.rank, None, self.size)
        return tuple(None if table is None else tuple(a[share] for a in table) for table in tables)

    def check_same(self, *values):
        digest = fingerprint(*values)
        if self.sum(torch.tensor(int(self.broadcast(digest) != digest))):
            raise ValueError(
                f"The {self.size} processes of torch.distributed were given different tables or "
                "parameters; give the same rows, weights, parameters and seed to each, which takes "
                "its share of the rows, or use skflows.dask.DaskDensity for a table in parts."
            )


class SharedFile:
    """The checkpoint of the first process, if it has one, from which all processes continue."""

    def __init__(self, group, file):
        self.group = group
        self.file = None if group.rank else file

    def load(self):
        """Return what the first process has stored, or None."""
        return self.group.broadcast(None if self.file is None else self.file.load())

    def save(self, phase, state, is_over):
        """Store the result of ``state()`` in the first process."""
        if self.file is not None:
            self.file.save(phase, state, is_over)


@contextmanager
def in_group(group):
    """Train together with the processes of a group in this context."""
    token = _GROUP.set(group)
    try:
        yield
    finally:
        _GROUP.reset(token)


def current_group():
    """Return the group of this context, or the `torch.distributed` group if it is initialised."""
    group = _GROUP.get()
    if group is not None:
        return group
    if not (distributed.is_available() and distributed.is_initialized()):
        return SINGLE_PROCESS
    is_nccl = distributed.get_backend() == "nccl"
    return Group(distributed.group.WORLD, "cuda" if is_nccl else "cpu")
