"""A mixture of any densities, weighted by what they say of rows they have not seen."""

import warnings
from contextlib import closing

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from scipy.special import logsumexp
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._components import budgets, fit_group, grouped, mixture_weights, told, warm_up
from .density._protocol import check_n_samples, draw
from .density._surface import OutlierDensityMixin

SHORT_LIMIT = 10  # seconds: processes take some to start, and a shorter fit is spent in one
LEAST_WEIGHT = 1e-4  # of a component that is kept


def members_of(estimators, weights):
    """Pairs of a fitted member and its weight, over all components that have members."""
    return [
        (member, weight / len(members))
        for weight, members in zip(weights, estimators, strict=True)
        for member in members
    ]


def score_rows(members, X):
    """Log-density of rows under a mixture of weighted members."""
    total = np.full(len(X), -np.inf)
    for member, weight in members:
        total = np.logaddexp(total, member.score_samples(X) + np.log(weight))
    return total


def pool_rows(members, X):
    """Weighted mean of the members' log-densities: high where all of them agree."""
    return sum(member.score_samples(X) * weight for member, weight in members)


def likeliest_of_each_kind(components, means):
    """Numbers of the components that pool their log-densities; those without a mean do not.

    Likelihood says which density predicts, and little of rows that are unlike all others. Those
    depend on the coordinates in which a model is smooth, so every kind has its say.
    """
    known = [i for i in np.argsort(means, kind="stable") if not np.isnan(means[i])]
    # A component that held a row impossible would veto all rows like it.
    finite = [i for i in known if np.isfinite(means[i])]
    likeliest = {components[i].kind: i for i in finite or known}
    return sorted(likeliest.values())


