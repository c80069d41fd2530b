"""The torch half of the estimators, imported when one is first fitted or used."""

import copy
import threading
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state

from .._flow import Flow
from .._training import EMA_DECAY, constant, cosine_with_warm_up, fit_flow
from ..bijections import Standardize

# Of input, in one pass of scoring: bounds the memory, and keeps the activations in a CPU's cache.
VALUES_PER_CHUNK = 2**14
INITIALIZATION_ROWS = 8192  # enough for the moments that ActNorm starts from
# Torch has one random state for all threads: fits in threads take turns, lest they mix draws.
RNG_LOCK = threading.RLock()
SMALLEST_BATCH, LARGEST_BATCH = 128, 1024
SMALLEST_SHARED_WORK = 1e8  # rows times weights of a pass from which on a second thread pays
FULL_RATE_FEATURES = 4
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


class Run:
    """One training of an estimator's flow on validated rows and their positive weights."""

    def __init__(self, estimator, X, weight, device, warm, increment, max_iter):
        self.estimator = estimator
        self.warm = warm
        self.increment = increment
        self.max_iter = max_iter
        self.device = device
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
        self.seed = check_random_state(estimator.random_state).randint(2**31 - 1)
        if increment:  # else each would shuffle and drop as the one before it
            self.seed += getattr(estimator, "n_iter_", 0)
        self.x = torch.tensor(X, dtype=torch.float64)
        self.weight = torch.tensor(weight, dtype=torch.float64)

    def train(self, on_epoch_begin, on_epoch_end):
        est = self.estimator
        # Callers who extract features without gradients may well fit a density there.
        with (
            seeded(self.seed, self.device),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            if self.warm:
                self.flow = copy.deepcopy(est.flow_).cpu().requires_grad_()
            else:
                preprocess = Standardize(self.x.shape[1])
                preprocess.initialize(self.x, self.weight)
                self.flow = Flow(preprocess, est._build_bijection(self.x.shape[1]))
            y, log_det = self.flow.preprocess(self.x)
            if not self.warm:
                few = torch.randperm(len(y))[:INITIALIZATION_ROWS]
                few = few if len(few) < len(y) else slice(None)
                with torch.no_grad():
                    self.flow.bijection.double().initialize(y[few], self.weight[few])
            train, validation = self._split(y)
            self.flow.bijection.to(self.device, self.dtype)
            with suitable_threads(self.flow, self.batch_size):
                return fit_flow(
                    self.flow.bijection,
                    *train,
                    validation,
                    max_iter=self.max_iter,
                    batch_size=self.batch_size,
                    learning_rate=self.learning_rate,
                    weight_decay=est.weight_decay,
                    n_iter_no_change=est.n_iter_no_change,
                    tol=est.tol,
                    # Losses and scores are reported in the units of X, as score_samples is.
                    log_det=(self.weight @ log_det / self.weight.sum()).item(),
                    noise=not self.whole,
                    schedule=constant if self.increment else cosine_with_warm_up,
                    ema_decay=0.0 if self.increment else EMA_DECAY,
                    optimizer_state=est._optimizer_state if self.warm and self.increment else None,
                    on_epoch_begin=on_epoch_begin,
                    on_epoch_end=on_epoch_end,
                )

    def _split(self, y):
        """Training rows, and held-out rows or None, with their weights."""
        n = len(y)
        wanted = self.estimator.early_stopping
        if wanted == "auto":
            wanted = n >= SMALL_TABLE

        def part(rows):
            weight = unit_mean(self.weight[rows])
            return y[rows].to(self.device, self.dtype), weight.to(self.device, self.dtype)

        if self.increment or not wanted:
            return part(slice(None)), None
        n_held_out = min(max(1, round(self.estimator.validation_fraction * n)), n - 1)
        order = torch.randperm(n)
        return part(order[n_held_out:]), part(order[:n_held_out])

    def snapshot(self):
        """The flow as it stands, in float64 and ready to score."""
        flow = copy.deepcopy(self.flow).requires_grad_(False).eval()
        # MPS has no float64.
        flow = flow.cpu() if self.device.type == "mps" else flow.to(self.device)
        return flow.double()

    def optimizer_state(self, history):
        """What the next `partial_fit` needs, on the CPU, or None where there is nothing."""
        state = history.optimizer_state
        if not self.increment or not state["state"]:
            return None
        moments = {name: value.cpu().clone() for name, value in state["state"][0].items()}
        return {**state, "state": {0: moments}}


def on_cpu(flow):
    """The flow itself if it is on the CPU, else a copy there."""
    if flow.preprocess.scale.device.type == "cpu":
        return flow
    return copy.deepcopy(flow).cpu()


@torch.inference_mode()
def map_rows(flow, direction, rows):
    """Apply a method of a flow to rows in chunks; its outputs as float64 arrays."""
    device = flow.preprocess.scale.device
    values = VALUES_PER_CHUNK if device.type == "cpu" else 64 * VALUES_PER_CHUNK
    size = max(1, values // rows.shape[1])
    chunks = []
    for start in range(0, len(rows), size):
        chunk = torch.tensor(rows[start : start + size], dtype=torch.float64, device=device)
        outputs = getattr(flow, direction)(chunk)
        chunks.append(outputs if isinstance(outputs, tuple) else (outputs,))
    return [torch.cat(parts).cpu().numpy() for parts in zip(*chunks, strict=True)]
