"""Rows of a table as the members of a density see them, and what members answer."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..distribution.normal import LOG_SQRT_2PI, normal_cdf

ALL = slice(None)  # rows


class Normals(NamedTuple):
    """A mixture of normals in each row; arrays of shape (n, n_components)."""

    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray

    def cdf(self, y, row=ALL):
        """Return the probability of scores up to y in some rows, of shape (n, k) or (1, k)."""
        total = 0.0
        for k in range(self.means.shape[1]):  # one by one, to bound the memory
            weight, mean, scale = (values[row, k, None] for values in self)
            total = total + weight * normal_cdf((y - mean) / scale)
        return total


class Histogram(NamedTuple):
    """Probabilities of bins, which are equally likely under a standard normal, ``(m, n_bins)``."""

    bins: np.ndarray

    def cdf(self, y, row=ALL):
        """Return the probability of scores up to y in some rows, of shape (m, k) or (1, k)."""
        return self._below(normal_cdf(y), np.arange(len(self.bins))[row, None])

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


LEAST_MASS = 1e-300


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
        self._mapped_from = self  # the rows under the schema of the table

    def __len__(self):
        return len(self.values)

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
        if self._mapped_from is not self:
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

    def predictive(self, view, j):
        return self.member.predictive(view.under(self.schema), j)

    def sample(self, schema, values, random_state):
        return self.member.sample(self.schema, values, random_state)
