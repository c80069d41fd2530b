"""The components that an automatic density chooses from, by the size of the table."""

import math
from functools import partial

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state

from ._components import Component
from ._kernels import GaussianKernels
from .density import GaussianizationDensity, NSFDensity, TransformedDensity
from .density._discrete import N_DRAWS
from .density._run import automatic_batch_size

KERNEL_ROWS = 12_000  # scores of a row; beyond, kernels take longer than flows and say less
LAYERED_ROWS = 20_000
MIXTURE_WORK = 2e9  # products in a step of EM: beyond, a mixture takes longer than a flow
# Few components miss the best of their optima often, and to start again is cheap there. The
# models of folds make up for one another, unless they have few rows.
RESTARTED_COMPONENTS = 8
RESTARTED_WORK = 1e7
RESTARTED_ROWS = 500  # with folds
N_RESTARTS = {True: 4, False: 8}  # with folds, without
N_COMPONENTS = (2, 4, 8, 16, 32, 64)  # of mixtures with full covariances
N_DIAGONAL_COMPONENTS = (8, 32)
# In standard deviations, the likeliest first: there may not be time for all.
BANDWIDTHS = (0.41, 0.7, 0.24, 1.18, 0.14, 2.0, 0.08, 0.05)
SPACES = {
    "axis": "standardize",
    "whitened": "whiten",
    "quantile": "quantile",
    "copula": ("quantile", "whiten"),
}
MOST_STEPS = 10_000  # of a large flow, unless that is less than the first number of
EPOCHS = (20, 100)


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
    """The components for ``n`` rows of ``d`` columns, about in the order of the time they take.

    Flows are small where there are ``folds`` and large on a single split. A weighted fit has no
    Gaussian mixtures, which take no weights. ``data`` are parameters of all components.
    """
    data = data | {"contamination": None}  # the mixture has a threshold, its members need none
    on = partial(TransformedDensity, **data)
    components = [
        Component("gaussian", on(StandardNormal(), preprocessing="whiten"), True),
        Component("copula", on(StandardNormal(), preprocessing=SPACES["copula"]), True),
    ]
    on_rows = kernels(on) if n * (N_DRAWS if data.get("discrete") else 1) <= KERNEL_ROWS else []
    if folds:  # few rows: a matter of milliseconds
        components += on_rows
    if n <= LAYERED_ROWS:
        few = {"max_iter": 20, "n_iter_no_change": 3}  # the first layers say most
        layers = GaussianizationDensity(**few, **data)
        components.append(Component("gaussianization", layers, False))
    if not weighted:
        components += mixtures(n, d, folds, on, data["random_state"])
    return components + (small_flows(data) if folds else [*on_rows, *large_flows(n, data)])


def mixtures(n, d, folds, on, seed):
    def mixture(k, **params):
        cheap = n <= RESTARTED_ROWS if folds else n * k * d**2 <= RESTARTED_WORK
        n_init = N_RESTARTS[folds] if cheap and k <= RESTARTED_COMPONENTS else 1
        return GaussianMixture(k, n_init=n_init, random_state=seed, **params)

    components = [
        Component(
            f"{space} mixture of {k}",
            on(mixture(k, reg_covar=1e-4), preprocessing=SPACES[space]),
            False,
        )
        for k in N_COMPONENTS
        for space in ("quantile", "axis")
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
            on(GaussianKernels(h), preprocessing=SPACES[space]),
            True,
        )
        for h in BANDWIDTHS
        for space in ("axis", "whitened", "copula")
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


def large_flows(n, data):
    n_steps = math.ceil(n / automatic_batch_size(n))  # of an epoch
    data = data | {"max_iter": int(np.clip(MOST_STEPS // n_steps, *EPOCHS))}
    coupling = NSFDensity(
        n_transforms=4, autoregressive=False, preprocessing=SPACES["quantile"], **data
    )
    return [
        *(flow(space, **data) for space in ("quantile", "whitened", "copula")),
        Component("quantile coupling flow", coupling, False),
    ]
