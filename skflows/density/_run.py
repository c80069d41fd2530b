"""The runs that fit flows: what they prepare, and training by gradient descent."""

import copy
import math
import time
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from sklearn.utils import check_random_state

from .._nn import ResidualMLP
from .._optimizer import Paced, constant, cosine_with_warm_up
from .._tiles import pay
from .._training import EMA_DECAY, fit_in_phases
from ._engine import one_thread, resolve_device, seeded, suitable_threads
from ._maps import fitted_preprocessor

INITIALIZATION_ROWS = 8192  # enough for the moments that ActNorm starts from
PREPARED_ROWS = 2**17  # at once: in float64, a large table would take a multiple of its memory
SMALLEST_BATCH, LARGEST_BATCH = 128, 1024
FULL_RATE_FEATURES = 4
LEAST_SECONDS = 1e-3  # of a training: it runs one epoch
SMALL_TABLE = 40  # rows from which on noise, held-out rows and float32 do more good than harm


def unit_mean(weight):
    """Weights scaled to a mean of 1, whatever their magnitude."""
    weight = weight / weight.max()
    return weight / weight.mean()


def automatic_batch_size(n):
    """Power of two nearest to n / 32, within bounds."""
    return int(np.clip(2 ** round(np.log2(n / 32)), SMALLEST_BATCH, LARGEST_BATCH))


def scaled(rate, schedule, step, n_steps):
    """A schedule times a rate."""
    return rate * schedule(step, n_steps)


def proceed(history=None):
    """A callback that lets training go on."""
    return False


@contextmanager
def with_gradients():
    """Callers who extract features without gradients may well fit a density there.

    Or in half the precision, which is too little for densities.
    """
    devices = {"cpu", "cuda"} if torch.cuda.is_available() else {"cpu"}
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


