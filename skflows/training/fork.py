"""Forked processes, in which the threads of the parent are gone."""

import multiprocessing
import os
import sys

from threadpoolctl import ThreadpoolController

_was_forked = False


def _use_one_thread():
    """Use one thread from now on, because this process was forked.

    OpenMP, which torch and scikit-learn use, would wait for the threads of the parent forever.
    """
    global _was_forked
    _was_forked = True
    ThreadpoolController().select(user_api="openmp").limit(limits=1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)
# The hook comes too late for a process that was forked before; only multiprocessing tells.
if type(multiprocessing.current_process()).__name__ == "ForkProcess":
    _use_one_thread()


def is_forked():
    """Return whether this process was forked, as far as is known."""
    return _was_forked
