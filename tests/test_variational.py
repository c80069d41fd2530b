"""Densities that approximate a function, on targets with known answers."""

import io
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from torch.distributions import Beta, Dirichlet, Gamma, Normal

import skflows
from skflows import MAFDensity, NSFDensity, RealNVPDensity, VariationalDensity
from skflows.bijections import Affine, Chain, Coupling, LULinear
from skflows.bijections._flow import standard_normal_log_prob
from skflows.callbacks import _progress
from skflows.training.reverse_kl import ForwardKL, ReverseKL
from skflows.variational._chains import (
    LEARNED_STEPS,
    Chains,
    Hamiltonian,
    adapted_chains,
    diagnostics,
)
from skflows.variational._fit import OF_DRAWS, OF_TARGET, learned_flow
from skflows.variational._importance import importance_weights
from skflows.variational._starts import find_modes, maximize
from skflows.variational._support import support_map
from skflows.variational._target import TargetDensity

MEAN = torch.tensor([3.0, -200.0, 0.05], dtype=torch.float64)
ROOT = torch.tensor([[2.0, 0, 0], [30, 10, 0], [-0.01, 0.02, 0.001]], dtype=torch.float64)


def normal(x):
    """Three correlated columns of very different units, without the constant."""
    z = torch.linalg.solve_triangular(ROOT, (x - MEAN).T, upper=False)
    return -0.5 * z.square().sum(0)


def normal_with_gradients(x):
    precision = np.linalg.inv((ROOT @ ROOT.T).numpy())
    difference = x - MEAN.numpy()
    slope = -difference @ precision
    return 0.5 * (difference * slope).sum(1), slope


LOG_EVIDENCE = 1.5 * math.log(2 * math.pi) + ROOT.diagonal().log().sum().item()


@pytest.fixture(scope="module")
def fitted():
    flow = RealNVPDensity(n_transforms=2, hidden_layer_sizes=16)
    return VariationalDensity(flow, random_state=0).fit(normal, 3)


@pytest.fixture
def few_steps(monkeypatch):
    """Let chains take few steps, after which they need not agree and no flow learns them."""
    monkeypatch.setattr("skflows.variational._chains.WARM_UP_STEPS", 10)
    monkeypatch.setattr("skflows.variational._chains.LEARNED_STEPS", 30)
    monkeypatch.setattr("skflows.variational._chains.MAX_R_HAT", math.inf)
    monkeypatch.setattr("skflows.variational._density.MAX_R_HAT", math.inf)


def two_modes(x):
    """Two normal columns, in two places that hold 30 and 70 % of the draws."""
    parts = [standard_normal_log_prob(x - 4) + math.log(0.3)]
    parts += [standard_normal_log_prob(x + 4) + math.log(0.7)]
    return torch.logaddexp(*parts)


def heavy(x):
    """Independent columns of Student's t with 1.5 degrees of freedom."""
    return -1.25 * (1 + x.square() / 1.5).log().sum(1)


@pytest.fixture(scope="module")
def unreliable():
    flow = RealNVPDensity(n_transforms=1, hidden_layer_sizes=8)
    with pytest.warns(ConvergenceWarning, match="pareto_k_=.*no finite integral"):
        return VariationalDensity(flow, max_iter=1, random_state=0).fit(heavy, 2)


def test_normal_target_is_fitted_exactly(fitted):
    assert fitted.ess_ > 0.999
    assert abs(fitted.log_evidence_ - LOG_EVIDENCE) < 1e-3
    assert fitted.log_evidence_error_ < 1e-3
    assert fitted.reliable_ is True
    assert fitted.n_modes_ == 1
    X = fitted.sample(20_000, random_state=0)
    scale = (ROOT @ ROOT.T).diagonal().sqrt()
    assert np.abs((X.mean(0) - MEAN.numpy()) / scale.numpy()).max() < 0.03
    assert np.abs(X.std(0) / scale.numpy() - 1).max() < 0.03
    X = torch.tensor(X[:50])
    expected = normal(X) - LOG_EVIDENCE
    assert np.abs(fitted.score_samples(X.numpy()) - expected.numpy()).max() < 0.1
    assert (fitted.predict(X.numpy()) == 1).mean() > 0.9


def test_arrays_with_gradients(fitted):
    density = VariationalDensity(random_state=0).fit(normal_with_gradients, 3)
    assert abs(density.log_evidence_ - fitted.log_evidence_) < 1e-3
    assert density.ess_ > 0.999
    X, weights = density.importance_sample(100, 0)
    assert X.shape == (100, 3)
    assert weights.sum() == pytest.approx(1)


