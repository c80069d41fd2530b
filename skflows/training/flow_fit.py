"""One fit of a flow: preparing the rows, and training by gradient descent."""

import copy
import math
from abc import ABC, abstractmethod
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from ..bijections._marginal_quantile import SMALL_SAMPLE
from ..callbacks._run import random_state_of, training_file
from ..preprocessing.fixed_maps import fitted_preprocessor
from .data_parallel import SINGLE_PROCESS, current_group
from .optimizer import TimeLimited, constant, cosine_with_warm_up
from .recipe import Past
from .torch_state import (
    gradients_enabled,
    one_thread,
    resolve_device,
    suitable_threads,
    torch_seed,
)
from .trainer import EMA_DECAY, Rows, train_in_phases

INITIALIZATION_ROWS = 8192  # enough for the moments that ActNorm starts from
INITIALIZATION_GRIDS = 256  # such as images, whose positions share moments
PREPARED_ROWS = 2**17  # at once, to bound the memory of their float64 copies
MIN_BATCH, MAX_BATCH = 128, 1024
FULL_RATE_FEATURES = 4
TRAINING_SHARE = 0.8  # of a time limit; the rest is for the outlier threshold and the inverse
MIN_SECONDS = 1e-3  # of a training, which always runs one epoch


def unit_mean(weight):
    """Scale weights of any magnitude to a mean of 1."""
    weight = weight / weight.max()
    return weight / weight.mean()


def automatic_batch_size(n):
    """Return the power of two nearest to n / 32, within bounds."""
    return int(np.clip(2 ** round(np.log2(n / 32)), MIN_BATCH, MAX_BATCH))


def scaled(rate, schedule, step, n_steps):
    """Return a schedule times a rate."""
    return rate * schedule(step, n_steps)


