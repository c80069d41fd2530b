"""Training does not synchronise with the device within an epoch, and a GPU agrees with the CPU."""

import numpy as np
import pytest
import torch
from _densities import banana, each_estimator, each_kind, small
from torch.utils._python_dispatch import TorchDispatchMode

from skflows.training import flow_fit

X = banana(160)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class CountSynchronizations(TorchDispatchMode):
    """Counts the operations that need the value of a tensor: on a GPU, the host waits for each."""

    OPERATIONS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in self.OPERATIONS
        return func(*args, **(kwargs or {}))


def synchronizations_of_training(monkeypatch, name, batch_size, **params):
    counter = CountSynchronizations()
    original = flow_fit.train_in_phases

    def counted(*args, **kwargs):
        with counter:
            return original(*args, **kwargs)

    monkeypatch.setattr(flow_fit, "train_in_phases", counted)
    small(name, batch_size=batch_size, max_iter=2, **params).fit(X)
    monkeypatch.undo()
    return counter.count


@pytest.mark.parametrize("operation", [lambda x: x.item(), bool, lambda x: x[x > 0]])
def test_synchronizations_are_counted(operation):
    with CountSynchronizations() as counter:
        operation(torch.ones(()))
    assert counter.count == 1


@each_kind
def test_synchronizations_do_not_depend_on_the_number_of_steps(monkeypatch, name):
    params = {"input_noise": 0.1, "weight_decay": 0.1}
    if name != "planar":
        params["dropout"] = 0.1
    few = synchronizations_of_training(monkeypatch, name, 80, **params)
    many = synchronizations_of_training(monkeypatch, name, 20, **params)
    assert few == many > 0


@gpu
@each_estimator
def test_gpu_agrees_with_the_cpu(name):
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
@each_kind
def test_partial_fit_continues_on_a_gpu(name):
    estimator = small(name, device="cuda", batch_size=32)
    scores = [estimator.partial_fit(X).score(X) for _ in range(6)]
    assert np.isfinite(scores).all()
    assert scores[-1] > scores[0]
