"""Bijections of grids of several positions, beyond what `test_bijections` checks."""

import pytest
import torch
from _bijections import (
    N_ROWS,
    check_vjp,
    coupling,
    frame_autoregressive,
    frames,
    grid_autoregressive,
    grid_coupling,
    multiscale,
    randomize,
)
from torch.testing import assert_close

from skflows.bijections import ActNorm, Chain, Inverse, Pointwise, Squeeze
from skflows.training.model_stack import stack

SHAPE = 2, 4, 2
CASES = {
    "multiscale": lambda c: multiscale(SHAPE, c),
    "coupling_of_one_half": lambda c: grid_coupling("spline", SHAPE, c, both=False),
    "autoregressive": lambda c: grid_autoregressive("spline", (8, 2), c, n_frames=3),
    "frames": lambda c: frames("spline", (1, 2, 2), 2, c),
    "frames_of_two_kinds": lambda c: frame_autoregressive(
        Chain([coupling("affine", 4, 6), frame_coupling()]), (1, 2, 2), 2, c
    ),
    "pointwise": lambda c: Pointwise(ActNorm(2), 2),
    "pointwise_with_context": lambda c: Pointwise(grid_coupling("affine", (2, 2, 2), c), 8),
}


def frame_coupling():
    return grid_coupling("affine", (1, 2, 2), 6, context_grid=(1, 2))


def case(name, seed=0):
    torch.manual_seed(seed)
    bijection = randomize(CASES[name](3).double().eval(), seed=seed)
    rows = 2 * torch.randn(N_ROWS, 16, dtype=torch.float64)
    return bijection, rows, torch.randn(N_ROWS, 3, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_grid_bijection(name):
    bijection, x, context = case(name)
    z, log_det = bijection(x, context)
    back, log_det_back = bijection.inverse(z, context)
    assert_close(back, x, rtol=1e-9, atol=1e-9)
    assert_close(log_det_back, -log_det, rtol=1e-9, atol=1e-9)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda *row: bijection(*row)[0]))(x, context)
    assert_close(torch.linalg.slogdet(jacobians).logabsdet, log_det, rtol=1e-9, atol=1e-9)
    alone = torch.cat([bijection(x[i : i + 1], context[i : i + 1])[0] for i in range(N_ROWS)])
    assert_close(alone, z, rtol=1e-12, atol=1e-12)
    check_vjp(bijection, x, context)
    check_vjp(Inverse(bijection), z.detach(), context)


@pytest.mark.parametrize("name", CASES)
def test_stack_of_grid_bijections(name):
    members, rows, contexts = zip(*[case(name, seed) for seed in range(3)], strict=True)
    stacked = stack(members)
    x, context = torch.stack(rows), torch.stack(contexts)
    expected = [member(*own) for member, *own in zip(members, rows, contexts, strict=True)]
    for whole, parts in zip(stacked(x, context), zip(*expected, strict=True), strict=True):
        assert_close(whole, torch.stack(parts), rtol=1e-9, atol=1e-9)
    check_vjp(stacked, x, context)


def test_frames_whose_map_shares_parameters():
    frame = Chain([frame_coupling()] * 2)
    bijection = randomize(frame_autoregressive(frame, (1, 2, 2), 2, 0).double().eval())
    check_vjp(bijection, torch.randn(N_ROWS, 16, dtype=torch.float64))


@pytest.mark.parametrize("name", CASES)
def test_no_rows(name):
    bijection, x, context = case(name)
    for direction in (bijection, bijection.inverse):
        z, log_det = direction(x[:0], context[:0])
        assert z.shape == (0, 16) and log_det.shape == (0,)


def test_squeeze_moves_blocks_to_channels():
    image = torch.arange(24.0).view(4, 6)
    squeeze = Squeeze((4, 6, 1))
    assert squeeze.shape == (2, 3, 4)
    with pytest.raises(ValueError, match=r"shape=\(5, 5, 1\) .* factors=\(2, 2\)"):
        Squeeze((5, 5, 1))
    blocks, _ = squeeze(image.flatten())
    assert blocks.view(squeeze.shape)[1, 2].tolist() == image[2:, 4:].flatten().tolist()


def test_pointwise_needs_whole_positions():
    with pytest.raises(ValueError, match="9 columns, which n_channels=4 does not divide"):
        Pointwise(ActNorm(4), 4)(torch.zeros(2, 9))


def test_pointwise_sets_the_moments_of_channels():
    rows = 3 + 2 * torch.randn(50, 16, dtype=torch.float64)
    weight = torch.rand(50, dtype=torch.float64)
    norm = Pointwise(ActNorm(2).double(), 2)
    norm.initialize(rows, weight)
    channels = norm(rows)[0].detach().view(50, 8, 2)
    mean = (weight[:, None, None] * channels).sum((0, 1)) / (8 * weight.sum())
    assert_close(mean, torch.zeros(2, dtype=torch.float64))
