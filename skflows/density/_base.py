"""The base of all flows: density, outlier detector and transformer in one."""

import math
from abc import ABCMeta, abstractmethod
from functools import partial
from inspect import signature
from itertools import chain
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from ..calibration.thresholds import flags_more
from ..callbacks._progress import VERBOSE, prints
from ..callbacks._run import fit_task
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import row_shape, some_rows, validate_rows
from ..columns.checks import ColumnWarning, warn_of_columns, warn_user
from ..columns.frames import data_frame, index_of
from ..columns.types import Floats, Rows, Table, Weights
from ..preprocessing.sklearn_compat import Interval, StrOptions
from ..preprocessing.validation import prepare_table, validate_bounds, weighted_rows
from ..training.recipe import Recipe, Settings
from ..training.threads import fit_context
from . import _docstrings
from ._outlier_labels import OutlierDensityMixin
from ._sampling import SamplingMixin, check_has_names

if TYPE_CHECKING:
    from torch.distributions import Distribution

    from ..preprocessing.dequantizer import Dequantizer

# A latent map whose round trip errs by more than this fraction of a column's scale is not trusted
# (Behrmann et al., "Understanding and Mitigating Exploding Inverses", 2021).
MAX_RECONSTRUCTION_ERROR = 1e-3
HELD_OUT_ROWS = 1000  # on which a fit checks its threshold
RECONSTRUCTION_ROWS = 256  # training rows, about, on which a fit checks its inverse


class TrainingRecordMixin:
    """The record of a training by gradient descent, and warnings of what went wrong in it."""

    learning_rate_init: float
    time_limit: float | None
    verbose: int
    history_: dict[str, list[float]]

    def _print_progress(self, history, max_iter):
        if prints(self):
            history.print_epoch(max_iter, self.verbose)

    def _store_history(self, history, warm):
        """Append a history to the history of earlier fits that this one continues."""
        held_out = history.validation_score or [math.nan] * len(history.loss)
        epochs = {
            "loss": history.loss,
            "validation_score": held_out,
            "learning_rate": history.learning_rate,
        }
        epochs |= history.parts
        past = self.history_ if warm else {"loss": []}
        n_past = len(past["loss"])
        if history.best_iter or not warm:
            self.best_iter_ = n_past + history.best_iter
        unknown = [math.nan] * n_past, [math.nan] * len(history.loss)
        self.history_ = {
            name: past.get(name, unknown[0]) + epochs.get(name, unknown[1])
            for name in epochs | past
        }
        self.n_iter_ = len(self.history_["loss"])
        self.best_validation_score_ = history.best_score

    @property
    def loss_curve_(self) -> list[float]:
        """Training negative log-likelihood per row in each epoch, in nats."""
        return self.history_["loss"]

    @property
    def validation_scores_(self) -> list[float] | None:
        """Mean held-out log-density after each epoch, or None if no rows were held out."""
        scores = self.history_["validation_score"]
        return None if np.isnan(scores).all() else scores

    def _warn_of_trouble(self, *histories):
        """Warn of what went wrong in the training, once of what its flows have in common."""
        for trouble in dict.fromkeys(chain.from_iterable(map(self._troubles, histories))):
            warn_user(*trouble)

    def _troubles(self, history):
        """Yield the text and the category of each warning about a training."""
        kept = "the best weights so far are kept"
        if not history.best_iter:
            kept += " (the initial ones)"
        if history.diverged:
            yield (
                f"Training stopped after {len(history.loss)} epochs: the loss or its gradient "
                f"was repeatedly not finite, at ever lower rates; {kept}. Try a "
                f"learning_rate_init smaller than {self.learning_rate_init}.",
                ConvergenceWarning,
            )
        if history.loss and not any(history.learning_rate):
            yield (
                f"time_limit={self.time_limit} ended training within its first epoch: raise it, "
                "or train on fewer rows.",
                ConvergenceWarning,
            )
        if history.interrupted:
            text = f"Training was interrupted after {len(history.loss)} epochs; {kept}."
            yield text, UserWarning


