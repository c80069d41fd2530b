"""Training never waits for the device within an epoch, and a GPU gives what the CPU does."""

import numpy as np
import pytest
import torch
from _densities import banana, each_estimator, small
from torch.utils._python_dispatch import TorchDispatchMode

from skflows.training import flow_fit as _run

X = banana(160)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Waits(TorchDispatchMode):
    """Counts what needs a tensor's value: each would have the host wait for a GPU."""

    OPERATIONS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in self.OPERATIONS
        return func(*args, **(kwargs or {}))


def waits_of_training(monkeypatch, name, batch_size, **params):
    waits = Waits()
    fit = _run.fit_in_phases

    def watched(*args, **kwargs):
        with waits:
            return fit(*args, **kwargs)

    monkeypatch.setattr(_run, "fit_in_phases", watched)
    small(name, batch_size=batch_size, **params).fit(X)
    monkeypatch.undo()
    return waits.count


@pytest.mark.parametrize("operation", [lambda x: x.item(), bool, lambda x: x[x > 0]])
def test_waits_are_noticed(operation):
    with Waits() as waits:
        operation(torch.ones(()))
    assert waits.count == 1


@each_estimator
def test_the_number_of_steps_does_not_matter_to_the_waits(monkeypatch, name):
    params = {"input_noise": 0.1, "weight_decay": 0.1}
    if name != "planar":
        params["dropout"] = 0.1
    few = waits_of_training(monkeypatch, name, 80, **params)
    many = waits_of_training(monkeypatch, name, 10, **params)
    assert few == many


@gpu
@each_estimator
def test_gpu_gives_what_the_cpu_does(name):
    estimator = small(name, device="cuda", batch_size=32).fit(X)
    assert all(tensor.is_cuda for tensor in estimator.flow_.state_dict().values())
    there = {
        "score_samples": estimator.score_samples(X),
        "transform": estimator.transform(X),
        "inverse_transform": estimator.inverse_transform(estimator.transform(X)),
        "sample": estimator.sample(50, random_state=0),
    }
    estimator.flow_.cpu()
    latent = estimator.transform(X)
    np.testing.assert_allclose(there["score_samples"], estimator.score_samples(X), atol=1e-6)
    np.testing.assert_allclose(there["transform"], latent, atol=1e-6)
    np.testing.assert_allclose(there["inverse_transform"], X, atol=1e-5)
    np.testing.assert_allclose(there["sample"], estimator.sample(50, random_state=0), atol=1e-5)


@gpu
def test_gpu_trains_small_tables_in_float64():
    assert np.isfinite(small("maf", device="cuda").fit(X[:30]).score(X))


@gpu
@each_estimator
def test_gpu_goes_on_from_increments(name):
    estimator = small(name, device="cuda", batch_size=32)
    scores = [estimator.partial_fit(X).score(X) for _ in range(6)]
    assert np.isfinite(scores).all()
    assert scores[-1] > scores[0]
