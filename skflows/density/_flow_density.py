"""The base of flows that are trained by gradient descent."""

from abc import abstractmethod
from contextlib import suppress
from numbers import Integral, Real
from typing import Self

from ..columns.types import Table, Weights
from ..preprocessing.sklearn_compat import Interval, StrOptions
from ..training.recipe import Past
from ..training.threads import fit_context
from ._base import BaseFlowDensity

# Parameters in which flows that train together may differ.
MEMBER_PARAMETERS = frozenset(
    {
        "learning_rate_init",
        "weight_decay",
        "dropout",
        "tol",
        "n_iter_no_change",
        "random_state",
        "preprocessing",
        "bounds",
        "discrete",
        "contamination",
        "verbose",
    }
)


def stacking_key(parameters):
    """Return what flows must have in common to train together, as far as parameters tell."""
    return repr(sorted((k, v) for k, v in parameters.items() if k not in MEMBER_PARAMETERS))


class FlowDensity(BaseFlowDensity):
    """Base of all flows that are trained by gradient descent: everything but the architecture.

    A subclass implements `_build_bijection`, and defines ``__init__`` only if its parameters or
    their defaults differ. Names in braces in its docstring are replaced by shared parts.
    """

    _parameter_constraints: dict = {
        **BaseFlowDensity._parameter_constraints,
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "input_noise": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str],
    }

    _activation = "relu"  # of the conditioner networks

    def __init__(
        self,
        *,
        n_transforms=5,
        hidden_layer_sizes=(64, 64),
        dropout=0.1,
        preprocessing="quantile",
        bounds=None,
        discrete="auto",
        input_noise=0.0,
        batch_size="auto",
        learning_rate_init=2e-3,
        weight_decay=0.0,
        max_iter=100,
        time_limit=None,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
        tol=1e-4,
        warm_start=False,
        contamination="auto",
        device="auto",
        random_state=None,
        verbose="auto",
    ):
        self.n_transforms = n_transforms
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.preprocessing = preprocessing
        self.bounds = bounds
        self.discrete = discrete
        self.input_noise = input_noise
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.max_iter = max_iter
        self.time_limit = time_limit
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
        """Return a new `skflows.bijections.Bijection` for preprocessed rows."""

    def _hidden_sizes(self):
        """Return the widths of the hidden layers of a network, as a tuple."""
        sizes = self.hidden_layer_sizes
        sizes = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
        are_integers = all(isinstance(s, Integral) and not isinstance(s, bool) for s in sizes)
        if not sizes or not are_integers or min(sizes) < 1:
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r}; it must be an integer of at "
                "least 1, or a tuple of them with one for each hidden layer."
            )
        return tuple(map(int, sizes))

    def _network(self, n_context):
        """Return the arguments of a conditioner network that the parameters set."""
        return {
            "hidden_layer_sizes": self._hidden_sizes(),
            "n_context": n_context,
            "activation": self._activation,
            "dropout": self.dropout,
        }

    def _start_fit(self, table, held_out, warm, increment, max_iter):
        from ..training.flow_fit import GradientFit
        from ..training.joint_fit import NoiseSearch

        if "hidden_layer_sizes" in self._parameter_constraints:
            self._hidden_sizes()  # raises an error before columns are prepared
        searches = self.input_noise == "auto" and not (warm or increment)
        cls = NoiseSearch if searches else GradientFit
        past = None
        if warm:
            past = Past(self.flow_, self.input_noise_, self.n_iter_, self._optimizer_state)
        return cls(self._recipe(max_iter), table, held_out, past, increment)

    @fit_context(prefer_skip_nested_validation=True)
    def _fit_chunks(self, X, X_val, chunk):
        """Fit the density to a table that does not fit into memory, an epoch to each part of it.

        Parameters
        ----------
        X, X_val : array-like
            Parts of the table: rows that set the scaling and the outlier threshold, and rows to
            hold out.
        chunk : callable
            ``chunk(i)`` returns the part of the i-th epoch, an array with as many rows as X.
        """
        return self._fit(X, None, None, False, False, held_out=(X_val, None), chunk=chunk)

    def _end(self, history, flow_fit, only_score=False):
        self.input_noise_ = flow_fit.input_noise
        super()._end(history, flow_fit, only_score)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Table, y: object = None, sample_weight: Weights = None) -> Self:
        """Train one epoch on the rows of X, continuing from the last call.

        The first call sets the scaling; the latest rows set the threshold `offset_`. No rows
        are held out, whatever `early_stopping` says, the learning rate is constant, and there is no
        `time_limit`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least two in the first call.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the likelihood.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        return self._fit(X, y, sample_weight, warm=hasattr(self, "flow_"), increment=True)


def architecture(density, n_features, n_context=0):
    """Return a new bijection of an estimator's architecture, and the objective that trains it.

    An estimator whose training has several phases has the objective of the first one.
    """
    from ..training.losses import LIKELIHOOD

    density._validate_params()
    objective = density._phases(2)[0].get("objective", LIKELIHOOD)
    return density._build_bijection(n_features, n_context), objective


def fit_together(members, parts, exact=False, skip=(), only_score=False):
    """Fit each member to its part of a table, in as few trainings as their shapes allow.

    Parameters
    ----------
    members : list of FlowDensity
        The estimators.
    parts : list of tuple
        Of each member, rows, their weights, and held-out rows with weights or None.
    exact : bool, default=False
        Whether each must be what it would be if fitted alone, up to rounding.
    skip : tuple of type, default=()
        Errors that leave a member, and those that train with it, unfitted.
    only_score : bool, default=False
        Whether to skip what scores do not need, such as the outlier threshold.
    """
    from ..training.joint_fit import fit_jointly

    begun = []
    for member, (X, weight, held_out) in zip(members, parts, strict=True):
        with suppress(*skip):
            member._validate_params()
            flow_fit = member._begin(X, weight, False, False, member.max_iter, held_out)
            with flow_fit.seeded():
                flow_fit.prepare()
            begun.append((member, flow_fit))
    with suppress(*skip):
        histories = fit_jointly([flow_fit for _, flow_fit in begun], exact)
        for (member, flow_fit), history in zip(begun, histories, strict=True):
            try:
                member._end(history, flow_fit, only_score)
            except skip:
                vars(member).pop("flow_", None)
