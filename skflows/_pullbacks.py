"""Gradients without a graph of all that was computed.

On a few hundred rows a third of a training step would go into building, walking and freeing
autograd's graph. A ``vjp`` method (for vector-Jacobian product) computes something and returns
the outcome with a pullback: a function that takes the gradient of a loss in the outcome to that
in the input, and to the list of those in the parameters, in their order. With ``to_x=False`` it
may leave out the former, and return None in its place.

A pullback may be called once, before anything changes the input or the outcome in place. Both are
called where autograd records nothing: under `torch.no_grad` or, as in training, in inference mode,
in which operations are quicker.
"""

import torch

from . import _fused


def refuse_context(module):
    """Raise if a module has a layer for a context: a ``vjp`` takes none."""
    if module.context is not None:
        name = type(module).__name__
        raise ValueError(f"This {name} needs a context, which its vjp does not take.")


def drop_inherited(cls, base, **written):
    """Give a class the methods of a base for gradients that were written for another map.

    Parameters
    ----------
    cls, base : type
        The class, and what defines the methods for all maps.
    **written : str
        Names of maps, each with that of the method that has its gradients. A class that comes
        before the one with the latter has a map of its own.
    """

    def place(name):
        return next(i for i, each in enumerate(cls.__mro__) if name in vars(each))

    for name, gradients in written.items():
        if place(name) < place(gradients):
            setattr(cls, gradients, getattr(base, gradients))


def recorded(function, x, parameters=()):
    """What a function of a tensor returns, and its pullback by autograd.

    Parameters
    ----------
    function : callable
        Returns a tuple of tensors.
    x : Tensor
        Its argument.
    parameters : sequence of Tensor, default=()
        What it depends on besides.

    Returns
    -------
    outcome : tuple of Tensor
    pullback : callable
        Takes a gradient for each tensor of the outcome, and ``to_x``.
    """
    x = leaf(x)
    with torch.inference_mode(False), torch.enable_grad():
        outcome = function(x)

    def pullback(*gradients, to_x=True):
        inputs = [x, *parameters] if to_x else parameters
        if not inputs:
            return None, []
        pairs = zip(outcome, gradients, strict=True)
        with torch.inference_mode(False):
            moved, gradients = zip(
                *[(part, _recordable(g)) for part, g in pairs if part.requires_grad], strict=True
            )
            found = list(torch.autograd.grad(moved, inputs, gradients, materialize_grads=True))
        return (found[0], found[1:]) if to_x else (None, found)

    return tuple(tensor.detach() for tensor in outcome), pullback


def leaf(x):
    """A tensor with the values of another, in which autograd takes gradients."""
    with torch.inference_mode(False):
        return _recordable(x).detach().requires_grad_()


def _recordable(x):
    """A tensor, or a copy, made outside, of one of inference mode, which autograd refuses."""
    return x.clone() if x.is_inference() else x


def squash(x, bound):
    """``x / sqrt(1 + (x / bound)^2)``: nearly x where it is small, and less than the bound."""
    return squash_vjp(x, bound)[0]


def squash_vjp(x, bound):
    """The same, and its pullback."""
    if _fused.serves(x):
        return _squash_fused(x.contiguous(), bound)
    # A tenth of the time of tanh. Sigmoid and exp2 are as quick, but round the last few values of
    # a tensor in another way: members of a stack would not have the bits that they have alone.
    shrink = torch.rsqrt(torch.addcmul(x.new_ones(()), x, x, value=bound**-2))
    return x * shrink, lambda g: g * shrink.pow(3)  # the derivative


def _squash_fused(x, bound):
    settings, sizes, y = (bound,), (x.numel(),), torch.empty_like(x)
    _fused.run("squash", settings, sizes, x, y)

    def pullback(g):
        g, g_x = _fused.as_like(g, x), torch.empty_like(x)
        _fused.run("squash_backward", settings, sizes, x, g, g_x)
        return g_x

    return y, pullback
