"""How long the fit of a table's density takes, which is said before it begins."""

from math import ceil

# Of one core, measured at 1,000 to 60,000 values.
LEAST_SECONDS, VALUES_PER_SECOND = 12, 3_500


def expected_seconds(n_values, n_densities=1):
    """Return about how many seconds of one core densities of all parts of a table take."""
    return n_densities * LEAST_SECONDS + n_values / VALUES_PER_SECOND


def said(seconds):
    """Return a number of seconds as a text, as precise as it is known."""
    if seconds > 90:
        return f"about {ceil(seconds / 60)} minutes on one core"
    return f"about {5 * round(seconds / 5)} seconds on one core"