class FittedFlowMixin(
    TrainingRecordMixin, SamplingMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
):
    """What a fitted flow does: scores, draws, the latent map, and the record of its training.

    An estimator has ``flow_``, a standard normal pulled back through a bijection.
    """

    _has_exact_inverse = True  # up to rounding errors
    flow_: Any
    n_features_in_: int
    offset_: float
    _dequantizer: "Dequantizer"
    _remedy_for_inexact_inverse = "fewer transforms or a smaller learning_rate_init"

    def _check_inverse(self, X):
        from . import _evaluation

        rows = X[:: max(1, len(X) // RECONSTRUCTION_ROWS)]
        scale = _evaluation.column_scale(X)
        with np.errstate(over="ignore"):  # infinite errors warn too
            error = (self._round_trip_error(rows) / scale).max()
        if not error <= MAX_RECONSTRUCTION_ERROR:  # NaN warns too
            warn_user(
                f"The inverse of the fitted flow errs by {error:.1e} of a column's standard "
                f"deviation on training rows (more than {MAX_RECONSTRUCTION_ERROR:g}): samples "
                "and inverse_transform are not exact. See reconstruction_error; try "
                f"{self._remedy_for_inexact_inverse}.",
                ConvergenceWarning,
            )

    def _score_rows(self, X):
        return self._score_by(self.flow_, X)

    def _as_module(self, flow=None):
        """Return the density of rows as a PyTorch module, by the flow or another one."""
        from ._distribution import RowDensity

        flow = self.flow_ if flow is None else flow
        return RowDensity(flow, self._dequantizer, self.n_features_in_)

    def _score_by(self, flow, X):
        from . import _evaluation

        density = self._as_module(flow)
        if density.is_normal_in_cells:
            return _evaluation.map_rows(density, "forward", X)[0]

        def log_density(rows):
            return _evaluation.map_rows(flow, "log_prob", rows)[0]

        return self._dequantizer.mean_density(log_density, X)

    def _map_rows(self, method, rows):
        from . import _evaluation

        return _evaluation.map_rows(self.flow_, method, rows)

    def _sample_rows(self, n_samples, random_state, temperature=1.0):
        latent = temperature * random_state.standard_normal((n_samples, self._n_features_out))
        return self._dequantizer.round(self._map_rows("inverse", latent)[0])

    def transform(self, X: Table) -> Floats:
        """Return the latent coordinates of each row, standard normal if the fit is perfect.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features)
            Their latent coordinates.
        """
        check_is_fitted(self)
        return self._map_rows("forward", validate_rows(self, X, reset=False))[0]

    def inverse_transform(self, X: Table, *, as_frame: bool = False) -> Rows:
        """Return the rows with the given latent coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Latent coordinates, as many as `transform` returns.

        as_frame : bool, default=False
            Return a pandas DataFrame with the column names seen in `fit`, and the index of X if
            that is a DataFrame. As for other estimators, `set_output` concerns `transform` only.

        Returns
        -------
        X_original : ndarray or DataFrame of shape (n_samples, n_features)
            The rows that `transform` maps to them, without columns of noise. Values of discrete
            columns are not rounded.
        """
        check_is_fitted(self)
        if as_frame:
            check_has_names(self)
        index = index_of(X)
        latent = check_array(X, dtype=np.float64, order="C", input_name="X")
        if latent.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {latent.shape[1]} features, but {type(self).__name__} was fitted on "
                f"{self.n_features_in_}; pass the output of transform, which has "
                f"{self._n_features_out}."
            )
        rows = self._map_rows("inverse", latent)[0]
        return data_frame(rows, self.feature_names_in_, index) if as_frame else rows

    def reconstruction_error(self, X: Table) -> Floats:
        """Return how exactly the latent map can be inverted: ``max |x - inverse(forward(x))|``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        error : ndarray of shape (n_samples,)
            Largest absolute error over the columns of each row, in the units of X.

        References
        ----------
        Behrmann, Vicol, Wang, Grosse & Jacobsen, "Understanding and Mitigating Exploding Inverses
        in Invertible Neural Networks", 2021.
        """
        check_is_fitted(self)
        return self._round_trip_error(validate_rows(self, X, reset=False)).max(axis=1)

    def distribution(self, validate_args: bool | None = None) -> "Distribution":
        """Return the density as a PyTorch distribution over rows, in the units of X.

        It has gradients with respect to the rows, and works where a
        `torch.distributions.Distribution` does: in mixtures, in Pyro, or in a variational bound.

        Parameters
        ----------
        validate_args : bool, default=None
            Whether `log_prob` checks its argument; None for the default of
            `torch.distributions.Distribution`. The check does not work under `torch.func.vmap`.

        Returns
        -------
        distribution : torch.distributions.Distribution
            A distribution with ``event_shape`` ``(n_features,)`` and an empty ``batch_shape``,
            which ``expand`` changes. It computes in float64, on the device of the flow, and draws
            from torch's random generator. Its ``log_prob`` is `score_samples`: with
            discrete columns, it is the mean density of the cell around a row's values, and its
            exponential times the gaps in ``discrete_`` is a probability. Rows from ``sample`` then
            have values that occur. Rounding has no gradient, so ``rsample`` raises an error.

        Examples
        --------
        >>> import torch
        >>> from sklearn.datasets import load_iris
        >>> from skflows import RealNVPDensity
        >>> X = load_iris().data
        >>> density = RealNVPDensity(discrete=None, max_iter=5, random_state=0).fit(X)
        >>> distribution = density.distribution()
        >>> rows = torch.tensor(X[:6]).view(2, 3, 4).requires_grad_()
        >>> log_prob = distribution.log_prob(rows)
        >>> log_prob.shape
        torch.Size([2, 3])
        >>> log_prob.sum().backward()
        >>> rows.grad.shape
        torch.Size([2, 3, 4])
        >>> distribution.rsample((5,)).shape
        torch.Size([5, 4])
        """
        from ._distribution import FlowDistribution

        check_is_fitted(self)
        return FlowDistribution(
            self._as_module(), self._n_features_out, validate_args=validate_args
        )

    @property
    def _n_features_out(self):
        return self.n_features_in_

    def _round_trip_error(self, X):
        latent = self._map_rows("forward", X)[0]
        return np.abs(self._map_rows("inverse", latent)[0] - X)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "flow_")


