"""Forked processes, in which the threads of the parent are gone.

OpenMP, which torch and scikit-learn use, would wait for the threads of the parent for ever. What
skflows does in such a process uses one thread; the process itself keeps its settings.
"""

import multiprocessing
import os

# The hook comes too late for a process that was forked before; only multiprocessing tells.
_was_forked = type(multiprocessing.current_process()).__name__ == "ForkProcess"


def _record():
    global _was_forked
    _was_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_record)


def is_forked():
    """Return whether this process was forked, as far as is known."""
    return _was_forked
