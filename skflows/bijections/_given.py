"""Bijections at fixed contexts, for many rows of each.

What depends on the context alone, such as the outputs of a network, is computed once.
"""

from abc import ABC, abstractmethod


def in_turn(maps, x, *context):
    """Apply maps one after another; return the rows, and the sum of the log-determinants."""
    log_det = x.new_zeros(x.shape[:-1])
    for map_ in maps:
        x, step = map_(x, *context)
        log_det = log_det + step
    return x, log_det


class Given(ABC):
    """A bijection at n contexts: a map of rows of shape ``(k, n, d)``, k for each context.

    Rows that are the same at all contexts may have the shape ``(k, 1, d)``, so that maps without a
    context map them once; until a map depends on the context, results have this shape too.
    """

    @abstractmethod
    def forward(self, x):
        """Map data to latent: ``(z, log |det dz/dx|)``."""

    @abstractmethod
    def inverse(self, z):
        """Map latent to data: ``(x, log |det dx/dz|)``."""

    @abstractmethod
    def take(self, index):
        """Return the map at some of the contexts, by their indices, which may repeat."""


class GivenBijection(Given):
    """Any bijection at n contexts (see `Given`), which are repeated for the rows.

    Parameters
    ----------
    bijection : Bijection
        The map.
    context : Tensor of shape (n, n_context) or None
        The contexts; None for a map that has no context.
    """

    def __init__(self, bijection, context):
        self.bijection = bijection
        self.context = context

    def forward(self, x):
        return self.bijection(self._at_all(x), self.context)

    def inverse(self, z):
        return self.bijection.inverse(self._at_all(z), self.context)

    def _at_all(self, rows):
        return rows if self.context is None else rows.expand(-1, len(self.context), -1)

    def take(self, index):
        if self.context is None:
            return self
        return GivenBijection(self.bijection, self.context[index])


class GivenChain(Given):
    """Maps at n contexts, applied one after another (see `Given`)."""

    def __init__(self, maps):
        self.maps = maps

    def forward(self, x):
        return in_turn([each.forward for each in self.maps], x)

    def inverse(self, z):
        return in_turn([each.inverse for each in reversed(self.maps)], z)

    def take(self, index):
        return GivenChain([each.take(index) for each in self.maps])
