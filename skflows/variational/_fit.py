"""Training a map of latent draws by the reverse Kullback-Leibler divergence."""

import torch

from ..bijections import Affine, Chain, Coupling, Inverse, LULinear, RationalQuadraticSpline
from ..bijections._flow import standard_normal_log_prob
from ..density._nsf import TAIL_BOUND
from ..training.optimizer import cosine_with_warm_up
from ..training.reverse_kl import ReverseKL
from ..training.torch_state import suitable_threads, torch_seed
from ..training.trainer import Rows, Trainer, train_in_phases
from ._starts import affine_map, bound_at, composed

STEPS = 10  # of an epoch
N_COMPARED = 4096  # draws that compare two normal distributions
EMA_DECAY = 0.99
# The normal approximation, in coordinates in which it starts as a standard normal.
NORMAL = {"max_iter": 30, "batch_size": 128, "learning_rate": 0.02}
# The likelihood of given draws, and the training after it.
OF_DRAWS: dict = {"max_iter": 15, "batch_size": 256, "learning_rate": 3e-3}
OF_TARGET = {"max_iter": 100, "batch_size": 256, "learning_rate": 3e-3, "tol": 0.05}
N_OF_DRAWS = STEPS * OF_DRAWS["batch_size"]
RATE_AFTER, N_VALIDATED, PATIENCE = 0.3, 2048, 25
N_TRANSFORMS, HIDDEN, N_BINS = 6, (64, 64), 8


def default_bijection(n_features, is_multimodal):
    """Return the bijection of the default flow, from latent draws to whitened rows.

    A single mode takes affine couplings; splines can move draws apart, to several.
    """
    univariate = RationalQuadraticSpline(N_BINS, TAIL_BOUND) if is_multimodal else Affine()
    steps: list = []
    for _ in range(N_TRANSFORMS):
        steps.append(LULinear(n_features))
        steps.append(Coupling(n_features, univariate, HIDDEN, activation="silu"))
    return Coupling.chain(n_features, steps)


def with_best_normal(start, target, n_features, generator, **settings):
    """Return a `Start` at the best normal distribution, as far as it is better than the given one.

    Parameters
    ----------
    start : Start
        Where to begin.
    target : TargetDensity
        Log-density and gradient of unconstrained rows.
    n_features : int
        Number of their columns.
    generator : torch.Generator
        Draws the latent rows.
    **settings : objects
        Further arguments of `train`.
    """
    affine = Chain([LULinear(n_features)]).double()
    objective = ReverseKL(target.mapped_by(start.preprocess))
    train(affine, objective, generator, **{"n_features": n_features} | NORMAL | settings)
    z = torch.randn(N_COMPARED, n_features, generator=generator, dtype=torch.float64)
    maps = [start.preprocess, composed(start.preprocess, affine)]
    best = max(maps, key=lambda preprocess: bound_at(target, preprocess, z))
    return start._replace(preprocess=best)


def draws_of_modes(start, target, n_features, generator):
    """Return a function that draws whitened rows of the normal distributions at all modes.

    The draws are resampled by their importance weights. The reverse divergence hardly moves mass
    from one mode to another that is far away, and may lose a mode.
    """
    shares = torch.tensor(start.shares, dtype=torch.float64)
    locs = torch.stack([mode.loc for mode in start.modes])
    roots = torch.linalg.cholesky(torch.stack([mode.covariance for mode in start.modes]))
    log_dets = roots.diagonal(dim1=1, dim2=2).log().sum(1)

    @torch.no_grad()
    def draws(*_):
        n = N_OF_DRAWS
        chosen = torch.multinomial(shares, n, True, generator=generator)
        z = torch.randn(n, n_features, 1, generator=generator, dtype=torch.float64)
        rows = locs[chosen] + (roots[chosen] @ z).squeeze(-1)
        apart = (rows[:, None] - locs).mT  # (n, d, modes)
        unit = torch.linalg.solve_triangular(roots, apart.permute(2, 1, 0), upper=False)
        log_q = torch.logsumexp(standard_normal_log_prob(unit.mT).T - log_dets + shares.log(), 1)
        ratio = (target(rows)[0] - log_q).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        kept = torch.multinomial(ratio.softmax(0), n, True, generator=generator)
        return start.preprocess(rows[kept])[0].float()

    return draws


