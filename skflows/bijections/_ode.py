"""Solvers of ordinary differential equations, for many rows at once.

A state has the shape ``(n_state, n)``: one column for each row of a table, independent of the
others. A stack has a leading member axis. Times have the shape ``(n,)`` or ``(1,)``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch.utils.checkpoint import checkpoint

from ..nn.random_draws import uniform_draws

# Dormand & Prince, "A Family of Embedded Runge-Kutta Formulae", 1980. The last row of the stages is
# the solution of order 5, and its slope the first one of the next step.
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
SAFETY, MIN_FACTOR, MAX_FACTOR = 0.9, 0.2, 10.0
MIN_STEP = 2.0**-12  # fraction of the interval: a step this small is accepted whatever its error
ROUNDING = 32  # in units of the dtype's epsilon: no tolerance below it can be met
COMPACTED = 0.125  # fraction of finished rows from which on they are removed from the state


def weighted_sum(slopes, weights):
    """Return the sum of slopes times weights, leaving out weights of 0."""
    total = None
    for slope, weight in zip(slopes, weights, strict=False):
        if weight:
            total = weight * slope if total is None else total.add(slope, alpha=weight)
    return total


class Solver(ABC):
    """A method to integrate an equation from ``start`` to ``end``."""

    @abstractmethod
    def refined(self):
        """Return the same solver with half the tolerance, or twice the steps."""

    @abstractmethod
    def solve(self, slope, state, start, end):
        """Integrate ``slope(time, state, rows)`` over the time from start to end.

        Parameters
        ----------
        slope : callable
            Derivative of a state. ``rows`` are the indices of the columns in it, None for all.
        state : Tensor of shape (n_state, n), or (M, n_state, n) for a stack
            The state at the start.
        start, end : float
            Times, in either order.

        Returns
        -------
        state : Tensor
            The state at the end.
        n_evaluations : Tensor of shape (n,) or (M, n)
            Evaluations of the slope for each column.
        """


@dataclass(frozen=True)
class RungeKutta4(Solver):
    """The classical Runge-Kutta method of order 4, on a fixed grid.

    Parameters
    ----------
    n_steps : int, default=8
        Number of steps of equal size.
    checkpointing : bool, default=False
        Whether to keep only the state at each step for the gradient, and to recompute the steps in
        the backward pass: the same gradient in less memory.
    jitter : float, default=0.0
        Fraction of a step by which the inner points of the grid are moved at random in each
        solution. A network that is trained on a fixed grid can learn to be inaccurate between its
        points.
    """

    n_steps: int = 8
    checkpointing: bool = False
    jitter: float = 0.0

    def refined(self):
        return replace(self, n_steps=2 * self.n_steps)

    def solve(self, slope, state, start, end):
        for time, next_time in pairwise(self._times(state, start, end)):
            args = slope, state, time, next_time - time
            if self.checkpointing and torch.is_grad_enabled():
                state = checkpoint(rk4_step, *args, use_reentrant=False, preserve_rng_state=False)
            else:
                state = rk4_step(*args)
        count = torch.full_like(state[..., 0, :], 4 * self.n_steps, dtype=torch.int64)
        return state, count

    def _times(self, state, start, end):
        """Return the ends of the steps, each of shape ``(1,)`` or ``(M, 1)``."""
        steps = torch.arange(self.n_steps + 1, dtype=state.dtype, device=state.device)
        steps = steps.expand(*state.shape[:-2], -1)
        if self.jitter:
            inner = steps[..., 1:-1]
            moved = inner + self.jitter * (uniform_draws(inner) - 0.5)
            steps = torch.cat([steps[..., :1], moved, steps[..., -1:]], -1)
        return (start + (end - start) / self.n_steps * steps).split(1, -1)


def rk4_step(slope, state, time, step):
    """Return the state after one step."""
    h = step.unsqueeze(-2)
    first = slope(time, state, None)
    second = slope(time + step / 2, state + h / 2 * first, None)
    third = slope(time + step / 2, state + h / 2 * second, None)
    last = slope(time + step, state + h * third, None)
    return state + h / 6 * (first + 2 * (second + third) + last)


@dataclass(frozen=True)
class DormandPrince(Solver):
    """The Dormand-Prince method of orders 5 and 4, with a step size for each row.

    The solution of a row does not depend on which other rows are solved with it.

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
        progress = torch.zeros_like(state[..., 0, :])  # from 0 at the start to 1 at the end
        rows = None
        done, done_rows, done_counts = [], [], []

        def scaled_slope(progress, state):
            return span * slope(start + span * progress, state, rows)

        tolerance = max(self.tolerance, ROUNDING * torch.finfo(state.dtype).eps)
        first = scaled_slope(progress, state)
        step = self._first_step(scaled_slope, progress, state, first, tolerance)
        count = torch.full_like(progress, 2, dtype=torch.int64)
        while True:
            step = torch.minimum(step, 1 - progress)
            h = step.unsqueeze(-2)
            slopes = [first]
            for weights, node in zip(STAGES, NODES, strict=True):
                end_of_stage = state + h * weighted_sum(slopes, weights)
                slopes.append(scaled_slope(progress + node * step, end_of_stage))
            with torch.no_grad():
                size = torch.maximum(state.abs(), end_of_stage.abs())
                error = h * weighted_sum(slopes, ERROR) / (tolerance * (1 + size))
                ratio = error.abs().amax(-2)
                count = count + 6 * (step > 0)
                accepted = (ratio <= 1) | (step <= MIN_STEP)
                last = accepted & (step >= 1 - progress)
                moved = torch.where(accepted, progress + step, progress)
                progress = torch.where(last, 1.0, moved)
                factor = SAFETY * ratio.clamp(min=1e-10) ** -0.2
                factor = factor.nan_to_num(MIN_FACTOR).clamp(MIN_FACTOR, MAX_FACTOR)
                step = (step * factor).clamp(min=MIN_STEP)
                # A state that is not finite after the least step will not become so.
                progress = torch.where(accepted & ~ratio.isfinite(), 1.0, progress)
            state = torch.where(accepted.unsqueeze(-2), end_of_stage, state)
            first = torch.where(accepted.unsqueeze(-2), slopes[-1], first)
            finished = progress >= 1
            share = finished.double().mean().item()
            if share == 1 and rows is None:
                return state, count
            if state.dim() == 2 and share > COMPACTED:
                if rows is None:
                    rows = torch.arange(state.shape[-1], device=state.device)
                done.append(state[:, finished])
                done_rows.append(rows[finished])
                done_counts.append(count[finished])
                running = ~finished
                if share == 1:
                    break
                state, first, rows = state[:, running], first[:, running], rows[running]
                progress, step, count = progress[running], step[running], count[running]
        order = torch.cat(done_rows).argsort()
        return torch.cat(done, 1)[:, order], torch.cat(done_counts)[order]

    @staticmethod
    @torch.no_grad()
    def _first_step(scaled_slope, progress, state, first, tolerance):
        """Return a step over which the solution changes little, from its first two derivatives."""
        scale = tolerance * (1 + state.abs())
        size = (state / scale).abs().amax(-2)
        speed = (first / scale).abs().amax(-2)
        tiny = 1e-5
        small = torch.where((size > tiny) & (speed > tiny), 0.01 * size / speed, 1e-6)
        small = small.clamp(MIN_STEP, 1.0)
        second = scaled_slope(progress + small, state + small.unsqueeze(-2) * first)
        curvature = ((second - first) / scale).abs().amax(-2) / small
        largest = torch.maximum(speed, curvature)
        step = torch.where(largest > 1e-15, (0.01 / largest) ** 0.2, 1.0)
        return torch.minimum(100 * small, step).nan_to_num(MIN_STEP).clamp(MIN_STEP, 1.0)