def test_latent_space(fitted):
    X = fitted.sample(100, random_state=0)
    assert np.allclose(fitted.inverse_transform(fitted.transform(X)), X)


GROUPS = {"ordered": [[5, 2]], "simplex": [[7, 0, 3]]}
BOUNDS = {1: (0, None), 4: (-1, 2), 6: (None, 3), 2: (0, None), 5: (0, None)}


def test_support_map():
    support, d = support_map(8, BOUNDS, **GROUPS)
    assert d == 7
    u = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, log_det = support.inverse(u)
    assert (x[:, 1] > 0).all()
    assert ((x[:, 4] > -1) & (x[:, 4] < 2)).all()
    assert (x[:, 6] < 3).all()
    assert ((x[:, 2] > x[:, 5]) & (x[:, 5] > 0)).all()
    assert torch.allclose(x[:, [0, 3, 7]].sum(1), torch.ones(20, dtype=torch.float64))
    assert (x[:, [0, 3, 7]] > 0).all()
    back, forward = support(x)
    assert torch.allclose(back, u)
    assert torch.allclose(forward, -log_det)
    free = [0, 1, 2, 3, 4, 5, 6]  # the last column of the simplex follows from the others
    for row, expected in zip(u, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda u: support.inverse(u[None])[0][0], row)
        assert torch.linalg.slogdet(jacobian[free])[1].item() == pytest.approx(expected.item())


