"""Products of weights with columns, ``(n_in, n) -> (n_out, n)``, and with columns that grow."""

import torch

LANES = 16  # values of float32 in the widest registers


def add_product(start, weight, h):
    """``start + weight @ h`` in one kernel, with or without a leading member axis."""
    return (torch.addmm if h.dim() == 2 else torch.baddbmm)(start, weight, h)


def weight_gradient(g, h):
    """The gradient in a weight from those in what became of columns: ``g @ h.mT``.

    Products are quicker if the last axis of what they return fills the processor's lanes: those of
    the first layer of a network by up to two fifths.
    """
    if h.shape[-2] % LANES and not g.shape[-2] % LANES and g.is_cpu:
        return (h @ g.mT).mT
    return g @ h.mT


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

    def rows(self, start, end):
        """Rows of the run that began last, as the input is now."""
        new = self.inputs.columns()[..., self.n_seen :, :]
        weight = self.weight[..., start:end, self.n_seen : self.n_seen + new.shape[-2]]
        product = self.product[..., start - self.start : end - self.start, :]
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
