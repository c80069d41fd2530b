"""Several outlier detectors whose scores are merged through their p-values."""

import math
from functools import partial
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from ..calibration.ranks import Ranks
from ..calibration.tails import Tails, bulk_of
from ..calibration.thresholds import lower_fence
from ..callbacks._run import fit_task, random_state_of
from ..callbacks._support import CallbackSupportMixin
from ..columns.types import Floats, Table
from ..density import AdaptiveKernelDensity
from ..density._outlier_labels import OutlierLabelsMixin
from ..density._third_party import fit_subtask, is_frozen, was_interrupted
from ..ensemble._folds import N_FOLDS, make_folds
from ..ensemble._stacked import NamedEstimators, clone_with_seeds
from ..preprocessing.validation import weighted_rows
from ..training.threads import fit_context
from ._statistics import held_out_values, log_pool

# Neighbours of a kernel: few follow the inliers closely, but outliers that lie together are then
# dense too.
FEW_NEIGHBORS, MANY_NEIGHBORS = 5, (10, 50)
MIN_BINS = 5
MAX_QUANTILES = 1000  # of a column's ranks
ALL_QUANTILES = 100_000  # of all columns: in wide tables they take longer than the kernels
COLUMNS_PER_ROW = 0.5  # from which a table is wide
PRIOR = 0.5  # added to the count of each bin
ROWS_AT_ONCE = 5_000


