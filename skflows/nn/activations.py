"""Activation functions and their gradients."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional as F

aten = torch.ops.aten


class Activation(NamedTuple):
    """An elementwise function.

    ``function(h)`` returns its values, and ``backward(g, h, value)`` the gradient in h from the
    gradient g in the values.
    """

    function: Callable
    backward: Callable

    def derivative(self, h, value):
        """Return the derivative at h, where the function has the given value."""
        return self.backward(torch.ones_like(h), h, value)


def silu_backward(g, h, value):
    """Return the gradient of SiLU; unlike torch's, it is differentiable."""
    if not torch.is_grad_enabled():
        return aten.silu_backward(g, h)
    sigmoid = torch.sigmoid(h)
    return g * (sigmoid + value * (1 - sigmoid))


LARGEST_SLOPE = 1.1  # of SiLU


def lipswish_backward(g, h, value):
    """Return the gradient of `lipswish`."""
    return silu_backward(g, h, LARGEST_SLOPE * value) / LARGEST_SLOPE


ACTIVATIONS = {
    "relu": Activation(torch.relu, lambda g, h, value: aten.threshold_backward(g, value, 0)),
    "tanh": Activation(torch.tanh, lambda g, h, value: aten.tanh_backward(g, value)),
    "silu": Activation(F.silu, silu_backward),
    # SiLU with slopes of at most 1: Chen et al., "Residual Flows for Invertible Generative
    # Modeling", 2019.
    "lipswish": Activation(lambda h: F.silu(h) / LARGEST_SLOPE, lipswish_backward),
}


def squash(x, bound):
    """Return ``x / sqrt(1 + (x / bound)^2)``: nearly x if x is small, and less than the bound."""
    return squash_vjp(x, bound)[0]


def squash_vjp(x, bound):
    """Return what `squash` does, and its pullback (see `skflows.nn.vjp`)."""
    # This takes a tenth of the time of tanh.
    shrink = torch.rsqrt(torch.addcmul(x.new_ones(()), x, x, value=bound**-2))
    return x * shrink, lambda g: g * shrink.pow(3)
