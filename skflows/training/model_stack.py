"""Stacks of models that train together: parameters with a leading member axis.

At small batches, a step spends its time on starting kernels rather than on their work: several
models of the same shapes, such as the folds of a cross-validation, then cost little more than one.
"""

import copy

import torch
from torch import nn


def stack(bijections):
    """Join bijections into one whose parameters have a leading member axis.

    Parameters
    ----------
    bijections : sequence of Bijection
        The members. They may differ only in the values of their parameters, of their floating-point
        buffers and of their ``member_settings``, and must be initialised.

    Returns
    -------
    stacked : Bijection
        Takes ``(M, n, d)`` rows, and a context of shape ``(M, n, n_context)``. It shares no memory
        with the members.

    Raises
    ------
    ValueError
        If the members differ in anything else, or one of them is a stack already.
    """
    bijections = list(bijections)
    if any(hasattr(module, "stacked_names") for b in bijections for module in b.modules()):
        raise ValueError("A member is a stack itself: stack all members at once.")
    described = [_describe(bijection) for bijection in bijections]
    for i, other in enumerate(described[1:], start=1):
        _check_stackable(described[0], other, f"Members 0 and {i}")
    members = [tensors for _, tensors in described]
    values = {}
    for name, value in members[0].items():
        of_members = [member[name].detach() for member in members]
        if isinstance(value, nn.Parameter) or not _all_equal(of_members):
            values[name] = torch.stack(of_members)
    stacked = _copy_with(bijections[0], values)
    stacked.stacked_names = list(values)
    for module in stacked.modules():
        module.is_stack = True
    for module, *alone in zip(stacked.modules(), *(b.modules() for b in bijections), strict=True):
        for name in getattr(module, "member_settings", ()):
            settings = [getattr(member, name) for member in alone]
            if any(setting != settings[0] for setting in settings):
                setattr(module, name, settings)
    return stacked


def stackable(first, other):
    """Whether two bijections can be members of one stack."""
    try:
        _check_stackable(_describe(first), _describe(other), "They")
    except ValueError:
        return False
    return True


@torch.no_grad()
def unstack(stacked, bijections):
    """Copy the members of a stack to bijections.

    Parameters
    ----------
    stacked : Bijection
        What `stack` returned for them, or for others of the same structure and settings.
    bijections : sequence of Bijection
        One for each member.
    """
    names = stacked.stacked_names
    tensors = _tensors(stacked)
    for bijection, *values in zip(bijections, *(tensors[name] for name in names), strict=True):
        targets = _tensors(bijection)
        for name, value in zip(names, values, strict=True):
            targets[name].copy_(value)


def substack(stacked, indices):
    """Return a stack of some of the members of a stack; the two share no memory."""
    tensors = _tensors(stacked)
    values = {name: tensors[name].detach()[indices] for name in stacked.stacked_names}
    some = _copy_with(stacked, values)
    for module in some.modules():
        for name in getattr(module, "member_settings", ()):
            values = getattr(module, name)
            if isinstance(values, list):
                setattr(module, name, [values[i] for i in indices])
    return some


def member_settings(bijection):
    """Return the settings, besides tensors, in which members of a stack may differ."""
    return [
        getattr(module, name)
        for module in bijection.modules()
        for name in getattr(module, "member_settings", ())
    ]


def _tensors(bijection):
    return dict(bijection.named_parameters()) | dict(bijection.named_buffers())


def _all_equal(values):
    return all(torch.equal(value, values[0]) for value in values[1:])


def _copy_with(bijection, values):
    """Return a deep copy in which some tensors, by name, have other values."""
    tensors = _tensors(bijection)
    memo = {}
    for name, value in values.items():
        old = tensors[name]
        if isinstance(old, nn.Parameter):
            value = nn.Parameter(value, old.requires_grad)
        memo[id(old)] = value
    return copy.deepcopy(bijection, memo)


def _describe(bijection):
    """Return the types and shared settings of all modules, and the tensors."""

    def shared_settings(module):
        varying = getattr(module, "member_settings", ())
        return {k: v for k, v in vars(module).items() if k[0] != "_" and k not in varying}

    modules = bijection.named_modules()
    settings = {path: (type(module), shared_settings(module)) for path, module in modules}
    return settings, _tensors(bijection)


def _check_stackable(first, other, who):
    """Raise unless two described bijections can be computed as one."""
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
            raise ValueError(f"{who} differ in {name}, an integer tensor: they cannot be stacked.")
