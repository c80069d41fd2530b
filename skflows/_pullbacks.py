"""Gradients without a graph of all that was computed.

On a few hundred rows a third of a training step would go into building, walking and freeing
autograd's graph. A ``vjp`` method computes something and returns the outcome with a pullback: a
function that takes the gradient of a loss in the outcome to that in the input, and to the list
of those in the parameters, in their order. With ``to_x=False`` it spares the former, which is
then None. It may be called once.
"""

import torch


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
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        outcome = function(x)

    def pullback(*gradients, to_x=True):
        inputs = [x, *parameters] if to_x else parameters
        if not inputs:
            return None, []
        pairs = zip(outcome, gradients, strict=True)
        moved, gradients = zip(*[pair for pair in pairs if pair[0].requires_grad], strict=True)
        found = list(torch.autograd.grad(moved, inputs, gradients, materialize_grads=True))
        return found.pop(0) if to_x else None, found

    return tuple(tensor.detach() for tensor in outcome), pullback
