"""The distribution function of a normal, and its mass in an interval."""

import numpy as np
from scipy import special

from ..nn.fork import is_forked

NARROW = 3e-3  # standard deviations below which the density in a cell is nearly linear
FAR = 35.0  # standard deviations beyond which the distribution function may be 0 or 1
LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
SQRT_HALF = np.sqrt(0.5)


def erfc(x):
    """Return the complementary error function, several times as fast as SciPy."""
    if is_forked():  # where torch would wait for threads of the parent
        return special.erfc(x)
    import torch  # which the import of skflows leaves out

    return torch.special.erfc(torch.from_numpy(x)).numpy()


def normal_cdf(x):
    """Return the distribution function of a standard normal."""
    return erfc(x * -SQRT_HALF) / 2


def normal_mass(middle, below, above):
    """Return the mass of a standard normal in cells, 0 if they are far out.

    Parameters
    ----------
    middle : ndarray of shape (n,) or (n, k)
        Middles of the cells.
    below, above : ndarray of shape (n,), (n, 1) or (n, k)
        Distances of the ends from the middles: equal ones, or infinite for all k.
    """
    is_first, is_last = (np.isinf(ends.reshape(len(middle), -1)[:, 0]) for ends in (below, above))
    # In the upper tail, where differences of the complementary function keep their digits.
    near = np.abs(middle)
    near[is_first] = -middle[is_first]
    near[is_last] = middle[is_last]
    near *= SQRT_HALF
    upper = near + np.maximum(below, above) * SQRT_HALF
    near -= np.minimum(below, above) * SQRT_HALF
    mass = erfc(near)
    mass -= erfc(upper)
    mass *= 0.5
    return mass


def log_normal_mass(low, middle, high, means, scales):
    """Return the log-mass of normals between ends, or their log-density where these are equal."""
    log_density = -0.5 * ((middle - means) / scales) ** 2 - LOG_SQRT_2PI - np.log(scales)
    is_cell = high > low
    if not is_cell.any():
        return log_density
    a, b = (low - means) / scales, (high - means) / scales
    width = (high - low) / scales
    # In the upper tail, where differences of the complementary function keep their digits.
    with np.errstate(invalid="ignore"):
        middle = np.abs(a + b) / 2
        near, far = middle - width / 2, middle + width / 2
    if (is_open := np.isinf(width)).any():  # such a cell may be the whole line
        near, far = (
            np.where(is_open, np.where(np.isinf(low), -b, a), near),
            np.where(is_open, np.inf, far),
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        mass = np.log((erfc(near * SQRT_HALF) - erfc(far * SQRT_HALF)) / 2)
        if (is_far := near > FAR).any():
            nearer, farther = special.log_ndtr(-near[is_far]), special.log_ndtr(-far[is_far])
            mass[is_far] = nearer + np.log(-np.expm1(farther - nearer))
        if (is_narrow := width < NARROW).any():
            narrow = np.log(width) - LOG_SQRT_2PI - middle**2 / 2 + (middle**2 - 1) * width**2 / 24
            mass = np.where(is_narrow, narrow, mass)
    return np.where(is_cell, mass, log_density)
