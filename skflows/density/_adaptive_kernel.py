"""Gaussian kernels, each as wide as the distance to its neighbours."""

from numbers import Integral
from typing import Self

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from ..callbacks._run import random_state_of
from ..columns.types import Floats, RandomState, Table, Weights
from ..preprocessing.sklearn_compat import Interval, StrOptions
from ..preprocessing.validation import uneven
from . import _docstrings
from ._base import BaseFlowDensity
from ._transformed import TransformedDensity

N_NEIGHBORS = (2, 5, 10, 20, 50)  # tried by "auto"
# Narrower kernels would be spikes on rows that nearly coincide, and lose digits.
MIN_WIDTH = 0.01  # of the median width
TINY = 1e-100  # where even the median is 0
MAX_CANCELLATION = 1e7  # then exponents are exact to about 1e-9
ROUNDING = 1e-12  # of sums of weights
LEAST_SUM = 1e-290  # of exponentials; below, too many of them have vanished
VALUES_PER_CHUNK = 2**18  # kernel values at once


def log_sum_exp(exponents):
    """Return the logarithm of the sum of exponentials in each row.

    The exponents should not exceed 0 by much. Then only rows that lie far from all kernels need the
    largest exponent to be subtracted, which takes as long as the exponentials.
    """
    sums = np.exp(exponents).sum(axis=1)
    is_far = sums < LEAST_SUM
    with np.errstate(divide="ignore"):
        logs = np.log(sums)
    if is_far.any():
        logs[is_far] = logsumexp(exponents[is_far], axis=1)
    return logs


