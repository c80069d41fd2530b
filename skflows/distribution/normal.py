"""The distribution function of a normal, and its mass in an interval."""

import numpy as np
from scipy.special import log_ndtr, ndtr

from ..nn.fork import is_forked

NARROW = 1e-5  # standard deviations below which the density is taken as constant
FAR = -35.0  # standard deviations beyond which the distribution function may be 0
LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)


def normal_cdf(x):
    """Return the distribution function of a standard normal, several times as fast as SciPy."""
    if is_forked():  # where torch would wait for threads of the parent
        return ndtr(x)
    import torch  # which the import of skflows leaves out

    return torch.special.erfc(torch.from_numpy(x * -np.sqrt(0.5))).numpy() / 2


def log_normal_mass(low, middle, high, means, scales):
    """Return the log-mass of normals between ends, or their log-density where these are equal."""
    unit = (middle - means) / scales
    found = -0.5 * unit**2 - LOG_SQRT_2PI - np.log(scales)
    width = high - low
    is_cell = width > 0
    if not is_cell.any():
        return found
    shape = np.broadcast_shapes(low.shape, found.shape)
    is_cell = np.broadcast_to(is_cell, shape)
    a = np.broadcast_to(low, shape)[is_cell] - np.broadcast_to(means, shape)[is_cell]
    b = np.broadcast_to(high, shape)[is_cell] - np.broadcast_to(means, shape)[is_cell]
    s = np.broadcast_to(scales, shape)[is_cell]
    a, b = a / s, b / s
    # In the lower tail, where differences of the distribution function keep their digits.
    is_upper = a > -b  # a cell may be the whole line
    a, b = np.where(is_upper, -b, a), np.where(is_upper, -a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        mass = np.log(normal_cdf(b) - normal_cdf(a))
        far = b < FAR
        upper, lower = log_ndtr(b[far]), log_ndtr(a[far])
        mass[far] = upper + np.log(-np.expm1(lower - upper))
    narrow = b - a < NARROW
    mass[narrow] = (found[is_cell] + np.log(np.broadcast_to(width, shape)[is_cell]))[narrow]
    found = found.copy()
    found[is_cell] = mass
    return found
