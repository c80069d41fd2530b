"""Continuous normalizing flows: exact scores whatever the training objective."""

import copy
import pickle
from itertools import permutations

import numpy as np
import pytest
import torch
from _bijections import randomize
from _densities import N_ROWS, AtEpochEnd, banana, small
from sklearn.exceptions import ConvergenceWarning
from torch.autograd.functional import jacobian

from skflows import CNFDensity
from skflows.bijections import Continuous
from skflows.bijections._ode import RungeKutta4
from skflows.training.flow_matching import optimal_transport

OBJECTIVES = ["flow_matching", "both", "likelihood"]


def quick(**params):
    """Return an estimator whose fit takes milliseconds, with the default preprocessing."""
    defaults = {"solver": "dopri5", "tolerance": 1e-5, "n_steps": 4, "preprocessing": "quantile"}
    return small("cnf", **defaults | params)


@pytest.fixture(scope="module")
def fitted():
    """Return a fit at the default tolerance to a banana in units far from 1.

    Nine tenths of the epochs minimise the loss of flow matching. See test_density.py for a fit by
    likelihood alone.
    """
    params = {"max_iter": 20, "learning_rate_init": 0.03, "hidden_layer_sizes": (16, 16)}
    params |= {"batch_size": 64, "dropout": 0.0, "n_steps": 4, "early_stopping": False}
    estimator = CNFDensity(objective="both", random_state=0, contamination=None, **params)
    return estimator.fit(banana(400) * [1e3, 1e-2])


def fresh_rows(n):
    return banana(n, seed=1) * [1e3, 1e-2]


# Scores


def reference(estimator, X):
    """Return the log-density by a fine grid and the whole Jacobian from autograd."""
    flow = estimator.flow_
    y, log_det = flow.preprocess(torch.from_numpy(X))
    velocity, d = flow.bijection.velocity, X.shape[1]

    def slope(t, state, rows):
        def field(columns):
            return velocity(t, columns)[0]

        matrices = jacobian(lambda columns: field(columns).sum(-1), state[:d])
        return torch.cat([field(state[:d]), torch.einsum("iin->n", matrices)[None]])

    state = torch.cat([y.T, torch.zeros(1, len(y), dtype=y.dtype)])
    state, _ = RungeKutta4(n_steps=60).solve(slope, state, 0.0, 1.0)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(state[:d]).sum(0)
    return (normal + state[d] + log_det).numpy()


@pytest.fixture(scope="module")
def fine_scores(fitted):
    return reference(fitted, fresh_rows(20))


def test_scores_agree_with_a_fine_solution(fitted, fine_scores):
    np.testing.assert_allclose(fitted.score_samples(fresh_rows(20)), fine_scores, rtol=0, atol=1e-5)


def points_of_a_grid(*edges):
    """Return the middles of the cells of a grid, and the area of a cell."""
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    points = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 2)
    return points, np.prod([edge[1] - edge[0] for edge in edges])


def test_density_has_mass_one(fitted):
    points, area = points_of_a_grid(np.linspace(-5, 5, 46), np.linspace(-5, 8, 41))
    points[:, 1] += points[:, 0] ** 2  # along the banana, without a change of the area
    mass = np.exp(fitted.score_samples(points * [1e3, 1e-2])).sum() * area * 1e3 * 1e-2
    assert mass == pytest.approx(1, abs=0.01)


def test_banana_is_fitted_better_than_by_a_gaussian(fitted):
    X = fresh_rows(1000)
    gaussian = -1 - np.log(2 * np.pi) - np.linalg.slogdet(np.cov(X.T))[1] / 2
    assert fitted.score(X) > gaussian + 0.4


def test_inverse_transform_inverts_transform(fitted):
    X = fresh_rows(100)
    back = fitted.inverse_transform(fitted.transform(X))
    np.testing.assert_allclose(back / [1e3, 1e-2], X / [1e3, 1e-2], rtol=0, atol=1e-5)


