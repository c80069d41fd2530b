"""Densities of clouds of points."""

import pickle
import tomllib
from pathlib import Path

import numpy as np
import pytest
from _densities import AtEpochEnd, Crash, check_without_tables
from numpydoc.validate import validate
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

import skflows
from skflows import CNFDensity, NSFDensity
from skflows.callbacks import Checkpoint
from skflows.inspection import PointCloudDisplay
from skflows.sets import PointCloudDensity

torch = pytest.importorskip("torch")

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

SPLINES = NSFDensity(n_transforms=2, hidden_layer_sizes=(16,), dropout=0.0)
FLOWS = {
    "splines": SPLINES,
    "matching": CNFDensity(hidden_layer_sizes=(16,), dropout=0.0, solver="rk4", n_steps=4),
}


def small(flow=SPLINES, **parameters):
    settings = {"code_size": 2, "hidden_size": 16, "n_points": 16, "max_iter": 5}
    return PointCloudDensity(flow, **settings | {"random_state": 0} | parameters)


def ellipses(n, seed=0, n_features=2):
    """Return clouds of 20 to 40 points on ellipses of random axes, or on cylinders over them."""
    rng = np.random.default_rng(seed)
    clouds = []
    for _ in range(n):
        angle = rng.uniform(0, 2 * np.pi, rng.integers(20, 41))
        points = np.stack([np.cos(angle), np.sin(angle), rng.random(len(angle))], axis=1)
        clouds.append(points[:, :n_features] * rng.uniform(0.5, 2, n_features))
    return clouds


X = ellipses(60)


@pytest.fixture(scope="module", params=list(FLOWS))
def density(request):
    return small(FLOWS[request.param]).fit(X)


@pytest.fixture(scope="module")
def trained():
    better = {"code_size": 4, "n_points": 64, "batch_size": 8, "learning_rate_init": 1e-2}
    return small(max_iter=60, random_state=2, **better).fit(X)


def test_order_of_points_does_not_matter(density):
    rng = np.random.default_rng(1)
    others = [rng.permutation(cloud) for cloud in X]
    scores = density.score_samples(others)
    np.testing.assert_allclose(scores, density.score_samples(X), rtol=0, atol=1e-6)
    np.testing.assert_allclose(density.transform(others), density.transform(X), rtol=0, atol=1e-6)


def test_a_score_does_not_depend_on_other_clouds(density):
    alone = [density.score_samples([cloud])[0] for cloud in X[:5]]
    np.testing.assert_allclose(density.score_samples(X)[:5], alone, rtol=1e-9)


def test_a_score_is_the_mean_of_importance_weights(trained):
    """By the definition, from the parts of the network, for one cloud."""
    cloud, network = X[0], trained.network_
    with torch.inference_mode():
        y, _ = network.points.preprocess.bijection(torch.from_numpy(cloud))
        mean, log_scale = network.encoder(y[None])
        posterior = torch.distributions.Normal(mean, log_scale.exp())
        noise = np.random.default_rng(0).standard_normal((trained.n_draws, 4))
        codes = mean + log_scale.exp() * torch.from_numpy(noise)
        latent, log_det = network.prior(codes)
        normal = torch.distributions.Normal(0.0, 1.0)
        weights = normal.log_prob(latent).sum(1) + log_det - posterior.log_prob(codes).sum(1)
        for i, code in enumerate(codes):
            rows = torch.cat([torch.from_numpy(cloud), code.expand(len(cloud), -1)], 1)
            weights[i] += network.points.log_prob(rows).sum()
    score, error = trained.score_samples([cloud], return_std=True)
    weights = weights.numpy()
    np.testing.assert_allclose(score, logsumexp(weights) - np.log(len(weights)), rtol=1e-9)
    weights = np.exp(weights - score)
    np.testing.assert_allclose(error, weights.std(ddof=1) / np.sqrt(len(weights)), rtol=1e-6)
    assert np.isnan(clone(trained).set_params(n_draws=1, max_iter=1).fit(X).score_samples(
        X[:2], return_std=True)[1]).all()  # fmt: skip


