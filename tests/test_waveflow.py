"""WaveFlow: folded windows, and a context of frames."""

import numpy as np
import pytest
import torch
from scipy import stats

from skflows import ConditionalDensity, WaveFlowDensity
from skflows.bijections import Affine, GridAutoregressive
from skflows.nn.causal import CausalNet

RNG = np.random.default_rng(0)


def tones(n, length=16):
    """Return windows of tones of random frequency and phase, with noise."""
    frequency = RNG.uniform(0.2, 1.0, (n, 1))
    phase = RNG.uniform(0, 2 * np.pi, (n, 1))
    clean = np.sin(frequency * np.arange(length) + phase)
    return 100 * (clean + 0.1 * RNG.standard_normal((n, length))) + 30


def waveflow(**params):
    sizes = {"n_transforms": 2, "hidden_layer_sizes": (8, 8), "max_iter": 8}
    return WaveFlowDensity(**sizes | {"learning_rate_init": 1e-2, "random_state": 0} | params)


@pytest.fixture(scope="module")
def fitted():
    return waveflow(height=8).fit(tones(300))


def test_a_window_is_predicted_from_its_past(fitted):
    new = tones(200)
    independent = stats.norm(new.mean(), new.std()).logpdf(new).sum(axis=1).mean()
    assert fitted.score(new) > independent + 10
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(new)), new, atol=1e-3)
    assert fitted.sample(50, random_state=0).std() == pytest.approx(new.std(), rel=0.3)


def test_later_samples_do_not_change_the_latent_ones_before_them():
    X = tones(50, 24)
    fitted = waveflow(n_transforms=1, height=24, max_iter=2).fit(X)
    changed = X[:1].copy()
    changed[0, 10] += 50
    difference = fitted.transform(changed)[0] - fitted.transform(X[:1])[0]
    assert not difference[:10].any()
    assert difference[10:18].all()  # two layers see seven samples back
    assert not difference[18:].any()


def test_two_rows_are_a_coupling():
    """Odd samples are mapped given the even ones at both sides, as in WaveGlow."""
    X = tones(50, 12)
    fitted = waveflow(n_transforms=1, height=2, max_iter=2).fit(X)
    changed = X[:1].repeat(12, axis=0) + 50 * np.eye(12)
    moved = fitted.transform(changed) != fitted.transform(X[:1])
    assert [row.nonzero()[0].tolist() for row in moved[1::2]] == [[i] for i in range(1, 12, 2)]
    assert moved[6].nonzero()[0].tolist() == [1, 3, 5, 6, 7, 9, 11]


@pytest.mark.parametrize("height", [2, 4, 16])
def test_samples_take_a_step_for_each_row(height, monkeypatch):
    fitted = waveflow(n_transforms=3, height=height, max_iter=1).fit(tones(20))
    evaluations = []
    outputs = CausalNet._outputs
    monkeypatch.setattr(
        CausalNet, "_outputs", lambda *args: evaluations.append(1) or outputs(*args)
    )
    fitted.sample(3, random_state=0)
    assert len(evaluations) == 3 * height


def test_rows_above_are_seen_at_both_sides():
    torch.manual_seed(0)
    net = CausalNet((6, 5), 1, (4, 4), activation="tanh").double()
    torch.nn.init.normal_(net.output.weight)
    x = torch.randn(30, 1, dtype=torch.float64)
    seen = torch.autograd.functional.jacobian(net, x).view(6, 5, 6, 5) != 0
    assert not any(seen[i, :, i:].any() for i in range(6))
    assert seen[3, 2, 2].all()
    assert seen[3, 2, :3].any(1).all()


def test_frames_of_the_context_are_aligned_with_the_window():
    torch.manual_seed(0)
    grid = GridAutoregressive((2, 8), Affine(), (4,), n_context=6, n_frames=3).double()
    torch.nn.init.normal_(grid.net.output.weight)
    x = torch.randn(1, 16, dtype=torch.float64)
    context = torch.randn(1, 6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda c: grid(x, c)[0], context)
    seen = (jacobian.view(2, 8, 3, 2) != 0).any(3).any(0)
    # A frame reaches its own third, as far as interpolation and kernels of size 3 do.
    assert seen[0].tolist() == [True, True, False]
    assert seen[-1].tolist() == [False, True, True]


def test_frames_of_the_context_tell_the_loudness():
    loudness = RNG.standard_normal((400, 4))
    X = np.exp(loudness).repeat(4, axis=1) * RNG.standard_normal((400, 16))
    flow = waveflow(n_transforms=1, height=4, n_frames=4)
    density = ConditionalDensity(flow, cv=None, random_state=0).fit(loudness, X)
    marginal = stats.norm(scale=X.std()).logpdf(X).sum(axis=1).mean()
    assert density.score(loudness, X) > marginal + 3
    drawn = density.sample(np.tile([2.0, 0, 0, -2.0], (200, 1)), random_state=0)
    assert drawn[..., :4].std() > 4 * drawn[..., -4:].std()


@pytest.mark.parametrize(
    ("params", "length", "message"),
    [
        ({"height": 16}, 40, "40 samples, and height=16 .* to a multiple of 16 samples"),
        ({"height": 1}, 40, "'height' parameter .* in the range .2"),
        ({}, 1021, "1021 samples, and height='auto' .* to a multiple of 16 samples"),
    ],
)
def test_lengths_that_the_height_does_not_divide(params, length, message):
    with pytest.raises(ValueError, match=message):
        WaveFlowDensity(**params).fit(RNG.standard_normal((5, length)))


def test_frames_that_do_not_divide_the_context():
    conditional = ConditionalDensity(WaveFlowDensity(n_frames=3), cv=None)
    with pytest.raises(ValueError, match="n_frames=3 does not divide the 4 columns"):
        conditional.fit(RNG.standard_normal((20, 4)), RNG.standard_normal((20, 8)))
