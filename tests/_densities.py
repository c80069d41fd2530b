"""Small estimators that fit in milliseconds, and the tables they are fitted to."""

from inspect import signature

import numpy as np
import pytest
from scipy import stats
from sklearn.exceptions import SkipTestWarning
from sklearn.utils import estimator_checks

from skflows.bijections import Standardize
from skflows.bijections._marginal_quantile import SMALL_SAMPLE
from skflows.density import ARCHITECTURES

NAMES = list(ARCHITECTURES)
# Columns in units of their own: all values of a waveform or a video have the same.
OF_ANY_UNITS = [name for name in NAMES if name not in ("waveflow", "videoflow")]
# The frames of a video share their maps, so it takes many epochs to learn that columns differ.
OF_UNLIKE_COLUMNS = [name for name in NAMES if name != "videoflow"]
each_estimator = pytest.mark.parametrize("name", NAMES)
# One without a network, one trained through its inverse, one with hand-written gradients, one
# solved step by step: for what does not depend on the bijection.
KINDS = ["planar", "iaf", "nsf", "cnf"]
each_kind = pytest.mark.parametrize("name", KINDS)
# The most rows that batch_size="auto" trains as one batch, in float64.
N_ROWS = SMALL_SAMPLE - 1
whole_and_in_batches = pytest.mark.parametrize("batch_size", ["auto", 16])
# All of them in mini-batches, and one that is trained as one batch.
each_estimator_in_batches, each_kind_in_batches = (
    pytest.mark.parametrize(
        ("name", "batch_size"), [(name, 16) for name in names] + [("nsf", "auto")]
    )
    for names in (NAMES, KINDS)
)

# Checks that apply, although `check_estimator` does not run them.
MORE_CHECKS = [
    "check_dataframe_column_names_consistency",
    "check_estimators_partial_fit_n_features",
    "check_get_feature_names_out_error",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
    "check_requires_y_none",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
]

# Losses in nats, as of the other flows. A coarse grid is the cheapest solver; its inverse is not
# exact once the flow has learnt something: see `accurate`.
OWN_PARAMS = {"cnf": {"objective": "likelihood", "solver": "rk4", "n_steps": 2}}


def small(name, **params):
    """Return an estimator whose fit takes milliseconds."""
    cls = ARCHITECTURES[name]
    known = signature(cls).parameters
    defaults = {"n_transforms": 2, "hidden_layer_sizes": (8,), "dropout": 0.0}
    if "hidden_layer_sizes" not in known:
        defaults["n_transforms"] = 8  # without a network, each transform does little
    defaults |= {"max_iter": 3, "preprocessing": "standardize", "random_state": 0}
    defaults |= OWN_PARAMS.get(name, {})
    return cls(**{key: value for key, value in defaults.items() if key in known} | params)


def accurate(name, tolerance=1e-10, **params):
    """Return what `small` does, with a CNF that is solved to a tolerance."""
    solver = {"solver": "dopri5", "tolerance": tolerance} if name == "cnf" else {}
    return small(name, **solver | params)


FACTOR = np.array([[3.0, 0.0], [0.8, 0.6]])
MEAN = np.array([10.0, -2.0])


def gaussian(n, seed=0):
    """Return rows of a correlated Gaussian in two columns of different scales, and its entropy."""
    X = np.random.default_rng(seed).standard_normal((n, 2)) @ FACTOR.T + MEAN
    return X, 1 + np.log(2 * np.pi) + np.log(np.linalg.det(FACTOR))


def gaussian_log_density(X):
    """Return the true log-density of the Gaussian at rows of X."""
    return stats.multivariate_normal(MEAN, FACTOR @ FACTOR.T).logpdf(X)


def standardization(flow):
    """Return the map that standardises the columns, alone or first in a chain."""
    return next(part for part in flow.preprocess.modules() if isinstance(part, Standardize))


def banana(n, seed=0):
    """Return rows around a parabola: not Gaussian, although the columns are uncorrelated."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    return np.column_stack([x, x**2 + 0.4 * rng.standard_normal(n)])


def few_trees(patch):
    """Let trees beside conditional densities and classifiers be few, of few folds."""
    from skflows.conditional import _probabilities, _trees

    for module in _trees, _probabilities:
        patch.setattr(module, "N_TREES", 15)
        patch.setattr(module, "STAGES", (25, 50))
    patch.setattr(_trees, "N_FOLDS_OF_FEW", 4)


class AtEpochEnd:
    """A callback that calls ``act(epoch, fitted_estimator)`` after each epoch."""

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


class Crash(Exception):
    """What ends a fit in these tests."""


def check_without_tables(estimator):
    """Run the checks of scikit-learn that need no table, for an estimator of other rows."""
    for check in (
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_valid_tag_types",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_mixin_order",
    ):
        getattr(estimator_checks, check)(type(estimator).__name__, estimator)
    with pytest.warns(SkipTestWarning, match="Can't test"):  # the guide says so
        estimator_checks.check_estimator(estimator)
