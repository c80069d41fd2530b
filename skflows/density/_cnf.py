"""Continuous normalizing flow."""

import copy
import math
from numbers import Integral, Real

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..columns.arrays import validate_rows
from ..columns.checks import warn_user
from ..columns.types import Floats, Table
from ..preprocessing.sklearn_compat import Interval, StrOptions
from ._flow_density import FlowDensity

# Fraction of the epochs that are trained by likelihood, at the end.
LIKELIHOOD_FRACTION = {"flow_matching": 0, "both": 0.04, "likelihood": 1}
FINE_TUNING_RATE = 0.2  # of the learning rate, by likelihood after flow matching
EXACT_FEATURES = 32  # up to which a tangent for each column costs less than many probes
CLOSED_FORM_LAYERS = 2  # up to which the trace takes one product, whatever the number of columns
TAIL_SCALE = 5.0  # of preprocessed columns, beyond which they grow logarithmically
COUNTED_ROWS = 256  # training rows, about, whose evaluations a fit counts


class CNFDensity(FlowDensity):
    """Density by continuous normalizing flow: the flow of a differential equation.

    A network parameterises the velocity field that moves rows from the data (time 0) to a standard
    normal (time 1); far from all rows it fades out. It is trained by regression of the velocities
    (flow matching), by likelihood, or by both; scores are exact, to the tolerance of the solver, in
    all cases.

    Parameters
    ----------
    objective : {"flow_matching", "likelihood", "both"}, default="flow_matching"
        What the velocity is trained for. "flow_matching" regresses it on straight paths between
        rows and noise, without solving the equation; "likelihood" maximises the likelihood through
        the solver, at 15 to 30 times the cost of a step; "both" trains the last 4 % of the epochs
        by likelihood, at a fifth of the learning rate.

    coupling : {"independent", "optimal_transport"}, default="independent"
        How flow matching pairs rows with noise: independently, or such that the paths within each
        batch are shortest. Shorter paths take fewer evaluations. Tables that are trained as one
        batch (see ``batch_size``) share the noise between rows, and have no such choice.

    trace : {"auto", "exact", "hutchinson"}, default="auto"
        How the divergence of the velocity is computed: exactly, or by Hutchinson's estimate. "auto"
        is exact for at most 32 columns, and for networks of one or two hidden layers, whose trace
        takes no longer than an evaluation.

    n_probes : int, default=8
        Random vectors of signs for Hutchinson's estimate. Each row has its own, a hash of its
        values and a seed, so that scores are reproducible and independent of the other rows;
        `score_standard_error` estimates their error. Discrete columns are left out of the hash,
        because a score averages over noise on them. Training draws one vector for each row and
        step.

    kinetic_penalty : float, default=0.0
        Weight, in the likelihood, of the squared velocity along the trajectory of a row, summed
        over columns: straight trajectories at constant speed take fewer evaluations. It has no
        effect on flow matching, where the paths are given; use ``coupling="optimal_transport"``
        there.

    jacobian_penalty : float, default=0.0
        Weight of the squared derivatives of the velocity along the trajectory, estimated by one
        random vector. In flow matching it is averaged over the columns, like the loss.

    solver : {"dopri5", "rk4"}, default="dopri5"
        Solver for scores and samples: Dormand-Prince with a step size for each row, or Runge-Kutta
        of order 4 on a grid of ``n_steps``.

    tolerance : float, default=1e-7
        Error that "dopri5" allows in each step, absolute and relative.

    n_steps : int, default=8
        Steps of Runge-Kutta, each of 4 evaluations: in training by likelihood, in scores of
        held-out rows during training, and with ``solver="rk4"``.

    checkpointing : bool, default=False
        Whether training by likelihood keeps only the rows at each step, and recomputes the steps in
        the backward pass: the same gradient in memory that hardly grows with ``n_steps``, for more
        time.

    hidden_layer_sizes : int or tuple of int, default=(128, 128)
        Widths of the hidden layers of the velocity network. A layer as wide as the one before it is
        residual.

    dropout : float, default=0.1
        Fraction of hidden units dropped in each training step; in training by likelihood the same
        ones along the whole trajectory of a row. It prevents very low scores of unusual rows; in
        two or three columns of many rows, 0 fits sharper shapes.

    {preprocessing}

    {data}

    {training}

    Attributes
    ----------
    {trained}

    n_function_evaluations_ : float
        Evaluations of the velocity for one solution from a training row, on average. A score takes
        a solution for each draw of the noise on discrete columns.

    {attributes}

    Notes
    -----
    In flow matching, "loss" in ``history_`` is the mean squared error of the velocities, not a
    likelihood; "validation_score" is always a likelihood, updated every fifth epoch. ``history_``
    also has the parts of the loss, NaN in epochs without them: "matching", the squared error, and
    with penalties "nll", "jacobian" and "kinetic". `partial_fit` with ``objective="both"`` uses
    flow matching.

    The solver, its tolerance and the trace stay as in `fit`, whatever parameters are set
    afterwards.

    Defaults differ from other flows': an epoch of flow matching is cheap, and more of them
    are needed, at a higher rate and with more patience.

    References
    ----------
    Chen, Rubanova, Bettencourt & Duvenaud, "Neural Ordinary Differential Equations", 2018;
    Grathwohl et al., "FFJORD", 2019; Finlay et al., "How to Train Your Neural ODE", 2020; Lipman et
    al., "Flow Matching for Generative Modeling", 2023; Tong et al., "Improving and Generalizing
    Flow-Based Generative Models with Minibatch Optimal Transport", 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import CNFDensity
    >>> X = load_iris().data
    >>> density = CNFDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """

    _parameter_constraints: dict = {
        **{
            name: constraint
            for name, constraint in FlowDensity._parameter_constraints.items()
            if name != "n_transforms"
        },
        "objective": [StrOptions({"flow_matching", "likelihood", "both"})],
        "coupling": [StrOptions({"independent", "optimal_transport"})],
        "trace": [StrOptions({"auto", "exact", "hutchinson"})],
        "n_probes": [Interval(Integral, 1, None, closed="left")],
        "kinetic_penalty": [Interval(Real, 0, None, closed="left")],
        "jacobian_penalty": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({"dopri5", "rk4"})],
        "tolerance": [Interval(Real, 0, 1, closed="neither")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "checkpointing": ["boolean"],
    }

    _has_exact_inverse = False
    _activation = "silu"  # a smooth one takes fewer evaluations

    @property
    def _remedy_for_inexact_inverse(self):  # type: ignore[override]
        return "a smaller tolerance" if self.solver == "dopri5" else "more n_steps"

    def __init__(
        self,
        *,
        objective="flow_matching",
        coupling="independent",
        trace="auto",
        n_probes=8,
        kinetic_penalty=0.0,
        jacobian_penalty=0.0,
        solver="dopri5",
        tolerance=1e-7,
        n_steps=8,
        checkpointing=False,
        hidden_layer_sizes=(128, 128),
        dropout=0.1,
        preprocessing="quantile",
        bounds=None,
        discrete="auto",
        input_noise=0.0,
        batch_size="auto",
        learning_rate_init=1e-2,
        weight_decay=0.0,
        max_iter=300,
        time_limit=None,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=100,
        tol=1e-4,
        warm_start=False,
        contamination="auto",
        device="auto",
        random_state=None,
        verbose="auto",
    ):
        # Without super().__init__, because a continuous flow has no transforms to count.
        self.objective = objective
        self.coupling = coupling
        self.trace = trace
        self.n_probes = n_probes
        self.kinetic_penalty = kinetic_penalty
        self.jacobian_penalty = jacobian_penalty
        self.solver = solver
        self.tolerance = tolerance
        self.n_steps = n_steps
        self.checkpointing = checkpointing
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

    def _build_flow(self, preprocess, n_features, n_context=0):
        from ..bijections import Asinh, Chain
        from ..bijections._conditional import Conditional, FirstColumns
        from ..bijections._flow import ContinuousFlow

        preprocess = Chain([preprocess, Asinh(TAIL_SCALE)])
        bijection = self._build_bijection(n_features, n_context)
        if n_context and self.coupling == "optimal_transport":
            raise ValueError(
                "coupling='optimal_transport' would make the noise of a row depend on its context; "
                "a flow with a context needs coupling='independent'."
            )
        if n_context:
            preprocess = FirstColumns(preprocess, n_features)
            bijection = Conditional(bijection, n_features)
        return ContinuousFlow(preprocess, bijection, self._dequantizer.columns)

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import Continuous
        from ..bijections._ode import DormandPrince, RungeKutta4

        network = self._network(n_context)
        n_layers = len(network["hidden_layer_sizes"])
        exact = self.trace == "exact" or (
            self.trace == "auto"
            and (n_features <= EXACT_FEATURES or n_layers <= CLOSED_FORM_LAYERS)
        )
        solvers = {"dopri5": DormandPrince(self.tolerance), "rk4": RungeKutta4(self.n_steps)}
        return Continuous(
            n_features,
            solver=solvers[self.solver],
            n_probes=0 if exact else self.n_probes,
            # Only flow matching knows the paths; otherwise rows start at rest.
            drift=self.objective != "likelihood",
            **network,
        )

    def _start_fit(self, *args):
        flow_fit = super()._start_fit(*args)
        is_coupled = self.coupling == "optimal_transport"
        if self.objective == "flow_matching" and self.kinetic_penalty:
            self._warn_of_no_effect(
                f"kinetic_penalty={self.kinetic_penalty:g} has no effect on flow matching, where "
                "the paths are given: use coupling='optimal_transport', which shortens them, or "
                "another objective."
            )
        if self.objective == "flow_matching" and self.checkpointing:
            self._warn_of_no_effect(
                "checkpointing=True has no effect on flow matching, which uses no solver."
            )
        if self.objective == "likelihood" and is_coupled:
            self._warn_of_no_effect(
                "coupling='optimal_transport' has no effect on objective='likelihood', which "
                "pairs no rows with noise: use objective='both'."
            )
        elif is_coupled and flow_fit.is_small:
            self._warn_of_no_effect(
                "coupling='optimal_transport' has no effect on a table of fewer than 40 rows, "
                "which is trained as one batch with the same noise for all rows: give a "
                "batch_size, so that each row has its own noise."
            )
        return flow_fit

    @staticmethod
    def _warn_of_no_effect(message):
        warn_user(message)

    def _phases(self, max_iter):
        from ..bijections._ode import RungeKutta4
        from ..training.flow_matching import FlowMatching, SolvedLikelihood

        solver = RungeKutta4(n_steps=self.n_steps, checkpointing=self.checkpointing)
        shared = solver, self.kinetic_penalty, self.jacobian_penalty
        n_last = math.ceil(LIKELIHOOD_FRACTION[self.objective] * max_iter)
        if self.objective == "both":  # a single epoch uses flow matching
            n_last = min(n_last, max_iter - 1)
        phases = [
            {
                "objective": FlowMatching(*shared, self.coupling),
                "max_iter": max_iter - n_last,
            },
            {
                "objective": SolvedLikelihood(*shared),
                "max_iter": n_last,
                "rate": FINE_TUNING_RATE if n_last < max_iter else 1.0,
            },
        ]
        return [phase for phase in phases if phase["max_iter"]]

    def _fitted(self, flow_fit, is_final=False):
        from . import _evaluation

        fitted, X = super()._fitted(flow_fit, is_final), flow_fit.table.X
        few = X[:: max(1, len(X) // COUNTED_ROWS)]
        count = _evaluation.map_rows(fitted["flow_"], "n_evaluations", few)[0]
        return fitted | {"n_function_evaluations_": float(count.mean())}

    def score_standard_error(self, X: Table) -> Floats:
        """Return the standard error of `score_samples` due to Hutchinson's estimate of the trace.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        error : ndarray of shape (n_samples,)
            In nats, from the spread of the probes; 0 if the trace is exact. Errors of different
            rows are independent, unless the rows differ in discrete columns only.
        """
        check_is_fitted(self)
        rows = validate_rows(self, X, reset=False)
        bijection = self.flow_.bijection
        if not bijection.n_probes:
            return np.zeros(len(rows))
        if bijection.n_probes == 1:
            raise ValueError("n_probes=1 has no spread to estimate an error from; use 2 or more.")

        def log_densities(rows):
            return self._map_rows("log_prob_by_probe", rows)[0]

        by_probe = self._dequantizer.mean_density(log_densities, rows)
        return by_probe.std(axis=1, ddof=1) / np.sqrt(bijection.n_probes)

    def solver_error(self, X: Table) -> Floats:
        """Return the change of the scores with half the tolerance (with "rk4", twice the steps).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        error : ndarray of shape (n_samples,)
            Absolute change of `score_samples`, in nats.
        """
        check_is_fitted(self)
        X = validate_rows(self, X, reset=False)
        refined = copy.deepcopy(self.flow_)
        refined.bijection.solver = refined.bijection.solver.refined()
        return np.abs(self._score_by(refined, X) - self._score_rows(X))
