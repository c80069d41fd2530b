"""Iterative Gaussianisation: a flow that is fitted layer by layer."""

import math
import warnings

import numpy as np
import torch
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from ..bijections import Chain, MarginalQuantile, Rotation
from ..bijections._flow import standard_normal_log_prob
from ..bijections._marginal_quantile import SMALL_SAMPLE
from ..callbacks._checkpoint import continuing
from ..callbacks._run import clock, training_file
from ..columns.arrays import some_rows
from ..preprocessing.fixed_maps import MAX_ROWS
from .flow_fit import FlowFit
from .history import Progress

ICA_ROWS = 10_000  # enough to find the directions that are least normal
ICA_STEPS = 30  # any rotation will do; a good one saves layers


class MovingRows:
    """Rows on their way through the layers, and their mean log-density."""

    def __init__(self, rows):
        self.y = rows.y
        self.share = rows.weight / rows.weight.sum()
        self.log_det = torch.full((len(rows.y),), rows.log_det, dtype=rows.y.dtype)

    def move(self, layer):
        self.y, step = layer(self.y)
        self.log_det = self.log_det + step

    def score(self):
        return (self.share @ (standard_normal_log_prob(self.y) + self.log_det)).item()


class LayerwiseFit(FlowFit):
    """A fit in which each epoch adds a layer, set from the rows as the layers before left them.

    Parameters
    ----------
    recipe, table, held_out : objects
        As of `FlowFit`.
    rotation : {"ica", "random"}
        Directions of each layer.
    n_bins : int or "auto"
        Number of bins between the quantiles of a column.
    """

    def __init__(self, recipe, table, held_out, rotation, n_bins):
        super().__init__(recipe, table, held_out)
        self.rotation, self.n_bins = rotation, n_bins

    @torch.no_grad()
    def _fit_bijection(self, on_epoch_begin, on_epoch_end):
        settings, [phase] = self.recipe.settings, self.recipe.phases
        train = MovingRows(self.train)
        held_out = None if self.validation is None else MovingRows(self.validation)
        # With few rows the maps are affine: a second layer would only undo the shrinkage.
        max_iter = phase["max_iter"] if len(train.y) >= SMALL_SAMPLE else 1
        score = None if held_out is None else held_out.score()
        progress = Progress(0.0, 0.0, settings.tol, settings.n_iter_no_change, score)
        limit = settings.time_limit
        end = self.started + (math.inf if limit is None else limit)
        layers: list = []

        def add(layer):
            layers.append(layer)
            for rows in filter(None, (train, held_out)):
                rows.move(layer)
            self.flow.bijection = Chain(layers)

        def state():
            generator = torch.default_generator.get_state()
            return {"layers": layers, "progress": progress.state(), "generator": generator}

        is_over = False
        file = training_file(*self.identity())
        if file is not None and (stored := file.load()) is not None:
            is_over = stored["is_over"]
            with continuing(stored["path"]):
                for layer in stored["state"]["layers"]:
                    add(layer)
                    layer.inverse(train.y[:1])  # a layer that was tampered with may lack parts
                progress.restore(stored["state"]["progress"])
                torch.default_generator.set_state(stored["state"]["generator"])
        history = progress.history
        try:
            while not is_over:
                if on_epoch_begin is not None:
                    on_epoch_begin()
                add(self._next_layer(train))
                progress.record_epoch({"loss": -train.score()}, math.nan)
                progress.validate(None if held_out is None else held_out.score())
                stop = on_epoch_end is not None and bool(on_epoch_end(history))
                is_over = stop or progress.done or len(layers) >= max_iter or clock() >= end
                if file is not None:
                    file.save(0, state, is_over)
        except KeyboardInterrupt:
            history.interrupted = True
        self.flow.bijection = Chain(layers[: history.best_iter])
        return history

    def _next_layer(self, train):
        d = train.y.shape[1]
        layer = Chain(
            [
                Rotation(ROTATIONS[self.rotation](train.y)),
                # The preprocessing has fitted the tails; fitted again in each layer they drift.
                MarginalQuantile(d, n_bins=self.n_bins, tails="gaussian"),
            ]
        )
        few = torch.from_numpy(some_rows(len(train.y), MAX_ROWS))
        layer.initialize(train.y[few], train.share[few])
        return layer


def random_rotation(y):
    """Return an orthogonal matrix, uniform among all."""
    matrix, triangle = torch.linalg.qr(torch.randn(y.shape[1], y.shape[1], dtype=torch.float64))
    return matrix * triangle.diagonal().sign()


def ica_rotation(y):
    """Return the orthogonal matrix nearest to the least normal directions of the rows."""
    start = random_rotation(y)
    n, d = y.shape
    is_constant = (y.amax(0) == y.amin(0)).any()
    if n < SMALL_SAMPLE or n <= d or d == 1 or is_constant:  # too few rows to tell directions apart
        return start
    few = torch.randperm(n)[:ICA_ROWS]
    ica = FastICA(whiten="unit-variance", max_iter=ICA_STEPS, tol=1e-2, w_init=start.numpy())
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(y[few].numpy())
    left, _, right = np.linalg.svd(ica.components_)
    return torch.from_numpy(left @ right)


ROTATIONS = {"ica": ica_rotation, "random": random_rotation}