def test_rows_outside_the_support_have_density_0():
    support, _ = support_map(8, BOUNDS, **GROUPS)
    x, _ = support.inverse(torch.zeros(1, 7, dtype=torch.float64))
    for column, value in [(1, -1), (4, 2.5), (2, x[0, 5] - 0.1), (0, x[0, 0] + 0.1), (6, 3)]:
        outside = x.clone()
        outside[0, column] = value
        assert support(outside)[1].item() == -math.inf


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ordered": [0, 1]}, "list of groups"),
        ({"ordered": "ab"}, "ordered"),
        ({"ordered": [["a", "e"]]}, "column 'e'"),
        ({"simplex": [["a"]]}, "two columns"),
        ({"simplex": [["a", "b"]], "ordered": [["b", "c"]]}, "share columns"),
        ({"bounds": {"a": (0, None)}, "ordered": [["a", "b"]]}, "the same bounds"),
        ({"bounds": {"a": (0, None)}, "simplex": [["a", "b"]]}, "part of a simplex"),
        ({"bounds": {"a": (2, 1)}}, "low < high"),
        ({"bounds": {"z": (2, 1)}}, "column 'z'"),
        ({"density": 3}, "density"),
        ({"max_iter": 0}, "max_iter"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        VariationalDensity(**parameters).fit(normal, names=["a", "b", "c"])


def constrained(x):
    """A normalised density of constrained columns, in every way that they can be."""
    total = Gamma(3.0, 2.0).log_prob(x[:, 0]) + Beta(2.0, 3.0).log_prob(x[:, 1])
    total = total + Normal(0.0, 1.0).log_prob(x[:, 2:4]).sum(1) + math.log(2)
    return total + Dirichlet(torch.tensor([2.0, 3.0, 4.0])).log_prob(x[:, 4:])


def test_constrained_target(few_steps, monkeypatch):
    names = ["rate", "share", "low", "high", *"abc"]
    density = VariationalDensity(
        RealNVPDensity(n_transforms=3, hidden_layer_sizes=16),
        bounds={"rate": (0, None), "share": (0, 1)},
        ordered=[["low", "high"]],
        simplex=[["a", "b", "c"]],
        max_iter=20,
        random_state=0,
    ).fit(constrained, names=names)
    assert abs(density.log_evidence_) < 0.01
    assert density.ess_ > 0.9
    X = density.sample(8000, random_state=0, as_frame=True)
    assert [*X] == names
    difference = 1 / math.sqrt(math.pi)  # of the expected order statistics of two normals
    expected = [1.5, 0.4, -difference, difference, 2 / 9, 3 / 9, 4 / 9]
    assert np.abs(X.mean() - expected).max() < 0.03
    scores = density.score_samples(X[:100])
    assert np.abs(scores - constrained(torch.tensor(X[:100].to_numpy())).numpy()).mean() < 0.2
    assert density.score_samples(X[:1].assign(rate=-1.0))[0] == -np.inf
    assert density.transform(X[:5]).shape == (5, 6)
    monkeypatch.setattr("skflows.variational._chains.LEARNED_STEPS", 8)
    as_frame, as_array = (
        density.refine(5, 0, n_chains=8, max_steps=10, as_frame=each).X for each in (True, False)
    )
    assert [*as_frame] == names
    assert np.array_equal(as_frame, as_array)
    X, _ = density.importance_sample(5, 0, as_frame=True)
    assert [*X] == names
    assert np.array_equal(X, density.importance_sample(5, 0)[0])


def test_several_modes():
    flow = NSFDensity(n_transforms=3, hidden_layer_sizes=16, autoregressive=False)
    density = VariationalDensity(flow, max_iter=5, random_state=0).fit(two_modes, 2)
    assert density.n_modes_ == 2
    assert abs(density.log_evidence_) < 0.05
    assert density.best_validation_score_ == pytest.approx(0, abs=0.3)
    assert (density.sample(4000, 0)[:, 0] > 0).mean() == pytest.approx(0.3, abs=0.12)
    X, weights = density.importance_sample(4000, 0)
    assert weights @ (X[:, 0] > 0) == pytest.approx(0.3, abs=0.04)


def test_modes_have_the_mass_of_their_curvature():
    def target(x):
        x = x.clone().requires_grad_()
        value = two_modes(x)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    points = torch.tensor([[1.0, 2], [-3, 0], [5, 4], [-5, -5]], dtype=torch.float64)
    modes = find_modes(target, *maximize(target, points))
    assert [mode.log_mass for mode in modes] == pytest.approx([math.log(0.7), math.log(0.3)])
    assert torch.allclose(modes[0].loc, torch.tensor([-4.0, -4]).double(), atol=1e-4)
    assert torch.allclose(modes[0].covariance, torch.eye(2).double(), atol=1e-4)


def test_unreliable_fit_says_so(unreliable):
    assert unreliable.reliable_ is False
    assert unreliable.pareto_k_ > 0.7


def test_start_beside_a_hard_zero():
    """The best normal distribution has draws where the density is 0."""

    def target(x):
        return normal(x).masked_fill(x[:, 0] > 4, -math.inf)

    flow = RealNVPDensity(n_transforms=1, hidden_layer_sizes=8)
    density = VariationalDensity(flow, max_iter=1, random_state=0).fit(target, 3)
    share = stats.norm.cdf(0.5)
    assert density.ess_ == pytest.approx(share, abs=0.05)
    assert density.log_evidence_ == pytest.approx(LOG_EVIDENCE + math.log(share), abs=0.03)


def test_modes_beside_hard_zeros(monkeypatch):
    """Weights of 0 make the fit unreliable, though the upper tail of the weights is light."""
    monkeypatch.setattr("skflows.variational._chains.WARM_UP_STEPS", 10)

    def target(x):
        return two_modes(x).masked_fill(x[:, 0].abs() > 6, -math.inf)

    flow = RealNVPDensity(n_transforms=1, hidden_layer_sizes=8)
    density = VariationalDensity(flow, max_iter=3, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"ess_=0\.[0-4].*% of its draws have a weight"):
        density.fit(target, 2)
    assert np.isfinite(density.history_["validation_score"]).all()
    assert density.best_iter_ > 0
    assert density.pareto_k_ < 0.7
    assert density.reliable_ is False


def test_values_that_are_nan_at_draws_only():
    def target(x):
        return -0.5 * (x - 3).square().sum(1).masked_fill(x[:, 0] > 4.5, math.nan)

    flow = RealNVPDensity(n_transforms=1, hidden_layer_sizes=8)
    density = VariationalDensity(flow, max_iter=1, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"is nan at \d+ of 8192 draws, such as a=.*b="):
        density.fit(target, names=["a", "b"])
    share = stats.norm.cdf(1.5)
    assert density.log_evidence_ == pytest.approx(math.log(2 * math.pi * share), abs=0.02)


def test_refined_draws_are_correct(unreliable, monkeypatch):
    """By the flow as it was fitted."""
    monkeypatch.setattr("skflows.variational._chains.MAX_R_HAT", math.inf)
    monkeypatch.setattr("skflows.variational._density.MAX_R_HAT", 1.1)
    sample = unreliable.refine(4000, 0, n_chains=40)
    assert sample.X.shape == (4000, 2)
    assert sample.r_hat.max() < 1.1
    assert sample.ess.min() > 100
    assert 0.3 < sample.acceptance < 1
    quartile = np.quantile(np.abs(sample.X), 0.5, axis=0)
    assert quartile == pytest.approx(stats.t(1.5).ppf([0.75, 0.75]), rel=0.1)


def test_refined_rows_are_of_all_chains(fitted, monkeypatch):
    """A grid over the states would have the period of the chains; the chains are extended once."""
    rates, r_hats = iter([0.9, 0.2, 0.4]), iter([1.5, 1.0])

    class Chains:
        def run(self, n_steps):
            states = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None]
            return states.expand(n_steps, 64, 3), next(rates)

    chains = "skflows.variational._chains."
    monkeypatch.setattr(chains + "adapted_chains", lambda *_: (Chains(), None))
    monkeypatch.setattr(chains + "diagnostics", lambda _: (np.array([next(r_hats)]), None))
    sample = fitted.refine(101, 0)
    assert len(np.unique(sample.X, axis=0)) > 40
    assert sample.acceptance == pytest.approx((0.9 + 0.2) / 2)


