"""Affine layers on columns, ``(n_in, n) -> (n_out, n)``, with or without a leading member axis."""

import torch
from torch import nn


def affine(bias, weight, h):
    """Return ``weight @ h + bias`` in one operation."""
    return (torch.addmm if h.dim() == 2 else torch.baddbmm)(bias, weight, h)


class ColumnLinear(nn.Module):
    """An affine layer on columns.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and outputs.
    zero : bool, default=False
        Whether all parameters start at 0.
    """

    def __init__(self, n_in, n_out, zero=False):
        super().__init__()
        bound = 0.0 if zero else max(n_in, 1) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_out, n_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_out, 1).uniform_(-bound, bound))

    def effective_weight(self):
        """Return the weight that multiplies the columns."""
        return self.weight

    def weight_gradient(self, g, h):
        """Return the gradient in the weight, from the gradient g in the output for columns h."""
        return g @ h.mT

    def forward(self, h):
        return affine(self.bias, self.effective_weight(), h)

    def vjp(self, h):
        """Return the output and its pullback (see `skflows.nn.vjp`)."""
        weight = self.effective_weight()

        def pullback(g, to_x=True):
            g_h = weight.mT @ g if to_x else None
            return g_h, [self.weight_gradient(g, h), g.sum(-1, keepdim=True)]

        return affine(self.bias, weight, h), pullback


class MaskedLinear(ColumnLinear):
    """An affine layer on columns whose weight is multiplied by a mask.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and outputs.
    mask : Tensor of shape (n_out, n_in)
        1 for each weight that is used, 0 for the others.
    zero : bool, default=False
        Whether all parameters start at 0.
    """

    def __init__(self, n_in, n_out, mask, zero=False):
        super().__init__(n_in, n_out, zero)
        self.register_buffer("mask", mask)

    def effective_weight(self):
        return self.weight * self.mask

    def weight_gradient(self, g, h):
        return (g @ h.mT).mul_(self.mask)
