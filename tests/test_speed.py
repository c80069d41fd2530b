"""Ratios of times in one process, with generous bounds.

Each bound is between the ratio with the optimisation that it guards and the ratio without it. Times
are CPU times of the thread, and both contestants alternate.
"""

import statistics
import time
from cProfile import Profile
from pstats import Stats

import numpy as np
import pytest
import torch
from sklearn.utils.validation import validate_data
from torch import nn

from skflows import IAFDensity, MAFDensity, NICEDensity, NSFDensity, kernels
from skflows.bijections import RationalQuadraticSpline, Standardize, Univariate
from skflows.bijections._flow import Flow
from skflows.columns.arrays import validate_rows
from skflows.training import torch_state
from skflows.training.losses import LIKELIHOOD
from skflows.training.model_stack import stack
from skflows.training.optimizer import FlatAdamW

N_ROUNDS = 7


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with torch_state.one_thread():
        yield


def seconds(function, n_calls):
    started = time.thread_time()
    for _ in range(n_calls):
        function()
    return (time.thread_time() - started) / n_calls


def time_ratio(first, second, n_calls=(1, 1)):
    """Return the median over rounds of the time of the first over that of the second."""
    first(), second()
    rounds = [(seconds(first, n_calls[0]), seconds(second, n_calls[1])) for _ in range(N_ROUNDS)]
    return statistics.median(a / b for a, b in rounds)


def normal(n, d):
    return np.random.default_rng(0).standard_normal((n, d))


def training_step(bijection, rows, n_members=1):
    """Return a function that makes a step of `Trainer`."""
    optimizer = FlatAdamW(bijection, 1e-3, ema_decay=0.99, n_members=n_members)
    weight = torch.ones(rows.shape[:-1])

    def step():
        losses, gradients = LIKELIHOOD.gradients(bijection, rows, weight, weight.sum(-1))
        optimizer.step(losses["loss"], gradients, 1.0)

    return step


def plain_training_step(layers, n):
    """Return a function that trains networks of the same sizes by plain PyTorch."""
    nets = nn.ModuleList(
        nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, e))
        for a, b, c, e in layers
    )
    optimizer = torch.optim.SGD(nets.parameters(), 1e-3)
    inputs = [torch.randn(n, layer[0]) for layer in layers]

    def step():
        optimizer.zero_grad()
        sum(net(x).square().mean() for net, x in zip(nets, inputs, strict=True)).backward()
        optimizer.step()

    return step


def test_training_step_of_a_spline_flow():
    """Contiguous rows, and a backward pass of the spline that is written out."""
    d, n, n_transforms, size = 10, 512, 3, 64
    flow = NSFDensity(n_transforms=n_transforms, hidden_layer_sizes=(size, size), dropout=0.0)
    ours = training_step(flow._build_bijection(d), torch.randn(n, d))
    plain = plain_training_step([(d, size, size, d * (3 * flow.n_bins - 1))] * n_transforms, n)
    assert time_ratio(ours, plain, (2, 2)) < 3.0


def test_written_out_gradient_of_a_spline(monkeypatch):
    """One pass over the parameters of the spline, where autograd takes dozens."""
    spline = RationalQuadraticSpline()
    x = torch.randn(10, 256)
    params = torch.randn(10, spline.n_params, 256)

    def gradients(vjp):
        (z, log_det), pullback = vjp(x, params)
        return pullback(torch.ones_like(z), torch.ones_like(log_det))

    monkeypatch.setattr(kernels, "_compiled", None)

    @torch.inference_mode()
    def written_out():
        return gradients(spline.vjp)

    def by_autograd():
        return gradients(lambda x, params: Univariate.vjp(spline, x, params))

    assert time_ratio(written_out, by_autograd, (10, 10)) < 0.9


