"""The training loop: an objective, the likelihood by default, and AdamW on a flat vector.

It trains one bijection, or a stack of them (see `model_stack`) whose members train side by side as
if each were alone.
"""

import math
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch.nn import functional as F

from ..callbacks._checkpoint import check_like, continuing
from ..nn.random_draws import draw_once, drawing_from
from .data_parallel import SINGLE_PROCESS
from .history import Progress, as_list
from .losses import LIKELIHOOD, mean_log_prob
from .model_stack import substack
from .optimizer import MEMBER_STATE, FlatAdamW, cosine_with_warm_up, per_member
from .torch_state import device_random_state, set_device_random_state

EMA_DECAY = 0.998
CHECKED_ROWS = 1000  # training rows that tell whether weights are absurd
BACK_OFF = 0.3  # factor on the rate after a step that was not finite
BATCH_UNIT = 16  # rows
WEIGHTS = "best", "first", "latest"  # of all members, besides those that train


@dataclass
class Rows:
    """Preprocessed rows.

    Attributes
    ----------
    y : Tensor of shape (n, d), or (M, n, d) for a stack
        The rows, on the device and in the dtype of the bijection.
    weight : Tensor of shape (n,) or (M, n)
        Weight of each row in the likelihood. Rows of weight 0 are padding, for members with
        fewer rows: their values do not matter.
    log_det : float, or a list of one for each member
        Mean log-determinant of the preprocessing, to report losses in the units before it.
    """

    y: torch.Tensor
    weight: torch.Tensor
    log_det: float | list = 0.0

    def __post_init__(self):
        self.y = without_padding(self.y, self.weight)


def without_padding(y, weight):
    """Replace rows of weight 0 by zeros: 0 times a loss that is not finite would not be 0."""
    padding = weight == 0
    return y.masked_fill(padding.unsqueeze(-1), 0.0) if padding.any() else y