def test_rows_far_from_the_data_stay_where_they_are(fitted):
    """In preprocessed columns, which grow logarithmically far from the data."""
    far = np.logspace(2, 12, 11)[:, None] * np.array([[1e3, -1e-2]])
    prepared, _ = fitted.flow_.preprocess(torch.from_numpy(far))
    np.testing.assert_allclose(fitted.transform(far), prepared, rtol=0.01, atol=0.1)
    assert (fitted.score_samples(far) > -1e5).all()
    assert (np.diff(fitted.score_samples(far)) < 0).all()


def test_function_evaluations_are_counted(fitted):
    assert 8 <= fitted.n_function_evaluations_ < 1000
    grid = quick(solver="rk4", n_steps=3).fit(banana(N_ROWS))
    assert grid.n_function_evaluations_ == 12


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
def test_solver_error_has_the_order_of_the_true_error(fitted, fine_scores, solver):
    if solver == "rk4":
        fitted = copy.deepcopy(fitted)
        fitted.flow_.bijection.solver = RungeKutta4(n_steps=4)
    X = fresh_rows(20)
    error = fitted.solver_error(X)
    true_error = np.abs(fitted.score_samples(X) - fine_scores)
    assert error.shape == (20,) and (error >= 0).all()
    assert 0.1 < error.max() / true_error.max() < 10


# Phases of the training


def test_flow_matching_and_likelihood_share_the_epochs():
    """Flow matching comes first, and the validation scores continue."""
    X = banana(200)
    params = {"learning_rate_init": 0.01, "contamination": None}
    estimator = quick(objective="both", max_iter=10, **params).fit(X)
    matching = quick(objective="flow_matching", max_iter=9, **params).fit(X)
    assert estimator.n_iter_ == 10
    np.testing.assert_array_equal(estimator.loss_curve_[:9], matching.loss_curve_)
    assert estimator.best_validation_score_ == max(
        [matching.best_validation_score_, *estimator.validation_scores_[9:]]
    )


def test_callback_that_stops_the_first_phase_ends_the_training():
    params = {"max_iter": 10, "learning_rate_init": 0.03, "batch_size": 16}
    estimator = quick(objective="both", contamination=None, **params)
    estimator.set_callbacks(AtEpochEnd(lambda epoch, fitted: epoch == 4)).fit(banana(200))
    assert estimator.n_iter_ == 4
    assert estimator.best_iter_ == 4  # though flow matching validates every fifth epoch


@pytest.mark.parametrize("n_iter_no_change", [1, 3])
def test_patience_may_be_shorter_than_the_interval_of_validation(n_iter_no_change):
    params = {"max_iter": 12, "learning_rate_init": 0.03, "batch_size": 32, "contamination": None}
    estimator = quick(objective="flow_matching", n_iter_no_change=n_iter_no_change, **params)
    estimator.fit(banana(300))
    assert estimator.n_iter_ == 12
    assert estimator.best_iter_ in (10, 12)
    assert len(estimator.history_["validation_score"]) == 12


def test_partial_fit_with_both_objectives_uses_flow_matching():
    estimator = quick(objective="both", jacobian_penalty=0.1)
    history = estimator.partial_fit(banana(100)).partial_fit(banana(100)).history_
    assert np.isfinite(history["matching"]).all()
    assert "nll" not in history


def test_both_phases_share_the_time_limit():
    density = quick(objective="both", max_iter=500, time_limit=1e-9)
    with pytest.warns(ConvergenceWarning, match="time_limit=1e-09 ended training"):
        density.fit(banana(100))
    assert density.n_iter_ == 2  # one of each


# Hutchinson's estimate of the trace


def wide_rows(n, d, seed=0):
    """Return correlated rows that are not Gaussian."""
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return rows + 0.3 * np.roll(rows, 1, axis=1) ** 2


def with_exact_trace(estimator):
    """Return a copy that computes the exact trace."""
    exact = copy.deepcopy(estimator)
    exact.flow_.bijection.n_probes = 0
    return exact


ESTIMATED = {"trace": "hutchinson", "early_stopping": False, "contamination": None}
ESTIMATED |= {"tolerance": 1e-5, "random_state": 0}


