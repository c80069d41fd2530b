"""Defects in images: features, scores, p-values and maps."""

import pickle

import numpy as np
import pytest
import torch
from _densities import small
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skflows import ConditionalDensity, load
from skflows.nn.filter_bank import FilterBank
from skflows.outlier import DefectDetector
from skflows.outlier._defects import GivenSurroundings

SHAPE = (12, 16, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((40, *SHAPE))
SCRATCHED = RNG.standard_normal((10, *SHAPE))
SCRATCHED[:, 6:8, 4:12] += 5
FLOW = small("realnvp", preprocessing="whiten", discrete=None)


def detector(estimator=FLOW, **params):
    return DefectDetector(estimator=estimator, **{"random_state": 0, "cv": 2} | params)


@pytest.fixture(scope="module")
def fitted():
    return detector().fit(IMAGES)


QUICK = small("realnvp", n_transforms=1, max_iter=1, discrete=None)


@parametrize_with_checks([detector(QUICK, n_rotations=1, alpha=0.2)])
def test_check_estimator(estimator, check):
    check(estimator)


def test_defects_are_found(fitted):
    assert (fitted.predict(SCRATCHED) == -1).all()
    assert (fitted.p_values(SCRATCHED) <= 0.05).all()
    assert (fitted.decision_function(SCRATCHED) < 0).all()
    assert (fitted.fit_predict(IMAGES) == 1).mean() > 0.9


def test_map_shows_where(fitted):
    maps = fitted.defect_map(SCRATCHED, sigma=1)
    inside = np.zeros(SHAPE[:2], dtype=bool)
    inside[5:9, 3:13] = True
    assert maps.shape == (10, 12, 16)
    assert (maps[:, inside].mean(axis=1) > 1.5 * maps[:, ~inside].mean(axis=1)).all()


GIVEN_SURROUNDINGS = ConditionalDensity(FLOW, cv=2)


@pytest.mark.parametrize("n_rotations", [1, 2, 4])
def test_map_is_the_gradient_of_the_score(n_rotations):
    params = {"calibration": None, "cv": "auto", "n_rotations": n_rotations}
    model = detector(image_shape=(8, 8, 2), **params).fit(RNG.standard_normal((20, 128)))
    rows = RNG.standard_normal((2, 128))
    direction = RNG.standard_normal(128)
    step = 1e-3 * direction
    slope = (model.score_samples(rows + step) - model.score_samples(rows - step)) / 2e-3
    gradient = model.detector_.models_[0].density.score_gradient(rows)
    np.testing.assert_allclose(gradient @ direction, slope, rtol=0.02, atol=0.05)
    expected = np.abs(gradient).reshape(2, 8, 8, 2).sum(axis=3)
    np.testing.assert_allclose(model.defect_map(rows, sigma=0), expected)


def test_gradient_given_surroundings():
    rows = RNG.standard_normal((60, 4))
    model = GivenSurroundings(GIVEN_SURROUNDINGS).fit(rows)
    step = np.array([1e-4, 2e-4, 0, 0])
    slope = (model.score_samples(rows + step) - model.score_samples(rows - step)) / 2
    tensor = torch.from_numpy(rows).view(2, 30, 4).requires_grad_()
    log_prob = model.distribution().log_prob(tensor)
    np.testing.assert_allclose(log_prob.detach().numpy().ravel(), model.score_samples(rows))
    (gradient,) = torch.autograd.grad(log_prob.sum(), tensor)
    np.testing.assert_allclose(gradient.numpy().reshape(60, 4) @ step, slope, rtol=0.02, atol=1e-6)
    assert (gradient[..., 2:] == 0).all()


def local_moments(images):
    moments = torch.cat([images, images.square()], 1)
    means = torch.nn.functional.avg_pool2d(moments, 4)
    return torch.cat([means[:, :1], means[:, 1:].log()], 1)


def test_defects_differ_from_their_surroundings():
    rng = np.random.default_rng(0)
    loudness = rng.uniform(0.5, 2, (2, 40, 1, 1))  # of an image
    images, bad = loudness * rng.standard_normal((2, 40, 32, 32))
    bad[:, 12:20, 12:20] *= 0.5
    areas = []
    flow = small("realnvp", discrete=None, max_iter=15, learning_rate_init=0.02, batch_size=128)
    for estimator in flow, ConditionalDensity(flow, cv=None):
        params = {"features": local_moments, "calibration": None, "cv": "auto", "n_rotations": 1}
        model = detector(estimator, **params).fit(images)
        scores = model.score_samples(np.concatenate([images, bad]))
        areas.append(roc_auc_score(np.repeat([1, 0], 40), scores))
    assert areas[1] > max(areas[0] + 0.2, 0.9)


@pytest.mark.parametrize(("size", "is_given"), [(32, False), (36, True)])
def test_small_images_have_no_surroundings(size, is_given, tmp_path):
    images = RNG.standard_normal((3, size, size))
    model = DefectDetector(calibration=None, n_rotations=1, random_state=0).fit(images)
    density = model.detector_.models_[0].density.density_
    assert isinstance(density, GivenSurroundings) is is_given
    model.save(tmp_path / "model.skflows")
    again = load(tmp_path / "model.skflows")
    np.testing.assert_array_equal(again.score_samples(images), model.score_samples(images))


def test_no_surroundings():
    with pytest.raises(ValueError, match="features at several places"):
        detector(GIVEN_SURROUNDINGS, features=channel_moments).fit(IMAGES)
    model = detector(ConditionalDensity(FLOW, encoder=StandardScaler()), cv=2).fit(IMAGES)
    with pytest.raises(ValueError, match="encoder='auto'"):
        model.defect_map(SCRATCHED)


def test_flat_patches_are_found():
    rng = np.random.default_rng(0)
    images, patched = rng.standard_normal((2, 12, 24, 24))
    model = detector(calibration=None, cv="auto").fit(images)
    patched[:, 8:18, 8:18] = 0
    assert model.score_samples(patched).max() < model.score_samples(images).min()
    maps = model.defect_map(patched)
    assert maps[:, 8:18, 8:18].mean() > 1.8 * maps[:, :, 20:].mean()


@pytest.mark.parametrize(("cv", "n_flows"), [(None, 1), (3, 3)])
def test_splits_of_given_surroundings(cv, n_flows):
    """A `cv` of the user holds; without one, the split is by images and is not kept."""
    model = detector(ConditionalDensity(QUICK, cv=cv), calibration=None, cv="auto").fit(IMAGES)
    density = model.detector_.models_[0].density.density_.density_
    assert density.cv == cv and len(density.flows_) == n_flows
    assert cv or density.held_out_ == [None]


def test_blank_channels():
    """Features without variation are no columns of the user."""
    images = np.concatenate([IMAGES, np.ones_like(IMAGES)], axis=3)
    params = {"calibration": None, "cv": "auto"}
    model = detector(ConditionalDensity(QUICK, cv=None), **params).fit(images)
    assert np.isfinite(model.score_samples(images)).all()


def test_verbose(capsys):
    detector(verbose=1).fit(IMAGES[:20])
    assert capsys.readouterr().out.splitlines() == ["Fold 1 of 2", "Fold 2 of 2"]


def test_quarter_turns_do_not_change_the_score(fitted):
    turned = np.rot90(IMAGES, 1, (1, 2)).copy()
    square, other = IMAGES[:, :, :12], turned[:, :12]
    model = detector().fit(square)
    np.testing.assert_allclose(
        model.score_samples(np.rot90(square, 1, (1, 2))), model.score_samples(square)
    )
    assert not np.allclose(model.score_samples(other), model.score_samples(square))


def test_flat_rows_and_arrays_are_the_same(fitted):
    flat = detector(image_shape=SHAPE[:2]).fit(IMAGES.reshape(40, -1))
    expected = fitted.score_samples(SCRATCHED)
    for rows in (SCRATCHED, SCRATCHED[..., 0], SCRATCHED.reshape(10, -1)):
        np.testing.assert_allclose(flat.score_samples(rows), expected)
    assert flat.image_shape_ == fitted.image_shape_ == SHAPE
    assert flat.n_features_in_ == 192


def test_nested_lists_have_a_shape():
    assert detector(alpha=0.2).fit(IMAGES[:10].tolist()).image_shape_ == SHAPE


def test_a_refit_that_fails_keeps_the_shape():
    model = detector(QUICK, n_rotations=1).fit(IMAGES)
    expected = model.score_samples(SCRATCHED)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full((10, 9, 9), np.nan))
    np.testing.assert_array_equal(model.score_samples(SCRATCHED), expected)