def beside(x):
    """Two normal columns, in two places that hold 30 and 70 % of the draws, 5 apart."""
    far = x - torch.tensor([5.0, 0.0], dtype=x.dtype)
    parts = [standard_normal_log_prob(x) + math.log(0.7)]
    return torch.logaddexp(*parts, standard_normal_log_prob(far) + math.log(0.3))


@pytest.fixture(scope="module")
def missing_a_mode():
    flow = RealNVPDensity(n_transforms=1, hidden_layer_sizes=8)
    density = VariationalDensity(flow, n_starts=1, max_iter=1, random_state=0)
    with pytest.warns(ConvergenceWarning, match="does not fit"):
        density.fit(beside, 2)
    assert (density.sample(1000, 0)[:, 0] > 2.5).mean() < 0.05
    return density


def test_refined_draws_have_what_the_flow_missed(missing_a_mode, monkeypatch):
    monkeypatch.setattr("skflows.variational._density.MAX_R_HAT", 1.05)
    monkeypatch.setattr("skflows.variational._fit.N_TRANSFORMS", 2)  # of a learned flow
    monkeypatch.setitem(OF_TARGET, "max_iter", 5)
    sample = missing_a_mode.refine(2000, 0, n_chains=32)
    assert sample.r_hat.max() < 1.05
    assert (sample.X[:, 0] > 2.5).mean() == pytest.approx(0.3, abs=0.05)


def test_chains_disagree_if_the_flow_missed_something(missing_a_mode, monkeypatch):
    monkeypatch.setattr("skflows.variational._chains.MAX_R_HAT", math.inf)
    with pytest.warns(ConvergenceWarning, match="do not agree after 100 steps.* column 0"):
        missing_a_mode.refine(4000, 0, max_steps=100)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("max_k", [-math.inf, math.inf], ids=["by weights", "by chains"])
def test_a_second_flow_finds_what_the_first_one_missed(max_k, monkeypatch):
    monkeypatch.setattr("skflows.variational._density.MAX_K", max_k)
    monkeypatch.setattr("skflows.variational._density.NEARLY_ALL", 1.0)
    flow = NSFDensity(n_transforms=3, hidden_layer_sizes=16, autoregressive=False)
    density = VariationalDensity(flow, n_starts=1, max_iter=5, random_state=0)
    density.fit(beside, 2)
    assert density.n_modes_ == 1
    assert abs(density.log_evidence_) < 0.03
    assert (density.sample(4000, 0)[:, 0] > 2.5).mean() == pytest.approx(0.3, abs=0.05)
    assert density.best_validation_score_ == pytest.approx(0, abs=0.1)


def test_chains_tell_what_the_flow_missed(monkeypatch):
    """The verdict does not rest on weights of draws alone, which are good by these limits."""
    monkeypatch.setattr("skflows.variational._density.LEAST_ESS", 0.0)
    monkeypatch.setattr("skflows.variational._density.MAX_K", math.inf)
    monkeypatch.setattr("skflows.variational._starts.bound_at", lambda *_: 0.0)  # keeps the first
    monkeypatch.setattr("skflows.variational._density.N_WIDE", 16)
    flow = RealNVPDensity(n_transforms=1, hidden_layer_sizes=8)
    density = VariationalDensity(flow, n_starts=1, max_iter=1, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"\d% of the states of Markov chains"):
        density.fit(beside, 2)
    assert density.reliable_ is False


