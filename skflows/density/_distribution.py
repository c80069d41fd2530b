"""The density of a fitted flow as a PyTorch module and as a PyTorch distribution."""

import math

import torch
from torch import nn
from torch.distributions import Distribution, constraints

from ..training.threads import one_thread_if_forked
from ._evaluation import device_of


class RowDensity(nn.Module):
    """The density of rows in the units of X, with PyTorch operations alone.

    Parameters
    ----------
    flow : Flow
        The flow of the rows with noise on their discrete columns.
    dequantizer : Dequantizer
        The discrete columns.
    n_features : int
        Number of columns of X.
    """

    offsets: torch.Tensor

    def __init__(self, flow, dequantizer, n_features):
        super().__init__()
        self.flow = flow
        self.dequantizer = dequantizer
        self.n_features = n_features
        offsets = torch.zeros(0, n_features, dtype=torch.float64)
        if dequantizer:
            zero = offsets.new_zeros(1, n_features).numpy()
            offsets = torch.cat(
                [torch.from_numpy(dequantizer.add_noise(zero, p)) for p in dequantizer.points()]
            )
        self.register_buffer("offsets", offsets.to(device_of(flow)))

    def forward(self, x):
        """Return the log-density of rows ``(n, n_features)``, as `score_samples` does."""
        if not len(self.offsets):
            return self.flow.log_prob(x)
        log_probs = torch.stack([self.flow.log_prob(x + offset) for offset in self.offsets])
        return log_probs.logsumexp(0) - math.log(len(self.offsets))

    def inverse(self, z):
        """Return the rows with latent coordinates z, before discrete columns are rounded."""
        return self.flow.inverse(z)[0]


class FlowDistribution(Distribution):
    """The distribution of rows of a fitted flow; see `BaseFlowDensity.distribution`.

    Parameters
    ----------
    rows : RowDensity
        The density.
    n_latent : int
        Number of latent coordinates of a row.
    batch_shape : torch.Size, default=()
        Shape of independent copies of the distribution.
    validate_args : bool, optional
        Whether to check arguments.
    """

    arg_constraints: dict = {}
    support = constraints.real_vector

    def __init__(self, rows, n_latent, batch_shape=(), validate_args=None):
        self.rows = rows
        self.n_latent = n_latent
        self.has_rsample = not rows.dequantizer
        super().__init__(torch.Size(batch_shape), torch.Size([rows.n_features]), validate_args)

    def expand(self, batch_shape, _instance=None):
        return FlowDistribution(self.rows, self.n_latent, batch_shape, self._validate_args)

    @one_thread_if_forked()
    def log_prob(self, value):
        if self._validate_args:
            self._validate_sample(value)
        log_prob = self.rows(value.double().reshape(-1, self.event_shape[0]))
        log_prob = log_prob.reshape(value.shape[:-1])
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def rsample(self, sample_shape=()):
        if not self.has_rsample:
            columns = self.rows.dequantizer.columns.tolist()
            raise NotImplementedError(
                f"Columns {columns} are discrete: draws are rounded, which has no gradient. Use "
                "sample, or fit with discrete=None."
            )
        return self._draw(sample_shape)

    @torch.no_grad()
    def sample(self, sample_shape=()):
        drawn = self._draw(sample_shape)
        if self.has_rsample:
            return drawn
        table = drawn.reshape(-1, drawn.shape[-1]).cpu().numpy()
        return torch.from_numpy(self.rows.dequantizer.round(table)).to(drawn).view_as(drawn)

    @one_thread_if_forked()
    def _draw(self, sample_shape):
        shape = self._extended_shape(sample_shape)
        n = shape[:-1].numel()
        device = self.rows.offsets.device
        latent = torch.randn(n, self.n_latent, dtype=torch.float64, device=device)
        return self.rows.inverse(latent).reshape(shape)
