"""The training loop: what it converges to, which weights it keeps, and how it recovers."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from skflows.bijections import Chain, ElementwiseAffine, LULinear, Planar
from skflows.bijections._flow import Flow
from skflows.preprocessing.dequantizer import Dequantizer
from skflows.preprocessing.validation import Table
from skflows.training.flow_fit import GradientFit
from skflows.training.history import MAX_RECOVERIES
from skflows.training.joint_fit import NoiseSearch, fit_jointly
from skflows.training.layerwise_fit import LayerwiseFit
from skflows.training.losses import Likelihood, mean_log_prob, weighted_nll
from skflows.training.optimizer import EPS, MAX_GRADIENT_NORM, constant
from skflows.training.recipe import Recipe, Settings
from skflows.training.trainer import BACK_OFF, Rows, Trainer

SETTINGS = {
    "max_iter": 6,
    "batch_size": 1000,
    "learning_rate": 0.05,
    "schedule": constant,
    "ema_decay": 0.0,
}


@pytest.fixture(autouse=True)
def own_seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def train(bijection, y, weight, validation=None, **settings):
    """Train on rows, and return the history; ``validation`` is a pair of rows and weights."""
    validation = None if validation is None else Rows(*validation)
    return Trainer(bijection, Rows(y, weight), validation, **settings).fit()


def rows(n=60, d=2, loc=0.0):
    y = torch.randn(n, d, dtype=torch.float64) + loc
    return y, torch.ones(n, dtype=torch.float64)


def weights_of(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


class Recorder:
    """An ``on_epoch_end`` that records the weights."""

    def __init__(self, bijection, then=lambda epoch: False):
        self.bijection = bijection
        self.then = then
        self.seen = []
        self.modes = []

    def __call__(self, history):
        self.seen.append(weights_of(self.bijection))
        self.modes.append(self.bijection.training)
        return self.then(len(self.seen))


class Faulty(ElementwiseAffine):
    """A map that fails at the training calls numbered in ``faults``."""

    def __init__(self, n_features, faults, what="nan"):
        super().__init__(n_features)
        self.faults = faults
        self.what = what
        self.calls = 0

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        self.calls += self.training
        if self.training and self.calls in self.faults:
            if self.what == "interrupt":
                raise KeyboardInterrupt
            if self.what == "gradient":  # the slope of a square root at 0 is infinite
                log_det = log_det + (0 * self.shift.sum()).sqrt()
            else:  # a constant, which leaves the gradient finite
                log_det = log_det + float(self.what)
        return z, log_det


# What it converges to


@pytest.mark.parametrize("batch_size", [100, 400])
def test_reaches_the_entropy_of_a_gaussian(batch_size):
    y, weight = rows(400, 3)
    y = y @ torch.randn(3, 3, dtype=torch.float64) + 0.5
    bijection = Chain([LULinear(3), ElementwiseAffine(3)]).double()
    train(bijection, y, weight, max_iter=300, batch_size=batch_size, learning_rate=0.05)
    # The least possible mean loss is the entropy of the normal with the rows' covariance.
    covariance = torch.cov(y.T, correction=0)
    entropy = 0.5 * (torch.logdet(covariance).item() + 3 * math.log(2 * math.pi * math.e))
    assert entropy <= -mean_log_prob(bijection, y, weight) <= entropy + 1e-3


def test_steps_equal_adamw():
    y, weight = rows(loc=3.0)
    ours, theirs = ElementwiseAffine(2).double(), ElementwiseAffine(2).double()
    history = train(ours, y, weight, **SETTINGS, weight_decay=0.1)
    adam = torch.optim.AdamW(theirs.parameters(), lr=0.05, eps=EPS, weight_decay=0.1)
    for loss in history.loss:
        adam.zero_grad()
        expected = weighted_nll(*theirs(y), weight) / len(y)
        assert_close(loss, expected.item())
        expected.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), MAX_GRADIENT_NORM)
        adam.step()
    assert_close(weights_of(ours), weights_of(theirs), rtol=1e-6, atol=1e-6)
    # The parameters have memory of their own again.
    assert all(p.grad is None for p in ours.parameters())
    assert len({p.untyped_storage().data_ptr() for p in ours.parameters()}) == 2


def test_a_weight_of_2_equals_a_repeated_row():
    y, weight = rows(20)
    repeated = torch.cat([y, y[:5]])
    weight[:5] = 2
    fits = []
    for data in [(y, weight), (repeated, torch.ones(25).double()), (y, 10 * weight)]:
        torch.manual_seed(1)
        bijection = Chain([Planar(2), LULinear(2)]).double()
        history = train(bijection, *data, **SETTINGS | {"max_iter": 20, "ema_decay": 0.998})
        fits.append((weights_of(bijection), history.loss))
    for other in fits[1:]:
        assert_close(other, fits[0], rtol=1e-9, atol=1e-9)


def test_training_continues_from_the_optimizer_state():
    y, weight = rows(loc=1.0)
    once, twice = LULinear(2).double(), LULinear(2).double()
    train(once, y, weight, **SETTINGS)
    history = train(twice, y, weight, **SETTINGS | {"max_iter": 2})
    state = history.optimizer_state
    train(twice, y, weight, **SETTINGS | {"max_iter": 4}, optimizer_state=state)
    assert_close(weights_of(twice), weights_of(once), rtol=1e-12, atol=1e-12)


# Which weights are kept


@pytest.mark.parametrize("stop", ["patience", "max_iter"])
def test_the_best_epoch_is_kept(stop):
    # On its way from 0 to the mean of the training rows, the shift passes the validation mean.
    y, weight = rows(loc=4.0)
    bijection = ElementwiseAffine(2).double()
    recorder = Recorder(bijection)
    n_iter_no_change = 5 if stop == "patience" else 100
    history = train(
        bijection,
        y,
        weight,
        rows(loc=1.0),
        **SETTINGS | {"max_iter": 60, "ema_decay": 0.5},
        n_iter_no_change=n_iter_no_change,
        on_epoch_end=recorder,
    )
    scores = history.validation_score
    assert 1 < history.best_iter < len(scores)
    assert history.best_iter == scores.index(max(scores)) + 1
    assert torch.equal(weights_of(bijection), recorder.seen[history.best_iter - 1])
    assert len(history.loss) == len(scores) == len(history.learning_rate)
    assert len(scores) == (history.best_iter + 5 if stop == "patience" else 60)


def test_a_gain_below_tol_is_kept_but_does_not_reset_the_patience():
    y, weight = rows(loc=4.0)
    bijection = ElementwiseAffine(2).double()
    history = train(bijection, y, weight, (y, weight), **SETTINGS, n_iter_no_change=3, tol=100.0)
    assert len(history.loss) == history.best_iter == 3
    assert_close(mean_log_prob(bijection, y, weight), history.validation_score[-1])


def test_a_callback_stops_the_training():
    bijection = ElementwiseAffine(2)
    begun = []
    recorder = Recorder(bijection, then=lambda epoch: epoch == 3)
    y, weight = (t.float() for t in rows())
    history = train(
        bijection,
        y,
        weight,
        **SETTINGS,
        on_epoch_begin=lambda: begun.append(bijection.training),
        on_epoch_end=recorder,
    )
    assert len(history.loss) == len(begun) == history.best_iter == 3
    assert recorder.modes == [False] * 3
    assert not bijection.training
    assert not history.interrupted


@pytest.mark.parametrize("validate", [False, True])
def test_interrupt_keeps_the_best(validate):
    def interrupt(epoch):
        if epoch == 30:
            raise KeyboardInterrupt

    bijection = ElementwiseAffine(2).double()
    recorder = Recorder(bijection, then=interrupt)
    history = train(
        bijection,
        *rows(loc=4.0),
        rows(loc=1.0) if validate else None,
        **SETTINGS | {"max_iter": 60, "ema_decay": 0.5},
        n_iter_no_change=60,
        on_epoch_end=recorder,
    )
    assert history.interrupted
    assert len(history.loss) == 30
    assert (history.best_iter < 30) == validate
    assert torch.equal(weights_of(bijection), recorder.seen[history.best_iter - 1])


@pytest.mark.parametrize("validate", [False, True])
def test_interrupt_within_an_epoch_keeps_the_last_complete_epoch(validate):
    bijection = Faulty(2, faults={6}, what="interrupt").double()
    recorder = Recorder(bijection)
    history = train(
        bijection,
        *rows(loc=4.0),
        rows(loc=4.0) if validate else None,
        **SETTINGS | {"batch_size": 20},
        on_epoch_end=recorder,
    )
    assert history.interrupted
    assert len(history.loss) == history.best_iter == 1
    assert torch.equal(weights_of(bijection), recorder.seen[0])
    assert not bijection.training


class ValidatedEveryFourthEpoch(Likelihood):
    validated_every = 4


@pytest.mark.parametrize("at", [3, 6])
def test_interrupt_between_validations_keeps_the_last_complete_epoch(at):
    """Also if it has not been validated, because that happens in every fourth epoch only."""
    bijection = Faulty(2, faults={3 * at + 2}, what="interrupt").double()
    recorder = Recorder(bijection)
    held_out = rows(loc=4.0)
    history = train(
        bijection,
        *rows(loc=4.0),
        held_out,
        **SETTINGS | {"batch_size": 20, "max_iter": 12},
        objective=ValidatedEveryFourthEpoch(),
        on_epoch_end=recorder,
    )
    assert history.interrupted
    assert len(history.loss) == history.best_iter == at
    assert torch.equal(weights_of(bijection), recorder.seen[-1])
    assert history.best_score == history.validation_score[-1] == mean_log_prob(bijection, *held_out)


# Losses that are not finite


@pytest.mark.parametrize("what", ["nan", "inf", "-inf", "gradient"])
def test_a_step_that_is_not_finite_is_undone_and_the_rate_reduced(what):
    bijection = Faulty(2, faults={3}, what=what).double()
    recorder = Recorder(bijection)
    history = train(bijection, *rows(loc=2.0), **SETTINGS, on_epoch_end=recorder)
    _, second, third, *_, last = recorder.seen
    assert torch.equal(second, third)
    assert history.learning_rate == pytest.approx([0.05] * 3 + [0.05 * BACK_OFF] * 3)
    assert not history.diverged
    assert torch.equal(weights_of(bijection), last)
    assert math.isnan(history.loss[2])
    assert history.loss[5] < history.loss[3] < history.loss[1]


def test_a_bad_batch_does_not_count_in_the_loss_of_its_epoch():
    bijection = Faulty(2, faults={2}).double()
    settings = SETTINGS | {"batch_size": 20, "max_iter": 1, "learning_rate": 1e-9}
    y, weight = rows()
    history = train(bijection, y, weight, **settings)
    assert 0.5 < history.loss[0] / -mean_log_prob(ElementwiseAffine(2), y, weight) < 1.5


def test_a_bad_batch_restores_the_best_epoch():
    """Earlier steps of the same epoch are undone, too."""
    bijection = Faulty(2, faults={6}).double()
    recorder = Recorder(bijection)
    settings = SETTINGS | {"batch_size": 20, "max_iter": 2}
    train(bijection, *rows(), **settings, on_epoch_end=recorder)
    first, second = recorder.seen
    assert torch.equal(first, second)


def test_divergence_is_reported_when_it_persists():
    bijection = Faulty(2, faults=range(3, 10**6)).double()
    recorder = Recorder(bijection)
    settings = SETTINGS | {"max_iter": 100}
    history = train(bijection, *rows(loc=2.0), **settings, on_epoch_end=recorder)
    assert history.diverged
    assert bijection.calls == 2 + MAX_RECOVERIES + 1
    assert torch.equal(weights_of(bijection), recorder.seen[1])
    assert not bijection.training


def test_divergence_from_the_start_keeps_the_initial_weights():
    bijection = Faulty(2, faults=range(10**6)).double()
    before = weights_of(bijection)
    history = train(bijection, *rows(), **SETTINGS | {"max_iter": 100})
    assert history.diverged
    assert torch.equal(weights_of(bijection), before)


# Redrawn and padded rows


@pytest.mark.parametrize("batch_size", [20, 1000])
def test_each_epoch_trains_on_redrawn_rows(batch_size):
    y, weight = rows()
    drawn = []

    def redraw(running, epoch):
        drawn.append(rows(loc=10.0 * len(drawn))[0])
        return drawn[-1]

    bijection = ElementwiseAffine(2).double()
    settings = SETTINGS | {"learning_rate": 1e-9, "max_iter": 3, "batch_size": batch_size}
    history = train(bijection, math.nan * y, weight, **settings, redraw=redraw)
    assert len(drawn) == 3
    expected = [-mean_log_prob(ElementwiseAffine(2), y, weight) for y in drawn]
    assert history.loss == pytest.approx(expected, rel=1e-6)


def test_rows_of_weight_0_do_not_matter():
    y, weight = rows()
    fits = []
    for extra in (0, 5):
        padded = torch.cat([y, torch.full((extra, 2), math.nan, dtype=y.dtype)])
        bijection = LULinear(2).double()
        history = train(bijection, padded, torch.cat([weight, weight.new_zeros(extra)]), **SETTINGS)
        fits.append((weights_of(bijection), history.loss))
    assert_close(*fits, rtol=1e-12, atol=1e-12)


def test_training_ends_with_the_epoch_in_which_the_rate_falls_to_0():
    """A time limit may be about to pass for a step, and not yet for the look at the next one."""
    rates = iter([1.0, 1.0, 0.0])
    settings = SETTINGS | {"batch_size": 10, "schedule": lambda *step: next(rates, 1.0)}
    history = train(ElementwiseAffine(2).double(), *rows(), **settings)
    assert len(history.loss) == 1


# Fits without an estimator


def recipe(layers, **settings):
    """Return a recipe whose owner has nothing but a seed."""

    def build_flow(preprocess, n_features, n_context):
        return Flow(preprocess, Chain([layer(n_features) for layer in layers]))

    owner = SimpleNamespace(random_state=0)
    settings = Settings("standardize", learning_rate_init=0.02, **settings)
    return Recipe(owner, build_flow, [{"max_iter": 5}], settings)


def bent_table(n=400):
    x = np.random.default_rng(0).normal(size=(n, 2))
    x[:, 1] += x[:, 0] ** 2
    return Table(x, np.ones(n), np.ones(n, dtype=bool), Dequantizer(x, {}), None)


def joint(recipe, table, held_out):
    """Return a fit that trains beside another one."""
    fits = [GradientFit(recipe, table, held_out) for _ in range(2)]

    def fit():
        for each in fits:
            with each.seeded():
                each.prepare()
        return fit_jointly(fits)[0]

    fits[0].fit = fit
    return fits[0]


FITS = {
    "gradient": partial(GradientFit, recipe([LULinear, Planar])),
    "noise": partial(NoiseSearch, recipe([LULinear, Planar], input_noise="auto")),
    "joint": partial(joint, recipe([LULinear, Planar])),
    "layers": partial(LayerwiseFit, recipe([]), rotation="ica", n_bins=8),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("is_given", [False, True])
def test_a_fit_needs_no_estimator_and_leaves_its_table_alone(name, is_given):
    table = bent_table()
    before = table.X.copy()
    held_out = (table.X[:20], table.weight[:20]) if is_given else None
    fit = FITS[name](table=table, held_out=held_out)
    history = fit.fit()
    assert 1 <= history.best_iter <= len(history.loss) <= 5
    assert fit.table is table
    np.testing.assert_array_equal(table.X, before)
    assert [len(fit.train_rows), len(fit.held_out[0])] == ([400, 20] if is_given else [360, 40])
    if not is_given:
        both = np.concatenate([fit.train_rows, fit.held_out[0]])
        np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(before, axis=0))
    with torch.no_grad():
        score = fit.snapshot().log_prob(torch.from_numpy(fit.held_out[0])).mean()
    assert score.item() == pytest.approx(history.best_score, abs=1e-4)
