"""Densities of images: GlowDensity with an image_shape, and their display."""

import math

import matplotlib
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator

import skflows
from skflows import (
    ConditionalDensity,
    DensityClassifier,
    DensityOutlierDetector,
    GlowDensity,
    NSFDensity,
    TransformedDensity,
)
from skflows.bijections import Chain
from skflows.inspection import ImageGridDisplay

matplotlib.use("agg")
DIGITS = load_digits()
X = DIGITS.data[:120]
SHAPE = 8, 8, 1


def tiny(**params):
    defaults = {"n_transforms": 1, "hidden_layer_sizes": (4, 4), "image_shape": SHAPE}
    return GlowDensity(**defaults | {"max_iter": 2, "random_state": 0} | params)


@pytest.fixture(scope="module")
def density():
    return tiny().fit(X)


def test_pixels_are_on_one_lattice(density):
    assert (X[:, 0] == 0).all()  # a constant pixel has the cells of the others
    assert set(density.discrete_.values()) == {1.0} and len(density.discrete_) == 64
    samples = density.sample(50, random_state=0)
    assert set(np.unique(samples)) <= set(range(17))
    assert samples[:, 0].any()
    scores = density.score_samples(np.full((2, 64), [[0.0], [16.0]]))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pixels_between_0_and_1_are_on_one_lattice(dtype):
    scaled = tiny(max_iter=1).fit((X / 255).astype(dtype))
    np.testing.assert_allclose([*scaled.discrete_.values()], 1 / 255, rtol=1e-4)
    grid = scaled._dequantizer.grids()[0]
    assert grid.is_complete and len(grid.values) == 17


def test_explicit_gaps_are_those_of_auto(density):
    explicit = tiny(discrete=density.discrete_).fit(X)
    np.testing.assert_array_equal(explicit.score_samples(X), density.score_samples(X))
    np.testing.assert_array_equal(explicit.sample(3, 0), density.sample(3, 0))
    with pytest.raises(ValueError, match="discrete gives columns of a grid the gaps"):
        tiny(discrete=density.discrete_ | {3: 2.0}).fit(X)


def test_new_values_extend_the_lattice_of_all_pixels():
    brighter = X.copy()
    brighter[0, 30] = 30
    partial = tiny().partial_fit(X).partial_fit(brighter)
    assert {grid.values[-1] for grid in partial._dequantizer.grids()} == {30}


def test_smooth_images_on_black_are_not_discrete():
    rng = np.random.default_rng(0)
    smooth = np.where(X < 4, 0, X + rng.uniform(size=X.shape))
    with pytest.warns(UserWarning, match="The value 0 repeats, but the values of X are not"):
        density = tiny().fit(smooth)
    assert not density.discrete_


def test_scale_of_pixels_shifts_scores_but_not_bits(density):
    scaled = clone(density).fit(X / 16)
    expected = density.score_samples(X[:5]) + 64 * math.log(16)
    np.testing.assert_allclose(scaled.score_samples(X[:5] / 16), expected, rtol=1e-4)
    bits = density.bits_per_dim(X[:5])
    np.testing.assert_allclose(bits, -density.score_samples(X[:5]) / (64 * math.log(2)))
    np.testing.assert_allclose(scaled.bits_per_dim(X[:5] / 16), bits, rtol=1e-4)