class BaseFlowDensity(
    FittedFlowMixin,
    OutlierDensityMixin,
    CallbackSupportMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """A density that is a standard normal pulled back through a bijection: all but its fit.

    A subclass implements `_start_fit`. Names in braces in its docstring are replaced by the shared
    parts in ``_docstrings.py``.
    """

    # Constraints of the parameters that every flow has.
    _parameter_constraints: dict = {
        "preprocessing": ["array-like", StrOptions({"quantile", "standardize", "whiten"})],
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
        "verbose": VERBOSE,
    }

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            cls.__doc__ = _docstrings.fill(cls.__doc__, signature(cls).parameters)

    @abstractmethod
    def _start_fit(self, table, held_out, warm, increment, max_iter):
        """Return the `skflows.training.flow_fit.FlowFit` that fits `flow_` to a table."""

    def _recipe(self, max_iter):
        """Return what the fit needs to know of this estimator."""
        values = {name: getattr(self, name) for name in Settings._fields if hasattr(self, name)}
        settings = Settings(row_shape=row_shape(self), **values)
        return Recipe(self, self._build_flow, self._phases(max_iter), settings)

    def _phases(self, max_iter):
        """Return the settings of `skflows.training.trainer.Trainer` for each phase of a fit."""
        return [{"max_iter": max_iter}]

    def _build_flow(self, preprocess, n_features, n_context=0):
        """Return a new flow of preprocessed rows, whose last columns are their context."""
        from ..bijections._conditional import Conditional, FirstColumns
        from ..bijections._flow import Flow

        if not n_context:
            return Flow(preprocess, self._build_bijection(n_features))
        bijection = self._build_bijection(n_features, n_context)
        return Flow(FirstColumns(preprocess, n_features), Conditional(bijection, n_features))

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Table,
        y: object = None,
        sample_weight: Weights = None,
        *,
        X_val: Table | None = None,
        sample_weight_val: Weights = None,
    ) -> Self:
        """Fit the density to the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least two.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the likelihood; rows of weight 0 are left out.

        X_val : array-like of shape (n_held_out, n_features), default=None
            Rows to hold out for early stopping, in place of a part of X.

        sample_weight_val : array-like of shape (n_held_out,), default=None
            Weight of each of these rows.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        warm = getattr(self, "warm_start", False) and hasattr(self, "flow_")
        if X_val is None and sample_weight_val is not None:
            raise ValueError("sample_weight_val is given without X_val, the rows it belongs to.")
        if X_val is not None and not self.early_stopping:
            raise ValueError("X_val is given, but early_stopping=False: nothing would use it.")
        held_out = None if X_val is None else (X_val, sample_weight_val)
        return self._fit(X, y, sample_weight, warm=warm, increment=False, held_out=held_out)

    def _fit(self, X, y, sample_weight, warm, increment, held_out=None, chunk=None):
        max_iter = 1 if increment else self.max_iter
        if not warm:
            self.__dict__.pop("flow_", None)  # a fit that fails leaves nothing fitted
        flow_fit = self._begin(X, sample_weight, warm, increment, max_iter, held_out)
        flow_fit.chunk = chunk
        if not (warm or increment):
            warn_of_columns(self, flow_fit.table.X, self._dequantizer.columns)
            spike = self._dequantizer.spike
            if spike is not None and not getattr(self, "input_noise", 0):
                warn_user(
                    f"The value {spike:.6g} repeats, but the values of X are not multiples of one "
                    "gap, so no column counts as discrete: the density has a spike there. Add "
                    "noise to X, round it, or set input_noise.",
                    ColumnWarning,
                )
        name = "partial_fit" if increment else "fit"
        data = {"sample_weight": sample_weight}
        if held_out is not None:
            data |= {"X_val": held_out[0], "sample_weight_val": held_out[1]}
        with fit_task(self, X, y, max_subtasks=max_iter, name=name, **data) as task:

            def on_epoch_end(history):
                if flow_fit.group.rank == 0:
                    self._print_progress(history, max_iter)
                return task.end(partial(self._fitted, flow_fit))

            history = flow_fit.fit(partial(task.begin, "epoch"), on_epoch_end)
            self._end(history, flow_fit)
        return self

    def _begin(self, X, sample_weight, warm, increment, max_iter, held_out=None):
        """Validate the input and return the fit of the flow to it."""
        least = 1 if warm and increment else 2  # to set a scale, or to hold a row out
        dequantizer = self._dequantizer if warm else None
        table = prepare_table(self, X, sample_weight, least=least, dequantizer=dequantizer)
        self._dequantizer = table.dequantizer
        self.discrete_ = table.dequantizer.named_gaps(getattr(self, "feature_names_in_", None))
        if held_out is not None:
            rows, weight, _ = weighted_rows(self, *held_out, least=1, reset=False)
            names = getattr(self, "feature_names_in_", None)
            validate_bounds(self.bounds, rows, self._dequantizer, names=names, what="X_val")
            held_out = rows, weight
        return self._start_fit(table, held_out, warm, increment, max_iter)

    def _end(self, history, flow_fit, only_score=False):
        """Keep what was fitted; with ``only_score``, no more than scores need."""
        self._store_history(history, warm=flow_fit.past is not None)
        self._interrupted = history.interrupted
        self._optimizer_state = flow_fit.optimizer_state(history)
        if only_score:
            self.flow_ = flow_fit.snapshot(is_final=True)
        else:
            for name, value in self._fitted(flow_fit, is_final=True).items():
                setattr(self, name, value)
            self.offset_ = flow_fit.group.broadcast(self.offset_)  # a time limit takes fewer rows
        # Last, so that a user who turns warnings into errors loses nothing.
        self._warn_of_trouble(history)
        if not only_score:
            self._check_inverse(flow_fit.table.X)
            if flow_fit.held_out is not None and isinstance(self.contamination, Real):
                held_out = flow_fit.held_out[0]
                self._check_contamination(held_out[some_rows(len(held_out), HELD_OUT_ROWS)])

    def _fitted(self, flow_fit, is_final=False):
        """Return the attributes of a fitted density, from a fit as it is now."""
        flow, table = flow_fit.snapshot(is_final), flow_fit.table
        threshold = self._threshold_on(table.X, table.weight, partial(self._score_by, flow))
        return {"flow_": flow, "offset_": threshold}

    def _check_contamination(self, held_out):
        """Warn if the threshold, a quantile of training rows, flags many more of other rows."""
        expected, scores = self.contamination, self._score_rows(held_out)
        if flags_more(scores, self.offset_, expected):
            flagged = (scores < self.offset_).mean()
            warn_user(
                f"contamination={expected:g} flags that fraction of the training rows, but "
                f"{flagged:.2g} of the rows that were held out, because the flow fits the former "
                'better. DensityOutlierDetector(calibration="conformal", alpha=...) flags a given '
                "fraction of new rows."
            )
