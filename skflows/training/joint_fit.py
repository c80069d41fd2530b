"""Fits that train together, as stacks of their bijections."""

import copy

import numpy as np
import torch

from ..callbacks._run import training_file
from .flow_fit import GradientFit
from .model_stack import member_settings, stack, stackable, unstack
from .torch_state import suitable_threads
from .trainer import Rows, train_in_phases

# Rows of a step over all members of a stack. With more, activations exceed the processor's cache,
# and a stack is slower than its members alone.
MAX_ROWS = 2**12
INPUT_NOISES = (0.0, 0.05, 0.1, 0.2)  # to choose from
MEMBER_SETTINGS = ("learning_rate", "weight_decay", "n_iter_no_change", "tol")


class NoiseSearch(GradientFit):
    """Fits with several sizes of input noise at once, the best of which is kept."""

    def _fit_bijection(self, on_epoch_begin=None, on_epoch_end=None):
        if self.validation is None:
            return super()._fit_bijection(on_epoch_begin, on_epoch_end)
        self.trials = [copy.copy(self) for _ in INPUT_NOISES]
        for trial, noise in zip(self.trials, INPUT_NOISES, strict=True):
            trial.flow, trial.input_noise = copy.deepcopy(self.flow), noise
            trial.generator = self.generator.clone_state()

        def on_stack_epoch_end(histories):
            return on_epoch_end is not None and on_epoch_end(self._choose(histories))

        stacked = stack([trial.flow.bijection for trial in self.trials])
        return self._choose(fit_stack(self.trials, stacked, on_epoch_begin, on_stack_epoch_end))

    def stack_key(self):
        return self  # a stack already: it joins no other

    def _choose(self, histories):
        scores = [history.best_score for history in histories]
        best = int(np.argmax(scores))
        self.flow, self.input_noise = self.trials[best].flow, INPUT_NOISES[best]
        return histories[best]


def fit_jointly(fits, exact=False, on_epoch_begin=None, on_epoch_end=None, common_end=False):
    """Train prepared fits, as stacks where possible; return their histories.

    Each trains as it would alone, with its own rows, rate and other settings. Next to fits with
    more rows, its batches differ, though, unless ``exact``. With a ``common_end``, the median
    held-out score of a stack chooses the best epoch of all its members. Stacks train one after
    another, and share the time that is left.
    """
    histories = [None] * len(fits)
    groups = stackable_groups(fits, exact)
    for n_done, group in enumerate(groups):
        members = [fits[i] for i in group]
        for fit in members:
            fit.take_share_of_time(len(groups) - n_done)
        with members[0].training_context():
            if len(members) == 1:
                trained = [members[0]._fit_bijection(on_epoch_begin, on_epoch_end)]
            else:
                stacked = stack([fit.flow.bijection for fit in members])
                trained = fit_stack(members, stacked, on_epoch_begin, on_epoch_end, common_end)
        for i, history in zip(group, trained, strict=True):
            histories[i] = history
        if n_done + 1 < len(groups) and any(history.interrupted for history in trained):
            raise KeyboardInterrupt  # the others are not trained: this is not whole
    return histories


def stackable_groups(fits, exact):
    """Return lists of indices of prepared fits that train as one stack."""
    groups: list[list[int]] = []
    for i, fit in enumerate(fits):
        for group in groups:
            first = fits[group[0]]
            n_rows = (len(group) + 1) * min(first.batch_size, first.n_train)
            is_alike = fit.stack_key() == first.stack_key() and (
                not exact or fit.n_train == first.n_train
            )
            if n_rows <= MAX_ROWS and is_alike:
                if stackable(first.flow.bijection, fit.flow.bijection):
                    group.append(i)
                    break
        else:
            groups.append([i])
    return groups


def fit_stack(fits, stacked, on_epoch_begin=None, on_epoch_end=None, common_end=False):
    """Train the bijections of prepared fits as a stack; callbacks see each of them up to date."""
    first = fits[0]
    settings = [fit.settings() for fit in fits]
    of_members = {name: [of_fit[name] for of_fit in settings] for name in MEMBER_SETTINGS}
    train = padded([fit.train for fit in fits])
    validation = None
    if first.validation is not None:
        validation = padded([fit.validation for fit in fits])

    def copy_members():
        unstack(stacked, [fit.flow.bijection for fit in fits])

    def on_stack_epoch_end(histories):
        copy_members()
        return on_epoch_end(histories)

    def redraw(running, epoch):
        for i in running:
            drawn[i, : len(fits[i].train_rows)] = fits[i].redraw(epoch)
        return drawn

    redraws = any(fit.redraws for fit in fits)
    drawn = train.y.clone() if redraws else train.y
    with suitable_threads(first.flow, first.batch_size):  # of one member, as it would train alone
        histories = train_in_phases(
            first.phases(),
            stacked,
            train,
            validation,
            generators=shared_generators(fits),
            redraw=redraw if redraws else None,
            group=first.group,
            common_end=common_end,
            on_epoch_begin=on_epoch_begin,
            on_epoch_end=None if on_epoch_end is None else on_stack_epoch_end,
            file=first.group.file(
                training_file(first.recipe.owner, *(fit.identity() for fit in fits))
            ),
            **settings[0] | of_members,
        )
    copy_members()
    return histories


def shared_generators(fits):
    """Return the generator of each fit: one for all fits that would draw the same numbers.

    The folds and candidates of a search have one seed. Drawing orders and dropout for each would
    take 2 to 8 % of its steps.
    """
    # A member that is done in the first of several phases joins the next one again, and continues
    # from its own draws.
    has_phases = len(fits[0].recipe.phases) > 1
    shared: dict = {}
    generators = []
    for fit in fits:
        state = fit.generator.get_state().numpy().tobytes()
        # A network without dropout draws nothing.
        is_drawing = tuple(map(bool, member_settings(fit.flow.bijection)))
        key = id(fit) if has_phases or fit.redraws else (state, is_drawing)
        generators.append(shared.setdefault(key, fit.generator))
    return generators


def padded(parts):
    """Join the rows of several fits, with rows of weight 0 at the end of the shorter ones."""
    y, weight = (
        torch.nn.utils.rnn.pad_sequence([getattr(part, name) for part in parts], batch_first=True)
        for name in ("y", "weight")
    )
    return Rows(y, weight, [part.log_det for part in parts])
