"""AdamW on one flat vector of weights, and schedules of its rate."""

import math
import time
from contextlib import contextmanager

import torch

WARM_UP = 0.05  # fraction of the steps over which the rate rises
MAX_GRADIENT_NORM = 5.0
EPS = 1e-6  # of Adam: larger than rounding, which would else move weights of no gradient


def per_member(value, n_members):
    """A number, or one for each member, as a list of the latter."""
    return torch.as_tensor(value, dtype=torch.float64).expand(n_members).tolist()


class FlatOptimizer:
    """AdamW and a moving average over all weights of a module as one vector for each member.

    The parameters become views of the rows of a matrix until `release`: one row for each member
    of a stack, and a single one for any other module. One fused step, one norm and one average
    then serve the whole module: for small networks the launch costs of per-parameter kernels
    would be a third of a training step.
    """

    def __init__(self, module, weight_decay, ema_decay, state=None, n_members=1):
        self.parameters = list(module.parameters())
        values = [p.detach().reshape(n_members, -1) for p in self.parameters]
        sizes = [value.shape[1] for value in values]
        self.weights = torch.cat(values, dim=1)
        self.gradient = torch.zeros_like(self.weights)
        self.average = self.weights.clone()
        for p, weights in zip(self.parameters, self.weights.split(sizes, 1), strict=True):
            p.data = weights.view_as(p)
        self.weight_decay = per_member(weight_decay, n_members)
        self.ema_decay = ema_decay
        self.n_steps = [0] * n_members
        self.adams = [self._start_adam(i) for i in range(n_members)]
        if state:
            self.adams[0].load_state_dict(state)

    def _start_adam(self, i):
        weights = torch.nn.Parameter(self.weights[i])
        weights.grad = self.gradient[i]
        decay = self.weight_decay[i]
        return torch.optim.AdamW([weights], eps=EPS, weight_decay=decay, fused=True)

    def step(self, loss, *learning_rates):
        """Move each member against the gradient of its loss, if all of that is finite.

        Returns
        -------
        finite : list of bool
            Which members moved.
        """
        gradients = torch.autograd.grad(loss.sum(), self.parameters, materialize_grads=True)
        rows = [gradient.reshape(len(self.weights), -1) for gradient in gradients]
        torch.cat(rows, dim=1, out=self.gradient)
        norm = self.gradient.norm(dim=1, keepdim=True)
        finite = (loss.detach().view(-1, 1) + norm).isfinite().flatten().tolist()
        self.gradient *= (MAX_GRADIENT_NORM / (norm + 1e-12)).clamp(max=1.0)
        gains = []
        for i, (adam, rate) in enumerate(zip(self.adams, learning_rates, strict=True)):
            if finite[i]:
                adam.param_groups[0]["lr"] = rate
                adam.step()
                self.n_steps[i] += 1
            # Early weights are far from where they end: the decay grows with the step.
            decay = min(self.ema_decay, (1 + self.n_steps[i]) / (10 + self.n_steps[i]))
            gains.append(1 - decay)
        self.average.lerp_(self.weights, self.weights.new_tensor(gains)[:, None])
        return finite

    def restart(self, i, weights):
        """Take member i back to ``weights`` with no memory of the steps since."""
        self.weights[i] = weights
        self.average[i] = weights
        self.adams[i] = self._start_adam(i)

    def load(self, weights):
        self.weights.copy_(weights)

    @contextmanager
    def averaged(self):
        """The module holds the averaged weights in this context."""
        current = self.weights.clone()
        self.load(self.average)
        yield
        self.load(current)

    def release(self):
        """Give each parameter its own memory again."""
        for p in self.parameters:
            p.data = p.data.clone(memory_format=torch.contiguous_format)


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
