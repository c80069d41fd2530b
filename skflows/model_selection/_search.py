"""A grid search whose candidates and folds train together."""

import math
import time
from itertools import chain, product
from typing import Self

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.utils import indexable
from sklearn.utils.parallel import Parallel, delayed

from ..callbacks._checkpoint import Checkpoint
from ..callbacks._run import fit_task, in_folder
from ..callbacks._support import CallbackSupportMixin
from ..columns.types import Table
from ..density import FlowDensity
from ..preprocessing.sklearn_compat import (
    check_method_params,
    insert_error_scores,
    warn_or_raise_about_fit_failures,
)
from ..training.threads import fit_context
from ._joint_evaluation import Task, evaluate, stack_tasks

SCORES = "score", "score_samples", "_score_rows"  # which a subclass may override


class FlowGridSearchCV(GridSearchCV, CallbackSupportMixin):
    """Grid search over a flow, whose candidates and folds train together.

    It has the parameters, attributes and rules of `sklearn.model_selection.GridSearchCV`, and the
    same scores up to rounding, in a fraction of the time: flows of the same shapes train as one,
    with stacked weights. Each keeps its own rows, held-out rows, order of batches, dropout,
    learning rate, weight decay, best epoch and end.

    Candidates of one stack may differ in ``learning_rate_init``, ``weight_decay``, ``dropout``,
    ``tol``, ``n_iter_no_change``, ``random_state``, ``preprocessing``, ``bounds``, ``discrete``,
    ``contamination`` and ``verbose``. Candidates that differ in anything else, such as
    ``n_transforms`` or ``batch_size``, form stacks of their folds alone, and folds with one more
    row form separate stacks. Everything else is left to `GridSearchCV`: estimators other than
    `FlowDensity` (pipelines too), ``time_limit``, callbacks other than a
    `skflows.callbacks.Checkpoint`, and parameters of `fit` other than ``sample_weight`` and
    ``groups``. Flows with ``input_noise="auto"`` train one after another,
    each as a separate stack.

    The smaller the batches, the larger the gain: a step on few rows spends its time on starting
    kernels. Each flow of a stack has a copy of its rows, so large tables make small stacks, as do
    large batches. Scores differ by rounding if ``batch_size`` is not a multiple of 16, if a table
    makes a single batch or batches of fewer than 32 rows, or if there are very few columns.
    Training amplifies it, by up to some hundredths of a nat at high learning rates.

    Parameters
    ----------
    estimator : FlowDensity
        The flow; any other estimator is searched as in `GridSearchCV`.

    param_grid : dict of str to sequence, or list of them
        Names of parameters and the values to try.

    scoring : str, callable, list, tuple or dict, default=None
        What to maximise; the mean held-out log-density by default.

    n_jobs : int, default=None
        Number of processes, each of which trains its own stacks.

    refit : bool, str or callable, default=True
        Whether to fit the best candidate to all rows; the name of the score by which it is the
        best, or a function that chooses it.

    cv : int, cross-validation generator or iterable, default=None
        The folds, 5 consecutive ones by default.

    verbose : int, default=0
        How much to print. The times printed leave out the time of the stack.

    pre_dispatch : int or str, default="2*n_jobs"
        Number of stacks dispatched to the processes at once.

    error_score : "raise" or float, default=nan
        Score of a fit that fails.

    return_train_score : bool, default=False
        Whether to score the training rows too.

    Attributes
    ----------
    cv_results_ : dict of ndarray
        One entry per candidate. The fit time of a flow is its share of the time of its stack.

    best_estimator_ : estimator
        The best candidate, fitted to all rows, if ``refit``.

    best_score_ : float
        Mean cross-validated score of the best candidate.

    best_params_ : dict
        Its parameters.

    best_index_ : int
        Its index in ``cv_results_``.

    scorer_ : callable or dict
        The scorer of the held-out rows.

    n_splits_ : int
        Number of folds.

    refit_time_ : float
        Seconds of the last fit, if ``refit``.

    multimetric_ : bool
        Whether there are several scores.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import KFold
    >>> from skflows import MAFDensity
    >>> from skflows.model_selection import FlowGridSearchCV
    >>> X = load_iris().data
    >>> cv = KFold(3, shuffle=True, random_state=0)  # iris is sorted by species
    >>> grid = {"learning_rate_init": [0.001, 0.01], "weight_decay": [0.0, 0.1]}
    >>> flow = MAFDensity(n_transforms=2, max_iter=10, random_state=0)
    >>> search = FlowGridSearchCV(flow, grid, cv=cv).fit(X)  # 12 flows in one training
    >>> search.best_params_["learning_rate_init"]
    0.01
    """

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: object = None, **params: object) -> Self:
        """Search, and fit the best candidate to all rows if ``refit``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : array-like of shape (n_samples,), default=None
            Ignored by flows; for a scorer that compares with labels.

        **params : dict
            ``sample_weight`` and ``groups``, as in `GridSearchCV`.

        Returns
        -------
        self : object
            The fitted search.
        """
        if not self._can_stack(params):
            return super().fit(X, y, **params)
        # As in GridSearchCV, which has no public place to fit several candidates at once: its fit
        # calls one function for each candidate and fold.
        scorers, refit_metric = self._get_scorers()
        X, y = indexable(X, y)
        params = check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)
        self._checked_cv_orig = check_cv(self.cv, y)
        splits = list(self._checked_cv_orig.split(X, y, **routed.splitter.split))
        self.n_splits_ = len(splits)
        candidates = list(ParameterGrid(self.param_grid))
        if self.verbose > 0:
            print(
                f"Fitting {len(splits)} folds for each of {len(candidates)} candidates, "
                f"totalling {len(splits) * len(candidates)} fits"
            )
        tasks = [
            Task(parameters, train, test, (i, len(candidates)), (j, len(splits)))
            for (i, parameters), (j, (train, test)) in product(
                enumerate(candidates), enumerate(splits)
            )
        ]
        if not tasks:
            raise ValueError("There is nothing to fit: the grid or the cv iterator is empty.")
        with fit_task(self, X, y, **params):
            out = self._evaluate(tasks, X, y, scorers, routed)
            warn_or_raise_about_fit_failures(out, self.error_score)
            if callable(self.scoring):
                insert_error_scores(out, self.error_score)
            results = self._format_results(candidates, len(splits), out)
            self.multimetric_ = isinstance(out[0]["test_scores"], dict)
            if callable(self.scoring) and self.multimetric_:
                self._check_refit_for_multimetric(out[0]["test_scores"])
                refit_metric = self.refit
            if self.refit or not self.multimetric_:
                self.best_index_ = self._select_best_index(self.refit, refit_metric, results)
                if not callable(self.refit):
                    self.best_score_ = results[f"mean_test_{refit_metric}"][self.best_index_]
                self.best_params_ = results["params"][self.best_index_]
            if self.refit:
                self.best_estimator_ = clone(self.estimator).set_params(
                    **clone(self.best_params_, safe=False)
                )
                started = time.time()
                self.best_estimator_.fit(X, y, **routed.estimator.fit)
                self.refit_time_ = time.time() - started
                if hasattr(self.best_estimator_, "feature_names_in_"):
                    self.feature_names_in_ = self.best_estimator_.feature_names_in_
            self.scorer_ = getattr(scorers, "_scorers", scorers)
            self.cv_results_ = results
        return self

    def _evaluate(self, tasks, X, y, scorers, routed):
        """Return what scikit-learn's ``_fit_and_score`` does for each task, in their order."""
        stacks = stack_tasks(tasks, effective_n_jobs(self.n_jobs), math.prod(np.shape(X)))
        flow = type(self.estimator)
        own_score = any(getattr(flow, name) is not getattr(FlowDensity, name) for name in SCORES)
        fit = delayed(in_folder(evaluate))
        results = Parallel(n_jobs=self.n_jobs, pre_dispatch=self.pre_dispatch)(
            fit(
                clone(self.estimator),
                [tasks[i] for i in stack],
                X,
                y,
                scorer=scorers,
                fit_params=routed.estimator.fit,
                score_params=routed.scorer.score,
                return_train_score=self.return_train_score,
                error_score=self.error_score,
                verbose=self.verbose,
                only_score=self.scoring is None and not own_score,
            )
            for stack in stacks
        )
        outcomes = dict(zip(chain(*stacks), chain(*results), strict=True))
        return [outcomes[i] for i in range(len(tasks))]

    def _can_stack(self, params):
        """Whether the fits can be stacked; otherwise `GridSearchCV` does the search."""
        flow = self.estimator
        if not (isinstance(flow, FlowDensity) and type(flow).fit is FlowDensity.fit):
            return False
        names = set().union(*ParameterGrid(self.param_grid))
        has_callbacks = not all(
            isinstance(callback, Checkpoint)
            for owner in (self, flow)
            for callback in getattr(owner, "_skl_callbacks", ())
        )
        has_limit = flow.time_limit is not None or "time_limit" in names
        other_params = set(params) - {"sample_weight", "groups"}
        return not (has_callbacks or has_limit or other_params)
