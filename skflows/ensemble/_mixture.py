"""A mixture of any densities, weighted by the likelihood of held-out rows."""

from functools import partial

import numpy as np
from scipy.special import logsumexp

from ..calibration.thresholds import by_held_out
from ..callbacks._progress import Progress
from ..callbacks._run import fit_task
from ..callbacks._support import CallbackSupportMixin
from ..columns.checks import warn_user
from ..density._outlier_labels import OutlierDensityMixin
from ..density._sampling import SamplingMixin
from ..density._third_party import draw
from ..preprocessing.validation import uneven
from ._estimators import refits_of, tasks_of
from ._race import NO_TIME, Interrupted, race

EM_STEPS = 500
EM_TOLERANCE = 1e-9  # in nats per row
# A component that alone explains one row of a million has more, unless the row's weight is tiny.
NO_SHARE = 1e-12
LEAST_GAIN = 0.01  # in nats per row of the first fold, for which the other folds are fitted
MIN_WEIGHT = 1e-4  # of a component that is kept


def mixture_weights(scores, weight=None):
    """Return the weights of a mixture that maximise the likelihood of rows, by EM.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_components)
        Log-density of each row under each component.
    weight : ndarray of shape (n_rows,), optional
        Weight of each row.

    Returns
    -------
    weights : ndarray of shape (n_components,)
        They sum to 1.
    """
    weight = np.ones(len(scores)) if weight is None else weight
    # A row of density 0 under every component does not depend on their weights.
    is_known = np.isfinite(scores.max(axis=1)) & (weight > 0)
    scores, weight = scores[is_known], weight[is_known] / weight[is_known].sum()
    shares = np.full(scores.shape[1], 1 / scores.shape[1])
    # Each row's greatest density is 1: a component that alone explains a row keeps its weight.
    densities = np.exp(scores - scores.max(axis=1, keepdims=True))
    before = -np.inf
    for _ in range(EM_STEPS if is_known.any() else 0):
        total = densities @ shares
        shares = shares * (weight / total @ densities)
        score = weight @ np.log(total)
        if score - before < EM_TOLERANCE:
            break
        before = score
    # EM halves a useless share until it underflows: products with such numbers are slow, and
    # quotients overflow.
    shares[shares < NO_SHARE] = 0
    return shares / shares.sum()


def weighted_members(estimators, weights):
    """Return pairs of a fitted member and its weight, over all components that have a weight."""
    return [
        (member, weight / len(members))
        for weight, members in zip(weights, estimators, strict=True)
        for member in members
        if weight > 0
    ]


def can_gain(weight, others, scores):
    """Return whether a component raises the mean score of rows beside others.

    The weights of both mixtures are the best ones for these rows, so that few rows overestimate
    the gain.
    """
    without, beside = (
        np.average(logsumexp(each, axis=1, b=mixture_weights(each, weight)), weights=weight)
        for each in (others, np.column_stack([others, scores]))
    )
    return beside > without + LEAST_GAIN


def mixture_log_density(members, X):
    """Return the log-density of rows under a mixture of weighted members."""
    total = np.full(len(X), -np.inf)
    for member, weight in members:
        total = np.logaddexp(total, member.score_samples(X) + np.log(weight))
    return total


def pooled_log_density(members, X):
    """Return the weighted mean of the members' log-densities, high where all of them agree."""
    return sum(member.score_samples(X) * weight for member, weight in members)


def likeliest_of_each_family(components, means):
    """Return the indices of the likeliest component of each family, one vote per family.

    The likelihood of ordinary rows says little about rows that are unlike all others: their scores
    depend on the coordinates in which a model is smooth. Components with a mean of NaN or inf are
    left out.
    """
    known = [i for i in np.argsort(means, kind="stable") if means[i] < np.inf]
    # A component that assigns density 0 to some row would veto all rows like it.
    finite = [i for i in known if np.isfinite(means[i])]
    likeliest = {components[i].family: i for i in finite or known}
    return sorted(likeliest.values())


