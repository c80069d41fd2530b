"""Training by compiled steps: what is compiled, and what comes of it."""

import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from _bijections import TABLE, make_case, randomize
from _densities import banana, small
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from skflows import IAFDensity, MAFDensity, NSFDensity, PlanarDensity, kernels as _fused
from skflows.nn import residual_mlp as _nn
from skflows.training import losses as _objective
from skflows.training.losses import LIKELIHOOD
from skflows.nn.vjp import recorded
from skflows.bijections import Inverse, _base, _univariate

compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
# Torch's own, as it compiles.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SMALL = {"n_transforms": 1, "hidden_layer_sizes": 8, "early_stopping": False, "random_state": 0}


@pytest.fixture
def compile_by(monkeypatch):
    """Sets what compiles, for flows that nothing has been compiled for."""
    compile_ = torch.compile

    def choose(backend):
        def by_backend(function, dynamic, options):
            return compile_(function, dynamic=dynamic, backend=backend)

        monkeypatch.setattr(torch, "compile", by_backend)

    def forget():
        _objective.compiled_losses.cache_clear()
        _objective.compiled_vjp.cache_clear()
        torch.compiler.reset()

    forget()
    yield choose
    forget()


@compiler
def test_compiled_fit_is_that_of_before(monkeypatch):
    """Batches of one size: no row is left out, so that only rounding differs."""
    monkeypatch.setattr(_fused, "_passes", None)  # by which splines are not compiled
    X = banana(256)
    params = SMALL | {"n_bins": 3, "dropout": 0.0, "batch_size": 128, "max_iter": 5}
    plain = NSFDensity(**params).fit(X)
    compiled = NSFDensity(**params, compile=True).fit(X)
    np.testing.assert_allclose(compiled.history_["loss"], plain.history_["loss"], atol=1e-4)
    np.testing.assert_allclose(compiled.score_samples(X), plain.score_samples(X), atol=1e-2)


@compiler
@pytest.mark.parametrize(
    ("flow", "d"),
    [
        (MAFDensity(n_transforms=3, hidden_layer_sizes=(16, 16), dropout=0.0), 12),
        (PlanarDensity(n_transforms=3), 5),
        (IAFDensity(n_transforms=1, hidden_layer_sizes=(8, 8), dropout=0.0), 2),
    ],
    ids=["maf", "planar", "iaf"],
)
def test_compiled_gradients_are_those_of_before(flow, d, compile_by):
    """Of three MAFs or more, torch's compiler mixed up parts of a stack."""
    torch.manual_seed(0)
    bijection = randomize(flow._build_bijection(d, 0))
    data = torch.randn(110, d), torch.rand(110), torch.tensor(110)
    loss, gradients = LIKELIHOOD.gradients(bijection, *data, nullcontext())
    compiled = LIKELIHOOD.compiled_gradients(bijection)(bijection, *data, nullcontext())
    assert_close(compiled[0], loss)
    for found, expected in zip(compiled[1], gradients, strict=True):
        assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.parametrize("name", ["planar", "nice", "realnvp", "glow", "maf", "iaf", "nsf"])
def test_a_step_is_compiled_once_and_whole(name, compile_by, monkeypatch):
    if name == "nsf":
        monkeypatch.setattr(_fused, "_passes", None)
    counter = CompileCounter()
    compile_by(counter)
    X = banana(256)
    flow = small(name, batch_size=64, max_iter=2, compile=True)
    first = flow.fit(X).score_samples(X)
    assert counter.frame_count == 1
    np.testing.assert_array_equal(flow.fit(X).score_samples(X), first)
    assert counter.frame_count == 1
    flow.set_params(compile=False).fit(X)
    assert counter.frame_count == 1


@pytest.mark.skipif(_fused._passes is None, reason="installed without a C compiler")
def test_splines_that_are_passes_are_not_compiled(compile_by):
    """There is nothing to join. Nor are rows left out, as in batches of one size."""
    counter = CompileCounter()
    compile_by(counter)
    X = banana(260)
    params = SMALL | {"batch_size": 128, "max_iter": 2}
    flow = NSFDensity(**params, compile=True).fit(X)
    assert counter.frame_count == 0
    np.testing.assert_array_equal(
        flow.score_samples(X), NSFDensity(**params).fit(X).score_samples(X)
    )
    NSFDensity(**params, n_bins=_fused._passes.MAX_BINS + 1, compile=True).fit(X)
    assert counter.frame_count == 1  # those have torch's operations


class OtherInverse(Inverse):
    def forward(self, x, context=None):
        return super().forward(x, context)


@pytest.mark.parametrize("name", [*TABLE, OtherInverse])
def test_the_compiler_gets_no_vjp_that_leaves_a_part_to_autograd(name, monkeypatch):
    bijection, x, _ = make_case("autoregressive_relu" if name is OtherInverse else name, 3)
    bijection = OtherInverse(bijection) if name is OtherInverse else bijection
    calls = []

    def counted(*args):
        calls.append(args)
        return recorded(*args)

    for room in (_nn, _base, _univariate):
        monkeypatch.setattr(room, "recorded", counted)
    with torch.no_grad():
        bijection.vjp(x)
    told = [getattr(module, "vjp_by_autograd", False) for module in bijection.modules()]
    assert any(told) == bool(calls)


def test_batches_are_of_one_size(compile_by, monkeypatch):
    """260 rows make three batches of 86, with others left out in each epoch."""
    batches = []

    def watched(function, **settings):
        def gradients(bijection, y, weight, n):
            batches.append(y.clone())
            return function(bijection, y, weight, n)

        return gradients

    monkeypatch.setattr(torch, "compile", watched)
    MAFDensity(**SMALL, max_iter=2, batch_size=128, compile=True).fit(banana(260))
    assert [len(batch) for batch in batches] == 6 * [86]
    first, second = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert not torch.equal(first.unique(dim=0), second.unique(dim=0))


def test_trouble_of_the_compiler_is_told_with_its_remedy(compile_by):
    def broken(graph, inputs):
        raise OSError("no compiler at all")

    compile_by(broken)
    with pytest.raises(RuntimeError, match=r"no compiler at all.*install g\+\+.*compile=False"):
        MAFDensity(**SMALL, max_iter=2, compile=True).fit(banana(100))
