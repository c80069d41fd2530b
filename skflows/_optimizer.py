"""AdamW on one flat vector of weights, and schedules of its rate."""

import copy
import math
import time
from contextlib import contextmanager

import torch

WARM_UP = 0.05  # fraction of the steps over which the rate rises
MAX_GRADIENT_NORM = 5.0
BETAS = 0.9, 0.999
EPS = 1e-6  # of Adam: larger than rounding, which would else move weights of no gradient
TINY_RATE = 1e-30  # too small to move a weight, and large enough to divide by
# No square of a gradient that counts beside EPS. Roots of 0, as of all masked weights, take four
# times as long as others, and roots of numbers too small to be normal thirty times.
TINY_SQUARE = 1e-30

# The state of an optimiser that has a row for each member.
OF_MEMBERS = "weights average moment square n_steps alive learning_rate weight_decay".split()


def per_member(value, n_members):
    """A number, or one for each member, as a list of the latter."""
    return torch.as_tensor(value, dtype=torch.float64).expand(n_members).tolist()


class FlatOptimizer:
    """AdamW and a moving average over all weights of a module as one vector for each member.

    The parameters become views of the rows of a matrix until `release`: one row for each member
    of a stack, and a single one for any other module. A step is then a dozen passes over that
    matrix, however many parameters and members there are, and it never waits for the device.

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
        compile=False,
    ):
        values = [p.detach().reshape(n_members, -1) for p in module.parameters()]
        self.weights = torch.cat(values, dim=1)
        self._attach(module)
        self.gradient = torch.zeros_like(self.weights)
        self.average = self.weights.clone()
        self.moment = torch.zeros_like(self.weights)
        self.square = torch.zeros_like(self.weights)
        self.root = torch.empty_like(self.weights)
        # Of each member, as columns.
        self.n_steps = self._column(0.0)
        self.alive = torch.ones_like(self.n_steps, dtype=torch.bool)
        self.learning_rate = self._column(learning_rate)
        self.weight_decay = self._column(weight_decay)
        self.decays = bool(self.weight_decay.any())
        self.ema_decay = ema_decay
        for name, value in (state or {}).items():
            getattr(self, name)[0] = value
        self.compiled = torch.compile(self._move, dynamic=False) if compile else None

    def _attach(self, module):
        self.parameters = list(module.parameters())
        sizes = [p.numel() // len(self.weights) for p in self.parameters]
        for p, weights in zip(self.parameters, self.weights.split(sizes, 1), strict=True):
            p.data = weights.view_as(p)

    def narrowed(self, module, members):
        """An optimiser that goes on with some of the members, which are those of ``module``."""
        other = copy.copy(self)
        for name in OF_MEMBERS:
            setattr(other, name, getattr(self, name)[members])
        other.gradient = torch.zeros_like(other.weights)
        other.root = torch.empty_like(other.weights)
        other._attach(module)
        return other

    def _column(self, value):
        values = per_member(value, len(self.weights))
        return self.weights.new_tensor(values).unsqueeze(1)

    def state(self):
        """What a later optimiser of a single member needs to go on as this one would."""
        return {name: getattr(self, name)[0].clone() for name in ("n_steps", "moment", "square")}

    def step(self, loss, factor):
        """Move each living member against the gradient of its loss.

        Parameters
        ----------
        loss : Tensor of shape () or (M,)
            The loss of each member.
        factor : float
            Of the learning rates.

        Returns
        -------
        alive : Tensor of shape (M, 1)
            Which members moved.
        """
        gradients = torch.autograd.grad(loss.sum(), self.parameters, materialize_grads=True)
        rows = [gradient.reshape(len(self.weights), -1) for gradient in gradients]
        torch.cat(rows, dim=1, out=self.gradient)
        move = self.compiled or self._move
        move(loss.detach().view(-1, 1), factor * self.learning_rate)
        return self.alive

    def _move(self, loss, rate):
        norm = self.gradient.norm(dim=1, keepdim=True)
        self.alive &= (loss + norm).isfinite()
        # Through numbers: a mask would take several times as long.
        self.gradient.nan_to_num_(0.0, 0.0, 0.0)
        scale = (MAX_GRADIENT_NORM / (norm + 1e-12)).clamp(max=1.0)
        self.gradient *= torch.where(self.alive, scale, 0.0)
        self.n_steps += self.alive
        rate = rate * self.alive
        if self.decays:
            self.weights *= 1 - rate * self.weight_decay
        self._adam(rate)
        # Early weights are far from where they end: the decay grows with the step.
        self.average.lerp_(self.weights, (9 / (10 + self.n_steps)).clamp(min=1 - self.ema_decay))

    def _adam(self, rate):
        beta, beta_square = BETAS
        self.moment.lerp_(self.gradient, 1 - beta)
        self.square.mul_(beta_square).addcmul_(self.gradient, self.gradient, value=1 - beta_square)
        # Moments that started at 0 are too small by these factors.
        n_steps = self.n_steps.clamp(min=1)
        share, share_square = (-torch.expm1(n_steps * math.log(b)) for b in BETAS)
        # The rate goes into the denominator, which spares a pass. It may be 0, but not there.
        inverse_rate = share / rate.clamp(min=TINY_RATE)
        torch.add(self.square, TINY_SQUARE, out=self.root).sqrt_()
        self.root.mul_(inverse_rate / share_square.sqrt()).add_(EPS * inverse_rate)
        self.weights.addcdiv_(self.moment, self.root, value=-1.0)

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

    @contextmanager
    def averaged(self):
        """The module holds the averaged weights in this context."""
        current = self.weights.clone()
        self.load(self.average)
        try:
            yield
        finally:
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