class MixtureMixin(OutlierDensityMixin, CallbackSupportMixin):
    """A mixture of fitted members: its fit from components, its scores and its samples."""

    def _fit_stack(self, components, X, weight, splits, time_limit=None, started=None, quiet=False):
        """Fit components and their weights to rows, with weights or None.

        A time limit counts from when the fit ``started``.
        """
        context = self._init_callback_context(max_subtasks=len(components))
        metadata = {} if weight is None else {"sample_weight": weight}
        task = {"estimator": self, "X": X, "y": None, "metadata": metadata}
        context.call_on_fit_task_begin(**task)
        positive = np.ones(len(X), dtype=bool) if weight is None else weight > 0
        rows = X[positive]
        weight = None if weight is None else weight[positive]
        outcomes = []
        interrupted = False
        done = []  # pairs of a component and what came of it, where there was time

        def mixture():
            return self._mixture(done, rows, weight, splits, positive)

        jobs = self._jobs(components, rows, weight, splits, time_limit, started, quiet)
        try:
            for component in components:
                subcontext = context.subcontext(task_name=component.name)
                subcontext.call_on_fit_task_begin(**task)
                outcome = next(jobs)
                outcomes.append(outcome)
                if outcome is not None:
                    done.append((component, outcome))
                if self.verbose:
                    print(f"{component.name}: {told(outcome)}")
                stop = subcontext.call_on_fit_task_end(**task, reconstruction_attributes=mixture)
                interrupted = outcome is not None and outcome.interrupted
                if stop or interrupted:
                    break
        except KeyboardInterrupt:
            if not done:
                raise
            interrupted = True
        if interrupted and len(done) < len(components):
            warnings.warn(
                f"The fit was interrupted after {len(done)} of {len(components)} components; "
                "they make up the mixture.",
                stacklevel=4,
            )
        jobs.close()
        if missed := sum(outcome is None for outcome in outcomes):
            warnings.warn(
                f"time_limit={time_limit:g} left no time for {missed} of {len(components)} "
                "components; the mixture is of the others. More time may make it better.",
                stacklevel=4,
            )
        for name, value in mixture().items():
            setattr(self, name, value)
        context.call_on_fit_task_end(**task, reconstruction_attributes=dict)
        return self

    def _jobs(self, components, X, weight, splits, time_limit, started, quiet):
        """What comes of each component, fitted in ``n_jobs`` processes."""
        # Batches of tasks would put flows behind one another in one process.
        n_jobs = 1 if time_limit is not None and time_limit < SHORT_LIMIT else self.n_jobs
        pool = Parallel(n_jobs, return_as="generator", batch_size=1)
        n_workers = effective_n_jobs(n_jobs)
        if time_limit is not None and n_workers > 1:
            list(pool(delayed(warm_up)() for _ in range(n_workers)))
        groups = grouped(components, *X.shape, n_workers)
        shares = budgets(groups, time_limit, started, n_workers)
        found = pool(
            delayed(fit_group)(group, X, weight, splits, share, quiet)
            for group, share in zip(groups, shares, strict=True)
        )
        with closing(found):
            for outcomes in found:
                yield from outcomes

    def _mixture(self, done, X, weight, splits, positive):
        """The attributes of a mixture of components by what held-out rows say of them."""
        components, outcomes = zip(*done, strict=True)
        held_out = np.concatenate([rows for _, rows in splits])
        scores = np.column_stack([outcome.scores for outcome in outcomes])
        importance = np.ones(len(X)) if weight is None else weight
        usable = ~(np.isnan(scores) | np.isposinf(scores)).any(axis=0)
        if not usable.all():
            names = [c.name for c, good in zip(components, usable, strict=True) if not good]
            trouble = f"held-out rows have scores that are nan or inf under {', '.join(names)}"
            if not usable.any():
                raise ValueError(f"{trouble}: no component is left.")
            warnings.warn(f"{trouble}, which get no weight.", stacklevel=5)
        weights = np.zeros(len(components))
        weights[usable] = mixture_weights(scores[:, usable], importance[held_out])
        weights[weights < LEAST_WEIGHT] = 0
        weights /= weights.sum()
        kept = weights > 0
        stacked = logsumexp(scores[:, kept] + np.log(weights[kept]), axis=1)
        with np.errstate(invalid="ignore"):
            means = np.average(scores, axis=0, weights=importance[held_out])
        order = np.lexsort((-means, -weights))
        everywhere, pooled = np.full((2, len(positive)), np.nan)
        everywhere[np.flatnonzero(positive)[held_out]] = stacked
        chosen = likeliest_of_each_kind(components, np.where(usable, means, np.nan))
        pooled[np.flatnonzero(positive)[held_out]] = scores[:, chosen].mean(axis=1)
        attributes = {
            "weights_": weights,
            "component_names_": [component.name for component in components],
            "estimators_": [
                outcome.members if share else []
                for outcome, share in zip(outcomes, weights, strict=True)
            ],
            "leaderboard_": {
                "component": [components[i].name for i in order],
                "weight": weights[order].tolist(),
                "score": means[order].tolist(),
                "seconds": [outcomes[i].seconds for i in order],
            },
            "held_out_scores_": everywhere,
            "_held_out_pool": pooled,
            "_pool": members_of(
                [outcomes[i].members for i in chosen], np.full(len(chosen), 1 / len(chosen))
            ),
            "stacked_score_": float(np.average(stacked, weights=importance[held_out])),
        }
        if self.contamination in ("auto", None):
            # Kernels know the rows they sit on: the fence must come from rows nobody has seen.
            fence, share = stacked, importance[held_out]
        else:
            members = members_of(attributes["estimators_"], weights)
            fence, share = score_rows(members, X), importance
        known = np.isfinite(fence)
        attributes["offset_"] = self._outlier_threshold(fence[known], share[known])
        return attributes

    def _score_rows(self, X):
        return score_rows(members_of(self.estimators_, self.weights_), X)

    def _pool_rows(self, X):
        return pool_rows(self._pool, X)

    def sample(self, n_samples=1, random_state=None):
        """Draw rows from the mixture.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows.
        """
        check_is_fitted(self)
        check_n_samples(n_samples)
        random_state = check_random_state(random_state)
        members = members_of(self.estimators_, self.weights_)
        weights = np.array([weight for _, weight in members])
        counts = random_state.multinomial(n_samples, weights / weights.sum())
        rows = [
            draw(member, count, random_state)
            for (member, _), count in zip(members, counts, strict=True)
            if count
        ]
        return random_state.permutation(np.concatenate(rows))