class Run:
    """One fit of an estimator's flow on validated rows and their positive weights.

    A subclass fits the bijection, in `_fit_bijection`.
    """

    warm = increment = False
    device = torch.device("cpu")
    dtype = torch.float64

    def __init__(self, estimator, X, weight, held_out, bounds):
        self.started = time.monotonic()
        self.estimator = estimator
        self.dequantizer = estimator._dequantizer
        self.rows, self.weight = X, weight
        self.held_out = held_out
        self.bounds = bounds
        self.seed = check_random_state(estimator.random_state).randint(2**31 - 1)

    def train(self, on_epoch_begin=proceed, on_epoch_end=proceed):
        """Fit, calling back around each epoch; returns the `History`."""
        with self.ready():
            self.prepare()
            return self._fit_bijection(on_epoch_begin, on_epoch_end)

    @contextmanager
    def ready(self):
        """Torch is in the state that a fit needs in this context, its draws included."""
        with seeded(self.seed, self.device), with_gradients():
            yield

    @one_thread()  # a second one gains little, on a busy machine loses much, and changes the bits
    def prepare(self):
        """Set what the data set, and part the rows into training and held-out ones."""
        est = self.estimator
        # All draws from here on are the run's own: in a stack it draws what it would draw alone.
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self.flow = copy.deepcopy(est.flow_).cpu().requires_grad_() if self.warm else self._start()
        self.flow.bijection.to(self.device, self.dtype)
        self._split()
        self.y, self.log_det = self._preprocessed(self.rows, self.weight)
        self.validation, self.validation_log_det = None, 0.0
        if self.held_out is not None:
            y, self.validation_log_det = self._preprocessed(*self.held_out)
            self.validation = y, self.held_out[1]

    def _start(self):
        """A new flow, its fixed maps and its first scales set from the rows."""
        est = self.estimator
        x, weight = self._spread(self.rows), torch.from_numpy(self.weight)
        preprocess = fitted_preprocessor(est.preprocessing, self.bounds, x, weight)
        flow = est._build_flow(preprocess, x.shape[1])
        few = slice(None)
        if len(x) > INITIALIZATION_ROWS:
            few = torch.randperm(len(x), generator=self.generator)[:INITIALIZATION_ROWS]
        with torch.no_grad():
            y, _ = preprocess(x[few])
            flow.bijection.double().initialize(y, weight[few])
        return flow

    def _split(self):
        wanted = self.estimator.early_stopping
        if wanted == "auto":
            wanted = len(self.rows) >= SMALL_TABLE or self.held_out is not None
        if self.increment or not wanted:
            self.held_out = None
        elif self.held_out is None:
            n = len(self.rows)
            n_held_out = min(max(1, round(self.estimator.validation_fraction * n)), n - 1)
            order = torch.randperm(n, generator=self.generator).numpy()
            held_out, rest = order[:n_held_out], order[n_held_out:]
            self.held_out = self.rows[held_out], self.weight[held_out]
            self.rows, self.weight = self.rows[rest], self.weight[rest]
        self.weight = self._relative(self.weight)
        if self.held_out is not None:
            self.held_out = self.held_out[0], self._relative(self.held_out[1])

    def _relative(self, weight):
        return unit_mean(torch.from_numpy(weight)).to(self.device, self.dtype)

    def _spread(self, rows):
        """Rows as a float64 tensor, discrete columns with new noise."""
        if not self.dequantizer:
            return torch.tensor(rows, dtype=torch.float64)
        shape = len(rows), len(self.dequantizer.columns)
        noise = torch.rand(shape, dtype=torch.float64, generator=self.generator)
        return torch.from_numpy(self.dequantizer.spread(rows, noise.numpy()))

    @torch.no_grad()
    def _preprocessed(self, rows, weight):
        """What the bijection sees of rows, and their mean log-determinant."""
        y = torch.empty(rows.shape, device=self.device, dtype=self.dtype)
        shares = weight.cpu().double() / weight.sum().item()
        mean = 0.0
        for start in range(0, len(rows), PREPARED_ROWS):
            part = slice(start, start + PREPARED_ROWS)
            y[part], log_det = self.flow.preprocess(self._spread(rows[part]))
            mean += (shares[part] @ log_det).item()
        return y, mean

    def snapshot(self, goes_on=True):
        """The flow as it stands, in float64 and ready to score; a copy, if the run goes on."""
        flow = copy.deepcopy(self.flow) if goes_on else self.flow
        flow = flow.requires_grad_(False).eval()
        # MPS has no float64.
        flow = flow.cpu() if self.device.type == "mps" else flow.to(self.device)
        return flow.double()

    def optimizer_state(self, history):
        """What the next `partial_fit` needs, or None where there is nothing."""
        return None


