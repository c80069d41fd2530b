"""One bin of a rational-quadratic spline: its values, its slopes and its inverse.

The bin has the mean slope ``slope`` and the slopes ``d0`` and ``d1`` at its ends. All are tensors
of one shape and one dtype.

References
----------
Gregory & Delbourgo, "Piecewise Rational Quadratic Interpolation to Monotonic Data", 1982.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Terms(NamedTuple):
    """The terms of the spline at the fraction t of a bin, with r = 1 - t."""

    bend: Tensor  # t r
    curve: Tensor  # d0 + d1 - 2 slope
    bottom: Tensor  # slope + curve t r
    first: Tensor  # d0 r + slope t
    second: Tensor  # slope r + d1 t
    top: Tensor  # d0 r^2 + 2 slope t r + d1 t^2


def terms(t, slope, d0, d1):
    """Return the `Terms` at the fraction t of a bin."""
    bend = torch.addcmul(t, t, t, value=-1)
    curve = torch.sub(d1 + d0, slope, alpha=2)
    bottom = torch.addcmul(slope, curve, bend)
    # De Casteljau's algorithm, in which nothing cancels.
    first, second = torch.lerp(d0, slope, t), torch.lerp(slope, d1, t)
    return Terms(bend, curve, bottom, first, second, torch.lerp(first, second, t))


def rise(t, at):
    """Return the height of the spline above the lower end of its bin, as a fraction of the bin.

    Parameters
    ----------
    t : Tensor
        The fraction of the bin along x.
    at : Terms
        The terms there.
    """
    return t * at.first / at.bottom


def derivative(slope, at):
    """Return the derivative of the spline where it has the given `Terms`."""
    ratio = slope / at.bottom
    return ratio * ratio * at.top


def invert(rise, width, height, d0, d1):
    """Return the fraction t of a bin at which the spline has risen so far, and the log-slope
    there."""
    slope = height / width
    excess = rise * (d1 + d0 - 2 * slope)
    a = height * (slope - d0) + excess
    b = height * d0 - excess
    c = -slope * rise
    # Rounding can take it to 0, where the square root has no derivative.
    discriminant = (b**2 - 4 * a * c).clamp(min=torch.finfo(rise.dtype).tiny)
    # This form of the root does not cancel where a is near 0.
    t = (2 * c / (-b - discriminant.sqrt())).clamp(0, 1)
    return t, derivative(slope, terms(t, slope, d0, d1)).log()
