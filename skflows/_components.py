"""The parts of a mixture: how each is fitted and what held-out rows say of it."""

import math
import time
import warnings
from itertools import chain, groupby
from numbers import Integral
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import has_fit_parameter

from .density import FlowDensity
from .density._protocol import fit_density
from .density._trained import shape_of

N_FOLDS = 5
EM_STEPS = 500
EM_TOLERANCE = 1e-9  # in nats per row
# Shares of a time limit: what is left after the flows is for their last scores.
TIME_FOR_QUICK_ONES = 0.4
TIME_FOR_ALL = 0.92
LEAST_SECONDS = 0.2  # less is not worth the start of a flow
VALUES_OF_STACKS = 2048  # in a batch: with more, a second process gains more than a stack


class Component(NamedTuple):
    """One kind of member of a mixture."""

    name: str
    estimator: object
    refit: bool  # to all rows, or keep the models of the folds

    @property
    def kind(self):
        """What it is, but for its size: "axis mixture" is that of an "axis mixture of 8"."""
        return self.name.partition(" of ")[0]

    @property
    def trains(self):
        """Whether it is a flow that is trained, hence one that can be cut short."""
        return isinstance(self.estimator, FlowDensity)

    @property
    def stacks(self):
        """Whether it can train together with others like it."""
        flow = self.estimator
        return self.trains and flow.early_stopping is not False and not flow.compile


class Budget(NamedTuple):
    """Until when a component may be fitted, and in how many rounds the time is spent."""

    end: float = math.inf
    rounds: int = 1

    def seconds(self):
        """For the component that starts now."""
        return (self.end - time.time()) / self.rounds


class Outcome(NamedTuple):
    """What came of a component."""

    members: list
    scores: np.ndarray  # of the held-out rows, split after split
    seconds: float  # of a group, in equal shares
    interrupted: bool = False  # by Ctrl-C, hence unfinished; said of the last one of a group


def warm_up():
    """Import, in a new process, what a fit needs: its time is not that of the first component."""
    from .density import _run  # noqa: F401


def told(outcome):
    """An outcome in words."""
    if outcome is None:
        return "no time left"
    return f"held-out score {outcome.scores.mean():.4f}, {outcome.seconds:.1f} s"


def grouped(components, n, d, n_workers):
    """Lists of components, in their order: flows that train together, and each other one alone.

    Neighbours of the same shapes share a list where their batches are small, but leave work for
    all processes.
    """

    def stack_of(component):
        flow = component.estimator
        alone = not component.stacks or flow.time_limit is not None
        if alone or batch_size_of(flow, n) * d > VALUES_OF_STACKS:
            return id(component)
        return type(flow), shape_of(flow.get_params())

    groups = [list(group) for _, group in groupby(components, stack_of)]
    n_flows = sum(component.trains for component in components)
    while sum(group[0].trains for group in groups) < min(n_workers, n_flows):
        i = max(range(len(groups)), key=lambda i: len(groups[i]))
        half = len(groups[i]) // 2
        groups[i : i + 1] = groups[i][:half], groups[i][half:]
    return groups


def batch_size_of(flow, n):
    """Rows of a batch of a training on about ``n`` rows."""
    from .density._run import automatic_batch_size  # with torch

    return automatic_batch_size(n) if flow.batch_size == "auto" else flow.batch_size


def budgets(groups, time_limit, started, n_workers):
    """What each group may take of the time, if that is limited; the first takes what it needs.

    Flows come last, and share what the quick ones leave.
    """
    if time_limit is None:
        return [Budget()] * len(groups)
    end = started + TIME_FOR_ALL * time_limit
    now = time.time()
    quick = Budget(now + TIME_FOR_QUICK_ONES * (end - now))
    flows = [group for group in groups if group[0].trains]
    found = [Budget()]
    for group in groups[1:]:
        if not group[0].trains:
            found.append(quick)
            continue
        rounds = math.ceil((len(flows) - flows.index(group)) / n_workers)
        found.append(Budget(end, rounds))
    return found


