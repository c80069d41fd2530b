"""A mixture of any densities, weighted by the likelihood of held-out rows."""

from contextlib import closing

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from scipy.special import logsumexp

from ..calibration.thresholds import by_held_out
from ..callbacks._run import fit_task, in_folder
from ..callbacks._support import CallbackSupportMixin
from ..columns.checks import warn_user
from ..density._outlier_labels import OutlierDensityMixin
from ..density._sampling import SamplingMixin
from ..density._third_party import draw
from ._components import budgets, fit_group, group_components, warm_up

SHORT_LIMIT = 10  # seconds: a shorter fit runs in one process, because processes take time to start
EM_STEPS = 500
EM_TOLERANCE = 1e-9  # in nats per row
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
    n_components = scores.shape[1]
    shares = np.full(n_components, 1 / n_components)
    before = -np.inf
    for _ in range(EM_STEPS if is_known.any() else 0):
        with np.errstate(divide="ignore"):  # a weight of 0 stays 0
            joint = scores + np.log(shares)
        total = logsumexp(joint, axis=1)
        shares = weight @ np.exp(joint - total[:, None])
        if weight @ total - before < EM_TOLERANCE:
            break
        before = weight @ total
    return shares / shares.sum()


def start_workers(n_jobs, time_limit, return_as="generator"):
    """Return a `joblib.Parallel` that yields results, and how many processes it has.

    With a time limit, they start now, so that later tasks need not wait for them. A short limit
    leaves a single process.
    """
    if time_limit is not None and time_limit < SHORT_LIMIT:
        n_jobs = 1
    # Without batches of tasks, which would queue several flows in one process.
    try:
        parallel = Parallel(n_jobs, return_as=return_as, batch_size=1)
    except ValueError:  # Ray returns all results at the end
        parallel = Parallel(n_jobs, batch_size=1)
    n_workers = effective_n_jobs(n_jobs)
    if time_limit is not None and n_workers > 1:
        list(parallel(delayed(warm_up)() for _ in range(n_workers)))
    return parallel, n_workers


