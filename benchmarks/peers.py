"""The other libraries behind one surface: ``fit(train, val)``, ``score_samples(X)``, ``sample(n)``.

A flow of another library is a `Model`: its module and two functions. The builders of those models
are shared by `quality.py`, which trains them, and `step_times.py`, which times single steps.
"""

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity


class Model(NamedTuple):
    """A flow of any library: ``log_prob`` of an (n, d) tensor, ``sample`` of n rows."""

    module: torch.nn.Module
    log_prob: Callable
    sample: Callable


# One function per architecture and library, which it imports inside: each library is optional.


def zuko_flow(d, architecture, n_transforms=3, hidden=(64, 64), **kwargs):
    import zuko

    flow = getattr(zuko.flows, architecture)(
        d, transforms=n_transforms, hidden_features=hidden, **kwargs
    )
    return Model(flow, lambda X: flow().log_prob(X), lambda n: flow().sample((n,)))


def zuko_inverse_autoregressive(d, n_transforms=5, hidden=(64, 64)):
    """An affine autoregressive flow whose fast direction is sampling."""
    import zuko

    steps = [
        zuko.lazy.LazyInverse(
            zuko.flows.MaskedAutoregressiveTransform(
                d,
                order=torch.arange(d) if i % 2 == 0 else torch.arange(d).flip(0),
                hidden_features=hidden,
            )
        )
        for i in range(n_transforms)
    ]
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(d), torch.ones(d), buffer=True
    )
    flow = zuko.lazy.Flow(steps, base)
    return Model(flow, lambda X: flow().log_prob(X), lambda n: flow().sample((n,)))


def _nflows_model(layers, d):
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform

    flow = Flow(CompositeTransform(layers), StandardNormal([d]))
    return Model(flow, flow.log_prob, flow.sample)


def nflows_spline(d, n_transforms=5, hidden=64, n_blocks=2, residual=True):
    from nflows import transforms as t

    layers = []
    for _ in range(n_transforms):
        layers += [
            t.LULinear(d),
            t.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                features=d,
                hidden_features=hidden,
                num_bins=8,
                tails="linear",
                tail_bound=3.0,
                num_blocks=n_blocks,
                use_residual_blocks=residual,
            ),
        ]
    return _nflows_model(layers, d)


def nflows_affine(d, n_transforms=3, hidden=64):
    from nflows import transforms as t

    layers = []
    for _ in range(n_transforms):
        layers += [
            t.ReversePermutation(d),
            t.MaskedAffineAutoregressiveTransform(
                features=d, hidden_features=hidden, num_blocks=1, use_residual_blocks=False
            ),
        ]
    return _nflows_model(layers, d)


def nflows_realnvp(d, n_transforms=6, hidden=(64, 64)):
    from nflows import transforms as t
    from nflows.nn.nets import MLP

    class Net(MLP):
        def forward(self, inputs, context=None):  # a coupling layer passes context; MLP takes none
            return super().forward(inputs)

    layers = [
        t.AffineCouplingTransform(
            mask=(torch.arange(d) + i) % 2,
            transform_net_create_fn=lambda n_in, n_out: Net([n_in], [n_out], hidden),
        )
        for i in range(n_transforms)
    ]
    return _nflows_model(layers, d)


def _normflows_model(layers, d):
    import normflows as nf

    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(d, trainable=False), layers)
    return Model(flow, flow.log_prob, lambda n: flow.sample(n)[0])


def normflows_spline(d, n_transforms=3, hidden=64):
    import normflows as nf

    layers = []
    for _ in range(n_transforms):
        layers += [
            nf.flows.AutoregressiveRationalQuadraticSpline(d, 1, hidden, num_bins=8, tail_bound=3),
            nf.flows.Permute(d),
        ]
    return _normflows_model(layers, d)


