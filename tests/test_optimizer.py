"""The parts of the training loop: optimizer, average, schedule, batches, random draws."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from skflows.bijections import Chain, Coupling, ElementwiseAffine, MaskedAutoregressive, Shift
from skflows.nn.linear import ColumnLinear
from skflows.nn.made import ResidualMADE
from skflows.nn.random_draws import drawing_from, dropout, normal_draws
from skflows.training.losses import mean_log_prob, weighted_nll
from skflows.training.model_stack import stackable
from skflows.training.optimizer import (
    EPS,
    MAX_GRADIENT_NORM,
    FlatAdamW,
    TimeLimited,
    constant,
    cosine_with_warm_up,
)
from skflows.training.trainer import shuffled_batches


@pytest.fixture(autouse=True)
def own_seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def move(optimizer, loss, factor=1.0):
    """Take a step with the gradients of a loss by autograd."""
    gradients = torch.autograd.grad(loss.sum(), optimizer.parameters)
    return optimizer.step(loss.detach(), gradients, factor)


def weights_of(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def test_optimizer_keeps_the_values_of_parameters_and_returns_their_memory():
    module = Coupling(4, Shift(), (8, 8), n_context=2).double()
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = FlatAdamW(module, 0.1, ema_decay=0.9)
    shared = optimizer.weights.untyped_storage().data_ptr()
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
    optimizer = FlatAdamW(module, 0.1, ema_decay=decay)
    average = weights_of(module)
    y, weight = 2 + torch.randn(60, 2).double(), torch.ones(60).double()
    for step in range(1, 9):
        assert move(optimizer, weighted_nll(*module(y), weight)).tolist() == [True]
        # The average forgets early weights faster.
        now = min(decay, (1 + step) / (10 + step))
        average = now * average + (1 - now) * weights_of(module)
        assert_close(optimizer.average[0], average, rtol=1e-12, atol=1e-12)
    raw = weights_of(module)
    assert torch.equal(raw, optimizer.average[0]) == (decay == 0)
    with optimizer.averaged():
        assert torch.equal(weights_of(module), optimizer.average[0])
    assert torch.equal(weights_of(module), raw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_members", [1, 3])
def test_steps_equal_adamw_with_clipped_gradients(n_members, dtype):
    """Each member has a learning rate and a weight decay of its own."""
    rates, decays = [0.1, 0.2, 0.3][:n_members], [0.0, 0.5, 0.1][:n_members]
    target = torch.randn(n_members, 40, dtype=dtype)
    start = target + torch.tensor([[5.0], [0.2], [3.0]], dtype=dtype)[:n_members]
    module = nn.ParameterList([start.clone()])
    optimizer = FlatAdamW(module, rates, decays, n_members=n_members)
    alone = [row.clone().requires_grad_() for row in start]
    peers = [
        torch.optim.AdamW([weights], rate, eps=EPS, weight_decay=decay)
        for weights, rate, decay in zip(alone, rates, decays, strict=True)
    ]
    norms = []
    for factor in (1.0, 0.5, 0.25, 0.0):
        alive = move(optimizer, ((module[0] - target) ** 2).sum(-1), factor)
        assert alive.all()
        for peer, weights, row, rate in zip(peers, alone, target, rates, strict=True):
            peer.zero_grad()
            ((weights - row) ** 2).sum().backward()
            norms.append(nn.utils.clip_grad_norm_([weights], MAX_GRADIENT_NORM))
            peer.param_groups[0]["lr"] = factor * rate
            peer.step()
        assert_close(module[0].detach(), torch.stack(alone).detach(), rtol=1e-5, atol=5e-6)
    assert max(norms) > MAX_GRADIENT_NORM
    assert n_members == 1 or min(norms) < MAX_GRADIENT_NORM


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_member_whose_loss_is_not_finite_does_not_move_until_restarted(bad):
    module = nn.ParameterList([torch.ones(2, 5)])
    optimizer = FlatAdamW(module, 0.1, weight_decay=0.1, n_members=2)
    for loss in (torch.tensor([bad, 1.0]), torch.ones(2)):
        alive = move(optimizer, (module[0] ** 2).sum(-1) * loss)
        assert alive.tolist() == [False, True]
    assert module[0][0].eq(1).all()
    assert module[0][1].lt(1).all()
    for state in (optimizer.moment, optimizer.square, optimizer.n_steps):
        assert state[0].eq(0).all()
    assert optimizer.average[0].eq(1).all()
    optimizer.restart(0, torch.ones(5), 0.5)
    assert move(optimizer, (module[0] ** 2).sum(-1)).all()
    assert module[0][0].lt(1).all()


def test_masked_weights_do_not_matter_and_do_not_train():
    net = ResidualMADE(3, 2, (8, 8)).double()
    layers = [layer for layer in net.modules() if isinstance(layer, ColumnLinear)]
    assert len(layers) == 3
    with torch.no_grad():
        for p in net.parameters():
            p.normal_()
    x = torch.randn(3, 30).double()
    hidden = [layer.weight[layer.mask == 0].clone() for layer in layers]
    optimizer = FlatAdamW(net, 0.1)
    before = net(x)
    for _ in range(3):
        move(optimizer, net(x).square().mean())
    optimizer.release()
    trained = net(x)
    assert not torch.equal(trained, before)
    for layer, values in zip(layers, hidden, strict=True):
        assert torch.equal(layer.weight[layer.mask == 0], values)
    for module in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(module(x), trained)
        with torch.no_grad():
            for layer in module.modules():
                if isinstance(layer, ColumnLinear):
                    layer.weight += 1 - layer.mask
        assert torch.equal(module(x), trained)


def test_a_trained_bijection_stacks_with_a_new_one():
    trained, new = (MaskedAutoregressive(3, Shift(), (8,)) for _ in range(2))
    FlatAdamW(trained, 0.1).release()
    assert stackable(trained, new)


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


def test_a_single_step_has_the_full_rate():
    assert cosine_with_warm_up(0, 1) == 1


def numbered(*shape):
    """Return rows that hold their number, and the numbers as weights."""
    number = 1 + torch.arange(math.prod(shape), dtype=torch.float64).view(shape)
    return number[..., None].expand(*shape, 2), number


def generators(n_members):
    return [torch.Generator().manual_seed(i) for i in range(n_members)]


@pytest.mark.parametrize("members", [(), (3,)])
@pytest.mark.parametrize(
    ("n", "batch_size", "apart"), [(10, 3, 1), (9, 3, 1), (7, 1, 1), (11, 10, 1), (299, 128, 16)]
)
def test_batches_hold_each_row_once_and_are_near_equal(n, batch_size, apart, members):
    y, weight = numbered(*members, n)
    batches = list(shuffled_batches(y, weight, batch_size, generators(math.prod(members))))
    found = torch.cat([w for _, w in batches], -1).sort(-1).values
    assert torch.equal(found[..., -n:], weight)
    assert (found[..., :-n] == 0).all()
    sizes = [w.shape[-1] for _, w in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= apart
    for rows, w in batches:
        assert rows.shape == (*members, w.shape[-1], 2)
        assert torch.equal(rows[..., 0][w > 0], w[w > 0])
        if members:  # each has only its own rows, those of weight 0 included
            assert torch.equal((rows[..., 0] - 1) // n, torch.arange(3.0)[:, None].expand_as(w))


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (720, 128, [112, 112, 112, 128, 128, 128]),
        (715, 128, [112, 112, 112, 128, 128, 128]),
        (129, 128, [64, 80]),
        (700, 125, [116, 116, 117, 117, 117, 117]),
        (63, 32, [31, 32]),
    ],
)
def test_large_batches_are_multiples_of_16(n, batch_size, sizes):
    """If the batch size is, and batches have 32 rows or more on average."""
    batches = shuffled_batches(*numbered(n), batch_size, generators(1))
    assert [len(rows) for rows, _ in batches] == sizes


@pytest.mark.parametrize("batch_size", [3, 16, 64, 128, 1024])
def test_batches_have_nearly_equal_numbers_of_rows_with_weight(batch_size):
    for n in range(1, 1500, 31):
        batches = shuffled_batches(*numbered(n), batch_size, generators(1))
        counts = [int((w > 0).sum()) for _, w in batches]
        assert len(counts) == math.ceil(n / batch_size)
        assert 0 < min(counts) <= max(counts) <= batch_size
        assert max(counts) - min(counts) <= (16 if batch_size in (64, 128, 1024) else 1)


def test_each_member_has_its_own_order():
    _, order = next(shuffled_batches(*numbered(2, 30), 29, generators(2)))
    assert not torch.equal(order[0], order[1] - 30)


@pytest.mark.parametrize("members", [(), (3,)])
def test_a_single_batch_has_the_rows_in_order(members):
    ((rows, weight),) = shuffled_batches(*numbered(*members, 5), 5, generators(math.prod(members)))
    assert torch.equal(rows[..., 0], weight)
    assert torch.equal(weight, numbered(*members, 5)[1])


def test_mean_log_prob_is_weighted_and_the_same_in_chunks(small_blocks):
    y, weight = torch.randn(23, 2).double(), torch.rand(23).double()
    log_prob = torch.distributions.Normal(0, 1).log_prob(y).sum(1)
    expected = ((weight * log_prob).sum() / weight.sum()).item()
    assert_close(mean_log_prob(Chain([]), y, weight), expected, rtol=1e-12, atol=1e-12)
    small_blocks()
    assert_close(mean_log_prob(Chain([]), y, weight), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("p", "rounded"), [(0.1, 26), (0.5, 128), (0.9999, 255), (1e-4, 1)])
def test_dropout_is_unbiased_and_independent(p, rounded):
    """Rates are rounded to 8 bits, but not to 0 or 1."""
    n = 100_001  # not a multiple of the 8 units that share a draw
    h = torch.ones(n, dtype=torch.float64).requires_grad_()
    first, second = dropout(h, p), dropout(h, p)
    p = rounded / 256
    kept = first != 0
    assert_close(first[kept], torch.full_like(first[kept], 1 / (1 - p)))
    tolerance = 5 * (p * (1 - p) / n) ** 0.5
    assert abs(kept.double().mean() - (1 - p)) < tolerance
    # Independent of the next draw and of neighbouring units.
    for other in (second != 0, kept.roll(1), kept.roll(8)):
        assert abs((kept & other).double().mean() - (1 - p) ** 2) < 2 * tolerance
    (slope,) = torch.autograd.grad(first.sum(), h)
    assert torch.equal(slope, first)


@pytest.mark.parametrize("shape", [(3, 5, 7), (3, 4, 16)])
@pytest.mark.parametrize(
    ("sharing", "rates"),
    [
        ([0, 0, 0], 0.25),
        ([0, 0, 0], [0.25, 0.125, 0.5]),
        ([0, 1, 0], 0.25),
        ([0, 1, 0], [0.25, 0.0, 0.5]),  # a member without dropout draws nothing
        ([0, 1, 2], [0.25, 0.0, 0.5]),
    ],
)
def test_members_draw_in_a_stack_what_they_draw_alone(sharing, rates, shape):
    h = torch.ones(shape)
    shared = generators(3)
    with drawing_from([shared[i] for i in sharing]):
        together = [dropout(h, rates), normal_draws(h), dropout(h, rates)]
    for i, number in enumerate(sharing):
        own = rates[i] if isinstance(rates, list) else rates
        with drawing_from([generators(3)[number]]):
            alone = [dropout(h[i], own), normal_draws(h[i]), dropout(h[i], own)]
        for drawn, expected in zip(together, alone, strict=True):
            assert torch.equal(drawn[i], expected)


def test_members_that_share_a_generator_share_an_order():
    y, weight = numbered(2, 30)
    (generator,) = generators(1)
    for rows, importance in shuffled_batches(y, weight, 16, [generator] * 2):
        assert torch.equal(rows[0] + 30, rows[1])
        assert torch.equal(importance[0] > 0, importance[1] > 0)


def test_time_limited_schedule_follows_the_clock():
    now = [100.0]
    limited = TimeLimited(cosine_with_warm_up, 10, started=100.0, clock=lambda: now[0])
    # The schedule itself in time, ahead of the steps when they are late, and 0 at the end.
    assert limited(30, 100) == cosine_with_warm_up(30, 100)
    for now[0], step in ((103.0, 30), (105.0, 50), (107.0, 70)):
        assert limited(30, 100) == cosine_with_warm_up(step, 100)
    now[0] = 108.6  # another step would take 1.6 seconds, as the last one did
    assert limited(30, 100) == 0
    assert TimeLimited(constant, 1, started=110.0, clock=lambda: now[0])(5, 10) == 1
