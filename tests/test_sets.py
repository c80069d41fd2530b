"""Densities of clouds of points."""

import numpy as np
import pytest

from skflows import CNFDensity, NSFDensity
from skflows.sets import PointCloudDensity

pytest.importorskip("torch")

FLOWS = {
    "nsf": NSFDensity(n_transforms=2, hidden_layer_sizes=(16,), dropout=0.0),
    "cnf": CNFDensity(hidden_layer_sizes=(16,), dropout=0.0, solver="rk4", n_steps=4),
}


def small(flow="nsf", **parameters):
    settings = {"code_size": 3, "hidden_size": 16, "n_points": 16, "max_iter": 5}
    return PointCloudDensity(FLOWS[flow], **settings | {"random_state": 0} | parameters)


def ellipses(n, seed=0, n_features=2):
    """Return clouds of 20 to 40 points on ellipses."""
    rng = np.random.default_rng(seed)
    clouds = []
    for _ in range(n):
        angle = rng.uniform(0, 2 * np.pi, rng.integers(20, 41))
        points = np.stack([np.cos(angle), np.sin(angle)] + [angle] * (n_features - 2), axis=1)
        clouds.append(points * rng.uniform(0.5, 2, n_features) + 0.05 * rng.normal(size=2)[0])
    return clouds


X = ellipses(60)


@pytest.fixture(scope="module", params=list(FLOWS))
def density(request):
    return small(request.param).fit(X)


def test_order_of_points_does_not_matter(density):
    rng = np.random.default_rng(1)
    others = [rng.permutation(cloud) for cloud in X]
    np.testing.assert_allclose(
        density.score_samples(others), density.score_samples(X), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(density.transform(others), density.transform(X), rtol=0, atol=1e-6)


def test_samples(density):
    drawn = density.sample(4, random_state=0, n_points=7)
    assert drawn.shape == (4, 7, 2) and np.isfinite(drawn).all()
    np.testing.assert_array_equal(drawn, density.sample(4, random_state=0, n_points=7))
    assert {len(cloud) for cloud in density.sample(30)} <= {len(cloud) for cloud in X}