def test_rows_that_are_not_finite_do_not_reach_the_function():
    """A trajectory that has left everything is NaN, and distributions refuse that."""
    normal = torch.distributions.Normal(0.0, 1.0)
    target = TargetDensity(lambda x: normal.log_prob(x).sum(1), Chain([]))
    rows = torch.tensor([[1.0, 2], [math.nan, 0], [0, math.inf]], dtype=torch.float64)
    values, slopes = target(rows)
    assert values.isnan().tolist() == [False, True, True]
    assert slopes[0].tolist() == [-1, -2]
    assert target.values(rows[1:]).isnan().all()


def standard_normal():
    return TargetDensity(standard_normal_log_prob, Chain([]))


def test_trajectories_are_as_long_as_the_widest_direction():
    """The narrow direction limits the steps, so that few of them would move like a random walk."""
    scale = torch.tensor([1.0, 0.03], dtype=torch.float64)
    target = TargetDensity(lambda x: standard_normal_log_prob(x / scale), Chain([]))
    generator = torch.Generator().manual_seed(0)
    y = scale * torch.randn(64, 2, generator=generator, dtype=torch.float64)
    chains = Hamiltonian(target, generator)
    at, states = target(y), []
    for number in range(60):
        y, *at = chains.move(y, at, adapts=number < 30)
        states.append(y)
    assert 1 < chains.step * chains.n_leaps < 2 * math.pi
    _, ess = diagnostics(torch.stack(states[30:]).numpy())
    assert ess.min() > 30 * 64 / 4


def test_a_flow_that_learns_states_may_be_trained_on_the_target(monkeypatch):
    """The states reach a third as far as the target."""
    monkeypatch.setitem(OF_DRAWS, "max_iter", 1)
    monkeypatch.setitem(OF_TARGET, "max_iter", 5)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(500, 1, generator=generator, dtype=torch.float64) / 3
    z = torch.randn(2000, 1, generator=generator, dtype=torch.float64)
    for target, expected in [(None, 1 / 3), (standard_normal(), 1.0)]:
        flow = learned_flow(states, generator, target)
        assert flow.inverse(z)[0].std().item() == pytest.approx(expected, rel=0.15)


def test_the_second_flow_is_trained_on_the_target(monkeypatch):
    targets = []

    def learned(y, generator, target):
        targets.append(target)
        return Chain([])

    chains = "skflows.variational._chains."
    for name, value in [("MAX_R_HAT", 0), ("LEARNED_STEPS", 8), ("WARM_UP_STEPS", 2)]:
        monkeypatch.setattr(chains + name, value)
    monkeypatch.setattr(chains + "learned_flow", learned)
    y = torch.zeros(4, 2, dtype=torch.float64)
    target = standard_normal()
    _, run = adapted_chains(target, Chain([]), y, torch.Generator().manual_seed(0))
    assert targets == [None, target, None]
    assert run is None


def test_chains_that_agree_at_once_are_the_sample(fitted, monkeypatch, capsys):
    steps, run = [], Chains.run

    def counted(self, n_steps, adapts=False):
        steps.append(n_steps)
        return run(self, n_steps, adapts)

    monkeypatch.setattr(Chains, "run", counted)
    monkeypatch.setattr("skflows.variational._chains.WARM_UP_STEPS", 15)
    sample = fitted.refine(1000, 0)
    assert steps == [15, LEARNED_STEPS]
    assert sample.r_hat.max() < 1.01 and 0 < sample.acceptance <= 1
    assert len(np.unique(sample.X, axis=0)) == 1000
    monkeypatch.setattr(_progress, "FIRST_LINE", 0)
    with _progress.with_lines(True):
        assert fitted.refine(64 * 110, 0).X.shape == (64 * 110, 3)
    assert steps[2:] == [15, LEARNED_STEPS, 100]
    assert capsys.readouterr().err.startswith("skflows: 1 steps of the chains after 0 s\n")


def slits(x):
    """A normal density, which is 0 beyond thin slits."""
    return normal(x).masked_fill((1e6 * x[:, 0]) % 1000 > 1, -math.inf)


def test_chains_that_do_not_move(fitted, monkeypatch):
    monkeypatch.setattr("skflows.variational._chains.WARM_UP_STEPS", 2)
    monkeypatch.setattr("skflows.variational._chains.LEARNED_STEPS", 8)
    with pytest.warns(ConvergenceWarning, match="do not agree after 4 steps: r_hat is nan"):
        sample = fitted.refine(4, 0, n_chains=1, max_steps=4, log_density=slits)
    np.testing.assert_allclose(sample.X, np.tile(sample.X[0], (4, 1)), rtol=1e-12)
    assert np.isnan(sample.ess).all()