def test_the_size_of_codes_is_the_fitted_one(density):
    other = pickle.loads(pickle.dumps(density)).set_params(code_size=5)
    np.testing.assert_array_equal(other.score_samples(X[:3]), density.score_samples(X[:3]))
    np.testing.assert_array_equal(
        other.reconstruct(X[:1], 4, random_state=0), density.reconstruct(X[:1], 4, random_state=0)
    )
    np.testing.assert_array_equal(other.sample(2, 0, n_points=3), density.sample(2, 0, n_points=3))


def test_more_draws_tighten_the_bound(trained):
    few, many = (
        np.mean(pickle.loads(pickle.dumps(trained)).set_params(n_draws=n).score_samples(X))
        for n in (1, 64)
    )
    assert many > few


def test_the_density_of_single_points_given_a_code_integrates_to_one(trained):
    line = np.linspace(-4, 4, 161)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    rows = np.column_stack([grid, np.tile(trained.transform(X[:1]), (len(grid), 1))])
    with torch.inference_mode():
        mass = trained.network_.points.log_prob(torch.from_numpy(rows)).exp().sum() * 0.05**2
    assert float(mass) == pytest.approx(1, abs=0.03)


def test_samples(density):
    drawn = density.sample(4, 0, n_points=7)
    assert drawn.shape == (4, 7, 2) and np.isfinite(drawn).all()
    np.testing.assert_array_equal(drawn, density.sample(4, 0, n_points=7))
    assert {len(cloud) for cloud in density.sample(30, 0)} <= {len(cloud) for cloud in X}
    assert [len(cloud) for cloud in density.sample(2, n_points=[3, 500])] == [3, 500]


def test_samples_and_reconstructions_have_the_shapes_of_data(trained):
    def radii(clouds):
        return np.array([np.sqrt(2 * np.mean(cloud**2, axis=0)) for cloud in clouds])

    expected, drawn = radii(X), radii(trained.sample(200, 0))
    np.testing.assert_allclose(drawn.mean(axis=0), expected.mean(axis=0), atol=0.25)
    np.testing.assert_allclose(drawn.std(axis=0), expected.std(axis=0), atol=0.3)
    new = ellipses(40, seed=1)
    again = trained.reconstruct(new, random_state=0)
    assert [len(cloud) for cloud in again] == [len(cloud) for cloud in new]
    for axis in range(2):
        assert np.corrcoef(radii(new)[:, axis], radii(again)[:, axis])[0, 1] > 0.7


def test_codes_do_not_depend_on_the_number_of_points(trained):
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 4000)
    cloud = np.column_stack([np.cos(angle), 1.5 * np.sin(angle)])
    few, many = trained.transform([cloud[:40], cloud])
    spread = trained.transform(X).std(axis=0)
    assert (np.abs(few - many) < spread).all()
    codes = trained.transform(X[:3])
    drawn = trained.inverse_transform(codes, n_points=5, random_state=0)
    np.testing.assert_array_equal(trained.reconstruct(X[:3], 5, random_state=0), drawn)


def test_odd_clouds_are_outliers(trained):
    rng = np.random.default_rng(0)
    odd = [np.repeat(rng.uniform(-1, 1, (15, 1)), 2, axis=1) for _ in range(20)]  # on a diagonal
    assert (trained.predict(odd) == -1).mean() > 0.9
    new = ellipses(40, seed=1)
    assert (trained.predict(new) == 1).mean() > 0.8
    margin = trained.decision_function(new)
    counts = np.array([len(cloud) for cloud in new])
    np.testing.assert_allclose(margin, trained.score_samples(new) / counts - trained.offset_)
    assert (small(max_iter=1, contamination=None).fit(X).predict(odd) == 1).all()
    flagged = (small(max_iter=1, contamination=0.1).fit(X).predict(X) == -1).mean()
    assert flagged == pytest.approx(0.1, abs=0.02)


