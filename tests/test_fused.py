"""Compiled code against torch's operations: the same values and gradients, but for rounding."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from skflows import kernels as _fused
from skflows.nn import vjp as _pullbacks, tiles as _tiles
from skflows.nn.linear import MANY, ColumnLinear, MaskedLinear
from skflows.nn.random_draws import drawing_from
from skflows.training.model_stack import stack
from skflows.nn.residual_mlp import ResidualMLP
from skflows.training.losses import weighted_nll_vjp
from skflows.training.optimizer import FlatOptimizer
from skflows.bijections import Affine, LULinear, MaskedAutoregressive
from skflows.bijections._linear import MOST_FUSED
from skflows.bijections._univariate import outputs_of, params_of

pytestmark = pytest.mark.skipif(_fused._passes is None, reason="installed without a C compiler")
SHAPES = [(1, 1), (3, 50), (2, 64), (4, 3, 33), (2, 3, 150), (2, 2, 1, 65), (3, 0)]
DTYPES = [torch.float32, torch.float64]


@pytest.fixture
def torch_alone(monkeypatch):
    """Calls a function where there is no compiled code."""

    def call(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(_fused, "_passes", None)
            return function(*args)

    return call


@pytest.fixture
def called(monkeypatch):
    """The names of the passes that have run."""
    names = []
    run = _fused.run

    def recorded(name, *args):
        names.append(name)
        run(name, *args)

    monkeypatch.setattr(_fused, "run", recorded)
    return names


@pytest.fixture
def tiled(monkeypatch):
    """Products are in tiles, as on one thread of a processor on which that pays."""
    if not _tiles.address(torch.float32):
        pytest.skip("the BLAS of scipy has longer numbers")
    monkeypatch.setattr(_tiles, "gemm", lambda tensor: _tiles.address(tensor.dtype))


@pytest.fixture(params=["in tiles", "by torch"])
def in_tiles(request, monkeypatch):
    """Whether products are in tiles, or torch's, as it may share them among threads."""
    if request.param == "in tiles":
        request.getfixturevalue("tiled")
    else:
        monkeypatch.setattr(_tiles, "gemm", lambda tensor: 0)
    return request.param == "in tiles"


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def check(ours, theirs, dtype):
    """But for rounding."""
    for one, other in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert (one - other).norm() <= 30 * torch.finfo(dtype).eps * (1 + other.norm())


@torch.no_grad()
def squashed(x, g, bound=3.0):
    y, pullback = _pullbacks.squash_vjp(x, bound)
    return y, pullback(g)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_squash(shape, dtype, torch_alone, called):
    x, g = 5 * normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
    ours = squashed(x, g)
    assert called == ["squash", "squash_backward"]
    check(ours, torch_alone(squashed, x, g), dtype)
    for at in (slice(0, 1), slice(5, 22), slice(33, None)):
        for whole, part in zip(ours, squashed(x[..., at], g[..., at]), strict=True):
            assert torch.equal(whole[..., at], part)


@pytest.mark.parametrize("dtype", DTYPES)
def test_squash_of_what_is_far_or_not_finite(dtype, torch_alone):
    x = torch.tensor([0.0, 1e-30, 1e15, -1e15, torch.inf, -torch.inf, torch.nan], dtype=dtype)
    g = torch.ones_like(x)
    y, slope = squashed(x, g)
    assert_close(y[:4], torch.tensor([0, 1e-30, 3, -3], dtype=dtype))
    assert y[4:].isnan().all()
    assert_close((y, slope), torch_alone(squashed, x, g), equal_nan=True)


@torch.no_grad()
def all_of_affine(x, params, g, g_log_slope):
    (z, log_slope), pullback = Affine().vjp(x, params)
    return z, log_slope, *pullback(g, g_log_slope), *Affine().inverse(x, params)


