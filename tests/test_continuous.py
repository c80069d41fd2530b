"""ODE solvers against closed forms, and traces of the velocity against autograd."""

import pytest
import torch
from _bijections import randomize
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from skflows.bijections import Continuous
from skflows.bijections._ode import DormandPrince, RungeKutta4
from skflows.bijections._velocity import Velocity
from skflows.nn.activations import ACTIVATIONS
from skflows.nn.random_draws import hashed_signs

WIDTHS = [(7,), (7, 7), (7, 5), (6, 6, 6), (6, 5, 5)]


def continuous(n_features=3, widths=(8, 8), **params):
    torch.manual_seed(0)
    return randomize(Continuous(n_features, widths, **params).double()).eval()


def rows(n, n_features=3):
    return torch.randn(
        n, n_features, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("solver", [DormandPrince(1e-9), RungeKutta4(200)])
def test_solution_of_a_linear_equation_is_the_matrix_exponential(solver):
    matrix = torch.tensor([[-0.5, 2.0], [-2.0, 0.1]], dtype=torch.float64)
    state = torch.randn(2, 5, dtype=torch.float64)
    end, count = solver.solve(lambda t, state, rows: matrix @ state, state, 0.0, 1.0)
    assert_close(end, torch.linalg.matrix_exp(matrix) @ state, rtol=1e-8, atol=1e-8)
    start, _ = solver.solve(lambda t, state, rows: matrix @ state, end, 1.0, 0.0)
    assert_close(start, state, rtol=1e-8, atol=1e-8)
    assert count.shape == (5,) and (count > 0).all()


def test_nan_in_one_row_does_not_slow_down_the_others():
    def slope(t, state, rows):
        return torch.where(state > 0, torch.nan, state)

    state = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    end, count = DormandPrince(1e-6).solve(slope, state, 0.0, 1.0)
    assert end.isnan().tolist() == [[True, False]]
    assert count[0] < 100


@torch.no_grad()
def test_adaptive_steps_are_as_accurate_as_a_fine_grid():
    bijection = continuous(solver=DormandPrince(tolerance=1e-8))
    x = rows(20)
    fine = bijection.solve(x, solver=RungeKutta4(n_steps=400))
    z, log_det = bijection(x)
    assert_close(z, fine.x, rtol=1e-6, atol=1e-6)
    assert_close(log_det, fine.log_det[0], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_solution_of_a_row_does_not_depend_on_the_others():
    """Each row has its own step size, though some need many more steps than others."""
    bijection = continuous()
    x = rows(30) * torch.logspace(-2, 2, 30, dtype=torch.float64)[:, None]
    together = bijection.solve(x)
    assert len(together.n_evaluations.unique()) > 1
    for i in (0, 15, 29):
        alone = bijection.solve(x[i : i + 1])
        assert_close(alone.x[0], together.x[i], rtol=1e-12, atol=1e-12)
        assert_close(alone.log_det[0, 0], together.log_det[0, i], rtol=1e-9, atol=1e-9)
        assert alone.n_evaluations[0] == together.n_evaluations[i]


@pytest.mark.parametrize(
    ("widths", "activation"),
    [(widths, "silu") for widths in WIDTHS]
    + [((6, 6, 6), name) for name in ACTIVATIONS if name != "silu"],
)
@pytest.mark.parametrize("drift", [True, False])
@pytest.mark.parametrize("distance", [1, 6])  # within the range of the network, and beyond
def test_trace_and_jvp_agree_with_the_jacobian(widths, activation, drift, distance):
    torch.manual_seed(0)
    velocity = randomize(Velocity(3, widths, activation=activation, drift=drift).double())
    x, tangent = torch.randn(2, 3, 1, dtype=torch.float64)
    x = distance * x / x.abs().max()
    t = torch.tensor([0.3], dtype=torch.float64)
    matrix = jacobian(lambda column: velocity(t, column.unsqueeze(-1))[0].squeeze(-1), x[:, 0])
    _, slopes = velocity(t, x, slopes=True)
    assert_close(velocity.trace(slopes), matrix.trace().view(1), rtol=1e-9, atol=1e-9)
    product = velocity.jvp(slopes, tangent.unsqueeze(-1)).squeeze(-1)
    assert_close(product, matrix @ tangent, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("drift", [True, False])
def test_rows_far_from_the_data_stay_where_they_are(drift):
    """A network that extrapolates linearly would move them without bound."""
    bijection = continuous(drift=drift)
    x = (
        torch.eye(3, dtype=torch.float64).repeat(5, 1)
        * torch.logspace(2, 14, 15, dtype=torch.float64)[:, None]
    )
    z, log_det = bijection(x)
    assert_close(z, x, rtol=0.01, atol=1.0)
    assert (log_det.abs() < 1).all()


@torch.no_grad()
def test_hutchinson_estimate_is_unbiased():
    solver = RungeKutta4(n_steps=8)
    x = rows(10)
    exact = continuous(solver=solver)
    estimate = continuous(solver=solver, n_probes=256)
    estimate.velocity.load_state_dict(exact.velocity.state_dict())
    solution = estimate.solve(x)
    error = solution.log_det.std(0) / 256**0.5
    assert (error > 0).all()
    assert ((solution.log_det.mean(0) - exact(x)[1]).abs() < 4 * error).all()
    assert_close(estimate(x)[1], estimate(x)[1], rtol=0, atol=0)  # the same probes each time


def test_hashed_signs_of_rows_are_reproducible_and_independent():
    columns = rows(20_000).mT
    seeds = torch.tensor([0.3, 0.1, 0.2])
    drawn = hashed_signs(columns, seeds, 2)
    assert drawn.shape == (3, 2, 20_000)
    assert hashed_signs(columns[:2], seeds, 2).shape == drawn.shape
    assert_close(hashed_signs(columns[:, 5:7], seeds, 2), drawn[..., 5:7], rtol=0, atol=0)
    assert (hashed_signs(columns + 1e-12, seeds, 2) != drawn).double().mean() > 0.4
    assert (hashed_signs(columns, seeds + 1, 2) != drawn).double().mean() > 0.4
    assert_close(torch.cov(drawn.flatten(0, 1)), torch.eye(6).double(), rtol=0, atol=0.04)
    assert drawn.mean(-1).abs().max() < 0.03
