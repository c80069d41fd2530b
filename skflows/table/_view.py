"""Rows of a table as the members of a density see them, and what members answer."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..distribution.normal import LOG_SQRT_2PI, normal_cdf

ALL = slice(None)  # rows
LEAST_MASS = 1e-300
VALUES_AT_ONCE = 2**17  # of distribution functions, which fit in a cache of the processor


class Normals:
    """A mixture of normals in each row, of any number of components, one row after the other.

    Parameters
    ----------
    counts : ndarray of shape (n,)
        Components of each row, at least one.
    weights, means : ndarray of shape (n_components,)
        Of the components of all rows. The weights of a row add up to 1.
    scales : ndarray of shape (n_components,) or (n,)
        Standard deviations, of each component or of all of a row.
    """

    def __init__(self, counts, weights, means, scales):
        self.counts, self.weights, self.means, self.scales = counts, weights, means, scales
        self.ends = np.concatenate([[0], np.cumsum(counts)])
        self.are_of_rows = len(scales) == len(counts) < len(means)

    @classmethod
    def of_rows(cls, weights, means, scales):
        """Return mixtures of equally many components, from arrays of shape (n, n_components)."""
        counts = np.full(len(weights), weights.shape[1])
        return cls(counts, *(each.ravel() for each in (weights, means, scales)))

    def take(self, rows):
        """Return the mixtures of some rows."""
        counts = self.counts[rows]
        starts = np.cumsum(counts) - counts
        index = np.repeat(self.ends[:-1][rows] - starts, counts) + np.arange(counts.sum())
        scales = self.scales[rows] if self.are_of_rows else self.scales[index]
        return Normals(counts, self.weights[index], self.means[index], scales)

    def cdf(self, y):
        """Return the probability of scores up to y in each row, of shape (n, k) or (1, k)."""
        scales = np.repeat(self.scales, self.counts) if self.are_of_rows else self.scales
        total = np.empty((len(self.counts), y.shape[1]))
        n_at_once = max(1, VALUES_AT_ONCE // y.shape[1])
        start = 0
        while start < len(total):
            first = self.ends[start]
            end = max(start + 1, np.searchsorted(self.ends, first + n_at_once, side="right") - 1)
            some = slice(first, self.ends[end])
            at = y if len(y) == 1 else np.repeat(y[start:end], self.counts[start:end], axis=0)
            below = normal_cdf((at - self.means[some, None]) / scales[some, None])
            below *= self.weights[some, None]
            total[start:end] = np.add.reduceat(below, self.ends[start:end] - first, axis=0)
            start = end
        return total

    def mean(self, y, values):
        """Return the mean of a step function of the score in each row, within its outer steps.

        Parameters
        ----------
        y : ndarray of shape (k + 1,)
            Ends of the steps.
        values : ndarray of shape (k,)
            Of the function.
        """
        if not self.are_of_rows:
            return mean_of_steps(self.cdf(y[None]), values)
        # Few scales: the mean of a normal is a smooth function of where it is.
        means = np.empty(len(self.counts), dtype=values.dtype)
        for scale in np.unique(self.scales):
            rows = np.flatnonzero(self.scales == scale)
            some = self.take(rows)
            of_centres = mean_of_steps(normal_cdf((y - y[:, None]) / scale), values)
            of_components = some.weights * np.interp(some.means, y, of_centres)
            means[rows] = np.add.reduceat(of_components, some.ends[:-1])
        return means


def mean_of_steps(below, values):
    """Return means ``(n,)`` of values between the ends of which the probability is below each."""
    weight = np.diff(below, axis=1)
    return weight @ values / np.maximum(weight.sum(axis=1), LEAST_MASS)


class Histogram(NamedTuple):
    """Probabilities of bins, which are equally likely under a standard normal, ``(m, n_bins)``."""

    bins: np.ndarray

    def take(self, rows):
        """Return the histograms of some rows."""
        return Histogram(self.bins[rows])

    def cdf(self, y):
        """Return the probability of scores up to y in each row, of shape (m, k) or (1, k)."""
        return self._below(normal_cdf(y), np.arange(len(self.bins))[:, None])

    def mean(self, y, values):
        """Return what `Normals.mean` does."""
        return mean_of_steps(self.cdf(y[None]), values)

    def _below(self, u, rows):
        """Return the probability below levels u of a standard normal, in some of the rows."""
        n_bins = self.bins.shape[1]
        edges = np.concatenate([np.zeros((len(self.bins), 1)), np.cumsum(self.bins, axis=1)], 1)
        bin_ = (n_bins * u).astype(int).clip(max=n_bins - 1)
        return edges[rows, bin_] + (n_bins * u - bin_) * self.bins[rows, bin_]

    def log_mass(self, low, y, high):
        """Return the log-mass of cells, or the log-density of points, in every row, ``(m, n)``."""
        n_bins = self.bins.shape[1]
        bin_ = (n_bins * normal_cdf(y)).astype(int).clip(max=n_bins - 1)
        log_mass = np.log(n_bins * self.bins[:, bin_]) - 0.5 * y**2 - LOG_SQRT_2PI
        is_cell = high > low
        if is_cell.any():
            every = np.arange(len(self.bins))[:, None]
            ends = (normal_cdf(end[is_cell]) for end in (low, high))
            below, above = (self._below(end, every) for end in ends)
            log_mass[:, is_cell] = np.log(np.maximum(above - below, LEAST_MASS))
        return log_mass


class Predictive(NamedTuple):
    """The distribution of one variable in each row.

    Attributes
    ----------
    levels : ndarray of shape (n, n_levels) or None
        Probabilities of levels; of a number with atoms, level 0 is the number.
    number : Normals, Histogram or None
        The distribution of the score of the number.
    map : object or None
        The map of the number to its score.
    """

    levels: np.ndarray | None
    number: Normals | Histogram | None
    map: object

    def take(self, rows):
        """Return the distributions in some rows."""
        levels = None if self.levels is None else self.levels[rows]
        return Predictive(levels, self.number and self.number.take(rows), self.map)


class TableView:
    """Rows with their cells in each space, and the inputs of a network; each is computed once.

    Attributes
    ----------
    kept : dict
        What members keep of the rows, by member.
    """

    def __init__(self, schema, values, weight=None):
        self.schema = schema
        self.values = values
        self.weight = np.ones(len(values)) if weight is None else weight
        self.kept = {}
        self._cells = {}
        self._under = {}  # by schema
        self._given = None, None  # a mask, and the rows of which it is known
        # The rows under the schema of the table, if these are under another. Not this view itself:
        # a cycle would keep its arrays until Python looks for cycles, which it counts in objects.
        self._mapped_from = None
        self.original = values  # to which rules apply, as dates of conditions are moved

    @classmethod
    def of_conditions(cls, schema, values):
        """Return rows whose known values are conditions."""
        view = cls(schema, schema.as_conditions(values))
        view.original = values
        return view

    def with_conditions(self, mask):
        """Return the rows if a mask of their values are conditions."""
        conditions = self.schema.as_conditions(self.values)
        if conditions is self.values:  # no dates
            return self
        return TableView(self.schema, np.where(mask, conditions, self.values), self.weight)

    def __len__(self):
        return len(self.values)

    def take(self, rows):
        """Return some of the rows."""
        return TableView(self.schema, self.values[rows], self.weight[rows])

    def under(self, schema):
        """Return the rows as another schema maps them; each schema maps them once."""
        if schema is self.schema:
            return self
        if schema not in self._under:
            self._under[schema] = other = TableView(schema, self.values, self.weight)
            other.known, other.code, other._mapped_from = self.known, self.code, self
        return self._under[schema]

    def given(self, mask):
        """Return the rows of which a mask is known, the same for the same mask."""
        if self._mapped_from is not None:
            return self._mapped_from.given(mask).under(self.schema)
        if self._given[0] is not mask:
            values = np.where(mask, self.values, np.nan)
            self._given = mask, TableView(self.schema, values, self.weight)
        return self._given[1]

    def cells(self, space):
        if space not in self._cells:
            self._cells[space] = self.schema.cells(self.values, self.code, space)
        return self._cells[space]

    @cached_property
    def known(self):
        """Which variables are known."""
        return ~np.isnan(self.values)

    @cached_property
    def code(self):
        """The codes of all variables."""
        return self.schema.code(self.values)

    @cached_property
    def judged(self):
        """The rows as the rules of the table see them."""
        return self.schema.rules.judged(self)

    @cached_property
    def informative(self):
        """Which known values say something about others: those outside of their kind do not."""
        informative = [
            variable.is_informative(self.values[:, j])
            for j, variable in enumerate(self.schema.variables)
        ]
        return np.stack(informative, axis=1)

    @cached_property
    def features(self):
        """Inputs of all variables, side by side; unknown ones have 0."""
        cells = self.cells("quantile")
        return np.concatenate(
            [
                variable.features(self.values[:, j], cells.code[:, j], cells.middle[:, j])
                for j, variable in enumerate(self.schema.variables)
            ],
            axis=1,
        )


class MemberOfFold:
    """A member of a table's density that was fitted to a part of the rows, under their own maps.

    Parameters
    ----------
    member : LatentClasses, BinnedClasses or NetworkMember
        The fitted member.
    schema : Schema
        The variables, with the maps of the rows of the fit.
    """

    def __init__(self, member, schema):
        self.member, self.schema = member, schema
        self.n_iter = getattr(member, "n_iter", 1)

    def log_prob(self, view, given=None):
        return self.member.log_prob(view.under(self.schema), given)

    def evidence(self, view):
        return self.member.evidence(view.under(self.schema))

    def posterior(self, view):
        return self.member.posterior(view.under(self.schema))

    def predictive(self, view, j, rows=ALL):
        return self.member.predictive(view.under(self.schema), j, rows)

    def sample(self, view, rows, random_state):
        return self.member.sample(view.under(self.schema), rows, random_state)


def distinct_rows(values):
    """Return distinct rows, and where each row is among them."""
    keys = np.ascontiguousarray(values).view(np.dtype((np.void, values.strides[0])))[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return values[first], inverse.ravel()
