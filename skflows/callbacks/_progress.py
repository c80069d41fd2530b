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
# Whether fits print lines; "auto": see `is_watched`.
LINES: ContextVar[bool | str] = ContextVar("lines", default="auto")


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
def with_lines(are_printed):
    """Let fits in this context print lines, or none, whoever waits: a command has its own rules."""
    token = LINES.set(are_printed)
    try:
        yield
    finally:
        LINES.reset(token)


class Progress:
    """What a fit with several components prints, besides lines after ten seconds.

    Parameters
    ----------
    estimator : estimator
        With ``verbose``: "auto" prints how long a long fit takes, for a person who waits, and a
        number above 0 prints a line for each component.
    has_lines : bool
        Whether the fit prints lines after ten seconds.
    """

    def __init__(self, estimator, has_lines):
        self.prints = prints(estimator)
        self.announces = has_lines and LINES.get() == "auto"  # a command has told the time

    def announce(self, seconds, text):
        """Print how long the fit takes, by a function that returns the text."""
        if self.prints:
            print(text())
        elif self.announces and seconds > FIRST_LINE:
            print(f"skflows: {text()} (verbose=False prints no progress)", file=sys.stderr)

    def end(self, name, result):
        """Print the result of a component."""
        if self.prints:
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


def is_watched(estimator, context=None):
    """Return whether a fit, or another method, which has no context, prints lines if "auto".

    It does at a terminal or in a notebook, where a person who waits sees them, unless it is one of
    several fits of an estimator with callbacks, such as a search, or runs in another thread or
    process.
    """
    if any(verbose != "auto" for verbose in verbosities(estimator)):
        return False
    is_seen = LINES.get()
    if is_seen == "auto":
        is_notebook = type(sys.stderr).__module__.startswith("ipykernel")
        is_seen = is_notebook or getattr(sys.stderr, "isatty", bool)()
    is_first = multiprocessing.parent_process() is None
    in_main = threading.current_thread() is threading.main_thread()
    while (context := getattr(context, "parent", None)) is not None:
        is_pipeline = getattr(context, "estimator_name", "") == "Pipeline"
        if not is_pipeline and getattr(context, "max_subtasks", None) != 1:
            return False
    return is_seen and is_first and in_main
