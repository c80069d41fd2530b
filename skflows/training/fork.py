"""Forked processes, in which the threads of the parent are gone."""

import multiprocessing
import os
from contextlib import contextmanager

_was_forked = False


def _remember():
    global _was_forked
    _was_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember)


def is_forked():
    """Return whether this process was forked, so that torch would wait for threads for ever.

    A fork before this module was imported is seen only if `multiprocessing` made it.
    """
    process = multiprocessing.current_process()
    return _was_forked or type(process).__name__ == "ForkProcess"


@contextmanager
def fork_safe():
    """Use one thread in this context if the process was forked."""
    if not is_forked():
        yield
        return
    from .torch_state import one_thread

    with one_thread():
        yield