def test_score_is_a_mean_over_random_points_of_a_cell(density):
    """Two opposite points, normal after preprocessing, without stripes that convolutions see."""
    points = density._dequantizer.points()
    low, high = (density.flow_.preprocess(torch.from_numpy(X[:60] + end))[0] for end in (-0.5, 0.5))
    truncated = stats.truncnorm(low.numpy(), high.numpy())
    scores = []
    for point in points:
        y = truncated.ppf(point)
        x, log_det = density.flow_.preprocess.inverse(torch.from_numpy(y))
        log_weight = truncated.logpdf(y).sum(axis=1) - log_det.numpy()
        scores.append(density.flow_.log_prob(x).numpy() - log_weight)
    scores = np.logaddexp(*scores) - math.log(2)
    np.testing.assert_allclose(density.score_samples(X[:60]), scores, rtol=1e-7)
    np.testing.assert_allclose(points[0] + points[1], 1)
    assert stats.kstest(points[0], "uniform").pvalue > 0.05
    image = points[0].reshape(8, 8)
    for one, other in ((image[1:], image[:-1]), (image[:, 1:], image[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.25


def test_score_is_close_to_the_probability(density):
    """Closer than a mean over as many uniform points."""
    rng, rows = np.random.default_rng(0), X[:40]
    shares = torch.from_numpy(rng.uniform(size=(64, 40, 64)))
    x, gap = torch.from_numpy(rows), torch.ones(64, dtype=torch.float64)
    drawn = [density.flow_.point_of_cell(x, gap, share) for share in shares]
    logs = torch.stack([density.flow_.log_prob(x) - log_weight for x, log_weight in drawn])
    probability = (logs.logsumexp(0) - math.log(64)).numpy()
    uniform = [torch.from_numpy(rows + p - 0.5) for p in density._dequantizer.points()]
    uniform = np.logaddexp(*[density.flow_.log_prob(x).numpy() for x in uniform]) - math.log(2)
    error = np.abs(density.score_samples(rows) - probability).mean()
    assert error < 0.8 * np.abs(uniform - probability).mean()


def test_a_value_whose_cell_float64_cannot_tell_has_a_finite_score(density):
    """1e16 plus or minus a half is 1e16."""
    rows = X[:2].copy()
    rows[1, 5] = 1e16
    assert np.isfinite(density.score_samples(rows)).all()


def test_arrays_and_rows_are_the_same(density):
    images = X.reshape(-1, *SHAPE)
    scores = density.score_samples(X)
    np.testing.assert_array_equal(density.score_samples(images), scores)
    np.testing.assert_array_equal(density.score_samples(images[..., 0]), scores)
    np.testing.assert_allclose(density.score_samples(images[3:4]), scores[3:4], rtol=1e-12)
    assert (tiny().fit(images).score_samples(X[:3]) == scores[:3]).all()
    latent = density.transform(images[:5])
    np.testing.assert_allclose(density.inverse_transform(latent), X[:5], atol=1e-8)


@pytest.mark.parametrize("shape", [(3, 8, 8, 3), (3, 4, 16, 1), (3, 60), (3, 8, 4)])
def test_other_shapes_are_errors(density, shape):
    message = r"grids of shape \(8, 8, 1\): give .* \(n_samples, 8, 8, 1\) or, flattened"
    for call in (density.score_samples, density.transform, tiny().fit):
        with pytest.raises(ValueError, match=message):
            call(np.zeros(shape))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"image_shape": (8, 8)}, "give three positive integers"),
        ({"image_shape": (8, 8.0, 1)}, "give three positive integers"),
        ({"image_shape": (8, 8, 0)}, "give three positive integers"),
        ({"n_levels": 4}, r"no even height or width in level 4 .*1 x 1: choose fewer levels"),
        ({"hidden_layer_sizes": ()}, "hidden_layer_sizes"),
    ],
)
def test_bad_parameters_are_errors(params, message):
    with pytest.raises(ValueError, match=message):
        tiny(**params).fit(X)


def test_scales_are_set_by_some_of_the_images(monkeypatch):
    n_seen = []
    monkeypatch.setattr(Chain, "initialize", lambda self, x, *_: n_seen.append(len(x)))
    GlowDensity(image_shape=(8, 8, 1), n_transforms=1, max_iter=1).fit(load_digits().data[:300])
    assert n_seen == [256]


def test_odd_and_coloured_images():
    rows = np.random.default_rng(0).standard_normal((60, 5 * 6 * 3))
    density = tiny(image_shape=(5, 6, 3), n_levels=1, n_bins=3, contamination=None).fit(rows)
    assert not density.discrete_
    assert density.reconstruction_error(rows).max() < 1e-8
    assert density.bits_per_dim(rows).shape == (60,)


def test_odd_grey_images_are_an_error():
    with pytest.raises(ValueError, match=r"level 1 .* grid is 5 x 5: pad the images"):
        tiny(image_shape=(5, 5, 1), n_levels=1).fit(X[:, :25])


def test_temperature(density):
    hot, cold = (density.sample(40, random_state=0, temperature=t) for t in (1, 0.5))
    np.testing.assert_array_equal(hot, density.sample(40, random_state=0))
    assert cold.std(axis=0).mean() < hot.std(axis=0).mean()
    assert len(np.unique(density.sample(3, random_state=0, temperature=0), axis=0)) == 1
    for temperature in (-1, math.nan, "1"):
        with pytest.raises(ValueError, match=r"temperature=.*at least 0"):
            density.sample(temperature=temperature)


def test_conditional_density_of_images():
    """The context reaches the networks, and pixels are on one lattice here too."""
    conditional = ConditionalDensity(tiny(hidden_layer_sizes=4), cv=None, random_state=0)
    labels = DIGITS.target[:120, None]
    conditional.fit(labels, X)
    assert set(conditional.discrete_.values()) == {1.0}
    assert np.isfinite(conditional.log_prob(labels[:5], X[:5])).all()
    with pytest.raises(ValueError, match=r"y has the shape \(5, 8, 8\).* y.reshape"):
        conditional.log_prob(labels[:5], X[:5].reshape(-1, 8, 8))


