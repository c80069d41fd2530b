"""The base estimator: density, outlier detector and transformer in one."""

import warnings
from abc import ABCMeta, abstractmethod
from numbers import Integral, Real

from sklearn.base import BaseEstimator, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    check_is_fitted,
)

from . import _docs
from ._record import TrainingRecordMixin
from ._surface import LatentMapMixin, OutlierDensityMixin
from ._validation import validate_rows, validate_weight

# Latent maps whose round trip is off by more than this fraction of a column's scale are not
# trusted (Behrmann et al., "Understanding and Mitigating Exploding Inverses", 2020).
MAX_RECONSTRUCTION_ERROR = 1e-3
RECONSTRUCTION_ROWS = 256  # training rows, about, on which a fit checks its inverse


class FlowDensity(
    OutlierDensityMixin,
    LatentMapMixin,
    TrainingRecordMixin,
    CallbackSupportMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """Base of all flows: everything but the architecture.

    A subclass implements `_build_bijection`, and defines ``__init__`` only if its parameters
    or their defaults differ. ``{network}``, ``{training}`` and ``{attributes}`` in its
    docstring stand for the shared parts in ``_docs.py``.
    """

    _parameter_constraints: dict = {
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"relu", "tanh", "silu", "gelu", "elu"})],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            cls.__doc__ = _docs.fill(cls.__doc__)

    def __init__(
        self,
        *,
        n_transforms=5,
        hidden_layer_sizes=(64, 64),
        activation="relu",
        dropout=0.1,
        batch_size="auto",
        learning_rate_init=2e-3,
        weight_decay=0.0,
        max_iter=100,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
        tol=1e-4,
        warm_start=False,
        contamination="auto",
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.n_transforms = n_transforms
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.contamination = contamination
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @abstractmethod
    def _build_bijection(self, n_features, n_context=0):
        """Return a new `skflows.bijections.Bijection` for standardised data."""

    def _network(self, n_context):
        """Return the arguments of a conditioner network that the parameters set."""
        sizes = self.hidden_layer_sizes
        sizes = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
        if not sizes or not all(isinstance(size, Integral) and size >= 1 for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r}; it must be an integer of at "
                "least 1, or a tuple of them with one for each hidden layer."
            )
        return {
            "hidden_layer_sizes": tuple(map(int, sizes)),
            "n_context": n_context,
            "activation": self.activation,
            "dropout": self.dropout,
        }

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the density to the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least two.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Importance of each row in the likelihood; rows of weight 0 are left out.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        warm = self.warm_start and hasattr(self, "flow_")
        return self._fit(X, y, sample_weight, warm=warm, increment=False)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Train one epoch on the rows of X, from where the last call ended.

        The first call sets the scaling; the threshold `offset_` is that of the latest rows.
        Nothing is held out and the learning rate is constant.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least two in the first call.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Importance of each row in the likelihood.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        return self._fit(X, y, sample_weight, warm=hasattr(self, "flow_"), increment=True)

    def _fit(self, X, y, sample_weight, warm, increment):
        from . import _engine

        device = _engine.resolve_device(self.device)
        least = 1 if warm and increment else 2  # to set a scale, or to hold a row out
        X = validate_rows(self, X, reset=not warm, ensure_min_samples=least)
        weight = validate_weight(sample_weight, X, least)
        max_iter = 1 if increment else self.max_iter
        context = self._init_callback_context(max_subtasks=max_iter)
        metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        task = {"estimator": self, "X": X, "y": y, "metadata": metadata}
        context.call_on_fit_task_begin(**task)
        if not weight.all():
            X, weight = X[weight > 0], weight[weight > 0]

        run = _engine.Run(self, X, weight, device, warm, increment, max_iter)
        epoch = []  # the callback context of the epoch that is running

        def fitted():
            """What a scoring callback needs of the fit as it stands."""
            flow = run.snapshot()
            scores = _engine.map_rows(flow, "log_prob", X)[0]
            return {"flow_": flow, "offset_": self._outlier_threshold(scores, weight)}

        def on_epoch_begin():
            epoch[:] = [context.subcontext(task_name="epoch")]
            epoch[0].call_on_fit_task_begin(**task)

        def on_epoch_end(history):
            self._report(history, max_iter)
            return epoch[0].call_on_fit_task_end(**task, reconstruction_attributes=fitted)

        history = run.train(on_epoch_begin, on_epoch_end)
        self._store_history(history, warm)
        self._optimizer_state = run.optimizer_state(history)
        for name, value in fitted().items():
            setattr(self, name, value)
        # Last, so that a user who turns warnings into errors loses nothing.
        self._warn_of_trouble(history, X)
        context.call_on_fit_task_end(**task, reconstruction_attributes=dict)
        return self

    def _warn_of_trouble(self, history, X):
        kept = "the best weights so far are kept"
        if not history.best_iter:
            kept += " (those the training started from)"
        if history.diverged:
            warnings.warn(
                f"Training stopped after {len(history.loss)} epochs: the loss or its gradient "
                f"was not finite again and again, at ever lower rates; {kept}. Try a "
                f"learning_rate_init smaller than {self.learning_rate_init}.",
                ConvergenceWarning,
                stacklevel=5,
            )
        if history.interrupted:
            warnings.warn(
                f"Training was interrupted after {len(history.loss)} epochs; {kept}.",
                stacklevel=5,
            )
        self._check_inverse(X)

    def _check_inverse(self, X):
        rows = X[:: max(1, len(X) // RECONSTRUCTION_ROWS)]
        scale = self.flow_.preprocess.scale.cpu().numpy()
        error = (self._round_trip_error(rows) / scale).max()
        if not error <= MAX_RECONSTRUCTION_ERROR:  # NaN warns too
            warnings.warn(
                f"The inverse of the fitted flow is off by {error:.1e} of a column's standard "
                f"deviation on training rows (more than {MAX_RECONSTRUCTION_ERROR:g}): samples "
                "and inverse_transform are not exact. See reconstruction_error; try fewer "
                "transforms or a smaller learning_rate_init.",
                ConvergenceWarning,
                stacklevel=6,
            )

    def _map_rows(self, direction, rows):
        from . import _engine

        return _engine.map_rows(self.flow_, direction, rows)

    def _score_rows(self, X):
        return self._map_rows("log_prob", X)[0]

    def score_samples(self, X):
        """Log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, in the units of X: a row's value depends on that row alone.
        """
        check_is_fitted(self)
        return self._score_rows(validate_rows(self, X, reset=False))

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
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r}; it must be an integer of at least 1.")
        random_state = check_random_state(random_state)
        latent = random_state.standard_normal((n_samples, self.n_features_in_))
        return self._map_rows("inverse", latent)[0]

    def __sklearn_is_fitted__(self):
        return hasattr(self, "flow_")

    def __getstate__(self):
        # Tensors on a GPU could not be loaded on a machine without one.
        state = dict(super().__getstate__())
        if "flow_" in state:
            from . import _engine

            state["flow_"] = _engine.on_cpu(state["flow_"])
        return state
