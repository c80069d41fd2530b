"""Solvers of ordinary differential equations, for many rows at once.

A state is a matrix of columns, ``(n_state, n)``: one column for each row of a table, which shares
nothing with the others. A stack has a leading member axis. The time is ``(n,)`` or ``(1,)``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch.utils.checkpoint import checkpoint

from ._draws import uniform_draws

# Dormand & Prince, "A Family of Embedded Runge-Kutta Formulae", 1980. The last row of the stages
# is the solution of order 5, and its slope the first one of the next step.
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
SAFETY, LEAST_FACTOR, LARGEST_FACTOR = 0.9, 0.2, 10.0
LEAST_STEP = 2.0**-12  # of the way: a step as small is taken, whatever its error
ROUNDING = 32  # of the dtype: no tolerance below it can be met
COMPACTED = 0.125  # fraction of rows at the end from which on they leave the others


def weighted_sum(slopes, weights):
    """Sum of slopes times weights, of which those that are 0 cost nothing."""
    total = None
    for slope, weight in zip(slopes, weights, strict=False):
        if weight:
            total = weight * slope if total is None else total.add(slope, alpha=weight)
    return total


class Solver(ABC):
    """How an equation is solved from ``start`` to ``end``."""

    @abstractmethod
    def refined(self):
        """The same solver with half the tolerance, or twice the steps."""

    @abstractmethod
    def solve(self, slope, state, start, end):
        """Integrate ``slope(time, state, rows)`` over the time from start to end.

        Parameters
        ----------
        slope : callable
            Derivative of a state. ``rows`` are the indices of the columns in it, None for all.
        state : Tensor of shape (n_state, n), or (M, n_state, n) for a stack
            The columns at the start.
        start, end : float
            Times, in either order.

        Returns
        -------
        state : Tensor
            The columns at the end.
        n_evaluations : Tensor of shape (n,) or (M, n)
            Evaluations of the slope for each column.
        """


@dataclass(frozen=True)
class RungeKutta4(Solver):
    """The classical method of order 4, on a fixed grid.

    Parameters
    ----------
    n_steps : int, default=8
        Number of steps, all of one size.
    adjoint : bool, default=False
        Whether to keep no more than the state at each step for the gradient, and to go through
        the steps again on the way back: the same gradient in less memory.
    jitter : float, default=0.0
        Part of a step over which the inner points of the grid are spread, anew in each solution.
        What is trained on a grid that never moves learns to hide from it.
    """

    n_steps: int = 8
    adjoint: bool = False
    jitter: float = 0.0

    def refined(self):
        return replace(self, n_steps=2 * self.n_steps)

    def solve(self, slope, state, start, end):
        for time, following in pairwise(self._nodes(state, start, end)):
            args = slope, state, time, following - time
            if self.adjoint and torch.is_grad_enabled():
                state = checkpoint(rk4_step, *args, use_reentrant=False, preserve_rng_state=False)
            else:
                state = rk4_step(*args)
        count = torch.full_like(state[..., 0, :], 4 * self.n_steps, dtype=torch.int64)
        return state, count

    def _nodes(self, state, start, end):
        """Ends of the steps, each of shape ``(1,)`` or ``(M, 1)``, inner ones moved if asked to."""
        nodes = torch.arange(self.n_steps + 1, dtype=state.dtype, device=state.device)
        nodes = nodes.expand(*state.shape[:-2], -1)
        if self.jitter:
            inner = nodes[..., 1:-1]
            moved = inner + self.jitter * (uniform_draws(inner) - 0.5)
            nodes = torch.cat([nodes[..., :1], moved, nodes[..., -1:]], -1)
        return (start + (end - start) / self.n_steps * nodes).split(1, -1)


def rk4_step(slope, state, time, step):
    """One step of columns from a time on."""
    h = step.unsqueeze(-2)
    first = slope(time, state, None)
    second = slope(time + step / 2, state + h / 2 * first, None)
    third = slope(time + step / 2, state + h / 2 * second, None)
    last = slope(time + step, state + h * third, None)
    return state + h / 6 * (first + 2 * (second + third) + last)


@dataclass(frozen=True)
class DormandPrince(Solver):
    """The method of orders 5 and 4 with a step size for each row.

    What a row is mapped to does not depend on which rows are mapped together.

    Parameters
    ----------
    tolerance : float, default=1e-6
        Error allowed in each step, absolute and relative, in each component.

    References
    ----------
    Hairer, Norsett & Wanner, "Solving Ordinary Differential Equations I", 1993, II.4.
    """

    tolerance: float = 1e-6

    def refined(self):
        return replace(self, tolerance=self.tolerance / 2)

    def solve(self, slope, state, start, end):
        span = end - start
        # Of the way from start to end, in [0, 1].
        way = torch.zeros_like(state[..., 0, :])
        rows = None
        done, done_rows, done_counts = [], [], []

        def along(way, state):
            return span * slope(start + span * way, state, rows)

        tolerance = max(self.tolerance, ROUNDING * torch.finfo(state.dtype).eps)
        first = along(way, state)
        step = self._first_step(along, way, state, first, tolerance)
        count = torch.full_like(way, 2, dtype=torch.int64)
        while True:
            step = torch.minimum(step, 1 - way)
            h = step.unsqueeze(-2)
            slopes = [first]
            for weights, node in zip(STAGES, NODES, strict=True):
                end_of_stage = state + h * weighted_sum(slopes, weights)
                slopes.append(along(way + node * step, end_of_stage))
            with torch.no_grad():
                size = torch.maximum(state.abs(), end_of_stage.abs())
                error = h * weighted_sum(slopes, ERROR) / (tolerance * (1 + size))
                ratio = error.abs().amax(-2)
                count = count + 6 * (step > 0)
                accepted = (ratio <= 1) | (step <= LEAST_STEP)
                last = accepted & (step >= 1 - way)
                way = torch.where(last, 1.0, torch.where(accepted, way + step, way))
                factor = SAFETY * ratio.clamp(min=1e-10) ** -0.2
                factor = factor.nan_to_num(LEAST_FACTOR).clamp(LEAST_FACTOR, LARGEST_FACTOR)
                step = (step * factor).clamp(min=LEAST_STEP)
                # What is not finite after the least step will not become so.
                way = torch.where(accepted & ~ratio.isfinite(), 1.0, way)
            state = torch.where(accepted.unsqueeze(-2), end_of_stage, state)
            first = torch.where(accepted.unsqueeze(-2), slopes[-1], first)
            finished = way >= 1
            share = finished.double().mean().item()
            if share == 1 and rows is None:
                return state, count
            if state.dim() == 2 and share > COMPACTED:
                if rows is None:
                    rows = torch.arange(state.shape[-1], device=state.device)
                done.append(state[:, finished])
                done_rows.append(rows[finished])
                done_counts.append(count[finished])
                going = ~finished
                if share == 1:
                    break
                state, first, rows = state[:, going], first[:, going], rows[going]
                way, step, count = way[going], step[going], count[going]
        order = torch.cat(done_rows).argsort()
        return torch.cat(done, 1)[:, order], torch.cat(done_counts)[order]

    @staticmethod
    @torch.no_grad()
    def _first_step(along, way, state, first, tolerance):
        """A step over which the solution changes by little, from its first two derivatives."""
        scale = tolerance * (1 + state.abs())
        size = (state / scale).abs().amax(-2)
        speed = (first / scale).abs().amax(-2)
        tiny = 1e-5
        small = torch.where((size > tiny) & (speed > tiny), 0.01 * size / speed, 1e-6)
        small = small.clamp(LEAST_STEP, 1.0)
        second = along(way + small, state + small.unsqueeze(-2) * first)
        bend = ((second - first) / scale).abs().amax(-2) / small
        most = torch.maximum(speed, bend)
        step = torch.where(most > 1e-15, (0.01 / most) ** 0.2, 1.0)
        return torch.minimum(100 * small, step).nan_to_num(LEAST_STEP).clamp(LEAST_STEP, 1.0)
