"""Densities that are no flows as PyTorch modules: normals on mapped rows, and mixtures."""

import math

import numpy as np
import torch
from torch import nn

from ..bijections import Chain


class MappedNormals(nn.Module):
    """A mixture of normals on rows that a fixed map has prepared.

    Parameters
    ----------
    bijection : Bijection
        The map.
    weights : ndarray of shape (k,)
        The weights of the normals, which sum to 1.
    means : ndarray of shape (k, d)
        Their means.
    roots : ndarray of shape (k, d, d) or (k, d)
        Their precision matrices are the products of these and their transposes. An array of shape
        (k, d) has the diagonals of diagonal matrices.
    """

    is_separate = False  # the density of a cell is a mean over points, as in `score_samples`
    log_peaks: torch.Tensor
    means: torch.Tensor
    roots: torch.Tensor

    def __init__(self, bijection, weights, means, roots):
        super().__init__()
        self.bijection = bijection
        diagonals = np.diagonal(roots, axis1=-2, axis2=-1) if np.ndim(roots) == 3 else roots
        log_peaks = np.log(weights) + np.log(diagonals).sum(axis=-1)
        log_peaks = log_peaks - means.shape[1] / 2 * math.log(2 * math.pi)
        # ONNX keeps buffers in float64, but numbers in float32.
        for name, values in {"log_peaks": log_peaks, "means": means, "roots": roots}.items():
            contiguous = np.array(values, dtype=float, order="C")  # as torch.export stores them
            self.register_buffer(name, torch.from_numpy(contiguous))

    def forward(self, x):
        """Return the log-density of rows."""
        return self.log_prob(x)

    def log_prob(self, x):
        """Return the log-density of rows, in the units of ``x``."""
        z, log_det = self.bijection(x)
        offset = z.unsqueeze(-2) - self.means
        if self.roots.dim() == 3:
            offset = (offset.unsqueeze(-2) @ self.roots).squeeze(-2)
        else:
            offset = offset * self.roots
        return (self.log_peaks - offset.square().sum(-1) / 2).logsumexp(-1) + log_det


class Mixture(nn.Module):
    """A mixture of densities that are modules.

    Parameters
    ----------
    members : list of Module
        They return the log-density of rows.
    weights : list of float
        Their weights.
    """

    log_weights: torch.Tensor

    def __init__(self, members, weights):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("log_weights", torch.tensor(weights, dtype=torch.float64).log())

    def forward(self, x):
        """Return the log-density of rows."""
        each = torch.stack([member(x) for member in self.members], -1)
        return (each + self.log_weights).logsumexp(-1)


def module_of(estimator):
    """Return the density of rows of a fitted estimator as a module."""
    if hasattr(estimator, "_as_module"):
        return estimator._as_module()
    return MappedNormals(Chain([]), *normals_of(estimator))


def normals_of(estimator):
    """Return the weights, means and roots of a fitted mixture of normals (see `MappedNormals`)."""
    from sklearn.mixture import GaussianMixture  # takes long to import

    if not isinstance(estimator, GaussianMixture):
        if not hasattr(estimator, "normals"):
            raise TypeError(
                f"the density of {type(estimator).__name__} is not known as PyTorch operations: "
                "export a flow, AutoDensity, StackedDensity, AdaptiveKernelDensity, or a "
                "GaussianMixture, also inside TransformedDensity."
            )
        return estimator.normals()
    means, roots = estimator.means_, estimator.precisions_cholesky_
    if estimator.covariance_type == "tied":
        roots = np.broadcast_to(roots, (len(means), *roots.shape))
    elif estimator.covariance_type == "spherical":
        roots = np.broadcast_to(roots[:, None], means.shape)
    return estimator.weights_, means, roots