def run_mixture(
    estimator,
    components,
    n_folds,
    tasks,
    refits,
    attributes,
    *,
    can_gain=None,
    started=None,
    expected=None,
    **data,
):
    """Fit the components of a mixture, and set the attributes of its estimator.

    Parameters
    ----------
    estimator : estimator
        It has ``n_jobs`` and ``verbose``; callbacks may stop its fit after a component.
    components, n_folds, tasks, can_gain, started
        As in `race`.
    refits : callable
        ``refits(done)`` returns the tasks that fit components to all rows, each of them alone, from
        pairs of a `Component` and a `Fitted`.
    attributes : callable
        ``attributes(done)`` returns the attributes of a mixture of fitted components.
    expected : tuple of (float, callable), default=None
        Seconds that the fit takes, if they are known, and what returns a text that says so.
    **data : objects
        ``X``, and what else the fit was given.
    """
    from ..training.data_parallel import current_group

    group, n_jobs = current_group(), estimator.n_jobs
    limit = getattr(estimator, "time_limit", None)
    settings = {"n_jobs": n_jobs, "time_limit": limit, "started": started}
    results = race(components, n_folds, tasks, can_gain=can_gain, **settings)
    done, n, n_missed, interrupted = [], len(components), 0, False

    with fit_task(estimator, max_subtasks=n, what="components", **data) as task:
        progress = Progress(estimator, task.lines is not None)
        if expected is not None:
            progress.announce(*expected)
        try:
            for component in components:
                task.begin(component.name)
                fitted = next(results)
                if isinstance(fitted, str):
                    n_missed += fitted == NO_TIME
                else:
                    done.append((component, fitted))
                    interrupted |= fitted.interrupted
                progress.end(component.name, fitted)
                if group.broadcast(bool(task.end(partial(attributes, done)))):
                    break
            again = refits(done) if done and not interrupted else []
            for i, fitted in refitted(done, again, n_jobs, limit, started):
                done[i] = done[i][0], fitted
        except KeyboardInterrupt as error:
            is_known = group.size == 1 or isinstance(error, Interrupted)
            if not (done and is_known):  # other processes may be at another component
                raise
            interrupted = True
        finally:
            results.close()
        estimator._interrupted = interrupted
        if interrupted:
            warn_user(
                f"The fit was interrupted after {len(done)} of {n} components; the mixture "
                "consists of these."
            )
        if n_missed:
            warn_user(
                f"time_limit={limit:g} left no time for {n_missed} of {n} components; the "
                "mixture consists of the others. More time may improve it."
            )
        for name, value in attributes(done).items():
            setattr(estimator, name, value)


def refitted(done, tasks, n_jobs, time_limit, started):
    """Yield components that tasks fit to all rows, with their indices.

    Where no time is left, the members of the folds stay.
    """
    names = {task.names[0] for task in tasks}
    again = [i for i, (component, _) in enumerate(done) if component.name in names]
    settings = {"n_jobs": n_jobs, "time_limit": time_limit, "started": started}
    results = race([done[i][0] for i in again], 1, lambda n_workers: tasks, **settings)
    for i, fitted in zip(again, results if again else (), strict=True):
        if not isinstance(fitted, str):
            before = done[i][1]
            seconds = before.seconds + fitted.seconds
            yield i, before._replace(members=fitted.members, seconds=seconds)


def mixture_attributes(done, folds, least_weight, contamination, score):
    """Return the attributes of a mixture of fitted components, and its members with their weights.

    Parameters
    ----------
    done : list of tuple
        Pairs of a `Component` and a `Fitted`.
    folds : Folds
        The rows, and which of them are held out.
    least_weight : float
        Weight of a component that is kept.
    contamination : "auto", float or None
        The parameter of the estimator.
    score : callable
        ``score(members)`` returns the log-density of the rows under weighted members.
    """
    components, fitted = zip(*done, strict=True)
    scores, weight = scores_of(done), folds.held_out_weight
    check_usable(components, scores)
    weights = weights_of(scores, weight, least_weight)
    kept = weights > 0
    stacked = logsumexp(scores[:, kept] + np.log(weights[kept]), axis=1)
    means = folds.means(scores)
    order = np.lexsort((-means, -weights))
    members = weighted_members([each.members for each in fitted], weights)

    def scores_of_fit():
        log_density = score(members)
        is_known = np.isfinite(log_density)
        return log_density[is_known], folds.weight[is_known]

    # Kernels are centred on the training rows, whose scores would be too high for a fence.
    offset, judges_held_out = by_held_out(contamination, stacked, weight, scores_of_fit)
    return {
        "weights_": weights,
        "component_names_": [component.name for component in components],
        "leaderboard_": {
            "component": [components[i].name for i in order],
            "weight": weights[order].tolist(),
            "score": means[order].tolist(),
            "seconds": [fitted[i].seconds for i in order],
        },
        "held_out_scores_": folds.spread(stacked),
        "stacked_score_": float(np.average(stacked, weights=weight)),
        "offset_": offset,
        "_judges_held_out": judges_held_out,
    }, members


