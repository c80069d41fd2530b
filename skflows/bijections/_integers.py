"""Bijections of integers: exactly invertible maps of rows on a fine lattice, with a stack of bits.

Rows are multiples of 2**-12, held as integers. A map that stretches them pops the digits that it
makes from a stack of bits, and one that shrinks them pushes the digits that it drops, so that both
are exactly invertible (Zhang, Zhang, Li, Ke & Xie, "iFlow: Numerically Invertible Flows for
Efficient Lossless Compression via a Uniform Coder", 2021).

Networks compute sums of numbers with 16 binary digits, which float64 holds exactly in any order:
other machines get the same results.
"""

import copy
import math
from functools import cache

import numpy as np
import torch

from ..nn.convolutional import Convolution
from ..nn.linear import ColumnLinear
from ._autoregressive import MaskedAutoregressive
from ._base import Chain
from ._conditional import FirstColumns
from ._elementwise import ElementwiseAffine
from ._grid import Pointwise
from ._linear import LULinear, Permutation
from ._spline import RationalQuadraticSpline
from ._univariate import LOG_SCALE_BOUND, Affine, bounded_log_scale

BITS = 12
ONE = 2**BITS  # steps of the lattice of rows in a unit
LARGEST = 2**40  # of the integers, beyond which products could overflow
CELL = 2**9  # steps of the lattice in a cell that a spline stretches
MOST_STEPS = 300  # from a guess of a cell to the right one
PER_UNIT = 2**10  # log-scales in a unit
FIXED = 2.0**16  # weights, units and parameters are multiples of its reciprocal
LARGEST_UNIT = 2.0**7


def mapped_integers(bijection, x, stack, inverse=False):
    """Return rows of integers after a bijection, or before it.

    Parameters
    ----------
    bijection : Bijection
        What `with_exact_networks` returned.
    x : int64 Tensor of shape (n, d)
        The rows, in steps of 2**-12.
    stack : object
        Its method ``stretched(x, old, new)`` returns ``x * new / old`` rounded down, and keeps what
        that drops: it is undone by ``stretched(y, new, old)`` if the calls are in reversed order.
    inverse : bool, default=False
        Whether to undo what was done.

    Raises
    ------
    OverflowError
        If integers become too large.
    """
    if x.abs().max() > LARGEST:
        raise OverflowError(
            "the flow maps a row too far away, or rounds differently on this machine"
        )
    if isinstance(bijection, Chain):
        for each in reversed(bijection.bijections) if inverse else bijection.bijections:
            x = mapped_integers(each, x, stack, inverse)
        return x
    if isinstance(bijection, Permutation):
        return (bijection.inverse(x) if inverse else bijection(x))[0]
    if isinstance(bijection, FirstColumns):
        first, others = bijection._split(x)
        return torch.cat([mapped_integers(bijection.bijection, first, stack, inverse), others], -1)
    if isinstance(bijection, Pointwise):
        positions, _ = bijection._positions(x)
        return mapped_integers(bijection.bijection, positions, stack, inverse).reshape(x.shape)
    if isinstance(bijection, ElementwiseAffine):
        scale, shift = scales(bijection.raw_log_scale), integers(bijection.shift)
        return scaled(x, scale, shift, stack, inverse)
    if isinstance(bijection, LULinear):
        return (unmixed if inverse else mixed)(bijection, x, stack)
    if isinstance(bijection, MaskedAutoregressive):
        x = x.mT.contiguous()
        order = list(range(len(x)))[:: -1 if bijection.net.reverse else 1]
        # The first column is decoded first, hence encoded last.
        params = bijection._map_parameters(outputs(bijection.net, x))
        y = x.clone()
        for j in order if inverse else order[::-1]:
            if inverse:
                params = bijection._map_parameters(outputs(bijection.net, y))
            one = slice(j, j + 1)
            y[one] = elementwise(bijection.univariate, x[one], params[one], stack, inverse)
        return y.mT
    halves = bijection._halves(x)
    for i in list(range(len(bijection.nets)))[:: -1 if inverse else 1]:
        params = bijection._map_parameters(i, outputs(bijection.nets[i], halves[1 - i]))
        halves[i] = elementwise(bijection.univariate, halves[i], params, stack, inverse)
    return bijection._joined(halves)


def outputs(net, x):
    """Return the outputs of a network of columns."""
    return rounded(net(x.double() / ONE, None))