def quartic(x):
    """A density with lighter tails than a normal one."""
    return -x[:, 0].pow(4)


def test_weighted_draws_have_the_moments_of_the_function():
    density = VariationalDensity(max_iter=1, random_state=0).fit(quartic, 1)
    constant = 2 * special.gamma(1.25)
    assert density.log_evidence_ == pytest.approx(math.log(constant), abs=0.01)
    assert density.ess_ < 0.99
    X, weights = density.importance_sample(20_000, 0)
    variance = special.gamma(0.75) / special.gamma(0.25)
    assert weights @ X[:, 0] ** 2 == pytest.approx(variance, rel=0.02)
    assert X.var() != pytest.approx(variance, rel=0.02)


def test_saved_density_needs_the_function(fitted, few_steps):
    file = io.BytesIO()
    fitted.save(file)
    file.seek(0)
    X = fitted.sample(5, random_state=0)
    for other in (skflows.load(file), pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(other.score_samples(X), fitted.score_samples(X))
        assert other.log_evidence_ == fitted.log_evidence_
        with pytest.raises(ValueError, match="give log_density"):
            other.refine(5)
        assert other.refine(5, 0, max_steps=10, log_density=normal).X.shape == (5, 3)
    again = [fitted.refine(5, 0, max_steps=10).X for _ in range(2)]
    assert np.array_equal(*again)
    assert fitted.importance_sample(5, 0)[0].shape == (5, 3)
    with pytest.raises(ValueError, match="max_steps=3"):
        fitted.refine(5, max_steps=3)
    with pytest.raises(ValueError, match="as_frame=True needs column names"):
        fitted.refine(5, as_frame=True)
    with pytest.raises(ValueError, match="as_frame=True needs column names"):
        fitted.importance_sample(5, as_frame=True)
    with pytest.raises(ValueError, match="n_samples=101 is more than n_chains=10 times max_steps"):
        fitted.refine(101, n_chains=10, max_steps=10)
    with pytest.raises(ValueError, match="n_samples=0"):
        fitted.importance_sample(0)


def no_gradient(x):
    return normal(x).detach()


def scalar(x):
    return normal(x).sum()


def not_a_number(x):
    return torch.where(x[:, 0] > 0, torch.nan, 1.0) * normal(x)


def infinite(x):
    return normal(x) + math.inf


def nowhere(x):
    return normal(x) - math.inf


def raising(x):
    if (x[:, 0] > 0.5).any():
        raise ArithmeticError("no root")
    return normal(x)


def invalid(x):
    scale = x[:, :1].sqrt()  # of which torch.compile turns off the check, unless it is asked for
    return Normal(x, scale, validate_args=True).log_prob(torch.zeros(3)).sum(1)


def wrong_gradients(x):
    value, slope = normal_with_gradients(x)
    return value, -slope


def wrong_shape(x):
    value, slope = normal_with_gradients(x)
    return value[:, None], slope


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (np.zeros((3, 3)), TypeError, "give a function"),
        (no_gradient, ValueError, r"without a gradient.*torch operations"),
        (lambda x: normal_with_gradients(x)[0], ValueError, r"without gradients.*tuple of two"),
        (lambda x: None, ValueError, "returned a NoneType"),
        (scalar, ValueError, r"shape \(\) for 32 rows.*vmap"),
        (wrong_shape, ValueError, r"shape \(32, 1\) .*such as 0="),
        (not_a_number, ValueError, r"is nan.* at 0=.*1=.*2="),
        (infinite, ValueError, "is inf"),
        (nowhere, ValueError, "state by bounds"),
        (raising, ValueError, r"raised ArithmeticError: no root \(at 0=(0\.[5-9]|[1-9])"),
        (invalid, ValueError, r"invalid values: \(at 0=.*validate_args=False"),
        (wrong_gradients, ValueError, "do not agree"),
    ],
)
def test_bad_functions(function, error, message):
    density = VariationalDensity(random_state=0)
    with pytest.raises(error, match=message):
        density.fit(function, 3)
    assert not hasattr(density, "flow_")


@pytest.mark.parametrize("given", [{}, {"n_features": 0}, {"n_features": 2, "names": ["a"]}])
def test_number_of_columns(given):
    with pytest.raises(ValueError, match="n_features="):
        VariationalDensity().fit(normal, **given)


