"""Fitted flows as PyTorch distributions."""

import numpy as np
import pytest
import torch
from _densities import banana, each_estimator, small
from torch import distributions
from torch.autograd import gradcheck
from torch.func import jacrev, vmap
from torch.testing import assert_close

from skflows import GaussianizationDensity

X = banana(60)
COUNTS = np.column_stack([np.round(X), X[:, 0]])  # two discrete columns and a continuous one


@each_estimator
def test_log_prob_is_that_of_score_samples(name):
    for table, params in [(X, {"bounds": [(-9, 9), None]}), (COUNTS, {"discrete": [0, 1]})]:
        density = small(name, preprocessing="quantile", **params).fit(table)
        distribution = density.distribution()
        assert distribution.event_shape == table.shape[1:]
        assert distribution.has_rsample == (not density.discrete_)
        expected = torch.tensor(density.score_samples(table)).view(3, 20)
        rows = torch.tensor(table).view(3, 20, -1)
        assert_close(distribution.log_prob(rows), expected, rtol=1e-9, atol=1e-9)
        assert_close(distribution.log_prob(rows[0, 0]), expected[0, 0], rtol=1e-9, atol=1e-9)


@each_estimator
def test_log_prob_has_gradients(name):
    log_prob = small(name, discrete=None).fit(X).distribution(validate_args=False).log_prob
    rows = torch.tensor(X[:4], requires_grad=True)
    assert gradcheck(log_prob, [rows], atol=1e-5, rtol=1e-5, fast_mode=True)


def test_log_prob_works_under_function_transforms():
    density = small("nsf", preprocessing=("quantile", "whiten")).fit(COUNTS)
    log_prob = density.distribution(validate_args=False).log_prob
    rows = torch.tensor(COUNTS, requires_grad=True)
    (gradient,) = torch.autograd.grad(log_prob(rows).sum(), rows)
    assert_close(vmap(log_prob)(rows), log_prob(rows), rtol=1e-9, atol=1e-9)
    assert_close(vmap(jacrev(log_prob))(rows), gradient, rtol=1e-9, atol=1e-9)


@each_estimator
def test_draws_are_those_of_the_inverse(name):
    density = small(name, discrete=None).fit(X)
    distribution = density.distribution().expand([2])
    for draw in (distribution.sample, distribution.rsample):
        torch.manual_seed(3)
        drawn = draw((4, 3))
        torch.manual_seed(3)
        latent = torch.randn(24, density._n_features_out, dtype=torch.float64)
        expected = torch.tensor(density.inverse_transform(latent.numpy())).view(4, 3, 2, 2)
        assert drawn.shape == expected.shape and drawn.dtype == torch.float64
        assert_close(drawn, expected, rtol=1e-9, atol=1e-9)


def test_discrete_columns():
    density = small("maf").fit(COUNTS)
    distribution = density.distribution()
    torch.manual_seed(0)
    drawn = distribution.sample((50,)).numpy()
    assert (drawn[:, :2] == np.round(drawn[:, :2])).all()
    assert (drawn[:, 2] != np.round(drawn[:, 2])).all()
    with pytest.raises(NotImplementedError, match=r"Columns \[0, 1\] are discrete.*discrete=None"):
        distribution.rsample()


def test_distributions_compose():
    density = GaussianizationDensity(discrete=None, max_iter=2, random_state=0).fit(X)
    distribution = density.distribution()
    rows = torch.tensor(X[:6]).view(3, 2, 2)
    log_prob = distribution.log_prob(rows)
    assert distribution.expand([4, 1]).log_prob(rows[0]).shape == (4, 2)

    pairs = distributions.Independent(distribution.expand([2]), 1)
    assert_close(pairs.log_prob(rows), log_prob.sum(1))
    assert pairs.rsample((5,)).shape == (5, 2, 2)

    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(torch.ones(3)), distribution.expand([3])
    )
    assert_close(mixture.log_prob(rows), log_prob)
    assert mixture.sample((5,)).shape == (5, 2)

    doubled = distributions.AffineTransform(0.0, 2.0, event_dim=1)
    transformed = distributions.TransformedDistribution(distribution, doubled)
    assert_close(transformed.log_prob(2 * rows), log_prob - 2 * np.log(2))


def test_values_are_checked(monkeypatch):
    monkeypatch.setattr(
        distributions.Distribution, "_validate_args", True
    )  # torch.compile unsets it
    distribution = small("nice").fit(X).distribution()
    assert distribution.log_prob(torch.tensor(X[:3]).float()).dtype == torch.float64
    with pytest.raises(ValueError, match="event_shape"):
        distribution.log_prob(torch.zeros(3))
    with pytest.raises(ValueError, match="support"):
        distribution.log_prob(torch.tensor([0.0, torch.nan]))
