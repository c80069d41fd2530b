"""The torch half of iterative Gaussianisation."""

import math
import time
import warnings

import numpy as np
import torch
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from .._flow import standard_normal_log_prob
from .._history import History
from ..bijections import Chain, MarginalQuantile, Rotation
from ._run import SMALL_TABLE, Run

ICA_ROWS = 10_000  # enough to see which directions are least normal
ICA_STEPS = 30  # any rotation will do, a good one saves layers


class Part:
    """Rows on their way through the layers, and what they score."""

    def __init__(self, y, weight, log_det):
        self.y = y
        self.share = weight / weight.sum()
        self.log_det = torch.full((len(y),), log_det, dtype=y.dtype)

    def move(self, layer):
        self.y, step = layer(self.y)
        self.log_det = self.log_det + step

    def score(self):
        return (self.share @ (standard_normal_log_prob(self.y) + self.log_det)).item()


class LayerByLayer(Run):
    """A fit in which each epoch adds a layer, set from the rows as the last one left them."""

    @torch.no_grad()
    def _fit_bijection(self, on_epoch_begin, on_epoch_end):
        est = self.estimator
        train = Part(self.y, self.weight, self.log_det)
        held_out = (
            None if self.validation is None else Part(*self.validation, self.validation_log_det)
        )
        # Maps of so few rows are affine: more layers would but undo what the whitening shrank.
        max_iter = est.max_iter if len(self.y) >= SMALL_TABLE else 1
        history = History()
        if held_out is not None:
            history.best_score = threshold = held_out.score()
        end = self.started + (math.inf if est.time_limit is None else est.time_limit)
        layers, patience = [], 0
        try:
            while len(layers) < max_iter and patience < est.n_iter_no_change:
                on_epoch_begin()
                layers.append(self._next_layer(train))
                improved = True
                train.move(layers[-1])
                history.loss.append(-train.score())
                history.learning_rate.append(math.nan)
                if held_out is not None:
                    held_out.move(layers[-1])
                    score = held_out.score()
                    history.validation_score.append(score)
                    improved = score > history.best_score
                    history.best_score = max(history.best_score, score)
                    patience += 1
                    if score > threshold + est.tol:
                        threshold, patience = score, 0
                if improved:
                    history.best_iter = len(layers)
                self.flow.bijection = Chain(layers)
                if on_epoch_end(history) or time.monotonic() >= end:
                    break
        except KeyboardInterrupt:
            history.interrupted = True
        self.flow.bijection = Chain(layers[: history.best_iter])
        return history

    def _next_layer(self, train):
        d = train.y.shape[1]
        layer = Chain(
            [
                Rotation(ROTATIONS[self.estimator.rotation](train.y)),
                # The tails are taken care of before: here they only drift.
                MarginalQuantile(d, n_bins=self.estimator.n_bins, tails="gaussian"),
            ]
        )
        layer.initialize(train.y, train.share)
        return layer


def random_rotation(y):
    """An orthogonal matrix that is uniform among all."""
    matrix, triangle = torch.linalg.qr(torch.randn(y.shape[1], y.shape[1], dtype=torch.float64))
    return matrix * triangle.diagonal().sign()


def ica_rotation(y):
    """The orthogonal matrix nearest to that of the directions of the rows that are least normal."""
    start = random_rotation(y)
    n, d = y.shape
    constant = (y.amax(0) == y.amin(0)).any()
    if n < SMALL_TABLE or n <= d or d == 1 or constant:  # no way to tell directions apart
        return start
    few = torch.randperm(n)[:ICA_ROWS]
    ica = FastICA(whiten="unit-variance", max_iter=ICA_STEPS, tol=1e-2, w_init=start.numpy())
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(y[few].numpy())
    left, _, right = np.linalg.svd(ica.components_)
    return torch.from_numpy(left @ right)


ROTATIONS = {"ica": ica_rotation, "random": random_rotation}