@pytest.mark.parametrize("divergence", ["path", "reverse", "forward"])
def test_gradients_of_the_objective(divergence):
    """Compare them with autograd, also where a draw has no finite density."""
    torch.manual_seed(0)
    flow = Chain([LULinear(3), Coupling(3, Affine(), (8,), activation="silu")]).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn_like(p))
    z = torch.randn(20, 3, dtype=torch.float64)
    z[4] = 50.0

    def target(y):
        with torch.inference_mode(False), torch.enable_grad():
            y = y.clone().requires_grad_()
            value = -y.pow(4).sum(1)
            (slope,) = torch.autograd.grad(value.sum(), y)
        is_outside = (y.detach().abs() > 20).any(1)
        return value.detach().masked_fill(is_outside, -math.inf), slope

    count, weight = torch.tensor(20), torch.ones(20, dtype=torch.float64)
    objective = ForwardKL(target) if divergence == "forward" else ReverseKL(target)
    objective = replace(objective, by_path=divergence != "reverse")
    losses, gradients = objective.gradients(flow, z, weight, count)
    kept = [i for i in range(20) if i != 4]
    y, log_det = flow(z[kept])
    log_p = -y.pow(4).sum(1)
    log_q = standard_normal_log_prob(z[kept]) - log_det
    loss = (log_q - log_p).mean()
    through = loss
    if divergence != "reverse":
        fixed = y.detach().requires_grad_()
        x, inverse = flow.inverse(fixed)
        log_q_fixed = standard_normal_log_prob(x) + inverse
    if divergence == "path":  # through y only
        (score,) = torch.autograd.grad(log_q_fixed.sum(), fixed)
        through = ((score * y).sum(1) - log_p).mean()
    if divergence == "forward":
        through = -((log_p - log_q).detach().softmax(0) * log_q_fixed).sum()
    expected = torch.autograd.grad(19 / 20 * through, list(flow.parameters()))
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one, other)
    assert losses["loss"].item() / 20 == pytest.approx(loss.item())
    assert losses["log_weight_variance"].item() / 20 == pytest.approx(
        (log_p - log_q).var(correction=0).item()
    )


