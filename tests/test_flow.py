"""Log-densities of flows against closed forms, and their total mass."""

import math

import pytest
import torch
from _bijections import DIMENSIONS, SOLVED, TABLE, build, make_case, randomize
from scipy.stats import multivariate_normal
from torch.testing import assert_close

from skflows.bijections import Chain, Standardize
from skflows.bijections._flow import Flow


def scaled(d, loc, scale):
    """Return a preprocessing step with the same loc and scale for each column."""
    preprocess = Standardize(d)
    preprocess.loc.fill_(loc)
    preprocess.scale.fill_(scale)
    return preprocess


@pytest.mark.parametrize("d", DIMENSIONS)
def test_identity_flow_is_a_standard_normal(d):
    _, x, _ = make_case("standardize", d)
    log_prob = Flow(Standardize(d), Chain([])).log_prob(x)
    expected = multivariate_normal(torch.zeros(d)).logpdf(x)
    assert_close(log_prob, torch.as_tensor(expected).view(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_linear_flow_is_a_multivariate_normal(d):
    linear, x, _ = make_case("lu_linear", d)
    flow = Flow(scaled(d, loc=-1.5, scale=0.25), linear)
    # The matrix that maps z to x, and the image of z = 0.
    mean = flow.inverse(torch.zeros(1, d).double())[0]
    matrix = (flow.inverse(torch.eye(d).double())[0] - mean).T.detach()
    normal = multivariate_normal(mean[0].detach(), matrix @ matrix.T)
    expected = torch.as_tensor(normal.logpdf(x)).view(-1)
    assert_close(flow.log_prob(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", TABLE)
def test_log_prob_follows_the_change_of_variables(name):
    """log p(x) = log N(z; 0, I) + log |dz/dx|, computed by the inverse."""
    within = SOLVED.get(name, 1e-9)
    bijection, z, context = make_case(name, 3, n_context=3)
    flow = Flow(scaled(3, loc=10.0, scale=4.0), bijection)
    x, log_det = flow.inverse(z, context)
    expected = torch.distributions.Normal(0, 1).log_prob(z).sum(1) - log_det
    assert_close(flow.log_prob(x, context), expected, rtol=within, atol=within)
    latent, log_det_forward = flow(x, context)
    assert_close(latent, z, rtol=within, atol=within)
    assert_close(log_det_forward, -log_det, rtol=within, atol=within)


@torch.no_grad()
@pytest.mark.parametrize("name", TABLE)
def test_density_has_mass_one(name):
    flow = Flow(scaled(1, loc=5.0, scale=0.1), randomize(build(name, 1)))
    # There is no mass beyond the images of the latent points -8 and 8.
    ends, _ = flow.inverse(torch.tensor([[-8.0], [8.0]]).double())
    low, high = ends.sort(0).values
    x = torch.linspace(low.item(), high.item(), 4001).double()
    mass = torch.trapezoid(flow.log_prob(x[:, None]).exp(), x).item()
    assert math.isclose(mass, 1, abs_tol=1e-4)


def test_preprocessing_is_computed_in_float64():
    flow = Flow(scaled(2, loc=1e9, scale=1e-3), Chain([]))
    x = torch.tensor([[1e9 + 1e-3, 1e9 - 2e-3]], dtype=torch.float64)
    z, _ = flow(x)
    assert_close(z, torch.tensor([[1.0, -2.0]]).double(), rtol=1e-3, atol=0)
