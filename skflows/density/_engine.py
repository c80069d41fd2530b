"""The torch half of the estimators, imported when one is first fitted or used."""

import copy
import hashlib
import threading
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state

from .._flow import Flow
from .._members import stack, unstack
from .._training import EMA_DECAY, Paced, constant, cosine_with_warm_up, fit_flow
from ..bijections import Bounded, Chain, MarginalQuantile, Standardize, Whiten
from ..bijections._fixed import weighted_moments

# Of input, in one pass of scoring: bounds the memory, and keeps the activations in a CPU's cache.
VALUES_PER_CHUNK = 2**14
INITIALIZATION_ROWS = 8192  # enough for the moments that ActNorm starts from
# Torch has one random state for all threads: fits in threads take turns, lest they mix draws.
RNG_LOCK = threading.RLock()
SMALLEST_BATCH, LARGEST_BATCH = 128, 1024
SMALLEST_SHARED_WORK = 1e8  # rows times weights of a pass from which on a second thread pays
FULL_RATE_FEATURES = 4
PREPROCESSING = {"standardize": Standardize, "whiten": Whiten, "quantile": MarginalQuantile}
# The components of a mixture ask for the same maps of the same folds again and again.
N_RECENT_MAPS = 32
_RECENT_MAPS: dict = {}
SMALL_TABLE = 40  # rows from which on noise, held-out rows and float32 do more good than harm


