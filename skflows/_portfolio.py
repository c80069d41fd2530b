"""The components that an automatic density chooses from, by the size of the table."""

from functools import partial

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.utils import check_random_state

from ._ensemble import Component
from .density import GaussianizationDensity, NSFDensity, TransformedDensity

N_COMPONENTS = (2, 4, 8, 16, 32, 64)
N_COMPONENTS_DIAGONAL = (8, 32)
ROWS_PER_COMPONENT = 10  # least number of rows for a component of a mixture
MIXTURE_ROWS = 50_000
BANDWIDTHS = np.geomspace(0.02, 2.5, 10).round(3)  # in standard deviations
KERNEL_ROWS = 12_000  # beyond, kernels take longer than flows and say less
# One leaf, hence sums over all rows: between the nodes of a tree, scikit-learn's bounds cancel,
# and scores of small bandwidths come out wrong by thousands of nats in 10 columns or more.
LEAF = 2**31 - 1


class StandardNormal(BaseEstimator):
    """A standard normal: what is left of a density once the map before it is fitted."""

    def fit(self, X, y=None, sample_weight=None):
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        return -0.5 * ((X**2).sum(axis=1) + X.shape[1] * np.log(2 * np.pi))

    def sample(self, n_samples=1, random_state=None):
        random_state = check_random_state(random_state)
        return random_state.standard_normal((n_samples, self.n_features_in_))


def portfolio(n, d, folds, weighted, data):
    """The components for ``n`` rows of ``d`` columns, the quick ones first.

    Flows are small where there are ``folds`` and large on a single split. A weighted fit has no
    Gaussian mixtures, which take no weights. ``data`` are parameters of all components.
    """
    on = partial(TransformedDensity, **data)
    components = [
        Component("gaussian", on(StandardNormal(), preprocessing="whiten"), True),
        Component("copula", on(StandardNormal(), preprocessing=("quantile", "whiten")), True),
    ]
    if not weighted and n <= MIXTURE_ROWS:
        components += mixtures(n, on, data["random_state"])
    if n <= KERNEL_ROWS:
        components += kernels(on)
    components.append(Component("gaussianization", GaussianizationDensity(**data), False))
    return components + flows(folds, data)


def mixtures(n, on, seed):
    def mixture(k, covariance_type="full", reg_covar=1e-4, preprocessing="standardize"):
        estimator = GaussianMixture(
            k, covariance_type=covariance_type, reg_covar=reg_covar, random_state=seed
        )
        return on(estimator, preprocessing=preprocessing)

    most = n // ROWS_PER_COMPONENT
    components = [
        Component(f"mixture of {k}", mixture(k), False) for k in N_COMPONENTS if k <= most
    ]
    components += [
        Component(f"diagonal mixture of {k}", mixture(k, "diag", 1e-3), False)
        for k in N_COMPONENTS_DIAGONAL
        if k <= most
    ]
    components += [
        Component(f"copula mixture of {k}", mixture(k, preprocessing="quantile"), False)
        for k in (2, 4, 8, 16)
        if k <= most
    ]
    return components


def kernels(on):
    return [
        # Models of the folds are parts of the model of all rows: an ensemble adds nothing.
        Component(
            f"{space} kernels of {h:g}",
            on(KernelDensity(bandwidth=h, leaf_size=LEAF), preprocessing=name),
            True,
        )
        for space, name in (("axis", "standardize"), ("whitened", "whiten"))
        for h in BANDWIDTHS
    ]


def flows(folds, data):
    small = {"n_transforms": 3, "dropout": 0.2, "batch_size": 128}
    shape = small if folds else {}
    return [
        Component(f"{name} spline flow", NSFDensity(**shape, preprocessing=maps, **data), False)
        for name, maps in (
            ("axis", "standardize"),
            ("whitened", "whiten"),
            ("quantile", "quantile"),
            ("copula", ("quantile", "whiten")),
        )
    ]
