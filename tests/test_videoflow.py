"""VideoFlow: frames given the frames before them, and what follows given frames."""

import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import skflows
from skflows import ConditionalDensity, VideoFlowDensity

SHAPE = 4, 4, 1
N_FRAMES, SIZE = 4, 16
RNG = np.random.default_rng(0)


def videos(n):
    """Return digits of a quarter of the size that move one pixel to the right in each frame."""
    images = load_digits().images[:n].reshape(n, 4, 2, 4, 2).mean(axis=(2, 4)).round()
    return np.stack([np.roll(images, t, axis=2) for t in range(N_FRAMES)], axis=1)[..., None]


def videoflow(**params):
    defaults = {"n_transforms": 1, "hidden_layer_sizes": (8, 8), "frame_shape": SHAPE}
    return VideoFlowDensity(
        **defaults | {"max_iter": 3, "dropout": 0.0, "random_state": 0} | params
    )


X = videos(120)


@pytest.fixture(scope="module")
def density():
    return videoflow().fit(X)


def test_density_is_the_product_of_conditional_densities(density):
    """The Jacobian has a block for each frame, and none above the diagonal."""
    rows = torch.from_numpy(X[:3].reshape(3, -1) + RNG.uniform(-0.5, 0.5, (3, N_FRAMES * SIZE)))
    for row in rows:
        jacobian = torch.autograd.functional.jacobian(lambda x: density.flow_(x[None])[0][0], row)
        blocks = jacobian.view(N_FRAMES, SIZE, N_FRAMES, SIZE)
        latent, log_det = density.flow_(row[None])
        normal = -(latent**2 + math.log(2 * math.pi)).view(N_FRAMES, SIZE).sum(1) / 2
        by_frame = [
            normal[t] + torch.linalg.slogdet(blocks[t, :, t]).logabsdet for t in range(N_FRAMES)
        ]
        torch.testing.assert_close(sum(by_frame), density.flow_.log_prob(row[None])[0])
        torch.testing.assert_close(normal.sum() + log_det[0], sum(by_frame))
        assert not any(blocks[t, :, t + 1 :].any() for t in range(N_FRAMES))
        assert not blocks[3, :, 0].any()  # two frames before
        assert blocks[3, :, 1].any() and blocks[3, :, 2].any()


def test_motion_is_learnt():
    """A video backwards has the same frames, but less density."""
    density = videoflow(max_iter=12, learning_rate_init=1e-2, batch_size=16).fit(X)
    assert density.score(X) > density.score(X[:, ::-1]) + 10
    assert density.reconstruction_error(X).max() < 1e-8


def test_arrays_and_rows_are_the_same(density):
    scores = density.score_samples(X[:5])
    np.testing.assert_array_equal(density.score_samples(X[:5].reshape(5, -1)), scores)
    np.testing.assert_array_equal(density.score_samples(X[:5, ..., 0]), scores)
    bits = density.bits_per_dim(X[:5])
    np.testing.assert_allclose(bits, -scores / (N_FRAMES * SIZE * math.log(2)))


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_next_frames(density, n_steps):
    """Two frames follow at once, more of them step by step."""
    drawn = density.predict_next(X[:6, :3], n_steps=n_steps, random_state=0)
    assert drawn.shape == (6, n_steps, *SHAPE)
    assert set(np.unique(drawn)) <= set(range(17))
    again = density.predict_next(X[:6, 1:3].reshape(6, -1), n_steps=n_steps, random_state=0)
    np.testing.assert_array_equal(drawn, again)  # the last two frames count
    other = density.predict_next(X[:6, :3], n_steps=n_steps, random_state=1)
    assert not np.array_equal(drawn, other)


def test_next_frames_have_the_density_of_the_next_frames():
    """Without noise of discrete values, latent coordinates tell the frames apart."""
    continuous = X + RNG.uniform(-0.5, 0.5, X.shape)
    density = videoflow(discrete=None, max_iter=2).fit(continuous)
    drawn = density.predict_next(continuous[:5, :2], n_steps=2, temperature=0.0)
    whole = np.concatenate([continuous[:5, :2], drawn], axis=1)
    latent = density.transform(whole).reshape(5, N_FRAMES, SIZE)
    np.testing.assert_allclose(latent[:, 2:], 0, atol=1e-6)
    given = density.transform(continuous[:5]).reshape(5, N_FRAMES, SIZE)
    np.testing.assert_allclose(latent[:, :2], given[:, :2], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.predict_next(X[:3, :1]), "1 frames in each row; at least n_context_frames=2"),
        (lambda d: d.predict_next(np.zeros((3, 2, 5, 4, 1))), r"\(n_samples, length, 4, 4, 1\)"),
        (
            lambda d: d.predict_next(np.zeros((3, 40))),
            r"\(n_samples, length \* 4 \* 4 \* 1\)",
        ),
        (lambda d: d.predict_next(X[:3], n_steps=0), "n_steps=0"),
        (lambda d: d.predict_next(X[:3], temperature=-1), "temperature=-1"),
        (lambda d: d.score_samples(X[:3, :, :3]), r"grids of shape \(length, 4, 4, 1\)"),
        (lambda d: videoflow().fit(np.zeros((5, 40))), r"\(n_samples, length, 4, 4, 1\)"),
        (lambda d: videoflow(frame_shape=(4, 4)).fit(X), "give three positive integers"),
        (lambda d: videoflow(n_levels=3).fit(X), "no even height or width in level 3"),
        (
            lambda d: videoflow(n_context_frames=4, max_iter=1).fit(X).predict_next(X),
            "rows of fit had 4 frames, .*n_context_frames=4",
        ),
    ],
)
def test_errors(density, call, message):
    with pytest.raises(ValueError, match=message):
        call(density)


def test_frames_of_colour_with_odd_sides():
    rows = RNG.standard_normal((30, 3 * 5 * 6 * 3))
    density = videoflow(frame_shape=(5, 6, 3), n_levels=1, n_bins=3, contamination=None)
    assert density.fit(rows).reconstruction_error(rows).max() < 1e-8


def test_conditional_density_of_videos():
    conditional = ConditionalDensity(videoflow(max_iter=1), cv=None, random_state=0)
    labels = load_digits().target[:120, None]
    conditional.fit(labels, X.reshape(120, -1))
    assert np.isfinite(conditional.log_prob(labels[:5], X[:5].reshape(5, -1))).all()


def test_pickle_and_file(density, tmp_path):
    density.save(tmp_path / "video.skflows")
    expected = density.predict_next(X[:2], random_state=0)
    for loaded in (pickle.loads(pickle.dumps(density)), skflows.load(tmp_path / "video.skflows")):
        np.testing.assert_array_equal(loaded.predict_next(X[:2], random_state=0), expected)
        np.testing.assert_array_equal(loaded.score_samples(X[:4]), density.score_samples(X[:4]))
