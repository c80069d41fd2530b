"""Torch's threads in a forked process."""

from contextlib import contextmanager

from ..training.fork import is_forked


@contextmanager
def fork_safe():
    """Use one thread in this context if the process was forked."""
    if not is_forked():
        yield
        return
    from ..training.torch_state import one_thread

    with one_thread():
        yield
