"""Objectives of continuous flows: the likelihood by a coarse solver, and flow matching."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ..bijections._conditional import apart
from ..bijections._flow import standard_normal_log_prob
from ..bijections._ode import RungeKutta4
from ..nn.random_draws import normal_draws, uniform_draws
from .losses import LikelihoodByAutograd


def early(t):
    """Return uniform times moved towards the data, where the velocity has most detail to learn."""
    return t.square()


def independent(x, noise, weight):
    """Return the noise as it was drawn."""
    return noise


def optimal_transport(x, noise, weight):
    """Return the noise in the order that minimises its squared distance to the columns x.

    Columns of weight 0 are padding, and take no part.
    """
    from scipy.optimize import linear_sum_assignment

    if x.dim() > 2:
        return torch.stack(
            [optimal_transport(*member) for member in zip(x, noise, weight, strict=True)]
        )
    noise = noise.clone()
    rows = (weight > 0).nonzero().squeeze(-1)
    cost = -(x.detach()[:, rows].mT @ noise[:, rows])  # the squared distance, up to constants
    _, order = linear_sum_assignment(cost.cpu().numpy())
    noise[:, rows] = noise[:, rows[torch.from_numpy(order).to(rows.device)]]
    return noise


COUPLINGS = {"independent": independent, "optimal_transport": optimal_transport}
JITTER = 0.5  # of a step
N_DRAWS = 4  # of time and noise for each row in a step
SHARED_DRAWS = 64  # of time and noise, if all rows share them


@dataclass(frozen=True)
class SolvedLikelihood(LikelihoodByAutograd):
    """The likelihood by a cheaper solver than for the scores.

    Parameters
    ----------
    solver : RungeKutta4
        Solves the equation in training, on a fixed grid with jitter; on a grid twice as fine, it
        compares epochs.
    kinetic_penalty : float, default=0.0
        Weight of the integral of ``|v|^2`` along the trajectory of a row.
    jacobian_penalty : float, default=0.0
        Weight of the integral of ``|dv/dx|^2``, by one probe.

    References
    ----------
    Finlay, Jacobsen, Nurbekyan & Oberman, "How to Train Your Neural ODE", 2020.
    """

    in_nats: ClassVar[tuple[str, ...]] = ("loss", "nll")

    solver: RungeKutta4
    kinetic_penalty: float = 0.0
    jacobian_penalty: float = 0.0

    def latent(self, bijection, y):
        bijection, y, context = apart(bijection, y)
        # The finer grid notices if the velocity has become too rough for the steps of training.
        solver = self._training_solver() if torch.is_grad_enabled() else self.solver.refined()
        return bijection.map(y, context, solver=solver)

    def _training_solver(self):
        return replace(self.solver, jitter=JITTER)

    def losses(self, bijection, y, weight):
        if not (self.kinetic_penalty or self.jacobian_penalty):
            return super().losses(bijection, y, weight)
        bijection, y, context = apart(bijection, y)
        solver = self._training_solver()
        solution = bijection.solve(y, context, solver=solver, energies=True)
        nll = -standard_normal_log_prob(solution.x) - solution.log_det.mean(-2)
        kinetic, jacobian = solution.energies.unbind(-2)
        loss = nll + self.kinetic_penalty * kinetic + self.jacobian_penalty * jacobian
        parts = {"loss": loss, "nll": nll, "kinetic": kinetic, "jacobian": jacobian}
        return {name: (weight * part).sum(-1) for name, part in parts.items()}


@dataclass(frozen=True)
class FlowMatching(SolvedLikelihood):
    """Regression of the velocity on the velocity of straight paths from each row to noise.

    The loss is the squared error, averaged over the columns. The Jacobian penalty is averaged too;
    the kinetic one has no effect, since the paths are given.

    Parameters
    ----------
    solver : RungeKutta4
        On a grid twice as fine, it compares epochs, every fifth one.
    kinetic_penalty, jacobian_penalty
        See `SolvedLikelihood`.
    coupling : {"independent", "optimal_transport"}, default="independent"
        How the rows of a batch are paired with noise.

    References
    ----------
    Lipman, Chen, Ben-Hamu, Nickel & Le, "Flow Matching for Generative Modeling", 2023.

    Tong et al., "Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
    Transport", 2024.
    """

    in_nats: ClassVar[tuple[str, ...]] = ()
    validated_every: ClassVar = 5  # a solution costs as much as many steps of matching

    coupling: str = "independent"

    def losses(self, bijection, y, weight):
        bijection, y, context = apart(bijection, y)
        draws = self._draws_for_each_row if bijection.training else self._shared_draws
        t, x, noise = draws(y.mT, weight)
        if context is not None:
            context = context.mT.repeat_interleave(x.shape[-1] // y.shape[-2], -1)
        between = x + t.unsqueeze(-2) * (noise - x)
        with_slopes = self.jacobian_penalty > 0
        masks = bijection.velocity.dropout_masks(between)
        velocity, slopes = bijection.velocity(t, between, context, slopes=with_slopes, masks=masks)
        error = (velocity - (noise - x)).square().mean(-2)
        # Also by the name "matching", because epochs of another objective have a loss in nats.
        parts = {"loss": error, "matching": error}
        if with_slopes:
            moved = bijection.velocity.jvp(slopes, bijection.probes_for(between))
            jacobian = moved.square().sum(-3).mean(-2) / x.shape[-2]
            parts |= {"loss": error + self.jacobian_penalty * jacobian, "jacobian": jacobian}
        draws_of_row = weight.shape[-1], -1
        return {
            name: (weight * part.unflatten(-1, draws_of_row).mean(-1)).sum(-1)
            for name, part in parts.items()
        }

    def _draws_for_each_row(self, x, weight):
        """Return several draws of time and noise for each column, times stratified over all."""
        couple = COUPLINGS[self.coupling]
        noise = [couple(x, normal_draws(x), weight) for _ in range(N_DRAWS)]
        x = x.repeat_interleave(N_DRAWS, -1)
        order = uniform_draws(x[..., 0, :]).argsort(-1)
        t = (order + uniform_draws(x[..., 0, :])) / x.shape[-1]
        return early(t), x, torch.stack(noise, -1).flatten(-2)

    def _shared_draws(self, x, weight):
        """Return the same draws for every column, so that a repeated column counts twice."""
        *members, d, n = x.shape
        t = uniform_draws(x.new_empty(*members, SHARED_DRAWS))
        t = early((torch.arange(SHARED_DRAWS, device=x.device) + t) / SHARED_DRAWS)
        noise = normal_draws(x.new_empty(*members, d, SHARED_DRAWS))
        return (
            t.repeat(*[1] * len(members), n),
            x.repeat_interleave(SHARED_DRAWS, -1),
            noise.repeat(*[1] * (len(members) + 1), n),
        )
