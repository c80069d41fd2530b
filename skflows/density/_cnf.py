"""Continuous normalizing flow."""

import math
import warnings
from numbers import Integral, Real

from sklearn.utils._param_validation import Interval, StrOptions

from ._accuracy import AccuracyMixin
from ._trained import FlowDensity

FINE_TUNED = {"flow_matching": 0, "both": 0.04, "likelihood": 1}  # part of the epochs
FINE_RATE = 0.2  # of the learning rate, for what matching has left to do
EXACT_FEATURES = 32  # up to which a tangent for each column costs less than many probes
CLOSED_FORM_LAYERS = 2  # whose trace takes one product, whatever the number of columns
TAIL_SCALE = 5.0  # of preprocessed columns, from which on they grow as a logarithm
COUNTED_ROWS = 256  # training rows, about, whose evaluations a fit counts


class CNFDensity(AccuracyMixin, FlowDensity):
    """Density by continuous normalizing flow: the flow of a differential equation.

    A network tells each row its velocity at each time on the way from the data (time 0) to a
    standard normal (time 1); far from all rows it fades out. It is trained by regression of the
    velocities (flow matching), by likelihood, or by both; scores are exact, to the tolerance of
    the solver, in all cases.

    Parameters
    ----------
    training : {"flow_matching", "likelihood", "both"}, default="flow_matching"
        What the velocity is trained for. "flow_matching" regresses it on straight ways between
        rows and noise, without solving the equation; "likelihood" maximises the likelihood
        through the solver, at some 15 to 30 times the cost of a step; "both" spends the last
        twenty-fifth of the epochs on the likelihood, at a fifth of the learning rate.

    coupling : {"independent", "optimal_transport"}, default="independent"
        Which noise the straight ways of flow matching lead to: any, or, within each batch, that
        which makes the ways shortest in all. The velocities then need fewer evaluations. Tables
        that are trained whole, see ``batch_size``, take the same noise for all rows, and cannot.

    trace : {"auto", "exact", "hutchinson"}, default="auto"
        How the divergence of the velocity is computed: exactly, or by Hutchinson's estimate.
        "auto" is exact for at most 32 columns, and for networks of one or two hidden layers,
        whose trace takes no longer than an evaluation.

    n_probes : int, default=8
        Random vectors of Hutchinson's estimate. Each row has its own, drawn from its values and a
        seed, so that scores repeat and a row's does not depend on the others;
        `score_standard_error` says how far off the scores are. Values in discrete columns do not
        count here, as a score is a mean over draws around them: rows that differ in nothing else
        share their vectors. Training takes one, drawn anew for each row in each step.

    noise : {"rademacher", "gaussian"}, default="rademacher"
        Distribution of these vectors: signs, or normal numbers.

    kinetic_penalty : float, default=0.0
        Weight, in the likelihood, of the squared velocity along the way of a row, summed over
        columns: shorter ways at an even pace need fewer evaluations. Flow matching gives the
        ways and takes no notice; there, ``coupling="optimal_transport"`` shortens them.

    jacobian_penalty : float, default=0.0
        Weight of the squared derivatives of the velocity along the way, estimated by one random
        vector. It counts in flow matching too, as a mean over the columns like the loss there.

    n_augmented : int, default=0
        Columns of standard normal noise that move along with the rows, which lets the ways of
        rows pass one another. The flow then has a density of rows and noise together, and
        `score_samples` is no longer exact: it is the log of an importance-weighted estimate of
        the rows' density. The estimate has no bias; its log is too low, on average, by an amount
        that vanishes with ``n_importance_samples``. `transform` maps rows with noise 0, to
        ``n_features + n_augmented`` coordinates; `sample` leaves the noise out. Only training by
        likelihood makes use of the noise: independent ways, as matching draws them, keep it to
        itself.

    n_importance_samples : int, default=16
        Draws of this noise over which a score is averaged, the same for all rows. A score takes
        so many times as long.

    solver : {"dopri5", "rk4"}, default="dopri5"
        What solves the equation for scores and samples: Dormand-Prince with a step size for
        each row, or Runge-Kutta of order 4 on a grid of ``n_steps``.

    tolerance : float, default=1e-7
        Error that "dopri5" allows in each step, absolute and relative.

    n_steps : int, default=8
        Steps of Runge-Kutta, each of 4 evaluations: in training by likelihood, to score
        held-out rows in training, and with ``solver="rk4"``.

    adjoint : bool, default=False
        Whether training by likelihood keeps no more than the rows at each step, and goes through
        the steps again for the gradient (checkpoints, not an equation backwards): the same
        gradient, in memory that hardly grows with ``n_steps``, for more time where memory is not
        what takes it.

    hidden_layer_sizes : int or tuple of int, default=(128, 128)
        Widths of the hidden layers of the velocity network. A layer as wide as the one before it
        is residual.

    activation : {"relu", "tanh", "silu", "gelu", "elu"}, default="silu"
        Activation of the hidden layers; a smooth one needs fewer evaluations.

    dropout : float, default=0.1
        Fraction of hidden units dropped in each training step; in training by likelihood the same
        ones all along the way of a row. It keeps rows off the beaten track from scores that are
        far too low; in two or three columns of many rows 0 fits sharper shapes.

    {preprocessing}

    {data}

    {training}

    Attributes
    ----------
    {trained}

    n_function_evaluations_ : float
        Evaluations of the velocity that one solution from a training row takes, on average.
        Its score takes a solution for each importance sample, and each draw of discrete columns.

    {attributes}

    Notes
    -----
    In flow matching, "loss" in ``history_`` is the mean squared error of the velocities, not a
    likelihood; "validation_score" is one always, renewed in every fifth epoch. ``history_`` also
    has the parts of the loss, nan in the epochs without them: "matching", the squared error, and
    with penalties "nll", "jacobian" and "kinetic". `partial_fit` with ``training="both"`` matches.

    The solver, its tolerance, the trace and the columns of noise stay those of `fit`, whatever
    parameters are set afterwards.

    Defaults differ from those of other flows: an epoch of matching is cheap, and more of them
    are needed, at a higher rate and with more patience.

    References
    ----------
    Chen, Rubanova, Bettencourt & Duvenaud, "Neural Ordinary Differential Equations", 2018;
    Grathwohl et al., "FFJORD", 2019; Dupont, Doucet & Teh, "Augmented Neural ODEs", 2019; Finlay
    et al., "How to Train Your Neural ODE", 2020; Lipman et al., "Flow Matching for Generative
    Modeling", 2023; Tong et al., "Improving and Generalizing Flow-Based Generative Models with
    Minibatch Optimal Transport", 2024.

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
        "training": [StrOptions({"flow_matching", "likelihood", "both"})],
        "coupling": [StrOptions({"independent", "optimal_transport"})],
        "trace": [StrOptions({"auto", "exact", "hutchinson"})],
        "n_probes": [Interval(Integral, 1, None, closed="left")],
        "noise": [StrOptions({"rademacher", "gaussian"})],
        "kinetic_penalty": [Interval(Real, 0, None, closed="left")],
        "jacobian_penalty": [Interval(Real, 0, None, closed="left")],
        "adjoint": ["boolean"],
        "n_augmented": [Interval(Integral, 0, None, closed="left")],
        "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
        "solver": [StrOptions({"dopri5", "rk4"})],
        "tolerance": [Interval(Real, 0, 1, closed="neither")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
    }

    @property
    def _remedy_of_inexact_inverse(self):
        return "a smaller tolerance" if self.solver == "dopri5" else "more n_steps"

    def __init__(
        self,
        *,
        training="flow_matching",
        coupling="independent",
        trace="auto",
        n_probes=8,
        noise="rademacher",
        kinetic_penalty=0.0,
        jacobian_penalty=0.0,
        n_augmented=0,
        n_importance_samples=16,
        solver="dopri5",
        tolerance=1e-7,
        n_steps=8,
        adjoint=False,
        hidden_layer_sizes=(128, 128),
        activation="silu",
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
        compile=False,
        random_state=None,
        verbose=0,
    ):
        # Not super().__init__: a continuous flow has no transforms to count.
        self.training = training
        self.coupling = coupling
        self.trace = trace
        self.n_probes = n_probes
        self.noise = noise
        self.kinetic_penalty = kinetic_penalty
        self.jacobian_penalty = jacobian_penalty
        self.n_augmented = n_augmented
        self.n_importance_samples = n_importance_samples
        self.solver = solver
        self.tolerance = tolerance
        self.n_steps = n_steps
        self.adjoint = adjoint
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
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
        self.compile = compile
        self.random_state = random_state
        self.verbose = verbose

    def _build_flow(self, preprocess, n_features):
        from .._flow import ContinuousFlow
        from ..bijections import Asinh, Chain

        preprocess = Chain([preprocess, Asinh(TAIL_SCALE)])
        return ContinuousFlow(
            preprocess,
            self._build_bijection(n_features + self.n_augmented),
            self.n_augmented,
            self.n_importance_samples,
            self._dequantizer.columns,
        )

    def _build_bijection(self, n_features, n_context=0):
        from .._ode import DormandPrince, RungeKutta4
        from ..bijections import Continuous

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
            noise=self.noise,
            # Without matching, nothing is known of the ways: a row starts out at rest.
            drift=self.training != "likelihood",
            **network,
        )

    def _start_run(self, *args):
        run = super()._start_run(*args)
        coupled = self.coupling == "optimal_transport"
        idle = []
        if self.training == "flow_matching" and self.kinetic_penalty:
            idle.append(
                f"kinetic_penalty={self.kinetic_penalty:g} has no effect on flow matching, where "
                "the ways are given: coupling='optimal_transport' shortens them, or choose "
                "another training."
            )
        if self.training == "flow_matching" and self.adjoint:
            idle.append(
                "adjoint=True has no effect on flow matching, which goes through no solver."
            )
        if self.training == "likelihood" and coupled:
            idle.append(
                "coupling='optimal_transport' has no effect on training='likelihood', which "
                "couples no rows with noise: 'both' matches first."
            )
        elif coupled and run.whole:
            idle.append(
                "coupling='optimal_transport' has no effect on a table of fewer than 40 rows, "
                "which is trained whole, with the same noise for all rows: give a batch_size to "
                "couple each row with noise of its own."
            )
        for message in idle:
            warnings.warn(message, stacklevel=6)
        return run

    def _phases(self, max_iter):
        from .._matching import FlowMatching, SolvedLikelihood
        from .._ode import RungeKutta4

        solver = RungeKutta4(n_steps=self.n_steps, adjoint=self.adjoint)
        shared = solver, self.kinetic_penalty, self.jacobian_penalty
        n_last = math.ceil(FINE_TUNED[self.training] * max_iter)
        if self.training == "both":  # a single epoch matches
            n_last = min(n_last, max_iter - 1)
        phases = [
            {
                "objective": FlowMatching(*shared, self.coupling),
                "max_iter": max_iter - n_last,
            },
            {
                "objective": SolvedLikelihood(*shared),
                "max_iter": n_last,
                "rate": FINE_RATE if n_last < max_iter else 1.0,
            },
        ]
        return [phase | {"compile": self.compile} for phase in phases if phase["max_iter"]]

    def _fitted(self, run, X, weight):
        from . import _engine

        fitted = super()._fitted(run, X, weight)
        few = X[:: max(1, len(X) // COUNTED_ROWS)]
        count = _engine.map_rows(fitted["flow_"], "n_evaluations", few)[0]
        return fitted | {"n_function_evaluations_": float(count.mean())}

    @property
    def _n_features_out(self):
        return self.n_features_in_ + self.flow_.noise.shape[1]
