"""The continuous flow: exact scores, whatever it was trained for."""

import copy
import pickle
from contextlib import nullcontext
from itertools import permutations

import numpy as np
import pytest
import torch
from _bijections import randomize
from _densities import N_ROWS, AtEpochEnd, banana, small
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.autograd.functional import jacobian

from skflows import CNFDensity
from skflows.bijections._flow import standard_normal_log_prob
from skflows.training.flow_matching import optimal_transport
from skflows.bijections._ode import RungeKutta4
from skflows.bijections import Continuous

TRAININGS = ["flow_matching", "both", "likelihood"]
each_training = pytest.mark.parametrize("training", TRAININGS)


@pytest.fixture(scope="module", params=TRAININGS)
def fitted(request):
    """Each training, at the default tolerance, on a banana in units far from 1."""
    params = {"max_iter": 40, "learning_rate_init": 0.02, "hidden_layer_sizes": (16, 16)}
    estimator = CNFDensity(training=request.param, random_state=0, **params)
    return estimator.fit(banana(600) * [1e3, 1e-2])


def fresh_rows(n):
    return banana(n, seed=1) * [1e3, 1e-2]


@parametrize_with_checks([CNFDensity(hidden_layer_sizes=8, max_iter=1, learning_rate_init=1e-4)])
def test_check_estimator_of_flow_matching(estimator, check):
    check(estimator)


def reference(estimator, X):
    """Log-density by a fine grid and the whole Jacobian from autograd."""
    flow = estimator.flow_
    y, log_det = flow.preprocess(torch.from_numpy(X))
    velocity, d = flow.bijection.velocity, X.shape[1]

    def slope(t, state, rows):
        def field(columns):
            return velocity(t, columns)[0]

        matrices = jacobian(lambda columns: field(columns).sum(-1), state[:d])
        return torch.cat([field(state[:d]), torch.einsum("iin->n", matrices)[None]])

    state = torch.cat([y.T, torch.zeros(1, len(y), dtype=y.dtype)])
    state, _ = RungeKutta4(n_steps=200).solve(slope, state, 0.0, 1.0)
    return (standard_normal_log_prob(state[:d].T) + state[d] + log_det).numpy()


def test_scores_are_those_of_a_fine_solution(fitted):
    X = fresh_rows(20)
    np.testing.assert_allclose(fitted.score_samples(X), reference(fitted, X), rtol=0, atol=1e-5)


def test_mass_is_1(fitted):
    edges = [np.linspace(-6e3, 6e3, 121), np.linspace(-0.1, 0.25, 121)]
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    points = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.exp(fitted.score_samples(points)).sum() * np.prod([e[1] - e[0] for e in edges])
    assert mass == pytest.approx(1, abs=0.01)


def test_banana_is_fitted(fitted):
    """Much better than by the best Gaussian, whose score is -3.88 and no more."""
    X = fresh_rows(2000)
    covariance = np.cov(X.T)
    gaussian = -1 - np.log(2 * np.pi) - np.linalg.slogdet(covariance)[1] / 2
    assert fitted.score(X) > gaussian + 0.4


def test_latent_map_goes_there_and_back(fitted):
    X = fresh_rows(300)
    back = fitted.inverse_transform(fitted.transform(X))
    np.testing.assert_allclose(back / [1e3, 1e-2], X / [1e3, 1e-2], rtol=0, atol=1e-5)


def test_far_rows_stay_where_they_are(fitted):
    """In prepared columns, whose far values are logarithms: no row is thrown off."""
    far = np.logspace(2, 12, 11)[:, None] * np.array([[1e3, -1e-2]])
    prepared, _ = fitted.flow_.preprocess(torch.from_numpy(far))
    np.testing.assert_allclose(fitted.transform(far), prepared, rtol=0.01, atol=0.1)
    assert (fitted.score_samples(far) > -1e5).all()
    assert (np.diff(fitted.score_samples(far)) < 0).all()