def normflows_realnvp(d, n_transforms=8, hidden=(64, 64)):
    import normflows as nf

    n_kept = (d + 1) // 2  # the first chunk stays, the second is moved; then they swap
    layers = []
    for _ in range(n_transforms):
        net = nf.nets.MLP([n_kept, *hidden, 2 * (d - n_kept)], init_zeros=True)
        layers += [
            nf.flows.AffineCouplingBlock(net),
            nf.flows.Permute(d, mode="swap"),
            nf.flows.ActNorm(d),
        ]
    return _normflows_model(layers, d)


class FlowPeer:
    """Trains a `Model` as its users do: Adam, clipping, early stopping, best epoch kept."""

    def __init__(self, build, seed=0, budget=150.0, learning_rate=1e-3, batch_size=256):
        self.build, self.seed, self.budget = build, seed, budget
        self.learning_rate, self.batch_size = learning_rate, batch_size

    def fit(self, train, val, clip=5.0, patience=20):
        torch.manual_seed(self.seed)
        started = time.perf_counter()
        train, val = torch.from_numpy(train), torch.from_numpy(val)
        self.model_ = model = self.build(train.shape[1])
        module = model.module
        optimizer = torch.optim.Adam(module.parameters(), lr=self.learning_rate)
        best, best_epoch, best_state, epoch = -np.inf, 0, None, 0
        while epoch - best_epoch < patience and time.perf_counter() - started < self.budget:
            epoch += 1
            module.train()
            for rows in torch.randperm(len(train)).split(self.batch_size):
                optimizer.zero_grad()
                (-model.log_prob(train[rows]).mean()).backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
                optimizer.step()
            score = self._log_prob(val).mean().item()
            if not np.isfinite(score):  # the weights are lost; the best epoch is all there is
                break
            if score > best:
                best, best_epoch = score, epoch
                best_state = copy.deepcopy(module.state_dict())
        if best_state is None:
            raise FloatingPointError("diverged in the first epoch")
        module.load_state_dict(best_state)
        self.epochs_ = epoch
        return self

    @torch.no_grad()
    def _log_prob(self, X):
        self.model_.module.eval()
        return self.model_.log_prob(X)

    def score_samples(self, X):
        return self._log_prob(torch.from_numpy(X)).double().numpy()

    @torch.no_grad()
    def sample(self, n):
        self.model_.module.eval()
        return self.model_.sample(n).numpy()


class MixturePeer:
    """Gaussian mixture, its number of components chosen on validation."""

    epochs_ = None

    def __init__(self, seed=0, budget=None):
        self.seed = seed

    def fit(self, train, val):
        candidates = [
            GaussianMixture(k, reg_covar=1e-4, random_state=self.seed).fit(train)
            for k in (1, 2, 4, 8, 16, 32)
            if k <= len(train)
        ]
        self.best_ = max(candidates, key=lambda mixture: mixture.score(val))
        return self

    def score_samples(self, X):
        return self.best_.score_samples(X)

    def sample(self, n):
        return self.best_.sample(n)[0]


class KernelPeer:
    """Gaussian kernels, their bandwidth chosen on validation."""

    epochs_ = None

    def __init__(self, seed=0, budget=None):
        self.seed = seed

    def fit(self, train, val):
        candidates = [KernelDensity(bandwidth=h).fit(train) for h in np.logspace(-1.5, 0.5, 9)]
        self.best_ = max(candidates, key=lambda kernels: kernels.score(val))
        return self

    def score_samples(self, X):
        return self.best_.score_samples(X)

    def sample(self, n):
        return self.best_.sample(n, random_state=self.seed)


# name: what makes the contestant, called with seed and budget
PEERS = {
    "sklearn-GMM": MixturePeer,
    "sklearn-KDE": KernelPeer,
    "zuko-NSF": partial(FlowPeer, partial(zuko_flow, architecture="NSF")),
    "zuko-NSF5": partial(
        FlowPeer, partial(zuko_flow, architecture="NSF", n_transforms=5, hidden=(128, 128))
    ),
    "zuko-MAF": partial(FlowPeer, partial(zuko_flow, architecture="MAF", n_transforms=5)),
    "nflows-RQS": partial(FlowPeer, nflows_spline),
    "normflows-RealNVP": partial(FlowPeer, normflows_realnvp),
}
