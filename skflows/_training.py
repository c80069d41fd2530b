"""The one training loop: maximum likelihood by AdamW on one flat vector of weights."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from ._flow import standard_normal_log_prob

WARM_UP = 0.05  # fraction of the steps over which the rate rises
EMA_DECAY = 0.998
MAX_GRADIENT_NORM = 5.0
EPS = 1e-6  # of Adam: larger than rounding, which would else move weights of no gradient
BACK_OFF = 0.3  # factor on the rate after a step that was not finite
MAX_RECOVERIES = 8
EVALUATION_ROWS = 4096


@dataclass
class History:
    """What a run of `fit_flow` did; the lists have one entry per epoch."""

    loss: list = field(default_factory=list)
    validation_score: list = field(default_factory=list)
    learning_rate: list = field(default_factory=list)
    best_iter: int = 0
    best_score: float | None = None
    diverged: bool = False
    interrupted: bool = False
    optimizer_state: dict = field(default_factory=dict, repr=False)


class FlatOptimizer:
    """AdamW and a moving average over all weights of a module as one vector.

    The parameters become views of the vector until `release`. One fused step, one norm and
    one average then serve the whole module: for small networks the launch costs of
    per-parameter kernels would be a third of a training step.
    """

    def __init__(self, module, weight_decay, ema_decay, state=None):
        self.parameters = list(module.parameters())
        flat = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.vector = torch.nn.Parameter(flat)
        self.vector.grad = torch.zeros_like(flat)
        offset = 0
        for p in self.parameters:
            here = slice(offset, offset + p.numel())
            p.data = self.vector.data[here].view_as(p)
            p.grad = self.vector.grad[here].view_as(p)
            offset += p.numel()
        self.average = flat.clone()
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.n_steps = 0
        self._start_adam()
        if state:
            self.adam.load_state_dict(state)

    def _start_adam(self):
        self.adam = torch.optim.AdamW(
            [self.vector], eps=EPS, weight_decay=self.weight_decay, fused=True
        )

    def step(self, loss, learning_rate):
        """Move against the gradient of ``loss``, if all of it is finite; say whether."""
        self.vector.grad.zero_()
        loss.backward()
        norm = self.vector.grad.norm()
        if not math.isfinite(loss.item() + norm.item()):
            return False
        self.vector.grad *= (MAX_GRADIENT_NORM / (norm + 1e-12)).clamp(max=1.0)
        self.adam.param_groups[0]["lr"] = learning_rate
        self.adam.step()
        self.n_steps += 1
        # Early weights are far from where they end: the decay grows with the step.
        decay = min(self.ema_decay, (1 + self.n_steps) / (10 + self.n_steps))
        self.average.lerp_(self.vector.detach(), 1 - decay)
        return True

    def restart(self, weights):
        """Go back to ``weights`` with no memory of the steps since."""
        self.load(weights)
        self.average.copy_(weights)
        self._start_adam()

    @torch.no_grad()
    def load(self, weights):
        self.vector.copy_(weights)

    @contextmanager
    def averaged(self):
        """The module holds the averaged weights in this context."""
        current = self.vector.detach().clone()
        self.load(self.average)
        yield
        self.load(current)

    def release(self):
        """Give each parameter its own memory again."""
        for p in self.parameters:
            p.data = p.data.clone()
            p.grad = None


def cosine_with_warm_up(step, n_steps):
    """Factor on the learning rate at ``step`` of ``n_steps``."""
    warm_up = max(1, round(WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))


def constant(step, n_steps):
    """No schedule: for increments whose number nobody knows."""
    return 1.0


def weighted_nll(bijection, y, weight):
    """Sum over rows of weight times negative log-density."""
    z, log_det = bijection(y)
    return -(weight * (standard_normal_log_prob(z) + log_det)).sum()


@torch.no_grad()
def mean_log_prob(bijection, y, weight):
    """Weighted mean log-density of preprocessed rows."""
    chunks = zip(y.split(EVALUATION_ROWS), weight.split(EVALUATION_ROWS), strict=True)
    total = sum(weighted_nll(bijection, rows, w).item() for rows, w in chunks)
    return -total / weight.sum().item()


def shuffled_batches(n, batch_size, device):
    """Indices of near-equal batches; a single batch takes the rows in order."""
    n_batches = math.ceil(n / batch_size)
    if n_batches == 1:
        return [slice(None)]
    return torch.randperm(n).to(device).tensor_split(n_batches)


def fit_flow(
    bijection,
    y,
    weight,
    validation=None,
    *,
    max_iter,
    batch_size,
    learning_rate,
    weight_decay=0.0,
    n_iter_no_change=20,
    tol=0.0,
    log_det=0.0,
    noise=True,
    schedule=cosine_with_warm_up,
    ema_decay=EMA_DECAY,
    optimizer_state=None,
    on_epoch_begin=lambda: None,
    on_epoch_end=lambda history: False,
):
    """Fit a bijection to rows by maximum likelihood, in place.

    A step whose loss or gradient is not finite never reaches the weights: the best state is
    restored and the rate lowered. Ctrl-C ends the training and keeps the best state.

    Parameters
    ----------
    bijection : Bijection
        The map to train; it ends with the averaged weights of the best epoch.
    y : Tensor of shape (n, d)
        Preprocessed rows, on the device and in the dtype of the bijection.
    weight : Tensor of shape (n,)
        Importance of each row in the likelihood.
    validation : tuple of (Tensor, Tensor), optional
        Rows and weights held out to choose the best epoch and to stop.
    max_iter : int
        Largest number of epochs.
    batch_size : int
        Rows per step. When all rows fit in one batch, they are taken in order.
    learning_rate : float
        Peak rate of AdamW.
    weight_decay : float, default=0.0
        Decoupled weight decay.
    n_iter_no_change : int, default=20
        Stop after as many epochs without a validation gain of more than ``tol``.
    tol : float, default=0.0
        Least gain, in nats per row.
    log_det : float, default=0.0
        Mean log-determinant of the preprocessing, for losses and scores in the units before it.
    noise : bool, default=True
        Whether dropout acts.
    schedule : callable, default=cosine_with_warm_up
        ``schedule(step, n_steps)``, a factor on the rate.
    ema_decay : float, default=0.998
        Decay of the moving average of the weights; 0 for none.
    optimizer_state : dict, optional
        The state an earlier call left in its history.
    on_epoch_begin : callable, optional
        Called with nothing before each epoch.
    on_epoch_end : callable, optional
        Called with the history after each epoch, while the averaged weights are in place; a
        true return stops the training.

    Returns
    -------
    history : History
        Losses are negative log-likelihoods per row, means over the steps of an epoch. The best
        epoch is 0 if none did better on the held-out rows than the weights at the start.
    """
    n = len(y)
    n_steps = max_iter * math.ceil(n / batch_size)
    weight = weight * (n / weight.sum())
    optimizer = FlatOptimizer(bijection, weight_decay, ema_decay, optimizer_state)
    history = History()
    best = optimizer.average.clone()
    if validation is not None:
        bijection.eval()
        history.best_score = threshold = mean_log_prob(bijection, *validation) + log_det
    patience = 0
    rate_factor, recoveries, step = 1.0, 0, 0

    try:
        for epoch in range(1, max_iter + 1):
            on_epoch_begin()
            bijection.train(noise)
            total = seen = 0
            for batch in shuffled_batches(n, batch_size, y.device):
                rows = y[batch]
                rate = learning_rate * rate_factor * schedule(step, n_steps)
                step += 1
                loss = weighted_nll(bijection, rows, weight[batch]) / len(rows)
                if optimizer.step(loss, rate):
                    total, seen = total + loss.item() * len(rows), seen + len(rows)
                    continue
                optimizer.restart(best)
                rate_factor *= BACK_OFF
                recoveries += 1
                if recoveries > MAX_RECOVERIES:
                    break
            # A few bad steps are made good; an epoch without a good one is not.
            history.diverged = recoveries > MAX_RECOVERIES or seen == 0
            if recoveries > MAX_RECOVERIES:
                break
            bijection.eval()
            with optimizer.averaged():
                improved = True
                if validation is not None:
                    score = mean_log_prob(bijection, *validation) + log_det
                    improved = score > history.best_score
                    history.best_score = max(history.best_score, score)
                    patience += 1
                    if score > threshold + tol:
                        threshold, patience = score, 0
                    history.validation_score.append(score)
                history.loss.append(total / seen - log_det if seen else math.nan)
                history.learning_rate.append(rate)
                if improved:
                    best, history.best_iter = optimizer.average.clone(), epoch
                stop = on_epoch_end(history)
            if stop or patience >= n_iter_no_change:
                break
    except KeyboardInterrupt:
        history.interrupted = True

    optimizer.load(best)
    optimizer.release()
    bijection.eval()
    history.optimizer_state = optimizer.adam.state_dict()
    return history
