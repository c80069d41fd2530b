"""Torch's global state in a fit: device, seed, gradients and threads."""

import threading
import warnings
from contextlib import ExitStack, contextmanager, nullcontext

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


class OneThread:
    """Contexts in which torch uses one thread, as do threads that begin in one.

    The number of threads is global. If contexts of several threads overlap, the last one to end
    restores what the first one found.
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
    with one_thread() if is_small or was_forked else nullcontext():
        yield
