"""Plain networks on rows, and normal distributions from their outputs."""

from itertools import pairwise

from torch import nn


def mlp(*sizes):
    """Return affine layers of these sizes, from the input to the output, with SiLU between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def means_and_log_scales(outputs, bound):
    """Return the two halves of outputs ``(n, 2 d)``, the second one within the bound."""
    mean, log_scale = outputs.chunk(2, -1)
    return mean, bound * (log_scale / bound).tanh()