def scores_of(done):
    """Return the held-out scores of components, ``(n_rows, n_components)``."""
    return np.column_stack([fitted.scores for _, fitted in done])


def weights_of(scores, weight, least_weight):
    """Return the weights of components, of which those below the least weight get none."""
    usable = are_usable(scores)
    weights = np.zeros(scores.shape[1])
    if usable.any():
        weights[usable] = mixture_weights(scores[:, usable], weight)
        weights[weights < least_weight] = 0
        weights /= weights.sum()
    return weights


def are_usable(scores):
    """Return which components have no NaN or inf among their held-out scores."""
    return ~(np.isnan(scores) | np.isposinf(scores)).any(axis=0)


def check_usable(components, scores):
    """Warn of components with NaN or inf among their held-out scores."""
    usable = are_usable(scores)
    if not usable.all():
        names = [c.name for c, good in zip(components, usable, strict=True) if not good]
        trouble = f"held-out rows have scores of NaN or inf under {', '.join(names)}"
        if not usable.any():
            raise ValueError(f"{trouble}: no component is left.")
        warn_user(f"{trouble}, which get no weight.")


class MixtureMixin(SamplingMixin, OutlierDensityMixin, CallbackSupportMixin):
    """A mixture of fitted members: its fit from estimators, its scores and its samples."""

    _held_out_scores = "folds"

    def _fit_mixture(self, components, X, folds, *, started=None, quiet=False):
        """Fit components and their weights.

        Parameters
        ----------
        components : list of Component
            The components.
        X : ndarray of shape (n, d)
            The rows of positive weight.
        folds : Folds
            Their weights, and which of them are held out.
        started : float, default=None
            When the fit started, if it has a time limit.
        quiet : bool, default=False
            Whether to ignore the convergence warnings of components.
        """
        run_mixture(
            self,
            components,
            len(folds.splits),
            partial(tasks_of, components, X, folds, quiet),
            partial(self._refits, X, folds, quiet),
            partial(self._mixture_attributes, X, folds),
            started=started,
            X=X,
            sample_weight=uneven(folds.weight),
        )
        return self

    def _refits(self, X, folds, quiet, done):
        """Return the tasks that fit to all rows what has a weight or is part of the pool."""
        components, scores = [component for component, _ in done], scores_of(done)
        used = weights_of(scores, folds.held_out_weight, MIN_WEIGHT) > 0
        used[likeliest_of_each_family(components, folds.means(scores))] = True
        again = [c for c, is_used in zip(components, used, strict=True) if c.refit and is_used]
        return refits_of(again, X, folds, quiet)

    def _mixture_attributes(self, X, folds, done):
        """Return the attributes of a mixture of fitted components."""
        score = partial(mixture_log_density, X=X)
        attributes, _ = mixture_attributes(done, folds, MIN_WEIGHT, self.contamination, score)
        components, fitted = zip(*done, strict=True)
        scores = scores_of(done)
        pool = likeliest_of_each_family(components, folds.means(scores))
        return attributes | {
            "estimators_": [
                each.members if share else []
                for each, share in zip(fitted, attributes["weights_"], strict=True)
            ],
            "_held_out_pool": folds.spread(scores[:, pool].mean(axis=1)),
            "_pool": weighted_members(
                [fitted[i].members for i in pool], np.full(len(pool), 1 / len(pool))
            ),
        }

    def _score_rows(self, X):
        return mixture_log_density(weighted_members(self.estimators_, self.weights_), X)

    def _as_module(self):
        """Return the density of rows as a PyTorch module."""
        from ..density._modules import Mixture, module_of

        members, weights = zip(*weighted_members(self.estimators_, self.weights_), strict=True)
        return Mixture([module_of(member) for member in members], weights)

    def _pool_rows(self, X):
        return pooled_log_density(self._pool, X)

    def _sample_rows(self, n_samples, random_state):
        members = weighted_members(self.estimators_, self.weights_)
        weights = np.array([weight for _, weight in members])
        counts = random_state.multinomial(n_samples, weights / weights.sum())
        rows = [
            draw(member, count, random_state)
            for (member, _), count in zip(members, counts, strict=True)
            if count
        ]
        return random_state.permutation(np.concatenate(rows))
