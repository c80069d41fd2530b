"""The one training loop: an objective, the likelihood by default, and AdamW on a flat vector.

It serves one bijection, and a stack of them (see `_members`) whose members train side by side as
if each were alone.
"""

import math
from functools import partial

import torch
from torch.nn import functional as F

from ._columns import LANES
from ._draws import drawing_from, drawn_once
from ._history import Member, as_list
from ._members import substack
from ._objective import LIKELIHOOD, mean_log_prob
from ._optimizer import FlatOptimizer, cosine_with_warm_up, per_member
from ._products import large_products, module_products

EMA_DECAY = 0.998
BACK_OFF = 0.3  # factor on the rate after a step that was not finite


def shuffled_batches(y, weight, batch_size, generators, even=False):
    """Batches of rows with their weights, each member's rows in an order by its generator.

    A single batch takes the rows as they stand. ``even`` batches are of one size: some rows, less
    than there are batches, are left out.

    Otherwise, where ``batch_size`` is a multiple of 16 and batches have 32 rows or more on average,
    they are multiples of 16, the last one filled up by rows of weight 0. Products take up to a
    fourth less time for each of 128 rows than for each of 120. And functions round the last few
    values of a tensor in another way, where these do not fill the processor's lanes: members of a
    stack would not have the bits that they have alone.
    """
    n = weight.shape[-1]
    n_batches = math.ceil(n / batch_size)
    if n_batches == 1:
        yield y, weight
        return
    orders = drawn_once(generators, lambda g: torch.randperm(n, generator=g))
    order = torch.stack([own + n * i for i, own in enumerate(orders)])
    order = order.view(weight.shape).to(y.device)
    in_lanes = batch_size % LANES == 0 and n >= 2 * LANES * n_batches and not even
    unit = LANES if in_lanes else 1
    if even:
        order = order[..., : n // n_batches * n_batches]
    y, weight = y.flatten(0, -2), weight.flatten()[order]
    if n_fill := -n % unit:
        order = torch.cat([order, order[..., -n_fill:]], -1)  # rows of the last batch once more
        weight = F.pad(weight, (0, n_fill))
    share, more = divmod(order.shape[-1] // unit, n_batches)
    # The larger ones last, for the last one has rows that do not count.
    sizes = [unit * (share + (i >= n_batches - more)) for i in range(n_batches)]
    for rows, importance in zip(order.split(sizes, -1), weight.split(sizes, -1), strict=True):
        yield y[rows], importance


def default_generators(n_members):
    """Torch's own for a single member; for several, one for each, which that one seeds."""
    if n_members == 1:
        return [torch.default_generator]
    seeds = torch.randint(2**62, (n_members,), device="cpu").tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def without_padding(y, weight):
    """Rows of weight 0 replaced by zeros: 0 times a loss that is not finite would be no 0."""
    padding = weight == 0
    return y.masked_fill(padding.unsqueeze(-1), 0.0) if padding.any() else y


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
    validation_log_det=0.0,
    noise=True,
    schedule=cosine_with_warm_up,
    ema_decay=EMA_DECAY,
    optimizer_state=None,
    generators=None,
    redraw=None,
    objective=LIKELIHOOD,
    history=None,
    compile=False,
    on_epoch_begin=lambda: None,
    on_epoch_end=lambda history: False,
):
    """Fit a bijection, or each member of a stack, to rows in place, by likelihood or else.

    A step whose loss or gradient is not finite never reaches the weights: nor do later ones of
    its epoch, after which the best state is restored and the rate lowered. Within an epoch,
    nothing waits for the device. Ctrl-C ends the training and keeps the best state, that of the
    last whole epoch included.

    Members of a stack have nothing in common but the steps: each has its own weights, rows, order
    of rows, moments, recoveries and best epoch. One that is done leaves the stack, and the
    training ends when all are.

    Parameters
    ----------
    bijection : Bijection
        The map to train; it ends with the averaged weights of the best epoch.
    y : Tensor of shape (n, d), or (M, n, d) for a stack
        Preprocessed rows, on the device and in the dtype of the bijection.
    weight : Tensor of shape (n,) or (M, n)
        Importance of each row in the likelihood. Rows of weight 0 are padding, for members with
        fewer rows: whatever they hold, they do not matter.
    validation : tuple of (Tensor, Tensor), optional
        Rows and weights held out to choose the best epoch and to stop.
    max_iter : int
        Largest number of epochs.
    batch_size : int
        Most rows of a step. When all rows fit in one batch, they are taken in order.
    learning_rate : float, or one for each member
        Peak rate of AdamW.
    weight_decay : float, or one for each member, default=0.0
        Decoupled weight decay.
    n_iter_no_change : int, or one for each member, default=20
        Stop after as many epochs without a validation gain of more than ``tol``.
    tol : float, or one for each member, default=0.0
        Least gain, in nats per row.
    log_det : float, or one for each member, default=0.0
        Mean log-determinant of the preprocessing, for losses in the units before it.
    validation_log_det : float, or one for each member, default=0.0
        The same of the held-out rows, for their scores.
    noise : bool, default=True
        Whether dropout acts.
    schedule : callable, default=cosine_with_warm_up
        ``schedule(step, n_steps)``, a factor on the rate. A factor of 0 ends the training.
    ema_decay : float, default=0.998
        Decay of the moving average of the weights; 0 for none.
    optimizer_state : dict, optional
        The state an earlier call left in its history. Not for a stack.
    generators : list of torch.Generator, optional
        What each member draws its orders and its dropout from: with its own, it draws in a stack
        what it would draw alone. Members may share one if they would draw the same numbers alone:
        those are drawn once. By default torch's own, or others that it seeds for a stack.
    redraw : callable, optional
        Called with the numbers of the members that still train at the beginning of each epoch, it
        returns the rows of that epoch, of the shape of ``y``: for noise that is drawn anew each
        time. Those of other members do not matter. ``y`` itself by default.
    objective : Likelihood, optional
        What is minimised, and how held-out rows are scored.
    history : History, or a list of one for each member, optional
        What an earlier call left, with another objective: this one goes on from there.
    compile : bool, default=False
        Whether `torch.compile` makes machine code of losses and their gradients. It has no effect
        on a stack, whose shapes change, nor on a flow that gains nothing by it.
    on_epoch_begin : callable, optional
        Called with nothing before each epoch.
    on_epoch_end : callable, optional
        Called with the history after each epoch, while the averaged weights are in place; a
        true return stops the training.

    Returns
    -------
    history : History, or a list of one for each member
        Losses are means per row over the steps of an epoch. The best
        epoch is 0 if none did better on the held-out rows than the weights at the start.
    """
    *stacked, n = weight.shape
    n_members = math.prod(stacked)
    compile = compile and not stacked and objective.gains_by_compiler(bijection)
    n_steps = max_iter * math.ceil(n / batch_size)
    weight = weight * ((weight > 0).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True))
    optimizer = FlatOptimizer(
        bijection,
        learning_rate,
        weight_decay,
        ema_decay=ema_decay,
        state=optimizer_state,
        n_members=n_members,
    )
    whole = optimizer
    products = module_products(bijection, min(batch_size, n), n_axes=2 + len(stacked))
    best = optimizer.average.clone()
    latest = best.clone()  # after the last whole epoch
    generators = generators or default_generators(n_members)
    if validation is not None:
        validation = without_padding(*validation), validation[1]

    def scores():
        if validation is None:
            return [None] * len(running)
        latent = partial(objective.latent, bijection)
        with products:
            return per_member(mean_log_prob(latent, *validation), len(running))

    def judge():
        for row, (i, score) in enumerate(zip(running, scores(), strict=True)):
            if not members[i].done and members[i].judge(score):
                best[i] = optimizer.average[row]

    bijection.eval()
    running = list(range(n_members))  # whose rows the tensors hold
    settings = (log_det, validation_log_det, tol, n_iter_no_change)
    own = [per_member(value, n_members) for value in settings]
    past = [None] * n_members if history is None else as_list(history)
    members = [Member(*values) for values in zip(*own, scores(), past, strict=True)]
    histories = [member.history for member in members]
    report = histories if stacked else histories[0]
    gradients_of = objective.compiled_gradients(bijection) if compile else objective.gradients
    step = 0

    try:
        for epoch in range(1, max_iter + 1):
            on_epoch_begin()
            rows = y if redraw is None else redraw(running)
            if len(running) < n_members:
                rows = rows[running]
            rows = without_padding(rows, weight)
            totals: dict[str, torch.Tensor] = {}
            seen = torch.zeros_like(optimizer.n_steps)
            first_step = step
            bijection.train(noise)
            with drawing_from(generators):
                batches = shuffled_batches(rows, weight, batch_size, generators, even=compile)
                for batch, importance in batches:
                    factor = schedule(step, n_steps)
                    if factor == 0 and step > first_step:
                        break
                    count = (importance > 0).sum(-1)
                    losses, gradients = gradients_of(
                        bijection, batch, importance, count.clamp(min=1), products
                    )
                    alive = optimizer.step(losses["loss"], gradients, factor)
                    step += 1
                    for name, loss in losses.items():
                        kept = torch.where(alive, loss.view(-1, 1), 0.0)
                        totals[name] = totals.get(name, 0.0) + kept
                    seen = seen + count.view(-1, 1) * alive
            rates = (factor * optimizer.learning_rate).flatten().tolist()
            for row, alive in enumerate(optimizer.alive.flatten().tolist()):
                if not alive:
                    optimizer.restart(row, best[running[row]], BACK_OFF)
                    members[running[row]].recover()
            if all(member.done for member in members):
                break
            bijection.eval()
            sums = {name: total.flatten().tolist() for name, total in totals.items()}
            counts = seen.flatten().tolist()
            is_last = epoch == max_iter or factor == 0
            to_judge = validation is None or is_last or epoch % objective.scored_every == 0
            latest[running] = optimizer.average
            with optimizer.averaged():
                for row, (i, count, rate) in enumerate(zip(running, counts, rates, strict=True)):
                    member = members[i]
                    means = {
                        name: values[row] / count - member.log_det * (name in objective.in_nats)
                        for name, values in sums.items()
                        if count
                    }
                    if not member.done:
                        member.end_epoch(means, rate)
                if to_judge:
                    judge()
                if optimizer is not whole:
                    whole.load(best)
                    whole.weights[running] = optimizer.average
                stop = bool(on_epoch_end(report))
                if stop and not to_judge:
                    judge()
            for each in histories:
                each.stopped = stop
            left = [row for row, i in enumerate(running) if not members[i].done]
            if stop or factor == 0 or not left:
                break
            if len(left) < len(running):
                running = [running[row] for row in left]
                generators = [generators[row] for row in left]
                weight = weight[left]
                if validation is not None:
                    validation = validation[0][left], validation[1][left]
                bijection = substack(bijection, left)
                optimizer = optimizer.narrowed(bijection, left)
    except KeyboardInterrupt:
        large_products.end()
        if any(member.judged < len(member.history.loss) for member in members):
            bijection.eval()
            optimizer.average.copy_(latest[running])
            with optimizer.averaged():
                judge()
        for member in members:
            member.history.interrupted = not member.done

    whole.load(best)
    whole.release()
    bijection.eval()
    if not stacked:
        histories[0].optimizer_state = optimizer.state()
    return report


def fit_in_phases(phases, *args, **settings):
    """Call `fit_flow` for each of several phases, each going on from the one before it.

    Parameters
    ----------
    phases : iterable of dict
        What each phase adds to the settings: its objective, for one.
    *args, **settings : objects
        Of `fit_flow`, in all phases.

    Returns
    -------
    history : History, or a list of one for each member
    """
    history = None
    for phase in phases:
        history = fit_flow(*args, history=history, **settings | phase)
        if any(each.interrupted or each.stopped for each in as_list(history)):
            break
    return history
