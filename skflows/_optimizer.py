"""AdamW on one flat vector of weights, and schedules of its rate."""

import copy
import math
import time
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.optim.adamw import adamw

from . import _fused
from ._affine import masked_layers

WARM_UP = 0.05  # fraction of the steps over which the rate rises
MAX_GRADIENT_NORM = 5.0
EARLY = 9  # steps after which the average still moves by half: early weights are far from the end
IN_ONE_PASS = "cpu", "cuda"  # where torch's one pass of AdamW can clip, and can do nothing
ADAM: dict[str, Any] = {
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-6,  # larger than rounding, which would else move weights of no gradient
    "amsgrad": False,
    "maximize": False,
}

# The state of an optimiser that has a row for each member.
OF_MEMBERS = "weights average moment square n_steps alive learning_rate weight_decay".split()


def per_member(value, n_members):
    """A number, or one for each member, as a list of the latter."""
    return torch.as_tensor(value, dtype=torch.float64).expand(n_members).tolist()


class FlatOptimizer:
    """AdamW and a moving average over all weights of a module as one vector for each member.

    The parameters become views of the rows of a matrix until `release`: one row for each member
    of a stack, and a single one for any other module. A step is then a few passes over that
    matrix, however many parameters there are. On a CPU or a GPU by CUDA it never waits for the
    device.

    Weights that a mask hides are 0 from the start to `release`, so that layers need not mask them.

    A member whose loss or gradient is not finite stands still from that step until `restart`.

    References
    ----------
    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    def __init__(
        self,
        module,
        learning_rate,
        weight_decay=0.0,
        ema_decay=0.0,
        state=None,
        n_members=1,
    ):
        values = [p.detach().reshape(n_members, -1) for p in module.parameters()]
        self.weights = torch.cat(values, dim=1)
        self.mask = self._mask_of(module)
        if self.mask is not None:
            self.weights *= self.mask
        self.average = self.weights.clone()
        self.moment = torch.zeros_like(self.weights)
        self.square = torch.zeros_like(self.weights)
        # Of each member, as columns.
        self.n_steps = self._column(0.0).float()
        self.alive = torch.ones_like(self.n_steps, dtype=torch.bool)
        self.learning_rate = self._column(learning_rate)
        self.weight_decay = self._column(weight_decay)
        self.ema_decay = ema_decay
        for name, value in (state or {}).items():
            getattr(self, name)[0] = value
        self._attach(module)

    def _mask_of(self, module):
        """0 for each weight of a member that a mask hides and 1 for others, or None."""
        masks = {id(layer.weight): layer.mask for layer in masked_layers(module)}
        if not masks:
            return None
        n_members = len(self.weights)
        parts = []
        for p in module.parameters():
            mask = masks.get(id(p))
            parts.append(p.new_ones(p.numel() // n_members) if mask is None else mask.flatten())
        return torch.cat(parts)

    def _attach(self, module):
        self.parameters = list(module.parameters())
        self.shapes = [p.shape for p in self.parameters]
        sizes = [p.numel() // len(self.weights) for p in self.parameters]
        self.begins = torch.tensor([0, *accumulate(sizes)], device="cpu")  # for compiled code

        def parts(rows):
            return [part.view(s) for part, s in zip(rows.split(sizes, 1), self.shapes, strict=True)]

        self.gradient = torch.zeros_like(self.weights)
        self.views, self.averages = parts(self.weights), parts(self.average)
        self.slots = parts(self.gradient)
        self._point_to(self.views)
        self.layers = masked_layers(module)
        for layer in self.layers:
            layer.weight_is_masked = True
        # What a step is told of each member, in the precision that torch's one pass takes.
        self.rate, self.excess, self.lost = told = self.n_steps.repeat(3, 1, 1)
        rows = self.weights, self.gradient, self.moment, self.square, self.n_steps, *told
        self.rows = list(zip(*rows, self.weight_decay.flatten().tolist(), strict=True))

    def narrowed(self, module, members):
        """An optimiser that goes on with some of the members, which are those of ``module``."""
        other = copy.copy(self)
        for name in OF_MEMBERS:
            setattr(other, name, getattr(self, name)[members])
        other._attach(module)
        return other

    def _column(self, value):
        values = per_member(value, len(self.weights))
        return self.weights.new_tensor(values).unsqueeze(1)

    def state(self):
        """What a later optimiser of a single member needs to go on as this one would."""
        return {name: getattr(self, name)[0].clone() for name in ("n_steps", "moment", "square")}

    @torch.inference_mode()
    def step(self, loss, gradients, factor):
        """Move each living member against the gradient of its loss.

        Parameters
        ----------
        loss : Tensor of shape () or (M,)
            Of each member: of it counts only whether it is finite.
        gradients : sequence of Tensor
            Of what is minimised, one for each of the parameters, in their order.
        factor : float
            Of the learning rates.

        Returns
        -------
        alive : Tensor of shape (M, 1)
            Which members moved.
        """
        loss = loss.to(self.weights.dtype).reshape(-1).expand(len(self.weights)).contiguous()
        is_fused = _fused.serves(self.weights, loss) and _fused.takes(self.weights, *gradients)
        if is_fused and [gradient.shape for gradient in gradients] == self.shapes:
            self._move_fused(loss, gradients, factor)
        else:
            self._move(loss, gradients, factor)
        return self.alive

    def _move_fused(self, loss, gradients, factor):
        """What `_move` does, by compiled code, which finds the gradients where they lie."""
        betas = ADAM["beta1"], ADAM["beta2"], ADAM["eps"]
        settings = factor, MAX_GRADIENT_NORM, *betas, EARLY, 1 - self.ema_decay
        moved = self.weights, self.average, self.moment, self.square
        gradients = [gradient.contiguous() for gradient in gradients]
        addresses = np.array([gradient.data_ptr() for gradient in gradients], dtype=np.int64)
        parts = torch.from_numpy(addresses), self.begins
        told = self.mask, loss, self.learning_rate, self.weight_decay
        sizes = *self.weights.shape, len(gradients)
        _fused.run("adam", settings, sizes, *moved, *parts, *told, self.n_steps, self.alive)

    def _move(self, loss, gradients, factor):
        torch._foreach_copy_(self.slots, gradients)
        if self.mask is not None:
            self.gradient *= self.mask
        norm = torch.linalg.vector_norm(self.gradient, dim=1, keepdim=True)
        self.alive &= loss.view(-1, 1).abs() + norm < math.inf
        self.n_steps += self.alive
        torch.mul(self.learning_rate, factor, out=self.rate)
        torch.div(norm, MAX_GRADIENT_NORM, out=self.excess).clamp_(min=1.0)
        torch.logical_not(self.alive, out=self.lost)
        for row in self.rows:
            self._adam(*row)
        n_steps = self.n_steps.to(self.weights.dtype)
        share = (EARLY / (EARLY + 1 + n_steps)).clamp(min=1 - self.ema_decay)
        self.average.lerp_(self.weights, share * self.alive)

    @staticmethod
    def _adam(weights, gradient, moment, square, n_steps, rate, excess, lost, decay):
        """What `torch.optim.AdamW` does to one member, in one pass where torch has it."""
        if weights.device.type in IN_ONE_PASS:
            # It divides the gradient by the one, and does nothing where the other is 1.
            torch._fused_adamw_(
                [weights],
                [gradient],
                [moment],
                [square],
                [],
                [n_steps],
                lr=rate,
                weight_decay=decay,
                grad_scale=excess,
                found_inf=lost,
                **ADAM,
            )
        elif not lost:
            adamw(
                [weights],
                [gradient / excess],
                [moment],
                [square],
                [],
                [n_steps - 1],
                lr=rate.item(),
                weight_decay=decay,
                foreach=False,
                fused=False,
                **ADAM,
            )

    def restart(self, i, weights, factor):
        """Take member i back to ``weights``, with no memory of its steps and a lower rate."""
        self.weights[i] = weights
        self.average[i] = weights
        for state in (self.n_steps, self.moment, self.square):
            state[i] = 0.0
        self.learning_rate[i] *= factor
        self.alive[i] = True

    def load(self, weights):
        self.weights.copy_(weights)

    def _point_to(self, views):
        for p, view in zip(self.parameters, views, strict=True):
            p.data = view

    @contextmanager
    def averaged(self):
        """The module holds the averaged weights in this context, which takes no copy."""
        self._point_to(self.averages)
        try:
            yield
        finally:
            self._point_to(self.views)

    def release(self):
        """Give each parameter its own memory again."""
        for p in self.parameters:
            p.data = p.data.clone(memory_format=torch.contiguous_format)
        for layer in self.layers:
            del layer.weight_is_masked


def cosine_with_warm_up(step, n_steps):
    """Factor on the learning rate at ``step`` of ``n_steps``."""
    warm_up = max(1, round(WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))


class Paced:
    """A schedule that ends in time: the steps it counts are at least the share of time passed.

    Parameters
    ----------
    schedule : callable
        ``schedule(step, n_steps)``, which is 0 at ``n_steps``.
    seconds : float
        From the start to the end.
    started : float
        When that was, by `time.monotonic`.
    """

    def __init__(self, schedule, seconds, started):
        self.schedule = schedule
        self.seconds = seconds
        self.started = started

    def __call__(self, step, n_steps):
        passed = (time.monotonic() - self.started) / self.seconds
        if passed >= 1:
            return 0.0
        return self.schedule(max(step, passed * n_steps), n_steps)


def constant(step, n_steps):
    """No schedule: for increments whose number nobody knows."""
    return 1.0
