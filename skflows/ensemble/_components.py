"""Fitting the components of a mixture on cross-validation splits, and finding their weights."""

import math
import time
import warnings
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import has_fit_parameter

from ..callbacks._run import clock
from ..columns.checks import ColumnWarning
from ..density import FlowDensity
from ..density._flow_density import fit_together, stacking_key
from ..density._third_party import fit_density, was_interrupted

# Fractions of a time limit. What is left after the flows is for their scores.
TIME_FOR_QUICK_COMPONENTS = 0.4
TIME_FOR_ALL = 0.92
MIN_SECONDS = 0.2  # too little time to start a flow
VALUES_OF_STACKS = 2048  # in a batch, beyond which a second process gains more than a stack


class Component(NamedTuple):
    """A component of a mixture, before it is fitted."""

    name: str
    estimator: object
    refit: bool  # to all rows, in place of keeping the models of the folds

    @property
    def family(self):
        """The name without its size: "axis mixture" for "axis mixture of 8"."""
        return self.name.partition(" of ")[0]

    @property
    def is_flow(self):
        """Whether it is trained by gradient descent, and hence can be cut short."""
        return isinstance(self.estimator, FlowDensity)

    @property
    def can_stack(self):
        """Whether it can train together with others like it."""
        return self.is_flow and bool(self.estimator.early_stopping)


class Budget(NamedTuple):
    """The time until which a component may be fitted, and the number of rounds that share it."""

    end: float = math.inf
    rounds: int = 1

    def seconds(self):
        """Return the seconds of a component that starts now."""
        return (self.end - clock()) / self.rounds


class Outcome(NamedTuple):
    """A fitted component."""

    members: list
    scores: np.ndarray  # of the held-out rows, split by split
    seconds: float  # its share of the time of its group
    interrupted: bool = False  # by Ctrl-C; set in the last outcome of a group

    def __str__(self):
        return f"held-out score {self.scores.mean():.4f}, {self.seconds:.1f} s"


def warm_up():
    """Import, in a new process, what a fit needs: it must not count as time of a component."""
    from ..training import flow_fit  # noqa: F401


def group_components(components, n, d, n_workers):
    """Return lists of components, in their order: flows that train together, or a single component.

    Neighbours of the same shapes share a list if their batches are small, as long as every worker
    has something to do.
    """

    def stack_of(component):
        flow = component.estimator
        is_alone = not component.can_stack or flow.time_limit is not None
        if is_alone or batch_size_of(flow, n) * d > VALUES_OF_STACKS:
            return id(component)
        return type(flow), stacking_key(flow.get_params())

    groups = [list(group) for _, group in groupby(components, stack_of)]
    n_flows = sum(component.is_flow for component in components)
    while sum(group[0].is_flow for group in groups) < min(n_workers, n_flows):
        i = max(range(len(groups)), key=lambda i: len(groups[i]))
        half = len(groups[i]) // 2
        groups[i : i + 1] = groups[i][:half], groups[i][half:]
    return groups


def batch_size_of(flow, n):
    """Return the batch size of a training on about ``n`` rows."""
    from ..training.flow_fit import automatic_batch_size  # imports torch

    return automatic_batch_size(n) if flow.batch_size == "auto" else flow.batch_size


def budgets(groups, time_limit, started, n_workers):
    """Return the time budget of each group; the first one takes what it needs.

    Flows come last, and share what the quick components leave.
    """
    if time_limit is None:
        return [Budget()] * len(groups)
    end = started + TIME_FOR_ALL * time_limit
    now = time.time()
    quick = Budget(now + TIME_FOR_QUICK_COMPONENTS * (end - now))
    flows = [group for group in groups if group[0].is_flow]
    found = [Budget()]
    for group in groups[1:]:
        if not group[0].is_flow:
            found.append(quick)
            continue
        rounds = math.ceil((len(flows) - flows.index(group)) / n_workers)
        found.append(Budget(end, rounds))
    return found


def fit_group(group, X, weight, splits, budget, quiet=False):
    """Fit the components of a group on each split and score its held-out rows.

    Returns the `Outcome` of each, or None for each if the time runs out before they start or, for a
    quick component, between two folds.
    """
    started = time.perf_counter()
    members = [[clone(component.estimator) for _ in splits] for component in group]
    train_together = group[0].can_stack and len(group) * len(splits) > 1
    seconds = budget.seconds()
    if seconds < MIN_SECONDS * group[0].is_flow:
        return [None] * len(group)
    if "time_limit" in group[0].estimator.get_params() and math.isfinite(seconds):
        for member in chain(*members):
            member.set_params(time_limit=seconds if train_together else seconds / len(splits))
    parts = [
        (X[train], select(weight, train), (X[held_out], select(weight, held_out)))
        for train, held_out in splits
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColumnWarning)  # the whole table was checked before
        if quiet:  # the weights of the mixture compensate for poor components
            warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            if train_together:
                fit_together(list(chain(*members)), parts * len(group))
            else:
                for member, part in zip(*members, parts, strict=True):
                    if not group[0].is_flow and budget.seconds() <= 0:
                        return [None]
                    fit_member(member, *part)
                    if was_interrupted(member) and member is not members[0][-1]:
                        raise KeyboardInterrupt  # without its other folds it is not whole
        except Exception as error:
            names = ", ".join(repr(component.name) for component in group)
            error.add_note(f"(while fitting the component {names})")
            raise
        found = []
        for component, models in zip(group, members, strict=True):
            scores = [
                model.score_samples(X[held_out])
                for model, (_, held_out) in zip(models, splits, strict=True)
            ]
            if component.refit:
                models = [fit_density(clone(component.estimator), X, weight)]
            found.append((models, np.concatenate(scores)))
    seconds = (time.perf_counter() - started) / len(group)
    interrupted = any(map(was_interrupted, chain(*members)))
    outcomes = [Outcome(*outcome, seconds) for outcome in found]
    outcomes[-1] = outcomes[-1]._replace(interrupted=interrupted)
    return outcomes


def select(weight, rows):
    """Return the weights of some rows, or None without weights."""
    return None if weight is None else weight[rows]


def fit_member(member, X, weight, held_out):
    """Fit a model to a part of the rows; a flow uses the held-out rows for early stopping."""
    if has_fit_parameter(member, "X_val") and member.get_params().get("early_stopping", True):
        member.fit(X, None, weight, X_val=held_out[0], sample_weight_val=held_out[1])
    else:
        fit_density(member, X, weight)
