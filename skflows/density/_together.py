"""Runs that train together, as stacks of their bijections."""

import copy

import numpy as np
import torch

from .._members import alike, settings_of_member, stack, unstack
from .._training import fit_in_phases
from ._engine import suitable_threads
from ._run import Training, proceed

# Of all members of a stack in a step. With more, activations leave the processor's cache, and the
# system takes their memory back after each step: a stack is then slower than its members alone.
MOST_ROWS = 2**12
INPUT_NOISES = (0.0, 0.05, 0.1, 0.2)  # to choose from
SETTINGS_OF_MEMBERS = ("learning_rate", "weight_decay", "n_iter_no_change", "tol")


class NoiseSearch(Training):
    """Trainings with several sizes of input noise at once, of which the best one stays."""

    def _fit_bijection(self, on_epoch_begin=proceed, on_epoch_end=proceed):
        if self.validation is None:
            return super()._fit_bijection(on_epoch_begin, on_epoch_end)
        self.trials = [copy.copy(self) for _ in INPUT_NOISES]
        for trial, noise in zip(self.trials, INPUT_NOISES, strict=True):
            trial.flow, trial.input_noise = copy.deepcopy(self.flow), noise
            trial.generator = self.generator.clone_state()
        histories = fit_together(
            self.trials,
            stack([trial.flow.bijection for trial in self.trials]),
            on_epoch_begin,
            lambda histories: on_epoch_end(self._choose(histories)),
        )
        return self._choose(histories)

    def kind(self):
        return self  # a stack already

    def _choose(self, histories):
        scores = [history.best_score for history in histories]
        best = int(np.argmax(scores))
        self.flow, self.input_noise = self.trials[best].flow, INPUT_NOISES[best]
        return histories[best]


def train_together(runs, exact=False):
    """Train prepared runs, those as one stack that can be; return their histories.

    Each trains as it would alone: its rows, its rate and what else `fit_flow` knows of members
    are its own. With runs of more rows it meets other batches, though, unless ``exact``. Stacks
    train one after another, and share what time there is.
    """
    histories = [None] * len(runs)
    found = groups(runs, exact)
    for n_done, group in enumerate(found):
        members = [runs[i] for i in group]
        for run in members:
            run.take_share_of_time(len(found) - n_done)
        with members[0].running():
            if len(members) == 1:
                trained = [members[0]._fit_bijection()]
            else:
                trained = fit_together(members, stack([run.flow.bijection for run in members]))
        for i, history in zip(group, trained, strict=True):
            histories[i] = history
    return histories


def groups(runs, exact):
    """Numbers of prepared runs, those together that can be a stack and gain by it."""
    found = []
    for i, run in enumerate(runs):
        for group in found:
            first = runs[group[0]]
            rows = (len(group) + 1) * min(first.batch_size, len(first.y))
            same = run.kind() == first.kind() and (not exact or len(run.y) == len(first.y))
            if rows <= MOST_ROWS and same and alike(first.flow.bijection, run.flow.bijection):
                group.append(i)
                break
        else:
            found.append([i])
    return found


def fit_together(runs, stacked, on_epoch_begin=proceed, on_epoch_end=None):
    """Fit the bijections of prepared runs as a stack; each holds its own when this calls back."""
    first = runs[0]
    settings = [run.settings() for run in runs]
    own = {name: [each[name] for each in settings] for name in SETTINGS_OF_MEMBERS}
    validation = None
    if first.validation is not None:
        parts = zip(*(run.validation for run in runs), strict=True)
        validation = tuple(padded(part) for part in parts)

    def hand_out():
        unstack(stacked, [run.flow.bijection for run in runs])

    def on_stack_epoch_end(histories):
        if on_epoch_end is None:
            return False
        hand_out()
        return on_epoch_end(histories)

    def redraw(running):
        for i in running:
            drawn[i, : len(runs[i].y)] = runs[i].redraw()
        return drawn

    rows = padded([run.y for run in runs])
    draws_noise = any(run.draws_noise for run in runs)
    drawn = rows.clone() if draws_noise else None
    # With tiles as many as each alone: products of several threads have other bits.
    n_rows = first.batch_size / len(runs) if first.in_tiles else first.batch_size
    with suitable_threads(stacked, n_rows, first.in_tiles):
        histories = fit_in_phases(
            first.phases(),
            stacked,
            rows,
            padded([run.weight for run in runs]),
            validation,
            generators=generators_of(runs),
            redraw=redraw if draws_noise else None,
            log_det=[run.log_det for run in runs],
            validation_log_det=[run.validation_log_det for run in runs],
            on_epoch_begin=on_epoch_begin,
            on_epoch_end=on_stack_epoch_end,
            **settings[0] | own,
        )
    hand_out()
    return histories


def generators_of(runs):
    """What each run draws from: the generator of one of them for those that would draw the same.

    The folds and candidates of a search have one seed. Orders and dropout drawn for each would
    take 2 (splines) to 8 % (couplings) of its steps.
    """
    # A run that leaves the stack in the first of several phases joins again in the next one, and
    # goes on from where its own draws have ended.
    has_phases = len(runs[0].estimator._phases(runs[0].max_iter)) > 1
    found = {}
    generators = []
    for run in runs:
        state = run.generator.get_state().numpy().tobytes()
        # Noise on rows is drawn from the run's own, and a network without dropout draws nothing.
        drawing = tuple(map(bool, settings_of_member(run.flow.bijection)))
        key = id(run) if has_phases or run.draws_noise else (state, drawing)
        generators.append(found.setdefault(key, run.generator))
    return generators


def padded(parts):
    """Tensors that differ in their length, in one, with zeros at the ends of the short ones."""
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
