"""The density that approximates a function."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..calibration.thresholds import by_contamination
from ..callbacks._progress import VERBOSE, Lines, is_watched, prints
from ..callbacks._run import clock, fit_task, random_state_of, training_file
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import check_different, check_integer, key_of
from ..columns.checks import warn_user
from ..columns.types import Floats, RandomState, Rows
from ..density._base import FittedFlowMixin
from ..density._flow_density import FlowDensity
from ..density._outlier_labels import OutlierDensityMixin
from ..density._sampling import check_has_names
from ..preprocessing.dequantizer import Dequantizer
from ..preprocessing.sklearn_compat import Interval
from ..training.threads import fit_context

# Shares of a time limit by which these parts are over.
NORMAL_SHARE, MODES_SHARE, TRAINING_SHARE = 0.2, 0.4, 0.85
N_DRAWS, N_SCORED = 8192, 512  # draws that tell how good the fit is, and that set the threshold
N_WIDE = 64  # chains that look for what a flow may have missed
FEWEST_STEPS, MAX_R_HAT = 100, 1.01
NEARLY_ALL, LEAST_ESS, MAX_K = 0.95, 0.5, 0.7  # of reliable fits
MAX_MISSED = 0.02  # share of the states of chains whose weight is above all weights of draws


class RefinedSample(NamedTuple):
    """Draws of `VariationalDensity.refine`, and how far to trust them.

    Attributes
    ----------
    X : ndarray or DataFrame of shape (n_samples, n_features)
        The draws.
    r_hat : ndarray of shape (n_features,)
        Rank-normalised split R-hat of each column: about 1 if the chains agree.
    ess : ndarray of shape (n_features,)
        Effective sample size of each column over all states of the chains, from which the rows of
        ``X`` are a random choice: it may be larger than their number.
    acceptance : float
        Share of the independent proposals that were accepted.
    """

    X: Rows
    r_hat: Floats
    ess: Floats
    acceptance: float


class _TrainingInput(NamedTuple):
    """What each flow of a fit is trained with.

    Attributes
    ----------
    d : int
        Number of whitened columns.
    preprocess : Chain
        Maps rows to whitened ones.
    whitened : TargetDensity
        The target in whitened coordinates.
    generator : torch.Generator
        Draws everything but the initial weights.
    seed : int
        Seed of these.
    until : callable
        Returns the schedule that ends after a share of the time limit.
    task : FitTask
        Its subtasks are epochs.
    identity : Tensor
        Values of the target, by which a stored training is known to be of the same function.
    """

    d: int
    preprocess: Any
    whitened: Any
    generator: Any
    seed: int
    until: Callable
    task: Any
    identity: Any


class VariationalDensity(FittedFlowMixin, OutlierDensityMixin, CallbackSupportMixin, BaseEstimator):
    """Density that approximates a function: variational inference by a normalizing flow.

    The function is the logarithm of a density that is known up to a constant, such as the posterior
    of a Bayesian model. `fit` looks for its modes, finds the best normal distribution, and trains a
    flow on it by the reverse Kullback-Leibler divergence. ``ess_`` and ``pareto_k_`` say how far to
    trust the flow, and `refine` returns corrected draws.

    If a few draws have nearly all of the weight, or Hamiltonian chains that start far out reach
    what the flow does not, it may have missed a part of the function. A second one is then trained:
    it learns states of these chains, and then minimises the forward divergence by its own weighted
    draws. The one with the higher bound of the evidence is kept. The fit then takes two to four
    times as long.

    Parameters
    ----------
    density : FlowDensity, default=None
        The flow, of which the architecture is used: its parameters of training and preprocessing
        have no effect. It runs from latent draws to rows, so that a `MAFDensity` draws in one pass
        and scores column by column. None takes six affine couplings, or splines if there are
        several modes, and for a second flow.

    bounds : array-like of shape (n_features, 2), or dict, default=None
        Lower and upper bound of each column, None where there is none, as in
        ``[(0, None), (None, None)]`` or, by index or name, ``{"sigma": (0, None)}``.

    ordered : list of lists, default=None
        Groups of columns that increase, by index or name.

    simplex : list of lists, default=None
        Groups of columns that are positive and sum to 1, by index or name. Densities are then
        of the columns without the last one of each group.

    n_starts : int, default=32
        Number of points from which modes are looked for.

    batch_size : int, default=256
        Number of draws of a training step.

    learning_rate_init : float, default=0.003
        Peak learning rate of AdamW; it rises over the first 5 % of the steps and falls along a
        cosine to 0 at ``max_iter``.

    max_iter : int, default=150
        Maximum number of epochs, of ten steps each.

    tol : float, default=0.05
        Standard deviation of the log-weights of an epoch at which training stops.

    time_limit : float, default=None
        Seconds from the start of `fit` to the end of training; the search for modes, which takes at
        least one step, and the draws that judge the fit do not count. A second flow is trained if
        the first one took at most 40 % of it.

    random_state : int, RandomState instance or None, default=None
        Seeds the starts, the initial weights and the draws.

    verbose : "auto" or int, default="auto"
        "auto" prints at a terminal or in a notebook how far a fit of more than ten seconds is.
        0 and False print nothing, and other numbers the loss every ``verbose`` epochs.

    Attributes
    ----------
    log_evidence_ : float
        Logarithm of the integral of the exponential of the function, such as the marginal
        likelihood of a model.

    log_evidence_error_ : float
        Its standard error, which knows nothing of modes that were missed.

    ess_ : float
        Effective sample size of a draw of the flow, between 0 and 1: what a weighted draw is worth.

    pareto_k_ : float
        Shape of the upper tail of the weights. Above 0.7, weighted means are unreliable.

    reliable_ : bool
        Whether ``ess_`` is at least 0.95, or at least 0.5 with ``pareto_k_`` at most 0.7. Below
        0.95 it is False, too, if more than 2 % of the states of Hamiltonian chains that start far
        out have weights above the weights of all draws: the flow hardly reaches them. This is not
        checked when more than 40 % of ``time_limit`` are over.

    n_modes_ : int
        Number of modes that the starts found, with 0.1 % of the mass at least. Neither ``ess_`` nor
        ``pareto_k_`` notices a mode that was missed.

    flow_ : torch.nn.Module
        The fitted flow, in float64.

    history_ : dict of list
        "loss" (the negative lower bound of the evidence, in nats), "log_weight_variance",
        "learning_rate" and "validation_score" (the bound on the same latent draws, which chooses
        the best epoch if there are several modes, and of a second flow; NaN otherwise), one entry
        per epoch of the flow that was kept.

    n_iter_ : int
        Number of these epochs.

    best_iter_ : int
        Epoch, counted from 1, whose weights were kept; 0 for those before them.

    offset_ : float
        Log-density below which `predict` labels a row an outlier: the lower Tukey fence of draws.

    n_features_in_ : int
        Number of columns.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if they were given.

    See Also
    --------
    NSFDensity : A density of the rows of a table.

    Notes
    -----
    scikit-learn's `check_estimator` does not apply: `fit` takes a function in place of a table, so
    all its checks that fit to rows, weights or labels, and `fit_predict` and `fit_transform`, have
    no meaning here.
    Parameters, `clone`, errors, `n_features_in_`, feature names, and all methods that take rows
    after `fit` follow the rules of scikit-learn.

    Saved, pickled and copied estimators do not keep the function.

    References
    ----------
    Rezende & Mohamed, "Variational Inference with Normalizing Flows", 2015.

    Agrawal & Domke, "Disentangling Impact of Capacity, Objective, Batchsize, Estimators, and
    Step-Size on Flow VI", 2024.

    Bornschein & Bengio, "Reweighted Wake-Sleep", 2015.

    Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto Smoothed Importance Sampling", 2024.

    Examples
    --------
    >>> from skflows import VariationalDensity
    >>> def log_density(x):  # two independent normal columns, without the constant
    ...     return -0.5 * ((x - 3) / 2).square().sum(1)
    >>> density = VariationalDensity(random_state=0).fit(log_density, n_features=2)
    >>> density.reliable_
    True
    >>> round(density.log_evidence_, 2)  # log(8 pi)
    3.22
    >>> density.sample(3, random_state=0).shape
    (3, 2)
    """

    _log_density: Callable | None = None

    _parameter_constraints: dict = {
        "density": [FlowDensity, None],
        "bounds": ["array-like", dict, None],
        "ordered": ["array-like", None],
        "simplex": ["array-like", None],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        density=None,
        *,
        bounds=None,
        ordered=None,
        simplex=None,
        n_starts=32,
        batch_size=256,
        learning_rate_init=3e-3,
        max_iter=150,
        tol=0.05,
        time_limit=None,
        random_state=None,
        verbose="auto",
    ):
        self.density = density
        self.bounds = bounds
        self.ordered = ordered
        self.simplex = simplex
        self.n_starts = n_starts
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.tol = tol
        self.time_limit = time_limit
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        log_density: Callable,
        n_features: int | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> Self:
        """Fit the density to a function.

        Parameters
        ----------
        log_density : callable
            The logarithm of a density, up to a constant. It is given a float64 tensor of shape
            (n, n_features), and returns a tensor (n,) with a gradient. Or it is given an array, and
            returns a tuple of two arrays: the values (n,) and their gradients (n, n_features). It
            returns -inf where the density is 0.

        n_features : int, default=None
            Number of columns; None for the number of names.

        names : sequence of str, default=None
            Names of the columns.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the function has no gradient, or fails or is not finite at a random point; the error
            names the point.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the fit is not reliable, or the function is NaN at draws of the flow.
        """
        import torch

        from ..bijections import Chain
        from ..training.optimizer import limited
        from ._chains import Hamiltonian, wide_states
        from ._fit import draws_of_modes, draws_of_rows, with_best_normal
        from ._starts import bound_at, find_start
        from ._support import support_map
        from ._target import TargetDensity

        started = clock()
        n_features = self._validate_columns(log_density, n_features, names)
        for name in ("flow_", "feature_names_in_"):
            self.__dict__.pop(name, None)  # a fit that fails leaves nothing fitted
        self.n_features_in_ = n_features
        if names is not None:
            self.feature_names_in_ = np.asarray(names, dtype=object)
        support, d = support_map(n_features, self.bounds, self.ordered, self.simplex, names)
        target = TargetDensity(log_density, support, names)
        random_state = random_state_of(self)
        seed = random_state.randint(2**31 - 1)
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(self.n_starts, d, generator=generator, dtype=torch.float64)
        target.check(points)

        def until(share):
            return limited(self.time_limit and share * self.time_limit, started)

        missed = 0.0
        with fit_task(self, None, max_subtasks=None) as task:  # epochs of one flow or two
            start = find_start(target, points, generator)
            draws = None
            if start.is_multimodal:
                draws = draws_of_modes(start, target, d, generator)
            else:
                settings = {"tol": self.tol, "schedule": until(NORMAL_SHARE)}
                start = with_best_normal(start, target, d, generator, **settings)
            whitened = target.mapped_by(start.preprocess)
            given = _TrainingInput(
                d=d,
                preprocess=Chain([*support.bijections, start.preprocess]),
                whitened=whitened,
                generator=generator,
                seed=seed,
                until=until,
                task=task,
                identity=target(points)[0],
            )
            self.flow_, history = self._train_flow(given, draws)
            self._dequantizer = Dequantizer(np.empty((0, n_features)), {})
            self._whole_dtypes = {}
            self._n_free = d
            self.n_modes_ = len(start.modes)
            share_of_zeros, largest = self._judge(target, random_state)
            if self._may_miss_a_part(history, started):
                states = wide_states(Hamiltonian(whitened, generator), (N_WIDE, d))
                states = states[len(states) // 2 :].flatten(0, 1)
                states = states[whitened(states)[0].isfinite()]
                missed = self._share_missed(whitened, states, largest)
                is_doubtful = self.pareto_k_ > MAX_K or missed > MAX_MISSED
                if draws is None and len(states) and is_doubtful:
                    if prints(self):
                        print("The flow may have missed a part: a second one is trained.")
                    draws = draws_of_rows(states, generator)
                    second = self._train_flow(given, draws, is_second=True)
                    attempts = [(self.flow_, history), second]
                    z = torch.randn(N_DRAWS, d, generator=generator, dtype=torch.float64)
                    bounds = [bound_at(whitened, flow.bijection, z) for flow, _ in attempts]
                    self.flow_, history = attempts[bounds.index(max(bounds))]
                    share_of_zeros, largest = self._judge(target, random_state)
                    missed = self._share_missed(whitened, states, largest)
                self.reliable_ &= missed <= MAX_MISSED
            self._store_history(history, warm=False)
        self._log_density = log_density
        self._warn_of_trouble(history)
        self._warn_of_fit(share_of_zeros, missed)
        return self

    def _train_flow(self, given, draws, is_second=False):
        """Train a flow, first on draws of whitened rows unless None; return it with its history."""
        from ..bijections import Inverse
        from ..bijections._flow import Flow
        from ..training.reverse_kl import ForwardKL, ReverseKL
        from ._fit import PATIENCE, RATE_AFTER, fit_to_draws, train

        bijection = self._build_bijection(given.d, draws is not None, given.seed).float()
        is_fast = not bijection.is_sequential(inverse=True)
        objective = ReverseKL(given.whitened, by_path=is_fast and draws is None)
        rate, patience = self.learning_rate_init, None
        if draws is not None:
            fit_to_draws(bijection, draws, given.generator, given.until(MODES_SHARE))
            if is_second and is_fast:
                objective, patience = ForwardKL(given.whitened), self.max_iter
            else:
                rate, patience = rate * RATE_AFTER, PATIENCE

        def on_epoch_end(history):
            self._print_progress(history, self.max_iter)
            return given.task.end(dict)

        history = train(
            bijection,
            objective,
            given.generator,
            n_features=given.d,
            max_iter=self.max_iter,
            batch_size=self.batch_size,
            learning_rate=rate,
            patience=patience,
            tol=self.tol,
            schedule=given.until(TRAINING_SHARE),
            on_epoch_begin=partial(given.task.begin, "epoch"),
            on_epoch_end=on_epoch_end,
            file=training_file(self, given.seed, given.identity, is_second),
        )
        flow = Flow(given.preprocess, Inverse(bijection))
        return flow.double().eval().requires_grad_(False), history

    def _may_miss_a_part(self, history, started):
        """Whether the weights of draws differ much, and there is time to train again."""
        is_over = history.stopped or history.interrupted
        if self.time_limit is not None:
            is_over |= clock() > started + MODES_SHARE * self.time_limit
        return not is_over and self.ess_ < NEARLY_ALL

    def _share_missed(self, whitened, states, largest):
        """Return the share of whitened states whose log-weight is above the largest of draws.

        The flow has hardly any draws there, so that neither ``ess_`` nor ``pareto_k_`` knows.
        """
        from ..bijections._normal import normal_log_density

        if not len(states):
            return 0.0
        z, log_det = self.flow_.bijection(states)
        log_weight = whitened(states)[0] - normal_log_density(z).sum(1) - log_det
        return (log_weight > largest).double().mean().item()

    def _validate_columns(self, log_density, n_features, names):
        """Return the number of columns, or raise an error."""
        if not callable(log_density):
            raise TypeError(
                f"log_density is a {type(log_density).__name__}; give a function of rows "
                "(n, n_features) that returns the log-density of each, up to a constant. Other "
                "densities are fitted to tables: see NSFDensity."
            )
        if names is not None:
            check_different(names, "names")
            n_features = len(names) if n_features is None else n_features
        is_number = isinstance(n_features, Integral) and not isinstance(n_features, bool)
        if not is_number or n_features < 1 or (names is not None and len(names) != n_features):
            given = "" if names is None else f" with {len(names)} names"
            raise ValueError(
                f"n_features={n_features!r}{given}; give the number of columns that log_density "
                "takes, or a name for each."
            )
        return int(n_features)

    def _build_bijection(self, n_features, is_multimodal, seed):
        """Return a new bijection from latent draws to whitened rows."""
        import torch

        from ..training.torch_state import torch_seed
        from ._fit import default_bijection

        with torch_seed(seed, torch.device("cpu")):
            if self.density is None:
                return default_bijection(n_features, is_multimodal)
            self.density._validate_params()
            return self.density._build_bijection(n_features)

    def importance_sample(
        self,
        n_samples: int = 1000,
        random_state: RandomState = None,
        *,
        log_density: Callable | None = None,
        as_frame: bool = False,
    ) -> tuple[Rows, Floats]:
        """Draw rows with weights that correct for the difference to the fitted function.

        Parameters
        ----------
        n_samples : int, default=1000
            Number of rows.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        log_density : callable, default=None
            The function, which a saved or copied estimator does not keep.

        as_frame : bool, default=False
            Whether the rows are a pandas DataFrame with the names of the columns, as in `sample`.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            The rows.

        weights : ndarray of shape (n_samples,)
            Their weights, which sum to 1; the largest ones are smoothed (Vehtari et al., 2024).
        """
        check_is_fitted(self)
        check_integer("n_samples", n_samples)
        if as_frame:
            check_has_names(self)
        target = self._target_for(log_density)
        X, _, weights = self._weighted_draws(target, n_samples, check_random_state(random_state))
        return self._frame(X) if as_frame else X, weights.weights

    def refine(
        self,
        n_samples: int = 1000,
        random_state: RandomState = None,
        *,
        n_chains: int = 64,
        max_steps: int = 1000,
        log_density: Callable | None = None,
        as_frame: bool = False,
    ) -> RefinedSample:
        """Draw rows of the fitted function by Markov chains that use the flow.

        Each step proposes an independent draw of the flow, then makes a Hamiltonian trajectory from
        where the chain is, by turns in latent space and in the space of whitened rows. Its length
        is random, up to the one at which half of the chains turned back in the warm-up. A good fit
        makes the chains short. If they disagree
        at first, because the fit is poor, spline couplings learn their states and take the place of
        the flow. If they still disagree, affine couplings are trained on the function, as in `fit`,
        and at last splines once more. The rows are a random choice of the chains' states since they
        agreed, or since the last flow was learned.
        For a person who waits, steps are counted in lines, as epochs are in `fit`.
        The time hardly depends on ``n_samples``: at least 100 steps are made, which by default
        suffice for 6,400 rows.

        ``max_steps`` limits only the steps whose states may become rows. Before these, each chain
        makes up to 100 steps, or up to 700 if the chains disagree. Training the affine couplings
        evaluates the function at up to 256,000 rows: 100 epochs of 10 mini-batches of 256.

        Parameters
        ----------
        n_samples : int, default=1000
            Number of rows.

        random_state : int, RandomState instance or None, default=None
            Seed of the chains.

        n_chains : int, default=64
            Number of chains, which run side by side. Every second one starts at a weighted draw of
            the flow, and the others at wide draws that move without the flow at first: if the flow
            misses a part of the function, R-hat says so.

        max_steps : int, default=1000
            Largest number of steps of each chain from which rows are chosen. They end when R-hat is
            at most 1.01 for all columns, and there are enough rows.

        log_density : callable, default=None
            The function, which a saved or copied estimator does not keep.

        as_frame : bool, default=False
            Whether the rows are a pandas DataFrame with the names of the columns, as in `sample`.

        Returns
        -------
        sample : RefinedSample
            A named tuple: the rows ``X``, ``r_hat`` and ``ess`` of each column, and the share
            ``acceptance`` of independent draws that the chains accepted. There is a warning if an
            R-hat is above 1.01.

        References
        ----------
        Hoffman et al., "NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural
        Transport", 2019.

        Gabrié, Rotskoff & Vanden-Eijnden, "Adaptive Monte Carlo Augmented with Normalizing Flows",
        2022.
        """
        import torch

        from ..training.torch_state import one_thread
        from ._chains import adapted_chains, diagnostics

        check_is_fitted(self)
        check_integer("n_samples", n_samples)
        check_integer("n_chains", n_chains)
        check_integer("max_steps", max_steps, least=4)
        if as_frame:
            check_has_names(self)
        if n_samples > n_chains * max_steps:
            raise ValueError(
                f"{n_samples=} is more than {n_chains=} times {max_steps=}; raise one of them."
            )
        random = check_random_state(random_state)
        target = self._target_for(log_density)
        preprocess, flow = self.flow_.preprocess, self.flow_.bijection
        fewest = min(max(FEWEST_STEPS, -(-n_samples // n_chains)), max_steps)
        with one_thread(), torch.no_grad():
            _, z, weights = self._weighted_draws(target, N_DRAWS, random)
            z = torch.from_numpy(z[random.choice(len(z), n_chains, p=weights.weights)])
            generator = torch.Generator().manual_seed(random.randint(2**31 - 1))
            whitened = target.mapped_by(preprocess.bijections[-1])
            lines = Lines() if prints(self) or is_watched(self) else None
            chains, run = adapted_chains(whitened, flow, flow.inverse(z)[0], generator, lines)
            run = run or chains.run(fewest)
            parts: list = []
            n_accepted = 0.0
            while True:
                states, acceptance = run
                states = states[:max_steps]
                n_accepted += acceptance * len(states)
                parts.append(preprocess.inverse(states.flatten(0, 1))[0].numpy())
                rows = np.concatenate(parts)
                r_hat, ess = diagnostics(rows.reshape(-1, n_chains, rows.shape[1]))
                n_done = len(rows) // n_chains
                agree = n_done >= fewest and r_hat.max() <= MAX_R_HAT
                if agree or n_done >= max_steps:
                    break
                run = chains.run(min(max(n_done, fewest - n_done), max_steps - n_done))
        chosen = random.choice(len(rows), n_samples, replace=False)
        if not (worst := r_hat.max()) <= MAX_R_HAT:
            column = key_of(r_hat.argmax(), getattr(self, "feature_names_in_", None))
            warn_user(
                f"The chains do not agree after {n_done} steps: r_hat is {worst:.3f} for column "
                f"{column!r}, and at most {MAX_R_HAT} if they do. Means, deviations and tails of "
                "the draws may be wrong. Raise max_steps, or improve the fit by a larger max_iter "
                "or another density.",
                ConvergenceWarning,
            )
        X = self._frame(rows[chosen]) if as_frame else rows[chosen]
        return RefinedSample(X, r_hat, ess, n_accepted / n_done)

    def _target_for(self, log_density):
        """Return the target of the fit, or of the function of an estimator that was saved."""
        import torch

        from ..bijections import Chain
        from ._target import TargetDensity

        log_density = log_density or self._log_density
        if log_density is None:
            raise ValueError(
                "This estimator was saved or copied, which keeps no functions: give log_density."
            )
        support = Chain(self.flow_.preprocess.bijections[:-1])
        target = TargetDensity(log_density, support, getattr(self, "feature_names_in_", None))
        target.find_kind(torch.from_numpy(self._sample_rows(2, np.random.RandomState(0))))
        return target

    def _weighted_draws(self, target, n_samples, random_state):
        """Return rows, their latent coordinates and their weights."""
        import torch

        from ..bijections._normal import normal_log_density
        from ._importance import importance_weights

        latent = random_state.standard_normal((n_samples, self._n_features_out))
        X, log_det = self._map_rows("inverse", latent)
        log_q = normal_log_density(latent).sum(axis=1) - log_det
        rows = torch.from_numpy(X)
        values = target.values(rows)
        is_bad = values.isnan() | (values == torch.inf)
        if is_bad.any():
            row = int(is_bad.nonzero()[0])
            warn_user(
                f"log_density is {values[row]:g} at {int(is_bad.sum())} of {n_samples} draws, such "
                f"as {target.described(rows[row])}; they count as -inf. Return -inf where the "
                "density is 0, and a finite value elsewhere.",
                ConvergenceWarning,
            )
            values = values.masked_fill(is_bad, -torch.inf)
        return X, latent, importance_weights(values.numpy() - log_q)

    def _judge(self, target, random_state):
        """Set what draws of the flow say about the fit.

        Return the share of weights of 0, and the logarithm of the largest weight.
        """
        X, _, weights = self._weighted_draws(target, N_DRAWS, random_state)
        self.log_evidence_ = weights.log_mean
        self.log_evidence_error_ = weights.log_mean_error
        self.ess_, self.pareto_k_ = weights.ess, weights.pareto_k
        least = LEAST_ESS if self.pareto_k_ <= MAX_K else NEARLY_ALL
        self.reliable_ = bool(self.ess_ >= least)
        scores = self._score_rows(X[:N_SCORED])
        self.offset_ = by_contamination("auto", scores, np.ones(len(scores)))
        largest = weights.log_mean + np.log(N_DRAWS * weights.weights.max())
        return np.mean(weights.weights == 0), largest

    def _warn_of_fit(self, share_of_zeros, missed):
        if self.reliable_:
            return
        cause = ""
        if missed > MAX_MISSED:
            cause = (
                f"{missed:.0%} of the states of Markov chains that start far out are where it has "
                "hardly any draws. "
            )
        remedy = "refine(n) returns corrected draws. "
        if self.ess_ < LEAST_ESS:
            remedy = "If the function has no finite integral, state bounds or priors. "
        if share_of_zeros > 1 - NEARLY_ALL:
            cause += (
                f"{share_of_zeros:.0%} of its draws have a weight of 0: state by bounds, ordered "
                "or simplex where the density is positive. "
            )
        warn_user(
            f"The flow does not fit the density (ess_={self.ess_:.2f}, pareto_k_="
            f"{self.pareto_k_:.2f}; a reliable fit has an ess_ of at least {NEARLY_ALL}, or of "
            f"{LEAST_ESS} with a pareto_k_ of at most {MAX_K}): moments and log_evidence_ may be "
            f"wrong. {cause}{remedy}Try a larger max_iter, a density such as "
            "NSFDensity(autoregressive=False), or coordinates in which parameters depend less on "
            "each other.",
            ConvergenceWarning,
        )

    def _scaled_to_simplex(self, rows, kept):
        """Return rows whose simplex columns sum to 1, by scaling all but the kept columns."""
        from ._support import Simplex

        rows = rows.copy()
        for step in self.flow_.preprocess.bijections:
            if not isinstance(step, Simplex):
                continue
            if scaled := [j for j in step.columns if j not in kept]:
                of_kept = rows[:, [j for j in step.columns if j in kept]].sum(1)
                rows[:, scaled] *= ((1 - of_kept) / rows[:, scaled].sum(1))[:, None]
        return rows

    @property
    def _n_features_out(self):
        return self._n_free

    def __getstate__(self):
        # Taken out before, because the state of a function that is a module would name its class.
        function, self._log_density = self._log_density, None
        try:
            return super().__getstate__()
        finally:
            self._log_density = function
