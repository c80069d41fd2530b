"""Conditioner networks.

They work on columns: ``(n_in, n) -> (n_out, n)``. With the rows last in memory the matrix
products cost the same, and the elementwise work on their outputs runs several times faster.
Several networks of the same shapes run as one when their parameters, and the columns, have a
leading member axis.
"""

from collections import deque

import torch
from torch import nn
from torch.nn import functional as F

from . import _fused, _tiles
from ._affine import MANY, ColumnLinear, MaskedLinear, fit
from ._columns import room_apart
from ._draws import dropout, dropout_bits, dropout_factors
from ._pullbacks import recorded, refuse_context, squash, squash_vjp

aten = torch.ops.aten

# Networks see nearly x for ordinary values, and this much at most. A linear response to one outlier
# would otherwise decide the parameters of its row.
FARTHEST_SEEN = 10.0


class ResidualMLP(nn.Module):
    """A residual network whose zero-initialised last layer makes its flow start at the identity.

    Parameters
    ----------
    n_in, n_out : int
        Number of input and output rows of the columns.
    hidden_layer_sizes : tuple of int
        Width of each hidden layer; a layer as wide as the one before it is residual.
    n_context : int, default=0
        Size of the context, which joins the first hidden layer.
    activation : str, default="relu"
        The name of an elementwise function in `torch.nn.functional`.
    dropout : float, default=0.0
        Probability that a hidden unit is dropped in training. Members of a stack may differ
        in it.
    masks : list of Tensor, optional
        One mask for each weight, first to last.
    """

    member_settings = ("dropout",)

    def __init__(
        self,
        n_in,
        n_out,
        hidden_layer_sizes,
        n_context=0,
        activation="relu",
        dropout=0.0,
        masks=None,
    ):
        super().__init__()
        sizes = list(hidden_layer_sizes)
        masks = masks or [None] * (len(sizes) + 1)
        self.activation = getattr(F, activation)
        self.dropout = dropout
        self.input = _linear(n_in, sizes[0], masks[0])
        self.hidden = nn.ModuleList(
            _linear(a, b, mask) for a, b, mask in zip(sizes, sizes[1:], masks[1:], strict=False)
        )
        self.output = _linear(sizes[-1], n_out, masks[-1], zero=True)
        self.context = ColumnLinear(n_context, sizes[0]) if n_context else None

    @property
    def vjp_by_autograd(self):
        """Whether `vjp` leaves something to autograd, where a compiler does not follow it."""
        return self.activation is not F.relu

    def activate(self, h):
        h = self.activation(h)
        return dropout(h, self.dropout) if self.dropout and self.training else h

    def first_layer(self, x, context):
        h = self.input(squash(x, FARTHEST_SEEN))
        return h if self.context is None else h + self.context(context.mT)

    def last_hidden(self, x, context):
        h = self.first_layer(x, context)
        for layer in self.hidden:
            update = layer(self.activate(h))
            h = h + update if update.shape == h.shape else update
        return self.activate(h)

    def forward(self, x, context=None):
        if _fused.is_traced() or x.shape[-1] < MANY or not self._is_fused(x):
            return self.output(self.last_hidden(x, context))
        added = None if self.context is None else self.context(context.mT)
        passed = self._hidden_vjp(squash(x, FARTHEST_SEEN), added)
        units, *_ = deque(passed, maxlen=1).pop()  # of the layers before it none is kept
        return self.output(units)

    def vjp(self, x):
        """The output, and its pullback."""
        refuse_context(self)
        seen, through_squash = squash_vjp(x, FARTHEST_SEEN)
        passed = list(self._hidden_vjp(seen))
        output, through_output = self.output.vjp(passed[-1][0])

        def pullback(g, to_x=True):
            g, gradients = through_output(g)
            g_after = None  # that in h by way of the residual layer after it
            while passed:  # what each keeps is free when its turn is over
                _, through, is_residual = passed.pop()
                g, g_weight, g_bias, g_h = through(g, g_after, to_x or len(passed) > 0)
                gradients = [g_weight, g_bias, *gradients]
                g_after = g_h if is_residual else None
            return through_squash(g) if to_x else None, gradients

        return output, pullback

    def _hidden_vjp(self, seen, added=None):
        """Units of each hidden layer, their pullback, and whether the layer is residual.

        What is given is added to the product of the first one.
        """
        layers, h = [self.input, *self.hidden], None
        for layer in layers:
            is_residual = h is not None and h.shape[-2] == layer.weight.shape[-2]
            added = h if is_residual else added if h is None else None
            h, seen, through = self._layer_vjp(layer, seen, added, layer is layers[-1])
            yield seen, through, is_residual

    def _layer_vjp(self, layer, seen, residual, is_last):
        """A hidden layer before and behind its activation, and its pullback.

        That takes the gradient in the latter, which nobody may need after it, that in the former by
        way of what comes later, or None, and whether that in what is seen is wanted. It returns the
        latter, those in the weight and in the bias, and that in the former. Of the last layer, what
        comes before the activation is not kept.
        """
        weight = layer.masked_weight()
        added = () if residual is None else (residual,)
        shape = *seen.shape[:-2], weight.shape[-2], seen.shape[-1]
        all_fit = fit(weight, seen) and (residual is None or residual.shape == shape)
        if all_fit and self._is_fused(seen, weight, layer.bias, *added):
            return self._layer_vjp_fused(layer, weight, seen, residual, is_last)
        product, through_product = layer.product_vjp(weight, seen)
        h = product + layer.bias
        h = h if residual is None else h + residual
        units, through_units = self._activate_vjp(h, in_place=is_last)

        def pullback(g, g_after, to_x):
            g = through_units(g)
            g = g if g_after is None else g.add_(g_after)
            g_seen, g_weight = through_product(g, to_x)
            return g_seen, layer.masked_gradient(g_weight), g.sum(-1, keepdim=True), g

        return h, units, pullback

    def _layer_vjp_fused(self, layer, weight, seen, residual, is_last):
        """The same of rectified units, by compiled code."""
        product, through_product = room_apart(weight.shape[-2], seen), None
        address = _tiles.gemm(seen)
        if not address:
            product, through_product = layer.product_vjp(weight, seen, product)
        drop = dropout_bits(product, self.dropout) if self.dropout and self.training else None
        units = product if is_last else room_apart(weight.shape[-2], seen)
        given = address, weight, layer.bias, seen, layer.tiles(), product
        through = _tiles.layer_vjp(*given, residual=residual, drop=drop, units=units)

        def pullback(g, g_after, to_x):
            g_seen, g_weight, g_bias, g = through(g, g_after, to_x)
            if through_product is not None:
                g_seen, g_weight = through_product(g, to_x)
            return g_seen, layer.masked_gradient(g_weight), g_bias, g

        return product, units, pullback

    def _is_fused(self, *tensors):
        return not self.vjp_by_autograd and _fused.serves(*tensors)

    def _activate_vjp(self, h, in_place=False):
        is_dropped = self.dropout and self.training
        factors, factor = dropout_factors(h, self.dropout) if is_dropped else (None, None)
        if self.vjp_by_autograd:
            (units,), by_autograd = recorded(lambda h: (self.activation(h),), h)
            if factors is None:
                return units, lambda g: by_autograd(g)[0]
            return units * factors, lambda g: by_autograd(g * factors)[0]
        if factors is not None:
            # In memory that the processor's cache holds, but for factors that members share.
            out = factors if factors.shape == h.shape else h if in_place else None
            units = torch.mul(h, factors, out=out).relu_()
        else:
            units = h.relu_() if in_place else h.relu()

        def pullback(g):  # in place, for nobody else has this one
            if factor is not None:
                g *= factor
            # One that was dropped is 0, as one is that is off: neither passes anything back.
            return aten.threshold_backward.grad_input(g, units, 0.0, grad_input=g)

        return units, pullback


def _linear(n_in, n_out, mask, **others):
    if mask is None:
        return ColumnLinear(n_in, n_out, **others)
    return MaskedLinear(n_in, n_out, mask, **others)