def splits_of(cv, X, weight, seed):
    """Pairs of training and held-out rows, as numbers among the rows of positive weight.

    A number of folds means shuffled ones. Splits that are given as such are of all rows.
    """
    from sklearn.model_selection import KFold, check_cv  # takes long to import

    positive = np.ones(len(X), dtype=bool) if weight is None else weight > 0
    numbers = np.arange(len(X))
    if cv is None:
        cv = N_FOLDS
    if isinstance(cv, Integral):
        n = positive.sum()
        if cv > max(n, N_FOLDS):  # the default takes what there is
            raise ValueError(
                f"cv={cv}, but X has {n} rows of positive weight, of which each fold needs one: "
                "take fewer folds."
            )
        cv = KFold(min(int(cv), n), shuffle=True, random_state=seed)
    if hasattr(cv, "split"):
        splits = check_cv(cv).split(X[positive])
    else:
        position = np.cumsum(positive) - 1
        splits = [
            [position[rows[positive[rows]]] for rows in (numbers[train], numbers[held_out])]
            for train, held_out in cv
        ]
    splits = list(splits)
    for i, (train, held_out) in enumerate(splits):
        if len(train) < 2 or not len(held_out):
            raise ValueError(
                f"split {i} of cv leaves {len(train)} rows of positive weight to train on and "
                f"{len(held_out)} to hold out; 2 and 1 are needed at least."
            )
    if not splits:
        raise ValueError("cv makes no split; give a number of folds, or a splitter.")
    return splits


def fit_group(group, X, weight, splits, budget, quiet=False):
    """Fit the components of a group on each split and score the rows that it holds out.

    Returns the `Outcome` of each, or None for each if their time is over before they start, or
    that of a quick one between two folds.
    """
    started = time.perf_counter()
    members = [[clone(component.estimator) for _ in splits] for component in group]
    together = group[0].stacks and len(group) * len(splits) > 1
    seconds = budget.seconds()
    if seconds < LEAST_SECONDS * group[0].trains:
        return [None] * len(group)
    if "time_limit" in group[0].estimator.get_params() and math.isfinite(seconds):
        for member in chain(*members):
            member.set_params(time_limit=seconds if together else seconds / len(splits))
    parts = [
        (X[train], select(weight, train), (X[held_out], select(weight, held_out)))
        for train, held_out in splits
    ]
    with warnings.catch_warnings():
        if quiet:  # of what the mixture makes good by its weights
            warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            if together:
                FlowDensity._fit_together(list(chain(*members)), parts * len(group))
            else:
                for member, part in zip(*members, parts, strict=True):
                    if not group[0].trains and budget.seconds() <= 0:
                        return [None]
                    fit_member(member, *part)
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
    interrupted = any(getattr(model, "_interrupted", False) for model in chain(*members))
    outcomes = [Outcome(*outcome, seconds) for outcome in found]
    outcomes[-1] = outcomes[-1]._replace(interrupted=interrupted)
    return outcomes


def select(weight, rows):
    """The weights of some rows, if there are weights."""
    return None if weight is None else weight[rows]


def fit_member(member, X, weight, held_out):
    """Fit to a part of the rows; a flow also stops early by the rows held out."""
    stops_early = member.get_params().get("early_stopping") is not False
    if has_fit_parameter(member, "X_val") and stops_early:
        member.fit(X, None, weight, X_val=held_out[0], sample_weight_val=held_out[1])
    else:
        fit_density(member, X, weight)


def mixture_weights(scores, weight=None):
    """Weights of a mixture that maximise the likelihood of rows, by EM.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_components)
        Log-density of each row under each component.
    weight : ndarray of shape (n_rows,), optional
        Importance of each row.

    Returns
    -------
    weights : ndarray of shape (n_components,)
        On the simplex.
    """
    weight = np.ones(len(scores)) if weight is None else weight
    # A row that no component knows has nothing to say about their weights.
    known = np.isfinite(scores.max(axis=1)) & (weight > 0)
    scores, weight = scores[known], weight[known] / weight[known].sum()
    n_components = scores.shape[1]
    shares = np.full(n_components, 1 / n_components)
    before = -np.inf
    for _ in range(EM_STEPS if known.any() else 0):
        with np.errstate(divide="ignore"):  # a component without a share keeps none
            joint = scores + np.log(shares)
        total = logsumexp(joint, axis=1)
        shares = weight @ np.exp(joint - total[:, None])
        if weight @ total - before < EM_TOLERANCE:
            break
        before = weight @ total
    return shares / shares.sum()
