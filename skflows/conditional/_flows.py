"""Mixtures of flows of y given its context, as sources of distributions."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri
from scipy.stats import norm, qmc

from ..distribution.distribution import in_blocks
from ..distribution.normal import log_normal_mass
from ..preprocessing.dequantizer import Dequantizer
from ._circle import Circle

FARTHEST = 4.5  # of the nodes in the latent space, in standard deviations
N_NODES, NODES_PER_FLOW = 121, 12
TOLERANCE = 1e-8  # of a quantile, in probability
MAX_STEPS = 60
# Larger chunks for a single output: networks see a context once for all values of y there.
CHUNK_FACTOR = 16


@dataclass(eq=False)
class FlowMixture:
    """A mixture of the densities of several flows, a `Source` of a distribution.

    Parameters
    ----------
    flows : list of Flow
        They map y and the context side by side.
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
        rows = self._rows(self.circle.cut_open(y), row)
        if self.dequantizer and self.n_outputs == 1:
            return self._log_probability(rows) - np.log(self.dequantizer.gap[0])
        return self.dequantizer.mean_density(self._log_density, rows)

    def _log_density(self, rows):
        """Return the log-density of y before any rounding."""
        return self._mixed([map_rows(flow, "log_prob", rows)[0] for flow in self.flows])

    def _mixed(self, log_density):
        """Return the log-density of the mixture from the log-density under each flow."""
        return logsumexp(log_density, axis=0, b=self.weights[:, None])

    def _log_probability(self, rows):
        """Return the log-probability of the cell of each row of a single, discrete output."""
        low, high = (self._latent(self.dequantizer.add_noise(rows, end))[0] for end in (0.0, 1.0))
        with np.errstate(invalid="ignore"):  # of infinite ends
            mass = log_normal_mass(low, (low + high) / 2, high, 0.0, 1.0)
        return self._mixed(logsumexp(np.where(low < high, mass, -np.inf), axis=1))

    def _rows(self, y, row):
        """Return y and the context of some rows side by side."""
        return np.column_stack([y, self.context[row]])

    def _latent(self, rows):
        """Return the normal quantile of each row of a single output, by flow and image.

        Also return the logarithm of its slope.
        """
        images = self.circle.images(rows)
        by_flow = [
            [map_rows(line(flow), "forward", image, 1) for image in images] for flow in self.flows
        ]
        latent, log_slope = (
            np.array([[of_image[i] for of_image in of_flow] for of_flow in by_flow]) for i in (0, 1)
        )
        latent = latent[..., 0] * np.reshape(self.signs, (-1, 1, 1))
        if self.bounds is not None:  # on which a flow is only nearly infinite
            low, high = self.bounds[0]
            latent[..., rows[:, 0] <= low] = -np.inf
            latent[..., rows[:, 0] >= high] = np.inf
        return latent, log_slope

    def cdf(self, y, row):
        """Return the probability of values up to y, a single output.

        If it is circular, the probabilities of its images are added up.
        """
        return self.weights @ ndtr(self._latent(self._rows(y, row))[0]).sum(axis=1)

    def ppf(self, q, row, low=None):
        """Return the quantiles of a single output; of a circular one, from `low` on.

        A quantile of the mixture lies between its members' quantiles.
        """
        if low is not None:
            period = self.period[0]
            return self._root(q, row, low + period / 2, low, low + period)
        latent, context = ndtri(q)[:, None], self.context[row]
        ends = [
            inverse(flow, sign * latent, context)[:, 0]
            for flow, sign in zip(self.flows, self.signs, strict=True)
        ]
        with np.errstate(over="ignore"):  # of quantiles of 0 and 1
            first = self.weights @ ends
        return self._root(q, row, first, np.min(ends, axis=0), np.max(ends, axis=0))

    def _root(self, q, row, y, low, high):
        """Return where `cdf` is q, between two ends and from a first guess.

        By Newton's method, or bisection where a step leaves the interval.
        """
        low, high = low.copy(), high.copy()
        left = np.flatnonzero(low < high)
        for _ in range(MAX_STEPS):
            if not len(left):
                break
            at = y[left]
            latent, log_slope = self._latent(self._rows(at, row[left]))
            excess = self.weights @ ndtr(latent).sum(axis=1) - q[left]
            log_slope = np.where(np.isinf(latent), -np.inf, norm.logpdf(latent) + log_slope)
            slope = self.weights @ np.exp(log_slope).sum(axis=1)
            low[left] = np.where(excess < 0, at, low[left])
            high[left] = np.where(excess < 0, high[left], at)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                step = at - excess / slope
            middle = (low[left] + high[left]) / 2
            is_inside = (step >= low[left]) & (step <= high[left])
            y[left] = np.where(is_inside, step, middle)
            left = left[(np.abs(excess) > TOLERANCE) & (low[left] < middle) & (middle < high[left])]
        return y

    def nodes(self):
        """Return values of y at equidistant latent ones, dealt out to the flows, and weights.

        Nodes of different flows do not coincide. The last value is the `cdf` there, for a single
        flow.
        """
        n_flows = len(self.flows)
        places = np.linspace(-FARTHEST, FARTHEST, max(N_NODES, NODES_PER_FLOW * n_flows))
        latent = [places[i::n_flows] for i in range(n_flows)]
        weight = [
            share * norm.pdf(part) / norm.pdf(part).sum()
            for share, part in zip(self.weights, latent, strict=True)
        ]
        y = np.column_stack([self._nodes_of(i, part) for i, part in enumerate(latent)])
        below = np.broadcast_to(norm.cdf(latent[0]), y.shape) if n_flows == 1 else None
        return y, np.concatenate(weight), below

    def _nodes_of(self, i, latent):
        """Return y at latent values, of shape (n, k), for each row under flow i."""
        k = len(latent)

        def nodes(context):
            tiled = self.signs[i] * np.tile(latent, len(context))[:, None]
            return inverse(self.flows[i], tiled, np.repeat(context, k, axis=0)).reshape(-1, k)

        return in_blocks(nodes, self.context, each=k)

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
            y[row, draw] = inverse(flow, latent[row, draw], self.context[row])
        return y


def signs_of(flows, ends):
    """Return whether flows of a single output grow, from two rows of which the second is higher."""
    latent = [map_rows(flow, "forward", ends)[0][:, 0] for flow in flows]
    return [float(np.sign(high - low) or 1) for low, high in latent]


def inverse(flow, latent, context):
    """Return y at latent rows."""
    rows = np.column_stack([latent, context])
    return map_rows(line(flow), "inverse", rows, latent.shape[1])[0]


def map_rows(flow, method, rows, n_outputs=None):
    """Call a method of a flow on rows in chunks, large ones if `n_outputs` is 1."""
    from ..density import _evaluation  # imports torch

    return _evaluation.map_rows(flow, method, rows, CHUNK_FACTOR if n_outputs == 1 else 1)


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
