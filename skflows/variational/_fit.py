"""Training a map of latent draws by the reverse Kullback-Leibler divergence."""

import torch

from ..bijections import Affine, Chain, Coupling, LULinear, RationalQuadraticSpline
from ..density._nsf import TAIL_BOUND
from ..training.optimizer import cosine_with_warm_up
from ..training.reverse_kl import ReverseKL
from ..training.torch_state import suitable_threads
from ..training.trainer import Rows, train_in_phases
from ._starts import composed, evidence_bound
from ._target import Whitened

STEPS = 10  # of an epoch
N_COMPARED = 4096  # draws that compare two normal distributions
EMA_DECAY = 0.99
# The normal approximation, in coordinates in which it starts as a standard normal.
NORMAL = {"max_iter": 30, "batch_size": 128, "learning_rate": 0.02}
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
    target : callable
        Log-density and gradient of unconstrained rows.
    n_features : int
        Number of their columns.
    generator : torch.Generator
        Draws the latent rows.
    **settings : objects
        Further arguments of `train`.
    """
    affine = Chain([LULinear(n_features)]).double()
    whitened = Whitened(target, start.preprocess, n_features)
    settings = {"by_path": True, "n_features": n_features} | NORMAL | settings
    train(affine, whitened, generator, **settings)
    z = torch.randn(N_COMPARED, n_features, generator=generator, dtype=torch.float64)
    maps = [start.preprocess, composed(start.preprocess, affine)]
    best = max(maps, key=lambda preprocess: evidence_bound(target, preprocess, z))
    return start._replace(preprocess=best)


def train(
    bijection,
    target,
    generator,
    *,
    by_path,
    max_iter,
    batch_size,
    learning_rate,
    tol,
    n_features,
    schedule=cosine_with_warm_up,
    on_epoch_begin=None,
    on_epoch_end=None,
    file=None,
):
    """Train a bijection that maps latent draws to rows of a target.

    Parameters
    ----------
    bijection : Bijection
        The map, in the dtype of the training.
    target : callable
        Log-density and gradient of rows.
    generator : torch.Generator
        Draws the latent rows.
    by_path : bool
        See `ReverseKL`.
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

    def is_over(history):
        stop = on_epoch_end is not None and on_epoch_end(history)
        return stop or history.parts["log_weight_variance"][-1] < tol**2

    with suitable_threads(bijection, batch_size):
        return train_in_phases(
            [{"max_iter": max_iter, "schedule": schedule}],
            bijection,
            Rows(draws(), torch.ones(shape[0], dtype=p.dtype)),
            batch_size=batch_size,
            learning_rate=learning_rate,
            ema_decay=EMA_DECAY,
            generators=[generator],
            redraw=draws,
            use_dropout=False,
            objective=ReverseKL(target, by_path),
            on_epoch_begin=on_epoch_begin,
            on_epoch_end=is_over,
            file=file,
        )
