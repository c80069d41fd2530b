"""Torch's global state in a fit: device, seed, gradients and threads."""

import os
import threading
import warnings
from contextlib import ExitStack, contextmanager

import torch

from ..nn.fork import is_forked

# Torch has one random state for all threads: fits in threads take turns.
RNG_LOCK = threading.RLock()
MIN_SHARED_WORK = 1e8  # rows times weights of a pass that gains from a second thread


def resolve_device(name):
    """Return the torch device that the parameter ``device`` asks for."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # fails on "meta", which has no values
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        known = 'choose "auto", "cpu", "cuda" or "mps"'
        if "Expected one of" in reason:  # a list of twenty kinds of devices
            raise ValueError(f"device={name!r} is not a device of torch: {known}.") from error
        raise ValueError(
            f'device={name!r} cannot be used here ({reason}); "auto" and "cpu" always work.'
        ) from error
    return device


@contextmanager
def torch_seed(seed, device):
    """Seed torch in this context, and leave the caller's random state as it was."""
    on_cuda = device.type == "cuda"
    with RNG_LOCK, torch.random.fork_rng(devices=[device] if on_cuda else []):
        # Not torch.manual_seed, which seeds devices whose state nobody saved.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def device_random_state(device):
    """Return the state of torch's generator on an accelerator; None on the CPU."""
    if device.type == "cpu":
        return None
    return torch.mps.get_rng_state() if device.type == "mps" else torch.cuda.get_rng_state(device)


def set_device_random_state(device, state):
    """Set what `device_random_state` returned."""
    if device.type == "mps":
        torch.mps.set_rng_state(state)
    elif device.type != "cpu":
        torch.cuda.set_rng_state(state, device)


@contextmanager
def gradients_enabled():
    """Enable gradients at full precision in this context, whatever the caller's torch state.

    A caller who extracts features without gradients, or with autocast, may fit a density there.
    """
    devices = {"cpu", "cuda"} if torch.cuda.is_available() else {"cpu"}
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


class TorchPool:
    """The threads of torch, with the methods of a library of threadpoolctl."""

    filepath = threading_layer = "torch"
    num_threads = property(lambda self: torch.get_num_threads())
    set_num_threads = staticmethod(torch.set_num_threads)


def set_threads(pool, n):
    """Set the number of threads of a library."""
    pool.set_num_threads(n)
    # The first thread to set OpenBLAS would keep other threads from setting it.
    if hasattr(pool, "clear_controlling_thread"):
        pool.clear_controlling_thread()


class OneThread:
    """Contexts in which torch, and further libraries, use one thread.

    OpenMP has a number for each Python thread: a context restores what it found. OpenBLAS has one
    number for the process: it stays 1 until the last of all contexts ends. Torch has one for each
    Python thread, and one for those that begin later: the last context restores what the first one
    found, in case its own thread began between them.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.torch = TorchPool()
        self.contexts = {}  # thread and libraries of each context that has not ended
        self.outside = {}  # numbers of threads outside of all contexts

    def __call__(self, pools=()):
        """Use one thread in this context, also in further libraries of threadpoolctl."""
        # Torch is set first and restored last, because its OpenMP is among the libraries.
        return self._context([self.torch, *pools], 1)

    def lifted(self):
        """Let torch use the threads that it has outside of all these contexts."""
        return self._context([self.torch])

    @contextmanager
    def _context(self, pools, n_threads=None):
        context, before = object(), []
        try:
            with self.lock:
                for pool in pools:
                    n = pool.num_threads
                    if not self._is_held(pool):
                        self.outside[pool.filepath] = n
                    before.append((pool, n))
                    set_threads(pool, n_threads or self.outside[pool.filepath])
                self.contexts[context] = threading.get_ident(), {pool.filepath for pool in pools}
            yield
        finally:
            with self.lock:
                self.contexts.pop(context, None)
                for pool, n in reversed(before):
                    self._restore(pool, n)

    def _is_held(self, pool):
        """Return whether a library is in a context that has not ended."""
        return any(pool.filepath in paths for _, paths in self.contexts.values())

    def _restore(self, pool, n):
        """Restore the number of threads that a context found."""
        layer = getattr(pool, "threading_layer", None)
        if layer in ("torch", "pthreads") and not self._is_held(pool):
            n = self.outside[pool.filepath]
        elif layer == "pthreads":
            n = 1
        set_threads(pool, n)

    def after_fork(self):
        """Forget the contexts of threads that a forked process does not have."""
        self.lock = threading.Lock()  # one of them may have held it
        thread = threading.get_ident()
        self.contexts = {key: value for key, value in self.contexts.items() if value[0] == thread}


one_thread = OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_thread.after_fork)


@contextmanager
def suitable_threads(module, n_rows):
    """Use one thread in this context if passes of so many rows, or their steps, are small.

    Threads that wait for each other at every small operation gain nothing on an idle machine, and
    on a busy one they slow a fit down a hundredfold.
    """
    work = n_rows * sum(p.numel() for p in module.parameters())
    is_sequential = hasattr(module, "is_sequential") and module.is_sequential()
    is_small = work < MIN_SHARED_WORK or is_sequential
    was_forked = is_forked()
    if was_forked and not is_small:
        warnings.warn(
            "This process was forked, and torch's threads do not survive a fork: the fit uses one "
            'thread. To use more, start processes by "spawn", or by joblib\'s default.',
            stacklevel=2,
        )
    with one_thread() if is_small or was_forked else one_thread.lifted():
        yield
