"""Estimators as components of a mixture: which of them train together, and how they are fitted."""

import warnings
from contextlib import contextmanager
from functools import partial
from itertools import groupby

from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import has_fit_parameter

from ..columns.checks import ColumnWarning
from ..density import FlowDensity
from ..density._flow_density import fit_together, stacking_key
from ..density._third_party import fit_density, was_interrupted
from ..preprocessing.validation import uneven
from ._race import Component, Fold, Task

VALUES_OF_STACKS = 2048  # in a batch, beyond which a second process gains more than a stack


def component_of(name, estimator, refit=False):
    """Return an estimator as a component."""
    return Component(name, estimator, refit, isinstance(estimator, FlowDensity))


def can_stack(component):
    """Return whether a component can train together with others like it."""
    return component.is_trained and bool(component.recipe.early_stopping)


def tasks_of(components, X, folds, quiet, n_workers):
    """Return the tasks that fit components, a stack of flows in all folds or a single fold."""
    splits, weight = folds.splits, uneven(folds.weight)
    tasks = []
    n, d = X.shape
    for group in group_components(components, n, d, n_workers):
        pairs = [(component, i) for component in group for i in range(len(splits))]
        for stack in [pairs] if can_stack(group[0]) else [[pair] for pair in pairs]:
            plans = [(c.recipe, splits[i]) for c, i in stack]
            fit = partial(fit_estimators, plans, X, weight, quiet)
            tasks.append(Task([(c.name, i) for c, i in stack], fit, group[0].is_trained))
    return tasks


def refits_of(components, X, folds, quiet):
    """Return the tasks that fit components to all rows."""
    weight = uneven(folds.weight)
    return [
        Task([(c.name, 0)], partial(fit_to_all, c.recipe, X, weight, quiet), c.is_trained)
        for c in components
    ]


def group_components(components, n, d, n_workers):
    """Return lists of components, in their order: flows that train together, or a single component.

    Neighbours of the same shapes share a list if their batches are small, as long as every worker
    has something to do.
    """

    def stack_of(component):
        flow = component.recipe
        is_alone = not can_stack(component) or flow.time_limit is not None
        if is_alone or batch_size_of(flow, n) * d > VALUES_OF_STACKS:
            return id(component)
        return type(flow), stacking_key(flow.get_params())

    groups = [list(group) for _, group in groupby(components, stack_of)]
    n_flows = sum(component.is_trained for component in components)
    while sum(group[0].is_trained for group in groups) < min(n_workers, n_flows):
        i = max(range(len(groups)), key=lambda i: len(groups[i]))
        half = len(groups[i]) // 2
        groups[i : i + 1] = groups[i][:half], groups[i][half:]
    return groups


def batch_size_of(flow, n):
    """Return the batch size of a training on about ``n`` rows."""
    from ..training.flow_fit import automatic_batch_size  # imports torch

    return automatic_batch_size(n) if flow.batch_size == "auto" else flow.batch_size


def fit_estimators(plans, X, weight, quiet, seconds):
    """Fit estimators, several of which train together, and return the `Fold` of each.

    Parameters
    ----------
    plans : list of tuple
        Each estimator with its training and held-out rows.
    X : ndarray of shape (n, d)
        The rows.
    weight : ndarray of shape (n,) or None
        Their weights.
    quiet : bool
        Whether to ignore convergence warnings.
    seconds : float or None
        Time limit of estimators that take one.
    """
    members = [clone(estimator) for estimator, _ in plans]
    if seconds is not None:
        for member in members:
            if "time_limit" in member.get_params():
                member.set_params(time_limit=seconds)
    parts = [
        (X[train], select(weight, train), (X[held_out], select(weight, held_out)))
        for _, (train, held_out) in plans
    ]
    with without_warnings(quiet):
        if len(members) > 1:
            fit_together(members, parts)
        else:
            fit_member(members[0], *parts[0])
        return [
            Fold(member, member.score_samples(held_out), was_interrupted(member))
            for member, (_, _, (held_out, _)) in zip(members, parts, strict=True)
        ]


def fit_to_all(estimator, X, weight, quiet, seconds):
    """Fit an estimator to all rows, whatever the time, and return it as a `Fold`."""
    with without_warnings(quiet):
        return [Fold(fit_density(clone(estimator), X, weight))]


@contextmanager
def without_warnings(quiet):
    """Ignore warnings about columns in this context, and those about convergence if quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColumnWarning)  # the whole table was checked before
        if quiet:  # the weights of the mixture compensate for poor components
            warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def select(weight, rows):
    """Return the weights of some rows, or None without weights."""
    return None if weight is None else weight[rows]


def fit_member(member, X, weight, held_out):
    """Fit a model to a part of the rows; a flow uses the held-out rows for early stopping."""
    if has_fit_parameter(member, "X_val") and member.get_params().get("early_stopping", True):
        member.fit(X, None, weight, X_val=held_out[0], sample_weight_val=held_out[1])
    else:
        fit_density(member, X, weight)
