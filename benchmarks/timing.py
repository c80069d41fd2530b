"""What is timed, contestants that take turns, and the table of their times as ratios."""

import copy
import statistics
from collections.abc import Callable
from time import perf_counter, process_time
from typing import NamedTuple

import torch

import skflows

LEARNING_RATE = 1e-3
EQUAL_SIZE = {"n_transforms": 3, "hidden_layer_sizes": (64, 64)}
MIN_SECONDS = 0.02  # of one measurement: shorter calls are repeated within it


class Contestant(NamedTuple):
    """A flow and three functions of rows X; ``sample`` draws as many."""

    step: Callable
    score: Callable
    sample: Callable
    bijection: torch.nn.Module


def ours(architecture, d, linear=True, size=EQUAL_SIZE):
    """Our estimator's flow: trained in float32 by its own optimizer, used in float64.

    Without its linear layers (LU matrices, trained scales) it has the same layers as the peers.
    """
    from skflows.bijections import ActNorm, Chain, LULinear, Standardize
    from skflows.bijections._flow import Flow
    from skflows.training.losses import LIKELIHOOD
    from skflows.training.optimizer import FlatAdamW
    from skflows.training.trainer import EMA_DECAY

    estimator = getattr(skflows, f"{architecture}Density")()
    # No dropout: the peers have none.
    params = {"dropout": 0.0, **size}.items()
    estimator.set_params(**{k: v for k, v in params if k in estimator.get_params()})
    bijection = estimator._build_bijection(d, 0)
    if not linear:
        layers = bijection.bijections
        bijection = Chain([layer for layer in layers if not isinstance(layer, LULinear | ActNorm)])
    flow = Flow(Standardize(d), copy.deepcopy(bijection)).double().eval()
    optimizer = FlatAdamW(bijection, LEARNING_RATE, ema_decay=EMA_DECAY)

    def step(X):
        weight, n = torch.ones(len(X)), torch.tensor(len(X))
        losses, gradients = LIKELIHOOD.gradients(bijection, X, weight, n)
        optimizer.step(losses["loss"], gradients, 1.0)

    @torch.inference_mode()
    def score(X):
        flow.log_prob(X.double())

    @torch.inference_mode()
    def sample(X):
        flow.inverse(torch.randn(X.shape, dtype=torch.float64))

    return Contestant(step, score, sample, bijection)


def peer(build, d):
    """A peer's flow, trained and used in float32, as its users do."""
    model = build(d)
    optimizer = torch.optim.Adam(model.module.parameters(), lr=LEARNING_RATE)

    def step(X):
        optimizer.zero_grad()
        (-model.log_prob(X).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 5.0)
        optimizer.step()

    @torch.inference_mode()
    def score(X):
        model.log_prob(X)

    @torch.inference_mode()
    def sample(X):
        model.sample(len(X))

    return Contestant(step, score, sample, model.module)


def seconds_per_call(function, n_calls, clock):
    started = clock()
    for _ in range(n_calls):
        function()
    return (clock() - started) / n_calls


def alternate(functions, n_rounds, clock=process_time):
    """Median seconds of each function over rounds in which all take turns."""
    n_calls = {}
    for name, function in functions.items():
        function()  # the first call allocates
        n_calls[name] = 1
        # Tried, not computed from one call: some clocks tick in milliseconds.
        while n_calls[name] * seconds_per_call(function, n_calls[name], clock) < MIN_SECONDS:
            n_calls[name] *= 2
    names = list(functions)
    times = {name: [] for name in names}
    for i in range(n_rounds):
        first = i % len(names)  # nobody always follows the same neighbour's cache
        for name in names[first:] + names[:first]:
            times[name].append(seconds_per_call(functions[name], n_calls[name], clock))
    return {name: statistics.median(values) for name, values in times.items()}


def clock_for(n_threads):
    """Processor time leaves out what other processes do; only the clock sees threads help."""
    return process_time if n_threads == 1 else perf_counter


def table(*runs):
    """The first contestant's time, and the others' ratios to it; runs are separated by slashes.

    A run is a list of (what, seconds by contestant).
    """
    names = list(dict.fromkeys(name for _, seconds in runs[0] for name in seconds))
    first, *others = names
    lines = [f"| | {first}, ms | " + " | ".join(others) + " |", "|---" * (1 + len(names)) + "|"]
    for rows in zip(*runs, strict=True):
        cells = [rows[0][0], " / ".join(f"{1e3 * seconds[first]:.3g}" for _, seconds in rows)]
        for name in others:
            ratios = [seconds[name] / seconds[first] for _, seconds in rows if name in seconds]
            cells.append(" / ".join(f"{ratio:.2f}x" for ratio in ratios))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
