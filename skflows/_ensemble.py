"""A mixture of any densities, weighted by what they say of rows they have not seen."""

import time
from numbers import Integral, Real

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from scipy.special import logsumexp
from sklearn.base import _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted

from ._components import (
    Component,
    budgets,
    fit_component,
    mixture_weights,
    splits_of,
    told,
    warm_up,
)
from .density import _docs
from .density._protocol import check_n_samples, draw
from .density._surface import OutlierDensityMixin
from .density._validation import validate_rows, validate_weight

LEAST_WEIGHT = 1e-4  # of a component that is kept


class MixtureMixin(OutlierDensityMixin, CallbackSupportMixin):
    """A mixture of fitted members: its fit from components, its scores and its samples."""

    def _fit_stack(self, components, X, weight, splits, time_limit=None, quiet=False):
        components, outcomes = self._outcomes(components, X, weight, splits, time_limit, quiet)
        held_out = np.concatenate([rows for _, rows in splits])
        scores = np.column_stack([np.concatenate(outcome.scores) for outcome in outcomes])
        importance = np.ones(len(X)) if weight is None else weight
        shares = mixture_weights(scores, importance[held_out])
        self.weights_ = np.where(shares < LEAST_WEIGHT, 0.0, shares)
        self.weights_ /= self.weights_.sum()
        self.estimators_ = [
            outcome.members if share else []
            for outcome, share in zip(outcomes, self.weights_, strict=True)
        ]
        means = np.average(scores, axis=0, weights=importance[held_out])
        order = np.lexsort((-means, -self.weights_))
        self.leaderboard_ = {
            "component": [components[i].name for i in order],
            "weight": self.weights_[order].tolist(),
            "score": means[order].tolist(),
            "seconds": [outcomes[i].seconds for i in order],
        }
        with np.errstate(divide="ignore"):
            stacked = logsumexp(scores + np.log(self.weights_), axis=1)
        self.stacked_score_ = float(np.average(stacked, weights=importance[held_out]))
        self.held_out_scores_ = np.full(len(X), np.nan)
        self.held_out_scores_[held_out] = stacked
        if self.contamination == "auto":
            # Kernels know the rows they sit on: the fence must come from rows nobody has seen.
            self.offset_ = self._outlier_threshold(stacked, importance[held_out])
        else:
            self.offset_ = self._outlier_threshold(self._score_rows(X), importance)
        return self

    def _outcomes(self, components, X, weight, splits, time_limit, quiet):
        """The components there was time for, fitted in ``n_jobs`` processes, and their outcomes."""
        context = self._init_callback_context(max_subtasks=len(components))
        task = {"estimator": self, "X": X, "y": None, "metadata": {}}
        context.call_on_fit_task_begin(**task)
        # Batches of tasks would put flows behind one another in one process.
        pool = Parallel(self.n_jobs, return_as="generator", batch_size=1)
        n_workers = effective_n_jobs(self.n_jobs)
        started = time.time()
        if time_limit is not None and n_workers > 1:
            list(pool(delayed(warm_up)() for _ in range(n_workers)))
        shares = budgets(components, time_limit, started, n_workers)
        outcomes = pool(
            delayed(fit_component)(component, X, weight, splits, share, quiet)
            for component, share in zip(components, shares, strict=True)
        )
        done = []
        for component, outcome in zip(components, outcomes, strict=True):
            subcontext = context.subcontext(task_name=component.name)
            subcontext.call_on_fit_task_begin(**task)
            if outcome is not None:
                done.append((component, outcome))
            if self.verbose:
                print(f"{component.name}: {told(outcome)}")
            subcontext.call_on_fit_task_end(**task, reconstruction_attributes=dict)
        context.call_on_fit_task_end(**task, reconstruction_attributes=dict)
        return zip(*done, strict=True)

    def score_samples(self, X):
        """Log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, in the units of X.
        """
        check_is_fitted(self)
        return self._score_rows(validate_rows(self, X, reset=False))

    def _members(self):
        """All members of positive weight, with the logarithm of each one's weight."""
        pairs = [
            (member, share / len(members))
            for share, members in zip(self.weights_, self.estimators_, strict=True)
            for member in members
        ]
        members, weights = zip(*pairs, strict=True)
        return members, np.array(weights)

    def _score_rows(self, X):
        members, weights = self._members()
        total = np.full(len(X), -np.inf)
        for member, weight in zip(members, weights, strict=True):
            total = np.logaddexp(total, member.score_samples(X) + np.log(weight))
        return total

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
        members, weights = self._members()
        counts = random_state.multinomial(n_samples, weights / weights.sum())
        rows = [
            draw(member, count, random_state)
            for member, count in zip(members, counts, strict=True)
            if count
        ]
        return random_state.permutation(np.concatenate(rows))


