"""Incremental evaluation of a masked network whose input depends on its own outputs.

The inverse of an autoregressive map computes one feature after another: each needs outputs that
depend on the features before it. The units of a masked network are sorted by degree, so that a new
feature determines one new block of units in each layer. Computing only that block makes all
features cost as much as one dense pass.
"""

import torch

from .. import kernels
from .linear import affine

BLOCKS_PER_PRODUCT = 6  # whose rows share one product with the inputs known before them


def run(weights, biases, bounds, like, activate, next_input, slopes=None):
    """Run a network block by block, each block of outputs yielding the next block of inputs.

    Block i of the first layer sees the input blocks before i; block i of any other layer sees the
    blocks of the layer before it up to i. A hidden layer as wide as the one before it is residual.

    Parameters
    ----------
    weights, biases : list of Tensor
        One for each layer, the output layer last. A bias is a column, or has a column for each row.
    bounds : list of sequence of int
        For each layer, the first row of each block and, last, the number of rows.
    like : Tensor of shape (..., n)
        Gives shape, dtype and device.
    activate : callable
        ``activate(k, h)`` returns what the next layer sees of a block of hidden layer k.
    next_input : callable
        ``next_input(i, outputs)`` returns input block i from output block i.
    slopes : list of Tensor, optional
        Factors on the products of each hidden layer.

    Returns
    -------
    inputs : list of Tensor
        The input of each layer.
    """
    inputs = [GrowingInput(weight.shape[-1], like) for weight in weights]
    products = [BlockProduct(*layer) for layer in zip(weights, biases, inputs, strict=True)]
    *hidden, output = products
    is_residual = [k > 0 and w.shape[-2] == w.shape[-1] for k, w in enumerate(weights)]
    n_blocks = len(bounds[-1]) - 1
    for i in range(n_blocks):
        if i % BLOCKS_PER_PRODUCT == 0:
            end = min(i + BLOCKS_PER_PRODUCT, n_blocks)
            for product, bound in zip(products, bounds, strict=True):
                product.start(bound[i], bound[end])
        h = None
        for k, product in enumerate(hidden):
            rows = slice(bounds[k][i], bounds[k][i + 1])
            update = product.rows(rows)
            if slopes is not None:
                update = update * slopes[k][..., rows, :]
            h = h + update if is_residual[k] else update
            inputs[k + 1].append(activate(k, h))
        inputs[0].append(next_input(i, output.rows(slice(bounds[-1][i], bounds[-1][i + 1]))))
    return [each.columns() for each in inputs]


def run_backward(weights, bounds, slopes, like, next_gradient):
    """Return the gradients in the products of each layer of `run`, computed last block first.

    Parameters
    ----------
    weights, bounds, like : objects
        See `run`.
    slopes : list of Tensor
        Derivatives of ``activate`` at the units of each hidden layer.
    next_gradient : callable
        ``next_gradient(i, g)`` takes the gradient in input block i through the outputs after it,
        and returns the gradient in output block i.

    Returns
    -------
    gradients : list of Tensor
        One for each layer, the output layer last.
    """
    # The same loop over the transposed network, with rows and columns in reverse order.
    n_blocks = len(bounds[-1]) - 1
    back = [weight.mT.flip(-2, -1) for weight in reversed(weights)]
    slopes = [slope.flip(-2) for slope in reversed(slopes)]
    zeros = [weight.new_zeros(*weight.shape[:-1], 1) for weight in back]
    # A block of units follows the gradient in the outputs that first see it.
    of_units = [[0, *(bound[-1] - b for b in reversed(bound))] for bound in reversed(bounds[:-1])]
    of_inputs = [*range(n_blocks + 1), n_blocks]

    def activate(k, g):
        return g

    def next_input(i, g):
        # The last block has the units that see no input; there is no output for it.
        return next_gradient(n_blocks - 1 - i, g).flip(-2) if i < n_blocks else g

    gradients = run(back, zeros, [*of_units, of_inputs], like, activate, next_input, slopes)
    return [gradient.flip(-2) for gradient in reversed(gradients)]


class BlockProduct:
    """The product of an affine layer with an input that grows, a few rows at a time.

    One product with the input known so far serves several blocks of rows; what is added to the
    input meanwhile takes a small product for each block.
    """

    def __init__(self, weight, bias, inputs):
        self.weight = weight
        self.bias = bias
        self.inputs = inputs

    def start(self, first, end):
        """Multiply rows ``first`` to ``end`` by the input known so far."""
        seen = self.inputs.columns()
        self.first = first
        self.n_seen = seen.shape[-2]
        weight = self.weight[..., first:end, : self.n_seen]
        self.product = affine(self.bias[..., first:end, :], weight, seen)

    def rows(self, rows):
        """Return some of these rows, a slice, for the whole input."""
        new = self.inputs.columns()[..., self.n_seen :, :]
        weight = self.weight[..., rows, self.n_seen : self.n_seen + new.shape[-2]]
        product = self.product[..., rows.start - self.first : rows.stop - self.first, :]
        return affine(product, weight, new)


class GrowingInput:
    """Columns to which blocks of rows are appended.

    They lie in one buffer, unless autograd or a function transform sees the operations: then they
    are concatenated anew.
    """

    def __init__(self, capacity, like):
        *members, _, n = like.shape
        self.count = 0
        self.blocks = [like.new_empty(*members, 0, n)]
        self.buffer = None
        if not (torch.is_grad_enabled() or kernels.is_traced()):
            self.buffer = like.new_empty(*members, capacity, n)

    def append(self, block):
        if self.buffer is None:
            self.blocks.append(block)
        else:
            start, self.count = self.count, self.count + block.shape[-2]
            self.buffer[..., start : self.count, :] = block

    def columns(self):
        if self.buffer is None:
            self.blocks = [torch.cat(self.blocks, -2)]
            return self.blocks[0]
        return self.buffer[..., : self.count, :]