def weighted_members(estimators, weights):
    """Return pairs of a fitted member and its weight, over all components that have members."""
    return [
        (member, weight / len(members))
        for weight, members in zip(weights, estimators, strict=True)
        for member in members
    ]


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
    depend on the coordinates in which a model is smooth. Components with a mean of NaN are left
    out.
    """
    known = [i for i in np.argsort(means, kind="stable") if not np.isnan(means[i])]
    # A component that assigns density 0 to some row would veto all rows like it.
    finite = [i for i in known if np.isfinite(means[i])]
    likeliest = {components[i].family: i for i in finite or known}
    return sorted(likeliest.values())


class MixtureMixin(SamplingMixin, OutlierDensityMixin, CallbackSupportMixin):
    """A mixture of fitted members: its fit from components, its scores and its samples."""

    _held_out_scores = "folds"

    def _fit_mixture(
        self, components, X, weight, is_weighted, splits, time_limit=None, started=None, quiet=False
    ):
        """Fit components and their weights.

        Parameters
        ----------
        components : list of Component
            The components.
        X : ndarray of shape (n, d)
            The rows of positive weight.
        weight : ndarray of shape (n,) or None
            Their weights.
        is_weighted : ndarray of shape (n_samples,) of bool
            Which of the user's rows they are.
        splits : list of tuple of ndarray
            Indices of training and held-out rows.
        time_limit, started : float, default=None
            Seconds from the start of the fit, and when that was by `time.time`.
        quiet : bool, default=False
            Whether to ignore the convergence warnings of components.
        """
        done = []  # pairs of a component and its outcome
        n_missed = 0
        interrupted = False

        def attributes():
            return self._mixture_attributes(done, X, weight, is_weighted, splits)

        outcomes = self._fit_components(components, X, weight, splits, time_limit, started, quiet)
        n = len(components)
        with fit_task(self, X, max_subtasks=n, sample_weight=weight) as task:
            try:
                for component in components:
                    task.begin(component.name)
                    outcome = next(outcomes)
                    if outcome is None:
                        n_missed += 1
                    else:
                        done.append((component, outcome))
                    if self.verbose:
                        print(f"{component.name}: {outcome or 'no time left'}")
                    stop = task.end(attributes)
                    interrupted = outcome is not None and outcome.interrupted
                    if stop or interrupted:
                        break
            except KeyboardInterrupt:
                if not done:
                    raise
                interrupted = True
            finally:
                outcomes.close()
            self._interrupted = interrupted
            if interrupted and len(done) < len(components):
                warn_user(
                    f"The fit was interrupted after {len(done)} of {len(components)} components; "
                    "the mixture consists of these."
                )
            if n_missed:
                warn_user(
                    f"time_limit={time_limit:g} left no time for {n_missed} of {len(components)} "
                    "components; the mixture consists of the others. More time may improve it."
                )
            for name, value in attributes().items():
                setattr(self, name, value)
        return self

    def _fit_components(self, components, X, weight, splits, time_limit, started, quiet):
        """Yield the outcome of each component, fitted in ``n_jobs`` processes."""
        parallel, n_workers = start_workers(self.n_jobs, time_limit)
        groups = group_components(components, *X.shape, n_workers)
        fit = delayed(in_folder(fit_group))
        tasks = (
            fit(group, X, weight, splits, budget, quiet)
            for group, budget in zip(
                groups, budgets(groups, time_limit, started, n_workers), strict=True
            )
        )

        def results():
            yield from parallel(tasks)

        with closing(results()) as found:
            for outcomes in found:
                yield from outcomes

    def _mixture_attributes(self, done, X, weight, is_weighted, splits):
        """Return the attributes of a mixture of fitted components."""
        components, outcomes = zip(*done, strict=True)
        held_out = np.concatenate([rows for _, rows in splits])
        importance = np.ones(len(X)) if weight is None else weight
        scores = np.column_stack([outcome.scores for outcome in outcomes])
        usable = self._check_usable(components, scores)

        weights = np.zeros(len(components))
        weights[usable] = mixture_weights(scores[:, usable], importance[held_out])
        weights[weights < MIN_WEIGHT] = 0
        weights /= weights.sum()
        kept = weights > 0
        stacked = logsumexp(scores[:, kept] + np.log(weights[kept]), axis=1)
        with np.errstate(invalid="ignore"):
            means = np.average(scores, axis=0, weights=importance[held_out])
        pool = likeliest_of_each_family(components, np.where(usable, means, np.nan))
        order = np.lexsort((-means, -weights))

        def of_all_rows(values):
            found = np.full(len(is_weighted), np.nan)
            found[np.flatnonzero(is_weighted)[held_out]] = values
            return found

        estimators = [
            outcome.members if share else []
            for outcome, share in zip(outcomes, weights, strict=True)
        ]
        attributes = {
            "weights_": weights,
            "component_names_": [component.name for component in components],
            "estimators_": estimators,
            "leaderboard_": {
                "component": [components[i].name for i in order],
                "weight": weights[order].tolist(),
                "score": means[order].tolist(),
                "seconds": [outcomes[i].seconds for i in order],
            },
            "held_out_scores_": of_all_rows(stacked),
            "_held_out_pool": of_all_rows(scores[:, pool].mean(axis=1)),
            "_pool": weighted_members(
                [outcomes[i].members for i in pool], np.full(len(pool), 1 / len(pool))
            ),
            "stacked_score_": float(np.average(stacked, weights=importance[held_out])),
        }

        def scores_of_fit():
            own = mixture_log_density(weighted_members(estimators, weights), X)
            is_known = np.isfinite(own)
            return own[is_known], importance[is_known]

        # Kernels are centred on the training rows, whose scores would be too high for a fence.
        attributes["offset_"], attributes["_judges_held_out"] = by_held_out(
            self.contamination, stacked, importance[held_out], scores_of_fit
        )
        return attributes

    @staticmethod
    def _check_usable(components, scores):
        """Return which components have no NaN or inf among their held-out scores."""
        usable = ~(np.isnan(scores) | np.isposinf(scores)).any(axis=0)
        if not usable.all():
            names = [c.name for c, good in zip(components, usable, strict=True) if not good]
            trouble = f"held-out rows have scores of NaN or inf under {', '.join(names)}"
            if not usable.any():
                raise ValueError(f"{trouble}: no component is left.")
            warn_user(f"{trouble}, which get no weight.")
        return usable

    def _score_rows(self, X):
        return mixture_log_density(weighted_members(self.estimators_, self.weights_), X)

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
