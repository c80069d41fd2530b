"""Plain networks on rows."""

from itertools import pairwise

from torch import nn


def mlp(*sizes):
    """Return affine layers of these sizes, from the input to the output, with SiLU between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
