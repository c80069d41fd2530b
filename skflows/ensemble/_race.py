"""The order, the processes and the time in which the components of a mixture are fitted."""

import math
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from ..callbacks._run import in_folder

# Fractions of a time limit. What is left after the trained components is for their scores.
TIME_FOR_QUICK_COMPONENTS = 0.4
TIME_FOR_ALL = 0.92
MIN_SECONDS = 0.2  # too little time to start a training
NO_TIME, NO_GAIN = "no time left", "no gain in the first fold"  # why components are left out
SHORT_LIMIT = 10  # seconds: a shorter fit runs in one process, because processes take time to start


class Component(NamedTuple):
    """A component of a mixture, before it is fitted."""

    name: str
    recipe: object  # how it is fitted: an estimator, or a function
    refit: bool = False  # to all rows, if it gets a weight, in place of the members of the folds
    is_trained: bool = False  # by gradient descent, which a time limit cuts short

    @property
    def family(self):
        """The name without its size: "axis mixture" for "axis mixture of 8"."""
        return self.name.partition(" of ")[0]


class Fold(NamedTuple):
    """A component that was fitted to the training rows of a fold, or to all rows."""

    member: object
    scores: np.ndarray = np.empty(0)  # of the held-out rows
    interrupted: bool = False  # by Ctrl-C, after which the member is still of use


class Task(NamedTuple):
    """What one call fits: a component in one fold, or several that train together."""

    pairs: list[tuple[str, int]]  # names of components and numbers of folds
    fit: Callable  # fit(seconds) returns a `Fold` for each pair; seconds may be None
    is_trained: bool = False

    @property
    def names(self):
        """Names of the components."""
        return list(dict.fromkeys(name for name, _ in self.pairs))