def rounded(x):
    """Return numbers with 16 binary digits after the point."""
    return (x * FIXED).round().clamp(-LARGEST_UNIT * FIXED, LARGEST_UNIT * FIXED) / FIXED


@torch.no_grad()
def with_exact_networks(bijection):
    """Return a copy in float64, whose networks have exact sums."""
    bijection = copy.deepcopy(bijection).cpu().double().eval()
    for layer in bijection.modules():
        if isinstance(layer, ColumnLinear | Convolution):
            for parameter in layer.parameters():
                parameter.copy_(rounded(parameter))
            layer.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    return bijection


@cache
def scale_table():
    """Return the scales of all log-scales, in steps of the lattice."""
    bound = int(LOG_SCALE_BOUND * PER_UNIT)
    logs = range(-bound, bound + 1)
    return np.array([round(ONE * math.exp(log / PER_UNIT)) for log in logs])


def scales(raw):
    """Return scales in steps of the lattice."""
    index = (bounded_log_scale(raw.double()) + LOG_SCALE_BOUND) * PER_UNIT
    return scale_table()[index.round().long().numpy()]


def integers(numbers):
    """Return numbers in steps of the lattice."""
    return (numbers.double() * ONE).round().long()


def mixed(step, x, stack):
    """Return rows after an `LULinear`: they are scaled, and mixed by triangular matrices."""
    scale, lower, upper, order = factors(step)
    y = step.sign.diagonal().long() * stack.stretched(x, ONE, scale)
    y = y + (y @ upper.T >> BITS)
    y = y + (y @ lower.T >> BITS)
    return y[:, order] + integers(step.shift)


def unmixed(step, z, stack):
    """Return rows before an `LULinear`."""
    scale, lower, upper, order = factors(step)
    y = (z - integers(step.shift))[:, order.argsort()]
    for i in range(1, y.shape[1]):
        y[:, i] -= y[:, :i] @ lower[i, :i] >> BITS
    for i in reversed(range(y.shape[1] - 1)):
        y[:, i] -= y[:, i + 1 :] @ upper[i, i + 1 :] >> BITS
    return stack.stretched(step.sign.diagonal().long() * y, scale, ONE)


def factors(step):
    """Return the scales, both triangular matrices without a diagonal, and the order of columns."""
    scale = scales(step.raw_log_diagonal)
    diagonal = step.sign.diagonal() * torch.from_numpy(scale) / ONE
    lower, upper = integers(step.lower.tril(-1)), integers(step.upper.triu(1) / diagonal)
    order = torch.arange(len(scale)) if step.permutation is None else step.permutation.argmax(1)
    return scale, lower, upper, order


def scaled(x, scale, shift, stack, inverse):
    """Return rows after a scale and a shift, or before them."""
    if inverse:
        return stack.stretched(x - shift, scale, ONE)
    return stack.stretched(x, ONE, scale) + shift


def elementwise(univariate, x, params, stack, inverse):
    """Return columns after an elementwise map with these parameters, or before it."""
    if isinstance(univariate, RationalQuadraticSpline):
        return splined(univariate, x, params, stack, inverse)
    shift = integers(params[..., 0, :])
    if isinstance(univariate, Affine):
        return scaled(x, scales(params[..., 1, :]), shift, stack, inverse)
    return x - shift if inverse else x + shift


def splined(spline, x, params, stack, inverse):
    """Return columns after a spline, or before it. It is linear between the ends of its cells."""

    def ends(cell):
        # A step more for each cell, so that none has a width of 0.
        knots = [spline.forward((c * CELL / ONE).double(), params)[0] for c in (cell, cell + 1)]
        return integers(knots[0]) + cell, integers(knots[1]) + cell + 1

    if not inverse:
        cell = x // CELL
        low, high = ends(cell)
        return low + stack.stretched(x - cell * CELL, CELL, high - low)
    cell = torch.zeros_like(x)
    for _ in range(2):
        guess = spline.inverse((x - cell).double() / ONE, params)[0]
        cell = (guess * (ONE / CELL)).floor().long()
    cell, low, high = found(x, cell, ends)
    return cell * CELL + stack.stretched(x - low, high - low, CELL)


def found(y, guess, ends):
    """Return the cells that hold y, and their ends."""
    for _ in range(MOST_STEPS):
        low, high = ends(guess)
        wrong = (y >= high).long() - (y < low).long()
        if not wrong.any():
            return guess, low, high
        guess = guess + wrong
    raise OverflowError("the flow maps a row too far away, or rounds differently on this machine")