def test_evaluations_are_counted(fitted):
    assert 8 <= fitted.n_function_evaluations_ < 1000
    grid = small("cnf", solver="rk4", n_steps=3).fit(banana(N_ROWS))
    assert grid.n_function_evaluations_ == 12


def test_phases_share_the_epochs():
    """Matching comes first, and the scores of held-out rows go on from one to the other."""
    X = banana(300)
    estimator = small("cnf", training="both", max_iter=10, learning_rate_init=0.01).fit(X)
    matching = small("cnf", training="flow_matching", max_iter=9, learning_rate_init=0.01).fit(X)
    assert estimator.n_iter_ == 10
    np.testing.assert_array_equal(estimator.loss_curve_[:9], matching.loss_curve_)
    assert estimator.best_validation_score_ == max(
        [matching.best_validation_score_, *estimator.validation_scores_[9:]]
    )


def test_stopped_in_the_first_phase():
    """A callback that stops the training ends all of it."""
    params = {"max_iter": 10, "learning_rate_init": 0.03, "batch_size": 16}
    estimator = small("cnf", training="both", **params)
    estimator.set_callbacks(AtEpochEnd(lambda epoch, fitted: epoch == 4)).fit(banana(400))
    assert estimator.n_iter_ == 4
    assert estimator.best_iter_ == 4  # though matching scores held-out rows in every fifth epoch


@pytest.mark.parametrize("n_iter_no_change", [1, 3])
def test_patience_is_shorter_than_the_epochs_between_two_scores(n_iter_no_change):
    params = {"max_iter": 12, "learning_rate_init": 0.03, "batch_size": 32}
    estimator = small("cnf", training="flow_matching", **params)
    estimator.set_params(n_iter_no_change=n_iter_no_change).fit(banana(400))
    assert estimator.n_iter_ == 12
    assert estimator.best_iter_ in (10, 12)
    assert len(estimator.history_["validation_score"]) == 12


def test_increments_of_both_trainings_match():
    estimator = small("cnf", training="both", jacobian_penalty=0.1)
    history = estimator.partial_fit(banana(100)).partial_fit(banana(100)).history_
    assert np.isfinite(history["matching"]).all()
    assert "nll" not in history


def wide_rows(n, d, seed=0):
    """Correlated rows that are no Gaussian."""
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return rows + 0.3 * np.roll(rows, 1, axis=1) ** 2


@pytest.fixture(scope="module", params=["rademacher", "gaussian"])
def estimated(request):
    """An estimator of the trace by many probes, and the same with the exact trace."""
    params = {"hidden_layer_sizes": (16, 16), "max_iter": 10, "learning_rate_init": 0.01}
    params |= {"trace": "hutchinson", "n_probes": 256, "noise": request.param}
    params |= {"early_stopping": False, "contamination": None}
    estimator = CNFDensity(random_state=0, **params).fit(wide_rows(300, 5))
    exact = copy.deepcopy(estimator)
    exact.flow_.bijection.n_probes = 0
    return estimator, exact


def test_estimates_are_within_their_standard_errors(estimated):
    estimator, exact = estimated
    X = wide_rows(50, 5, seed=1)
    scores, error = estimator.score_samples(X), estimator.score_standard_error(X)
    assert (error > 1e-6).all()
    off = (scores - exact.score_samples(X)) / error
    assert (np.abs(off) < 4).all()
    # Rows have probes of their own: their errors average out.
    assert 0.7 < np.sqrt(np.mean(off**2)) < 1.3
    assert abs(off.sum()) < 3 * len(X) ** 0.5
    np.testing.assert_array_equal(exact.score_standard_error(X), 0)


def test_estimates_repeat_and_depend_on_their_row_alone(estimated):
    estimator, _ = estimated
    X = wide_rows(50, 5, seed=1)
    scores = estimator.score_samples(X)
    np.testing.assert_array_equal(estimator.score_samples(X), scores)
    np.testing.assert_allclose(estimator.score_samples(X[7:9]), scores[7:9], rtol=1e-11)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.score_samples(X), scores)


