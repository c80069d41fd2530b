"""Evaluation of candidates on folds, which train together where they can."""

import math
import time
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from ..density._flow_density import fit_together, stacking_key
from ..density._third_party import was_interrupted
from ..preprocessing.sklearn_compat import check_method_params, fit_and_score, safe_split

MAX_MEMBERS = 32  # of a stack, beyond which it gains no more
MAX_VALUES = 2**23  # of the tables of the members of a stack, which are copied several times


class Task(NamedTuple):
    """A candidate to be fitted and scored on a split."""

    parameters: dict
    train: np.ndarray
    test: np.ndarray
    candidate_progress: tuple
    split_progress: tuple


def stack_tasks(tasks, n_jobs, n_values):
    """Return lists of indices of tasks that train as one stack, some lists for each job.

    Each task has a table of ``n_values``.
    """
    most = min(MAX_MEMBERS, math.ceil(len(tasks) / n_jobs), max(1, MAX_VALUES // max(1, n_values)))
    by_key = defaultdict(list)
    for i, task in enumerate(tasks):
        by_key[stacking_key(task.parameters)].append(i)
    stacks = []
    for indices in by_key.values():
        for share in deal(indices, min(n_jobs, math.ceil(len(indices) / most))):
            stacks += np.array_split(share, math.ceil(len(share) / most))
    return [stack.tolist() for stack in stacks]


def deal(tasks, n_shares):
    """Deal a list back and forth, because neighbours often train for about as long."""
    shares: list[list] = [[] for _ in range(n_shares)]
    for start in range(0, len(tasks), n_shares):
        for share, task in zip(shares, tasks[start : start + n_shares], strict=False):
            share.append(task)
        shares.reverse()
    return shares


def already_fitted(*args, **kwargs):
    """Replace `fit` of an estimator that was trained with others."""


def evaluate(estimator, tasks, X, y, *, fit_params, only_score, **settings):
    """Return what scikit-learn's ``_fit_and_score`` does, for each task.

    With ``only_score``, the scorer is the estimator's own `score`. A task that cannot train with
    the others is fitted alone there, and fails there if it must.
    """
    started = time.time()
    members = [clone(estimator) for _ in tasks]
    parts = []
    for member, task in zip(members, tasks, strict=True):
        member.set_params(**clone(task.parameters, safe=False))
        rows, _ = safe_split(member, X, y, task.train)
        weight = check_method_params(X, fit_params, task.train).get("sample_weight")
        parts.append((rows, weight, None))
    skipped = () if settings["error_score"] == "raise" else (Exception,)
    fit_together(members, parts, True, skipped, only_score)
    if any(map(was_interrupted, members)):
        raise KeyboardInterrupt  # scores of flows that were cut short are meaningless
    share = (time.time() - started) / len(tasks)
    results = []
    for member, task in zip(members, tasks, strict=True):
        if hasattr(member, "flow_"):
            member.fit = already_fitted
        result = fit_and_score(
            member,
            X,
            y,
            **task._asdict(),
            fit_params=fit_params,
            return_n_test_samples=True,
            return_times=True,
            **settings,
        )
        result["fit_time"] += share
        results.append(result)
    return results