def draws_of_rows(rows, generator):
    """Return a function that draws from rows."""
    rows = rows.float()
    return lambda *_: rows[torch.randint(len(rows), (N_OF_DRAWS,), generator=generator)]


def learned_flow(y, generator, target=None):
    """Return a flow from rows to latent ones that is trained by the likelihood of these rows.

    Its architecture depends on ``target``: spline couplings without, affine couplings with one.

    Parameters
    ----------
    y : Tensor of shape (n, d)
        The rows.
    generator : torch.Generator
        Draws everything.
    target : TargetDensity, default=None
        Log-density and gradient of rows. If given, the flow is trained on them afterwards.
    """
    d = y.shape[1]
    whiten = affine_map(y.mean(0), y.T.cov().reshape(d, d), principal=True)
    with torch_seed(int(torch.randint(2**31, (), generator=generator)), y.device):
        bijection = default_bijection(d, is_multimodal=target is None)
    draws = draws_of_rows(whiten(y)[0], generator)
    with torch.inference_mode(False), torch.enable_grad():
        fit_to_draws(bijection, draws, generator, cosine_with_warm_up)
        if target is not None:
            objective = ReverseKL(target.mapped_by(whiten))
            train(bijection, objective, generator, n_features=d, **OF_TARGET)
    return Chain([whiten, Inverse(bijection)]).double().eval().requires_grad_(False)


def fit_to_draws(bijection, draws, generator, schedule):
    """Train a bijection from latent draws to rows by the likelihood of rows, drawn each epoch."""
    rows = draws()
    with suitable_threads(bijection, OF_DRAWS["batch_size"]):
        Trainer(
            Inverse(bijection),
            Rows(rows, torch.ones(len(rows), dtype=rows.dtype)),
            ema_decay=EMA_DECAY,
            generators=[generator],
            redraw=draws,
            use_dropout=False,
            schedule=schedule,
            **OF_DRAWS,
        ).fit()


def train(
    bijection,
    objective,
    generator,
    *,
    max_iter,
    batch_size,
    learning_rate,
    tol,
    n_features,
    schedule=cosine_with_warm_up,
    patience=None,
    on_epoch_begin=None,
    on_epoch_end=None,
    file=None,
):
    """Train a bijection that maps latent draws to rows of a target.

    Parameters
    ----------
    bijection : Bijection
        The map, in the dtype of the training.
    objective : ReverseKL
        The divergence.
    generator : torch.Generator
        Draws the latent rows.
    max_iter : int
        Largest number of epochs, of `STEPS` steps each.
    batch_size : int
        Draws of a step.
    learning_rate : float
        Peak rate.
    tol : float
        Standard deviation of the log-weights of an epoch at which the training ends.
    n_features : int
        Number of columns of a latent row.
    schedule : callable, default=cosine_with_warm_up
        See `Trainer`.
    patience : int, default=None
        Epochs without a better bound of the evidence, on the same latent draws, after which the
        training ends with the weights of the best epoch. None does not compare epochs.
    on_epoch_begin, on_epoch_end : callable, optional
        See `Trainer`.
    file : TrainingFile, optional
        Stores the state after epochs.

    Returns
    -------
    history : History
    """
    p = next(bijection.parameters())
    shape = batch_size * STEPS, n_features

    def draws(*_):
        return torch.randn(shape, generator=generator, dtype=p.dtype)

    held_out = torch.randn(N_VALIDATED, n_features, generator=generator, dtype=p.dtype)

    def is_over(history):
        stop = on_epoch_end is not None and on_epoch_end(history)
        variances = history.parts.get("log_weight_variance")  # none if no epoch had a finite step
        return stop or (variances is not None and variances[-1] < tol**2)

    with suitable_threads(bijection, batch_size):
        return train_in_phases(
            [{"max_iter": max_iter, "schedule": schedule}],
            bijection,
            Rows(draws(), torch.ones(shape[0], dtype=p.dtype)),
            Rows(held_out, torch.ones_like(held_out[:, 0])) if patience else None,
            n_iter_no_change=patience or max_iter,
            batch_size=batch_size,
            learning_rate=learning_rate,
            ema_decay=EMA_DECAY,
            generators=[generator],
            redraw=draws,
            use_dropout=False,
            objective=objective,
            on_epoch_begin=on_epoch_begin,
            on_epoch_end=is_over,
            file=file,
        )
