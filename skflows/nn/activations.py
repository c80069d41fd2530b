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
SHARPNESS = 3.0  # of LipSwish: weights of norm 1 hardly bend a smoother function


def lipswish(h):
    """Return SiLU of 3 h, scaled to slopes of at most 1.

    See Chen et al., "Residual Flows for Invertible Generative Modeling", 2019.
    """
    return F.silu(SHARPNESS * h) / (SHARPNESS * LARGEST_SLOPE)


def lipswish_backward(g, h, value):
    """Return the gradient of LipSwish."""
    scaled = SHARPNESS * h, SHARPNESS * LARGEST_SLOPE * value
    return silu_backward(g, *scaled) / LARGEST_SLOPE


ACTIVATIONS = {
    "relu": Activation(torch.relu, lambda g, h, value: aten.threshold_backward(g, value, 0)),
    "tanh": Activation(torch.tanh, lambda g, h, value: aten.tanh_backward(g, value)),
    "silu": Activation(F.silu, silu_backward),
    "lipswish": Activation(lipswish, lipswish_backward),
}


def squash(x, bound):
    """Return ``x / sqrt(1 + (x / bound)^2)``: nearly x if x is small, and less than the bound."""
    return squash_vjp(x, bound)[0]


def squash_vjp(x, bound):
    """Return what `squash` does, and its pullback (see `skflows.nn.vjp`)."""
    # This takes a tenth of the time of tanh.
    shrink = torch.rsqrt(torch.addcmul(x.new_ones(()), x, x, value=bound**-2))
    return x * shrink, lambda g: g * shrink.pow(3)