class AdaptiveKernels(BaseEstimator):
    """The kernels of an `AdaptiveKernelDensity`, on prepared columns."""

    def __init__(self, n_neighbors="auto", max_centers=2000, random_state=None):
        self.n_neighbors = n_neighbors
        self.max_centers = max_centers
        self.random_state = random_state

    def fit(self, X: Table, y: object = None, sample_weight: Weights = None) -> Self:
        X = np.asarray(X)
        weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight)
        if len(X) > self.max_centers:
            weight = np.bincount(self._drawn(weight), minlength=len(X)).astype(float)
        chosen = np.flatnonzero(weight)
        # Equal rows share a kernel: otherwise their widths would be 0.
        self.centers_, number = np.unique(X[chosen], axis=0, return_inverse=True)
        self.weights_ = np.bincount(number.ravel(), weight[chosen])
        center = np.full(len(X), -1)  # of a row that was not chosen
        center[chosen] = number.ravel()
        self._set_widths(X[chosen], weight[chosen], center[chosen])
        self.held_out_scores_ = self._leave_one_out(X, center, weight)
        return self

    def _drawn(self, weight):
        """Return the indices of `max_centers` rows, repeated in proportion to uneven weights."""
        random_state = random_state_of(self)
        if uneven(weight) is None:
            return random_state.permutation(len(weight))[: self.max_centers]
        # Equal steps along the cumulative weights vary less than independent draws.
        total = np.cumsum(weight)
        steps = (np.arange(self.max_centers) + random_state.uniform()) / self.max_centers
        return np.searchsorted(total / total[-1], steps, side="right")

    def _set_widths(self, X, weight, center):
        """Set `n_neighbors_` and `widths_`, by the likelihood of the rows if k is not given."""
        from sklearn.neighbors import NearestNeighbors  # takes long to import

        n_others = len(self.centers_) - 1
        candidates = N_NEIGHBORS if self.n_neighbors == "auto" else [self.n_neighbors]
        candidates = sorted({max(1, min(k, n_others // 2)) for k in candidates})
        distances = np.ones((1, 1))  # a single centre has no neighbour
        if n_others:
            centred = self.centers_ - self.centers_.mean(axis=0)  # large values lose digits
            search = NearestNeighbors(n_neighbors=candidates[-1]).fit(centred)
            distances = search.kneighbors()[0]
        tried = []
        for k in candidates:
            widths = distances[:, k - 1] / np.sqrt(X.shape[1])
            self.widths_ = np.maximum(widths, max(MIN_WIDTH * np.median(widths), TINY))
            score = 0.0
            if len(candidates) > 1:
                score = np.average(self._leave_one_out(X, center, weight), weights=weight)
            tried.append((score, k, self.widths_))
        _, self.n_neighbors_, self.widths_ = max(tried, key=lambda each: each[:2])

    def _leave_one_out(self, X, center, weight):
        """Return the log-density of each row without itself, but with rows that are equal to it."""
        others = np.maximum(self.weights_[center] - weight, 0)
        own_weight = np.where((center < 0) | (others < ROUNDING), 0, others)
        return self._log_density(X, center, own_weight)

    def score_samples(self, X: Table) -> Floats:
        return self._log_density(X)

    def normals(self) -> tuple[Floats, Floats, Floats]:
        """Return weights, means and roots of precisions, as `MappedNormals` takes them."""
        d = self.centers_.shape[1]
        roots = np.repeat(1 / self.widths_[:, None], d, axis=1)
        return self.weights_ / self.weights_.sum(), self.centers_, roots

    def _log_density(self, X, center=None, own_weight=None):
        """Return the log-density of rows; the kernel of a row's own centre has another weight."""
        d = X.shape[1]
        mean = self.centers_.mean(axis=0)
        centers, precision = self.centers_ - mean, 1 / self.widths_**2
        squares = (centers**2).sum(axis=1)
        peak = -d * np.log(self.widths_ * np.sqrt(2 * np.pi))
        log_peaks = peak + np.log(self.weights_)
        highest = log_peaks.max()
        log_peaks, peak = log_peaks - highest, peak - highest
        # One product gives all exponents, precision * (x @ c - (x @ x + c @ c) / 2) + log_peaks.
        # It loses digits where kernels are narrow and far from the mean.
        loses_digits = (precision * squares).max() > MAX_CANCELLATION
        factors = np.vstack(
            [precision * centers.T, -precision / 2, log_peaks - precision / 2 * squares]
        )
        total = np.full(len(X), self.weights_.sum())
        if center is not None:
            total += np.where(center < 0, 0, own_weight - self.weights_[center])
        scores = np.empty(len(X))
        size = max(1, VALUES_PER_CHUNK // len(centers))
        for start in range(0, len(X), size):
            part = slice(start, start + size)
            rows = X[part] - mean
            if loses_digits:
                exponents = log_peaks - precision / 2 * cdist(rows, centers, "sqeuclidean")
            else:
                exponents = (
                    np.column_stack([rows, (rows**2).sum(axis=1), np.ones(len(rows))]) @ factors
                )
            if center is not None:
                centred = np.flatnonzero(center[part] >= 0)
                number = center[part][centred]
                with np.errstate(divide="ignore"):  # a weight of 0 leaves the kernel out
                    exponents[centred, number] = peak[number] + np.log(own_weight[part][centred])
            scores[part] = log_sum_exp(exponents) + highest
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(total > 0, scores - np.log(total), -np.inf)

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> Floats:
        rng = check_random_state(random_state)
        share = self.weights_ / self.weights_.sum()
        number = rng.choice(len(share), n_samples, p=share)
        noise = rng.standard_normal((n_samples, self.centers_.shape[1]))
        return self.centers_[number] + self.widths_[number, None] * noise


class AdaptiveKernelDensity(TransformedDensity):
    __doc__ = _docstrings.fill("""Kernel density with a width of its own for each kernel.

    There is a normal around each row, or around each of a sample of the rows. Its standard
    deviation is the distance to the k-th nearest other row, divided by the square root of the
    number of columns: narrow where rows are dense, wide where they are sparse. Scores rank rows
    much as the distances to their neighbours do, but they are log-densities.

    Parameters
    ----------
    n_neighbors : int or "auto", default="auto"
        The k, at most half the number of kernels. "auto" takes the one of 2, 5, 10, 20 and 50 with
        the best leave-one-out likelihood. To rank outliers, about 5 are best if the rows of `fit`
        have none, and 50 if they do.

    preprocessing : {"quantile", "standardize", "whiten"} or sequence of them, default="whiten"
        Fixed transforms of the columns, as in `TransformedDensity`, in whose units distances are
        measured; they are part of the density.

    {data}

    max_centers : int, default=2000
        Largest number of kernels, on a random sample of the rows, drawn in proportion to their
        weights. The time and memory of a score are proportional to it.

    {contamination}

    random_state : int, RandomState instance or None, default=None
        Seeds the choice of the centres and the noise on discrete columns.

    Attributes
    ----------
    estimator_ : estimator
        The kernels, on prepared columns: ``centers_``, ``widths_``, ``weights_`` and
        ``n_neighbors_``.

    preprocessor_ : torch.nn.Module
        The map that prepares the columns.

    held_out_scores_ : ndarray of shape (n_samples,)
        Log-density of each row of `fit` without its own kernel, NaN for rows of weight 0. In
        discrete columns it is that at a random point of the row's cell.

    discrete_ : dict
        The discrete columns, by name or else by index, and the distance between their values.

    offset_ : float
        Log-density below which `predict` labels a row an outlier.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    References
    ----------
    Breiman, Meisel & Purcell, "Variable Kernel Estimates of Multivariate Densities", 1977.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import AdaptiveKernelDensity
    >>> X = load_iris().data
    >>> density = AdaptiveKernelDensity(random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """)

    _parameter_constraints: dict = {
        "n_neighbors": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_centers": [Interval(Integral, 2, None, closed="left")],
        **{
            name: BaseFlowDensity._parameter_constraints[name]
            for name in ("preprocessing", "bounds", "discrete", "contamination", "random_state")
        },
    }

    def __init__(
        self,
        *,
        n_neighbors="auto",
        preprocessing="whiten",
        bounds=None,
        discrete="auto",
        max_centers=2000,
        contamination="auto",
        random_state=None,
    ):
        self.n_neighbors = n_neighbors
        self.preprocessing = preprocessing
        self.bounds = bounds
        self.discrete = discrete
        self.max_centers = max_centers
        self.contamination = contamination
        self.random_state = random_state

    _held_out_scores = "leave-one-out"

    @property
    def estimator(self) -> BaseEstimator:
        """The kernels, not fitted."""
        return AdaptiveKernels(self.n_neighbors, self.max_centers, self.random_state)
