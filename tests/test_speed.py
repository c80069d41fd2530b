"""What makes the package fast still does: ratios of times in one process, with wide bounds.

Each bound lies between the ratio as it is and the one without the trick that it guards, far from
both: the times are those of this thread's processor, and the contestants take turns.
"""

import statistics
import time
from functools import partial

import numpy as np
import pytest
import torch
from _splines import plain_spline
from sklearn.utils.validation import validate_data
from torch import nn

from skflows import IAFDensity, MAFDensity, NICEDensity, NSFDensity, kernels as _fused
from skflows.bijections._flow import Flow
from skflows.training.model_stack import stack
from skflows.training.losses import LIKELIHOOD
from skflows.training.optimizer import FlatOptimizer
from skflows.bijections import RationalQuadraticSpline, Standardize
from skflows.bijections._spline_steps import locate
from skflows.training import torch_state as _engine
from skflows.preprocessing.validation import validate_rows

ROUNDS = 9


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with _engine.one_thread():
        yield


def seconds(function, n_calls):
    started = time.thread_time()
    for _ in range(n_calls):
        function()
    return (time.thread_time() - started) / n_calls


def ratio(first, second, n_calls=(1, 1)):
    """Median over rounds of the time of the first over that of the second."""
    first(), second()
    rounds = [(seconds(first, n_calls[0]), seconds(second, n_calls[1])) for _ in range(ROUNDS)]
    return statistics.median(a / b for a, b in rounds)


def normal(n, d):
    return np.random.default_rng(0).standard_normal((n, d))


def trainer(bijection, rows, n_members=1):
    """A step of training, as `fit_flow` makes it."""
    optimizer = FlatOptimizer(bijection, 1e-3, ema_decay=0.99, n_members=n_members)
    weight = torch.ones(rows.shape[:-1])

    def step():
        losses, gradients = LIKELIHOOD.gradients(
            bijection, rows, weight, weight.sum(-1), products=None
        )
        optimizer.step(losses["loss"], gradients, 1.0)

    return step


def plain_trainer(layers, n):
    """A step of plain torch, with networks of the same sizes."""
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


def test_a_step_of_a_spline_flow():
    """The rows last in memory, and a backward pass of the spline that is written out."""
    d, n, n_transforms, size = 10, 512, 3, 64
    flow = NSFDensity(n_transforms=n_transforms, hidden_layer_sizes=(size, size), dropout=0.0)
    ours = trainer(flow._build_bijection(d), torch.randn(n, d))
    plain = plain_trainer([(d, size, size, d * (3 * flow.n_bins - 1))] * n_transforms, n)
    assert ratio(ours, plain, (3, 3)) < 3.0  # 1.0 by compiled code, else 2.2, or 3.3 with neither


def test_a_gradient_that_is_written_out():
    """One pass over the parameters of a spline, where autograd takes dozens."""
    spline = RationalQuadraticSpline()
    x = torch.randn(10, 256, requires_grad=True)
    params = torch.randn(spline.n_params, 10, 256, requires_grad=True)

    def gradient_of(forward):
        z, log_slope = forward(x, params)
        return torch.autograd.grad(z.sum() + log_slope.sum(), (x, params))

    plain = partial(plain_spline, spline, locate)
    ours, theirs = (partial(gradient_of, forward) for forward in (spline.forward, plain))
    assert ratio(ours, theirs, (10, 10)) < 0.9  # 0.77


@pytest.mark.skipif(_fused._passes is None, reason="installed without a C compiler")
@pytest.mark.parametrize("architecture, bound", [(NSFDensity, 0.8), (MAFDensity, 0.97)])
def test_a_step_by_compiled_code(architecture, bound, monkeypatch):
    """One pass over memory, where torch takes dozens (splines) or several."""
    d, n = 10, 128
    flow = architecture(n_transforms=3)
    step = trainer(flow._build_bijection(d), torch.randn(n, d))

    def by_torch():
        with monkeypatch.context() as patch:
            patch.setattr(_fused, "_passes", None)
            for _ in range(20):
                step()

    # 0.47 and 0.80
    assert ratio(lambda: [step() for _ in range(20)], by_torch) < bound


def test_stacked_training():
    """Members of a stack share what each kernel costs to start."""
    d, n, n_members = 6, 64, 10
    flow = MAFDensity(n_transforms=2, hidden_layer_sizes=(32,), dropout=0.0)
    together = stack([flow._build_bijection(d) for _ in range(n_members)])
    stacked = trainer(together, torch.randn(n_members, n, d), n_members)
    alone = [trainer(flow._build_bijection(d), torch.randn(n, d)) for _ in range(n_members)]
    assert ratio(stacked, lambda: [step() for step in alone], (5, 2)) < 0.4  # 0.13


def test_a_table_costs_no_more_per_row_than_a_few_rows():
    """Chunks that stay in the cache, and memory that is not handed back to the system."""
    flow = NSFDensity(n_transforms=2, max_iter=1, random_state=0).fit(normal(200, 24))
    few, many = normal(500, 24), normal(20_000, 24)
    per_row = ratio(lambda: flow.score_samples(many), lambda: flow.score_samples(few), (1, 20))
    assert per_row / 40 < 1.5  # 0.9, or 2.3 without either


def test_a_look_at_one_row():
    """A plain array is not looked at by scikit-learn, which takes as long as a small flow."""
    flow = NICEDensity(n_transforms=1, max_iter=1, random_state=0).fit(normal(200, 4))
    row = normal(1, 4)

    def ours():
        validate_rows(flow, row, reset=False)

    def theirs():
        validate_data(flow, row, reset=False)

    assert ratio(ours, theirs, (500, 100)) < 0.4  # 0.06


def test_a_call_for_few_rows():
    """Most of the time of a call for one row is what any call takes, whatever its rows."""
    flow = NSFDensity(n_transforms=2, max_iter=1, random_state=0).fit(normal(200, 4))
    few, one = normal(50, 4), normal(1, 4)
    calls = (lambda: flow.score_samples(few)), (lambda: flow.score_samples(one))
    assert ratio(*calls, (20, 20)) < 5  # 1.2, or 50 row by row


def test_a_call_for_one_discrete_row():
    """The draws of the noise are scored in one pass."""
    X = np.random.default_rng(0).poisson(3, (200, 4)).astype(float)
    few, none = (
        NICEDensity(n_transforms=4, max_iter=1, random_state=0, discrete=discrete).fit(X)
        for discrete in ("auto", None)
    )
    row = X[:1].copy()
    calls = (lambda: few.score_samples(row)), (lambda: none.score_samples(row))
    assert ratio(*calls, (30, 30)) < 3  # 1.3, or 9


@pytest.mark.parametrize("estimator", [MAFDensity, IAFDensity])
def test_the_slow_direction_of_an_autoregressive_flow(estimator):
    """Solving column by column costs about a pass in all, not one for each column."""
    d, n = 40, 500
    bijection = estimator(n_transforms=1, hidden_layer_sizes=(256, 256))._build_bijection(d)
    flow = Flow(Standardize(d), bijection).double().eval()
    rows = torch.randn(n, d, dtype=torch.float64)

    @torch.inference_mode()
    def forward():
        flow(rows)

    @torch.inference_mode()
    def inverse():
        flow.inverse(rows)

    slow, fast = (inverse, forward) if estimator is MAFDensity else (forward, inverse)
    assert ratio(slow, fast, (1, 3)) < 8  # 2.3, or 32