class OutlierEnsemble(OutlierLabelsMixin, CallbackSupportMixin, NamedEstimators):
    """Outlier detectors whose scores are merged through their p-values.

    Distances in standardised, robustly scaled and rank-transformed columns each find different
    outliers, and without labels nothing shows which are right. Here each detector gives a row a
    p-value, by the rank of its score among the scores of rows that it has not seen. The score of
    the ensemble is the logarithm of the harmonic mean of these p-values, which is low where one
    detector is sure that a row is odd, and lower where several are.

    Parameters
    ----------
    estimators : list of (str, estimator), default=None
        Named estimators with `fit` and `score_samples`, which is higher for inliers: densities,
        scikit-learn's outlier detectors (`LocalOutlierFactor` with ``novelty=True``), or pipelines
        that end with one. None is four quick ones: an `AdaptiveKernelDensity` on standardised
        columns, on robustly scaled ones and on ranks, and histograms of the single columns. In
        wide tables (a column for every two rows, or more), these four have half of the weight. The
        other half has a Gaussian with a shrunk covariance, on the columns as they are.

    contaminated : bool, default=False
        Whether the rows of `fit` contain outliers. P-values then come from gamma distributions that
        fit the more normal three quarters of the rows, in place of ranks. The default kernels are
        as wide as the distance to the 50th neighbour in place of the 5th (for n < 1,000 rows, to
        neighbour n / 20, at least the 10th), so that a group of outliers does not hide itself.

    random_state : int, RandomState instance or None, default=None
        Seeds the folds, and the estimators that have no seed of their own.

    Attributes
    ----------
    estimators_ : list of estimator
        The fitted estimators.

    held_out_scores_ : ndarray of shape (n_samples,)
        Merged score of each row of `fit`, from scores of models that have not seen it: those that
        an estimator keeps (`AdaptiveKernelDensity` leaves each row out), otherwise of 5 folds.

    offset_ : float
        Score below which `predict` labels a row an outlier: the lower Tukey fence of the held-out
        scores, Q1 - 1.5 (Q3 - Q1). `DensityOutlierDetector` has other thresholds.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    References
    ----------
    Wilson, "The harmonic mean p-value for combining dependent tests", 2019.

    Vovk & Wang, "Combining p-values via averaging", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows.outlier import OutlierEnsemble
    >>> X = np.random.default_rng(0).standard_normal((300, 2))
    >>> OutlierEnsemble(random_state=0).fit(X).predict([[0.0, 0.0], [6.0, 0.0]])
    array([ 1, -1])
    """

    _parameter_constraints: dict = {
        "estimators": [list, None],
        "contaminated": ["boolean"],
        "random_state": ["random_state"],
    }

    _held_out_scores = "leave-one-out"

    def __init__(self, estimators=None, *, contaminated=False, random_state=None):
        self.estimators = estimators
        self.contaminated = contaminated
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: object = None) -> Self:
        """Fit the estimators, and rank the rows by models that have not seen them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least two.

        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        rows, _, _ = weighted_rows(self, X, None, least=2)
        random_state = random_state_of(self)
        seed = random_state.randint(2**31 - 1)
        named = self._checked_members(*rows.shape)
        with fit_task(self, X, y, max_subtasks=None, what="fits") as task:
            fit = partial(fit_subtask, task)
            self.estimators_, self._nulls, log_p = [], [], []
            for _, estimator in named:
                estimator = clone_with_seeds(estimator, random_state)
                scores = scores_of_unseen(fit(estimator, rows), rows, seed, fit)
                self.estimators_.append(estimator)
                self._nulls.append(null_of(scores, self.contaminated))
                log_p.append(self._nulls[-1].log_p(scores, is_own=True))
            self._interrupted = any(was_interrupted(estimator) for estimator in self.estimators_)
            self.held_out_scores_ = log_harmonic_mean(log_p)
            known = self.held_out_scores_[~np.isnan(self.held_out_scores_)]
            self.offset_ = lower_fence(known, np.ones(len(known)))
        return self

    def _checked_members(self, n, d):
        if self.estimators is None:
            return default_estimators(n, d, self.contaminated)
        self._check_named()
        return self.estimators

    def _score_rows(self, X):
        starts = range(0, len(X), ROWS_AT_ONCE)  # each member copies the rows
        return np.concatenate([self._merged_scores(X[i : i + ROWS_AT_ONCE]) for i in starts])

    def _merged_scores(self, X):
        log_p = []
        for member, null in zip(self.estimators_, self._nulls, strict=True):
            scores = log_pool(member, X, None)
            # NaN is a difference of infinities.
            log_p.append(null.log_p(np.where(np.isnan(scores), -np.inf, scores)))
        return log_harmonic_mean(log_p)

    def score_samples(self, X: Table) -> Floats:
        """Return the merged score of each row: the lower, the more abnormal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Logarithm of the harmonic mean of the p-values by the estimators, at most 0.
        """
        return super().score_samples(X)


def log_harmonic_mean(log_p):
    """Return the logarithm of the harmonic mean of p-values, from their logarithms."""
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.log(len(log_p)) - np.logaddexp.reduce(-np.array(log_p), axis=0)


def null_of(scores, contaminated):
    """Return what turns the scores of an estimator into logarithms of p-values.

    Among rows with outliers, ranks say how many rows are as odd, not whether that is surprising.
    """
    known = scores[~np.isnan(scores)]
    has_tails = contaminated and np.ptp(bulk_of(known)) > 0
    return (Tails if has_tails else Ranks).fit(known)


class ColumnHistograms(BaseEstimator):
    """Independent columns: a histogram of each, with bins of equal width."""

    def fit(self, X, y=None):
        self.n_samples_ = len(X)
        self.n_bins_ = max(MIN_BINS, math.ceil(2 * self.n_samples_ ** (1 / 3)))
        self.low_, self.high_ = X.min(axis=0), X.max(axis=0)
        bins = self._bins(X)
        self.counts_ = np.apply_along_axis(np.bincount, 0, bins, minlength=self.n_bins_ + 2)
        self.held_out_scores_ = self._log_shares(bins, 1)
        return self

    def score_samples(self, X):
        return self._log_shares(self._bins(X), 0)

    def _bins(self, X):
        """Return the bin of each value: the first and the last are beyond the known values."""
        width = (self.high_ - self.low_) / self.n_bins_
        steps = (X - self.low_) / np.where(width > 0, width, 1.0)
        inside = 1 + np.clip(steps, 0, self.n_bins_ - 1).astype(int)
        return np.where(X < self.low_, 0, np.where(X > self.high_, self.n_bins_ + 1, inside))

    def _log_shares(self, bins, n_left_out):
        counts = np.take_along_axis(self.counts_, bins, axis=0) - n_left_out
        total = self.n_samples_ - n_left_out + PRIOR * self.n_bins_
        return np.log((counts + PRIOR) / total).sum(axis=1)


class ShrunkGaussian(BaseEstimator):
    """A normal whose covariance is shrunk to a multiple of the identity (Ledoit & Wolf, 2004).

    As scikit-learn's `LedoitWolf`, but for fewer rows than columns: the covariance is never formed.
    """

    def fit(self, X, y=None):
        from sklearn.covariance import ledoit_wolf_shrinkage  # takes long to import

        self.mean_ = X.mean(axis=0)
        self.scale_ = np.abs(X - self.mean_).max() or 1.0  # of all columns: squares stay finite
        rows = (X - self.mean_) / self.scale_
        shrinkage = ledoit_wolf_shrinkage(rows, assume_centered=True)
        _, scales, self.axes_ = np.linalg.svd(rows, full_matrices=False)
        variances = scales**2 / len(rows)
        self.floor_ = max(
            shrinkage * variances.sum() / rows.shape[1], np.finfo(np.float64).eps ** 2
        )
        self.variances_ = (1 - shrinkage) * variances + self.floor_
        return self

    def score_samples(self, X):
        rows = (X - self.mean_) / self.scale_
        along = (rows @ self.axes_.T) ** 2
        across = np.maximum((rows**2).sum(axis=1) - along.sum(axis=1), 0.0)
        return -(along / self.variances_).sum(axis=1) - across / self.floor_


def default_estimators(n, d, contaminated):
    """Return the named estimators of an ensemble that is given none, for ``n`` rows of ``d``."""
    views = default_views(n, d, contaminated)
    if d < COLUMNS_PER_ROW * n:
        return views
    # One vote against one: the views all depend on distances in which most columns are noise.
    return [
        ("views", OutlierEnsemble(views, contaminated=contaminated)),
        ("gaussian", ShrunkGaussian()),
    ]


def default_views(n, d, contaminated):
    """Return kernels on columns that are prepared in three ways, and histograms of the columns."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer, RobustScaler, StandardScaler

    kernels = AdaptiveKernelDensity(
        n_neighbors=int(np.clip(n // 20, *MANY_NEIGHBORS)) if contaminated else FEW_NEIGHBORS,
        preprocessing=(),
        discrete=None,
        contamination=None,
    )
    n_quantiles = min(n, MAX_QUANTILES, max(2, ALL_QUANTILES // d))
    return [
        ("standardized", make_pipeline(StandardScaler(), kernels)),
        ("robust", make_pipeline(RobustScaler(), kernels)),
        ("ranks", make_pipeline(QuantileTransformer(n_quantiles=n_quantiles), kernels)),
        ("columns", ColumnHistograms()),
    ]


def scores_of_unseen(estimator, X, seed, fit):
    """Return the score of each row of `fit` by a model that has not seen it.

    These are the scores that an estimator keeps, or scores by models of the other folds.
    """
    if is_frozen(estimator):  # what it keeps belongs to other rows
        return log_pool(estimator, X, None)
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    scores = held_out_values("log_pool", last)
    if scores is not None:
        return scores
    scores = np.empty(len(X))
    for train, held_out in make_folds(N_FOLDS, len(X), seed):
        model = fit(clone(estimator), X[train])
        scores[held_out] = log_pool(model, X[held_out], None)
    return scores
