"""Lines that say how far a fit is, for a person who waits for it."""

import multiprocessing
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

from ..preprocessing.sklearn_compat import StrOptions

VERBOSE = [StrOptions({"auto"}), "verbose"]  # values of the parameter
FIRST_LINE = 10  # seconds after which a fit says how far it is
HAS_LINES = ContextVar("has_lines", default=True)


class Lines:
    """Lines on stderr after ten seconds, and at twice each time before: an hour has ten lines."""

    def __init__(self):
        self.start = monotonic()
        self.due = float(FIRST_LINE)

    def print(self, n, total, what):
        """Print how many parts of a fit are done, of all if their number is known, when due."""
        seconds = monotonic() - self.start
        if seconds >= self.due:
            self.due = 2 * seconds
            of = f" of {total}" if total else ""
            print(f"skflows: {n}{of} {what} after {seconds:.0f} s", file=sys.stderr)


@contextmanager
def no_lines():
    """Let fits in this context print no lines by themselves: the caller shows their progress."""
    token = HAS_LINES.set(False)
    try:
        yield
    finally:
        HAS_LINES.reset(token)


class Progress:
    """What a fit with several components prints, besides lines after ten seconds.

    Parameters
    ----------
    estimator : estimator
        With ``verbose``: "auto" prints how long a long fit takes, for a person who waits, and a
        number above 0 prints a line for each component.
    context : sklearn.callback.CallbackContext
        The context of the fit.
    """

    def __init__(self, estimator, context):
        self.is_automatic = estimator.verbose == "auto"
        self.is_shown = prints(estimator) or is_watched(estimator, context)

    def announce(self, seconds, text):
        """Print how long the fit takes."""
        if not self.is_shown:
            return
        if not self.is_automatic:
            print(text)
        elif seconds > FIRST_LINE:
            print(f"skflows: {text} (verbose=False prints no progress)", file=sys.stderr)

    def end(self, name, result):
        """Print the result of a component."""
        if self.is_shown and not self.is_automatic:
            print(f"{name}: {result}")


def verbosities(estimator):
    """Return the parameter ``verbose`` of an estimator, or else of the ones inside it."""
    if hasattr(estimator, "verbose"):
        return [estimator.verbose]
    params = estimator.get_params()
    return [value for name, value in params.items() if name.endswith("__verbose")]


def prints(estimator):
    """Return whether the parameter ``verbose`` of an estimator asks for lines at once."""
    return estimator.verbose not in (0, "auto")


def is_watched(estimator, context):
    """Return whether a person who waits for this fit, with ``verbose="auto"``, sees lines.

    They do at a terminal or in a notebook, unless the fit is one of several of an estimator with
    callbacks, such as a search, or runs in another thread or process.
    """
    if any(verbose != "auto" for verbose in verbosities(estimator)):
        return False
    is_notebook = type(sys.stderr).__module__.startswith("ipykernel")
    is_seen = is_notebook or getattr(sys.stderr, "isatty", bool)()
    is_first = multiprocessing.parent_process() is None
    in_main = threading.current_thread() is threading.main_thread()
    while (context := context.parent) is not None:
        is_pipeline = getattr(context, "estimator_name", "") == "Pipeline"
        if not is_pipeline and getattr(context, "max_subtasks", None) != 1:
            return False
    return is_seen and is_first and in_main and HAS_LINES.get()