class Training(Run):
    """A fit by gradient descent."""

    def __init__(self, estimator, X, weight, held_out, bounds, warm, increment, max_iter):
        super().__init__(estimator, X, weight, held_out, bounds)
        self.warm = warm
        self.increment = increment
        self.max_iter = max_iter
        self.time_limit = estimator.time_limit
        self.device = resolve_device(estimator.device)
        n = len(X)
        automatic = estimator.batch_size == "auto"
        self.batch_size = automatic_batch_size(n) if automatic else estimator.batch_size
        # Rounding decides Adam's first steps where a gradient vanishes: a small table can
        # afford the float64 that makes its fit independent of the order of the sums.
        self.whole = automatic and n < SMALL_TABLE
        double = self.whole and self.device.type != "mps"
        self.dtype = torch.float64 if double else torch.float32
        self.learning_rate = estimator.learning_rate_init
        if self.whole:
            # With nothing held out, only the rate keeps wide tables from being learned by heart.
            self.learning_rate *= min(1.0, FULL_RATE_FEATURES / X.shape[1])
        noise = estimator.input_noise
        self.input_noise = getattr(estimator, "input_noise_", 0.0) if noise == "auto" else noise
        if increment:  # else each would shuffle and drop as the one before it
            self.seed += getattr(estimator, "n_iter_", 0)

    def train(self, on_epoch_begin=proceed, on_epoch_end=proceed):
        with self.ready():
            self.prepare()
        with self.running():
            return self._fit_bijection(on_epoch_begin, on_epoch_end)

    def running(self):
        """Torch is in the state that the training needs in this context."""
        # Steps on the CPU draw from generators of the run's own. So fits in several threads,
        # and a callback that fits in others, need not wait for each other.
        draws_in_torch = self.device.type != "cpu" or self.estimator.compile
        return self.ready() if draws_in_torch else with_gradients()

    def _fit_bijection(self, on_epoch_begin=proceed, on_epoch_end=proceed):
        with suitable_threads(self.flow, self.batch_size, self.in_tiles):
            return fit_in_phases(
                self.phases(),
                self.flow.bijection,
                self.y,
                self.weight,
                self.validation,
                generators=[self.generator],
                redraw=(lambda running: self.redraw()) if self.draws_noise else None,
                # Losses and scores are reported in the units of X, as score_samples is.
                log_det=self.log_det,
                validation_log_det=self.validation_log_det,
                on_epoch_begin=on_epoch_begin,
                on_epoch_end=on_epoch_end,
                **self.settings(),
            )

    def phases(self):
        """What `fit_flow` is told in each phase of the training."""
        phases = self.estimator._phases(self.max_iter)
        started, limit = self.started, self.time_limit
        for i, phase in enumerate(phases):
            schedule = constant if self.increment else cosine_with_warm_up
            if limit is not None and not self.increment:
                # An equal share of the time that is left: none is, if the columns took it all.
                left = max(self.started + limit - started, LEAST_SECONDS)
                schedule = Paced(schedule, left / (len(phases) - i), started)
            rate = phase.pop("rate", 1.0)
            yield phase | {"schedule": partial(scaled, rate, schedule)}
            started = time.monotonic()

    def settings(self):
        """What `fit_flow` is told in all phases, besides the rows."""
        est = self.estimator
        return {
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "weight_decay": est.weight_decay,
            "n_iter_no_change": est.n_iter_no_change,
            "tol": est.tol,
            "noise": not self.whole,
            "ema_decay": 0.0 if self.increment else EMA_DECAY,
            "optimizer_state": est._optimizer_state if self.warm and self.increment else None,
        }

    def take_share_of_time(self, n):
        """Let the training begin now and end after an n-th of the time that is left."""
        if self.time_limit is not None:
            now = time.monotonic()
            left = self.started + self.time_limit - now
            self.started, self.time_limit = now, max(left / n, LEAST_SECONDS)

    def kind(self):
        """What members of one stack have in common besides the shapes of their bijections."""
        est = self.estimator
        steps = self.batch_size, math.ceil(len(self.rows) / self.batch_size)
        trained = self.device, self.dtype, self.whole, self.validation is None
        phases = est._phases(self.max_iter)
        return *steps, *trained, phases, est.time_limit, self.increment

    @property
    def in_tiles(self):
        """Whether one thread has the products of its steps in tiles."""
        by_likelihood = all("objective" not in phase for phase in self.estimator._phases(1))
        by_vjp = by_likelihood and not self.estimator.compile and self.device.type == "cpu"
        nets = [part for part in self.flow.modules() if isinstance(part, ResidualMLP)]
        written_out = any(not net.vjp_by_autograd for net in nets)
        return by_vjp and written_out and pay(self.dtype)

    @property
    def draws_noise(self):
        """Whether rows differ from epoch to epoch."""
        return bool(self.dequantizer) or self.input_noise > 0

    def redraw(self):
        """The rows of an epoch, with new noise."""
        rows = self.y
        if self.dequantizer:
            rows, _ = self._preprocessed(self.rows, self.weight)
        if not self.input_noise:
            return rows
        noise = torch.randn(rows.shape, dtype=rows.dtype, generator=self.generator)
        return rows + self.input_noise * noise.to(rows.device)

    def optimizer_state(self, history):
        """What the next `partial_fit` needs, on the CPU, or None where there is nothing."""
        if not self.increment:
            return None
        return {name: value.cpu() for name, value in history.optimizer_state.items()}
