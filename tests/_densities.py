"""The table of estimators, made small enough to fit in milliseconds."""

from inspect import signature

import numpy as np
import pytest
from scipy import stats

from skflows.bijections import Standardize
from skflows.density import ARCHITECTURES
from skflows.training.flow_fit import SMALL_TABLE

NAMES = list(ARCHITECTURES)
each_estimator = pytest.mark.parametrize("name", NAMES)
# N_ROWS rows are few enough to be trained whole, in float64, unless batches are asked for.
N_ROWS = SMALL_TABLE - 1
whole_and_in_batches = pytest.mark.parametrize("batch_size", ["auto", 16])

# Of a continuous flow the tests ask what they ask of the others: losses in nats, exact inverses.
OWN_PARAMS = {"cnf": {"training": "likelihood", "tolerance": 1e-10, "n_steps": 4}}


def small(name, **params):
    """An estimator of the table whose fit takes milliseconds."""
    cls = ARCHITECTURES[name]
    known = signature(cls).parameters
    defaults = {"n_transforms": 2, "hidden_layer_sizes": (8,), "dropout": 0.0}
    if "hidden_layer_sizes" not in known:
        defaults["n_transforms"] = 8  # without a network each does little
    defaults |= {"max_iter": 3, "random_state": 0} | OWN_PARAMS.get(name, {})
    return cls(**{key: value for key, value in defaults.items() if key in known} | params)


FACTOR = np.array([[3.0, 0.0], [0.8, 0.6]])
MEAN = np.array([10.0, -2.0])


def gaussian(n, seed=0):
    """Rows of a correlated Gaussian in two columns of different scales, and its entropy."""
    X = np.random.default_rng(seed).standard_normal((n, 2)) @ FACTOR.T + MEAN
    return X, 1 + np.log(2 * np.pi) + np.log(np.linalg.det(FACTOR))


def gaussian_log_density(X):
    """The true log-density of these rows."""
    return stats.multivariate_normal(MEAN, FACTOR @ FACTOR.T).logpdf(X)


def standardization(flow):
    """The map that standardises the columns, alone or at the head of those that prepare them."""
    return next(part for part in flow.preprocess.modules() if isinstance(part, Standardize))


def banana(n, seed=0):
    """Rows around a parabola: no Gaussian, and its columns are uncorrelated."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    return np.column_stack([x, x**2 + 0.4 * rng.standard_normal(n)])


class AtEpochEnd:
    """A callback that acts on the estimator as it stands after each epoch."""

    def __init__(self, act):
        self.act = act

    def setup(self, estimator, context):
        self.epochs = 0

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "epoch":
            self.epochs += 1
            return self.act(self.epochs, fitted_estimator)
