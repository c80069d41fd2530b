"""What a bijection is, and how bijections compose."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from .._pullbacks import drop_inherited, recorded


class Bijection(nn.Module, ABC):
    """An invertible map from data ``x`` to latent ``z``, with its log-determinant.

    Both directions take ``(n, d)`` tensors and an optional ``(n, n_context)`` context, and
    return the mapped rows together with ``log |det J|`` of *that* direction, of shape ``(n,)``.

    A stack of bijections (see `skflows._members`) has parameters with a leading member axis. It
    takes ``(M, n, d)`` rows, n for each of its M members, and returns ``(M, n)`` log-determinants.
    """

    set_from_data = False  # whether `initialize` does anything

    def __init_subclass__(cls):
        super().__init_subclass__()
        drop_inherited(cls, Bijection, forward="vjp", inverse="inverse_vjp")

    @property
    def vjp_by_autograd(self):
        """Whether `vjp` leaves something to autograd, where a compiler does not follow it."""
        return type(self).vjp is Bijection.vjp

    @abstractmethod
    def forward(self, x, context=None):
        """Map data to latent: ``(z, log |det dz/dx|)``."""

    @abstractmethod
    def inverse(self, z, context=None):
        """Map latent to data: ``(x, log |det dx/dz|)``."""

    def vjp(self, x):
        """``forward`` without a context, and the pullback of both (see `skflows._pullbacks`).

        By autograd unless a bijection writes it out, which saves the more the fewer the rows.
        """
        return recorded(self.forward, x, list(self.parameters()))

    def inverse_vjp(self, z):
        """The same of ``inverse``."""
        return recorded(self.inverse, z, list(self.parameters()))

    def in_small_steps(self, inverse=False):
        """Whether a direction takes many operations on little, which threads do not share well."""
        return False

    def initialize(self, x, weight=None, context=None):
        """Set the state that depends on data (scales, means); most bijections have none."""


class Chain(Bijection):
    """Bijections applied one after another, the first one nearest to the data."""

    def __init__(self, bijections):
        super().__init__()
        bijections = list(bijections)
        self.bijections = nn.ModuleList(bijections)
        self.set_from_data = any(bijection.set_from_data for bijection in self.bijections)
        own = [list(bijection.parameters()) for bijection in self.bijections]
        are_shared = sum(map(len, own)) > len(list(self.parameters()))
        # Parts before the first that has parameters: no gradient needs to reach them.
        self.n_leading = next((i for i, some in enumerate(own) if some), len(own))
        written_out = any(type(each).vjp is not Bijection.vjp for each in bijections)
        self.has_one_graph = are_shared or not written_out

    @property
    def vjp_by_autograd(self):
        return super().vjp_by_autograd or self.has_one_graph

    def forward(self, x, context=None):
        log_det = x.new_zeros(x.shape[:-1])
        for bijection in self.bijections:
            x, step = bijection(x, context)
            log_det = log_det + step
        return x, log_det

    def inverse(self, z, context=None):
        log_det = z.new_zeros(z.shape[:-1])
        for bijection in reversed(self.bijections):
            z, step = bijection.inverse(z, context)
            log_det = log_det + step
        return z, log_det

    def vjp(self, x):
        if self.has_one_graph:
            return super().vjp(x)
        log_det = x.new_zeros(x.shape[:-1])
        passed = []
        for bijection in self.bijections:
            (x, step), through = bijection.vjp(x)
            log_det = log_det + step
            passed.append(through)

        def pullback(g, g_log_det, to_x=True):
            gradients: list[torch.Tensor] = []
            last = 0 if to_x else self.n_leading
            while len(passed) > last:  # what each keeps is free when its turn is over
                g, own = passed.pop()(g, g_log_det, to_x=to_x or len(passed) > last)
                gradients = own + gradients
            return g if to_x else None, gradients

        return (x, log_det), pullback

    def in_small_steps(self, inverse=False):
        return any(bijection.in_small_steps(inverse) for bijection in self.bijections)

    def initialize(self, x, weight=None, context=None):
        for i, bijection in enumerate(self.bijections):
            bijection.initialize(x, weight, context)
            # Rows need not travel further than the last bijection that looks at them.
            if not any(later.set_from_data for later in self.bijections[i + 1 :]):
                break
            x, _ = bijection(x, context)


class Inverse(Bijection):
    """Another bijection run backwards; turns a masked autoregressive flow into an inverse one."""

    def __init__(self, bijection):
        super().__init__()
        self.bijection = bijection

    def forward(self, x, context=None):
        return self.bijection.inverse(x, context)

    def inverse(self, z, context=None):
        return self.bijection(z, context)

    def vjp(self, x):
        return self.bijection.inverse_vjp(x)

    def inverse_vjp(self, z):
        return self.bijection.vjp(z)

    @property
    def vjp_by_autograd(self):
        written = type(self.bijection).inverse_vjp is not Bijection.inverse_vjp
        return super().vjp_by_autograd or not written

    def in_small_steps(self, inverse=False):
        return self.bijection.in_small_steps(not inverse)