def test_estimates_of_whitened_rows_depend_on_their_row_alone():
    """A product of matrices is rounded in another way for other rows beside a row."""
    X = wide_rows(200, 40)
    params = {"hidden_layer_sizes": (8, 8, 8), "max_iter": 5, "preprocessing": "whiten"}
    estimator = CNFDensity(tolerance=1e-4, random_state=0, **params).fit(X)
    assert estimator.flow_.bijection.n_probes
    parts = [estimator.score_samples(part) for part in np.split(X[:60], [1, 23])]
    np.testing.assert_allclose(estimator.score_samples(X[:60]), np.concatenate(parts), atol=1e-6)


def test_standard_error_of_discrete_columns():
    """The mean over a cell is one of densities: its error is that of their logs, weighted."""
    X = np.round(wide_rows(100, 3))
    params = {"hidden_layer_sizes": (8, 8, 8), "max_iter": 5, "learning_rate_init": 0.02}
    params |= {"early_stopping": False, "contamination": None}
    estimator = CNFDensity(trace="hutchinson", n_probes=64, random_state=0, **params).fit(X)
    exact = copy.deepcopy(estimator)
    exact.flow_.bijection.n_probes = 0
    off = np.abs(estimator.score_samples(X) - exact.score_samples(X))
    error = estimator.score_standard_error(X)
    assert (error > 1e-6).all()
    assert (off < 4 * error).all()


def test_estimates_are_not_raised_by_a_mean_over_draws():
    """All draws of a row, around a discrete value or of the noise, meet the same probes."""
    X = wide_rows(150, 4)
    X[:, 0] = np.round(X[:, 0])
    params = {"hidden_layer_sizes": (16, 16), "max_iter": 60, "learning_rate_init": 0.02}
    params |= {"early_stopping": False, "contamination": None, "preprocessing": "standardize"}
    estimator = CNFDensity(
        trace="hutchinson", n_probes=2, n_augmented=1, random_state=0, **params
    ).fit(X)
    exact = copy.deepcopy(estimator)
    exact.flow_.bijection.n_probes = 0
    off = estimator.score_samples(X) - exact.score_samples(X)
    assert off.std() > 0.2
    assert abs(off.mean()) < 3 * off.std() / len(X) ** 0.5


def test_one_probe_has_no_standard_error():
    estimator = small("cnf", trace="hutchinson", n_probes=1).fit(banana(N_ROWS))
    with pytest.raises(ValueError, match="n_probes=1 leaves no spread"):
        estimator.score_standard_error(banana(3))


@pytest.mark.parametrize(
    ("d", "sizes", "trace", "n_probes"),
    [
        (32, (4, 4, 4), "auto", 0),
        (33, (4, 4, 4), "auto", 8),
        (33, (4, 4), "auto", 0),
        (33, (4, 4, 4), "exact", 0),
        (2, (4,), "hutchinson", 8),
    ],
)
def test_when_the_trace_is_exact(d, sizes, trace, n_probes):
    estimator = CNFDensity(hidden_layer_sizes=sizes, trace=trace)
    assert estimator._build_bijection(d).n_probes == n_probes


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
def test_solver_error_is_the_change_by_refinement(fitted, solver):
    if solver == "rk4":
        fitted = copy.deepcopy(fitted)
        fitted.flow_.bijection.solver = RungeKutta4(n_steps=4)
    X = fresh_rows(20)
    error = fitted.solver_error(X)
    off = np.abs(fitted.score_samples(X) - reference(fitted, X))
    assert error.shape == (20,) and (error >= 0).all()
    # Of the order of the true error, of which a solver of order 4 leaves a sixteenth.
    assert 0.1 < error.max() / off.max() < 10


def test_transport_shortens_the_ways():
    """The pairs are those of all orders whose squared lengths have the least sum."""
    x, noise = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0])
    paired = optimal_transport(x, noise, weight)
    rows = [0, 1, 3, 4]
    lengths = [(x[:, rows] - noise[:, list(p)]).square().sum() for p in permutations(rows)]
    assert (x - paired)[:, rows].square().sum() == pytest.approx(min(lengths).item())
    assert torch.equal(paired[:, 2], noise[:, 2])
    stack = optimal_transport(*(torch.stack([part] * 2) for part in (x, noise, weight)))
    assert torch.equal(stack, torch.stack([paired] * 2))


