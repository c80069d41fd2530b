"""Products of weights with columns, ``(n_in, n) -> (n_out, n)``, and with columns that grow."""

import torch

LANES = 16  # values of float32 in the widest registers
PERIOD = 2**11  # bytes: rows that lie a multiple apart share few lines of a core's first cache
BLOCKS_AT_ONCE = 6  # whose rows share the products with what all of them see


def add_product(start, weight, h, out=None):
    """``start + weight @ h`` in one kernel, with or without a leading member axis."""
    return (torch.addmm if h.dim() == 2 else torch.baddbmm)(start, weight, h, out=out)


def product(weight, h, out=None):
    """``weight @ h``, with or without a leading member axis."""
    return (torch.mm if h.dim() == 2 else torch.bmm)(weight, h, out=out)


def weight_gradient(g, h):
    """The gradient in a weight from those in what became of columns: ``g @ h.mT``.

    Products are quicker if the last axis of what they return fills the processor's lanes: those of
    the first layer of a network by up to two fifths. Not where columns collide, unless the inputs
    are few.
    """
    n_in, n_out = h.shape[-2], g.shape[-2]
    if n_in % LANES and not n_out % LANES and g.is_cpu and (n_in < LANES or not collide(g)):
        return product(h, g.mT).mT
    return product(g, h.mT)


def collide(columns):
    """Whether their rows lie so far apart that they displace each other from the nearest cache.

    A product that takes them transposed, as the gradient in a weight does, waits for them: on 1,024
    rows for a quarter of its time. Products of a stack would copy what lies otherwise.
    """
    return columns.dim() == 2 and columns.shape[-1] * columns.element_size() % PERIOD == 0


def room_apart(n_rows, columns):
    """Room for so many rows of columns like these, which do not collide."""
    *members, _, n = columns.shape
    if not collide(columns):
        return columns.new_empty(*members, n_rows, n)
    return columns.new_empty(*members, n_rows, n + LANES)[..., :n]


def grow(weights, biases, bounds, like, activate, next_input, slopes=None):
    """Run a network block by block, whose input grows by what its outputs allow.

    Block i of the first layer sees the blocks of the input before i, and that of each other layer
    the blocks of the layer before it up to i. A hidden layer as wide as the one before it is
    residual.

    Parameters
    ----------
    weights, biases : list of Tensor
        Of each layer, that of the outputs last. A bias is a column, or has one for each column.
    bounds : list of sequence of int
        Where the blocks of rows of each layer begin, and the last one ends.
    like : Tensor of shape (..., n)
        Gives shape, dtype and device.
    activate : callable
        ``activate(k, h)`` returns what the next layer sees of a block of hidden layer k.
    next_input : callable
        ``next_input(i, outputs)`` returns block i of the input from that of the outputs.
    slopes : list of Tensor, optional
        One for each hidden layer, to multiply its product by.

    Returns
    -------
    inputs : list of Tensor
        What the product of each layer has seen.
    """
    inputs = [GrowingColumns(weight.shape[-1], like) for weight in weights]
    products = [GrowingProduct(*each) for each in zip(weights, biases, inputs, strict=True)]
    *hidden, output = products
    is_residual = [k > 0 and w.shape[-2] == w.shape[-1] for k, w in enumerate(weights)]
    n_blocks = len(bounds[-1]) - 1
    for i in range(n_blocks):
        if i % BLOCKS_AT_ONCE == 0:
            end = min(i + BLOCKS_AT_ONCE, n_blocks)
            for product, bound in zip(products, bounds, strict=True):
                product.begin(bound[i], bound[end])
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


def grow_back(weights, bounds, slopes, like, next_gradient):
    """Gradients in what the products of each layer came to in `grow`, the last block first.

    Parameters
    ----------
    weights, bounds, like : objects
        As of `grow`.
    slopes : list of Tensor
        Of what ``activate`` did to the units of each hidden layer.
    next_gradient : callable
        ``next_gradient(i, g)`` is given the gradient in block i of the input by way of the outputs
        after it, and returns that in block i of the outputs.

    Returns
    -------
    gradients : list of Tensor
        One for each layer, that of the outputs last.
    """
    # The same loop over the transposed network, with the order of all rows and columns reversed.
    n_blocks = len(bounds[-1]) - 1
    back = [weight.mT.flip(-2, -1) for weight in reversed(weights)]
    slopes = [slope.flip(-2) for slope in reversed(slopes)]
    nothing = [weight.new_zeros(*weight.shape[:-1], 1) for weight in back]
    # A block of units comes after the gradient in the outputs that first see it.
    of_units = [[0, *(bound[-1] - b for b in reversed(bound))] for bound in reversed(bounds[:-1])]
    of_inputs = [*range(n_blocks + 1), n_blocks]

    def activate(k, g):
        return g

    def next_input(i, g):
        # The last step has the units that see no input, and no output.
        return next_gradient(n_blocks - 1 - i, g).flip(-2) if i < n_blocks else g

    found = grow(back, nothing, [*of_units, of_inputs], like, activate, next_input, slopes)
    return [gradient.flip(-2) for gradient in reversed(found)]


class GrowingProduct:
    """Rows of an affine layer whose input grows, some rows at a time.

    The input that is there when a run of rows begins meets them all in one product: of a few rows
    each, the products would take twice as long.
    """

    def __init__(self, weight, bias, inputs):
        self.weight = weight
        self.bias = bias
        self.inputs = inputs

    def begin(self, start, end):
        seen = self.inputs.columns()
        self.start = start
        self.n_seen = seen.shape[-2]
        weight = self.weight[..., start:end, : self.n_seen]
        self.product = add_product(self.bias[..., start:end, :], weight, seen)

    def rows(self, rows):
        """Rows, a slice, of the run that began last, as the input is now."""
        new = self.inputs.columns()[..., self.n_seen :, :]
        weight = self.weight[..., rows, self.n_seen : self.n_seen + new.shape[-2]]
        product = self.product[..., rows.start - self.start : rows.stop - self.start, :]
        return add_product(product, weight, new)


class GrowingColumns:
    """Columns that grow by blocks: in one buffer, or joined anew where autograd must see them."""

    def __init__(self, capacity, like):
        *members, _, n = like.shape
        self.count = 0
        self.blocks = [like.new_empty(*members, 0, n)]
        self.buffer = None
        if not torch.is_grad_enabled():
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