class FlowFit(ABC):
    """One fit of a flow to a table.

    Parameters
    ----------
    recipe : Recipe
        The flow, and how it is trained.
    table : skflows.preprocessing.validation.Table
        All rows, with those that the fit will hold out.
    held_out : tuple of ndarray, or None
        Rows to hold out in place of some of the table, and their weights.

    Attributes
    ----------
    flow : Flow
        The flow, from `prepare` on.
    train_rows, train_weight : ndarray
        The part of the table that this process trains on, from `prepare` on.
    held_out : tuple of ndarray, or None
        The rows that are held out from `prepare` on, and their weights.
    """

    past: Past | None = None
    increment = False
    device = torch.device("cpu")
    dtype = torch.float64
    group = SINGLE_PROCESS

    def __init__(self, recipe, table, held_out):
        self.started = self.group.clock()
        self.recipe = recipe
        self.table = table
        self.held_out = held_out
        self.seed = random_state_of(recipe.owner).randint(2**31 - 1)

    def fit(self, on_epoch_begin=None, on_epoch_end=None):
        """Fit, calling back around each epoch; return the `History`."""
        with self.seeded():
            self.prepare()
            return self._fit_bijection(on_epoch_begin, on_epoch_end)

    @abstractmethod
    def _fit_bijection(self, on_epoch_begin, on_epoch_end):
        """Fit the bijection to the prepared rows; return the `History`."""

    @contextmanager
    def seeded(self):
        """Seed torch and enable gradients in this context."""
        with torch_seed(self.seed, self.device), gradients_enabled():
            yield

    @one_thread()  # a second one gains little here, and changes the bits
    def prepare(self):
        """Build the flow, set what depends on data, and hold rows out."""
        # All later draws come from this generator: in a stack, a fit draws what it would draw
        # alone.
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        if self.past is not None:
            self.flow = copy.deepcopy(self.past.flow).cpu().requires_grad_()
        else:
            self.flow = self._new_flow()
        self.flow.bijection.to(self.device, self.dtype)
        self._share_out(*self._split())
        self.train = self._preprocessed(self.train_rows, self.train_weight)
        self.validation = None if self.held_out is None else self._preprocessed(*self.held_out)

    def _new_flow(self):
        table, settings = self.table, self.recipe.settings
        x, weight = self._dequantized(table.X), torch.from_numpy(table.weight)
        d = x.shape[1] - table.n_context
        shape = settings.row_shape
        n_channels = None if shape is None else shape[-1]
        preprocess = fitted_preprocessor(
            settings.preprocessing, table.bounds, x[:, :d], weight, n_channels
        )
        flow = self.recipe.build_flow(preprocess, d, table.n_context)
        most = INITIALIZATION_ROWS if shape is None else INITIALIZATION_GRIDS
        if len(x) > most:
            few = torch.randperm(len(x), generator=self.generator)[:most]
            x, weight = x[few], weight[few]
        with torch.no_grad():
            y, _ = flow.preprocess(x)
            flow.bijection.double().initialize(y, weight)
        return flow

    def _split(self):
        """Return the rows to train on, and those to hold out or None, with their weights."""
        rows, weight = self.table.X, self.table.weight
        wanted = self.recipe.settings.early_stopping
        if wanted == "auto":
            wanted = len(rows) >= SMALL_SAMPLE or self.held_out is not None
        if self.increment or not wanted:
            return (rows, weight), None
        if self.held_out is not None:
            return (rows, weight), self.held_out
        n = len(rows)
        n_held_out = min(max(1, round(self.recipe.settings.validation_fraction * n)), n - 1)
        order = torch.randperm(n, generator=self.generator).numpy()
        held_out, rest = order[:n_held_out], order[n_held_out:]
        return (rows[rest], weight[rest]), (rows[held_out], weight[held_out])

    def _share_out(self, train, held_out):
        """Keep the part of the rows that this process trains on, and let it draw differently."""
        self.n_train = self.group.n_rows(train[0])
        train = train[0], unit_mean(train[1])
        held_out = held_out and (held_out[0], unit_mean(held_out[1]))
        train, self.held_out = self.group.local_rows(train, held_out)
        self.train_rows, self.train_weight = train
        if self.group.rank:
            self.generator.manual_seed(self.seed + self.group.rank)

    def _dequantized(self, rows):
        """Return rows as a float64 tensor, with new noise on discrete columns."""
        dequantizer = self.table.dequantizer
        if not dequantizer:
            return torch.tensor(rows, dtype=torch.float64)
        shape = len(rows), len(dequantizer.columns)
        noise = torch.rand(shape, dtype=torch.float64, generator=self.generator)
        return torch.from_numpy(dequantizer.add_noise(rows, noise.numpy()))

    @torch.no_grad()
    def _preprocessed(self, rows, weight):
        """Return the `Rows` that the bijection sees."""
        weight = torch.from_numpy(weight).to(self.device, self.dtype)
        y = torch.empty(rows.shape, device=self.device, dtype=self.dtype)
        shares = weight.cpu().double() / weight.sum().item()
        mean_log_det = 0.0
        for start in range(0, len(rows), PREPARED_ROWS):
            part = slice(start, start + PREPARED_ROWS)
            y[part], log_det = self.flow.preprocess(self._dequantized(rows[part]))
            mean_log_det += (shares[part] @ log_det).item()
        return Rows(y, weight, mean_log_det)

    def identity(self):
        """Return what determines the training, to the bits or nearly so."""
        train = self.train_rows, self.train_weight
        start = None if self.past is None else list(self.flow.parameters())
        return self.recipe.owner, self.seed, *train, self.held_out, self.table.bounds, start

    def snapshot(self, is_final=False):
        """Return the flow as it is, in float64 and ready to score; a copy unless it is final."""
        flow = self.flow if is_final else copy.deepcopy(self.flow)
        flow = flow.requires_grad_(False).eval()
        # MPS has no float64.
        flow = flow.cpu() if self.device.type == "mps" else flow.to(self.device)
        return flow.double()

    def optimizer_state(self, history):
        """Return what the next `partial_fit` needs, or None."""
        return None


