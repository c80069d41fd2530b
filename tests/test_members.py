"""Stacks of bijections, which compute and train as their members do alone."""

import copy
import math

import pytest
import torch
from _bijections import (
    N_ROWS,
    TABLE,
    autoregressive,
    check_vjp,
    coupling,
    randomize,
    values_and_gradients,
)
from torch.testing import assert_close

from skflows.bijections import (
    ActNorm,
    Affine,
    Bijection,
    Chain,
    Coupling,
    ElementwiseAffine,
    Inverse,
    LULinear,
    MaskedAutoregressive,
    Permutation,
    Planar,
    RationalQuadraticSpline,
)
from skflows.training.history import MAX_RECOVERIES
from skflows.training.losses import mean_log_prob
from skflows.training.model_stack import stack, unstack
from skflows.training.optimizer import constant
from skflows.training.trainer import BACK_OFF, Rows, Trainer

EXACT = {"rtol": 1e-10, "atol": 1e-10}
M = 3
SETTINGS = {"max_iter": 8, "batch_size": 1000, "learning_rate": 0.05, "ema_decay": 0.5}


@pytest.fixture(autouse=True)
def own_seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def trained_chain(d, n_context):
    return Chain(
        [
            ActNorm(d),
            LULinear(d, rotation=True),
            coupling("spline", d, n_context),
            Permutation(d),
            Inverse(autoregressive("affine", d, n_context)),
            Planar(d, n_context),
        ]
    )


def is_fixed(module):
    """Whether a bijection is only set from data; such a map precedes a stack."""
    trained = any(True for _ in module.parameters()) or isinstance(module, Permutation)
    return isinstance(module, Bijection) and not trained


STACKABLE = {
    name: construct
    for name, construct in TABLE.items()
    if not any(map(is_fixed, construct(2, 0).modules()))
} | {"trained_chain": trained_chain}

every_bijection = pytest.mark.parametrize("name", STACKABLE)


def members(name, d, n_context=0):
    """Members with weights, rotations, rows and contexts of their own."""
    bijections = [
        randomize(STACKABLE[name](d, n_context).double().eval(), seed=seed) for seed in range(M)
    ]
    x = 2 * torch.randn(M, N_ROWS, d, dtype=torch.float64)
    context = torch.randn(M, N_ROWS, n_context, dtype=torch.float64) if n_context else None
    return bijections, x, context


# The stack and its members


@every_bijection
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_stack_equals_its_members(name, direction):
    bijections, x, context = members(name, 5, n_context=3)
    stacked = stack(bijections)
    together = values_and_gradients(stacked, getattr(stacked, direction), x, context)
    contexts = [None] * M if context is None else context
    apart = [
        values_and_gradients(bijection, getattr(bijection, direction), *own)
        for bijection, *own in zip(bijections, x, contexts, strict=True)
    ]
    for whole, parts in zip(together, zip(*apart, strict=True), strict=True):
        assert_close(whole, torch.stack(parts), **EXACT)


@every_bijection
def test_vjp_of_a_stack_equals_autograd(name):
    bijections, x, context = members(name, 5, n_context=3)
    check_vjp(stack(bijections), x, context)


@every_bijection
def test_unstack_inverts_stack(name):
    bijections, x, _ = members(name, 4)
    others = [randomize(copy.deepcopy(bijection), seed=M) for bijection in bijections]
    unstack(stack(bijections), others)
    for member, back, rows in zip(bijections, others, x, strict=True):
        state, state_back = member.state_dict(), back.state_dict()
        assert state.keys() == state_back.keys()
        assert all(torch.equal(state[key], state_back[key]) for key in state)
        assert torch.equal(back(rows)[0], member(rows)[0])


def test_a_stack_does_not_share_memory_with_its_members():
    bijections, *_ = members("trained_chain", 3)
    before = [copy.deepcopy(bijection.state_dict()) for bijection in bijections]
    stacked = stack(bijections)
    unstack(stacked, bijections)
    for parameter in stacked.parameters():
        parameter.data.fill_(0)
    for bijection, state in zip(bijections, before, strict=True):
        for key, value in state.items():
            assert torch.equal(bijection.state_dict()[key], value)


def test_equal_buffers_are_shared():
    stacked = stack([MaskedAutoregressive(4, Affine(), (6,)) for _ in range(M)])
    assert stacked.net.input.mask.shape == (6, 4)
    assert stacked.net.input.weight.shape == (M, 6, 4)


def spline_coupling(*spline):
    return Coupling(4, RationalQuadraticSpline(*spline), (6,))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (LULinear(2), LULinear(3), r"lower: \(2, 2\).* \(3, 3\)"),
        (LULinear(2), LULinear(2).double(), "float32.*float64"),
        (Permutation(3, [2, 0, 1]), Permutation(3, [1, 2, 0]), "in order"),
        (LULinear(2), ActNorm(2), "settings"),
        (spline_coupling(8, 3.0), spline_coupling(8, 4.0), "settings"),
        (spline_coupling(8), spline_coupling(4), "settings"),
        (Coupling(4, Affine(), (6,)), Coupling(4, Affine(), (6,), activation="silu"), "settings"),
        (Coupling(4, Affine(), (6,)), Coupling(4, Affine(), (6, 6)), "structure"),
        (LULinear(2), LULinear(2, rotation=True), "structure"),
    ],
)
def test_members_that_differ_in_more_than_values_are_refused(first, second, message):
    with pytest.raises(ValueError, match=f"Members 0 and 2 differ.*{message}"):
        stack([first, copy.deepcopy(first), second])


