"""Lines that say how far a fit is, for a person who waits for it."""

import multiprocessing
import sys
import threading
from time import monotonic

FIRST_LINE = 10  # seconds after which a fit says how far it is


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


class Progress:
    """What a fit with several components prints.

    Parameters
    ----------
    estimator : estimator
        With ``verbose``: "auto" prints how long a long fit takes and how far it is, for a person
        who waits, and a number above 0 prints a line for each component.
    context : sklearn.callback.CallbackContext
        The context of the fit.
    """

    def __init__(self, estimator, context):
        self.is_automatic = estimator.verbose == "auto"
        self.is_shown = is_watched(context) if self.is_automatic else bool(estimator.verbose)
        self.lines = Lines()

    def announce(self, seconds, text):
        """Print how long the fit takes."""
        if not self.is_shown:
            return
        if not self.is_automatic:
            print(text)
        elif seconds > FIRST_LINE:
            print(f"skflows: {text} (verbose=False prints no progress)", file=sys.stderr)

    def end(self, n, total, name, result):
        """Print the result of a component, or how many of all are done."""
        if not self.is_shown:
            return
        if self.is_automatic:
            self.lines.print(n, total, "components")
        else:
            print(f"{name}: {result}")


def is_watched(context):
    """Return whether a person who waits for this fit sees what it prints.

    They do at a terminal or in a notebook, unless the fit is a part of another one, such as a
    search, or runs in another thread or process.
    """
    is_notebook = type(sys.stderr).__module__.startswith("ipykernel")
    is_seen = is_notebook or getattr(sys.stderr, "isatty", bool)()
    is_first = multiprocessing.parent_process() is None
    in_main = threading.current_thread() is threading.main_thread()
    return is_seen and is_first and in_main and context.parent is None
