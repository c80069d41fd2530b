"""Torch's global state in a fit: device, seed, gradients and threads."""

import os
import threading
import warnings
from contextlib import ExitStack, contextmanager

import torch

from .fork import is_forked

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

    filepath = "torch"
    num_threads = property(lambda self: torch.get_num_threads())
    set_num_threads = staticmethod(torch.set_num_threads)


class OneThread:
    """Contexts in which torch uses one thread, as do threads that begin in one.

    The number of threads is global. If contexts of several threads overlap, the last one to end
    restores what the first one found.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.torch = TorchPool()
        self.n_inside = 0
        self.outside = {}

    @contextmanager
    def __call__(self, pools=()):
        """Use one thread in this context, also in further libraries of threadpoolctl."""
        pools = [self.torch, *pools]
        with self.lock:
            before = [pool.num_threads for pool in pools]
            if not self.n_inside:
                self.outside = {}
            for pool, n in zip(pools, before, strict=True):
                self.outside.setdefault(pool.filepath, n)
            self.n_inside += 1
            for pool in pools:
                pool.set_num_threads(1)
        try:
            yield
        finally:
            with self.lock:
                self.n_inside -= 1
                # Torch comes last, because its OpenMP is among the libraries.
                for pool, n in zip(reversed(pools), reversed(before), strict=True):
                    pool.set_num_threads(n if self.n_inside else self.outside[pool.filepath])

    @contextmanager
    def lifted(self):
        """Let torch use the threads that it has outside of all these contexts."""
        with self.lock:
            before = self.torch.num_threads
            self.torch.set_num_threads(self.outside["torch"] if self.n_inside else before)
        try:
            yield
        finally:
            self.torch.set_num_threads(before)

    def after_fork(self):
        """Let contexts that end in a forked process leave it with one thread."""
        self.lock = threading.Lock()  # a thread that is gone may have held it
        self.outside = dict.fromkeys(self.outside, 1)


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
    is_small = work < MIN_SHARED_WORK or module.is_sequential()
    was_forked = is_forked()
    if was_forked and not is_small:
        warnings.warn(
            "This process was forked, and torch's threads do not survive a fork: the fit uses one "
            'thread. To use more, start processes by "spawn", or by joblib\'s default.',
            stacklevel=2,
        )
    with one_thread() if is_small or was_forked else one_thread.lifted():
        yield