def shuffled_batches(y, weight, batch_size, generators, n_batches=None):
    """Yield batches of rows with their weights, each member's rows in its own order.

    By default as few batches as ``batch_size`` allows. Rows of weight 0 fill up more batches than
    there are rows.

    A single batch has the rows in their order. If ``batch_size`` is a multiple of 16 and batches
    have 32 rows or more on average, their sizes are multiples of 16, and rows of weight 0 fill up
    the last one. Vectorised functions round the values that do not fill a register differently:
    with multiples of 16, members of a stack get the bits that they get alone.
    """
    n = weight.shape[-1]
    n_batches = n_batches or math.ceil(n / batch_size)
    if n_batches == 1:
        yield y, weight
        return
    orders = draw_once(generators, lambda g: torch.randperm(n, generator=g))
    order = torch.stack([permutation + n * i for i, permutation in enumerate(orders)])
    order = order.view(weight.shape).to(y.device)
    in_units = batch_size % BATCH_UNIT == 0 and n >= 2 * BATCH_UNIT * n_batches
    unit = BATCH_UNIT if in_units else 1
    y, weight = y.flatten(0, -2), weight.flatten()[order]
    if n_fill := max(-n % unit, n_batches - n):
        filling = torch.arange(-n_fill, 0, device=y.device) % n  # rows of the last batch again
        order = torch.cat([order, order[..., filling]], -1)
        weight = F.pad(weight, (0, n_fill))
    share, more = divmod(order.shape[-1] // unit, n_batches)
    # The larger batches come last, because the last one has rows that do not count.
    sizes = [unit * (share + (i >= n_batches - more)) for i in range(n_batches)]
    for rows, importance in zip(order.split(sizes, -1), weight.split(sizes, -1), strict=True):
        yield y[rows], importance


def default_generators(n_members):
    """Return torch's generator for one member; for several, one each, seeded from torch's."""
    if n_members == 1:
        return [torch.default_generator]
    seeds = torch.randint(2**62, (n_members,), device="cpu").tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class Trainer:
    """Trains a bijection, or each member of a stack, on rows.

    A step whose loss or gradient is not finite never reaches the weights, nor do later steps of its
    epoch; then the best state is restored and the rate lowered. Within an epoch, nothing waits for
    the device. Ctrl-C ends the training and keeps the best state, counting the last whole epoch.

    Members of a stack share nothing but the steps: each has its own weights, rows, order of rows,
    moments, recoveries and best epoch. A member that is done leaves the stack, and the training
    ends when all are done.

    Parameters
    ----------
    bijection : Bijection
        The map to train; it ends with the averaged weights of the best epoch.
    train : Rows
        The training rows.
    validation : Rows, optional
        Held-out rows that choose the best epoch and stop the training early.
    max_iter : int
        Largest number of epochs.
    batch_size : int
        Largest number of rows of a step. If all rows fit in one batch, they are taken in order.
    learning_rate : float, or one for each member
        Peak rate of AdamW.
    weight_decay : float, or one for each member, default=0.0
        Decoupled weight decay.
    common_end : bool, default=False
        Whether the median score of the members chooses one best epoch for all, so that the held-out
        rows of a member hardly choose its weights, and an outlier among them chooses none.
    n_iter_no_change : int, or one for each member, default=20
        Epochs without a validation gain of more than ``tol`` after which a member is done.
    tol : float, or one for each member, default=0.0
        Least gain, in nats per row.
    use_dropout : bool, default=True
        Whether dropout is active.
    schedule : callable, default=cosine_with_warm_up
        ``schedule(step, n_steps)``, a factor on the rate. A factor of 0 ends the training.
    ema_decay : float, default=0.998
        Decay of the moving average of the weights; 0 for none.
    optimizer_state : dict, optional
        The state that an earlier training left in its history. Not for a stack.
    generators : list of torch.Generator, optional
        The generator of each member, for the order of its rows and its dropout: with it, a member
        draws in a stack what it would draw alone. Members that would draw the same numbers alone
        may share one, which then draws them once. By default torch's generator, or others seeded by
        it.
    redraw : callable, optional
        Called at the beginning of each epoch with the indices of the running members and the number
        of the epoch, from 1, it returns the rows of that epoch, in the shape of ``train.y``: for
        noise that is drawn anew each time, or for tables that do not fit into memory.
    objective : Likelihood, optional
        The loss, and the score of held-out rows.
    history : History, or a list of one for each member, optional
        The history of an earlier training to continue.
    group : Group, optional
        The processes that train together, each on its own rows. ``batch_size`` counts the rows of
        all.
    on_epoch_begin : callable, optional
        Called without arguments before each epoch.
    on_epoch_end : callable, optional
        Called with the history after each epoch, while the averaged weights are in place; a true
        return stops the training.
    checkpoint : callable, optional
        Called with the method `state`, and whether the training is over, after each epoch.
    """

    def __init__(
        self,
        bijection,
        train,
        validation=None,
        *,
        max_iter,
        batch_size,
        learning_rate,
        weight_decay=0.0,
        common_end=False,
        n_iter_no_change=20,
        tol=0.0,
        use_dropout=True,
        schedule=cosine_with_warm_up,
        ema_decay=EMA_DECAY,
        optimizer_state=None,
        generators=None,
        redraw=None,
        objective=LIKELIHOOD,
        history=None,
        group=SINGLE_PROCESS,
        on_epoch_begin=None,
        on_epoch_end=None,
        checkpoint=None,
    ):
        *members, n = train.weight.shape
        self.is_stack = bool(members)
        self.n_members = math.prod(members)
        self.bijection = self.whole_bijection = bijection
        self.y = train.y
        self.group = group
        n_positive = (train.weight > 0).sum(-1, keepdim=True)
        total = train.weight.sum(-1, keepdim=True)
        self.weight = train.weight * (group.sum(n_positive) / group.sum(total))
        self.whole_weight = self.weight
        self.validation = None if validation is None else (validation.y, validation.weight)
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.n_batches = math.ceil(int(group.sum(torch.tensor(n))) / batch_size)
        self.n_steps = max_iter * self.n_batches
        self.use_dropout = use_dropout
        self.common_end = common_end
        self.schedule = schedule
        self.redraw = redraw
        self.objective = objective
        self.on_epoch_begin = on_epoch_begin
        self.on_epoch_end = on_epoch_end
        self.checkpoint = checkpoint
        self.generators = self.all_generators = generators or default_generators(self.n_members)
        self.optimizer = self.whole = FlatAdamW(
            bijection,
            learning_rate,
            weight_decay,
            ema_decay=ema_decay,
            state=optimizer_state,
            n_members=self.n_members,
        )
        for weights in (self.optimizer.weights, self.optimizer.average):
            weights.copy_(group.broadcast(weights))
        self.best = self.optimizer.average.clone()
        self.first = self.best.clone()
        self.latest = self.best.clone()  # after the last whole epoch
        self.running = list(range(self.n_members))  # the members whose rows the tensors hold
        validation_log_det = 0.0
        if validation is not None:
            validation_log_det = group.mean(validation.log_det, validation.weight.sum(-1))
            validation_log_det = self._of_running(validation_log_det)
        log_det = group.mean(train.log_det, train.weight.sum(-1))
        settings = log_det, validation_log_det, tol, n_iter_no_change
        of_members = [per_member(value, self.n_members) for value in settings]
        past = [None] * self.n_members if history is None else as_list(history)
        bijection.eval()
        scores = self._validation_scores()
        self.progress = [
            Progress(*values) for values in zip(*of_members, scores, past, strict=True)
        ]
        self.epoch = self.step = 0
        self.is_over = False

    @property
    def history(self):
        """The history, or a list of one for each member of a stack."""
        histories = [progress.history for progress in self.progress]
        return histories if self.is_stack else histories[0]

    def fit(self):
        """Train.

        Returns
        -------
        history : History, or a list of one for each member
            Losses are means per row over the steps of an epoch. The best epoch is 0 if none did
            better on the held-out rows than the initial weights.
        """
        try:
            while not self.is_over:
                self._fit_epoch()
                if self.checkpoint is not None:
                    self.checkpoint(self.state, self.is_over)
        except KeyboardInterrupt:
            if self.group.size > 1:
                raise  # the others may be at another step
            self._keep_last_epoch()
        self._forget_bad_weights()
        self.whole.load(self.best)
        self.whole.release()
        self.bijection.eval()
        if not self.is_stack:
            self.history.optimizer_state = self.optimizer.state()
        return self.history

    def state(self):
        """Return the state after an epoch as plain data, for `restore`."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "running": self.running,
            "optimizer": {name: getattr(self.optimizer, name) for name in MEMBER_STATE},
            "weights": {name: getattr(self, name) for name in WEIGHTS},
            "generators": [generator.get_state() for generator in self.all_generators],
            "device": device_random_state(self.best.device),
            "progress": [progress.state() for progress in self.progress],
        }

    def restore(self, state):
        """Continue from what `state` of an equal trainer returned, before `fit`."""
        running = state["running"]
        if running != [i for i in range(self.n_members) if i in running]:
            raise ValueError(f"{running} are not running members, of {self.n_members}")
        self._keep_members(running)
        # The progress is checked below; the device may be another one.
        check_like(state, self.state() | {name: state[name] for name in ("device", "progress")})
        for name, value in state["optimizer"].items():
            getattr(self.optimizer, name).copy_(value)
        for name, value in state["weights"].items():
            getattr(self, name).copy_(value)
        for generator, value in zip(self.all_generators, state["generators"], strict=True):
            generator.set_state(value)
        set_device_random_state(self.best.device, state["device"])
        for progress, value in zip(self.progress, state["progress"], strict=True):
            progress.restore(value)
        self.epoch, self.step = state["epoch"], state["step"]
        if not (0 <= self.epoch <= self.max_iter and 0 <= self.step <= self.n_steps):
            raise ValueError(f"it is after {self.epoch} epochs and {self.step} steps")

    def _forget_bad_weights(self):
        """Return members that diverged to their initial weights if these are better.

        Without held-out rows the latest weights are assumed to be the best, but if a member
        diverged, they may be the weights that made it diverge.
        """
        diverged = [i for i, progress in enumerate(self.progress) if progress.history.diverged]
        if self.validation is not None or not diverged:
            return
        latent = partial(self.objective.latent, self.whole_bijection.eval())
        rows = self.y[..., :CHECKED_ROWS, :], self.whole_weight[..., :CHECKED_ROWS]
        scores = []
        for weights in (self.best, self.first):
            self.whole.load(weights)
            score = self.group.mean(mean_log_prob(latent, *rows), rows[1].sum(-1))
            scores.append(per_member(score, self.n_members))
        for i in diverged:
            latest, initial = scores[0][i], scores[1][i]
            if math.isfinite(initial) and not latest >= initial:  # or it is NaN
                self.best[i] = self.first[i]
                self.progress[i].history.best_iter = self.progress[i].first_iter

    def _fit_epoch(self):
        """Train, validate and call back for one epoch."""
        if self.on_epoch_begin is not None:
            self.on_epoch_begin()
        self.epoch += 1
        losses, factor = self._train_epoch()
        rates = (factor * self.optimizer.learning_rate).tolist()
        self._restart_lost_members()
        if self._all_done():
            self.is_over = True
            return
        # A time limit ends the training where another step would end too late.
        ends = 0 in (factor, self.schedule(self.step, self.n_steps))
        is_last = self.epoch >= self.max_iter or ends
        stop = self._end_epoch(losses, rates, is_last)
        self.is_over = stop or is_last or self._all_done()
        if not self.is_over:
            self._keep_members(
                [row for row, i in enumerate(self.running) if not self.progress[i].done]
            )

    def _train_epoch(self):
        """Train on all rows once; return the mean losses of each running member, and the rate
        factor."""
        optimizer = self.optimizer
        self.group.split_generators(self.generators)
        rows = self.y if self.redraw is None else self.redraw(self.running, self.epoch)
        if len(self.running) < self.n_members:
            rows = rows[self.running]
        rows = without_padding(rows, self.weight)
        totals: dict[str, torch.Tensor] = {}
        seen = torch.zeros_like(optimizer.n_steps)
        first_step = self.step
        self.bijection.train(self.use_dropout)
        with drawing_from(self.generators):
            batches = shuffled_batches(
                rows, self.weight, self.batch_size, self.generators, self.n_batches
            )
            for batch, weight in batches:
                factor = self.schedule(self.step, self.n_steps)
                if factor == 0 and self.step > first_step:
                    break
                count = (weight > 0).sum(-1)
                losses, gradients = self.objective.gradients(
                    self.bijection, batch, weight, count.clamp(min=1)
                )
                losses, gradients, count = self.group.step(losses, gradients, count)
                alive = optimizer.step(losses["loss"], gradients, factor)
                self.step += 1
                for name, loss in losses.items():
                    totals[name] = totals.get(name, 0.0) + torch.where(alive, loss, 0.0)
                seen = seen + count * alive
        sums = {name: total.tolist() for name, total in totals.items()}
        means = [
            {name: values[row] / count for name, values in sums.items()} if count else {}
            for row, count in enumerate(seen.tolist())
        ]
        return means, factor

    def _restart_lost_members(self):
        """Reset members whose loss or gradient was not finite to their best weights."""
        for row, alive in enumerate(self.optimizer.alive.tolist()):
            if not alive:
                i = self.running[row]
                self.optimizer.restart(row, self.best[i], BACK_OFF)
                self.progress[i].recover()

    def _end_epoch(self, losses, rates, is_last):
        """Record an epoch, validate its weights and call back; return whether to stop."""
        self.bijection.eval()
        to_validate = (
            self.validation is None or is_last or self.epoch % self.objective.validated_every == 0
        )
        self.latest[self.running] = self.optimizer.average
        with self.optimizer.averaged():
            for i, loss, rate in zip(self.running, losses, rates, strict=True):
                progress = self.progress[i]
                if not progress.done:
                    shift = dict.fromkeys(self.objective.in_nats, progress.log_det)
                    loss = {name: value - shift.get(name, 0.0) for name, value in loss.items()}
                    progress.record_epoch(loss, rate)
            if to_validate:
                self._validate()
            if self.optimizer is not self.whole:
                self.whole.load(self.best)
                self.whole.weights[self.running] = self.optimizer.average
            stop = self.on_epoch_end is not None and bool(self.on_epoch_end(self.history))
            stop = self.group.broadcast(stop)
            if stop and not to_validate:
                self._validate()
        for history in as_list(self.history):
            history.stopped = stop
        return stop

    def _validate(self):
        """Score the held-out rows, and keep the weights of members that improved."""
        for row, (i, score) in enumerate(zip(self.running, self._validation_scores(), strict=True)):
            if not self.progress[i].done and self.progress[i].validate(score):
                self.best[i] = self.optimizer.average[row]

    def _validation_scores(self):
        """Return the mean log-density of the held-out rows of each running member."""
        if self.validation is None:
            return [None] * len(self.running)
        latent = partial(self.objective.latent, self.bijection)
        scores = mean_log_prob(latent, *self.validation)
        scores = self.group.mean(scores, self.validation[1].sum(-1))
        return self._of_running(scores)

    def _of_running(self, values):
        """Return a value for each running member; with a common end, the median for each."""
        values = per_member(values, len(self.running))
        return [median(values)] * len(values) if self.common_end else values

    def _all_done(self):
        return all(self.progress[i].done for i in self.running)

    def _keep_members(self, left):
        """Continue with some of the running members only."""
        if len(left) == len(self.running):
            return
        self.running = [self.running[row] for row in left]
        self.generators = [self.generators[row] for row in left]
        self.weight = self.weight[left]
        if self.validation is not None:
            self.validation = tuple(tensor[left] for tensor in self.validation)
        self.bijection = substack(self.bijection, left)
        self.optimizer = self.optimizer.narrowed(self.bijection, left)

    def _keep_last_epoch(self):
        """After an interrupt, let the last whole epoch compete for the best."""
        if any(progress.n_validated < progress.n_epochs for progress in self.progress):
            self.bijection.eval()
            self.optimizer.average.copy_(self.latest[self.running])
            with self.optimizer.averaged():
                self._validate()
        for progress in self.progress:
            progress.history.interrupted = not progress.done


def train_in_phases(phases, *args, file=None, **settings):
    """Train in several phases, each of which continues the one before it.

    Parameters
    ----------
    phases : iterable of dict
        Settings of `Trainer` for each phase, such as its objective.
    *args, **settings : objects
        Arguments of `Trainer` for all phases.
    file : skflows.callbacks._checkpoint.TrainingFile, optional
        Stores the state after epochs, and has the state to continue from, if there is one.

    Returns
    -------
    history : History, or a list of one for each member
    """
    history = None
    stored = None if file is None else file.load()
    for number, phase in enumerate(phases):
        if stored is not None and number < stored["phase"]:
            continue
        checkpoint = None if file is None else partial(file.save, number)
        trainer = Trainer(*args, history=history, checkpoint=checkpoint, **settings | phase)
        if stored is not None and number == stored["phase"]:
            with continuing(stored.get("path")):
                trainer.restore(stored["state"])
            trainer.is_over = stored["is_over"]
        history = trainer.fit()
        if any(each.interrupted or each.stopped for each in as_list(history)):
            break
    if history is None and stored is not None:
        with continuing(stored.get("path")):
            raise ValueError(f"it is of phase {stored['phase']}, which this training does not have")
    return history