def test_stacks_are_not_stacked():
    stacked = stack([LULinear(2), LULinear(2)])
    for again in (stacked, Chain([stacked])):
        with pytest.raises(ValueError, match="stack itself"):
            stack([again, again])


# Training


def learners():
    """Members without dropout, and rows of different locations and scales."""
    bijections = [
        Chain([LULinear(3), Coupling(3, RationalQuadraticSpline(4), (8, 8)), ElementwiseAffine(3)])
        for _ in range(M)
    ]
    place = torch.arange(M, dtype=torch.float64)[:, None, None]
    y = (1 + place) * torch.randn(M, 60, 3, dtype=torch.float64) + place
    return [bijection.double() for bijection in bijections], y, 0.5 + torch.rand(M, 60).double()


def weights_of(bijection):
    return torch.cat([p.detach().reshape(-1) for p in bijection.parameters()])


def train(bijection, y, weight, validation=None, log_det=0.0, **settings):
    validation = None if validation is None else Rows(*validation)
    return Trainer(bijection, Rows(y, weight, log_det), validation, **SETTINGS | settings).fit()


def fit_together(bijections, *data, **settings):
    stacked = stack(bijections)
    histories = train(stacked, *data, **settings)
    trained = copy.deepcopy(bijections)
    unstack(stacked, trained)
    return [weights_of(bijection) for bijection in trained], histories


def fit_apart(bijections, y, weight, validation=None, **settings):
    bijections = copy.deepcopy(bijections)
    histories = []
    for i, bijection in enumerate(bijections):
        own = {
            key: value[i] if isinstance(value, list) else value for key, value in settings.items()
        }
        held_out = None if validation is None else (validation[0][i], validation[1][i])
        histories.append(train(bijection, y[i], weight[i], held_out, **own))
    return list(map(weights_of, bijections)), histories


def assert_same_fits(together, apart):
    for (weights, history), (weights_apart, history_apart) in zip(
        zip(*together, strict=True), zip(*apart, strict=True), strict=True
    ):
        assert_close(weights, weights_apart, rtol=1e-8, atol=1e-8)
        for name in ("loss", "validation_score", "learning_rate"):
            actual, expected = getattr(history, name), getattr(history_apart, name)
            assert actual == pytest.approx(expected, rel=1e-8), name
        for name in ("best_iter", "diverged", "interrupted"):
            assert getattr(history, name) == getattr(history_apart, name), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"learning_rate": [0.01, 0.05, 0.1], "weight_decay": [0.0, 0.1, 0.5]},
        {"log_det": [0.0, -2.0, 5.0], "schedule": constant},
    ],
)
def test_members_train_as_if_alone(settings):
    bijections, *data = learners()
    apart = fit_apart(bijections, *data, **settings)
    assert_same_fits(fit_together(bijections, *data, **settings), apart)
    assert not torch.equal(apart[0][0], apart[0][1])


def test_each_member_has_its_own_patience_and_best_epoch():
    bijections, y, weight = learners()
    # Held-out rows of the training distribution, and others ever further from it.
    held_out = torch.stack([y[0], y[1] + 1, y[2] - 2])[:, :20] * 0.8
    settings = {"max_iter": 60, "n_iter_no_change": 6, "log_det": [0.0, 1.0, 2.0]}
    data = y, weight, (held_out, weight[:, :20])
    together = fit_together(bijections, *data, **settings)
    assert_same_fits(together, fit_apart(bijections, *data, **settings))
    lengths = {len(history.loss) for history in together[1]}
    assert len(lengths) > 1
    assert min(lengths) < 60


