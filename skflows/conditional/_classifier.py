"""Classification by densities and by other classifiers, with an option to reject."""

import math
import warnings
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import assert_all_finite, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ..calibration.ranks import Ranks, joint_p_values, rows_needed
from ..callbacks._progress import VERBOSE, prints
from ..callbacks._run import clock, fit_task, random_state_of
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import (
    is_missing,
    row_shape,
    validate_rows,
)
from ..columns.checks import ColumnWarning, results_of_each, warn_user
from ..columns.encoding import PLAIN
from ..columns.frames import labelled, read_frame, validate_table
from ..columns.types import Flags, Floats, Rows, Table, Weights
from ..density import NSFDensity
from ..density._third_party import (
    check_is_density,
    fit_subtask,
    is_frozen,
    nothing_after_failure,
    of_no_use_alone,
    read,
    read_as_in_fit,
    score_rows,
    takes_tables,
    time_limits,
    was_interrupted,
    with_time_limit,
    with_verbose,
)
from ..ensemble._folds import make_folds
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.dequantizer import Dequantizer
from ..preprocessing.sklearn_compat import (
    HasMethods,
    Interval,
    StrOptions,
    safe_indexing,
)
from ..preprocessing.validation import uneven, validate_weight
from ..table import TableDensity
from ..training.threads import fit_context
from ._density import ConditionalDensity
from ._probabilities import ClassProbabilities, pool_weights, pooled
from ._trees import SHARE_OF_TIME

HELD_OUT = 0.2
LEAST_ROWS = 20  # per class from which calibration="auto" holds some out
LEAST_POOLED = 50  # from which the default density is pooled with other classifiers
FEWEST = 2  # rows that the density of a class is fitted to
MAX_NAMED = 6  # classes of fewer rows in a message
HOTTEST = 1e3
FITTED = {
    "classes_",
    "priors_",
    "estimators_",
    "temperature_",
    "prior_weight_",
    "calibration_scores_",
    "calibration_log_proba_",
    "classifiers_",
    "weights_",
}
ANY_ROWS = (  # added to an error
    "The rows of fit were complete rows of numbers, and so the default estimator takes no others: "
    'fit DensityClassifier(TableDensity(handle_unknown="rare"), classifiers=True).'
)
LEAST_LOG_PROBA = -1e9  # of impossible rows, which no temperature makes possible


