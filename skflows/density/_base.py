"""The base of all densities by flow: density, outlier detector and transformer in one."""

import warnings
from abc import ABCMeta, abstractmethod
from functools import partial
from inspect import signature
from numbers import Integral, Real

from sklearn.base import BaseEstimator, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from . import _docs
from ._discrete import Dequantizer
from ._protocol import check_n_samples
from ._record import TrainingRecordMixin
from ._surface import LatentMapMixin, OutlierDensityMixin
from ._validation import validate_bounds, validate_rows, validate_weight

# Latent maps whose round trip is off by more than this fraction of a column's scale are not
# trusted (Behrmann et al., "Understanding and Mitigating Exploding Inverses", 2020).
MAX_RECONSTRUCTION_ERROR = 1e-3
RECONSTRUCTION_ROWS = 256  # training rows, about, on which a fit checks its inverse


class BaseFlowDensity(
    OutlierDensityMixin,
    LatentMapMixin,
    TrainingRecordMixin,
    CallbackSupportMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """A density that is a standard normal pulled back through a bijection: all but its fit.

    A subclass implements `_start_run`. Names in braces in its docstring stand for the shared
    parts in ``_docs.py``.
    """

    # Of the parameters that every flow has.
    _parameter_constraints: dict = {
        "preprocessing": ["array-like", StrOptions({"standardize", "whiten", "quantile"})],
        "bounds": ["array-like", dict, None],
        "discrete": ["array-like", dict, StrOptions({"auto"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            cls.__doc__ = _docs.fill(cls.__doc__, signature(cls).parameters)

    _remedy_of_inexact_inverse = "fewer transforms or a smaller learning_rate_init"

    @abstractmethod
    def _start_run(self, X, weight, held_out, bounds, warm, increment, max_iter):
        """What fits `flow_` to validated rows; see `_run.Run`."""

    def _build_flow(self, preprocess, n_features):
        """Return a new flow of preprocessed rows."""
        from .._flow import Flow

        return Flow(preprocess, self._build_bijection(n_features))

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, *, X_val=None, sample_weight_val=None):
        """Fit the density to the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least two.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Importance of each row in the likelihood; rows of weight 0 are left out.

        X_val : array-like of shape (n_held_out, n_features), default=None
            Rows to hold out for early stopping, in place of a part of X.

        sample_weight_val : array-like of shape (n_held_out,), default=None
            Importance of each of these rows.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        warm = getattr(self, "warm_start", False) and hasattr(self, "flow_")
        if X_val is None and sample_weight_val is not None:
            raise ValueError("sample_weight_val is given without X_val, the rows it belongs to.")
        if X_val is not None and self.early_stopping is False:
            raise ValueError("X_val is given, but early_stopping=False: nothing would use it.")
        held_out = None if X_val is None else (X_val, sample_weight_val)
        return self._fit(X, y, sample_weight, warm=warm, increment=False, held_out=held_out)

    def _fit(self, X, y, sample_weight, warm, increment, held_out=None):
        max_iter = 1 if increment else self.max_iter
        rows, weight, run = self._begin(X, sample_weight, warm, increment, max_iter, held_out)
        context = self._init_callback_context(max_subtasks=max_iter)
        metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        task = {"estimator": self, "X": X, "y": y, "metadata": metadata}
        context.call_on_fit_task_begin(**task)
        epoch = []  # the callback context of the epoch that is running

        def on_epoch_begin():
            epoch[:] = [context.subcontext(task_name="epoch")]
            epoch[0].call_on_fit_task_begin(**task)

        def on_epoch_end(history):
            self._report(history, max_iter)
            return epoch[0].call_on_fit_task_end(
                **task, reconstruction_attributes=lambda: self._fitted(run, rows, weight)
            )

        history = run.train(on_epoch_begin, on_epoch_end)
        self._end(history, run, rows, weight, warm)
        context.call_on_fit_task_end(**task, reconstruction_attributes=dict)
        return self

    def _begin(self, X, sample_weight, warm, increment, max_iter, held_out=None):
        """Rows of positive weight, their weights, and the run that will fit the flow to them."""
        least = 1 if warm and increment else 2  # to set a scale, or to hold a row out
        X = validate_rows(self, X, reset=not warm, ensure_min_samples=least)
        weight = validate_weight(sample_weight, X, least)
        if not weight.all():
            X, weight = X[weight > 0], weight[weight > 0]
        names = getattr(self, "feature_names_in_", None)
        if warm:
            self._dequantizer.see(X)
        else:
            self._dequantizer = Dequantizer.for_parameter(self.discrete, X, names)
            self.discrete_ = self._dequantizer.gaps()
        bounds = validate_bounds(self.bounds, X, self._dequantizer, names=names)
        if held_out is not None:
            rows = validate_rows(self, held_out[0], reset=False)
            held_out_weight = validate_weight(held_out[1], rows, 1)
            held_out = rows[held_out_weight > 0], held_out_weight[held_out_weight > 0]
            rows = held_out[0]
            validate_bounds(self.bounds, rows, self._dequantizer, names=names, what="X_val")
        run = self._start_run(X, weight, held_out, bounds, warm, increment, max_iter)
        return X, weight, run

    def _end(self, history, run, X, weight, warm, only_score=False):
        """Keep what a run fitted; where it will only be scored, no more than that takes."""
        self._store_history(history, warm)
        self._interrupted = history.interrupted
        self._optimizer_state = run.optimizer_state(history)
        if only_score:
            self.flow_ = run.snapshot(goes_on=False)
        else:
            for name, value in self._fitted(run, X, weight).items():
                setattr(self, name, value)
        # Last, so that a user who turns warnings into errors loses nothing.
        self._warn_of_trouble(history)
        if not only_score:
            self._check_inverse(X)

    def _fitted(self, run, X, weight):
        """What a fitted density is, of the fit as it stands."""
        flow = run.snapshot()
        threshold = self._threshold_on(X, weight, partial(self._score_by, flow))
        return {"flow_": flow, "offset_": threshold}

    def _warn_of_trouble(self, history):
        kept = "the best weights so far are kept"
        if not history.best_iter:
            kept += " (those the training started from)"
        if history.diverged:
            warnings.warn(
                f"Training stopped after {len(history.loss)} epochs: the loss or its gradient "
                f"was not finite again and again, at ever lower rates; {kept}. Try a "
                f"learning_rate_init smaller than {self.learning_rate_init}.",
                ConvergenceWarning,
                stacklevel=6,
            )
        if history.loss and not any(history.learning_rate):
            warnings.warn(
                f"time_limit={self.time_limit} ended training within its first epoch: raise it, "
                "please, or train on fewer rows, or (with compile=True) without compiling.",
                ConvergenceWarning,
                stacklevel=6,
            )
        if history.interrupted:
            warnings.warn(
                f"Training was interrupted after {len(history.loss)} epochs; {kept}.",
                stacklevel=6,
            )

    def _check_inverse(self, X):
        from . import _engine

        rows = X[:: max(1, len(X) // RECONSTRUCTION_ROWS)]
        scale = _engine.column_scale(X)
        error = (self._round_trip_error(rows) / scale).max()
        if not error <= MAX_RECONSTRUCTION_ERROR:  # NaN warns too
            warnings.warn(
                f"The inverse of the fitted flow is off by {error:.1e} of a column's standard "
                f"deviation on training rows (more than {MAX_RECONSTRUCTION_ERROR:g}): samples "
                "and inverse_transform are not exact. See reconstruction_error; try "
                f"{self._remedy_of_inexact_inverse}.",
                ConvergenceWarning,
                stacklevel=6,
            )

    def _map_rows(self, direction, rows):
        from . import _engine

        return _engine.map_rows(self.flow_, direction, rows)

    def _score_by(self, flow, X):
        from . import _engine

        def log_density(rows):
            return _engine.map_rows(flow, "log_prob", rows)[0]

        return self._dequantizer.mean_density(log_density, X)

    def _score_rows(self, X):
        return self._score_by(self.flow_, X)

    def sample(self, n_samples=1, random_state=None):
        """Draw rows from the fitted density.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows.
        """
        check_is_fitted(self)
        check_n_samples(n_samples)
        random_state = check_random_state(random_state)
        latent = random_state.standard_normal((n_samples, self._n_features_out))
        return self._dequantizer.round(self._map_rows("inverse", latent)[0])

    def __sklearn_is_fitted__(self):
        return hasattr(self, "flow_")

    def __getstate__(self):
        # Tensors on a GPU could not be loaded on a machine without one.
        state = dict(super().__getstate__())
        if "flow_" in state:
            from . import _engine

            state["flow_"] = _engine.on_cpu(state["flow_"])
        return state