class GradientFit(FlowFit):
    """A fit by gradient descent.

    Parameters
    ----------
    recipe, table, held_out : objects
        As of `FlowFit`.
    past : Past, default=None
        What the fit continues from.
    increment : bool, default=False
        Whether it is one of many that follow each other: no rows are held out, and the rate is
        constant.

    Attributes
    ----------
    chunk : callable or None
        For a table that does not fit into memory, ``chunk(i)`` returns the i-th part, as many rows
        as the fit has: each epoch trains on one part.
    """

    chunk = None

    def __init__(self, recipe, table, held_out=None, past=None, increment=False):
        self.group = current_group()
        super().__init__(recipe, table, held_out)
        self.group.check_same(recipe.owner, table.X, table.weight, held_out)
        self.seed = self.group.broadcast(self.seed)
        self.past = past
        self.increment = increment
        settings = recipe.settings
        self.time_limit = settings.time_limit
        self.device = resolve_device(settings.device)
        n, d = self.group.n_rows(table.X), table.X.shape[1]
        is_automatic = settings.batch_size == "auto"
        self.batch_size = automatic_batch_size(n) if is_automatic else settings.batch_size
        # A small table is trained as one batch, in float64: rounding decides the first steps of
        # Adam where a gradient vanishes, and the fit must not depend on the order of sums.
        self.is_small = is_automatic and n < SMALL_SAMPLE
        in_float64 = self.is_small and self.device.type != "mps"
        self.dtype = torch.float64 if in_float64 else torch.float32
        self.learning_rate = settings.learning_rate_init
        if self.is_small:
            # Without held-out rows, only the rate keeps wide tables from overfitting.
            self.learning_rate *= min(1.0, FULL_RATE_FEATURES / d)
        self.input_noise = settings.input_noise
        if self.input_noise == "auto":
            self.input_noise = 0.0 if past is None else past.input_noise
        if past is not None and increment:  # or each would shuffle and drop like the one before it
            self.seed += past.n_epochs

    def fit(self, on_epoch_begin=None, on_epoch_end=None):
        with self.seeded():
            self.prepare()
        with self.training_context():
            return self._fit_bijection(on_epoch_begin, on_epoch_end)

    def training_context(self):
        """Return the context of the training."""
        # Steps on the CPU draw from separate generators: fits in several threads, and callbacks
        # that fit in others, need not wait for each other.
        return gradients_enabled() if self.device.type == "cpu" else self.seeded()

    def _fit_bijection(self, on_epoch_begin=None, on_epoch_end=None):
        with suitable_threads(self.flow, self.batch_size):
            return train_in_phases(
                self.phases(),
                self.flow.bijection,
                self.train,
                self.validation,
                generators=[self.generator],
                redraw=(lambda running, epoch: self.redraw(epoch)) if self.redraws else None,
                group=self.group,
                on_epoch_begin=on_epoch_begin,
                on_epoch_end=on_epoch_end,
                file=self.group.file(None if self.increment else training_file(*self.identity())),
                **self.settings(),
            )

    def phases(self):
        """Yield the settings of `Trainer` for each phase of the training."""
        phases = self.recipe.phases
        started, limit = self.started, self.time_limit
        for i, phase in enumerate(phases):
            schedule = constant if self.increment else cosine_with_warm_up
            if limit is not None and not self.increment:
                # An equal share of the time left; zero if the preparation took all of it.
                left = max(self.started + limit * TRAINING_SHARE - started, MIN_SECONDS)
                left = left / (len(phases) - i)
                schedule = TimeLimited(schedule, left, started, self.group.clock)
            phase = {"rate": 1.0} | phase
            rate = phase.pop("rate")
            yield phase | {"schedule": partial(scaled, rate, schedule)}
            started = self.group.clock()

    def settings(self):
        """Return the settings of `Trainer` for all phases."""
        settings, past = self.recipe.settings, self.past if self.increment else None
        return {
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "weight_decay": settings.weight_decay,
            "n_iter_no_change": settings.n_iter_no_change,
            "tol": settings.tol,
            "use_dropout": not self.is_small,
            "ema_decay": 0.0 if self.increment else EMA_DECAY,
            "optimizer_state": None if past is None else past.optimizer_state,
        }

    def take_share_of_time(self, n):
        """Begin the training now, and end it after an n-th of the time left."""
        if self.time_limit is not None:
            now = self.group.clock()
            left = self.started + self.time_limit - now
            self.started, self.time_limit = now, max(left / n, MIN_SECONDS)

    def stack_key(self):
        """Return what members of a stack must share, besides the shapes of their bijections."""
        steps = self.batch_size, math.ceil(self.n_train / self.batch_size)
        state = self.device, self.dtype, self.is_small, self.validation is None
        return *steps, *state, self.recipe.phases, self.recipe.settings.time_limit, self.increment

    @property
    def redraws(self):
        """Whether rows differ from epoch to epoch."""
        return bool(self.table.dequantizer) or self.input_noise > 0 or self.chunk is not None

    def redraw(self, epoch):
        """Return the rows of an epoch, with new noise."""
        y = self.train.y
        if self.table.dequantizer or self.chunk is not None:
            rows = self.train_rows if self.chunk is None else self.chunk(epoch - 1)
            y = self._preprocessed(rows, self.train_weight).y
        if not self.input_noise:
            return y
        noise = torch.randn(y.shape, dtype=y.dtype, generator=self.generator)
        return y + self.input_noise * noise.to(y.device)

    def optimizer_state(self, history):
        if not self.increment:
            return None
        return {name: value.cpu() for name, value in history.optimizer_state.items()}
