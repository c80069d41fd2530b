"""The components that an automatic density chooses from, by the size of the table."""

from functools import partial

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.utils import check_random_state

from ._components import Component
from .density import GaussianizationDensity, NSFDensity, TransformedDensity

KERNEL_ROWS = 12_000  # beyond, kernels take longer than flows and say less
LAYERED_ROWS = 50_000
MIXTURE_WORK = 2e9  # products in a step of EM: beyond, a mixture takes longer than a flow
# Few components miss the best of their optima often, and to start again is cheap there. The
# models of folds make up for one another.
RESTARTED_COMPONENTS = 8
RESTARTED_WORK = 1e7
N_RESTARTS = {True: 4, False: 8}  # with folds, without
N_COMPONENTS = (2, 4, 8, 16, 32, 64)  # of mixtures with full covariances
N_DIAGONAL_COMPONENTS = (8, 32)
BANDWIDTHS = np.geomspace(0.05, 2, 8).round(2)  # in standard deviations
SPACES = {
    "axis": "standardize",
    "whitened": "whiten",
    "quantile": "quantile",
    "copula": ("quantile", "whiten"),
}
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
        Component("copula", on(StandardNormal(), preprocessing=SPACES["copula"]), True),
    ]
    if n <= KERNEL_ROWS:
        components += kernels(on)
    if not weighted:
        components += mixtures(n, d, folds, on, data["random_state"])
    if n <= LAYERED_ROWS:
        few = {"max_iter": 20, "n_iter_no_change": 3}  # the first layers say most
        layers = GaussianizationDensity(**few, **data)
        components.append(Component("gaussianization", layers, False))
    return components + (small_flows(data) if folds else large_flows(data))


def mixtures(n, d, folds, on, seed):
    def mixture(k, **params):
        again = k <= RESTARTED_COMPONENTS and n * k * d**2 <= RESTARTED_WORK
        n_init = N_RESTARTS[folds] if again else 1
        return GaussianMixture(k, n_init=n_init, random_state=seed, **params)

    components = [
        Component(
            f"{space} mixture of {k}",
            on(mixture(k, reg_covar=1e-4), preprocessing=SPACES[space]),
            False,
        )
        for space in ("axis", "quantile")
        for k in N_COMPONENTS
        if k * d <= n / 2 and n * k * d**2 <= MIXTURE_WORK
    ]
    return components + [
        Component(
            f"diagonal mixture of {k}",
            on(mixture(k, covariance_type="diag", reg_covar=1e-3)),
            False,
        )
        for k in N_DIAGONAL_COMPONENTS
        if 5 * k <= n / 2 and n * k * d <= MIXTURE_WORK
    ]


def kernels(on):
    return [
        # Models of the folds are parts of the model of all rows: an ensemble adds nothing.
        Component(
            f"{space} kernels of {h:g}",
            on(KernelDensity(bandwidth=h, leaf_size=LEAF), preprocessing=SPACES[space]),
            True,
        )
        for space in ("axis", "whitened", "copula")
        for h in BANDWIDTHS
    ]


def flow(space, **params):
    return Component(
        f"{space} spline flow", NSFDensity(preprocessing=SPACES[space], **params), False
    )


def small_flows(data):
    """Few parameters, much dropout and small batches: for folds, which train together."""
    shape = {
        "n_transforms": 3,
        "dropout": 0.3,
        "batch_size": 128,
        "learning_rate_init": 6e-3,
        "max_iter": 60,
    }
    return [flow(space, **shape, **data) for space in ("quantile", "whitened")]


def large_flows(data):
    coupling = NSFDensity(
        n_transforms=4, autoregressive=False, preprocessing=SPACES["quantile"], **data
    )
    return [
        *(flow(space, **data) for space in ("quantile", "whitened", "copula")),
        Component("quantile coupling flow", coupling, False),
    ]