@pytest.fixture(scope="module")
def estimated():
    """An estimator of the trace by many probes, and the same with the exact trace."""
    params = {"hidden_layer_sizes": (16, 16), "max_iter": 10, "learning_rate_init": 0.01}
    params |= {"n_probes": 64}
    estimator = CNFDensity(**ESTIMATED, **params).fit(wide_rows(100, 5))
    return estimator, with_exact_trace(estimator)


def test_estimates_are_within_their_standard_errors(estimated):
    estimator, exact = estimated
    X = wide_rows(50, 5, seed=1)
    scores, error = estimator.score_samples(X), estimator.score_standard_error(X)
    assert (error > 1e-6).all()
    off = (scores - exact.score_samples(X)) / error
    assert (np.abs(off) < 4).all()
    # Rows have probes of their own, so that their errors are independent.
    assert 0.7 < np.sqrt(np.mean(off**2)) < 1.3
    assert abs(off.sum()) < 3 * len(X) ** 0.5
    np.testing.assert_array_equal(exact.score_standard_error(X), 0)


def test_estimates_are_reproducible_and_independent_of_other_rows(estimated):
    estimator, _ = estimated
    X = wide_rows(50, 5, seed=1)
    scores = estimator.score_samples(X)
    np.testing.assert_array_equal(estimator.score_samples(X), scores)
    np.testing.assert_allclose(estimator.score_samples(X[7:9]), scores[7:9], rtol=1e-11)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.score_samples(X), scores)


def test_estimates_of_whitened_rows_do_not_depend_on_the_batch():
    """Whitening rounds a row differently in another batch, which must not change its probes."""
    X = wide_rows(100, 40)
    params = {"hidden_layer_sizes": (8, 8, 8), "max_iter": 5, "preprocessing": "whiten"}
    estimator = CNFDensity(**ESTIMATED, **params).fit(X)
    X = X[:20]
    assert (estimator.score_standard_error(X) > 1e-3).all()
    parts = [estimator.score_samples(part) for part in np.split(X, [1, 4])]
    np.testing.assert_allclose(estimator.score_samples(X), np.concatenate(parts), atol=1e-6)


def test_standard_error_with_discrete_columns():
    """A score is a mean of densities over a cell: its error is that of their weighted logs."""
    X = np.round(wide_rows(60, 3))
    params = {"hidden_layer_sizes": (8, 8, 8), "max_iter": 5, "learning_rate_init": 0.02}
    estimator = CNFDensity(n_probes=32, **ESTIMATED, **params).fit(X)
    assert len(estimator.discrete_) == 3
    exact = with_exact_trace(estimator)
    off = np.abs(estimator.score_samples(X) - exact.score_samples(X))
    error = estimator.score_standard_error(X)
    assert (error > 1e-6).all()
    assert (off < 4 * error).all()


def test_mean_over_draws_does_not_bias_the_estimates():
    """All draws of the noise on discrete columns of a row share its probes."""
    X = wide_rows(150, 4)
    X[:, 0] = np.round(X[:, 0])
    params = {"hidden_layer_sizes": (16, 16), "max_iter": 60, "learning_rate_init": 0.02}
    params |= {"preprocessing": "standardize"}
    estimator = CNFDensity(n_probes=2, **ESTIMATED, **params).fit(X)
    off = estimator.score_samples(X) - with_exact_trace(estimator).score_samples(X)
    assert off.std() > 0.2
    assert abs(off.mean()) < 3 * off.std() / len(X) ** 0.5


def test_standard_error_of_a_single_probe_raises():
    estimator = quick(trace="hutchinson", n_probes=1).fit(banana(N_ROWS))
    with pytest.raises(ValueError, match="n_probes=1 has no spread"):
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
def test_choice_of_the_trace(d, sizes, trace, n_probes):
    estimator = CNFDensity(hidden_layer_sizes=sizes, trace=trace)
    assert estimator._build_bijection(d).n_probes == n_probes


# Coupling and penalties


def test_optimal_transport_minimises_the_squared_distance():
    x, noise = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0])
    paired = optimal_transport(x, noise, weight)
    rows = [0, 1, 3, 4]
    lengths = [(x[:, rows] - noise[:, list(p)]).square().sum() for p in permutations(rows)]
    assert (x - paired)[:, rows].square().sum() == pytest.approx(min(lengths).item())
    assert torch.equal(paired[:, 2], noise[:, 2])
    stack = optimal_transport(*(torch.stack([part] * 2) for part in (x, noise, weight)))
    assert torch.equal(stack, torch.stack([paired] * 2))


