"""Flows as exactly invertible maps between values of discrete columns and a stack of bits."""

import copy

import numpy as np
import torch

from ..bijections._flow import Flow
from ..bijections._integers import ONE, found, mapped_integers, with_exact_networks
from ..columns.lattice import is_whole
from ._bits import FARTHEST, pop_noise, push_noise

WIDE = 2**6  # steps of the lattice that the widest cell should have
FAR = 4.0  # standard deviations of preprocessed values, up to which cells are looked at
N_LOOKED_AT = 300
N_POINTS = 8  # of a cell, over which a value with loss is averaged


class IntegerFlow:
    """The map of a flow between values and latent coordinates as integers, on a stack.

    Values are numbered along the lattice of their column. The cell around a value has a place on
    the axis that preprocessing makes, from which a point is popped: by a normal distribution.

    Parameters
    ----------
    flow : Flow
        The flow.
    dequantizer : Dequantizer
        Of the columns, which are all discrete if there is no step.
    step : ndarray of shape (d,), default=None
        The widths of cells with loss, at least one value of a discrete column; None without loss.
    """

    def __init__(self, flow, dequantizer, step=None):
        bijection = with_exact_networks(flow.bijection)
        self.flow = Flow(copy.deepcopy(flow.preprocess).cpu(), bijection)
        self.has_loss = step is not None
        self.groups = [(columns, grid) for columns, grid, _ in dequantizer.groups()]
        d = len(dequantizer.columns) if step is None else len(step)
        self.least, self.gap = np.zeros(d), np.ones(d) if step is None else step.copy()
        for (columns, grid), gap in zip(self.groups, dequantizer.gap, strict=False):
            if is_whole(grid) and len(grid) > 1:  # few values may be further apart than new ones
                gap = np.gcd.reduce(np.diff(grid).astype(np.int64))
            if self.has_loss:  # an odd number of values, with one in the middle
                gap = gap * (2 * np.rint((step[columns] / gap - 1) / 2).clip(0) + 1)
            self.least[columns], self.gap[columns] = grid[0], gap
        self.together = np.ones(d, dtype=np.int64)  # neighbouring cells that are one
        y = torch.linspace(-FAR, FAR, N_LOOKED_AT, dtype=torch.float64)[:, None].expand(-1, d)
        self.middle, some = (self.flow.preprocess.inverse(each)[0] for each in (0 * y[:1], y))
        number = torch.from_numpy(np.rint((some.numpy() - self.least) / self.gap))
        widest = (self._place(number + 1) - self._place(number)).amax(0).numpy()
        if dequantizer.alike:
            widest[:] = widest.max()
        digits = np.ceil(np.log2(WIDE / widest.clip(1e-6))).clip(0)
        self.together = 2 ** digits.astype(np.int64)

    @torch.inference_mode()
    def numbers(self, X):
        """Return the numbers of the values of rows, whether they are on the lattice, and whether
        their cells have a place after preprocessing."""
        with np.errstate(over="ignore"):
            place = np.rint((X - self.least) / self.gap)
        is_near = np.abs(place) < 2**31
        number = np.where(is_near, place, 0).astype(np.int64)
        low, high = self._cell(torch.from_numpy(number // self.together))
        is_value = is_near if self.has_loss else is_near & (self.values(number) == X)
        return number, is_value, (high > low).numpy()

    @torch.inference_mode()
    def values(self, number):
        """Return the values with these numbers: with loss, the means of their cells."""
        X = self.least + self.gap * number
        if self.has_loss:
            share = (torch.arange(N_POINTS) + 0.5)[:, None, None] / N_POINTS
            middle, gap = torch.from_numpy(X), torch.from_numpy(self.gap)
            mean = self.flow.point_of_cell(middle, gap, share)[0].mean(0).numpy()
            inside = np.abs(mean - X) < self.gap / 2  # not if NaN, beyond bounds
            return np.where(inside, mean, X)
        for columns, grid in self.groups:
            if np.rint((grid[-1] - grid[0]) / self.gap[columns[0]]) == len(grid) - 1:  # a lattice
                listed = grid[number[:, columns].clip(0, len(grid) - 1)]
                inside = (number[:, columns] >= 0) & (number[:, columns] < len(grid))
                X[:, columns] = np.where(inside, listed, X[:, columns])
        return X

    @torch.inference_mode()
    def push(self, number, stack):
        """Keep rows of values on the stack, given as numbers."""
        stack.push(number % self.together, np.broadcast_to(self.together, number.shape))
        low, high = self._cell(torch.from_numpy(number // self.together))
        y = pop_noise(low.numpy().ravel(), high.numpy().ravel(), stack)
        y = torch.from_numpy(y.reshape(number.shape))
        stack.push_latent(mapped_integers(self.flow.bijection, y, stack).numpy())

    @torch.inference_mode()
    def pop(self, n, stack):
        """Return the numbers of n rows of values."""
        d = len(self.least)
        z = torch.from_numpy(stack.pop_latent(n * d).reshape(n, d))
        y = mapped_integers(self.flow.bijection, z, stack, inverse=True)
        x = self.flow.preprocess.inverse((y + 0.5) / ONE)[0].numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            guess = np.floor(((x - self.least) / self.gap + 0.5) / self.together)
        guess = torch.from_numpy(np.nan_to_num(guess).clip(-(2**31), 2**31).astype(np.int64))
        cell, low, high = found(y, guess, self._cell)
        push_noise(y.numpy().ravel(), low.numpy().ravel(), high.numpy().ravel(), stack)
        together = np.broadcast_to(self.together, cell.shape)
        return cell.numpy() * together + stack.pop(together)

    def _cell(self, cell):
        """Return the ends of cells on the lattice of preprocessed values."""
        return [self._place(number).round().long() for number in (cell, cell + 1)]

    def _place(self, cell):
        """Return the lower ends of cells after preprocessing, in steps of the lattice."""
        between = torch.from_numpy(self.least + self.gap * (cell.numpy() * self.together - 0.5))
        y, _ = self.flow.preprocess(between)
        beyond = torch.where(between < self.middle, -FARTHEST, FARTHEST)  # of bounds
        return y.where(~y.isnan(), beyond).clamp(-FARTHEST, FARTHEST) * ONE
