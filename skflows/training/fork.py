"""Forked processes, in which the threads of the parent are gone."""

import multiprocessing
import os

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