@pytest.mark.parametrize(("length", "shape"), [(49, (7, 7, 1)), (10, (1, 10, 1))])
def test_rows_without_a_shape(length, shape):
    assert detector(alpha=0.2).fit(RNG.standard_normal((10, length))).image_shape_ == shape


@pytest.mark.parametrize(
    ("shape", "X", "message"),
    [
        ((5, 5), IMAGES, r"shape \(40, 12, 16, 1\).* give .*\(n_samples, 5, 5, 1\)"),
        ((5, 5, 1), IMAGES.reshape(40, -1), r"\(40, 192\).* flattened, \(n_samples, 25\)"),
        ((5, 0), IMAGES, r"image_shape=\(5, 0, 1\); give three"),
        ((192,), IMAGES, r"image_shape=\(192,\); give three"),
        (None, IMAGES[None], r"image_shape=\(40, 12, 16, 1\); give three"),
    ],
)
def test_wrong_shapes(shape, X, message):
    with pytest.raises(ValueError, match=message):
        detector(image_shape=shape).fit(X)


def test_wrong_shape_of_new_images(fitted):
    with pytest.raises(ValueError, match=r"\(5, 10, 10\).*\(n_samples, 12, 16, 1\)"):
        fitted.score_samples(np.zeros((5, 10, 10)))