def energies_of(estimator, X):
    """Return what the solver adds up along the trajectories, and their squared lengths if straight.

    All are means over the rows: the kinetic energy, the Jacobian energy and the squared distance
    from start to end.
    """
    y, _ = estimator.flow_.preprocess(torch.from_numpy(X))
    with torch.no_grad():
        solution = estimator.flow_.bijection.solve(y, solver=RungeKutta4(8), energies=True)
    distance = (solution.x - y).square().sum(-1)
    return torch.stack([*solution.energies, distance]).mean(-1).tolist()


def test_optimal_transport_straightens_the_trajectories():
    """The kinetic energy of a straight trajectory at constant speed is its squared length."""
    X = banana(128)
    params = {"hidden_layer_sizes": (16, 16), "max_iter": 20, "learning_rate_init": 0.03}
    params |= {"batch_size": 64, "preprocessing": "standardize", "objective": "flow_matching"}
    curvatures = []
    for coupling in ("independent", "optimal_transport"):
        estimator = quick(coupling=coupling, early_stopping=False, contamination=None, **params)
        kinetic, _, distance = energies_of(estimator.fit(X), X)
        curvatures.append(kinetic - distance)
    assert 0 < curvatures[1] < 0.8 * curvatures[0]


def test_optimal_transport_on_a_small_table_warns():
    """All rows of a table that is trained as one batch share their noise."""
    X = banana(20)
    params = {"objective": "flow_matching", "coupling": "optimal_transport", "max_iter": 1}
    with pytest.warns(UserWarning, match="no effect on a table of fewer than 40 rows"):
        quick(**params).fit(X)
    quick(**params, batch_size=10).fit(X)
    quick(**params).fit(banana(40))


def test_energies_are_integrals_along_the_trajectory():
    bijection = Continuous(3, (6, 5), n_probes=100)
    bijection = randomize(bijection).double().eval()
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kinetic, estimated = bijection.solve(x, solver=RungeKutta4(10), energies=True).energies
    bijection.n_probes = 0
    times = torch.linspace(0, 1, 21, dtype=torch.float64)
    squares = torch.zeros(2, 21, 4, dtype=torch.float64)
    for i, t in enumerate(times):
        if i:
            x = bijection.solve(x, start=times[i - 1], end=t, solver=RungeKutta4(1)).x

        def field(columns, t=t):
            return bijection.velocity(t.view(1), columns)[0]

        slopes = jacobian(lambda columns: field(columns).sum(-1), x.T)
        squares[:, i] = torch.stack([field(x.T).square().sum(0), slopes.square().sum((0, 1))])
    expected = torch.trapezoid(squares, times, dim=1)
    torch.testing.assert_close(kinetic, expected[0], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(estimated, expected[1], rtol=0.3, atol=0)


def test_parts_of_the_loss_add_up():
    X = banana(100)
    penalties = {"kinetic_penalty": 0.3, "jacobian_penalty": 0.2, "contamination": None}
    history = quick(max_iter=4, **penalties).fit(X).history_
    parts = [np.array(history[name]) for name in ("nll", "kinetic", "jacobian")]
    np.testing.assert_allclose(history["loss"], np.array([1, 0.3, 0.2]) @ parts, rtol=1e-5)
    matching = quick(max_iter=4, objective="flow_matching", **penalties)
    with pytest.warns(UserWarning, match=r"kinetic_penalty=0\.3 has no effect on flow matching"):
        matching = matching.fit(X).history_
    parts = [np.array(matching[name]) for name in ("matching", "jacobian")]
    np.testing.assert_allclose(matching["loss"], parts[0] + 0.2 * parts[1], rtol=1e-5)
    # A part is NaN in the epochs of another objective.
    both = quick(max_iter=10, objective="both", **penalties).fit(X).history_
    assert np.isnan(both["nll"][:9]).all() and np.isfinite(both["nll"][9])
    assert np.isfinite(both["matching"][:9]).all() and np.isnan(both["matching"][9])


def test_parts_of_the_loss_are_kept_by_a_warm_start():
    X = banana(100)
    estimator = quick(max_iter=2, warm_start=True).fit(X)
    estimator.set_params(jacobian_penalty=0.1).fit(X)
    assert {len(values) for values in estimator.history_.values()} == {4}
    assert np.isnan(estimator.history_["nll"]).tolist() == [True, True, False, False]


def test_penalties_reduce_the_energies():
    """And so the evaluations of the velocity, at little cost of the score."""
    X = banana(60)
    params = {"objective": "likelihood", "n_steps": 2, "max_iter": 10, "learning_rate_init": 0.05}
    params |= {"hidden_layer_sizes": (16, 16), "preprocessing": "standardize"}
    params |= {"early_stopping": False, "contamination": None}
    free = quick(**params).fit(X)
    for i, name in enumerate(("kinetic_penalty", "jacobian_penalty")):
        penalised = quick(**params, **{name: 0.3}).fit(X)
        assert energies_of(penalised, X)[i] < 0.75 * energies_of(free, X)[i]
        assert penalised.n_function_evaluations_ < free.n_function_evaluations_
        assert penalised.score(X) > free.score(X) - 0.25


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"objective": "likelihood", "coupling": "optimal_transport"}, "pairs no rows"),
        ({"objective": "flow_matching", "checkpointing": True}, "uses no solver"),
    ],
)
def test_parameters_without_effect_warn(params, message):
    with pytest.warns(UserWarning, match=message):
        quick(max_iter=1, **params).fit(banana(50))


