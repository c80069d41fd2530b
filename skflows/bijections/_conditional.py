"""Bijections of rows that carry their context in their last columns.

Whatever handles rows, such as a training loop, then handles their context too, without knowing it.
"""

import torch

from ._base import Bijection


class _OfFirstColumns(Bijection):
    """A bijection of the first columns of rows, beside which there are others.

    Parameters
    ----------
    bijection : Bijection
        The map of the first columns.
    n_features : int
        Their number.
    """

    def __init__(self, bijection, n_features):
        super().__init__()
        self.bijection = bijection
        self.n_features = n_features
        self.set_from_data = bijection.set_from_data

    def _split(self, rows):
        return rows[..., : self.n_features], rows[..., self.n_features :]

    def is_sequential(self, inverse=False):
        return self.bijection.is_sequential(inverse)


class Unconditional(_OfFirstColumns):
    """Map the first columns, and leave the context beside them as it is."""

    def forward(self, x, context=None):
        own, others = self._split(x)
        z, log_det = self.bijection(own)
        return torch.cat([z, others], -1), log_det

    def inverse(self, z, context=None):
        own, others = self._split(z)
        x, log_det = self.bijection.inverse(own)
        return torch.cat([x, others], -1), log_det


class Conditional(_OfFirstColumns):
    """Map the first columns given the others, their context, which is not returned.

    Both directions, and ``vjp``, take rows and context side by side. The pullback of ``vjp`` has
    no gradient in the context: call it with ``to_x=False``.
    """

    def forward(self, x, context=None):
        return self.bijection(*self._split(x))

    def inverse(self, z, context=None):
        return self.bijection.inverse(*self._split(z))

    def vjp(self, x, context=None):
        return self.bijection.vjp(*self._split(x))

    def initialize(self, x, weight=None, context=None):
        x, context = self._split(x)
        self.bijection.initialize(x, weight, context)


def innermost(bijection):
    """Return the bijection that takes rows and context apart."""
    return bijection.bijection if isinstance(bijection, Conditional) else bijection


def apart(bijection, rows, context=None):
    """Return the bijection that takes rows and context apart, the rows, and their context."""
    if isinstance(bijection, Conditional):
        rows, context = bijection._split(rows)
    return innermost(bijection), rows, context