def channel_moments(images):
    return torch.cat([images.mean((2, 3)), images.std((2, 3)), images.amax((2, 3))], 1)


def test_own_features(fitted):
    model = detector(features=channel_moments).fit(IMAGES)
    assert model.detector_.models_[0].density.density_.n_features_in_ == 3
    assert model.defect_map(SCRATCHED).shape == (10, 12, 16)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.MaxPool2d(2)
    )
    weight = network[0].weight.clone()
    model = detector(features=network).fit(IMAGES)
    alone = np.concatenate([model.score_samples(image[None]) for image in SCRATCHED])
    np.testing.assert_allclose(alone, model.score_samples(SCRATCHED), rtol=1e-4)
    assert network.training and torch.equal(network[0].weight, weight)
    assert model.defect_map(SCRATCHED).shape == (10, 12, 16)


def test_features_without_a_gradient_or_of_a_wrong_shape():
    model = detector(features=lambda images: images.numpy().std(axis=(2, 3))).fit(IMAGES)
    assert np.isfinite(model.score_samples(SCRATCHED)).all()
    with pytest.raises(ValueError, match="features that torch can differentiate"):
        model.defect_map(SCRATCHED)
    with pytest.raises(ValueError, match="features returned an array of shape"):
        detector(features=lambda images: images.mean((0, 2))).fit(IMAGES)


def test_features_by_a_transformer():
    transformer = make_pipeline(StandardScaler(), PCA(5))
    model = detector(GaussianMixture(), features=transformer, n_rotations=1).fit(IMAGES)
    rows = SCRATCHED.reshape(10, -1)
    member = model.detector_.models_[0].density
    expected = member.density_.score_samples(member.features_.transformer.transform(rows))
    np.testing.assert_allclose(member.score_samples(rows), expected, rtol=1e-4)
    assert not hasattr(transformer[-1], "components_")  # a clone was fitted
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.score_samples(rows), model.score_samples(rows))
    with pytest.raises(ValueError, match="torch can differentiate"):
        model.defect_map(SCRATCHED)