def of_affine(*shape, dtype=torch.float64, by_feature=False):
    *members, d, n = shape
    params = 2 * normal(*members, 2, d, n, dtype=dtype, seed=1)
    if by_feature:
        params = params_of(Affine(), outputs_of(params))
    others = normal(*shape, dtype=dtype, seed=2), normal(*members, 1, n, dtype=dtype, seed=3)
    return normal(*shape, dtype=dtype), params, *others


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by_feature", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_affine(shape, by_feature, dtype, torch_alone, called):
    drawn = of_affine(*shape, dtype=dtype, by_feature=by_feature)
    ours = all_of_affine(*drawn)
    assert called == ["affine", "affine_backward", "affine_inverse"]
    check(ours, torch_alone(all_of_affine, *drawn), dtype)
    z, log_slope = Affine().forward(*drawn[:2])
    check(ours[:2], (z, log_slope.sum(-2, keepdim=True)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_affine_gives_a_value_the_same_bits_anywhere(dtype):
    drawn = of_affine(3, 150, dtype=dtype, by_feature=True)
    together = all_of_affine(*drawn)
    for at in (slice(0, 1), slice(5, 22), slice(77, 150)):
        alone = all_of_affine(*(tensor[..., at] for tensor in drawn))
        for whole, part in zip(together, alone, strict=True):
            assert torch.equal(whole[..., at], part)


@torch.no_grad()
def all_of_lu(bijection, x, g):
    (z, log_det), pullback = bijection.vjp(x)
    g_x, gradients = pullback(g, z.sum(-1).cos())
    return z, log_det, g_x, *gradients


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("d", [1, 2, 7, MOST_FUSED, MOST_FUSED + 1])
def test_lu(d, n_members, rotation, dtype, torch_alone, called):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        members = [LULinear(d, rotation).to(dtype) for _ in range(n_members)]
        for p in (p for member in members for p in member.parameters()):
            p.data.add_(torch.randn_like(p), alpha=d**-0.5)
    bijection = members[0] if n_members == 1 else stack(members)
    shape = (n_members, 9, d) if n_members > 1 else (9, d)
    rows = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
    ours = all_of_lu(bijection, *rows)
    assert ("lu" in called) == ("lu_backward" in called) == (d <= MOST_FUSED)
    check(ours, torch_alone(all_of_lu, bijection, *rows), dtype)
    # As an optimiser has them: those of a member side by side. Then as LAPACK leaves them.
    FlatOptimizer(bijection, 0.1, n_members=n_members)
    check(all_of_lu(bijection, *rows), ours, dtype)
    bijection.upper = nn.Parameter(bijection.upper.detach().mT.contiguous().mT)
    check(all_of_lu(bijection, *rows), ours, dtype)


@torch.no_grad()
def all_of_a_net(net, x, g, n_generators):
    members = x.shape[0] if x.dim() == 3 else 1
    generators = [torch.Generator().manual_seed(i) for i in range(n_generators)]
    with drawing_from(generators * (members // n_generators)):
        output, pullback = net.vjp(x)
    g_x, gradients = pullback(g)
    return output, g_x, *gradients


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 64, 100, 512])  # of 512 rows the columns collide
@pytest.mark.parametrize("hidden", [(8,), (8, 8), (8, 5, 5)])
@pytest.mark.parametrize(
    ("n_members", "rates", "n_generators"),
    [(1, 0.0, 1), (1, 0.3, 1), (3, 0.3, 1), (3, 0.3, 3), (3, [0.0, 0.2, 0.5], 3)],
)
def test_units(n_members, rates, n_generators, hidden, n, dtype, in_tiles, torch_alone, called):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = [ResidualMLP(4, 6, hidden, dropout=0.3).to(dtype) for _ in range(n_members)]
        for net in nets:
            net.output.weight.data.normal_()
    net = nets[0] if n_members == 1 else stack(nets)
    net.train().dropout = rates
    shape = (n_members,) if n_members > 1 else ()
    drawn = normal(*shape, 4, n, dtype=dtype), normal(*shape, 6, n, dtype=dtype, seed=1)
    call = partial(all_of_a_net, net, n_generators=n_generators)
    ours = call(*drawn)
    n_layers = len(hidden) + in_tiles  # the output has a product alone
    assert called.count("layer") == called.count("layer_backward") == n_layers
    check(ours, torch_alone(call, *drawn), dtype)


@pytest.mark.parametrize("n_context", [0, 3])
@pytest.mark.parametrize("hidden", [(8,), (8, 8), (8, 5, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_units_of_many_rows_without_gradients(
    dtype, hidden, n_context, in_tiles, torch_alone, called
):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ResidualMLP(4, 6, hidden, n_context).to(dtype)
        net.output.weight.data.normal_()
    x = normal(4, MANY, dtype=dtype)
    context = normal(MANY, n_context, dtype=dtype, seed=1) if n_context else None
    with torch.no_grad():
        net(x[:, 1:], None if context is None else context[1:])
        assert "layer" not in called
        ours = net(x, context)
        n_layers = len(hidden) + in_tiles + (in_tiles and n_context > 0)
        assert called.count("layer") == n_layers
        check([ours], [torch_alone(net, x, context)], dtype)
    called.clear()
    recorded = net(x, context)
    assert recorded.requires_grad and "layer" not in called
    check([ours], [recorded], dtype)


def masks(n_out, n_in):
    """Of no weight, of all, of a triangle and its mirror image, and with gaps."""
    places = torch.arange(n_out)[:, None] * n_in, torch.arange(n_in) * n_out
    holes = torch.rand(n_out, n_in, generator=torch.Generator().manual_seed(0)) < 0.02
    return {
        "full": torch.ones(n_out, n_in),
        "empty": torch.zeros(n_out, n_in),
        "later": (places[0] > places[1]).float(),
        "earlier": (places[0] < places[1]).float(),
        "few": holes.float(),
    }


@torch.no_grad()
def all_of_a_layer(layer, h, g):
    output, pullback = layer.vjp(h)
    g_h, gradients = pullback(g)
    return output, g_h, *gradients


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 65, 512, 700])
@pytest.mark.parametrize(
    ("n_out", "n_in"), [(1, 1), (9, 0), (64, 10), (20, 64), (250, 64), (70, 300)]
)
@pytest.mark.parametrize("mask", ["none", "full", "empty", "later", "earlier", "few"])
def test_layers_in_tiles(mask, n_out, n_in, n, dtype, tiled, torch_alone, called):
    if mask != "none" and not n_in:
        pytest.skip("nothing to mask")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if mask == "none":
            layer = ColumnLinear(n_in, n_out)
        else:
            layer = MaskedLinear(n_in, n_out, masks(n_out, n_in)[mask])
    layer.to(dtype)
    drawn = normal(n_in, n, dtype=dtype), normal(n_out, n, dtype=dtype, seed=1)
    ours = all_of_a_layer(layer, *drawn)
    assert called == ["layer", "layer_backward"]
    check(ours, torch_alone(all_of_a_layer, layer, *drawn), dtype)
    # As parts of others, and columns first.
    lying = [torch.cat([t, t], -1)[:, :n] for t in drawn]
    check(all_of_a_layer(layer, *lying), ours, dtype)
    check(all_of_a_layer(layer, *(t.mT.contiguous().mT for t in drawn)), ours, dtype)
    layer.weight.data = layer.weight.mT.contiguous().mT
    check(all_of_a_layer(layer, *drawn), ours, dtype)


@pytest.mark.parametrize("n", [1, 65, 512])
@pytest.mark.parametrize("dtype", DTYPES)
def test_members_have_the_bits_that_they_have_alone(n, dtype, tiled, called):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [ColumnLinear(10, 64).to(dtype) for _ in range(3)]
    together = stack(layers)
    FlatOptimizer(together, 0.1, n_members=3)  # which keeps all of a member side by side
    assert not together.weight.is_contiguous()
    h, g = normal(3, 10, n, dtype=dtype), normal(3, 64, n, dtype=dtype, seed=1)
    whole = all_of_a_layer(together, h, g)
    assert called == ["layer", "layer_backward"]
    parts = [all_of_a_layer(*own) for own in zip(layers, h, g, strict=True)]
    for value, own in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(value, torch.stack(own))


def test_members_that_share_columns_have_gradients_of_their_own(tiled, torch_alone):
    layer = ColumnLinear(4, 5).double()
    layers = stack([layer, copy.deepcopy(layer).requires_grad_()])
    h, g = normal(1, 4, 70).expand(2, -1, -1), normal(2, 5, 70, seed=1)
    check(all_of_a_layer(layers, h, g), torch_alone(all_of_a_layer, layers, h, g), torch.float64)


def test_a_gradient_that_all_columns_share_or_of_another_dtype(tiled, torch_alone):
    layer, h = ColumnLinear(4, 5).double(), normal(4, 70)
    for g in (torch.ones(()).double().expand(5, 70), normal(5, 70).float()):
        whole = g.double().contiguous()
        check(all_of_a_layer(layer, h, g), all_of_a_layer(layer, h, whole), torch.float64)


@pytest.mark.parametrize("n", [3, 300])
@pytest.mark.parametrize("n_in", [3, 5])
@torch.no_grad()
def test_columns_that_do_not_fit_a_layer(n, n_in, tiled):
    """Torch says so; memory beside them is not read."""
    net = ResidualMLP(4, 6, (8, 8))
    with pytest.raises(RuntimeError):
        ColumnLinear(4, 6)(torch.ones(n_in, n))
    with pytest.raises(RuntimeError):
        net(torch.ones(n_in, n))
    with pytest.raises(RuntimeError):
        net.vjp(torch.ones(n_in, n))
    with pytest.raises(RuntimeError):
        stack([net, net])(torch.ones(n_in - 2, 4, n))  # members


def test_tiles_are_those_of_the_mask_at_hand(tiled, torch_alone):
    """After it was loaded, and in a stack whose members have others."""
    first, second = (
        MaskedLinear(64, 64, masks(64, 64)[name]).double() for name in ("later", "few")
    )
    drawn = normal(64, 300), normal(64, 300, seed=1)
    all_of_a_layer(first, *drawn)
    own = copy.deepcopy(first)
    for layer, state in ((first, second.state_dict()), (first, own.state_dict())):
        layer.load_state_dict(state)
        ours = all_of_a_layer(layer, *drawn)
        check(ours, torch_alone(all_of_a_layer, layer, *drawn), torch.float64)
    second.reach = first.reach
    both, rows = stack([first, second]), [torch.stack([each, each]) for each in drawn]
    ours = all_of_a_layer(both, *rows)
    check(ours, torch_alone(all_of_a_layer, both, *rows), torch.float64)


def test_a_copy_has_its_tiles_from_its_mask(tiled):
    layer = MaskedLinear(64, 64, masks(64, 64)["later"])
    expected = layer.tiles()
    assert "_tiles" not in layer.__getstate__()
    copied = pickle.loads(pickle.dumps(layer))
    assert all(map(torch.equal, copied.tiles()[:2], expected[:2]))


@pytest.mark.filterwarnings("ignore")  # of torch, about itself
def test_an_exported_layer_takes_any_number_of_columns():
    for module in (ColumnLinear(4, 6), ResidualMLP(4, 6, (8, 8))):
        n = torch.export.Dim("n", min=2, max=4096)
        columns = torch.ones(4, 300)
        with torch.no_grad():
            program = torch.export.export(module, (columns,), dynamic_shapes=({1: n},))
            for count in (5, 700):
                columns = normal(4, count, dtype=torch.float32)
                assert_close(program.module()(columns), module(columns))


@pytest.mark.parametrize(("n_out", "n_in"), [(1, 1), (64, 64), (250, 64), (70, 300)])
def test_tiles_hold_all_that_a_mask_shows(n_out, n_in):
    """Each weight once, and few of those that are hidden; a tile is small enough for a thread."""
    for name, mask in masks(n_out, n_in).items():
        found = _tiles.tiles_of(mask)
        for tiles, seen in ((found.forth, mask), (found.back, mask.mT)):
            n_times, begun, place = torch.zeros_like(seen), set(), 0
            for first, end, start, stop, has_begun in tiles.tolist():
                n_times[first:end, start:stop] += 1
                assert (end - first) * (stop - start) * 64 <= 2**18
                assert has_begun == ((first, end) in begun)
                begun.add((first, end))
            for first, end in sorted(begun):  # all rows are begun, if only to be set to 0
                assert first == place
                place = end
            assert place == len(seen)
            assert ((n_times == 1) | ((seen == 0) & (n_times == 0))).all()
            if name in ("later", "earlier") and min(n_out, n_in) >= 64:
                assert n_times.mean() < 0.7


@pytest.mark.parametrize(
    ("architecture", "n_threads", "pay"),
    [("SkylakeX", 1, True), ("SkylakeX", 2, False), ("Haswell", 1, False)],
)
def test_tiles_where_they_pay(architecture, n_threads, pay, monkeypatch):
    """On one thread, by kernels for small matrices."""
    info = [
        {"user_api": "openmp"},
        {"user_api": "blas", "internal_api": "openblas", "architecture": architecture},
    ]
    monkeypatch.setattr(_tiles, "threadpool_info", lambda: info)
    asked = _tiles.takes_small_matrices.__wrapped__
    monkeypatch.setattr(_tiles, "takes_small_matrices", asked)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    for dtype in DTYPES:
        address = _tiles.gemm(torch.empty(0, dtype=dtype))
        assert address == (_tiles.address(dtype) if pay else 0)


def test_whether_tiles_pay_is_asked_anew(torch_alone):
    """Where tests turn compiled code off, and on again."""
    before = _tiles.pay(torch.float32)
    assert not torch_alone(_tiles.pay, torch.float32)
    assert _tiles.pay(torch.float32) == before
    assert _fused._passes.TILE == _tiles.COLUMNS


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # of torch, for a jvp
def test_no_room_apart_where_there_are_tangents():
    """What is written to a room has none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ResidualMLP(3, 2, (8, 8)).requires_grad_(False)
        net.output.weight.normal_()
    x, direction = normal(3, 512, dtype=torch.float32), normal(3, 512, dtype=torch.float32, seed=1)
    with torch.no_grad():
        _, tangent = torch.func.jvp(net, (x,), (direction,))
        _, pullback = net.vjp(x)
    g = normal(2, 512, dtype=torch.float32, seed=2)
    assert_close((g * tangent).sum(), (pullback(g)[0] * direction).sum(), rtol=1e-4, atol=1e-3)


def test_units_hide_no_nan(torch_alone, called):
    """Training tells from it which member of a stack is lost."""
    net = ResidualMLP(1, 1, (4, 4))
    net.output.weight.data.normal_()
    net.hidden[0].bias.data[1] = torch.nan
    drawn = net, torch.ones(1, 3), torch.ones(1, 3), 1
    output, *gradients = all_of_a_net(*drawn)
    assert "layer_backward" in called
    assert output.isnan().all() and sum(gradient.isnan().any() for gradient in gradients) > 0
    assert_close((output, *gradients), torch_alone(all_of_a_net, *drawn), equal_nan=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # of torch, for a jvp
def test_units_that_compiled_code_does_not_take(called):
    """Of other dtypes, with tangents or not plain anywhere, or with a context for all rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ResidualMLP(3, 2, (8, 8), n_context=2).requires_grad_(False)
        net.output.weight.normal_()
    x, context = normal(3, MANY), normal(1, 2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert net(x.float(), context.float()).isfinite().all()
    assert not called
    net.double()
    with torch.no_grad():
        assert_close(net(x, context), net(x, context.expand(MANY, -1)))
        assert "layer" in called
        plain = dict(net.named_parameters())
        moved = plain["hidden.0.bias"] + normal(3, 8, 1)

        def at(bias):
            return torch.func.functional_call(net, plain | {"hidden.0.bias": bias}, (x, context))

        assert_close(torch.func.vmap(at)(moved), torch.stack([at(bias) for bias in moved]))
        direction = moved[1] - moved[0]
        _, tangent = torch.func.jvp(at, (moved[0],), (direction,))
        difference = at(moved[0] + 1e-7 * direction) - at(moved[0])
        assert_close(difference, 1e-7 * tangent, rtol=1e-5, atol=1e-13)


def steps(n_members, dtype):
    """What five steps on drawn gradients leave, of weights some of which a mask hides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        members = [MaskedAutoregressive(3, Affine(), (9, 9)).to(dtype) for _ in range(n_members)]
    module = members[0] if n_members == 1 else stack(members)
    optimizer = FlatOptimizer(module, 0.1, 0.3, ema_decay=0.9, n_members=n_members)
    for i in range(5):
        gradients = [0.3 * i * normal(*p.shape, dtype=dtype, seed=i) for p in module.parameters()]
        gradients[0] = gradients[0].mT.contiguous().mT  # as some products leave it
        loss = torch.arange(n_members, dtype=dtype)
        loss[-1] = torch.inf if i == 3 else 0
        optimizer.step(loss, gradients, 0.5**i)
    states = "weights", "average", "moment", "square", "n_steps"
    return [getattr(optimizer, name) for name in states]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_members", [1, 3])
def test_adam(n_members, dtype, torch_alone, called):
    """Some gradients are clipped; the last member stands still from the fourth step on."""
    ours = steps(n_members, dtype)
    assert called == ["adam"] * 5
    check(ours, torch_alone(steps, n_members, dtype), torch.float32)  # as torch has the rates


def test_gradients_of_another_dtype_or_shape_are_left_to_torch(called):
    optimizer = FlatOptimizer(module := LULinear(3), 0.1)
    gradients = [torch.ones_like(p) for p in module.parameters()]
    expected = optimizer.narrowed(copy.deepcopy(module), slice(None))
    expected.step(torch.zeros(()), gradients, 1.0)
    assert called == ["adam"]
    for others in ([gradient.double() for gradient in gradients], [torch.ones(())] * 4):
        own = optimizer.narrowed(copy.deepcopy(module), slice(None))
        own.step(torch.zeros(()), others, 1.0)
        assert_close(own.weights, expected.weights)
    with pytest.raises(RuntimeError):
        optimizer.step(torch.zeros(()), gradients[1:], 1.0)
    assert called == ["adam"]


@torch.no_grad()
def all_of_a_likelihood(columns, log_det, weight, n):
    return weighted_nll_vjp(columns.mT, log_det, weight, n)


def of_a_likelihood(*shape, dtype=torch.float64):
    *members, _, n = shape
    rows = normal(*members, n, dtype=dtype, seed=1), normal(*members, n, dtype=dtype, seed=2).abs()
    return normal(*shape, dtype=dtype), *rows, 1 + torch.arange(math.prod(members)).view(members)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_likelihood(shape, dtype, torch_alone, called):
    drawn = of_a_likelihood(*shape, dtype=dtype)
    ours = all_of_a_likelihood(*drawn)
    assert called == ["likelihood"]
    check(ours, torch_alone(all_of_a_likelihood, *drawn), dtype)


def test_likelihood_of_what_lies_otherwise(torch_alone, called):
    columns, log_det, weight, n = of_a_likelihood(3, 4, 70)
    # A batch of a stack has a part of each member's weights, and members may share a count.
    part = torch.cat([weight, weight], -1)[:, :70]
    shared = columns, log_det, part, n[:1].expand(3)
    check(all_of_a_likelihood(*shared), torch_alone(all_of_a_likelihood, *shared), torch.float64)
    assert called == ["likelihood"]
    for others in (
        (columns.mT.contiguous().mT, log_det, weight, n),
        (columns, log_det[:, :1], weight, n),
        (columns, log_det, weight, n.double()),
        (columns, log_det, weight, n[:1]),
    ):
        ours = all_of_a_likelihood(*others)
        check(ours, torch_alone(all_of_a_likelihood, *others), torch.float64)
    assert called == ["likelihood"]


def test_a_member_has_the_loss_and_gradients_that_it_has_alone():
    columns, log_det = normal(3, 5, 79, dtype=torch.float32), normal(3, 79, dtype=torch.float32)
    weight = normal(3, 144, dtype=torch.float32, seed=1).abs()[:, :79]
    n = torch.tensor([79, 77, 75])
    together = all_of_a_likelihood(columns, log_det, weight, n)
    for own in zip(columns, log_det, weight, n, *together, strict=True):
        for part, alone in zip(own[4:], all_of_a_likelihood(*own[:4]), strict=True):
            assert torch.equal(part, alone)


def test_nobody_is_asked_twice_who_watches(monkeypatch):
    """Until the context ends, but for autograd, which may begin within."""
    x = torch.ones(3)
    asked = []
    monkeypatch.setattr(_fused, "n_modes", lambda: asked.append(0))
    with torch.inference_mode(), pytest.raises(KeyboardInterrupt), _fused.unwatched(x):
        asked.clear()
        assert _fused.serves(x) and not _fused.serves(x.half())
        with _fused.unwatched(x):
            assert _fused.serves(x)
        assert not asked
        with torch.inference_mode(False), torch.enable_grad():
            assert not _fused.serves(torch.ones(3, requires_grad=True))
        asked.clear()
        with ThreadPoolExecutor(1) as pool, torch.inference_mode():
            assert pool.submit(_fused.serves, x).result() and asked  # another thread has its own
        raise KeyboardInterrupt
    asked.clear()
    assert _fused.serves(x) and asked
    with torch.autocast("cpu", torch.bfloat16), _fused.unwatched(x):
        assert not _fused.serves(x)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # of torch, for a jvp
def test_a_transform_or_a_compiler_may_start_where_nobody_watched():
    def squash(x):
        return _pullbacks.squash(x, 3.0)

    x = normal(4, 5)
    with torch.no_grad(), _fused.unwatched(x):
        assert_close(torch.vmap(squash)(x), squash(x))
        tangent = torch.func.jvp(squash, (x,), (torch.ones_like(x),))[1]
        assert_close(tangent, _pullbacks.squash_vjp(x, 3.0)[1](torch.ones_like(x)))
        assert_close(torch.compile(squash, backend="eager", fullgraph=True)(x), squash(x))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_what_is_recorded_or_turned_is_left_to_torch(called):
    x, params, *_ = of_affine(2, 6)
    for leaf in (x, params):
        leaf.requires_grad_()
        assert Affine().forward(x, params)[0].requires_grad
        leaf.requires_grad_(False)
    assert "affine" not in called
    called.clear()

    def squash(x):
        return _pullbacks.squash(x, 3.0)

    assert_close(squash(torch._neg_view(-x)), squash(x))
    assert_close(torch.func.vmap(squash)(x), squash(x))
    traced = torch.jit.trace(squash, x, check_trace=False)
    assert_close(traced(2 * x), squash(2 * x))
    recorded = make_fx(squash)(x)
    assert_close(recorded(2 * x), squash(2 * x))
    assert called == ["squash"] * 4


def test_shared_parameters_and_gradients_are_shared_out(called):
    x, _, g, _ = of_affine(3, 70)
    one_each = normal(2, 3, 1).expand(2, 3, 70)
    with torch.no_grad():
        expected = Affine().forward(x, one_each.contiguous())
        assert "affine" in called
        assert_close(Affine().forward(x, one_each[..., :1])[0], expected[0])
        ours = _pullbacks.squash_vjp(x, 3.0)[1](g[:1, :1].float())
        assert_close(ours, squashed(x, g[:1, :1].float().double().expand_as(x))[1])
    drawn = of_affine(3, 2, 70)
    shared = *drawn[:3], drawn[3][0]
    assert_close(all_of_affine(*shared), all_of_affine(*drawn[:3], drawn[3][:1].expand(3, -1, -1)))


@pytest.mark.parametrize(
    "args", [(), (False, (), ()), (False, (3.0, 1.0), (1,), 0, 0), (0, 0, 0, 0, 0)]
)
def test_a_pass_refuses_other_arguments(args):
    with pytest.raises(ValueError, match="Expected"):
        _fused._passes.squash(*args)
