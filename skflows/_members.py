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
        The members. They differ in the values of their parameters, floating-point buffers and
        ``member_settings`` alone, and what is set from data in them has been initialised.

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
    bijections = list(bijections)
    if any(hasattr(module, "stacked_names") for b in bijections for module in b.modules()):
        raise ValueError("A member is a stack itself: stack all members at once.")
    described = [_described(bijection) for bijection in bijections]
    for i, other in enumerate(described[1:], start=1):
        _check_alike(described[0], other, f"Members 0 and {i}")
    members = [tensors for _, tensors in described]
    values = {}
    for name, value in members[0].items():
        own = [member[name].detach() for member in members]
        if isinstance(value, nn.Parameter) or not _all_equal(own):
            values[name] = torch.stack(own)
    stacked = _copied(bijections[0], values)
    stacked.stacked_names = list(values)
    for module, *alone in zip(stacked.modules(), *(b.modules() for b in bijections), strict=True):
        for name in getattr(module, "member_settings", ()):
            settings = [getattr(member, name) for member in alone]
            if any(setting != settings[0] for setting in settings):
                setattr(module, name, settings)
    return stacked


def alike(first, other):
    """Whether two bijections can be members of one stack."""
    try:
        _check_alike(_described(first), _described(other), "They")
    except ValueError:
        return False
    return True


@torch.no_grad()
def unstack(stacked, bijections):
    """Set bijections to what the members of their stack have become.

    Parameters
    ----------
    stacked : Bijection
        What `stack` returned of them, or of others of the same structure and settings.
    bijections : sequence of Bijection
        As many as there are members. They share no memory with the stack.
    """
    names = stacked.stacked_names
    tensors = _tensors(stacked)
    for bijection, *values in zip(bijections, *(tensors[name] for name in names), strict=True):
        own = _tensors(bijection)
        for name, value in zip(names, values, strict=True):
            own[name].copy_(value)


def substack(stacked, indices):
    """A stack of some of the members of a stack, in memory of its own."""
    tensors = _tensors(stacked)
    values = {name: tensors[name].detach()[indices] for name in stacked.stacked_names}
    some = _copied(stacked, values)
    for module in some.modules():
        for name in getattr(module, "member_settings", ()):
            values = getattr(module, name)
            if isinstance(values, list):
                setattr(module, name, [values[i] for i in indices])
    return some


def settings_of_member(bijection):
    """What members of a stack may have of their own besides tensors."""
    return [
        getattr(module, name)
        for module in bijection.modules()
        for name in getattr(module, "member_settings", ())
    ]


def _tensors(bijection):
    return dict(bijection.named_parameters()) | dict(bijection.named_buffers())


def _all_equal(values):
    return all(torch.equal(value, values[0]) for value in values[1:])


def _copied(bijection, values):
    """A deep copy with other values, by name, of some of its tensors."""
    tensors = _tensors(bijection)
    memo = {}
    for name, value in values.items():
        old = tensors[name]
        if isinstance(old, nn.Parameter):
            value = nn.Parameter(value, old.requires_grad)
        memo[id(old)] = value
    return copy.deepcopy(bijection, memo)


def _settings(bijection):
    """What a bijection computes with besides its tensors and what members may have of their own."""

    def shared(module):
        own = getattr(module, "member_settings", ())
        return {k: v for k, v in vars(module).items() if k[0] != "_" and k not in own}

    return {path: (type(module), shared(module)) for path, module in bijection.named_modules()}


def _described(bijection):
    return _settings(bijection), _tensors(bijection)


def _check_alike(first, other, who):
    """Raise unless one kernel can compute both bijections, described."""
    (settings, ours), (other_settings, theirs) = first, other
    if settings != other_settings or ours.keys() != theirs.keys():
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
