"""The parts of the training loop: optimiser, average, schedule, batches, evaluation."""

import pytest
import torch
from torch.testing import assert_close

from skflows import _training
from skflows._training import (
    FlatOptimizer,
    cosine_with_warm_up,
    mean_log_prob,
    shuffled_batches,
    weighted_nll,
)
from skflows.bijections import Chain, Coupling, ElementwiseAffine, Shift


@pytest.fixture(autouse=True)
def own_seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def weights_of(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def test_flat_optimizer_leaves_parameters_their_values_and_their_own_memory():
    module = Coupling(4, Shift(), (8, 8), n_context=2).double()
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = FlatOptimizer(module, weight_decay=0.0, ema_decay=0.9)
    shared = optimizer.vector.untyped_storage().data_ptr()
    for p, value in zip(module.parameters(), before, strict=True):
        assert torch.equal(p, value)
        assert p.untyped_storage().data_ptr() == shared
    optimizer.release()
    for p, value in zip(module.parameters(), before, strict=True):
        assert torch.equal(p, value)
        assert p.untyped_storage().nbytes() == p.numel() * p.element_size()
        assert p.grad is None


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_average_of_the_weights(decay):
    module = ElementwiseAffine(2).double()
    optimizer = FlatOptimizer(module, weight_decay=0.0, ema_decay=decay)
    average = weights_of(module)
    y, weight = 2 + torch.randn(60, 2).double(), torch.ones(60).double()
    for step in range(1, 9):
        assert optimizer.step(weighted_nll(module, y, weight), 0.1)
        # Young averages forget faster.
        now = min(decay, (1 + step) / (10 + step))
        average = now * average + (1 - now) * weights_of(module)
        assert_close(optimizer.average, average, rtol=1e-12, atol=1e-12)
    raw = weights_of(module)
    assert torch.equal(raw, optimizer.average) == (decay == 0)
    with optimizer.averaged():
        assert torch.equal(weights_of(module), optimizer.average)
    assert torch.equal(weights_of(module), raw)


@pytest.mark.parametrize("n_steps", [2, 19, 20, 1000])
def test_cosine_schedule_rises_to_1_and_falls_to_0(n_steps):
    factors = [cosine_with_warm_up(step, n_steps) for step in range(n_steps + 1)]
    peak = factors.index(1.0)
    assert peak + 1 == max(1, round(0.05 * n_steps))
    assert factors[0] == 1 / (peak + 1)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert all(factor > 0 for factor in factors[:-1])
    assert factors[-1] == pytest.approx(0, abs=1e-15)


def test_single_step_takes_the_whole_rate():
    assert cosine_with_warm_up(0, 1) == 1


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (9, 3), (7, 1), (11, 10)])
def test_batches_hold_each_row_once_and_are_near_equal(n, batch_size):
    batches = shuffled_batches(n, batch_size, "cpu")
    assert sorted(torch.cat(list(batches)).tolist()) == list(range(n))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_single_batch_takes_the_rows_in_order():
    (batch,) = shuffled_batches(5, 5, "cpu")
    assert torch.equal(torch.arange(5)[batch], torch.arange(5))


def test_mean_log_prob_is_weighted_and_the_same_in_chunks(monkeypatch):
    y, weight = torch.randn(23, 2).double(), torch.rand(23).double()
    log_prob = torch.distributions.Normal(0, 1).log_prob(y).sum(1)
    expected = ((weight * log_prob).sum() / weight.sum()).item()
    for size in (100, 5):
        monkeypatch.setattr(_training, "EVALUATION_ROWS", size)
        assert_close(mean_log_prob(Chain([]), y, weight), expected, rtol=1e-12, atol=1e-12)