def test_estimators_around_take_images(density):
    images, labels = X.reshape(-1, *SHAPE), DIGITS.target[:120] % 2
    detector = DensityOutlierDetector(FrozenEstimator(density), calibration="conformal").fit(images)
    np.testing.assert_array_equal(detector.p_values(images), detector.p_values(X))
    classifier = DensityClassifier(tiny(max_iter=8), random_state=0).fit(images, labels)
    assert {len(set(each.discrete_.values())) for each in classifier.estimators_} == {1}
    assert classifier.score(images, labels) > 0.7
    np.testing.assert_array_equal(classifier.predict_proba(images), classifier.predict_proba(X))
    for each in (detector, classifier):
        with pytest.raises(ValueError, match=r"grids of shape \(8, 8, 1\): give an array"):
            each.predict(images[:, :4])


@pytest.mark.parametrize("cls", [DensityClassifier, TransformedDensity, DensityOutlierDetector])
def test_estimators_of_rows_say_how_to_flatten(cls):
    with pytest.raises(ValueError, match=r"dim 3.* flatten images first, X.reshape"):
        cls(NSFDensity()).fit(X.reshape(-1, 8, 8), DIGITS.target[:120])


def test_given_images_are_flattened():
    with pytest.raises(ValueError, match=r"dim 3.* flatten images first, X.reshape"):
        ConditionalDensity(NSFDensity()).fit(X.reshape(-1, 8, 8), X[:, 2:4])


def test_search_for_input_noise_trains_a_stack():
    noisy = tiny(input_noise="auto", dropout=0.1).fit(X)  # a stack of members
    assert np.isfinite(noisy.score(X))
    assert noisy.input_noise_ in (0.0, 0.05, 0.1, 0.2)


def test_file_round_trip(density, tmp_path):
    density.save(tmp_path / "glow.skflows")
    loaded = skflows.load(tmp_path / "glow.skflows")
    np.testing.assert_array_equal(loaded.score_samples(X[:4]), density.score_samples(X[:4]))


def test_image_grid(density):
    display = ImageGridDisplay.from_estimator(density, n_samples=5, random_state=0, n_columns=3)
    assert display.images.shape == (5, *SHAPE)
    assert display.image_.get_array().shape == (17, 26)
    mosaic = display.mosaic()
    low, high = display.images.min(), display.images.max()
    np.testing.assert_allclose(mosaic[:8, 9:17], (display.images[1] - low) / (high - low))
    assert np.isnan(mosaic[8]).all() and np.isnan(mosaic[9:, 18:]).all()
    given = ImageGridDisplay.from_estimator(density, X[:4], ax=display.ax_, value_range=(0, 32))
    assert given.ax_ is display.ax_ and np.nanmax(given.mosaic()) == 0.5
    given = ImageGridDisplay(images=display.images, value_range=np.array([0, 32]))
    assert np.nanmax(given.mosaic()) == display.images.max() / 32
    grey = ImageGridDisplay.from_estimator(density, X[:2].reshape(-1, 8, 8)).images
    np.testing.assert_array_equal(grey, X[:2].reshape(-1, *SHAPE))
    holed = display.images.copy()
    holed[0, 0, 0] = np.nan
    assert np.isnan(ImageGridDisplay(images=holed, n_columns=3).mosaic()).sum() == (
        np.isnan(mosaic).sum() + 1
    )
    colour = ImageGridDisplay(images=np.zeros((1, 2, 3, 3))).plot()
    assert colour.image_.get_array().shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda flow: ImageGridDisplay.from_estimator(flow, X[:, :60]), r"X has the shape"),
        (
            lambda flow: ImageGridDisplay.from_estimator(flow, X.reshape(-1, 1, 8, 8)),
            r"X has the shape \(120, 1, 8, 8\)",
        ),
        (lambda flow: ImageGridDisplay.from_estimator(flow, n_samples=0), "n_samples=0"),
        (lambda flow: ImageGridDisplay(images=np.zeros((4, 8, 8))).plot(), "images has the shape"),
        (
            lambda flow: ImageGridDisplay(images=np.zeros((1, 8, 8, 1)), n_columns=0).plot(),
            "n_columns=0",
        ),
    ],
)
def test_errors_of_the_image_grid(density, call, message):
    with pytest.raises(ValueError, match=message):
        call(density)


def test_image_grid_needs_images():
    flow = GlowDensity(max_iter=1, random_state=0, contamination=None).fit(
        X[:50, :3] + X[:50, 8:11]
    )
    with pytest.raises(ValueError, match="no image_shape"):
        ImageGridDisplay.from_estimator(flow)
