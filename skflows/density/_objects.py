"""The base of densities whose rows are objects, such as molecules and clouds of points."""

import copy
from functools import partial
from inspect import signature
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from ..calibration.thresholds import by_contamination
from ..callbacks._progress import VERBOSE
from ..callbacks._run import fit_task, random_state_of, training_file
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import some_rows
from ..preprocessing.sklearn_compat import Interval, StrOptions
from . import _docstrings
from ._base import TrainingRecordMixin
from ._outlier_labels import OutlierDensityMixin


class ObjectDensity(
    TrainingRecordMixin, OutlierDensityMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator
):
    """Base of densities of objects: parameters of the training, and the training.

    Rows are numbers of the objects. ``_scores_of(network, objects)`` returns the scores of objects
    that the threshold for outliers is set by.
    """

    _n_of_fence: int  # objects, which are enough to estimate quartiles

    _parameter_constraints: dict = {
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right"), None],
        "random_state": ["random_state"],
        "verbose": VERBOSE,
    }

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.__doc__ = _docstrings.fill(cls.__doc__, signature(cls).parameters)

    def _train(self, X, objects, build, *, started, n_each=1):
        """Train a network; held-out objects choose the best epoch.

        Parameters
        ----------
        X : array-like
            What was given to `fit`.
        objects : list
            The objects, as `_scores_of` takes them.
        build : callable
            ``build()`` returns a new network and its objective, whose rows are numbers of objects.
        started : float
            `clock` when `fit` began, from which the time limit counts.
        n_each : int, default=1
            Rows of an object in a step of the network: large steps use several threads.
        """
        import torch

        from ..training.optimizer import limited
        from ..training.torch_state import gradients_enabled, suitable_threads, torch_seed
        from ..training.trainer import Rows, train_in_phases

        n, random_state = len(objects), random_state_of(self)
        if n < 2:
            raise ValueError(f"X has {n} row; at least 2 are needed.")
        order = random_state.permutation(n)
        n_held_out = min(max(1, round(self.validation_fraction * n)), n - 1)
        seed = random_state.randint(2**31 - 1)
        with torch_seed(seed, torch.device("cpu")):
            network, objective = build()
        fitted = partial(self._fitted, network, objects)

        def rows(part):
            numbers = torch.from_numpy(part.astype(float)[:, None])
            return Rows(numbers, torch.ones(len(part), dtype=numbers.dtype))

        with fit_task(self, X, max_subtasks=self.max_iter) as task:

            def on_epoch_end(progress):
                self._print_progress(progress, self.max_iter)
                return task.end(fitted)

            with gradients_enabled(), suitable_threads(network, self.batch_size * n_each):
                history = train_in_phases(
                    [{"max_iter": self.max_iter}],
                    network,
                    rows(order[n_held_out:]),
                    rows(order[:n_held_out]),
                    batch_size=self.batch_size,
                    learning_rate=self.learning_rate_init,
                    n_iter_no_change=self.n_iter_no_change,
                    schedule=limited(self.time_limit, started),
                    generators=[torch.Generator().manual_seed(seed)],
                    objective=objective,
                    on_epoch_begin=partial(task.begin, "epoch"),
                    on_epoch_end=on_epoch_end,
                    file=training_file(self, seed, objects),
                )
            for name, value in fitted().items():
                setattr(self, name, value)
            self._store_history(history, warm=False)
            self._warn_of_trouble(history)

    def _fitted(self, network, objects):
        """Return the attributes of a fitted density, from the network as it is now."""
        network = copy.deepcopy(network).double().eval().requires_grad_(False)
        offset = -np.inf
        if self.contamination is not None:
            n = self._n_of_fence if self.contamination == "auto" else len(objects)
            few = [objects[i] for i in some_rows(len(objects), n)]
            scores = self._scores_of(network, few)
            offset = by_contamination(self.contamination, scores, np.ones(len(scores)))
        return {"network_": network, "offset_": offset}
