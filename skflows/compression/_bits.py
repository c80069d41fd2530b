"""A stack of bits, from which numbers with given distributions are popped, and points of cells."""

import numpy as np
from scipy.special import ndtr

from ..bijections._integers import ONE
from ..columns.optional import optional

CHUNK = 96  # values for which digits are popped before others are pushed
FARTHEST = 64  # standard deviations of preprocessed values, and of latent ones without an escape
BIN = 2**6  # steps of the lattice that count as equally probable under a normal distribution
SHARES = 2**16  # in which a cell is divided among its bins
DIGIT = 2**16  # of numbers that are pushed as they are


def import_constriction():
    """Return the library of the range coder, or raise an error that says how to install it."""
    return optional("constriction", "FlowCompressor needs constriction", "constriction")


class Stack:
    """A stack of bits, from which whole numbers are popped, and to which they are pushed.

    An empty stack pops zeros, and forgets none of them.
    """

    def __init__(self, words, is_decoder=False):
        constriction = import_constriction()
        self.coder = constriction.stream.stack.AnsCoder(words, seal=not is_decoder)
        self.uniform = constriction.stream.model.Uniform()
        bound = FARTHEST * ONE // BIN
        self.normal = constriction.stream.model.QuantizedGaussian(-bound, bound, -0.5, ONE / BIN)
        self.is_decoder = is_decoder

    def pop(self, sizes):
        """Return whole numbers below the sizes."""
        numbers = np.zeros(sizes.shape, dtype=np.int64)
        some = sizes > 1
        if some.any():
            numbers[some] = self.coder.decode(self.uniform, sizes[some].astype(np.int32))
        return numbers

    def push(self, numbers, sizes):
        """Keep whole numbers below the sizes."""
        some = sizes > 1
        if some.any():
            few, sizes = numbers[some].astype(np.int32), sizes[some].astype(np.int32)
            self.coder.encode_reverse(few, self.uniform, sizes)

    def chunks(self, size):
        """Return slices of values, in the opposite order to decode them."""
        slices = [slice(start, start + CHUNK) for start in range(0, size, CHUNK)]
        return slices[::-1] if self.is_decoder else slices

    def stretched(self, x, old, new):
        """Return ``x * new / old``, rounded down; exchange ``old`` and ``new`` for the inverse."""
        whole, old, new = (np.broadcast_to(each, x.shape).ravel() for each in (x, old, new))
        y = np.empty_like(whole)
        for chunk in self.chunks(len(y)):
            fine = whole[chunk] * new[chunk] + self.pop(new[chunk])
            y[chunk], rest = np.divmod(fine, old[chunk])
            self.push(rest, old[chunk])
        return x.new_tensor(y).view(x.shape)

    def push_latent(self, z):
        """Keep latent coordinates, which have a standard normal distribution."""
        z = z.ravel()
        coarse, bound = z // BIN, FARTHEST * ONE // BIN
        self.push(z % BIN, np.full(len(z), BIN))
        far = coarse[np.abs(coarse) >= bound]
        for place in range(3):
            self.push(far // DIGIT**place % DIGIT, np.full(len(far), DIGIT))
        self.coder.encode_reverse(coarse.clip(-bound, bound).astype(np.int32), self.normal)

    def pop_latent(self, n):
        """Return n latent coordinates."""
        coarse = self.coder.decode(self.normal, n).astype(np.int64)
        is_far = np.abs(coarse) >= FARTHEST * ONE // BIN
        far = np.zeros(is_far.sum(), dtype=np.int64)
        for _ in range(3):
            far = far * DIGIT + self.pop(np.full(len(far), DIGIT))
        coarse[is_far] = np.where(far < DIGIT**3 // 2, far, far - DIGIT**3)
        return coarse * BIN + self.pop(np.full(n, BIN))


class CellBins:
    """Bins of cells, with shares of each cell as under a standard normal distribution."""

    def __init__(self, low, high):
        (low, high), self.cell = np.unique(np.stack([low, high]), axis=1, return_inverse=True)
        n_bins = -(-(high - low) // BIN)
        self.first = np.cumsum(n_bins) - n_bins
        cell = np.repeat(np.arange(len(low)), n_bins)
        self.left = low[cell] + BIN * (np.arange(len(cell)) - self.first[cell])
        right = np.minimum(self.left + BIN, high[cell])
        self.width = right - self.left
        mass = ndtr(right / ONE) - ndtr(self.left / ONE) + 1e-12 * self.width
        mass /= np.add.reduceat(mass, self.first)[cell]
        self.share = np.where(n_bins[cell] > 1, np.rint(SHARES * mass).clip(1), 1).astype(np.int64)
        self.before = np.cumsum(self.share) - self.share
        self.total = np.add.reduceat(self.share, self.first)


def pop_noise(low, high, stack):
    """Return a point of each cell, which is drawn from a normal distribution by bits."""
    bins = CellBins(low, high)
    y = np.empty_like(low)
    for chunk in stack.chunks(len(y)):
        cell = bins.cell[chunk]
        share = stack.pop(bins.total[cell]) + bins.before[bins.first[cell]]
        index = np.searchsorted(bins.before, share, side="right") - 1
        stack.push(share - bins.before[index], bins.share[index])
        y[chunk] = bins.left[index] + stack.pop(bins.width[index])
    return y


def push_noise(y, low, high, stack):
    """Give back the bits that `pop_noise` took."""
    bins = CellBins(low, high)
    for chunk in stack.chunks(len(y)):
        cell = bins.cell[chunk]
        index = bins.first[cell] + (y[chunk] - low[chunk]) // BIN
        stack.push(y[chunk] - bins.left[index], bins.width[index])
        share = stack.pop(bins.share[index]) + bins.before[index]
        stack.push(share - bins.before[bins.first[cell]], bins.total[cell])
