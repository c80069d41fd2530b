"""Flows as exactly invertible maps between values of discrete columns and a stack of bits."""

import copy
import math

import numpy as np
import torch

from ..bijections._integers import ONE, found, mapped_integers, with_exact_networks
from ..columns.lattice import is_whole
from ._bits import FARTHEST, pop_noise, push_noise

WIDE = 2**6  # steps of the lattice that the widest cell should have
MOST_LISTED = 300  # values of a column that are looked at


class IntegerFlow:
    """The map of a flow between values of discrete columns and latent coordinates, on a stack.

    Values are numbered along the lattice of their column. The cell around a value has a place on
    the axis that preprocessing makes, from which a point is popped: by a normal distribution.

    Parameters
    ----------
    flow : Flow
        The flow.
    dequantizer : Dequantizer
        Of the columns, which are all discrete.
    """

    def __init__(self, flow, dequantizer):
        self.preprocess = copy.deepcopy(flow.preprocess).cpu()
        self.bijection = with_exact_networks(flow.bijection)
        self.groups = [(columns, grid) for columns, grid, _ in dequantizer.groups()]
        d = len(dequantizer.columns)
        self.least, self.gap = np.empty(d), np.empty(d)
        self.together = np.ones(d, dtype=np.int64)  # neighbouring values that share a cell
        for (columns, grid), gap in zip(self.groups, dequantizer.gap, strict=False):
            if is_whole(grid) and len(grid) > 1:  # few values may be further apart than new ones
                gap = np.gcd.reduce(np.diff(grid).astype(np.int64))
            self.least[columns], self.gap[columns] = grid[0], gap
        for columns, grid in self.groups:
            some = grid[np.linspace(0, len(grid) - 1, MOST_LISTED).astype(int)]
            rows = torch.from_numpy(np.rint((some[:, None] - self.least) / self.gap)).long()
            widest = (self._place(rows + 1) - self._place(rows))[:, columns].max()
            self.together[columns] = 2 ** max(0, math.ceil(-math.log2(max(widest, 1e-6) / WIDE)))

    @torch.inference_mode()
    def numbers(self, X):
        """Return the numbers of the values of rows, and the widths of their cells: 0 if none."""
        with np.errstate(over="ignore"):
            place = np.rint((X - self.least) / self.gap)
        is_near = np.abs(place) < 2**31
        number = np.where(is_near, place, 0).astype(np.int64)
        low, high = self._cell(torch.from_numpy(number // self.together))
        is_value = is_near & (self.values(number) == X)
        return number, np.where(is_value, (high - low).numpy(), 0)

    def values(self, number):
        """Return the values with these numbers."""
        X = self.least + self.gap * number
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
        stack.push_latent(mapped_integers(self.bijection, y, stack).numpy())

    @torch.inference_mode()
    def pop(self, n, stack):
        """Return the numbers of n rows of values."""
        d = len(self.least)
        z = torch.from_numpy(stack.pop_latent(n * d).reshape(n, d))
        y = mapped_integers(self.bijection, z, stack, inverse=True)
        x = self.preprocess.inverse((y + 0.5) / ONE)[0].numpy()
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
        between = self.least + self.gap * ((cell.numpy() * self.together) - 0.5)
        y, _ = self.preprocess(torch.from_numpy(between))
        return y.clamp(-FARTHEST, FARTHEST) * ONE
