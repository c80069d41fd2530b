"""How long the fit of a table's density takes, which is said before it begins."""

from math import ceil

# Of one core, by the tables of the user guide. Small tables take less than LEAST_SECONDS.
LEAST_SECONDS, VALUES_PER_SECOND = 20, 1_500
SECONDS_OF_SMALL, VALUES_OF_SMALL = 5, 200  # the latter for each further second


def expected_duration(density, n_rows, n_columns, n_densities=1):
    """Return about how many seconds of one core a fit takes, None if parameters limit it.

    Several densities are fitted to a part of the rows each.
    """
    from ._components import MAX_ROWS

    if density.time_limit is not None or density.max_iter != "auto":
        return None
    n_values = min(n_rows, n_densities * MAX_ROWS) * n_columns
    small = SECONDS_OF_SMALL + n_values / n_densities / VALUES_OF_SMALL
    return n_densities * min(small, LEAST_SECONDS) + n_values / VALUES_PER_SECOND


def said(seconds):
    """Return a number of seconds, rounded up, as a text."""
    if seconds > 90:
        return f"about {ceil(seconds / 60)} minutes on one core"
    return f"about {5 * ceil(seconds / 5)} seconds on one core"
