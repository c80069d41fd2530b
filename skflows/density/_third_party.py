"""Any density estimator: how it is fitted and sampled, whatever its library."""

import copy
import math
import warnings
from contextlib import contextmanager
from functools import partial, wraps
from inspect import signature
from types import MethodType

from sklearn.base import DensityMixin, OutlierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from ..columns.encoding import Encoding
from ..columns.frames import read_frame, validate_table
from ..training.threads import few_threads


def is_density(estimator):
    """Whether an estimator is no outlier detector, whose scores are not log-densities."""
    return isinstance(estimator, DensityMixin) or not isinstance(estimator, OutlierMixin)


def check_is_density(estimator):
    """Raise for an outlier detector that is not a density."""
    if not is_density(estimator):
        raise TypeError(
            f"{type(estimator).__name__} is an outlier detector, whose scores are not "
            "log-densities; give a density estimator, such as KernelDensity or GaussianMixture."
        )


def was_interrupted(estimator):
    """Whether Ctrl-C ended the last fit of an estimator, which kept what it had."""
    return getattr(estimator, "_interrupted", False)


@contextmanager
def of_no_use_alone():
    """Ignore warnings that a density consists of what was fitted before an interrupt.

    They are not true of a density that is one of several: its wrapper raises `KeyboardInterrupt`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(Training|The fit) was interrupted after")
        yield


@contextmanager
def nothing_after_failure(estimator, attributes):
    """Remove fitted attributes if the fit in this context fails, or if Ctrl-C ends it."""
    try:
        yield
    except BaseException:
        for name in attributes & vars(estimator).keys():
            delattr(estimator, name)
        raise


def is_frozen(estimator):
    """Whether an estimator is fitted already and must stay as it is."""
    return isinstance(estimator, FrozenEstimator)


def takes_weights(estimator):
    """Whether an estimator can be fitted with weights; a frozen one ignores them."""
    return is_frozen(estimator) or has_fit_parameter(estimator, "sample_weight")


class FitMethod:
    """The method `fit` of a wrapper, with a signature that depends on the estimator inside.

    Software that asks whether an estimator takes weights reads the signature of its `fit`
    (scikit-learn's `has_fit_parameter`). Equal weights, which change nothing, are always accepted.
    """

    def __init__(self, fit, takes_weights):
        @wraps(fit)
        def unweighted(*args, **kwargs):
            return fit(*args, **kwargs)

        full = signature(fit)
        parameters = [p for p in full.parameters.values() if p.name != "sample_weight"]
        vars(unweighted)["__signature__"] = full.replace(parameters=parameters)
        self.fit, self.unweighted, self.takes_weights = fit, unweighted, takes_weights

    def __get__(self, wrapper, owner=None):
        if wrapper is None:
            return self.fit
        fit = self.fit if self.takes_weights(wrapper) else self.unweighted
        return MethodType(fit, wrapper)


def weighted_if(takes_weights):
    """Return a decorator of `fit` that shows ``sample_weight`` if ``takes_weights(self)``."""
    return partial(FitMethod, takes_weights=takes_weights)


def fit_density(estimator, X, sample_weight=None):
    """Fit an estimator in place, with weights if there are any, and without rows of weight 0."""
    if is_frozen(estimator):
        return estimator
    params = {}
    if sample_weight is not None:
        if not takes_weights(estimator):
            raise ValueError(
                f"{type(estimator).__name__} takes no sample_weight; fit without weights, or "
                "choose an estimator that takes them, such as NSFDensity or AutoDensity."
            )
        is_weighted = sample_weight > 0
        if not is_weighted.all():
            X, sample_weight = X[is_weighted], sample_weight[is_weighted]
        params["sample_weight"] = sample_weight
    with few_threads(X):
        return estimator.fit(X, **params)


def takes_tables(estimator):
    """Whether an estimator takes DataFrames of any columns, with missing values."""
    return hasattr(estimator, "__sklearn_tags__") and get_tags(estimator).input_tags.string


def unfrozen(estimator):
    """Return the estimator inside a frozen one."""
    return estimator.estimator if is_frozen(estimator) else estimator


def read(wrapper, estimator, X, least=1):
    """Return the encoding of a table and its rows, once in a fit of a wrapper of a density.

    A density that is fitted already has an encoding of its own, and so has one to which a wrapper
    around this one has shown all rows of the table.
    """
    X = validate_table(wrapper, X, least=least)
    density = unfrozen(estimator)
    fitted = getattr(density, "_encoding", None) if is_frozen(estimator) else None
    if fitted is not None:
        X = validate_table(density, X, reset=False, least=least, name=type(wrapper).__name__)
        return fitted, fitted.encode(X)
    frame = read_frame(X)
    has_own = hasattr(density, "_encoding_for")
    encoding = density._encoding_for(frame) if has_own else Encoding(frame)
    return encoding, encoding.rows(frame)


def read_as_in_fit(wrapper, X):
    """Return the rows of a table with the columns of `fit`, in their order, as scikit-learn asks.

    The wrapper of a density has its encoding.
    """
    return wrapper._encoding.encode(validate_table(wrapper, X, reset=False))


def fit_rows(estimator, rows, sample_weight=None, encoding=None):
    """Do what `fit_density` does; an encoding says which table rows stand for.

    Other estimators than a `TableDensity` get the table itself.
    """
    if encoding is None or is_frozen(estimator):
        return fit_density(estimator, rows, sample_weight)
    if hasattr(estimator, "_fit_rows"):
        return estimator._fit_rows(rows, sample_weight, encoding)
    return fit_density(estimator, encoding.decode(rows), sample_weight)


def score_rows(estimator, rows, encoding=None):
    """Return the log-density of each row; an encoding says which table they stand for."""
    if encoding is None:
        return estimator.score_samples(rows)
    estimator = unfrozen(estimator)
    if hasattr(estimator, "_score_rows_of"):
        return estimator._score_rows_of(rows)
    return estimator.score_samples(encoding.decode(rows))


def fit_subtask(task, estimator, X, sample_weight=None, encoding=None):
    """Do what `fit_rows` does, as a subtask of the fit of a wrapper."""
    metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
    with task.inside(estimator, X=X, y=None, metadata=metadata):
        return fit_rows(estimator, X, sample_weight, encoding)


MIN_SECONDS = 0.1  # of a fit, whatever is left of a time limit


def time_limits(estimator):
    """Return the parameters that limit the time of a fit, also of estimators inside another."""
    params = estimator.get_params() if hasattr(estimator, "get_params") else {}
    return {name: value for name, value in params.items() if name.endswith("time_limit")}


def with_time_limit(estimator, seconds):
    """Return a clone of an estimator whose time limits are at most so many seconds."""
    if seconds == math.inf:
        return clone(estimator)
    seconds = max(seconds, MIN_SECONDS)
    limits = {
        name: seconds if limit is None else min(limit, seconds)
        for name, limit in time_limits(estimator).items()
    }
    return clone(estimator).set_params(**limits)


def with_verbose(estimator, verbose):
    """Return an estimator that prints as much as its wrapper, if that prints and it can."""
    params = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    if verbose == "auto" or not verbose or "verbose" not in params:
        return estimator
    # That of some, such as pipelines, is a bool.
    verbose = bool(verbose) if isinstance(params["verbose"], bool) else verbose
    return clone(estimator).set_params(verbose=verbose)


def draw(estimator, n_samples, random_state):
    """Return rows sampled from a fitted density, as an array."""
    if not hasattr(estimator, "sample"):
        raise AttributeError(f"{type(estimator).__name__} has no sample: it can only score rows.")
    estimator = unfrozen(estimator)
    seed = random_state.randint(2**31 - 1)
    if "random_state" in signature(estimator.sample).parameters:
        rows = estimator.sample(n_samples, random_state=seed)
    else:  # GaussianMixture draws from the seed of its fit: the same rows in each call
        estimator = copy.copy(estimator)
        estimator.random_state = seed
        rows = estimator.sample(n_samples)
    return rows[0] if isinstance(rows, tuple) else rows
