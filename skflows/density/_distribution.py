"""The density of a fitted flow as a PyTorch module and as a PyTorch distribution."""

import math

import numpy as np
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

    points: torch.Tensor
    gap: torch.Tensor

    def __init__(self, flow, dequantizer, n_features):
        super().__init__()
        self.flow = flow
        self.dequantizer = dequantizer
        self.n_features = n_features
        points = torch.zeros(0, n_features, dtype=torch.float64)
        gap = points.new_zeros(n_features)
        if dequantizer:
            gap[dequantizer.columns] = torch.from_numpy(dequantizer.gap)
            points = points.new_full((len(dequantizer.points()), n_features), 0.5)
            points[:, dequantizer.columns] = torch.from_numpy(np.array(dequantizer.points()))
        # Values of a continuous column have no cell, and a draw from none is NaN.
        is_discrete = n_features == len(dequantizer.columns)
        self.is_normal_in_cells = is_discrete and dequantizer.alike and flow.is_separate
        self.register_buffer("points", points.to(device_of(flow)))
        self.register_buffer("gap", gap.to(device_of(flow)))

    def forward(self, x):
        """Return the log-density of rows ``(n, n_features)``, as `score_samples` does."""
        if not len(self.points):
            return self.flow.log_prob(x)
        share = self.points.view(-1, *(x.dim() - 1) * [1], self.n_features)
        if self.is_normal_in_cells:
            points, log_density = self.flow.point_of_cell(x, self.gap, share)
            log_density = log_density + self.gap.log().sum()
        else:
            points, log_density = x + self.gap * (share - 0.5), x.new_zeros(())
        # One call for all points: half the time for few rows.
        log_prob = self.flow.log_prob(points.flatten(0, -2)).view(points.shape[:-1])
        return (log_prob - log_density).logsumexp(0) - math.log(len(self.points))

    def is_sequential(self, inverse=False):
        """Whether a direction takes many small operations (see `Bijection.is_sequential`)."""
        return self.flow.is_sequential(inverse)

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
        device = self.rows.points.device
        latent = torch.randn(n, self.n_latent, dtype=torch.float64, device=device)
        return self.rows.inverse(latent).reshape(shape)