class DensityClassifier(
    ClassifierMixin, PersistenceMixin, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator
):
    """Classification from the density of each class, pooled with trees and logistic regressions.

    The densities give each class a probability that is proportional to ``prior(class) *
    p(x | class) ** (1 / T)``. With ``T = 1`` this is Bayes' rule. Errors of the log-densities add
    up over many columns and would make the probabilities overconfident, so a temperature T above 1
    is set on rows that the densities have not seen, after the idea of temperature scaling. With
    uneven priors, `predict` depends on the temperature too. With n calibration rows, each
    probability is a mixture of Bayes' rule and the prior, which has a weight of ``1 / (n + 2)``, so
    no class with a prior has probability 0.

    By default, these probabilities are pooled with the probabilities by gradient boosting, extra
    trees and logistic regressions. In this logarithmic opinion pool, the product of all, each to a
    power, is normalised. Rows that neither the densities nor the other classifiers have seen set
    the powers, by their log-loss.

    The p-value of a class is the share of its own rows that are at least as odd as x. A row is odd
    for a class if it is unlikely under its density, or if extra trees give the class a small
    probability, and most of all if both are so. Where all p-values are small, x belongs to none of
    the classes, and can be rejected.

    Parameters
    ----------
    estimator : estimator, default=None
        A density estimator with `fit` and `score_samples`, which is cloned and fitted for each
        class. None is ``ConditionalDensity(NSFDensity(n_transforms=2, dropout=0.2,
        input_noise=0.1))`` for tables of numbers, and ``TableDensity(handle_unknown="rare")``
        for tables with texts, dates or missing values. The rows of `fit` decide: if only later
        rows have missing values, give the `TableDensity`. These two are fitted once, to the columns
        given the class, or with the class as one more column: the classes share what the columns
        have in common, which suits classes of few rows, and the held-out rows are stratified. A
        ``time_limit`` of other densities holds for all of them together: each has an equal share of
        the time left. Ctrl-C ends the whole fit, and the classifier is fitted only if it came while
        the last density was. Discrete columns are found in the rows of all classes together.

    priors : array-like of shape (n_classes,), default=None
        Probability of each class, in the order of `classes_`; by default its share of the rows.

    reject : float, default=None
        `predict` returns `unknown_label` for rows whose p-values are all at most this: about that
        fraction of the rows of each class. None rejects no row.

    unknown_label : int or str, default=None
        The label of rejected rows; None is -1 for numbers and "unknown" for texts.

    calibration : "auto", float or None, default="auto"
        The rows that p-values and the temperature come from. "auto" uses the held-out scores that
        `AutoDensity` and `StackedDensity` keep, and the folds of a `ConditionalDensity` or
        `TableDensity`, which beyond 1,000 rows is a single part; p-values are then somewhat too
        large, because new rows are scored by all folds. For other estimators it holds out a fifth
        of each class, if `reject` is set, `classifiers` is True or every class has at least 20
        rows. A fraction holds out that part in any case. With None there are no p-values, and
        `predict_proba` is Bayes' rule.

    classifiers : "auto" or bool, default="auto"
        Whether `predict_proba` pools Bayes' rule with the probabilities of classifiers of
        scikit-learn: gradient boosting, extra trees, and logistic regressions with ``C`` of 0.1, 1
        and 10. They take categories and missing values as they are. P-values are then by ranks in
        the density and in the pool of these classifiers, whichever is lower; they are somewhat too
        large, because models of folds score the rows that calibrate. "auto" has them with
        the default `estimator`, from 50 rows on; an estimator that is given is used as it is,
        unless `classifiers` is True. They are weighted by the rows of `calibration`: without such
        rows, "auto" has none, and with ``calibration=None``, True is an error. They have 30 % of a
        `time_limit`, and one that would need more is left out.

    random_state : int, RandomState instance or None, default=None
        Seeds the held-out rows, the classifiers and, if it has no seed of its own, the estimator.

    verbose : "auto" or int, default="auto"
        "auto" prints at a terminal or in a notebook how far a fit of more than ten seconds is. 0
        and False print nothing, and other numbers each class before its density is
        fitted; an estimator with a `verbose` gets such a number too.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.

    priors_ : ndarray of shape (n_classes,)
        The probability of each class.

    estimators_ : list of estimator
        The density of each class, or the single `ConditionalDensity` or `TableDensity`. The latter
        is the density of rows, whatever their class: the classifier alone asks it about classes.

    temperature_ : float
        Divisor of the log-densities in `predict_proba`, at least 1.

    prior_weight_ : float
        Weight of the priors in `predict_proba`.

    weights_ : dict
        The power of each model's probabilities in `predict_proba`: of "Bayes' rule", and of the
        other classifiers, if there are any.

    classifiers_ : ClassProbabilities or None
        The fitted classifiers.

    calibration_scores_ : list of ndarray or None
        Log-densities, in ascending order, of rows of each class that its density has not seen.

    calibration_log_proba_ : list of ndarray or None
        Log-probabilities of the class of these rows, in the same order, by extra trees that have
        not seen them, or by a pool of the other classifiers if a time limit has left the trees out;
        None without classifiers.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    References
    ----------
    Hechtlinger, Póczos & Wasserman, "Cautious Deep Learning", 2018; Guo, Pleiss, Sun & Weinberger,
    "On Calibration of Modern Neural Networks", 2017; Genest & Zidek, "Combining Probability
    Distributions: A Critique and an Annotated Bibliography", 1986.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import DensityClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = DensityClassifier(reject=0.1, random_state=0)
    >>> classifier.fit(X, y).predict_proba(X[:2]).shape
    (2, 3)
    >>> classifier.predict([[100.0, 0.0, 0.0, 0.0]])
    array([-1])
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "score_samples"]), ConditionalDensity, None],
        "priors": ["array-like", None],
        "reject": [Interval(Real, 0, 1, closed="neither"), None],
        "unknown_label": [Real, str, None],
        "calibration": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither"), None],
        "classifiers": [StrOptions({"auto"}), "boolean"],
        "random_state": ["random_state"],
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        estimator=None,
        *,
        priors=None,
        reject=None,
        unknown_label=None,
        calibration="auto",
        classifiers="auto",
        random_state=None,
        verbose="auto",
    ):
        self.estimator = estimator
        self.priors = priors
        self.reject = reject
        self.unknown_label = unknown_label
        self.calibration = calibration
        self.classifiers = classifiers
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: Table, sample_weight: Weights = None) -> Self:
        """Fit the densities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows, as the estimator takes them.

        y : array-like of shape (n_samples,)
            The class of each row.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, in the priors and, if the estimator takes weights, in its
            likelihood. Rows of weight 0 are left out.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        with nothing_after_failure(self, FITTED):
            return self._fit(X, y, sample_weight)

    def _fit(self, X, y, sample_weight):
        given = X, y
        self._needs_table = self.estimator is None and has_more_than_numbers(X)
        if self._is_shared:
            self._density._validate_params()  # its folds are made before its fit
        check_is_density(self._density)
        if self.classifiers is True and self.calibration is None:
            raise ValueError(
                "classifiers=True needs held-out rows to weight probabilities by, but "
                'calibration=None holds out none; use calibration="auto" or a fraction.'
            )
        if self.reject is not None and self.calibration is None:
            raise ValueError(
                f"reject={self.reject:g} needs p-values, but calibration=None provides none; use "
                'calibration="auto" or a fraction.'
            )
        if y is None:
            raise ValueError("DensityClassifier requires y to be passed, but the target y is None.")
        X = self._validated(X, reset=True)
        table = X if self._encoding is None else given[0]
        labels = np.asarray(y)
        # scikit-learn's error does not say that it is about y.
        if labels.dtype.kind == "O" and any(map(is_missing, labels.ravel())):
            raise ValueError("Input y contains NaN or None: drop the rows without a class.")
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        if len(y) != len(X):
            raise ValueError(
                f"X has {len(X)} rows and y has {len(y)}; give one label for each row."
            )
        weight = validate_weight(sample_weight, np.empty((len(y), 1)), least=1)
        if not weight.all():
            kept = np.flatnonzero(weight)
            X, table = safe_indexing(X, kept), safe_indexing(table, kept)
            y, weight = y[kept], weight[kept]
        self.classes_, label = np.unique(y, return_inverse=True)
        self._set_unknown_label()
        totals = np.bincount(label, weight, len(self.classes_))
        self.priors_ = totals / totals.sum() if self.priors is None else self._checked_priors()
        random_state = random_state_of(self)
        seed = random_state.randint(2**31 - 1)
        is_held_out = self._held_out_rows(label, random_state)
        template = self._template(X, weight * ~is_held_out, seed)
        limits, unseen = time_limits(template), None
        self.classifiers_ = self._new_classifiers(len(label), limits, random_state)
        if self.classifiers_ is not None:
            started = clock()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ColumnWarning)  # the densities see them too
                unseen = self.classifiers_.fit_transform(table, label, weight)
            if not self.classifiers_.models_:  # for lack of time
                unseen = None
            template = with_time_limit(template, shortest(limits) - (clock() - started))
        fit, n_fits = self._fit_each, len(self.classes_)
        if self._is_table:
            fit, n_fits = self._fit_table, 1
        if self._is_shared:
            fit, n_fits = self._fit_shared, 1
            folds = self._folds(label[~is_held_out], is_held_out.any(), seed)
            template.set_params(cv=folds, trees=False)  # which would predict X from the class alone
            template._outputs = "X"
        with fit_task(
            self, *given, max_subtasks=n_fits, what="classes", sample_weight=sample_weight
        ) as task:
            rows, joint = fit(task, template, X, label, weight, is_held_out)
            self._interrupted = any(map(was_interrupted, self.estimators_))
            known = joint[np.arange(len(rows)), label[rows]]
            self.calibration_scores_, self.calibration_log_proba_ = None, None
            self.temperature_, self.prior_weight_ = 1.0, 0.0
            if len(rows):
                by_score = np.argsort(known, kind="stable")
                of_class = [by_score[label[rows[by_score]] == k] for k in range(len(self.classes_))]
                self.calibration_scores_ = [known[own] for own in of_class]
                self.prior_weight_ = 1 / (len(rows) + 2)  # Laplace's rule of succession
                # Classes may hold out different parts of their rows.
                share = np.bincount(label[rows], weight[rows])[label[rows]]
                unseen_weight = weight[rows] / share * self.priors_[label[rows]]
                self.temperature_ = temperature(
                    joint, label[rows], self.priors_, self.prior_weight_, unseen_weight
                )
            self.weights_ = {"Bayes' rule": 1.0}
            if limits:
                for density in self.estimators_:
                    density.set_params(**limits)
            if unseen is None or not len(rows):
                self.classifiers_ = None
            else:
                self._weight_classifiers(joint, unseen[:, rows], label[rows], unseen_weight)
                own = self.classifiers_.for_p_values(unseen[:, rows])
                self.calibration_log_proba_ = [own[some, k] for k, some in enumerate(of_class)]
        # All but rows without a known value.
        all_calibrate = 2 * len(rows) > len(label) if self._is_table else len(rows) == len(label)
        self._warn_of_few_rows(all_calibrate)
        return self

    _encoding: Any = None  # of rows for a TableDensity
    _needs_table = False  # whether the default density is one of tables

    @property
    def _density(self):
        """The given density, or the default one."""
        if self.estimator is not None:
            return self.estimator
        return default_table_density() if self._needs_table else default_density()

    def _new_classifiers(self, n, limits, random_state):
        """Return new classifiers beside the densities, or None."""
        is_wanted = self.classifiers
        if isinstance(is_wanted, str):  # "auto"
            is_wanted = self.estimator is None and n >= LEAST_POOLED
            is_wanted = is_wanted and self.calibration is not None
        if not is_wanted or len(self.classes_) == 1:
            return None
        limit = shortest(limits)
        seconds = None if limit == math.inf else SHARE_OF_TIME * limit
        return ClassProbabilities(random_state.randint(2**31 - 1), seconds)

    def _weight_classifiers(self, log_density, unseen, label, weight):
        """Set the weights of the pool, by rows that no model has seen."""
        weights = pool_weights(self._members(log_density, unseen), label, weight)
        names = ["Bayes' rule", *self.classifiers_.models_]
        self.weights_ = dict(zip(names, weights.tolist(), strict=True))

    def _members(self, log_density, log_proba):
        """Return the log-probabilities of all models, of shape (n_models, n, n_classes)."""
        bayes = log_proba_of(log_density, self.priors_, self.temperature_, self.prior_weight_)
        with np.errstate(divide="ignore"):
            log_proba = log_proba + np.log(self.priors_ / self.classifiers_.share_)
        others = log_proba - logsumexp(log_proba, axis=-1, keepdims=True)
        return np.concatenate([bayes[None], others])

    @property
    def _is_shared(self):
        """Whether a single density is given the class."""
        return isinstance(self._density, ConditionalDensity)

    @property
    def _is_table(self):
        """Whether a single density of tables has the class as one more column."""
        return hasattr(self._density, "_fit_classes") and not is_frozen(self._density)

    def _fit_table(self, task, density, X, label, weight, is_held_out):
        """Fit the density of encoded rows and their classes.

        Return the rows that calibrate, and their log-densities under each class.
        """
        train = np.flatnonzero(~is_held_out)
        if prints(self):
            print(f"{len(self.classes_)} classes: {len(train)} rows")
        rows, sample_weight = X[train], uneven(weight[train])
        names_rows = np.isin(np.arange(X.shape[1]), list(self._encoding.identifiers))
        has_value = (~np.isnan(rows) & ~names_rows).any(axis=1)
        missing = set(label[train]) - set(label[train][has_value])
        if missing and density.missing == "ignore":
            raise ValueError(
                f"no row of class {self.classes_[min(missing)]} has a known value: leave the class "
                "out."
            )
        with task.inside(density):
            joint = density._fit_classes(rows, label[train], sample_weight, self._encoding)
        self.estimators_ = [density]
        if is_held_out.any():
            rows = np.flatnonzero(is_held_out)
            return rows, self._scores(X[rows])
        is_known = ~np.isnan(joint).any(axis=1) & (self.calibration is not None)
        return train[is_known], joint[is_known]

    def _fit_shared(self, task, density, X, label, weight, is_held_out):
        """Fit the density of the rows given the class.

        Return the rows that calibrate, and their log-densities under each class.
        """
        n_classes = len(self.classes_)
        train = np.flatnonzero(~is_held_out)
        if prints(self):
            print(f"{n_classes} classes: {len(train)} rows")
        with task.inside(density):
            given = np.eye(n_classes)[label[train]]
            density.fit(given, safe_indexing(X, train), uneven(weight[train]))
        density.set_params(cv=self._density.cv)  # the splits of these rows are of no use later
        self.estimators_ = [density]
        parts: list[tuple[list[int] | None, np.ndarray]] = []
        if is_held_out.any():
            parts = [(None, np.flatnonzero(is_held_out))]
        elif self.calibration is not None:
            folds = enumerate(density.held_out_)
            parts = [([i], rows) for i, rows in folds if rows is not None]
        scores = [
            given_classes(density, safe_indexing(X, rows), n_classes, flows)
            for flows, rows in parts
        ]
        rows = np.concatenate([np.empty(0, dtype=int), *(rows for _, rows in parts)])
        return rows, np.concatenate([np.empty((0, n_classes)), *scores])

    def _folds(self, label, has_held_out, seed):
        """Return `cv` of a single density: splits whose parts have each class as all rows do."""
        cv = self._density.cv
        if cv == "auto":
            cv = None if has_held_out else self._density._folds(len(label))
        if cv is None:
            return None
        if not (isinstance(cv, Integral) or hasattr(cv, "split")):
            raise ValueError(
                "estimator.cv lists rows; give a number of folds, or a splitter, which is given "
                "the classes."
            )
        splits = make_folds(cv, len(label), seed, label=label)
        for i, (train, _) in enumerate(splits):
            if missing := set(label) - set(label[train]):
                raise ValueError(
                    f"no row of class {self.classes_[min(missing)]} is left to train on in split "
                    f"{i} of estimator.cv={cv!r}; use a splitter that stratifies, or a number."
                )
        return splits

    def _fit_each(self, task, template, X, label, weight, is_held_out):
        """Fit a density for each class.

        Return the rows that calibrate, and their log-densities under each class.
        """
        densities, scores, unseen = [], [], [np.empty(0, dtype=int)]
        limits = time_limits(template)
        end = clock() + shortest(limits)
        for k in range(len(self.classes_)):
            n_left = len(self.classes_) - k
            train = np.flatnonzero((label == k) & ~is_held_out)
            if prints(self):
                name = self.classes_[k]
                print(f"Class {name} ({k + 1} of {len(self.classes_)}): {len(train)} rows")
            given = safe_indexing(X, train), uneven(weight[train])
            density = with_time_limit(template, (end - clock()) / n_left)
            with of_no_use_alone() if n_left > 1 else nullcontext():
                density = fit_subtask(task, density, *given, self._encoding)
            if was_interrupted(density) and n_left > 1:
                raise KeyboardInterrupt  # without the other classes nothing can be predicted
            densities.append(density)
            if is_held_out.any():
                unseen.append(np.flatnonzero((label == k) & is_held_out))
                held_out = safe_indexing(X, unseen[-1])
                scores.append(score_rows(density, held_out, self._encoding))
            elif self.calibration is not None and hasattr(density, "held_out_scores_"):
                is_known = ~np.isnan(density.held_out_scores_)
                scores.append(density.held_out_scores_[is_known])
                unseen.append(train[is_known])
        self.estimators_ = densities
        rows = np.concatenate(unseen)
        joint = np.empty((len(rows), len(self.classes_)))
        if scores:
            joint = self._scores(safe_indexing(X, rows))
            joint[np.arange(len(rows)), label[rows]] = np.concatenate(scores)
        return rows, joint

    def _warn_of_few_rows(self, all_calibrate):
        """Warn if p-values cannot be so small that a row is rejected."""
        if self.reject is None or self.calibration_scores_ is None:
            return
        n, name = min(zip(map(len, self.calibration_scores_), self.classes_, strict=True))
        if 1 / (n + 1) > self.reject:
            remedy = (
                "use a TableDensity or a ConditionalDensity, whose folds calibrate with all rows; "
                "a larger fraction as calibration leaves fewer rows to train on"
            )
            if self._is_table:
                remedy = 'use calibration="auto"'
            if self._is_table and isinstance(self.calibration, str):  # a single part is held out
                remedy = "set cv=5 of the TableDensity, whose folds calibrate with all rows"
            if all_calibrate:
                remedy = "fit to more rows of this class"
            warn_user(
                f"No row can be rejected: p-values of class {name}, with {n} calibration rows, "
                f"are at least {1 / (n + 1):.2g}, and reject={self.reject:g}; it takes "
                f"{rows_needed(1 - self.reject)}. Raise reject, or {remedy}."
            )

    @property
    def _row_shape(self):
        return row_shape(self._density)

    def _validated(self, X, reset):
        """Return X as an array, or as it is if it is a table with named columns.

        Rows for a `TableDensity` are encoded.
        """
        if reset:
            self._encoding = None
        if self._is_shared:  # its X is the class
            try:
                rows = validate_rows(self, X, reset=reset)
            except ValueError as error:
                if self.estimator is not None or reset or not has_more_than_numbers(X):
                    raise
                raise ValueError(f"{error} {ANY_ROWS}") from error
            return X if hasattr(X, "columns") else rows
        if hasattr(self._density, "_fit_classes"):
            if not reset:
                return read_as_in_fit(self, X)
            self._encoding, rows = read(self, self._density, X)
            return rows
        if hasattr(X, "columns") or takes_tables(self._density):
            return validate_table(self, X, reset=reset)
        return validate_rows(self, X, reset=reset)

    def _held_out_rows(self, label, random_state):
        """Return which rows calibrate, a part of each class, and no density is fitted to."""
        is_held_out = np.zeros(len(label), dtype=bool)
        fraction = self._held_out_fraction(np.bincount(label))
        few = []
        for k, name in enumerate(self.classes_):
            rows = np.flatnonzero(label == k)
            n_held_out = 0 if fraction is None else max(1, round(fraction * len(rows)))
            if len(rows) - n_held_out < FEWEST:
                calibrating = f", {n_held_out} of them for calibration" if n_held_out else ""
                few.append(f"{name} ({len(rows)} sample{'s' * (len(rows) > 1)}{calibrating})")
            elif n_held_out:
                is_held_out[random_state.permutation(rows)[:n_held_out]] = True
        if few:
            which = "class of y has" if len(few) == 1 else "classes of y have"
            more = f" and {len(few) - MAX_NAMED} more" if len(few) > MAX_NAMED else ""
            raise ValueError(
                f"{len(few)} {which} too few rows: {', '.join(few[:MAX_NAMED])}{more}. The density "
                f"of a class needs {FEWEST} rows, besides rows for calibration: leave these rows "
                "out, or merge the classes."
            )
        return is_held_out

    def _template(self, X, weight, seed):
        """Return the estimator with a seed, and with what kinds of columns all rows have."""
        template = clone(with_verbose(self._density, self.verbose))
        params = template.get_params(deep=False) if hasattr(template, "get_params") else {}
        has_own_seed = self._is_shared and self.random_state is None  # the seed of its estimator
        if "random_state" in params and params["random_state"] is None and not has_own_seed:
            template.set_params(random_state=seed)
        gaps = cache(partial(discrete_gaps, X))
        set_columns(template, X, seed, weight, gaps, self._encoding)
        return template

    def _held_out_fraction(self, counts):
        """Return the fraction of the rows to hold out, if classes have these numbers of rows."""
        if not isinstance(self.calibration, str):
            return self.calibration
        holds_out_itself = getattr(type(self._density), "_held_out_scores", None) == "folds"
        if self._is_shared:
            holds_out_itself = self._density._folds(counts.sum()) is not None
        is_small = counts.min() < LEAST_ROWS and self.reject is None
        is_small = is_small and self.classifiers is not True
        return None if is_small or holds_out_itself else HELD_OUT

    def _checked_priors(self):
        priors = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != self.classes_.shape or (priors < 0).any() or not priors.sum() > 0:
            raise ValueError(
                f"priors={self.priors!r}; give a probability for each of the "
                f"{len(self.classes_)} classes {list(self.classes_)}."
            )
        return priors / priors.sum()

    def _set_unknown_label(self):
        is_text = isinstance(self.classes_[0], str)
        self._unknown = self.unknown_label
        if self._unknown is None:
            self._unknown = "unknown" if is_text else -1
        if self.reject is not None and self._unknown in self.classes_.tolist():
            raise ValueError(
                f"unknown_label={self._unknown!r} is the label of a class; give another one."
            )
        if self.reject is not None and isinstance(self._unknown, str) != is_text:
            raise ValueError(
                f"unknown_label={self._unknown!r}, and the classes are {list(self.classes_)}; give "
                f"a {'text' if is_text else 'number'} too."
            )

    def _log_densities(self, X):
        """Return the log-density of each row under each class."""
        return self._scores(self._read(X)[0])

    def _by_all_models(self, X):
        """Return the log-densities of rows, and log-probabilities by the other classifiers or None.

        They have the shapes (n, n_classes) and (n_models, n, n_classes).
        """
        rows, table = self._read(X)
        if self.classifiers_ is None:
            return self._scores(rows), None
        with no_more_warnings_of_names():
            others = self.classifiers_.transform(table)
        return self._scores(rows), others

    def _read(self, X):
        """Return rows for the densities, and for the other classifiers."""
        check_is_fitted(self)
        rows = self._validated(X, reset=False)
        return rows, rows if self._encoding is None else X

    def _scores(self, X):
        if self._is_shared:
            (density,) = self.estimators_
            return given_classes(density, X, len(self.classes_))
        if self._is_table:
            (density,) = self.estimators_
            return density._score_classes_of(X)
        scores = [partial(score_rows, density) for density in self.estimators_]
        with no_more_warnings_of_names():
            return np.column_stack(results_of_each(scores, X, self._encoding))

    def score_samples(self, X: Table) -> Floats:
        """Return the log-density of each row, whatever its class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats.
        """
        return logsumexp(self._log_densities(X), axis=1, b=self.priors_)

    def predict_log_proba(self, X: Table) -> Floats:
        """Return the logarithm of `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        return self._log_proba(*self._by_all_models(X))

    def _log_proba(self, log_density, others):
        """Return the log-probability of each class from what `_by_all_models` returns."""
        if others is None:
            settings = self.priors_, self.temperature_, self.prior_weight_
            return log_proba_of(log_density, *settings)
        members = self._members(log_density, others)
        log_proba = pooled(np.array([*self.weights_.values()]), members)
        return mixed_with_priors(log_proba, self.priors_, self.prior_weight_)

    def predict_proba(self, X: Table, *, as_frame: bool = False) -> Floats | Rows:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        as_frame : bool, default=False
            Whether to return a DataFrame of pandas, also for tables of other libraries. Its columns
            are the classes, and its index is the one of X.

        Returns
        -------
        proba : ndarray or DataFrame of shape (n_samples, n_classes)
            In the order of `classes_`.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skflows import DensityClassifier, NSFDensity
        >>> data = load_iris(as_frame=True)
        >>> y = data.target_names[data.target]
        >>> density = NSFDensity(max_iter=5, random_state=0)
        >>> classifier = DensityClassifier(density).fit(data.data, y)
        >>> classifier.predict_proba(data.data[:3], as_frame=True).columns.tolist()
        ['setosa', 'versicolor', 'virginica']
        """
        proba = np.exp(self.predict_log_proba(X))
        return labelled(proba, self.classes_, X) if as_frame else proba

    def predict(self, X: Table) -> NDArray:
        """Return the most probable class of each row, or `unknown_label` if it is rejected.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Values of `classes_`, or `unknown_label`.
        """
        outputs = self._by_all_models(X)
        labels = self.classes_[self._log_proba(*outputs).argmax(axis=1)]
        if self.reject is None:
            return labels
        is_rejected = self._p_values(*outputs).max(axis=1) <= self.reject
        kind = np.result_type(labels, np.min_scalar_type(self._unknown))
        labels = labels.astype(object if labels.dtype == object else kind)
        labels[is_rejected] = self._unknown
        return labels

    def p_values(self, X: Table) -> Floats:
        """Return the conformal p-value of each class: small where a row is unlike its rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        p_values : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`. A fraction of at most a of the rows of a class has a p-value
            of at most a, on average over tables.
        """
        check_is_fitted(self)
        if self.calibration_scores_ is None:
            raise ValueError(
                "There are no p-values without calibration rows: fit with calibration=0.2 or with "
                "a reject."
            )
        return self._p_values(*self._by_all_models(X))

    def _p_values(self, log_density, others):
        """Return p-values from what `_by_all_models` returns."""
        known = self.calibration_scores_ or ()
        if others is None:
            classes = zip(known, log_density.T, strict=True)
            return np.column_stack([Ranks.fit(own).p_values(scores) for own, scores in classes])
        own = zip(known, self.calibration_log_proba_ or (), strict=True)
        new = zip(log_density.T, self.classifiers_.for_p_values(others).T, strict=True)
        return np.column_stack([joint_p_values(*each) for each in zip(own, new, strict=True)])

    def predict_set(self, X: Table, coverage: float = 0.9) -> Flags:
        """Return which classes each row may belong to.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        coverage : float, default=0.9
            Probability that the set of a row contains its class, for the rows of each class alone.

        Returns
        -------
        sets : ndarray of bool of shape (n_samples, n_classes)
            Whether each class is in the set, in the order of `classes_`. A row unlike every class
            gets an empty set.
        """
        if not (isinstance(coverage, Real) and 0 < coverage < 1):
            raise ValueError(f"coverage={coverage!r}; it must be above 0 and below 1.")
        p_values = self.p_values(X)
        n = np.array([*map(len, self.calibration_scores_)])
        if n.min() < rows_needed(coverage):
            warn_user(
                f"Every set has the class with the fewest calibration rows, {n.min()}: "
                f"coverage={coverage:g} needs {rows_needed(coverage)} rows of each class."
            )
        # P-values above 1 - coverage, counted as by `ranks.level`: in floats, 1 - 0.9 < 0.1.
        n_excluded = n + 1 - np.ceil((n + 1) * coverage)
        return p_values * (n + 1) > n_excluded + 0.5

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimators_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # A shared density models the columns, which are numbers.
        is_open = self.estimator is None and not self.__sklearn_is_fitted__()
        density = default_table_density() if is_open else self._density
        if takes_tables(density) and not isinstance(density, ConditionalDensity):
            tags.input_tags = get_tags(density).input_tags
        return tags