def test_the_median_score_chooses_a_common_end():
    bijections, y, weight = learners()
    held_out = torch.stack([y[0], y[1] + 1, y[2] - 2])[:, :20] * 0.8
    validation, settings = (held_out, weight[:, :20]), {"max_iter": 60, "schedule": constant}
    _, apart = fit_apart(bijections, y, weight, validation, n_iter_no_change=60, **settings)
    medians = torch.tensor([history.validation_score for history in apart]).median(0).values
    together = fit_together(
        bijections, y, weight, validation, n_iter_no_change=6, common_end=True, **settings
    )
    for history in together[1]:
        n = len(history.loss)
        assert n < 60
        assert history.validation_score == pytest.approx(medians[:n].tolist(), rel=1e-5)
        assert history.best_iter == 1 + medians[:n].argmax() == n - 6
    settings["max_iter"] = n - 6
    for weights, alone in zip(
        together[0], fit_apart(bijections, y, weight, **settings)[0], strict=True
    ):
        assert_close(weights, alone, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_a_member_that_diverges_does_not_affect_the_others(batch_size):
    bijections, y, weight = learners()
    settings = {"batch_size": batch_size, "max_iter": 3}
    torch.manual_seed(1)
    weights, _ = fit_together(bijections, y, weight, **settings)
    y = y.clone()
    y[1, 3] = 1e200  # whose square overflows
    torch.manual_seed(1)
    weights_beside, histories = fit_together(bijections, y, weight, **settings)
    assert not histories[0].diverged and not histories[2].diverged
    # With batches, the order of the rows decides whether the last epoch has a finite step.
    assert histories[1].diverged or batch_size == 7
    for i in (0, 2):
        assert torch.equal(weights[i], weights_beside[i])
        assert len(histories[i].loss) == 3
    assert weights_beside[1].isfinite().all()
    if batch_size == 1000:
        assert torch.equal(weights_beside[1], weights_of(bijections[1]))


class FaultyMember(ElementwiseAffine):
    """Its loss is not finite at the training calls numbered in ``faults``, if it is faulty."""

    def __init__(self, n_features, faults, faulty):
        super().__init__(n_features)
        self.faults = faults
        self.calls = 0
        self.register_buffer("fault", torch.tensor(math.nan if faulty else 0.0))

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        self.calls += self.training
        if self.training and self.calls in self.faults:
            log_det = log_det + self.fault[:, None]
        return z, log_det


def with_a_faulty_member(faults):
    return [FaultyMember(3, faults, i == 1).double() for i in range(M)]


@pytest.mark.parametrize("faults", [{3}, set(range(3, 1000))])
def test_a_member_recovers_alone(faults):
    _, *data = learners()
    settings = {"schedule": constant, "max_iter": 20}
    good, _ = fit_together(with_a_faulty_member(set()), *data, **settings)
    weights, histories = fit_together(with_a_faulty_member(faults), *data, **settings)
    for i in (0, 2):
        assert torch.equal(weights[i], good[i])
        assert histories[i].learning_rate == [0.05] * 20
        assert not histories[i].diverged
    rates = [0.05] * 3 + [0.05 * BACK_OFF] * 17
    if len(faults) > 1:
        rates = [0.05] * 3 + [0.05 * BACK_OFF**k for k in range(1, MAX_RECOVERIES)]
    assert histories[1].learning_rate[: len(rates)] == pytest.approx(rates)
    assert histories[1].diverged == (len(faults) > 1)
    assert not torch.equal(weights[1], good[1])


def test_a_member_that_is_done_may_diverge_afterwards():
    _, y, weight = learners()
    held_out = y[:, :20].clone()
    held_out[1] = 0.0  # the mode of the standard normal that the member starts from
    settings = {"max_iter": 30, "n_iter_no_change": 5, "learning_rate": 0.01}
    fits = [
        fit_together(
            with_a_faulty_member(faults),
            *(y, weight, (held_out, weight[:, :20])),
            **settings,
        )
        for faults in (set(), set(range(8, 1000)))
    ]
    assert_same_fits(*fits)
    lengths = [len(history.loss) for history in fits[0][1]]
    assert lengths[1] < 8 < min(lengths[0], lengths[2])


@pytest.mark.parametrize("junk", [0.0, 1e200, math.nan])
def test_padding_does_not_matter(junk):
    bijections, y, weight = learners()
    sizes = [60, 59, 50]
    held_out = [20, 20, 19]
    apart = [[], []]
    for i, (n, m) in enumerate(zip(sizes, held_out, strict=True)):
        data = y[i : i + 1, :n], weight[i : i + 1, :n]
        fits = fit_apart(bijections[i : i + 1], *data, [part[:, :m] for part in data])
        for part, value in zip(apart, fits, strict=True):
            part += value
        y[i, n:], weight[i, n:] = junk, 0.0
    validation = y[:, :20].clone(), weight[:, :20].clone()
    for i, m in enumerate(held_out):
        validation[0][i, m:], validation[1][i, m:] = junk, 0.0
    assert_same_fits(fit_together(bijections, y, weight, validation), apart)


def test_a_batch_of_padding_does_no_harm():
    bijections, y, weight = learners()
    y[1, 2:], weight[1, 2:] = math.nan, 0.0
    settings = {"batch_size": 4, "learning_rate": 1e-9}
    weights, histories = fit_together(bijections, y, weight, **settings)
    assert all(value.isfinite().all() for value in weights)
    assert not any(history.diverged for history in histories)
    loss = -mean_log_prob(bijections[1], y[1, :2], weight[1, :2])
    assert histories[1].loss == pytest.approx([loss] * 8, rel=1e-5)


def test_a_callback_sees_the_histories_and_stops_all_members():
    bijections, *data = learners()
    seen = []

    def on_epoch_end(histories):
        seen.append([len(history.loss) for history in histories])
        return len(seen) == 2

    _, histories = fit_together(bijections, *data, on_epoch_end=on_epoch_end)
    assert seen == [[1] * M, [2] * M]
    assert [len(history.loss) for history in histories] == [2] * M
