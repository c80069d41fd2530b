"""Values that wrap around, such as angles and times of the day."""

import numpy as np


def wrapped(y, start, period):
    """Return values within a period from a start; an infinite period changes nothing."""
    with np.errstate(invalid="ignore"):
        inside = start + np.mod(y - start, period)
        inside = np.where(inside >= start + period, start, inside)  # a rounding error of mod
        return np.where(np.isfinite(period), inside, y)


def emptiest_angle(values, period):
    """Return the middle of the widest gap between angles: where a circle is best cut open."""
    ordered = np.sort(np.mod(values, period))
    gaps = np.diff(np.append(ordered, ordered[0] + period))
    widest = int(np.argmax(gaps))
    return float(np.mod(ordered[widest] + gaps[widest] / 2, period))