def test_transport_makes_the_equation_easier():
    X = banana(500)
    params = {"hidden_layer_sizes": (32, 32), "max_iter": 60, "learning_rate_init": 0.01}
    estimators = [
        CNFDensity(coupling=coupling, random_state=0, **params).fit(X)
        for coupling in ("independent", "optimal_transport")
    ]
    assert estimators[1].n_function_evaluations_ < estimators[0].n_function_evaluations_
    assert estimators[1].score(banana(2000, seed=1)) > estimators[0].score(X) - 0.2


def test_transport_where_all_rows_share_their_noise_is_told():
    X = banana(20)
    params = {"training": "flow_matching", "coupling": "optimal_transport"}
    with pytest.warns(UserWarning, match="no effect on a table of fewer than 40 rows"):
        small("cnf", **params).fit(X)
    small("cnf", **params, batch_size=10).fit(X)
    small("cnf", **params).fit(banana(40))


def test_energies_are_the_integrals_along_the_way():
    bijection = randomize(Continuous(3, (6, 5), noise="gaussian", n_probes=200)).double().eval()
    solver = RungeKutta4(n_steps=10)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kinetic, estimated = bijection.solve(x, solver=solver, energies=True).energies
    ends = torch.linspace(0, 1, 31, dtype=torch.float64)
    squares = torch.zeros(2, 31, 4, dtype=torch.float64)
    for i, t in enumerate(ends):
        here = bijection.solve(x, end=t.item(), solver=solver).x.T

        def field(columns, t=t):
            return bijection.velocity(t.view(1), columns)[0]

        slopes = jacobian(lambda columns: field(columns).sum(-1), here)
        squares[:, i] = torch.stack([field(here).square().sum(0), slopes.square().sum((0, 1))])
    expected = torch.trapezoid(squares, ends, dim=1)
    torch.testing.assert_close(kinetic, expected[0], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(estimated, expected[1], rtol=0.3, atol=0)


def test_parts_of_the_loss_add_up():
    X = banana(100)
    penalties = {"kinetic_penalty": 0.3, "jacobian_penalty": 0.2}
    history = small("cnf", max_iter=4, **penalties).fit(X).history_
    parts = [np.array(history[name]) for name in ("nll", "kinetic", "jacobian")]
    np.testing.assert_allclose(history["loss"], np.array([1, 0.3, 0.2]) @ parts, rtol=1e-5)
    matching = small("cnf", max_iter=4, training="flow_matching", **penalties)
    with pytest.warns(UserWarning, match=r"kinetic_penalty=0\.3 has no effect on flow matching"):
        matching = matching.fit(X).history_
    parts = [np.array(matching[name]) for name in ("matching", "jacobian")]
    np.testing.assert_allclose(matching["loss"], parts[0] + 0.2 * parts[1], rtol=1e-5)
    # Epochs of another objective have no such part.
    both = small("cnf", max_iter=10, training="both", **penalties).fit(X).history_
    assert np.isnan(both["nll"][:9]).all() and np.isfinite(both["nll"][9])
    assert np.isfinite(both["matching"][:9]).all() and np.isnan(both["matching"][9])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"training": "likelihood", "coupling": "optimal_transport"}, "couples no rows"),
        ({"training": "flow_matching", "adjoint": True}, "goes through no solver"),
    ],
)
def test_parameters_without_effect_are_told(params, message):
    with pytest.warns(UserWarning, match=message):
        small("cnf", **params).fit(banana(50))


