"""What an estimator keeps of its training."""

import math

import numpy as np


class TrainingRecordMixin:
    """The loss curves of all fits that went on from one another."""

    def _report(self, history, max_iter):
        epoch = len(history.loss)
        if self.verbose and epoch % int(self.verbose) == 0:
            before, score = [None, None, *history.validation_score][-2:]
            renewed = score is not None and score != before  # not each epoch of matching does
            held_out = f", held-out score {score:.4f}" if renewed else ""
            print(f"Epoch {epoch}/{max_iter}: loss {history.loss[-1]:.4f}{held_out}")

    def _store_history(self, history, warm):
        held_out = history.validation_score or [math.nan] * len(history.loss)
        epochs = {
            "loss": history.loss,
            "validation_score": held_out,
            "learning_rate": history.learning_rate,
        }
        epochs |= history.parts
        past = self.history_ if warm else {"loss": []}
        n_past = len(past["loss"])
        if history.best_iter or not warm:
            self.best_iter_ = n_past + history.best_iter
        unknown = [math.nan] * n_past, [math.nan] * len(history.loss)
        self.history_ = {
            name: past.get(name, unknown[0]) + epochs.get(name, unknown[1])
            for name in epochs | past
        }
        self.n_iter_ = len(self.history_["loss"])
        self.best_validation_score_ = history.best_score

    @property
    def loss_curve_(self):
        """Training negative log-likelihood per row in each epoch, in nats."""
        return self.history_["loss"]

    @property
    def validation_scores_(self):
        """Mean held-out log-density after each epoch, or None if no rows were held out."""
        scores = self.history_["validation_score"]
        return None if np.isnan(scores).all() else scores
