"""Continuous bijections: the flow of an ordinary differential equation."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..nn.random_draws import hashed_signs, sign_draws
from ._base import Bijection, Mapped
from ._ode import DormandPrince, Solver
from ._velocity import Velocity


@dataclass
class Solution:
    """The end of a solution, and the integrals along it."""

    x: Tensor
    log_det: Tensor  # of shape (1, n), or (n_probes, n): one estimate for each probe
    n_evaluations: Tensor
    energies: Tensor | None = None  # kinetic and Jacobian, of shape (2, n)


class Continuous(Bijection):
    """The map from time 0, the data, to time 1, the latent space, along a velocity field.

    ``dx/dt = v(x, t)``, and the log-determinant is the integral of the trace of ``dv/dx`` along the
    trajectory (the instantaneous change of variables).

    Parameters
    ----------
    n_features : int
        Number of columns.
    hidden_layer_sizes : tuple of int
        Widths of the hidden layers of the velocity network.
    n_context : int, default=0
        Size of the context.
    activation : str, default="silu"
        Activation of the hidden layers.
    solver : Solver, optional
        The solver; Dormand-Prince by default.
    n_probes : int, default=0
        Number of probes of Hutchinson's estimate of the trace, random signs; 0 for the exact trace.
        Each row has its own probes, which are a hash of its values and a seed: they are the same at
        all times and in all calls. In training mode there is one, drawn anew in each call.
    dropout : float, default=0.0
        Fraction of hidden units dropped in training, the same along the whole trajectory of a row.
    drift : bool, default=True
        Whether the velocity starts from the best linear one for straight paths, instead of from 0.

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
        dropout=0.0,
        drift=True,
    ):
        super().__init__()
        self.velocity = Velocity(
            n_features, hidden_layer_sizes, n_context, activation, dropout, drift
        )
        self.n_features = n_features
        self.n_context = n_context
        self.solver: Solver = solver or DormandPrince()
        self.n_probes = n_probes
        self.register_buffer("seeds", torch.rand(n_features, dtype=torch.float32))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return self.map(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return self.map(z, context, start=1.0, end=0.0)

    def map(self, x: Tensor, context: Tensor | None = None, **solving: Any) -> Mapped:
        """Return the rows at the end of their trajectories, and the log-determinants."""
        solution = self.solve(x, context, **solving)
        return solution.x, solution.log_det.mean(-2)

    def solve(
        self,
        x: Tensor,
        context: Tensor | None = None,
        start: float = 0.0,
        end: float = 1.0,
        solver: Solver | None = None,
        energies: bool = False,
        keys: Tensor | None = None,
    ) -> Solution:
        """Move rows along the field from one time to another.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            The rows.
        context : Tensor of shape (n, n_context), optional
            Their context.
        start, end : float
            Times.
        solver : Solver, optional
            Replaces the bijection's solver.
        energies : bool, default=False
            Whether to integrate ``|v|^2``, and Hutchinson's estimate of ``|dv/dx|^2``.
        keys : Tensor of shape (n, k), optional
            What the probes of each row are hashed from, with no more columns than x; x by default.

        Returns
        -------
        solution : Solution
        """
        d = x.shape[-1]
        columns = x.mT
        context = context.mT if self.n_context else None
        probes = self.probes_for(columns, keys) if self.n_probes or energies else None
        n_traces = probes.shape[-2] if self.n_probes else 1
        n_integrals = n_traces + 2 * energies
        zeros = torch.zeros_like(columns[..., :1, :]).expand(*x.shape[:-2], n_integrals, -1)
        state = torch.cat([columns, zeros], -2)
        masks = self.velocity.dropout_masks(columns)

        def slope(t, state, rows):
            own_context, own_probes, *own_masks = [
                given if given is None or rows is None else given[..., rows]
                for given in (context, probes, *(masks or ()))
            ]
            velocity, slopes = self.velocity(
                t, state[..., :d, :], own_context, slopes=True, masks=own_masks or None
            )
            moved = None if probes is None else self.velocity.jvp(slopes, own_probes)
            if self.n_probes:
                traces = (own_probes * moved).sum(-3)
            else:
                traces = self.velocity.trace(slopes).unsqueeze(-2)
            parts = [velocity, traces]
            if energies:
                parts.append(velocity.square().sum(-2, keepdim=True))
                parts.append(moved.square().sum(-3).mean(-2, keepdim=True))
            return torch.cat(parts, -2)

        state, count = (solver or self.solver).solve(slope, state, start, end)
        x, log_det, *rest = state.split([d, n_traces] + [2] * energies, -2)
        return Solution(x.mT, log_det, count, *rest)

    def probes_for(self, columns: Tensor, keys: Tensor | None = None) -> Tensor:
        """Return the probes of each column, of shape ``(n_features, n_probes, n)``."""
        if self.training:
            return sign_draws(columns).unsqueeze(-2)
        keys = columns if keys is None else keys.mT
        return hashed_signs(keys, self.seeds, max(1, self.n_probes)).to(columns.dtype)