@pytest.mark.skipif(kernels._compiled is None, reason="installed without a C compiler")
def test_training_step_with_compiled_kernels(with_torch):
    """One pass over memory, where PyTorch takes dozens."""
    d, n = 10, 128
    flow = NSFDensity(n_transforms=3)
    step = training_step(flow._build_bijection(d), torch.randn(n, d))

    def steps():
        for _ in range(10):
            step()

    assert time_ratio(steps, lambda: with_torch(steps)) < 0.8


def test_calls_of_a_training_step():
    """A step on few rows spends much of its time between the operations."""
    bijection = NSFDensity()._build_bijection(10).train()
    step = training_step(bijection, torch.randn(256, 10))
    step()
    with Profile(builtins=False) as profile:
        step()
    assert Stats(profile).total_calls < 500


def test_stacked_training():
    """The members of a stack share the cost of starting kernels."""
    d, n, n_members = 6, 64, 10
    flow = MAFDensity(n_transforms=2, hidden_layer_sizes=(32,), dropout=0.0)
    stacked = stack([flow._build_bijection(d) for _ in range(n_members)])
    together = training_step(stacked, torch.randn(n_members, n, d), n_members)
    alone = [training_step(flow._build_bijection(d), torch.randn(n, d)) for _ in range(n_members)]
    assert time_ratio(together, lambda: [step() for step in alone], (3, 1)) < 0.4


def test_large_table_costs_no_more_per_row_than_a_small_one():
    """Chunks stay in the cache, and their memory is not returned to the system."""
    params = {"n_transforms": 2, "max_iter": 1, "preprocessing": "standardize"}
    flow = NSFDensity(**params, random_state=0).fit(normal(200, 24))
    few, many = normal(500, 24), normal(10_000, 24)
    ratio = time_ratio(lambda: flow.score_samples(many), lambda: flow.score_samples(few), (1, 5))
    assert ratio / 20 < 1.25


def test_validation_of_one_row():
    """A plain array skips the validation of scikit-learn, which takes as long as a small flow."""
    flow = NICEDensity(n_transforms=1, max_iter=1, random_state=0).fit(normal(200, 4))
    row = normal(1, 4)

    def ours():
        validate_rows(flow, row, reset=False)

    def theirs():
        validate_data(flow, row, reset=False)

    assert time_ratio(ours, theirs, (100, 20)) < 0.4


def test_score_of_few_rows():
    """A call with one row takes nearly as long as one with 50, which are scored together."""
    flow = NSFDensity(n_transforms=2, max_iter=1, random_state=0).fit(normal(200, 4))
    few, one = normal(50, 4), normal(1, 4)
    calls = (lambda: flow.score_samples(few)), (lambda: flow.score_samples(one))
    assert time_ratio(*calls, (10, 10)) < 5


def test_score_of_one_discrete_row():
    """All points of its cell are scored in one pass."""
    X = np.random.default_rng(0).poisson(3, (200, 4)).astype(float)
    discrete, continuous = (
        NICEDensity(n_transforms=4, max_iter=1, random_state=0, discrete=discrete).fit(X)
        for discrete in ("auto", None)
    )
    row = X[:1].copy()
    calls = (lambda: discrete.score_samples(row)), (lambda: continuous.score_samples(row))
    assert time_ratio(*calls, (15, 15)) < 3


@pytest.mark.parametrize("architecture", [MAFDensity, IAFDensity])
def test_slow_direction_of_an_autoregressive_flow(architecture):
    """Solving column by column takes about one pass in all, not one for each column."""
    d, n = 40, 200
    bijection = architecture(n_transforms=1, hidden_layer_sizes=(128, 128))._build_bijection(d)
    flow = Flow(Standardize(d), bijection).double().eval()
    rows = torch.randn(n, d, dtype=torch.float64)

    @torch.inference_mode()
    def forward():
        flow(rows)

    @torch.inference_mode()
    def inverse():
        flow.inverse(rows)

    slow, fast = (inverse, forward) if architecture is MAFDensity else (forward, inverse)
    assert time_ratio(slow, fast, (1, 3)) < 12