def test_gradient_vanishes_at_a_perfect_fit():
    flow = Chain([LULinear(2), Coupling(2, Affine(), (4,))]).double()
    z = torch.randn(10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.ones(10, dtype=torch.float64)

    def target(y):
        return standard_normal_log_prob(y), -y

    _, gradients = ReverseKL(target).gradients(flow, z, weight, torch.tensor(10))
    assert all(g.abs().max() < 1e-12 for g in gradients)
    _, gradients = ReverseKL(target, by_path=False).gradients(flow, z, weight, torch.tensor(10))
    assert any(g.abs().max() > 0.1 for g in gradients)


@pytest.mark.parametrize("k", [0.2, 0.6, 1.0])
def test_weights_know_the_shape_of_their_tail(k):
    ratio = stats.genpareto(k).rvs(20_000, random_state=0) + 1
    weights = importance_weights(np.log(ratio) + 1000)
    assert weights.pareto_k == pytest.approx(k, abs=0.12)
    if k < 0.5:
        assert weights.log_mean == pytest.approx(1000 + math.log(1 + 1 / (1 - k)), abs=0.01)
        exact = np.mean(ratio) ** 2 / np.mean(ratio**2)
        assert weights.ess == pytest.approx(exact, rel=0.02)
        error = ratio.std() / ratio.mean() / math.sqrt(20_000)
        assert weights.log_mean_error == pytest.approx(error, rel=0.05)


def test_weights_of_extreme_draws():
    equal = importance_weights(np.full(100, -5.0))
    assert equal.ess == pytest.approx(1)
    assert equal.pareto_k == -math.inf
    assert equal.log_mean == pytest.approx(-5)
    one = importance_weights(np.array([0.0, *[-math.inf] * 98, math.nan]))
    assert one.ess == pytest.approx(0.01)
    assert one.pareto_k == math.inf
    assert one.weights[0] == 1


def test_diagnostics_of_chains():
    noise = np.random.default_rng(0).normal(size=(1000, 20, 4))
    chains = noise.copy()
    for t in range(1, 1000):
        chains[t, :, 1] = 0.8 * chains[t - 1, :, 1] + 0.6 * noise[t, :, 1]
    chains[:, 0, 2] += 2
    chains[:, 0, 3] *= 3
    r_hat, ess = diagnostics(chains)
    assert r_hat[:2].max() < 1.01
    assert r_hat[2:].min() > 1.01
    assert ess[0] == pytest.approx(20_000, rel=0.1)
    assert ess[1] == pytest.approx(20_000 / 9, rel=0.15)


@pytest.mark.parametrize(
    "density",
    [
        MAFDensity(n_transforms=2, hidden_layer_sizes=16),
        NSFDensity(n_transforms=2, hidden_layer_sizes=16, autoregressive=False),
        skflows.IAFDensity(n_transforms=2, hidden_layer_sizes=16),
        skflows.PlanarDensity(n_transforms=2),
    ],
    ids=lambda density: type(density).__name__,
)
def test_any_flow(density):
    before = torch.random.get_rng_state()
    fitted = VariationalDensity(density, max_iter=1, random_state=0).fit(normal, 3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert fitted.ess_ > 0.9
    assert not hasattr(density, "flow_")


def test_random_state_and_parameters():
    density = VariationalDensity(NSFDensity(n_bins=4), max_iter=1, random_state=3)
    assert "n_bins=4" in repr(density)
    assert density.set_params(density__n_bins=5).get_params()["density__n_bins"] == 5
    density = clone(density.set_params(density=RealNVPDensity(n_transforms=1)))
    one, two = (clone(density).fit(normal, 3) for _ in range(2))
    assert one.log_evidence_ == two.log_evidence_
    assert np.array_equal(one.sample(3, random_state=0), two.sample(3, random_state=0))
    other = clone(density).set_params(random_state=4).fit(normal, 3)
    assert one.log_evidence_ != other.log_evidence_


def test_history_and_verbose(capsys):
    density = VariationalDensity(max_iter=2, tol=0, verbose=1, random_state=0).fit(quartic, 1)
    assert density.n_iter_ == 2
    assert capsys.readouterr().out.startswith("Epoch 1/2: loss ")
    assert density.loss_curve_[-1] == pytest.approx(-density.log_evidence_, abs=0.1)
    assert density.history_["log_weight_variance"][-1] < 0.5


def test_time_limit():
    density = VariationalDensity(time_limit=1e-6, tol=0, max_iter=10_000, random_state=0)
    with pytest.warns(ConvergenceWarning, match="time_limit=1e-06"):
        density.fit(normal, 3)
    assert density.n_iter_ == 1
    assert math.isfinite(density.log_evidence_)


def test_checkpoint(tmp_path):
    callbacks = pytest.importorskip("sklearn.callback") and skflows.callbacks
    flow = RealNVPDensity(n_transforms=1, hidden_layer_sizes=4)
    plain = VariationalDensity(flow, max_iter=3, tol=0, random_state=0)
    expected = clone(plain).fit(quartic, 1)

    def fit():
        return clone(plain).set_callbacks(callbacks.Checkpoint(tmp_path, every=0)).fit(quartic, 1)

    first = fit()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.checkpoint")}
    second = fit()
    assert len(written) == 1
    # Nothing is trained again.
    assert written == {path: path.stat().st_mtime_ns for path in written}
    assert expected.log_evidence_ == first.log_evidence_ == second.log_evidence_


def test_displays(fitted):
    pytest.importorskip("matplotlib.pyplot")
    X = fitted.sample(50, random_state=0)
    skflows.inspection.LossCurveDisplay.from_estimator(fitted)
    skflows.inspection.SamplesDisplay.from_estimator(fitted, X)


def test_displays_of_a_simplex():
    """Beside two columns that are drawn, others of the same simplex make up the rest of 1."""
    pytest.importorskip("matplotlib.pyplot")
    dirichlet = torch.distributions.Dirichlet(torch.tensor([2.0, 3, 4]).double())
    flow = RealNVPDensity(n_transforms=1, hidden_layer_sizes=8)
    density = VariationalDensity(flow, simplex=[["a", "b", "c"]], max_iter=2, random_state=0)
    density.fit(lambda x: dirichlet.log_prob(x[:, :3]) + normal(x[:, 3:]), names=list("abcz"))
    X = density.sample(50, random_state=0, as_frame=True)
    options = {"features": ["a", "b"], "grid_resolution": 9}
    display = skflows.inspection.DensityDisplay.from_estimator(density, X, **options)
    is_inside = (display.xx0 > 0) & (display.xx1 > 0) & (display.xx0 + display.xx1 < 1)
    assert (np.isfinite(display.log_density) == is_inside).all()
    assert list(display.fixed) == ["z"]
    boundary = skflows.inspection.OutlierBoundaryDisplay.from_estimator(density, X, **options)
    assert (np.isfinite(boundary.decision) == is_inside).all()
    display = skflows.inspection.DensityDisplay.from_estimator(density, X, features=["z", "a"])
    assert list(display.fixed) == []
