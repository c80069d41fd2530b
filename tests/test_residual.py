"""Residual blocks: their Lipschitz constant, log-determinants and inverse."""

import numpy as np
import pytest
import torch
from _bijections import randomize
from _densities import banana, small
from torch.testing import assert_close

import skflows
from skflows.bijections import Residual
from skflows.bijections._residual import REMAINDER, roulette, truncated_series
from skflows.nn.contraction import LIPSCHITZ, log_norm_bound
from skflows.nn.random_draws import drawing_from
from skflows.training.model_stack import stack


@pytest.fixture(autouse=True)
def own_seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def block(d, sizes, scale=0.5, **params):
    return randomize(Residual(d, sizes, **params).double().eval(), scale)


def slopes_at(bijection, n=6):
    contraction = bijection.network.given()
    x = torch.randn(bijection.probes.shape[0], n, dtype=torch.float64)
    return contraction, contraction(x)[1]


@pytest.mark.parametrize("shape", [(64, 10), (10, 64), (64, 64), (3, 1), (2, 5, 4)])
def test_norm_is_bounded_from_above(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    ratio = log_norm_bound(weight).exp() / torch.linalg.matrix_norm(weight, 2)
    least = min(shape[-2:])
    assert (ratio >= 1 - 1e-12).all()
    assert (ratio <= least ** (1 / 66) + 1e-12).all()
    isotropic = torch.eye(least, dtype=torch.float64)  # the worst case
    assert_close(log_norm_bound(isotropic).item(), np.log(least) / 66)
    torch.autograd.gradcheck(log_norm_bound, weight.requires_grad_(), fast_mode=True)


def test_norm_of_zeros_has_a_finite_gradient():
    weight = torch.zeros(4, 3, requires_grad=True)
    log_norm_bound(weight).backward()
    assert torch.equal(weight.grad, torch.zeros(4, 3))


@pytest.mark.parametrize("sizes", [(20,), (20, 20), (20, 7, 11)])
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_lipschitz_constant_bounds_all_jacobians(sizes, scale):
    contraction, slopes = slopes_at(block(5, sizes, scale), n=200)
    norms = torch.linalg.matrix_norm(contraction.jacobian(slopes), 2)
    assert norms.max() <= contraction.lipschitz <= LIPSCHITZ + 1e-12
    if scale > 1:
        assert_close(contraction.lipschitz.item(), LIPSCHITZ)
        assert norms.max() > 0.05  # of large weights too, something is left


def test_determinants_through_units_are_the_same():
    bijection = block(9, (4,))
    contraction, slopes = slopes_at(bijection)
    assert contraction.through_units
    jacobian = torch.eye(9, dtype=torch.float64) + contraction.jacobian(slopes)
    assert_close(contraction.log_det(slopes), torch.linalg.slogdet(jacobian).logabsdet)
    rows = torch.randn(6, 9, dtype=torch.float64)
    divided = torch.linalg.solve(jacobian, rows.unsqueeze(-1)).squeeze(-1)
    assert_close(contraction.divide(slopes, rows), divided)


@pytest.mark.parametrize("sizes", [(4,), (12, 9)])
def test_products_are_those_of_the_jacobian(sizes):
    contraction, slopes = slopes_at(block(6, sizes))
    jacobian = contraction.jacobian(slopes)
    vectors = torch.randn(6, 2, 6, dtype=torch.float64)  # (d, k, n)
    assert_close(contraction.jvp(slopes, vectors), torch.einsum("nij,jkn->ikn", jacobian, vectors))
    assert_close(contraction.vjp(slopes, vectors), torch.einsum("nji,jkn->ikn", jacobian, vectors))


@pytest.mark.parametrize("scale", [0.3, 30.0])
def test_terms_left_out_of_the_series_are_as_small_as_stated(scale):
    contraction, slopes = slopes_at(block(6, (12, 9), scale))
    of_columns = 6**0.5 * torch.eye(6)  # their mean is the trace
    by_probe = truncated_series(contraction, slopes, of_columns)
    assert (by_probe.mean(-2) - contraction.log_det(slopes)).abs().max() < REMAINDER


def test_roulette_is_unbiased():
    """Value and gradients, up to four standard errors."""
    bijection = block(5, (12,))
    n_draws, n = 4000, 3
    x = torch.randn(5, n, dtype=torch.float64)
    contraction = bijection.network.given()
    weights = [layer.weight for layer in (*bijection.network.hidden, bijection.network.output)]
    exact = contraction.log_det(contraction(x)[1])
    expected = torch.autograd.grad(exact.sum(), weights)
    values, gradients = [], []
    many = x.repeat(1, 40)
    for _ in range(n_draws // 40):
        contraction = bijection.network.given()
        value = roulette(contraction, contraction(many)[1])
        values.append(value.detach().view(40, n).mean(0))
        gradients.append(torch.autograd.grad(value.sum() / 40, weights))
    for found, true in [(values, exact), *zip(zip(*gradients, strict=True), expected, strict=True)]:
        found = torch.stack(list(found))
        error = found.std(0) / len(found) ** 0.5
        assert ((found.mean(0) - true).abs() <= 4.5 * error).all()


def test_member_of_a_stack_draws_what_it_draws_alone():
    blocks = [block(5, (12,), scale, log_det="series").train() for scale in (0.2, 0.6)]
    x = torch.randn(2, 7, 5, dtype=torch.float64)

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    with drawing_from(generators()):
        together = stack(blocks)(x)[1]
    for each, rows, generator, expected in zip(blocks, x, generators(), together, strict=True):
        with drawing_from([generator]):
            assert_close(each(rows)[1], expected)


@pytest.mark.parametrize("log_det", ["exact", "series"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_is_as_near_as_its_miss_says(log_det, dtype):
    bijection = block(4, (30,), 20.0, log_det=log_det).to(dtype)
    x = 3 * torch.randn(100, 4, dtype=dtype)
    with torch.no_grad():
        z = bijection(x)[0]
        back = bijection.inverse(z)[0]
        miss = (z - bijection(back)[0]).norm(dim=1)
    assert miss.max() <= 100 * torch.finfo(dtype).eps * z.abs().max()
    rounding = 100 * torch.finfo(dtype).eps * z.abs().max()
    assert ((back - x).norm(dim=1) <= miss / (1 - LIPSCHITZ) + rounding).all()


def test_inverse_by_the_series_builds_no_jacobian(monkeypatch):
    from skflows.nn.contraction import Contraction

    bijection = block(6, (12, 9), log_det="series")
    x = torch.randn(8, 6, dtype=torch.float64)
    z, log_det = (each.detach() for each in bijection(x))
    assert_close(bijection.inverse(z)[0], x)  # with gradients, by a step of Newton's method
    monkeypatch.delattr(Contraction, "jacobian")
    with torch.no_grad():
        back, inverse = bijection.inverse(z)
    assert_close(back, x)
    assert_close(inverse, -log_det)


def test_roulette_takes_a_draw_of_0(monkeypatch):
    monkeypatch.setattr("skflows.bijections._residual.uniform_draws", torch.zeros_like)
    assert roulette(*slopes_at(block(5, (12,)))).isfinite().all()


def test_newton_falls_back_to_the_fixed_point(monkeypatch):
    from skflows.nn.contraction import Contraction

    bijection = block(3, (12,))
    z = torch.randn(8, 3, dtype=torch.float64)
    expected = bijection.inverse(z)[0]
    divide = Contraction.divide
    monkeypatch.setattr(Contraction, "divide", lambda self, slopes, rows: 50 * rows)
    x = bijection._solve(bijection.network.given(), z)
    monkeypatch.setattr(Contraction, "divide", divide)
    assert_close(x, expected, rtol=1e-6, atol=1e-6)  # in the steps of Newton's method


def test_exact_up_to_a_size():
    assert Residual(500, (16,)).is_exact
    assert Residual(500, (16,)).is_exact_in_training
    assert Residual(100, (64,)).is_exact
    assert not Residual(100, (64,)).is_exact_in_training
    assert not Residual(200, (16, 16)).is_exact
    assert Residual(200, (16, 16), log_det="exact").is_exact_in_training


def test_series_scores_of_an_estimator():
    X = np.hstack([banana(60, seed) for seed in range(3)])
    params = {"learning_rate_init": 0.03, "early_stopping": False, "max_iter": 30}
    series = small("residual", log_det="series", n_probes=16, **params).fit(X)
    scores = series.score_samples(X)
    np.testing.assert_array_equal(series.score_samples(X), scores)
    np.testing.assert_allclose(series.score_samples(X[5:6]), scores[5:6], rtol=1e-12)
    error = series.score_standard_error(X)
    for module in series.flow_.modules():
        if isinstance(module, Residual):
            module.is_exact = True
    exact = series.score_samples(X)
    assert 1e-4 < error.max()
    assert np.sqrt(np.mean((scores - exact) ** 2)) < 2 * np.sqrt(np.mean(error**2))
    assert not series.score_standard_error(X).any()


def test_one_vector_of_signs_has_no_spread(tmp_path):
    X = banana(40)
    series = small("residual", log_det="series", n_probes=1, max_iter=1).fit(X)
    with pytest.raises(ValueError, match="n_probes=1 has no spread"):
        series.score_standard_error(X)
    with pytest.raises(ValueError, match=r"are series, .* log_det=\"exact\""):
        skflows.export(series, tmp_path / "flow.pt2")


def test_exported_scores(tmp_path):
    X = banana(60)
    density = small("residual", n_transforms=1).fit(X)
    path = tmp_path / "flow.pt2"
    skflows.export(density, path)
    found = torch.export.load(path).module()(torch.tensor(X)).numpy()
    np.testing.assert_allclose(found, density.score_samples(X), rtol=1e-9)
    with pytest.raises(ValueError, match="ResidualDensity cannot be exported: it takes more than"):
        skflows.export(density, path, "inverse_transform")