def test_any_density():
    model = detector(GaussianMixture(reg_covar=1e-3)).fit(IMAGES)
    assert (model.predict(SCRATCHED) == -1).all()
    with pytest.raises(ValueError, match=r"defect_map needs .* GaussianMixture is not one"):
        model.defect_map(SCRATCHED)
    with pytest.raises(ValueError, match="sigma=-1"):
        model.defect_map(SCRATCHED, sigma=-1)


def test_pickle_and_file(fitted, tmp_path):
    expected = fitted.score_samples(SCRATCHED), fitted.defect_map(SCRATCHED)
    fitted.save(tmp_path / "model.skflows")
    for again in (pickle.loads(pickle.dumps(fitted)), load(tmp_path / "model.skflows")):
        np.testing.assert_array_equal(again.score_samples(SCRATCHED), expected[0])
        np.testing.assert_array_equal(again.defect_map(SCRATCHED), expected[1])
    again = clone(fitted).fit(IMAGES)
    np.testing.assert_array_equal(again.score_samples(SCRATCHED), expected[0])


def test_scores_do_not_depend_on_other_images(fitted):
    together = fitted.score_samples(SCRATCHED)
    alone = np.concatenate([fitted.score_samples(image[None]) for image in SCRATCHED])
    np.testing.assert_allclose(alone, together, rtol=1e-9)


def test_filter_bank_has_the_same_places_at_all_scales():
    bank = FilterBank(np.zeros(3), np.ones(3))
    images = torch.from_numpy(RNG.standard_normal((2, 3, 33, 18)))
    found = bank(images)
    assert found.shape == (2, 3 * 8 * 3, 7, 3)
    flat = bank(torch.ones(1, 3, 1, 5, dtype=torch.float64))
    assert flat.shape == (1, 24, 1, 1)
    # No energy is a linear function of others.
    energies = np.exp(2 * found.flatten(2)[:, 1:8].transpose(0, 1).flatten(1).numpy())
    assert np.linalg.cond(energies) < 1e3
    # A constant image has its value as local mean, and no energy.
    assert flat[0, 0, 0, 0] == pytest.approx(1)
    assert flat[0, 1:8].max() == pytest.approx(np.log(0.02))


def test_time_limit_holds_for_all_folds_together():
    limits = []

    class Timed(GaussianMixture):
        def __init__(self, time_limit=None):
            super().__init__()
            self.time_limit = time_limit

        def fit(self, X, y=None):
            limits.append(self.time_limit)
            return super().fit(X)

    detector(Timed(), cv=4, time_limit=8).fit(IMAGES)
    assert len(limits) == 4
    assert all(1 < limit < 2 for limit in limits)
    half = np.arange(20)
    detector(Timed(time_limit=0.5), cv=iter([(half, half + 20)]), time_limit=8).fit(IMAGES)
    assert limits[4:] == [0.5]
    detector(Timed(), cv=None, calibration=None, time_limit=8).fit(IMAGES)  # None is 5 folds
    assert len(limits) == 10
    assert all(1 < limit < 1.6 for limit in limits[5:])


def test_time_limit_of_a_density_without_one_is_an_error():
    with pytest.raises(ValueError, match="GaussianMixture has no time_limit: give a flow"):
        detector(GaussianMixture(), time_limit=8).fit(IMAGES)


@pytest.mark.filterwarnings("ignore:Training was interrupted")
@pytest.mark.parametrize(
    "estimator", [clone(FLOW).set_params(max_iter=5), ConditionalDensity(FLOW, cv=None)]
)
def test_interrupt_ends_the_fit_of_all_folds(estimator, interrupt):
    with pytest.raises(KeyboardInterrupt):
        detector(estimator, cv=3).fit(IMAGES)
    assert len(interrupt) == 3
