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
    Cells are as wide as the step of their column, at least one value of a discrete column; 0 is
    without loss, and then all columns are discrete.
    """

    def __init__(self, flow, dequantizer, step):
        bijection = with_exact_networks(flow.bijection)
        self.flow = Flow(copy.deepcopy(flow.preprocess).cpu(), bijection)
        self.step, self.gap, d = step, step.copy(), len(step)
        y = torch.linspace(-FAR, FAR, N_LOOKED_AT, dtype=torch.float64)[:, None].expand(-1, d)
        ends = torch.tensor([[-FARTHEST], [0], [FARTHEST]]).double().expand(-1, d)
        some, ends = (self.flow.preprocess.inverse(each)[0] for each in (y, ends))
        self.middle = ends[1]
        self.lowest, self.least, self.highest = ends.numpy().copy()
        self.groups = []  # columns, values of their lattice, and its step
        for (columns, grid, _), gap in zip(dequantizer.groups(), dequantizer.gap, strict=False):
            if is_whole(grid) and len(grid) > 1:  # few values may be further apart than new ones
                gap = np.gcd.reduce(np.diff(grid).astype(np.int64))
            self.least[columns] = self.lowest[columns] = grid[0]
            self.highest[columns] = grid[-1]
            # An odd number of values, with one in the middle.
            self.gap[columns] = gap * (2 * np.rint((step[columns] / gap - 1) / 2).clip(0) + 1)
            is_lattice = np.rint((grid[-1] - grid[0]) / gap) == len(grid) - 1
            self.groups.append((columns, grid if is_lattice else grid[:1], gap))
        self.together = np.ones(d, dtype=np.int64)  # neighbouring cells that are one
        number = torch.from_numpy(np.rint((some.numpy() - self.least) / self.gap))
        widest = (self._place(number + 1) - self._place(number)).amax(0).numpy()
        if dequantizer.alike:
            widest[:] = widest.max()
        digits = np.ceil(np.log2(WIDE / widest.clip(1e-6))).clip(0)
        self.together = 2 ** digits.astype(np.int64)

    @torch.inference_mode()
    def numbers(self, X):
        """Return the numbers of the values of rows, the rows with these values where they are near
        enough, whether they are, and whether their cells have a place after preprocessing."""
        with np.errstate(over="ignore"):
            place = np.rint((X - self.least) / self.gap)
            is_near = np.abs(place) < 2**31
            number = np.where(is_near, place, 0).astype(np.int64)
            values = self.values(number)
            is_near &= np.abs(values - X) <= self.step
        low, high = self._cell(torch.from_numpy(number // self.together))
        return number, np.where(is_near, values, X), is_near, (high > low).numpy()

    @torch.inference_mode()
    def values(self, number):
        """Return the values with these numbers: with loss, the means of their cells."""
        X = self.least + self.gap * number
        if self.step.any():
            middle, gap = torch.from_numpy(X), torch.from_numpy(self.gap)
            shares = (torch.arange(N_POINTS) + 0.5) / N_POINTS
            mean = sum(self.flow.point_of_cell(middle, gap, share)[0] for share in shares)
            mean = (mean.numpy() / N_POINTS).clip(self.lowest, self.highest)
            X = np.where(np.abs(mean - X) < self.gap / 2, mean, X)  # not if NaN, beyond bounds
        for columns, grid, gap in self.groups:
            place = np.rint((X[:, columns] - grid[0]) / gap)
            listed = place.clip(0, len(grid) - 1)
            others = grid[0] + gap * place
            X[:, columns] = np.where(place == listed, grid[listed.astype(int)], others)
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