# Checkpointing


def test_checkpointing_does_not_change_the_gradient():
    bijection = randomize(Continuous(3, (8, 8))).double()
    x = torch.randn(20, 3, dtype=torch.float64)

    def gradient(checkpointing):
        torch.manual_seed(0)  # of the probes
        solver = RungeKutta4(n_steps=3, checkpointing=checkpointing)
        solution = bijection.solve(x, solver=solver, energies=True)
        loss = solution.x.square().sum() - solution.log_det.sum() + solution.energies.sum()
        return torch.autograd.grad(loss, list(bijection.parameters()))

    for ours, theirs in zip(gradient(True), gradient(False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_checkpointing_saves_memory():
    """The tensors that autograd keeps for the backward pass hardly grow with the steps."""
    bijection = Continuous(3, (32, 32))
    x = torch.randn(50, 3)

    def n_saved_values(checkpointing, n_steps):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            solver = RungeKutta4(n_steps=n_steps, checkpointing=checkpointing)
            bijection.map(x, solver=solver)
        return sum(sizes)

    assert n_saved_values(True, 16) < 0.05 * n_saved_values(False, 16)


def test_checkpointing_does_not_change_the_fit():
    X = banana(N_ROWS)
    scores = [quick(checkpointing=value).fit(X).score_samples(X) for value in (False, True)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-8)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"coupling": "optimal_transport", "jacobian_penalty": 0.1},
        {"objective": "likelihood", "kinetic_penalty": 0.1, "jacobian_penalty": 0.1},
        {"objective": "likelihood", "checkpointing": True},
    ],
)
def test_padding_rows_do_not_count(params):
    """Rows of weight 0 fill up batches, whatever their values."""
    estimator = CNFDensity(hidden_layer_sizes=(8, 8), n_steps=2, **params)
    objective = estimator._phases(10)[-1]["objective"]
    bijection = randomize(estimator._build_bijection(3)).train()
    generator = torch.Generator().manual_seed(0)
    rows, others = torch.randn(2, 20, 3, generator=generator)
    weight, n = torch.ones(20), torch.tensor(16)
    weight[n:] = 0.0
    others[:n] = rows[:n]
    with torch.random.fork_rng(devices=[]):
        found = []
        for each in (rows, others):
            torch.manual_seed(0)
            found.append(objective.gradients(bijection, each, weight, n))
    torch.testing.assert_close(*found)
    assert all(g.abs().max() > 0 for g in found[0][1])
