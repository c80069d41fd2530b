"""The probability of values that do not fit the kind of a column."""

import numpy as np

from ..calibration.thresholds import weighted_percentile

SHARE, ROWS = 0.01, 2  # of the probability, as if so many of a few rows had been outside
FARTHEST = 1e300  # scales: farther values would overflow


def outside_share(n_rows, n_seen_once=0.0):
    """Return the probability that the next value is outside of what the rows of a fit show.

    It is the share of values that occur once, after Good and Turing, with a little added: no row of
    the fit is outside of a kind, so for numbers there is only what is added.

    Parameters
    ----------
    n_rows : float
        Weight of the rows with a known value.
    n_seen_once : float, default=0.0
        Weight of the rows whose category no other row has.

    References
    ----------
    Good, "The Population Frequencies of Species and the Estimation of Population Parameters", 1953.
    """
    return (n_seen_once + SHARE) / (n_rows + ROWS)


class Outside:
    """Probabilities of numbers outside of a kind that was inferred from other numbers.

    Between the points of a lattice, a part of the probability of each point is spread evenly over
    its cell. Beyond each bound, the density is half a Cauchy density.

    Parameters
    ----------
    share : float
        The probability of numbers between points, and of numbers beyond bounds; 0 makes them
        impossible.
    low, high : float
        Bounds, infinite if there are none.
    step : float or None
        Distance of the points of a lattice.
    scale : float
        Scale of the Cauchy density.
    """

    def __init__(self, share, low, high, step, scale):
        self.share, self.step, self.scale = share, step, scale
        # The first and last point of a lattice are possible, the bounds of a density are not.
        margin = 0.0 if step is None else step / 2
        self.low, self.high = low - margin, high + margin
        self.n_ends = int(np.isfinite([low, high]).sum())

    @property
    def log_inside(self):
        """Logarithm of the probability of all numbers that fit the kind."""
        return np.log1p(-self.share * ((self.step is not None) + (self.n_ends > 0)))

    @property
    def log_between(self):
        """Logarithm of the density between points, relative to the probability of the nearest."""
        with np.errstate(divide="ignore"):
            return np.log(self.share) - np.log(self.step)

    def is_beyond(self, x):
        """Return which numbers are beyond a bound."""
        if self.step is None:
            return (x <= self.low) | (x >= self.high)
        return (x < self.low) | (x > self.high)

    def is_inferred_bound(self, x):
        """Return which numbers are a bound, of a kind that makes none impossible."""
        return ((x == self.low) | (x == self.high)) & (self.share > 0)

    def log_beyond(self, x):
        """Return the log-density of numbers beyond a bound."""
        with np.errstate(over="ignore", divide="ignore"):
            distance = np.maximum(self.low - x, x - self.high) / self.scale
            log_share = np.log(self.share / max(self.n_ends, 1)) - np.log(self.scale)
        distance = np.minimum(distance, FARTHEST)
        return log_share + np.log(2 / np.pi) - 2 * np.log(np.hypot(1.0, distance))


def scale_of(x, weight, step=None):
    """Return half the interquartile range of weighted numbers, or more where that is 0."""
    quarters = [weighted_percentile(x, weight, rank) for rank in (25, 75)]
    scale = np.ptp(quarters) / 2 or np.ptp(x) or 1.0
    return float(scale if step is None else max(scale, step))
