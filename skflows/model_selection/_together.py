"""Evaluations of candidates on folds, which train together where they can."""

import math
import time
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.model_selection._validation import _fit_and_score
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

from ..density import FlowDensity
from ..density._trained import shape_of

# Of one stack: its gain is spent by then, and its activations still fit a processor's cache.
MOST_MEMBERS = 32
MOST_VALUES = 2**23  # of the tables of its members, which are copied several times


class Task(NamedTuple):
    """A candidate to be fitted and scored on a split."""

    parameters: dict
    train: np.ndarray
    test: np.ndarray
    candidate_progress: tuple
    split_progress: tuple


def pieces(tasks, n_jobs, n_values):
    """Parts of a list of tasks, by their numbers: some for each job, those together that stack.

    Each task has a table of ``n_values``.
    """
    most = min(
        MOST_MEMBERS, math.ceil(len(tasks) / n_jobs), max(1, MOST_VALUES // max(1, n_values))
    )
    kinds = defaultdict(list)
    for i, task in enumerate(tasks):
        kinds[shape_of(task.parameters)].append(i)
    found = []
    for kind in kinds.values():
        for share in dealt(kind, min(n_jobs, math.ceil(len(kind) / most))):
            found += np.array_split(share, math.ceil(len(share) / most))
    return [part.tolist() for part in found]


def dealt(tasks, n_shares):
    """Shares of a list, dealt forth and back, for what trains for long often comes in turns."""
    shares = [[] for _ in range(n_shares)]
    for start in range(0, len(tasks), n_shares):
        for share, task in zip(shares, tasks[start : start + n_shares], strict=False):
            share.append(task)
        shares.reverse()
    return shares


def already_fitted(*args, **kwargs):
    """Stands in for `fit` of a member that was trained with others."""


def evaluate(estimator, tasks, X, y, *, fit_params, only_score, **settings):
    """What `_fit_and_score` returns of each task.

    With ``only_score``, the scorer is the estimator's own `score`. A task that cannot train with
    the others is fitted alone, there, and fails there if it must.
    """
    started = time.time()
    members = [clone(estimator) for _ in tasks]
    parts = []
    for member, task in zip(members, tasks, strict=True):
        member.set_params(**clone(task.parameters, safe=False))
        rows, _ = _safe_split(member, X, y, task.train)
        weight = _check_method_params(X, fit_params, task.train).get("sample_weight")
        parts.append((rows, weight, None))
    skipped = () if settings["error_score"] == "raise" else (Exception,)
    FlowDensity._fit_together(members, parts, True, skipped, only_score)
    share = (time.time() - started) / len(tasks)
    results = []
    for member, task in zip(members, tasks, strict=True):
        if hasattr(member, "flow_"):
            member.fit = already_fitted
        result = _fit_and_score(
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