def test_arrays_lists_and_points_in_space():
    clouds = [cloud[:20] for cloud in ellipses(30, n_features=3)]
    density = small(max_iter=1).fit(np.array(clouds))
    scores = density.score_samples(clouds)
    np.testing.assert_array_equal(small(max_iter=1).fit(clouds).score_samples(clouds), scores)
    assert density.sample(2).shape == (2, 20, 3) and density.n_features_in_ == 3
    assert np.isfinite(density.score_samples([[[1e300, 0, 0]], clouds[0]])).all()


@pytest.mark.parametrize(
    "clouds, message",
    [
        ("abc", "X='abc'; give an array of clouds"),
        ([], "one at least"),
        ({"a": X[0], "b": X[1]}, r"X=\{'a'.{,100}; give an array of clouds"),
        (X[0], r"Cloud 0 of X must be an array .*, got 1D array instead. .* \[X\] for a single"),
        ([[1.0, 2.0], [3.0, 4.0]], "Cloud 0 of X must be an array .*, got 1D array instead"),
        (np.zeros((2, 3, 4, 2)), r"Cloud 0 of X must be .* shape \(n_points, .* with dim 3"),
        ([X[0], None], "Cloud 1 of X must be .* got scalar array instead"),
        ([X[0]], "X has 1 row; at least 2"),
        ([X[0], X[1][:0]], r"Cloud 1 of X must be .* one point at least: Found array with 0"),
        ([X[0], X[1][:, :1]], "Cloud 1 of X has points with 1 coordinates; it must have 2"),
        ([X[0], X[1] * np.nan], "Cloud 1 of X must be an array of finite numbers .* contains NaN"),
        ([X[0], [[np.inf, 0.0]]], "Cloud 1 of X must be an array of finite .* contains infinity"),
        ([X[0], [["a", "b"]]], "Cloud 1 of X must be an array of .*: could not convert string"),
        ([X[0], [[1.0, 2.0], [3.0]]], "Cloud 1 of X must be an array"),
        ([X[0], X[1][None]], "Cloud 1 of X must be an array .* with dim 3"),
        ([X[0], X[1] * 1e305], "Cloud 1 of X"),
    ],
)
def test_what_are_no_clouds(clouds, message):
    with pytest.raises(ValueError, match=message):
        small().fit(clouds)


def test_other_errors(density):
    with pytest.raises(ValueError, match="3 coordinates; it must have 2"):
        density.score_samples(ellipses(2, n_features=3))
    with pytest.raises(ValueError, match="X has 3 columns; it must have code_size=2"):
        density.inverse_transform(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="n_points=0"):
        density.sample(2, n_points=0)
    with pytest.raises(ValueError, match="n_points has 3 numbers for 2 clouds"):
        density.sample(2, n_points=[1, 2, 3])
    with pytest.raises(ValueError, match="n_samples=0"):
        density.sample(0)
    with pytest.raises(NotFittedError):
        small().sample()
    with pytest.raises(ValueError, match="code_size"):
        small(code_size=1).fit(X)
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        small(NSFDensity(hidden_layer_sizes=())).fit(X)


def test_stored_models(density, tmp_path):
    density.save(tmp_path / "m.skflows")
    scores = density.score_samples(X[:9])
    for other in skflows.load(tmp_path / "m.skflows"), pickle.loads(pickle.dumps(density)):
        np.testing.assert_array_equal(other.score_samples(X[:9]), scores)
        np.testing.assert_array_equal(
            other.sample(3, 1, n_points=5), density.sample(3, 1, n_points=5)
        )
    np.testing.assert_array_equal(clone(density).fit(X).score_samples(X[:9]), scores)