class Fitted(NamedTuple):
    """A component that was fitted in all folds."""

    members: list  # the ones of the folds, or one that was fitted to all rows
    of_folds: list
    scores: np.ndarray  # of the held-out rows, fold by fold
    seconds: float  # its share of the time of its tasks
    interrupted: bool

    @property
    def is_refitted(self):
        """Whether a member that was fitted to all rows has replaced the ones of the folds."""
        return self.members is not self.of_folds

    def __str__(self):
        return f"held-out score {self.scores.mean():.4f}, {self.seconds:.1f} s"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a training, of which all processes of a distributed group know."""


class Budget(NamedTuple):
    """The time until which a task may run, and the number of rounds that share it."""

    end: float = math.inf
    rounds: int = 1
    is_needed: bool = False  # whether the task runs even if no time is left

    def seconds(self):
        """Return the seconds of a task that starts now."""
        if self.end == math.inf:
            return math.inf
        from ..training.data_parallel import current_group  # imports torch

        return (self.end - current_group().clock()) / self.rounds


def race(components, n_folds, tasks, *, can_gain=None, n_jobs=None, time_limit=None, started=None):
    """Fit components, and yield each of them in their order, whatever the order of their fits.

    Parameters
    ----------
    components : list of Component
        The components, the quick ones first.
    n_folds : int
        Number of folds in which each of them is fitted.
    tasks : callable
        ``tasks(n_workers)`` returns the tasks, in the order of the components.
    can_gain : callable, default=None
        ``can_gain(others, scores)`` tells whether a trained component is of use, by its scores of
        the rows that the first fold holds out, and the scores of the components that are not
        trained, ``(n_rows, n_others)``. If it is not, the other folds are not fitted. None fits
        all. With it, each task has one component.
    n_jobs : int, default=None
        Number of processes; a member of a distributed group takes one.
    time_limit, started : float, default=None
        Seconds from the start of the fit, and when that was by the clock of the group. The quick
        components have two fifths of the time, and the others share what is left of it. The first
        component takes what it needs, and a training that has begun in one fold is completed in
        the others.

    Yields
    ------
    fitted : Fitted or str
        The latter says why a component is left out: there was no time for one of its folds, or it
        cannot gain.

    Raises
    ------
    Interrupted
        If Ctrl-C ended a training, at the first component that is not whole.
    """
    from ..training.data_parallel import current_group

    group = current_group()
    parallel, n_workers = start_workers(n_jobs if group.size == 1 else 1, time_limit)
    later: list[Task] = []  # than the first fold
    tasks, all_tasks = [], tasks(n_workers)
    for task in all_tasks:
        is_later = can_gain is not None and task.is_trained and task.pairs[0][1] > 0
        (later if is_later else tasks).append(task)
    end = quick_end = math.inf
    if time_limit is not None:
        now, end = group.clock(), started + TIME_FOR_ALL * time_limit
        quick_end = now + TIME_FOR_QUICK_COMPONENTS * (end - now)
    run, seconds_of = delayed(in_folder(run_task)), in_folder(Budget.seconds)
    needed = {components[0].name}

    def calls(tasks, n_later):
        # The last ones take longest: they start first, except in the process of the first ones.
        n_ahead = n_workers - 1
        tasks = tasks[len(tasks) - n_ahead :] + tasks[: len(tasks) - n_ahead]
        n_left = n_later + sum(task.is_trained for task in tasks)
        for task in tasks:
            if task.is_trained:
                budget = Budget(end, math.ceil(n_left / n_workers))
                n_left -= 1
                # A component is of no use without its other folds: what has begun is completed.
                if seconds_of(budget) >= MIN_SECONDS:
                    needed.update(task.names)
            else:
                budget = Budget(quick_end, n_folds - task.pairs[0][1])
            yield run(task, budget._replace(is_needed=not needed.isdisjoint(task.names)))

    def results():
        yield from parallel(calls(tasks, len(later)))
        quick = [first[c.name] for c in components if c.name in first and not c.is_trained]
        for name in first.keys() & {task.names[0] for task in later} if quick else ():
            if not can_gain(np.column_stack(quick), first[name]):
                useless.add(name)
        if later:
            yield {}  # what waits for a useless component goes on
            yield from parallel(calls([each for each in later if each.names[0] not in useless], 0))

    done: dict = {}
    first: dict = {}  # scores of the rows that the first fold holds out
    useless: set = set()
    interrupted = False
    with closing(results()) as batches:
        for component in components:
            pairs = [(component.name, i) for i in range(n_folds)]
            while component.name not in useless and not done.keys() >= set(pairs):
                if interrupted:
                    raise Interrupted
                folds: dict = next(batches)
                done |= folds
                interrupted = any(each and each[0].interrupted for each in folds.values())
                first |= {
                    name: each[0].scores for (name, i), each in folds.items() if each and not i
                }
            is_useless = component.name in useless
            yield NO_GAIN if is_useless else whole([done.pop(pair) for pair in pairs])


def run_task(task, budget):
    """Return a `Fold` and its seconds for each pair of a task, or None if no time is left."""
    from ..training.data_parallel import current_group

    clock = current_group().clock
    begun, seconds = clock(), budget.seconds()
    if seconds < MIN_SECONDS * task.is_trained and not budget.is_needed:
        return dict.fromkeys(task.pairs)
    try:
        folds = task.fit(None if seconds == math.inf else max(seconds, MIN_SECONDS))
    except Exception as error:
        error.add_note(f"(while fitting the component {', '.join(map(repr, task.names))})")
        raise
    seconds = (clock() - begun) / len(folds)
    return {pair: (fold, seconds) for pair, fold in zip(task.pairs, folds, strict=True)}


def whole(pairs):
    """Return a component from its folds and their seconds, or why it is left out."""
    if None in pairs:
        return NO_TIME
    folds, seconds = zip(*pairs, strict=True)
    members = [fold.member for fold in folds]
    scores = np.concatenate([fold.scores for fold in folds])
    interrupted = any(fold.interrupted for fold in folds)
    return Fitted(members, members, scores, sum(seconds), interrupted)


def start_workers(n_jobs, time_limit):
    """Return a `joblib.Parallel` that yields results in any order, and how many processes it has.

    With a time limit, they start now, so that later tasks need not wait for them. A short limit
    leaves a single process.
    """
    if time_limit is not None and time_limit < SHORT_LIMIT:
        n_jobs = 1
    # Without batches of tasks, which would queue several flows in one process.
    try:
        parallel = Parallel(n_jobs, return_as="generator_unordered", batch_size=1)
    except ValueError:  # Ray returns all results at the end
        parallel = Parallel(n_jobs, batch_size=1)
    n_workers = effective_n_jobs(n_jobs)
    if time_limit is not None and n_workers > 1:
        list(parallel(delayed(warm_up)() for _ in range(n_workers)))
    return parallel, n_workers


def warm_up():
    """Import, in a new process, what a fit needs: it must not count as time of a component."""
    from ..training import flow_fit  # noqa: F401