def resolve_device(name):
    """The torch device that the parameter ``device`` asks for."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has tensors, but no values
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f'device={name!r} cannot be used here ({str(error).splitlines()[0]}); "auto" and '
            '"cpu" always work.'
        ) from error
    return device


@contextmanager
def seeded(seed, device):
    """Seed torch in this context and leave the caller's random state as it was."""
    on_cuda = device.type == "cuda"
    with RNG_LOCK, torch.random.fork_rng(devices=[device] if on_cuda else []):
        # Not torch.manual_seed, which seeds devices that nobody saved as well.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def suitable_threads(module, n_rows):
    """One thread in this context where passes of so many rows are too small to be shared.

    Threads that wait for each other at every small kernel gain nothing on an idle machine, and
    on a busy one they slow a fit a hundredfold.
    """
    before = torch.get_num_threads()
    work = n_rows * sum(p.numel() for p in module.parameters())
    torch.set_num_threads(before if work >= SMALLEST_SHARED_WORK else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def unit_mean(weight):
    """Weights scaled to a mean of 1, whatever their magnitude."""
    weight = weight / weight.max()
    return weight / weight.mean()


def automatic_batch_size(n):
    """Power of two nearest to n / 32, within bounds."""
    return int(np.clip(2 ** round(np.log2(n / 32)), SMALLEST_BATCH, LARGEST_BATCH))


@torch.no_grad()
def fitted_preprocessor(names, bounds, x, weight):
    """The fixed maps that stand before a flow, as one bijection, set from weighted rows."""
    names = [names] if isinstance(names, str) else list(names)
    if unknown := [name for name in names if name not in PREPROCESSING]:
        raise ValueError(f"preprocessing={unknown[0]!r}; choose among {list(PREPROCESSING)}.")
    steps = [] if bounds is None else [Bounded(bounds)]
    y = steps[0](x)[0] if steps else x
    for name in names:
        steps.append(_fitted_map(name, y, weight))
        y, _ = steps[-1](y)
    return steps[0] if len(steps) == 1 else Chain(steps)


def _fitted_map(name, y, weight):
    """A map of `PREPROCESSING`, set from rows: the one of before if they are those of before."""
    digest = hashlib.sha1(y.numpy().tobytes() + weight.numpy().tobytes()).digest()
    key = name, y.shape, digest
    if key not in _RECENT_MAPS:
        bijection = PREPROCESSING[name](y.shape[1])
        bijection.initialize(y, weight)
        while len(_RECENT_MAPS) >= N_RECENT_MAPS:
            _RECENT_MAPS.pop(next(iter(_RECENT_MAPS)), None)
        _RECENT_MAPS[key] = bijection
        return copy.deepcopy(bijection)
    return copy.deepcopy(_RECENT_MAPS[key])


def column_scale(X):
    """Standard deviation of each column, positive for one that does not vary too."""
    return weighted_moments(torch.tensor(X))[1].numpy()


class Run:
    """One fit of an estimator's flow on validated rows and their positive weights.

    A subclass fits the bijection, in `_fit_bijection`.
    """

    warm = increment = False
    device = torch.device("cpu")
    dtype = torch.float64

    def __init__(self, estimator, X, weight, held_out, bounds):
        self.estimator = estimator
        self.dequantizer = estimator.dequantizer_
        self.rows, self.weight = X, weight
        self.held_out = held_out
        self.bounds = bounds
        self.seed = check_random_state(estimator.random_state).randint(2**31 - 1)

    def train(self, on_epoch_begin, on_epoch_end):
        """Fit, calling back around each epoch; returns the `History`."""
        # Callers who extract features without gradients may well fit a density there.
        with (
            seeded(self.seed, self.device),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            self._prepare()
            return self._fit_bijection(on_epoch_begin, on_epoch_end)

    def _prepare(self):
        """Set what the data set, and part the rows into training and held-out ones."""
        est = self.estimator
        if self.warm:
            self.flow = copy.deepcopy(est.flow_).cpu().requires_grad_()
        else:
            x, weight = self._spread(self.rows), torch.from_numpy(self.weight)
            preprocess = fitted_preprocessor(est.preprocessing, self.bounds, x, weight)
            self.flow = Flow(preprocess, est._build_bijection(x.shape[1]))
            few = slice(None)
            if len(x) > INITIALIZATION_ROWS:
                few = torch.randperm(len(x))[:INITIALIZATION_ROWS]
            with torch.no_grad():
                y, _ = preprocess(x[few])
                self.flow.bijection.double().initialize(y, weight[few])
        self.flow.bijection.to(self.device, self.dtype)
        self._split()
        self.y, self.log_det = self._preprocessed(self.rows, self.weight)
        self.validation, self.validation_log_det = None, 0.0
        if self.held_out is not None:
            y, self.validation_log_det = self._preprocessed(*self.held_out)
            self.validation = y, self.held_out[1]

    def _split(self):
        wanted = self.estimator.early_stopping
        if wanted == "auto":
            wanted = len(self.rows) >= SMALL_TABLE or self.held_out is not None
        if self.increment or not wanted:
            self.held_out = None
        elif self.held_out is None:
            n = len(self.rows)
            n_held_out = min(max(1, round(self.estimator.validation_fraction * n)), n - 1)
            order = torch.randperm(n).numpy()
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
        noise = torch.rand(len(rows), len(self.dequantizer.columns), dtype=torch.float64)
        return torch.from_numpy(self.dequantizer.spread(rows, noise.numpy()))

    @torch.no_grad()
    def _preprocessed(self, rows, weight):
        """What the bijection sees of rows, and their mean log-determinant."""
        y, log_det = self.flow.preprocess(self._spread(rows))
        share = weight.cpu().double() / weight.sum().item()
        return y.to(self.device, self.dtype), (share @ log_det.cpu()).item()

    def snapshot(self):
        """The flow as it stands, in float64 and ready to score."""
        flow = copy.deepcopy(self.flow).requires_grad_(False).eval()
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
        if increment:  # else each would shuffle and drop as the one before it
            self.seed += getattr(estimator, "n_iter_", 0)

    def _fit_bijection(self, on_epoch_begin, on_epoch_end):
        with suitable_threads(self.flow, self.batch_size):
            return fit_flow(
                self.flow.bijection,
                self.y,
                self.weight,
                self.validation,
                redraw=self.redraw if self.draws_noise else None,
                # Losses and scores are reported in the units of X, as score_samples is.
                log_det=self.log_det,
                validation_log_det=self.validation_log_det,
                on_epoch_begin=on_epoch_begin,
                on_epoch_end=on_epoch_end,
                **self._settings(),
            )

    def _settings(self):
        est = self.estimator
        schedule = constant if self.increment else cosine_with_warm_up
        if est.time_limit is not None:
            schedule = Paced(schedule, est.time_limit)
        return {
            "max_iter": self.max_iter,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "weight_decay": est.weight_decay,
            "n_iter_no_change": est.n_iter_no_change,
            "tol": est.tol,
            "noise": not self.whole,
            "schedule": schedule,
            "ema_decay": 0.0 if self.increment else EMA_DECAY,
            "optimizer_state": est._optimizer_state if self.warm and self.increment else None,
        }

    @staticmethod
    def train_together(runs):
        """Train several runs, of estimators that differ in their rows alone, as one stack.

        Returns their histories.
        """
        first = runs[0]
        with torch.inference_mode(False), torch.enable_grad():
            for run in runs:
                with seeded(run.seed, run.device):
                    run._prepare()
            held_out = [run.validation for run in runs]
            validation = None
            if held_out[0] is not None:
                validation = tuple(padded(parts) for parts in zip(*held_out, strict=True))
            stacked = stack([run.flow.bijection for run in runs])
            with seeded(first.seed, first.device), suitable_threads(stacked, first.batch_size):
                histories = fit_flow(
                    stacked,
                    padded([run.y for run in runs]),
                    padded([run.weight for run in runs]),
                    validation,
                    redraw=(lambda: padded([run.redraw() for run in runs]))
                    if first.draws_noise
                    else None,
                    log_det=[run.log_det for run in runs],
                    validation_log_det=[run.validation_log_det for run in runs],
                    **first._settings(),
                )
        for run, bijection in zip(runs, unstack(stacked), strict=True):
            run.flow.bijection = bijection
        return histories

    @property
    def draws_noise(self):
        """Whether rows differ from epoch to epoch."""
        return bool(self.dequantizer) or self.estimator.input_noise > 0

    def redraw(self):
        """The rows of an epoch, with new noise."""
        rows = self.y
        if self.dequantizer:
            rows, _ = self._preprocessed(self.rows, self.weight)
        scale = self.estimator.input_noise
        return rows + scale * torch.randn_like(rows) if scale else rows

    def optimizer_state(self, history):
        """What the next `partial_fit` needs, on the CPU, or None where there is nothing."""
        state = history.optimizer_state
        if not self.increment or not state["state"]:
            return None
        moments = {name: value.cpu().clone() for name, value in state["state"][0].items()}
        return {**state, "state": {0: moments}}


def padded(parts):
    """Tensors that differ in their length, in one, with zeros at the ends of the short ones."""
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)


def on_cpu(flow):
    """The flow itself if it is on the CPU, else a copy there."""
    return flow if device_of(flow).type == "cpu" else copy.deepcopy(flow).cpu()


def device_of(flow):
    """Where a flow's tensors are."""
    return next(flow.buffers()).device


@torch.inference_mode()
def map_rows(flow, direction, rows):
    """Apply a method of a flow to rows in chunks; its outputs as float64 arrays."""
    device = device_of(flow)
    values = VALUES_PER_CHUNK if device.type == "cpu" else 64 * VALUES_PER_CHUNK
    size = max(1, values // rows.shape[1])
    chunks = []
    for start in range(0, len(rows), size):
        chunk = torch.tensor(rows[start : start + size], dtype=torch.float64, device=device)
        outputs = getattr(flow, direction)(chunk)
        chunks.append(outputs if isinstance(outputs, tuple) else (outputs,))
    return [torch.cat(parts).cpu().numpy() for parts in zip(*chunks, strict=True)]