def test_training_continues_from_a_checkpoint(tmp_path):
    def crash(epoch, fitted):
        if epoch == 3:
            raise Crash

    expected = small().fit(X).score_samples(X[:5])
    checkpoint = Checkpoint(tmp_path, every=0)
    interrupted = small().set_callbacks(checkpoint, AtEpochEnd(crash))
    with pytest.raises(Crash):
        interrupted.fit(X)
    continued = small().set_callbacks(checkpoint).fit(X)
    np.testing.assert_array_equal(continued.score_samples(X[:5]), expected)


def test_training(capsys):
    limited = small(max_iter=10_000, time_limit=1.5, verbose=1).fit(X)
    assert limited.n_iter_ < 10_000 and "Epoch 1/10000: loss" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="ended training within its first epoch"):
        small(time_limit=1e-9).fit(X)
    search = GridSearchCV(small(max_iter=1), {"code_size": [2, 3]}, cv=2)
    assert search.fit(np.array([cloud[:20] for cloud in X])).best_score_ < 0


def test_shortest_paths_within_a_batch():
    shortest = clone(FLOWS["matching"]).set_params(coupling="optimal_transport")
    density = small(shortest, max_iter=1, contamination=None).fit(X)
    assert np.isfinite(density.score_samples(X[:2])).all()


def test_default_flows():
    density = PointCloudDensity(max_iter=1, random_state=0).fit(X)
    assert density.sample(2, 0, n_points=3).shape == (2, 3, 2)
    assert density.transform(X).shape == (60, 32)


def test_what_scikit_learn_checks_without_tables():
    check_without_tables(small())


def test_docstrings():
    name = "skflows.sets.PointCloudDensity"
    own = [m for m in vars(PointCloudDensity) if not m.startswith("_")]
    errors = [e for path in [name, *(f"{name}.{m}" for m in own)] for e in validate(path)["errors"]]
    assert len(own) > 4
    settings = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["numpydoc_validation"]
    assert not {code for code, _ in errors} - set(settings["checks"])


def test_display(density):
    pytest.importorskip("matplotlib").use("Agg")
    display = PointCloudDisplay.from_estimator(density, n_samples=5, n_points=6, random_state=0)
    assert len(display.clouds) == 5
    assert display.points_.get_offsets().shape == (30, 2)
    given = PointCloudDisplay.from_estimator(density, X[:4], n_columns=2, ax=display.ax_)
    offsets = given.points_.get_offsets()
    np.testing.assert_allclose(np.ptp(offsets[: len(X[0])], axis=0), np.ptp(X[0], axis=0))
    # Seen from above, points in space are where their first two coordinates are.
    clouds = ellipses(2, n_features=3)
    above = PointCloudDisplay(clouds=clouds, elevation=90, azimuth=-90, n_columns=2).plot()
    offsets = above.points_.get_offsets()
    order = np.concatenate(clouds)[:, 2].argsort()
    first = np.repeat([True, False], [len(cloud) for cloud in clouds])[order]
    found = offsets[first] - offsets[first].min(axis=0)
    expected = np.concatenate(clouds)[order][first, :2]
    np.testing.assert_allclose(found, expected - expected.min(axis=0), atol=1e-12)
    assert offsets[~first][:, 0].min() > offsets[first][:, 0].max()
    with pytest.raises(ValueError, match="points with 4 coordinates; only 2 or 3"):
        PointCloudDisplay(clouds=np.zeros((2, 3, 4))).plot()
    with pytest.raises(ValueError, match="n_columns=0"):
        PointCloudDisplay(clouds=X, n_columns=0).plot()
    for name in "c", "color":
        drawn = above.plot(**{name: "r"}).points_
        np.testing.assert_array_equal(drawn.get_facecolors(), [[1, 0, 0, 1]])
    assert above.plot(cmap="gray").points_.get_cmap().name == "gray"
    with pytest.raises(AttributeError, match=r"`reconstruct` .* a fitted PointCloudDensity"):
        PointCloudDisplay.from_estimator(NSFDensity())
