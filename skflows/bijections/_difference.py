"""Residuals of rows after predictions that are part of their context."""

import torch
from torch import Tensor

from ._base import Bijection, Mapped
from ._given import Given
from ._standardize import weighted_moments


class Difference(Bijection):
    """Map the first columns, subtract the map of their predictions, and scale the difference.

    The last columns of rows are the predictions, as standard scores. These, and the columns between
    them and the first ones, are left unchanged.

    Parameters
    ----------
    bijection : Bijection
        The map of the first columns.
    loc, scale : Tensor of shape (d,)
        Mean and standard deviation of the first columns, which the standard scores refer to.
    """

    loc: Tensor
    scale: Tensor
    residual_scale: Tensor

    def __init__(self, bijection, loc, scale):
        super().__init__()
        self.bijection = bijection
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)
        self.register_buffer("residual_scale", torch.ones_like(loc))

    def initialize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        residual, _ = self(x)
        self.residual_scale.copy_(weighted_moments(residual[..., : len(self.loc)], weight)[1])

    def given_others(self, others):
        """Return the map of the first columns at n rows of the others (see `Given`)."""
        d = len(self.loc)
        predicted, _ = self.bijection(others[..., -d:] * self.scale + self.loc)
        return GivenDifference(self.bijection, predicted, self.residual_scale)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        first, others = self._split(x)
        z, log_det = self.given_others(others).forward(first)
        return torch.cat([z, others], -1), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        first, others = self._split(z)
        x, log_det = self.given_others(others).inverse(first)
        return torch.cat([x, others], -1), log_det

    def _split(self, rows):
        d = len(self.loc)
        return rows[..., :d], rows[..., d:]


class GivenDifference(Given):
    """The scaled difference between the map of rows and n rows of predictions (see `Given`)."""

    def __init__(self, bijection, predicted, scale):
        self.bijection = bijection
        self.predicted = predicted
        self.scale = scale

    def forward(self, x):
        mapped, log_det = self.bijection(x)
        return (mapped - self.predicted) / self.scale, log_det - self.scale.log().sum()

    def inverse(self, z):
        x, log_det = self.bijection.inverse(z * self.scale + self.predicted)
        return x, log_det + self.scale.log().sum()

    def take(self, index):
        return GivenDifference(self.bijection, self.predicted[index], self.scale)
