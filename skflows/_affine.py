"""Affine layers on columns, ``(n_in, n) -> (n_out, n)``, with or without a leading member axis."""

from itertools import pairwise

import torch
from torch import nn

from . import _fused, _tiles
from ._columns import add_product, product, weight_gradient
from ._products import large_products, layer_products

MANY = 256  # columns of a call, from which on compiled code saves more than it takes to start
# Multiplications and outputs from which on a run has a product of its own, and how many may.
SIZE_OF_A_RUN, OUTPUTS_OF_A_RUN, MOST_RUNS = 2**23, 64, 4


class ColumnLinear(nn.Module):
    """An affine layer on columns."""

    def __init__(self, n_in, n_out, zero=False):
        super().__init__()
        bound = 0.0 if zero else max(n_in, 1) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_out, n_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_out, 1).uniform_(-bound, bound))

    def forward(self, h):
        weight = self.masked_weight()
        if _fused.is_traced() or h.shape[-1] < MANY or not (address := self.gemm(weight, h)):
            return self.by_torch(weight, h)
        output = _room_for_output(weight, h)
        _tiles.layer_vjp(address, weight, self.bias, h, self.tiles(), output)
        return output

    def vjp(self, h):
        """The output, and its pullback."""
        weight = self.masked_weight()
        if address := self.gemm(weight, h):
            output = _room_for_output(weight, h)
            through = _tiles.layer_vjp(address, weight, self.bias, h, self.tiles(), output)
        else:
            output, through_product = self.product_vjp(weight, h)
            output = output.add_(self.bias)

            def through(g, to_x):
                return *through_product(g, to_x), g.sum(-1, keepdim=True)

        def pullback(g, to_x=True):
            g_h, g_weight, g_bias, *_ = through(g, to_x=to_x)
            return g_h, [self.masked_gradient(g_weight), g_bias]

        return output, pullback

    def gemm(self, weight, h):
        """What `_tiles.gemm` returns, or 0 where compiled code does not take these."""
        serves = fit(weight, h) and _fused.serves(h, weight, self.bias)
        return _tiles.gemm(h) if serves else 0

    def tiles(self):
        return _tiles.dense_tiles(*self.weight.shape[-2:])

    def masked_weight(self):
        return self.weight

    def masked_gradient(self, g_weight):
        return g_weight

    def by_torch(self, weight, h):
        """The output, whose product is torch's."""
        return add_product(self.bias, weight, h)

    def product_vjp(self, weight, h, out=None):
        """The product, by torch, and its pullback to h and the weight."""
        return product_vjp(weight, h, out)


class MaskedLinear(ColumnLinear):
    """An affine layer on columns with a masked weight.

    Where products are not in tiles, they are by runs of outputs, each with the inputs up to the
    last one that an output of the run sees. Of outputs that see more inputs the later they come,
    four runs leave out three eighths of the arithmetic.
    """

    weight_is_masked = False  # an optimiser keeps the weights that the mask hides at 0

    def __init__(self, n_in, n_out, mask, zero=False):
        super().__init__(n_in, n_out, zero)
        self.register_buffer("mask", mask)
        self.size = n_in * n_out
        self._read_mask()

    def __getstate__(self):
        # Nobody keeps the weights of a copy at 0; its mask may become that of several members.
        own = {"weight_is_masked", "_tiles"}
        return {k: v for k, v in self.__dict__.items() if k not in own}

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        self._read_mask()

    def _read_mask(self):
        """Find how many inputs each output needs, from the first one on."""
        places = torch.arange(1, self.mask.shape[-1] + 1, device=self.mask.device)
        reach = ((self.mask != 0) * places).amax(-1)
        self.reach = (reach.amax(0) if reach.dim() == 2 else reach).tolist()
        self._tiles = None

    def tiles(self):
        if getattr(self, "_tiles", None) is None:
            self._tiles = _tiles.tiles_of(self.mask)
        return self._tiles

    def masked_weight(self):
        return self.weight if self.weight_is_masked else self.weight * self.mask

    def masked_gradient(self, g_weight):
        """That in the weight, of which there is no need any more, from that without a mask."""
        if not self.weight_is_masked:
            g_weight *= self.mask
        return g_weight

    def runs(self, n):
        """Slices of outputs, as many as pay for n columns, and how many inputs each sees.

        None where one product serves as well (that of a layer whose last inputs all outputs see),
        or autograd or a compiler has them in its hands.
        """
        n_runs = min(n * self.size // SIZE_OF_A_RUN, MOST_RUNS, len(self.reach) // OUTPUTS_OF_A_RUN)
        if n_runs <= 1 or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        bounds = [len(self.reach) * i // n_runs for i in range(n_runs + 1)]
        runs = [(slice(*pair), max(self.reach[slice(*pair)])) for pair in pairwise(bounds)]
        return runs if min(n_seen for _, n_seen in runs) < max(self.reach) else None

    def by_torch(self, weight, h):
        runs = self.runs(h.shape[-1])
        if runs is None:
            return add_product(self.bias, weight, h)
        output = _room_for_output(weight, h)
        for rows, n_seen in runs:
            parts = self.bias[..., rows, :], weight[..., rows, :n_seen], h[..., :n_seen, :]
            add_product(*parts, out=output[..., rows, :])
        return output

    def product_vjp(self, weight, h, out=None):
        runs = self.runs(h.shape[-1])
        if runs is None:
            return product_vjp(weight, h, out)
        return runs_vjp(weight, h, runs, out)


def masked_layers(module):
    """The layers of a module whose weights are masked."""
    return [layer for layer in module.modules() if isinstance(layer, MaskedLinear)]


def fit(weight, h):
    """Whether a weight and columns have a product, of each member in a stack."""
    return weight.shape[:-2] == h.shape[:-2] and weight.shape[-1] == h.shape[-2] and h.dim() <= 3


def product_vjp(weight, h, out=None):
    """``weight @ h``, and its pullback to h and the weight."""
    forth, back, to_weight = layer_products(weight, h)
    if large_products in (forth, back):
        # Those of members do not lie side by side: oneDNN would copy them for each product.
        weight = weight.contiguous()

    def pullback(g, to_x=True):
        with back:
            g_h = product(weight.mT, g) if to_x else None
        with to_weight:
            return g_h, weight_gradient(g, h)

    with forth:
        return product(weight, h, out=out), pullback


def runs_vjp(weight, h, runs, out=None):
    """The same by runs of `MaskedLinear`."""
    output = _room_for_output(weight, h) if out is None else out
    pullbacks = []
    for rows, n_seen in runs:
        parts = weight[..., rows, :n_seen], h[..., :n_seen, :]
        pullbacks.append(product_vjp(*parts, out=output[..., rows, :])[1])

    def pullback(g, to_x=True):
        g_h = torch.zeros_like(h) if to_x else None
        g_weight = torch.zeros_like(weight)
        for (rows, n_seen), through in zip(runs, pullbacks, strict=True):
            own, g_weight[..., rows, :n_seen] = through(g[..., rows, :], to_x)
            if to_x:
                g_h[..., :n_seen, :] += own
        return g_h, g_weight

    return output, pullback


def _room_for_output(weight, h):
    return h.new_empty(*h.shape[:-2], weight.shape[-2], h.shape[-1])
