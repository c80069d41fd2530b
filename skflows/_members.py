"""Stacks: several bijections of the same shapes that run, and train, as one.

At small batches a step spends its time on starting kernels rather than on their work: the
folds of a cross-validation then cost little more together than a few of them apart.
"""

import copy

import torch
from torch import nn


def stack(bijections):
    """Join bijections into one whose parameters have a leading member axis.

    Parameters
    ----------
    bijections : sequence of Bijection
        The members. They differ in the values of their parameters and floating-point buffers
        alone, and what is set from data in them has been initialised.

    Returns
    -------
    stacked : Bijection
        Takes ``(M, n, d)`` rows, and a context of shape ``(M, n, n_context)``. It shares no
        memory with the members.

    Raises
    ------
    ValueError
        If the members differ in more than these values, or one of them is a stack already.
    """
    first, *others = bijections = list(bijections)
    if any(hasattr(module, "stacked_names") for b in bijections for module in b.modules()):
        raise ValueError("A member is a stack itself: unstack it, and stack all members at once.")
    for i, other in enumerate(others, start=1):
        _check_alike(first, other, f"Members 0 and {i}")
    stacked = copy.deepcopy(first)
    stacked.n_members = len(bijections)
    stacked.stacked_names = []
    members = [_tensors(bijection) for bijection in bijections]
    for name, value in members[0].items():
        values = [member[name].detach() for member in members]
        if isinstance(value, nn.Parameter):
            _replace(stacked, name, nn.Parameter(torch.stack(values), value.requires_grad))
        elif not all(torch.equal(other, value) for other in values):
            _replace(stacked, name, torch.stack(values))
        else:
            continue
        stacked.stacked_names.append(name)
    return stacked


def unstack(stacked):
    """The members of a stack, in memory of their own.

    Parameters
    ----------
    stacked : Bijection
        What `stack` returned.

    Returns
    -------
    bijections : list of Bijection

    Raises
    ------
    ValueError
        If the bijection is no stack.
    """
    if not hasattr(stacked, "stacked_names"):
        raise ValueError("This bijection is no stack: there is nothing to take apart.")
    return [_member(stacked, i) for i in range(stacked.n_members)]


def _member(stacked, i):
    bijection = copy.deepcopy(stacked)
    del bijection.n_members, bijection.stacked_names
    for name in stacked.stacked_names:
        value = _tensors(stacked)[name]
        own = value.detach()[i].clone()
        if isinstance(value, nn.Parameter):
            own = nn.Parameter(own, value.requires_grad)
        _replace(bijection, name, own)
    return bijection


def _tensors(bijection):
    return dict(bijection.named_parameters()) | dict(bijection.named_buffers())


def _replace(bijection, name, value):
    path, _, leaf = name.rpartition(".")
    setattr(bijection.get_submodule(path), leaf, value)


def _settings(bijection):
    """What a bijection computes with besides its tensors."""
    return {
        path: (type(module), {k: v for k, v in vars(module).items() if k[0] != "_"})
        for path, module in bijection.named_modules()
    }


def _check_alike(first, other, who):
    """Raise unless one kernel can compute both bijections."""
    ours, theirs = _tensors(first), _tensors(other)
    if _settings(first) != _settings(other) or ours.keys() != theirs.keys():
        raise ValueError(f"{who} differ in structure or settings: they cannot be stacked.")
    for name, a in ours.items():
        b = theirs[name]
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(
                f"{who} differ in {name}: {tuple(a.shape)} of {a.dtype} and {tuple(b.shape)} of "
                f"{b.dtype}. Only members of the same shapes can be stacked."
            )
        if not a.is_floating_point() and not torch.equal(a, b):
            raise ValueError(f"{who} differ in {name}, which is no number to be stacked.")
