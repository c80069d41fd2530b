"""Mixtures of flows of y given its context, as sources of distributions."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri
from scipy.stats import norm, qmc

from ..distribution.distribution import in_blocks
from ..distribution.normal import LOG_SQRT_2PI, log_normal_mass
from ..preprocessing.dequantizer import Dequantizer
from ._circle import Circle
from ._value_probabilities import ValueProbabilities

N_NODES, NODES_PER_FLOW = 81, 8
SPREAD = 2.0  # of the nodes in the latent space, in standard deviations
GOLDEN = (5**0.5 - 1) / 2
TOLERANCE = 1e-8  # of a quantile, in probability
MAX_STEPS = 120


@dataclass(eq=False)
class FlowMixture:
    """A mixture of the densities of several flows, a `Source` of a distribution.

    Parameters
    ----------
    flows : list of Flow or ValueProbabilities
        Flows map y and the context side by side.
    signs : list of float
        1 for each flow whose first coordinate grows with y, otherwise -1.
    weights : ndarray of shape (n_flows,)
        The weight of each flow.
    circle : Circle
        Which outputs wrap around.
    dequantizer : Dequantizer
        Which outputs are discrete.
    bounds : ndarray of shape (n_outputs, 2) or None
        Between which y lies.
    moment_ends : ndarray of shape (n_outputs, 2)
        The `plausible_ends` of the outputs.
    context : ndarray of shape (n, n_context)
        The encoded rows of X.
    """

    flows: list
    signs: list
    weights: np.ndarray
    circle: Circle
    dequantizer: Dequantizer
    bounds: np.ndarray | None
    moment_ends: np.ndarray
    context: np.ndarray

    def of(self, indices):
        """Return the mixture of some of the flows."""
        flows, signs = ([each[i] for i in indices] for each in (self.flows, self.signs))
        weights = self.weights[list(indices)]
        return replace(self, flows=flows, signs=signs, weights=weights / weights.sum())

    @property
    def n(self):
        """Number of rows."""
        return len(self.context)

    @property
    def n_outputs(self):
        """Number of columns of y."""
        return len(self.circle.periods)

    @property
    def period(self):
        """The period of each output."""
        return self.circle.periods

    @property
    def start(self):
        """The least value of each circular output."""
        return self.circle.starts

    @cached_property
    def possible(self):
        """The grid of each output, None if it is not discrete."""
        grids = self.n_outputs * [None]
        for j, grid in zip(self.dequantizer.columns, self.dequantizer.grids(), strict=True):
            grids[j] = grid
        return grids

    def log_density(self, y, row):
        """Return the log-density of y in some rows."""
        y = self.circle.cut_open(y)
        if self.n_outputs == 1:
            of_values = self._log_probability if self.dequantizer else self._log_density_of_one
            return self._of_values(of_values, row, y[:, 0])

        def of_block(y, row):
            rows = np.column_stack([y, self.context[row]])
            return self.dequantizer.mean_density(self._log_density, rows)

        return in_blocks(of_block, y, row)

    def _log_density(self, rows):
        """Return the log-density of several outputs beside their context, before rounding."""
        map_rows = _evaluation().map_rows
        return self._mixed([map_rows(flow, "log_prob", rows)[0] for flow in self.flows])

    def _mixed(self, log_density):
        """Return the log-density of the mixture from the log-density under each flow."""
        weights = self.weights.reshape(-1, *[1] * (np.ndim(log_density) - 1))
        return logsumexp(log_density, axis=0, b=weights)

    def _log_density_of_one(self, given, y):
        """Return the log-density of a single output."""
        return self._mixed(logsumexp(self._latent(given, y)[1], axis=1))

    def _log_probability(self, given, y):
        """Return the log-density of a single, discrete output: a probability by the gap.

        Possible values have their whole cells, as in probabilities; others a cell of one gap.
        """
        grid, (gap,) = self.possible[0].unrolled(self.period[0]), self.dequantizer.gap
        is_possible, of_value = grid.has(y), (y - gap / 2, y + gap / 2)
        ends = (np.where(is_possible, *each) for each in zip(grid.cell(y), of_value, strict=True))
        low, high = (self._latent(given, end)[0] for end in ends)
        with np.errstate(invalid="ignore"):  # of infinite ends
            mass = log_normal_mass(low, (low + high) / 2, high, 0.0, 1.0)
        log_probability = self._mixed(logsumexp(np.where(low < high, mass, -np.inf), axis=1))
        return log_probability - np.log(gap)

    def _of_values(self, function, row, *values):
        """Return a function of values (m,) of a single output in some rows.

        The function gets the flows at the contexts of n rows, and values (k, n), so that networks
        see the context of neighbouring values of a row once.
        """
        k = n_neighbors(row)

        def of_block(row, *values):
            given = [at_contexts(flow, self.context[row]) for flow in self.flows]
            return function(given, *(each.T for each in values)).T

        tables = [each.reshape(-1, k) for each in values]
        flow, rows = self.flows[0], row[::k]
        return _evaluation().in_large_blocks(flow, of_block, rows, *tables, each=k).ravel()

    def _latent(self, given, y):
        """Return the normal quantiles of values (k, n) of a single output, by flow and image.

        Also return the log-density there: of a normal, plus the logarithm of the slope.
        """
        images = self.circle.images(y)
        rows = images.reshape(len(images) * len(y), *y.shape[1:], 1)
        if (rows == rows[:, :1]).all():  # such as each possible value of a discrete output
            rows = rows[:, :1]
        latent, log_slope = np.empty((2, len(given), *images.shape))
        for i, flow in enumerate(given):
            for whole, part in zip((latent, log_slope), flow.map("forward", rows), strict=True):
                whole[i] = part.reshape(len(images), len(y), -1)
        latent = latent * np.reshape(self.signs, (-1, 1, 1, 1))
        low, high = (-np.inf, np.inf) if self.bounds is None else self.bounds[0]
        latent[..., y <= low] = -np.inf  # where a flow is only nearly infinite
        latent[..., y >= high] = np.inf
        with np.errstate(invalid="ignore"):
            log_density = log_slope - 0.5 * latent**2 - LOG_SQRT_2PI
        return latent, np.where(np.isinf(latent), -np.inf, log_density)

    def cdf(self, y, row):
        """Return the probability of values up to y, a single output.

        If it is circular, the probabilities of its images are added up.
        """
        return self._of_values(lambda given, y: self._below(self._latent(given, y)[0]), row, y)

    def _below(self, latent):
        """Return the probability of values up to y from what `_latent` returns."""
        return np.tensordot(self.weights, ndtr(latent).sum(axis=1), 1)

    def ppf(self, q, row, low=None):
        """Return the quantiles of a single output; of a circular one, from `low` on.

        A quantile of the mixture lies between its members' quantiles.
        """
        if low is not None:
            return self._of_values(self._quantiles_from, row, q, low)
        return self._of_values(self._quantiles, row, q)

    def _quantiles_from(self, given, q, low):
        period = self.period[0]
        return self._root(given, q, low + period / 2, low, low + period)

    def _quantiles(self, given, q):
        latent = ndtri(q)[..., None]
        ends = np.array(
            [
                flow.map("inverse", sign * latent)[0][..., 0]
                for flow, sign in zip(given, self.signs, strict=True)
            ]
        )
        with np.errstate(over="ignore"):  # of quantiles of 0 and 1
            first = np.tensordot(self.weights, ends, 1)
        y = self._root(given, q, first, ends.min(axis=0), ends.max(axis=0))
        low, high = (-np.inf, np.inf) if self.bounds is None else self.bounds[0]
        return np.where(q > 0, np.where(q < 1, y, high), low)

    def _root(self, given, q, y, low, high):
        """Return where `cdf` is q (k, n), between two ends and from a first guess.

        By Newton's method, or bisection where a step leaves the interval or the last one did not
        halve the error.
        """
        whole = shape = q.shape
        q, y, low, high = (np.array(each).ravel() for each in (q, y, low, high))
        mapped, error = np.arange(len(q)), np.full(len(q), np.inf)
        left = np.flatnonzero(low < high)
        for _ in range(MAX_STEPS):
            if not len(left):
                break
            if 2 * len(left) < len(mapped):  # the others would be mapped for nothing
                place = np.searchsorted(mapped, left) % shape[-1]
                given = [flow.take(place) for flow in given]
                mapped, shape = left, (1, len(left))
            latent, log_density = self._latent(given, y[mapped].reshape(shape))
            some, at = np.searchsorted(mapped, left), y[left]
            excess = self._below(latent).ravel()[some] - q[left]
            slope = np.tensordot(self.weights, np.exp(log_density).sum(axis=1), 1).ravel()[some]
            low[left] = np.where(excess < 0, at, low[left])
            high[left] = np.where(excess < 0, high[left], at)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                step = at - excess / slope
            middle = (low[left] + high[left]) / 2
            is_inside = (step >= low[left]) & (step <= high[left])
            last, error[left] = error[left], np.abs(excess)
            step = np.where(is_inside & (error[left] <= last / 2), step, middle)
            is_open = (error[left] > TOLERANCE) & (low[left] < middle) & (middle < high[left])
            left = left[is_open]
            y[left] = step[is_open]
        return y.reshape(whole)

    def nodes(self):
        """Return values of y at latent ones of each flow, and weights.

        Latent nodes are spread like a wider normal: of skewed flows, fewer of them are as accurate
        as nodes at equal distances. Nodes of different flows do not coincide: multiples of the
        golden ratio shift them, so that the shifts of any few flows are spread evenly. The last
        value is the `cdf` there, for a single flow.
        """
        n_flows = len(self.flows)
        n = max(-(-N_NODES // n_flows), NODES_PER_FLOW)
        shift = (np.arange(n_flows) * GOLDEN + 0.5) % 1
        latent = SPREAD * ndtri((np.arange(n) + shift[:, None]) / n)
        weight = norm.pdf(latent) / norm.pdf(latent / SPREAD)
        weight = self.weights[:, None] * weight / weight.sum(axis=1, keepdims=True)

        def values(context):
            y = []
            for flow, sign, part in zip(self.flows, self.signs, latent, strict=True):
                rows = np.broadcast_to(sign * part[:, None, None], (len(part), len(context), 1))
                y.append(at_contexts(flow, context).map("inverse", rows)[0][..., 0])
            return np.concatenate(y).T

        y = _evaluation().in_large_blocks(self.flows[0], values, self.context, each=n)
        below = np.broadcast_to(norm.cdf(latent[0]), y.shape) if n_flows == 1 else None
        return y, weight.ravel(), below

    def draws(self, n_draws):
        """Return draws from a quasi-random sequence."""
        d, turn = self.n_outputs, turns(self.weights, n_draws)
        latent = ndtri(qmc.Sobol(d, seed=0).random(n_draws) * (1 - 1e-9) + 5e-10)
        ends = np.cumsum(np.bincount(turn, minlength=len(self.flows)))[:-1]

        def draws(context):
            y = np.empty((len(context), n_draws, d))
            # In turn, so that the first draws are of all flows; blocks of the sequence are even.
            for i, part in enumerate(np.split(latent, ends)):
                if not len(part):  # of a small weight
                    continue
                rows = np.repeat(context, len(part), axis=0)
                drawn = inverse(self.flows[i], np.tile(part, (len(context), 1)), rows)
                y[:, turn == i] = drawn.reshape(-1, len(part), d)
            return y

        return np.moveaxis(in_blocks(draws, self.context, each=n_draws), 1, 0)

    def sample(self, size, random_state):
        """Return random draws."""
        latent = random_state.standard_normal((self.n, size, self.n_outputs))
        member = random_state.choice(len(self.flows), size=(self.n, size), p=self.weights)
        y = np.empty_like(latent)
        for i, flow in enumerate(self.flows):
            row, draw = np.nonzero(member == i)
            y[row, draw] = self._inverse(flow, latent[row, draw], row)
        return y

    def _inverse(self, flow, latent, row):
        """Return y at latent rows (m, n_outputs) in some rows."""
        if self.n_outputs > 1:  # whose networks see earlier outputs too
            return inverse(flow, latent, self.context[row])

        def of_block(latent, row):
            distinct, place = np.unique(row, return_inverse=True)
            flow_there = at_contexts(flow, self.context[distinct]).take(place)
            return flow_there.map("inverse", latent[None])[0][0]

        return _evaluation().in_large_blocks(flow, of_block, latent, row)


def signs_of(flows, ends):
    """Return whether flows of a single output grow, from two rows of which the second is higher."""
    latent = [_evaluation().map_rows(flow, "forward", ends)[0][:, 0] for flow in flows]
    return [float(np.sign(high - low) or 1) for low, high in latent]


def n_neighbors(row):
    """Return how many values of each row are neighbours, 1 if rows have different numbers."""
    change = np.flatnonzero(np.diff(row, append=-1)) + 1
    k = change[0] if len(change) else 1
    return k if (np.diff(change, prepend=0) == k).all() else 1


def inverse(flow, latent, context):
    """Return y at latent rows."""
    return _evaluation().map_rows(line(flow), "inverse", np.column_stack([latent, context]))[0]


def at_contexts(flow, context):
    """Return a flow at contexts, to map many rows of each."""
    if isinstance(flow, ValueProbabilities):
        return flow.given(context)
    return _evaluation().GivenFlow(line(flow), context)


def _evaluation():
    from ..density import _evaluation  # imports torch

    return _evaluation


def line(flow):
    """Return the flow on the line, if its density is wrapped around a circle."""
    from ..bijections._flow import Flow
    from ..bijections._wrapped import Wrapped

    is_wrapped = isinstance(flow.bijection, Wrapped)
    return Flow(flow.preprocess, flow.bijection.bijection) if is_wrapped else flow


def turns(weights, n):
    """Return whose turn each of n draws is, if each has its share of the first ones too."""
    counts, turn = np.zeros(len(weights)), np.empty(n, dtype=int)
    for k in range(n):
        turn[k] = np.argmax(weights * (k + 1) - counts)
        counts[turn[k]] += 1
    return turn
