"""What is known of a training: its curves, and the patience with each member."""

import math
from dataclasses import dataclass, field

MAX_RECOVERIES = 8


@dataclass
class History:
    """What training did; the lists have one entry per epoch."""

    loss: list = field(default_factory=list)
    validation_score: list = field(default_factory=list)
    learning_rate: list = field(default_factory=list)
    # The parts of a loss that has some, by name; nan in epochs that had another loss.
    parts: dict = field(default_factory=dict)
    best_iter: int = 0
    best_score: float | None = None
    diverged: bool = False
    interrupted: bool = False
    stopped: bool = False  # by a callback
    optimizer_state: dict = field(default_factory=dict, repr=False)


def as_list(history):
    """The histories of all members, one for a bijection that is no stack."""
    return history if isinstance(history, list) else [history]


class Member:
    """What the loop knows of one member: its patience, its recoveries and its history."""

    def __init__(
        self, log_det, validation_log_det, tol, n_iter_no_change, start_score=None, past=None
    ):
        self.log_det = log_det
        self.validation_log_det = validation_log_det
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        if start_score is not None:
            start_score += validation_log_det
        self.score = start_score  # the last one of the rows that are held out
        self.history = past or History()
        self.judged = len(self.history.loss)  # the last epoch that was
        self.history.best_score = start_score
        self.threshold = start_score
        self.patience = self.recoveries = 0
        self.done = False

    def recover(self):
        """Go on, or give up after too many recoveries."""
        self.recoveries += 1
        if self.recoveries > MAX_RECOVERIES:
            self.done = self.history.diverged = True

    def end_epoch(self, losses, rate):
        """Record an epoch, with the last score until it is judged, if it is."""
        history = self.history
        # A few bad steps are made good; an epoch without a good one is not.
        history.diverged = not losses
        parts = dict.fromkeys(history.parts, math.nan) | losses
        for name in parts:
            if name != "loss" and name not in history.parts:
                history.parts[name] = [math.nan] * len(history.loss)
        history.loss.append(parts.pop("loss", math.nan))
        for name, value in parts.items():
            history.parts[name].append(value)
        history.learning_rate.append(rate)
        if self.score is not None:
            history.validation_score.append(self.score)

    def judge(self, score):
        """Say whether the weights of the last epoch are the best so far."""
        history = self.history
        epoch = len(history.loss)
        if score is None:
            history.best_iter = epoch
            return True
        self.score = history.validation_score[-1] = score + self.validation_log_det
        # Epochs between two scores count as one that is as good as the second.
        self.patience += epoch - self.judged
        self.judged = epoch
        if self.score > self.threshold + self.tol:
            self.threshold, self.patience = self.score, 0
        self.done = self.patience >= self.n_iter_no_change
        improved = self.score > history.best_score
        if improved:
            history.best_score, history.best_iter = self.score, epoch
        return improved
