"""Residuals of rows after predictions that are part of their context."""

import torch
from torch import Tensor

from ._base import Bijection, Mapped
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

    def _split(self, rows):
        """Return the first columns, the others, and the map of the predictions."""
        d = len(self.loc)
        predicted, _ = self.bijection(rows[..., -d:] * self.scale + self.loc)
        return rows[..., :d], rows[..., d:], predicted

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        first, others, predicted = self._split(x)
        mapped, log_det = self.bijection(first)
        z = (mapped - predicted) / self.residual_scale
        return torch.cat([z, others], -1), log_det - self.residual_scale.log().sum()

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        first, others, predicted = self._split(z)
        x, log_det = self.bijection.inverse(first * self.residual_scale + predicted)
        return torch.cat([x, others], -1), log_det + self.residual_scale.log().sum()