def default_density():
    """Return the density that a classifier has unless another one is given."""
    return ConditionalDensity(NSFDensity(n_transforms=2, dropout=0.2, input_noise=0.1))


def default_table_density():
    """Return the density for tables with texts, dates or missing values."""
    return TableDensity(handle_unknown="rare")


@contextmanager
def no_more_warnings_of_names():
    """Ignore that parts of a classifier miss names of columns, of which it has warned itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        yield


def has_more_than_numbers(X):
    """Whether a table has columns or missing values that the default density cannot model."""
    if not hasattr(X, "columns"):
        values = np.asarray(X)
        if values.dtype.kind in "OUS":
            return any(isinstance(value, str) or is_missing(value) for value in values.ravel())
        return values.dtype.kind == "f" and bool(np.isnan(values).any())
    return any(
        column.role not in PLAIN or not column.known.all() for column in read_frame(X).columns
    )


def shortest(limits):
    """Return the shortest of some time limits, infinite if there are none."""
    return min((seconds for seconds in limits.values() if seconds is not None), default=math.inf)


def given_classes(density, X, n_classes, flows=None):
    """Return the log-density of each row given each of the classes, by some or all of the flows."""
    Y, source = density._checked_outputs(X), density._source(density._encoded(np.eye(n_classes)))
    source = source if flows is None else source.of(flows)
    return np.column_stack([source.log_density(Y, np.full(len(Y), k)) for k in range(n_classes)])


def log_proba_of(log_density, priors, temperature, prior_weight):
    """Return the log-probability of each class from the log-density of each row under each."""
    with np.errstate(divide="ignore"):
        log_priors = np.log(priors)
    log_density = np.where(priors > 0, log_density, -np.inf)
    greatest = log_density.max(axis=1, keepdims=True)
    # A row of density 0 under all classes carries no information about its class.
    has_density = np.isfinite(greatest)
    log_density = np.where(has_density, log_density, 0.0)
    joint = (log_density - np.where(has_density, greatest, 0.0)) / temperature + log_priors
    posterior = joint - logsumexp(joint, axis=1, keepdims=True)
    return mixed_with_priors(posterior, priors, prior_weight)


def mixed_with_priors(log_proba, priors, prior_weight):
    """Return log-probabilities of classes, mixed with their priors: 0 where the prior is."""
    with np.errstate(divide="ignore"):
        log_priors, log_weight = np.log(priors), np.log(prior_weight)
        log_proba = np.where(priors > 0, log_proba, -np.inf)
        return np.logaddexp(np.log1p(-prior_weight) + log_proba, log_weight + log_priors)


def temperature(log_density, label, priors, prior_weight, weight):
    """Return the temperature, of at least 1, with the least log-loss of rows of known classes.

    A penalty of one row's nat for each factor e keeps it at 1 where the classes are separable and
    the loss is the same at many temperatures.
    """

    def loss(log_temperature):
        log_posterior = log_proba_of(log_density, priors, np.exp(log_temperature), prior_weight)
        losses = -np.maximum(log_posterior[np.arange(len(label)), label], LEAST_LOG_PROBA)
        return np.average(losses, weights=weight) + log_temperature / len(label)

    return float(np.exp(minimize_scalar(loss, bounds=(0, np.log(HOTTEST)), method="bounded").x))


def discrete_gaps(X, alike):
    """Return the discrete columns among the complete columns of numbers, and their gaps."""
    columns = [X[name].to_numpy() for name in X.columns] if hasattr(X, "columns") else X.T
    columns = {
        j: column.astype(np.float64)
        for j, column in enumerate(columns)
        if column.dtype.kind in "biuf" and np.isfinite(column).all()
    }
    if not columns:
        return {}
    numbers = np.column_stack([*columns.values()])
    gaps = Dequantizer.for_parameter("auto", numbers, alike=alike).gaps()
    return {[*columns][j]: gap for j, gap in gaps.items()}


def set_columns(estimator, X, seed, weight, gaps, encoding=None):
    """Set in an estimator, or in those inside it, what all rows show about the columns.

    These are the kinds and levels for a density of tables, and `discrete` for others, if "auto".
    A density of tables learns only the names of categories from rows of weight 0, which calibrate.
    """
    from sklearn.pipeline import Pipeline  # takes long to import

    if is_frozen(estimator):
        return
    params = estimator.get_params() if hasattr(estimator, "get_params") else {}
    if hasattr(estimator, "_share_columns"):
        estimator._share_columns(X, np.random.RandomState(seed), weight, encoding, anew=True)
    elif "discrete" in params:
        if isinstance(params["discrete"], str):
            alike = row_shape(estimator) is not None
            estimator.set_params(discrete=gaps(alike))
    elif not isinstance(estimator, Pipeline):  # whose last step sees other columns
        for name, value in params.items():
            if "__" not in name:
                set_columns(value, X, seed, weight, gaps, encoding)
