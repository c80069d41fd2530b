"""Bijections of rows that carry their context in their last columns.

Whatever handles rows, such as a training loop, then handles their context too, without knowing it.
"""

import torch

from ._base import Bijection


class _OfFirstColumns(Bijection):
    """A bijection of the first columns of rows that have further columns.

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


class FirstColumns(_OfFirstColumns):
    """Map the first columns, and leave the others unchanged.

    The others may be the context of the first ones, or columns that an earlier stage has already
    mapped.
    """

    def __init__(self, bijection, n_features):
        super().__init__(bijection, n_features)
        self.n_context = bijection.n_context

    def forward(self, x, context=None):
        first, others = self._split(x)
        z, log_det = self.bijection(first, context)
        return torch.cat([z, others], -1), log_det

    def inverse(self, z, context=None):
        first, others = self._split(z)
        x, log_det = self.bijection.inverse(first, context)
        return torch.cat([x, others], -1), log_det

    def given_others(self, others):
        """Return the map of the first columns at n rows of the others (see `Given`)."""
        return self.bijection.given(None)

    def vjp(self, x, context=None):
        first, others = self._split(x)
        (z, log_det), through = self.bijection.vjp(first, context)

        def pullback(g, g_log_det, to_x=True):
            g_first, g_others = self._split(g)
            g_first, gradients = through(g_first, g_log_det, to_x=to_x)
            return torch.cat([g_first, g_others], -1) if to_x else None, gradients

        return (torch.cat([z, others], -1), log_det), pullback

    def initialize(self, x, weight=None, context=None):
        self.bijection.initialize(self._split(x)[0], weight, context)


class Conditional(_OfFirstColumns):
    """Map the first columns given the others, their context, which is not returned.

    Both directions, and ``vjp``, take rows and context side by side. The pullback of ``vjp`` has
    no gradient in the context: call it with ``to_x=False``. Columns after the context that the
    bijection was built for are ignored.
    """

    def _split(self, rows):
        x, context = super()._split(rows)
        return x, context[..., : self.bijection.n_context or None]

    def forward(self, x, context=None):
        return self.bijection(*self._split(x))

    def inverse(self, z, context=None):
        return self.bijection.inverse(*self._split(z))

    def given_others(self, others):
        """Return the map of the first columns at n contexts (see `Given`)."""
        return self.bijection.given(others[..., : self.bijection.n_context])

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
