"""Any density estimator: how it is fitted and sampled, whatever its library."""

import copy
from inspect import signature

from sklearn.base import DensityMixin, OutlierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import has_fit_parameter


def check_is_density(estimator):
    """Raise for an outlier detector that is not a density: its scores are not log-densities."""
    if isinstance(estimator, OutlierMixin) and not isinstance(estimator, DensityMixin):
        raise TypeError(
            f"{type(estimator).__name__} is an outlier detector, whose scores are not "
            "log-densities; give a density estimator, such as KernelDensity or GaussianMixture."
        )


def was_interrupted(estimator):
    """Whether Ctrl-C ended the last fit of an estimator, which kept what it had."""
    return getattr(estimator, "_interrupted", False)


def is_frozen(estimator):
    """Whether an estimator is fitted already and must stay as it is."""
    return isinstance(estimator, FrozenEstimator)


def fit_density(estimator, X, sample_weight=None):
    """Fit an estimator in place, with weights if there are any, and without rows of weight 0."""
    if is_frozen(estimator):
        return estimator
    if sample_weight is None:
        return estimator.fit(X)
    if not has_fit_parameter(estimator, "sample_weight"):
        raise ValueError(
            f"{type(estimator).__name__} takes no sample_weight; fit without weights, or choose "
            "an estimator that takes them, as all of skflows do."
        )
    is_weighted = sample_weight > 0
    return estimator.fit(X[is_weighted], sample_weight=sample_weight[is_weighted])


def draw(estimator, n_samples, random_state):
    """Return rows sampled from a fitted density, as an array."""
    if not hasattr(estimator, "sample"):
        raise AttributeError(f"{type(estimator).__name__} has no sample: it can only score rows.")
    if is_frozen(estimator):
        estimator = estimator.estimator
    seed = random_state.randint(2**31 - 1)
    if "random_state" in signature(estimator.sample).parameters:
        rows = estimator.sample(n_samples, random_state=seed)
    else:  # GaussianMixture draws from the seed of its fit: the same rows in each call
        estimator = copy.copy(estimator)
        estimator.random_state = seed
        rows = estimator.sample(n_samples)
    return rows[0] if isinstance(rows, tuple) else rows
