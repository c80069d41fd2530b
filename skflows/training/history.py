"""The record of a training, and early stopping."""

import math
from dataclasses import dataclass, field

from ..callbacks._checkpoint import check_like

MAX_RECOVERIES = 8


@dataclass
class History:
    """The record of a training; the lists have one entry per epoch."""

    loss: list = field(default_factory=list)
    validation_score: list = field(default_factory=list)
    learning_rate: list = field(default_factory=list)
    # The parts of a composite loss, by name; NaN in epochs with another loss.
    parts: dict = field(default_factory=dict)
    best_iter: int = 0
    best_score: float | None = None
    diverged: bool = False
    interrupted: bool = False
    stopped: bool = False  # by a callback
    optimizer_state: dict = field(default_factory=dict, repr=False)

    def print_epoch(self, max_iter, verbose):
        """Print the latest epoch, if it is a multiple of ``verbose``."""
        epoch = len(self.loss)
        if epoch % int(verbose) == 0:
            before, score = [None, None, *self.validation_score][-2:]
            # Flow matching validates some epochs only.
            is_new = score is not None and score != before
            held_out = f", held-out score {score:.4f}" if is_new else ""
            print(f"Epoch {epoch}/{max_iter}: loss {self.loss[-1]:.4f}{held_out}")


def as_list(history):
    """Return the histories of all members, as a list also for a single model."""
    return history if isinstance(history, list) else [history]


class Progress:
    """The progress of one member in training: its history, its patience and its recoveries.

    Parameters
    ----------
    log_det, validation_log_det : float
        Mean log-determinants of the preprocessing, of training rows and of held-out rows.
    tol : float
        Least gain in the validation score that counts as one.
    n_iter_no_change : int
        Epochs without such a gain after which the member is done.
    start_score : float, optional
        Validation score of the initial weights, without the log-determinant.
    history : History, optional
        The history to continue.
    """

    def __init__(
        self, log_det, validation_log_det, tol, n_iter_no_change, start_score=None, history=None
    ):
        self.log_det = log_det
        self.validation_log_det = validation_log_det
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        if start_score is not None:
            start_score += validation_log_det
        self.score = start_score  # the latest validation score
        self.history = history or History()
        self.first_iter = self.history.best_iter
        self.history.best_score = start_score
        self.n_validated = self.n_epochs  # epochs up to the latest validation
        self.threshold = start_score
        self.patience = self.recoveries = 0
        self.done = False

    def state(self):
        """Return the progress as plain data, for `restore`."""
        return vars(self) | {"history": vars(self.history)}

    def restore(self, state):
        """Continue from what `state` returned."""
        current = self.state()
        past = {"optimizer_state": state["history"]["optimizer_state"]}  # of an earlier phase
        check_like(state, current | {"history": current["history"] | past})
        vars(self).update(state | {"history": History(**state["history"])})

    @property
    def n_epochs(self):
        return len(self.history.loss)

    def recover(self):
        """Count a recovery from a loss that was not finite, and give up after too many."""
        self.recoveries += 1
        if self.recoveries > MAX_RECOVERIES:
            self.done = self.history.diverged = True

    def record_epoch(self, losses, rate):
        """Record an epoch, with the latest validation score until a new one is there."""
        history = self.history
        # An epoch recovers from a few bad steps, but not from one without any good step.
        history.diverged = not losses
        parts = dict.fromkeys(history.parts, math.nan) | losses
        for name in parts:
            if name != "loss" and name not in history.parts:
                history.parts[name] = [math.nan] * self.n_epochs
        history.loss.append(parts.pop("loss", math.nan))
        for name, value in parts.items():
            history.parts[name].append(value)
        history.learning_rate.append(rate)
        if self.score is not None:
            history.validation_score.append(self.score)

    def validate(self, score):
        """Take the validation score of the latest epoch; return whether its weights are the
        best."""
        history = self.history
        if score is None:
            history.best_iter = self.n_epochs
            return True
        self.score = history.validation_score[-1] = score + self.validation_log_det
        # Epochs between two scores count like the second one.
        self.patience += self.n_epochs - self.n_validated
        self.n_validated = self.n_epochs
        if self.score > self.threshold + self.tol:
            self.threshold, self.patience = self.score, 0
        self.done = self.patience >= self.n_iter_no_change
        is_best = self.score > history.best_score
        if is_best:
            history.best_score, history.best_iter = self.score, self.n_epochs
        return is_best
