"""The threads of fits, and of answers about small parts of a table."""

import math
import sys
from contextlib import contextmanager, nullcontext
from functools import lru_cache, wraps

import numpy as np
from threadpoolctl import ThreadpoolController

from ..nn.fork import is_forked
from ..preprocessing import sklearn_compat

MIN_SHARED_VALUES = 1e6  # of a table whose fit may use several threads


def few_threads(X):
    """Return a context for work on a table: one thread in torch, BLAS and OpenMP if it is small.

    Threads that wait for each other at every small operation gain nothing on an idle machine, and
    on a busy one they slow a fit down tenfold. The limits hold for the whole process until the
    context ends, except that `suitable_threads` gives large passes of torch its threads back.
    """
    try:
        n_values = math.prod(X.shape if hasattr(X, "shape") else np.asarray(X).shape)
    except (TypeError, ValueError):  # no table, which validation rejects
        n_values = 0
    if n_values >= MIN_SHARED_VALUES and not is_forked():
        return nullcontext()
    return _one_thread()


def _one_thread():
    from .torch_state import one_thread

    return one_thread(thread_pools(len(sys.modules)))


def in_one_thread(function):
    """Return a function that works on small arrays, in one thread of torch, BLAS and OpenMP.

    On a busy machine, threads that wait for each other make answers five times as long.
    """

    @wraps(function)
    def run(*args, **kwargs):
        with _one_thread():
            return function(*args, **kwargs)

    return run


@lru_cache(maxsize=1)
def thread_pools(n_modules):
    """Return the libraries with threads, which are looked for anew after a further import."""
    pools = ThreadpoolController().lib_controllers
    return [pool for pool in pools if pool.num_threads is not None]


@contextmanager
def one_thread_if_forked():
    """Use one thread of torch in this context if this process was forked."""
    if not is_forked():
        yield
        return
    from .torch_state import one_thread

    with one_thread():
        yield


def fit_context(*, prefer_skip_nested_validation):
    """Return scikit-learn's decorator of `fit`; its small fits use one thread."""

    def decorate(fit):
        @wraps(fit)
        def fit_in_few_threads(estimator, *args, **kwargs):
            with few_threads(args[0] if args else kwargs.get("X")):
                return fit(estimator, *args, **kwargs)

        context = sklearn_compat.fit_context(
            prefer_skip_nested_validation=prefer_skip_nested_validation
        )
        return context(fit_in_few_threads)

    return decorate