@pytest.mark.parametrize("training", ["flow_matching", "likelihood"])
def test_repeated_rows_count_twice_beside_columns_of_noise(training):
    X = banana(12)
    weight = np.ones(12)
    weight[:4] = 2
    density = small("cnf", training=training, n_augmented=1, n_importance_samples=2)
    weighted = clone(density).fit(X, sample_weight=weight)
    repeated = clone(density).fit(np.concatenate([X, X[:4]]))
    scores = [flow.score_samples(X) for flow in (weighted, repeated)]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_columns_of_noise_stay_those_of_the_first_fit():
    X = banana(50)
    density = small("cnf", warm_start=True).fit(X)
    density.set_params(n_augmented=1).fit(X).partial_fit(X)
    assert density.transform(X).shape == (50, 2)


def test_both_trainings_share_the_time():
    density = small("cnf", training="both", max_iter=500, time_limit=1e-9)
    with pytest.warns(ConvergenceWarning, match="time_limit=1e-09 ended training"):
        density.fit(banana(100))
    assert density.n_iter_ == 2  # one of each


def test_parts_of_the_loss_survive_a_warm_start():
    X = banana(100)
    estimator = small("cnf", max_iter=2, warm_start=True).fit(X)
    estimator.set_params(jacobian_penalty=0.1).fit(X)
    assert {len(values) for values in estimator.history_.values()} == {4}
    assert np.isnan(estimator.history_["nll"]).tolist() == [True, True, False, False]


def test_penalties_make_the_equation_easier():
    X = banana(400)
    params = {"training": "likelihood", "n_steps": 4, "max_iter": 30, "learning_rate_init": 0.02}
    params |= {"hidden_layer_sizes": (32, 32), "preprocessing": "standardize", "random_state": 0}
    free = CNFDensity(**params).fit(X)
    penalised = CNFDensity(kinetic_penalty=0.05, jacobian_penalty=0.05, **params).fit(X)
    assert penalised.n_function_evaluations_ < 0.9 * free.n_function_evaluations_
    assert penalised.score(X) > free.score(X) - 0.1


