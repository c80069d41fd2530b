"""Affine layers on columns, ``(n_in, n) -> (n_out, n)``, with or without a leading member axis."""

import torch
from torch import nn


def affine(bias, weight, h):
    """Return ``weight @ h + bias`` in one operation."""
    return (torch.addmm if h.dim() == 2 else torch.baddbmm)(bias, weight, h)


class ColumnLinear(nn.Module):
    """An affine layer on columns, whose weight may be masked.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and outputs.
    mask : Tensor of shape (n_out, n_in), optional
        1 for each weight that is used, 0 for the others.
    zero : bool, default=False
        Whether all parameters start at 0.
    """

    mask: torch.Tensor | None

    def __init__(self, n_in, n_out, mask=None, zero=False):
        super().__init__()
        bound = 0.0 if zero else max(n_in, 1) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_out, n_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_out, 1).uniform_(-bound, bound))
        self.register_buffer("mask", mask)

    def effective_weight(self):
        """Return the weight that multiplies the columns."""
        mask = self.mask
        return self.weight if mask is None else self.weight * mask

    def forward(self, h):
        return affine(self.bias, self.effective_weight(), h)

    def of_rows(self, h):
        """Return the output ``(n, n_out)`` for rows ``(n, n_in)``."""
        return torch.addmm(self.bias[:, 0], h, self.effective_weight().mT)

    def vjp(self, h):
        """Return the output and its pullback (see `skflows.nn.vjp`)."""
        weight = self.effective_weight()

        def pullback(g, to_x=True, to_parameters=True):
            gradients = self.gradients(g, h) if to_parameters else []
            return weight.mT @ g if to_x else None, gradients

        return affine(self.bias, weight, h), pullback

    def gradients(self, g, h):
        """Return the gradients in weight and bias, from the gradient g in the output for columns
        h."""
        in_weight, mask = g @ h.mT, self.mask
        if mask is not None:
            in_weight.mul_(mask)
        return [in_weight, g.sum(-1, keepdim=True)]
