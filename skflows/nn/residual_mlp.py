"""Residual networks, which condition the maps of a flow."""

from torch import nn

from .activations import ACTIVATIONS, squash, squash_vjp
from .linear import ColumnLinear
from .random_draws import dropout, dropout_factors

# Networks see nearly x for ordinary values, and this much at most. A linear response to one outlier
# would otherwise decide the parameters of its row.
FARTHEST_SEEN = 10.0


class ResidualMLP(nn.Module):
    """A residual network whose last layer starts at 0, so that its flow starts at the identity.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and outputs.
    hidden_layer_sizes : tuple of int
        Width of each hidden layer; a layer as wide as the one before it is residual.
    n_context : int, default=0
        Size of the context, which is added to the first hidden layer through a separate layer.
    activation : str, default="relu"
        A name in `skflows.nn.activations.ACTIVATIONS`.
    dropout : float, default=0.0
        Probability that a hidden unit is dropped in training. Members of a stack may differ in it.
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
        self.activation = activation
        self.dropout = dropout
        self.input = ColumnLinear(n_in, sizes[0], masks[0])
        self.hidden = nn.ModuleList(
            ColumnLinear(a, b, mask)
            for a, b, mask in zip(sizes, sizes[1:], masks[1:], strict=False)
        )
        self.output = ColumnLinear(sizes[-1], n_out, masks[-1], zero=True)
        self.context = ColumnLinear(n_context, sizes[0]) if n_context else None

    def forward(self, x, context=None):
        """Return the outputs of columns x, of shape (n_out, n).

        The context has rows, (n, n_context).
        """
        return self.output(self.units(x, context))

    def units(self, x, context=None):
        """Return the last hidden units of columns x, of shape (width, n)."""
        h = self.input(squash(x, FARTHEST_SEEN))
        if self.context is not None:
            h = h + self.context(context.mT)
        for layer in self.hidden:
            update = layer(self._activate(h))
            h = h + update if update.shape == h.shape else update
        return self._activate(h)

    def units_after(self, h):
        """Return the last hidden units ``(n, width)`` from outputs of the first layer, as rows."""
        for layer in self.hidden:
            update = layer.of_rows(self._activate(h))
            h = update.add_(h) if update.shape == h.shape else update
        return self._activate(h)

    def vjp(self, x, context=None):
        """Return the outputs and their pullback (see `skflows.nn.vjp`)."""
        seen, through_squash = squash_vjp(x, FARTHEST_SEEN)
        h, through_input = self.input.vjp(seen)
        if self.context is not None:
            shift, through_context = self.context.vjp(context.mT)
            h += shift
        units, through_units = self._activate_vjp(h)
        passed = []
        for layer in self.hidden:
            update, through_layer = layer.vjp(units)
            is_residual = update.shape == h.shape
            passed.append((through_units, through_layer, is_residual))
            h = update.add_(h) if is_residual else update
            units, through_units = self._activate_vjp(h)
        output, through_output = self.output.vjp(units)

        def pullback(g, to_x=True, to_parameters=True):
            g, gradients = through_output(g, to_parameters=to_parameters)
            g = through_units(g)
            for through_units_before, through_layer, is_residual in reversed(passed):
                g_units, of_layer = through_layer(g, to_parameters=to_parameters)
                g_before = through_units_before(g_units)
                g = g_before.add_(g) if is_residual else g_before
                gradients = of_layer + gradients
            if self.context is not None and to_parameters:
                gradients += through_context(g, to_x=False)[1]
            g, of_layer = through_input(g, to_x, to_parameters)
            return through_squash(g) if to_x else None, of_layer + gradients

        return output, pullback

    def _activate(self, h):
        units = ACTIVATIONS[self.activation].function(h)
        return dropout(units, self.dropout) if self.dropout and self.training else units

    def _activate_vjp(self, h):
        activation = ACTIVATIONS[self.activation]
        value = activation.function(h)
        if not (self.dropout and self.training):
            return value, lambda g: activation.backward(g, h, value)
        factors = dropout_factors(value, self.dropout)
        return value * factors, lambda g: activation.backward(g * factors, h, value)
