"""How long the fit of a table's density takes, which is said before it begins."""

from math import ceil
from time import perf_counter, thread_time

from ..callbacks._progress import FIRST_LINE
from ..ensemble._folds import N_FOLDS

# Of one core, by the tables of the user guide. Small tables take less than LEAST_SECONDS.
LEAST_SECONDS, VALUES_PER_SECOND = 20, 1_500
SECONDS_OF_SMALL, VALUES_OF_SMALL = 5, 200  # the latter for each further second
SHARE_OF_NETWORKS = 0.4  # of the time, with an automatic number of epochs
MOST_TIMES = 3  # as many epochs as that: networks stop when they no longer improve
SECONDS_OF_A_LOOK = 0.1  # at how busy the machine is, before a fit that prints lines
FREE = 0.6  # share of a core above which nothing is said
LEAST_SHARE = 0.05  # clocks have steps


def expected_duration(density, n_rows, n_columns):
    """Return about how many seconds of one core a fit takes, with its epochs and time limit."""
    from ._components import MAX_ROWS, ROWS_WITH_FOLDS, automatic_epochs

    n_values = min(n_rows, MAX_ROWS) * n_columns
    small = SECONDS_OF_SMALL + n_values / VALUES_OF_SMALL
    seconds = min(small, LEAST_SECONDS) + n_values / VALUES_PER_SECOND
    if density.max_iter != "auto":
        n_folds = N_FOLDS if n_rows <= ROWS_WITH_FOLDS else 1
        times = density.max_iter / automatic_epochs(n_rows, n_folds)
        seconds *= 1 - SHARE_OF_NETWORKS + SHARE_OF_NETWORKS * min(times, MOST_TIMES)
    return seconds if density.time_limit is None else min(seconds, density.time_limit)


def said(seconds, time_limit=None):
    """Return a number of seconds, rounded up, as a text.

    A long fit takes longer where other programs run, unless its time limit ends it.
    """
    busy = ""
    if seconds >= FIRST_LINE and seconds != time_limit and (share := free_share()) < FREE:
        busy = f"; while other programs run as now, {1 / share:.0f} times as long"
    if seconds > 90:
        return f"about {ceil(seconds / 60)} minutes on one core{busy}"
    return f"about {5 * ceil(seconds / 5)} seconds on one core{busy}"


def free_share():
    """Return the share of a core that this thread gets now."""
    start, used = perf_counter(), thread_time()
    while (seconds := perf_counter() - start) < SECONDS_OF_A_LOOK:
        pass
    return max((thread_time() - used) / seconds, LEAST_SHARE)
