"""Training by compiled steps: what is compiled, and what comes of it."""

import shutil

import numpy as np
import pytest
import torch
from _densities import banana
from torch._dynamo.testing import CompileCounter

from skflows import MAFDensity, NSFDensity, _training

compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
# Torch's own, as it compiles.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SMALL = {"n_transforms": 1, "hidden_layer_sizes": 8, "early_stopping": False, "random_state": 0}


@pytest.fixture
def compile_by(monkeypatch):
    """Sets what compiles, for flows that nothing has been compiled for."""
    compile_ = torch.compile

    def choose(backend):
        monkeypatch.setattr(torch, "compile", lambda f, **kw: compile_(f, **kw, backend=backend))

    def forget():
        _training.compiled_losses.cache_clear()
        torch.compiler.reset()

    forget()
    yield choose
    forget()


@compiler
def test_compiled_fit_is_that_of_before():
    """Batches of one size: no row is left out, so that only rounding differs."""
    X = banana(256)
    params = SMALL | {"n_bins": 3, "dropout": 0.0, "batch_size": 128, "max_iter": 5}
    plain = NSFDensity(**params).fit(X)
    compiled = NSFDensity(**params, compile=True).fit(X)
    np.testing.assert_allclose(compiled.history_["loss"], plain.history_["loss"], atol=1e-4)
    np.testing.assert_allclose(compiled.score_samples(X), plain.score_samples(X), atol=1e-2)


def test_the_loss_is_compiled_once(compile_by):
    counter = CompileCounter()
    compile_by(counter)
    X = banana(256)
    flow = MAFDensity(**SMALL, max_iter=2, batch_size=64, compile=True)
    first = flow.fit(X).score_samples(X)
    assert counter.frame_count == 1
    np.testing.assert_array_equal(flow.fit(X).score_samples(X), first)
    assert counter.frame_count == 1
    flow.set_params(compile=False).fit(X)
    assert counter.frame_count == 1


def test_batches_are_of_one_size(monkeypatch):
    """260 rows make three batches of 86, with others left out in each epoch."""
    batches = []

    def watched(objective):
        def losses(bijection, y, weight):
            batches.append(y.clone())
            return objective.losses(bijection, y, weight)

        return losses

    monkeypatch.setattr(_training, "compiled_losses", watched)
    monkeypatch.setattr(torch, "compile", lambda f, **kw: f)
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
