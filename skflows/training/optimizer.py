"""AdamW on one flat vector of weights, and learning-rate schedules."""

import copy
import math
from contextlib import contextmanager

import torch

from ..callbacks._run import clock

WARM_UP = 0.05  # fraction of the steps over which the rate rises
MAX_GRADIENT_NORM = 5.0
BETA1, BETA2 = 0.9, 0.999
EPS = 1e-6  # larger than rounding errors, which would otherwise move weights without a gradient
# Steps after which the moving average still moves by half: early weights are far from the end.
EARLY_STEPS = 9

# State with one entry per member.
MEMBER_STATE = (
    "weights",
    "average",
    "moment",
    "square",
    "n_steps",
    "alive",
    "learning_rate",
    "weight_decay",
)


def per_member(value, n_members):
    """Return a number, or one for each member, as a list of the latter."""
    return torch.as_tensor(value, dtype=torch.float64).expand(n_members).tolist()


class FlatAdamW:
    """AdamW with clipped gradients, and a moving average of the weights.

    The parameters of a module become views of a matrix, until `release`: one row for each member of
    a stack, or a single row. A step is then a few passes over that matrix, however many parameters
    there are, and it never waits for the device.

    The weights of a member whose loss or gradient is not finite stand still from that step until
    `restart`.

    Parameters
    ----------
    module : Module
        The module to train.
    learning_rate, weight_decay : float, or one for each member
        See `torch.optim.AdamW`.
    ema_decay : float, default=0.0
        Decay of the moving average; 0 for none.
    state : dict, optional
        What `state` returned, for a single member.
    n_members : int, default=1
        Number of members of a stack.

    References
    ----------
    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    def __init__(
        self, module, learning_rate, weight_decay=0.0, ema_decay=0.0, state=None, n_members=1
    ):
        values = [p.detach().reshape(n_members, -1) for p in module.parameters()]
        self.weights = torch.cat(values, dim=1)
        self.average = self.weights.clone()
        self.moment = torch.zeros_like(self.weights)
        self.square = torch.zeros_like(self.weights)
        self.n_steps = self.weights.new_zeros(n_members)
        self.alive = torch.ones_like(self.n_steps, dtype=torch.bool)
        self.learning_rate = self.weights.new_tensor(per_member(learning_rate, n_members))
        self.weight_decay = self.weights.new_tensor(per_member(weight_decay, n_members))
        self.betas = self.weights.new_tensor([[BETA1], [BETA2]])
        self.ema_decay = ema_decay
        for name, value in (state or {}).items():
            getattr(self, name)[0] = value
        self._attach(module)

    def _attach(self, module):
        self.parameters = list(module.parameters())
        self.gradient = torch.empty_like(self.weights)
        self._views = self._split(self.weights)
        self._average_views = self._split(self.average)
        self._point_to(self._views)

    def _split(self, rows):
        """Return views of the rows in the shapes of the parameters."""
        sizes = [p.numel() // len(rows) for p in self.parameters]
        parts = zip(rows.split(sizes, 1), self.parameters, strict=True)
        return [part.view(p.shape) for part, p in parts]

    def narrowed(self, module, members):
        """Return an optimizer that continues with some of the members, now in ``module``."""
        other = copy.copy(self)
        for name in MEMBER_STATE:
            setattr(other, name, getattr(self, name)[members])
        other._attach(module)
        return other

    def state(self):
        """Return the state with which another optimizer can continue, for a single member."""
        return {name: getattr(self, name)[0].clone() for name in ("n_steps", "moment", "square")}

    @torch.inference_mode()
    def step(self, loss, gradients, factor):
        """Move each living member against the gradient of its loss.

        Parameters
        ----------
        loss : Tensor of shape () or (M,)
            Of each member; it only matters whether it is finite.
        gradients : sequence of Tensor
            One for each of the parameters, in their order.
        factor : float
            Factor on the learning rates.

        Returns
        -------
        alive : Tensor of shape (M,)
            Which members moved.
        """
        n_members = len(self.weights)
        torch.cat([g.reshape(n_members, -1) for g in gradients], 1, out=self.gradient)
        norm = torch.linalg.vector_norm(self.gradient, dim=1)
        self.alive &= loss.abs() + norm < math.inf
        self.n_steps += self.alive
        n_steps = self.n_steps.clamp(min=1)
        rate = factor * self.learning_rate * self.alive
        bias = (1 - self.betas**n_steps).unsqueeze(-1)
        clip = torch.where(self.alive, MAX_GRADIENT_NORM / norm.clamp(min=MAX_GRADIENT_NORM), 0.0)
        decay = 1 - rate * self.weight_decay
        share = (EARLY_STEPS / (EARLY_STEPS + 1 + n_steps)).clamp(min=1 - self.ema_decay)
        # In place and in one buffer: new memory for each term would take most of the time. Zeros
        # take the place of NaN, which would not vanish if it were multiplied by 0.
        term = self.gradient.nan_to_num_(0.0, 0.0, 0.0)
        term *= clip.unsqueeze(-1)
        self.moment.lerp_(term, 1 - BETA1)
        self.square.lerp_(term.square_(), 1 - BETA2)
        torch.div(self.square, bias[1], out=term).sqrt_().add_(EPS)
        torch.div(self.moment, term, out=term).mul_(rate.unsqueeze(-1) / bias[0])
        self.weights *= decay.unsqueeze(-1)
        self.weights -= term
        self.average.lerp_(self.weights, share.unsqueeze(-1))
        return self.alive

    def restart(self, i, weights, factor):
        """Reset member i to ``weights``, without memory of its steps and at a lower rate."""
        self.weights[i] = weights
        self.average[i] = weights
        for state in (self.n_steps, self.moment, self.square):
            state[i] = 0.0
        self.learning_rate[i] *= factor
        self.alive[i] = True

    def load(self, weights):
        """Set the weights of all members."""
        self.weights.copy_(weights)

    def _point_to(self, views):
        for p, view in zip(self.parameters, views, strict=True):
            p.data = view

    @contextmanager
    def averaged(self):
        """Let the module hold the averaged weights in this context, without a copy."""
        self._point_to(self._average_views)
        try:
            yield
        finally:
            self._point_to(self._views)

    def release(self):
        """Give each parameter its own memory again."""
        for p in self.parameters:
            p.data = p.data.clone(memory_format=torch.contiguous_format)


def cosine_with_warm_up(step, n_steps):
    """Return the factor on the learning rate at ``step`` of ``n_steps``."""
    warm_up = max(1, round(WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))


def constant(step, n_steps):
    """Return 1: for increments whose number is unknown."""
    return 1.0


class TimeLimited:
    """A schedule that follows the clock if the steps fall behind it.

    It is 0, which ends the training, as soon as another step would end too late.

    Parameters
    ----------
    schedule : callable
        ``schedule(step, n_steps)``, which is 0 at ``n_steps``.
    seconds : float
        From the start to the end.
    started : float
        The start, by the clock.
    clock : callable, default=clock
        Returns the time in seconds.
    """

    def __init__(self, schedule, seconds, started, clock=clock):
        self.schedule = schedule
        self.seconds = seconds
        self.started = started
        self.clock = clock
        self.before = None  # when the last step began

    def __call__(self, step, n_steps):
        now = self.clock()
        last_step = 0.0 if self.before is None else now - self.before
        self.before = now
        passed = (now - self.started) / self.seconds
        if passed + last_step / self.seconds >= 1:
            return 0.0
        return self.schedule(max(step, passed * n_steps), n_steps)


def limited(seconds, started, clock=clock):
    """Return the cosine schedule with warm-up, by the clock too if ``seconds`` is not None."""
    if seconds is None:
        return cosine_with_warm_up
    return TimeLimited(cosine_with_warm_up, seconds, started, clock)
