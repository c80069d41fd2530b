"""Hand-written gradients: vector-Jacobian products without autograd's graph.

On a few hundred rows, a third of a training step would go into building and walking autograd's
graph. A ``vjp`` method computes something and returns the outcome with a pullback: a function from
the gradient of a loss in the outcome to the gradients in the input and in the parameters. The
latter are a list, in the order of ``parameters()``. With ``to_x=False`` a pullback may leave out
the gradient in the input and return None instead.

A pullback may be called once (of a `ResidualMLP`, any number of times, and with
``to_parameters=False`` for the gradient in the input alone), before anything changes the
input or the outcome in place. Both run under `torch.no_grad` or, as in training, in
`torch.inference_mode`.
"""

from collections.abc import Callable

import torch

Pullback = Callable[..., tuple]  # from the gradients in an outcome to those in what it depends on


def by_autograd(function, x, parameters=()):
    """Return what a function of a tensor returns, and its pullback by autograd.

    Parameters
    ----------
    function : callable
        Returns a tuple of tensors.
    x : Tensor
        Its argument.
    parameters : sequence of Tensor, default=()
        Other tensors it depends on.

    Returns
    -------
    outcome : tuple of Tensor
        What the function returned.
    pullback : callable
        Takes a gradient for each tensor of the outcome, and ``to_x``.
    """
    x = as_leaf(x)
    with torch.inference_mode(False), torch.enable_grad():
        outcome = function(x)

    def pullback(*gradients, to_x=True):
        inputs = [x, *parameters] if to_x else parameters
        if not inputs:
            return None, []
        pairs = [pair for pair in zip(outcome, gradients, strict=True) if pair[0].requires_grad]
        with torch.inference_mode(False):
            parts, gradients = zip(*[(part, _outside(g)) for part, g in pairs], strict=True)
            of_inputs = list(torch.autograd.grad(parts, inputs, gradients, materialize_grads=True))
        return (of_inputs[0], of_inputs[1:]) if to_x else (None, of_inputs)

    return tuple(tensor.detach() for tensor in outcome), pullback


def as_leaf(x):
    """Return a tensor with the values of another one, in which autograd takes gradients."""
    with torch.inference_mode(False):
        return _outside(x).detach().requires_grad_()


def _outside(x):
    """Return a copy of a tensor of inference mode, which autograd refuses; others as they are."""
    return x.clone() if x.is_inference() else x


def drop_inherited_vjp(cls, base, **names):
    """Give a class the default gradients of a base if it inherits the gradients of another map.

    A subclass that overrides a map, but not its hand-written gradients, would otherwise train with
    the gradients of the map that it has replaced.

    Parameters
    ----------
    cls, base : type
        The class, and the class that defines the gradients by autograd.
    **names : str
        Name of each map, with the name of the method that has its gradients.
    """

    def position(name):
        return next(i for i, each in enumerate(cls.__mro__) if name in vars(each))

    for map_name, vjp_name in names.items():
        if position(map_name) < position(vjp_name):
            setattr(cls, vjp_name, getattr(base, vjp_name))
