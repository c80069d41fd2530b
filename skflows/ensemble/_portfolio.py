"""The components of an automatic density, by the size of the table."""

import math

import numpy as np
from sklearn.mixture import GaussianMixture

from ..density import GaussianizationDensity, NSFDensity, TransformedDensity
from ..density._adaptive_kernel import AdaptiveKernels
from ..preprocessing.dequantizer import N_POINTS
from ..training.flow_fit import automatic_batch_size
from ._race import Component
from ._simple_densities import GaussianKernels, StandardNormal

KERNEL_ROWS = 12_000  # scores per row; beyond, kernels take longer than flows and contribute less
LAYERED_ROWS = 20_000
MIXTURE_WORK = 2e9  # products per EM step; beyond, a mixture takes longer than a flow
# Mixtures of few components often miss their best optimum, and restarts are cheap. Models of
# several folds compensate for one another, unless there are few rows.
RESTARTED_COMPONENTS = 8
RESTARTED_WORK = 1e7
RESTARTED_ROWS = 500  # with folds
N_RESTARTS = {True: 4, False: 8}  # with folds, without
N_COMPONENTS = (2, 4, 8, 16, 32, 64)  # of mixtures with full covariances
N_DIAGONAL_COMPONENTS = (8, 32)
# In standard deviations, the most likely first, because time may run out.
BANDWIDTHS = (0.41, 0.7, 0.24, 1.18, 0.14, 2.0, 0.08, 0.05)
SPACES = {
    "axis": "standardize",
    "whitened": "whiten",
    "quantile": "quantile",
    "copula": ("quantile", "whiten"),
}
MAX_STEPS = 10_000  # of a large flow, within the following numbers of epochs
EPOCHS = (20, 100)


def portfolio(n, d, folds, weighted, data):
    """Return the components for ``n`` rows of ``d`` columns, roughly by increasing time.

    Parameters
    ----------
    n, d : int
        Numbers of rows and columns.
    folds : bool
        Whether there are several splits: flows are small then, and large on a single split.
    weighted : bool
        Whether rows have weights, which Gaussian mixtures do not take: they are left out.
    data : dict
        Parameters of all components.
    """
    data = data | {"contamination": None}  # the mixture has a threshold, its members need none

    def on(estimator, preprocessing):
        return TransformedDensity(estimator, preprocessing=preprocessing, **data)

    components = [
        Component("gaussian", on(StandardNormal(), preprocessing="whiten"), refit=True),
        Component("copula", on(StandardNormal(), preprocessing=SPACES["copula"]), refit=True),
    ]
    n_scores = n * (N_POINTS if data.get("discrete") else 1)
    kernel_components = kernels(on) if n_scores <= KERNEL_ROWS else []
    if folds:  # few rows: kernels take milliseconds
        components += kernel_components
    if n <= LAYERED_ROWS:
        few = {"max_iter": 20, "n_iter_no_change": 3}  # the first layers matter most
        layers = GaussianizationDensity(**few, **data)
        components.append(Component("gaussianization", layers))
    if not weighted:
        components += mixtures(n, d, folds, on, data["random_state"])
    if folds:
        return components + small_flows(data)
    return components + kernel_components + large_flows(n, data)


def mixtures(n, d, folds, on, seed):
    def mixture(k, **params):
        is_cheap = n <= RESTARTED_ROWS if folds else n * k * d**2 <= RESTARTED_WORK
        n_init = N_RESTARTS[folds] if is_cheap and k <= RESTARTED_COMPONENTS else 1
        return GaussianMixture(k, n_init=n_init, random_state=seed, **params)

    components = [
        Component(
            f"{space} mixture of {k}",
            on(mixture(k, reg_covar=1e-4), preprocessing=SPACES[space]),
        )
        for k in N_COMPONENTS
        for space in ("quantile", "axis")
        if k * d <= n / 2 and n * k * d**2 <= MIXTURE_WORK
    ]
    return components + [
        Component(
            f"diagonal mixture of {k}",
            on(mixture(k, covariance_type="diag", reg_covar=1e-3), preprocessing=SPACES["axis"]),
        )
        for k in N_DIAGONAL_COMPONENTS
        if 5 * k <= n / 2 and n * k * d <= MIXTURE_WORK
    ]


def kernels(on):
    # Models of the folds are parts of the model of all rows: keeping them adds nothing.
    adaptive = on(AdaptiveKernels(max_centers=KERNEL_ROWS), preprocessing=SPACES["whitened"])
    return [Component("whitened adaptive kernels", adaptive, refit=True)] + [
        Component(
            f"{space} kernels of {h:g}",
            on(GaussianKernels(h), preprocessing=SPACES[space]),
            refit=True,
        )
        for h in BANDWIDTHS
        for space in ("axis", "whitened", "copula")
    ]


def flow(space, **params):
    estimator = NSFDensity(preprocessing=SPACES[space], **params)
    return Component(f"{space} spline flow", estimator, is_trained=True)


def small_flows(data):
    """Few parameters, much dropout and small batches: for folds, which train together.

    On the columns as they are, a flow can follow frequent values and exact sums. It needs more
    transforms and less dropout for them, and other components are better elsewhere.
    """
    shape = {"batch_size": 128, "learning_rate_init": 6e-3, "max_iter": 60}
    return [
        flow("quantile", n_transforms=5, dropout=0.1, **shape, **data),
        flow("whitened", n_transforms=3, dropout=0.3, **shape, **data),
    ]


def large_flows(n, data):
    n_steps = math.ceil(n / automatic_batch_size(n))  # of an epoch
    data = data | {"max_iter": int(np.clip(MAX_STEPS // n_steps, *EPOCHS))}
    coupling = NSFDensity(
        n_transforms=4, autoregressive=False, preprocessing=SPACES["quantile"], **data
    )
    return [
        *(flow(space, **data) for space in ("quantile", "whitened", "copula")),
        Component("quantile coupling flow", coupling, is_trained=True),
    ]
