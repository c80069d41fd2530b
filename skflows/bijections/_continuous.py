"""Continuous bijections: the flow of an ordinary differential equation."""

from dataclasses import dataclass

import torch

from .._ode import DormandPrince, Solver
from ._base import Bijection
from ._velocity import Velocity

NOISES = {
    "rademacher": lambda shape: (torch.rand(shape) < 0.5) * 2.0 - 1,
    "gaussian": torch.randn,
}


@dataclass
class Solution:
    """Where an equation ends, with what was integrated along the way."""

    x: torch.Tensor
    log_det: torch.Tensor  # of shape (1, n), or (n_probes, n): one estimate for each probe
    n_evaluations: torch.Tensor


class Continuous(Bijection):
    """The map from time 0, the data, to time 1, the latent space, along a velocity field.

    ``dx/dt = v(x, t)``, and the log-determinant is the integral of the trace of ``dv/dx`` along
    the way (the instantaneous change of variables).

    Parameters
    ----------
    n_features : int
        Number of columns.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers of the velocity.
    n_context : int, default=0
        Size of the context.
    activation : str, default="silu"
        Activation of the hidden layers.
    solver : Solver, optional
        What solves the equation; Dormand-Prince by default.
    n_probes : int, default=0
        Number of probes of Hutchinson's estimate of the trace; 0 for the exact trace. They are
        drawn once, and are the same for every row, time and call.
    noise : {"rademacher", "gaussian"}, default="rademacher"
        Distribution of the probes.

    References
    ----------
    Chen, Rubanova, Bettencourt & Duvenaud, "Neural Ordinary Differential Equations", 2018;
    Grathwohl et al., "FFJORD", 2019; Hutchinson, "A Stochastic Estimator of the Trace of the
    Influence Matrix for Laplacian Smoothing Splines", 1989.
    """

    def __init__(
        self,
        n_features,
        hidden_layer_sizes,
        n_context=0,
        activation="silu",
        solver=None,
        n_probes=0,
        noise="rademacher",
    ):
        super().__init__()
        self.velocity = Velocity(n_features, hidden_layer_sizes, n_context, activation)
        self.solver: Solver = solver or DormandPrince()
        self.n_probes = n_probes
        self.noise = noise
        self.register_buffer("probes", NOISES[noise]((n_features, n_probes)))

    def forward(self, x, context=None):
        return self.map(x, context)

    def inverse(self, z, context=None):
        return self.map(z, context, start=1.0, end=0.0)

    def map(self, x, context=None, **solving):
        """Rows at the end of the way and the log-determinant of how they came there."""
        solution = self.solve(x, context, **solving)
        return solution.x, solution.log_det.mean(-2)

    def solve(self, x, context=None, start=0.0, end=1.0, solver=None):
        """Move rows along the field from one time to another, as a `Solution`."""
        d = x.shape[-1]
        columns = x.mT
        n_traces = max(1, self.n_probes)
        zeros = torch.zeros_like(columns[..., :1, :]).expand(*x.shape[:-2], n_traces, -1)
        state = torch.cat([columns, zeros], -2)
        context = None if context is None else context.mT

        def slope(t, state, rows):
            given = context if context is None or rows is None else context[..., rows]
            velocity, slopes = self.velocity(t, state[..., :d, :], given, slopes=True)
            return torch.cat([velocity, self._traces(slopes)], -2)

        state, count = (solver or self.solver).solve(slope, state, start, end)
        return Solution(state[..., :d, :].mT, state[..., d:, :], count)

    def _traces(self, slopes):
        """Trace of the Jacobian, ``(1, n)``, or its estimates by each probe, ``(n_probes, n)``."""
        if not self.n_probes:
            return self.velocity.trace(slopes).unsqueeze(-2)
        probes = self.probes.unsqueeze(-1).repeat_interleave(slopes[0].shape[-1], -1)
        return (probes * self.velocity.jvp(slopes, probes)).sum(-3)
