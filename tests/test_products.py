"""Which library multiplies matrices: what it changes, and that it is one choice of the process."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.testing import assert_close

from skflows import MAFDensity
from skflows.nn import linear as _affine, products as _products, tiles as _tiles
from skflows.nn.linear import ColumnLinear
from skflows.nn.incremental import weight_gradient
from skflows.nn.products import large_products, layer_products, module_products, onednn_is_wider, other_products, products_of_many
from skflows.model_selection import FlowGridSearchCV

wider = pytest.mark.skipif(not onednn_is_wider(), reason="MKL is as wide on this processor")
chooses = pytest.mark.skipif(_products.CHOICE is None, reason="this torch has no choice")


def precision():
    return _products.CHOICE.fp32_precision


@pytest.fixture
def all_large(monkeypatch):
    """As where oneDNN is the wider one, and all products are large."""
    monkeypatch.setattr(_products, "onednn_is_wider", lambda: True)
    monkeypatch.setattr(_products, "LARGE", 1)


@pytest.fixture
def by_torch(monkeypatch):
    """As where torch may share products among threads: none is in tiles."""
    monkeypatch.setattr(_tiles, "gemm", lambda tensor: 0)


@pytest.fixture
def processor(monkeypatch):
    """Says which processor torch finds. The choice is made anew for it, and for the real one."""
    monkeypatch.setattr(_products, "large_products", nullcontext())  # with AMX it would round more

    def find(**differences):
        found = {"cpu_name": "AMD EPYC", "avx512_f": True, "l1d_cache_size": 48 * 1024}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found | differences, False)
        onednn_is_wider.cache_clear()

    yield find
    onednn_is_wider.cache_clear()


@chooses
@pytest.mark.skipif(
    not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()),
    reason="this torch has one library",
)
@pytest.mark.parametrize(
    "differences",
    [
        {"l1d_cache_size": 32 * 1024},  # Zen 4
        {"l1d_cache_size": 0},  # of which torch knows nothing
        {"avx512_f": False},
        {"cpu_name": "Xeon"},
    ],
)
def test_mkl_keeps_the_products_of_processors_no_wider_than_it(processor, differences):
    processor()
    assert onednn_is_wider()  # Zen 5
    processor(**differences)
    assert not onednn_is_wider()


@wider
@pytest.mark.parametrize("members", [(), (3,)])
@pytest.mark.parametrize(("n_out", "n_in", "n"), [(64, 10, 256), (230, 64, 1024), (64, 828, 500)])
def test_products_are_as_exact(members, n_out, n_in, n):
    """Rounded to bfloat16 they would be wrong in the third digit."""
    weight, h = torch.rand(*members, n_out, n_in), torch.rand(*members, n_in, n)
    exact = weight.double() @ h.double()
    with large_products:
        for product in (weight @ h, (h.mT @ weight.mT).mT):
            torch.testing.assert_close(product.double(), exact, rtol=1e-5, atol=0)


@chooses
@pytest.mark.parametrize("outside", ["none", "ieee"])
def test_the_choice_ends_with_the_context(outside):
    before = precision()
    _products.CHOICE.fp32_precision = outside
    try:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError), large_products:
                assert precision() == "bf16"
                1 / 0  # noqa: B018
            assert precision() == outside
    finally:
        _products.CHOICE.fp32_precision = before


@chooses
def test_the_last_of_several_threads_ends_it():
    outside = precision()
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with large_products:
            inside.set()
            leave.wait(10)
            return precision()

    with ThreadPoolExecutor(1) as pool:
        with large_products:
            other = pool.submit(stay)
            inside.wait(10)
        assert precision() == "bf16"
        leave.set()
        assert other.result() == "bf16"
    assert precision() == outside


def test_small_products_stay_where_they_are(all_large, monkeypatch):
    """The mean over all of a module counts; vectors are none, nor are the vectors of members."""
    monkeypatch.setattr(_products, "LARGE", 1000)
    small, large = nn.Linear(5, 5), nn.Linear(15, 13)
    for module, n_axes, expected in [
        (nn.Sequential(small, large), 2, large_products),  # 110 on average
        (nn.Sequential(small, small, large, nn.Linear(2, 2)), 2, other_products),
        (large, 3, other_products),
        (nn.ParameterList([torch.zeros(2, 10, 10)]), 3, large_products),
        (nn.ParameterList([torch.zeros(1000)]), 2, other_products),
    ]:
        assert module_products(module, 10, n_axes) is expected
        assert module_products(module.double(), 10, n_axes) is other_products


@pytest.mark.parametrize("members", [(), (3,)])
def test_what_is_a_large_product_does_not_hang_on_the_members(members, all_large, monkeypatch):
    monkeypatch.setattr(_products, "LARGE", 10 * 7 * 5)
    weight, h = torch.zeros(*members, 10, 7), torch.zeros(*members, 7, 5)
    assert set(layer_products(weight, h)) == {large_products}
    assert set(layer_products(weight.double(), h.double())) == {other_products}
    if not members:
        assert set(layer_products(weight, h[..., 1:])) == {other_products}


@chooses
@pytest.mark.usefixtures("by_torch")
def test_weights_of_members_are_put_side_by_side_for_onednn(monkeypatch):
    """An optimiser keeps all weights of a member together; oneDNN would copy them twice a step."""
    seen = []

    def product(weight, h, out=None):
        seen.append(weight)
        return torch.bmm(weight, h, out=out)

    monkeypatch.setattr(_affine, "product", product)
    flat, layer = torch.randint(-4, 5, (3, 50)).float(), ColumnLinear(5, 7)
    layer.weight = nn.Parameter(flat[:, :35].view(3, 7, 5))
    layer.bias = nn.Parameter(flat[:, 35:42].view(3, 7, 1))
    h = torch.randint(-4, 5, (3, 5, 4)).float()
    for products in (large_products, other_products):
        monkeypatch.setattr(_affine, "layer_products", lambda *_, own=products: (own, own, own))
        with torch.no_grad():
            outcome, pullback = layer.vjp(h)
            g_h, _ = pullback(torch.ones_like(outcome))
        assert_close(outcome, layer.weight @ h + layer.bias)
        assert_close(g_h, layer.weight.sum(-2).unsqueeze(-1).expand_as(h))
    assert [weight.is_contiguous() for weight in seen[::2]] == [True, False]


@wider
@pytest.mark.usefixtures("by_torch")
@pytest.mark.parametrize(("n_in", "n_out"), [(5, 64), (64, 64), (64, 10), (64, 230)])
@pytest.mark.parametrize("n", [120, 125, 400])
def test_members_of_a_stack_have_the_bits_that_they_have_alone(n_in, n_out, n):
    torch.manual_seed(0)
    layers = [ColumnLinear(n_in, n_out) for _ in range(15)]
    h, g = torch.randn(15, n_in, n), torch.randn(15, n_out, n)
    together = copy.deepcopy(layers[0])
    for name in ("weight", "bias"):
        values = torch.stack([getattr(layer, name).detach() for layer in layers])
        setattr(together, name, nn.Parameter(values))
    with torch.no_grad():
        whole = values_of(together, h, g)
        parts = [values_of(*own) for own in zip(layers, h, g, strict=True)]
    for value, own in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(value, torch.stack(own))
    if 15 * n_in * n_out * n >= _products.LARGE:
        assert large_products in layer_products(together.weight, h)


@pytest.mark.parametrize("members", [(), (3,)])
@pytest.mark.parametrize(("n_in", "n_out"), [(5, 16), (16, 5), (16, 32), (5, 7)])
def test_gradient_of_a_weight_in_whatever_order(n_in, n_out, members):
    g, h = torch.randn(*members, n_out, 9).double(), torch.randn(*members, n_in, 9).double()
    weight = torch.zeros(*members, n_out, n_in).double().requires_grad_()
    (expected,) = torch.autograd.grad(weight @ h, weight, g)
    assert_close(weight_gradient(g, h), expected)


def values_of(layer, h, g):
    """The output of a layer and all gradients."""
    output, pullback = layer.vjp(h)
    g_h, gradients = pullback(g)
    return [output, g_h, *gradients]


def test_many_rows_have_one_library_whatever_the_weight(all_large, monkeypatch):
    monkeypatch.setattr(_products, "MANY", 100)
    rows, weight = torch.zeros(100, 3), torch.zeros(5, 3)
    assert products_of_many(rows) is large_products
    assert products_of_many(rows[1:]) is other_products
    assert set(layer_products(weight, rows.mT)) == {other_products}  # chosen already


@chooses
def test_an_interrupt_within_a_context_leaves_no_trace():
    outside = precision()
    large_products.__enter__()
    large_products.end()
    assert precision() == outside
    with large_products:
        assert precision() == "bf16"
    assert precision() == outside


@chooses
@pytest.mark.usefixtures("by_torch")
@pytest.mark.parametrize("large", [True, False])
def test_steps_and_held_out_scores_take_suitable_products(large, all_large, monkeypatch):
    monkeypatch.setattr(_products, "LARGE", 1 if large else 10**9)
    outside, seen = precision(), []
    add_product = _affine.add_product

    def watched(start, weight, h, out=None):
        if h.dtype == torch.float32:  # trained and scored on held-out rows
            seen.append(precision())
        return add_product(start, weight, h, out=out)

    monkeypatch.setattr(_affine, "add_product", watched)
    flow = MAFDensity(n_transforms=1, max_iter=1, contamination=None, random_state=0)
    flow.fit(np.random.default_rng(0).standard_normal((100, 2)))
    assert set(seen) == {"bf16" if large else outside}
    assert precision() == outside


@wider
@pytest.mark.usefixtures("by_torch")
def test_members_of_a_search_have_the_same_large_products_as_alone():
    X = np.random.default_rng(0).standard_normal((1400, 4))
    flow = MAFDensity(hidden_layer_sizes=(256, 256), max_iter=2, batch_size=512, random_state=0)
    assert large_products in layer_products(torch.empty(256, 256), torch.empty(256, 512))
    grid = {"learning_rate_init": [1e-3, 1e-2]}
    together, apart = (
        search(flow, grid, cv=2, refit=False).fit(X).cv_results_["mean_test_score"]
        for search in (FlowGridSearchCV, GridSearchCV)
    )
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-6)
