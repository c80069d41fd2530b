"""The base class of bijections, and their composition."""

from abc import ABC, abstractmethod
from functools import wraps

import torch
from torch import Tensor, nn

from ..nn.vjp import Pullback, by_autograd, drop_inherited_vjp
from ._given import Given, GivenBijection, GivenChain, in_turn

Mapped = tuple[Tensor, Tensor]  # rows, and the log-determinant of each


def over_rows(direction):
    """Let a direction that maps ``(n, d)`` rows take rows and contexts of any leading shapes."""

    @wraps(direction)
    def mapped(self, x, context=None):
        if self.n_context:
            self._check_context(context)
        is_table = x.dim() == 2 and (context is None or context.shape[:-1] == x.shape[:-1])
        if is_table or self.is_stack:
            return direction(self, x, context)
        shape = x.shape[:-1]
        if context is not None:
            shape = torch.broadcast_shapes(shape, context.shape[:-1])
            context = context.expand(*shape, -1).flatten(0, -2) if shape else context[None]
        rows = x.expand(*shape, -1).flatten(0, -2) if shape else x[None]
        z, log_det = direction(self, rows, context)
        return z.reshape(*shape, z.shape[-1]), log_det.reshape(shape)

    return mapped


class Bijection(nn.Module, ABC):
    """An invertible map from data ``x`` to latent ``z``, with its log-determinant.

    Both directions take rows of shape ``(..., d)`` and an optional context of shape
    ``(..., n_context)``, whose leading axes are broadcast: one context may serve all rows. They
    return the mapped rows together with ``log |det J|`` of *that* direction, of shape ``(...)``.
    They work under the transforms of `torch.func`. A subclass maps ``(n, d)`` rows with ``(n,
    n_context)`` contexts, and gets the other shapes from this class.

    A stack of bijections (see `skflows.training.model_stack`) has parameters with a leading member
    axis. It takes ``(M, n, d)`` rows, n for each of its M members, and returns ``(M, n)``
    log-determinants.
    """

    set_from_data = False  # whether `initialize` does anything
    n_context = 0  # size of the context that both directions need
    is_stack = False  # whether parameters have a member axis

    def __init_subclass__(cls):
        super().__init_subclass__()
        for name in {"forward", "inverse"} & vars(cls).keys():
            setattr(cls, name, over_rows(vars(cls)[name]))
        drop_inherited_vjp(cls, Bijection, forward="vjp", inverse="inverse_vjp")
        drop_inherited_vjp(cls, Bijection, forward="vjp_with_score")

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        """Map data to latent: ``(z, log |det dz/dx|)``."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        """Map latent to data: ``(x, log |det dx/dz|)``."""

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        """Return the output of ``forward`` and its pullback (see `skflows.nn.vjp`).

        The pullback maps gradients in z and in the log-determinants to gradients in x and in the
        parameters. It uses autograd unless a bijection writes it out, which is faster on few rows.
        """
        return by_autograd(lambda x: self.forward(x, context), x, list(self.parameters()))

    def inverse_vjp(self, z: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        """Return the output of ``inverse`` and its pullback."""
        return by_autograd(lambda z: self.inverse(z, context), z, list(self.parameters()))

    def vjp_with_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Mapped, Tensor, Pullback]:
        """Return the output of ``forward``, the score of its rows, and the pullback of ``vjp``.

        The score of rows is the gradient of their log-density: in x before the map, in z after it.
        It uses ``inverse_vjp`` unless a bijection writes it out.

        References
        ----------
        Vaitl, Nicoli, Nakajima & Kessel, "Path-Gradient Estimators for Continuous Normalizing
        Flows", 2022.
        """
        mapped, pullback = self.vjp(x, context)
        _, through_inverse = self.inverse_vjp(mapped[0], context)
        score, _ = through_inverse(score, torch.ones_like(mapped[1]))
        return mapped, score, pullback

    def given(self, context: Tensor | None) -> Given:
        """Return the map at contexts ``(n, n_context)``, for many rows of each (see `Given`)."""
        return GivenBijection(self, context if self.n_context else None)

    def is_sequential(self, inverse: bool = False) -> bool:
        """Whether a direction takes many small operations, which gain nothing from threads."""
        return False

    def _check_context(self, context):
        if context is None or context.shape[-1] != self.n_context:
            given = "none" if context is None else f"one of shape {tuple(context.shape)}"
            raise ValueError(
                f"{type(self).__name__} was built with n_context={self.n_context}, and got "
                f"{given}; give a context of shape (..., {self.n_context})."
            )

    def initialize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        """Set what depends on data, such as scales and means; most bijections have none."""


class Chain(Bijection):
    """Bijections applied one after another, the first one nearest to the data."""

    def __init__(self, bijections):
        super().__init__()
        bijections = list(bijections)
        self.bijections = nn.ModuleList(bijections)
        self.set_from_data = any(bijection.set_from_data for bijection in self.bijections)
        self.n_context = max((bijection.n_context for bijection in bijections), default=0)
        of_parts = [list(bijection.parameters()) for bijection in self.bijections]
        # The number of leading parts without parameters: no gradient needs to reach them.
        self.n_fixed = next((i for i, some in enumerate(of_parts) if some), len(of_parts))
        # Gradients of shared parameters are left to autograd, which adds them up.
        self.shares_parameters = sum(map(len, of_parts)) > len(list(self.parameters()))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return in_turn(self.bijections, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return in_turn([each.inverse for each in reversed(self.bijections)], z, context)

    def given(self, context: Tensor | None) -> Given:
        return GivenChain([bijection.given(context) for bijection in self.bijections])

    def given_others(self, others: Tensor) -> Given:
        """Return the map of the first columns at n rows of the others, which no part changes."""
        return GivenChain([bijection.given_others(others) for bijection in self.bijections])

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        if self.shares_parameters:
            return super().vjp(x, context)
        log_det = x.new_zeros(x.shape[:-1])
        passed = []
        for bijection in self.bijections:
            (x, step), through = bijection.vjp(x, context)
            log_det = log_det + step
            passed.append(through)
        return (x, log_det), self._pullback(passed)

    def vjp_with_score(
        self, x: Tensor, score: Tensor, context: Tensor | None = None
    ) -> tuple[Mapped, Tensor, Pullback]:
        if self.shares_parameters:
            return super().vjp_with_score(x, score, context)
        log_det = x.new_zeros(x.shape[:-1])
        passed = []
        for bijection in self.bijections:
            (x, step), score, through = bijection.vjp_with_score(x, score, context)
            log_det = log_det + step
            passed.append(through)
        return (x, log_det), score, self._pullback(passed)

    def _pullback(self, passed):
        """Return the pullback of the chain, from the pullbacks of its parts."""

        def pullback(g, g_log_det, to_x=True):
            gradients: list[Tensor] = []
            last = 0 if to_x else self.n_fixed
            while len(passed) > last:  # popped, to free early what each of them keeps
                g, of_part = passed.pop()(g, g_log_det, to_x=to_x or len(passed) > last)
                gradients = of_part + gradients
            return g if to_x else None, gradients

        return pullback

    def is_sequential(self, inverse: bool = False) -> bool:
        return any(bijection.is_sequential(inverse) for bijection in self.bijections)

    def initialize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        for i, bijection in enumerate(self.bijections):
            bijection.initialize(x, weight, context)
            # The rows are needed up to the last bijection that is set from them.
            if not any(later.set_from_data for later in self.bijections[i + 1 :]):
                break
            x, _ = bijection(x, context)


class Inverse(Bijection):
    """Another bijection run backwards: it turns a masked autoregressive flow into an inverse
    one."""

    def __init__(self, bijection):
        super().__init__()
        self.bijection = bijection
        self.n_context = bijection.n_context

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return self.bijection.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return self.bijection(z, context)

    def vjp(self, x: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        return self.bijection.inverse_vjp(x, context)

    def inverse_vjp(self, z: Tensor, context: Tensor | None = None) -> tuple[Mapped, Pullback]:
        return self.bijection.vjp(z, context)

    def is_sequential(self, inverse: bool = False) -> bool:
        return self.bijection.is_sequential(not inverse)
