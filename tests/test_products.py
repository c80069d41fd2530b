"""Which library multiplies matrices: what it changes, and that it is one choice of the process."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from torch import nn

from skflows import MAFDensity, _products
from skflows._products import SuitableProducts, onednn_is_wider
from skflows.model_selection import FlowGridSearchCV

wider = pytest.mark.skipif(not onednn_is_wider(), reason="MKL is as wide on this processor")


def precision():
    return _products.CHOICE.fp32_precision


@pytest.fixture
def chosen(monkeypatch):
    """As where oneDNN is the wider one; all products count as large."""
    if _products.CHOICE is None:
        pytest.skip("this torch has no choice")
    monkeypatch.setattr(_products, "onednn_is_wider", lambda: True)
    monkeypatch.setattr(_products, "LARGE", 1)
    before = precision()
    yield
    _products.CHOICE.fp32_precision = before


@wider
@pytest.mark.parametrize("members", [(), (3,)])
@pytest.mark.parametrize(("n_out", "n_in", "n"), [(64, 10, 256), (230, 64, 1024), (64, 828, 500)])
def test_products_are_as_exact(members, n_out, n_in, n, monkeypatch):
    """Rounded to bfloat16 they would be wrong in the third digit."""
    monkeypatch.setattr(_products, "LARGE", 1)
    weight, h = torch.rand(*members, n_out, n_in), torch.rand(*members, n_in, n)
    exact = weight.double() @ h.double()
    with SuitableProducts(nn.Linear(n_in, n_out), n):
        assert precision() == "bf16"
        for product in (weight @ h, (h.mT @ weight.mT).mT):
            torch.testing.assert_close(product.double(), exact, rtol=1e-5, atol=0)


def test_the_choice_ends_with_the_context(chosen):
    _products.CHOICE.fp32_precision = "ieee"
    products = SuitableProducts(nn.Linear(4, 4), 10)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), products:
            assert precision() == "bf16"
            1 / 0  # noqa: B018
        assert precision() == "ieee"


def test_small_products_stay_where_they_are(chosen, monkeypatch):
    """The mean over products counts; vectors are none, nor are the matrices of vectors."""
    monkeypatch.setattr(_products, "LARGE", 1000)
    small, large = nn.Linear(5, 5), nn.Linear(15, 13)
    for module, n_axes, expected in [
        (nn.Sequential(small, large), 2, "bf16"),  # 110 on average
        (nn.Sequential(small, small, large, nn.Linear(2, 2)), 2, "none"),
        (large, 3, "none"),
        (nn.ParameterList([torch.zeros(2, 10, 10)]), 3, "bf16"),
        (nn.ParameterList([torch.zeros(1000)]), 2, "none"),
    ]:
        _products.CHOICE.fp32_precision = "none"
        with SuitableProducts(module, 10, n_axes):
            assert precision() == expected


def test_threads_take_turns(chosen):
    products = SuitableProducts(nn.Linear(4, 4), 10)
    entered = threading.Event()

    def enter():
        with SuitableProducts(nn.Linear(4, 4), 10):
            entered.set()
            return precision()

    with ThreadPoolExecutor(1) as pool:
        with products:
            other = pool.submit(enter)
            assert not entered.wait(0.1)
        assert other.result() == "bf16"


@wider
def test_members_of_a_search_have_the_same_products_as_alone(monkeypatch):
    monkeypatch.setattr(_products, "LARGE", 1)
    X = np.random.default_rng(0).standard_normal((700, 4))
    flow = MAFDensity(n_transforms=2, max_iter=2, batch_size=64, random_state=0)
    grid = {"learning_rate_init": [1e-3, 1e-2]}
    together, apart = (
        search(flow, grid, cv=2, refit=False).fit(X).cv_results_["mean_test_score"]
        for search in (FlowGridSearchCV, GridSearchCV)
    )
    np.testing.assert_array_equal(together, apart)