class StackedDensity(MixtureMixin, _BaseComposition):
    __doc__ = _docs.fill("""Mixture of densities, weighted by the likelihood of held-out rows.

    Each estimator is fitted on all folds but one, in turn, and scores the rows of that one; the
    weights of the mixture are those under which these scores are likeliest, found by EM. A
    mixture gains most where its members err on different rows, and it is hardly ever worse than
    the best of them.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Named density estimators with `fit` and `score_samples`: flows, or scikit-learn's
        `GaussianMixture` and `KernelDensity`.

    cv : int, cross-validation generator or iterable, default=5
        How rows are held out: the number of folds, or a splitter. A single split, as of
        ``ShuffleSplit(1)``, saves time on large tables.

    refit : bool, default=False
        Whether each estimator is fitted again to all rows once the weights are known. Else the
        models of the folds stay, as equal members of the mixture: an ensemble that is mostly
        the better density, and takes longer to score.

    n_jobs : int, default=None
        Number of processes that fit. None is 1, -1 all processors.

    contamination : float or "auto", default="auto"
        Fraction of outliers in the training data, which sets the threshold of `predict`.
        "auto" puts it at the lower Tukey fence of the held-out scores, Q1 - 1.5 (Q3 - Q1).

    random_state : int, RandomState instance or None, default=None
        Seeds the folds, and the estimators that have no seed of their own.

    verbose : int, default=0
        Print what each component reaches.

    Attributes
    ----------
    {mixture}

    References
    ----------
    Smyth & Wolpert, "Linearly Combining Density Estimators via Stacking", 1999.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.neighbors import KernelDensity
    >>> from skflows import StackedDensity
    >>> X = load_iris().data
    >>> components = [("gmm", GaussianMixture(3)), ("kde", KernelDensity(bandwidth=0.3))]
    >>> density = StackedDensity(components, random_state=0).fit(X)
    >>> density.weights_.shape
    (2,)
    >>> density.score_samples(X[:3]).shape
    (3,)
    """)

    _parameter_constraints: dict = {
        "estimators": [list],
        "cv": ["cv_object"],
        "refit": ["boolean"],
        "n_jobs": [Integral, None],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimators,
        *,
        cv=5,
        refit=False,
        n_jobs=None,
        contamination="auto",
        random_state=None,
        verbose=0,
    ):
        self.estimators = estimators
        self.cv = cv
        self.refit = refit
        self.n_jobs = n_jobs
        self.contamination = contamination
        self.random_state = random_state
        self.verbose = verbose

    def get_params(self, deep=True):
        """Get the parameters, those of the named estimators among them.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the estimators and their parameters.

        Returns
        -------
        params : dict
            Names and values.
        """
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params):
        """Set parameters; ``name=estimator`` replaces one, ``name__parameter`` changes one.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
            The estimator.
        """
        return self._set_params("estimators", **params)

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Fit all components, and the weights of their mixture.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least three.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Importance of each row, if all estimators take weights.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        components = self._checked_components()
        X = validate_rows(self, X, ensure_min_samples=3)
        weight = None if sample_weight is None else validate_weight(sample_weight, X, 2)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        return self._fit_stack(components, X, weight, splits_of(self.cv, X, seed))

    def _checked_components(self):
        if not self.estimators:
            raise ValueError("estimators is empty; give a list of (name, estimator) pairs.")
        self._validate_names([name for name, _ in self.estimators])
        for name, estimator in self.estimators:
            if not hasattr(estimator, "score_samples") or isinstance(estimator, type):
                raise TypeError(
                    f"the component {name!r} is {estimator!r}; give an instance of a density "
                    "estimator with score_samples."
                )
        return [Component(name, est, self.refit) for name, est in self.estimators]