@pytest.mark.parametrize("energies", [False, True])
def test_adjoint_has_the_same_gradient(energies):
    bijection = randomize(Continuous(3, (8, 8))).double()
    x = torch.randn(20, 3, dtype=torch.float64)

    def gradient(adjoint):
        torch.manual_seed(0)  # of the probes
        solver = RungeKutta4(n_steps=5, adjoint=adjoint)
        solution = bijection.solve(x, solver=solver, energies=energies)
        loss = solution.x.square().sum() - solution.log_det.sum()
        if energies:
            loss = loss + solution.energies.sum()
        return torch.autograd.grad(loss, list(bijection.parameters()))

    for ours, theirs in zip(gradient(True), gradient(False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_adjoint_keeps_less():
    """The tensors that autograd holds for the way back hardly grow with the steps."""
    bijection = Continuous(3, (32, 32))
    x = torch.randn(50, 3)

    def kept(adjoint, n_steps):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            bijection.map(x, solver=RungeKutta4(n_steps=n_steps, adjoint=adjoint))
        return sum(sizes)

    assert kept(True, 16) < 0.05 * kept(False, 16)


def test_adjoint_trains_alike():
    X = banana(N_ROWS)
    scores = [small("cnf", adjoint=adjoint).fit(X).score_samples(X) for adjoint in (False, True)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-8)


@pytest.fixture(scope="module")
def augmented():
    params = {"hidden_layer_sizes": (32, 32), "max_iter": 40, "learning_rate_init": 0.01}
    params |= {"contamination": None, "tolerance": 1e-6, "preprocessing": "standardize"}
    return CNFDensity(n_augmented=1, random_state=0, **params).fit(banana(400))


def test_augmented_scores_are_importance_weighted_means(augmented):
    """By hand, from the joint density of rows and noise."""
    X = banana(5, seed=1)
    flow = augmented.flow_
    y, log_det = flow.preprocess(torch.from_numpy(X))
    normal = torch.distributions.Normal(0, 1)
    ratios = []
    for draw in flow.noise:
        z, moved = flow.bijection(torch.cat([y, draw.expand(5, 1)], 1))
        ratios.append(normal.log_prob(z).sum(1) + moved - normal.log_prob(draw).sum())
    expected = torch.stack(ratios).exp().mean(0).log() + log_det
    assert len(flow.noise) == 16
    np.testing.assert_allclose(augmented.score_samples(X), expected, rtol=1e-9)


def test_augmented_density_has_mass_1(augmented):
    """Whatever the noise, up to its finite sample: the estimate has no bias."""
    edges = [np.linspace(-5, 5, 41), np.linspace(-4, 20, 81)]
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    points = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 2)
    area = np.prod([edge[1] - edge[0] for edge in edges])
    fine = copy.deepcopy(augmented)
    generator = torch.Generator().manual_seed(1)
    fine.flow_.noise = torch.randn(32, 1, dtype=torch.float64, generator=generator)
    fine.flow_.bijection.solver = RungeKutta4(n_steps=8)
    assert np.exp(fine.score_samples(points)).sum() * area == pytest.approx(1, abs=0.08)


def test_augmented_latent_space_has_the_noise_too(augmented):
    X = banana(100, seed=1)
    Z = augmented.transform(X)
    assert Z.shape == (100, 3)
    assert len(augmented.get_feature_names_out()) == 3
    np.testing.assert_allclose(augmented.inverse_transform(Z), X, atol=1e-4)
    assert augmented.sample(7, random_state=0).shape == (7, 2)
    with pytest.raises(ValueError, match="output of transform, which has 3"):
        augmented.inverse_transform(X)


def test_samples_of_an_augmented_flow_follow_its_density(augmented):
    """Their moments are those of the rows that it was fitted to."""
    rows, X = augmented.sample(4000, random_state=0), banana(4000)
    np.testing.assert_allclose(rows.mean(0), X.mean(0), atol=0.15)
    np.testing.assert_allclose(rows.std(0), X.std(0), rtol=0.15)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"coupling": "optimal_transport", "jacobian_penalty": 0.1},
        {"training": "likelihood", "kinetic_penalty": 0.1, "jacobian_penalty": 0.1},
        {"training": "likelihood", "n_augmented": 1, "adjoint": True},
    ],
)
def test_rows_of_weight_0_do_not_count(params):
    """Whatever they hold: they fill up batches."""
    estimator = CNFDensity(hidden_layer_sizes=(8, 8), n_steps=2, **params)
    objective = estimator._phases(10)[-1]["objective"]
    bijection = randomize(estimator._build_bijection(3 + estimator.n_augmented)).train()
    generator = torch.Generator().manual_seed(0)
    rows, others = torch.randn(2, 20, 3, generator=generator)
    weight, n = torch.ones(20), torch.tensor(16)
    weight[n:] = 0.0
    others[:n] = rows[:n]
    with torch.random.fork_rng(devices=[]):
        found = []
        for each in (rows, others):
            torch.manual_seed(0)
            found.append(objective.gradients(bijection, each, weight, n, nullcontext()))
    torch.testing.assert_close(*found)
    assert all(g.abs().max() > 0 for g in found[0][1])


def test_more_importance_samples_raise_the_score(augmented):
    """The log of an estimate is too low on average, the less so the better it is.

    With weights that are drawn, so that the rows have more to do with the noise.
    """
    X = banana(200, seed=1)
    whole = copy.deepcopy(augmented)
    randomize(whole.flow_.bijection)
    other = copy.deepcopy(whole)
    alone = []
    for draw in whole.flow_.noise.split(1):
        other.flow_.noise = draw
        alone.append(other.score(X))
    assert np.mean(alone) < whole.score(X) - 1e-3


@each_training
def test_augmented_training(training):
    """Each objective learns, and held-out rows are scored by the same noise in each epoch."""
    params = {"max_iter": 12, "learning_rate_init": 0.02, "n_augmented": 2}
    params |= {"preprocessing": "standardize", "tolerance": 1e-6}
    estimator = small("cnf", training=training, **params).fit(banana(300))
    scores = estimator.validation_scores_
    assert max(scores) > scores[0] + 0.05
    assert np.isfinite(estimator.score_samples(banana(5))).all()
