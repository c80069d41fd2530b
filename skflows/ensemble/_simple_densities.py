"""Simple densities of transformed rows: a standard normal, and Gaussian kernels."""

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from ..bijections._normal import normal_log_density
from ..density._adaptive_kernel import VALUES_PER_CHUNK, log_sum_exp


class StandardNormal(BaseEstimator):
    """A standard normal, which has nothing to fit."""

    def fit(self, X, y=None, sample_weight=None):
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        return normal_log_density(X).sum(axis=1)

    def normals(self):
        """Return weights, means and roots of precisions, as `MappedNormals` takes them."""
        d = self.n_features_in_
        return np.ones(1), np.zeros((1, d)), np.ones((1, d))

    def sample(self, n_samples=1, random_state=None):
        random_state = check_random_state(random_state)
        return random_state.standard_normal((n_samples, self.n_features_in_))


class GaussianKernels(BaseEstimator):
    """A normal of width ``bandwidth`` around each row.

    scikit-learn's `KernelDensity` bounds the contribution of a tree's nodes, and its bounds cancel:
    narrow kernels in 10 columns or more give scores that are wrong by thousands of nats, unless the
    tree is a single leaf, which takes several times as long as computing all distances.

    References
    ----------
    Parzen, "On Estimation of a Probability Density Function and Mode", 1962.
    """

    def __init__(self, bandwidth=1.0):
        self.bandwidth = bandwidth

    def fit(self, X, y=None, sample_weight=None):
        self.rows_ = X
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        self.shares_ = weight / weight.sum()
        return self

    def score_samples(self, X):
        d = X.shape[1]
        log_share, log_peak = np.log(self.shares_), -d * np.log(self.bandwidth * np.sqrt(2 * np.pi))
        size = max(1, VALUES_PER_CHUNK // len(self.rows_))
        chunks = [X[start : start + size] for start in range(0, len(X), size)]
        scores = []
        for rows in chunks:
            log_density = cdist(rows, self.rows_, "sqeuclidean")
            log_density *= -0.5 / self.bandwidth**2
            log_density += log_share
            scores.append(log_sum_exp(log_density) + log_peak)
        return np.concatenate(scores)

    def normals(self):
        """Return weights, means and roots of precisions, as `MappedNormals` takes them."""
        return self.shares_, self.rows_, np.full(self.rows_.shape, 1 / self.bandwidth)

    def sample(self, n_samples=1, random_state=None):
        random_state = check_random_state(random_state)
        centres = self.rows_[random_state.choice(len(self.rows_), n_samples, p=self.shares_)]
        return centres + self.bandwidth * random_state.standard_normal(centres.shape)
